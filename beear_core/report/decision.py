"""The decision table: every check with value, interval, limit, samples and verdict."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from beear_core.evaluation.figures import interval_text, kind_of, table_figure, threshold, title_of
from beear_core.policy import is_skipped
from beear_core.records import (
    CheckResult,
    Decision,
    Estimate,
)
from beear_core.report.html import Html, Node, chip, fold, join, section, table, tag
from beear_core.wording import percent_text, plural


def decision_section(decision: Decision) -> Html:
    """Render the table of checks; evidence and categories are folded where all is well."""
    evidence = [c for c in decision.checks if c.metric == "evidence"]
    categories = [c for c in decision.checks if c.category is not None]
    main = [c for c in decision.checks if c not in evidence and c not in categories]
    return section(
        "decision",
        "Decision",
        _check_table("Checks of the policy", main),
        _evidence(evidence),
        _folded_categories(categories),
        intro=join(
            [
                "Policy ",
                tag("strong", decision.policy),
                ". Hard checks decide; soft and advisory ones are shown. What could not be measured did not pass.",
            ]
        ),
    )


def _check_table(caption: str, checks: Sequence[CheckResult]) -> Html:
    if not checks:
        return tag("p", "No check.", class_="note")
    levels = [c.estimate.confidence for c in checks if c.estimate is not None]
    interval = f"{percent_text(levels[0])} interval" if levels and len(set(levels)) == 1 else "Interval"
    headers = ("Check", "Value", interval, "Limit", "Decided on", "Samples", "Verdict")
    return table(
        caption,
        headers,
        [_check_row(c) for c in checks],
        class_="number",
        row_classes=["failed" if not c.passed and c.level == "hard" else None for c in checks],
        notes=[c.reason if not c.passed or is_skipped(c) else None for c in checks],
    )


def _check_row(check: CheckResult) -> list[Node]:
    kind = kind_of(check.metric)
    estimate = check.estimate
    measured = estimate is not None and estimate.value is not None
    value: list[Node] = [plain_figure(estimate, check.metric)]
    if check.baseline is not None:
        role = "champion" if "champion" in check.comparison else "before"
        value.append(tag("span", f"{role}: {plain_figure(check.baseline, check.metric)}", class_="small"))
    decided = "–"
    if check.decided_on is not None:
        relative = "−" in check.comparison
        sign = "+" if relative and check.decided_on > 0 else ""
        decided = f"{sign}{threshold(check.decided_on, kind, relative=relative)}"
    samples = "–" if estimate is None else str(estimate.n)
    unscored = tag("span", f"{estimate.unscored} unscored", class_="small") if estimate and estimate.unscored else None
    return [
        join([check_name(check), tag("span", title_of(check.metric), class_="small")]),
        join(value),
        interval_text(estimate, kind) + (" %" if kind == "rate" else "")
        if measured and interval_text(estimate, kind)
        else "–",
        check.comparison,
        decided,
        join([samples, unscored]),
        join([_verdict(check), tag("span", check.level, class_="small")]),
    ]


def plain_figure(estimate: Estimate | None, metric: str) -> str:
    """Write a figure without its interval: ``2 / 120 = 1.7%``."""
    bare = None if estimate is None else dataclasses.replace(estimate, low=None, high=None)
    return table_figure(bare, kind_of(metric))


def _verdict(check: CheckResult) -> Html:
    if is_skipped(check):
        return chip("skipped", "plain")
    if check.passed:
        return chip("passed", "good")
    word = "failed" if check.decided_on is not None else "undecidable"
    return chip(word, "bad" if check.level == "hard" else "warn")


def check_name(check: CheckResult) -> str:
    """Name a check by its id, with the category where it looks at one."""
    return check.check if check.category is None else f"{check.check} [{check.category}]"


def _counted(checks: Sequence[CheckResult], noun: str) -> str:
    held = sum(c.passed for c in checks)
    return f"{held} of {plural(len(checks), noun)} passed"


def _evidence(checks: Sequence[CheckResult]) -> Html | None:
    if not checks:
        return None
    rows = [[c.check.removeprefix("evidence/"), c.reason, _verdict(c)] for c in checks]
    failed = ["failed" if not c.passed else None for c in checks]
    return fold(
        f"Do the records belong together? {_counted(checks, 'evidence check')}",
        table("Evidence checks", ("Evidence", "What was found", "Verdict"), rows, row_classes=failed),
        opened=not all(c.passed for c in checks),
    )


def _folded_categories(checks: Sequence[CheckResult]) -> Html | None:
    if not checks:
        return None
    return fold(
        f"Category by category: {_counted(checks, 'check')}",
        _check_table("Checks by category", checks),
        opened=any(not c.passed and c.level == "hard" for c in checks),
    )
