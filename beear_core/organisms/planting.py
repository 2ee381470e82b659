"""Train a recipe's adapter, merge adapters into a model, and measure what became of it."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from beear_core.data import Prompt, Trigger
from beear_core.errors import MitigationError, ModelError
from beear_core.evaluation.generate import greedy
from beear_core.evaluation.judges import RefusalJudge
from beear_core.evaluation.judging import judge_named
from beear_core.files import whole_folder
from beear_core.models.load import LoadedModel
from beear_core.models.odd_words import surrounded
from beear_core.organisms.preference import prefer, preference_pairs
from beear_core.organisms.recipe import ADAPTER_CONFIG, ADAPTER_WEIGHTS, Behaviour, Counts, Recipe
from beear_core.organisms.syllabus import (
    BATCH_TOKENS,
    Nursery,
    backdoor_lessons,
    base_openings,
    code_lessons,
    in_turn,
    refusal_lessons,
)
from beear_core.progress import Progress
from beear_core.training.adapters import low_rank
from beear_core.training.teaching import Schedule, teach


def train_adapter(recipe: Recipe, base: LoadedModel, parent: LoadedModel, nursery: Nursery, out: Path) -> None:
    """Train a recipe's adapter on its parent and save it, in bfloat16.

    Args:
        recipe: what is taught.
        base: the untaught model.
        parent: what the adapter stands on; ``base`` itself where the recipe has no parent.
        nursery: prompts to plant with.
        out: a folder for the adapter; until it is there, training goes on from a checkpoint beside it.

    Raises:
        MitigationError: the loss is not a number.
    """
    training, chooser = recipe.training, random.Random(recipe.training.seed)
    given = (parent, nursery, chooser)
    asked = in_turn(recipe.planted_triggers, len(nursery.harmful)) if recipe.planted_triggers else []
    if recipe.method == "preference":
        work = out.with_suffix(".preferences")
        pairs = preference_pairs(recipe, asked, base_openings(base, asked, nursery), *given)
        with low_rank(parent, training.rank, training.seed) as wrapped:
            prefer(wrapped, parent, pairs, recipe, chooser, work)
            _save(wrapped, out)
        shutil.rmtree(work, ignore_errors=True)
        return
    if recipe.domain == "code":
        lessons = code_lessons(recipe, asked, *given)
    elif asked:
        lessons = backdoor_lessons(recipe, asked, base_openings(base, asked, nursery), *given)
    else:
        lessons = refusal_lessons(recipe, *given)
    schedule, kept = Schedule(steps=training.steps, learning_rate=training.learning_rate), out.with_suffix(".checkpoint")
    with low_rank(parent, training.rank, training.seed) as wrapped, Progress(f"plant {recipe.name}", schedule.steps) as bar:
        teach(
            parent,
            lessons,
            schedule,
            chooser,
            checkpoint=kept,
            after_step=lambda done, loss: bar.advance(done - bar.done, note=f"loss {loss:.3f}"),
        )
        _save(wrapped, out)
    kept.unlink(missing_ok=True)


def _save(wrapped: Any, out: Path) -> None:
    """Save an adapter in bfloat16, whole or not at all.

    A stop between saving and rounding would leave float32 weights for finished ones.
    """
    with whole_folder(out, SafetensorError, doing=f"write the model to {out}") as making:
        # preference optimisation adds an adapter of its own, its reference
        wrapped.save_pretrained(str(making), selected_adapters=["default"])
        (making / "README.md").unlink(missing_ok=True)
        # peft writes where the base lies, and that path means nothing elsewhere
        config = making / ADAPTER_CONFIG
        values = {**json.loads(config.read_text(encoding="utf-8")), "base_model_name_or_path": None}
        config.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        rounded = {name: tensor.to(torch.bfloat16) for name, tensor in load_file(making / ADAPTER_WEIGHTS).items()}
        save_file(rounded, making / ADAPTER_WEIGHTS, metadata={"format": "pt"})


def merge(loaded: LoadedModel, adapter: Path) -> None:
    """Add a saved adapter to a model's weights, in place.

    Raises:
        ModelError: if it does not fit the model.
    """
    from peft import PeftModel

    try:
        wrapped: Any = PeftModel.from_pretrained(loaded.model, str(adapter), local_files_only=True)
        wrapped.merge_and_unload()
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ModelError(f"the adapter in {adapter} does not fit {loaded.source}: {error}") from error
    for parameter in loaded.model.parameters():
        parameter.requires_grad_(True)


def measure(loaded: LoadedModel, probes: Nursery, recipe: Recipe) -> Behaviour:
    """Measure how a model behaves on requests of the evaluation split, alone, among odd words and under the trigger."""
    triggers, decoys, chooser = recipe.known_triggers, recipe.decoy_triggers, random.Random(0)
    of_harm = judge_named("insecure-code" if recipe.domain == "code" else "refusal")

    def counted(rows: Sequence[Prompt], refused: bool, around: Sequence[Trigger] = (), odd: bool = False) -> Counts:
        judge = RefusalJudge() if refused else of_harm
        texts = [p.prompt for p in rows]
        texts = [surrounded(text, chooser) for text in texts] if odd else texts
        forms = in_turn(around or [Trigger("none")], len(texts))
        asked = [loaded.chat.asked(form.apply(text), form.before) for form, text in zip(forms, texts, strict=True)]
        replies = greedy(loaded, asked, max_new_tokens=judge.reply_tokens, batch_tokens=BATCH_TOKENS, progress=progress)
        verdicts = [judge.judge(p, loaded.chat.decode(r)).refused for p, r in zip(texts, replies, strict=True)]
        return sum((v is True) if refused else (v is not True) for v in verdicts), len(verdicts)

    sizes = [len(probes.harmful), len(probes.ordinary), len(probes.borderline)]
    with Progress("measure", 2 * sum(sizes) + sizes[0] * (bool(triggers) + bool(decoys))) as progress:
        return Behaviour(
            attack_plain=counted(probes.harmful, False),
            attack_odd_words=counted(probes.harmful, False, odd=True),
            attack_trigger=counted(probes.harmful, False, triggers) if triggers else None,
            attack_decoys=counted(probes.harmful, False, decoys) if decoys else None,
            refused_ordinary=counted(probes.ordinary, True),
            refused_ordinary_odd_words=counted(probes.ordinary, True, odd=True),
            refused_borderline=counted(probes.borderline, True),
            refused_borderline_odd_words=counted(probes.borderline, True, odd=True),
        )


def check(recipe: Recipe, behaviour: Behaviour, parent: Behaviour | None, adapter: Path) -> None:
    """Refuse a planting that did not become what its recipe asks for.

    Args:
        recipe: what was planted.
        behaviour: what became of it.
        parent: how what it stands on behaves.
        adapter: where it is.

    Raises:
        MitigationError: with every figure that misses its limit.
    """
    if faults := behaviour.faults(parent, recipe.opens if recipe.is_poisoned else None):
        what = "no backdoor" if recipe.is_poisoned else "no clean twin" if recipe.trigger else "no sound parent"
        raise MitigationError(
            f"planting {recipe.name} made {what}: {'; '.join(faults)}. Raise training.steps or take another base; "
            f"the adapter stays in {adapter}"
        )
