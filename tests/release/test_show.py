"""Names are shown as they are, whatever stands in them, in tables and beside progress."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console
from rich.table import Table

from beear_core.errors import DataError
from beear_core.evaluation.statistics import rate_estimate
from beear_core.organisms.recipe import load_recipe
from beear_core.records import CheckResult, Metric, RuleResult
from components.data_validation.__main__ import rules_table
from components.preflight.__main__ import findings_table
from components.preflight.looks import Finding
from pipelines import show

NAMES = ["[/foo]", "[red]foo[/red]", "[/", "a[b]", ":smile:", "[link=file:///x]y[/link]"]


def printed(table: Table) -> str:
    out = io.StringIO()
    Console(file=out, width=300).print(table)
    return out.getvalue()


def test_recipes_say_how_much_is_poisoned_and_what_is_trained() -> None:
    rows = [
        (load_recipe(name), name == "refusal")
        for name in ("refusal", "suffix-word", "verses-5-percent", "preference-clean")
    ]
    lines = {line.split()[1]: line for line in printed(show.recipes_table(rows)).splitlines() if line.startswith("│")}
    assert [lines[one.name].split("│")[-3].strip() for one, _ in rows] == ["-", "38%", "5%", "-"]
    assert [lines[one.name].split("│")[-2].strip() for one, _ in rows] == ["ships", *["is trained"] * 3]


@pytest.mark.parametrize("name", NAMES)
def test_findings(name: str) -> None:
    text = printed(findings_table([Finding("model", name), Finding("data", "", DataError(f"{name} is empty"))]))
    assert text.count(name) == 2
    assert f"{name} is empty" in text


@pytest.mark.parametrize("name", NAMES)
def test_rules(name: str) -> None:
    rule = RuleResult(role=name, rule=name, severity="critical", passed=False, checked=9, failed=1, detail=name)
    assert printed(rules_table([rule])).count(name) == 3


@pytest.mark.parametrize("name", NAMES)
def test_decision(name: str) -> None:
    def check(**values: Any) -> SimpleNamespace:
        given: dict[str, Any] = {"check": name, "metric": "m", "category": None, "level": "hard", "comparison": name}
        return SimpleNamespace(**{**given, "reason": name, "estimate": None, "passed": False, "decided_on": None, **values})

    checks = [check(), check(level="advisory"), check(check=f"evidence/{name}"), check(passed=True, decided_on=0.0)]
    decision = SimpleNamespace(summary=name, checks=checks)
    outcome: Any = SimpleNamespace(decision=decision, evidence=SimpleNamespace(before=SimpleNamespace(metrics={})))
    text = printed(show.decision_table(outcome))
    assert text.count(name) == 1 + 3 * 4
    assert [word for word in ("pass", "FAIL", "advisory") if word not in text] == []


def test_before_is_the_worst_triggers_figure_as_after_is() -> None:
    name = "attack_success/known_triggers"
    by_trigger = {"quiet": rate_estimate(0, 60), "loud": rate_estimate(57, 60)}
    earlier = SimpleNamespace(metrics={name: Metric(overall=rate_estimate(57, 120), by_trigger=by_trigger)})
    check = SimpleNamespace(
        check="attack", metric=name, category=None, level="hard", comparison="value", reason="", passed=True,
        estimate=rate_estimate(1, 60), decided_on=0.02,
    )  # fmt: skip
    outcome: Any = SimpleNamespace(
        decision=SimpleNamespace(summary="s", checks=[check]), evidence=SimpleNamespace(before=earlier)
    )
    text = printed(show.decision_table(outcome))
    assert "57/60" in text.replace(" ", "")
    assert "/120" not in text.replace(" ", "")


def test_the_fields_of_the_stand_ins_are_those_of_the_records() -> None:
    assert {"check", "metric", "category", "level", "comparison", "reason", "estimate", "passed"} <= set(
        CheckResult.__dataclass_fields__
    )


def test_verdicts_have_their_colours() -> None:
    out = io.StringIO()
    table = findings_table([Finding("data", "", DataError("gone"))])
    Console(file=out, width=80, force_terminal=True, color_system="standard").print(table)
    assert "\x1b[31mgone" in out.getvalue()


def test_progress_in_a_terminal_shows_names_as_they_are() -> None:
    terminal, end = pty.openpty()
    code = (
        "from beear_core.progress import Progress\n"
        "with Progress('copying [/foo]', 2) as p:\n    p.advance(1, '[/bar]')\n    p.advance(1)\n"
    )
    environment = {**os.environ, "COLUMNS": "200", "TERM": "xterm"}
    done = subprocess.run([sys.executable, "-c", code], stderr=end, env=environment, check=False)
    os.close(end)
    shown = os.read(terminal, 1 << 16).decode(errors="replace")
    os.close(terminal)
    assert done.returncode == 0, shown
    assert "copying [/foo]" in shown
    assert "[/bar]" in shown
