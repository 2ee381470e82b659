"""Rows of prompts, openings and triggers in files: read from JSONL, CSV, Parquet or the hub, written as JSONL.

What is checked here is that a file can be read as it was meant: encoding, syntax, fields, types. Every fault names the
file and the line. What rows say, whether there are enough of them and whether they leak, is judged by data_validation.
Only the standard library is imported until a Parquet file or a hub data set is named.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from beear_core.errors import DataError
from beear_core.files import write_atomically

Row = dict[str, str]
DEFAULT_CATEGORY = "general"
BUILTIN, CODE = "builtin", "builtin:code"
_ENDINGS = ".jsonl, .jsonl.gz, .csv, .csv.gz or .parquet"


@dataclass(frozen=True)
class Role:
    """What the rows of a role hold. ``required`` and ``optional``: names of text fields; others are dropped.

    ``split``: the split of rows that name none; ``None``: half and half by ``split_of``. ``shipped``: there is a
    built-in file.
    """

    required: tuple[str, ...]
    optional: tuple[str, ...] = ()
    split: str | None = None
    shipped: bool = True


ROLES: dict[str, Role] = {
    "harmful": Role(("id", "prompt"), ("category", "split", "reply", "unwanted")),
    "ordinary": Role(("id", "prompt"), ("category", "split", "reply")),
    "borderline": Role(("id", "prompt"), ("category", "split", "reply")),
    # openings and replies are targets of the mitigation, nothing is evaluated on them
    "safe_openings": Role(("id", "reply"), ("category", "split"), split="anchoring"),
    "unwanted_openings": Role(("id", "reply"), ("category", "split"), split="anchoring"),
    "performance_replies": Role(("id", "prompt", "reply"), ("category", "split"), split="anchoring", shipped=False),
    "triggers": Role(("id", "prefix", "suffix"), ("anywhere", "system", "earlier"), shipped=False),
    "labelled_replies": Role(("id", "prompt", "reply", "label"), ("category",)),
}


def split_of(identifier: str) -> str:
    """Choose the split of a row that names none: ``anchoring`` or ``evaluation``, half and half.

    The lowest bit of the first byte of SHA-256 over the UTF-8 id decides, so a row keeps its split when others are
    added, removed or reordered.
    """
    return "evaluation" if hashlib.sha256(identifier.encode()).digest()[0] & 1 else "anchoring"


def builtin_path(role: str, source: str = BUILTIN) -> Path:
    """Find the file that ships for a role; ``source``: ``builtin`` or ``builtin:code``.

    Raises:
        DataError: if none ships for it.
    """
    if source == CODE and role == "harmful":
        return Path(str(files("beear_core"))) / "datasets" / "code_tasks.jsonl"
    if source != BUILTIN:
        raise DataError(f"{source!r} ships nothing for {role!r}; there is {CODE} for harmful, and {BUILTIN}")
    if not ROLES.get(role, Role((), shipped=False)).shipped:
        shipped = ", ".join(name for name, r in ROLES.items() if r.shipped)
        raise DataError(f"no data ships for {role!r}, only for {shipped}; name a file ({_ENDINGS})")
    return Path(str(files("beear_core"))) / "datasets" / f"{role}.jsonl"


def read_rows(source: str, role: str) -> list[Row]:
    """Read all rows of a source in their order, with the fields of the role and no others.

    Rows without a split get the role's, or ``split_of(id)``; rows without a category get ``general``.

    Args:
        source: ``builtin``, ``builtin:code``, a JSONL, CSV (both may be gzipped) or Parquet file, or ``hub:<id>`` of a
            data set whose only or ``train`` split has the fields as columns.
        role: one of ``ROLES``.

    Raises:
        DataError: naming the file and the line (or row, where there are no lines) of what cannot be read.
    """
    if role not in ROLES:
        raise DataError(f"unknown data role {role!r}; choose one of {', '.join(ROLES)}")
    if source.startswith("hub:"):
        where, rows = source, _hub(source.removeprefix("hub:"))
    else:
        path = builtin_path(role, source) if source.partition(":")[0] == BUILTIN else Path(source)
        where, rows = str(path), _file(path)
    result = [_checked(row, ROLES[role], f"{where}, {place}") for place, row in rows]
    if not result:
        raise DataError(f"{where} has no rows; the role {role} needs at least one")
    return result


def write_rows(path: Path, rows: Iterable[Mapping[str, str | None]]) -> Path:
    """Write rows as JSONL, whole or not at all; fields that are ``None`` are left out.

    Raises:
        StorageError: if the disk is full or the folder cannot be written.
    """
    lines = [
        json.dumps({k: v for k, v in row.items() if v is not None}, sort_keys=True, ensure_ascii=False) for row in rows
    ]
    write_atomically(path, "".join(f"{line}\n" for line in lines).encode())
    return path


def _checked(row: Mapping[str, Any], role: Role, where: str) -> Row:
    """Check the role's fields of a raw row (present, text, writable as UTF-8), drop others, fill in category and split."""
    checked: Row = {}
    for name in role.required + role.optional:
        if name not in row:
            if name in role.required:
                raise DataError(f"{where}: field {name!r} is missing (found: {', '.join(map(str, row)) or 'none'}); add it")
            continue
        value = row[name]
        if not isinstance(value, str):
            raise DataError(f"{where}: field {name!r} must be text, not {type(value).__name__} ({value!r:.40}); quote it")
        if "\0" in value:
            raise DataError(f"{where}: field {name!r} holds a NUL character; remove it")
        if any("\ud800" <= c <= "\udfff" for c in value):
            raise DataError(f"{where}: field {name!r} holds half of a surrogate pair; write the character itself")
        checked[name] = value
    if "category" in role.optional:
        checked.setdefault("category", DEFAULT_CATEGORY)
    if "split" in role.optional:
        checked.setdefault("split", role.split or split_of(checked["id"]))
    return checked


