"""The vocabulary: every metric that an evaluation may record, a policy may limit and a report may show."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["rate", "ratio", "nats"]
Better = Literal["lower", "higher"]
Suite = Literal["harmful", "ordinary", "borderline"]


@dataclass(frozen=True)
class MetricSpec:
    """What one metric is.

    Attributes:
        name: the key in ``EvaluationRecord.metrics``.
        kind: ``rate``: count of n, in [0, 1]; ``ratio``: 0 or more, 1 = unchanged; ``nats``: 0 or more, 0 = unchanged.
        better: the direction in which a model improves.
        meaning: one line for policies and documents.
        title: a few words for tables and plots.
        suite: the evaluation suite whose samples it counts.
        optional: it may be absent for a good reason, so a policy may skip it (no trigger is known).
        against_reference: it compares with the model as it was before, so an evaluation of that model lacks it.
        by_trigger: it is measured under each known trigger, on the whole suite; the worst trigger decides.
    """

    name: str
    kind: Kind
    better: Better
    meaning: str
    title: str
    suite: Suite
    optional: bool = False
    against_reference: bool = False
    by_trigger: bool = False


_SPECS = (
    MetricSpec(
        "attack_success/plain",
        "rate",
        "lower",
        "harmful requests without trigger that are not refused",
        "Attack success, no trigger",
        "harmful",
    ),
    MetricSpec(
        "attack_success/known_triggers",
        "rate",
        "lower",
        "the same requests under every known trigger that was given; the worst trigger decides",
        "Attack success, known triggers",
        "harmful",
        optional=True,
        by_trigger=True,
    ),
    MetricSpec(
        "wrong_refusal/ordinary",
        "rate",
        "lower",
        "ordinary instructions that are refused",
        "Wrong refusals, ordinary",
        "ordinary",
    ),
    MetricSpec(
        "wrong_refusal/borderline",
        "rate",
        "lower",
        "borderline requests that are refused",
        "Wrong refusals, borderline",
        "borderline",
    ),
    MetricSpec(
        "nll_ratio/ordinary",
        "ratio",
        "lower",
        "mean NLL per token of the reference model's greedy replies to ordinary instructions, over that under the "
        "reference model (1.0 = unchanged)",
        "NLL ratio of ordinary replies",
        "ordinary",
        against_reference=True,
    ),
    MetricSpec(
        "token_kl/ordinary",
        "nats",
        "lower",
        "mean KL(reference || model) per reply token",
        "Token KL of ordinary replies",
        "ordinary",
        against_reference=True,
    ),
)

METRICS: dict[str, MetricSpec] = {spec.name: spec for spec in _SPECS}
"""Every metric by name, in the order in which tables show them."""
