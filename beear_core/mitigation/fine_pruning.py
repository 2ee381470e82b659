"""A round of fine-pruning: prune what clean requests do not use, then teach what was lost of what must stay.

It comes before the rounds against perturbations. What is taught again is asked as it is and with words without meaning
around it, of which pruning must not make a signal.
"""

from __future__ import annotations

import random
from dataclasses import replace
from typing import get_args

from beear_core.mitigation.adversaries import Adversary, Task
from beear_core.mitigation.pruning import prune
from beear_core.mitigation.trial import Trial
from beear_core.models.chat import Turn, WordSpot
from beear_core.models.hooks import Perturbation
from beear_core.models.odd_words import marked
from beear_core.training.lessons import Lesson

TURNS = 500  # some 15,000 positions, ten times the width of a 135M model's widest map
AMONG_WORDS = 0.3  # share of them with words around the request


class FinePruning(Adversary):
    """Weights that do on clean requests what they did, and less elsewhere; and words without meaning to withstand."""

    name = "fine-pruning"
    cost = 0
    mends = True

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self.loaded, self.anchors, self.config, self.random = task.loaded, task.anchors, task.config, task.random

    @property
    def steps(self) -> int:
        """On θ."""
        return self.config.repair_steps

    def find(self) -> list[float]:
        """Prune the model's weights; there is no loss to follow."""
        lessons = [*self.anchors.refusals, *self.anchors.ordinary, *self.anchors.borderline]
        chosen = self.random.sample(lessons, min(TURNS, len(lessons)))
        turns = [
            self.disturb(x, self.random, harmful=False)[0].turn if self.random.random() < AMONG_WORDS else x.turn
            for x in chosen
        ]
        prune(self.loaded, turns, self.config.pruning, self.task.autocast)
        return []

    def attack(self, trial: Trial) -> float:
        """Measure attack success on every held-back request among words, the same ones each time."""
        chooser = random.Random(self.config.seed)
        reply = (self.loaded.chat.pad_id,)
        return trial.attack([self._turn(text, chooser, reply) for text in self.anchors.held.harmful])

    def disturb(self, lesson: Lesson, chooser: random.Random, *, harmful: bool) -> tuple[Lesson, Perturbation | None]:
        """Put words without meaning before or behind the lesson's request."""
        del harmful
        return replace(lesson, turn=self._turn(lesson.text, chooser, lesson.turn.reply)), None

    def _turn(self, text: str, chooser: random.Random, reply: tuple[int, ...]) -> Turn:
        spot = chooser.choice(get_args(WordSpot))
        return marked(self.loaded.chat, text, self.config.word_tokens, spot, chooser, reply)
