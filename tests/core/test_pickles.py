"""Every pickle is told by its content, of any protocol, padded, broken off or in disguise; no text and no weights are."""

from __future__ import annotations

import logging
import os
import pickle
import struct
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from beear_core.models.pickles import pickled


class Calls:
    """Unpickling it calls a function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.what = (function, arguments)

    def __reduce__(self) -> Any:
        return self.what


def told(folder: Path, data: bytes) -> str | None:
    path = folder / "notes.txt"
    path.write_bytes(data)
    return pickled(path)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("function", [print, os.system, Calls], ids=["print", "os.system", "a class of ours"])
def test_a_call_is_found_in_every_protocol(tmp_path: Path, function: Any, protocol: int) -> None:
    data = pickle.dumps({"weights": [1.0, Calls(function, "echo")]}, protocol)
    found = told(tmp_path, data)
    assert found is not None
    assert found.startswith("imports ")
    assert told(tmp_path, data[:-1]) == found, "broken off behind the call, which is made all the same"


def test_what_is_imported_is_named(tmp_path: Path) -> None:
    assert told(tmp_path, b"cos\nsystem\n(S'id'\ntR.") == "imports os.system"
    assert told(tmp_path, b"cmy.module\nrun\n)R.") == "imports my.module.run"


def test_a_dangerous_import_is_enough(tmp_path: Path) -> None:
    assert told(tmp_path, b"cbuiltins\neval\nand then it breaks off") == "imports builtins.eval"
    assert told(tmp_path, b"cat\ndog\nand then it goes on as text") is None


@pytest.mark.parametrize(
    "padding",
    [
        b"N0" * 20_000,
        b"V" + b"x" * 100_000 + b"\n0",
        b"(" + b"N" * 500 + b"1",
        b"B" + struct.pack("<I", 17 << 20) + bytes(17 << 20),
    ],
    ids=["many opcodes", "a long line", "a mark", "a long argument"],
)
def test_padding_hides_nothing(tmp_path: Path, padding: bytes) -> None:
    assert told(tmp_path, padding + b"cos\nsystem\n(S'id'\ntR.") is not None


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            ".",
            "N.",
            "I5\n.",
            "(lp0\n.",
            "]",
            "0",
            "12\n",
            "config\nfor all\n",
            "cat\ndog\nbird\n",
            "success\nfailure\n",
        ),
        *("import os\nos.system('id')\n", "(i) the first\n(ii) the second\n", "import\nos\n", "Copyright 2024", "c" * 1000),
        *(
            '{"a": "cos\\nsystem\\n(tR."}',
            "[1, 2]",
            "null",
            "#version: 0.2\nt h\n",
            "GGUF\x03\x00\x00\x00",
            "\x0a\x0e<unk>",
        ),
        *(
            "tcp\nudp\n",
            "T" + "ext and more of it " * 99,
            "X marks the spot",
            "B" * 999,
            "Привет\nмир\n",
            "abc",
            "}u.",
            "((((",
            "Q.",
        ),
    ],
)
def test_texts_are_none(tmp_path: Path, text: str) -> None:
    assert told(tmp_path, text.encode()) is None


def test_nothing_that_ships_with_python_reads_as_one() -> None:
    files = [path for path in Path(os.__file__).parent.glob("*.*") if path.is_file()]
    assert len(files) > 100
    assert [path.name for path in files if pickled(path)] == []


@given(st.binary(max_size=300) | st.text(max_size=300).map(str.encode))
@example(b"\x93")
@example(b"N\x93")
@example(b"cos\nsystem\n\x93")
@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_noise_raises_nothing_and_what_unpickles_to_a_call_is_found(tmp_path: Path, noise: bytes) -> None:
    told(tmp_path, noise)
    assert told(tmp_path, b"(S'" + noise.hex().encode() + b"'\nt0cbuiltins\nprint\n(tR" + noise) is not None


def test_a_length_that_is_made_up_costs_no_memory(tmp_path: Path) -> None:
    tracemalloc.start()
    assert told(tmp_path, b"\x8e" + struct.pack("<Q", 1 << 40) + b"x") is None
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.write(b"\x8e" + struct.pack("<Q", 1 << 32))
        file.truncate(1 << 33)
    assert pickled(path) is not None
    assert tracemalloc.get_traced_memory()[1] < 100e6
    tracemalloc.stop()


def test_the_scanner_does_not_speak_for_itself(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        assert told(tmp_path, b"cos\nsystem\n(S'id'\ntR.")
    assert caplog.text == ""


def test_no_torch_is_loaded(tmp_path: Path) -> None:
    import subprocess

    (tmp_path / "p").write_bytes(pickle.dumps(Calls(print), 0))
    code = "import sys, pathlib; from beear_core.models.pickles import pickled; assert pickled(pathlib.Path(sys.argv[1]))"
    code += "; assert not {'torch', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "p")], check=True)
