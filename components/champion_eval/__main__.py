"""Measure the champion on files: ``python -m components.champion_eval --after FILE --suites DIR --record FILE``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from components.command import ConfigOption, JsonOption, print_facts, print_json, read_section, start_step


def champion(
    after: Annotated[Path, typer.Option(help="record of the model to decide on, of 'beear evaluate'")],
    suites: Annotated[Path, typer.Option(help="suites folder that it was measured on")],
    record: Annotated[Path, typer.Option(help="file for what is found, for 'beear gate --champion'")],
    samples: Annotated[Path, typer.Option(help="file for every reply in full, JSONL")],
    policy: Annotated[str, typer.Option(help="quick, standard, release, or a file")] = "standard",
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take the champion's measurements where they were made in the same way, or measure it anew.

    MLflow is the one that is configured or that MLFLOW_TRACKING_URI names, else the one of runs/.

    Exit codes: 0 done, also where there is no champion yet; 1 error, 2 usage or configuration.
    """
    # loaded here so that --help answers at once
    from beear_core.config import EvaluationConfig, RegistryConfig
    from components.champion_eval.step import run
    from components.mlflow_store.client import RUNS, with_store

    found = run(
        after,
        suites,
        samples,
        policy=policy,
        config=read_section(config, "evaluation", EvaluationConfig),
        registry=with_store(read_section(config, "registry", RegistryConfig), RUNS),
    )
    found.write(record)
    if as_json:
        print_json(found)
    else:
        print_facts(("champion", found.in_words()), ("record", record))


if __name__ == "__main__":
    start_step(champion, "champion_eval")
