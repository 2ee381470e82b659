"""The manifest of a folder in S3, and how files are cut into parts and known again."""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import CancelledError
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beear_core.errors import StorageError
from beear_core.files import digest_bytes
from beear_core.models.folder import directory_digest
from beear_core.records import FileEntry
from components.storage import s3_upload
from components.storage.common import MIB
from components.storage.s3_client import Prefix
from components.storage.s3_manifest import Manifest, object_name
from components.storage.s3_upload import Source, Upload
from components.storage.workers import Workers

NAMES = st.lists(st.sampled_from(["a", "b.json", "model 1", "é", ".x", "..y"]), min_size=1, max_size=3).map("/".join)
FILES = st.dictionaries(NAMES, st.binary(max_size=8), min_size=1, max_size=6)


def manifest(files: dict[str, bytes]) -> Manifest:
    return Manifest.of(FileEntry(path=name, size=len(data), digest=digest_bytes(data)) for name, data in files.items())


@settings(max_examples=50)
@given(FILES)
def test_a_manifest_is_read_as_it_was_written(files: dict[str, bytes]) -> None:
    written = manifest(files)
    assert Manifest.from_bytes(written.to_bytes(), "here") == written
    assert manifest(dict(reversed(files.items()))).to_bytes() == written.to_bytes()


@settings(max_examples=100)
@given(FILES, st.data())
def test_a_manifest_with_any_byte_altered_is_none(files: dict[str, bytes], data: st.DataObject) -> None:
    written = bytearray(manifest(files).to_bytes())
    at = data.draw(st.integers(0, len(written) - 1))
    written[at] ^= data.draw(st.integers(1, 255))
    try:
        found = Manifest.from_bytes(bytes(written), "here")
    except StorageError:
        return
    # only sizes stand under no digest here; they are compared with the file itself
    assert {(f.path, f.digest) for f in found.files} == {(f.path, f.digest) for f in manifest(files).files}


def test_the_digest_is_that_of_the_folder(source: Path) -> None:
    files = {path.relative_to(source).as_posix(): path.read_bytes() for path in source.rglob("*") if path.is_file()}
    assert manifest(files).folder_digest == directory_digest(source)


@pytest.mark.parametrize("name", ["../x", "/x", "a/../../x", "a\\b"])
def test_names_in_a_manifest_stay_inside(name: str) -> None:
    with pytest.raises(StorageError, match="leaves its folder"):
        Manifest.from_bytes(manifest({name: b""}).to_bytes(), "here")


@pytest.mark.parametrize("digest", ["sha256:../../other", "md5:" + "0" * 64, "sha256:" + "G" * 64])
def test_digests_in_a_manifest_name_objects_of_its_prefix(digest: str) -> None:
    written = Manifest.of([FileEntry(path="x", size=1, digest=digest)]).to_bytes()
    with pytest.raises(StorageError, match="here is not a manifest that was written here: the size or digest of x is none"):
        Manifest.from_bytes(written, "here")


@given(st.integers(0, 5 << 40))
def test_no_file_has_more_parts_than_a_store_takes(size: int) -> None:
    part = s3_upload._part_size(size)
    assert part >= s3_upload.PART
    assert part * 10_000 >= size
    assert part % MIB == 0


def test_a_file_is_read_as_other_programs_read_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_upload, "PART", MIB)
    data = os.urandom(2 * MIB + 1)
    (tmp_path / "x").write_bytes(data)
    source = Source.read(tmp_path / "x")
    parts = [data[:MIB], data[MIB : 2 * MIB], data[2 * MIB :]]
    assert source.digest == f"sha256:{hashlib.sha256(data).hexdigest()}"
    assert [source.bytes_of(n) for n in (1, 2, 3)] == parts
    assert [source.size_of(n) for n in (1, 2, 3)] == [MIB, MIB, 1]
    assert source.tag == hashlib.md5(b"".join(hashlib.md5(part).digest() for part in parts)).hexdigest() + "-3"


class Head:
    """A store that says one thing of every object."""

    def __init__(self, **answer: Any) -> None:
        self.answer = answer

    def head_object(self, **_: str) -> dict[str, Any]:
        return self.answer


@pytest.mark.parametrize(
    ("changed", "there"),
    [
        ({}, True),
        ({"ContentLength": 4}, False),
        ({"Metadata": {}}, False),
        ({"Metadata": {"sha256": "0" * 64}}, False),
        ({"ETag": f'"{"0" * 32}"'}, False),
        # tags that are no digest, and tags of other parts, say nothing
        ({"ETag": f'"{"0" * 32}"', "ServerSideEncryption": "aws:kms"}, True),
        ({"ETag": f'"{"0" * 32}"', "SSECustomerAlgorithm": "AES256"}, True),
        ({"ETag": f'"{"0" * 32}"', "ServerSideEncryption": "AES256"}, False),
    ],
)
def test_what_counts_as_there(tmp_path: Path, changed: dict[str, Any], there: bool) -> None:
    (tmp_path / "x").write_bytes(b"bytes")
    source = Source.read(tmp_path / "x")
    answer = {"ContentLength": 5, "Metadata": source.metadata, "ETag": f'"{hashlib.md5(b"bytes").hexdigest()}"', **changed}
    with Workers(1) as workers:
        assert Upload(Head(**answer), Prefix("b", "p"), workers, lambda _: None)._is_there(source) is there


def test_an_object_is_named_by_what_it_holds() -> None:
    assert object_name(digest_bytes(b"")) == f"objects/{hashlib.sha256(b'').hexdigest()}"


def test_the_first_error_of_any_thread_is_told_and_the_others_stop() -> None:
    begun, stopped = Event(), Event()

    def works_on(workers: Workers) -> None:
        begun.set()
        try:
            while True:
                workers.check()
        except CancelledError:
            stopped.set()
            raise

    def fails() -> None:
        begun.wait(10)
        raise ValueError("the cause")

    with pytest.raises(ValueError, match="the cause"), Workers(2) as workers:
        workers.wait([workers.begin(works_on, workers), workers.begin(fails)])
    assert stopped.is_set()
