"""A check that is skipped because something is missing fails where everything is to be there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
MISSING = """
import pytest
from required import ROOT_ONLY

@pytest.mark.skipif(True, reason="Chromium is not installed: apt-get install chromium")
def test_marked(): ...

@pytest.fixture
def server():
    pytest.skip("buildah is not installed: apt-get install buildah")

def test_by_a_fixture(server): ...

def test_by_an_import():
    pytest.importorskip("a_wheel_that_is_not_there", reason="pip install a-wheel-that-is-not-there")

@pytest.mark.xfail(reason="a known fault", strict=True)
def test_known(): assert False

def test_mounts():
    pytest.skip(ROOT_ONLY)

def test_runs(): ...
"""
WHOLE = 'import pytest\npytest.skip("Ceph is not installed: apt-get install radosgw", allow_module_level=True)\n'


def run(folder: Path, text: str, required: str) -> tuple[int, str]:
    (folder / "test_it.py").write_text(text)
    (folder / "pytest.ini").write_text("[pytest]\n")
    command = [sys.executable, "-m", "pytest", "-p", "required", "-ra", "-p", "no:cacheprovider", "test_it.py"]
    environment = os.environ | {"PYTHONPATH": str(TESTS), "BEEAR_REQUIRE_SERVICES": required}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=120)
    return done.returncode, done.stdout


def test_what_is_missing_is_skipped_where_it_may_be(tmp_path: Path) -> None:
    code, said = run(tmp_path, MISSING, "")
    assert code == 0
    assert "1 passed, 4 skipped, 1 xfailed" in said
    assert "apt-get install chromium" in said


def test_and_fails_where_everything_is_to_be_there_and_says_what_to_install(tmp_path: Path) -> None:
    code, said = run(tmp_path, MISSING, "1")
    assert code == 1
    assert "1 failed, 1 passed, 1 skipped, 1 xfailed, 2 errors" in said
    for remedy in ("apt-get install chromium", "apt-get install buildah", "pip install a-wheel-that-is-not-there"):
        assert remedy in said


@pytest.mark.parametrize(("required", "code"), [("", 5), ("1", 2)])
def test_a_file_that_is_skipped_as_a_whole(tmp_path: Path, required: str, code: int) -> None:
    ended, said = run(tmp_path, WHOLE, required)
    assert (ended, "apt-get install radosgw" in said) == (code, True)
