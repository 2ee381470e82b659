"""Look before a release begins: ``python -m components.preflight --model path/to/model``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from beear_core.errors import EXIT_DONE
from components.command import (
    ConfigOption,
    Profile,
    ProfileOption,
    RunsOption,
    add_row,
    console,
    new_table,
    overrides,
    start_step,
)

if TYPE_CHECKING:
    from components.preflight.looks import Finding


def preflight(
    model: Annotated[str | None, typer.Option(help="as for release")] = None,
    config: ConfigOption = None,
    profile: ProfileOption = Profile.standard,
    policy: Annotated[str | None, typer.Option(help="as for release")] = None,
    triggers: Annotated[Path | None, typer.Option(help="as for release")] = None,
    out: RunsOption = Path("runs"),
) -> None:
    """Can every part be reached and written, is there room, does the model have a chat template?"""
    # loaded here so that --help answers at once
    from beear_core.config import load
    from components.mlflow_store.client import resolve_uri
    from components.preflight.looks import preflight as look

    settings = load(config, profile.value, overrides(model, policy, triggers))
    findings = look(settings, out, resolve_uri(settings.registry.tracking_uri, out), out)
    console().print(findings_table(findings))
    errors = [f.error for f in findings if f.error]
    raise typer.Exit(max((e.exit_code for e in errors), default=EXIT_DONE))


def findings_table(findings: Sequence[Finding]) -> Table:
    """Show what the pre-flight looked at."""
    table = new_table("Pre-flight", "part", "finding")
    for finding in findings:
        add_row(table, finding.part, Text(str(finding.error), "red") if finding.error else finding.detail)
    return table


if __name__ == "__main__":
    start_step(preflight, "preflight")
