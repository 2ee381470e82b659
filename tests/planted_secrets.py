"""Secrets that can be told apart, planted wherever one can stand, and a search for them in everything a command leaves."""

from __future__ import annotations

import base64
import io
import secrets
import sqlite3
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import quote, unquote_to_bytes

_LEAST = 8
"""Random characters of one piece of a secret: fewer could stand in an output by chance."""


class Planted:
    """What was planted: pieces without special characters by the name of the place; a part that leaks counts as a leak."""

    def __init__(self) -> None:
        self.pieces: dict[bytes, str] = {}

    def secret(self, place: str, between: str = "") -> str:
        """Make a secret for a place; ``between``: characters that stand inside it."""
        pieces = [f"Zq{secrets.token_hex(_LEAST // 2 + 1)}" for _ in range(len(between) + 1)]
        self.pieces |= {piece.encode(): place for piece in pieces}
        return "".join(piece + character for piece, character in zip(pieces, f"{between} ", strict=True))[:-1]

    def encoded(self, place: str, between: str = "/@%#?&: ") -> str:
        """Make a secret of awkward characters as it stands in a URI that is well-formed."""
        return quote(self.secret(place, between), safe="")

    def leaks(self, outputs: Mapping[str, bytes]) -> list[str]:
        """Name the places whose secrets stand in outputs, and where, in plain or in another form."""
        found = set()
        for name, content in outputs.items():
            for form, text in _forms(content):
                for piece, place in self.pieces.items():
                    if piece in text or any(coded in text for coded in _in_base64(piece)):
                        found.add(f"{place} in {name}{form}")
        return sorted(found)


def _in_base64(piece: bytes) -> Iterator[bytes]:
    """What stands for a piece in base64, at each of the three places where it can begin; without its blurred ends."""
    for before in range(3):
        coded = base64.b64encode(b"\0" * before + piece)
        yield coded[4 if before else 0 : -4]


def _forms(content: bytes) -> Iterator[tuple[str, bytes]]:
    """The bytes, what they are when percent-decoded, and what an archive or a database holds."""
    yield "", content
    yield " (percent-encoded)", unquote_to_bytes(content)
    if zipfile.is_zipfile(io.BytesIO(content)):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for name in archive.namelist():
                for form, text in _forms(archive.read(name)):
                    yield f"!{name}{form}", text
    if content.startswith(b"SQLite format 3\0"):
        with sqlite3.connect(":memory:") as database:
            database.deserialize(content)
            yield " (rows)", "\n".join(database.iterdump()).encode()


def files_below(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, by its path, which is an output as well."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {f"{path}": path.read_bytes() for path in paths} | {"file names": "\n".join(map(str, paths)).encode()}
