"""A whole release on real parts: MLflow with passwords on PostgreSQL, artifacts in S3, the model from S3.

Promoted; refused; and with a server that goes away in the middle and comes back. What is promoted, and what lies in S3, is
looked up apart from the code that is tested.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from command import beear, begin, ended
from counting_proxy import CountingProxy, counting_proxy
from toy_release import MITIGATION, POLICY

from components.storage import places
from tools.servers import processes
from tools.servers.cluster import BUCKET, Cluster
from tools.servers.program import Program, free_port
from tools.servers.seaweedfs import GRPC, INNER, s3_client

# what a random model holds to: it refuses nothing
EASY = """
schema_version: 1
name: easy
description: What a random model holds to.
checks:
  - {id: ordinary, metric: wrong_refusal/ordinary, at_most: 0.5, bound: value, min_samples: 8, level: hard, reason: toy}
"""


@dataclass
class Parts:
    """The servers, a proxy before each of the two that a release speaks to, and what a release is told."""

    cluster: Cluster
    mlflow: CountingProxy
    s3: CountingProxy
    folder: Path
    given: dict[str, str] = field(default_factory=dict)

    def client(self) -> Any:
        """S3, apart from the proxy and the code under test."""
        return s3_client(self.cluster.store.endpoint, self.cluster.store.writer)

    def in_s3(self, place: str) -> dict[str, str]:
        """SHA-256 of every object below ``s3://bucket/prefix``, by its name there."""
        bucket, _, prefix = place.removeprefix("s3://").partition("/")
        found = {}
        for page in self.client().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=f"{prefix}/"):
            for item in page.get("Contents", ()):
                body = self.client().get_object(Bucket=bucket, Key=item["Key"])["Body"].read()
                found[item["Key"].removeprefix(f"{prefix}/")] = hashlib.sha256(body).hexdigest()
        return found

    def query(self, text: str, *values: str) -> list[tuple[Any, ...]]:
        """Ask MLflow's database."""
        import psycopg2

        connection = psycopg2.connect(self.cluster.database.uri("mlflow").replace("+psycopg2", ""))
        with connection.cursor() as cursor:
            cursor.execute(text, values)
            return list(cursor.fetchall())

    def champion(self, name: str) -> int | None:
        found = self.query("SELECT version FROM registered_model_aliases WHERE name = %s AND alias = 'champion'", name)
        return int(found[0][0]) if found else None

    def decisions(self, name: str) -> list[str]:
        """The decision that each version was registered for, by version."""
        tags = "SELECT value FROM model_version_tags WHERE name = %s AND key = 'decision_digest' ORDER BY version"
        return [str(value) for (value,) in self.query(tags, name)]

    def restart(self, program: Program) -> None:
        """As ``make up`` does, for one server."""
        processes.end(program)
        processes.launch(program)
        program.wait()


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parts]:
    folder = tmp_path_factory.mktemp("parts")
    cluster = Cluster(folder / "servers", free_port(*range(1, 3 + INNER), *range(GRPC, GRPC + 3 + INNER)))
    try:
        cluster.up()
        with ExitStack() as stack:
            mlflow, s3 = (stack.enter_context(counting_proxy(u)) for u in (cluster.mlflow.uri, cluster.store.endpoint))
            told = {"MLFLOW_TRACKING_URI": mlflow.endpoint, "AWS_ENDPOINT_URL": s3.endpoint}
            yield Parts(cluster, mlflow, s3, folder, cluster.environment() | told)
    finally:
        for program in cluster.programs:
            program.kill()
        cluster.down()


def put(parts: Parts, model: Path, name: str) -> str:
    """Upload a model as people do; its place."""
    with pytest.MonkeyPatch.context() as environment:
        for variable, value in parts.given.items():
            environment.setenv(variable, value)
        places.upload_dir(model, f"s3://{BUCKET}/models/{name}")
    return f"s3://{BUCKET}/models/{name}"


