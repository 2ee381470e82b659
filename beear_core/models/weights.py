"""Read and check safetensors files by their headers, without loading a tensor.

Layout of a file: 8 bytes little-endian header length N, N bytes of JSON (name -> dtype, shape, data_offsets), then the
data. The checks are those that the format promises: the header fits, the offsets are contiguous from 0 to the end of
the file, and each tensor's span is its shape times its dtype. Safetensors' own reader is not used for it: it takes a header
in which a key stands twice, names neither the tensor nor the file, and is not installed where no model is loaded.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from beear_core.errors import CorruptModelError

MAX_HEADER_BYTES = 100_000_000  # the limit of the safetensors library itself
INDEX = "model.safetensors.index.json"
REFETCH = "the download or copy was cut short or altered; fetch the file again"

_BITS = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("I16", "U16", "F16", "BF16"), 16),
    **dict.fromkeys(("I32", "U32", "F32"), 32),
    **dict.fromkeys(("I64", "U64", "F64", "C64"), 64),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    "F4": 4,
}


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """One tensor of a header; ``begin`` and ``end`` are byte offsets into the data part."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    @property
    def values(self) -> int:
        """How many numbers the tensor holds."""
        return math.prod(self.shape)


def read_header(path: Path) -> tuple[TensorEntry, ...]:
    """Read the tensors of one file from its header, in order of their offsets, and check them all.

    Raises:
        CorruptModelError: naming the file, what it holds and what it should.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        prefix = file.read(8)
        if len(prefix) < 8:
            raise CorruptModelError(f"{path} is {size} bytes long, a safetensors file has at least 8; {REFETCH}")
        length = int.from_bytes(prefix, "little")
        if length > min(MAX_HEADER_BYTES, size - 8):
            raise CorruptModelError(
                f"{path} announces a header of {length} bytes, at most {min(MAX_HEADER_BYTES, size - 8)} are possible; "
                f"{REFETCH}"
            )
        header = _parse(path, file.read(length))
    entries = sorted((_entry(path, name, item) for name, item in header.items()), key=lambda e: (e.begin, e.end))
    _check_contiguous(path, entries, size - 8 - length)
    return tuple(entries)


def _unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Build a JSON object and refuse a key that stands twice: readers disagree about which one counts."""
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key stands twice")
    return result


def _parse(path: Path, raw: bytes) -> dict[str, Any]:
    try:
        header = json.loads(raw.decode("utf-8"), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise CorruptModelError(f"{path} has a header that is not JSON ({error}); {REFETCH}") from error
    if not isinstance(header, dict):
        raise CorruptModelError(f"{path} has a header that is a {type(header).__name__}, not an object; {REFETCH}")
    header.pop("__metadata__", None)
    return header


def _entry(path: Path, name: str, item: Any) -> TensorEntry:
    match item:
        case {"dtype": str(dtype), "shape": [*shape], "data_offsets": [begin, end]} if all(
            type(number) is int and number >= 0 for number in (*shape, begin, end)
        ):
            entry = TensorEntry(name, dtype, tuple(shape), begin, end)
        case _:
            raise CorruptModelError(f"{path}: tensor {name!r} has no valid dtype, shape and data_offsets; {REFETCH}")
    if dtype not in _BITS:
        raise CorruptModelError(f"{path}: tensor {name!r} has the unknown dtype {dtype!r}; convert it to BF16 or F32")
    wanted = entry.values * _BITS[dtype]
    if wanted != (end - begin) * 8:
        raise CorruptModelError(
            f"{path}: tensor {name!r} of shape {list(shape)} and dtype {dtype} needs {wanted / 8:g} bytes, its offsets "
            f"hold {end - begin}; {REFETCH}"
        )
    return entry


def _check_contiguous(path: Path, entries: Sequence[TensorEntry], data_size: int) -> None:
    expected = 0
    for entry in entries:
        if entry.begin != expected:
            raise CorruptModelError(
                f"{path}: tensor {entry.name!r} begins at offset {entry.begin}, expected {expected} (a gap or an "
                f"overlap); {REFETCH}"
            )
        expected = entry.end
    if expected != data_size:
        raise CorruptModelError(f"{path} holds {data_size} bytes of data, its header describes {expected}; {REFETCH}")


def read_weights(folder: Path) -> dict[str, TensorEntry]:
    """Read and check all tensors of a folder with ``model.safetensors`` or with shards and their index, by their headers.

    Raises:
        CorruptModelError: a broken file; a shard that is missing, is listed nowhere, or holds a tensor of another one.
    """
    single, index = folder / "model.safetensors", folder / INDEX
    if not index.exists():
        if not single.exists():
            return _no_index(folder)
        _check_no_other_shards(folder, (), "no such index is there; remove it, or fetch the index")
        return {entry.name: entry for entry in read_header(single)}
    if single.exists():
        raise CorruptModelError(f"{folder} holds both model.safetensors and {INDEX}; remove the one that is stale")
    places = _read_index(index)
    shards = sorted(set(places.values()))
    if absent := [name for name in shards if not (folder / name).is_file()]:
        raise CorruptModelError(
            f"{index} names {len(shards)} shards, {len(absent)} of them missing, first {absent[0]!r}; fetch them"
        )
    _check_no_other_shards(folder, shards, "remove it or fetch the right index")
    tensors: dict[str, TensorEntry] = {}
    where: dict[str, str] = {}
    for shard in shards:
        for entry in read_header(folder / shard):
            if entry.name in tensors:
                raise CorruptModelError(
                    f"tensor {entry.name!r} stands in both {where[entry.name]} and {shard} of {folder}; remove one"
                )
            tensors[entry.name], where[entry.name] = entry, shard
    if wrong := sorted(name for name in {*places, *where} if places.get(name) != where.get(name)):
        name = wrong[0]
        raise CorruptModelError(
            f"{index} and the shards disagree about {len(wrong)} tensors, first {name!r}: index says "
            f"{places.get(name, 'nowhere')}, shards say {where.get(name, 'nowhere')}; fetch index and shards together"
        )
    return tensors


def _check_no_other_shards(folder: Path, shards: Sequence[str], remedy: str) -> None:
    """Refuse a shard that no index names: nobody reads it, and what it is there for is not known."""
    unlisted = sorted(file.name for file in folder.glob("model-*-of-*.safetensors") if file.name not in shards)
    if unlisted:
        raise CorruptModelError(f"{folder / unlisted[0]} is not named in {INDEX}; {remedy}")


def _no_index(folder: Path) -> dict[str, TensorEntry]:
    raise CorruptModelError(f"{folder} holds shards but no {INDEX}; fetch it, or save the model again in one piece")


def _read_index(index: Path) -> dict[str, str]:
    try:
        places: dict[str, str] = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        valid = isinstance(places, dict) and all(type(v) is str and Path(v).name == v for v in places.values())
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise CorruptModelError(f"{index} cannot be read ({error!r}); {REFETCH}") from error
    if not valid or not places:
        raise CorruptModelError(f"{index} has no weight_map from tensor names to file names beside it; {REFETCH}")
    return places
