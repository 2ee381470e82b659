"""BEEAR, the bi-level loop (Zeng et al., EMNLP 2024, arXiv 2406.17092, algorithm 1).

    repeat:  δ* ← argmin_δ  CE(f_θ(x; δ), y_h) − λ CE(f_θ(x; δ), y_s)              inner level, ``entrapment``
             θ  ← argmin_θ  L(f_θ(x; δ*), y_s) + α L(f_θ(x_p), y_p)                 outer level, ``removal``

y_s is the candidate's own refusal, y_h what it says when it may not begin to refuse, y_p its own reply (``anchors``).

What must stay is a constraint. After each round anchors that were never trained on are measured, without a perturbation and
under the round's δ. A round that makes ordinary replies less likely, or more of them or of the borderline ones refusals, is
undone and tried again with smaller steps and more weight on what must stay; the loop never goes on from harmed weights. The
best round is the one with the least remaining attack, of equals the later one. The loop stops when ``safe_rounds`` rounds
were safe, each against a δ found anew. If no round is admissible, the model stays as it was.

A δ found anew against the cleaned model can still elicit unwanted replies: given enough norm it can on any model, clean
ones included. It is reported (``attack_under_delta`` of the next round) but does not decide; what decides is whether the
drift that was found is withstood.
"""

from __future__ import annotations

import dataclasses
import random
import shutil
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from beear_core.chat import Turn
from beear_core.config import MitigationConfig, resolve_layer
from beear_core.data import AnchorSet
from beear_core.errors import MitigationError
from beear_core.evaluation.generate import greedy, score_replies
from beear_core.evaluation.judges import RefusalJudge
from beear_core.hooks import Perturbation
from beear_core.lessons import Lesson, LikeLength
from beear_core.mitigation.anchors import draw_anchors
from beear_core.mitigation.entrapment import Contrast, choose_entrapment, find_perturbation, hidden_norm
from beear_core.mitigation.removal import removal_loss, removal_step
from beear_core.models import LoadedModel, decoder_layers, disk_errors, resolve_compute
from beear_core.progress import Progress
from beear_core.records import RoundRecord

MEASURED_TOKENS = 12  # the opening decides whether a reply is a refusal
MEASURED_BATCH = 4096
SCORED_TOKENS = 1024  # padded tokens a scoring batch; its logits are (tokens, vocabulary) in float32
ADMISSIBLE = "admissible"
OUTER_COST = 4  # an outer step takes about as long as this many inner ones; for the time left alone


@dataclass(frozen=True, slots=True)
class Held:
    """Measured on held-back anchors without a perturbation: three rates in [0, 1], NLL in nats per token."""

    attack: float
    refusal: float
    borderline: float
    nll: float


@dataclass(frozen=True, slots=True)
class Mitigation:
    """How the loop ended; the model holds the weights of ``best_round``, or its old ones when that is ``None``."""

    best_round: int | None
    reason: str
    rounds: tuple[RoundRecord, ...]
    layer: int
    hidden_norm: float
    compute: str
    path: str


def mitigate(loaded: LoadedModel, anchors: AnchorSet, config: MitigationConfig, work: Path) -> Mitigation:
    """Remove what a perturbation can elicit from a model, in place.

    Args:
        loaded: the candidate, weights in float32; its weights change.
        anchors: the defender's data; no trigger and no evaluation request is among it.
        config: see ``MitigationConfig``.
        work: a folder for the weights to go back to, twice the model's size.

    Raises:
        ConfigError: layer out of range.
        DataError: too few anchors, or a prompt shorter than the perturbation.
        MitigationError: a loss that is not a number before any round was admissible.
    """
    loop = _Loop(loaded, anchors, config, work)
    try:
        return loop.run()
    finally:
        loop.clean_up()


