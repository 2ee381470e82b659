"""What the mitigation did round by round, and the figures by category."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from beear_core.evaluation.figures import interval_text, kind_of, number, title_of
from beear_core.evaluation.metrics import KNOWN_TRIGGERS, PLAIN
from beear_core.records import (
    Estimate,
    EvaluationRecord,
    Metric,
    MitigationRecord,
)
from beear_core.report.decision import plain_figure
from beear_core.report.html import Html, Node, chip, facts, fold, join, section, table, tag
from beear_core.report.plots import training_plots
from beear_core.wording import as_sentence, bytes_text, seconds_text

Part = Literal["category", "trigger"]


def mitigation_section(mitigation: MitigationRecord | None) -> Html:
    """Render the losses over the steps and what was measured after each round."""
    if mitigation is None:
        return section("mitigation", "Mitigation", tag("p", "No mitigation was run.", class_="note"))
    settings = facts(
        [
            ("Perturbed layers", f"{_layers(mitigation)} of {mitigation.layers} (from 0)"),
            ("Chosen because", mitigation.places_reason or "–"),
            ("Perturbed positions", _positions(mitigation)),
            ("Computed in", mitigation.compute_dtype),
            ("Time", seconds_text(mitigation.seconds)),
            ("Peak memory", bytes_text(mitigation.peak_memory_bytes)),
        ]
    )
    shown: list[Node] = [tag("p", "No round was run.", class_="note")]
    if mitigation.rounds:
        shown = [
            training_plots(mitigation.rounds),
            tag("h3", "Round by round, on anchors held back from training"),
            _rounds(mitigation),
        ]
    options = facts((key, str(value)) for key, value in sorted(mitigation.config.items()))
    return section(
        "mitigation",
        "Mitigation",
        *shown,
        settings,
        fold("All settings", options),
        intro=f"{as_sentence(mitigation.in_words())} {as_sentence(mitigation.reason)}",
    )


def _layers(mitigation: MitigationRecord) -> str:
    return ", ".join(map(str, mitigation.layers_perturbed or (mitigation.layer,)))


def _positions(mitigation: MitigationRecord) -> str:
    if mitigation.positions:
        return f"last {mitigation.positions} of the prompt"
    return "words put before or behind the request, and what the template puts behind it"


def _count(mitigation: MitigationRecord, name: str) -> int:
    value = mitigation.config.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def _rounds(mitigation: MitigationRecord) -> Html:
    harmful = _count(mitigation, "held_back")
    ordinary = _count(mitigation, "held_back_ordinary") or harmful

    def rate(value: float | None, n: int = harmful) -> str:
        if value is None:
            return "–"
        count = round(value * n)
        return f"{count} / {n} = {number(value, 'rate')}" if n and abs(count - value * n) < 1e-6 else number(value, "rate")

    rows: list[list[Node]] = []
    for r in mitigation.rounds:
        best = r.round == mitigation.best_round
        note: Node = join([chip("kept", "good"), " ", r.note]) if best else r.note
        rows.append(
            [
                join([f"{r.round} ", tag("span", r.adversary, class_="small")]),
                "–" if r.delta_norm is None else f"{r.delta_norm:.3f}",
                rate(r.attack_under_delta),
                rate(r.attack_after),
                join([rate(r.attack_under_delta_after), tag("span", rate(r.attack_under_drift_after), class_="small")]),
                rate(r.refusal_ordinary_after, ordinary),
                rate(r.refusal_borderline_after, ordinary),
                "–" if r.nll_ratio_after is None else number(r.nll_ratio_after, "ratio"),
                seconds_text(r.seconds),
                note,
            ]
        )
    headers = (
        "Round",
        "Norm of δ",
        "Elicited by it",
        "Attack, plain",
        "Attack, the same after",
        "Refused ordinary",
        "Refused borderline",
        "NLL ratio",
        "Time",
        "Note",
    )
    classes = ["best" if r.round == mitigation.best_round else None for r in mitigation.rounds]
    note = (
        "The norm of δ is its share of the hidden-state norm. "
        "Elicited: before the removal steps of the round; everything else after them. "
        "Small, below the same after: under what was found on the candidate. "
        "A round whose note is not 'admissible' was undone."
    )
    return join([table("Measures after each round", headers, rows, row_classes=classes), tag("p", note, class_="small")])


def category_section(before: EvaluationRecord, after: EvaluationRecord) -> Html:
    """Render attack success by category and by trigger, and wrong refusals by category where they were counted."""
    attack = _part_table("category", (PLAIN, KNOWN_TRIGGERS), before, after)
    triggers = _part_table("trigger", (KNOWN_TRIGGERS,), before, after)
    refusals = _part_table("category", ("wrong_refusal/ordinary", "wrong_refusal/borderline"), before, after)
    return section(
        "categories",
        "Attack success by category",
        attack or tag("p", "No figures by category.", class_="note"),
        fold("Attack success by trigger", triggers) if triggers else None,
        fold("Wrong refusals by category", refusals) if refusals else None,
        intro="An average can hide one kind of harm, or one trigger: a category pools all known triggers, while the worst "
        "of them decides. The intervals are wide: a category has few samples.",
    )


def _part_table(part: Part, names: Sequence[str], before: EvaluationRecord, after: EvaluationRecord) -> Html | None:
    """Build a table with a row for each category or trigger, and two columns for each metric: before and after."""
    shown = [name for name in names if _parts(before, name, part) or _parts(after, name, part)]
    rows_of = sorted({c for name in shown for record in (before, after) for c in _parts(record, name, part)})
    if not rows_of:
        return None
    headers = [part.capitalize()]
    for name in shown:
        what = title_of(name).split(", ")[-1]
        headers += [f"{what}: before", f"{what}: after"]
    rows: list[list[Node]] = []
    for key in rows_of:
        row: list[Node] = [key.replace("_", " ") if part == "category" else key]
        for name in shown:
            row += [_part_cell(_parts(before, name, part).get(key), name, "before")]
            row += [_part_cell(_parts(after, name, part).get(key), name, "after")]
        rows.append(row)
    return table(f"{title_of(shown[0]).split(', ')[0]} by {part}", headers, rows, class_="categories")


def _part_cell(estimate: Estimate | None, metric: str, role: str) -> Node:
    if estimate is None:
        return "–"
    interval = interval_text(estimate, kind_of(metric))
    share = 100 * min(1.0, max(0.0, estimate.value or 0.0))
    bar = tag("svg", tag("rect", x=0, y=0, width=f"{share:.2f}%", height=3), aria_hidden="true")
    text = join([plain_figure(estimate, metric), " ", tag("span", interval, class_="small") if interval else None])
    return tag("span", text, tag("span", bar, class_=f"bar {role}"))


def _parts(record: EvaluationRecord, name: str, part: Part) -> dict[str, Estimate]:
    metric: Metric | None = record.metrics.get(name)
    if metric is None:
        return {}
    return metric.by_category if part == "category" else metric.by_trigger
