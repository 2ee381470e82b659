"""A run is followed to its end, and the exit code is what its gate wrote into MLflow, never what the run's state says."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kfp_server_api as api
import pytest
from kubeflow_command import IMAGE, Beear, Done, write
from kubeflow_server import Answer, Dropped, Kubeflow, Request
from mlflow.tracking import MlflowClient

from pipelines.kubeflow import following

pytestmark = pytest.mark.usefixtures("own_mlflow")
TASKS = (
    "preflight", "model-intake", "data-validation", "beear-mitigation", "safety-eval", "safety-eval-2", "champion-eval",
    "registry-gate", "release-artifacts", "release-status",
)  # fmt: skip


@pytest.fixture(scope="session")
def empty_mlflow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database is made in seconds, so tests copy one."""
    from components.mlflow_store.client import check_reachable

    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    check_reachable(f"sqlite:///{path}")
    return path


@pytest.fixture
def store(tmp_path: Path, empty_mlflow: Path, monkeypatch: pytest.MonkeyPatch, beear: Beear) -> str:
    """The registry as it is reached from here."""
    monkeypatch.chdir(tmp_path)
    shutil.copy2(empty_mlflow, tmp_path / "mlflow.db")
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    MlflowClient(uri, registry_uri=uri).create_registered_model("chat")
    return uri


def register(store: str, run_id: str, verdict: str, alias: str = "", **tags: str) -> str:
    """A version as a gate leaves it."""
    client = MlflowClient(store, registry_uri=store)
    found = client.create_model_version("chat", "s3://models/x", tags={"kfp_run_id": run_id, "verdict": verdict, **tags})
    if alias:
        client.set_registered_model_alias("chat", alias, found.version)
    return str(found.version)


def task(name: str, state: str, message: str = "") -> Any:
    error = api.GoogleRpcStatus(message=message) if message else None
    return api.V2beta1PipelineTaskDetail(display_name=name, state=state, error=error)


@pytest.fixture
def wait(server: Kubeflow, beear: Beear, release: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Done]:
    """Submit and wait, while the run goes through what is given: (its state, tasks) for each time that it is asked for."""
    monkeypatch.setattr(following, "POLL_S", 0.01)

    def run(*steps: tuple[str, tuple[Any, ...]], at_end: Callable[[str], object] = lambda _: None, more: Any = ()) -> Done:
        left = list(steps)

        def go_on(request: Request) -> Answer | None:
            if request.method == "GET" and "/runs/" in request.path:
                (only,) = server.runs.values()
                only.state, tasks = left.pop(0)
                only.run_details = api.V2beta1RunDetails(task_details=list(tasks))
                if not left:
                    at_end(only.run_id)
            return None

        server.before = go_on
        return beear("submit", "--config", release, "--image", IMAGE, "--wait", *more)

    return run


ENDED = ("SUCCEEDED", tuple(task(name, "SUCCEEDED") for name in TASKS))


@pytest.mark.parametrize(
    ("verdict", "alias", "tags", "code", "said"),
    [
        ("passed", "champion", {"promotion": "1"}, 0, "promoted"),
        ("refused", "champion", {"promotion": "1", "waived.x": "1"}, 0, "promoted"),
        ("refused", "", {}, 3, "refused"),
        ("passed", "candidate", {}, 3, "awaiting approval"),
        ("passed", "", {"rolled_back": "true", "promotion": "1"}, 3, "rolled back"),
    ],
)
def test_the_gate_has_the_last_word(
    wait: Callable[..., Done], store: str, verdict: str, alias: str, tags: dict[str, str], code: int, said: str
) -> None:
    done = wait(ENDED, at_end=lambda run: register(store, run, verdict, alias, **tags))
    assert (done.code, done.out.splitlines()[-1]) == (code, f"verdict     {said}")


def test_json_is_all_of_standard_output(wait: Callable[..., Done], store: str, server: Kubeflow) -> None:
    done = wait(ENDED, at_end=lambda run: register(store, run, "refused"), more=["--json"])
    (run,) = server.runs
    url = f"{server.host}/#/runs/details/{run}"
    assert json.loads(done.out) == {"run_id": run, "url": url, "state": "SUCCEEDED", "verdict": "refused"}
    assert f"run {run}: {url}" in done.err