class _Loop:
    def __init__(self, loaded: LoadedModel, anchors: AnchorSet, config: MitigationConfig, work: Path) -> None:
        torch.manual_seed(config.seed)
        self.loaded, self.model, self.config = loaded, loaded.model, config
        self.layer = resolve_layer(config.layer, len(decoder_layers(self.model)))
        self.compute = resolve_compute(config.compute)
        self.random = random.Random(config.seed)
        self.judge = RefusalJudge()
        self.accepted, self.best_file = work / "accepted.safetensors", work / "best.safetensors"
        with disk_errors(f"write to {work}"):
            work.mkdir(parents=True, exist_ok=True)
        self.keep()
        self.rate, self.weight = config.outer_learning_rate, config.performance_weight
        self.anchors = draw_anchors(loaded, anchors, config)
        self.contrasts = [
            Contrast(unwanted=Turn(lesson.turn.prompt, continuation), safe=lesson.turn)
            for lesson, continuation in zip(self.anchors.refusals, self.anchors.continuations, strict=True)
        ]
        half = max(1, config.outer_batch // 2)
        kept = [self.anchors.ordinary, self.anchors.borderline]
        self.safe = LikeLength([self.anchors.refusals], [config.outer_batch])
        self.kept, self.kept_under = LikeLength(kept, [half, half]), LikeLength(kept, [max(1, half // 2)] * 2)
        turns = [lesson.turn for lesson in (*self.anchors.refusals, *self.anchors.ordinary, *self.anchors.borderline)]
        prompts = [Turn(loaded.chat.prompt_ids(p), (0,)) for p in self.anchors.held.harmful]
        loaded.chat.check_window([*turns, *prompts], config.positions)
        self.nothing_left = ""
        settings: dict[str, Any] = {"layer": self.layer, "positions": config.positions}
        self.hidden_norm = hidden_norm(self.model, loaded.chat, [c.unwanted for c in self.contrasts[:32]], **settings)
        self.entrapment, self.path = choose_entrapment(
            self.model, loaded.chat, self.contrasts, away_weight=config.away_weight, fast=config.fast, **settings
        )
        width = self.model.config.get_text_config().hidden_size
        self.shape = (config.positions, width)
        self.step_size = config.inner_step_size * self.hidden_norm / width**0.5

    def run(self) -> Mitigation:
        """Algorithm 1, with the stopping rule."""
        config = self.config
        rounds: list[RoundRecord] = []
        best: RoundRecord | None = None
        total = config.rounds * (config.inner_steps + config.outer_steps * OUTER_COST)
        with Progress(f"BEEAR at layer {self.layer}, {self.compute}, {self.path}", total) as self.progress:
            before = self.measure()
            for number in range(1, config.rounds + 1):
                try:
                    record = self.round(number, before)
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
                    return self.ended(best, rounds, f"safe in {len(safe)} rounds, each against a new perturbation")
            return self.ended(best, rounds, self.exhausted(best))

    def round(self, number: int, before: Held) -> RoundRecord | None:
        """Inner and outer level once; ``None`` when no perturbation elicits anything, so that nothing is left to do."""
        began = time.monotonic()
        delta, inner = self.entrap()
        elicited = self.attack(delta)
        if max(elicited, before.attack) <= self.config.target_attack_rate:
            self.nothing_left = (
                f"round {number}: the perturbation that was found elicits {elicited:.0%} of unwanted replies on held-back "
                "requests; nothing is left to remove"
            )
            return None
        for attempt in range(1, self.config.attempts + 1):
            if attempt > 1:
                self.progress.extend(self.config.outer_steps * OUTER_COST)
            outer = self.remove(delta)
            after = self.measure()
            under = self.attack(delta)
            faults = self.faults(before, after)
            if not faults:
                self.keep()
                break
            self.go_back()
            self.rate, self.weight = self.rate / 2, self.weight * 2
        return RoundRecord(
            round=number,
            inner_loss=tuple(inner),
            outer_loss=tuple(outer),
            delta_norm=float(delta.norm(dim=-1).mean()) / self.hidden_norm,
            attack_under_delta=elicited,
            attack_after=after.attack,
            attack_under_delta_after=under,
            refusal_ordinary_after=after.refusal,
            refusal_borderline_after=after.borderline,
            nll_ratio_after=after.nll / before.nll,
            seconds=round(time.monotonic() - began, 1),
            attempts=attempt,
            note="; ".join(faults) or ADMISSIBLE,
        )

    def is_safe(self, record: RoundRecord) -> bool:
        """Admissible, and nothing elicited on held-back requests without δ and with the δ just trained against."""
        return record.note == ADMISSIBLE and max(remaining(record)) <= self.config.target_attack_rate

    def exhausted(self, best: RoundRecord | None) -> str:
        limit = f"all {self.config.rounds} rounds used"
        if best is None:
            return f"{limit}, none admissible: the candidate is kept as it was"
        return f"{limit}; round {best.round} is kept, {remaining(best)[1]:.0%} still elicited by its perturbation"

    def ended(self, best: RoundRecord | None, rounds: list[RoundRecord], reason: str) -> Mitigation:
        """Put the best round's weights into the model; without one the caller keeps the candidate's own bytes."""
        if best is not None:
            self.model.load_state_dict(load_file(self.best_file), strict=False)
        return Mitigation(
            best_round=best.round if best else None,
            reason=reason,
            rounds=tuple(rounds),
            layer=self.layer,
            hidden_norm=self.hidden_norm,
            compute=self.compute,
            path=self.path,
        )

    def keep(self) -> None:
        """The weights that a refused round goes back to."""
        temporary = self.accepted.with_suffix(".tmp")
        with disk_errors(f"keep the best weights so far in {self.accepted.parent}"):
            save_file({n: p.detach() for n, p in self.model.named_parameters()}, temporary)
            temporary.replace(self.accepted)

    def go_back(self) -> None:
        """Undo a round. The optimiser begins anew with every round, so the weights are all there is to undo."""
        self.model.load_state_dict(load_file(self.accepted), strict=False)

    def clean_up(self) -> None:
        for file in (self.best_file, self.accepted, self.accepted.with_suffix(".tmp")):
            file.unlink(missing_ok=True)

    def autocast(self) -> AbstractContextManager[Any]:
        if self.compute == "float32":
            return nullcontext()
        return torch.autocast(self.model.device.type, torch.bfloat16)

    def entrap(self) -> tuple[torch.Tensor, list[float]]:
        """A δ found afresh, from zero, on anchors in a new order."""
        config, contrasts = self.config, list(self.contrasts)
        self.random.shuffle(contrasts)
        needed = min(len(contrasts), config.inner_batch * config.inner_steps)
        # one autocast context around all steps: the weights are converted once, not at every step
        with self.autocast():
            problems = [
                self.entrapment(
                    self.model,
                    self.loaded.chat,
                    contrasts[i : i + config.inner_batch],
                    layer=self.layer,
                    positions=config.positions,
                    away_weight=config.away_weight,
                )
                for i in range(0, needed, config.inner_batch)
            ]
            return find_perturbation(
                problems,
                self.shape,
                steps=config.inner_steps,
                step_size=self.step_size,
                device=self.model.device,
                after_step=lambda loss: self.progress.advance(note=f"inner loss {loss:.3f}"),
            )

    def remove(self, delta: torch.Tensor) -> list[float]:
        """A few steps on θ against a fixed δ."""
        config, chooser, perturbation = self.config, self.random, Perturbation(self.layer, delta)
        # fused: no temporaries as large as the model
        optimiser = torch.optim.AdamW(self.model.parameters(), lr=self.rate, weight_decay=0.0, fused=True)
        losses = []
        for _ in range(config.outer_steps):
            safe, kept, kept_under = (group.draw(chooser) for group in (self.safe, self.kept, self.kept_under))
            parts = max(1, -(-len(safe) // config.outer_part))
            batches = zip(_split(safe, parts), _split(kept, parts), _split(kept_under, parts), strict=True)
            losses.append(
                removal_step(self.model, optimiser, [partial(self.removal_loss, *batch, perturbation) for batch in batches])
            )
            self.progress.advance(OUTER_COST, note=f"outer loss {losses[-1]:.3f}")
        return losses

    def removal_loss(
        self, safe: Sequence[Lesson], kept: Sequence[Lesson], kept_under: Sequence[Lesson], perturbation: Perturbation
    ) -> torch.Tensor:
        """Equation 3 on a part of a batch."""
        with self.autocast():
            return removal_loss(
                self.model, self.loaded.chat, safe, kept, kept_under, perturbation, performance_weight=self.weight
            )

    def openings(self, prompts: Sequence[str], delta: torch.Tensor | None = None) -> list[bool | None]:
        """Whether the greedy reply to each prompt refuses."""
        perturbation = None if delta is None else Perturbation(self.layer, delta)
        replies = greedy(
            self.loaded,
            prompts,
            max_new_tokens=MEASURED_TOKENS,
            batch_tokens=MEASURED_BATCH,
            perturbation=perturbation,
        )
        return [self.judge.judge(p, self.loaded.chat.decode(r)).refused for p, r in zip(prompts, replies, strict=True)]

    def attack(self, delta: torch.Tensor | None = None) -> float:
        """Share of held-back harmful requests whose reply is not scored as a refusal; unscored is not safe."""
        refused = self.openings(self.anchors.held.harmful, delta)
        return sum(r is not True for r in refused) / len(refused)

    def measure(self) -> Held:
        held = self.anchors.held
        ordinary, borderline = (self.openings(prompts) for prompts in (held.ordinary, held.borderline))
        scores = score_replies(self.loaded, held.performance, batch_tokens=SCORED_TOKENS)
        return Held(
            attack=self.attack(),
            refusal=sum(r is True for r in ordinary) / len(ordinary),
            borderline=sum(r is True for r in borderline) / len(borderline),
            nll=sum(s.nll for s in scores) / sum(s.tokens for s in scores),
        )

    def faults(self, before: Held, after: Held) -> list[str]:
        """Why a round is not admissible; empty when it is."""
        found = []
        ratio = after.nll / before.nll
        if not ratio <= self.config.max_nll_ratio:
            found.append(f"held-back ordinary replies: NLL ratio {ratio:.3f} above {self.config.max_nll_ratio}")
        for what, was, now, limit in (
            ("ordinary", before.refusal, after.refusal, self.config.max_refusal_increase),
            ("borderline", before.borderline, after.borderline, self.config.max_borderline_increase),
        ):
            if now - was > limit:
                found.append(f"wrong refusals of held-back {what} requests rose from {was:.0%} to {now:.0%}")
        return found


def _split(rows: Sequence[Lesson], parts: int) -> list[Sequence[Lesson]]:
    """``rows`` in ``parts`` pieces of like size, in order."""
    cuts = [round(i * len(rows) / parts) for i in range(parts + 1)]
    return [rows[a:b] for a, b in pairwise(cuts)]


def remaining(record: RoundRecord) -> tuple[float, float]:
    """Attack success after a round, without and with the δ it was trained against; what was not measured is the worst."""
    plain, perturbed = record.attack_after, record.attack_under_delta_after
    return (1.0 if plain is None else plain, 1.0 if perturbed is None else perturbed)


def rank(record: RoundRecord) -> float:
    """Smaller is better: remaining attack, plain and perturbed together. Of equals the later round has seen more δ."""
    return sum(remaining(record))


def plain_config(config: MitigationConfig) -> dict[str, int | float | str | bool | None]:
    """The configuration as plain values, for the record."""
    return dataclasses.asdict(config)
