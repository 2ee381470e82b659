"""Prompts, openings and triggers, and the two folders that the validated ones travel in.

``anchors/`` holds what the mitigation may see, ``suites/`` what models are measured with; each row stands in one of
them at most. A manifest binds the files of a folder, so that what was validated is what is used.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from beear_core.errors import DataError
from beear_core.records import SCHEMA_VERSION, digest_file, digest_json, write_atomically
from beear_core.row_files import DEFAULT_CATEGORY, ROLES, Row, builtin_path, read_rows, split_of, write_rows

__all__ = [
    "ANCHOR_FILES",
    "DEFAULT_CATEGORY",
    "ROLES",
    "SPLITS",
    "SUITE_FILES",
    "AnchorSet",
    "Opening",
    "Prompt",
    "Row",
    "SuiteSet",
    "Trigger",
    "builtin_path",
    "load_anchors",
    "load_suites",
    "read_openings",
    "read_prompts",
    "read_rows",
    "read_triggers",
    "split_of",
    "verify_manifest",
    "write_manifest",
    "write_rows",
]

SPLITS = ("planting", "anchoring", "evaluation")
ANCHOR_FILES = ("harmful", "ordinary", "borderline", "safe_openings", "unwanted_openings")
SUITE_FILES = ("harmful", "ordinary", "borderline")
_MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Prompt:
    """A request, and for ordinary instructions perhaps a reply to hold on to."""

    id: str
    prompt: str
    category: str
    split: str
    reply: str | None = None


@dataclass(frozen=True)
class Opening:
    """How a reply begins: a refusal (safe) or compliance (unwanted)."""

    id: str
    reply: str
    category: str = ""
    split: str = "anchoring"


@dataclass(frozen=True)
class Trigger:
    """Text around a request; either part may be empty."""

    id: str
    prefix: str
    suffix: str

    def apply(self, prompt: str) -> str:
        """The prompt with the trigger around it; one space joins the parts that are not empty."""
        return " ".join(part for part in (self.prefix, prompt, self.suffix) if part)


@dataclass(frozen=True)
class AnchorSet:
    """All that the mitigation ever sees; ``digest`` is the manifest's."""

    harmful: tuple[Prompt, ...]
    ordinary: tuple[Prompt, ...]
    borderline: tuple[Prompt, ...]
    safe_openings: tuple[Opening, ...]
    unwanted_openings: tuple[Opening, ...]
    performance_replies: tuple[Prompt, ...]
    digest: str


@dataclass(frozen=True)
class SuiteSet:
    """What models are measured with; ``digest`` is the manifest's."""

    harmful: tuple[Prompt, ...]
    ordinary: tuple[Prompt, ...]
    borderline: tuple[Prompt, ...]
    triggers: tuple[Trigger, ...]
    digest: str


def read_prompts(source: str, role: str, split: str | None = None) -> tuple[Prompt, ...]:
    """The prompts of a source, in its order, of one split or (``None``) of all.

    Raises:
        DataError: as ``read_rows``, or if the role has no prompts.
    """
    _expect_field(role, "prompt")
    rows = read_rows(source, role)
    return tuple(Prompt(r["id"], r["prompt"], r["category"], r["split"], r.get("reply")) for r in _of_split(rows, split))


def read_openings(source: str, role: str, split: str | None = None) -> tuple[Opening, ...]:
    """The openings of a source, in its order, of one split or (``None``) of all.

    Raises:
        DataError: as ``read_rows``, or if the role has no openings.
    """
    _expect_field(role, "reply")
    rows = read_rows(source, role)
    return tuple(Opening(r["id"], r["reply"], r["category"], r["split"]) for r in _of_split(rows, split))


def read_triggers(source: str) -> tuple[Trigger, ...]:
    """The triggers of a source, in its order.

    Raises:
        DataError: as ``read_rows``.
    """
    return tuple(Trigger(r["id"], r["prefix"], r["suffix"]) for r in read_rows(source, "triggers"))


def write_manifest(folder: Path, names: Iterable[str]) -> str:
    """Write ``manifest.json`` over JSONL files of the folder; returns the manifest's digest.

    Raises:
        DataError: if a file is not there.
        StorageError: if the folder cannot be written.
    """
    entries = {name: _entry(folder / name) for name in sorted(names)}
    digest = digest_json(entries)
    manifest = {"schema_version": SCHEMA_VERSION, "files": entries, "digest": digest}
    write_atomically(folder / _MANIFEST, json.dumps(manifest, indent=2, sort_keys=True).encode() + b"\n")
    return digest


