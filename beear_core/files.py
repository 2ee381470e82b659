"""Files and folders that are there whole or not at all, and their digests.

Everything is written under a temporary name in the folder that it goes to, brought to the disk, and renamed; then the
rename is brought to the disk too. A kill or a power cut at any moment leaves the old content or the new one.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from beear_core.errors import StorageError

BLOCK = 8 << 20
"""Bytes that are read or copied at once."""
PROBE = ".beear-probe"
"""Name of what is written to see whether a place can be written to."""
_REMEDY = "free space or choose a writable folder"


def digest_bytes(data: bytes) -> str:
    """Compute ``sha256:<64 hex digits>`` of the bytes."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def digest_file(path: Path) -> str:
    """Compute the digest of a file's bytes, read in pieces of ``BLOCK``."""
    sha = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            sha.update(block)
    return f"sha256:{sha.hexdigest()}"


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file, whole or not at all; see ``whole_file``.

    Raises:
        StorageError: if the disk is full or the folder cannot be written.
    """
    with whole_file(path) as temporary:
        temporary.write_bytes(data)


@contextmanager
def whole_file(path: Path, *errors: type[Exception], doing: str = "") -> Iterator[Path]:
    """Yield a temporary file beside ``path`` to write to, which takes its place when all went well; its folder is made.

    Args:
        path: of the file.
        errors: what a writer raises on a full disk besides ``OSError``.
        doing: what is being done, as it follows "cannot" in the error message.

    Raises:
        StorageError: if the disk is full or the folder cannot be written.
    """
    temporary: Path | None = None
    with disk_errors(doing or f"write {path}", *errors):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
            os.close(handle)
            temporary = Path(name)
            yield temporary
            temporary.chmod(0o644)
            sync(temporary)
            temporary.replace(path)
            sync(path.parent)
        finally:
            if temporary is not None:
                temporary.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path, *errors: type[Exception], doing: str = "") -> Iterator[Path]:
    """Yield a temporary folder beside ``path`` to write into, which takes its place when all went well, and is gone if not.

    A folder that is already at ``path`` is moved aside before the new one takes its place, and removed after; if a kill
    came in between, the next call puts it back.

    Args:
        path: of the folder.
        errors: what a writer raises on a full disk besides ``OSError``.
        doing: what is being done, as it follows "cannot" in the error message.

    Raises:
        StorageError: if the disk is full or the folder cannot be written.
    """
    temporary: Path | None = None
    with disk_errors(doing or f"write {path}", *errors):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _put_back(_aside(path), path)
            temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
            yield temporary
            put_in_place(temporary, path)
        finally:
            if temporary is not None:
                shutil.rmtree(temporary, ignore_errors=True)


def put_in_place(temporary: Path, path: Path) -> None:
    """Bring a folder and all below it to the disk, and give it the place of ``path``; see ``whole_folder``.

    Raises:
        OSError: the disk is full or the folder cannot be written.
    """
    temporary.chmod(0o755)
    for below in (*temporary.rglob("*"), temporary):
        sync(below)
    aside = _aside(path)
    if path.exists():
        path.replace(aside)
    temporary.replace(path)
    sync(path.parent)
    shutil.rmtree(aside, ignore_errors=True)


def _aside(path: Path) -> Path:
    return path.with_name(f".{path.name}.before")


def _put_back(aside: Path, path: Path) -> None:
    """Put back a folder that a kill left aside, or remove it where a new one has taken its place."""
    if not aside.exists():
        return
    if path.exists():
        shutil.rmtree(aside)
    else:
        aside.replace(path)


def sync(path: Path) -> None:
    """Bring a file, or the names in a folder, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def check_writable(folder: Path, remedy: str = _REMEDY) -> None:
    """Write something small to a folder, which is made, and remove it.

    Args:
        folder: that is to be written to.
        remedy: what the user can do.

    Raises:
        StorageError: it cannot be written.
    """
    with disk_errors(f"write to {folder}", remedy=remedy):
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / PROBE
        try:
            probe.write_bytes(b"x")
        finally:
            probe.unlink(missing_ok=True)


@contextmanager
def disk_errors(doing: str, *errors: type[Exception], remedy: str = _REMEDY) -> Iterator[None]:
    """Turn a full or read-only disk, inside the context, into a ``StorageError`` that says what was being done.

    Args:
        doing: what is being done, as it follows "cannot" in the error message.
        errors: what a writer raises besides ``OSError``.
        remedy: what the user can do.

    Raises:
        StorageError: as described.
    """
    kinds: tuple[type[Exception], ...] = (OSError, *errors)
    try:
        yield
    except kinds as error:
        raise StorageError(f"cannot {doing}: {getattr(error, 'strerror', None) or error}; {remedy}") from error
