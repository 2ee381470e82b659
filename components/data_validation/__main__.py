"""Validate data on files: ``python -m components.data_validation --config release.yaml --out runs/data``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from beear_core.errors import EXIT_DONE, EXIT_REFUSED
from beear_core.records import RuleResult
from components.command import (
    ConfigOption,
    JsonOption,
    add_row,
    console,
    new_table,
    print_facts,
    print_json,
    read_section,
    start_step,
)


def validate(
    out: Annotated[Path, typer.Option(help="folder for anchors/, suites/, page, results and record")],
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Validate prompts, openings and triggers, and write the anchors/ and suites/ folders.

    Exit codes: 0 the data is fit for use, 1 error, 2 usage or configuration, 3 a critical rule failed.
    """
    # loaded here so that --help answers at once
    from beear_core.config import DataConfig
    from components.data_validation.step import failures, run

    page = out / "data_validation.html"
    data = read_section(config, "data", DataConfig)
    record = run(data, out / "anchors", out / "suites", page, out / "great_expectations.json")
    record.write(out / "validation.json")
    if as_json:
        print_json(record)
    else:
        console().print(rules_table(record.rules))
        print_facts(("page", page))
    for line in failures(record):
        typer.echo(f"critical: {line}", err=True)
    raise typer.Exit(EXIT_DONE if record.passed else EXIT_REFUSED)


def rules_table(rules: Sequence[RuleResult]) -> Table:
    """Show what was found, rule by rule; rules that hold are only counted."""
    table = new_table("Data validation", "role", "rule", "severity", "rows that break it", "finding")
    broken = [r for r in rules if not r.passed]
    for rule in broken:
        add_row(table, rule.role, rule.rule, rule.severity, f"{rule.failed} / {rule.checked}", rule.detail)
    add_row(table, "all", f"{len(rules) - len(broken)} of {len(rules)} rules hold", "", "", "")
    return table


if __name__ == "__main__":
    start_step(validate, "data_validation")
