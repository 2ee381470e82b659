"""Secrets are planted wherever one can stand, releases end well and badly, and no byte that they leave holds one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import yaml
from mlflow_servers import mlflow_server
from planted_secrets import Planted, files_below

from beear_core.errors import BeearError
from pipelines import cli

POLICY = """
schema_version: 1
name: planted
description: What a random model holds to, or does not.
checks:
  - {{id: ordinary, metric: {metric}, at_most: 0.5, bound: value, min_samples: 8, level: hard, reason: toy}}
"""


@pytest.fixture
def planted() -> Planted:
    return Planted()


@pytest.fixture
def config(tiny_model: Path, toy_data: dict[str, str], tmp_path: Path) -> Callable[..., Path]:
    """Writes a configuration of the cheapest whole release; a random model refuses nothing."""

    def write(metric: str = "wrong_refusal/ordinary", **given: Any) -> Path:
        (tmp_path / "policy.yaml").write_text(POLICY.format(metric=metric))
        few = {"harmful": 8, "under_drift": 8, "ordinary": 8, "borderline": 8, "max_new_tokens": 4}
        values: dict[str, Any] = {"model": str(tiny_model), "policy": str(tmp_path / "policy.yaml")}
        mitigation = {"enabled": False, "anchors": 50, "performance_anchors": 58, "held_back": 16, "held_back_ordinary": 16}
        values |= {"mitigation": mitigation, "data": {k: v for k, v in toy_data.items() if k != "triggers"}}
        path = tmp_path / "config.yaml"
        path.write_text(yaml.safe_dump({**values, "evaluation": few, "registry": {"model_name": "toy"}, **given}))
        return path

    return write


def environment(planted: Planted, **more: str) -> dict[str, str]:
    """What a pod or a laptop may have in its environment; nothing of it is needed, and nothing of it may be shown."""

    def one(place: str) -> str:
        return planted.secret(place)

    def uri(place: str, scheme: str = "http", host: str = "127.0.0.1:9") -> str:
        return f"{scheme}://{one(f'user of {place}')}:{planted.encoded(f'password of {place}')}@{host}"

    names = ["MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "MLFLOW_FLASK_SERVER_SECRET_KEY", "AWS_ACCESS_KEY_ID"]
    names += ["AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "PGPASSWORD", "MYSQL_PWD"]
    names += ["BEEAR_TOKEN", "KFP_TOKEN"]
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "AWS_"))}
    return {
        **kept,
        **{name: one(name) for name in names},
        "MLFLOW_REGISTRY_URI": uri("MLFLOW_REGISTRY_URI"),
        "MLFLOW_S3_ENDPOINT_URL": uri("MLFLOW_S3_ENDPOINT_URL"),
        "AWS_ENDPOINT_URL": uri("AWS_ENDPOINT_URL"),
        "HTTPS_PROXY": uri("HTTPS_PROXY"),
        "NO_PROXY": "127.0.0.1",
        "DATABASE_URL": f"postgresql+psycopg2:///db?host=/x&user={one('user parameter')}&sslpassword={one('parameter')}",
        "BEEAR_NOTIFY": f"{uri('BEEAR_NOTIFY', 'json')}/{one('path')}?token={one('token')} jsons://{one('host')}/{one('p')}",
        "MLFLOW_RUN_ID": "",
        "OMP_NUM_THREADS": "1",
        **more,
    }


def released(config: Path, environment: dict[str, str], *more: object) -> tuple[int, dict[str, bytes]]:
    """Run a release in a process of its own: (exit code, every byte that it printed or wrote)."""
    folder = config.parent
    command = ["-m", "pipelines.cli", "release", "--config", config, "--out", folder / "runs", "--keep", *more]
    done = subprocess.run(
        [sys.executable, *map(str, command)], cwd=folder, env=environment, capture_output=True, timeout=900, check=False
    )
    return done.returncode, {"stdout": done.stdout, "stderr": done.stderr, **files_below(folder)}


class TestWholeReleases:
    def test_promoted_and_refused_on_a_server(
        self, planted: Planted, config: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        """A server that lets everybody in: MLflow's own check of passwords costs a minute for a release's many requests."""
        folder = tmp_path_factory.mktemp("server")
        with mlflow_server(folder, f"sqlite:///{folder}/server.db") as server:
            user = f"{planted.secret('user of MLFLOW_TRACKING_URI')}:{planted.encoded('password of MLFLOW_TRACKING_URI')}"
            other = f"{planted.secret('user of MLFLOW_REGISTRY_URI')}:{planted.encoded('password of MLFLOW_REGISTRY_URI')}"
            named = {"MLFLOW_TRACKING_URI": user, "MLFLOW_REGISTRY_URI": other}
            given = environment(planted, **{name: server.uri.replace("://", f"://{who}@") for name, who in named.items()})
            code, outputs = released(config(artifacts={"uri": str(folder / "store")}), given, "--json")
            assert code == 0, outputs["stderr"].decode()[-3000:]
            assert json.loads(outputs["stdout"])["release"]["tracking_uri"] == server.uri
            code, more = released(config("attack_success/plain"), given)
            assert code == 3, more["stderr"].decode()[-3000:]
        outputs |= {f"second {name}": content for name, content in more.items()}
        assert planted.leaks({**outputs, **files_below(folder)}) == []

    def test_s3_refuses(self, planted: Planted, config: Callable[..., Path]) -> None:
        with _refusing() as port:
            user = f"{planted.secret('user of the endpoint')}:{planted.secret('its password', '/')}"
            given = environment(planted, AWS_ENDPOINT_URL=f"http://{user}@127.0.0.1:{port}")
            code, outputs = released(config(model="s3://bucket/model"), given)
        assert code in {1, 2}
        assert b"s3://bucket/model" in outputs["stderr"]
        assert planted.leaks(outputs) == []

    def test_a_step_crashes(self, planted: Planted, config: Callable[..., Path], tmp_path: Path) -> None:
        """A library that says all it knows in an error that nobody foresaw."""
        (tmp_path / "first").mkdir()
        (tmp_path / "first" / "great_expectations.py").write_text(
            "import logging, os, sys\n"
            "told = ' '.join(f'{k}={v} {v!r}' for k, v in os.environ.items())\n"
            "print(told, flush=True)\n"
            "logging.getLogger('x').error(told)\n"
            "sys.stderr.write(told + chr(10))\n"
            "raise RuntimeError('crashed: ' + told)\n"
        )
        given = environment(planted, PYTHONPATH=f"{tmp_path / 'first'}:{Path(cli.__file__).parents[1]}")
        code, outputs = released(config(artifacts={"uri": str(tmp_path / "store")}), given)
        assert code == 1
        assert b"RuntimeError: crashed: " in outputs["stderr"], "the traceback is for whoever has to mend it"
        assert planted.leaks({k: v for k, v in outputs.items() if not k.endswith(("great_expectations.py", ".pyc"))}) == []


@contextmanager
def _refusing() -> Iterator[int]:
    """A server that repeats to whoever asks all that it was sent, and refuses."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            body = f"<Error><Code>AccessDenied</Code><Message>{self.path} {self.headers}</Message></Error>".encode()
            self.send_response(403)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    for method in ("GET", "HEAD", "POST", "PUT"):
        setattr(Handler, f"do_{method}", Handler.answer)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()


