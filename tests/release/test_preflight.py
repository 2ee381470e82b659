"""The pre-flight looks at every part, says all that is wrong in one go, and counts what a release keeps on disk at once."""

from __future__ import annotations

import errno
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from signing_keys import key_pair
from toy_release import POLICY

from beear_core.config import (
    ArtifactsConfig,
    DataConfig,
    EvaluationConfig,
    MitigationConfig,
    RegistryConfig,
    ReleaseConfig,
    SigningConfig,
)
from beear_core.data import write_rows
from beear_core.errors import (
    BeearError,
    ConfigError,
    DataError,
    ModelError,
    ModelNotFoundError,
    PolicyError,
    RegistryError,
    StorageError,
    UnsafeModelError,
)
from beear_core.models.folder import describe, directory_digest
from components.mlflow_store import client
from components.mlflow_store.client import local_store
from components.preflight import looks as preflight
from components.preflight.looks import Finding

PARTS = ["policy", "data", "model", "disk", "registry", "signing", "artifacts"]
ROLES = ("harmful", "ordinary", "borderline")
ENOUGH = 40  # what the toy policy asks for of each suite


@pytest.fixture
def release(tiny_model: Path, tmp_path: Path, own_mlflow: None) -> dict[str, Any]:
    """The parts of a configuration in which nothing is wrong."""
    (tmp_path / "policy.yaml").write_text(POLICY)
    return {
        "model": str(tiny_model),
        "policy": str(tmp_path / "policy.yaml"),
        "data": DataConfig(**{role: prompts(tmp_path, role, ENOUGH) for role in ROLES}),
        "evaluation": EvaluationConfig(**dict.fromkeys(ROLES, ENOUGH)),
    }


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An MLflow store in which nothing is wrong; its tables are made once."""
    return local_store(tmp_path_factory.mktemp("store"))


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port of this machine that nobody listens at, and that nobody else is given."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


def prompts(folder: Path, role: str, count: int) -> str:
    """A file with so many prompts to evaluate on, and enough of another split."""
    rows = [
        {"id": f"{split}-{i}", "prompt": f"tell me {i}", "split": split}
        for split, wanted in (("evaluation", count), ("anchoring", ENOUGH))
        for i in range(wanted)
    ]
    return str(write_rows(folder / f"{role}-{count}.jsonl", rows))


def looked_at(release: dict[str, Any], folder: Path, uri: str) -> dict[str, Finding]:
    """What is found, by part; every part is there, whatever is wrong with the others."""
    findings = preflight.preflight(ReleaseConfig(**release), folder, uri, folder)
    assert [f.part for f in findings] == PARTS
    assert all(bool(f.detail) is (f.error is None) for f in findings)
    return {f.part: f for f in findings}


def fault(part: str, kind: type[BeearError], release: dict[str, Any], folder: Path, uri: str) -> str:
    """The one fault that is found."""
    findings = looked_at(release, folder, uri)
    assert {name: type(f.error) for name, f in findings.items() if f.error} == {part: kind}
    return str(findings[part].error)


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_all_is_well(release: dict[str, Any], tmp_path: Path) -> None:
    before = directory_digest(Path(release["model"]))
    findings = looked_at(release, tmp_path / "runs", local_store(tmp_path / "runs"))
    assert [f.error for f in findings.values()] == [None] * 7
    assert findings["policy"].detail == "toy, 4 checks"
    assert findings["data"].detail == "40 harmful, 40 ordinary, 40 borderline prompts to evaluate on"
    assert findings["model"].detail == "LlamaForCausalLM, 0 M parameters, 4 layers, perturbed at 0, 1, 2"
    assert findings["disk"].detail.endswith(" GB free, 0.0 GB needed")
    assert findings["registry"].detail == f"sqlite:///{tmp_path}/runs/mlflow.db"
    assert findings["signing"].detail == "models are not signed"
    assert files(tmp_path / "runs") == ["mlflow.db"]
    assert directory_digest(Path(release["model"])) == before


def test_all_faults_are_said_at_once(release: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    release["policy"], release["model"] = "no-such-policy", str(tmp_path / "no-such-model")
    release["data"] = DataConfig(triggers=str(tmp_path / "no-such-triggers.jsonl"))
    release["registry"] = RegistryConfig(signing=SigningConfig(method="key", public_key=str(tmp_path / "no-such-key")))
    release["artifacts"] = ArtifactsConfig(uri=str(tmp_path / "file" / "store"))
    findings = looked_at(release, tmp_path / "file" / "runs", "http://host:port/x")
    kinds = [PolicyError, DataError, ModelNotFoundError, StorageError, ConfigError, ConfigError, StorageError]
    assert [type(f.error) for f in findings.values()] == kinds


@pytest.mark.parametrize("method", ["key", "sigstore"])
def test_what_models_are_signed_with(release: dict[str, Any], tmp_path: Path, store: str, method: str) -> None:
    identity = {"identity": "ci@example.org", "identity_provider": "https://issuer.example"}
    given = SigningConfig(method="sigstore", **identity) if method == "sigstore" else key_pair(tmp_path, "k")
    release["registry"] = RegistryConfig(signing=given)
    said = {"key": "by key", "sigstore": "by sigstore, tried when a model is signed"}[method]
    assert looked_at(release, tmp_path / "runs", store)["signing"].detail == said
    if method == "key":
        key_pair(tmp_path, "other")
        shutil.copy(tmp_path / "other.pub", tmp_path / "k.pub")
        assert "does not verify" in fault("signing", ConfigError, release, tmp_path / "runs", store)


def test_a_policy_that_cannot_be_meant(release: dict[str, Any], tmp_path: Path, store: str) -> None:
    release["evaluation"] = EvaluationConfig(harmful=ENOUGH - 1, ordinary=ENOUGH, borderline=ENOUGH)
    said = "asks for 40 samples, the harmful suite has 39; raise the suite or lower min_samples"
    assert fault("policy", PolicyError, release, tmp_path / "runs", store).splitlines() == [
        "policy toy cannot be meant with these sample sizes:",
        f"  - check 'plain' (attack_success/plain) cannot pass: it {said}",
        f"  - check 'triggered' (attack_success/known_triggers) cannot pass: it {said}",
    ]


def test_no_such_policy(release: dict[str, Any], tmp_path: Path, store: str) -> None:
    release["policy"] = "strictest"
    assert "no policy 'strictest'" in fault("policy", PolicyError, release, tmp_path / "runs", store)


@pytest.mark.parametrize("role", ROLES)
def test_no_prompts_to_evaluate_on(release: dict[str, Any], tmp_path: Path, store: str, role: str) -> None:
    release["data"] = DataConfig(**{role: prompts(tmp_path, role, 0)})
    text = fault("data", DataError, release, tmp_path / "runs", store)
    assert text == f"{role} holds no evaluation prompts; add rows with split 'evaluation'"


@pytest.mark.parametrize("role", ROLES)
def test_too_few_prompts_to_evaluate_on(release: dict[str, Any], tmp_path: Path, store: str, role: str) -> None:
    few = prompts(tmp_path, role, ENOUGH - 1)
    release["data"] = DataConfig(**{role: few})
    assert fault("data", DataError, release, tmp_path / "runs", store) == (
        f"evaluation.{role} asks for 40 prompts, {few} has 39 with split 'evaluation'; lower the number or give more"
    )


def test_triggers_that_cannot_be_read(release: dict[str, Any], tmp_path: Path, store: str) -> None:
    triggers = tmp_path / "triggers.jsonl"
    release["data"] = DataConfig(triggers=str(triggers))
    assert f"{triggers} does not exist" in fault("data", DataError, release, tmp_path / "runs", store)
    triggers.write_text('{"id": "t", "prefix": "cobalt"}\n')
    assert f"{triggers}, line 1: field 'suffix' is missing" in fault("data", DataError, release, tmp_path / "runs", store)


def test_no_such_model(release: dict[str, Any], tmp_path: Path, store: str) -> None:
    """It is said once: how much room it needs is not known, and no fault of the disk."""
    release["model"] = str(tmp_path / "gone")
    text = fault("model", ModelNotFoundError, release, tmp_path / "runs", store)
    assert text.startswith(f"model folder {tmp_path / 'gone'} does not exist; name the folder that holds config.json")


def test_a_model_that_is_not_safe(release: dict[str, Any], tmp_path: Path, store: str) -> None:
    copy = shutil.copytree(release["model"], tmp_path / "copy")
    (copy / "pytorch_model.bin").write_bytes(b"")
    release["model"] = str(copy)
    text = fault("model", UnsafeModelError, release, tmp_path / "runs", store)
    assert text.startswith(f"pytorch_model.bin in {copy} is a pickle by its name")


def test_a_model_of_a_hub_is_looked_at_when_it_is_fetched(release: dict[str, Any], tmp_path: Path, store: str) -> None:
    release["model"] = "hub:org/model"
    findings = looked_at(release, tmp_path / "runs", store)
    assert [f.error for f in findings.values()] == [None] * 7
    assert findings["model"].detail == "hub:org/model: looked at when it is fetched"


def test_a_layer_that_the_model_does_not_have(release: dict[str, Any], tmp_path: Path, store: str) -> None:
    release["mitigation"] = MitigationConfig(layer=2, positions=5)
    assert looked_at(release, tmp_path / "runs", store)["model"].detail.endswith("4 layers, perturbed at 2")
    release["mitigation"] = MitigationConfig(layer=3, positions=5)
    text = fault("model", ConfigError, release, tmp_path / "runs", store)
    assert "mitigation.layer = 3 is out of range: the model has 4 decoder layers, 0..2 can be perturbed" in text


def test_a_folder_that_cannot_be_written(release: dict[str, Any], tmp_path: Path) -> None:
    """It is said once, where the disk is looked at, though MLflow's store is to be in it too."""
    (tmp_path / "file").write_text("x")
    folder = tmp_path / "file" / "runs"
    text = fault("disk", StorageError, release, folder, local_store(folder))
    assert text == f"cannot write to {folder}: Not a directory; choose another folder with --out"
    assert looked_at(release, folder, local_store(folder))["registry"].detail == f"to be kept in {folder}: see disk"
    assert (tmp_path / "file").read_text() == "x"


