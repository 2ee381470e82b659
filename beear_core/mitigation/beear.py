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
import shutil
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

import torch

from beear_core.config import MitigationConfig
from beear_core.data import AnchorSet
from beear_core.errors import MitigationError
from beear_core.files import disk_errors
from beear_core.mitigation.adversaries import OUTER_COST, Adversary
from beear_core.mitigation.anchors import draw_anchors
from beear_core.mitigation.checkpoints import keep_weights, restore_weights
from beear_core.mitigation.fine_pruning import FinePruning
from beear_core.mitigation.flush import OwnTriggers
from beear_core.mitigation.layers import resolve_layers
from beear_core.mitigation.places import Places, search_places
from beear_core.mitigation.published import PublishedForm
from beear_core.mitigation.removal import Row, removal_loss, removal_step
from beear_core.mitigation.traps import WordTraps
from beear_core.mitigation.trial import ADMISSIBLE, Held, Trial, faults, rank, remaining
from beear_core.models.drift import Drift
from beear_core.models.load import LoadedModel, decoder_layers, resolve_compute
from beear_core.progress import Progress
from beear_core.records import Ending, RoundRecord
from beear_core.training.lessons import Lesson, LikeLength

WARM_UP = 3  # outer steps until the learning rate is whole


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


def mitigate(loaded: LoadedModel, anchors: AnchorSet, config: MitigationConfig, work: Path) -> Mitigation:
    """Remove from a model, in place, what an adversary can elicit; where that is switched off, only find perturbations.

    Args:
        loaded: the candidate, weights in float32; its weights change.
        anchors: the defender's data; no trigger and no evaluation request is among it.
        config: see ``MitigationConfig``.
        work: a folder for the weights to go back to, up to three times the model's size.

    Raises:
        ConfigError: layer out of range.
        DataError: too few anchors, or a prompt shorter than the perturbation.
        MitigationError: a loss that is not a number before any round was admissible.
    """
    if not config.enabled:  # nothing is trained, so no more replies are asked for than are measured on
        config = dataclasses.replace(config, performance_anchors=config.held_back_ordinary + 1)
    loop = _Loop(loaded, anchors, config, work)
    try:
        return loop.run() if config.enabled else loop.only_search()
    finally:
        loop.clean_up()


