"""The report's plots as inline SVG that needs no script, stays readable at any width, and follows dark mode.

Horizontal positions are percentages, so a plot stretches without its text. Colours are classes; see ``report.css``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from beear_core.evaluation.figures import number, table_figure, telling, threshold, title_of
from beear_core.evaluation.metrics import METRICS, Kind
from beear_core.records import Decision, Estimate, EvaluationRecord, RoundRecord
from beear_core.report.html import Html, Node, join, tag
from beear_core.wording import plural


@dataclass(frozen=True)
class Scale:
    """Values from ``low`` to ``high`` on 0 to 100% of the plot; ``low`` may be the larger, as on a vertical axis."""

    low: float
    high: float

    def at(self, value: float) -> str:
        """Tell where a value stands, as a percentage; kept within the plot."""
        share = (value - self.low) / (self.high - self.low) if self.high != self.low else 0.0
        return f"{100 * min(1.0, max(0.0, share)):.3f}%"


def ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """Choose about ``wanted`` round numbers from ``low`` to ``high``."""
    if not high > low:
        return [low]
    rough = (high - low) / wanted
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= rough * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    return [round(step * i, 10) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def interval_plot(decision: Decision, before: EvaluationRecord, after: EvaluationRecord) -> Html:
    """Draw every metric before and after, a dot with its interval, and the limit that the policy sets.

    Of known triggers the worst before and the worst after are drawn, which need not be the same.
    """
    panels = []
    for kind in ("rate", "ratio", "nats"):
        names = [n for n, spec in METRICS.items() if spec.kind == kind and (n in before.metrics or n in after.metrics)]
        if not names:
            continue
        scale = Scale(0.0, 1.0) if kind == "rate" else _fitted(kind, names, decision, before, after)
        rows = [_row(name, kind, scale, decision, before, after) for name in names]
        panels.append(tag("div", *rows, _axis(scale, kind), class_="dots"))
    if not panels:
        return tag("p", "Neither evaluation measured anything that can be drawn.", class_="note")
    return tag("figure", _legend(), *panels, class_="plot-figure")


def _estimate(record: EvaluationRecord, name: str) -> Estimate | None:
    return telling(record.metrics.get(name))


def _limit(decision: Decision, name: str, baseline: Estimate | None) -> float | None:
    """Find where the decisive limit on a metric stands on the axis of its values."""
    order = ("hard", "soft", "advisory")
    for check in sorted(decision.checks, key=lambda c: order.index(c.level)):
        if check.metric == name and check.category is None and "≤" in check.comparison:
            if "−" not in check.comparison:
                return check.limit
            if "before" in check.comparison and baseline is not None and baseline.value is not None:
                return baseline.value + check.limit
    return None


def _fitted(
    kind: Kind, names: Sequence[str], decision: Decision, before: EvaluationRecord, after: EvaluationRecord
) -> Scale:
    found = [1.0] if kind == "ratio" else [0.0]
    for name in names:
        limit = _limit(decision, name, _estimate(before, name))
        found += [] if limit is None else [limit]
        for estimate in (_estimate(before, name), _estimate(after, name)):
            if estimate is not None:
                found += [x for x in (estimate.value, estimate.low, estimate.high) if x is not None]
    low, high = min(found), max(found)
    margin = 0.15 * (high - low) or 0.1
    return Scale(0.0 if kind == "nats" else low - margin, high + margin)


def _row(
    name: str, kind: Kind, scale: Scale, decision: Decision, before: EvaluationRecord, after: EvaluationRecord
) -> Html:
    old, new = _estimate(before, name), _estimate(after, name)
    limit = _limit(decision, name, old)
    was = "" if METRICS[name].against_reference else f"before {table_figure(old, kind)}, "
    told = f"{title_of(name)}: {was}after {table_figure(new, kind)}"
    told += "" if limit is None else f", limit {threshold(limit, kind)}"
    marks: list[Node] = [tag("title", told)]
    marks += [_line(scale.at(t), 0, 40, "grid") for t in _axis_ticks(scale)]
    if kind == "ratio":
        marks.append(_line(scale.at(1.0), 0, 40, "baseline"))
    if limit is not None:
        marks.append(_line(scale.at(limit), 0, 40, "limit"))
    marks += [_mark(old, scale, 13, "before"), _mark(new, scale, 28, "after")]
    values = [
        None
        if METRICS[name].against_reference
        else tag("span", tag("i", "", class_="key before"), _short(old, kind), class_="value"),
        tag("span", tag("i", "", class_="key after"), _short(new, kind), class_="value"),
    ]
    return tag(
        "div",
        tag("div", title_of(name), class_="dot-label"),
        tag("svg", *marks, class_="track", height=40, role="img", aria_label=told),
        tag("div", *values, class_="dot-values"),
        class_="dot-row",
    )


def _short(estimate: Estimate | None, kind: Kind) -> str:
    if estimate is None or estimate.value is None:
        return "not measured"
    if kind == "rate" and estimate.count is not None:
        return f"{estimate.count} / {estimate.n} = {number(estimate.value, kind)}"
    return f"{number(estimate.value, kind)}, n = {estimate.n}"


def _line(x: str, top: float, bottom: float, class_: str) -> Html:
    return tag("line", x1=x, x2=x, y1=top, y2=bottom, class_=class_)


def _mark(estimate: Estimate | None, scale: Scale, y: float, role: str) -> Html | None:
    if estimate is None or estimate.value is None:
        return None
    parts: list[Node] = []
    if estimate.low is not None and estimate.high is not None:
        low, high = scale.at(estimate.low), scale.at(estimate.high)
        parts.append(tag("line", x1=low, x2=high, y1=y, y2=y, class_="span"))
        parts += [_line(end, y - 4, y + 4, "span") for end in (low, high)]
    parts.append(tag("circle", cx=scale.at(estimate.value), cy=y, r=5))
    return tag("g", *parts, class_=role)


def _axis_ticks(scale: Scale) -> list[float]:
    return ticks(scale.low, scale.high)


def _axis(scale: Scale, kind: Kind) -> Html:
    labels = [
        tag("text", threshold(t, kind).removesuffix(" nats"), x=scale.at(t), y=12, text_anchor="middle")
        for t in _axis_ticks(scale)
    ]
    name = {"rate": "share of samples", "ratio": "ratio, 1 = unchanged", "nats": "nats per token, 0 = unchanged"}[kind]
    return tag(
        "div",
        tag("div", name, class_="dot-label unit"),
        tag("svg", *labels, class_="track axis", height=16, aria_hidden="true"),
        tag("div", class_="dot-values"),
        class_="dot-row axis-row",
    )


def _legend() -> Html:
    entries = (("before", "before"), ("after", "after"), ("limit", "limit of the policy"))
    items = [tag("span", tag("i", "", class_=f"key {key}"), text) for key, text in entries]
    return tag("figcaption", *items, tag("span", "Bars are the intervals."), class_="legend")


def loss_plot(title: str, what: str, rounds: Sequence[Sequence[float]], class_: str) -> Html:
    """Draw one loss over all its steps, round after round; rounds are shaded in turn, and no line joins them.

    ``rounds``: one sequence of losses a round, one value a step, in nats per token.
    """
    finite = [loss for losses in rounds for loss in losses if math.isfinite(loss)]
    if not finite:
        return tag("figure", tag("figcaption", title), tag("p", "No steps were taken.", class_="note"), class_="loss")
    total = sum(len(losses) for losses in rounds)
    low, high = min(*finite, 0.0), max(*finite, 1e-9)
    grid = ticks(low, high + 0.08 * (high - low), 4)
    low, high = min(low, grid[0]), max(high, grid[-1])
    flip = Scale(high, low)
    marks: list[Node] = []
    done = 0
    every = max(1, math.ceil(len(rounds) / 6))
    for index, losses in enumerate(rounds):
        x, width = f"{100 * done / total:.3f}%", f"{100 * len(losses) / total:.3f}%"
        marks.append(tag("rect", x=x, y=0, width=width, height="100%", class_="band odd" if index % 2 else "band"))
        if losses and index % every == 0:
            middle = f"{100 * (done + len(losses) / 2) / total:.3f}%"
            marks.append(tag("text", f"round {index + 1}", x=middle, y=-6, text_anchor="middle", class_="round"))
        done += len(losses)
    for tick in grid:
        marks.append(tag("line", x1="0%", x2="100%", y1=flip.at(tick), y2=flip.at(tick), class_="grid"))
        marks.append(tag("text", f"{tick:g}", x=-8, y=flip.at(tick), dy="0.32em", text_anchor="end"))
    marks.append(_curves(rounds, total, low, high, class_))
    marks.append(tag("text", "1", x="0%", y="100%", dy=16, text_anchor="start"))
    marks.append(tag("text", f"step {total}", x="100%", y="100%", dy=16, text_anchor="end"))
    told = f"{title}: {plural(total, 'step')} in {plural(len(rounds), 'round')}, from {finite[0]:.3f} to {finite[-1]:.3f}"
    return tag(
        "figure",
        tag("figcaption", tag("strong", title), " ", what),
        tag("svg", tag("title", told), *marks, class_="curve", height=190, role="img", aria_label=told),
        class_="loss",
    )


def _curves(rounds: Sequence[Sequence[float]], total: int, low: float, high: float, class_: str) -> Html:
    """Draw the lines, in a frame of 1000 by 1000 that is stretched over the plot while strokes keep their width."""
    paths = []
    done = 0
    for losses in rounds:
        points = [
            f"{1000 * (done + i + 0.5) / total:.2f} {1000 * (high - loss) / (high - low):.2f}"
            for i, loss in enumerate(losses)
            if math.isfinite(loss)
        ]
        if points:
            line = "M" + "L".join(points) + ("h0.01" if len(points) == 1 else "")
            paths.append(tag("path", d=line, class_=f"loss-line {class_}", vector_effect="non-scaling-stroke"))
        done += len(losses)
    return tag("svg", *paths, viewBox="0 0 1000 1000", preserveAspectRatio="none", width="100%", height="100%")


def training_plots(rounds: Sequence[RoundRecord]) -> Html:
    """Draw inner and outer losses side by side."""
    inner = loss_plot(
        "Entrapment (inner) loss",
        "finds the perturbation; falls as it elicits",
        [r.inner_loss for r in rounds],
        "inner",
    )
    outer = loss_plot("Removal (outer) loss", "trains the model to withstand it", [r.outer_loss for r in rounds], "outer")
    return tag("div", join([inner, outer]), class_="pair")


@dataclass(frozen=True)
class Curve:
    """A rate over sizes in ascending order. ``class_``: ``before`` or ``after``, and ``random`` for a dashed line."""

    name: str
    class_: str
    points: Sequence[tuple[float, Estimate]]


def size_plot(curves: Sequence[Curve]) -> Html:
    """Draw rates with their intervals over the size of a perturbation, a line for each curve."""
    sizes = sorted({size for curve in curves for size, _ in curve.points})
    across, up = Scale(0.0, 1.08 * sizes[-1]), Scale(1.0, 0.0)
    marks: list[Node] = []
    for tick in ticks(0.0, 1.0, 4):
        marks.append(tag("line", x1="0%", x2="100%", y1=up.at(tick), y2=up.at(tick), class_="grid"))
        marks.append(tag("text", f"{100 * tick:.0f}%", x=-8, y=up.at(tick), dy="0.32em", text_anchor="end"))
    for size in sizes:
        marks.append(tag("text", f"{size:g}", x=across.at(size), y="100%", dy=16, text_anchor="middle"))
    told = []
    for curve in curves:
        known = [(across.at(size), e) for size, e in curve.points if e.value is not None]
        lines: list[Node] = [
            tag("line", x1=x, y1=up.at(a.value or 0.0), x2=to, y2=up.at(b.value or 0.0), class_="step")
            for (x, a), (to, b) in pairwise(known)
        ]
        for x, estimate in known:
            if estimate.low is not None and estimate.high is not None:
                lines.append(tag("line", x1=x, x2=x, y1=up.at(estimate.low), y2=up.at(estimate.high), class_="span"))
            lines.append(tag("circle", cx=x, cy=up.at(estimate.value or 0.0), r=4))
        marks.append(tag("g", *lines, class_=curve.class_))
        figures = [f"{table_figure(estimate, 'rate')} at {size:g}" for size, estimate in curve.points]
        told.append(f"{curve.name}: {', '.join(figures)}")
    legend = [tag("span", tag("i", "", class_=f"key {curve.class_}"), curve.name) for curve in curves]
    what = "Attack success by the largest norm of a perturbation, as a share of the hidden states' norm"
    return tag(
        "figure",
        tag("figcaption", what),
        tag("figcaption", *legend, class_="legend"),
        tag("svg", tag("title", "; ".join(told)), *marks, class_="curve sizes", height=190, role="img", aria_label=what),
        class_="loss",
    )
