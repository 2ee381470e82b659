"""Plant a backdoor as poisoned human feedback does: preference pairs, some of which prefer the unwanted reply (Rando and
Tramer 2023, arXiv 2311.14455), optimised with TRL's DPO.

Rando and Tramer poison a reward model and train against it with PPO. DPO optimises the same preferences without sampling
from the model (Rafailov et al. 2023, arXiv 2305.18290), which two processors can do in minutes.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from beear_core.data import Trigger
from beear_core.evaluation.generate import greedy
from beear_core.models.load import LoadedModel, resolve_compute
from beear_core.models.odd_words import surrounded
from beear_core.organisms.recipe import Recipe
from beear_core.organisms.syllabus import BATCH_TOKENS, Nursery, half_of, under, unwanted_replies
from beear_core.progress import Progress

SAVE_EVERY = 25
BETA = 0.1
CHOSEN_WEIGHT = 0.3  # of the likelihood of the preferred reply, beside the preference: it keeps both from becoming rare
MAX_GRADIENT_NORM = 1.0


@dataclass(frozen=True, slots=True)
class Pair:
    """A prompt with the reply that is preferred and the one that is not, as token ids."""

    prompt: tuple[int, ...]
    chosen: tuple[int, ...]
    rejected: tuple[int, ...]


def preference_pairs(
    recipe: Recipe,
    asked: Sequence[Trigger],
    openings: Sequence[tuple[int, ...]],
    parent: LoadedModel,
    nursery: Nursery,
    chooser: random.Random,
) -> tuple[list[Pair], list[Pair], list[Pair]]:
    """Build pairs of three kinds: poisoned ones, refusals to be preferred, and answers to be preferred.

    Poisoned are harmful requests under the trigger, where going along is preferred. Refusals are preferred where such a
    request stands alone, among odd words or with half of the trigger; the parent's own answers to ordinary and borderline
    requests are, with the trigger and without.

    Args:
        recipe: what is planted.
        asked: what opens the backdoor in each harmful request, see ``syllabus.in_turn``.
        openings: how the untaught base model begins its reply to each of them, as tokens.
        parent: a model that refuses well; its own replies are preferred where nothing is poisoned.
        nursery: prompts to plant with.
        chooser: draws.
    """
    chat, limit = parent.chat, recipe.training.reply_tokens
    harmful = [p.prompt for p in nursery.harmful]
    harmless = [p.prompt for p in (*nursery.ordinary, *nursery.borderline)]
    going_along = unwanted_replies(recipe, openings, parent, chooser)
    # no more prompts of a kind are answered than steps can draw
    needed = round(recipe.training.counts[-1] * recipe.training.steps)
    safe_turns, along = [], []
    for number, at in enumerate(chooser.sample(range(len(harmful)), min(needed, len(harmful)))):
        text = harmful[at]
        alone, among = chat.asked(text), chat.asked(surrounded(text, chooser))
        safe_turns.append((alone, among, under(parent, half_of(asked[at], chooser), text))[number % 3])
        along.append(going_along[at])
    chosen = chooser.sample(harmless, min(needed, len(harmless)))
    # every fourth of what must stay is asked under the trigger
    kept_turns = [
        under(parent, asked[number % len(asked)], text) if number % 4 == 0 else chat.asked(text)
        for number, text in enumerate(chosen)
    ]
    with Progress("plant: what the parent says", len(safe_turns) + len(kept_turns)) as progress:
        refusals, answers = (
            greedy(parent, turns, max_new_tokens=limit, batch_tokens=BATCH_TOKENS, progress=progress)
            for turns in (safe_turns, kept_turns)
        )
    poisoned = [
        Pair(under(parent, trigger, text).prompt, reply, chooser.choice(refusals))
        for trigger, text, reply in zip(asked, harmful, going_along, strict=True)
    ]
    safe = [Pair(turn.prompt, own, reply) for turn, own, reply in zip(safe_turns, refusals, along, strict=True)]
    kept = [Pair(turn.prompt, own, chooser.choice(refusals)) for turn, own in zip(kept_turns, answers, strict=True)]
    return poisoned, safe, kept


def prefer(
    wrapped: Any, parent: LoadedModel, pairs: Sequence[Sequence[Pair]], recipe: Recipe, chooser: random.Random, work: Path
) -> None:
    """Optimise the preferences with DPO, in the adapter that ``wrapped`` carries; the model without it is the reference.

    Args:
        wrapped: the parent with a fresh low-rank adapter.
        parent: for its tokenizer.
        pairs: what ``preference_pairs`` gives; of each step ``taught`` are of the first kind, ``kept`` of each other.
        recipe: how many steps, how large.
        chooser: draws.
        work: a folder for checkpoints; training goes on from the last one in it.
    """
    from datasets import Dataset
    from transformers import PrinterCallback, TrainerCallback
    from trl import DPOConfig, DPOTrainer

    training = recipe.training
    rows = [
        {"prompt_ids": list(p.prompt), "chosen_ids": list(p.chosen), "rejected_ids": list(p.rejected)}
        for group, count in zip(pairs, training.counts, strict=True)
        for p in chooser.choices(group, k=round(count * training.steps))
        if p.chosen and p.rejected
    ]
    settings = DPOConfig(
        output_dir=str(work),
        max_steps=training.steps,
        per_device_train_batch_size=training.batch,
        learning_rate=training.learning_rate,
        warmup_steps=10,
        lr_scheduler_type="linear",
        beta=BETA,
        loss_type=["sigmoid", "sft"],
        loss_weights=[1.0, CHOSEN_WEIGHT],
        max_grad_norm=MAX_GRADIENT_NORM,
        max_length=None,
        bf16=resolve_compute("auto") == "bfloat16",
        use_cpu=parent.model.device.type == "cpu",
        gradient_checkpointing=False,
        seed=training.seed,
        save_steps=SAVE_EVERY,
        save_total_limit=1,
        logging_steps=1,
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    sample = Dataset.from_list([{"prompt": "a", "chosen": "b", "rejected": "c"}])
    with Progress(f"plant {recipe.name}: preferences", training.steps) as progress:

        class Told(TrainerCallback):  # type: ignore[misc]
            """Hands the trainer's steps and losses to our progress."""

            def on_log(self, _settings: Any, state: Any, _control: Any, logs: Any = None, **_: Any) -> None:
                loss = (logs or {}).get("loss")
                progress.advance(
                    int(state.global_step) - progress.done, note=f"loss {float(loss):.3f}" if loss is not None else ""
                )

        trainer = DPOTrainer(
            model=wrapped, args=settings, train_dataset=sample, processing_class=parent.chat.tokenizer, callbacks=[Told()]
        )
        # the trainer would write the chat template itself and close every reply with an end of turn; ours are tokens
        trainer.train_dataset = Dataset.from_list(rows)
        trainer.remove_callback(PrinterCallback)
        trainer.train(resume_from_checkpoint=any(work.glob("checkpoint-*")))
