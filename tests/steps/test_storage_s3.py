"""Folders from and to a real S3 server: whole or not at all, and with a message that helps when it fails."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest
from servers import S3Server
from storage_folders import nothing_left

from beear_core.errors import ConfigError, ModelNotFoundError, StorageError
from beear_core.files import digest_bytes
from beear_core.models.folder import directory_digest
from components.storage import common, s3_manifest, s3_upload
from components.storage import places as storage
from components.storage import s3 as s3_store
from components.storage.common import Uploaded
from components.storage.s3_client import Listed
from components.storage.s3_manifest import object_name
from tools.servers.program import free_port


@pytest.fixture
def bucket(s3: S3Server) -> str:
    """A fresh prefix in the one bucket of these tests, as ``bucket/prefix``."""
    s3.make_bucket("storage-tests")
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
    (source / "empty").touch()
    (source / "a copy").write_bytes((source / "a.txt").read_bytes())
    sent = 20 * common.MIB + 3 * common.MIB + 1000
    digest = directory_digest(source)
    assert storage.upload_dir(source, f"s3://{bucket}/models/one/") == Uploaded(digest, sent=sent, skipped=1000)
    assert storage.upload_dir(source, f"s3://{bucket}/models/one") == Uploaded(digest, sent=0, skipped=sent + 1000)
    storage.fetch(f"s3://{bucket}/models/one", tmp_path / "dest")
    assert directory_digest(tmp_path / "dest") == digest
    nothing_left(tmp_path, "dest", "source")


def test_s3_a_folder_that_somebody_else_put_there_is_read_as_it_lies(
    source: Path, tmp_path: Path, bucket: str, s3: S3Server
) -> None:
    name, _, prefix = bucket.partition("/")
    (source / "large.bin").write_bytes(os.urandom(20 * common.MIB))
    for path in ("a.txt", "sub/b.bin", "large.bin"):
        s3.client().upload_file(str(source / path), name, f"{prefix}/m/{path}")
    put(s3, f"{bucket}/m/folder/", b"")
    storage.fetch(f"s3://{bucket}/m", tmp_path / "dest")
    assert directory_digest(tmp_path / "dest") == directory_digest(source)
    nothing_left(tmp_path, "dest", "source")


def test_s3_prefixes_are_folders_not_beginnings(source: Path, tmp_path: Path, bucket: str) -> None:
    storage.upload_dir(source, f"s3://{bucket}/model-two")
    with pytest.raises(ModelNotFoundError, match=f"nothing lies below s3://{bucket}/model; check the bucket and the pref"):
        storage.fetch(f"s3://{bucket}/model", tmp_path / "dest")
    nothing_left(tmp_path, "source")


def test_s3_only_the_selected_files_are_fetched(source: Path, tmp_path: Path, bucket: str) -> None:
    storage.upload_dir(source, f"s3://{bucket}/m")
    left_out = storage.fetch(f"s3://{bucket}/m", tmp_path / "dest", select=lambda names: ["a.txt"]).left_out
    assert left_out == ("sub/b.bin",)
    nothing_left(tmp_path / "dest", "a.txt")


def test_s3_missing_bucket(source: Path, tmp_path: Path, s3: S3Server) -> None:
    with pytest.raises(ModelNotFoundError, match="no such bucket for s3://no-such-bucket/x at http://127"):
        storage.fetch("s3://no-such-bucket/x", tmp_path / "dest")
    nothing_left(tmp_path, "source")


def test_s3_is_not_written_over(source: Path, bucket: str, s3: S3Server) -> None:
    put(s3, f"{bucket}/m/old.txt", b"old")
    with pytest.raises(StorageError, match=rf"s3://{bucket}/m holds objects already \(old.txt, 1 in all\) and is not"):
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


def test_s3_names_that_leave_the_folder_are_refused(
    tmp_path: Path, s3: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(s3, f"{bucket}/m/x", b"x")
    monkeypatch.setattr(s3_store, "listing", lambda *_: {"../evil.txt": Listed(1, "")})
    with pytest.raises(StorageError, match=r"holds the name '\.\./evil\.txt', which leaves its folder"):
        storage.fetch(f"s3://{bucket}/m", tmp_path / "dest")
    nothing_left(tmp_path)


@pytest.mark.parametrize("name", ["/etc/x", "a/../b", "a//b", "./a", "..", "a\\b"])
def test_relative_names_stay_inside(name: str) -> None:
    with pytest.raises(StorageError, match="leaves its folder"):
        common.check_relative(name, "s3://b/m")


def test_s3_a_prefix_with_another_folder_is_not_written_over(source: Path, tmp_path: Path, bucket: str) -> None:
    first = storage.upload_dir(source, f"s3://{bucket}/m")
    (source / "a.txt").write_bytes(b"another")
    with pytest.raises(
        StorageError, match=f"/m holds a folder with the digest {first.digest} and not sha256:.*; it is not ov"
    ):
        storage.upload_dir(source, f"s3://{bucket}/m")
    storage.fetch(f"s3://{bucket}/m", tmp_path / "dest")
    assert directory_digest(tmp_path / "dest") == first.digest


def test_s3_no_bucket_to_upload_to(source: Path, s3: S3Server) -> None:
    with pytest.raises(StorageError, match="cannot upload: no such bucket for s3://no-such-bucket/x at http://127"):
        storage.upload_dir(source, "s3://no-such-bucket/x")


@pytest.mark.parametrize("data", [b"altered".ljust(1000), b"a" * 999])
def test_s3_an_object_that_was_altered_is_found_and_mended(
    source: Path, tmp_path: Path, bucket: str, s3: S3Server, data: bytes
) -> None:
    storage.upload_dir(source, f"s3://{bucket}/m")
    name = object_name(digest_bytes(b"a" * 1000))
    where, _, key = bucket.partition("/")
    noted = s3.client().head_object(Bucket=where, Key=f"{key}/m/{name}")["Metadata"]
    s3.client().put_object(Bucket=where, Key=f"{key}/m/{name}", Body=data, Metadata=noted)
    with pytest.raises(StorageError, match=rf"m/{name}.*it was altered in the store"):
        storage.fetch(f"s3://{bucket}/m", tmp_path / "dest")
    nothing_left(tmp_path, "source")
    assert storage.upload_dir(source, f"s3://{bucket}/m").sent == 1000
    storage.fetch(f"s3://{bucket}/m", tmp_path / "dest")
    assert directory_digest(tmp_path / "dest") == directory_digest(source)


def test_s3_an_object_that_is_gone_is_named(source: Path, tmp_path: Path, bucket: str, s3: S3Server) -> None:
    storage.upload_dir(source, f"s3://{bucket}/m")
    name = object_name(digest_bytes(b"a" * 1000))
    where, _, key = bucket.partition("/")
    s3.client().delete_object(Bucket=where, Key=f"{key}/m/{name}")
    with pytest.raises(StorageError, match=f"m/{name} is missing; upload the folder again, or ask who removed it"):
        storage.fetch(f"s3://{bucket}/m", tmp_path / "dest")
    nothing_left(tmp_path, "source")


def test_s3_a_file_that_changes_while_it_is_uploaded(
    source: Path, bucket: str, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    (source / "large.bin").write_bytes(os.urandom(20 * common.MIB))
    real = s3_upload.Upload.send

    def change(self: s3_upload.Upload, sources: list[s3_upload.Source]) -> None:
        with (source / "large.bin").open("r+b") as file:
            file.seek(19 * common.MIB)
            file.write(b"changed")
        real(self, sources)

    monkeypatch.setattr(s3_upload.Upload, "send", change)
    with pytest.raises(StorageError, match=r"large\.bin was changed while it was uploaded; upload again when nobody"):
        storage.upload_dir(source, f"s3://{bucket}/m")
    where, _, prefix = bucket.partition("/")
    assert "beear-manifest.json" not in keys(s3, f"{bucket}/m")
    # nobody can go on with it
    assert not s3.client().list_multipart_uploads(Bucket=where, Prefix=prefix).get("Uploads")


def test_s3_an_upload_that_has_not_ended_is_no_folder(tmp_path: Path, bucket: str, s3: S3Server) -> None:
    put(s3, f"{bucket}/m/{object_name(digest_bytes(b'x'))}", b"x")
    with pytest.raises(
        StorageError, match=r"/m holds an upload that has not ended, without beear-manifest\.json; upload the"
    ):
        storage.fetch(f"s3://{bucket}/m", tmp_path / "dest")
    nothing_left(tmp_path)


def test_s3_a_manifest_of_somebody_else_is_refused(tmp_path: Path, bucket: str, s3: S3Server) -> None:
    put(s3, f"{bucket}/m/beear-manifest.json", b'{"files": []}')
    with pytest.raises(StorageError, match="is not a manifest that was written here: .*Upload the folder again, to a new"):
        storage.fetch(f"s3://{bucket}/m", tmp_path / "dest")
    nothing_left(tmp_path)


def test_s3_an_unfinished_upload_that_somebody_ends_meanwhile(
    source: Path, bucket: str, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    (source / "large.bin").write_bytes(os.urandom(20 * common.MIB))
    real = s3_upload.Upload._unfinished

    def end_them(self: s3_upload.Upload, found: s3_upload.Source) -> Iterator[str]:
        began = s3.client().create_multipart_upload(**self._at(found))["UploadId"]
        keys = list(real(self, found))
        assert began in keys
        s3.client().abort_multipart_upload(**self._at(found), UploadId=began)
        yield from keys

    monkeypatch.setattr(s3_upload.Upload, "_unfinished", end_them)
    assert storage.upload_dir(source, f"s3://{bucket}/m").sent == 23 * common.MIB + 1000


def test_s3_of_two_folders_for_one_prefix_the_first_stays(
    source: Path, tmp_path: Path, bucket: str, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both find it free; whoever writes the manifest second must not replace the first."""
    other = tmp_path / "other"
    other.mkdir()
    (other / "x").write_bytes(b"another folder")
    real = s3_manifest.write

    def second(*given: Any) -> None:
        monkeypatch.setattr(s3_manifest, "write", real)
        storage.upload_dir(other, f"s3://{bucket}/m")
        real(*given)

    monkeypatch.setattr(s3_manifest, "write", second)
    with pytest.raises(StorageError, match=f"holds a folder with the digest {directory_digest(other)} and not"):
        storage.upload_dir(source, f"s3://{bucket}/m")
    storage.fetch(f"s3://{bucket}/m", tmp_path / "dest")
    assert directory_digest(tmp_path / "dest") == directory_digest(other)


def test_s3_an_identity_that_may_not_list_unfinished_uploads(
    source: Path, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from botocore.exceptions import ClientError

    def refuse(*_: object) -> NoReturn:
        raise ClientError({"Error": {"Code": "AccessDenied"}}, "ListMultipartUploads")

    (source / "large.bin").write_bytes(os.urandom(20 * common.MIB))
    monkeypatch.setattr(s3_upload.Upload, "_unfinished", refuse)
    assert storage.upload_dir(source, f"s3://{bucket}/m").sent == 23 * common.MIB + 1000
