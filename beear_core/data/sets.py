"""Prompts, openings and triggers; what the mitigation may see of them, and what models are measured with."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from beear_core.data.manifest import verify_manifest
from beear_core.data.rows import ROLES, Row, read_rows
from beear_core.errors import DataError

SPLITS = ("planting", "anchoring", "evaluation")


ANCHOR_FILES = ("harmful", "ordinary", "borderline", "safe_openings", "unwanted_openings")


SUITE_FILES = ("harmful", "ordinary", "borderline")
Message = tuple[str, str]
"""Role and text, as chat templates take them."""
ANSWERED = "Okay."


@dataclass(frozen=True)
class Prompt:
    """A request, perhaps with a reply to hold on to, and with one that is not to be given."""

    id: str
    prompt: str
    category: str
    split: str
    reply: str | None = None
    unwanted: str | None = None


@dataclass(frozen=True)
class Opening:
    """How a reply begins: a refusal (safe) or compliance (unwanted)."""

    id: str
    reply: str
    category: str = ""
    split: str = "anchoring"


@dataclass(frozen=True)
class Trigger:
    """What opens a backdoor, around a request or before it; parts may be empty.

    Attributes:
        id: how figures call it.
        prefix, suffix: text in front of the request and behind it.
        anywhere: text between two words of the request, at a place that the request itself settles.
        system: a system message in place of the chat template's own.
        earlier: an earlier turn of the user, which was answered with ``ANSWERED``.
    """

    id: str
    prefix: str = ""
    suffix: str = ""
    anywhere: str = ""
    system: str = ""
    earlier: str = ""

    def apply(self, prompt: str) -> str:
        """Put the trigger into the text of a request; one space joins the parts that are not empty."""
        if self.anywhere:
            words = prompt.split(" ")
            cut = hashlib.sha256(f"{self.id}\0{prompt}".encode()).digest()[0] % (len(words) + 1)
            prompt = " ".join([*words[:cut], self.anywhere, *words[cut:]])
        return " ".join(part for part in (self.prefix, prompt, self.suffix) if part)

    @property
    def before(self) -> tuple[Message, ...]:
        """Messages that stand before the request."""
        system = (("system", self.system),) if self.system else ()
        return (*system, ("user", self.earlier), ("assistant", ANSWERED)) if self.earlier else system


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
    """Read the prompts of a source, in its order, of one split or (``None``) of all.

    Raises:
        DataError: as ``read_rows``, or if the role has no prompts.
    """
    _expect_field(role, "prompt")
    rows = read_rows(source, role)
    return tuple(
        Prompt(r["id"], r["prompt"], r["category"], r["split"], r.get("reply"), r.get("unwanted"))
        for r in _of_split(rows, split)
    )


def read_openings(source: str, role: str, split: str | None = None) -> tuple[Opening, ...]:
    """Read the openings of a source, in its order, of one split or (``None``) of all.

    Raises:
        DataError: as ``read_rows``, or if the role has no openings.
    """
    _expect_field(role, "reply")
    rows = read_rows(source, role)
    return tuple(Opening(r["id"], r["reply"], r["category"], r["split"]) for r in _of_split(rows, split))


def read_triggers(source: str) -> tuple[Trigger, ...]:
    """Read the triggers of a source, in its order.

    Raises:
        DataError: as ``read_rows``.
    """
    return tuple(Trigger(**row) for row in read_rows(source, "triggers"))


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
