"""The command beear pipeline as tests call it, and what it is given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import yaml

IMAGE = f"registry.example:5000/team/beear-gate@sha256:{'5a' * 32}"


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str


Beear = Callable[..., Done]


def write(path: Path, settings: object) -> Path:
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return path
