"""Models from an MLflow registry and from the hub: whole or not at all, and with a message that helps."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from storage_folders import nothing_left

from beear_core.errors import ConfigError, ModelNotFoundError, RegistryError, StorageError
from beear_core.models.folder import directory_digest
from components.storage import hub
from components.storage import mlflow_models as registry
from components.storage import places as storage
from tools.servers.program import free_port


@pytest.fixture
def mlflow_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    import mlflow

    before = mlflow.get_tracking_uri()
    monkeypatch.chdir(tmp_path)
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    yield mlflow
    mlflow.set_tracking_uri(before)


def log(mlflow: Any, model: Any) -> str:
    from mlflow.models import infer_signature

    with mlflow.start_run():
        info = mlflow.transformers.log_model(
            transformers_model=model,
            name="model",
            task="text-generation",
            signature=infer_signature("a", "b"),
            pip_requirements=["transformers"],
            registered_model_name="candidate",
        )
    mlflow.MlflowClient().set_registered_model_alias("candidate", "champion", info.registered_model_version)
    return str(info.registered_model_version)


def test_a_version_logged_from_a_folder_comes_back_byte_by_byte(
    mlflow_store: Any, tiny_model: Path, tmp_path: Path
) -> None:
    version = log(mlflow_store, str(tiny_model))
    for i, uri in enumerate(("models:/candidate@champion", f"models:/candidate/{version}")):
        fetched = storage.fetch(uri, tmp_path / f"dest{i}")
        assert "MLmodel" in fetched.left_out
        assert fetched.resolved == f"models:/candidate/{version}", "what the alias stood for"
        assert directory_digest(tmp_path / f"dest{i}") == directory_digest(tiny_model)


def test_a_version_logged_from_objects_is_put_together(mlflow_store: Any, tiny_model: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    parts = {
        "model": AutoModelForCausalLM.from_pretrained(tiny_model),
        "tokenizer": AutoTokenizer.from_pretrained(tiny_model),
    }
    log(mlflow_store, parts)
    storage.fetch("models:/candidate@champion", tmp_path / "dest")
    assert {path.name for path in (tmp_path / "dest").iterdir()} == {path.name for path in tiny_model.iterdir()}


def test_versions_that_are_not_there(mlflow_store: Any, tiny_model: Path, tmp_path: Path) -> None:
    log(mlflow_store, str(tiny_model))
    for uri in ("models:/candidate@nobody", "models:/candidate/9", "models:/nothing/1", "models:/nothing@champion"):
        with pytest.raises(ModelNotFoundError, match=f"{uri} is not in the registry .*check the name, version or alias"):
            storage.fetch(uri, tmp_path / "dest")
    assert not (tmp_path / "dest").exists()


def test_a_version_without_a_model_is_refused() -> None:
    with pytest.raises(StorageError, match=r"neither config\.json nor model/config\.json is among its 1 artifacts"):
        registry._assemble({"model.pkl": 1}, "models:/a/1")


def test_mlflow_unreachable(mlflow_store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    mlflow_store.set_tracking_uri(f"http://127.0.0.1:{free_port()}")
    with pytest.raises(
        RegistryError, match=r"MLflow at http.* failed while reading models:/candidate/1: .*check that it runs"
    ):
        storage.fetch("models:/candidate/1", tmp_path / "dest")


def test_mlflow_without_a_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow.tracking

    monkeypatch.setattr(mlflow.tracking, "is_tracking_uri_set", lambda: False)
    with pytest.raises(ConfigError, match="needs an MLflow server; set MLFLOW_TRACKING_URI"):
        storage.fetch("models:/candidate/1", tmp_path / "dest")


@pytest.mark.parametrize("offline", ["0", "1"])
@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:{port}", "http://host:port", "nonsense"])
def test_a_hub_that_cannot_be_reached_is_said(endpoint: str, offline: str, tmp_path: Path) -> None:
    # the endpoint is read when the library is loaded, so this needs a process of its own
    done = subprocess.run(
        [sys.executable, "-m", "components.model_intake", "--model", "hub:org/name", "--out", str(tmp_path / "dest")],
        env={
            **os.environ,
            "HF_HOME": str(tmp_path / "home"),
            "HF_HUB_OFFLINE": offline,
            "HF_ENDPOINT": endpoint.format(port=free_port()),
        },
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "error: hub:org/name cannot be fetched from the hub (" in done.stderr
    assert "Traceback" not in done.stderr
    shutil.rmtree(tmp_path / "home", ignore_errors=True)
    nothing_left(tmp_path)


def test_of_a_hub_repository_only_what_is_needed_is_fetched(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub
    from huggingface_hub import constants

    asked: list[dict[str, Any]] = []

    def download(repository: str, *, local_dir: Path, allow_patterns: list[str], **rest: Any) -> str:
        asked.append({"repository": repository, "allow_patterns": allow_patterns, **rest})
        for name in allow_patterns:
            shutil.copy(tiny_model / name, local_dir / name)
        (local_dir / ".cache").mkdir()
        return str(local_dir)

    sizes = {path.name: path.stat().st_size for path in tiny_model.iterdir()}
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    held = {**sizes, "original/consolidated.00.pth": 10**15, "modeling.py": 1}
    monkeypatch.setattr(hub, "_listing", lambda *_: ("c0ffee", held))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    fetched = storage.fetch("hub:org/name@main", tmp_path / "dest")
    assert fetched.left_out == ("modeling.py", "original/consolidated.00.pth")
    assert fetched.resolved == "hub:org/name@c0ffee", "the commit that the branch stood for"
    assert asked == [{"repository": "org/name", "revision": "c0ffee", "allow_patterns": sorted(sizes)}]
    assert directory_digest(tmp_path / "dest") == directory_digest(tiny_model)
