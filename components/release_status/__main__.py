"""Leave how a run of the pipeline ended: ``python -m components.release_status --mlflow-run-id ID --page FILE``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from components.command import ConfigOption, JsonOption, print_facts, print_json, read_section, start_step


def status(
    page: Annotated[Path, typer.Option(help="file for the page about the run")],
    state: Annotated[
        Literal["SUCCEEDED", "FAILED", "CANCELED"], typer.Option(help="what Kubeflow says of the run")
    ] = "FAILED",
    mlflow_run_id: Annotated[str, typer.Option(help="of the run; else it is found by the next")] = "",
    kfp_run_id: Annotated[str, typer.Option(help="Kubeflow's id of the run")] = "",
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Leave status, report and logs of a run of the pipeline in MLflow and with the artifacts.

    Exit codes: 0 done, 1 nothing could be left anywhere, 2 usage or configuration.
    """
    # loaded here so that --help answers at once
    from dataclasses import asdict

    from beear_core.config import ArtifactsConfig, RegistryConfig
    from components.mlflow_store.client import RUNS, with_store
    from components.release_status.step import Ended, run

    registry = with_store(read_section(config, "registry", RegistryConfig), RUNS)
    artifacts = read_section(config, "artifacts", ArtifactsConfig)
    found = run(
        Ended(state),
        json.dumps(asdict(registry)),
        json.dumps(asdict(artifacts)),
        page,
        mlflow_run_id=mlflow_run_id,
        kfp_run_id=kfp_run_id,
    )
    if as_json:
        print_json(found)
    else:
        print_facts(("state", found.state), ("step", found.failed_step or "-"), ("page", page))


if __name__ == "__main__":
    start_step(status, "release_status")
