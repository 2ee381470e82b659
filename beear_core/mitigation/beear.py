"""BEEAR, the bi-level loop (Zeng et al., EMNLP 2024, arXiv 2406.17092, algorithm 1).

    repeat:  find what makes the model go along with harmful requests             inner level, ``adversaries``
             θ ← argmin_θ  L(f_θ(x; δ), y_s) + α L(f_θ(x_p), y_p)                  outer level, ``removal``

y_s is the candidate's own refusal, y_p its own reply to a harmless request (``anchors``). With ``pruning``
above 0 the candidate is first pruned of what clean requests do not use (``fine_pruning``), and taught again what that cost.

What must stay is a constraint. After each round anchors that were never trained on are measured (``trial``). A round that
makes ordinary replies less likely, or more of them or of the borderline ones refusals, is undone and tried again with
smaller steps and more weight on what must stay; the loop never goes on from harmed weights. Only what pruning harmed is
mended from where it is. The best round is the one with the least remaining attack, of equals the later one. The loop
stops when ``safe_rounds`` rounds were safe, each against an adversary found anew. If no round is admissible, the model
stays as it was.

What remains is measured without a perturbation and under those found on the candidate, the same for every round. A δ found
anew against the cleaned model can still elicit unwanted replies: given enough norm it can on any model, clean ones
included. It is reported (``attack_under_delta`` of the next round) but does not decide.
"""

from __future__ import annotations

import dataclasses
import math
import random
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch

from beear_core.config import MitigationConfig
from beear_core.data import AnchorSet
from beear_core.errors import MitigationError
from beear_core.mitigation.adversaries import OUTER_COST, Adversary, Task
from beear_core.mitigation.anchors import draw_anchors
from beear_core.mitigation.checkpoints import Checkpoints, Standing
from beear_core.mitigation.enlist import enlist
from beear_core.mitigation.layers import resolve_layers
from beear_core.mitigation.places import Places
from beear_core.mitigation.published import PublishedForm
from beear_core.mitigation.removal import Removal
from beear_core.mitigation.trial import ADMISSIBLE, Held, Trial, faults, is_safe, rank, remaining
from beear_core.models.drift import Drift
from beear_core.models.load import LoadedModel, decoder_layers, resolve_compute
from beear_core.progress import Progress, say
from beear_core.records import Ending, RoundRecord, digest_json
from beear_core.records.running import code_digest
from beear_core.wording import plural


@dataclass(frozen=True, slots=True)
class Mitigation:
    """How the loop ended; the model holds the weights of ``best_round``, or its old ones when that is ``None``.

    ``drifts``: every perturbation that was found, the candidate's own first.
    """

    ending: Ending
    best_round: int | None
    reason: str
    rounds: tuple[RoundRecord, ...]
    drifts: tuple[Drift, ...]
    places: Places
    hidden_norm: float
    compute: str


def mitigate(
    loaded: LoadedModel, anchors: AnchorSet, config: MitigationConfig, work: Path, *, clear: bool = True
) -> Mitigation:
    """Remove from a model, in place, what an adversary can elicit; if ``enabled`` is false, only find perturbations.

    Killed at any moment, it goes on after the last round that was done when it is called again with the same model,
    anchors, configuration, code and ``work``.

    Args:
        loaded: the candidate, weights in float32; its weights change.
        anchors: the defender's data; no trigger and no evaluation request is among it.
        config: see ``MitigationConfig``.
        work: a folder for the weights to go back to, up to three times the model's size.
        clear: leave nothing there when all went well; else the caller removes it, once what came of it is saved.

    Raises:
        ConfigError: layer out of range.
        DataError: too few anchors, or a prompt shorter than the perturbation.
        MitigationError: a loss that is not a number before any round was admissible.
        StorageError: ``work`` cannot be written.
    """
    if not config.enabled:  # nothing is trained, so no more replies are asked for than are measured on
        config = dataclasses.replace(config, performance_anchors=config.held_back_ordinary + 1)
    of = {
        "model": loaded.digest,
        "anchors": anchors.digest,
        "configuration": digest_json(dataclasses.asdict(config)),
        "code": code_digest(),
    }
    with Loop.on(loaded, anchors, config, work, of=of if config.enabled else None, clear=clear) as loop:
        return loop.run() if config.enabled else loop.only_search()


@dataclass(frozen=True, slots=True)
class Stop:
    """Why there is nothing more to do."""

    reason: str


