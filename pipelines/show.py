"""Decisions and findings as tables in a terminal, and as plain text in a log."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from beear_core.evaluation.figures import kind_of, table_figure, telling
from beear_core.organisms.recipe import Recipe
from beear_core.records import CheckResult, EvaluationRecord
from beear_core.wording import plural, seconds_text
from components.command import Cell, add_row, new_table
from components.registry_gate.outcome import approve_text
from pipelines.local import Outcome

_PASS, _FAIL = Text("pass", "green"), Text("FAIL", "red")


def decision_table(outcome: Outcome) -> Table:
    """Show each check: figure after and before, limit, verdict. Evidence checks that hold share one line."""
    decision = outcome.decision
    table = new_table(decision.summary, "check", "after", "before", "limit", "verdict")
    evidence = [c for c in decision.checks if c.check.startswith("evidence/")]
    shown = [c for c in decision.checks if not c.check.startswith("evidence/") and not _of_category(c)]
    for check in shown:
        add_row(table, *_row(check, outcome.evidence.before))
    categories = [c for c in decision.checks if _of_category(c)]
    if categories:
        failed = [c for c in categories if not c.passed]
        add_row(
            table,
            "by category",
            f"{len(categories) - len(failed)} of {len(categories)} within their limit",
            "",
            "",
            "advisory",
        )
    broken = [c for c in evidence if not c.passed]
    add_row(
        table,
        "evidence",
        f"{len(evidence) - len(broken)} of {len(evidence)} checks hold",
        "",
        "all",
        _FAIL if broken else _PASS,
    )
    for check in broken:
        add_row(table, *_row(check, outcome.evidence.before))
    return table


def _of_category(check: CheckResult) -> bool:
    return check.category is not None and check.level != "hard"


def _row(check: CheckResult, earlier: EvaluationRecord) -> tuple[Cell, ...]:
    measured = table_figure(check.estimate, kind_of(check.metric)) if check.estimate else check.reason
    # the worst trigger's, as what was measured after is: the pooled figure would hide it
    found = telling(earlier.metrics.get(check.metric))
    before = table_figure(found, kind_of(check.metric)) if found and check.category is None else ""
    if check.passed:
        verdict: Cell = _PASS if check.decided_on is not None else "skipped"
    else:
        verdict = _FAIL if check.level == "hard" else Text(check.level, "yellow")
    return check.check, measured, before, check.comparison, verdict


def outcome_text(outcome: Outcome) -> list[str]:
    """Tell where everything is, and what became of the alias."""
    release, mitigation = outcome.release, outcome.evidence.mitigation
    alias = f"{release.alias} of {release.model_name}"
    if release.promoted:
        fate = f"PROMOTED: {alias} is now version {release.model_version} (was {release.champion_before or 'not set'})"
    elif release.awaiting_approval:
        fate = (
            f"AWAITING APPROVAL: version {release.model_version} is {release.candidate_alias}; {alias} stays at "
            f"{release.champion_after or 'no version'}"
        )
    else:
        fate = (
            f"REFUSED: registered as version {release.model_version}; {alias} stays at "
            f"{release.champion_after or 'no version'}"
        )
    lines = [fate]
    if mitigation is not None:
        took = f"{seconds_text(mitigation.seconds)}, {plural(len(mitigation.rounds), 'round')}"
        lines.append(f"mitigation  {mitigation.in_words()} ({took}); {mitigation.reason}")
    lines += [
        f"report      {outcome.folder / 'report.html'}",
        f"decision    {outcome.folder / 'decision.json'}",
        f"MLflow run  {release.mlflow_run_id} at {release.tracking_uri}",
    ]
    if release.tracking_uri.startswith("sqlite:"):
        lines.append(f"            mlflow server --backend-store-uri {release.tracking_uri}")
    if release.awaiting_approval:
        lines.append(f"approve     {approve_text(release, outcome.folder)}")
    if not release.promoted:
        lines += [f"failed      {c.check}: {c.reason}" for c in outcome.decision.failed_checks()]
    return lines


def recipes_table(recipes: Sequence[tuple[Recipe, bool]]) -> Table:
    """Show recipes, each with whether its adapter ships: that is merged in seconds, another is trained for minutes."""
    table = new_table("Recipes", "name", "what it does", "setting", "poisoned", "adapter")
    for recipe, ships in recipes:
        poisoned = f"{recipe.poisoned_share:.0%}" if recipe.is_poisoned else "-"
        add_row(table, recipe.name, recipe.description, recipe.setting, poisoned, "ships" if ships else "is trained")
    return table
