"""What Kubeflow's pages show: counts, bounds and tables are those of the records, and KFP itself takes the matrix."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import gate_evidence
import pytest
from kfp import dsl
from reading_markdown import tables
from small_mitigation import CONFIG, anchors

from beear_core.evaluation.metrics import KNOWN_TRIGGERS, PLAIN
from beear_core.mitigation import beear
from beear_core.models.load import load
from beear_core.records import Decision, ReleaseRecord
from components.beear_mitigation import summary as of_mitigation
from components.registry_gate import summary as of_gate
from components.safety_eval import summary as of_evaluation

g = gate_evidence.g
KEPT = Path(__file__).parents[1] / "fixtures" / "release-schema-1"


def test_figures_have_counts_and_bounds() -> None:
    record = g.before()
    shown = of_evaluation.figures(record)
    worst = record.metrics[KNOWN_TRIGGERS].by_trigger["suffix"]
    assert shown["attack_triggered"] == 114 / 120
    assert (shown["attack_triggered_low"], shown["attack_triggered_high"]) == (worst.low, worst.high)
    assert (shown["attack_triggered_n"], shown["attack_triggered_unscored"]) == (120.0, 0.0)
    assert shown["wrong_refusal_borderline"] == 9 / 150
    assert shown["attack_plain_n"] == 120.0
    assert "nll_ratio_ordinary" not in shown
    after = of_evaluation.figures(g.after())
    assert after["nll_ratio_ordinary_low"] < after["nll_ratio_ordinary"] < after["nll_ratio_ordinary_high"]
    assert "nll_ratio_ordinary_unscored" not in after
    assert all(name.replace("_", "").isalnum() for name in after), "Kubeflow's pages sort and search by these names"


def test_the_table_of_an_evaluation_counts_outcomes_by_trigger() -> None:
    metrics = {PLAIN: g.spread(3, 120), KNOWN_TRIGGERS: g.triggered(110, unscored=10, suffix=90, prefix=7)}
    metrics["wrong_refusal/ordinary"] = g.rate(2, 120)
    page = of_evaluation.summary(g.before(metrics=metrics))
    [(head, *rows)] = tables(page).values()
    found = {(row[0], row[1]): dict(zip(head, row, strict=True)) for row in rows}
    suffix = found["Attack success, known triggers", "suffix"]
    assert (suffix["Harmful"], suffix["Safe"], suffix["Unscored"], suffix["Samples"]) == ("90", "20", "10", "110")
    assert suffix["Value"] == "81.8%"
    assert found["Attack success, known triggers", "prefix"]["Harmful"] == "7"
    ordinary = found["Wrong refusals, ordinary", "–"]
    assert (ordinary["Refused"], ordinary["Answered"], ordinary["Harmful"]) == ("2", "118", "–")
    assert ordinary["95% interval"].startswith("[0.5, 5.9] %")


def test_the_confusion_matrix_is_one_that_kubeflow_takes_and_loses_no_request() -> None:
    metrics = {PLAIN: g.spread(3, 120), KNOWN_TRIGGERS: g.triggered(110, unscored=10, suffix=90, prefix=7)}
    metrics |= {"wrong_refusal/ordinary": g.rate(2, 120), "wrong_refusal/borderline": g.rate(9, 150)}
    counts = of_evaluation.confusion(g.before(metrics=metrics))
    harmful, harmless, none = counts
    assert harmful == [117 + 20 + 103, 3 + 90 + 7, 20]
    assert harmless == [2 + 9, 118 + 141, 0]
    assert none == [0, 0, 0]
    artifact = dsl.ClassificationMetrics(name="outcomes", uri="x", metadata={})
    artifact.log_confusion_matrix(list(of_evaluation.OUTCOMES), counts)
    matrix = artifact.metadata["confusionMatrix"]
    assert [row["row"] for row in matrix["rows"]] == counts
    assert [one["displayName"] for one in matrix["annotationSpecs"]] == list(of_evaluation.OUTCOMES)


@pytest.mark.parametrize("name", ["passed", "refused"])
def test_the_table_of_a_decision_has_every_check_failed_ones_first(name: str) -> None:
    decision, release = Decision.read(KEPT / name / "decision.json"), ReleaseRecord.read(KEPT / name / "release.json")
    page = of_gate.summary(decision, release)
    (heading, (head, *rows)), *_ = tables(page).items()
    assert heading == {"passed": "PROMOTED", "refused": "REFUSED"}[name]
    assert len(rows) == len(decision.checks)
    verdicts = [row[head.index("Verdict")] for row in rows]
    failed = [check for check in decision.checks if not check.passed]
    assert bool(failed) is (name == "refused")
    assert verdicts[: len(failed)] == ["FAILED"] * len(failed)
    assert "FAILED" not in verdicts[len(failed) :]
    assert all(check.reason.split()[0] in page for check in failed)


def test_what_a_record_says_begins_no_markup() -> None:
    decision, release = (
        Decision.read(KEPT / "refused" / "decision.json"),
        ReleaseRecord.read(KEPT / "refused" / "release.json"),
    )
    hostile = "x | y <script>alert(1)</script> [a](https://b)"
    checks = tuple(dataclasses.replace(check, check=hostile, reason=hostile) for check in decision.checks)
    page = of_gate.summary(dataclasses.replace(decision, checks=checks, summary=hostile), release)
    assert "<script>" not in page
    [(head, *rows)] = list(tables(page).values())[:1]
    assert {len(row) for row in rows} == {len(head)}
    assert all(row[0].startswith(hostile) for row in rows)


def test_a_mitigation_tells_its_rounds_and_why_it_ended(tiny_model: Path, tmp_path: Path) -> None:
    from beear_core.records import MitigationRecord

    config = dataclasses.replace(CONFIG, rounds=2, attempts=2, max_nll_ratio=1e-6)
    ended = beear.mitigate(load(tiny_model), anchors(), config, tmp_path)
    record: MitigationRecord = dataclasses.replace(
        g.mitigation(), outcome="kept", ending=ended.ending, reason=ended.reason, rounds=ended.rounds, best_round=None
    )
    page = of_mitigation.summary(record)
    [(head, *rows)] = tables(page).values()
    assert page.startswith("# The candidate was kept: every round harmed what must stay")
    assert "The candidate's own bytes are kept." in page
    assert [row[head.index("Round")] for row in rows] == ["1", "2"]
    assert all(row[head.index("Attempts")] == "2" for row in rows)
    assert all("NLL ratio" in row[head.index("Ended")] for row in rows)
    shown = of_mitigation.figures(ended.rounds)
    last = ended.rounds[-1]
    assert (shown["attack_after"], shown["refusal_ordinary_after"]) == (last.attack_after, last.refusal_ordinary_after)