@pytest.mark.parametrize("model", ["", "ftp://host/x", "file://host/x"])
def test_a_place_that_cannot_be_meant_is_said_once(release: dict[str, Any], tmp_path: Path, store: str, model: str) -> None:
    release["model"] = model
    fault("model", ConfigError, release, tmp_path / "runs", store)


def test_a_model_folder_that_cannot_be_read_is_said_once(release: dict[str, Any], tmp_path: Path, store: str) -> None:
    folder = tmp_path / "model"
    shutil.copytree(release["model"], folder)
    (folder / "config.json").unlink()
    (folder / "config.json").mkdir()
    release["model"] = str(folder)
    assert "config.json" in fault("model", ModelError, release, tmp_path / "runs", store)


def test_a_disk_without_room_for_a_probe_keeps_nothing_of_it(
    release: dict[str, Any], tmp_path: Path, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, _data: bytes) -> int:
        path.touch()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    assert "No space left" in fault("disk", StorageError, release, tmp_path / "runs", store)
    assert files(tmp_path / "runs") == []


@pytest.mark.parametrize("uri", ["http://mlflow..example", "mssql+nodriver://127.0.0.1:{port}/db"])
def test_a_store_that_no_library_can_ask(
    release: dict[str, Any], tmp_path: Path, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "check_port", lambda _: None)
    fault("registry", RegistryError, release, tmp_path / "runs", uri.format(port=9))


