"""Promotions take turns: one holder at a time, a killed one blocks for the expiry alone, an overtaken one stops."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from beear_core.errors import RegistryError
from components.mlflow_store.lock import PromotionLock

NAME = "release-candidate"
COUNT = """
import sys, time
from pathlib import Path
from components.mlflow_store.client import client_for
from components.mlflow_store.lock import PromotionLock
store, counter = sys.argv[1], Path(sys.argv[2])
for _ in range(4):
    with PromotionLock(client_for(store), store, "release-candidate").held() as held:
        held.check()
        seen = int(counter.read_text())
        time.sleep(0.05)  # where two held it at once, one count would be lost
        counter.write_text(str(seen + 1))
"""


@pytest.fixture
def lock(store: str) -> PromotionLock:
    return another(store)


def another(store: str, **settings: Any) -> PromotionLock:
    return PromotionLock(MlflowClient(store, registry_uri=store), store, NAME, **settings)


def test_processes_take_turns(store: str, lock: PromotionLock, tmp_path: Path) -> None:
    counter = tmp_path / "counter"
    counter.write_text("0")
    with lock.held():
        pass  # the store is there
    command = [sys.executable, "-c", COUNT, store, str(counter)]
    running = [subprocess.Popen(command) for _ in range(3)]
    assert [process.wait(timeout=240) for process in running] == [0] * 3
    assert counter.read_text() == "12"
    newest = lock.newest()
    assert newest is not None
    assert (newest.epoch, newest.released) == (13, True)
    left = lock.client.search_registered_models()
    assert len([m for m in left if ".promotion-lock." in m.name]) <= 3, "older epochs are removed"


def test_who_waits_too_long_is_told_and_nothing_is_changed(store: str, lock: PromotionLock) -> None:
    with lock.held() as held:
        with (
            pytest.raises(
                RegistryError, match=f"another promotion of {NAME} has been going on for . s; nothing was changed"
            ),
            another(store).held(wait=0.3),
        ):
            pytest.fail("it is held")
        held.check()
    with another(store).held(wait=0.3) as next_one:
        assert next_one.epoch == held.epoch + 1


def test_a_killed_holder_blocks_for_the_expiry_and_no_longer(store: str, lock: PromotionLock) -> None:
    lock._acquired(lock.clock() + 10)  # and it is never let go
    began = time.monotonic()
    with another(store, expiry=1.0, margin=0.1).held() as held:
        assert 1.0 <= time.monotonic() - began < 20
        held.check()


def test_a_holder_that_was_overtaken_stops(store: str, lock: PromotionLock) -> None:
    with lock.held() as held:
        held.check()
        with another(store, expiry=0.5, margin=0.1).held() as later:
            with pytest.raises(RegistryError, match=f"somebody else took over the promotion of {NAME}"):
                held.check()
            later.check()
        with pytest.raises(RegistryError, match="took over"):
            held.check()
    newest = lock.newest()
    assert newest is not None
    assert newest.epoch == later.epoch, "and releases nothing that is not its own"


def test_a_look_that_fails_is_an_error_of_the_registry(
    store: str, lock: PromotionLock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: object, **__: object) -> None:
        raise MlflowException("API request failed")

    with lock.held() as held:
        monkeypatch.setattr(lock.client, "search_registered_models", gone)
        with pytest.raises(RegistryError, match="failed while looking whether it is still this promotion's turn"):
            held.check()
        monkeypatch.undo()


def test_nothing_is_begun_that_the_expiry_could_overtake(store: str) -> None:
    now = [0.0]
    lock = another(store, expiry=100.0, margin=30.0, clock=lambda: now[0])
    with lock.held() as held:
        now[0] = 69.0
        held.check()
        now[0] = 71.0
        with pytest.raises(RegistryError, match="only 29 of 100 s are left, and the next change may need 30"):
            held.check()


def test_a_lost_answer_leaves_no_lock_behind(store: str, lock: PromotionLock, monkeypatch: pytest.MonkeyPatch) -> None:
    real = MlflowClient.create_registered_model

    def lost(self: Any, *given: Any, **named: Any) -> None:
        real(self, *given, **named)
        raise MlflowException("the answer was lost")

    with monkeypatch.context() as patched:
        patched.setattr(MlflowClient, "create_registered_model", lost)
        with pytest.raises(RegistryError, match="the answer was lost"), lock.held():
            pytest.fail("nothing says that it is ours")
    with another(store).held(wait=0.2) as held:
        held.check()


def test_names_that_look_alike_have_locks_of_their_own(store: str) -> None:
    client = MlflowClient(store, registry_uri=store)
    with PromotionLock(client, store, "a_b").held(), PromotionLock(client, store, "aXb").held(wait=0.2) as held:
        held.check()


def test_the_newest_is_found_among_many_that_could_not_be_removed(
    store: str, lock: PromotionLock, monkeypatch: pytest.MonkeyPatch
) -> None:
    for epoch in range(1, 103):
        lock.client.create_registered_model(f"{NAME}.promotion-lock.{epoch}", tags={"released": "true"})

    def another_users(*_: Any, **__: Any) -> None:
        raise MlflowException("permission denied")

    with monkeypatch.context() as patched:
        patched.setattr(MlflowClient, "delete_registered_model", another_users)
        # the first page of a hundred names ends before the one with the largest number
        with lock.held(wait=2.0) as held:
            assert held.epoch == 103
    newest = lock.newest()
    assert newest is not None
    assert (newest.epoch, newest.released) == (103, True), "and it is released though nothing could be removed"
    with another(store).held(wait=2.0):
        pass
    assert len([m for m in lock.client.search_registered_models() if ".promotion-lock." in m.name]) == 1


def test_who_cannot_make_the_next_epoch_gives_up(store: str, lock: PromotionLock, monkeypatch: pytest.MonkeyPatch) -> None:
    # as for a user that a server does not let see the locks of others
    monkeypatch.setattr(PromotionLock, "newest", lambda self: None)
    lock.client.create_registered_model(f"{NAME}.promotion-lock.1")
    with pytest.raises(RegistryError, match="nothing was changed"), lock.held(wait=0.3):
        pytest.fail("it is not ours")
