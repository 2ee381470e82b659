"""Fixtures of the library's tests: a model folder of one's own."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest


@pytest.fixture
def folder(tiny_model: Path, tmp_path: Path) -> Path:
    """A tiny model that a test may change."""
    return Path(shutil.copytree(tiny_model, tmp_path / "tiny"))
