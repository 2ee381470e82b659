"""A folder that arrives over several calls: what a kill leaves is adopted by the next call for the same bytes.

``.<name>.partial-<key>`` beside the folder holds ``files`` (arrived whole; takes the folder's place in the end),
``incoming`` (files that are arriving, and how far each of their parts is) and ``lock``, which one process holds.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from beear_core.errors import StorageError
from beear_core.files import digest_bytes, disk_errors, put_in_place
from beear_core.progress import say
from components.storage.common import require_new

_KEY = 16
_COUNT = struct.Struct("<Q")


@dataclass(frozen=True, slots=True)
class Incoming:
    """A file of ``size`` bytes that arrives in parts of ``part`` bytes, each from its beginning on.

    How many bytes of a part are there is noted after they were written, so a kill cannot make it too many. A power cut can:
    whoever takes the file compares its digest.
    """

    data: Path
    size: int
    part: int

    @property
    def _notes(self) -> Path:
        return self.data.with_name(f"{self.data.name}.{self.part}")

    @property
    def parts(self) -> int:
        """How many parts there are."""
        return -(-self.size // self.part)

    def open(self) -> int:
        """Make the file if it is not there, and count the bytes that have arrived."""
        noted = self.parts * _COUNT.size
        if not (_has_size(self.data, self.size) and _has_size(self._notes, noted)):
            for path, size in ((self._notes, noted), (self.data, self.size)):
                path.unlink(missing_ok=True)
                with path.open("wb") as file:
                    file.truncate(size)
        return sum(self.arrived(number) for number in range(self.parts))

    def arrived(self, number: int) -> int:
        """Count the bytes of part ``number``, from 0, that are there."""
        with self._notes.open("rb") as file:
            count: int = _COUNT.unpack(os.pread(file.fileno(), _COUNT.size, number * _COUNT.size))[0]
        return min(count, self.length(number))

    def length(self, number: int) -> int:
        """Count the bytes of part ``number`` when it is whole."""
        return min(self.part, self.size - number * self.part)

    def append(self, number: int, block: bytes) -> None:
        """Write the next bytes of a part."""
        there = self.arrived(number)
        with self.data.open("r+b") as data, self._notes.open("r+b") as notes:
            os.pwrite(data.fileno(), block, number * self.part + there)
            os.pwrite(notes.fileno(), _COUNT.pack(there + len(block)), number * _COUNT.size)

    def forget(self) -> None:
        """Begin from nothing."""
        self.data.unlink(missing_ok=True)
        self.open()

    def settle(self, path: Path) -> None:
        """Move the file, which is whole, to its place."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self.data.replace(path)
        self._notes.unlink()


@dataclass(frozen=True, slots=True)
class Partial:
    """The partial folder while this process holds it."""

    root: Path

    @property
    def files(self) -> Path:
        """Where files go that have arrived whole."""
        return self.root / "files"

    def incoming(self, name: str, size: int, part: int) -> Incoming:
        """Find the file of this name as far as it has arrived."""
        return Incoming(self.root / "incoming" / digest_bytes(name.encode()).removeprefix("sha256:"), size, part)

    def arrived(self, name: str, size: int, part: int) -> int:
        """Count the bytes of a file that are there, whole or in part."""
        if _has_size(self.files / name, size):
            return size
        return self.incoming(name, size, part).open()


@contextmanager
def partial(dest: Path, key: str, *passing: type[Exception]) -> Iterator[Partial]:
    """Make or adopt the partial folder that becomes ``dest`` when the block ends well.

    A kill leaves it, and so do errors that pass. Any other error removes it, and so does a call for other bytes.

    Args:
        dest: must be empty or not exist.
        key: hexadecimal digest of what is to arrive; the same bytes from the same place have the same.
        passing: errors after which the same call can go on, such as those of a network.

    Raises:
        StorageError: ``dest`` holds something, another process is filling it, or the disk is full or not writable.
    """
    require_new(dest)
    with disk_errors(f"write {dest}"):
        dest.parent.mkdir(parents=True, exist_ok=True)
        root = dest.with_name(f".{dest.name}.partial-{key[:_KEY]}")
        _remove_others(dest, root)
        lock = _locked(root)
        if lock is None:
            raise StorageError(
                f"{dest} is being filled by another process; wait until it has ended, or choose another folder"
            )
        try:
            place = Partial(root)
            for folder in (place.files, root / "incoming"):
                folder.mkdir(exist_ok=True)
            yield place
            require_new(dest)
            put_in_place(place.files, dest)
        except passing:
            say(f"what has arrived is kept in {root}; the same call goes on from there")
            raise
        except Exception:
            shutil.rmtree(root, ignore_errors=True)
            raise
        else:
            shutil.rmtree(root)
        finally:
            os.close(lock)


def _has_size(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def _remove_others(dest: Path, root: Path) -> None:
    """Remove what was left of other bytes for the same place, unless a process is at it."""
    form = re.compile(rf"\.{re.escape(dest.name)}\.partial-[0-9a-f]{{{_KEY}}}")
    for other in dest.parent.iterdir():
        if other != root and form.fullmatch(other.name) and (lock := _locked(other)) is not None:
            shutil.rmtree(other)
            os.close(lock)


def _locked(root: Path) -> int | None:
    """Make the folder if it is not there, and lock it; ``None`` where another process holds it."""
    while True:
        root.mkdir(mode=0o700, exist_ok=True)
        if root.is_symlink() or root.stat().st_uid != os.getuid():
            raise StorageError(f"{root} belongs to somebody else, so what it holds is not used; remove it")
        path = root / "lock"
        try:
            lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # whoever held it may have removed it before it was ours
            if os.path.samestat(os.fstat(lock), path.stat()):
                return lock
        except BlockingIOError:
            os.close(lock)
            return None
        except FileNotFoundError:
            pass
        os.close(lock)
