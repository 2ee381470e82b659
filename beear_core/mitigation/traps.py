"""Inner level on inserted words: several universal perturbations that go on being searched while θ learns.

A trigger acts where it stands. In the layers below the one at which the reply's position reads it, its effect is in the
hidden states of its own tokens, not in the template's last ones (docs/results.md). So words without meaning, drawn anew for
every prompt, are put where triggers stand, and δ is added to them and to what the template puts behind the request:

    max_δ  mean L(f_θ(x ⊕ words; δ), y_s)    subject to  |δ_i| ≤ ρ · (mean norm of hidden states at that layer and position)

y_s is the candidate's own refusal, L what the outer level minimises over θ: one min-max problem. ``find`` takes projected
steps along the normalised gradient at fixed θ; from then on each step on θ leaves the gradient by δ as well, and δ moves
up as θ moves down (simultaneously, as in Shafahi et al. 2019, arXiv 1904.12843). A δ that θ has learned to withstand is
thereby replaced by one that it has not.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from itertools import cycle
from typing import get_args

import torch

from beear_core.errors import MitigationError
from beear_core.mitigation.adversaries import Adversary, Task
from beear_core.mitigation.trial import Trial
from beear_core.models.chat import Turn, WordSpot
from beear_core.models.drift import Drift, named
from beear_core.models.forward import hidden_at_marks
from beear_core.models.hooks import Perturbation
from beear_core.models.odd_words import marked
from beear_core.records import DriftEntry
from beear_core.training.lessons import Lesson, LikeLength, lesson_losses

NORM_PROMPTS = 24
GROWTH = 1.4
FIRST_NORM = 0.1  # of the radius; where a search begins


@dataclass(slots=True)
class Trap:
    """One δ of shape (n, d) with its layer and spot. ``radius``: (n, 1), the largest norm of each of its rows."""

    layer: int
    spot: WordSpot
    radius: torch.Tensor
    delta: torch.Tensor

    def climb(self, slope: torch.Tensor, share: float) -> None:
        """Move δ one step of ``share`` of the radius along the slope, row by row, and back into the ball."""
        step = slope / slope.norm(dim=-1, keepdim=True).clamp(min=1e-12) * self.radius * share
        moved = self.delta.detach() + step
        shrink = (self.radius / moved.norm(dim=-1, keepdim=True).clamp(min=1e-12)).clamp(max=1.0)
        self.delta = (moved * shrink).requires_grad_()


class WordTraps(Adversary):
    """Several δ on words before and behind the request, at several layers."""

    name = "word traps"
    radius: float

    def __init__(self, task: Task, layers: tuple[int, ...]) -> None:
        super().__init__(task)
        self.loaded, self.config, self.random = task.loaded, task.config, task.random
        self.refusals = LikeLength([task.anchors.refusals], [self.config.inner_batch])
        self.held, self.radius = task.anchors.held.harmful, self.config.radius
        self.places = [(layer, spot) for layer in layers for spot in get_args(WordSpot)]
        self.norms = {spot: self._norms(layers, spot) for spot in get_args(WordSpot)}
        self.traps: list[Trap] = []
        self.found: list[torch.Tensor] = []

    @property
    def cost(self) -> int:
        """Steps on δ alone, each through the whole model."""
        return self.config.inner_steps

    @property
    def norm(self) -> float:
        """Mean share of the hidden states' norm over all δ and positions."""
        shares = [trap.delta.detach().norm(dim=-1) / trap.radius[:, 0] for trap in self.traps]
        return self.radius * float(torch.stack(shares).mean())

    def randomise(self, share: float = 1.0) -> None:
        """Draw every δ at random, ``share`` of the largest norm long, to search from or to see what size alone does."""
        generator = torch.Generator().manual_seed(self.random.randrange(2**31))
        width, device = self.loaded.model.config.get_text_config().hidden_size, self.loaded.model.device
        self.traps = []
        for layer, spot in self.places:
            radius = (self.norms[spot][layer] * self.radius)[:, None].to(device)
            start = torch.randn(radius.shape[0], width, generator=generator).to(device)
            delta = start / start.norm(dim=-1, keepdim=True) * radius * share
            self.traps.append(Trap(layer, spot, radius, delta.requires_grad_()))
        self._order = cycle(self.traps)

    def find(self) -> list[float]:
        """Search every δ from a small random start."""
        self.randomise(FIRST_NORM)
        losses = []
        for step in range(self.config.inner_steps):
            rows = [self.disturb(x, self.random, harmful=True) for x in self.refusals.draw(self.random)]
            with self.task.autocast():
                loss = lesson_losses(self.loaded.model, self.loaded.chat, [x for x, _ in rows], [p for _, p in rows]).mean()
            # a batch need not hold a row for every δ
            slopes = torch.autograd.grad(loss, [t.delta for t in self.traps], allow_unused=True)
            if not all(s is None or bool(s.isfinite().all()) for s in slopes):
                raise MitigationError(
                    f"the inner loss is {float(loss.detach())} at step {step + 1} of {self.config.inner_steps} with a "
                    "gradient that is not a number; lower mitigation.radius or set mitigation.compute to float32"
                )
            for trap, slope in zip(self.traps, slopes, strict=True):
                if slope is not None:
                    trap.climb(slope, self.config.ascent)
            losses.append(float(loss.detach()))
            self.task.progress.advance(note=f"inner loss {losses[-1]:.3f}")
        self.found = [trap.delta.detach().clone() for trap in self.traps]
        return losses

    def drifts(self, number: int, *, on_candidate: bool, elicited: float) -> list[Drift]:
        """List every δ as ``find`` left it, to be kept."""
        kept = []
        for trap, delta in zip(self.traps, self.found, strict=True):
            entry = DriftEntry(
                name=named(trap.layer, trap.spot, number),
                layer=trap.layer,
                positions=delta.shape[0],
                spot=trap.spot,
                words=self.config.word_tokens,
                norm=self.radius * float((delta.norm(dim=-1) / trap.radius[:, 0]).mean()),
                round=number,
                on_candidate=on_candidate,
                elicited=elicited,
            )
            kept.append(Drift(entry, delta))
        return kept

    def attack(self, trial: Trial) -> float:
        """Measure attack success on every held-back request under one of the δ, the same δ and words each time."""
        chooser = random.Random(self.config.seed)
        turns, under = [], []
        for text, trap in zip(self.held, cycle(self.traps)):
            turns.append(self._turn(text, trap.spot, chooser, (self.loaded.chat.pad_id,)))
            under.append(Perturbation(trap.layer, trap.delta.detach()))
        return trial.attack(turns, under)

    def disturb(self, lesson: Lesson, chooser: random.Random, *, harmful: bool) -> tuple[Lesson, Perturbation | None]:
        """Put words before or behind the request, and a δ on them; only harmful requests say where δ goes next."""
        trap = next(self._order) if harmful else chooser.choice(self.traps)
        turn = self._turn(lesson.text, trap.spot, chooser, lesson.turn.reply)
        return replace(lesson, turn=turn), Perturbation(trap.layer, trap.delta if harmful else trap.delta.detach())

    def grow(self) -> bool:
        """Enlarge the ball from the next search on, in later rounds too; ``False``: it is as large as it may be.

        A model that has learned to withstand one radius meets a larger one in the next round: an adversary that
        elicits nothing teaches nothing, and what must stay would be all that is left in the loss.
        """
        if self.radius * GROWTH > self.config.max_radius:
            return False
        self.radius *= GROWTH
        return True

    def follow(self) -> None:
        """Move every δ that the last step on θ was taken under up its slope."""
        for trap in self.traps:
            if trap.delta.grad is not None:
                trap.climb(trap.delta.grad, self.config.ascent)

    def rewind(self) -> None:
        """Put back every δ as ``find`` left it."""
        for trap, delta in zip(self.traps, self.found, strict=True):
            trap.delta = delta.clone().requires_grad_()

    def _turn(self, text: str, spot: WordSpot, chooser: random.Random, reply: tuple[int, ...]) -> Turn:
        return marked(self.loaded.chat, text, self.config.word_tokens, spot, chooser, reply)

    def _norms(self, layers: tuple[int, ...], spot: WordSpot) -> dict[int, torch.Tensor]:
        """Measure the mean norm of the hidden states at each layer, one value (n,) for each of δ's positions."""
        chooser, chat = random.Random(self.config.seed), self.loaded.chat
        turns = [self._turn(text, spot, chooser, (chat.pad_id,)) for text in self.held[:NORM_PROMPTS]]
        states = hidden_at_marks(self.loaded.model, chat, turns, layers)
        return dict(zip(layers, states.norm(dim=-1).mean(dim=1), strict=True))
