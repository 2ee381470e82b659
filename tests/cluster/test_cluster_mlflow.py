"""MLflow's server and the stores beside it, started as the manifests say: same command, arguments and environment.

Only what a cluster gives is put in its place: paths below a folder, hosts and ports on loopback. The root file system is
read-only, as in the pod.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from machine import Machine, environment, image_environment, started, wait_for
from mlflow_servers import postgresql
from rendered import Object, find, rendered
from required import ROOT_ONLY
from servers import READER, WRITER, S3Server

from tools.servers.postgresql import PostgreSQL
from tools.servers.program import LOOPBACK, free_port
from tools.servers.seaweedfs import GRPC

ADMIN_PASSWORD, DATABASE_PASSWORD = "an-administrators-password", "a-database-password"


@dataclass
class Cluster:
    """Everything, running."""

    uri: str
    s3: S3Server
    machine: Machine
    process: subprocess.Popen[bytes]
    store: PostgreSQL
    log: Path


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    objects, folder = rendered("overlays/local"), tmp_path_factory.mktemp("cluster")
    port, s3_port = free_port(), free_port(GRPC)
    machine = Machine(folder, {"http://model-store:8333": f"http://127.0.0.1:{s3_port}"})
    fill_in(machine)
    with postgresql(folder / "pg") as admin, store_of(objects, machine, s3_port) as s3:
        make_databases(admin, objects, machine)
        with server_of(objects, machine, port) as (process, log):
            yield Cluster(f"http://127.0.0.1:{port}", s3, machine, process, admin, log)


def fill_in(machine: Machine) -> None:
    """Put values where the examples have places; which place is which file's is told by its text."""
    reads, writes = "<an identity that can read and list>", "<an identity that can read, write and list>"
    s3, theirs = "AWS_SECRET_ACCESS_KEY=<its secret>", '"<as in {0}.env>", "secretKey": "<as in {0}.env>"'
    machine.values |= {
        f"{reads}\n{s3}": f"{READER.key}\nAWS_SECRET_ACCESS_KEY={READER.secret}",
        f"{writes}\n{s3}": f"{WRITER.key}\nAWS_SECRET_ACCESS_KEY={WRITER.secret}",
        theirs.format("beear-s3"): f'"{WRITER.key}", "secretKey": "{WRITER.secret}"',
        theirs.format("mlflow-s3"): f'"{READER.key}", "secretKey": "{READER.secret}"',
        "<at least 12 characters>": ADMIN_PASSWORD,
        "<a user that can write>": "admin",
        "<its password>": ADMIN_PASSWORD,
        "<openssl rand -hex 32>": "0123456789abcdef" * 4,
    }


@contextmanager
def store_of(objects: list[Object], machine: Machine, port: int) -> Iterator[S3Server]:
    """SeaweedFS as the StatefulSet starts it; its inner ports are chosen, because on loopback they may be taken."""
    (container,) = find(objects, "StatefulSet", "model-store")["spec"]["template"]["spec"]["containers"]
    folder = machine.folder / "store"
    for name in ("data", "etc/seaweedfs", "tmp"):
        (folder / name).mkdir(parents=True)
    (folder / "etc/seaweedfs/s3.json").write_text(machine.secret("s3.json"))
    args = [re.sub(r"=/(data|etc)", rf"={folder}/\1", one) for one in container["args"]]
    args = [one.replace("0.0.0.0", "127.0.0.1").replace("=8333", f"={port}") for one in args]
    args += [
        f"-{name}={free_port(GRPC)}"
        for name in ("master.port", "volume.port", "filer.port", "s3.port.iceberg", "s3.port.lance")
    ]
    log = machine.folder / "weed.log"
    given = {"HOME": str(folder / "tmp"), "TMPDIR": str(folder / "tmp")}
    with started([*container["command"], *args], given, folder, log) as process:
        wait_for(f"http://127.0.0.1:{port}{container['readinessProbe']['httpGet']['path']}", process, log)
        yield S3Server(f"http://127.0.0.1:{port}")
    assert {one.name for one in folder.iterdir()} == {"data", "etc", "tmp"}, "it writes where the pod lets it"


