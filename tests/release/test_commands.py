"""The steps' commands: one definition for ``beear`` and for ``python -m``, with help, completion and JSON."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from beear_core.records import ValidationRecord

ROOT = Path(__file__).parents[2]
VERBS = {
    "validate": "data_validation",
    "evaluate": "safety_eval",
    "mitigate": "beear_mitigation",
    "gate": "registry_gate",
}


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    given = {**os.environ, "COLUMNS": "100", "NO_COLOR": "1", **environment}
    return subprocess.run(
        [sys.executable, "-m", *arguments], cwd=ROOT, env=given, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(("verb", "component"), VERBS.items())
def test_a_verb_and_its_component_are_one_command(verb: str, component: str) -> None:
    as_verb, by_itself = run("pipelines.cli", verb, "--help"), run(f"components.{component}", "--help")
    assert as_verb.returncode == by_itself.returncode == 0
    assert as_verb.stdout.startswith(f"Usage: beear {verb} [OPTIONS]")
    assert by_itself.stdout.startswith(f"Usage: python -m components.{component} [OPTIONS]")
    assert as_verb.stdout.split("\n", 1)[1] == by_itself.stdout.split("\n", 1)[1]
    assert "--json" in as_verb.stdout
    assert "Exit codes: 0" in as_verb.stdout


@pytest.mark.parametrize(("verb", "component"), VERBS.items())
def test_both_say_what_is_missing(verb: str, component: str) -> None:
    for done in (run("pipelines.cli", verb), run(f"components.{component}")):
        assert (done.returncode, done.stdout) == (2, "")
        assert "Missing option" in done.stderr


def test_a_summary_for_people_and_json_for_machines(tmp_path: Path) -> None:
    told = run("components.data_validation", "--out", str(tmp_path / "a"))
    assert (told.returncode, told.stdout.split("\n")[0].strip()) == (0, "Data validation")
    assert re.search(r"(\d+) of \1 rules hold", told.stdout)
    printed = run("pipelines.cli", "validate", "--out", str(tmp_path / "b"), "--json")
    record = ValidationRecord.parse(printed.stdout.encode())
    assert record.passed
    assert json.loads((tmp_path / "b" / "validation.json").read_text()) == json.loads(printed.stdout)


@pytest.mark.parametrize(("typed", "wanted"), [("beear evaluate --ref", "--reference"), ("beear mit", "mitigate")])
def test_completion_knows_verbs_and_options(typed: str, wanted: str) -> None:
    given = {"_BEEAR_COMPLETE": "complete_bash", "COMP_WORDS": typed, "COMP_CWORD": str(typed.count(" "))}
    assert wanted in run("pipelines.cli", **given).stdout.split()


def test_completion_leaves_file_names_to_the_shell() -> None:
    script = run("pipelines.cli", _BEEAR_COMPLETE="source_bash").stdout
    assert "complete -o default" in script
    typed = {"COMP_WORDS": "beear evaluate --model pyproj", "COMP_CWORD": "3"}
    assert run("pipelines.cli", _BEEAR_COMPLETE="complete_bash", **typed).stdout.strip() == ""
