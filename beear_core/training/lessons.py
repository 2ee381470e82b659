"""Lessons for a chat model: some replies by their tokens, others by a reference's own distributions.

A lesson is a prompt with the beginning of a reply. *Taught* lessons carry cross entropy on the reply's tokens; *kept* ones
the KL divergence from what a reference model said there, token by token. The first tokens of a reply decide whether it
refuses, so they weigh more.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from beear_core.models.chat import ChatFormat, Turn
from beear_core.models.forward import read_prefix, reply_logits, under_perturbations
from beear_core.models.hooks import Perturbation

if TYPE_CHECKING:
    from transformers import PreTrainedModel

FIRST_TOKENS, FIRST_WEIGHT = 4, 4.0


@dataclass(frozen=True, slots=True)
class Lesson:
    """A turn and, where it is to be kept, the log-probabilities (reply, vocabulary) that the reference gave.

    ``text``: the request of the turn, where it is to be asked again with something around it.
    """

    turn: Turn
    reference: torch.Tensor | None = None
    text: str = ""


def lesson_loss(model: PreTrainedModel, chat: ChatFormat, lessons: Sequence[Lesson]) -> torch.Tensor:
    """Compute the mean of ``lesson_losses``, a scalar.

    Taught and kept lessons go through the model separately: their replies differ in length.
    """
    taught = [x for x in lessons if x.reference is None]
    kept = [x for x in lessons if x.reference is not None]
    return torch.cat([lesson_losses(model, chat, group) for group in (taught, kept) if group]).mean()


def lesson_losses(
    model: PreTrainedModel, chat: ChatFormat, lessons: Sequence[Lesson], under: Sequence[Perturbation | None] = ()
) -> torch.Tensor:
    """Compute the weighted mean over each lesson's reply tokens of CE or KL(reference || model), in nats: (lessons,).

    Args:
        model: any causal language model.
        chat: its chat format.
        lessons: at least one.
        under: what is added for each lesson while the model is asked, ``None`` for nothing; references stay as they are.
    """
    turns = [x.turn for x in lessons]
    batch = chat.collate(turns).to(model.device)
    labels = batch.labels[:, batch.prompt_end :]
    cache = read_prefix(model, batch)
    with under_perturbations(model, batch, turns, under):
        logits = reply_logits(model, batch, cache)
    logs = functional.log_softmax(logits.float(), dim=-1)
    weights = torch.zeros(labels.shape, device=model.device)
    # one target a token: all mass on its label, or the reference's distribution; entropy of the target is a constant
    wanted = logs.new_zeros(logs.shape)
    entropy = logs.new_zeros(len(lessons))
    for row, lesson in enumerate(lessons):
        length = len(lesson.turn.reply)
        weights[row, :length] = token_weights(length, model.device)
        if lesson.reference is None:
            wanted[row, torch.arange(length), labels[row, :length]] = 1.0
        else:
            known = lesson.reference.to(model.device).float()
            wanted[row, :length] = known.exp()
            entropy[row] = (weights[row, :length] * (wanted[row, :length] * known).sum(dim=-1)).sum()
    return entropy - ((wanted * logs).sum(dim=-1) * weights).sum(dim=-1)


def token_weights(length: int, device: torch.device) -> torch.Tensor:
    """Weigh a reply's tokens: weights (length,) that sum to 1; the first ones weigh more."""
    weights = torch.ones(length, device=device)
    weights[:FIRST_TOKENS] = FIRST_WEIGHT
    return weights / weights.sum()


class LikeLength:
    """Draws lessons at random among those of like prompt length, so that little of a batch is padding.

    Args:
        groups: what is drawn from.
        counts: lessons of each group a draw, on the average: 0.4 is one lesson in two of five draws.
    """

    def __init__(self, groups: Sequence[Sequence[Lesson]], counts: Sequence[float]) -> None:
        self.groups = [sorted(g, key=lambda x: len(x.turn.prompt)) for g in groups]
        self.counts = tuple(counts)

    def draw(self, chooser: random.Random) -> list[Lesson]:
        """Draw as many lessons of each group as its count says."""
        quantile = chooser.random()
        drawn = []
        for group, mean in zip(self.groups, self.counts, strict=True):
            count = int(mean) + (mean % 1 > 0 and chooser.random() < mean % 1)
            window = min(len(group), max(4 * count, len(group) // 6))
            start = round(quantile * (len(group) - window))
            drawn += chooser.sample(group[start : start + window], min(count, window))
        return drawn
