"""A folder that arrives over several calls: adopted, locked, and gone when it is of no use."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
from disk import mounted
from hypothesis import given, settings
from hypothesis import strategies as st
from servers import S3Server
from storage_folders import nothing_left

from beear_core.errors import StorageError
from components.storage import places as storage
from components.storage import s3 as s3_store
from components.storage.partial import Incoming, partial

KEY, OTHER = "a" * 64, "b" * 64


class Passing(Exception):
    """An error that passes."""


def test_what_arrived_before_an_error_that_passes_is_adopted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(Passing), partial(tmp_path / "dest", KEY, Passing) as place:
        (place.files / "one").write_bytes(b"1")
        raise Passing
    nothing_left(tmp_path, f".dest.partial-{KEY[:16]}")
    assert f"what has arrived is kept in {tmp_path}/.dest.partial-{KEY[:16]}" in capsys.readouterr().err
    with partial(tmp_path / "dest", KEY, Passing) as place:
        (place.files / "two").write_bytes(b"2")
    nothing_left(tmp_path, "dest")
    nothing_left(tmp_path / "dest", "one", "two")
    assert (tmp_path / "dest").stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("error", [ValueError, StorageError])
def test_any_other_error_leaves_nothing(tmp_path: Path, error: type[Exception]) -> None:
    with pytest.raises(error), partial(tmp_path / "dest", KEY, Passing) as place:
        (place.files / "one").write_bytes(b"1")
        raise error
    nothing_left(tmp_path)


def test_what_was_left_of_other_bytes_goes(tmp_path: Path) -> None:
    for key in (KEY, OTHER):
        with pytest.raises(KeyboardInterrupt), partial(tmp_path / "dest", key) as place:
            assert not any(place.files.iterdir())
            (place.files / "one").write_bytes(b"1")
            raise KeyboardInterrupt
    # of another place
    (tmp_path / f".dest2.partial-{KEY[:16]}").mkdir()
    with partial(tmp_path / "dest", OTHER):
        nothing_left(tmp_path, f".dest.partial-{OTHER[:16]}", f".dest2.partial-{KEY[:16]}")


def test_only_one_may_fill_it(tmp_path: Path) -> None:
    with partial(tmp_path / "dest", KEY) as place:
        (place.files / "one").write_bytes(b"1")
        with (
            pytest.raises(StorageError, match="dest is being filled by another process; wait until"),
            partial(tmp_path / "dest", KEY),
        ):
            pass
        # of other bytes: what another process is filling stays
        with pytest.raises(ValueError, match="mine"), partial(tmp_path / "dest", OTHER):
            raise ValueError("mine")
    nothing_left(tmp_path / "dest", "one")


def test_what_came_there_meanwhile_is_not_written_over(tmp_path: Path) -> None:
    with (
        pytest.raises(StorageError, match="dest exists already and is not overwritten"),
        partial(tmp_path / "dest", KEY) as place,
    ):
        (place.files / "one").write_bytes(b"1")
        (tmp_path / "dest").mkdir()
        (tmp_path / "dest" / "mine").touch()
    nothing_left(tmp_path, "dest")
    nothing_left(tmp_path / "dest", "mine")


def test_a_folder_that_somebody_else_laid_there_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / f".dest.partial-{KEY[:16]}").symlink_to(tmp_path / "theirs")
    with (
        pytest.raises(StorageError, match="belongs to somebody else, so what it holds is not used; remove it"),
        partial(tmp_path / "dest", KEY),
    ):
        pass
    nothing_left(tmp_path / "theirs")


def test_a_disk_that_becomes_full_leaves_nothing(
    tmp_path: Path, s3: S3Server, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3.client().create_bucket(Bucket="full-disk")
    storage.upload_dir(source, "s3://full-disk/m")
    monkeypatch.setattr(s3_store, "require_space", lambda *_: None)  # someone else fills it meanwhile
    with mounted(tmp_path / "small", "size=1m") as small:
        with pytest.raises(StorageError, match=r"cannot write .*dest: No space left on device; free space or choose"):
            storage.fetch("s3://full-disk/m", small / "dest")
        nothing_left(small)


def test_a_folder_that_does_not_fit_is_refused_before_fetching(tmp_path: Path, s3: S3Server, source: Path) -> None:
    s3.client().create_bucket(Bucket="small-disk")
    storage.upload_dir(source, "s3://small-disk/m")
    with mounted(tmp_path / "small", "size=1m") as small:
        with pytest.raises(StorageError, match=r"needs 3\.0 MiB, 1\.0 MiB are free on its disk; free space or choose"):
            storage.fetch("s3://small-disk/m", small / "dest")
        nothing_left(small)


@settings(max_examples=40, deadline=None)
@given(size=st.integers(0, 40), part=st.integers(1, 16), blocks=st.integers(1, 9), seed=st.integers(0, 1 << 20))
def test_parts_in_any_order_with_any_breaks_make_the_file(
    tmp_path_factory: pytest.TempPathFactory, size: int, part: int, blocks: int, seed: int
) -> None:
    rng, data = random.Random(seed), os.urandom(size)
    folder = tmp_path_factory.mktemp("incoming")
    incoming = Incoming(folder / "x", size, part)
    assert incoming.open() == 0
    while (there := Incoming(folder / "x", size, part).open()) < size:  # each turn as another process
        number = rng.choice([n for n in range(incoming.parts) if incoming.arrived(n) < incoming.length(n)])
        begin = number * part + incoming.arrived(number)
        end = min(begin + blocks, number * part + incoming.length(number))
        incoming.append(number, data[begin:end])
        assert Incoming(folder / "x", size, part).open() == there + end - begin
    incoming.settle(folder / "done" / "x")
    assert (folder / "done" / "x").read_bytes() == data
    nothing_left(folder, "done")
