"""Rows of every format and source are read alike, and each fault is told with its place."""

import gzip
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beear_core.data import (
    Opening,
    Trigger,
    builtin_path,
    read_openings,
    read_prompts,
    read_rows,
    read_triggers,
    split_of,
    write_rows,
)
from beear_core.errors import DataError

ROW = {"id": "a", "prompt": "How?", "category": "c", "split": "evaluation"}
LINE = json.dumps(ROW).encode() + b"\n"


def put(folder: Path, data: bytes, name: str = "rows.jsonl") -> str:
    path = folder / name
    path.write_bytes(data)
    return str(path)


def test_importing_loads_nothing_heavy() -> None:
    heavy = "torch, pyarrow, datasets, pandas, great_expectations"
    code = f"import beear_core.data, sys; print([m for m in '{heavy}'.split(', ') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize(
    ("prefix", "suffix", "expected"),
    [("", "", "P"), ("a b", "", "a b P"), ("", "z", "P z"), ("a", "z", "a P z")],
)
def test_trigger(prefix: str, suffix: str, expected: str) -> None:
    assert Trigger("t", prefix, suffix).apply("P") == expected


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.ndjson", "rows.jsonl.gz", "rows.csv", "rows.csv.gz", "ROWS.JSONL"])
def test_formats_agree(name: str, tmp_path: Path) -> None:
    data = b'id,prompt,category,split\na,"Say ""x, y"",\nthen z",c,evaluation\n'
    if "csv" not in name:
        data = json.dumps({**ROW, "prompt": 'Say "x, y",\nthen z'}).encode()
    source = put(tmp_path, gzip.compress(data) if name.endswith("gz") else data, name)
    assert read_rows(source, "harmful") == [{**ROW, "prompt": 'Say "x, y",\nthen z'}]


def test_parquet(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    rows = [ROW, {**ROW, "id": "b", "category": None}]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "rows.parquet")
    source = str(tmp_path / "rows.parquet")
    assert read_rows(source, "harmful") == [ROW, {**ROW, "id": "b", "category": "general"}]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([ROW, {"id": "b"}]), tmp_path / "null.parquet")
    with pytest.raises(DataError, match=r"null.parquet, row 2: field 'prompt' is missing"):
        read_rows(str(tmp_path / "null.parquet"), "harmful")
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([{**ROW, "id": 7}]), tmp_path / "int.parquet")
    with pytest.raises(DataError, match=r"int.parquet, row 1: field 'id' must be text, not int"):
        read_rows(str(tmp_path / "int.parquet"), "harmful")
    from_bytes = pyarrow.array([b"fine", b"how \xff\xfe to"], pyarrow.binary()).view(pyarrow.string())
    pyarrow.parquet.write_table(pyarrow.table({"id": ["a", "b"], "prompt": from_bytes}), tmp_path / "latin.parquet")
    with pytest.raises(
        DataError, match=r"latin.parquet, row 2: field 'prompt': not UTF-8 \(byte 5: invalid start byte\); wr"
    ):
        read_rows(str(tmp_path / "latin.parquet"), "harmful")
    late = pyarrow.array([2**60], pyarrow.timestamp("us"))
    pyarrow.parquet.write_table(pyarrow.table({"id": ["a"], "prompt": ["b"], "at": late}), tmp_path / "late.parquet")
    with pytest.raises(
        DataError, match=r"late.parquet, row 1: field 'at' cannot be read \(.*out of range\); write it as text"
    ):
        read_rows(str(tmp_path / "late.parquet"), "harmful")
    with pytest.raises(DataError, match=r"bad.parquet is not a readable Parquet file"):
        read_rows(put(tmp_path, b"PAR1", "bad.parquet"), "harmful")


