"""Tracking against a real SQLite store, and against places that do not answer."""

from __future__ import annotations

import socket
import time
from pathlib import Path
from typing import Any

import pytest
from gate_evidence import g

from beear_core.config import RegistryConfig, parse
from beear_core.errors import ConfigError, RegistryError
from beear_core.uris import without_secrets
from components.mlflow_store import client, tracking

pytestmark = pytest.mark.usefixtures("own_mlflow")


def points(tracker: Any, key: str) -> list[tuple[int, float]]:
    return sorted((m.step, m.value) for m in tracker.client.get_metric_history(tracker.run_id, key))


def info(tracker: Any) -> Any:
    return tracker.client.get_run(tracker.run_id).info


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# whose run it is


def test_a_run_of_its_own_is_ended(store: str) -> None:
    with tracking.attach(store, "exp") as tracker:
        assert info(tracker).status == "RUNNING"
    assert info(tracker).status == "FINISHED"


def test_a_run_of_its_own_is_failed_by_an_error(store: str) -> None:
    with pytest.raises(ValueError, match="boom"), tracking.attach(store, "exp") as tracker:
        raise ValueError("boom")
    assert info(tracker).status == "FAILED"


@pytest.mark.parametrize("how", ["argument", "environment"])
def test_a_run_that_was_given_is_left_running(store: str, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    owner = tracking.open_run(store, "exp")
    if how == "environment":
        monkeypatch.setenv("MLFLOW_RUN_ID", owner.run_id)
    with tracking.attach(store, "other", owner.run_id if how == "argument" else "") as tracker:
        assert tracker.run_id == owner.run_id
    assert (info(owner).status, info(owner).end_time) == ("RUNNING", None)


def test_the_argument_wins_over_the_environment(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = tracking.open_run(store, "exp"), tracking.open_run(store, "exp")
    monkeypatch.setenv("MLFLOW_RUN_ID", other.run_id)
    with tracking.attach(store, "exp", one.run_id) as tracker:
        assert tracker.run_id == one.run_id


def test_no_such_run(store: str) -> None:
    with pytest.raises(RegistryError, match=r"attaching to run 0123.*not found"), tracking.attach(store, "e", "0123"):
        pass


# where things go


def test_default_store_lies_in_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert client.resolve_uri(None, tmp_path) == f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    assert client.resolve_uri(None, tmp_path) == "http://mlflow:5000"
    assert client.resolve_uri("sqlite:///x.db", tmp_path) == "sqlite:///x.db"


def test_artifacts_lie_beside_the_database(store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    # a folder of one run must not hold what the registry serves later
    with tracking.attach(store, "exp") as tracker:
        tracker.log_record(g.validation(), "validation")
    found = [p.relative_to(tmp_path).parts[0] for p in tmp_path.rglob("validation.json")]
    assert found == ["store"]
    assert not list(elsewhere.iterdir())


# what is logged


def test_training_curve_step_by_step(store: str) -> None:
    record = g.mitigation()
    with tracking.attach(store, "exp") as tracker:
        tracker.log_mitigation(record)
    inner = [loss for r in record.rounds for loss in r.inner_loss]
    outer = [loss for r in record.rounds for loss in r.outer_loss]
    assert points(tracker, "train/inner_loss") == [(i, pytest.approx(v)) for i, v in enumerate(inner)]
    assert points(tracker, "train/outer_loss") == [(i, pytest.approx(v)) for i, v in enumerate(outer)]
    assert points(tracker, "round/delta_norm") == [(r.round, pytest.approx(r.delta_norm)) for r in record.rounds]


def test_measurements_with_counts_and_intervals(store: str) -> None:
    record = g.after()
    with tracking.attach(store, "exp") as tracker:
        tracker.log_evaluation(record)
    logged = tracker.client.get_run(tracker.run_id).data.metrics
    for name, metric in record.metrics.items():
        key = f"after/{name}"
        found = [logged[key], logged[f"{key}/low"], logged[f"{key}/high"], logged[f"{key}/n"]]
        e = metric.overall
        assert found == pytest.approx([e.value, e.low, e.high, e.n])
    assert logged["after/attack_success/plain/category/fraud/n"] == 12
    assert logged["after/attack_success/known_triggers/trigger/suffix"] == pytest.approx(2 / 120)
    assert logged["after/attack_success/known_triggers/trigger/suffix/unscored"] == 0


def test_what_was_not_measured_is_not_logged(store: str) -> None:
    record = g.with_metric(g.after(), "token_kl/ordinary", g.rate(0, 0))
    with tracking.attach(store, "exp") as tracker:
        tracker.log_evaluation(record)
    logged = tracker.client.get_run(tracker.run_id).data.metrics
    assert "after/token_kl/ordinary" not in logged
    assert logged["after/token_kl/ordinary/n"] == 0


@pytest.mark.parametrize("category", ["a:b", "a/../b", "/a", ".", "..", "a//b", "a(b)", "Ä ö", "x" * 400, "a\nb", ""])
def test_any_category_gives_a_valid_name(store: str, category: str) -> None:
    metric = g.Metric(overall=g.rate(1, 9).overall, by_category={category: g.rate(1, 9).overall})
    record = g.with_metric(g.after(), "attack_success/plain", metric)
    with tracking.attach(store, "exp") as tracker:
        tracker.log_evaluation(record)
    logged = tracker.client.get_run(tracker.run_id).data.metrics
    assert sum(name.startswith("after/attack_success/plain/category/") for name in logged) == 5


def test_parameters_can_be_logged_again_after_a_restart(store: str) -> None:
    with tracking.attach(store, "exp") as tracker:
        tracker.log_config({"mitigation": {"layer": None, "rounds": 4}, "policy": "standard"})
        tracker.log_config({"mitigation": {"layer": None, "rounds": 4}, "policy": "standard"})
    assert tracker.client.get_run(tracker.run_id).data.params == {"mitigation.rounds": "4", "policy": "standard"}


def test_system_facts(store: str) -> None:
    with tracking.attach(store, "exp") as tracker:
        tracker.log_environment(g.ENVIRONMENT)
    tags = tracker.client.get_run(tracker.run_id).data.tags
    assert tags["system.devices"] == "cpu"
    assert tags["system.version.torch"] == "2.13.0"


# what does not answer


@pytest.mark.parametrize(
    "uri",
    [
        "http://127.0.0.1:{port}",
        "postgresql+psycopg2://mlflow:hunter2@127.0.0.1:{port}/db",
        "sqlite:///{folder}/a-file/mlflow.db",
    ],
)
def test_not_reachable_is_said_soon(uri: str, tmp_path: Path) -> None:
    (tmp_path / "a-file").write_text("not a folder")
    began = time.monotonic()
    with pytest.raises(RegistryError, match=r"MLflow at .* failed .*check that it runs") as caught:
        client.check_reachable(uri.format(port=closed_port(), folder=tmp_path))
    assert time.monotonic() - began < 30
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("uri", ["http://host:port/x", "http://host:99999/x", "http://[::1/x"])
def test_a_port_that_is_none_is_a_fault_of_the_configuration(uri: str) -> None:
    with pytest.raises(ConfigError, match=r"URI 'http://.*' cannot be meant: .*; mend MLFLOW_TRACKING_URI or regis"):
        client.check_reachable(uri)
    with pytest.raises(ConfigError, match="cannot be meant"), tracking.attach(uri, "exp"):
        pass


def test_a_password_that_reads_like_a_port_is_not_shown() -> None:
    with pytest.raises(ConfigError, match="with a user or password cannot be meant: .* percent-encoded") as caught:
        client.check_reachable("http://mlflow:hun/ter2@host")
    assert "ter2" not in str(caught.value)


@pytest.mark.parametrize("password", ["hunter2", "hun@ter2"])
def test_a_password_in_the_uri_is_never_shown(password: str) -> None:
    uri = f"http://mlflow:{password}@127.0.0.1:{closed_port()}"
    assert without_secrets(uri) == uri.replace(f"mlflow:{password}@", "")
    with pytest.raises(RegistryError) as caught:
        client.check_reachable(uri)
    assert "ter2" not in str(caught.value)
    assert "mlflow:" not in str(caught.value)


def test_a_password_in_the_configuration_is_refused_and_not_repeated() -> None:
    with pytest.raises(ConfigError, match="MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD") as caught:
        parse(RegistryConfig, {"tracking_uri": "https://ml:hunter2@mlflow.example"}, "x.yaml")
    assert "hunter2" not in str(caught.value)


def test_a_file_store_is_refused_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match="sqlite"):
        client.check_reachable(f"file://{tmp_path}")


def test_artifacts_that_cannot_be_written(store: str) -> None:
    with tracking.attach(store, "exp") as tracker:
        Path(store.removeprefix("sqlite:///")).with_name("mlartifacts").write_text("a file where the folder should be")
        with pytest.raises(RegistryError, match="logging the report"), client.mlflow_errors("logging the report", store):
            tracker.log_record(g.validation(), "validation")


def test_a_bug_stays_a_bug(store: str) -> None:
    with pytest.raises(KeyError), client.mlflow_errors("logging", store):
        raise KeyError("x")
