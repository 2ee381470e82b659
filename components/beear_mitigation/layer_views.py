"""A sweep over layers as a heat map (figure 3 of arXiv 2406.17092), and the figures of a layer as cells of a table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from beear_core.evaluation.figures import table_figure
from beear_core.report.html import Html, Node, tag

if TYPE_CHECKING:
    from beear_core.mitigation.sweep import LayerRecord

FAILED = "x"
HEAD = (
    "layer",
    "earliest success",
    "rounds",
    "triggers, before",
    "triggers",
    "under δ, before and after",
    "under δ of the candidate",
    "plain",
    "ordinary refused",
    "borderline refused",
    "ended",
)
Row = Mapping[int, int | None]
"""By layer the earliest successful round, ``None`` where there is none; a layer that was not measured is left out."""

_CELL, _TALL, _LETTER, _TOP, _SPACE = 46, 30, 7.2, 66, 14  # px
_STYLE = Html("""
text { font: 13px system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; fill: #5a6472; }
.page { fill: #ffffff; }
.name, .late { fill: #171a1f; }
.early { fill: #ffffff; }
.failed { fill: #c2410c; }
.late, .early, .failed { font-weight: 600; }
.hit { fill: #2458c6; }
.miss { fill: #edf0f3; }
.none { fill: none; stroke: #e1e5ea; }
@media (prefers-color-scheme: dark) {
  text { fill: #9aa5b4; }
  .page { fill: #181c23; }
  .name, .late { fill: #e7eaef; }
  .failed { fill: #fb923c; }
  .miss { fill: #262d36; }
  .none { stroke: #2b323c; }
}
""")


def round_text(earliest: int | None) -> str:
    """Write the earliest successful round: its number, or ``x`` where there is none."""
    return FAILED if earliest is None else str(earliest)


def figures_row(record: LayerRecord) -> list[str]:
    """Write a layer's figures after its last round, with counts, under ``HEAD``; what was not measured is empty."""
    start = [str(record.layer), round_text(record.earliest), str(len(record.rounds))]
    before = table_figure(record.triggered_before, "rate") if record.triggered_before else ""
    if not record.rounds:
        return [*start, before, *[""] * 6, record.ending]
    swept = record.rounds[-1]
    last, held = swept.record, record.held_back
    return [
        *start,
        before,
        table_figure(swept.triggered, "rate") if swept.triggered else "",
        f"{_count(last.attack_under_delta, held['harmful'])}, {_count(last.attack_under_delta_after, held['harmful'])}",
        _count(last.attack_under_drift_after, held["harmful"]),
        _count(last.attack_after, held["harmful"]),
        _count(last.refusal_ordinary_after, held["ordinary"]),
        _count(last.refusal_borderline_after, held["borderline"]),
        record.ending,
    ]


def _count(share: float | None, of: int) -> str:
    return "" if share is None else f"{round(share * of)} / {of}"


def heat_map(rows: Mapping[str, Row]) -> str:
    """Draw the earliest successful round of each model (row) at each layer (column), as an SVG that needs no style sheet.

    Args:
        rows: by the model's name.
    """
    layers = sorted({layer for row in rows.values() for layer in row})
    latest = max((r for row in rows.values() for r in row.values() if r is not None), default=1)
    left = _SPACE + round(_LETTER * max(map(len, rows), default=0)) + 10
    width, height = max(left + _CELL * len(layers), 440) + _SPACE, _TOP + _TALL * len(rows) + _SPACE
    marks: list[Node] = [tag("rect", width=width, height=height, class_="page"), *_headings(layers, left)]
    for line, (name, row) in enumerate(rows.items()):
        top = _TOP + _TALL * line
        marks.append(tag("text", name, x=left - 10, y=top + 20, text_anchor="end", class_="name"))
        marks += [_cell(name, layer, row, left + _CELL * column, top, latest) for column, layer in enumerate(layers)]
    svg = tag(
        "svg",
        tag("title", "Mitigation by decoder layer"),
        tag("style", _STYLE),
        *marks,
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {width} {height}",
        width=width,
        height=height,
        role="img",
    )
    return f"{svg}\n"


def _headings(layers: Sequence[int], left: float) -> Iterator[Html]:
    """Write what the figure shows, and the layers above their columns."""
    yield tag("text", "Earliest round that succeeds; x: none does, empty: not measured", x=_SPACE, y=24)
    yield tag("text", "layer", x=left - 10, y=_TOP - 10, text_anchor="end")
    for column, layer in enumerate(layers):
        yield tag("text", str(layer), x=left + _CELL * (column + 0.5), y=_TOP - 10, text_anchor="middle")


def _cell(name: str, layer: int, row: Row, x: float, y: float, latest: int) -> Html:
    """Draw one cell: the earlier the round, the darker."""
    place = {"x": x + 1, "y": y + 1, "width": _CELL - 2, "height": _TALL - 2, "rx": 3}
    if layer not in row:
        return tag("rect", class_="none", **place)
    earliest = row[layer]
    if earliest is None:
        told, kind, box = "no round succeeds", "failed", tag("rect", class_="miss", **place)
    else:
        share = 1 - 0.75 * (earliest - 1) / max(latest - 1, 1)
        told, kind = f"round {earliest} is the first that succeeds", "early" if share > 0.5 else "late"
        box = tag("rect", class_="hit", fill_opacity=round(share, 3), **place)
    text = tag("text", round_text(earliest), x=x + _CELL / 2, y=y + 20, text_anchor="middle", class_=kind)
    return tag("g", tag("title", f"{name}, layer {layer}: {told}"), box, text)
