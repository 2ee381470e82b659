"""A decision is registered once, whatever was cut off or sent twice, and in the registry that is named."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from gate_evidence import Case
from gate_runs import NAME, broken, champion, config, gate, registry_of, versions
from mlflow.tracking import MlflowClient

from beear_core.errors import RegistryError
from components.registry_gate.verification import verify

pytestmark = pytest.mark.usefixtures("own_mlflow")


def logged(store: str) -> list[str]:
    """Status of every logged model."""
    client = registry_of(store)
    experiments = [e.experiment_id for e in client.search_experiments()]
    return [str(model.status) for model in client.search_logged_models(experiments)]


def again_after(monkeypatch: pytest.MonkeyPatch, call: str, instead: Any, case: Case, store: str, out: Path) -> None:
    """The gate with one call of MLflow's client replaced, which ends it; then once more as it is."""
    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, call, instead)
        with pytest.raises(RegistryError, match="the connection was dropped"):
            gate(case, store, out)
    assert champion(store) is None
    gate(case, store, out)
    assert champion(store) == "1"
    assert verify(f"models:/{NAME}@champion", config(store)).passed


@pytest.mark.parametrize("call", ["log_model_artifacts", "finalize_logged_model", "create_model_version"])
def test_what_was_cut_off_is_gone_on_with(
    case: Case, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    again_after(monkeypatch, call, broken, case, store, tmp_path / "out")
    assert (logged(store), len(versions(store))) == (["READY"], 1)


@pytest.mark.parametrize("call", ["create_logged_model", "create_model_version"])
def test_a_lost_answer_makes_nothing_twice(
    case: Case, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    real = getattr(MlflowClient, call)

    def lost(self: Any, *given: Any, **named: Any) -> None:
        real(self, *given, **named)
        broken()

    again_after(monkeypatch, call, lost, case, store, tmp_path / "out")
    assert (logged(store), len(versions(store))) == (["READY"], 1)


def test_a_request_that_was_sent_twice_leaves_one_version(
    case: Case, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As MLflow's own transport does it when an answer does not come."""
    real = MlflowClient.create_model_version

    def twice(self: Any, *given: Any, **named: Any) -> Any:
        real(self, *given, **named)
        return real(self, *given, **named)

    monkeypatch.setattr(MlflowClient, "create_model_version", twice)
    _, release = gate(case, store, tmp_path / "out")
    assert (release.promoted, release.model_version, [str(v.version) for v in versions(store)]) == (True, "1", ["1"])


def test_a_registry_of_its_own_is_used_and_left_named(
    case: Case, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = f"sqlite:///{tmp_path}/registry.db"
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", elsewhere)
    _, release = gate(case, store, tmp_path / "out")
    assert release.promoted
    assert os.environ["MLFLOW_REGISTRY_URI"] == elsewhere
    assert str(registry_of(elsewhere).get_registered_model(NAME).aliases["champion"]) == "1"
    assert versions(store) == []
