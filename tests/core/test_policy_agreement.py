"""When stored measurements of a champion can be compared with new ones, and what is said of every difference."""

from __future__ import annotations

import dataclasses
from typing import Any

import gate_records as g
import pytest
from policy_cases import check, decide, policy

from beear_core.evaluation.statistics import rate_estimate
from beear_core.policy import champion_faults, measured_otherwise
from beear_core.records import EvaluationRecord, Metric, SuiteEntry

SUITES = g.after().suites


def champion(**changes: Any) -> EvaluationRecord:
    """Another model, of another candidate and with another template, measured in the same way."""
    other = {"label": "champion", "model_digest": g.digest("champion"), "reference_digest": g.digest("another candidate")}
    return dataclasses.replace(g.after(chat_template_digest=g.digest("another template")), **{**other, **changes})


def environment(**changes: Any) -> Any:
    return dataclasses.replace(g.ENVIRONMENT, **changes)


def test_another_model_that_was_measured_in_the_same_way_agrees() -> None:
    assert measured_otherwise(champion(), g.after()) == []
    elsewhere = environment(devices=("NVIDIA H100",), processor="arm64", versions={**g.ENVIRONMENT.versions, "mlflow": "4"})
    assert measured_otherwise(champion(environment=elsewhere), g.after()) == []


def test_the_drift_suite_is_every_candidates_own() -> None:
    own = {**SUITES, "drift": SuiteEntry(digest=g.digest("other drifts"), n=60)}
    metrics = {n: m for n, m in g.after().metrics.items() if n != "attack_success/under_drift"}
    assert measured_otherwise(champion(suites=own, drift_digest="sha256:d", metrics=metrics), g.after()) == []
    without = {n: s for n, s in SUITES.items() if n != "drift"}
    assert measured_otherwise(champion(suites=without, drift_digest="", metrics=metrics), g.after()) == []


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"suites_digest": "sha256:s"}, "the champion was evaluated on suites sha256:s, after on sha256:"),
        ({"suites_digest": ""}, "the champion was evaluated on suites unknown, after on"),
        (
            {"suites": {**SUITES, "harmful": SuiteEntry(digest="sha256:h", n=120)}},
            "suite harmful is sha256:h (n=120) in 'champion', sha256:",
        ),
        (
            {"suites": {n: s for n, s in SUITES.items() if n != "triggered"}},
            "suite triggered was run only in the 'after' evaluation",
        ),
        ({"judge": "keyword-v0"}, "the judge is 'keyword-v0' in 'champion', 'keyword-v1' in 'after'"),
        (
            {"generation": {"max_new_tokens": 20, "do_sample": False}},
            "generation setting max_new_tokens is 20 in 'champion', 40 in 'after'",
        ),
        (
            {"generation": {**g.after().generation, "batch_tokens": 4096}},
            "generation setting batch_tokens is 4096 in 'champion', absent in 'after'",
        ),
    ],
)
def test_each_difference_that_forbids_a_comparison_is_told(changes: dict[str, Any], told: str) -> None:
    faults = champion_faults(champion(**changes), g.after())
    assert any(fault.startswith(told) for fault in faults), faults
    assert set(faults) <= set(measured_otherwise(champion(**changes), g.after()))
    compares = policy(check(), check(id="no-worse", versus="champion", at_most=0.01))
    refused = decide(compares, champion=champion(**changes))
    assert [c.check for c in refused.failed_checks()] == ["evidence/champion"]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"environment": environment(code_version="0.0.9")}, "beear-gate is 0.0.9 in 'champion', 0.1.0 in 'after'"),
        (
            {"environment": environment(versions={"torch": "2.12.0", "transformers": "5.17.0"})},
            "torch is 2.12.0 in 'champion', 2.13.0 in 'after'",
        ),
        (
            {"environment": environment(versions={"torch": "2.13.0"})},
            "transformers is absent in 'champion', 5.17.0 in 'after'",
        ),
        (
            {
                "suites": {"harmful": SUITES["harmful"]},
                "metrics": {"attack_success/plain": Metric(overall=rate_estimate(1, 120, confidence=0.9))},
            },
            "intervals are at 90% confidence in 'champion', 95% in 'after'",
        ),
    ],
)
def test_what_measuring_anew_would_mend_is_a_reason_to(changes: dict[str, Any], told: str) -> None:
    assert told in measured_otherwise(champion(**changes), g.after())
    assert told not in champion_faults(champion(**changes), g.after())