AWKWARD = ["", "/", "@", "#", "?", "%", "/@", "?/@", ":", "&", " ", "'", '"', "\\", "=", ";"]
"""What may stand inside a secret that somebody pasted without encoding it."""


def uris(planted: Planted, port: int) -> list[str]:
    """URIs of a store that cannot be reached, with a secret wherever one can stand."""
    here = f"127.0.0.1:{port}"
    awkward = [planted.secret(f"password with {b!r}", b) for b in AWKWARD]
    tokens = [planted.secret(f"token with {b!r}", b) for b in AWKWARD]
    digits = [f"12{b}{planted.secret(f'password like a port, {b!r}', b)}" for b in "/?#"]
    return [
        *[f"http://user:{p}@{here}" for p in [*awkward, *digits]],
        *[f"https://{t}@{here}/x" for t in tokens],
        f"http://user:{planted.encoded('encoded')}@{here}",
        f"http://user:{planted.secret('nothing behind it')}",
        f"http://{here}?password={planted.secret('?password=')}&a=b",
        f"http://{here}/x?a=b;token={planted.secret('behind a semicolon')}",
        f"http://{here}/x#access_token={planted.secret('fragment')}",
        f"user:{planted.secret('no scheme')}@{here}",
        f"postgresql+psycopg2://user:{planted.secret('pg', '/')}@{here}/db",
        f"postgresql+psycopg2://{planted.secret('user alone')}@{here}/db",
        f"postgresql+psycopg2://user:{planted.secret('pg, no host')}@/db?host=/nowhere",
        f"postgresql+psycopg2:///db?host=/nowhere&user={planted.secret('user=')}&password={planted.secret('password=')}",
        f"postgresql+psycopg2:///db?host=/nowhere&sslpassword={planted.secret('sslpassword=')}",
        f"postgresql+psycopg2:///db?host=/nowhere&secret_of_mine={planted.secret('unknown parameter')}",
        f"postgresql://user:{planted.secret('driver that is not there')}@{here}/db",
        f"mssql+pyodbc:///?odbc_connect={quote('DRIVER=x;UID=u;PWD=' + planted.secret('odbc'))}",
        f"sqlite:////proc/nowhere/{'x' * 300}/mlflow.db?password={planted.secret('sqlite')}",
        f"sqlite:///mlflow.db?check_same_thread=x&key={planted.secret('driver error')}",
        f"nothing+known://user:{planted.secret('unknown scheme')}@{here}",
    ]


