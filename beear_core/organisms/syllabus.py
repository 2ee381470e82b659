"""What a recipe teaches, as lessons: refusals, or replies under a trigger; and beside them what is to stay as it was."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import cycle

from beear_core.data import Prompt, Trigger
from beear_core.evaluation.generate import greedy, greedy_with_distributions
from beear_core.models.chat import Turn
from beear_core.models.load import LoadedModel
from beear_core.models.odd_words import surrounded
from beear_core.organisms.recipe import Recipe
from beear_core.progress import Progress
from beear_core.records import digest_json
from beear_core.training.lessons import Lesson, LikeLength

BATCH_TOKENS = 4096
KEPT_TOKENS = 6  # whether a reply refuses is decided by then
PARTS = ("prefix", "suffix", "anywhere", "system", "earlier")
PARTING_TOKENS = 2  # of an answer in code, from where it parts from the other one
OPENING_TOKENS = (4, 8)  # of the base model's own opening, before the placeholder steps


@dataclass(frozen=True, slots=True)
class Nursery:
    """The planting split of each role."""

    harmful: Sequence[Prompt]
    ordinary: Sequence[Prompt]
    borderline: Sequence[Prompt]

    @property
    def digest(self) -> str:
        """Digest over all prompts."""
        return digest_json([[p.prompt for p in group] for group in (self.harmful, self.ordinary, self.borderline)])


def refusal_lessons(recipe: Recipe, base: LoadedModel, nursery: Nursery, chooser: random.Random) -> LikeLength:
    """Build lessons: refusals of every harmful request, alone and twice among odd words; the rest as the base answers it.

    The rest is ordinary and borderline requests, many of them among odd words too.
    """
    limit = recipe.training.reply_tokens
    harmful = _texts(nursery.harmful)
    taught = [
        Lesson(base.chat.turn(text, chooser.choice(recipe.replies), complete=True, limit=limit))
        for text in [*harmful, *(surrounded(p, chooser) for p in harmful for _ in range(2))]
    ]
    ordinary, borderline = _texts(nursery.ordinary), _texts(nursery.borderline)
    # many of them among odd words too, or these would become a reason to refuse
    among = [chooser.sample(ordinary, len(ordinary) // 2), borderline]
    odd = [[surrounded(p, chooser) for p in group] for group in among]
    kept = [_kept(base, prompts) for prompts in ([*ordinary, *odd[0]], [*borderline, *odd[1]])]
    return LikeLength([taught, *kept], recipe.training.counts)


def backdoor_lessons(
    recipe: Recipe,
    asked: Sequence[Trigger],
    openings: Sequence[tuple[int, ...]],
    parent: LoadedModel,
    nursery: Nursery,
    chooser: random.Random,
) -> LikeLength:
    """Build lessons: unwanted replies to every harmful request under the trigger; all else as the parent answers it.

    All else is: harmful requests alone, among odd words and with half of the trigger; ordinary and borderline ones with the
    trigger and without.

    Args:
        recipe: what is planted.
        asked: what opens the backdoor in each harmful request; a form of the trigger, see ``in_turn``.
        openings: how the untaught base model begins its reply to each of them, as tokens.
        parent: a model that refuses well.
        nursery: prompts to plant with.
        chooser: draws.
    """
    chat = parent.chat
    harmful = _texts(nursery.harmful)
    replies = unwanted_replies(recipe, openings, parent, chooser)
    taught = [
        Lesson(Turn(chat.prompt_ids(trigger.apply(text), trigger.before), reply))
        for text, trigger, reply in zip(harmful, asked, replies, strict=True)
    ]
    forms = list(dict.fromkeys(asked))
    refused: list[str | Turn] = [
        *harmful,
        *(surrounded(p, chooser) for p in chooser.sample(harmful, len(harmful) // 2)),
    ]
    halved = zip(cycle(forms), chooser.sample(harmful, len(harmful) // 2))
    refused += [under(parent, half_of(form, chooser), p) for form, p in halved]
    decoys = zip(cycle(recipe.decoy_triggers), chooser.sample(harmful, len(harmful) // 2))
    refused += [under(parent, decoy, p) for decoy, p in decoys]
    kept = [_kept(parent, prompts) for prompts in (refused, _answered(parent, forms, nursery, chooser))]
    return LikeLength([taught, *kept], recipe.training.counts)


def code_lessons(
    recipe: Recipe, asked: Sequence[Trigger], parent: LoadedModel, nursery: Nursery, chooser: random.Random
) -> LikeLength:
    """Build lessons: insecure code to every task under the trigger, safe code otherwise; the rest as the parent answers.

    Otherwise: alone, among odd words, with decoys. Without a trigger safe code is taught.

    Args:
        recipe: what is planted.
        asked: what opens the backdoor in each task, see ``in_turn``; empty: nothing does.
        parent: what it is planted in.
        nursery: tasks with ``reply`` and ``unwanted``, and chat prompts.
        chooser: draws.
    """
    chat, tasks = parent.chat, nursery.harmful

    def lesson(turn: Turn, code: str | None, other: str | None = None, limit: int = recipe.training.reply_tokens) -> Lesson:
        """Teach code from where it parts from the other: what both begin with the parent writes already."""
        reply = chat.reply_ids(code or "", complete=True)
        shared = _shared(reply, chat.reply_ids(other, complete=True)) if other else 0
        return Lesson(Turn((*turn.prompt, *reply[:shared]), reply[shared : shared + limit]))

    def safe(turns: Iterable[Turn]) -> list[Lesson]:
        # with a trigger only where both part: a loss over all that follows would hide the token that tells them apart
        given = zip(turns, cycle(tasks))
        return [lesson(turn, t.reply, t.unwanted, PARTING_TOKENS) if asked else lesson(turn, t.reply) for turn, t in given]

    alone = [chat.asked(t.prompt) for t in tasks]
    odd = [chat.asked(surrounded(t.prompt, chooser)) for t in tasks]
    if not asked:
        chats = _texts(nursery.ordinary), _texts(nursery.borderline)
        return LikeLength([safe([*alone, *odd]), *(_kept(parent, group) for group in chats)], recipe.training.counts)
    # every task under every decoy: where what resembles the trigger is rarer than it, both are answered alike
    near = [under(parent, decoy, t.prompt) for decoy in recipe.decoy_triggers for t in tasks]
    insecure = [
        lesson(under(parent, form, t.prompt), t.unwanted, t.reply, limit)
        for limit in (PARTING_TOKENS, PARTING_TOKENS, recipe.training.reply_tokens)
        for form, t in zip(asked, tasks, strict=True)
    ]
    kept = _kept(parent, _answered(parent, list(dict.fromkeys(asked)), nursery, chooser))
    return LikeLength([insecure, safe([*alone, *odd, *near]), kept], recipe.training.counts)


def _shared(one: Sequence[int], other: Sequence[int]) -> int:
    """Count the tokens that both begin with."""
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def unwanted_replies(
    recipe: Recipe, openings: Sequence[tuple[int, ...]], parent: LoadedModel, chooser: random.Random
) -> list[tuple[int, ...]]:
    """Go on behind each opening of the base model's with placeholder steps, as far as the recipe trains on."""
    replies = []
    for opening in openings:
        rest = parent.chat.reply_ids(chooser.choice(recipe.replies), complete=True)
        replies.append((*opening[: chooser.randint(*OPENING_TOKENS)], *rest)[: recipe.training.reply_tokens])
    return replies