def make_databases(admin: PostgreSQL, objects: list[Object], machine: Machine) -> None:
    """What PostgreSQL's image does at its first start: the user and the database, then the scripts."""
    import sqlalchemy

    container = find(objects, "StatefulSet", "mlflow-db")["spec"]["template"]["spec"]["containers"][0]
    named = {one["name"]: one.get("value") for one in container["env"]}
    engine = sqlalchemy.create_engine(admin.uri("postgres"), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(
            sqlalchemy.text(f"CREATE ROLE {named['POSTGRES_USER']} SUPERUSER LOGIN PASSWORD '{DATABASE_PASSWORD}'")
        )
        connection.execute(sqlalchemy.text(f"CREATE DATABASE {named['POSTGRES_DB']}"))
        for script in find(objects, "ConfigMap", "mlflow-db")["data"].values():
            connection.execute(sqlalchemy.text(script))
    engine.dispose()
    for name in ("mlflow_auth", "mlflow"):
        machine.values[f"mlflow:<password>@mlflow-db:5432/{name}"] = (
            f"mlflow:{DATABASE_PASSWORD}@{LOOPBACK}:{admin.port}/{name}"
        )


@contextmanager
def server_of(objects: list[Object], machine: Machine, port: int) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """The Deployment's containers, one after another as in the pod."""
    spec = find(objects, "Deployment", "mlflow")["spec"]["template"]["spec"]
    tmp = machine.folder / "tmp"
    (tmp / "auth").mkdir(parents=True)
    machine.values["/etc/mlflow/basic_auth.ini"] = str(tmp / "auth" / "basic_auth.ini")
    Path(machine.values["/etc/mlflow/basic_auth.ini"]).write_text(machine.secret("basic_auth.ini"))
    for container in spec["initContainers"]:
        for _ in range(2):  # it runs again whenever the pod is replaced
            given = {**image_environment(tmp), **environment(container, objects, machine)}
            command = [sys.executable, *container["command"][1:], *container["args"]]
            subprocess.run(command, env=given, cwd=tmp, check=True, timeout=120)
    (container,) = spec["containers"]
    given = {**image_environment(tmp), "TMPDIR": str(tmp), **environment(container, objects, machine)}
    args = [one.replace("0.0.0.0", "127.0.0.1").replace("--port=5000", f"--port={port}") for one in container["args"]]
    log = machine.folder / "mlflow.log"
    with started([*container["command"], *args], given, tmp, log) as process:
        wait_for(f"http://127.0.0.1:{port}{container['readinessProbe']['httpGet']['path']}", process, log)
        yield process, log


def asked(
    cluster: Cluster, path: str, *, user: str | None = None, password: str = ADMIN_PASSWORD, host: str | None = None
) -> int:
    """Ask without MLflow's client; the status of the answer."""
    request = urllib.request.Request(cluster.uri + path)
    if user:
        request.add_header("Authorization", "Basic " + b64encode(f"{user}:{password}".encode()).decode())
    if host:
        request.add_header("Host", host)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return int(error.code)


SEARCH = "/api/2.0/mlflow/experiments/get-by-name?experiment_name=Default"


@pytest.fixture
def client(cluster: Cluster, own_mlflow: None, monkeypatch: pytest.MonkeyPatch) -> Any:
    """MLflow's client with what the secrets give to a step."""
    for name in ("beear-mlflow", "beear-s3"):
        for variable, value in cluster.machine.variables(name).items():
            monkeypatch.setenv(variable, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", cluster.s3.endpoint)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", cluster.uri)
    import mlflow

    mlflow.set_tracking_uri(cluster.uri)
    return mlflow.MlflowClient()


def test_a_step_logs_a_metric_and_an_artifact_which_goes_to_s3_directly(
    cluster: Cluster, client: Any, tmp_path: Path
) -> None:
    run = client.create_run(client.create_experiment("beear-release"))
    client.log_metric(run.info.run_id, "attack_success", 0.125)
    (tmp_path / "report.html").write_text("<p>measured</p>")
    client.log_artifact(run.info.run_id, str(tmp_path / "report.html"))

    assert client.get_run(run.info.run_id).data.metrics == {"attack_success": 0.125}
    assert run.info.artifact_uri.startswith("s3://beear/mlflow/"), "not through the server"
    key = run.info.artifact_uri.removeprefix("s3://beear/") + "/report.html"
    assert cluster.s3.client().get_object(Bucket="beear", Key=key)["Body"].read() == b"<p>measured</p>"
    # the server shows it in its pages, with keys that can only read
    listed = f"/ajax-api/2.0/mlflow/artifacts/list?run_id={run.info.run_id}"
    assert asked(cluster, listed, user="admin") == 200
    assert asked(cluster, f"/get-artifact?path=report.html&run_uuid={run.info.run_id}", user="admin") == 200
    assert asked(cluster, "/api/2.0/mlflow-artifacts/artifacts", user="admin") >= 400, "it passes no file on"


def test_a_version_gets_its_alias(client: Any) -> None:
    client.create_registered_model("candidate")
    version = client.create_model_version("candidate", source="s3://beear/models/candidate")
    client.set_registered_model_alias("candidate", "champion", version.version)

    assert client.get_model_version_by_alias("candidate", "champion").version == version.version


def test_without_the_right_password_nothing_is_answered(cluster: Cluster) -> None:
    assert asked(cluster, SEARCH) == 401
    assert asked(cluster, SEARCH, user="admin", password="password1234") == 401
    assert asked(cluster, SEARCH, user="admin", password="") == 401
    assert asked(cluster, SEARCH, user="nobody") == 401
    assert asked(cluster, SEARCH, user="admin") == 200


def test_probes_need_neither_password_nor_name(cluster: Cluster) -> None:
    for container in find(rendered("base"), "Deployment", "mlflow")["spec"]["template"]["spec"]["containers"]:
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            assert asked(cluster, container[probe]["httpGet"]["path"], host="10.244.0.17:5000") == 200


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("mlflow-server:5000", 200),
        ("mlflow-server.beear.svc:5000", 200),
        ("mlflow-server.kubeflow.svc.cluster.local:5000", 200),
        ("localhost:5000", 200),
        ("127.0.0.1:15000", 200),
        ("rebound.example:5000", 403),
        ("mlflow-server.example:5000", 403),
        ("10.244.0.17:5000", 403),
    ],
)
def test_the_server_answers_to_its_own_names_alone(cluster: Cluster, host: str, status: int) -> None:
    assert asked(cluster, SEARCH, user="admin", host=host) == status


