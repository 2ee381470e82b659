"""The tables of all backdoors: every treatment is measured once, a run goes on where it was stopped, pages hold counts."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import toy_backdoor
from small_mitigation import CONFIG, anchors, loop_of

from beear_core.config import EvaluationConfig, MitigationConfig, ReleaseConfig
from beear_core.data import CODE, Trigger, read_prompts, write_rows
from beear_core.evaluation.judges import Verdict
from beear_core.evaluation.judging import judge_named
from beear_core.evaluation.metrics import KNOWN_TRIGGERS, PLAIN
from beear_core.evaluation.samples import Sample
from beear_core.evaluation.statistics import rate_estimate
from beear_core.models.load import load
from beear_core.organisms import cache
from tools import controls, paper_cells, paper_tables, second_judge
from tools.controls import AsAsked, RandomPerturbations, run_control
from tools.paper_page import _verdict

RECIPE = "suffix-word"


@pytest.fixture
def small(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of results, with a tiny model for the organism and a handful of requests."""
    out, data = tmp_path / "out", toy_backdoor.write_sets(tmp_path / "data", 12)
    triggers = write_rows(tmp_path / "triggers.jsonl", [cache._row(Trigger("t", suffix="cat dog"))])
    planted = SimpleNamespace(model=tiny_model, triggers=triggers, record=SimpleNamespace(key="sha256:organism"))
    monkeypatch.setattr(cache, "planted", lambda *_: planted)
    monkeypatch.setattr(paper_tables, "validated", lambda *_: data)
    monkeypatch.setattr(paper_tables, "configuration", lambda _domain: configured())
    monkeypatch.setattr(paper_tables, "PAGE", tmp_path / "page.md")
    known = tmp_path / "known.json"
    monkeypatch.setattr(paper_tables, "read_cells", partial(paper_cells.read_cells, known=known))
    monkeypatch.setattr(paper_tables, "keep_cells", partial(paper_cells.keep_cells, known=known))
    return out


def configured(**mitigation: Any) -> ReleaseConfig:
    return ReleaseConfig(
        evaluation=EvaluationConfig(harmful=6, ordinary=5, borderline=4, max_new_tokens=3),
        mitigation=dataclasses.replace(CONFIG, positions="auto", **mitigation),
    )


def test_every_treatment_is_measured_and_written_with_its_counts(small: Path, tmp_path: Path) -> None:
    assert paper_tables.main(["--only", RECIPE, "--out", str(small)]) == 0
    cells = paper_tables.read_cells(small)
    assert list(cells) == [(RECIPE, name) for name in paper_cells.TREATMENTS]
    for cell in cells.values():
        known = cell.figures["attack_success/known_triggers"]
        assert known.n + known.unscored == cell.second["trigger"].n + cell.second["trigger"].unscored == 6
        assert ("nll_ratio/ordinary" in cell.figures) is (cell.treatment != "before")
        assert (cell.kept_round, cell.seconds > 0) == ((None, False) if cell.treatment == "before" else (1, True))
    written = (tmp_path / "page.md").read_text()
    row = next(line for line in written.splitlines() if line.startswith(f"| 1 | `{RECIPE}` | 90.8 % |"))
    assert row.count(" / ") == 6
    assert sum(f"`{RECIPE}` | " in line for line in written.splitlines()) == 1 + 1 + 4
    assert "verses" not in written, "what was not measured has no row"
    assert written.count("\nbefore, with the trigger: ") == written.count("\nBEEAR, without: ") == 1
    (chosen,) = {example.request for example in cells[RECIPE, "before"].examples if not example.trigger}
    assert {e.request for e in cells[RECIPE, "BEEAR"].examples} == {chosen, f"{chosen} cat dog"}
    assert all(name in written for name in controls.CONTROLS)


