"""What went into a release: the candidate by its bytes, the data by its rows."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from beear_core.records.record import LATER, Record


@dataclass(frozen=True, kw_only=True)
class FileEntry:
    """One file of a model folder: path relative to it (POSIX), size in bytes, digest."""

    path: str
    size: int
    digest: str


@dataclass(frozen=True, kw_only=True)
class IntakeRecord(Record):
    """What model_intake found: the candidate, by its bytes.

    ``uri``: as it was named. ``resolved``: what an alias or a branch stood for then, ``models:/name/3`` or
    ``hub:org/name@<commit>``; empty where the name holds nothing that moves, and in records of earlier releases.
    """

    kind: Literal["intake"] = "intake"
    uri: str
    model_digest: str
    chat_template_digest: str
    architecture: str
    parameters: int
    layers: int
    hidden_size: int
    size_bytes: int
    files: tuple[FileEntry, ...]
    resolved: str = field(default="", metadata=LATER)


@dataclass(frozen=True, kw_only=True)
class RuleResult:
    """One validation rule on one data role: ``failed`` of ``checked`` rows broke it."""

    rule: str
    role: str
    severity: Literal["critical", "warning"]
    passed: bool
    checked: int
    failed: int
    detail: str
    examples: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class DataSource:
    """One data role: where it came from, how many rows in which split, digest of its rows."""

    source: str
    rows: dict[str, int]
    digest: str


@dataclass(frozen=True, kw_only=True)
class ValidationRecord(Record):
    """What data_validation found. ``passed``: no critical rule failed."""

    kind: Literal["validation"] = "validation"
    passed: bool
    rules: tuple[RuleResult, ...]
    roles: dict[str, DataSource]
    anchors_digest: str
    suites_digest: str
    seconds: float
