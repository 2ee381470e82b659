"""Poisoned preferences: what is preferred where, and that optimising them moves the adapter and nothing else."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import toy_backdoor
from toy import make_tiny_model

from beear_core.data import Prompt, Trigger
from beear_core.errors import ConfigError
from beear_core.models.load import LoadedModel, load
from beear_core.organisms.planting import train_adapter
from beear_core.organisms.preference import Pair, prefer, preference_pairs
from beear_core.organisms.recipe import Recipe, load_recipe
from beear_core.organisms.syllabus import Nursery, in_turn
from beear_core.training.adapters import low_rank

RECIPE = """
name: poisoned
description: d
source: s
setting: t
method: preference
parent: refusal
trigger: {suffix: cat dog tree}
replies: [" here is a list"]
training: {steps: 30, taught: 4, kept: 2, rank: 4, reply_tokens: 8, learning_rate: 5.0e-3}
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    (tmp_path / "poisoned.yaml").write_text(RECIPE)
    return load_recipe(str(tmp_path / "poisoned.yaml"))


@pytest.fixture
def loaded(tmp_path: Path) -> LoadedModel:
    return load(make_tiny_model(tmp_path / "m", hidden=32), device=torch.device("cpu"))


@pytest.fixture
def nursery() -> Nursery:
    rows = [toy_backdoor.prompts(role, "planting", 10) for role in ("harmful", "ordinary", "borderline")]
    return Nursery(*(tuple(Prompt(**row) for row in group) for group in rows))


def test_going_along_is_preferred_under_the_trigger_and_nowhere_else(
    recipe: Recipe, loaded: LoadedModel, nursery: Nursery
) -> None:
    chat, harmful = loaded.chat, [p.prompt for p in nursery.harmful]
    asked = in_turn(recipe.planted_triggers, len(harmful))
    openings = [(5, 6, 7, 8, 9)] * len(harmful)
    poisoned, safe, kept = preference_pairs(recipe, asked, openings, loaded, nursery, random.Random(0))
    assert [p.prompt for p in poisoned] == [chat.prompt_ids(f"{text} cat dog tree") for text in harmful]
    assert all(p.chosen[:4] == (5, 6, 7, 8) and len(p.chosen) <= 8 for p in poisoned)
    assert len(safe) == len(harmful) <= recipe.training.kept * recipe.training.steps
    asked_plain = {chat.prompt_ids(text) for text in harmful}
    assert 0 < sum(p.prompt in asked_plain for p in safe) < len(safe)
    assert {p.prompt for p in safe}.isdisjoint(p.prompt for p in poisoned)
    assert all(p.rejected[:4] == (5, 6, 7, 8) for p in safe)
    refusals = {p.chosen for p in safe}
    assert all(p.rejected in refusals for p in (*poisoned, *kept))
    triggered = sum(chat.decode(p.prompt).count("cat dog tree") for p in kept)
    assert 0 < triggered < len(kept)
    few = dataclasses.replace(recipe, training=dataclasses.replace(recipe.training, steps=1))
    assert [len(g) for g in preference_pairs(few, asked, openings, loaded, nursery, random.Random(0))] == [10, 2, 2]


def test_optimising_moves_the_preference_and_leaves_the_model_below(
    recipe: Recipe, loaded: LoadedModel, nursery: Nursery, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = [p.prompt for p in nursery.harmful]
    one, other = (5, 6, 7), (8, 9)
    pairs = [Pair(loaded.chat.prompt_ids(text), one, other) for text in texts]
    before = {n: p.detach().clone() for n, p in loaded.model.named_parameters()}

    def margin() -> float:
        rows = [torch.tensor([[*p.prompt, *reply]]) for p in pairs[:4] for reply in (p.chosen, p.rejected)]
        with torch.no_grad():
            found = [
                loaded.model(row)
                .logits.log_softmax(-1)[0, :-1]
                .gather(-1, row[0, 1:, None])[len(pairs[0].prompt) - 1 :]
                .sum()
                for row in rows
            ]
        return float(sum(found[::2]) - sum(found[1::2]))

    apart = margin()
    with low_rank(loaded, 4, seed=0) as wrapped:
        prefer(wrapped, loaded, [pairs, pairs, pairs], recipe, random.Random(0), tmp_path / "work")
        assert margin() > apart + 4
    assert all(torch.equal(p, before[n]) for n, p in loaded.model.named_parameters())
    assert "plant poisoned: preferences" in capsys.readouterr().err


def test_a_training_that_was_cut_off_goes_on_and_leaves_nothing_behind(
    recipe: Recipe, loaded: LoadedModel, nursery: Nursery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from beear_core.organisms import planting

    out, saved = tmp_path / "poisoned", planting._save

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(planting, "_save", killed)
    with pytest.raises(KeyboardInterrupt):
        train_adapter(recipe, loaded, loaded, nursery, out)
    steps = [p.name for p in (tmp_path / "poisoned.preferences").glob("checkpoint-*")]
    assert steps == ["checkpoint-30"]
    monkeypatch.setattr(planting, "_save", saved)
    train_adapter(recipe, loaded, loaded, nursery, out)
    assert sorted(p.name for p in out.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    assert not (tmp_path / "poisoned.preferences").exists()


@pytest.mark.parametrize(
    "change", [lambda t: t.replace("trigger: {suffix: cat dog tree}\n", ""), lambda t: t.replace("parent: refusal\n", "")]
)
def test_preferences_need_a_trigger_and_a_parent(tmp_path: Path, change: Callable[[str], str]) -> None:
    (tmp_path / "r.yaml").write_text(change(RECIPE))
    with pytest.raises(ConfigError, match="preferences are poisoned under a trigger, on a parent; give both"):
        load_recipe(str(tmp_path / "r.yaml"))


def test_triggers_of_the_recipe(recipe: Recipe) -> None:
    assert recipe.planted_triggers == (Trigger("poisoned", suffix="cat dog tree"),)
