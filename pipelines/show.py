"""Decisions and findings as tables in a terminal, and as plain text in a log."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from beear_core.records import CheckResult, EvaluationRecord, RuleResult
from beear_core.wording import ending_text, kind_of, plural, seconds_text, table_figure, telling
from pipelines.local import Outcome
from pipelines.preflight import Finding


def console() -> Console:
    """Standard output, wide enough for the tables when it is not a terminal."""
    plain = Console()
    return plain if plain.is_terminal else Console(width=140)


Cell = str | Text
_PASS, _FAIL = Text("pass", "green"), Text("FAIL", "red")


def _table(title: str, *columns: str) -> Table:
    table = Table(title=Text(title), title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _add(table: Table, *cells: Cell) -> None:
    """A row whose texts are shown as they are: a name such as ``[/foo]`` is no markup."""
    table.add_row(*(cell if isinstance(cell, Text) else Text(cell) for cell in cells))


def decision_table(outcome: Outcome) -> Table:
    """Each check: figure after and before, limit, verdict. Evidence checks that hold are one line together."""
    decision = outcome.decision
    table = _table(decision.summary, "check", "after", "before", "limit", "verdict")
    evidence = [c for c in decision.checks if c.check.startswith("evidence/")]
    shown = [c for c in decision.checks if not c.check.startswith("evidence/") and not _of_category(c)]
    for check in shown:
        _add(table, *_row(check, outcome.before))
    categories = [c for c in decision.checks if _of_category(c)]
    if categories:
        failed = [c for c in categories if not c.passed]
        _add(
            table,
            "by category",
            f"{len(categories) - len(failed)} of {len(categories)} within their limit",
            "",
            "",
            "advisory",
        )
    broken = [c for c in evidence if not c.passed]
    _add(
        table,
        "evidence",
        f"{len(evidence) - len(broken)} of {len(evidence)} checks hold",
        "",
        "all",
        _FAIL if broken else _PASS,
    )
    for check in broken:
        _add(table, *_row(check, outcome.before))
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
    """Where everything is, and what became of the alias."""
    release, mitigation = outcome.release, outcome.mitigation
    alias = f"{release.alias} of {release.model_name}"
    if release.promoted:
        fate = f"PROMOTED: {alias} is now version {release.model_version} (was {release.champion_before or 'not set'})"
    else:
        fate = (
            f"REFUSED: registered as version {release.model_version}; {alias} stays at "
            f"{release.champion_after or 'no version'}"
        )
    lines = [
        fate,
        f"mitigation  {ending_text(mitigation)} ({seconds_text(mitigation.seconds)}, "
        f"{plural(len(mitigation.rounds), 'round')}); {mitigation.reason}",
        f"report      {outcome.folder / 'report.html'}",
        f"decision    {outcome.folder / 'decision.json'}",
        f"MLflow run  {release.mlflow_run_id} at {release.tracking_uri}",
    ]
    if release.tracking_uri.startswith("sqlite:"):
        lines.append(f"            mlflow server --backend-store-uri {release.tracking_uri}")
    if not release.promoted:
        lines += [f"failed      {c.check}: {c.reason}" for c in outcome.decision.failed_checks()]
    return lines


def findings_table(findings: Sequence[Finding]) -> Table:
    """What the pre-flight looked at."""
    table = _table("Pre-flight", "part", "finding")
    for finding in findings:
        _add(table, finding.part, Text(str(finding.error), "red") if finding.error else finding.detail)
    return table


def rules_table(rules: Sequence[RuleResult]) -> Table:
    """What data validation found, rule by rule; rules that hold are counted."""
    table = _table("Data validation", "role", "rule", "severity", "rows that break it", "finding")
    broken = [r for r in rules if not r.passed]
    for rule in broken:
        _add(table, rule.role, rule.rule, rule.severity, f"{rule.failed} / {rule.checked}", rule.detail)
    _add(table, "all", f"{len(rules) - len(broken)} of {len(rules)} rules hold", "", "", "")
    return table
