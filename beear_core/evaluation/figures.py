"""How figures read in sentences and tables: the count beside every rate, the interval beside every estimate."""

from __future__ import annotations

from beear_core.evaluation.metrics import METRICS, Kind
from beear_core.records import Estimate, Metric
from beear_core.wording import percent_text, plural

NOT_MEASURED = "not measured"


def kind_of(metric: str) -> Kind:
    """Look up the kind of a metric; one that the vocabulary does not know is shown as a plain ratio."""
    return METRICS[metric].kind if metric in METRICS else "ratio"


def title_of(metric: str) -> str:
    """Look up a few words for a metric; its own name where the vocabulary does not know it."""
    return METRICS[metric].title if metric in METRICS else metric


def telling(metric: Metric | None) -> Estimate | None:
    """Choose the figure that stands for a metric: the worst trigger's where there are triggers, else the overall one.

    Unscored samples count as if they were bad, as they do where the metric is decided on.
    """
    if metric is None or not metric.by_trigger:
        return None if metric is None else metric.overall

    def at_worst(estimate: Estimate) -> float:
        asked = estimate.n + estimate.unscored
        return ((estimate.count or 0) + estimate.unscored) / asked if asked else 1.0

    return max(metric.by_trigger.values(), key=at_worst)


def number(value: float, kind: Kind) -> str:
    """Format a measured number: ``1.7%`` for a rate, ``1.034`` for a ratio, ``0.0213 nats`` for nats."""
    if kind == "rate":
        return f"{100 * value:.1f}%"
    return f"{value:.3f}" if kind == "ratio" else f"{value:.4f} nats"


def threshold(value: float, kind: Kind, *, relative: bool = False) -> str:
    """Format a number that a check decides with, as exact as needed: ``5%``, ``1.67 points``, ``1.1``, ``0.05 nats``."""
    text = f"{round(100 * value, 2) if kind == 'rate' else round(value, 4):g}"
    unit = {"rate": " points" if relative else "%", "ratio": "", "nats": " nats"}[kind]
    return text + unit


def sentence_figure(estimate: Estimate | None, kind: Kind) -> str:
    """Format a figure for a sentence: ``2 of 120 = 1.7% (95% interval 0.5% to 5.9%)``, with any that are unscored."""
    if estimate is None:
        return NOT_MEASURED
    unscored = f", {estimate.unscored} unscored" if estimate.unscored else ""
    if estimate.value is None:
        return f"without a value ({estimate.n} scored{unscored})"
    counted = kind == "rate" and estimate.count is not None
    counts = f"{estimate.count} of {estimate.n} = " if counted else ""
    samples = "" if counted else f"; {plural(estimate.n, 'sample')}"
    if estimate.low is None or estimate.high is None:
        interval = "no interval"
    else:
        low, high = number(estimate.low, kind), number(estimate.high, kind)
        interval = f"{percent_text(estimate.confidence)} interval {low} to {high}"
    return f"{counts}{number(estimate.value, kind)} ({interval}{samples}{unscored})"


def table_figure(estimate: Estimate | None, kind: Kind) -> str:
    """Format a figure for a table: ``2 / 120 = 1.7% [0.5, 5.9]``; bounds in the unit of the value."""
    if estimate is None or estimate.value is None:
        return NOT_MEASURED
    counted = kind == "rate" and estimate.count is not None
    counts = f"{estimate.count} / {estimate.n} = " if counted else ""
    text = counts + number(estimate.value, kind)
    interval = interval_text(estimate, kind)
    return f"{text} {interval}" if interval else text


def interval_text(estimate: Estimate | None, kind: Kind) -> str:
    """Format an interval: ``[0.5, 5.9]`` in the unit of the value (per cent for rates); empty where there is none."""
    if estimate is None or estimate.low is None or estimate.high is None:
        return ""
    if kind == "rate":
        return f"[{100 * estimate.low:.1f}, {100 * estimate.high:.1f}]"
    digits = 3 if kind == "ratio" else 4
    return f"[{estimate.low:.{digits}f}, {estimate.high:.{digits}f}]"