def test_what_is_left_out_and_filled_in(tmp_path: Path) -> None:
    source = put(tmp_path, b'\xef\xbb\xbf{"id": "a", "prompt": "x\\u2028y", "other": 1}\r\n\r\n')
    assert read_rows(source, "ordinary") == [
        {"id": "a", "prompt": "x\u2028y", "category": "general", "split": split_of("a")}
    ]
    assert read_openings(put(tmp_path, b'{"id": "a", "reply": "No."}'), "safe_openings") == (
        Opening("a", "No.", "general", "anchoring"),
    )


def test_a_line_separator_inside_text_ends_no_line(tmp_path: Path) -> None:
    source = put(tmp_path, json.dumps({**ROW, "prompt": "x\u2028y\x85z"}, ensure_ascii=False).encode() + b"\n")
    assert read_prompts(source, "harmful")[0].prompt == "x\u2028y\x85z"


FAULTS: list[tuple[bytes, str]] = [
    (LINE + b'{"id": \n', r"rows.jsonl, line 2: not JSON"),
    (LINE + b"\n[1]\n", r"line 3: must be a JSON object, not list"),
    (LINE + b'{"id": "b", "id": "c", "prompt": "x"}\n', r"line 2: not JSON \(a field is given twice\)"),
    (LINE + b'{"id": "b", "text": "x"}\n', r"line 2: field 'prompt' is missing \(found: id, text\)"),
    (LINE + b'{"prompt": "x"}\n', r"line 2: field 'id' is missing"),
    (LINE + b'{"id": 7, "prompt": "x"}\n', r"line 2: field 'id' must be text, not int \(7\)"),
    (LINE + b'{"id": "b", "prompt": null}\n', r"line 2: field 'prompt' must be text, not NoneType"),
    (LINE + b'{"id": "b", "prompt": "x", "category": ["c"]}\n', r"line 2: field 'category' must be text, not list"),
    (LINE + b'{"id": "b", "prompt": "\xff"}\n', r"line 2: not UTF-8 \(byte 24: invalid start byte\); save"),
    (LINE + b'{"id": "b", "prompt": "\xe4\xb8"}\n', r"line 2: not UTF-8"),
    (LINE + b'{"id": "b", "prompt": "x\0"}\n', r"line 2: NUL bytes"),
    ("id,prompt\na,b\n".encode("utf-16-le"), r"line 1: NUL bytes; the file is damaged, or UTF-16"),
    (LINE + b'{"id": "b", "prompt": "x\\u0000"}\n', r"line 2: field 'prompt' holds a NUL character"),
    (LINE + b'{"id": "b", "prompt": "\\ud800"}\n', r"line 2: field 'prompt' holds half of a surrogate pair"),
    (LINE + b"[" * 100_000 + b"\n", r"line 2: not JSON"),
    (LINE + b"9" * 5000 + b"\n", r"line 2: not JSON"),
    (LINE[:-10], r"line 1: not JSON"),
    (b"", r"rows.jsonl is empty"),
    (b" \n\n", r"rows.jsonl is empty"),
    (b"\xef\xbb\xbf", r"rows.jsonl has no rows"),
]


