"""The page and the figure about drifts: what they show is what the cells hold, and all of it can be seen."""

from __future__ import annotations

import random
import xml.etree.ElementTree as ET
from pathlib import Path

import torch

from beear_core.records import Environment
from tools.drift_measures import DriftCell, DriftMeasures, FoundDirection, LayerDrift
from tools.drift_page import page
from tools.drift_plot import BAND, COLOURS, figure

SVG = "{http://www.w3.org/2000/svg}"


def made(recipe: str, chooser: random.Random, layers: int = 10) -> DriftCell:
    def measures() -> DriftMeasures:
        return DriftMeasures(cosine=chooser.uniform(-1, 1), share=chooser.random(), norm=chooser.random())

    return DriftCell(
        recipe=recipe,
        key="k",
        n=chooser.randint(2, 99),
        seed=chooser.randint(100, 999),
        triggers=2,
        trigger_tokens=7.25,
        filler_tokens=3.5,
        layers=tuple(
            LayerDrift(layer=i, trigger=measures(), filler=measures(), between=chooser.uniform(-1, 1))
            for i in range(layers)
        ),
        found=tuple(
            FoundDirection(name=f"layer {i}", layer=i, cosine=chooser.uniform(-1, 1), random=chooser.random())
            for i in (1, 1, 8)
        ),
        elicited=0.375,
        compute="pencil",
        seconds=1.0,
        environment=Environment.here(("an abacus",)),
    )


def test_a_cell_is_read_as_it_was_written(tmp_path: Path) -> None:
    cell = made("one", random.Random(0))
    assert DriftCell.read(cell.write(tmp_path / "cell.json")) == cell


def test_the_page_holds_the_figures_of_the_cells_and_says_with_what_they_were_measured() -> None:
    cells = [made("one", random.Random(1)), made("two", random.Random(2))]
    written = page(cells, "here.svg")
    assert f"{cells[0].n}, {cells[1].n} harmful requests" in written
    assert f"seed {cells[0].seed}, {cells[1].seed}" in written
    assert f"torch {torch.__version__}" in written
    assert "on an abacus." in written
    assert "nothing; it computed in pencil." in " ".join(written.split())
    assert written.count("2 forms of the trigger. The trigger makes a prompt 7.2 tokens longer, the filler 3.5.") == 2
    assert written.count("3 perturbations together elicited 38 % of held-back requests") == 2
    rows = [[part.strip() for part in line.split("|")[1:-1]] for line in written.splitlines() if line.startswith("| ")]
    rows = [row for row in rows if row[0].isdigit()]
    assert [row[0] for row in rows] == ["0", "1", "2", "3", "4", "6", "8", "9"] * 2
    one = cells[0].layers[1]
    near = [f.cosine for f in cells[0].found[:2]]
    measured = [one.trigger.cosine, one.filler.cosine, one.trigger.share, one.filler.share, one.trigger.norm]
    measured += [one.filler.norm, one.between, sum(near) / 2, max(near), sum(f.random for f in cells[0].found[:2]) / 2]
    assert rows[1] == ["1", *(f"{value:z.2f}" for value in measured)]
    assert rows[0][-3:] == ["", "", ""], "nothing was found at layer 0"


def test_the_figure_is_whole_and_draws_every_organism_in_its_colour() -> None:
    cells = [made(name, random.Random(i)) for i, name in enumerate(("one", "two", "<three>"))]
    root = ET.fromstring(figure(cells))
    width, height = (float(root.attrib[name]) for name in ("width", "height"))
    assert root[0].tag == f"{SVG}title"
    assert "one, two, <three>" in (root[0].text or "")
    assert (root[1].tag, root[1].attrib["fill"], root[1].attrib["width"]) == (f"{SVG}rect", "#ffffff", "100%")
    lines = list(root.iter(f"{SVG}polyline"))
    assert [line.attrib["stroke"] for line in lines] == list(COLOURS[:3]) * 4
    assert [line.findtext(f"{SVG}title") for line in lines] == ["one", "two", "<three>"] * 4
    assert sum(p.attrib["fill"] == BAND for p in root.iter(f"{SVG}polygon")) == 3
    dots = [c for c in root.iter(f"{SVG}circle") if c.findtext(f"{SVG}title")]
    assert len(dots) == 9
    assert {"one", "two", "<three>"} <= {text.text for text in root.iter(f"{SVG}text")}
    for points in (line.attrib["points"].split() for line in lines):
        for x, y in (map(float, point.split(",")) for point in points):
            assert 0 < x < width
            assert 0 < y < height
    for text in root.iter(f"{SVG}text"):
        assert 0 < float(text.attrib["y"]) < height


def test_higher_in_the_figure_is_more() -> None:
    cell = made("one", random.Random(3))
    between = list(ET.fromstring(figure([cell])).iter(f"{SVG}polyline"))[3]
    heights = [float(point.split(",")[1]) for point in between.attrib["points"].split()]
    order = sorted(range(10), key=lambda layer: cell.layers[layer].between)
    assert sorted(range(10), key=lambda layer: -heights[layer]) == order
