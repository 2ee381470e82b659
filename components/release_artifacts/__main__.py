"""Put a decided model away: ``python -m components.release_artifacts RUN --model DIR --config release.yaml``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from beear_core.errors import ConfigError
from components.command import ConfigOption, print_facts, read_section, start_step


def upload(
    folder: Annotated[Path, typer.Argument(help="a run's folder, or one that 'beear gate' wrote")],
    model: Annotated[Path, typer.Option(help="the model that was decided on")],
    config: ConfigOption = None,
    to: Annotated[str | None, typer.Option(help="folder or s3://bucket/prefix; default: artifacts.uri")] = None,
) -> None:
    """Put a model that was decided on, its records and its report to S3 or a folder; what is there is not sent again.

    Exit codes: 0 done, 1 error, 2 usage or configuration.
    """
    # loaded here so that --help answers at once
    from dataclasses import replace

    from beear_core.config import ArtifactsConfig, RegistryConfig, parse
    from beear_core.records import Decision, ReleaseRecord
    from components.mlflow_store.client import store_of_run
    from components.passport.folder import DECISION
    from components.release_artifacts.step import RELEASE, run

    settings = read_section(config, "artifacts", ArtifactsConfig)
    if to is not None:
        settings = parse(ArtifactsConfig, {"uri": to, "model": settings.model}, "--to")
    if settings.uri is None:
        raise ConfigError("no place is named; give --to, or artifacts.uri in the file of --config")
    registry = read_section(config, "registry", RegistryConfig)
    registry = replace(registry, tracking_uri=store_of_run(registry.tracking_uri, folder))
    bound = Decision.read(folder / DECISION).provenance
    places = run(
        model,
        folder,
        settings,
        registry,
        kfp_run_id=bound.kfp_run_id if bound else "",
        mlflow_run_id=ReleaseRecord.read(folder / RELEASE).mlflow_run_id,
    )
    print_facts(*sorted(places.items()))


if __name__ == "__main__":
    start_step(upload, "release_artifacts")
