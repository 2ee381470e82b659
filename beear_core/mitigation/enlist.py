"""Whom the rounds are against, in turn."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

from beear_core.mitigation.adversaries import OUTER_COST, Adversary, Task
from beear_core.mitigation.fine_pruning import FinePruning
from beear_core.mitigation.flush import OwnTriggers
from beear_core.mitigation.places import Places, search_places
from beear_core.mitigation.published import PublishedForm
from beear_core.mitigation.traps import WordTraps


@dataclass(frozen=True, slots=True)
class Enlisted:
    """The adversaries of a mitigation.

    Attributes:
        perturbing: the inner level of BEEAR; whatever the method is, what it finds on the candidate is kept.
        rounds: whom each round is against.
        places: the layers that are perturbed, and why.
    """

    perturbing: WordTraps | PublishedForm
    rounds: tuple[Adversary, ...]
    places: Places

    @property
    def before_the_rounds(self) -> Adversary | None:
        """What is searched on the candidate first; the first round's search is that already, where it perturbs."""
        return None if self.rounds and self.rounds[0] is self.perturbing else self.perturbing

    @property
    def cost(self) -> int:
        """Of all rounds, in units of one step on δ alone; for the time left."""
        first = self.before_the_rounds
        return sum(a.cost + a.steps * OUTER_COST for a in self.rounds) + (first.cost if first else 0)

    @property
    def names(self) -> str:
        """Their names, for progress."""
        return " and ".join(dict.fromkeys(a.name for a in self.rounds))


def enlist(task: Task, layers: tuple[int, ...], planted: Path) -> Enlisted:
    """Build the adversaries that the configuration asks for.

    Args:
        task: what they work with.
        layers: the perturbed ones, as far as the configuration alone says.
        planted: a file for weights with planted triggers.

    Raises:
        DataError: a prompt is shorter than the perturbation.
    """
    config = task.config
    places = Places(layers, "as configured" if isinstance(config.layer, int) else "the default", ())
    perturbing: WordTraps | PublishedForm
    if config.positions == "auto":
        if config.layer == "search":
            places = search_places(task, places.layers)
        perturbing = WordTraps(task, places.layers)
    else:
        (layer,) = places.layers
        perturbing = PublishedForm(task, layer, config.positions)
    own = OwnTriggers(task, planted)
    named: dict[str, list[Adversary]] = {"beear": [perturbing], "flush": [own], "both": [own, perturbing]}
    rounds = [a for a, _ in zip(cycle(named[config.method]), range(config.rounds))] if config.enabled else []
    if config.enabled and config.pruning:
        rounds.insert(0, FinePruning(task))
    return Enlisted(perturbing, tuple(rounds), places)
