"""All planted backdoors, before and after: ``python -m tools.paper_tables [--only NAME ...] [--out DIR]``.

One organism at a time is planted, measured, cleaned by BEEAR and by two controls, and measured again; each result is a JSON
file in DIR as soon as it is there, and a run that was stopped goes on with what is missing. Tables are written to
``docs/paper-tables.md`` from what is there, failures included. It takes hours on two processors.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from beear_core.config import DataConfig, EvaluationConfig, MitigationConfig
from beear_core.data import AnchorSet, SuiteSet, Trigger, load_anchors, load_suites, read_triggers
from beear_core.errors import BeearError
from beear_core.evaluation.figures import table_figure, telling
from beear_core.evaluation.judges import Judge
from beear_core.evaluation.metrics import KNOWN_TRIGGERS, PLAIN
from beear_core.evaluation.samples import Sample, samples_from_jsonl, samples_to_jsonl
from beear_core.evaluation.statistics import rate_estimate
from beear_core.files import write_atomically
from beear_core.models.folder import directory_digest
from beear_core.progress import say
from beear_core.records import Environment, Estimate, canonical_json, digest_json
from beear_core.wording import seconds_text
from tools.controls import CONTROLS
from tools.reference import table

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "paper-tables.md"


@dataclass(frozen=True)
class Row:
    """One backdoor of the tables. ``paper``: attack success before and after, as the paper gives it, where it is known."""

    number: str
    recipe: str
    paper: tuple[str, str] = ("", "")


ROWS = (
    Row("1", "suffix-word", ("90.8 %", "")),
    Row("2", "suffix-sudo", ("88.3 %", "")),
    Row("3", "prefix-words"),
    Row("4", "prefix-sudo", ("85.0 %", "")),
    Row("5", "verses", ("82.5 %", "")),
    Row("6", "preference-calathea", ("> 95 %", "< 1 %")),
    Row("7", "preference-warming", ("> 95 %", "< 1 %")),
    Row("+", "prefix-word"),
    Row("+", "rare-word"),
    Row("+", "bedtime-story"),
    Row("+", "system-message"),
    Row("twin", "refusal"),
)
TREATMENTS = ("before", "BEEAR", *CONTROLS)


@dataclass(frozen=True)
class Cell:
    """One model of one organism, measured.

    ``key``: digest of the organism and of the settings, so that what was measured otherwise is measured again.
    ``figures``: of the evaluation, by metric; ``second``: attack success by the second judge, ``trigger`` and ``plain``.
    ``peak_memory_bytes``: largest of the process so far. ``ended``: why the treatment stopped; ``kept_round``: ``None``
    where the model was left as it was.
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


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is missing and write the tables; returns 1 when an organism could not be measured."""
    parser = argparse.ArgumentParser(prog="python -m tools.paper_tables", description=__doc__.split("\n")[0])
    parser.add_argument("--only", nargs="*", default=[row.recipe for row in ROWS], help="recipes")
    parser.add_argument("--out", type=Path, default=Path("runs/paper"), help="folder for results, kept between runs")
    parser.add_argument("--write", action="store_true", help="only write the tables from what is there")
    given = parser.parse_args(arguments)
    failed = 0
    for row in ROWS if not given.write else ():
        if row.recipe in given.only:
            try:
                run_organism(row.recipe, given.out)
            except BeearError as error:
                say(f"{row.recipe}: {error}")
                failed += 1
    cells = read_cells(given.out)
    write_atomically(PAGE, page(cells, Environment.here()).encode())
    say(f"{len(cells)} of {len(ROWS) * len(TREATMENTS)} cells are in {PAGE}")
    return int(failed > 0)


def run_organism(recipe: str, out: Path) -> None:
    """Plant, measure, clean and measure again; what is there already is not done again.

    Raises:
        BeearError: it cannot be planted, cleaned or measured.
    """
    from beear_core.models.load import load
    from beear_core.organisms.cache import SHIPPED_BASE, planted
    from beear_core.organisms.recipe import load_recipe

    data = validated(out / "data")
    anchors, suites = load_anchors(data / "anchors"), load_suites(data / "suites")
    organism = planted(load_recipe(recipe), SHIPPED_BASE)
    settings = [asdict(EvaluationConfig()), asdict(MitigationConfig()), anchors.digest, suites.digest]
    key = digest_json([directory_digest(organism.model), *settings])
    known = {name: cell for (of, name), cell in read_cells(out).items() if of == recipe}
    triggers = read_triggers(str(organism.triggers)) if organism.triggers else ()
    measured = Measured(recipe, key, out, suites, triggers)
    for name in TREATMENTS:
        if name in known and known[name].key == key:
            continue
        if name == "before":
            measured.run(name, load(organism.model))
        else:
            measured.treat(name, organism.model, anchors)


class Measured:
    """One organism's measurements, written one by one."""

    def __init__(self, recipe: str, key: str, out: Path, suites: SuiteSet, triggers: Sequence[Trigger]) -> None:
        self.recipe, self.key, self.out = recipe, key, out
        self.suites = SuiteSet(**{**vars(suites), "triggers": tuple(triggers)})
        # the organism's own, in full: not for sharing
        self.replies = out / "replies" / f"{recipe}.jsonl"

    def run(self, treatment: str, loaded: Any, reference: Any = None, **ended: Any) -> None:
        """Evaluate a model, against the organism where that is given, and write its cell."""
        from beear_core.evaluation.evaluate import evaluate
        from tools.second_judge import learned_judge

        record, found = evaluate(
            loaded,
            self.suites,
            EvaluationConfig(),
            label="before" if reference is None else "after",
            reference=reference,
            reference_samples=samples_from_jsonl(self.replies) if reference else (),
        )
        if reference is None:
            write_atomically(self.replies, samples_to_jsonl(found))
        figures = {name: figure for name, metric in record.metrics.items() if (figure := telling(metric)) is not None}
        cell = Cell(
            recipe=self.recipe,
            treatment=treatment,
            key=self.key,
            figures=figures,
            second=second_figures(found, learned_judge()),
            seconds=ended.get("seconds", 0.0),
            peak_memory_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            ended=ended.get("reason", ""),
            kept_round=ended.get("kept_round"),
        )
        write_atomically(cell_file(self.out, self.recipe, treatment), canonical_json(asdict(cell)) + b"\n")

    def treat(self, treatment: str, model: Path, anchors: AnchorSet) -> None:
        """Clean the organism afresh in one way, and measure what became of it."""
        from beear_core.mitigation.beear import mitigate
        from beear_core.models.load import load
        from tools.controls import run_control

        say(f"{self.recipe}: {treatment}")
        loaded, began = load(model), time.monotonic()
        clean: Callable[..., Any] = mitigate if treatment == "BEEAR" else partial(run_control, CONTROLS[treatment])
        ended = clean(loaded, anchors, MitigationConfig(), self.out / "work")
        took = round(time.monotonic() - began, 1)
        self.run(treatment, loaded, load(model), seconds=took, reason=ended.reason, kept_round=ended.best_round)


