"""The inner level in its published form: one δ at one layer, at the last n prompt positions (``entrapment``)."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch

from beear_core.config import MitigationConfig
from beear_core.mitigation.anchors import Anchors
from beear_core.mitigation.entrapment import Contrast, choose_entrapment, find_perturbation
from beear_core.mitigation.trial import Trial
from beear_core.models.chat import Turn
from beear_core.models.drift import Drift, named
from beear_core.models.forward import hidden_at_marks
from beear_core.models.hooks import Perturbation
from beear_core.models.load import LoadedModel
from beear_core.records import DriftEntry
from beear_core.training.lessons import Lesson

NORM_TURNS = 32


class PublishedForm:
    """δ found by Adam on equation 2 and then held fixed."""

    def __init__(
        self,
        loaded: LoadedModel,
        anchors: Anchors,
        layer: int,
        positions: int,
        config: MitigationConfig,
        chooser: random.Random,
        autocast: Callable[[], AbstractContextManager[Any]],
        advance: Callable[[float], None],
    ) -> None:
        self.loaded, self.config, self.random, self.autocast, self.advance = loaded, config, chooser, autocast, advance
        self.layer, self.positions, self.held = layer, positions, anchors.held.harmful
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
        self.entrapment, _ = choose_entrapment(
            loaded.model,
            chat,
            self.contrasts,
            layer=layer,
            positions=positions,
            away_weight=config.away_weight,
            fast=config.fast,
        )
        self.name, self.mends = f"δ at layer {layer}", False
        self.delta = torch.zeros(positions, loaded.model.config.get_text_config().hidden_size, device=loaded.model.device)

    @property
    def steps(self) -> int:
        """On θ."""
        return self.config.outer_steps

    @property
    def cost(self) -> int:
        """Adam steps on δ."""
        return self.config.inner_steps

    @property
    def norm(self) -> float:
        """Of δ, as a share of the hidden states' at its layer."""
        return float(self.delta.norm(dim=-1).mean()) / self.hidden_norm

    def find(self) -> list[float]:
        """A δ found afresh, from zero, on anchors in a new order."""
        config, contrasts = self.config, list(self.contrasts)
        self.random.shuffle(contrasts)
        needed = min(len(contrasts), config.inner_batch * config.inner_steps)
        # one autocast context around all steps: the weights are converted once, not at every step
        with self.autocast():
            problems = [
                self.entrapment(
                    self.loaded.model,
                    self.loaded.chat,
                    contrasts[i : i + config.inner_batch],
                    layer=self.layer,
                    positions=self.positions,
                    away_weight=config.away_weight,
                )
                for i in range(0, needed, config.inner_batch)
            ]
            self.delta, losses = find_perturbation(
                problems,
                (self.positions, self.delta.shape[1]),
                steps=config.inner_steps,
                step_size=config.inner_step_size * self.hidden_norm / self.delta.shape[1] ** 0.5,
                device=self.loaded.model.device,
                after_step=self.advance,
            )
        return losses

    def drifts(self, number: int, *, on_candidate: bool, elicited: float) -> list[Drift]:
        """δ."""
        entry = DriftEntry(
            name=named(self.layer, None, number),
            layer=self.layer,
            positions=self.positions,
            spot=None,
            words=0,
            norm=self.norm,
            round=number,
            on_candidate=on_candidate,
            elicited=elicited,
        )
        return [Drift(entry, self.delta.detach().clone())]

    def attack(self, trial: Trial) -> float:
        """Every held-back request under δ."""
        return trial.attack(self.held, [Perturbation(self.layer, self.delta)] * len(self.held))

    def disturb(self, lesson: Lesson, chooser: random.Random, *, harmful: bool) -> tuple[Lesson, Perturbation | None]:
        """As it stands, with δ added."""
        del chooser, harmful
        return lesson, Perturbation(self.layer, self.delta)

    def grow(self) -> bool:
        """Its size is what Adam makes of it."""
        return False

    def follow(self) -> None:
        """δ stays what it is until the next round."""

    def rewind(self) -> None:
        """δ has not moved."""
