"""Promotions go forwards: an older decision, or one that was rolled back, is champion again only on purpose."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from gate_evidence import Case
from gate_runs import NAME, again, broken, champion, config, gate, registry_of, versions
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from beear_core.config import RegistryConfig
from beear_core.errors import ConfigError, EvidenceError, RegistryError
from components.mlflow_store.registry import Registry
from components.registry_gate import promotion, step

pytestmark = pytest.mark.usefixtures("own_mlflow")
REASON = "version 2 answers too slowly"


@pytest.fixture
def two(case: Case, store: str, tmp_path: Path) -> Case:
    """Two versions, of which the second is champion; what the gate left is in ``out1`` and ``out2``."""
    gate(case, store, tmp_path / "out1")
    later = again(case, tmp_path / "later", 9.0)
    gate(later, store, tmp_path / "out2")
    assert champion(store) == "2"
    return later


def tags(store: str, number: int) -> dict[str, str]:
    return dict(versions(store)[number - 1].tags)


class TestBackwards:
    def test_an_older_decision_does_not_come_back(self, two: Case, case: Case, store: str, tmp_path: Path) -> None:
        said = "version 1 of .* is older than version 2, which was promoted since its decision; nothing was changed"
        with pytest.raises(RegistryError, match=said):
            promotion.promote(tmp_path / "out1", case.model, config(store))
        with pytest.raises(RegistryError, match=said):
            gate(case, store, tmp_path / "out1")  # as a retry of the step does
        assert (champion(store), len(versions(store))) == ("2", 2)
        assert not (tmp_path / "out1" / "release.json").exists()

    def test_but_on_purpose_and_that_is_noted(self, two: Case, case: Case, store: str, tmp_path: Path) -> None:
        release = promotion.promote(tmp_path / "out1", case.model, config(store), again=REASON)
        assert (release.promoted, release.champion_before, champion(store)) == (True, "2", "1")
        assert tags(store, 1)["promoted_again"] == REASON
        assert (tags(store, 1)["replaced_version"], tags(store, 2)["replaced_version"]) == ("2", "1")
        assert int(tags(store, 1)["promotion"]) > int(tags(store, 2)["promotion"]), "the order of promotions is told"

    def test_what_was_rolled_back_stays_so(self, two: Case, store: str, tmp_path: Path) -> None:
        Registry(store, config(store)).rollback()
        assert champion(store) == "1"
        with pytest.raises(RegistryError, match="version 2 of .* was champion and was rolled back; nothing was changed"):
            promotion.promote(tmp_path / "out2", two.model, config(store))
        assert champion(store) == "1"
        promotion.promote(tmp_path / "out2", two.model, config(store), again=REASON)
        assert (champion(store), tags(store, 2)["rolled_back"]) == ("2", "false")

    def test_a_roll_back_does_not_go_to_what_was_rolled_back(
        self, two: Case, case: Case, store: str, tmp_path: Path
    ) -> None:
        """Version 1 replaced by 2, replaced by 1 again: each replaced the other, and going back once more is no way out."""
        promotion.promote(tmp_path / "out1", case.model, config(store), again=REASON)
        left, now = Registry(store, config(store)).rollback()
        assert (left.number, now.number, tags(store, 1)["rolled_back"]) == ("1", "2", "true")
        with pytest.raises(RegistryError, match="every champion before version 2 of .* was rolled back; nothing to"):
            Registry(store, config(store)).rollback()
        assert (champion(store), tags(store, 2).get("rolled_back")) == ("2", None)

    def test_a_roll_back_goes_past_what_was_rolled_back(self, two: Case, store: str, tmp_path: Path) -> None:
        """Version 3 replaced 2, which was champion once more after it had been rolled back to 1, and is not trusted now."""
        gate(again(two, tmp_path / "third", 10.0), store, tmp_path / "out3")
        registry_of(store).set_model_version_tag(NAME, "2", "rolled_back", "true")
        left, now = Registry(store, config(store)).rollback()
        assert (left.number, now.number, champion(store)) == ("3", "1", "1")

    def test_a_roll_back_that_was_killed_half_way_is_ended_by_another(
        self, two: Case, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def killed(*_: Any, **__: Any) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(MlflowClient, "set_registered_model_alias", killed)
            with pytest.raises(KeyboardInterrupt):
                Registry(store, config(store)).rollback()
        assert (champion(store), tags(store, 2)["rolled_back"]) == ("2", "true")
        Registry(store, config(store)).rollback()
        assert champion(store) == "1"
        with pytest.raises(RegistryError, match="version 2 of .* was champion and was rolled back"):
            promotion.promote(tmp_path / "out2", two.model, config(store))

    def test_a_roll_back_that_failed_is_not_noted(self, two: Case, store: str, monkeypatch: pytest.MonkeyPatch) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(MlflowClient, "set_registered_model_alias", broken)
            with pytest.raises(RegistryError, match="the connection was dropped"):
                Registry(store, config(store)).rollback()
        assert (champion(store), tags(store, 2)["rolled_back"]) == ("2", "false")

    def test_the_same_decision_twice_is_no_step_back(self, two: Case, store: str, tmp_path: Path) -> None:
        _, release = gate(two, store, tmp_path / "out2")
        assert (release.promoted, champion(store), len(versions(store))) == (True, "2", 2)
        assert tags(store, 2)["replaced_version"] == "1", "and it did not replace itself"


def test_a_roll_back_verifies_the_bytes_that_it_goes_to(two: Case, store: str, tmp_path: Path) -> None:
    altered = list(tmp_path.rglob("artifacts/model/tokenizer.json"))
    assert len(altered) == 2
    for path in altered:
        path.write_bytes(path.read_bytes() + b" ")
    said = (
        r"version 1 of .* is not what was decided on \(changed: tokenizer.json; .*tokenizer.json is not the model's own\)"
    )
    with pytest.raises(EvidenceError, match=said):
        Registry(store, config(store)).rollback()
    assert champion(store) == "2"


def test_no_champion_is_said_only_where_the_registry_says_so(
    case: Case, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf = Registry(store, config(store))
    assert shelf.alias.champion() is None, "no such model"
    registry_of(store).create_registered_model(NAME)
    assert shelf.alias.champion() is None, "no such alias"

    def confused(*_: Any, **__: Any) -> None:
        raise MlflowException("what do you mean", error_code=1000)  # INVALID_PARAMETER_VALUE

    monkeypatch.setattr(MlflowClient, "get_registered_model", confused)
    with pytest.raises(RegistryError, match="failed while reading the alias champion: .*what do you mean"):
        shelf.alias.champion()
    with pytest.raises(RegistryError, match="what do you mean"):
        gate(case, store, tmp_path / "out")


def test_a_refused_version_that_somebody_made_champion_was_not_promoted(refused: Case, store: str, tmp_path: Path) -> None:
    gate(refused, store, tmp_path / "no")
    registry_of(store).set_registered_model_alias(NAME, "champion", "1")
    _, release = gate(refused, store, tmp_path / "no")
    assert (release.promoted, release.model_version, release.champion_after) == (False, "1", "1")


def test_where_the_alias_cannot_be_put_back_the_message_says_where_it_may_be(
    two: Case, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, moved = MlflowClient.get_registered_model, []

    def gone(self: Any, name: str) -> Any:
        if moved:
            raise MlflowException("the server went away")
        return real(self, name)

    def move(self: Any, name: str, alias: str, version: str) -> None:
        moved.append(version)

    monkeypatch.setattr(MlflowClient, "get_registered_model", gone)
    monkeypatch.setattr(MlflowClient, "set_registered_model_alias", move)
    said = "went away.*could not be put back.*it may be at version 3 now. Look where it points, and run again"
    with pytest.raises(RegistryError, match=said):
        gate(again(two, tmp_path / "third", 10.0), store, tmp_path / "out3")


class TestWhere:
    """A champion stands where people look: in the MLflow that is named, or on a laptop in the one of all runs."""

    def test_a_step_without_mlflow_is_an_error_before_anything_else(self, case: Case, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="no MLflow is named, and a model would be promoted where nobody looks"):
            step.run(tmp_path / "no such model", {}, policy="?", registry=RegistryConfig(), out=tmp_path / "out")
        assert not (tmp_path / "out").exists()

    def test_what_is_promoted_later_goes_to_the_store_of_its_runs(
        self, case: Case, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        runs = tmp_path / "store"  # where the store's database lies
        with pytest.raises(RegistryError):
            gate(case, "http://127.0.0.1:9", runs / "one")
        monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)  # MLflow sets it to what a process used last
        promotion.promote(runs / "one", case.model, RegistryConfig())
        assert champion(store) == "1"
        assert not (runs / "one" / "mlflow.db").exists()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
        with pytest.raises(RegistryError, match=r"127.0.0.1:9"):
            promotion.promote(runs / "one", case.model, RegistryConfig())
