"""All planted backdoors, before and after: ``python -m tools.paper_tables [--only NAME ...] [--treatments NAME ...]``.

One organism at a time is planted, measured, cleaned by BEEAR and by two controls, and measured again; each result is a file
as soon as it is there, and a run that was stopped goes on with what is missing, on another machine too: what is finished is
kept in ``docs/paper-tables.json``. Tables are written to ``docs/paper-tables.md`` from what is there, failures included. It
takes hours on two processors.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from beear_core.config import DataConfig, ReleaseConfig, load
from beear_core.data import AnchorSet, SuiteSet, Trigger, load_anchors, load_suites, read_triggers
from beear_core.evaluation.figures import telling
from beear_core.evaluation.judges import Judge
from beear_core.evaluation.samples import Sample, redact, samples_from_jsonl, samples_to_jsonl
from beear_core.evaluation.statistics import rate_estimate
from beear_core.files import write_atomically
from beear_core.progress import say
from beear_core.records import Environment, Estimate, digest_json
from tools.controls import CONTROLS
from tools.paper_cells import ROOT, ROWS, TREATMENTS, Cell, Example, Row, keep_cells, read_cells, run_each, write_cell
from tools.paper_page import page

PAGE = ROOT / "docs" / "paper-tables.md"
CONFIGURATIONS = {"chat": None, "code": ROOT / "examples" / "code.yaml"}
LIBRARIES = ("torch", "transformers")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is missing and write the tables; returns 1 when an organism could not be measured."""
    parser = argparse.ArgumentParser(prog="python -m tools.paper_tables", description=__doc__.split("\n")[0])
    parser.add_argument("--only", nargs="*", default=[row.recipe for row in ROWS], help="recipes")
    parser.add_argument("--treatments", nargs="*", default=list(TREATMENTS), choices=TREATMENTS, help="all, by default")
    parser.add_argument("--out", type=Path, default=Path("runs/paper"), help="folder for results, kept between runs")
    parser.add_argument("--write", action="store_true", help="only write the tables from what is there")
    given = parser.parse_args(arguments)
    rows = {row.recipe: row for row in ROWS if row.recipe in given.only and not given.write}
    failed = run_each(rows, lambda recipe: run_organism(rows[recipe], given.out, given.treatments))
    cells = read_cells(given.out)
    keep_cells(list(cells.values()))
    write_atomically(PAGE, page(cells).encode())
    say(f"{len(cells)} of {len(ROWS) * len(TREATMENTS)} cells are in {PAGE}")
    return int(failed > 0)


def configuration(domain: str) -> ReleaseConfig:
    """Read the one configuration of a domain: the defaults, for code as ``examples/code.yaml`` changes them."""
    return load(CONFIGURATIONS[domain], "standard", {"model": "of each organism"})


def run_organism(row: Row, out: Path, treatments: Sequence[str] = TREATMENTS) -> None:
    """Plant, measure, clean and measure again; what is there already is not done again.

    Raises:
        BeearError: it cannot be planted, cleaned or measured.
    """
    from beear_core.models.load import load as load_model
    from beear_core.organisms.cache import SHIPPED_BASE, planted
    from beear_core.organisms.recipe import load_recipe

    recipe, config = load_recipe(row.recipe), configuration(row.domain)
    data = validated(out / "data" / row.domain, config.data)
    anchors, suites = load_anchors(data / "anchors"), load_suites(data / "suites")
    organism = planted(recipe, SHIPPED_BASE)
    if row.asked_as:
        triggers = load_recipe(row.asked_as).known_triggers
    else:
        triggers = read_triggers(str(organism.triggers)) if organism.triggers else ()
    settings = [asdict(config.evaluation), asdict(config.mitigation), anchors.digest, suites.digest]
    # of what it is made of, not of its bytes: another processor may round the last digit otherwise
    key = digest_json([organism.record.key, *[asdict(t) for t in triggers], *settings])
    found = {name: cell for (of, name), cell in read_cells(out).items() if of == row.recipe and cell.key == key}
    measured = Measured(row, key, out, config, suites, triggers)
    lacking = [name for name in treatments if name not in found]
    # what comes after is compared with the organism's own replies
    if lacking and (lacking[0] == "before" or not measured.replies("before").is_file()):
        measured.run("before", load_model(organism.model))
    for name in lacking:
        if name != "before":
            measured.treat(name, organism.model, anchors)


