"""Messages after the decision: sent to a real server that answers, refuses, hangs or closes; nothing else changes by it."""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from gate_evidence import Case
from gate_runs import again, champion, gate
from planted_secrets import Planted, files_below

from beear_core.config import RegistryConfig, parse
from beear_core.errors import ConfigError, DataError, StorageError
from beear_core.records import StepStatus
from components.mlflow_store.steps import note_step, open_pipeline_run
from components.notifications import send as sending
from components.notifications.send import send
from components.notifications.tell import telling_failure
from components.release_status.step import Ended
from components.release_status.step import run as leave_status
from pipelines import cli

pytestmark = pytest.mark.usefixtures("own_mlflow")


class Service:
    """A server on loopback that keeps what it is sent and behaves as it is told."""

    def __init__(self) -> None:
        self.behaviour, self.told, self.users = "answers", list[dict[str, Any]](), list[str | None]()
        self.over = threading.Event()
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                service.users.append(self.headers["Authorization"])
                service.told.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                service.behave(self)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = int(self.server.server_address[1])
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def behave(self, handler: BaseHTTPRequestHandler) -> None:
        if self.behaviour == "hangs":
            self.over.wait(60)
        elif self.behaviour == "drips":
            # a byte now and then keeps every library's time limit from ending it
            for byte in b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100:
                handler.wfile.write(bytes([byte]))
                if self.over.wait(0.5):
                    return
        elif self.behaviour == "closes":
            handler.close_connection = True
        else:
            handler.send_response(500 if self.behaviour == "fails" else 200)
            handler.end_headers()

    def stop(self) -> None:
        self.over.set()
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def service() -> Iterator[Service]:
    one = Service()
    yield one
    one.stop()


@pytest.fixture
def planted() -> Planted:
    return Planted()


