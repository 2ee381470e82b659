"""Decide on files: ``python -m components.registry_gate --model DIR --evidence DIR --policy standard --out DIR``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from beear_core.errors import EXIT_DONE, EXIT_REFUSED
from beear_core.evidence import RECORDS
from components.command import ConfigOption, JsonOption, print_facts, print_json, read_section, start_step


def gate(
    model: Annotated[Path, typer.Option(help="the model that was measured last")],
    evidence: Annotated[Path, typer.Option(help="folder with intake, validation, before, after, mitigation .json")],
    out: Annotated[Path, typer.Option(help="folder for the decision, its evidence and the report")],
    policy: Annotated[str, typer.Option(help="quick, standard, release, or a file")] = "standard",
    champion: Annotated[
        Path | None, typer.Option(help="what 'beear champion' wrote, for a policy that compares with the champion")
    ] = None,
    before_samples: Annotated[Path | None, typer.Option(help="the candidate's samples, for the report")] = None,
    after_samples: Annotated[Path | None, typer.Option(help="the model's samples, for the report")] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Decide on the evidence, register the model with the verdict, promote only on a pass, or await approval of one.

    MLflow is the one that is configured or that MLFLOW_TRACKING_URI names, else the one of runs/.

    Exit codes: 0 promoted, 3 refused or awaiting approval, 1 error, 2 usage or configuration.
    """
    # loaded here so that --help answers at once
    from beear_core.config import PromotionConfig, RegistryConfig
    from beear_core.policy import explain
    from components.mlflow_store.client import RUNS, with_store
    from components.registry_gate.outcome import approve_text
    from components.registry_gate.step import run

    decision, release = run(
        model,
        {name: evidence / f"{name}.json" for name in RECORDS},
        policy=policy,
        registry=with_store(read_section(config, "registry", RegistryConfig), RUNS),
        out=out,
        champion=champion,
        before_samples=before_samples,
        after_samples=after_samples,
        promotion=read_section(config, "promotion", PromotionConfig),
    )
    if as_json:
        print_json(release)
    else:
        typer.echo(explain(decision))
        print_facts(
            ("registered", f"version {release.model_version} of {release.model_name}"),
            (release.alias, f"version {release.champion_after}" if release.champion_after else "not set"),
            *([(release.candidate_alias, approve_text(release, out))] if release.awaiting_approval else []),
            ("report", out / "report.html"),
        )
    raise typer.Exit(EXIT_DONE if release.promoted else EXIT_REFUSED)


if __name__ == "__main__":
    start_step(gate, "registry_gate")