def test_users_and_runs_lie_in_databases_of_their_own(cluster: Cluster) -> None:
    import sqlalchemy

    tables = {}
    for name in ("mlflow", "mlflow_auth"):
        engine = sqlalchemy.create_engine(cluster.store.uri(name))
        tables[name] = set(sqlalchemy.inspect(engine).get_table_names())
        engine.dispose()

    assert {"runs", "model_versions", "alembic_version"} <= tables["mlflow"]
    assert "users" not in tables["mlflow"]
    assert {"users", "alembic_version_auth"} <= tables["mlflow_auth"]


def test_no_password_stands_on_a_command_line_or_in_the_log(cluster: Cluster) -> None:
    lines = [" ".join(one.cmdline()) for one in processes(cluster)]

    assert any("--no-serve-artifacts" in line or "uvicorn" in line for line in lines)
    for secret in (ADMIN_PASSWORD, DATABASE_PASSWORD, READER.secret, "0123456789abcdef"):
        assert not [line for line in lines if secret in line]
        assert secret not in cluster.log.read_text(errors="replace")


def test_the_server_fits_what_it_asks_for(cluster: Cluster) -> None:
    (container,) = find(rendered("base"), "Deployment", "mlflow")["spec"]["template"]["spec"]["containers"]
    assert container["resources"]["requests"]["memory"] == "1Gi"
    used = sum(one.memory_full_info().pss for one in processes(cluster))

    assert 50 * 2**20 < used < 2**30, f"{used / 2**20:.0f} MiB"


def test_a_pod_writes_below_its_own_folder_alone(tmp_path: Path) -> None:
    """The machine itself: what runs on it meets a read-only file system, as in the pod."""
    if os.geteuid() != 0:
        pytest.skip(ROOT_ONLY)
    (tmp_path / "tmp").mkdir()
    script = "touch here /tmp/there; touch /etc/elsewhere /root/elsewhere"
    with started(["sh", "-c", script], {}, tmp_path / "tmp", tmp_path / "log") as process:
        process.wait(timeout=30)

    assert (tmp_path / "tmp" / "here").exists()
    assert (tmp_path / "log").read_text().count("Read-only file system") == 2


def processes(cluster: Cluster) -> list[psutil.Process]:
    first = psutil.Process(cluster.process.pid)
    return [first, *first.children(recursive=True)]