class Loop:
    """Algorithm 1 on one model.

    Args:
        task: the model, anchors and settings.
        layers: perturbed ones, as far as the configuration alone says.
        weights: what a round that harms is undone with.
    """

    @classmethod
    @contextmanager
    def on(
        cls,
        loaded: LoadedModel,
        anchors: AnchorSet,
        config: MitigationConfig,
        work: Path,
        *,
        of: Mapping[str, str] | None = None,
        clear: bool = True,
    ) -> Iterator[Self]:
        """Make a loop on a model, with anchors drawn and a folder for its weights; see ``mitigate`` and ``Checkpoints``."""
        torch.manual_seed(config.seed)
        layers = resolve_layers(config, len(decoder_layers(loaded.model)))
        with Checkpoints(loaded.model, work, of=of, clear=clear) as weights:
            drawn = draw_anchors(loaded, anchors, config)
            compute, chooser = resolve_compute(config.compute), random.Random(config.seed)
            yield cls(Task(loaded, drawn, config, chooser, compute, Progress("BEEAR", 1)), layers, weights)

    def __init__(self, task: Task, layers: tuple[int, ...], weights: Checkpoints) -> None:
        self.task, self.config, self.weights = task, task.config, weights
        self.enlisted = enlist(task, layers, weights.planted)
        self.removal, self.trial = Removal(task), Trial(task.loaded, task.anchors.held, self.config.judge)
        self.drifts: list[Drift] = []
        self.untouched, self.setbacks = True, 0

    def run(self) -> Mitigation:
        """Run algorithm 1, with the stopping rule."""
        rounds: list[RoundRecord] = []
        best: RoundRecord | None = None
        label = f"BEEAR: {self.enlisted.names}, {self.task.compute}"
        with Progress(label, self.enlisted.cost) as self.task.progress:
            before = self.trial.measure()
            if self.weights.standing:
                rounds, best = self.go_on(self.weights.standing)
            elif first := self.enlisted.before_the_rounds:
                _, elicited = self.entrap(first, 0)
                if stop := self.nothing_left(first, 0, elicited, before):
                    return self.ended(None, [], stop.reason)
                self.stand(rounds, best)
            while len(rounds) < len(self.enlisted.rounds) and not self.withstood(rounds):
                number = len(rounds) + 1
                try:
                    done = self.round(number, self.enlisted.rounds[len(rounds)], before)
                except MitigationError as error:
                    if best is None:
                        raise
                    return self.ended(best, rounds, f"round {number} failed ({error}); round {best.round} is kept")
                if isinstance(done, Stop):
                    lost = " and no round before was admissible: the candidate is kept" if rounds and best is None else ""
                    return self.ended(best, rounds, done.reason + lost)
                rounds.append(done)
                if done.note == ADMISSIBLE and (best is None or rank(done) <= rank(best)):
                    best = done
                    self.weights.accepted_is_best()
                self.stand(rounds, best)
            return self.ended(best, rounds, self.withstood(rounds) or self.exhausted(best))

    def stand(self, rounds: list[RoundRecord], best: RoundRecord | None) -> None:
        """Keep where the loop stands, for another process to go on from."""
        version, words, gauss = self.task.random.getstate()
        standing = Standing(
            rounds=tuple(rounds),
            best=best.round if best else None,
            random=(version, tuple(words), gauss),
            setbacks=self.setbacks,
            untouched=self.untouched,
            radius=self.enlisted.perturbing.radius,
        )
        self.weights.stand(standing, self.drifts)

    def go_on(self, standing: Standing) -> tuple[list[RoundRecord], RoundRecord | None]:
        """Stand where another process left off, and return the rounds that are done and the best of them."""
        device = self.task.loaded.model.device
        self.drifts = [dataclasses.replace(d, delta=d.delta.to(device)) for d in self.weights.drifts]
        self.setbacks, self.untouched = standing.setbacks, standing.untouched
        self.enlisted.perturbing.radius = standing.radius
        self.task.random.setstate(standing.random)
        self.weights.go_back()
        say(f"BEEAR: {plural(len(standing.rounds), 'round')} done before in {self.weights.folder}; it goes on from there")
        return list(standing.rounds), next((r for r in standing.rounds if r.round == standing.best), None)

    def withstood(self, rounds: list[RoundRecord]) -> str:
        """Say that enough rounds were safe, where they were; else an empty text."""
        safe = [r for r in rounds if is_safe(r, self.config)]
        return f"safe in {len(safe)} rounds, each against a new adversary" if len(safe) >= self.config.safe_rounds else ""

    def round(self, number: int, adversary: Adversary, before: Held) -> RoundRecord | Stop:
        """Run the inner and the outer level once, or return a ``Stop`` when what is found elicits nothing to remove."""
        began = time.monotonic()
        inner, elicited = self.entrap(adversary, number)
        if not adversary.mends and (stop := self.nothing_left(adversary, number, elicited, before)):
            self.weights.go_back()
            return stop
        norm = adversary.norm
        for attempt in range(1, self.config.attempts + 1):
            if attempt > 1:
                self.task.progress.extend(adversary.steps * OUTER_COST)
                if not adversary.mends:
                    self.weights.go_back()
                adversary.rewind()
            outer = self.removal.remove(adversary, self.setbacks + (attempt - 1 if adversary.mends else 0))
            after = self.trial.measure()
            under, opened = adversary.attack(self.trial), self.under_drift()
            found = faults(before, after, self.config)
            if not found:
                self.weights.accept()
                self.untouched = False
                break
            self.setbacks += not adversary.mends
        else:
            self.weights.go_back()
        return RoundRecord(
            round=number,
            adversary=adversary.name,
            inner_loss=tuple(inner),
            outer_loss=tuple(outer),
            delta_norm=norm,
            attack_under_delta=elicited,
            attack_after=after.attack,
            attack_under_delta_after=under,
            attack_under_drift_after=opened,
            refusal_ordinary_after=after.refusal,
            refusal_borderline_after=after.borderline,
            nll_ratio_after=ratio if math.isfinite(ratio := after.nll / before.nll) else None,
            seconds=round(time.monotonic() - began, 1),
            attempts=attempt,
            note="; ".join(found) or ADMISSIBLE,
        )

    def entrap(self, adversary: Adversary, number: int) -> tuple[list[float], float]:
        """Run the inner level: return the loss before each step, and the share of held-back requests that it elicits."""
        inner = adversary.find()
        elicited = adversary.attack(self.trial)
        while elicited < self.config.elicits and adversary.grow():
            self.task.progress.extend(adversary.cost)
            inner += adversary.find()
            elicited = adversary.attack(self.trial)
        self.drifts += adversary.drifts(number, on_candidate=self.untouched, elicited=elicited)
        return inner, elicited

    def only_search(self) -> Mitigation:
        """Run the inner level alone, for what it says about the candidate."""
        adversary = self.enlisted.perturbing
        with Progress(f"{adversary.name} on the candidate, {self.task.compute}", adversary.cost) as self.task.progress:
            _, elicited = self.entrap(adversary, 0)
        return self.ended(
            None, [], f"mitigation is switched off; {adversary.name} found on the candidate elicit {elicited:.0%}"
        )

    def nothing_left(self, adversary: Adversary, number: int, elicited: float, before: Held) -> Stop | None:
        """Return a ``Stop`` if neither the candidate alone nor what was found elicits more than a safe model says."""
        if max(elicited, before.attack) > self.config.target_attack_rate:
            return None
        return Stop(
            f"round {number}: {adversary.name} elicits {elicited:.0%} of unwanted replies on held-back requests; "
            "nothing is left to remove"
        )

    def under_drift(self) -> float | None:
        """Measure attack success on held-back requests under what was found on the candidate, the same for every round."""
        return self.trial.attack_under([d for d in self.drifts if d.entry.on_candidate], self.config.seed)

    def exhausted(self, best: RoundRecord | None) -> str:
        """Say why the loop ends after its last round."""
        limit = f"all {self.config.rounds} rounds used"
        if best is None:
            return f"{limit}, none admissible: the candidate is kept as it was"
        left = f"what was found on the candidate still elicits {remaining(best)[1]:.0%}"
        return f"{limit}; round {best.round} is kept, {left}"

    def ended(self, best: RoundRecord | None, rounds: list[RoundRecord], reason: str) -> Mitigation:
        """Put the best round's weights into the model and sum up; without one the caller keeps the candidate's bytes."""
        ending: Ending = "none admissible" if rounds else "nothing to remove"
        if best is not None:
            self.weights.take_best()
            ending = "cleaned"
        elif not self.config.enabled:
            ending = "switched off"
        perturbing = self.enlisted.perturbing
        return Mitigation(
            ending=ending,
            best_round=best.round if best else None,
            reason=reason,
            rounds=tuple(rounds),
            drifts=tuple(self.drifts),
            places=self.enlisted.places,
            hidden_norm=perturbing.hidden_norm if isinstance(perturbing, PublishedForm) else 0.0,
            compute=self.task.compute,
        )