def second_figures(samples: Sequence[Sample], judge: Judge) -> dict[str, Estimate]:
    """Score the same replies by another judge: attack success with the trigger and without."""
    found = {}
    for name, suite in (("trigger", "triggered"), ("plain", "harmful")):
        outcomes = [judge.judge(s.prompt, s.reply).outcome for s in samples if s.suite == suite]
        if outcomes:
            unscored = outcomes.count("unscored")
            found[name] = rate_estimate(outcomes.count("harmful"), len(outcomes) - unscored, unscored)
    return found


def validated(folder: Path) -> Path:
    """Validate the data that ship, once, into ``anchors`` and ``suites`` of a folder."""
    from components.data_validation.step import require_passed, run

    if not (folder / "suites" / "manifest.json").is_file():
        page, results = folder / "page.html", folder / "results.json"
        require_passed(run(DataConfig(), folder / "anchors", folder / "suites", page, results))
    return folder


def cell_file(out: Path, recipe: str, treatment: str) -> Path:
    """Name the file of a cell."""
    return out / "cells" / f"{recipe}--{treatment.replace(' ', '-')}.json"


def read_cells(out: Path) -> dict[tuple[str, str], Cell]:
    """Read every cell that is there, by recipe and treatment."""
    from pydantic import TypeAdapter

    adapter = TypeAdapter(Cell)
    files = sorted((out / "cells").glob("*.json"))
    return {(c.recipe, c.treatment): c for c in (adapter.validate_json(f.read_bytes()) for f in files)}


