"""What all stores share: which names are taken, room on the disk, copies that are there whole or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from threading import Lock

from beear_core.errors import StorageError
from beear_core.files import BLOCK, whole_folder
from beear_core.progress import Progress

MIB = 1 << 20
Select = Callable[[tuple[str, ...]], Sequence[str]]
"""Given the relative POSIX names at a place, those to take; may refuse the place by raising."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """What a fetch left at its place, by name, and what the place's name stood for: no alias, no branch.

    ``resolved``: ``models:/name/3`` or ``hub:org/name@<commit>``; empty where a name holds nothing that moves.
    """

    left_out: tuple[str, ...]
    resolved: str = ""


@dataclass(frozen=True, slots=True)
class Uploaded:
    """What an upload wrote: the folder's digest, as ``models.folder.directory_digest`` makes it, and bytes.

    ``sent``: went over the network or were copied. ``skipped``: were there already.
    """

    digest: str
    sent: int
    skipped: int = 0


def take_all(names: tuple[str, ...]) -> Sequence[str]:
    """Take every file; this is the default ``Select``."""
    return names


def check_relative(name: str, where: str) -> str:
    """Check that a name stays inside the folder it is joined to, and return it.

    Raises:
        StorageError: for an absolute name, an empty part, ``.`` or ``..``.
    """
    if not name or "\\" in name or PurePosixPath(name).is_absolute() or {"", ".", ".."} & set(name.split("/")):
        raise StorageError(f"{where} holds the name {name!r}, which leaves its folder; rename or remove it there")
    return name


def require_space(folder: Path, wanted: int) -> None:
    """Refuse a copy of ``wanted`` bytes below ``folder`` that cannot fit; 1 % is left for the file system itself.

    Raises:
        StorageError: naming how much is needed and how much is free.
    """
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if wanted + wanted // 100 > free:
        raise StorageError(
            f"{folder} needs {wanted / MIB:.1f} MiB, {free / MIB:.1f} MiB are free on its disk; free space or choose "
            "another folder"
        )


def require_new(folder: Path) -> None:
    """Refuse to write over something; an empty folder does not count.

    Raises:
        StorageError: if the folder holds anything, or is a file.
    """
    if folder.is_symlink() or folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise StorageError(f"{folder} exists already and is not overwritten; remove it or choose another folder")


@contextmanager
def staging(dest: Path) -> Iterator[Path]:
    """Make an empty folder beside ``dest`` that becomes ``dest`` when the block ends well, and vanishes when it does not.

    Raises:
        StorageError: if ``dest`` holds something already, or the disk is full or not writable.
    """
    require_new(dest)
    with whole_folder(dest) as temporary:
        yield temporary


def copy_files(source: Path, names: Sequence[str], dest: Path, label: str) -> None:
    """Copy files, following links, with progress in MiB.

    Copied and not linked: whoever later writes into the source must not change what was certified.

    Raises:
        StorageError: if there is no room, or a file cannot be read.
        OSError: if the disk cannot be written.
    """
    sizes = {name: (source / name).stat().st_size for name in names}
    require_space(dest, sum(sizes.values()))
    with byte_progress(label, sizes) as advance:
        for name in names:
            _copy_file(source / name, dest / name, advance)


def _copy_file(source: Path, dest: Path, advance: Callable[[int], None]) -> None:
    dest.parent.mkdir(parents=True, exist_ok=True)
    try:
        reader = source.open("rb")
    except OSError as error:
        raise StorageError(f"cannot read {source}: {error.strerror}; give this user read access") from error
    with reader, dest.open("wb") as writer:
        while block := reader.read(BLOCK):
            writer.write(block)
            advance(len(block))


@contextmanager
def byte_progress(label: str, sizes: Mapping[str, int]) -> Iterator[Callable[[int], None]]:
    """Show progress over the sum of sizes in MiB; yields the function that any thread tells of bytes as they are done."""
    done, lock = 0, Lock()
    with Progress(f"{label} (MiB)", -(-sum(sizes.values()) // MIB)) as progress:

        def advance(n: int) -> None:
            nonlocal done
            with lock:
                before, done = done // MIB, done + n
                if done // MIB > before:
                    progress.advance(done // MIB - before)

        yield advance
