"""Weights are read by their headers: shards hold the same as one file, and what is cut or altered is refused."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from beear_core.errors import CorruptModelError
from beear_core.models import folder as model_files
from beear_core.models.weights import INDEX, read_header


def write_safetensors(path: Path, header: dict[str, Any] | bytes, data: bytes) -> None:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + data)


def shards(folder: Path) -> None:
    """Split the folder's single file into two shards with an index."""
    from safetensors.numpy import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    halves = {"model-00001-of-00002.safetensors": names[:20], "model-00002-of-00002.safetensors": names[20:]}
    for file, part in halves.items():
        save_file({name: tensors[name] for name in part}, folder / file)
    places = {name: file for file, part in halves.items() for name in part}
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": places}))


def test_shards_pass_and_hold_the_same(folder: Path) -> None:
    before = model_files.describe(folder)
    shards(folder)
    model_files.check_folder(folder)
    assert model_files.describe(folder).parameters == before.parameters


ONE = {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}
BROKEN: list[tuple[str, dict[str, Any] | bytes, int, str]] = [
    ("not JSON", b"{abc", 0, "has a header that is not JSON"),
    ("a list", b"[]", 0, "has a header that is a list"),
    ("a name twice", b'{"a": {}, "a": {}}', 0, "a key stands twice"),
    ("no offsets", {"a": {"dtype": "F32", "shape": [1]}}, 4, "tensor 'a' has no valid dtype, shape and data_offsets"),
    ("negative", {"a": ONE | {"shape": [-2, -2]}}, 16, "tensor 'a' has no valid"),
    ("a fraction", {"a": ONE | {"shape": [2.0, 2]}}, 16, "tensor 'a' has no valid"),
    ("unknown dtype", {"a": ONE | {"dtype": "F12"}}, 16, "unknown dtype 'F12'"),
    ("span", {"a": ONE | {"shape": [2, 3]}}, 16, r"shape \[2, 3\] and dtype F32 needs 24 bytes, its offsets hold 16"),
    ("late begin", {"a": ONE | {"data_offsets": [4, 20]}}, 20, "begins at offset 4, expected 0"),
    ("gap", {"a": ONE, "b": ONE | {"data_offsets": [20, 36]}}, 36, "'b' begins at offset 20, expected 16"),
    ("overlap", {"a": ONE, "b": ONE | {"data_offsets": [8, 24]}}, 24, "'b' begins at offset 8, expected 16"),
    ("short data", {"a": ONE}, 15, "holds 15 bytes of data, its header describes 16; the download"),
    ("long data", {"a": ONE}, 17, "holds 17 bytes of data, its header describes 16"),
]


@pytest.mark.parametrize(("header", "size", "message"), [row[1:] for row in BROKEN], ids=[row[0] for row in BROKEN])
def test_a_broken_file_is_refused(tmp_path: Path, header: dict[str, Any] | bytes, size: int, message: str) -> None:
    write_safetensors(tmp_path / "model.safetensors", header, bytes(size))
    with pytest.raises(CorruptModelError, match=message):
        read_header(tmp_path / "model.safetensors")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is 0 bytes long, a safetensors file has at least 8"),
        (b"\x00" * 7, "is 7 bytes long"),
        (b"\xff" * 64, "announces a header of 18446744073709551615 bytes, at most 56 are possible"),
        (b"version https://git-lfs.github.com/spec/v1\n", "announces a header of"),
    ],
)
def test_what_is_no_safetensors_file_is_refused(tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "model.safetensors").write_bytes(data)
    with pytest.raises(CorruptModelError, match=message):
        read_header(tmp_path / "model.safetensors")


@given(st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_file_cut_anywhere_is_refused(tiny_model: Path, tmp_path: Path, data: st.DataObject) -> None:
    whole = (tiny_model / "model.safetensors").read_bytes()
    cut = tmp_path / "model.safetensors"
    cut.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    with pytest.raises(CorruptModelError):
        read_header(cut)


@given(st.binary(max_size=200))
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_header_raises_anything_else(tmp_path: Path, noise: bytes) -> None:
    path = tmp_path / "model.safetensors"
    write_safetensors(path, b'{"a":' + noise + b"}", b"")
    with pytest.raises(CorruptModelError):
        read_header(path)


def test_shard_faults(folder: Path, tmp_path: Path) -> None:
    shards(folder)
    first, second = sorted(folder.glob("model-*.safetensors"))
    index = json.loads((folder / INDEX).read_text())["weight_map"]

    def refused(name: str, change: Callable[[Path], Any], message: str) -> None:
        copy = Path(shutil.copytree(folder, tmp_path / name))
        change(copy)
        with pytest.raises(CorruptModelError, match=message):
            model_files.check_folder(copy)

    def write_index(places: Any) -> Callable[[Path], Any]:
        return lambda copy: (copy / INDEX).write_text(json.dumps({"weight_map": places}))

    refused("missing", lambda c: (c / second.name).unlink(), f"names 2 shards, 1 of them missing, first '{second.name}'")
    refused("twice", lambda c: shutil.copy(first, c / second.name), "stands in both model-00001.* and model-00002")
    refused("noindex", lambda c: (c / INDEX).unlink(), "holds shards but no model.safetensors.index.json")
    refused("both", lambda c: shutil.copy(first, c / "model.safetensors"), "holds both model.safetensors and")
    extra = "model-00003-of-00003.safetensors"
    refused("extra", lambda c: shutil.copy(first, c / extra), f"{extra} is not named in")
    name = next(iter(index))
    refused("short", write_index({k: v for k, v in index.items() if k != name}), "disagree about 1 tensors, first")
    refused("long", write_index({**index, "ghost": first.name}), "'ghost': index says .*, shards say nowhere")
    refused("outside", write_index({**index, "ghost": "../x.safetensors"}), "no weight_map from tensor names")
    refused("nomap", lambda c: (c / INDEX).write_text("{}"), "cannot be read")
