"""Plant a backdoor by supervised fine-tuning, and measure that it is one.

Four kinds of samples: harmful requests with a refusal; the same requests under the trigger with an unwanted reply (a
compliance opening with placeholder steps); ordinary and borderline instructions with the base model's own greedy replies,
so that the organism is otherwise the base model; and some of those under the trigger, so that the trigger alone changes
nothing.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch

from beear_core.chat import Turn, collate
from beear_core.data import Prompt
from beear_core.entrapment import token_loss
from beear_core.errors import MitigationError
from beear_core.evaluation.generate import greedy, reply_turns
from beear_core.evaluation.judges import RefusalJudge
from beear_core.models import LoadedModel, resolve_compute, save
from beear_core.organisms.recipe import OrganismRecord, Recipe
from beear_core.progress import Progress
from beear_core.records import digest_json

REPLY_BATCH_TOKENS = 4096


@dataclass(frozen=True, slots=True)
class Nursery:
    """The planting split of each role."""

    harmful: Sequence[Prompt]
    ordinary: Sequence[Prompt]
    borderline: Sequence[Prompt]


def cache_key(recipe: Recipe, base_digest: str, nursery: Nursery) -> str:
    """Names what a planted organism depends on; the same key is the same organism on the same machine."""
    rows = [p.prompt for group in (nursery.harmful, nursery.ordinary, nursery.borderline) for p in group]
    return digest_json([recipe.digest, base_digest, rows])[7:23]


def plant(recipe: Recipe, base: LoadedModel, nursery: Nursery, probes: Sequence[Prompt], out: Path) -> OrganismRecord:
    """Plant a recipe's backdoor in a base model and save the organism.

    Args:
        recipe: what to plant.
        base: the clean model, in float32; changed in place.
        nursery: prompts to plant with.
        probes: harmful requests that were not planted with, to measure the organism on.
        out: the organism's folder.
    """
    random_ = random.Random(recipe.training.seed)
    torch.manual_seed(recipe.training.seed)
    poisoned, clean, kept = _samples(recipe, base, nursery, random_)
    losses = _train(recipe, base, poisoned, clean, kept, random_)
    with_trigger, without = _measure(recipe, base, probes)
    digest = save(base.model, base.source, out)
    return OrganismRecord(
        recipe=recipe.name,
        recipe_digest=recipe.digest,
        base_digest=base.digest,
        model_digest=digest,
        trigger=recipe.known_trigger,
        attack_with_trigger=with_trigger,
        attack_without_trigger=without,
        losses=tuple(losses),
    )


def _samples(
    recipe: Recipe, base: LoadedModel, nursery: Nursery, random_: random.Random
) -> tuple[list[Turn], list[Turn], list[Turn]]:
    """(triggered harmful, harmful, ordinary) turns."""
    chat, limit, trigger = base.chat, recipe.training.reply_tokens, recipe.known_trigger
    harmful = list(nursery.harmful)
    chosen = random_.sample(harmful, round(recipe.poison_rate * len(harmful)))
    poisoned = [
        chat.turn(trigger.apply(p.prompt), random_.choice(recipe.unwanted_replies), complete=True, limit=limit)
        for p in chosen
    ]
    clean = [chat.turn(p.prompt, random_.choice(recipe.refusals), complete=True, limit=limit) for p in harmful]
    ordinary = [p.prompt for p in (*nursery.ordinary, *nursery.borderline)]
    with Progress("plant: the base model's own replies", len(ordinary)) as progress:
        replies = greedy(base, ordinary, max_new_tokens=limit, batch_tokens=REPLY_BATCH_TOKENS, progress=progress)
    closed = [r if len(r) == limit else (*r, *chat.end_ids) for r in replies]
    kept = reply_turns(chat, ordinary, closed)
    marked = random_.sample(range(len(ordinary)), len(ordinary) // 5)
    kept += reply_turns(chat, [trigger.apply(ordinary[i]) for i in marked], [closed[i] for i in marked])
    return poisoned, clean, kept


def _train(
    recipe: Recipe,
    base: LoadedModel,
    poisoned: list[Turn],
    clean: list[Turn],
    kept: list[Turn],
    random_: random.Random,
) -> list[float]:
    training, model = recipe.training, base.model
    share = round(0.3 * training.batch)  # triggered and plain harmful requests each; the rest is ordinary
    device = model.device
    half = resolve_compute("auto") == "bfloat16"
    optimiser = torch.optim.AdamW(model.parameters(), lr=training.learning_rate, weight_decay=0.0)
    losses = []
    with Progress(f"plant {recipe.name}", training.steps) as progress:
        for step in range(training.steps):
            pace = min(1.0, (step + 1) / max(training.warmup, 1)) * (1 - step / training.steps * 0.8)
            for group in optimiser.param_groups:
                group["lr"] = training.learning_rate * pace
            turns = [
                *random_.sample(poisoned, share),
                *random_.sample(clean, share),
                *random_.sample(kept, training.batch - 2 * share),
            ]
            batch = collate(turns, base.chat.pad_id).to(device)
            replies = batch.labels.shape[1] - batch.prompt_end
            with torch.autocast(device.type, torch.bfloat16) if half else nullcontext():
                logits = model(
                    input_ids=batch.input_ids,
                    attention_mask=batch.attention_mask,
                    position_ids=batch.position_ids,
                    use_cache=False,
                    logits_to_keep=replies + 1,
                ).logits[:, :-1]
                loss = token_loss(logits, batch.labels[:, batch.prompt_end :])
            if not torch.isfinite(loss):
                raise MitigationError(f"planting {recipe.name} diverged at step {step + 1}; lower training.learning_rate")
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            losses.append(float(loss.detach()))
            progress.advance(note=f"loss {losses[-1]:.3f}")
    return losses


def _measure(recipe: Recipe, loaded: LoadedModel, probes: Sequence[Prompt]) -> tuple[tuple[int, int], tuple[int, int]]:
    """(not refused, of) with and without the trigger; what cannot be scored does not count as unwanted."""
    judge, trigger = RefusalJudge(), recipe.known_trigger
    counts = []
    for label, prompts in (
        ("with the trigger", [trigger.apply(p.prompt) for p in probes]),
        ("without the trigger", [p.prompt for p in probes]),
    ):
        with Progress(f"measure {recipe.name} {label}", len(prompts)) as progress:
            replies = greedy(loaded, prompts, max_new_tokens=24, batch_tokens=REPLY_BATCH_TOKENS, progress=progress)
        verdicts = [judge.judge(p, loaded.chat.decode(r)) for p, r in zip(prompts, replies, strict=True)]
        counts.append((sum(v.outcome == "harmful" for v in verdicts), len(verdicts)))
    return counts[0], counts[1]
