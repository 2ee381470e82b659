"""What an evaluation looks like in Kubeflow's pages: figures with counts and bounds, a table, a confusion matrix."""

from __future__ import annotations

from collections.abc import Iterator

from beear_core.evaluation.figures import interval_text, kind_of, number, telling, title_of
from beear_core.evaluation.metrics import KNOWN_TRIGGERS, PLAIN, UNDER_DRIFT
from beear_core.records import Estimate, EvaluationRecord
from components.passport.figures import each_figure
from components.passport.markdown import escaped, table

ATTACKS = {PLAIN: "attack_plain", KNOWN_TRIGGERS: "attack_triggered", UNDER_DRIFT: "attack_under_drift"}
"""Metrics of harmful requests, and how Kubeflow's pages call them; of the others the name without its stroke."""
REFUSED, ANSWERED, NO_VERDICT = OUTCOMES = ("refused", "answered", "no verdict")
_HEAD = ("Measure", "Trigger", "Value", "95% interval", "Harmful", "Safe", "Refused", "Answered", "Unscored", "Samples")


def figures(record: EvaluationRecord) -> dict[str, float]:
    """List each metric's value, bounds, samples and unscored ones, the worst trigger's where there are triggers."""
    shown: dict[str, float] = {}
    for name, metric in record.metrics.items():
        estimate, key = telling(metric), ATTACKS.get(name, name.replace("/", "_"))
        if estimate is None:
            continue
        found = {"": estimate.value, "_low": estimate.low, "_high": estimate.high, "_n": float(estimate.n)}
        if kind_of(name) == "rate":
            found["_unscored"] = float(estimate.unscored)
        shown |= {f"{key}{part}": value for part, value in found.items() if value is not None}
    return shown


def summary(record: EvaluationRecord) -> str:
    """Write a page in Markdown: every figure with its interval and what its samples were judged to be."""
    confidences = {estimate.confidence for _, _, estimate in each_figure(record)}
    head = [f"{100 * min(confidences, default=0.95):g}% interval" if name == "95% interval" else name for name in _HEAD]
    return f"""# Measured {record.label}

Model `{record.model_digest}`, judge {escaped(record.judge)}.

{table(head, [_row(*figure) for figure in each_figure(record)])}

Rates are of the samples that were scored; one that no judge could score counts as bad where it is decided. The confusion
matrix beside this page sets what should have been done with a request against what was done: harmful requests, without
trigger and under known ones, should be refused, ordinary and borderline ones answered. Nothing should be without verdict,
so that row is empty.
"""


def _row(name: str, trigger: str, estimate: Estimate) -> tuple[str, ...]:
    kind = kind_of(name)
    value = "not measured" if estimate.value is None else number(estimate.value, kind)
    interval = interval_text(estimate, kind) or "–"
    counted, rest = ("–", "–") if estimate.count is None else (str(estimate.count), str(estimate.n - estimate.count))
    of_harm = name in ATTACKS
    counts = (counted, rest, "–", "–") if of_harm else ("–", "–", counted, rest)
    unscored = str(estimate.unscored) if kind == "rate" else "–"
    unit = " %" if kind == "rate" and interval != "–" else ""
    return (
        title_of(name),
        escaped(trigger) or "–",
        value,
        f"{escaped(interval)}{unit}",
        *counts,
        unscored,
        str(estimate.n),
    )


def confusion(record: EvaluationRecord) -> list[list[int]]:
    """Count requests: by row what should have been done with them, by column what was done, both in ``OUTCOMES``.

    Kubeflow draws square matrices alone, with one set of names for rows and columns.
    """
    matrix = {row: dict.fromkeys(OUTCOMES, 0) for row in OUTCOMES}
    for wanted, refused, answered, unscored in _requests(record):
        for column, count in zip(OUTCOMES, (refused, answered, unscored), strict=True):
            matrix[wanted][column] += count
    return [list(row.values()) for row in matrix.values()]


def _requests(record: EvaluationRecord) -> Iterator[tuple[str, int, int, int]]:
    """List what should have been done with a group of requests, and how many were refused, answered and unscored."""
    for name, metric in record.metrics.items():
        estimate = metric.overall
        # what a perturbation elicits was asked of nobody: it is measured under what no user can add
        if estimate.count is None or name == UNDER_DRIFT:
            continue
        counted, rest = estimate.count, estimate.n - estimate.count
        if name in ATTACKS:
            yield REFUSED, rest, counted, estimate.unscored
        else:
            yield ANSWERED, counted, rest, estimate.unscored
