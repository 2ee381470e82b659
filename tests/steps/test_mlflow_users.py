"""A real MLflow server that asks who calls: by password or by token; and what those see who may not."""

from __future__ import annotations

import json
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bearer
import pytest
from decided import Passed, decided
from gate_evidence import Case
from gate_processes import Ended, start
from mlflow_servers import ADMIN, PASSWORD, mlflow_server, new_mlflow
from reliability import note

from tools.servers.mlflow import Mlflow

READER, READER_PASSWORD = "reader", "a-reader-password"
WRONG, TOKEN = "not-the-admin-password", "a-token-of-thirty-two-characters"
NAME = "guarded"
_seconds = iter(range(1, 1000))


@pytest.fixture(scope="module")
def guarded(postgres_for_users: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mlflow]:
    with mlflow_server(tmp_path_factory.mktemp("guarded"), postgres_for_users, auth=True) as server:
        ask(server, "POST", "users/create", {"username": READER, "password": READER_PASSWORD})
        yield server


@pytest.fixture(scope="module")
def champion_there(guarded: Mlflow, tiny_case: Case, tmp_path_factory: pytest.TempPathFactory) -> Passed:
    """Version 1 of the model is champion, promoted by the admin with a password."""
    one = decided(tiny_case, tmp_path_factory.mktemp("guarded-first"), next(_seconds), NAME)
    done = promote(guarded, tiny_case, one, password(ADMIN, PASSWORD))
    assert done.code == 0, done.text
    assert f"champion of {NAME} is version 1" in done.text
    return one


@pytest.fixture
def another(tiny_case: Case, tmp_path: Path) -> Passed:
    """A decision that was not promoted yet."""
    return decided(tiny_case, tmp_path / "decided", next(_seconds), NAME)


def ask(server: Mlflow, method: str, path: str, body: dict[str, Any] | None = None, **headers: str) -> Any:
    """Ask the server without MLflow's client, by default as the admin."""
    basic = b64encode(f"{ADMIN}:{PASSWORD}".encode()).decode()
    given = {"Authorization": f"Basic {basic}", "Content-Type": "application/json", **headers}
    request = urllib.request.Request(
        f"{server.uri}/api/2.0/mlflow/{path}", json.dumps(body).encode() if body else None, given, method=method
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.loads(answer.read())


def password(user: str, word: str) -> dict[str, str]:
    return {"MLFLOW_TRACKING_USERNAME": user, "MLFLOW_TRACKING_PASSWORD": word}


def promote(server: Mlflow, case: Case, one: Passed, who: dict[str, str]) -> Ended:
    arguments = ["promote", str(one.folder), "--model", str(case.model), "--name", NAME]
    given = {"MLFLOW_TRACKING_URI": server.uri, "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", **who}
    return start(arguments, one.folder / "log", given).wait()


def state(server: Mlflow, **headers: str) -> tuple[Any, ...]:
    """All that a promotion changes: models with aliases, versions, runs."""
    models = ask(server, "GET", "registered-models/search?max_results=100", **headers).get("registered_models", [])
    versions = ask(server, "GET", "model-versions/search?max_results=100", **headers).get("model_versions", [])
    experiments = ask(server, "POST", "experiments/search", {"max_results": 100}, **headers)["experiments"]
    ids = [experiment["experiment_id"] for experiment in experiments]
    runs = ask(server, "POST", "runs/search", {"experiment_ids": ids}, **headers).get("runs", [])
    return sorted(json.dumps(model, sort_keys=True) for model in models), len(versions), ids, len(runs)


def test_a_wrong_password_is_said_and_changes_nothing(
    guarded: Mlflow, champion_there: Passed, another: Passed, tiny_case: Case
) -> None:
    before = state(guarded)
    ended = promote(guarded, tiny_case, another, password(ADMIN, WRONG))
    assert ended.code == 1
    assert f"error: MLflow at {guarded.uri} failed while opening a run" in ended.text
    assert "401" in ended.text
    assert "its credentials are right" in ended.text
    assert WRONG not in ended.text
    assert "Traceback" not in ended.text
    assert state(guarded) == before
    note("users", wrong_password="exit 1, nothing changed")


def test_no_password_at_all_is_said_and_changes_nothing(
    guarded: Mlflow, champion_there: Passed, another: Passed, tiny_case: Case
) -> None:
    before = state(guarded)
    ended = promote(guarded, tiny_case, another, {})
    assert (ended.code, "401" in ended.text, state(guarded)) == (1, True, before), ended.text
    note("users", no_password="exit 1, nothing changed")


def test_who_may_only_read_is_told_before_anything_is_changed(
    guarded: Mlflow, champion_there: Passed, another: Passed, tiny_case: Case
) -> None:
    before = state(guarded)
    ended = promote(guarded, tiny_case, another, password(READER, READER_PASSWORD))
    assert ended.code == 1
    assert "failed while opening a run" in ended.text
    assert "Permission denied" in ended.text or "403" in ended.text
    assert READER_PASSWORD not in ended.text
    assert "Traceback" not in ended.text
    assert state(guarded) == before
    note("users", reader="exit 1, nothing changed")


def test_a_password_in_the_uri_is_not_shown(
    guarded: Mlflow, champion_there: Passed, another: Passed, tiny_case: Case
) -> None:
    before = state(guarded)
    arguments = ["promote", str(another.folder), "--model", str(tiny_case.model), "--name", NAME]
    uri = guarded.uri.replace("//", f"//{ADMIN}:{WRONG}@")
    ended = start(arguments, another.folder / "log", {"MLFLOW_TRACKING_URI": uri}).wait()
    assert (ended.code, WRONG in ended.text, state(guarded)) == (1, False, before), ended.text
    note("users", password_in_uri="exit 1, not shown, nothing changed")


def test_a_bearer_token_is_enough_and_a_wrong_one_changes_nothing(
    guarded: Mlflow, champion_there: Passed, another: Passed, tiny_case: Case
) -> None:
    server = new_mlflow(
        guarded.folder,
        guarded.store,
        auth=True,
        authorization="bearer:authenticate",
        given={"PYTHONPATH": str(Path(bearer.__file__).parent), bearer.TOKEN: TOKEN, bearer.USER: ADMIN},
    )
    guarded.kill()
    try:
        server.start()
        right = {"Authorization": f"Bearer {TOKEN}"}
        before = state(server, **right)
        for who in ({"MLFLOW_TRACKING_TOKEN": WRONG}, password(ADMIN, PASSWORD)):
            refused = promote(server, tiny_case, another, who)
            assert refused.code == 1
            assert "401" in refused.text
            assert WRONG not in refused.text
            assert state(server, **right) == before
        (another.folder / "log").unlink()
        done = promote(server, tiny_case, another, {"MLFLOW_TRACKING_TOKEN": TOKEN})
        assert done.code == 0, done.text
        assert TOKEN not in done.text
        assert f"champion of {NAME} is version 2 (was 1)" in done.text
        note("users", token="promoted", wrong_token="exit 1, nothing changed", basic="promoted")
    finally:
        server.kill()
        guarded.start()
