"""Releases that were made before still replay, and their records keep their digests."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from beear_core.errors import EvidenceError
from beear_core.evidence import RECORDS, Evidence
from beear_core.policy import GatePolicy, redecide
from beear_core.records import Decision, ReleaseRecord
from beear_core.report import render

KEPT = Path(__file__).parents[1] / "fixtures" / "release-schema-1"


def redecided(folder: Path) -> Decision:
    policy = GatePolicy.load(folder / "policy.yaml")
    return redecide(Decision.read(folder / "decision.json"), policy, Evidence.read(folder / "evidence"))


@pytest.mark.parametrize(("name", "passed"), [("passed", True), ("refused", False)])
def test_a_release_of_schema_1_replays_to_the_byte(name: str, passed: bool) -> None:
    decision = redecided(KEPT / name)
    assert decision.passed is passed
    assert decision.to_json() == (KEPT / name / "decision.json").read_bytes()
    release = ReleaseRecord.read(KEPT / name / "release.json")
    assert (release.promoted, release.decision_digest) == (passed, decision.digest)
    assert release.tags["decision_digest"] == decision.digest


@pytest.mark.parametrize("name", ["passed", "refused"])
def test_its_records_are_written_again_as_they_were(name: str, tmp_path: Path) -> None:
    Evidence.read(KEPT / name / "evidence").write(tmp_path)
    for record in RECORDS:
        assert (tmp_path / f"{record}.json").read_bytes() == (KEPT / name / "evidence" / f"{record}.json").read_bytes()


def test_its_report_can_be_written(tmp_path: Path) -> None:
    folder = KEPT / "passed"
    decision, evidence = Decision.read(folder / "decision.json"), Evidence.read(folder / "evidence")
    assert "PROMOTED" in render(decision, evidence, (), ReleaseRecord.read(folder / "release.json"))


@pytest.mark.parametrize("record", RECORDS)
def test_one_changed_number_is_seen(record: str, tmp_path: Path) -> None:
    """Where the decision names the record; the intake it does not name."""
    shutil.copytree(KEPT / "passed", tmp_path / "kept")
    path = tmp_path / "kept" / "evidence" / f"{record}.json"
    values = json.loads(path.read_text())
    values["seconds" if "seconds" in values else "parameters"] += 1
    path.write_text(json.dumps(values, indent=2, sort_keys=True, ensure_ascii=False) + "\n")
    if record == "intake":
        redecided(tmp_path / "kept")
        return
    with pytest.raises(EvidenceError, match=f"{record} missing, added or altered"):
        redecided(tmp_path / "kept")


def test_what_an_earlier_run_left_is_no_evidence(tmp_path: Path) -> None:
    evidence = Evidence.read(KEPT / "passed" / "evidence")
    (tmp_path / "champion.json").write_bytes(evidence.after.to_json())
    assert Evidence.read(KEPT / "passed" / "evidence").champion is None
    evidence.write(tmp_path)
    assert not (tmp_path / "champion.json").exists()
