"""What the steps' commands share: their common options, how they print, how they end.

A step's command is one Typer definition in its ``__main__``: ``python -m components.<name>`` runs it by itself, ``beear``
takes the same definition as a verb.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from beear_core.config import parse, read_yaml
from beear_core.records import Record
from components.face import reporting_errors

T = TypeVar("T")
Cell = str | Text


class Profile(StrEnum):
    """How thorough a release is measured."""

    quick = "quick"
    standard = "standard"
    release = "release"


ProfileOption = Annotated[Profile, typer.Option("--profile", help="sample sizes and policy")]
RunsOption = Annotated[Path, typer.Option("--out", help="folder for runs; a local MLflow store is kept there too")]
JsonOption = Annotated[bool, typer.Option("--json", help="print the machine-readable result on standard output")]
ConfigOption = Annotated[Path | None, typer.Option("--config", help="YAML file; see docs/configuration.md")]
RecordOption = Annotated[Path | None, typer.Option("--record", help="also write the record to this file")]


def new_app(help_text: str | None = None, *, completion: bool = False) -> typer.Typer:
    """Make a Typer application that looks like every other one of this project."""
    return typer.Typer(
        help=help_text,
        no_args_is_help=help_text is not None,
        add_completion=completion,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )


def start(app: typer.Typer, name: str, arguments: Sequence[str] | None = None) -> NoReturn:
    """Run an application as a program: a user's error ends it with one message on standard error and its exit code.

    Args:
        app: what is run.
        name: how usage and errors call it.
        arguments: by default those of the process.

    Raises:
        SystemExit: always.
    """
    with reporting_errors():
        app(args=arguments, prog_name=name)
    sys.exit()


def start_step(command: Callable[..., None], component: str, arguments: Sequence[str] | None = None) -> NoReturn:
    """Run one step's command as ``python -m components.<component>``; see ``start``."""
    app = new_app()
    app.command()(command)
    start(app, f"python -m components.{component}", arguments)


def read_section(config: Path | None, name: str, cls: type[T]) -> T:
    """Read one section of a configuration file; without a file, take its defaults.

    Raises:
        ConfigError: the file cannot be read, or with every fault of the section.
    """
    values = read_yaml(config).get(name) if config else None
    return parse(cls, values, str(config or "the configuration"))


def overrides(
    model: str | None = None,
    policy: str | None = None,
    triggers: Path | None = None,
    name: str | None = None,
    enabled: bool | None = None,
) -> dict[str, Any]:
    """Collect what the command line says, in the configuration file's form; what it does not say is left out."""
    values: dict[str, Any] = {}
    if model is not None:
        values["model"] = model
    if policy is not None:
        values["policy"] = policy
    if triggers is not None:
        values["data"] = {"triggers": str(triggers)}
    if name is not None:
        values["registry"] = {"model_name": name}
    if enabled is not None:
        values["mitigation"] = {"enabled": enabled}
    return values


def print_json(record: Record) -> None:
    """Print a record on standard output, as it is written to files."""
    sys.stdout.write(record.to_json().decode())


def print_facts(*pairs: tuple[str, object]) -> None:
    """Print names and values, one pair a line."""
    for name, value in pairs:
        typer.echo(f"{name:11} {value}")


def console() -> Console:
    """Open standard output, wide enough for tables when it is not a terminal."""
    plain = Console()
    return plain if plain.is_terminal else Console(width=140)


def new_table(title: str, *columns: str) -> Table:
    """Make a table whose cells fold rather than being cut."""
    table = Table(title=Text(title), title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def add_row(table: Table, *cells: Cell) -> None:
    """Add a row whose texts are shown as they are: a name such as ``[/foo]`` is no markup."""
    table.add_row(*(cell if isinstance(cell, Text) else Text(cell) for cell in cells))
