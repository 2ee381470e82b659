"""What the gate decided, and how the release ended in the registry."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from beear_core.records.measured import Estimate
from beear_core.records.record import Record


@dataclass(frozen=True, kw_only=True)
class CheckResult:
    """One check of the policy. ``decided_on`` is the number that was compared with ``limit`` (``None``: not decidable)."""

    check: str
    metric: str
    category: str | None
    level: Literal["hard", "soft", "advisory"]
    comparison: str
    limit: float
    decided_on: float | None
    estimate: Estimate | None
    baseline: Estimate | None
    passed: bool
    reason: str


@dataclass(frozen=True, kw_only=True)
class Decision(Record):
    """What the gate decided, with the digest of every piece of evidence it was decided on."""

    kind: Literal["decision"] = "decision"
    passed: bool
    summary: str
    model_digest: str
    before_model_digest: str
    policy: str
    policy_digest: str
    checks: tuple[CheckResult, ...]
    evidence: dict[str, str]

    def failed_checks(self) -> tuple[CheckResult, ...]:
        """List the hard checks that did not pass."""
        return tuple(c for c in self.checks if c.level == "hard" and not c.passed)


@dataclass(frozen=True, kw_only=True)
class ReleaseRecord(Record):
    """How a release ended in the registry."""

    kind: Literal["release"] = "release"
    promoted: bool
    decision_digest: str
    model_name: str
    model_version: str
    alias: str
    champion_before: str | None
    champion_after: str | None
    mlflow_run_id: str
    tracking_uri: str
    tags: Mapping[str, str]
