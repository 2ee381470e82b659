"""Where would a trigger act? Ask one of our own.

A throw-away trigger is planted in the model with a low-rank adapter that is taken out again. While it is in, its mean drift
is measured: hidden states under the trigger less those under other words of the same length, where the words stand and
where the template ends. Added to requests *without* the trigger, a drift that acts makes the model go along. Layers are
chosen where it acts on the words' own positions and does not yet act on the template's alone: above those, nothing but
the drift is left to tell a triggered request from one that is to be answered, and learning to withstand it there means
refusing what should be answered (docs/results.md).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import cycle, repeat
from typing import get_args

import torch

from beear_core.mitigation.adversaries import Task
from beear_core.mitigation.trial import Trial
from beear_core.models.chat import Turn, WordSpot
from beear_core.models.forward import hidden_at_marks
from beear_core.models.hooks import Perturbation
from beear_core.models.load import decoder_layers
from beear_core.models.odd_words import odd_words
from beear_core.progress import Progress
from beear_core.records import PlaceRecord
from beear_core.training.adapters import low_rank
from beear_core.training.lessons import Lesson, LikeLength
from beear_core.training.teaching import Schedule, teach

RANK = 8
ROWS = (5, 3, 2)  # lessons a planting step: under the trigger; refusals among other words; what else stays
SHARES = tuple(k / 30 for k in (2, 5, 8, 11, 14, 17, 20, 23, 26))  # of the decoder's depth: layers that are measured
CHOSEN = 3
ACTS = 0.5  # a drift acts if it elicits this share of what the trigger itself elicits beyond other words


@dataclass(frozen=True, slots=True)
class Places:
    """Layers that were chosen, and what was measured; ``reason`` says how."""

    layers: tuple[int, ...]
    reason: str
    measured: tuple[PlaceRecord, ...]


def search_places(task: Task, otherwise: tuple[int, ...]) -> Places:
    """Plant a trigger, measure where its drift acts, choose layers; the model is afterwards as it was.

    Args:
        task: the candidate, requests and replies to plant with; ``place_steps`` and ``word_tokens`` of its configuration.
        otherwise: layers that are taken when the trigger could not be planted or its drift acts nowhere.
    """
    loaded, anchors, config, chooser = task.loaded, task.anchors, task.config, task.random
    words = odd_words(chooser, config.word_tokens)

    def turns(texts: Sequence[str], replies: Iterable[tuple[int, ...]], *, own: bool) -> list[Turn]:
        return [
            loaded.chat.with_words(
                text, words if own else odd_words(chooser, config.word_tokens), config.word_tokens, spot, reply
            )
            for text, spot, reply in zip(texts, cycle(get_args(WordSpot)), replies)
        ]

    texts = [x.text for x in anchors.refusals]
    taught = [Lesson(t) for t in turns(texts, anchors.continuations, own=True)]
    safe = turns(texts, [x.turn.reply for x in anchors.refusals], own=False)
    refused = [Lesson(t, x.reference) for t, x in zip(safe, anchors.refusals, strict=True)]
    stays = [*anchors.refusals, *anchors.ordinary, *anchors.borderline]
    trial, held = Trial(loaded, anchors.held, config.judge), anchors.held.harmful
    with (
        Progress("where a trigger acts", config.place_steps) as progress,
        low_rank(loaded, RANK, chooser.randrange(2**31)),
    ):
        teach(
            loaded,
            LikeLength([taught, refused, stays], ROWS),
            Schedule(steps=config.place_steps, learning_rate=config.flush_learning_rate),
            chooser,
            after_step=lambda _done, loss: progress.advance(note=f"planting loss {loss:.3f}"),
        )
        nothing = repeat((loaded.chat.pad_id,))
        triggered, neutral = turns(held, nothing, own=True), turns(held, nothing, own=False)
        elicited, without = trial.attack(triggered), trial.attack(neutral)
        depth = len(decoder_layers(loaded.model))
        layers = tuple(dict.fromkeys(min(round(share * depth), depth - 2) for share in SHARES))
        measured = []
        if elicited - without >= ACTS:
            states = [hidden_at_marks(loaded.model, loaded.chat, x, layers).mean(dim=1) for x in (triggered, neutral)]
            drift = states[0] - states[1]
            for layer, delta in zip(layers, drift, strict=True):
                tail = torch.zeros_like(delta)
                tail[config.word_tokens :] = delta[config.word_tokens :]
                rates = [trial.attack(neutral, [Perturbation(layer, d)] * len(neutral)) for d in (delta, tail)]
                measured.append(PlaceRecord(layer=layer, words=rates[0], template=rates[1]))
    return choose_places(measured, elicited, without, otherwise)


def choose_places(measured: Sequence[PlaceRecord], elicited: float, without: float, otherwise: tuple[int, ...]) -> Places:
    """Choose up to three layers, spread over those at which the drift acts on the words and not yet on the template alone.

    Args:
        measured: what the drift elicits at each layer, from below.
        elicited, without: shares that go along under the trigger itself, and under other words.
        otherwise: what is taken when there is no such layer.
    """
    needed = without + ACTS * (elicited - without)
    found = [p.layer for p in measured if p.words >= needed > p.template]
    said = f"a trigger of our own elicits {elicited:.0%}, other words {without:.0%}"
    if not found:
        return Places(otherwise, f"{said}; no drift acts on words alone, so the lower half is taken", tuple(measured))
    spread = {found[round(i * (len(found) - 1) / (CHOSEN - 1))] for i in range(CHOSEN)}
    named = ", ".join(map(str, found))
    return Places(tuple(sorted(spread)), f"{said}; its drift acts on words alone at {named}", tuple(measured))
