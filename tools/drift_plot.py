"""The figure of drifts by layer, as SVG that needs nothing else: a small plot for each measure, a colour an organism."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle

from beear_core.report.html import Html, Node, join, tag
from beear_core.report.plots import ticks
from tools.drift_measures import DriftCell, LayerDrift

Value = Callable[[LayerDrift], float]
COLOURS = (
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7b3294", "#8c510a", "#1b7837", "#b2182b", "#3f3f3f",
    "#808000", "#9acd32", "#17becf",
)  # fmt: skip
INK, SOFT, GRID, BAND, BAND_EDGE = "#1f2328", "#59636e", "#e1e5ea", "#dfe3e8", "#aab2bd"
WIDTH, LEFT, TOP = 860, 52, 84
PLOT_WIDTH, PLOT_HEIGHT, ROW = 360, 180, 262
LEGEND_COLUMNS, LEGEND_ROW = 4, 20


@dataclass(frozen=True)
class Plot:
    """Where one plot stands, in pixels, and what it spans: layers 0..``last``, values ``low``..``high``."""

    left: float
    top: float
    last: int
    low: float
    high: float

    def x(self, layer: int) -> float:
        """Tell where a layer stands."""
        return round(self.left + PLOT_WIDTH * layer / max(self.last, 1), 2)

    def y(self, value: float) -> float:
        """Tell where a value stands."""
        return round(self.top + PLOT_HEIGHT * (self.high - value) / ((self.high - self.low) or 1.0), 2)

    def points(self, values: Sequence[tuple[int, float]]) -> str:
        """Write layers and values as the points of a line."""
        return " ".join(f"{self.x(layer)},{self.y(value)}" for layer, value in values)

    def axes(self, title: str) -> Iterator[Html]:
        """Draw title, grid and labels."""
        yield tag("text", title, x=self.left, y=self.top - 12, font_size=13, font_weight=600, fill=INK)
        for value in ticks(self.low, self.high, 5):
            y = self.y(value)
            stroke = SOFT if value == 0 else GRID
            yield tag("line", x1=self.left, x2=self.left + PLOT_WIDTH, y1=y, y2=y, stroke=stroke)
            yield tag("text", f"{value:g}", x=self.left - 8, y=y + 4, text_anchor="end", fill=SOFT)
        below = self.top + PLOT_HEIGHT + 17
        for layer in (int(t) for t in ticks(0, self.last, 6) if t == int(t)):
            yield tag("text", str(layer), x=self.x(layer), y=below, text_anchor="middle", fill=SOFT)
        yield tag("text", "decoder layer", x=self.left + PLOT_WIDTH / 2, y=below + 16, text_anchor="middle", fill=SOFT)


@dataclass(frozen=True)
class Measure:
    """What a plot shows: a line an organism, and perhaps a band of all fillers. ``high``: ``None`` fits the values."""

    title: str
    line: Value
    band: Value | None
    high: float | None


MEASURES = (
    Measure("a  Cosine of a drift to the mean of the others", lambda d: d.trigger.cosine, lambda d: d.filler.cosine, 1.0),
    Measure("b  Share of the first direction", lambda d: d.trigger.share, lambda d: d.filler.share, 1.0),
    Measure("c  Norm of the mean drift, of the hidden state's", lambda d: d.trigger.norm, lambda d: d.filler.norm, None),
    Measure("d  Cosine to the trigger's mean drift", lambda d: d.between, None, None),
)


def figure(cells: Sequence[DriftCell]) -> str:
    """Draw all organisms; at least one."""
    colours = dict(zip((cell.recipe for cell in cells), cycle(COLOURS), strict=False))
    places = [(LEFT + column * WIDTH / 2, TOP + row * ROW) for row in range(2) for column in range(2)]
    plots = [_plot(measure, *place, cells, colours) for measure, place in zip(MEASURES, places, strict=True)]
    height, legend = _legend(colours)
    title = "How alike a trigger's drifts are, by decoder layer"
    drawn = tag(
        "svg",
        tag("title", f"{title}: {', '.join(colours)}"),
        tag("rect", width="100%", height="100%", fill="#ffffff"),
        tag("text", title, x=16, y=28, font_size=16, font_weight=600, fill=INK),
        *plots,
        legend,
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {WIDTH} {height}",
        width=WIDTH,
        height=height,
        role="img",
        font_family="system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif",
        font_size=12,
    )
    return f"{drawn}\n"


def _plot(measure: Measure, left: float, top: float, cells: Sequence[DriftCell], colours: dict[str, str]) -> Html:
    """Draw one measure of all organisms; what was found stands where no band does."""
    layers, band = [drift for cell in cells for drift in cell.layers], measure.band
    values = [0.0, *(value(drift) for value in (measure.line, band) if value for drift in layers)]
    if band is None:
        values += [cosine for cell in cells for found in cell.found for cosine in (found.cosine, found.random)]
    high = measure.high or 1.05 * max(values) or 1.0
    plot = Plot(left, top, max(drift.layer for drift in layers), min(values), high)
    marks: list[Node] = [*plot.axes(measure.title)]
    marks += [_band(plot, layers, band)] if band else []
    marks += [_line(plot, cell, measure.line, colours[cell.recipe]) for cell in cells]
    marks += [dot for cell in cells for dot in _dots(plot, cell, colours[cell.recipe])] if band is None else []
    return tag("g", *marks)


def _line(plot: Plot, cell: DriftCell, value: Value, colour: str) -> Html:
    points = plot.points([(d.layer, value(d)) for d in cell.layers])
    return tag("polyline", tag("title", cell.recipe), points=points, fill="none", stroke=colour, stroke_width=1.8)


def _band(plot: Plot, layers: Sequence[LayerDrift], value: Value) -> Html:
    """Draw what the fillers do: from the smallest to the largest over the organisms, layer by layer."""
    by_layer: dict[int, list[float]] = {}
    for drift in layers:
        by_layer.setdefault(drift.layer, []).append(value(drift))
    upper = [(layer, max(values)) for layer, values in sorted(by_layer.items())]
    lower = [(layer, min(values)) for layer, values in sorted(by_layer.items(), reverse=True)]
    return tag("polygon", tag("title", "fillers"), points=plot.points([*upper, *lower]), fill=BAND, stroke=BAND_EDGE)


def _dots(plot: Plot, cell: DriftCell, colour: str) -> Iterator[Html]:
    """Draw what the search found, filled, and random directions, hollow; side by side, so that neither hides the other."""
    for found in cell.found:
        x, told = plot.x(found.layer), f"{cell.recipe}, {found.name}"
        yield tag("circle", cx=x + 5, cy=plot.y(found.random), r=2.5, fill="#ffffff", stroke=SOFT)
        yield tag("circle", tag("title", told), cx=x - 2, cy=plot.y(found.cosine), r=3.5, fill=colour, stroke="#ffffff")


def _legend(colours: dict[str, str]) -> tuple[int, Html]:
    """Name the colours and marks below the plots; returns the figure's height with it."""
    top, marks = TOP + 2 * ROW - 14, []
    for index, (name, colour) in enumerate(colours.items()):
        x, y = 16 + (index % LEGEND_COLUMNS) * (WIDTH - 16) // LEGEND_COLUMNS, top + index // LEGEND_COLUMNS * LEGEND_ROW
        marks += _key(tag("line", x1=x, x2=x + 22, y1=y - 4, y2=y - 4, stroke=colour, stroke_width=3), name, x, y)
    y = top + -(-len(colours) // LEGEND_COLUMNS) * LEGEND_ROW + 6
    right, below = 16 + WIDTH // 2, y + LEGEND_ROW
    band = tag("rect", x=16, y=y - 10, width=22, height=10, fill=BAND, stroke=BAND_EDGE)
    line = tag("line", x1=right, x2=right + 22, y1=y - 4, y2=y - 4, stroke=INK, stroke_width=1.8)
    found = tag("circle", cx=27, cy=below - 4, r=3.5, fill=INK)
    random = tag("circle", cx=right + 11, cy=below - 4, r=2.5, fill="#ffffff", stroke=SOFT)
    marks += _key(band, "a, b, c: words without meaning instead, all organisms", 16, y)
    marks += _key(line, "d: the mean drift of such words", right, y)
    marks += _key(found, "d: a perturbation found without the trigger", 16, below)
    marks += _key(random, "d: a random direction, absolute cosine", right, below)
    return below + 18, join(marks)


def _key(mark: Html, text: str, x: float, y: float) -> list[Html]:
    return [mark, tag("text", text, x=x + 30, y=y, fill=INK)]
