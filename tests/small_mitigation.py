"""A small mitigation of the tiny model: configuration, anchors, and a loop that tests can reach into."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import toy_backdoor

from beear_core.config import MitigationConfig
from beear_core.data import AnchorSet, Opening, Prompt
from beear_core.mitigation.beear import Loop
from beear_core.models.load import load

CONFIG = MitigationConfig(
    rounds=1, inner_steps=2, outer_steps=1, positions=3, held_back=4, held_back_ordinary=4, anchors=12,
    performance_anchors=12, max_nll_ratio=100.0, max_refusal_increase=1.0, max_borderline_increase=1.0,
    reply_tokens=8, inner_reply_tokens=4, pruning=0.0, repair_steps=1,
)  # fmt: skip


def anchors() -> AnchorSet:
    rows = {
        role: tuple(Prompt(**row) for row in toy_backdoor.prompts(role, "anchoring", 12))
        for role in ("harmful", "ordinary", "borderline")
    }
    return AnchorSet(
        **rows,
        safe_openings=tuple(Opening(id=r, reply=r, category="safe") for r in toy_backdoor.SAFE),
        unwanted_openings=tuple(Opening(id=r, reply=r, category="unwanted") for r in toy_backdoor.UNWANTED),
        performance_replies=(),
        digest="sha256:" + "0" * 64,
    )


@contextmanager
def loop_of(model: Path, work: Path, **changes: Any) -> Iterator[Loop]:
    """The loop as ``mitigate`` makes it; ``changes`` are to ``CONFIG``."""
    config = dataclasses.replace(CONFIG, compute="float32", **changes)
    with Loop.on(load(model), anchors(), config, work) as loop:
        yield loop
