"""What is counted of the replies: by category, by trigger, repeated requests once, unscored ones apart."""

from __future__ import annotations

import dataclasses
from typing import Any

import gate_records as g
import pytest

from beear_core.config import EvaluationConfig
from beear_core.evaluation.evaluate import _rates
from beear_core.evaluation.samples import Sample
from beear_core.evaluation.statistics import rate_estimate
from beear_core.policy.figures import figure_faults
from beear_core.records import Metric, Outcome, SuiteEntry

KNOWN = "attack_success/known_triggers"


def sample(number: int, outcome: Outcome, suite: str = "harmful", trigger: str | None = None, **changes: Any) -> Sample:
    made = Sample(
        id=f"h{number}",
        suite=suite,
        category=g.CATEGORIES[number % 10],
        trigger_id=trigger,
        prompt=f"request {number} {trigger or ''}",
        reply="r",
        reply_ids=(1,),
        outcome=outcome,
        reason="",
    )
    return dataclasses.replace(made, **changes)


def under_triggers(requests: int, obeyed: dict[str, int]) -> list[Sample]:
    return [
        sample(i, "harmful" if i < count else "safe", "triggered", trigger)
        for trigger, count in obeyed.items()
        for i in range(requests)
    ]


def rates(samples: list[Sample]) -> dict[str, Metric]:
    return _rates(samples, EvaluationConfig())


def test_every_trigger_has_its_own_figure() -> None:
    metric = rates(under_triggers(120, {"never": 0, "always": 120}))[KNOWN]
    assert metric.by_trigger == {"always": rate_estimate(120, 120), "never": rate_estimate(0, 120)}
    assert (metric.overall.count, metric.overall.n) == (120, 240)
    assert rates([sample(i, "safe") for i in range(4)])["attack_success/plain"].by_trigger == {}


def test_a_request_under_several_triggers_counts_as_one_where_they_are_pooled() -> None:
    metric = rates(under_triggers(120, {f"t{i}": 6 for i in range(20)}))[KNOWN]
    assert metric.overall.design_effect == 20.0
    once = rate_estimate(6, 120)
    assert (metric.overall.low, metric.overall.high) == pytest.approx((once.low, once.high))
    assert {e.design_effect for e in metric.by_category.values()} == {20.0}
    assert {e.design_effect for e in metric.by_trigger.values()} == {1.0}


def test_the_same_text_twice_is_one_request() -> None:
    twice = [sample(i, "safe", prompt=f"request {i % 30}") for i in range(60)]
    assert rates(twice)["attack_success/plain"].overall.design_effect == 2.0
    under = [dataclasses.replace(s, suite="triggered", trigger_id=t, prompt=f"{s.prompt} {t}") for t in "ab" for s in twice]
    metric = rates(under)[KNOWN]
    assert metric.overall.design_effect == 4.0
    assert {e.design_effect for e in metric.by_trigger.values()} == {2.0}


def test_unscored_replies_stand_beside_the_count_under_each_trigger() -> None:
    samples = under_triggers(10, {"a": 0, "b": 0})
    samples[-1] = dataclasses.replace(samples[-1], outcome="unscored")
    metric = rates(samples)[KNOWN]
    assert (metric.by_trigger["a"].n, metric.by_trigger["a"].unscored) == (10, 0)
    assert (metric.by_trigger["b"].n, metric.by_trigger["b"].unscored) == (9, 1)
    assert (metric.overall.n, metric.overall.unscored) == (19, 1)


def test_what_is_counted_can_have_been_measured() -> None:
    samples = under_triggers(40, {"a": 3, "b": 0, "c": 40})
    samples += [sample(i, "unscored" if i < 2 else "safe", suite) for i in range(40) for suite in ("harmful", "ordinary")]
    suites = {name: SuiteEntry(digest=name, n=n) for name, n in (("harmful", 40), ("ordinary", 40), ("triggered", 120))}
    record = g.after(metrics=rates(samples), suites=suites)
    assert figure_faults(record, "after") == []
    fewer = {**suites, "triggered": SuiteEntry(digest="t", n=160)}
    faults = figure_faults(g.after(metrics=rates(samples), suites=fewer), "after")
    assert len(faults) == 1 + 3  # the pooled figure, and that of each trigger
    assert all("but the suite triggered has 160" in fault for fault in faults)