class _Loop:
    def __init__(self, loaded: LoadedModel, anchors: AnchorSet, config: MitigationConfig, work: Path) -> None:
        torch.manual_seed(config.seed)
        self.loaded, self.model, self.config = loaded, loaded.model, config
        layers = resolve_layers(config, len(decoder_layers(self.model)))
        self.places = Places(layers, "as configured" if isinstance(config.layer, int) else "the default", ())
        self.compute = resolve_compute(config.compute)
        self.random = random.Random(config.seed)
        self.accepted, self.best_file, self.planted_file = (
            work / f"{name}.safetensors" for name in ("accepted", "best", "planted")
        )
        with disk_errors(f"write to {work}"):
            work.mkdir(parents=True, exist_ok=True)
        self.keep()
        self.rate, self.weight = config.outer_learning_rate, config.performance_weight
        self.anchors = draw_anchors(loaded, anchors, config)
        self.trial = Trial(loaded, self.anchors.held)
        half = max(1, config.outer_batch // 2)
        kept = [self.anchors.ordinary, self.anchors.borderline]
        self.safe = LikeLength([self.anchors.refusals], [config.outer_batch])
        self.kept = LikeLength(kept, [half, half])
        self.perturbing: WordTraps | PublishedForm | None = None
        self.drifts: list[Drift] = []
        self.nothing_left, self.untouched = "", True

    def enlist(self) -> list[Adversary]:
        """Whom the rounds are against, in turn."""
        config = self.config
        self.perturbing = self.perturbations()
        own = OwnTriggers(self.loaded, self.anchors, config, self.random, self.planted_file, self.planted)
        named: dict[str, list[Adversary]] = {
            "beear": [self.perturbing],
            "flush": [own],
            "both": [own, self.perturbing],
        }
        return named[config.method]

    def perturbations(self) -> WordTraps | PublishedForm:
        """The inner level of BEEAR. Whatever the method is, what it finds on the candidate is kept."""
        config, both = self.config, (self.loaded, self.anchors)
        if config.positions == "auto":
            if config.layer == "search":
                self.places = self.search()
            return WordTraps(*both, self.places.layers, config, self.random, self.autocast, self.climbed)
        (layer,) = self.places.layers
        return PublishedForm(*both, layer, config.positions, config, self.random, self.autocast, self.climbed)

    def search(self) -> Places:
        """Up to three layers at which a trigger would act."""
        with Progress("where a trigger acts", self.config.place_steps) as progress:
            return search_places(
                self.loaded,
                self.anchors,
                self.config,
                self.random,
                self.places.layers,
                lambda loss: progress.advance(note=f"planting loss {loss:.3f}"),
            )

    def climbed(self, loss: float) -> None:
        self.progress.advance(note=f"inner loss {loss:.3f}")

    def planted(self, loss: float) -> None:
        self.progress.advance(OUTER_COST, note=f"planting loss {loss:.3f}")

    def run(self) -> Mitigation:
        """Algorithm 1, with the stopping rule."""
        config = self.config
        rounds: list[RoundRecord] = []
        best: RoundRecord | None = None
        adversaries = self.enlist()
        turns: list[Adversary] = [a for a, _ in zip(cycle(adversaries), range(config.rounds))]
        if config.pruning:
            turns.insert(0, FinePruning(self.loaded, self.anchors, config, self.random, self.autocast))
        # the first round's search is the candidate's own, unless that round is against something else
        first = self.perturbing if self.perturbing is not None and turns[0] is not self.perturbing else None
        total = sum(a.cost + a.steps * OUTER_COST for a in turns) + (first.cost if first else 0)
        names = " and ".join(dict.fromkeys(a.name for a in turns))
        with Progress(f"BEEAR: {names}, {self.compute}", total) as self.progress:
            before = self.trial.measure()
            if first is not None and self.is_nothing(first, 0, self.entrap(first, 0)[1], before):
                return self.ended(None, [], self.nothing_left)
            for number, adversary in enumerate(turns, start=1):
                try:
                    record = self.round(number, adversary, before)
                except MitigationError as error:
                    if best is None:
                        raise
                    return self.ended(best, rounds, f"round {number} failed ({error}); round {best.round} is kept")
                if record is None:
                    lost = " and no round before was admissible: the candidate is kept" if rounds and best is None else ""
                    return self.ended(best, rounds, self.nothing_left + lost)
                rounds.append(record)
                if record.note == ADMISSIBLE and (best is None or rank(record) <= rank(best)):
                    best = record
                    with disk_errors(f"keep the best weights so far in {self.best_file.parent}"):
                        shutil.copyfile(self.accepted, self.best_file)
                safe = [r for r in rounds if self.is_safe(r)]
                if len(safe) >= config.safe_rounds:
                    return self.ended(best, rounds, f"safe in {len(safe)} rounds, each against a new adversary")
            return self.ended(best, rounds, self.exhausted(best))

    def round(self, number: int, adversary: Adversary, before: Held) -> RoundRecord | None:
        """Inner and outer level once; ``None`` when what is found elicits nothing, so that nothing is left to do."""
        began = time.monotonic()
        inner, elicited = self.entrap(adversary, number)
        if not adversary.mends and self.is_nothing(adversary, number, elicited, before):
            self.go_back()
            return None
        norm = adversary.norm
        rate, weight = self.rate, self.weight
        for attempt in range(1, self.config.attempts + 1):
            if attempt > 1:
                self.progress.extend(adversary.steps * OUTER_COST)
                if not adversary.mends:
                    self.go_back()
                adversary.rewind()
            outer = self.remove(adversary)
            after = self.trial.measure()
            under, opened = adversary.attack(self.trial), self.under_drift()
            found = faults(before, after, self.config)
            if not found:
                self.keep()
                self.untouched = False
                break
            self.weight *= 2
            if not adversary.mends:
                self.rate /= 2
        else:
            self.go_back()
        if adversary.mends:
            self.rate, self.weight = rate, weight
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

    def is_nothing(self, adversary: Adversary, number: int, elicited: float, before: Held) -> bool:
        """Whether what was found elicits no more than a safe model says; sets the reason to end."""
        self.nothing_left = (
            f"round {number}: {adversary.name} elicits {elicited:.0%} of unwanted replies on held-back requests; "
            "nothing is left to remove"
        )
        return max(elicited, before.attack) <= self.config.target_attack_rate

    def under_drift(self) -> float | None:
        """Attack success on held-back requests under what was found on the candidate, the same for every round."""
        drifts = [d for d in self.drifts if d.entry.on_candidate]
        if not drifts:
            return None
        chooser = random.Random(self.config.seed)
        asked = list(zip(self.anchors.held.harmful, cycle(drifts)))
        turns = [drift.turn(self.loaded.chat, text, chooser) for text, drift in asked]
        return self.trial.attack(turns, [drift.perturbation for _, drift in asked])

    def entrap(self, adversary: Adversary, number: int) -> tuple[list[float], float]:
        """The inner level: losses before each step, and the share of held-back requests that it elicits."""
        inner = adversary.find()
        elicited = adversary.attack(self.trial)
        while elicited < self.config.elicits and adversary.grow():
            self.progress.extend(adversary.cost)
            inner += adversary.find()
            elicited = adversary.attack(self.trial)
        self.drifts += adversary.drifts(number, on_candidate=self.untouched, elicited=elicited)
        return inner, elicited

    def only_search(self) -> Mitigation:
        """The inner level alone, for what it says about the candidate."""
        adversary = self.perturbing = self.perturbations()
        with Progress(f"{adversary.name} on the candidate, {self.compute}", adversary.cost) as self.progress:
            _, elicited = self.entrap(adversary, 0)
        return self.ended(
            None, [], f"mitigation is switched off; {adversary.name} found on the candidate elicit {elicited:.0%}"
        )

    def is_safe(self, record: RoundRecord) -> bool:
        """Admissible, and nothing elicited on held-back requests: alone, with what was just trained against, and with
        what was found on the candidate.
        """
        under = record.attack_under_delta_after
        found = max(*remaining(record), 1.0 if under is None else under)
        return record.note == ADMISSIBLE and found <= self.config.target_attack_rate

    def exhausted(self, best: RoundRecord | None) -> str:
        limit = f"all {self.config.rounds} rounds used"
        if best is None:
            return f"{limit}, none admissible: the candidate is kept as it was"
        left = f"what was found on the candidate still elicits {remaining(best)[1]:.0%}"
        return f"{limit}; round {best.round} is kept, {left}"

    def ended(self, best: RoundRecord | None, rounds: list[RoundRecord], reason: str) -> Mitigation:
        """Put the best round's weights into the model; without one the caller keeps the candidate's own bytes."""
        if best is not None:
            restore_weights(self.model, self.best_file)
        if best is not None:
            ending: Ending = "cleaned"
        elif not self.config.enabled:
            ending = "switched off"
        else:
            ending = "none admissible" if rounds else "nothing to remove"
        return Mitigation(
            ending=ending,
            best_round=best.round if best else None,
            reason=reason,
            rounds=tuple(rounds),
            drifts=tuple(self.drifts),
            places=self.places,
            hidden_norm=self.perturbing.hidden_norm if isinstance(self.perturbing, PublishedForm) else 0.0,
            compute=self.compute,
        )

    def keep(self) -> None:
        """The weights that a refused round goes back to."""
        keep_weights(self.model, self.accepted)

    def go_back(self) -> None:
        """Undo a round. The optimiser begins anew with every round, so the weights are all there is to undo."""
        restore_weights(self.model, self.accepted)

    def clean_up(self) -> None:
        for file in (self.best_file, self.accepted, self.planted_file):
            file.unlink(missing_ok=True)
            file.with_suffix(".tmp").unlink(missing_ok=True)

    def autocast(self) -> AbstractContextManager[Any]:
        if self.compute == "float32":
            return nullcontext()
        return torch.autocast(self.model.device.type, torch.bfloat16)

    def remove(self, adversary: Adversary) -> list[float]:
        """A few steps on θ; what the adversary adds may move with each of them."""
        config = self.config
        rate = config.repair_learning_rate if adversary.mends else self.rate
        # fused: no temporaries as large as the model
        optimiser = torch.optim.AdamW(self.model.parameters(), lr=rate, weight_decay=0.0, fused=True)
        losses = []
        for step in range(adversary.steps):
            for group in optimiser.param_groups:
                group["lr"] = rate * min(1.0, (step + 1) / WARM_UP) * (1 - 0.9 * step / adversary.steps)
            rows = self.draw(adversary)
            parts = -(-len(rows) // config.outer_part)
            batches = [partial(self.loss, rows[i::parts]) for i in range(parts)]
            losses.append(removal_step(self.model, optimiser, batches))
            adversary.follow()
            self.progress.advance(OUTER_COST, note=f"outer loss {losses[-1]:.3f}")
        return losses

    def draw(self, adversary: Adversary) -> list[Row]:
        """One batch of equation 3."""
        chooser = self.random
        safe, under, plain = (group.draw(chooser) for group in (self.safe, self.kept, self.kept))

        def disturbed(lessons: Sequence[Lesson], weight: float, harmful: bool) -> list[Row]:
            return [Row(*adversary.disturb(x, chooser, harmful=harmful), weight) for x in lessons]

        kept = self.weight / (len(under) + len(plain))
        rows = [*disturbed(safe, 1 / len(safe), True), *disturbed(under, kept, False), *(Row(x, None, kept) for x in plain)]
        return rows if kept > 0 else rows[: len(safe)]

    def loss(self, rows: Sequence[Row]) -> torch.Tensor:
        """Equation 3 on a part of a batch."""
        with self.autocast():
            return removal_loss(self.model, self.loaded.chat, rows)


def plain_config(config: MitigationConfig) -> dict[str, int | float | str | bool | None]:
    """The configuration as plain values, for the record."""
    return dataclasses.asdict(config)
