"""The page about a run of the pipeline: how it ended, where it failed and why, and what was measured until then."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from beear_core import __version__
from beear_core.evaluation.figures import kind_of, table_figure, telling, title_of
from beear_core.records import EvaluationRecord, MitigationRecord, Record, StatusRecord, StepStatus, ValidationRecord
from beear_core.report.html import Html, Node, chip, document, facts, join, section, table, tag
from beear_core.report.measures import mitigation_section
from beear_core.report.provenance import validation_section
from beear_core.wording import seconds_text

_HEADLINES = {"succeeded": ("DONE", "passed"), "failed": ("FAILED", "refused"), "canceled": ("CANCELED", "passed")}
_TONES = {"done": "good", "failed": "bad", "broken off": "bad", "running": "plain"}


def render_status(status: StatusRecord, records: Mapping[str, Record]) -> str:
    """Render the page as one HTML document; the same records give the same bytes.

    Args:
        status: how the run ended.
        records: of the steps that got so far, by the names that ``Evidence`` has for them.
    """
    word, tone = _HEADLINES[status.state]
    banner = tag(
        "div",
        tag("p", "Release pipeline", class_="eyebrow"),
        tag("h1", word),
        tag("p", in_words(status)),
        class_="banner",
    )
    why = None
    if status.message:
        lines = [tag("li", line) for line in status.message.splitlines()]
        why = tag("div", tag("h2", status.error or "Why"), tag("ul", *lines), class_="why")
    parts: list[Node] = [
        tag("header", banner, why, class_=f"hero {tone}"),
        _steps(status),
        _measured(records),
    ]
    mitigation, validation = records.get("mitigation"), records.get("validation")
    if isinstance(mitigation, MitigationRecord):
        parts.append(mitigation_section(mitigation))
    if isinstance(validation, ValidationRecord):
        parts.append(validation_section(validation))
    return document(f"{word}: release pipeline", join([tag("main", *parts), tag("footer", f"beear-gate {__version__}")]))


def in_words(status: StatusRecord) -> str:
    """Say in a sentence or two how the run ended and what follows from it."""
    where = f" in the step {status.failed_step.replace('_', ' ')}" if status.failed_step else ""
    decided = f"The gate's decision stands: {status.outcome}." if status.outcome else "Nothing was decided or promoted."
    if status.state == "succeeded":
        return (
            f"Every step was done. The model was decided on: {status.outcome}."
            if status.outcome
            else "Every step was done."
        )
    if status.state == "canceled":
        return f"Somebody ended the run{where}. {decided}"
    return f"The run failed{where}. {decided}"


def _steps(status: StatusRecord) -> Html:
    rows = [
        [
            step.step.replace("_", " "),
            chip(step.state, _TONES[step.state]),
            _took(step),
            f"{step.error}: {step.message}" if step.error else step.message or "–",
        ]
        for step in status.steps
    ]
    run = facts(
        [
            ("Began", _moment(status.began)),
            ("Ended", _moment(status.ended)),
            ("Kubeflow run", status.kfp_run_id),
            ("MLflow run", status.mlflow_run_id),
            ("Decision", status.decision_digest),
        ]
    )
    shown: Node = tag("p", "No step could tell MLflow how it went.", class_="note")
    if rows:
        classes = ["failed" if step.state in {"failed", "broken off"} else None for step in status.steps]
        shown = table("Steps", ("Step", "State", "Time", "Error"), rows, row_classes=classes)
    return section("steps", "Steps", shown, run)


def _moment(time: str) -> str:
    return f"{time[:10]} {time[11:19]} UTC" if time else ""


def _took(step: StepStatus) -> str:
    if not step.ended:
        return "–"
    return seconds_text((datetime.fromisoformat(step.ended) - datetime.fromisoformat(step.began)).total_seconds())


def _measured(records: Mapping[str, Record]) -> Html:
    found = {name: r for name in ("before", "after") if isinstance(r := records.get(name), EvaluationRecord)}
    if not found:
        return section("measurements", "Measured so far", tag("p", "No model was measured.", class_="note"))
    names = list(dict.fromkeys(name for record in found.values() for name in record.metrics))
    rows = [
        [title_of(name), *(table_figure(telling(r.metrics.get(name)), kind_of(name)) for r in found.values())]
        for name in names
    ]
    return section("measurements", "Measured so far", table("Measurements", ("Metric", *map(str.title, found)), rows))
