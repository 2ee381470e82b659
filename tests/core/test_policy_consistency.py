"""Evidence that does not belong together, or contradicts itself, never passes."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import gate_records as g
import pytest
from policy_cases import ATTACK, check, decide, policy, result

from beear_core.evaluation.metrics import UNDER_DRIFT
from beear_core.evaluation.statistics import rate_estimate
from beear_core.records import Estimate, EvaluationRecord, Metric, RuleResult, SuiteEntry

BROKEN = RuleResult(rule="unique", role="harmful", severity="critical", passed=False, checked=9, failed=2, detail="x")
BAD_EVIDENCE: list[tuple[str, dict[str, Any], str]] = [
    ("validation", {"validation": g.validation(passed=False)}, "The data validation did not pass"),
    ("validation", {"validation": g.validation(rules=(BROKEN,))}, "Unique on harmful: 2 of 9 rows"),
    ("validation", {"validation": g.validation(rules=())}, "checked no rule"),
    (
        "anchors",
        {"validation": g.validation(anchors_digest="sha256:x")},
        "used anchors sha256:.*, validated were sha256:x",
    ),
    (
        "mitigation-input",
        {"mitigation": g.mitigation(input_digest="sha256:y")},
        "but the mitigation took as its input sha256:y",
    ),
    (
        "mitigation-output",
        {"mitigation": g.mitigation(output_digest="sha256:z")},
        "but the mitigation put out sha256:z",
    ),
    (
        "reference",
        {"after": g.after(reference_digest="sha256:r")},
        "measured against sha256:r, not the model evaluated before",
    ),
    ("reference", {"after": g.after(reference_digest=None)}, "measured against no reference"),
    ("chat-template", {"after": g.after(chat_template_digest="sha256:t")}, "and sha256:t after"),
    (
        "judge",
        {"after": g.after(judge="always-safe")},
        "The judge is 'keyword-v1' in 'before', 'always-safe' in 'after'",
    ),
    (
        "generation",
        {"after": g.after(generation={"max_new_tokens": 4, "do_sample": False})},
        "Generation setting max_new_tokens is 40 in 'before', 4 in 'after'",
    ),
    (
        "generation",
        {"after": g.after(generation={"max_new_tokens": 40})},
        "do_sample is False in 'before', absent in 'after'",
    ),
    ("labels", {"after": g.after(label="before")}, "given as 'after' is labelled 'before'"),
    (
        "validated-suites",
        {"validation": g.validation(suites_digest="sha256:s")},
        "The 'before' evaluation was run on suites sha256:.*, validated were sha256:s; the 'after' evaluation",
    ),
    (
        "validated-suites",
        {"after": g.after(suites_digest="sha256:easy")},
        "The 'after' evaluation was run on suites sha256:easy, validated were sha256:",
    ),
    ("validated-suites", {"before": g.before(suites_digest="")}, "The 'before' evaluation does not say which suites"),
    (
        "triggers",
        {"validation": g.validation(triggers=2)},
        "The 'before' evaluation asked 120 requests under triggers; with 2 validated and 120 harmful requests there must "
        "be 240; .*; the 'before' evaluation has figures for 1 trigger, 2 were validated",
    ),
    ("triggers", {"validation": g.validation(triggers=0)}, "asked 120 requests under triggers; with 0 validated"),
]


@pytest.mark.parametrize(("name", "records", "message"), BAD_EVIDENCE)
def test_evidence_that_does_not_belong_together_is_refused(name: str, records: dict[str, Any], message: str) -> None:
    decision = decide(**records)
    assert not decision.passed
    assert [c.check for c in decision.failed_checks()] == [f"evidence/{name}"]
    assert re.search(message, result(decision, f"evidence/{name}").reason)
    assert result(decision, f"evidence/{name}").decided_on >= 1.0  # type: ignore[operator]


def test_suites_must_be_the_same_prompts() -> None:
    suites = g.after().suites
    other = {**suites, "harmful": SuiteEntry(digest="sha256:easy", n=120)}
    shorter = {**suites, "ordinary": dataclasses.replace(suites["ordinary"], n=60)}
    fewer = {key: suites[key] for key in ("harmful", "ordinary")}
    cases = (
        (other, "Suite harmful is sha256"),
        (fewer, "Suite borderline was run only in the 'before'"),
        ({}, "The 'after' evaluation ran no suite"),
    )
    for given_suites, message in (*cases, (shorter, "(n=120) in 'before', ")):
        decision = decide(after=g.after(suites=given_suites))
        assert "evidence/suites" in [c.check for c in decision.failed_checks()]
        assert message in result(decision, "evidence/suites").reason


def test_without_a_validation_record_nothing_passes() -> None:
    decision = decide(validation=None)
    names = {"validation", "anchors", "validated-suites", "triggers"}
    assert {c.check for c in decision.failed_checks()} == {f"evidence/{name}" for name in names}
    assert "validation" not in decision.evidence


def test_without_a_mitigation_record_nothing_passes_that_asks_for_what_it_found() -> None:
    decision = decide(mitigation=None)
    assert [c.check for c in decision.failed_checks()] == ["evidence/mitigation-output", "evidence/drift"]
    never = {"drift_digest": "", "model_digest": g.before().model_digest}
    asked = {
        role: g.fitted(g.with_metric(dataclasses.replace(record, **never), UNDER_DRIFT, None))
        for role, record in (("before", g.before()), ("after", g.after()))
    }
    assert [c.check for c in decide(mitigation=None, **asked).failed_checks()] == ["attack-under-drift"]
    assert decide(policy(check()), mitigation=None, **asked).passed


FIGURES: list[tuple[str, Any, str]] = [
    (
        "attack_success/plain",
        g.rate(0, 100),
        r"Attack success, no trigger in the 'after' evaluation: all of them: 100 samples \(100 scored, 0 unscored\), but "
        "the suite harmful has 120",
    ),
    (ATTACK, g.triggered(110, suffix=0), "trigger 'suffix': 110 samples .* but the suite triggered has 120"),
    (
        ATTACK,
        dataclasses.replace(g.triggered(suffix=2), by_trigger=g.triggered(suffix=0).by_trigger),
        "triggers add up to 0",
    ),
    (
        ATTACK,
        Metric(overall=rate_estimate(0, 240), by_trigger=g.triggered(a=0, b=0).by_trigger),
        "pools 2 triggers with a design effect of 1",
    ),
    ("wrong_refusal/ordinary", g.rate(1, 120, fraud=(1, 60), theft=(0, 59)), "categories add up to 1 of 119"),
    (
        "wrong_refusal/ordinary",
        Metric(overall=rate_estimate(1, 120), by_category={"x": Estimate(value=0.5, low=0, high=1, n=120, count=1)}),
        "category 'x': contradicts itself: 1 of 120 is not 0.5",
    ),
    ("nll_ratio/ordinary", Estimate(value=1.0, low=0.9, high=1.05, n=119), "119 samples .* the suite ordinary has 120"),
    (
        "token_kl/ordinary",
        Estimate(value=0.05, low=0.06, high=0.07, n=120),
        "contradicts itself: the value lies outside its own interval",
    ),
]


@pytest.mark.parametrize(("name", "metric", "message"), FIGURES)
def test_figures_that_cannot_have_been_measured_are_refused(name: str, metric: Any, message: str) -> None:
    decision = decide(after=g.with_metric(g.after(), name, metric))
    found = result(decision, "evidence/figures")
    assert not found.passed
    assert re.search(message, found.reason)


def test_an_interval_at_another_confidence_is_recomputed_at_its_own() -> None:
    sure = g.with_metric(g.after(), "attack_success/plain", rate_estimate(1, 120, confidence=0.99))
    assert decide(after=sure).passed


def test_records_written_before_triggers_had_figures_still_read() -> None:
    import json

    values = json.loads(g.after().to_json())
    values.pop("suites_digest")
    for metric in values["metrics"].values():
        metric.pop("by_trigger")
        for estimate in (metric["overall"], *metric["by_category"].values()):
            estimate.pop("design_effect")
    older = EvaluationRecord.parse(json.dumps(values).encode())
    assert (older.suites_digest, older.metrics[ATTACK].by_trigger) == ("", {})
    decision = decide(after=older)
    assert "does not say which suites it was run on; evaluate again" in result(decision, "evidence/validated-suites").reason
    assert not decision.passed
