"""A store that has no room: by its disk, or by a limit that was set for whoever writes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from ceph import Ceph
from disk import mounted
from s3_stores import s3_store
from servers import S3Server

from beear_core.errors import StorageError
from beear_core.models.folder import directory_digest
from components.storage import places as storage

MIB = 1 << 20
BUCKET = "full"


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A folder that has no room."""
    folder = tmp_path / "large"
    folder.mkdir()
    for n in range(8):
        (folder / f"{n}.safetensors").write_bytes(os.urandom(16 * MIB))
    return folder


def begun(s3: S3Server, folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Upload a small folder, which there is room for; its digest."""
    for name, value in s3.environment().items():
        monkeypatch.setenv(name, value)
    s3.make_bucket(BUCKET)
    return storage.upload_dir(folder, f"s3://{BUCKET}/small").digest


def whole(folder: Path, digest: str) -> bool:
    storage.fetch(f"s3://{BUCKET}/small", folder)
    return directory_digest(folder) == digest


def test_a_disk_that_is_full(source: Path, large: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with mounted(tmp_path / "disk", "size=80m") as disk, s3_store("seaweedfs", disk) as store:
        s3 = S3Server(store.endpoint)
        digest = begun(s3, source, monkeypatch)
        with pytest.raises(StorageError, match=r"s3://full/m: \S+ fails with InternalError after 4 attempts; try again"):
            storage.upload_dir(large, f"s3://{BUCKET}/m")
        with pytest.raises(StorageError, match="/m holds an upload that has not ended"):
            storage.fetch(f"s3://{BUCKET}/m", tmp_path / "m")
        assert whole(tmp_path / "dest", digest)


def test_a_limit_that_is_reached_and_then_raised(
    source: Path, large: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with s3_store("ceph", tmp_path / "ceph") as store:
        assert isinstance(store, Ceph)
        s3 = S3Server(store.endpoint)
        digest = begun(s3, source, monkeypatch)
        store.limit(MIB)
        with pytest.raises(StorageError, match=r"s3://full/m: \S+ has no room \(QuotaExceeded\); free some there"):
            storage.upload_dir(large, f"s3://{BUCKET}/m")
        assert whole(tmp_path / "dest", digest)
        store.limit(1024 * MIB)
        assert storage.upload_dir(large, f"s3://{BUCKET}/m").digest == directory_digest(large)
