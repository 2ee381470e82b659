"""What a folder holds after something was stored or was not, for the tests of storage."""

from __future__ import annotations

from pathlib import Path


def nothing_left(folder: Path, *kept: str) -> None:
    found = sorted(path.name for path in folder.iterdir())
    assert found == sorted(kept), f"{folder} holds {found}"  # pytest adds the values in files of tests only


def total(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
