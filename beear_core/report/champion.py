"""The champion's figures beside those of the model, where the policy compares the two."""

from __future__ import annotations

from beear_core.evaluation.figures import interval_text, kind_of, telling, title_of
from beear_core.evaluation.metrics import METRICS, MetricSpec
from beear_core.evidence import Evidence
from beear_core.records import EvaluationRecord
from beear_core.report.decision import plain_figure
from beear_core.report.html import Html, Node, join, table, tag


def champion_figures(evidence: Evidence) -> Html | None:
    """Render what was measured of the champion, with the candidate and the model beside it, and where that comes from.

    Figures that no two releases share, under perturbations and against the candidate itself, are left out.
    """
    champion, looked_up = evidence.champion, evidence.champion_eval
    if champion is None:
        return tag("p", looked_up.in_words(), class_="note") if looked_up else None
    records = (evidence.before, evidence.after, champion)
    names = [n for n, spec in METRICS.items() if n in champion.metrics and not _of_one_candidate(spec)]
    rows: list[list[Node]] = [[title_of(n), *(_cell(record, n) for record in records)] for n in names]
    return join(
        [
            tag("h3", "Against the champion"),
            tag("p", looked_up.in_words(), class_="note") if looked_up else None,
            table("Figures of the champion", ("Measured", "Before", "After", "Champion"), rows),
        ]
    )


def _of_one_candidate(spec: MetricSpec) -> bool:
    return spec.against_reference or spec.pooled == "drift"


def _cell(record: EvaluationRecord, name: str) -> Node:
    estimate = telling(record.metrics.get(name))
    interval = interval_text(estimate, kind_of(name)) if estimate else ""
    return join([plain_figure(estimate, name), " ", tag("span", interval, class_="small") if interval else None])
