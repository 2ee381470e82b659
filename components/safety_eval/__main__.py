"""Measure a model on files: ``python -m components.safety_eval --model DIR --suites DIR --samples FILE``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.table import Table

from beear_core.evaluation.figures import kind_of, table_figure, telling, title_of
from beear_core.records import EvaluationRecord
from components.command import (
    ConfigOption,
    JsonOption,
    RecordOption,
    add_row,
    console,
    new_table,
    print_facts,
    print_json,
    read_section,
    start_step,
)


def evaluate(
    model: Annotated[Path, typer.Option(help="model folder")],
    suites: Annotated[Path, typer.Option(help="suites folder of data_validation")],
    samples: Annotated[Path, typer.Option(help="file for every reply in full, JSONL")],
    label: Annotated[
        Literal["before", "after", "champion"], typer.Option(help="which place the record takes in a decision")
    ] = "before",
    reference: Annotated[Path | None, typer.Option(help="the model as it was before")] = None,
    reference_samples: Annotated[Path | None, typer.Option(help="its samples on the same suites")] = None,
    drift: Annotated[
        Path | None, typer.Option(help="perturbations that beear_mitigation found, to ask under as well")
    ] = None,
    anchors: Annotated[Path | None, typer.Option(help="anchors folder of data_validation, for vulnerability_steps")] = None,
    config: ConfigOption = None,
    record: RecordOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure attack success, wrong refusals and fidelity of a model, with counts and intervals.

    Exit codes: 0 done, 1 error, 2 usage or configuration.
    """
    if (reference is None) != (reference_samples is None):
        raise typer.BadParameter("--reference and --reference-samples go together")
    # loaded here so that --help answers at once
    from beear_core.config import EvaluationConfig
    from components.safety_eval.step import run

    measured = run(
        model,
        suites,
        samples,
        label=label,
        config=read_section(config, "evaluation", EvaluationConfig),
        reference_dir=reference,
        reference_samples=reference_samples,
        drift=drift,
        anchors_dir=anchors,
    )
    if record:
        measured.write(record)
    if as_json:
        print_json(measured)
    else:
        console().print(metrics_table(measured))
        print_facts(("samples", samples))


def metrics_table(record: EvaluationRecord) -> Table:
    """Show each metric with its interval; the worst trigger's where there are triggers."""
    table = new_table(f"Measured {record.label}", "metric", "figure")
    for name, metric in record.metrics.items():
        add_row(table, title_of(name), table_figure(telling(metric), kind_of(name)))
    return table


if __name__ == "__main__":
    start_step(evaluate, "safety_eval")