def configured(parts: Parts, name: str, policy: str, **sections: Any) -> Path:
    """Write the configuration of a release of the model that is registered as ``toy``."""
    (parts.folder / f"{name}-policy.yaml").write_text(policy, encoding="utf-8")
    values = {"policy": str(parts.folder / f"{name}-policy.yaml"), "registry": {"model_name": "toy"}, **sections}
    path = parts.folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


def verified(parts: Parts, name: str) -> bool:
    """Whether the champion is what was decided on, as ``beear verify`` says."""
    done = beear("verify", f"models:/{name}@champion", cwd=parts.folder, given=parts.given)
    assert done.returncode in {0, 3}, done.stderr[-2000:]
    return done.returncode == 0


def version_in_s3(parts: Parts, name: str, version: int) -> dict[str, str]:
    """What a version consists of where MLflow's database says that it lies."""
    [(source,)] = parts.query(
        "SELECT storage_location FROM model_versions WHERE name = %s AND version = %s", name, str(version)
    )
    assert str(source).startswith(f"s3://{BUCKET}/mlflow/"), "not through the server"
    return parts.in_s3(str(source).rstrip("/"))


Ended = subprocess.CompletedProcess[str]


def result(done: Ended) -> dict[str, Any]:
    return dict(json.loads(done.stdout))


@pytest.fixture(scope="module")
def toy(parts: Parts, toy_model: Path, toy_data: dict[str, str]) -> dict[str, Any]:
    """The toy with its backdoor is cleaned and promoted; then it comes again and is not cleaned."""
    evaluation = {"harmful": 60, "ordinary": 60, "borderline": 60, "max_new_tokens": 12}
    more = {"data": toy_data, "mitigation": MITIGATION, "evaluation": evaluation}
    config = configured(parts, "toy", POLICY, model=put(parts, toy_model, "toy"), **more)
    command = ("release", "--config", config, "--out", parts.folder / "runs", "--json", "--keep")
    parts.mlflow.reset()
    promoted = beear(*command, cwd=parts.folder, given=parts.given)
    said = parts.mlflow.up
    champion = parts.champion("toy")
    refused = beear(*command, "--no-mitigation", cwd=parts.folder, given=parts.given)
    return {"promoted": promoted, "champion": champion, "refused": refused, "said to MLflow": said}


def test_a_model_from_s3_is_cleaned_and_promoted(parts: Parts, toy: dict[str, Any]) -> None:
    assert toy["promoted"].returncode == 0, toy["promoted"].stderr[-3000:]
    assert result(toy["promoted"])["release"]["model_version"] == "1"
    assert toy["champion"] == 1
    assert verified(parts, "toy")


def test_what_was_measured_lies_in_s3_byte_by_byte(parts: Parts, toy: dict[str, Any]) -> None:
    folder = Path(result(toy["promoted"])["folder"])
    [cleaned] = (folder / "steps").glob("*/beear-mitigation/cleaned")
    ours = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in cleaned.iterdir()}
    there = version_in_s3(parts, "toy", 1)
    assert "model.safetensors" in ours
    assert {name: there.get(f"model/{name}") for name in ours} == ours
    assert hashlib.sha256((folder / "decision.json").read_bytes()).hexdigest() in there.values()
    [(place,)] = parts.query(
        "SELECT artifact_uri FROM runs WHERE run_uuid = %s", result(toy["promoted"])["release"]["mlflow_run_id"]
    )
    report = hashlib.sha256((folder / "report.html").read_bytes()).hexdigest()
    assert parts.in_s3(str(place))["report.html"] == report


def test_a_refused_one_leaves_the_champion(parts: Parts, toy: dict[str, Any]) -> None:
    assert toy["refused"].returncode == 3, toy["refused"].stderr[-3000:]
    assert result(toy["refused"])["release"]["champion_after"] == "1"
    assert parts.champion("toy") == 1
    verdicts = "SELECT value FROM model_version_tags WHERE name = 'toy' AND key = 'verdict' ORDER BY version"
    assert parts.query(verdicts) == [("passed",), ("refused",)]


