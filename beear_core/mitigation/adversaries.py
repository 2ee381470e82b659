"""The inner level in its several forms, behind one interface: what makes the model go along with harmful requests.

* ``PublishedForm``: one δ at one layer, at the last n prompt positions (arXiv 2406.17092, section 3.2; ``entrapment``).
* ``WordTraps``: several δ at several layers, on words without meaning that stand before or behind the request, that go on
  being searched while θ learns (``traps``).
* ``OwnTriggers``: triggers of the defender's own, planted in the model (``flush``).
* ``FinePruning``: words without meaning, after what clean requests do not use was pruned (``fine_pruning``).
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from beear_core.config import MitigationConfig
from beear_core.mitigation.anchors import Anchors
from beear_core.mitigation.trial import Trial
from beear_core.models.drift import Drift
from beear_core.models.hooks import Perturbation
from beear_core.models.load import ComputeName, LoadedModel
from beear_core.progress import Progress
from beear_core.training.lessons import Lesson

OUTER_COST = 3  # a step on θ takes about as long as this many on δ alone; for the time left alone


@dataclass(slots=True)
class Task:
    """What both levels work with.

    Attributes:
        loaded: the model whose weights θ are.
        anchors: what is learned from and measured on.
        config: how much of what.
        random: of everything that is drawn.
        compute: what activations are computed in.
        progress: told of every step; one unit is a step on δ alone.
    """

    loaded: LoadedModel
    anchors: Anchors
    config: MitigationConfig
    random: random.Random
    compute: ComputeName
    progress: Progress

    def autocast(self) -> AbstractContextManager[Any]:
        """Return a context in which activations are computed in the type that ``compute`` names."""
        if self.compute == "float32":
            return nullcontext()
        return torch.autocast(self.loaded.model.device.type, torch.bfloat16)


class Adversary(ABC):
    """What the model is to withstand."""

    name: str
    mends = False
    """Whether its search harms the model, so that steps on θ mend; an attempt then goes on where the last one ended."""
    radius = 0.0
    """How large what it adds may be; all that ``find`` does not search afresh."""

    def __init__(self, task: Task) -> None:
        self.task = task

    @property
    def steps(self) -> int:
        """How many steps on θ an attempt takes."""
        return self.task.config.outer_steps

    @property
    @abstractmethod
    def cost(self) -> int:
        """What ``find`` costs, in units of one step on δ alone; for the time left."""

    @property
    def norm(self) -> float | None:
        """Mean L2 norm of δ relative to the hidden states' at its layer; ``None`` where nothing is added."""
        return None

    @abstractmethod
    def find(self) -> list[float]:
        """Search afresh against the model as it is now, and return the loss before each step."""

    @abstractmethod
    def attack(self, trial: Trial) -> float:
        """Measure the share of held-back harmful requests that it makes the model go along with."""

    @abstractmethod
    def disturb(self, lesson: Lesson, chooser: random.Random, *, harmful: bool) -> tuple[Lesson, Perturbation | None]:
        """Put a lesson under the adversary: return it with what then stands around its request, and the δ added, if any."""

    def drifts(self, number: int, *, on_candidate: bool, elicited: float) -> list[Drift]:
        """List the perturbations that ``find`` found, to be kept; none where nothing is added.

        Args:
            number: the round's.
            on_candidate: whether the model had not been changed by then.
            elicited: what ``attack`` gave.
        """
        del number, on_candidate, elicited
        return []

    def grow(self) -> bool:
        """Become stronger from the next ``find`` on; ``False`` where it cannot."""
        return False

    def follow(self) -> None:  # noqa: B027  most stay what they are
        """Go on searching after a step on θ, with the gradients that step left."""

    def rewind(self) -> None:  # noqa: B027  most stay what they are
        """Go back to what ``find`` left."""