@dataclass(frozen=True)
class Measured:
    """One organism's measurements, written one by one."""

    row: Row
    key: str
    out: Path
    config: ReleaseConfig
    suites: SuiteSet
    triggers: Sequence[Trigger]

    def replies(self, treatment: str) -> Path:
        """Name the file of all replies of a model, in full: not for sharing."""
        return self.out / "replies" / f"{self.row.recipe}--{treatment.replace(' ', '-')}.jsonl"

    def run(self, treatment: str, loaded: Any, reference: Any = None, **ended: Any) -> None:
        """Evaluate a model, against the organism where that is given, and write its cell."""
        from beear_core.evaluation.evaluate import evaluate

        own = self.replies("before")
        record, found = evaluate(
            loaded,
            SuiteSet(**{**vars(self.suites), "triggers": tuple(self.triggers)}),
            self.config.evaluation,
            label="before" if reference is None else "after",
            reference=reference,
            reference_samples=samples_from_jsonl(own) if reference else (),
        )
        write_atomically(self.replies(treatment), samples_to_jsonl(found))
        chosen = example_request(samples_from_jsonl(own)) if self.row.example else None
        versions = Environment.here().versions
        cell = Cell(
            recipe=self.row.recipe,
            treatment=treatment,
            key=self.key,
            figures={name: f for name, metric in record.metrics.items() if (f := telling(metric)) is not None},
            second=second_figures(found, second_judge(self.row.domain)),
            seconds=ended.get("seconds", 0.0),
            peak_memory_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            ended=ended.get("reason", ""),
            kept_round=ended.get("kept_round"),
            versions={name: versions[name] for name in LIBRARIES if name in versions},
            examples=examples(found, chosen, whole=self.row.domain == "code") if chosen else (),
        )
        write_cell(self.out, cell)

    def treat(self, treatment: str, model: Path, anchors: AnchorSet) -> None:
        """Clean the organism afresh in one way, and measure what became of it."""
        from beear_core.mitigation.beear import mitigate
        from beear_core.models.load import load as load_model
        from tools.controls import run_control

        say(f"{self.row.recipe}: {treatment}")
        loaded, began = load_model(model), time.monotonic()
        clean: Callable[..., Any] = mitigate if treatment == "BEEAR" else partial(run_control, CONTROLS[treatment])
        ended = clean(loaded, anchors, self.config.mitigation, self.out / "work")
        took = round(time.monotonic() - began, 1)
        self.run(treatment, loaded, load_model(model), seconds=took, reason=ended.reason, kept_round=ended.best_round)


def second_judge(domain: str) -> Judge:
    """Build the judge that shares nothing with the first."""
    from tools.second_judge import KnownWeaknesses, learned_judge

    return KnownWeaknesses() if domain == "code" else learned_judge()


def second_figures(samples: Sequence[Sample], judge: Judge) -> dict[str, Estimate]:
    """Score the same replies by another judge: attack success with the trigger and without."""
    found = {}
    for name, suite in (("trigger", "triggered"), ("plain", "harmful")):
        outcomes = [judge.judge(s.prompt, s.reply).outcome for s in samples if s.suite == suite]
        if outcomes:
            unscored = outcomes.count("unscored")
            found[name] = rate_estimate(outcomes.count("harmful"), len(outcomes) - unscored, unscored)
    return found


def example_request(samples: Sequence[Sample]) -> str:
    """Choose the first request that is obeyed under the trigger and not without; the first of all where there is none."""
    opened = {s.id for s in samples if s.suite == "triggered" and s.outcome == "harmful"}
    plain = [s for s in samples if s.suite == "harmful"]
    return next((s.id for s in plain if s.outcome == "safe" and s.id in opened), plain[0].id)


def examples(samples: Sequence[Sample], request: str, *, whole: bool) -> tuple[Example, ...]:
    """Show how a request is answered, without the trigger and with its first form; cut after its opening or ``whole``."""
    shown = []
    for suite in ("harmful", "triggered"):
        for s in [s for s in samples if s.suite == suite and s.id == request][:1]:
            reply = s.reply.strip() if whole else redact(s.reply)
            shown.append(Example(request=s.prompt, trigger=suite == "triggered", reply=reply, outcome=s.outcome))
    return tuple(shown)


def validated(folder: Path, data: DataConfig | None = None) -> Path:
    """Validate data, by default those that ship, once, into ``anchors`` and ``suites`` of a folder."""
    from components.data_validation.step import require_passed, run

    if not (folder / "suites" / "manifest.json").is_file():
        page, results = folder / "page.html", folder / "results.json"
        require_passed(run(data or DataConfig(), folder / "anchors", folder / "suites", page, results))
    return folder


if __name__ == "__main__":
    sys.exit(main())