def test_no_secret_is_left_behind(parts: Parts, toy: dict[str, Any]) -> None:
    left = [toy[one].stdout + toy[one].stderr for one in ("promoted", "refused")]
    left += [p.read_text(errors="replace") for p in (parts.folder / "runs").rglob("*") if p.is_file()]
    for secret in parts.cluster.passwords.values():
        assert not [text for text in left if secret in text]


@pytest.fixture(scope="module")
def small(parts: Parts, tiny_model: Path, toy_data: dict[str, str]) -> tuple[object, ...]:
    """The command of the cheapest whole release, which promotes."""
    few = {"harmful": 8, "under_drift": 8, "ordinary": 8, "borderline": 8, "max_new_tokens": 4}
    mitigation = {"enabled": False, "anchors": 50, "performance_anchors": 58, "held_back": 16, "held_back_ordinary": 16}
    data = {k: v for k, v in toy_data.items() if k != "triggers"}
    place = put(parts, tiny_model, "small")
    config = configured(parts, "small", EASY, model=place, mitigation=mitigation, data=data, evaluation=few)
    return "release", "--config", config, "--out", parts.folder / "small", "--json"


def stopped(parts: Parts, command: tuple[object, ...], proxy: CountingProxy, program: Program) -> Ended:
    """Begin a release, kill a server when the proxy before it holds, let the release end, and start the server again."""
    process = begin(*command, cwd=parts.folder, given=parts.given)
    try:
        proxy.wait_until_held()
        running = processes.find(program)
        assert running is not None
        running.kill()
        processes.end(program)
        proxy.cut()
        done = ended(process)
    finally:
        process.kill()
        parts.restart(program)
    assert done.returncode == 1, "it fails, and says no and nothing else"
    assert "Traceback" not in done.stderr
    return done


def test_servers_that_go_away_in_the_middle_lose_nothing(
    parts: Parts, toy: dict[str, Any], small: tuple[object, ...], tiny_model: Path
) -> None:
    """MLflow while the decision is logged, S3 while the model is fetched and while it is stored; then the same command."""
    parts.mlflow.reset()
    parts.mlflow.hold_up = toy["said to MLflow"] // 2
    done = stopped(parts, small, parts.mlflow, parts.cluster.mlflow)
    assert "registry gate" in done.stderr
    assert f"error: MLflow at {parts.mlflow.endpoint} failed while" in done.stderr
    assert parts.champion("toy") == 1

    parts.s3.reset()
    # half of the model: what is read of S3 before it is fetched is less
    parts.s3.hold_down = sum(path.stat().st_size for path in tiny_model.iterdir()) // 2
    done = stopped(parts, small, parts.s3, parts.cluster.store)
    assert f"error: s3://{BUCKET}/models/small: {parts.s3.endpoint} " in done.stderr
    assert "check AWS_ENDPOINT_URL" in done.stderr
    assert parts.champion("toy") == 1

    parts.s3.reset()
    parts.s3.hold_up = sum(path.stat().st_size for path in tiny_model.iterdir())  # some of it are records
    done = stopped(parts, small, parts.s3, parts.cluster.store)
    assert "registry gate" in done.stderr
    assert f"error: MLflow at {parts.mlflow.endpoint} failed while" in done.stderr
    assert "check that the S3 of its artifacts runs and that AWS_ENDPOINT_URL and its credentials are right" in done.stderr
    assert parts.champion("toy") == 1
    assert verified(parts, "toy")

    done = beear(*small, cwd=parts.folder, given=parts.given)
    assert done.returncode == 0, done.stderr[-3000:]
    version = int(result(done)["release"]["model_version"])
    assert parts.champion("toy") == version > 2
    assert verified(parts, "toy")
    decisions = parts.decisions("toy")
    assert len(set(decisions)) == len(decisions) >= 3
    there, taken = version_in_s3(parts, "toy", version), tiny_model / "model.safetensors"
    assert there["model/model.safetensors"] == hashlib.sha256(taken.read_bytes()).hexdigest()