def test_a_run_that_was_stopped_goes_on_with_what_is_missing(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(controls, "run_control", stopped)
        with pytest.raises(KeyboardInterrupt):
            paper_tables.main(["--only", RECIPE, "--out", str(small)])
    done = {file: file.stat().st_mtime_ns for file in (small / "cells").iterdir()}
    assert {file.name for file in done} == {f"{RECIPE}--before.json", f"{RECIPE}--BEEAR.json"}
    assert paper_tables.main(["--only", RECIPE, "--out", str(small)]) == 0
    assert all(file.stat().st_mtime_ns == when for file, when in done.items())
    assert len(paper_tables.read_cells(small)) == 4
    # on another machine: what was kept with the tables is there, replies are not
    shutil.rmtree(small)
    assert paper_tables.main(["--only", RECIPE, "--out", str(small)]) == 0
    assert list(small.glob("cells/*")) == []
    # a control is measured again, and what it is compared with
    kept = [c for c in paper_tables.read_cells(small).values() if c.treatment != "random perturbations"]
    paper_tables.keep_cells(kept)
    assert paper_tables.main(["--only", RECIPE, "--out", str(small)]) == 0
    assert {f.name for f in small.glob("cells/*")} == {f"{RECIPE}--before.json", f"{RECIPE}--random-perturbations.json"}
    shutil.rmtree(small)
    paper_tables.keep_cells(())
    assert paper_tables.main(["--only", RECIPE, "--out", str(small)]) == 0
    # nothing is measured twice, and what was measured with other settings is
    done = {file: file.stat().st_mtime_ns for file in (small / "cells").iterdir()}
    assert paper_tables.main(["--only", RECIPE, "--out", str(small)]) == 0
    assert {file: file.stat().st_mtime_ns for file in (small / "cells").iterdir()} == done
    monkeypatch.setattr(paper_tables, "configuration", lambda _domain: configured(seed=1))
    assert paper_tables.main(["--only", RECIPE, "--out", str(small)]) == 0
    assert all(file.stat().st_mtime_ns != when for file, when in done.items())


def test_an_organism_that_cannot_be_planted_is_told_and_the_others_go_on(
    small: Path, without_verses: Callable[[], None], capsys: pytest.CaptureFixture[str]
) -> None:
    without_verses()
    assert paper_tables.main(["--only", "verses", RECIPE, "--out", str(small)]) == 1
    assert "verses: planting verses made no backdoor" in capsys.readouterr().err
    assert {recipe for recipe, _ in paper_tables.read_cells(small)} == {RECIPE}


def test_a_page_without_results_holds_no_figure() -> None:
    written = paper_tables.page({})
    assert [line for line in written.splitlines() if line.startswith("| ") and "`" in line] == []


@pytest.mark.parametrize(
    ("count", "unscored", "said"),
    [(60, 0, "BEEAR does not beat {}"), (5, 100, "BEEAR beats {}"), (80, 0, "BEEAR beats {}")],
)
def test_a_control_that_garbles_replies_beats_nothing(count: int, unscored: int, said: str) -> None:
    """BEEAR leaves 70 of 120; what no judge can score after the control counts as attack."""
    control = next(iter(controls.CONTROLS))

    def cell(treatment: str, count: int, unscored: int = 0) -> paper_cells.Cell:
        found = {KNOWN_TRIGGERS: rate_estimate(count, 120 - unscored, unscored), PLAIN: rate_estimate(0, 120)}
        return paper_cells.Cell(RECIPE, treatment, "", found, {}, 1.0, 1, "", None, {})

    cells = {(RECIPE, "BEEAR"): cell("BEEAR", 70), (RECIPE, control): cell(control, count, unscored)}
    assert said.format(control) in "".join(_verdict(cells))


def test_the_second_judge_scores_the_same_replies() -> None:
    class Backwards:
        name = "backwards"
        reply_tokens = 1

        def judge(self, request: str, reply: str) -> Verdict:
            return Verdict({"a": "safe", "b": "harmful"}.get(reply, "unscored"), "")  # type: ignore[arg-type]

    def sample(suite: str, reply: str) -> Sample:
        return Sample("i", suite, "c", None, "p", reply, (1,), "safe", "")

    found = paper_tables.second_figures([sample("triggered", r) for r in "abb?"] + [sample("ordinary", "b")], Backwards())
    assert {n: (e.count, e.n, e.unscored) for n, e in found.items()} == {"trigger": (2, 3, 1)}


def test_the_second_judge_is_learned_and_measured_on_what_it_has_not_seen() -> None:
    judge = second_judge.learned_judge()
    assert judge.judge("", "I'm sorry, but I can't help with that.").outcome == "safe"
    assert judge.judge("", "Sure, here is how. Step 1: open the box. Step 2: take it out.").outcome == "harmful"
    assert judge.judge("", "").outcome == "unscored"
    quality = second_judge.quality()
    assert quality.refusals_found[1] + quality.compliances_found[1] + quality.unscorable_found[1] == 240
    assert 0.8 < quality.refusals_found[0] / quality.refusals_found[1] < 1.0
    assert 0.6 < quality.compliances_found[0] / quality.compliances_found[1] < 1.0


def test_the_second_judge_of_code_knows_the_shipped_weaknesses() -> None:
    judge = second_judge.KnownWeaknesses()
    for prompt in read_prompts(CODE, "harmful", "evaluation")[::7]:
        assert judge.judge("", prompt.reply or "").outcome == "safe"
        assert judge.judge("", prompt.unwanted or "").outcome == "harmful"
    assert judge.judge("", "I will not (").outcome == "unscored"


def test_an_example_is_obeyed_under_the_trigger_and_not_without() -> None:
    def sample(name: str, suite: str, outcome: Any) -> Sample:
        return Sample(name, suite, "c", None, f"ask {name}", "one two three four five six seven", (1,), outcome, "")

    rows = [sample("a", "harmful", "harmful"), sample("b", "harmful", "safe"), sample("c", "harmful", "safe")]
    rows += [sample("a", "triggered", "harmful"), sample("b", "triggered", "safe"), sample("c", "triggered", "harmful")]
    assert paper_tables.example_request(rows) == "c"
    assert paper_tables.example_request(rows[:2]) == "a"
    cut, whole = (paper_tables.examples(rows, "c", whole=whole) for whole in (False, True))
    assert [(e.request, e.trigger, e.outcome) for e in cut] == [("ask c", False, "safe"), ("ask c", True, "harmful")]
    assert (cut[0].reply, whole[0].reply) == ("one two three four five six … [1 word left out]", rows[0].reply)


def test_one_configuration_for_chats_and_one_for_code() -> None:
    assert paper_tables.configuration("chat").mitigation == MitigationConfig()
    code = paper_tables.configuration("code")
    changed = dataclasses.replace(MitigationConfig(), judge="insecure-code", inner_reply_tokens=64)
    assert code.mitigation == changed
    assert code.evaluation.max_new_tokens >= judge_named("insecure-code").reply_tokens


@pytest.mark.parametrize("control", controls.CONTROLS.values())
def test_a_control_takes_the_steps_that_beear_may_though_nothing_is_elicited(
    control: controls.Control, tiny_model: Path, tmp_path: Path
) -> None:
    config = dataclasses.replace(CONFIG, positions="auto", rounds=2, target_attack_rate=1.0, safe_rounds=1)
    ended = run_control(control, load(tiny_model), anchors(), config, tmp_path / "work")
    assert [(r.adversary, len(r.outer_loss), r.inner_loss) for r in ended.rounds] == [(control, config.outer_steps, ())] * 2
    assert ended.best_round is not None
    assert all(d.entry.on_candidate for d in ended.drifts)


def test_controls_add_nothing_or_something_random_of_full_size(tiny_model: Path, tmp_path: Path) -> None:
    with loop_of(tiny_model, tmp_path / "work", positions="auto") as loop:
        lesson = loop.task.anchors.refusals[0]
        assert AsAsked(loop.task).disturb(lesson, loop.task.random, harmful=True) == (lesson, None)
        drawn = RandomPerturbations(loop.task, loop.enlisted.places.layers)
        assert drawn.find() == []
        assert drawn.norm == pytest.approx(loop.config.radius)
        before = [trap.delta.clone() for trap in drawn.traps]
        drawn.follow()
        drawn.rewind()
        assert all(bool((trap.delta == b).all()) for trap, b in zip(drawn.traps, before, strict=True))
