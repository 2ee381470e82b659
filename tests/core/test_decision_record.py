"""The decision of schema 2: one spelling, bound to files, documents, code and runs."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import gate_records as g
import pytest
import rfc8785

from beear_core.errors import EvidenceError
from beear_core.evidence import Evidence
from beear_core.models.folder import digest_entries
from beear_core.policy import GatePolicy, decide, redecide
from beear_core.records import Decision, Environment, EvaluationRecord, FileEntry, Provenance, running
from beear_core.report import render

FILES = (
    FileEntry(path="config.json", size=2, digest=g.digest("a")),
    FileEntry(path="model.safetensors", size=9, digest=g.digest("b")),
)


@pytest.fixture
def evidence() -> Evidence:
    after = dataclasses.replace(g.after(), model_digest=digest_entries(FILES))
    mitigation = dataclasses.replace(g.mitigation(), output_digest=after.model_digest)
    return Evidence(intake=g.intake(), validation=g.validation(), before=g.before(), after=after, mitigation=mitigation)


def provenance(**changes: Any) -> Provenance:
    values: dict[str, Any] = {
        "model_name": "chat",
        "files": FILES,
        "documents": {"README.md": g.digest("card")},
        "environment": Environment.here(()),
        "kfp_run_id": "kfp-1",
        "mlflow_run_id": "run-1",
    }
    return Provenance(**{**values, **changes})


@pytest.fixture
def decision(evidence: Evidence) -> Decision:
    return decide(GatePolicy.load("standard"), evidence, provenance())


def test_its_file_is_canonical_json_and_its_digest_that_of_the_file(decision: Decision, tmp_path: Path) -> None:
    data = decision.write(tmp_path / "decision.json").read_bytes()
    assert data == rfc8785.dumps(json.loads(data))
    assert decision.digest == f"sha256:{hashlib.sha256(data).hexdigest()}"
    assert Decision.read(tmp_path / "decision.json", as_written=True) == decision


def test_it_names_every_record_and_is_made_again(decision: Decision, evidence: Evidence) -> None:
    assert set(decision.evidence) == {*evidence.named(), "suites"}
    assert redecide(decision, GatePolicy.load("standard"), evidence) == decision
    other = dataclasses.replace(g.intake(), resolved="models:/chat/7")
    with pytest.raises(EvidenceError, match="intake missing, added or altered"):
        redecide(decision, GatePolicy.load("standard"), dataclasses.replace(evidence, intake=other))


@pytest.mark.parametrize(
    "change",
    [
        {"model_name": "other"},
        {"documents": {}},
        {"kfp_run_id": "kfp-2"},
        {"mlflow_run_id": ""},
        {"environment": dataclasses.replace(Environment.here(()), code_digest=g.digest("x"))},
        {"environment": dataclasses.replace(Environment.here(()), packages_digest=g.digest("x"))},
        {"environment": dataclasses.replace(Environment.here(()), image=g.digest("x"))},
        {"files": (dataclasses.replace(FILES[0], size=3), FILES[1])},
    ],
    ids=str,
)
def test_whatever_it_is_bound_to_changes_its_digest(change: dict[str, Any], decision: Decision, evidence: Evidence) -> None:
    assert decide(GatePolicy.load("standard"), evidence, provenance(**change)).digest != decision.digest


def test_other_files_than_were_measured_are_refused(evidence: Evidence) -> None:
    files = (FILES[0], dataclasses.replace(FILES[1], digest=g.digest("c")))
    with pytest.raises(
        EvidenceError, match="the files to decide on have the digest .*, measured was .*; give the model that was"
    ):
        decide(GatePolicy.load("standard"), evidence, provenance(files=files))


@pytest.mark.parametrize(
    ("alter", "said"),
    [
        (lambda text: text.replace('"passed":', '"passed":true,"passed":', 1), "passed: stands there twice|not the bytes"),
        (lambda text: text.replace('{"', '{"note":"x","', 1), "note"),
        (
            lambda text: text.replace('"size":2', '"size":2,"mode":7'),
            "provenance.files.0.mode: Unexpected keyword argument",
        ),
        (lambda text: text.replace('"size":2', '"size":"2"'), "provenance.files.0.size: Input should be a valid integer"),
        (lambda text: text.replace('"size":2', '"size":2.0'), "provenance.files.0.size|not the bytes that were written"),
        (lambda text: text + "\n", "not the bytes that were written: its layout or the form of its numbers was altered"),
        (lambda text: text.replace(":", ": ", 1), "not the bytes that were written"),
        (
            lambda text: text.replace('"schema_version":2', '"schema_version":1'),
            "decision of schema version 1 has a provenance",
        ),
        (
            lambda text: text.replace('"schema_version":2', '"schema_version":3'),
            "schema version 3, this release reads 1 and 2",
        ),
    ],
)
def test_no_other_spelling_is_read(alter: Any, said: str, decision: Decision, tmp_path: Path) -> None:
    path = decision.write(tmp_path / "decision.json")
    altered = alter(path.read_text())
    assert altered != path.read_text()
    path.write_text(altered)
    with pytest.raises(EvidenceError, match=said):
        Decision.read(path, as_written=True)


def test_a_nested_field_that_nobody_knows_is_refused_in_any_record(tmp_path: Path) -> None:
    values = json.loads(g.after().to_json())
    values["environment"]["mood"] = "good"
    (tmp_path / "after.json").write_text(json.dumps(values))
    with pytest.raises(EvidenceError, match="environment.mood: Unexpected keyword argument"):
        EvaluationRecord.read(tmp_path / "after.json")


class TestRunning:
    def test_the_code_is_told_by_what_lies_on_the_disk(self, tmp_path: Path) -> None:
        """Seen from a copy with one letter changed, in a process of its own."""
        import shutil

        root = Path(__file__).parents[2]
        for package in ("beear_core", "components", "pipelines"):
            ignored = shutil.ignore_patterns("__pycache__", "adapters", "datasets")
            shutil.copytree(root / package, tmp_path / package, ignore=ignored)

        def digest() -> str:
            code = "from beear_core.records import running; print(running.code_digest(), running.commit())"
            done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
            return done.stdout.strip()

        same = digest()
        assert same == digest()
        (tmp_path / "components" / "face.py").write_text((tmp_path / "components" / "face.py").read_text() + "#")
        assert digest() != same

    def test_an_image_carries_commit_and_digest(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("BEEAR_COMMIT", "c0ffee")
        monkeypatch.setenv("BEEAR_IMAGE_DIGEST", g.digest("image"))
        running.commit.cache_clear()
        try:
            here = Environment.here()
        finally:
            running.commit.cache_clear()
        assert (here.commit, here.image) == ("c0ffee", g.digest("image"))

    def test_packages_are_told_by_name_and_version(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Found:
            def __init__(self, name: str, version: str) -> None:
                self.name, self.version = name, version

        def digest(*found: Found) -> str:
            monkeypatch.setattr(running, "distributions", lambda: found)
            return running.packages_digest()

        one = digest(Found("Torch", "2.13.0"), Found("great_expectations", "1"))
        assert one == digest(Found("great-expectations", "1"), Found("torch", "2.13.0"))
        assert one != digest(Found("torch", "2.13.1"), Found("great-expectations", "1"))


def test_the_report_names_what_it_is_bound_to(evidence: Evidence) -> None:
    assert evidence.intake
    intake = dataclasses.replace(evidence.intake, uri="models:/chat@next", resolved="models:/chat/7")
    records = dataclasses.replace(evidence, intake=intake)
    decision = decide(GatePolicy.load("standard"), records, provenance())
    html = render(decision, records, ())
    assert decision.provenance
    here = decision.provenance.environment
    for shown in (
        "models:/chat@next (models:/chat/7)",
        "README.md",
        g.digest("card"),
        here.code_digest,
        here.packages_digest,
    ):
        assert shown in html
