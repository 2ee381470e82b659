"""Whatever moves the champion's alias is written down in a chain that shows what was altered, cut off or left out."""

from __future__ import annotations

import subprocess
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from gate_runs import NAME, broken, champion, config, registry_of
from ledger_store import change, digest, pages, promote, told, version
from mlflow.tracking import MlflowClient

from beear_core.errors import RegistryError
from components.mlflow_store.champion import Grounds
from components.mlflow_store.ledger import Ledger
from components.mlflow_store.registry import Registry

pytestmark = pytest.mark.usefixtures("own_mlflow")


def rolled_back(store: str, reason: str = "") -> None:
    shelf = Registry(store, config(store))
    shelf.alias.move_back(lambda _: None, reason)


def read(store: str) -> Any:
    shelf = Registry(store, config(store))
    return shelf.ledger.read(shelf.alias.champion())


def three(store: str) -> None:
    """Two promotions and a roll-back."""
    promote(store, version(store))
    promote(store, version(store))
    rolled_back(store, "it answers too slowly")


class TestEntries:
    def test_every_move_is_an_entry_that_names_the_one_before(self, store: str, tmp_path: Path) -> None:
        assert read(store) == ((), None), "nothing was promoted, and nothing is missing"
        three(store)
        entries = told(tmp_path)
        assert [(e["event"], e["version"], e["replaced"]) for e in entries] == [
            ("promotion", "1", "none"), ("promotion", "2", "1"), ("roll-back", "1", "2"),
        ]  # fmt: skip
        assert [e["number"] for e in entries] == [1, 2, 3]
        assert [e["previous"] for e in entries] == [None, digest(entries[0]), digest(entries[1])]
        assert [path.name for path in pages(tmp_path)] == ["000001.json", "000002.json", "000003.json"]
        tags = [v.tags for v in sorted(registry_of(store).search_model_versions(f"name='{NAME}'"), key=lambda v: v.version)]
        assert [e["epoch"] for e in entries[:2]] == [int(t["promotion"]) for t in tags]
        assert entries[2]["epoch"] > entries[1]["epoch"]
        assert [e["decision_digest"] for e in entries] == [tags[i]["decision_digest"] for i in (0, 1, 0)]
        assert [e["reason"] for e in entries] == ["all held", "all held", "it answers too slowly"]
        assert [e.number for e in read(store)[0]] == [1, 2, 3]

    def test_who_is_the_name_that_mlflow_is_told(self, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "gate-of-team-a")
        promote(store, version(store))
        assert told(tmp_path)[0]["by"] == "gate-of-team-a"

    def test_the_time_is_written_in_utc(self, store: str, tmp_path: Path) -> None:
        shelf = Registry(store, config(store))
        east = datetime(2027, 1, 1, 1, 30, tzinfo=timezone(timedelta(hours=3)))
        shelf.alias.recorder = Ledger(shelf.client, store, config(store), lambda: east).begin
        shelf.alias.move_to(version(store), None)
        assert told(tmp_path)[0]["time"] == "2026-12-31T22:30:00+00:00"

    def test_what_moves_nothing_writes_nothing(self, store: str, tmp_path: Path) -> None:
        one = version(store)
        promote(store, one)
        promote(store, one)
        assert len(told(tmp_path)) == 1

    def test_a_move_that_was_taken_back_is_no_entry_and_leaves_no_gap(
        self, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        promote(store, version(store))
        second = version(store)
        with monkeypatch.context() as patch:
            patch.setattr(MlflowClient, "set_registered_model_alias", broken)
            with pytest.raises(RegistryError, match="the connection was dropped"):
                promote(store, second)
        assert (len(told(tmp_path)), read(store)[1]) == (1, None)
        promote(store, second)
        assert [e["event"] for e in told(tmp_path)] == ["promotion", "promotion"]

    def test_another_alias_of_the_model_is_no_gap(self, store: str, tmp_path: Path) -> None:
        one = version(store)
        promote(store, one)
        from beear_core.config import RegistryConfig

        other = Registry(store, RegistryConfig(tracking_uri=store, alias="shadow"))
        other.alias.move_to(version(store), None)
        promote(store, version(store))
        assert [(e["alias"], e["event"]) for e in told(tmp_path)] == [
            ("champion", "promotion"), ("shadow", "promotion"), ("champion", "promotion"),
        ]  # fmt: skip


class TestBroken:
    @pytest.mark.parametrize("number", [1, 2, 3])
    def test_an_altered_entry_is_named(self, store: str, tmp_path: Path, number: int) -> None:
        three(store)
        change(pages(tmp_path)[number - 1], reason="because")
        with pytest.raises(RegistryError, match=f"entry {number} of the ledger of {NAME} .* is broken"):
            read(store)

    @pytest.mark.parametrize("number", [1, 2, 3])
    def test_a_missing_entry_is_named(self, store: str, tmp_path: Path, number: int) -> None:
        three(store)
        pages(tmp_path)[number - 1].unlink()
        with pytest.raises(RegistryError, match=f"entry {number} of the ledger of {NAME} .* is broken"):
            read(store)

    def test_the_first_of_several_is_named(self, store: str, tmp_path: Path) -> None:
        three(store)
        pages(tmp_path)[2].write_text("{}")
        change(pages(tmp_path)[1], by="nobody")
        pages(tmp_path)[0].write_text("no JSON")
        with pytest.raises(RegistryError, match="entry 1 of the ledger .* is broken: entry 1 is not a valid LedgerEntry"):
            read(store)

    def test_an_entry_that_was_added_by_hand_is_named(self, store: str, tmp_path: Path) -> None:
        three(store)
        last = told(tmp_path)[-1]
        forged = pages(tmp_path)[-1].with_name("000004.json")
        forged.write_text(pages(tmp_path)[-1].read_text())
        change(forged, number=4, previous=digest(last))
        assert len(read(store)[0]) == 4, "as a writer leaves it that was killed before it noted the newest"
        forged.with_name("000005.json").write_text(forged.read_text())
        change(forged.with_name("000005.json"), number=5, previous=digest(told(tmp_path)[3]))
        with pytest.raises(RegistryError, match="entry 5 of the ledger .* is broken: the newest was noted as 3"):
            read(store)

    def test_nothing_is_promoted_while_the_newest_entry_is_broken(self, store: str, tmp_path: Path) -> None:
        three(store)
        change(pages(tmp_path)[-1], by="somebody else")
        with pytest.raises(RegistryError, match="entry 3 of the ledger .* is broken"):
            promote(store, version(store))
        assert (champion(store), len(told(tmp_path))) == ("1", 3)

    def test_two_ledgers_of_one_model_are_told(self, store: str) -> None:
        promote(store, version(store))
        client = registry_of(store)
        run = client.create_run(client.get_experiment_by_name("beear-ledger").experiment_id)
        client.set_tag(run.info.run_id, "beear.ledger", NAME)
        with pytest.raises(RegistryError, match=f"{NAME} has two ledgers, the MLflow runs .* and .*; look at both"):
            promote(store, version(store))
        assert champion(store) == "1"


class TestGaps:
    def test_a_ledger_that_cannot_be_written_says_that_the_alias_did_move(
        self, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        promote(store, version(store))
        second = version(store)
        with monkeypatch.context() as patch:
            patch.setattr(MlflowClient, "log_text", broken)
            said = "champion of .* did move, to version 2; only the ledger does not say so, .*the connection was dropped"
            with pytest.raises(RegistryError, match=said):
                promote(store, second)
        assert (champion(store), len(told(tmp_path))) == ("2", 1)
        epoch = int(registry_of(store).get_model_version(NAME, "2").tags["promotion"])
        entries, missing = read(store)
        assert (len(entries), missing.version, missing.epoch) == (1, "2", epoch)
        assert f"promotion {epoch} moved champion and was cut off" in missing.reason
        promote(store, version(store))
        kept = [(e["event"], e["version"], e["replaced"], e["epoch"]) for e in told(tmp_path)[1:]]
        assert kept == [("not recorded", "2", "1", epoch), ("promotion", "3", "2", epoch + 1)]
        assert read(store)[1] is None

    def test_a_roll_back_that_was_cut_off_is_missed(
        self, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        promote(store, version(store))
        promote(store, version(store))
        with monkeypatch.context() as patch:
            patch.setattr(MlflowClient, "log_text", broken)
            with pytest.raises(RegistryError, match="did move, to version 1"):
                rolled_back(store)
        missing = read(store)[1]
        assert (missing.event, missing.version, missing.epoch) == ("not recorded", "1", 0)
        assert "moved without an entry" in missing.reason

    @pytest.mark.parametrize("by_hand", ["1", None])
    def test_what_somebody_moved_by_hand_is_missed(self, store: str, by_hand: str | None) -> None:
        promote(store, version(store))
        promote(store, version(store))
        client = registry_of(store)
        if by_hand:
            client.set_registered_model_alias(NAME, "champion", by_hand)
        else:
            client.delete_registered_model_alias(NAME, "champion")
        missing = read(store)[1]
        assert (missing.version, missing.replaced) == (by_hand or "none", "2")

    def test_a_champion_from_before_the_ledger_is_noted_once(self, store: str, tmp_path: Path) -> None:
        version(store)
        registry_of(store).set_registered_model_alias(NAME, "champion", "1")
        promote(store, version(store))
        promote(store, version(store))
        assert [e["event"] for e in told(tmp_path)] == ["not recorded", "promotion", "promotion"]

    def test_a_writer_that_is_killed_between_waiver_and_move_leaves_a_gap(
        self, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from beear_core.records import Waiver

        one = version(store)
        waiver = Waiver(decision="sha256:1", check="attack", owner="Ada", reason="known", expires="2099-01-01")
        real, written = MlflowClient.log_text, []

        def first_alone(self: Any, run_id: str, text: str, name: str) -> None:
            written.append(name)
            if len(written) == 2:
                broken()
            real(self, run_id, text, name)

        shelf = Registry(store, config(store))
        with monkeypatch.context() as patch:
            patch.setattr(MlflowClient, "log_text", first_alone)
            with pytest.raises(RegistryError, match="did move, to version 1"):
                shelf.alias.move_to(one, None, grounds=Grounds("approval", "Bo", "fine", {}, (waiver,)))
        assert [(e["event"], e["by"], e["waived"]) for e in told(tmp_path)] == [("waiver", "Ada", "attack")]
        assert read(store)[1].version == "1"

    def test_an_entry_that_somebody_wrote_meanwhile_is_not_written_over(
        self, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        promote(store, version(store))
        second, real = version(store), MlflowClient.set_registered_model_alias

        def meanwhile(self: Any, *given: Any) -> None:
            real(self, *given)
            pages(tmp_path)[0].with_name("000002.json").write_text("another's")

        monkeypatch.setattr(MlflowClient, "set_registered_model_alias", meanwhile)
        with pytest.raises(RegistryError, match="did move, to version 2.*entry 2 .* somebody wrote it meanwhile"):
            promote(store, second)
        assert pages(tmp_path)[1].read_text() == "another's"

    def test_what_reads_otherwise_than_it_was_written_is_told(
        self, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real = MlflowClient.log_text

        def overtaken(self: Any, run_id: str, text: str, name: str) -> None:
            real(self, run_id, text.replace("all held", "none held"), name)

        monkeypatch.setattr(MlflowClient, "log_text", overtaken)
        with pytest.raises(RegistryError, match="did move, to version 1.*it was written with the digest .* and reads"):
            promote(store, version(store))


PROMOTE = """
import sys
sys.path.insert(0, sys.argv[1])
from ledger_store import promote, version
from beear_core.errors import RegistryError
for _ in range(3):
    one = version(sys.argv[2])
    while True:
        try:
            promote(sys.argv[2], one, "in turn")
            break
        except RegistryError as error:
            if "somebody else promoted meanwhile" not in str(error):
                raise
"""


def test_processes_that_promote_at_once_write_one_chain(store: str, tmp_path: Path) -> None:
    promote(store, version(store))
    command = [sys.executable, "-c", PROMOTE, str(Path(__file__).parent), store]
    running = [subprocess.Popen(command, cwd=Path(__file__).parents[2]) for _ in range(2)]
    assert [process.wait(timeout=300) for process in running] == [0, 0]
    entries, missing = read(store)
    assert (len(entries), missing) == (7, None)
    moves = [(e["replaced"], e["version"]) for e in told(tmp_path)]
    assert [was for was, _ in moves[1:]] == [now for _, now in moves[:-1]], "each begins where the one before ended"
    assert len({e["epoch"] for e in told(tmp_path)}) == 7