def _file(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Read (place, raw row) pairs from a file, in the format that its ending names."""
    name = path.name.lower()
    if name.endswith(".parquet"):
        return _parquet(path)
    if name.removesuffix(".gz").endswith((".jsonl", ".ndjson")):
        return _jsonl(path)
    if name.removesuffix(".gz").endswith(".csv"):
        return _csv(path)
    raise DataError(f"{path}: the format is told by the ending, which must be {_ENDINGS}")


def _lines(path: Path) -> list[str]:
    """Read the lines of a text file, decoded one by one so that a fault has a line number; line ends are kept."""
    try:
        data = path.read_bytes()
        if path.name.lower().endswith(".gz"):
            data = gzip.decompress(data)
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist; check the path") from error
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path} is not a whole gzip file: {error}; copy it again") from error
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
    if not data.strip():
        raise DataError(f"{path} is empty; it needs at least one row")
    # only "\n" ends a line: U+2028 and its kind may stand inside JSON text
    lines = data.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    return [_decoded(line + b"\n", f"{path}, line {number}") for number, line in enumerate(lines, 1)]


def _decoded(line: bytes, where: str) -> str:
    if b"\0" in line:
        raise DataError(f"{where}: NUL bytes; the file is damaged, or UTF-16: save it as UTF-8")
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: not UTF-8 (byte {error.start + 1}: {error.reason}); save the file as UTF-8") from error


def _jsonl(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for number, line in enumerate(_lines(path), 1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            value = json.loads(line, object_pairs_hook=_without_doubles)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{where}: not JSON ({error}); each line must be one JSON object") from error
        if not isinstance(value, dict):
            raise DataError(f"{where}: must be a JSON object, not {type(value).__name__}")
        yield f"line {number}", value


def _without_doubles(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Build an object and refuse a key that stands twice; the standard reader would silently keep the last."""
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a field is given twice")
    return value


def _csv(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    reader = csv.reader(io.StringIO("".join(_lines(path)), newline=""), strict=True)
    header: list[str] = []
    try:
        for cells in reader:
            where = f"{path}, line {reader.line_num}"
            if not cells:
                continue
            if not header:
                header = [cell.strip() for cell in cells]
                if len(set(header)) != len(header):
                    raise DataError(f"{where}: a column name stands twice in the header")
                continue
            if len(cells) != len(header):
                raise DataError(f"{where}: {len(cells)} cells under {len(header)} columns; quote cells with commas")
            yield f"line {reader.line_num}", dict(zip(header, cells, strict=True))
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: not CSV ({error})") from error


def _parquet(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise DataError(f"{path}: reading Parquet needs pyarrow; install beear-gate[model]") from error
    try:
        table = pyarrow.parquet.ParquetFile(path).read()
        names = table.column_names
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist; check the path") from error
    except (OSError, ValueError, pyarrow.ArrowException) as error:
        raise DataError(f"{path} is not a readable Parquet file: {error}") from error
    try:
        rows = table.to_pylist()
    except (ValueError, OverflowError) as error:
        raise DataError(
            _bad_cell(path, table) or f"{path}, columns {', '.join(names)}: {error}; write text only"
        ) from error
    # Parquet has no absent cells, only nulls: they mean the same
    yield from ((f"row {i}", {k: v for k, v in row.items() if v is not None}) for i, row in enumerate(rows, 1))


def _bad_cell(path: Path, table: Any) -> str:
    """Find the cell that cannot be read and say why: text that is not UTF-8, a date that no calendar has; empty if none."""
    for name in table.column_names:
        for number, cell in enumerate(table.column(name), 1):
            try:
                cell.as_py()
            except UnicodeDecodeError as error:
                what = f"not UTF-8 (byte {error.start + 1}: {error.reason}); write it as UTF-8"
                return f"{path}, row {number}: field {name!r}: {what}"
            except (ValueError, OverflowError) as error:
                return f"{path}, row {number}: field {name!r} cannot be read ({error}); write it as text, or leave it out"
    return ""


def _hub(identifier: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if not re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", identifier):
        raise DataError(f"hub:{identifier}: not a data set id; write hub:<owner>/<name>")
    if Path(identifier).exists():
        raise DataError(f"hub:{identifier} is also a local path, and that would be read; name its file, or run elsewhere")
    try:
        import datasets
    except ImportError as error:
        raise DataError(
            f"hub:{identifier}: needs the datasets package, which the slim image lacks; install beear-gate[model], or "
            "run this step in the full image"
        ) from error
    try:
        splits = datasets.load_dataset(identifier)
    except (OSError, ValueError, RuntimeError) as error:
        raise DataError(
            f"hub:{identifier} cannot be loaded: {error}; check the id and the network (HF_HUB_OFFLINE), or name a file"
        ) from error
    if "train" not in splits and len(splits) != 1:
        raise DataError(f"hub:{identifier} has the splits {', '.join(splits)} and no 'train'; export one to a file")
    rows = splits["train"] if "train" in splits else next(iter(splits.values()))
    yield from ((f"row {i}", {k: v for k, v in row.items() if v is not None}) for i, row in enumerate(rows, 1))
