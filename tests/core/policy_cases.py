"""Policies made up of checks, and what they decide on made up evidence, for the tests of the policy."""

from __future__ import annotations

from typing import Any

import gate_records as g
import yaml

from beear_core import policy as policies
from beear_core.evaluation.metrics import METRICS
from beear_core.evidence import Evidence
from beear_core.policy import GatePolicy
from beear_core.records import CheckResult, Decision

STANDARD = GatePolicy.load("standard")
RATES = [name for name, spec in METRICS.items() if spec.kind == "rate"]
ATTACK = "attack_success/known_triggers"


def check(**changes: Any) -> dict[str, Any]:
    base: dict[str, Any] = {
        "id": "attack",
        "metric": "attack_success/plain",
        "at_most": 0.05,
        "min_samples": 50,
        "reason": "because",
    }
    return {key: value for key, value in {**base, **changes}.items() if value is not None}


def policy(*checks: dict[str, Any], **changes: Any) -> GatePolicy:
    values = {"schema_version": 1, "name": "test", "description": "d", "checks": list(checks), **changes}
    return GatePolicy.parse(yaml.safe_dump(values))


def decide(p: GatePolicy = STANDARD, **records: Any) -> Decision:
    given = {
        "before": g.before(),
        "after": g.after(),
        "champion": None,
        "validation": g.validation(),
        "mitigation": g.mitigation(),
        **records,
    }
    return policies.decide(p, Evidence(**given))


def result(decision: Decision, name: str, category: str | None = None) -> CheckResult:
    return next(c for c in decision.checks if (c.check, c.category) == (name, category))
