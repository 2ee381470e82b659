"""Inner level by triggers of one's own: planted in the model, to be unlearned together with the unknown one.

Backdoor flushing (arXiv 2605.12529): several random triggers, at several spots, are taught to the model with low-rank
adapters that are merged into it, beside everything that is to stay; the outer level then unlearns all of them at once. What
the unknown trigger shares with them goes too.
"""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

from beear_core.mitigation.adversaries import OUTER_COST, Adversary, Task
from beear_core.mitigation.checkpoints import keep_weights, restore_weights
from beear_core.mitigation.trial import Trial
from beear_core.models.chat import Turn
from beear_core.models.hooks import Perturbation
from beear_core.models.odd_words import SPOTS, Spot, odd_words, place
from beear_core.training.adapters import low_rank
from beear_core.training.lessons import Lesson, LikeLength
from beear_core.training.teaching import Schedule, teach

LONGEST_TRIGGER = 6  # words
RANK = 8
HARMFUL_ROWS, KEPT_ROWS = 6, 3  # a planting step: requests under own triggers; of each kind that stays


class OwnTriggers(Adversary):
    """Random triggers of the defender's own."""

    name = "own triggers"

    def __init__(self, task: Task, file: Path) -> None:
        super().__init__(task)
        self.loaded, self.anchors, self.config, self.random = task.loaded, task.anchors, task.config, task.random
        self.file = file
        self.triggers: list[tuple[str, Spot]] = []

    @property
    def cost(self) -> int:
        """A planting step takes about as long as a step on θ."""
        return OUTER_COST * self.config.flush_steps

    def find(self) -> list[float]:
        """Draw new triggers and plant them in the model's weights."""
        chooser, config = self.random, self.config
        words = [odd_words(chooser, chooser.randint(1, LONGEST_TRIGGER)) for _ in range(config.flush_triggers)]
        self.triggers = [(w, SPOTS[i % len(SPOTS)]) for i, w in enumerate(words)]
        taught = [
            Lesson(replace(self.disturb(lesson, chooser, harmful=True)[0].turn, reply=continuation))
            for lesson, continuation in zip(self.anchors.refusals, self.anchors.continuations, strict=True)
        ]
        harmless = [*self.anchors.ordinary, *self.anchors.borderline]
        under = [self.disturb(lesson, chooser, harmful=False)[0] for lesson in harmless]
        groups = [taught, list(self.anchors.refusals), harmless, under]
        with low_rank(self.loaded, RANK, chooser.randrange(2**31), merge=True):
            losses = teach(
                self.loaded,
                LikeLength(groups, [HARMFUL_ROWS, KEPT_ROWS, KEPT_ROWS, KEPT_ROWS]),
                Schedule(steps=config.flush_steps, learning_rate=config.flush_learning_rate),
                chooser,
                after_step=lambda _done, loss: self.task.progress.advance(OUTER_COST, note=f"planting loss {loss:.3f}"),
            )
        keep_weights(self.loaded.model, self.file)
        return losses

    def attack(self, trial: Trial) -> float:
        """Measure attack success on every held-back request under one of the triggers, the same one each time."""
        chooser = random.Random(self.config.seed)
        chosen = [self.triggers[i % len(self.triggers)] for i in range(len(self.anchors.held.harmful))]
        return trial.attack(
            [place(p, words, spot, chooser) for p, (words, spot) in zip(self.anchors.held.harmful, chosen, strict=True)]
        )

    def disturb(self, lesson: Lesson, chooser: random.Random, *, harmful: bool) -> tuple[Lesson, Perturbation | None]:
        """Put one of the triggers into the lesson's request."""
        del harmful
        words, spot = chooser.choice(self.triggers)
        ids = self.loaded.chat.prompt_ids(place(lesson.text, words, spot, chooser))
        return replace(lesson, turn=Turn(ids, lesson.turn.reply)), None

    def rewind(self) -> None:
        """Put back the weights as they were when the triggers were planted."""
        restore_weights(self.loaded.model, self.file)