def test_how_far_it_is(wait: Callable[..., Done], store: str) -> None:
    around = (task("root", "RUNNING"), task("root-driver", "SUCCEEDED"), task("executor", "FAILED"))
    steps = [
        ("PENDING", ()),
        ("RUNNING", (*around, task("model-intake", "SUCCEEDED"), task("data-validation", "RUNNING"))),
        ("RUNNING", (*around, task("model-intake", "SUCCEEDED"), task("data-validation", "RUNNING"))),
        ENDED,
    ]
    done = wait(*steps, at_end=lambda run: register(store, run, "refused"))
    shown = [line.partition("] ")[2] for line in done.err.splitlines() if line.startswith("[0:0")]
    assert shown == ["pending: 10 pending", "running: 8 pending, 1 running, 1 succeeded", "succeeded: 10 succeeded"]


def test_a_run_that_succeeded_without_a_word_of_its_gate_is_an_error(wait: Callable[..., Done], store: str) -> None:
    """A step that failed and was tried again, or was left out, leaves a run that succeeded."""
    register(store, "another-run", "passed", "champion")
    done = wait(ENDED)
    assert done.code == 1
    assert "succeeded, and what its gate said cannot be told: chat in MLflow has no version for this run" in done.err


def test_passed_and_not_promoted_is_an_error(wait: Callable[..., Done], store: str) -> None:
    """Promotion notes its tags before the alias moves, so that a tag alone is no promotion."""
    done = wait(ENDED, at_end=lambda run: register(store, run, "passed", promotion="7"))
    assert (done.code, "in MLflow says: passed, not promoted for this run" in done.err) == (1, True)


def test_two_verdicts_are_none(wait: Callable[..., Done], store: str) -> None:
    def both(run: str) -> None:
        register(store, run, "passed", "champion")
        register(store, run, "refused")

    done = wait(ENDED, at_end=both)
    assert (done.code, "has two versions that differ for this run" in done.err) == (1, True)


@pytest.mark.parametrize("state", ["FAILED", "CANCELED", "SKIPPED"])
def test_a_run_that_did_not_succeed(wait: Callable[..., Done], store: str, state: str) -> None:
    failed = (task("model-intake", "FAILED", "OOMKilled"), task("root", "FAILED", "child failed"))
    done = wait((state, failed))
    assert done.code == 1
    assert f"ended as {state}: model-intake failed (OOMKilled). It registered no version; see http" in done.err


def test_a_run_that_failed_behind_its_promotion(wait: Callable[..., Done], store: str) -> None:
    failed = (task("registry-gate", "FAILED"),)
    done = wait(("FAILED", failed), at_end=lambda run: register(store, run, "passed", "champion"))
    assert (done.code, "registry-gate failed (see its log). Yet it registered a version: promoted" in done.err) == (1, True)


