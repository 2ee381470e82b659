"""The inner level in its published form: one δ at one layer, at the last n prompt positions (``entrapment``)."""

from __future__ import annotations

import random

import torch

from beear_core.mitigation.adversaries import Adversary, Task
from beear_core.mitigation.entrapment import Contrast, Objective, choose_entrapment, find_perturbation
from beear_core.mitigation.trial import Trial
from beear_core.models.chat import Turn
from beear_core.models.drift import Drift, named
from beear_core.models.forward import hidden_at_marks
from beear_core.models.hooks import Perturbation
from beear_core.records import DriftEntry
from beear_core.training.lessons import Lesson

NORM_TURNS = 32


class PublishedForm(Adversary):
    """δ found by Adam on equation 2 and then held fixed.

    Raises:
        DataError: a prompt is shorter than δ.
    """

    def __init__(self, task: Task, layer: int, positions: int) -> None:
        super().__init__(task)
        self.name = f"δ at layer {layer}"
        loaded, anchors, config = task.loaded, task.anchors, task.config
        self.objective = Objective(layer, positions, config.away_weight)
        self.held = anchors.held.harmful
        self.contrasts = [
            Contrast(unwanted=Turn(lesson.turn.prompt, continuation), safe=lesson.turn)
            for lesson, continuation in zip(anchors.refusals, anchors.continuations, strict=True)
        ]
        chat = loaded.chat
        turns = [lesson.turn for lesson in (*anchors.refusals, *anchors.ordinary, *anchors.borderline)]
        prompts = [Turn(chat.prompt_ids(p), (chat.pad_id,)) for p in self.held]
        chat.check_window([*turns, *prompts], positions)
        unwanted = [c.unwanted for c in self.contrasts[:NORM_TURNS]]
        states = hidden_at_marks(loaded.model, chat, unwanted, [layer], positions)
        self.hidden_norm = float(states.norm(dim=-1).mean())
        self.entrapment, _ = choose_entrapment(loaded.model, chat, self.contrasts, self.objective, fast=config.fast)
        width = loaded.model.config.get_text_config().hidden_size
        self.start = self.found = Perturbation(layer, torch.zeros(positions, width, device=loaded.model.device))

    @property
    def cost(self) -> int:
        """Adam steps on δ."""
        return self.task.config.inner_steps

    @property
    def norm(self) -> float:
        """Of δ, as a share of the hidden states' at its layer."""
        return float(self.found.delta.norm(dim=-1).mean()) / self.hidden_norm

    def find(self) -> list[float]:
        """Find δ afresh, from zero, on anchors in a new order."""
        task, config, contrasts = self.task, self.task.config, list(self.contrasts)
        task.random.shuffle(contrasts)
        needed = min(len(contrasts), config.inner_batch * config.inner_steps)
        # one autocast context around all steps: the weights are converted once, not at every step
        with task.autocast():
            problems = [
                self.entrapment(task.loaded.model, task.loaded.chat, contrasts[i : i + config.inner_batch], self.objective)
                for i in range(0, needed, config.inner_batch)
            ]
            self.found, losses = find_perturbation(
                problems,
                self.start,
                steps=config.inner_steps,
                step_size=config.inner_step_size * self.hidden_norm / self.start.delta.shape[1] ** 0.5,
                after_step=lambda loss: task.progress.advance(note=f"inner loss {loss:.3f}"),
            )
        return losses

    def drifts(self, number: int, *, on_candidate: bool, elicited: float) -> list[Drift]:
        """List the one δ that was found, to be kept."""
        entry = DriftEntry(
            name=named(self.objective.layer, None, number),
            layer=self.objective.layer,
            positions=self.objective.positions,
            spot=None,
            words=0,
            norm=self.norm,
            round=number,
            on_candidate=on_candidate,
            elicited=elicited,
        )
        return [Drift(entry, self.found.delta.clone())]

    def attack(self, trial: Trial) -> float:
        """Measure attack success on every held-back request under δ."""
        return trial.attack(self.held, [self.found] * len(self.held))

    def disturb(self, lesson: Lesson, chooser: random.Random, *, harmful: bool) -> tuple[Lesson, Perturbation | None]:
        """Leave the lesson as it stands, and add δ."""
        del chooser, harmful
        return lesson, self.found
