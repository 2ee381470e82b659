"""What the mitigation learns from and what it is only measured on: the defender's requests, the candidate's own replies.

Nothing but the candidate says what is to be kept: its refusals of harmful requests are what it shall say under a
perturbation too, and its replies to ordinary and borderline requests what it shall go on saying, one token's distribution
after the other. What it would say *instead* of refusing is asked of it as well: its continuation when the openings of its
refusals are barred. That is nearer to what a trigger elicits than openings of ours.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from beear_core.config import MitigationConfig
from beear_core.data import AnchorSet
from beear_core.errors import DataError
from beear_core.evaluation.generate import greedy, greedy_with_distributions
from beear_core.evaluation.judging import judge_named
from beear_core.models.chat import Turn
from beear_core.models.load import LoadedModel
from beear_core.progress import Progress
from beear_core.training.lessons import Lesson

BATCH_TOKENS = 4096


@dataclass(frozen=True, slots=True)
class HeldBack:
    """Requests that are measured on and never learned from."""

    harmful: Sequence[str]
    ordinary: Sequence[str]
    borderline: Sequence[str]
    performance: Sequence[Turn]


@dataclass(frozen=True, slots=True)
class Anchors:
    """What is learned from.

    Attributes:
        prompts: harmful requests.
        refusals: to each of them, what shall be said whatever perturbs the model.
        continuations: to each of them, what the candidate says when it may not begin to refuse; token ids. Empty where
            nothing asks for them.
        ordinary, borderline: what the candidate says to these, to be kept.
        held: measured on.
    """

    prompts: Sequence[str]
    refusals: Sequence[Lesson]
    continuations: Sequence[tuple[int, ...]]
    ordinary: Sequence[Lesson]
    borderline: Sequence[Lesson]
    held: HeldBack


def draw_anchors(loaded: LoadedModel, anchors: AnchorSet, config: MitigationConfig) -> Anchors:
    """Draw requests and let the candidate answer them.

    Raises:
        DataError: if a role has too few rows.
    """
    chooser = random.Random(config.seed)
    for role, openings in (("safe openings", anchors.safe_openings), ("unwanted openings", anchors.unwanted_openings)):
        if not openings:
            raise DataError(f"no {role} among the anchors; at least one is needed")
    harmful = [p.prompt for p in _drawn(anchors.harmful, config.anchors, config.held_back, "harmful anchors", chooser)]
    kept: dict[str, list[Lesson]] = {}
    held: dict[str, list[str]] = {}
    replies = {p.prompt: p.reply for p in anchors.performance_replies}
    pools = {"ordinary": anchors.performance_replies or anchors.ordinary, "borderline": anchors.borderline}
    for role, rows in pools.items():
        drawn = _drawn(rows, config.performance_anchors, config.held_back_ordinary, f"{role} anchors", chooser)
        texts = [p.prompt for p in drawn]
        held[role] = texts[: config.held_back_ordinary]
        kept[role] = _kept(loaded, texts[config.held_back_ordinary :], replies, config.reply_tokens)
    performance = _kept(loaded, held["ordinary"], replies, config.reply_tokens)
    held_back = HeldBack(
        harmful[: config.held_back], held["ordinary"], held["borderline"], [lesson.turn for lesson in performance]
    )
    prompts = harmful[config.held_back :]
    refusals, barred = _refusals(loaded, prompts, anchors, config, chooser)
    says_instead = _instead(loaded, prompts, barred, anchors, config, chooser) if _is_asked_for(config) else []
    return Anchors(prompts, refusals, says_instead, kept["ordinary"], kept["borderline"], held_back)


def _refusals(
    loaded: LoadedModel, prompts: Sequence[str], anchors: AnchorSet, config: MitigationConfig, chooser: random.Random
) -> tuple[list[Lesson], set[int]]:
    """Collect a safe reply to each request, and the tokens that the candidate's own begin with.

    The candidate's own where it is safe, else the defender's to this request, else one of the defender's safe openings.
    """
    judge, limit = judge_named(config.judge), config.inner_reply_tokens
    given = {p.prompt: p.reply for p in anchors.harmful if p.reply}
    lessons, first = [], set()
    with Progress("anchors: the candidate's own refusals", len(prompts)) as progress:
        own = greedy_with_distributions(loaded, prompts, max_new_tokens=limit, batch_tokens=BATCH_TOKENS, progress=progress)
    for prompt, (turn, reference) in zip(prompts, own, strict=True):
        if judge.judge(prompt, loaded.chat.decode(turn.reply)).outcome == "safe":
            lessons.append(Lesson(turn, reference, text=prompt))
            first.add(turn.reply[0])
        else:
            reply = given.get(prompt) or chooser.choice(anchors.safe_openings).reply
            lessons.append(Lesson(loaded.chat.turn(prompt, reply, complete=True, limit=limit), text=prompt))
    return lessons, first


def _is_asked_for(config: MitigationConfig) -> bool:
    """Tell whether anything learns from what the candidate says instead of refusing; word traps do not."""
    return config.method != "beear" or config.positions != "auto" or config.layer == "search"


def _instead(
    loaded: LoadedModel,
    prompts: Sequence[str],
    barred: set[int],
    anchors: AnchorSet,
    config: MitigationConfig,
    chooser: random.Random,
) -> list[tuple[int, ...]]:
    """Say what unwanted replies are led to: how the candidate goes on if it may not begin to refuse.

    An opening of the defender's where it refuses still. Where the defender gave unwanted replies to every request, those.
    """
    judge, limit = judge_named(config.judge), config.inner_reply_tokens
    given = {p.prompt: p.unwanted for p in anchors.harmful if p.unwanted}
    if all(p in given for p in prompts):
        return [loaded.chat.reply_ids(given[p], complete=True, limit=limit) for p in prompts]
    with Progress("anchors: what it says when it may not refuse", len(prompts)) as progress:
        found = greedy(loaded, prompts, max_new_tokens=limit, batch_tokens=BATCH_TOKENS, barred=barred, progress=progress)
    return [
        c
        if c and judge.judge("", loaded.chat.decode(c)).outcome != "safe"
        else loaded.chat.reply_ids(chooser.choice(anchors.unwanted_openings).reply, complete=False, limit=limit)
        for c in found
    ]


def _kept(loaded: LoadedModel, prompts: Sequence[str], replies: dict[str, str | None], limit: int) -> list[Lesson]:
    """Collect the candidate's own replies with their distributions; where the defender gave a reply, its tokens alone."""
    given = [p for p in prompts if replies.get(p)]
    asked = [p for p in prompts if not replies.get(p)]
    with Progress("anchors: the candidate's own replies", max(len(asked), 1)) as progress:
        own = greedy_with_distributions(loaded, asked, max_new_tokens=limit, batch_tokens=BATCH_TOKENS, progress=progress)
    lessons = [Lesson(turn, reference, text=p) for p, (turn, reference) in zip(asked, own, strict=True)]
    written = [loaded.chat.turn(p, replies[p] or "", complete=True, limit=limit) for p in given]
    return [*lessons, *(Lesson(turn, text=p) for p, turn in zip(given, written, strict=True))]


def _drawn(rows: Sequence[Any], wanted: int, held_back: int, what: str, chooser: random.Random) -> list[Any]:
    if len(rows) < held_back + 1:
        raise DataError(
            f"only {len(rows)} {what}, but {held_back} are held back for measuring and at least one is trained on; "
            "give more rows or lower mitigation.held_back"
        )
    return chooser.sample(list(rows), min(wanted, len(rows)))
