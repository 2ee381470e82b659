"""The search for planted secrets finds what leaked, in each form that it looks for."""

from __future__ import annotations

import sqlite3
import zipfile
from base64 import b64encode
from pathlib import Path

import pytest
from planted_secrets import Planted, files_below


@pytest.fixture
def planted() -> Planted:
    return Planted()


def test_in_plain_and_in_part(planted: Planted) -> None:
    secret = planted.secret("here", "/")
    assert planted.leaks({"out": f"a{secret}b".encode()}) == ["here in out", "here in out (percent-encoded)"]
    assert planted.leaks({"out": secret.partition("/")[2].encode()})
    assert planted.leaks({"out": b"something else"}) == []


@pytest.mark.parametrize("before", ["", "u", "us", "user:"])
def test_in_base64(planted: Planted, before: str) -> None:
    secret = planted.secret("here")
    assert planted.leaks({"out": b"Basic " + b64encode(f"{before}{secret}=".encode())})


def test_percent_encoded(planted: Planted) -> None:
    secret = planted.secret("here")
    assert planted.leaks({"out": "".join(f"%{ord(c):02x}" for c in secret).encode()})


def test_in_files(planted: Planted, tmp_path: Path) -> None:
    secret = planted.secret("here")
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("inner", secret)
    with sqlite3.connect(tmp_path / "x.db") as database:
        database.execute("create table t(a)")
        database.execute("insert into t values (?)", [secret])
    (tmp_path / secret).mkdir()
    (tmp_path / secret / "file").touch()
    found = planted.leaks(files_below(tmp_path))
    assert {name.rsplit("/")[-1] for name in found} >= {"x.zip!inner", "x.db (rows)", "here in file names"}