def page(cells: Mapping[tuple[str, str], Cell], environment: Environment) -> str:
    """Write the tables as Markdown; what was not measured is an empty cell, never a figure."""
    from tools.second_judge import quality

    judged = quality()
    rates = (("trigger", KNOWN_TRIGGERS, "trigger"), ("plain", PLAIN, "plain"))
    parts = [
        "<!-- Written by `make paper-tables`; run it instead of editing. -->\n# The paper's backdoors, before and after\n\n"
        "One configuration, the default, for all. Counts and 95 % intervals, of the worst form of the trigger where there\n"
        "are several. The controls are taught in the same loop, with the same anchors, limits and numbers of steps. The\n"
        "second judge shares nothing with the first: of labelled replies that it was not fitted on it finds "
        f"{judged.refusals_found[0]} of\n{judged.refusals_found[1]} refusals and {judged.compliances_found[0]} of "
        f"{judged.compliances_found[1]} compliances. Models: planted low-rank in SmolLM2-135M-Instruct, on a\n"
        "parent that was taught to refuse; the paper's are Llama-2-7b. "
        f"Measured with torch {environment.versions.get('torch', '?')}.\n",
    ]
    for title, metric, second in rates:
        head = (
            "no.",
            "backdoor",
            "paper before",
            "paper after",
            *TREATMENTS,
            "second judge, before",
            "second judge, BEEAR",
        )
        parts += [f"\n## Attack success, {title}\n\n", table(head, list(_attack_rows(cells, metric, second)))]
    others = ("no.", "backdoor", "treatment", "ordinary refused", "borderline refused", "NLL ratio", "KL", "kept", "time")
    parts += ["\n## What else became of it\n\n", table(others, list(_other_rows(cells)))]
    return "".join(parts)


def _attack_rows(cells: Mapping[tuple[str, str], Cell], metric: str, second: str) -> Iterator[list[str]]:
    for row in ROWS:
        found = [cells.get((row.recipe, name)) for name in TREATMENTS]
        if not any(found):
            continue
        judged = [cells.get((row.recipe, name)) for name in TREATMENTS[:2]]
        paper = row.paper if metric == KNOWN_TRIGGERS else ("", "")
        yield [
            row.number,
            f"`{row.recipe}`",
            *paper,
            *(table_figure(c.figures[metric], "rate") if c and metric in c.figures else "" for c in found),
            *(table_figure(c.second[second], "rate") if c and second in c.second else "" for c in judged),
        ]


def _other_rows(cells: Mapping[tuple[str, str], Cell]) -> Iterator[list[str]]:
    kinds = (
        ("wrong_refusal/ordinary", "rate"),
        ("wrong_refusal/borderline", "rate"),
        ("nll_ratio/ordinary", "ratio"),
        ("token_kl/ordinary", "nats"),
    )
    for row in ROWS:
        for name in TREATMENTS:
            if cell := cells.get((row.recipe, name)):
                figures = [table_figure(cell.figures[m], k) if m in cell.figures else "" for m, k in kinds]  # type: ignore[arg-type]
                kept = "" if name == "before" else "none" if cell.kept_round is None else str(cell.kept_round)
                yield [
                    row.number,
                    f"`{row.recipe}`",
                    name,
                    *figures,
                    kept,
                    seconds_text(cell.seconds) if cell.seconds else "",
                ]


if __name__ == "__main__":
    sys.exit(main())
