"""docs/reliability.md says what the tests noted, and nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tools.reliability_page import NOTES, PAGE, page

STEPS = Path(__file__).parents[1] / "steps"


def test_the_page_is_what_was_noted() -> None:
    assert PAGE.read_text() == page(json.loads(NOTES.read_text()))


def test_what_was_not_noted_does_not_stand_there() -> None:
    text = page({"users": {"reader": "exit 1, nothing changed"}})
    assert "| user who may only read | exit 1, nothing changed |" in text
    assert "## Eight at once" not in text
    assert "bearer token" not in text


def test_notes_are_added_up_where_a_file_is_named_and_nowhere_else(tmp_path: Path) -> None:
    code = "from reliability import note; note('race', rounds=3); note('race', lost=2); note('users', reader='no')"
    command = [sys.executable, "-c", code]
    for given, written in (({}, None), ({"BEEAR_RELIABILITY": "notes.json"}, {"rounds": 3, "lost": 2})):
        subprocess.run(command, cwd=tmp_path, env={"PYTHONPATH": str(STEPS), **given}, check=True)
        assert sorted(path.name for path in tmp_path.iterdir()) == ([] if written is None else ["notes.json"])
    assert json.loads((tmp_path / "notes.json").read_text())["race"] == {"rounds": 3, "lost": 2}
