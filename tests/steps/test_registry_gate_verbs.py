"""Rollback, replay and promotion after the gate, and the gate as a command."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
import toy
from gate_evidence import Case
from gate_runs import NAME, again, broken, champion, config, gate, registry_of
from mlflow.tracking import MlflowClient

from beear_core.errors import EvidenceError, RegistryError
from beear_core.evidence import Evidence
from beear_core.policy import GatePolicy, decide
from beear_core.records import ReleaseRecord
from components.registry_gate import promotion, replay

pytestmark = pytest.mark.usefixtures("own_mlflow")


def test_rollback_and_its_limits(case: Case, store: str, tmp_path: Path) -> None:
    from components.mlflow_store.registry import Registry

    with pytest.raises(RegistryError, match="no champion to roll back from"):
        Registry(store, config(store)).rollback()
    gate(case, store, tmp_path / "out")
    with pytest.raises(RegistryError, match="nothing to roll back to"):
        Registry(store, config(store)).rollback()
    gate(again(case, tmp_path / "again", 9.0), store, tmp_path / "out2")
    left, now = Registry(store, config(store)).rollback()
    assert (left.number, now.number, champion(store)) == ("2", "1", "1")


def test_rollback_never_ends_at_a_refused_version(case: Case, refused: Case, store: str, tmp_path: Path) -> None:
    from components.mlflow_store.registry import Registry

    gate(refused, store, tmp_path / "no")
    gate(case, store, tmp_path / "out")
    registry_of(store).set_model_version_tag(NAME, "2", "replaced_version", "1")
    with pytest.raises(RegistryError, match="did not pass its gate"):
        Registry(store, config(store)).rollback()
    assert champion(store) == "2"


def test_a_rollback_that_fails_leaves_the_alias(
    case: Case, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from components.mlflow_store.registry import Registry

    gate(case, store, tmp_path / "out")
    gate(again(case, tmp_path / "again", 9.0), store, tmp_path / "out2")
    monkeypatch.setattr(MlflowClient, "set_model_version_tag", broken)
    with pytest.raises(RegistryError, match="the connection was dropped"):
        Registry(store, config(store)).rollback()
    assert champion(store) == "2"


def test_replay_agrees_to_the_byte(case: Case, store: str, tmp_path: Path) -> None:
    decision, _ = gate(case, store, tmp_path / "out")
    assert replay.replay(tmp_path / "out").to_json() == decision.to_json()


@pytest.mark.parametrize("name", ["after", "validation", "intake"])
def test_replay_names_what_was_altered(case: Case, store: str, tmp_path: Path, name: str) -> None:
    gate(case, store, tmp_path / "out")
    path = tmp_path / "out" / "evidence" / f"{name}.json"
    values = json.loads(path.read_text())
    number = "parameters" if name == "intake" else "seconds"
    path.write_text(json.dumps({**values, number: values[number] + 1}, indent=2, sort_keys=True) + "\n")
    with pytest.raises(EvidenceError, match=f"not the evidence that was decided on: {name} missing, added or altered"):
        replay.replay(tmp_path / "out")


@pytest.mark.parametrize("name", ["evidence/after.json", "decision.json"])
def test_replay_takes_no_other_spelling(case: Case, store: str, tmp_path: Path, name: str) -> None:
    gate(case, store, tmp_path / "out")
    path = tmp_path / "out" / name
    path.write_text(json.dumps(json.loads(path.read_text()), indent=1))
    with pytest.raises(EvidenceError, match="but not the bytes that were written"):
        replay.replay(tmp_path / "out")


@pytest.mark.parametrize("name", ["README.md", "bom.cdx.json"])
def test_replay_looks_at_what_goes_with_the_model(case: Case, store: str, tmp_path: Path, name: str) -> None:
    gate(case, store, tmp_path / "out")
    path = tmp_path / "out" / name
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(EvidenceError, match=f"{name} has the digest sha256:.*, decided was with sha256:.*; it was altered"):
        replay.replay(tmp_path / "out")
    path.unlink()
    with pytest.raises(EvidenceError, match=f"cannot read .*{name}, which the decision names"):
        promotion.promote(tmp_path / "out", case.model, config(store))


def test_a_decision_is_about_one_registered_model(case: Case, store: str, tmp_path: Path) -> None:
    gate(case, store, tmp_path / "out")
    other = dataclasses.replace(config(store), model_name="other")
    with pytest.raises(EvidenceError, match="about the registered model release-candidate, not other; give that name"):
        promotion.promote(tmp_path / "out", case.model, other)


def test_a_decision_of_schema_1_is_replayed_and_not_promoted(case: Case, store: str, tmp_path: Path) -> None:
    gate(case, store, tmp_path / "out")
    policy, evidence = GatePolicy.load("standard"), Evidence.read(tmp_path / "out" / "evidence")
    decide(policy, evidence).write(tmp_path / "out" / "decision.json")
    assert replay.replay(tmp_path / "out").passed
    with pytest.raises(EvidenceError, match="the decision is of schema 1 and names no files; run the gate again"):
        promotion.promote(tmp_path / "out", case.model, config(store))


def test_replay_names_another_policy(case: Case, store: str, tmp_path: Path) -> None:
    gate(case, store, tmp_path / "out")
    path = tmp_path / "out" / "policy.yaml"
    altered = path.read_text().replace("at_most: 0.05", "at_most: 0.5")
    assert altered != path.read_text()
    path.write_text(altered)
    with pytest.raises(EvidenceError, match="the policy has digest"):
        replay.replay(tmp_path / "out")


def test_promote_later(case: Case, refused: Case, store: str, tmp_path: Path) -> None:
    with pytest.raises(RegistryError):
        gate(case, "http://127.0.0.1:9", tmp_path / "out")
    release = promotion.promote(tmp_path / "out", case.model, config(store))
    assert (release.promoted, champion(store)) == (True, "1")
    gate(refused, store, tmp_path / "no")
    with pytest.raises(EvidenceError, match="is a refusal"):
        promotion.promote(tmp_path / "no", refused.model, config(store))
    other = toy.make_tiny_model(tmp_path / "other", seed=1)
    with pytest.raises(
        EvidenceError, match=r"is not the model that was decided on \(changed: model.safetensors\); give that model"
    ):
        promotion.promote(tmp_path / "out", other, config(store))
    assert champion(store) == "1"


# the command


def command(case: Case, out: Path, *more: str) -> subprocess.CompletedProcess[str]:
    call = [sys.executable, "-m", "components.registry_gate", "--model", str(case.model), "--out", str(out)]
    call += ["--evidence", str(case.evidence["after"].parent), *more]
    return subprocess.run(call, capture_output=True, text=True, cwd=Path(__file__).parents[2], check=False)


def test_the_command(case: Case, refused: Case, store: str, tmp_path: Path) -> None:
    settings = tmp_path / "release.yaml"
    settings.write_text(f"registry:\n  tracking_uri: {store}\n")
    done = command(case, tmp_path / "out", "--config", str(settings), "--json")
    assert done.returncode == 0, done.stderr
    assert ReleaseRecord.parse(done.stdout.encode()).promoted
    no = command(refused, tmp_path / "no", "--config", str(settings), "--json")
    assert (no.returncode, json.loads(no.stdout)["promoted"]) == (3, False)
    told = command(case, tmp_path / "told", "--config", str(settings))
    assert (told.returncode, told.stdout[:7]) == (0, "PASSED:")
    assert "champion    version" in told.stdout
    assert command(case, tmp_path / "x", "--policy", "strict").returncode == 2
