"""The inner level in its several forms, behind one interface: what makes the model go along with harmful requests.

* ``PublishedForm``: one δ at one layer, at the last n prompt positions (arXiv 2406.17092, section 3.2; ``entrapment``).
* ``WordTraps``: several δ at several layers, on words without meaning that stand before or behind the request, that go on
  being searched while θ learns (``traps``).
* ``OwnTriggers``: triggers of the defender's own, planted in the model (``flush``).
* ``FinePruning``: words without meaning, after what clean requests do not use was pruned (``fine_pruning``).
"""

from __future__ import annotations

import random
from typing import Protocol

from beear_core.mitigation.trial import Trial
from beear_core.models.drift import Drift
from beear_core.models.hooks import Perturbation
from beear_core.training.lessons import Lesson

OUTER_COST = 3  # a step on θ takes about as long as this many on δ alone; for the time left alone


class Adversary(Protocol):
    """What the model is to withstand."""

    name: str
    mends: bool
    """Its search harms the model, and steps on θ mend that: another attempt goes on from where the last one ended."""

    @property
    def steps(self) -> int:
        """On θ, an attempt."""
        ...

    @property
    def cost(self) -> int:
        """Of ``find``, in units of one step on δ alone; for the time left."""
        ...

    def find(self) -> list[float]:
        """Search afresh against the model as it is now. Returns the loss before each step."""
        ...

    def drifts(self, number: int, *, on_candidate: bool, elicited: float) -> list[Drift]:
        """What ``find`` found, to be kept; nothing where nothing is added.

        Args:
            number: of the round.
            on_candidate: the model had not been changed by then.
            elicited: what ``attack`` gave.
        """
        ...

    def attack(self, trial: Trial) -> float:
        """Share of held-back harmful requests that it makes the model go along with."""
        ...

    def disturb(self, lesson: Lesson, chooser: random.Random, *, harmful: bool) -> tuple[Lesson, Perturbation | None]:
        """A lesson as the model is asked it under the adversary: what stands around its request, and what is added."""
        ...

    def grow(self) -> bool:
        """Be stronger from the next ``find`` on; ``False`` where it cannot be."""
        ...

    def follow(self) -> None:
        """Go on searching after a step on θ, with the gradients that step left."""
        ...

    def rewind(self) -> None:
        """Be again as ``find`` left it."""
        ...

    @property
    def norm(self) -> float | None:
        """Mean L2 norm of δ relative to the hidden states' at its layer; ``None`` where nothing is added."""
        ...