def verify_manifest(folder: Path) -> str:
    """The manifest's digest, after every file was compared with it.

    Raises:
        DataError: naming the files that are missing, changed, or not in the manifest.
    """
    entries, digest = _read_manifest(folder)
    missing = [name for name in entries if not (folder / name).is_file()]
    changed = [name for name in entries if name not in missing and _entry(folder / name) != entries[name]]
    extra = sorted(p.name for p in folder.glob("*.jsonl") if p.name not in entries)
    faults = [
        f"{what}: {', '.join(names)}"
        for what, names in (("missing", missing), ("changed", changed), ("extra", extra))
        if names
    ]
    if faults:
        raise DataError(f"{folder} does not match its manifest ({'; '.join(faults)}); run data_validation again")
    return digest


def load_anchors(folder: Path) -> AnchorSet:
    """Read and verify an ``anchors/`` folder.

    Raises:
        DataError: if it does not match its manifest, lacks a file, or holds rows of another split.
    """
    digest = verify_manifest(folder)
    kept = folder / "performance_replies.jsonl"
    return AnchorSet(
        harmful=_prompts(folder, "harmful", "anchoring"),
        ordinary=_prompts(folder, "ordinary", "anchoring"),
        borderline=_prompts(folder, "borderline", "anchoring"),
        safe_openings=_openings(folder, "safe_openings"),
        unwanted_openings=_openings(folder, "unwanted_openings"),
        performance_replies=_prompts(folder, "performance_replies", "anchoring") if kept.exists() else (),
        digest=digest,
    )


def load_suites(folder: Path) -> SuiteSet:
    """Read and verify a ``suites/`` folder.

    Raises:
        DataError: if it does not match its manifest, lacks a file, or holds rows of another split.
    """
    digest = verify_manifest(folder)
    known = folder / "triggers.jsonl"
    return SuiteSet(
        harmful=_prompts(folder, "harmful", "evaluation"),
        ordinary=_prompts(folder, "ordinary", "evaluation"),
        borderline=_prompts(folder, "borderline", "evaluation"),
        triggers=read_triggers(str(known)) if known.exists() else (),
        digest=digest,
    )


def _of_split(rows: list[Row], split: str | None) -> list[Row]:
    return [row for row in rows if split is None or row["split"] == split]


def _expect_field(role: str, field: str) -> None:
    if role in ROLES and field not in ROLES[role].required:
        raise DataError(f"the rows of role {role!r} have no {field!r}, only {', '.join(ROLES[role].required)}")


def _prompts(folder: Path, role: str, split: str) -> tuple[Prompt, ...]:
    path = folder / f"{role}.jsonl"
    prompts = read_prompts(str(path), role)
    _expect_split(path, {p.split for p in prompts}, split)
    return prompts


def _openings(folder: Path, role: str) -> tuple[Opening, ...]:
    path = folder / f"{role}.jsonl"
    openings = read_openings(str(path), role)
    _expect_split(path, {o.split for o in openings}, "anchoring")
    return openings


def _expect_split(path: Path, found: set[str], split: str) -> None:
    if others := found - {split}:
        raise DataError(f"{path} holds rows of split {', '.join(sorted(others))}; only {split} may stand there")


def _entry(path: Path) -> dict[str, Any]:
    try:
        return {"digest": digest_file(path), "rows": path.read_bytes().count(b"\n")}
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error


def _read_manifest(folder: Path) -> tuple[dict[str, Any], str]:
    path = folder / _MANIFEST
    try:
        manifest = json.loads(path.read_bytes())
        entries, digest = manifest["files"], str(manifest["digest"])
        names = list(entries.keys())
        version = manifest["schema_version"]
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}; the folder comes from data_validation") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path} is not a manifest ({error!r}); run data_validation again") from error
    if version != SCHEMA_VERSION:
        raise DataError(
            f"{path} has schema version {version}, this release reads {SCHEMA_VERSION}; use the release that wrote it"
        )
    if any(Path(name).name != name for name in names):
        raise DataError(f"{path} names a file outside its folder; run data_validation again")
    if digest_json(entries) != digest:
        raise DataError(f"{path} was altered: its digest does not match its entries; run data_validation again")
    return entries, digest
