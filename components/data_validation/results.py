"""What Great Expectations found, as results of ours: counts and places, never the text of a row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from beear_core.records import RuleResult

_EXAMPLES = 5


LONGEST_ID = 64


def rule_result(role: str, outcome: Any, table: Any) -> RuleResult:
    """Count the rows of a table that broke an expectation, and name the first of them."""
    meta, result = outcome.expectation_config.meta, outcome.result or {}
    severity = str(getattr(outcome.expectation_config.severity, "value", outcome.expectation_config.severity))
    passed, detail = bool(outcome.success), str(meta["detail"])
    message = _exception(outcome)
    if message:
        passed, detail = False, f"{detail} This could not be checked: {message}"
    elif not passed and "element_count" not in result:
        found = result.get("observed_value")
        detail = f"{detail} Found: {', '.join(map(str, found)) if isinstance(found, list) else found}."
    positions = _positions(result)
    return RuleResult(
        rule=meta["rule"],
        role=role,
        severity="warning" if severity == "warning" else "critical",
        passed=passed,
        checked=int(result.get("element_count", 1)),
        failed=int(result.get("unexpected_count", 0)) if "element_count" in result else int(not passed),
        detail=detail,
        examples=tuple(_example(table.iloc[p], outcome.expectation_config.kwargs) for p in positions[:_EXAMPLES]),
    )


def _exception(outcome: Any) -> str:
    """Tell why an expectation could not be evaluated; empty where it was."""
    info = outcome.exception_info or {}
    entries = [info] if "raised_exception" in info else list(info.values())
    return next((str(entry["exception_message"]) for entry in entries if entry.get("raised_exception")), "")


def _positions(result: Mapping[str, Any]) -> list[int]:
    """Collect the rows that broke the rule; without values, Great Expectations lists them as columns of positions."""
    positions: list[int] = []
    for entry in result.get("unexpected_index_list") or []:
        row = entry["row"]
        positions += row if isinstance(row, list) else [row]
    return sorted(int(p) for p in positions)


def _example(row: Any, arguments: Mapping[str, Any]) -> str:
    """Describe a row without its text: position, id, length, and the partner or split that broke the rule."""
    column = arguments.get("column")
    partner = f" ~ {row[column]}" if column in ("near_within", "near_between", "leaked") else ""
    split = f" in split {row['split']!r:.40}" if column == "split" else ""
    return f"row {row['row'] + 1}, id {str(row['id'])[:LONGEST_ID]!r}{split}, {len(str(row['text']))} characters{partner}"


def plain_results(run: Any) -> dict[str, Any]:
    """Convert a result to plain JSON values; tracebacks would carry paths of this machine and are left out."""
    plain: dict[str, Any] = run.to_json_dict()
    for entry, outcome in zip(plain["results"], run.results, strict=True):
        message = _exception(outcome)
        entry["exception_info"] = {"raised_exception": bool(message), "exception_message": message or None}
    return plain