def test_where_it_is_written_must_be_known_before_anything_is_begun(
    server: Kubeflow, release: Path, beear: Beear, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = beear("submit", "--config", release, "--image", IMAGE, "--wait")
    assert (done.code, "--wait has no MLflow to read the verdict from" in done.err) == (2, True)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    done = beear("submit", "--config", release, "--image", IMAGE, "--wait")
    assert (done.code, "MLflow at http://127.0.0.1:9 failed while" in done.err) == (1, True)
    assert server.asked == []


def outage(server: Kubeflow, *instead: Answer | None) -> None:
    """The first questions after the run are answered so; ``None``: the connection drops."""
    go_on, left = server.before, list(instead)

    def hook(request: Request) -> Answer | None:
        if request.method == "GET" and "/runs/" in request.path and left:
            if (answer := left.pop(0)) is None:
                raise Dropped
            return answer
        return go_on(request) if go_on else None

    server.before = hook


def test_what_passes_is_waited_for(
    wait: Callable[..., Done], server: Kubeflow, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit = following.submit

    def then_outage(*given: Any) -> str:
        run = submit(*given)
        outage(server, Answer(b"", 503), None, None, Answer(b"{}", 502))
        return run

    monkeypatch.setattr(following, "submit", then_outage)
    done = wait(ENDED, at_end=lambda run: register(store, run, "passed", "champion"))
    assert done.code == 0
    assert done.err.count("is asked for again") == 3, "a dropped question is asked once more at once"


@pytest.mark.parametrize(("status", "patience"), [(401, 600.0), (503, 0.0)])
def test_what_does_not_pass_ends_the_waiting_and_not_the_run(
    wait: Callable[..., Done], server: Kubeflow, store: str, monkeypatch: pytest.MonkeyPatch, status: int, patience: float
) -> None:
    submit = following.submit
    monkeypatch.setattr(following, "PATIENCE_S", patience)

    def then_outage(*given: Any) -> str:
        run = submit(*given)
        outage(server, *[Answer(b"{}", status)] * 100)
        return run

    monkeypatch.setattr(following, "submit", then_outage)
    done = wait(ENDED)
    assert done.code == 1
    assert "goes on, and is not followed any more: Kubeflow Pipelines at " in done.err


def test_runs_with_their_verdicts(server: Kubeflow, beear: Beear, store: str, tmp_path: Path, release: Path) -> None:
    for _ in range(3):
        assert beear("submit", "--config", release, "--image", IMAGE).code == 0
    first, second, third = server.runs
    server.runs[first].state, server.runs[second].state = "SUCCEEDED", "SUCCEEDED"
    register(store, first, "passed", "champion")
    register(store, second, "passed", "champion", replaced_version="1")
    done = beear("runs", "--config", release, "--json")
    assert done.code == 0
    found = json.loads(done.out)
    assert [(row["run_id"], row["state"], row["verdict"]) for row in found] == [
        (third, "PENDING", None),
        (second, "SUCCEEDED", "promoted"),
        (first, "SUCCEEDED", "promoted"),
    ], "newest first; what another replaced was promoted too"
    assert [row["created_at"] for row in found] == sorted((row["created_at"] for row in found), reverse=True)
    done = beear("runs", "--config", release, "--limit", 2)
    assert (third in done.out, second in done.out, first in done.out) == (True, True, False)
    assert "promoted" in done.out


def test_runs_where_mlflow_cannot_be_asked(
    server: Kubeflow, beear: Beear, release: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    beear("submit", "--config", release, "--image", IMAGE)
    done = beear("runs")
    assert (done.code, done.err) == (0, "")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    done = beear("runs")
    assert (done.code, "warning: no verdict is shown: MLflow at http://127.0.0.1:9" in done.err) == (0, True)
    assert "PENDING" in done.out


def test_many_runs_come_page_by_page(
    server: Kubeflow, beear: Beear, release: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "PAGE", 2)
    for _ in range(5):
        beear("submit", "--config", release, "--image", IMAGE)
    assert len(json.loads(beear("runs", "--limit", 4, "--json").out)) == 4
    assert len(json.loads(beear("runs", "--limit", 40, "--json").out)) == 5


def test_runs_of_one_experiment(server: Kubeflow, beear: Beear, release: Path) -> None:
    beear("submit", "--config", release, "--image", IMAGE)
    beear("submit", "--config", release, "--image", IMAGE, "--experiment", "nightly")
    (row,) = json.loads(beear("runs", "--experiment", "nightly", "--json").out)
    assert server.experiments[server.runs[row["run_id"]].experiment_id].display_name == "nightly"
    done = beear("runs", "--experiment", "none")
    assert done.code == 2
    assert "no experiment is called 'none'" in done.err


def test_a_registry_of_the_configuration(server: Kubeflow, beear: Beear, tmp_path: Path, store: str) -> None:
    """MLFLOW_TRACKING_URI says how this machine reaches it, the configuration how pods do."""
    config = write(
        tmp_path / "other.yaml", {"registry": {"model_name": "chat", "tracking_uri": "http://mlflow.mlflow.svc.invalid"}}
    )
    server.runs["r"] = api.V2beta1Run(run_id="r", display_name="x", state="SUCCEEDED")
    register(store, "r", "refused")
    (row,) = json.loads(beear("runs", "--config", config, "--json").out)
    assert row["verdict"] == "refused"
