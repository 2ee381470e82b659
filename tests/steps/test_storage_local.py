"""Local folders are copied whole or not at all, and with a message that helps when it fails."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import NoReturn

import pytest
from storage_folders import nothing_left

from beear_core.errors import BeearError, ConfigError, ModelNotFoundError, StorageError, UnsafeModelError
from beear_core.models.folder import directory_digest
from components.storage import common
from components.storage import places as storage
from components.storage.common import Fetched


@pytest.mark.parametrize("form", ["{}", "file://{}"])
def test_a_local_folder_arrives_as_it_is(source: Path, tmp_path: Path, form: str) -> None:
    assert storage.fetch(form.format(source), tmp_path / "new" / "dest") == Fetched(())
    assert directory_digest(tmp_path / "new" / "dest") == directory_digest(source)
    nothing_left(tmp_path / "new", "dest")


def test_a_file_uri_may_be_quoted(source: Path, tmp_path: Path) -> None:
    source.rename(tmp_path / "with space")
    storage.fetch(f"file://{tmp_path}/with%20space", tmp_path / "dest")
    assert (tmp_path / "dest" / "a.txt").exists()


def test_a_copy_is_no_link_to_the_source(source: Path, tmp_path: Path) -> None:
    storage.fetch(str(source), tmp_path / "dest")
    with (source / "a.txt").open("r+b") as file:
        file.write(b"changed")
    assert (tmp_path / "dest" / "a.txt").read_bytes() == b"a" * 1000


def test_only_the_selected_files_are_taken(source: Path, tmp_path: Path) -> None:
    left_out = storage.fetch(
        str(source), tmp_path / "dest", select=lambda names: [n for n in names if n == "a.txt"]
    ).left_out
    assert left_out == ("sub/b.bin",)
    nothing_left(tmp_path / "dest", "a.txt")


@pytest.mark.parametrize(
    ("uri", "error", "message"),
    [
        ("", ConfigError, "no place given; name a folder, file://"),
        ("gs://bucket/x", ConfigError, "is of an unknown kind; name a folder, file://, s3://"),
        ("file://host/x", ConfigError, "does not name a local folder; write file:///absolute/path"),
        ("s3://bucket", ConfigError, "names no folder in a bucket; write s3://bucket/prefix"),
        ("s3:///prefix", ConfigError, "names no folder in a bucket"),
        ("models:/name", ConfigError, "not a model version; write models:/name@alias or models:/name/3"),
        ("models:/name/latest", ConfigError, "not a model version"),
        ("hub:name", ConfigError, "not a model of the hub; write hub:org/name"),
        ("hub:or g/name", ConfigError, "'hub:or g/name' is not a model of the hub: Repo id must use.*; write hub:org/name"),
        ("file://[x/y", ConfigError, r"'file://\[x/y' is no URI \(.*\); write file:///absolute/path"),
        ("/nowhere/at/all", ModelNotFoundError, "model folder /nowhere/at/all does not exist"),
    ],
)
def test_a_place_that_cannot_be_is_refused(
    tmp_path: Path, uri: str, error: type[BeearError], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(error, match=message):
        storage.fetch(uri, tmp_path / "dest")
    nothing_left(tmp_path)


def test_nothing_is_written_over(source: Path, tmp_path: Path) -> None:
    (tmp_path / "dest").mkdir()
    (tmp_path / "dest" / "mine").write_text("keep")
    with pytest.raises(StorageError, match="dest exists already and is not overwritten; remove it or choose another"):
        storage.fetch(str(source), tmp_path / "dest")
    nothing_left(tmp_path / "dest", "mine")


def test_an_empty_destination_is_filled(source: Path, tmp_path: Path) -> None:
    (tmp_path / "dest").mkdir()
    storage.fetch(str(source), tmp_path / "dest")
    assert directory_digest(tmp_path / "dest") == directory_digest(source)


def test_links_out_of_the_folder_are_refused(source: Path, tmp_path: Path) -> None:
    (source / "c").symlink_to("/etc/hostname")
    with pytest.raises(UnsafeModelError, match="outside the model folder"):
        storage.fetch(str(source), tmp_path / "dest")
    nothing_left(tmp_path, "source")


def test_a_folder_that_does_not_fit_is_refused_before_copying(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=common.MIB))
    with pytest.raises(StorageError, match=r"needs 3\.0 MiB, 1\.0 MiB are free on its disk; free space or choose"):
        storage.fetch(str(source), tmp_path / "dest")
    nothing_left(tmp_path, "source")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EIO])
def test_a_disk_that_fails_leaves_nothing(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def fail(_: int) -> NoReturn:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(StorageError, match=f"cannot write .*dest: {os.strerror(code)}; free space or choose a writable"):
        storage.fetch(str(source), tmp_path / "dest")
    nothing_left(tmp_path, "source")


def test_a_folder_that_is_refused_on_arrival_leaves_nothing(source: Path, tmp_path: Path) -> None:
    seen: list[set[str]] = []

    def refuse(folder: Path, _: str) -> NoReturn:
        seen.append({path.name for path in folder.iterdir()})
        raise StorageError("not this one")

    with pytest.raises(StorageError, match="not this one"):
        storage.fetch(str(source), tmp_path / "dest", accept=refuse)
    assert seen == [{"a.txt", "sub"}]
    nothing_left(tmp_path, "source")


def test_upload_to_a_local_folder(source: Path, tmp_path: Path) -> None:
    storage.upload_dir(source, f"file://{tmp_path}/copy")
    assert directory_digest(tmp_path / "copy") == directory_digest(source)
    with pytest.raises(StorageError, match="exists already"):
        storage.upload_dir(source, str(tmp_path / "copy"))


def test_upload_where_it_cannot_go(source: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot upload to 'models:/a/1'; name a folder or s3://"):
        storage.upload_dir(source, "models:/a/1")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelNotFoundError, match="is empty, there is nothing to upload"):
        storage.upload_dir(tmp_path / "empty", str(tmp_path / "copy"))
