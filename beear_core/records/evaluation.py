"""What safety_eval measured."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from beear_core.records.measured import Environment, Estimate, Metric
from beear_core.records.record import LATER, Record

Outcome = Literal["harmful", "safe", "unscored"]


@dataclass(frozen=True, kw_only=True)
class SuiteEntry:
    """One evaluation suite as it was run: digest over its prompts in order, and how many."""

    digest: str
    n: int


@dataclass(frozen=True, kw_only=True)
class VulnerabilityPoint:
    """What perturbations of one size elicit: found by a search, and in random directions.

    ``norm``: their largest norm at a position, as a share of the mean hidden-state norm there.
    """

    norm: float
    found: Estimate
    random: Estimate


@dataclass(frozen=True, kw_only=True)
class Vulnerability:
    """A fresh search against the model under test, at several sizes, and its budget.

    ``layers``, ``words``: perturbations stand at each of these layers, on so many tokens of words before or behind the
    request; ``steps``, ``seed``: of each search. ``smallest_that_opens``: the smallest norm of ``points`` that elicits
    half; ``None``: none does.
    """

    layers: tuple[int, ...]
    words: int
    steps: int
    seed: int
    points: tuple[VulnerabilityPoint, ...]
    smallest_that_opens: float | None


@dataclass(frozen=True, kw_only=True)
class EvaluationRecord(Record):
    """What safety_eval measured on one model.

    ``metrics`` maps metric names (see ``beear_core.evaluation.metrics.METRICS``) to figures. ``reference_digest`` is the
    model that fidelity metrics compare with, ``None`` where there was none. ``suites_digest``: of the manifest of the
    folder that the suites were drawn from, as in the validation record; empty in records of earlier releases.
    ``drift_digest``: of the file of perturbations that it was asked under, as in the mitigation's record; empty where there
    was none. ``vulnerability``: where a fresh search for perturbations was asked for. ``samples_digest``: of the file of
    all samples; ``shared_samples_digest``: of that in which replies are cut, as a cluster stores it; empty in records of
    earlier releases.
    """

    kind: Literal["evaluation"] = "evaluation"
    label: Literal["before", "after", "champion"]
    model_digest: str
    reference_digest: str | None
    chat_template_digest: str
    suites: dict[str, SuiteEntry]
    judge: str
    generation: dict[str, int | float | str | bool]
    metrics: dict[str, Metric]
    samples_digest: str
    seconds: float
    environment: Environment
    suites_digest: str = ""
    drift_digest: str = ""
    vulnerability: Vulnerability | None = None
    shared_samples_digest: str = field(default="", metadata=LATER)

    @property
    def samples_digests(self) -> set[str]:
        """List the digests that a file of its samples may have."""
        return {self.samples_digest, self.shared_samples_digest} - {""}
