"""Folders from and to a real S3 server: whole or not at all, and with a message that helps when it fails."""

from __future__ import annotations

import os
import uuid
from contextlib import suppress
from pathlib import Path

import pytest
from servers import S3Server, free_port
from storage_folders import nothing_left

from beear_core.errors import ConfigError, ModelNotFoundError, StorageError
from beear_core.models.folder import directory_digest
from components.storage import common
from components.storage import places as storage
from components.storage import s3 as s3_store


@pytest.fixture
def bucket(s3: S3Server) -> str:
    """A fresh prefix in the one bucket of these tests, as ``bucket/prefix``."""
    with suppress(s3.client().exceptions.BucketAlreadyExists, s3.client().exceptions.BucketAlreadyOwnedByYou):
        s3.client().create_bucket(Bucket="storage-tests")
    return f"storage-tests/{uuid.uuid4().hex[:12]}"


def put(s3: S3Server, place: str, data: bytes) -> None:
    name, _, key = place.partition("/")
    s3.client().put_object(Bucket=name, Key=key, Body=data)


def keys(s3: S3Server, place: str) -> list[str]:
    name, _, prefix = place.partition("/")
    found = s3.client().list_objects_v2(Bucket=name, Prefix=f"{prefix}/").get("Contents", ())
    return [item["Key"].removeprefix(f"{prefix}/") for item in found]


def test_s3_round_trip(source: Path, tmp_path: Path, bucket: str) -> None:
    (source / "large.bin").write_bytes(os.urandom(20 * common.MIB))  # more than one part
    storage.upload_dir(source, f"s3://{bucket}/models/one/")
    storage.fetch(f"s3://{bucket}/models/one", tmp_path / "dest")
    assert directory_digest(tmp_path / "dest") == directory_digest(source)


def test_s3_prefixes_are_folders_not_beginnings(source: Path, tmp_path: Path, bucket: str) -> None:
    storage.upload_dir(source, f"s3://{bucket}/model-two")
    with pytest.raises(ModelNotFoundError, match=f"nothing lies below s3://{bucket}/model; check the bucket and the pref"):
        storage.fetch(f"s3://{bucket}/model", tmp_path / "dest")
    nothing_left(tmp_path, "source")


def test_s3_only_the_selected_objects_are_fetched(source: Path, tmp_path: Path, bucket: str, s3: S3Server) -> None:
    storage.upload_dir(source, f"s3://{bucket}/m")
    put(s3, f"{bucket}/m/folder/", b"")
    left_out = storage.fetch(f"s3://{bucket}/m", tmp_path / "dest", select=lambda names: ["a.txt"]).left_out
    assert left_out == ("sub/b.bin",)
    nothing_left(tmp_path / "dest", "a.txt")


def test_s3_missing_bucket(source: Path, tmp_path: Path, s3: S3Server) -> None:
    with pytest.raises(ModelNotFoundError, match="no such bucket for s3://no-such-bucket/x at http://127"):
        storage.fetch("s3://no-such-bucket/x", tmp_path / "dest")
    nothing_left(tmp_path, "source")


def test_s3_is_not_written_over(source: Path, bucket: str, s3: S3Server) -> None:
    put(s3, f"{bucket}/m/old.txt", b"old")
    with pytest.raises(StorageError, match=f"s3://{bucket}/m holds objects already and is not overwritten; choose"):
        storage.upload_dir(source, f"s3://{bucket}/m")
    assert keys(s3, f"{bucket}/m") == ["old.txt"]


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        ("AWS_ACCESS_KEY_ID", "nobody", "InvalidAccessKeyId"),
        ("AWS_SECRET_ACCESS_KEY", "wrong", "SignatureDoesNotMatch"),
    ],
)
def test_s3_wrong_key(
    tmp_path: Path, bucket: str, monkeypatch: pytest.MonkeyPatch, name: str, value: str, code: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(StorageError, match=f"refuses with {code}; check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY"):
        storage.fetch(f"s3://{bucket}/m", tmp_path / "dest")
    nothing_left(tmp_path)


def test_s3_identity_that_may_only_read(source: Path, bucket: str, s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in s3.environment(read_only=True).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(StorageError, match=r"refuses with AccessDenied; check .* what this identity may do"):
        storage.upload_dir(source, f"s3://{bucket}/m")


def test_s3_unreachable_gives_up_soon(tmp_path: Path, s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    endpoint = f"http://127.0.0.1:{free_port()}"
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    with pytest.raises(StorageError, match=f"{endpoint} cannot be reached after 4 attempts .*check AWS_ENDPOINT_URL"):
        storage.fetch("s3://bucket/m", tmp_path / "dest")
    nothing_left(tmp_path)


def test_s3_at_an_endpoint_that_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "nonsense")
    with pytest.raises(ConfigError, match="S3: Invalid endpoint: nonsense; set AWS_ENDPOINT_URL to something like http"):
        storage.fetch("s3://bucket/m", tmp_path / "dest")


def test_s3_without_credentials(tmp_path: Path, s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    with pytest.raises(StorageError, match="no credentials found; check AWS_ACCESS_KEY_ID"):
        storage.fetch("s3://bucket/m", tmp_path / "dest")


def test_s3_names_that_leave_the_folder_are_refused(tmp_path: Path, s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_store, "_list", lambda *_: {"../evil.txt": 1})
    with pytest.raises(StorageError, match=r"holds the name '\.\./evil\.txt', which leaves its folder"):
        storage.fetch("s3://bucket/m", tmp_path / "dest")
    nothing_left(tmp_path)


@pytest.mark.parametrize("name", ["/etc/x", "a/../b", "a//b", "./a", "..", "a\\b"])
def test_relative_names_stay_inside(name: str) -> None:
    with pytest.raises(StorageError, match="leaves its folder"):
        common.check_relative(name, "s3://b/m")


def test_s3_upload_that_reads_back_differently_is_taken_back(
    source: Path, bucket: str, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = s3_store.digest_file
    monkeypatch.setattr(s3_store, "digest_file", lambda path: "sha256:0" if path.name == "b.bin" else real(path))
    with pytest.raises(StorageError, match=r"sub/b\.bin reads back differently from .*; try again"):
        storage.upload_dir(source, f"s3://{bucket}/m")
    assert keys(s3, bucket) == []


def test_s3_object_that_changes_meanwhile_leaves_nothing(
    source: Path, tmp_path: Path, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage.upload_dir(source, f"s3://{bucket}/m")
    real = s3_store._list
    monkeypatch.setattr(s3_store, "_list", lambda *a: {name: size + 1 for name, size in real(*a).items()})
    with pytest.raises(StorageError, match=r"a\.txt: 1000 of 1001 bytes arrived; it changed meanwhile"):
        storage.fetch(f"s3://{bucket}/m", tmp_path / "dest")
    nothing_left(tmp_path, "source")