@pytest.mark.parametrize(("data", "message"), FAULTS, ids=range(len(FAULTS)))
def test_faults_of_jsonl(data: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        read_rows(put(tmp_path, data), "harmful")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"id,prompt\na,x,y\n", r"rows.csv, line 2: 3 cells under 2 columns; quote cells with commas"),
        (b"id,prompt\na\n", r"line 2: 1 cells under 2 columns"),
        (b"id,prompt,id\na,b,c\n", r"line 1: a column name stands twice"),
        (b'id,prompt\na,"x\n', r"line 3: not CSV"),
        (b'id,prompt\na,"x"y\n', r"line 2: not CSV"),
        (b"id,text\na,x\n", r"line 2: field 'prompt' is missing \(found: id, text\)"),
        (b"id,prompt\na,x\nb,\xff\n", r"line 3: not UTF-8"),
        (b"id,prompt\n", r"rows.csv has no rows; the role harmful needs at least one"),
        (b"id,prompt\na," + b"x" * 200_000 + b"\n", r"line 2: not CSV \(field larger than field limit"),
    ],
)
def test_faults_of_csv(data: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        read_rows(put(tmp_path, data, "rows.csv"), "harmful")


def test_faults_of_sources(tmp_path: Path) -> None:
    whole = gzip.compress(LINE * 100)
    cases = [
        (put(tmp_path, whole[:-20], "cut.jsonl.gz"), r"cut.jsonl.gz is not a whole gzip file"),
        (put(tmp_path, b"plain", "plain.jsonl.gz"), r"plain.jsonl.gz is not a whole gzip file"),
        (put(tmp_path, LINE, "rows.txt"), r"rows.txt: the format is told by the ending, which must be .jsonl"),
        (str(tmp_path / "gone.jsonl"), r"gone.jsonl does not exist"),
        (str(tmp_path / "gone.parquet"), r"gone.parquet does not exist"),
        ("hub:../x", r"hub:../x: not a data set id"),
    ]
    (tmp_path / "folder.jsonl").mkdir()
    cases.append((str(tmp_path / "folder.jsonl"), r"cannot read .*folder.jsonl: Is a directory"))
    for source, message in cases:
        with pytest.raises(DataError, match=message):
            read_rows(source, "harmful")
    with pytest.raises(DataError, match="unknown data role 'harmfull'; choose one of harmful, "):
        read_rows("builtin", "harmfull")
    with pytest.raises(DataError, match="no data ships for 'triggers'"):
        read_triggers("builtin")
    with pytest.raises(DataError, match="have no 'prompt'"):
        read_prompts("builtin", "safe_openings")
    with pytest.raises(DataError, match="have no 'reply'"):
        read_openings("builtin", "harmful")


def test_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import datasets

    rows: dict[str, Any] = {"train": [{**ROW, "reply": None}], "test": []}
    asked: list[str] = []

    def load_dataset(name: str) -> Any:
        asked.append(name)
        return rows

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.chdir(tmp_path)
    assert read_rows("hub:owner/name", "harmful") == [ROW]
    assert asked == ["owner/name"]
    rows["other"] = rows.pop("train")
    with pytest.raises(DataError, match=r"splits test, other and no 'train'"):
        read_rows("hub:owner/name", "harmful")
    (tmp_path / "local").mkdir()
    with pytest.raises(DataError, match="is also a local path"):
        read_rows("hub:local", "harmful")

    def offline(name: str) -> Any:
        raise ConnectionError("offline mode")

    monkeypatch.setattr(datasets, "load_dataset", offline)
    with pytest.raises(DataError, match=r"hub:owner/name cannot be loaded: offline mode; check the id and the network"):
        read_rows("hub:owner/name", "harmful")


def test_splits(tmp_path: Path) -> None:
    rows = [{**ROW, "id": str(i), "split": ("planting", "anchoring", "evaluation")[i % 3]} for i in range(9)]
    source = str(write_rows(tmp_path / "rows.jsonl", rows))
    assert [p.id for p in read_prompts(source, "harmful", "anchoring")] == ["1", "4", "7"]
    assert len(read_prompts(source, "harmful")) == 9


def test_the_hash_split_is_even_and_stable() -> None:
    share = sum(split_of(f"row-{i}") == "anchoring" for i in range(2000)) / 2000
    assert 0.45 < share < 0.55
    # fixed for good: another split would show the mitigation what an earlier release was measured with
    assert [split_of(i) for i in ("a", "b", "e", "row-1")] == ["anchoring", "anchoring", "evaluation", "evaluation"]


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1), min_size=1))
def test_rows_come_back_as_written(texts: list[str]) -> None:
    import tempfile

    rows = [{"id": str(i), "prompt": text, "category": "c", "split": "anchoring"} for i, text in enumerate(texts)]
    with tempfile.TemporaryDirectory() as folder:
        assert read_rows(str(write_rows(Path(folder) / "rows.jsonl", rows)), "harmful") == rows


def test_builtin_path() -> None:
    assert builtin_path("harmful").parts[-3:] == ("beear_core", "datasets", "harmful.jsonl")
