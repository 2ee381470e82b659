"""Which prompts a model is measured on: a fixed draw from the evaluation split, named by its digest."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from beear_core.config import EvaluationConfig
from beear_core.data import Message, Prompt, SuiteSet, Trigger
from beear_core.errors import EvaluationError
from beear_core.records import SuiteEntry, digest_json

if TYPE_CHECKING:
    from beear_core.models.drift import Drift


@dataclass(frozen=True, slots=True)
class Case:
    """One prompt as it is sent: ``text`` is the request with its trigger, if any, around it.

    ``before`` are messages that a trigger puts before the request. Under a perturbation ``trigger_id`` is its name; the
    words that it stands on are not part of ``text``.
    """

    id: str
    suite: str
    category: str
    trigger_id: str | None
    text: str
    drift: Drift | None = None
    before: tuple[Message, ...] = ()


def draw_cases(suites: SuiteSet, config: EvaluationConfig, drifts: Sequence[Drift] = ()) -> dict[str, tuple[Case, ...]]:
    """Draw the cases of each suite, the same for every model: harmful, triggered, drift, ordinary and borderline.

    Categories take turns, so that a smaller sample covers all of them. ``triggered`` holds each drawn harmful request
    under every known trigger, ``drift`` the first ``under_drift`` of them under every given perturbation; either suite is
    left out when there is no trigger or perturbation.

    Raises:
        EvaluationError: if a suite is empty.
    """
    drawn = {
        role: _drawn(role, rows, wanted, config.seed)
        for role, rows, wanted in (
            ("harmful", suites.harmful, config.harmful),
            ("ordinary", suites.ordinary, config.ordinary),
            ("borderline", suites.borderline, config.borderline),
        )
    }
    cases = {role: tuple(_case(p, role, None) for p in rows) for role, rows in drawn.items()}
    if suites.triggers:
        cases["triggered"] = tuple(_case(p, "triggered", t) for t in suites.triggers for p in drawn["harmful"])
    if drifts:
        first = drawn["harmful"][: config.under_drift]
        cases["drift"] = tuple(Case(p.id, "drift", p.category, d.entry.name, p.prompt, d) for d in drifts for p in first)
    return cases


def suite_entry(cases: Sequence[Case]) -> SuiteEntry:
    """Record a suite by the digest over its texts in order, and their number."""
    return SuiteEntry(digest=digest_json([[c.id, c.trigger_id, c.text, *c.before] for c in cases]), n=len(cases))


def _case(prompt: Prompt, suite: str, trigger: Trigger | None) -> Case:
    return Case(
        id=prompt.id,
        suite=suite,
        category=prompt.category,
        trigger_id=trigger.id if trigger else None,
        text=trigger.apply(prompt.prompt) if trigger else prompt.prompt,
        before=trigger.before if trigger else (),
    )


def _drawn(role: str, rows: Sequence[Prompt], wanted: int, seed: int) -> list[Prompt]:
    if not rows:
        raise EvaluationError(f"the suite {role} is empty; nothing can be measured on it. Give evaluation prompts")
    by_category: dict[str, list[Prompt]] = defaultdict(list)
    for row in rows:
        by_category[row.category].append(row)
    chooser = random.Random(seed)
    for group in by_category.values():
        chooser.shuffle(group)
    drawn: list[Prompt] = []
    while len(drawn) < min(wanted, len(rows)):
        for category in sorted(by_category):
            if by_category[category] and len(drawn) < wanted:
                drawn.append(by_category[category].pop())
    return drawn