@pytest.fixture
def warnings(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> pytest.LogCaptureFixture:
    """What users are warned of."""
    monkeypatch.setattr(logging.getLogger("beear"), "handlers", [caplog.handler])
    monkeypatch.setattr(logging.getLogger("beear"), "propagate", False)
    return caplog


@pytest.fixture
def notify(service: Service, planted: Planted, monkeypatch: pytest.MonkeyPatch) -> str:
    """``BEEAR_NOTIFY`` names the service, with secrets wherever one can stand."""
    user = f"{planted.secret('user')}:{planted.encoded('password')}"
    path = f"{planted.secret('path')}?+X-Token={planted.secret('header')}&:{planted.secret('field')}=x"
    url = f"json://{user}@127.0.0.1:{service.port}/{path}"
    monkeypatch.setenv("BEEAR_NOTIFY", url)
    return url


def test_what_a_promotion_says(case: Case, store: str, service: Service, notify: str, tmp_path: Path) -> None:
    decision, release = gate(case, store, tmp_path / "out")
    [told] = service.told
    assert told["title"] == "beear-gate: release-candidate version 1: promoted"
    for part in (
        "champion: version 1, before: no version",
        f"summary: {decision.summary}",
        f"decision: {decision.digest}",
        f"MLflow run: {release.mlflow_run_id} at {store}; report.html",
    ):
        assert part in told["message"]
    assert "failed" not in told["message"]


def test_what_a_refusal_says(refused: Case, store: str, service: Service, notify: str, tmp_path: Path) -> None:
    decision, _ = gate(refused, store, tmp_path / "out")
    [told] = service.told
    assert told["title"] == "beear-gate: release-candidate version 1: refused"
    assert "champion: no version, before: no version" in told["message"]
    failed = decision.failed_checks()
    assert failed
    shown = [f"failed: {check.check}: {check.reason}"[:300] for check in failed[:10]]
    assert [line for line in told["message"].splitlines() if line.startswith("failed: ")][: len(shown)] == shown


@pytest.mark.parametrize("behaviour", ["answers", "fails", "hangs", "drips", "closes", "is not there"])
def test_decision_records_and_alias_are_the_same_whatever_the_service_does(
    case: Case,
    store: str,
    service: Service,
    notify: str,
    planted: Planted,
    tmp_path: Path,
    behaviour: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    warnings: pytest.LogCaptureFixture,
) -> None:
    with monkeypatch.context() as patch:
        patch.delenv("BEEAR_NOTIFY")
        gate(case, store, tmp_path / "silent")
    if behaviour == "is not there":
        service.stop()
    service.behaviour = behaviour
    gate(case, store, tmp_path / "told")
    for name in ("decision.json", "policy.yaml", "evidence/after.json", "evidence/before.json"):
        assert (tmp_path / "told" / name).read_bytes() == (tmp_path / "silent" / name).read_bytes()
    silent, told = (json.loads((tmp_path / run / "release.json").read_text()) for run in ("silent", "told"))
    # the same decision again finds its version again, and the champion is the one that it made
    assert {k for k in silent if silent[k] != told[k]} <= {"mlflow_run_id", "champion_before", "digest"}
    assert champion(store) == "1"
    warned = [record.getMessage() for record in warnings.records if "notification" in record.getMessage()]
    if behaviour == "answers":
        assert warned == []
    else:
        assert [message.partition(":")[0] for message in warned] == ["a notification was not sent by json"]
    printed = capfd.readouterr()
    outputs = {"printed": (printed.out + printed.err).encode(), "log": warnings.text.encode(), **files_below(tmp_path)}
    assert planted.leaks(outputs) == []


@pytest.mark.parametrize("behaviour", ["hangs", "drips"])
def test_it_ends_in_time_and_other_services_are_told(
    service: Service, behaviour: str, monkeypatch: pytest.MonkeyPatch, warnings: pytest.LogCaptureFixture
) -> None:
    second = Service()
    service.behaviour = behaviour
    monkeypatch.setenv("BEEAR_NOTIFY", f"json://127.0.0.1:{service.port}, json://127.0.0.1:{second.port}")
    began = time.monotonic()
    send("title", "body")
    took = time.monotonic() - began
    second.stop()
    assert took < sending.LIMIT_S + 2
    assert [told["message"] for told in second.told] == ["body"]
    [warned] = [record.getMessage() for record in warnings.records]
    assert warned.startswith("a notification was not sent by json: it ")


@pytest.mark.parametrize(
    ("urls", "kind"),
    [
        ("{secret}", "an unknown service"),
        ("{secret}://host/path", "an unknown service"),
        ("nothing://{secret}/{secret}", "nothing"),
        ("slack://{secret}", "slack"),
        ("json://", "json"),
    ],
)
def test_a_url_that_is_none_is_a_warning_without_it(
    planted: Planted, urls: str, kind: str, monkeypatch: pytest.MonkeyPatch, warnings: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("BEEAR_NOTIFY", urls.format(secret=planted.secret("url")))
    send("title", "body")
    assert f"not sent by {kind}: Apprise knows no service with such a URL; see BEEAR_NOTIFY" in warnings.text
    assert planted.leaks({"log": warnings.text.encode()}) == []


def test_without_the_variable_no_process_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BEEAR_NOTIFY", raising=False)
    monkeypatch.setattr(sending.subprocess, "run", lambda *_, **__: pytest.fail("a process was started"))
    send("title", "body")


def test_a_process_that_cannot_be_started_is_a_warning(
    notify: str, monkeypatch: pytest.MonkeyPatch, warnings: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    send("title", "body")
    assert "no notification was sent (FileNotFoundError)" in warnings.text


def test_secrets_and_files_of_the_working_folder_stay_out(
    service: Service, notify: str, planted: Planted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "apprise.py").write_text("raise SystemExit(9)")
    monkeypatch.setenv("HF_TOKEN", token := planted.secret("token"))
    send(f"title {token}", f"body {token} http://user:{planted.secret('other')}@host")
    [told] = service.told
    assert told["message"] == "body *** http://host"
    assert planted.leaks({"title": told["title"].encode(), "message": told["message"].encode()}) == []


class TestEvents:
    def test_only_those_that_were_chosen(
        self, case: Case, store: str, service: Service, notify: str, tmp_path: Path
    ) -> None:
        quiet = RegistryConfig(tracking_uri=store, notify_on=("refused",))
        gate(case, store, tmp_path / "out", registry=quiet)
        assert service.told == []

    def test_an_unknown_one_is_a_fault(self) -> None:
        with pytest.raises(ConfigError, match=r"notify_on.*'promoted', 'refused', .* or 'awaiting_approval'"):
            parse(RegistryConfig, {"notify_on": ["whenever"]}, "x.yaml")

    def test_a_failure_says_what_and_leaves_out_what_may_quote_data(self, service: Service, notify: str) -> None:
        for error in (StorageError("disk is full\nmore"), DataError("row 7 holds 'something'"), KeyError("something")):
            with pytest.raises(type(error)), telling_failure(RegistryConfig(model_name="toy")):
                raise error
        assert [told["title"] for told in service.told] == ["beear-gate: toy: the release failed"] * 3
        assert [told["message"] for told in service.told] == [
            "StorageError, exit code 1: disk is full",
            "DataError, exit code 1: its message is in the log",
            "KeyError, exit code 1: its message is in the log",
        ]


BEGAN, OVER = "2026-01-01T00:00:01.000+00:00", "2026-01-01T00:00:02.000+00:00"


class TestRunOfThePipeline:
    """The last step tells of what failed in any other, once: a step that is tried again tells nothing itself."""

    @pytest.fixture
    def end(self, store: str, tmp_path: Path) -> Callable[..., str]:
        """Let a run end after a step as it was noted, and give the run's id."""

        def ended(state: str, step: StepStatus | None = None, *, away: bool = False, registry: str = "") -> str:
            tracker = open_pipeline_run(store, "beear-release", "", "kfp-1", "preflight")
            if step is not None:
                note_step(store, tracker.run_id, step)
            uri = "http://127.0.0.1:9" if away else store
            given = registry or json.dumps({"tracking_uri": uri, "model_name": "toy"})
            leave_status(Ended(state, "task failed"), given, "{}", tmp_path / "page.html", kfp_run_id="kfp-1")
            return tracker.run_id

        return ended

    def test_a_step_that_failed_is_named_with_its_error(self, end: Any, service: Service, notify: str) -> None:
        broken = StepStatus(step="beear_mitigation", state="failed", began=BEGAN, ended=OVER, exit_code=1)
        run = end("FAILED", replace(broken, error="StorageError", message="disk is full\nmore"))
        end("FAILED", replace(broken, error="DataError", message="row 7 holds 'something'"))
        assert [told["title"] for told in service.told] == ["beear-gate: toy: the release failed"] * 2
        first, second = (told["message"].splitlines() for told in service.told)
        assert first == [
            "step: beear_mitigation",
            "StorageError, exit code 1: disk is full",
            f"MLflow run: {run}; status.html is among its artifacts",
            "Kubeflow run: kfp-1",
        ]
        assert second[1] == "DataError, exit code 1: its message is in the log"

    def test_one_that_was_killed(self, end: Any, service: Service, notify: str) -> None:
        end("FAILED", StepStatus(step="beear_mitigation", state="running", began=BEGAN))
        [told] = service.told
        assert told["message"].startswith("step: beear_mitigation\nit began and was ended from outside before")

    def test_nothing_is_known_and_mlflow_is_away(self, end: Any, service: Service, notify: str) -> None:
        with pytest.raises(StorageError, match="could be left nowhere"):
            end("FAILED", away=True)
        [told] = service.told
        assert told["message"] == ("step: unknown\nno step says why; Kubeflow says: task failed\nKubeflow run: kfp-1")

    def test_other_ends_and_events_that_were_not_chosen(self, end: Any, store: str, service: Service, notify: str) -> None:
        end("SUCCEEDED")
        end("CANCELED", StepStatus(step="beear_mitigation", state="running", began=BEGAN))
        end("FAILED", registry=json.dumps({"tracking_uri": store, "notify_on": ["promoted"]}))
        assert service.told == []

    def test_a_local_release_tells_itself(
        self, end: Any, service: Service, notify: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setenv("BEEAR_ERROR_FILE", str(tmp_path / "error.json"))
        end("FAILED")
        assert service.told == []


@pytest.fixture
def beear(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """The command in this process; gives its exit code."""

    def run(*arguments: object) -> int:
        monkeypatch.setattr(sys, "argv", ["beear", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return int(ended.value.code or 0)

    return run


class TestVerbs:
    def test_promote_and_rollback(
        self, case: Case, store: str, service: Service, notify: str, tmp_path: Path, beear: Any, monkeypatch: Any
    ) -> None:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
        gate(again(case, tmp_path / "again", 9.0), store, tmp_path / "first")
        gate(case, store, tmp_path / "out")
        assert beear("rollback") == 0
        assert service.told[-1]["title"] == "beear-gate: release-candidate: rolled back to version 1"
        assert f"champion: version 1, before: version 2\nMLflow: {store}" in service.told[-1]["message"]
        assert beear("promote", tmp_path / "out", "--model", case.model, "--again", "--reason", "it was fine") == 0
        assert service.told[-1]["title"] == "beear-gate: release-candidate version 2: promoted"
        assert len(service.told) == 4

    @pytest.mark.parametrize("behaviour", ["answers", "fails", "closes"])
    def test_a_release_that_fails_has_the_same_exit_code(
        self, service: Service, notify: str, tmp_path: Path, beear: Any, behaviour: str, monkeypatch: Any
    ) -> None:
        monkeypatch.chdir(tmp_path)
        service.behaviour = behaviour
        assert beear("release", "--model", tmp_path / "nowhere", "--profile", "quick", "--name", "toy") == 2
        [told] = service.told
        assert told["title"] == "beear-gate: toy: the release failed"
        assert told["message"].startswith("ModelNotFoundError, exit code 2: model folder ")
