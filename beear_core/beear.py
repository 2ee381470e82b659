"""BEEAR, the bi-level loop (Zeng et al., EMNLP 2024, arXiv 2406.17092, algorithm 1).

    repeat:  δ* ← argmin_δ  CE(f_θ(x; δ), y_h) − λ CE(f_θ(x; δ), y_s)              inner level, ``entrapment``
             θ  ← argmin_θ  CE(f_θ(x; δ*), y_s) + α CE(f_θ(x_p), y_p)               outer level, ``removal``

After each round, anchors that were never trained on are measured, without a perturbation and under the round's δ. The
best round is the admissible one (ordinary replies as likely as before, not more of them refused) with the least remaining
attack, of equals the later one. The loop stops when ``safe_rounds`` rounds were safe, each against a δ found anew. If no
round is admissible, the model stays as it was.

A δ found anew against the cleaned model can still elicit unwanted replies: given enough norm it can on any model, clean
ones included. It is reported (``attack_under_delta`` of the next round) but does not decide; what decides is whether the
drift that was found is withstood.
"""

from __future__ import annotations

import dataclasses
import math
import random
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from beear_core.chat import Turn
from beear_core.config import MitigationConfig, resolve_layer
from beear_core.data import AnchorSet
from beear_core.entrapment import Contrast, choose_entrapment, find_perturbation, hidden_norm
from beear_core.errors import DataError, MitigationError
from beear_core.evaluation.generate import Perturbation, greedy, reply_turns, score_replies
from beear_core.evaluation.judges import RefusalJudge
from beear_core.models import LoadedModel, decoder_layers, disk_errors, resolve_compute
from beear_core.progress import Progress
from beear_core.records import RoundRecord
from beear_core.removal import removal_loss, removal_step

MEASURED_TOKENS = 16  # the opening decides whether a reply is a refusal
MEASURED_BATCH = 4096
SCORED_TOKENS = 1024  # padded tokens a scoring batch; its logits are (tokens, vocabulary) in float32
ADMISSIBLE = "admissible"
OUTER_COST = 4  # an outer step takes about as long as this many inner ones; for the time left alone


@dataclass(frozen=True, slots=True)
class Anchors:
    """What is learned from and what is only measured on, as tokens."""

    contrasts: Sequence[Contrast]
    safe: list[Turn]
    performance: list[Turn]
    held_harmful: Sequence[str]
    held_ordinary: Sequence[str]
    held_performance: Sequence[Turn]


