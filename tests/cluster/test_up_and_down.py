"""``make up`` and ``make down``: the servers of a cluster on this machine, used, mended, ended, and up again."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from rendered import find, rendered

from tools.servers import processes
from tools.servers.cluster import BUCKET, Cluster
from tools.servers.program import free_port, is_free
from tools.servers.seaweedfs import GRPC, INNER, s3_client

ROOT = Path(__file__).parents[2]
NAMES = ("PostgreSQL", "SeaweedFS", "MLflow")


def command(verb: str, folder: Path, *more: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tools.servers", verb, "--folder", str(folder), *map(str, more)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def first_port() -> int:
    return free_port(*range(1, 3 + INNER), *range(GRPC, GRPC + 3 + INNER))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Servers that are up."""
    folder = tmp_path_factory.mktemp("servers") / "state"
    done = command("up", folder, "--port", first_port())
    try:
        assert done.returncode == 0, done.stderr
        yield folder
    finally:
        for program in Cluster(folder).programs:
            if process := processes.find(program):
                process.kill()  # in order, SeaweedFS takes many seconds
        Cluster(folder).down()


def exported(folder: Path) -> dict[str, str]:
    """What a shell has after ``source``."""
    script = f"set -eu; source {folder / 'env'}; env -0"
    done = subprocess.run(["env", "-i", "bash", "-c", script], capture_output=True, text=True, check=True)
    return dict(line.split("=", 1) for line in done.stdout.split("\0") if line.startswith(("MLFLOW_", "AWS_")))


def use(folder: Path, name: str) -> None:
    """Put an object, log an artifact, and register a model, by the clients that a release uses, with what was exported."""
    code = f"""
import boto3, mlflow, sys
from botocore.config import Config
boto3.client("s3").put_object(Bucket="{BUCKET}", Key="{name}", Body=b"{name}")
client = mlflow.MlflowClient()
experiment = client.get_experiment_by_name("used") or client.get_experiment(client.create_experiment("used"))
run = client.create_run(experiment.experiment_id)
client.log_text(run.info.run_id, "{name}", "artifact.txt")
client.create_registered_model("{name}")
version = client.create_model_version("{name}", run.info.artifact_uri, run.info.run_id)
client.set_registered_model_alias("{name}", "champion", version.version)
"""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "AWS_"))}
    subprocess.run([sys.executable, "-c", code], env={**clean, **exported(folder)}, check=True, timeout=120)


def there(folder: Path, name: str) -> tuple[bytes, bytes, str]:
    """The object, the artifact in S3, and the version with the alias; read apart from MLflow's client."""
    given = exported(folder)
    store = Cluster(folder).store
    s3 = s3_client(store.endpoint, store.reader)
    answer = json.loads(asked(given, f"/api/2.0/mlflow/registered-models/alias?name={name}&alias=champion"))
    source = answer["model_version"]["source"]
    assert source.startswith(f"s3://{BUCKET}/mlflow/"), "artifacts go to S3 directly"
    key = source.removeprefix(f"s3://{BUCKET}/") + "/artifact.txt"
    bodies = [s3.get_object(Bucket=BUCKET, Key=one)["Body"].read() for one in (name, key)]
    return bodies[0], bodies[1], str(answer["model_version"]["version"])


