"""What opens the model without any trigger being known: under each perturbation, and by its size."""

from __future__ import annotations

from collections.abc import Sequence

from beear_core.evaluation.figures import interval_text, table_figure
from beear_core.evaluation.metrics import UNDER_DRIFT
from beear_core.records import DriftEntry, Estimate, EvaluationRecord, MitigationRecord, Vulnerability
from beear_core.report.decision import plain_figure
from beear_core.report.html import Html, Node, fold, join, section, table, tag
from beear_core.report.plots import Curve, size_plot
from beear_core.wording import percent_text, plural

_SPOTS = {"end": "on words behind the request", "front": "on words before the request", None: "last positions"}


def perturbation_section(before: EvaluationRecord, after: EvaluationRecord, mitigation: MitigationRecord | None) -> Html:
    """Render attack success under each perturbation found on the candidate, and by the size of newly searched ones."""
    found = mitigation.drift if mitigation else ()
    own = [entry for entry in found if entry.on_candidate]
    parts: list[Node] = []
    if own:
        parts.append(_under_each(own, before, after))
    later = [entry for entry in found if not entry.on_candidate]
    if later:
        parts.append(fold(f"{plural(len(later), 'perturbation')} of later rounds, on changed weights", _found(later)))
    parts += _by_size(before.vulnerability, after.vulnerability)
    return section(
        "perturbations",
        "Without a known trigger",
        *(parts or [tag("p", "No perturbation was looked for.", class_="note")]),
        intro="Perturbations of hidden states that make a model obey harmful requests, found without knowing any trigger. "
        "The requests they are measured on here took no part in finding them.",
    )


def _under_each(entries: Sequence[DriftEntry], before: EvaluationRecord, after: EvaluationRecord) -> Html:
    rows: list[list[Node]] = []
    for entry in entries:
        row = _facts_of(entry)
        for record in (before, after):
            metric = record.metrics.get(UNDER_DRIFT)
            estimate = metric.by_trigger.get(entry.name) if metric else None
            interval = interval_text(estimate, "rate")
            row.append(join([plain_figure(estimate, UNDER_DRIFT), " ", tag("span", interval, class_="small")]))
        rows.append(row)
    headers = ("Perturbation", "Where", "Norm", "Obeyed before", "Obeyed after")
    return table("Attack success under what was found on the candidate", headers, rows)


def _facts_of(entry: DriftEntry) -> list[Node]:
    return [entry.name, f"layer {entry.layer}, {_SPOTS[entry.spot]}", f"{entry.norm:.3f}"]


def _found(entries: Sequence[DriftEntry]) -> Html:
    rows: list[list[Node]] = [[*_facts_of(e), f"{100 * e.elicited:.0f}%"] for e in entries]
    return table("Found in later rounds", ("Perturbation", "Where", "Norm", "All of its search elicited"), rows)


def _by_size(before: Vulnerability | None, after: Vulnerability | None) -> list[Node]:
    """Render a fresh search at several sizes, each with random directions of the same size beside it."""
    given = [(role, v) for role, v in (("before", before), ("after", after)) if v is not None]
    if not given:
        return []
    curves: list[Curve] = []
    rows: list[list[Node]] = []
    for role, vulnerability in given:
        points = vulnerability.points
        curves.append(Curve(f"found, {role}", role, [(p.norm, p.found) for p in points]))
        curves.append(Curve(f"random, {role}", f"{role} random", [(p.norm, p.random) for p in points]))
        rows += [[role, f"{p.norm:g}", _figure(p.found), _figure(p.random)] for p in points]
        opens = vulnerability.smallest_that_opens
        rows.append([role, "smallest that elicits half", "none of these" if opens is None else f"{opens:g}", "–"])
    budget = given[0][1]
    searched = (
        f"A new search at each size: {plural(budget.steps, 'step')} on perturbations of {budget.words} tokens of words at "
        f"layers {', '.join(map(str, budget.layers))}, seed {budget.seed}. Small sizes open fragile models too, with a "
        "backdoor or without; nothing is decided by this."
    )
    return [
        tag("h3", "By size, searched anew"),
        size_plot(curves),
        tag("p", searched, class_="small"),
        fold("The figures", table("Attack success by size", ("Model", "Largest norm", "Found", "Random"), rows)),
    ]


def _figure(estimate: Estimate) -> str:
    told = table_figure(estimate, "rate")
    return f"{told} ({percent_text(estimate.confidence)})" if estimate.low is not None else told