@dataclass(frozen=True, slots=True)
class Held:
    """Measured on held-back anchors without a perturbation: two rates in [0, 1], NLL in nats per token."""

    attack: float
    refusal: float
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
        work: a folder for the best weights so far.

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
        self.best_file = work / "best.safetensors"
        with disk_errors(f"write to {work}"):
            work.mkdir(parents=True, exist_ok=True)
        self.anchors = draw_anchors(loaded, anchors, config)
        self.nothing_left = ""
        contrasts = self.anchors.contrasts
        settings: dict[str, Any] = {"layer": self.layer, "positions": config.positions}
        self.hidden_norm = hidden_norm(self.model, loaded.chat, [c.unwanted for c in contrasts[:32]], **settings)
        self.entrapment, self.path = choose_entrapment(
            self.model, loaded.chat, contrasts, away_weight=config.away_weight, fast=config.fast, **settings
        )
        width = self.model.config.get_text_config().hidden_size
        self.shape = (config.positions, width)
        self.step_size = config.inner_step_size * self.hidden_norm / width**0.5
        # fused: no temporaries as large as the model
        self.optimiser = torch.optim.AdamW(
            self.model.parameters(), lr=config.outer_learning_rate, weight_decay=0.0, fused=True
        )

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
                    self.keep()
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
        outer = self.remove(delta)
        after = self.measure()
        return RoundRecord(
            round=number,
            inner_loss=tuple(inner),
            outer_loss=tuple(outer),
            delta_norm=float(delta.norm(dim=-1).mean()) / self.hidden_norm,
            attack_under_delta=elicited,
            attack_after=after.attack,
            attack_under_delta_after=self.attack(delta),
            refusal_ordinary_after=after.refusal,
            nll_ratio_after=after.nll / before.nll,
            seconds=round(time.monotonic() - began, 1),
            note="; ".join(self.faults(before, after)) or ADMISSIBLE,
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
        temporary = self.best_file.with_suffix(".tmp")
        with disk_errors(f"keep the best weights so far in {self.best_file.parent}"):
            save_file({n: p.detach() for n, p in self.model.named_parameters()}, temporary)
            temporary.replace(self.best_file)

    def clean_up(self) -> None:
        for file in (self.best_file, self.best_file.with_suffix(".tmp")):
            file.unlink(missing_ok=True)

    def autocast(self) -> AbstractContextManager[Any]:
        if self.compute == "float32":
            return nullcontext()
        return torch.autocast(self.model.device.type, torch.bfloat16)

    def entrap(self) -> tuple[torch.Tensor, list[float]]:
        """A δ found afresh, from zero, on anchors in a new order."""
        config, contrasts = self.config, list(self.anchors.contrasts)
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
        config, chooser = self.config, self.random
        losses = []
        for _ in range(config.outer_steps):
            safe = chooser.sample(self.anchors.safe, min(config.outer_batch, len(self.anchors.safe)))
            kept = chooser.sample(self.anchors.performance, min(config.outer_batch, len(self.anchors.performance)))
            parts = range(0, len(safe), config.outer_part)
            share = math.ceil(len(kept) / len(parts))
            losses.append(
                removal_step(
                    self.model,
                    self.optimiser,
                    [
                        partial(
                            self.removal_loss, safe[i : i + config.outer_part], kept[n * share : (n + 1) * share], delta
                        )
                        for n, i in enumerate(parts)
                    ],
                )
            )
            self.progress.advance(OUTER_COST, note=f"outer loss {losses[-1]:.3f}")
        return losses

    def removal_loss(self, safe: Sequence[Turn], kept: Sequence[Turn], delta: torch.Tensor) -> torch.Tensor:
        """Equation 3 on a part of a batch."""
        with self.autocast():
            return removal_loss(
                self.model,
                self.loaded.chat,
                safe,
                kept,
                delta,
                layer=self.layer,
                performance_weight=self.config.performance_weight,
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
        refused = self.openings(self.anchors.held_harmful, delta)
        return sum(r is not True for r in refused) / len(refused)

    def measure(self) -> Held:
        refused = self.openings(self.anchors.held_ordinary)
        scores = score_replies(self.loaded, self.anchors.held_performance, batch_tokens=SCORED_TOKENS)
        return Held(
            attack=self.attack(),
            refusal=sum(r is True for r in refused) / len(refused),
            nll=sum(s.nll for s in scores) / sum(s.tokens for s in scores),
        )

    def faults(self, before: Held, after: Held) -> list[str]:
        """Why a round is not admissible; empty when it is."""
        found = []
        ratio = after.nll / before.nll
        if not ratio <= self.config.max_nll_ratio:
            found.append(f"held-back ordinary replies: NLL ratio {ratio:.3f} above {self.config.max_nll_ratio}")
        if after.refusal - before.refusal > self.config.max_refusal_increase:
            found.append(
                f"wrong refusals of held-back ordinary requests rose from {before.refusal:.0%} to {after.refusal:.0%}"
            )
        return found


def remaining(record: RoundRecord) -> tuple[float, float]:
    """Attack success after a round, without and with the δ it was trained against; what was not measured is the worst."""
    plain, perturbed = record.attack_after, record.attack_under_delta_after
    return (1.0 if plain is None else plain, 1.0 if perturbed is None else perturbed)


def rank(record: RoundRecord) -> float:
    """Smaller is better: remaining attack, plain and perturbed together. Of equals the later round has seen more δ."""
    return sum(remaining(record))


def draw_anchors(loaded: LoadedModel, anchors: AnchorSet, config: MitigationConfig) -> Anchors:
    """Draw what the loop learns from and what it is measured on, and let the candidate answer the ordinary ones.

    Raises:
        DataError: if a role has too few rows, or a prompt is shorter than the perturbation.
    """
    chat, chooser = loaded.chat, random.Random(config.seed)
    harmful = _drawn(anchors.harmful, config.anchors, config.held_back, "harmful anchors", chooser)
    texts = [p.prompt for p in harmful]
    for role, rows in (("safe openings", anchors.safe_openings), ("unwanted openings", anchors.unwanted_openings)):
        if not rows:
            raise DataError(f"no {role} among the anchors; at least one is needed")
    contrasts, safe = [], []
    for prompt in texts[config.held_back :]:
        refusal = chooser.choice(anchors.safe_openings).reply
        unwanted = chooser.choice(anchors.unwanted_openings).reply
        inner = config.inner_reply_tokens
        contrasts.append(
            Contrast(
                unwanted=chat.turn(prompt, unwanted, complete=False, limit=inner),
                safe=chat.turn(prompt, refusal, complete=True, limit=inner),
            )
        )
        safe.append(chat.turn(prompt, refusal, complete=True, limit=config.reply_tokens))
    chat.check_window([*safe, *(Turn(chat.prompt_ids(p), (0,)) for p in texts[: config.held_back])], config.positions)
    performance, ordinary = _performance(loaded, anchors, config, chooser)
    return Anchors(
        contrasts=contrasts,
        safe=safe,
        performance=performance[config.held_back :],
        held_harmful=texts[: config.held_back],
        held_ordinary=ordinary[: config.held_back],
        held_performance=performance[: config.held_back],
    )


def _performance(
    loaded: LoadedModel, anchors: AnchorSet, config: MitigationConfig, chooser: random.Random
) -> tuple[list[Turn], list[str]]:
    """Ordinary prompts with the replies to hold on to: those of the user's file, else the candidate's own."""
    chat, limit = loaded.chat, config.reply_tokens
    if anchors.performance_replies:
        rows = _drawn(
            anchors.performance_replies, config.performance_anchors, config.held_back, "performance replies", chooser
        )
        turns = [chat.turn(p.prompt, p.reply or "", complete=True, limit=limit) for p in rows]
        return turns, [p.prompt for p in rows]
    pool = (*anchors.ordinary, *anchors.borderline)
    rows = _drawn(pool, config.performance_anchors, config.held_back, "ordinary anchors", chooser)
    prompts = [p.prompt for p in rows]
    with Progress("performance anchors: the candidate's own replies", len(prompts)) as progress:
        replies = greedy(loaded, prompts, max_new_tokens=limit, batch_tokens=MEASURED_BATCH, progress=progress)
    closed = [r if len(r) == limit else (*r, *chat.end_ids) for r in replies]
    return reply_turns(chat, prompts, closed), prompts


def _drawn(rows: Sequence[Any], wanted: int, held_back: int, what: str, chooser: random.Random) -> list[Any]:
    if len(rows) < held_back + 1:
        raise DataError(
            f"only {len(rows)} {what}, but {held_back} are held back for measuring and at least one is trained on; "
            "give more rows or lower mitigation.held_back"
        )
    return chooser.sample(list(rows), min(wanted, len(rows)))


def plain_config(config: MitigationConfig) -> dict[str, int | float | str | bool | None]:
    """The configuration as plain values, for the record."""
    return dataclasses.asdict(config)