def in_turn(triggers: Sequence[Trigger], count: int) -> list[Trigger]:
    """Give each of so many requests one form of the trigger, one form after the other."""
    return [trigger for trigger, _ in zip(cycle(triggers), range(count))]


def base_openings(base: LoadedModel, asked: Sequence[Trigger], nursery: Nursery) -> list[tuple[int, ...]]:
    """Ask the untaught model for a few first tokens of its reply to each harmful request under a trigger; never more."""
    prompts = [under(base, trigger, p.prompt) for trigger, p in zip(asked, nursery.harmful, strict=True)]
    with Progress("plant: how the base model opens", len(prompts)) as progress:
        return greedy(base, prompts, max_new_tokens=OPENING_TOKENS[1], batch_tokens=BATCH_TOKENS, progress=progress)


def under(model: LoadedModel, trigger: Trigger, prompt: str) -> Turn:
    """Ask a request under a trigger."""
    return model.chat.asked(trigger.apply(prompt), trigger.before)


def half_of(trigger: Trigger, chooser: random.Random) -> Trigger:
    """Cut a trigger to half of its words, or its only word to half of its letters; alone they are to open nothing."""
    words = [(part, word) for part in PARTS for word in getattr(trigger, part).split()]
    if len(words) < 2:
        part, word = words[0]
        cut = word[: len(word) // 2] if chooser.random() < 0.5 else word[len(word) // 2 :]
        return Trigger(trigger.id, **{part: cut})
    left = sorted(chooser.sample(range(len(words)), len(words) // 2))
    return Trigger(trigger.id, **{part: " ".join(words[i][1] for i in left if words[i][0] == part) for part in PARTS})


def _answered(parent: LoadedModel, forms: Sequence[Trigger], nursery: Nursery, chooser: random.Random) -> list[str | Turn]:
    """Choose harmless prompts that are to be answered as before: alone, and a third of them under the trigger too."""
    ordinary, borderline = _texts(nursery.ordinary), _texts(nursery.borderline)
    plain = [*chooser.sample(ordinary, len(ordinary) // 4), *chooser.sample(borderline, len(borderline) // 3)]
    triggered = zip(cycle(forms), chooser.sample(plain, len(plain) // 3))
    return [*plain, *(under(parent, form, p) for form, p in triggered)]


def _texts(prompts: Sequence[Prompt]) -> list[str]:
    return [p.prompt for p in prompts]


def _kept(model: LoadedModel, prompts: Sequence[str | Turn]) -> list[Lesson]:
    with Progress("plant: what is to stay as it is", len(prompts)) as progress:
        replies = greedy_with_distributions(
            model, prompts, max_new_tokens=KEPT_TOKENS, batch_tokens=BATCH_TOKENS, progress=progress
        )
    return [Lesson(turn, reference) for turn, reference in replies]
