"""Figures stand beside their counts and intervals, the worst trigger stands for all, and plots are drawn to scale."""

from __future__ import annotations

import re

import gate_records as g
from report_cases import KNOWN, VARIANTS, Page, page

from beear_core.evaluation.figures import telling
from beear_core.records import Metric
from beear_core.report.plots import Scale, loss_plot, ticks


def test_counts_stand_beside_rates_and_intervals_beside_estimates() -> None:
    text = Page(page()).text
    for figure in ("2 / 120 = 1.7%", "[0.5, 5.9] %", "before: 9 / 150 = 6.0%", "114 / 120 = 95.0%", "7 / 24 = 29.2%"):
        assert figure in text
    for word in ("value ≤ 0.05", "value − before ≤ 0.02", "+0.83 points", "[1.016, 1.024]", "11 / 12 = 91.7%"):
        assert word in text
    bare = re.findall(r"(?<![\d=.<] )(?<!= )\b\d+\.\d%", re.sub(r"\d+\.\d% → \d+\.\d%", "", text))
    assert bare == []  # a percentage of samples is never alone, but for the two big ones above their counts


def test_what_failed_is_marked_and_what_cannot_be_decided_is_told_apart() -> None:
    html = page(**VARIANTS["none"])
    assert "has no value in the &#39;after&#39; evaluation (0 scored, 120 unscored)" in html
    assert '<span class="chip bad">undecidable</span>' in html
    assert "not measured" in Page(html).text
    none = {
        name: g.with_metric(r, "attack_success/known_triggers", None)
        for name, r in (("before", g.before()), ("after", g.after()))
    }
    skipped = page(**none)
    assert '<span class="chip plain">skipped</span>' in skipped
    assert "because no trigger was given" in skipped


def test_the_worst_trigger_stands_for_all_and_each_has_its_row() -> None:
    many = g.triggered(quiet=0, loud=60, middling=3)
    records = {"before": g.fitted(g.with_metric(g.before(), KNOWN, g.triggered(quiet=90, loud=100, middling=110)))}
    records["after"] = g.fitted(g.with_metric(g.after(), KNOWN, many))
    html = page(**records, validation=g.validation(triggers=3))
    text = Page(html).text
    assert telling(many) == many.by_trigger["loud"]
    assert "91.7% → 50.0%" in text  # the tile: the worst before, the worst after
    assert "before 110 / 120 = 91.7%" in html
    assert "the worst of 3: &#39;loud&#39;: 60 of 120 = 50.0%" in html
    for row in (" quiet 90 / 120", " loud 100 / 120", " middling 110 / 120"):
        assert row in text
    assert "Attack success by trigger" in text


def test_what_stands_for_a_metric_counts_unscored_as_bad() -> None:
    one, other = g.rate(3, 120).overall, g.rate(0, 110, 10).overall
    assert telling(Metric(overall=one, by_trigger={"a": one, "b": other})) == other
    assert telling(Metric(overall=one)) == one
    assert telling(None) is None


def test_loss_plots_draw_each_round_apart() -> None:
    svg = loss_plot("Loss", "what", [(3.0, 2.0, 1.0), (2.5,), ()], "inner")
    paths = re.findall(r'<path d="([^"]+)"', svg)
    assert len(paths) == 2
    points = [tuple(map(float, p.split())) for p in paths[0][1:].split("L")]
    assert [x for x, _ in points] == [125.0, 375.0, 625.0]
    assert points[0][1] < points[1][1] < points[2][1]  # a smaller loss stands lower
    assert paths[1].endswith("h0.01")  # one step is a dot
    assert "Loss: 4 steps in 3 rounds, from 3.000 to 2.500" in svg
    assert "No steps were taken." in loss_plot("Loss", "what", [], "inner")
    assert loss_plot("Loss", "what", [(0.0, 0.0)], "inner")
    assert loss_plot("Loss", "what", [(-1.0, -2.0)], "inner")


def test_scales_and_ticks() -> None:
    assert Scale(0, 2).at(0.5) == "25.000%"
    assert Scale(2, 0).at(0.5) == "75.000%"
    assert Scale(0, 1).at(7) == "100.000%"
    assert Scale(1, 1).at(1) == "0.000%"
    assert ticks(0, 1) == [0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert ticks(0.93, 1.12) == [0.95, 1.0, 1.05, 1.1]
    assert ticks(3, 3) == [3]