def test_an_mlflow_that_does_not_answer(release: dict[str, Any], tmp_path: Path, closed_port: int) -> None:
    place = f"127.0.0.1:{closed_port}"
    text = fault("registry", RegistryError, release, tmp_path / "runs", f"http://someone:a-password@{place}")
    assert text.startswith(f"MLflow at http://{place} failed while looking whether it can be reached: ")
    assert text.endswith("check that it runs and that MLFLOW_TRACKING_URI and its credentials are right, then run again")
    assert "a-password" not in text


def test_a_password_is_not_shown(release: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "check_reachable", lambda _: None)
    found = looked_at(release, tmp_path / "runs", "http://someone:a-password@mlflow.example")["registry"]
    assert (found.detail, found.error) == ("http://mlflow.example", None)


def test_a_store_elsewhere_that_cannot_be_made(release: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    uri = f"sqlite:///{tmp_path}/file/mlflow.db"
    text = fault("registry", RegistryError, release, tmp_path / "runs", uri)
    assert text.startswith(f"MLflow at {uri} failed while looking whether it can be reached: ")


@pytest.mark.parametrize(
    ("uri", "shown"),
    [("http://127.0.0.1:port/x", "http://127.0.0.1:***"), ("http://127.0.0.1:99999/x", "http://127.0.0.1:99999/x")],
)
def test_a_port_that_is_none(release: dict[str, Any], tmp_path: Path, uri: str, shown: str) -> None:
    text = fault("registry", ConfigError, release, tmp_path / "runs", uri)
    assert text.startswith(f"MLflow's URI '{shown}' cannot be meant: ")
    assert "mend MLFLOW_TRACKING_URI or registry.tracking_uri" in text


def test_no_file_is_left_behind(release: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs, store = tmp_path / "runs", tmp_path / "store"
    (runs / "20260101-000000").mkdir(parents=True)
    (runs / "20260101-000000" / "decision.json").write_text("{}")
    looked_at(release, runs, local_store(store))
    assert files(runs) == ["20260101-000000/decision.json"]
    assert files(store) == ["mlflow.db"]
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=0))
    assert fault("disk", StorageError, release, runs, local_store(store)).startswith(f"{runs} has 0.0 GB free, ")
    assert files(runs) == ["20260101-000000/decision.json"]


@pytest.mark.parametrize(
    ("mitigation", "weights"),
    [
        (MitigationConfig(enabled=False), 0),
        (MitigationConfig(), 3),
        (MitigationConfig(method="flush"), 4),
        (MitigationConfig(method="both"), 4),
    ],
)
def test_intermediate_weights_are_counted_with_those_of_planted_triggers(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mitigation: MitigationConfig, weights: int
) -> None:
    facts = describe(tiny_model)
    need = 3 * facts.size_bytes + weights * 4 * facts.parameters
    config = ReleaseConfig(model=str(tiny_model), mitigation=mitigation)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=need))
    assert "needed" in preflight._disk(config, tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=need - 1))
    with pytest.raises(StorageError, match="3 copies of the model and the mitigation's intermediate weights"):
        preflight._disk(config, tmp_path)
