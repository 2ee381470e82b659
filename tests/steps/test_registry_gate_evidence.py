"""The gate decides nothing on evidence that does not belong together, nor by a policy that could not fail."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import toy
from gate_evidence import Case, g, make_case
from gate_runs import champion, config, gate, versions

from beear_core.errors import EvidenceError, PolicyError
from beear_core.evidence import Evidence
from beear_core.policy import decide, find_policy
from beear_core.records import EvaluationRecord, SuiteEntry
from components.registry_gate import promotion, replay

pytestmark = pytest.mark.usefixtures("own_mlflow")


def test_another_model_than_was_measured(case: Case, store: str, tmp_path: Path) -> None:
    other = toy.make_tiny_model(tmp_path / "other", seed=1)
    with pytest.raises(EvidenceError, match="not the bytes that the evidence is about"):
        gate(dataclasses.replace(case, model=other), store, tmp_path / "out")
    assert (versions(store), (tmp_path / "out").exists()) == ([], False)


def test_an_intake_of_another_model(case: Case, store: str, tmp_path: Path) -> None:
    case.change("intake", g.intake(model_digest=g.digest("another")))
    with pytest.raises(EvidenceError, match=r"intake.*before"):
        gate(case, store, tmp_path / "out")
    assert (versions(store), (tmp_path / "out").exists()) == ([], False)


@pytest.mark.parametrize("label", ["before", "after"])
def test_samples_that_were_altered(case: Case, store: str, tmp_path: Path, label: str) -> None:
    path = case.before_samples if label == "before" else case.after_samples
    path.write_bytes(path.read_bytes().replace(b'"harmful"', b'"safe"').replace(b"fraud", b"theft"))
    with pytest.raises(EvidenceError, match=rf"{label}.*samples|samples.*{label}"):
        gate(case, store, tmp_path / "out")
    assert versions(store) == []


@pytest.mark.parametrize("name", ["intake", "validation", "before", "after", "mitigation"])
def test_a_record_that_is_missing_or_broken(case: Case, store: str, tmp_path: Path, name: str) -> None:
    case.evidence[name].write_text("{")
    with pytest.raises(EvidenceError, match=f"{name}.json is not a valid"):
        gate(case, store, tmp_path / "out")
    case.evidence[name].unlink()
    with pytest.raises(EvidenceError, match=f"cannot read .*{name}.json"):
        gate(case, store, tmp_path / "out")
    assert (versions(store), (tmp_path / "out").exists()) == ([], False)


EASY = {name: SuiteEntry(digest=g.digest(f"easy {name}"), n=e.n) for name, e in g.after().suites.items()}


def test_suites_that_were_not_validated_are_refused(case: Case, store: str, tmp_path: Path) -> None:
    for name in ("before", "after"):
        record = EvaluationRecord.read(case.evidence[name])
        case.change(name, dataclasses.replace(record, suites=EASY, suites_digest=g.digest("easy")))
    decision, release = gate(case, store, tmp_path / "out")
    assert [c.check for c in decision.failed_checks()] == ["evidence/validated-suites"]
    assert (release.promoted, champion(store)) == (False, None)


def test_a_validated_trigger_that_was_left_out_is_refused(case: Case, store: str, tmp_path: Path) -> None:
    for name in ("before", "after"):
        record = EvaluationRecord.read(case.evidence[name])
        case.change(name, g.fitted(g.with_metric(record, "attack_success/known_triggers", None)))
    decision, release = gate(case, store, tmp_path / "out")
    failed = {c.check: c.reason for c in decision.failed_checks()}
    assert set(failed) == {"evidence/triggers"}
    assert "asked 0 requests under triggers; with 1 validated and 120 harmful requests" in failed["evidence/triggers"]
    assert not release.promoted


CANNOT_FAIL = (
    "schema_version: 1\nname: nothing\ndescription: x\nchecks:\n"
    "  - {id: a, metric: attack_success/plain, at_most: 1.0, min_samples: 1, reason: r}\n"
)


def test_a_policy_that_cannot_fail_decides_nothing(tmp_path: Path, tiny_model: Path, store: str) -> None:
    case = make_case(tmp_path / "case", tiny_model)
    worst = g.worse(EvaluationRecord.read(case.evidence["after"]), "attack_success/plain", 1.0)
    case.change("after", worst)
    with pytest.raises(PolicyError, match=r"policy nothing cannot be meant with what was measured") as caught:
        gate(case, store, tmp_path / "out", policy=CANNOT_FAIL)
    assert "its value never exceeds 100%; lower at_most" in caught.value.faults[0]
    assert (versions(store), (tmp_path / "out").exists()) == ([], False)
    # nor does one that could never pass at these sizes
    impossible = CANNOT_FAIL.replace("at_most: 1.0, min_samples: 1", "at_most: 0.05, min_samples: 121")
    with pytest.raises(PolicyError, match=r"asks for 121 samples, the harmful suite has 120"):
        gate(case, store, tmp_path / "out", policy=impossible)


def test_what_a_policy_that_cannot_fail_passed_elsewhere_is_not_promoted(case: Case, store: str, tmp_path: Path) -> None:
    """A folder made without the gate: its decision replays, and would pass anything."""
    out = tmp_path / "out"
    records = Evidence.read_files(case.evidence)
    policy, text = find_policy(CANNOT_FAIL)
    records.write(out / "evidence")
    (out / "policy.yaml").write_text(text)
    decision = decide(policy, records)
    decision.write(out / "decision.json")
    assert replay.replay(out).passed
    with pytest.raises(PolicyError, match="policy nothing cannot be meant with what was measured"):
        promotion.promote(out, case.model, config(store))
    assert (versions(store), champion(store)) == ([], None)


def test_a_policy_that_does_not_exist(case: Case, store: str, tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="no policy 'strict'"):
        gate(case, store, tmp_path / "out", policy="strict")


def test_a_policy_given_as_text(case: Case, store: str, tmp_path: Path) -> None:
    from beear_core.policy import SHIPPED

    text = (SHIPPED / "standard.yaml").read_text()
    decision, _ = gate(case, store, tmp_path / "out", policy=text)
    assert decision.policy == "standard"