def asked(given: dict[str, str], path: str, *, password: str = "", data: str = "") -> bytes:
    """Ask MLflow without its client."""
    who = f"{given['MLFLOW_TRACKING_USERNAME']}:{password or given['MLFLOW_TRACKING_PASSWORD']}"
    headers = {"Authorization": f"Basic {b64encode(who.encode()).decode()}", "Content-Type": "application/json"}
    request = urllib.request.Request(given["MLFLOW_TRACKING_URI"] + path, data.encode() or None, headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return bytes(answer.read())


def test_a_client_logs_in_puts_an_object_and_registers_a_model(folder: Path) -> None:
    use(folder, "first")
    assert there(folder, "first") == (b"first", b"first", "1")
    with pytest.raises(urllib.error.HTTPError, match="40[13]"):
        asked(exported(folder), "/api/2.0/mlflow/experiments/get-by-name?experiment_name=used", password="another-password")


def test_a_release_is_no_administrator_and_the_server_can_only_read_in_s3(folder: Path) -> None:
    cluster = Cluster(folder)
    with pytest.raises(urllib.error.HTTPError, match="40[13]"):
        asked(
            exported(folder), "/api/2.0/mlflow/users/create", data='{"username": "another", "password": "another-password"}'
        )
    assert cluster.mlflow.given["AWS_ACCESS_KEY_ID"] == cluster.store.reader.key


def test_up_again_says_that_they_run(folder: Path) -> None:
    before = [processes.find(program) for program in Cluster(folder).programs]
    done = command("up", folder)
    assert done.returncode == 0, done.stderr
    assert [re.search(rf"{name} +(\w+)", done.stdout)[1] for name in NAMES] == ["runs"] * 3  # type: ignore[index]
    assert [processes.find(program) for program in Cluster(folder).programs] == before


def test_passwords_are_shown_to_nobody_else(folder: Path) -> None:
    passwords = Cluster(folder).passwords
    assert len(set(passwords.values())) == len(passwords)
    lines = [" ".join(one.info["cmdline"] or ()) for one in psutil.process_iter(["cmdline"])]
    said = command("up", folder)
    for secret in passwords.values():
        assert not [line for line in lines if secret in line]
        assert secret not in said.stdout + said.stderr
    for path in folder.rglob("*"):
        if path.is_file() and path.stat().st_mode & 0o077 and os.access(path, os.R_OK) and "data" not in path.parts:
            assert not [s for s in passwords.values() if s.encode() in path.read_bytes()], path
    assert folder.joinpath("env").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("name", NAMES)
def test_a_server_that_was_killed_is_mended(folder: Path, name: str) -> None:
    (victim,) = (program for program in Cluster(folder).programs if program.name == name)
    process = processes.find(victim)
    assert process is not None
    process.kill()  # the first process alone: what it started stays
    done = command("up", folder)
    assert done.returncode == 0, done.stderr
    assert re.findall(r"(\w+) +started", done.stdout) == [name]
    assert there(folder, "first")[2] == "1"
    use(folder, f"after-{name.lower()}")


def test_the_server_is_started_as_on_a_cluster(folder: Path) -> None:
    """Its arguments and settings are those of the manifests, but for addresses."""
    (container,) = find(rendered("base"), "Deployment", "mlflow")["spec"]["template"]["spec"]["containers"]
    maps = {o["metadata"]["name"].partition("-")[0]: o["data"] for o in rendered("base") if o["kind"] == "ConfigMap"}
    settings = maps["mlflow"]
    process = processes.find(Cluster(folder).mlflow)
    assert process is not None
    place = ("--host=", "--port=")
    assert {a for a in process.cmdline()[4:] if not a.startswith(place)} == {
        a for a in container["args"] if not a.startswith(place)
    }
    given = process.environ()
    assert {k: given[k] for k in settings if k != "MLFLOW_SERVER_ALLOWED_HOSTS"} == {
        k: v for k, v in settings.items() if k != "MLFLOW_SERVER_ALLOWED_HOSTS"
    }


def test_down_ends_them_all_and_up_finds_the_data(folder: Path) -> None:
    cluster = Cluster(folder)
    passwords, env = cluster.passwords, exported(folder)
    done = command("down", folder)
    assert done.returncode == 0, done.stderr
    assert re.findall(r"(\w+) +ended", done.stdout) == ["MLflow", "SeaweedFS", "PostgreSQL"]
    assert all(is_free(port) for program in cluster.programs for port in program.ports())
    assert not [p for p in psutil.process_iter(["cmdline"]) if str(folder) in " ".join(p.info["cmdline"] or ())]
    assert re.findall(r"(\w+) +did not run", command("down", folder).stdout) == ["MLflow", "SeaweedFS", "PostgreSQL"]

    assert command("up", folder).returncode == 0
    assert there(folder, "first") == (b"first", b"first", "1")
    assert (Cluster(folder).passwords, exported(folder)) == (passwords, env)


def test_a_port_that_is_taken_is_named_with_its_remedy(tmp_path: Path) -> None:
    port = first_port()
    with socket.create_server(("127.0.0.1", port + 1)):
        done = command("up", tmp_path / "state", "--port", port)
    assert done.returncode == 1
    assert f"SeaweedFS needs port {port + 1} of this machine, which process {os.getpid()} (" in done.stderr
    assert "has; end that, or choose other ports: make up SERVERS_PORT=" in done.stderr
    assert all(processes.find(program) is None for program in Cluster(tmp_path / "state").programs), "nothing was started"


@pytest.mark.parametrize("what", ["at", "command"])
def test_a_stranger_with_the_number_of_a_server_is_let_alone(tmp_path: Path, what: str) -> None:
    """A machine that was started anew gives the numbers again."""
    stranger = subprocess.Popen(["sleep", "300"])
    try:
        while psutil.Process(stranger.pid).cmdline() != ["sleep", "300"]:
            time.sleep(0.01)  # it cannot be read yet at the very moment when a process begins
        cluster = Cluster(tmp_path / "state", first_port())
        known: dict[str, Any] = {"pid": stranger.pid, "at": psutil.Process(stranger.pid).create_time()}
        known["command"] = ["sleep", "300"]
        for program in cluster.programs:
            program.folder.mkdir()
            (program.folder / "process.json").write_text(json.dumps(known))
        assert all(processes.find(program) is not None for program in cluster.programs), "this test writes what is noted"
        known |= {"at": 1.0} if what == "at" else {"command": ["sleep", "301"]}
        for program in cluster.programs:
            (program.folder / "process.json").write_text(json.dumps(known))
        done = command("down", tmp_path / "state")
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("did not run") == 3
        time.sleep(0.2)
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_other_ports_while_they_run_are_refused(folder: Path) -> None:
    done = command("up", folder, "--port", first_port())
    assert done.returncode == 1
    assert "run at other ports than" in done.stderr
    assert "end them first: make down" in done.stderr
    assert command("up", folder).stdout.count("runs ") == 3
