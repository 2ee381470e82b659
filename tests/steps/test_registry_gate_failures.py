"""Whatever fails on the way into the registry, the alias stays where it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from gate_evidence import Case
from gate_runs import NAME, again, broken, champion, gate, registry_of, versions
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from beear_core.errors import EvidenceError, RegistryError
from beear_core.records import ReleaseRecord
from components.registry_gate import replay

pytestmark = pytest.mark.usefixtures("own_mlflow")


CALLS = (
    "create_registered_model",
    "create_model_version",
    "get_model_version",
    "set_model_version_tag",
    "set_registered_model_alias",
    "get_registered_model",
    "search_registered_models",
    "search_model_versions",
    "log_batch",
    "log_text",
    "get_run",
)


@pytest.mark.parametrize("call", CALLS)
def test_a_call_that_fails_leaves_the_alias(
    case: Case, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    gate(case, store, tmp_path / "out")
    later = again(case, tmp_path / "again", 9.0)
    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, call, broken)
        with pytest.raises(RegistryError, match="the connection was dropped"):
            gate(later, store, tmp_path / "out2")
    assert champion(store) == "1"
    assert not (tmp_path / "out2" / "release.json").exists()
    # and running again ends in the right state
    _, release = gate(later, store, tmp_path / "out2")
    assert (release.promoted, champion(store)) == (True, release.model_version)


def test_the_alias_is_put_back_when_setting_it_was_answered_by_an_error(
    case: Case, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate(case, store, tmp_path / "out")
    real = MlflowClient.set_registered_model_alias
    calls: list[str] = []

    def lost(self: Any, name: str, alias: str, version: str) -> None:
        real(self, name, alias, version)
        calls.append(version)
        if len(calls) == 1:
            raise MlflowException("the answer was lost")

    monkeypatch.setattr(MlflowClient, "set_registered_model_alias", lost)
    with pytest.raises(RegistryError, match="the answer was lost"):
        gate(again(case, tmp_path / "again", 9.0), store, tmp_path / "out2")
    assert champion(store) == "1"


def test_the_first_alias_is_taken_away_again(
    case: Case, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = MlflowClient.set_registered_model_alias

    def lost(self: Any, name: str, alias: str, version: str) -> None:
        real(self, name, alias, version)
        raise MlflowException("the answer was lost")

    monkeypatch.setattr(MlflowClient, "set_registered_model_alias", lost)
    with pytest.raises(RegistryError, match="the answer was lost"):
        gate(case, store, tmp_path / "out")
    assert champion(store) is None


def test_a_lost_race_changes_nothing(case: Case, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate(case, store, tmp_path / "out")
    gate(again(case, tmp_path / "b", 8.0), store, tmp_path / "out2")
    from components.mlflow_store.registry import Registry

    verify = Registry.verify

    def meanwhile(self: Any, *arguments: Any) -> None:
        verify(self, *arguments)
        registry_of(store).set_registered_model_alias(NAME, "champion", "1")

    monkeypatch.setattr(Registry, "verify", meanwhile)
    with pytest.raises(RegistryError, match=r"expected at version 2 and is at version 1.*somebody else"):
        gate(again(case, tmp_path / "c", 9.0), store, tmp_path / "out3")
    assert champion(store) == "1"


@pytest.mark.parametrize("name", ["model.safetensors", "chat_template.jinja", "tokenizer.json"])
def test_registered_bytes_that_are_not_the_decided_ones(
    case: Case, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    from components.mlflow_store.registry import Registry

    register = Registry.register

    def altered(self: Any, *arguments: Any) -> Any:
        version = register(self, *arguments)
        for path in tmp_path.rglob(f"artifacts/model/{name}"):
            path.write_bytes(path.read_bytes() + b" ")
        return version

    monkeypatch.setattr(Registry, "register", altered)
    with pytest.raises(EvidenceError, match=rf"is not what was decided on \(changed: {name}.*\)"):
        gate(case, store, tmp_path / "out")
    assert champion(store) is None


def test_mlflow_is_not_there(case: Case, tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match=r"MLflow at http://127.0.0.1:9 failed"):
        gate(case, "http://127.0.0.1:9", tmp_path / "out")
    # what was decided is kept and can be promoted when MLflow is back
    assert replay.replay(tmp_path / "out").passed
    assert not (tmp_path / "out" / "release.json").exists()


def test_a_failure_leaves_no_release_of_an_earlier_run(case: Case, refused: Case, store: str, tmp_path: Path) -> None:
    gate(case, store, tmp_path / "out")
    with pytest.raises(RegistryError):
        gate(refused, "http://127.0.0.1:9", tmp_path / "out")
    left = {path.name for path in (tmp_path / "out").iterdir()}
    assert left == {"decision.json", "evidence", "policy.yaml", "README.md", "bom.cdx.json"}


@pytest.mark.parametrize("which", [1, 2])
def test_a_report_that_cannot_be_stored_stops_before_the_alias_moves_or_says_that_it_did(
    case: Case, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, which: int
) -> None:
    real, pages = MlflowClient.log_artifact, []

    def all_but_one_page(self: Any, run_id: str, path: str, *more: Any, **named: Any) -> None:
        pages.extend([path] * path.endswith("report.html"))
        if len(pages) == which:
            broken()
        real(self, run_id, path, *more, **named)

    said = r"champion of .* did move, to version 1; only the record" if which == 2 else "the connection was dropped"
    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "log_artifact", all_but_one_page)
        with pytest.raises(RegistryError, match=said):
            gate(case, store, tmp_path / "out")
    assert champion(store) == {1: None, 2: "1"}[which]
    if which == 2:
        assert ReleaseRecord.read(tmp_path / "out" / "release.json").promoted
    _, second = gate(case, store, tmp_path / "out")
    assert (second.promoted, len(versions(store))) == (True, 1)