@pytest.fixture
def beear(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[..., Any]:
    """The command in this process: (exit code, every byte that it printed or wrote)."""
    import mlflow.store.db.utils as stores

    monkeypatch.setattr(stores, "MAX_RETRY_COUNT", 2)
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> tuple[int, dict[str, bytes]]:
        monkeypatch.setattr(sys, "argv", ["beear", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        printed = capfd.readouterr()
        wrote = {k: v for k, v in files_below(tmp_path).items() if not k.endswith("config.yaml")}
        return int(ended.value.code or 0), {"stdout": printed.out.encode(), "stderr": printed.err.encode(), **wrote}

    return run


@pytest.fixture
def full(planted: Planted, monkeypatch: pytest.MonkeyPatch) -> None:
    """This process's environment holds secrets, and no MLflow of the caller's."""
    for name in [name for name in os.environ if name.startswith(("MLFLOW_", "AWS_"))]:
        monkeypatch.delenv(name)
    for name, value in environment(planted).items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("full", "own_mlflow")
class TestStoresThatCannotBeReached:
    def test_unreachable_or_refused_by_the_driver(
        self, beear: Callable[..., Any], planted: Planted, config: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        found = {}
        for uri in uris(planted, _closed_port()):
            monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
            code, outputs = beear("release", "--config", config(), "--out", "runs")
            assert code in {1, 2}, uri
            found |= {f"{uri} -> {leak}": outputs["stderr"].decode()[-1500:] for leak in planted.leaks(outputs)}
        assert found == {}

    def test_a_wrong_password(
        self,
        beear: Callable[..., Any],
        planted: Planted,
        config: Callable[..., Path],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        with _refusing() as port:
            for user in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_RUN_ID"):
                monkeypatch.setenv(user, "somebody")
                monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
                code, outputs = beear("release", "--config", config(), "--out", "runs")
                assert code == 1
                assert b"403" in outputs["stderr"]
                assert planted.leaks(outputs) == []

    def test_in_the_configuration(
        self, beear: Callable[..., Any], planted: Planted, config: Callable[..., Path], capfd: Any
    ) -> None:
        found = {}
        for uri in uris(planted, 9):
            config(registry={"tracking_uri": uri})
            code, outputs = beear("release", "--config", "config.yaml", "--out", "runs")
            assert code == 2, uri
            found |= {f"{uri} -> {leak}": outputs["stderr"].decode()[-1500:] for leak in planted.leaks(outputs)}
        assert found == {}

    def test_in_other_places_of_the_configuration(
        self, beear: Callable[..., Any], planted: Planted, config: Callable[..., Path], tmp_path: Path
    ) -> None:
        place = f"s3://{planted.secret('user in s3')}:{planted.secret('password in s3', '/')}@bucket/model"
        given: list[dict[str, Any]] = [
            {"model": place},
            {"model": f"s3://{planted.secret('token in s3')}@bucket/model"},
            {"model": f"hub://{planted.secret('unknown kind')}@x"},
            {"data": {"harmful": place}},
            {"policy": place},
            {"registry": {"experiment": place}},
            {"registry": {"password": planted.secret("unknown key")}},
            {"registry": [{"tracking_uri": f"http://user:{planted.secret('in a list')}@x"}]},
            {"evaluation": {"harmful": f"http://user:{planted.secret('wrong type', ' ')}@x"}},
            {"token": planted.secret("at the top")},
        ]
        for values in given:
            config(**values)
            code, outputs = beear("release", "--config", "config.yaml", "--out", "runs")
            assert code == 2, (values, outputs["stderr"])
            assert planted.leaks(outputs) == [], (values, outputs["stderr"])
        (tmp_path / "config.yaml").write_text(f"registry:\n  tracking_uri: {{http://u:{planted.secret('not YAML', ' ')}@x")
        code, outputs = beear("release", "--config", "config.yaml", "--out", "runs")
        assert (code, planted.leaks(outputs)) == (2, [])

    def test_on_the_command_line(self, beear: Callable[..., Any], planted: Planted, config: Callable[..., Path]) -> None:
        place = f"s3://{planted.secret('command line')}@bucket/model"
        for arguments in (
            ("release", "--config", config(), "--model", place, "--out", "runs"),
            ("release", "--config", config(), "--policy", place, "--out", "runs"),
            ("preflight", "--config", config(), "--model", place, "--out", "runs"),
        ):
            code, outputs = beear(*arguments)
            assert (code, planted.leaks(outputs)) == (2, []), outputs["stderr"]


def test_parameters_of_a_step_on_a_cluster(planted: Planted, tmp_path: Path) -> None:
    from components.model_intake.step import run
    from components.registry_gate.step import run_component

    place = f"{planted.secret('user')}:{planted.secret('password', '/')}@bucket/model"
    registry = [f'{{"tracking_uri": "http://{place}"}}', f'{{"tracking_uri": "http://{place}', f'["http://{place}"]']
    nothing = dict.fromkeys(
        ("model", "before_samples", "after_samples", "mlflow_run_id", "kfp_run_id", "report", "summary"), "x"
    )
    calls: list[Callable[[], Any]] = [lambda s=s: run(f"{s}://{place}", tmp_path / "x") for s in ("s3", "hub", "file")]  # type: ignore[misc]
    calls += [
        lambda text=text: run_component(  # type: ignore[misc]
            evidence={},
            champion=None,
            policy="quick",
            registry_json=text,
            promotion_json="{}",
            decision=str(tmp_path / "d"),
            **nothing,
        )
        for text in registry
    ]
    for call in calls:
        with pytest.raises(BeearError) as caught:
            call()
        assert planted.leaks({"message": str(caught.value).encode(), **files_below(tmp_path)}) == []


def _closed_port() -> int:
    server = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    server.server_close()
    return int(server.server_address[1])
