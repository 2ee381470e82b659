"""Is a file a pickle, whatever it is called? Decided by how far an unpickler would get, without unpickling anything.

The older protocols (0 and 1) have no magic number and may be plain text, so the opcodes are followed from the first byte,
with the stack they work on. A text soon names no opcode, or one that finds nothing on the stack. What a pickle would import
is told by picklescan, whose list of dangerous imports is kept up to date.
"""

from __future__ import annotations

import io
import logging
import pickletools
import re
from pathlib import Path
from typing import BinaryIO

_IMPORTS = {"GLOBAL", "INST", "STACK_GLOBAL", "EXT1", "EXT2", "EXT4"}
_ENDS = {"REDUCE", "BUILD", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "STOP"}  # a call, or the end
_MANY = 10_000  # no text reads as so many opcodes
_LONG = 16 << 20  # bytes of one argument; more is not read
_SCANNED = 64 << 10
_NAME = re.compile(r"[A-Za-z_][\w.]*")
_SHOWN = 3


class _TooLongError(Exception):
    """An argument that is there and too long to be read: of a pickle, since nothing else announces such lengths."""


class _Bounded(io.BytesIO):
    """What ``genops`` reads from a file: a length that is made up costs no memory."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        super().__init__()
        self._file, self._size = file, size

    def read(self, n: int | None = -1, /) -> bytes:
        wanted = n or 0
        if wanted > self._size - self._file.tell():
            raise ValueError("it ends before its argument does")
        if wanted > _LONG:
            raise _TooLongError
        return self._file.read(wanted)

    def readline(self, n: int | None = -1, /) -> bytes:
        line = self._file.readline(_LONG)
        if len(line) == _LONG:
            raise _TooLongError
        return line

    def tell(self) -> int:
        return self._file.tell()


def pickled(path: Path) -> str | None:
    """Tell what a pickle would import, as far as that is known; ``None`` if the file is no pickle.

    A file counts as a pickle if an unpickler that reads it from its first byte meets an import (or a protocol's number)
    and then a call or the end, or if it imports what is known to be dangerous. A few values with neither, which a text can
    spell by chance, do not count.

    Raises:
        OSError: if it cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(_SCANNED)
        file.seek(0)
        imports, ends = _followed(_Bounded(file, path.stat().st_size))
    if not imports and not ends:
        return None
    dangerous, every = _imported(head, path)
    if not ends and not dangerous:
        return None
    names = (dangerous or every)[:_SHOWN]
    return f"imports {', '.join(names)}" if names else "imports nothing that is known"


def _followed(stream: io.BytesIO) -> tuple[bool, bool]:
    """Follow the opcodes: does one import, and does a call or the end come after that (or after a protocol's number)?"""
    stack: list[object] = []
    imports = marked = False
    try:
        for number, (code, argument, _) in enumerate(pickletools.genops(stream)):
            _apply(code, stack)
            marked = marked or code.name == "PROTO"
            if code.name in _IMPORTS:
                # a text can begin with "c", as GLOBAL does, but the two lines after it are seldom names
                if code.name in {"GLOBAL", "INST"} and not all(map(_NAME.fullmatch, str(argument).split(" "))):
                    return imports, False
                imports = True
            if ((imports or marked) and code.name in _ENDS) or number >= _MANY:
                return imports, True
    except _TooLongError:
        return imports, True
    except ValueError:
        pass
    return imports, False


def _apply(code: pickletools.OpcodeInfo, stack: list[object]) -> None:
    """Apply an opcode to the stack, which holds the kinds of values, not the values.

    Raises:
        ValueError: if the stack does not hold what it needs.
    """
    needed: list[pickletools.StackObject] = code.stack_before
    count = len(needed)
    mark = pickletools.markobject
    if mark in needed or (code.name == "POP" and stack and stack[-1] is mark):
        while stack and stack[-1] is not mark:
            stack.pop()
        if not stack:
            raise ValueError("no mark")
        stack.pop()
        count = needed.index(mark) if mark in needed else 0
    if count > len(stack):
        raise ValueError("the stack is too short")
    del stack[len(stack) - count :]
    stack += code.stack_after


def _imported(head: bytes, path: Path) -> tuple[list[str], list[str]]:
    """Find imports with picklescan: those that are dangerous, and all of them."""
    from picklescan.scanner import SafetyLevel, scan_pickle_bytes

    logging.getLogger("picklescan").setLevel(logging.CRITICAL)  # what it finds is said by our error
    try:
        found = scan_pickle_bytes(io.BytesIO(head), str(path)).globals
    except ValueError:  # an import with too few names on the stack
        return [], []
    named = sorted((g for g in found if _NAME.fullmatch(g.module) and _NAME.fullmatch(g.name)), key=lambda g: g.module)
    known = [g for g in named if "unknown" not in {g.module, g.name}]
    dangerous = [f"{g.module}.{g.name}" for g in known if g.safety is SafetyLevel.Dangerous]
    return dangerous, [f"{g.module}.{g.name}" for g in known]
