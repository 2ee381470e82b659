"""What BEEAR is compared with: the same loop, anchors, limits and numbers of steps, another adversary."""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path
from typing import Literal, get_args

from beear_core.config import MitigationConfig
from beear_core.data import AnchorSet
from beear_core.mitigation.adversaries import Adversary
from beear_core.mitigation.beear import Loop, Mitigation, Stop
from beear_core.mitigation.traps import WordTraps
from beear_core.mitigation.trial import Held, Trial
from beear_core.models.drift import Drift
from beear_core.models.hooks import Perturbation
from beear_core.models.load import LoadedModel
from beear_core.training.lessons import Lesson

Control = Literal["safety fine-tuning", "random perturbations"]
CONTROLS: dict[str, Control] = {name: name for name in get_args(Control)}


class AsAsked(Adversary):
    """Nothing: harmful requests as they are, so that the outer level is plain safety fine-tuning."""

    name = "safety fine-tuning"
    cost = 0

    def find(self) -> list[float]:
        """Search nothing."""
        return []

    def attack(self, trial: Trial) -> float:
        """Ask every held-back request as it is."""
        return trial.attack(self.task.anchors.held.harmful)

    def disturb(self, lesson: Lesson, chooser: random.Random, *, harmful: bool) -> tuple[Lesson, Perturbation | None]:
        """Leave a lesson as it is."""
        del chooser, harmful
        return lesson, None


class RandomPerturbations(WordTraps):
    """Perturbations as large as the found ones may be, on the same words at the same layers, in random directions."""

    name = "random perturbations"

    @property
    def cost(self) -> int:
        """What drawing costs: nothing."""
        return 0

    def find(self) -> list[float]:
        """Draw every δ anew, as long as it may be."""
        self.randomise()
        self.found = [trap.delta.detach().clone() for trap in self.traps]
        return []

    def drifts(self, number: int, *, on_candidate: bool, elicited: float) -> list[Drift]:
        """Keep nothing: nothing was found."""
        del number, on_candidate, elicited
        return []

    def grow(self) -> bool:
        """Stay as large as the configuration says."""
        return False

    def follow(self) -> None:
        """Stay where it was drawn."""


class ControlLoop(Loop):
    """Algorithm 1 with an adversary that may elicit nothing, and is taught against all the same."""

    def nothing_left(self, adversary: Adversary, number: int, elicited: float, before: Held) -> Stop | None:
        """Go on: a control takes as many steps as BEEAR may."""
        del adversary, number, elicited, before
        return None


def run_control(
    control: Control, loaded: LoadedModel, anchors: AnchorSet, config: MitigationConfig, work: Path
) -> Mitigation:
    """Run a control on a model, in place; see ``beear_core.mitigation.beear.mitigate``.

    Args:
        control: which one.
        loaded: the candidate.
        anchors: the defender's data.
        config: as BEEAR has it; ``safe_rounds`` is not looked at.
        work: a folder for the weights to go back to.
    """
    config = dataclasses.replace(config, safe_rounds=config.rounds + 1)
    with ControlLoop.on(loaded, anchors, config, work) as loop:
        layers = loop.enlisted.places.layers
        other = AsAsked(loop.task) if control == "safety fine-tuning" else RandomPerturbations(loop.task, layers)
        loop.enlisted = dataclasses.replace(loop.enlisted, rounds=(other,) * config.rounds)
        return loop.run()
