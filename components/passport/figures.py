"""The figures of an evaluation one by one, as card, front matter and bill list them."""

from __future__ import annotations

from collections.abc import Iterator

from beear_core.evaluation.metrics import METRICS
from beear_core.records import Estimate, EvaluationRecord


def each_figure(record: EvaluationRecord) -> Iterator[tuple[str, str, Estimate]]:
    """List metric, trigger and estimate in the order of tables; what has triggers is told for each, not pooled."""
    names = [*METRICS, *sorted(record.metrics.keys() - METRICS.keys())]
    for name in names:
        if metric := record.metrics.get(name):
            for trigger, estimate in sorted(metric.by_trigger.items()) or [("", metric.overall)]:
                yield name, trigger, estimate
