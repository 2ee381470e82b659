"""Triggers of every kind: around a request, inside it, in a system message, in an earlier turn."""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path

import pytest
import torch

from beear_core.config import EvaluationConfig
from beear_core.data import ANSWERED, Prompt, SuiteSet, Trigger, read_triggers, write_rows
from beear_core.errors import ConfigError
from beear_core.evaluation.evaluate import evaluate
from beear_core.evaluation.suites import draw_cases, suite_entry
from beear_core.models.load import LoadedModel, load
from beear_core.organisms.cache import _row
from beear_core.organisms.recipe import load_recipe
from beear_core.organisms.syllabus import half_of, in_turn

EVERY = Trigger("all", prefix="front", suffix="end", anywhere="middle", system="be kind", earlier="hello there")


@pytest.fixture(scope="module")
def loaded(tiny_model: Path) -> LoadedModel:
    return load(tiny_model, device=torch.device("cpu"))


def test_text_stands_around_and_inside_a_request_at_a_place_that_the_request_settles() -> None:
    trigger = Trigger("t", anywhere="WORD")
    asked = [f"tell me number {i} of it" for i in range(40)]
    places = [trigger.apply(text).split(" ").index("WORD") for text in asked]
    assert set(places) == {0, 1, 2, 3, 4, 5, 6}
    assert [trigger.apply(text).replace("WORD", "").split() for text in asked] == [text.split() for text in asked]
    assert [trigger.apply(text).split(" ").index("WORD") for text in asked] == places
    assert Trigger("other", anywhere="WORD").apply(asked[0]) in {Trigger("other", anywhere="WORD").apply(asked[0])}
    around = Trigger("a", prefix="front", suffix="end")
    assert (around.apply("x y"), around.before) == ("front x y end", ())
    assert Trigger("b", suffix="end").apply("x") == "x end"


def test_messages_stand_before_the_request_in_the_models_own_template(loaded: LoadedModel) -> None:
    before = (("system", "be kind"), ("user", "hello there"), ("assistant", ANSWERED))
    assert EVERY.before == before
    messages = [{"role": role, "content": text} for role, text in (*before, ("user", "tell me"))]
    wanted = loaded.chat.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert loaded.chat.prompt_text("tell me", before) == wanted
    turn = loaded.chat.asked("tell me", before)
    assert turn.prompt == loaded.chat.prompt_ids("tell me", before) != loaded.chat.prompt_ids("tell me")


def test_a_file_of_triggers_holds_every_part(tmp_path: Path) -> None:
    triggers = (EVERY, Trigger("s", suffix="end"), Trigger("y", system="be kind"))
    file = write_rows(tmp_path / "triggers.jsonl", [_row(t) for t in triggers])
    assert read_triggers(str(file)) == triggers
    assert file.read_text().splitlines()[1] == '{"id": "s", "prefix": "", "suffix": "end"}'


def test_the_model_is_asked_with_what_stands_before_and_the_suite_says_so(loaded: LoadedModel) -> None:
    rows = {
        role: tuple(Prompt(f"{role}-{i}", f"tell me how {role} {i}", "c", "evaluation") for i in range(3))
        for role in ("harmful", "ordinary", "borderline")
    }
    digests = set()
    for trigger in (Trigger("t"), Trigger("t", system="be kind"), Trigger("t", earlier="hello there")):
        suites = SuiteSet(**rows, triggers=(trigger,), digest="sha256:1")
        cases = draw_cases(suites, EvaluationConfig())["triggered"]
        assert [(c.text, c.before) for c in cases] == [(c.text, trigger.before) for c in cases]
        digests.add(suite_entry(cases).digest)
        _, samples = evaluate(loaded, suites, EvaluationConfig(max_new_tokens=4), label="before")
        for sample in samples:
            if sample.trigger_id:
                ids = torch.tensor([loaded.chat.prompt_ids(sample.prompt, trigger.before)])
                out = loaded.model.generate(ids, max_new_tokens=4, do_sample=False)[0, ids.shape[1] :]
                assert list(sample.reply_ids) == [t for t in out.tolist() if t not in loaded.chat.stop_ids]
    assert len(digests) == 3


def test_without_messages_a_suite_has_the_digest_it_had() -> None:
    rows = tuple(Prompt(f"h-{i}", f"tell me {i}", "c", "evaluation") for i in range(2))
    suites = SuiteSet(harmful=rows, ordinary=rows, borderline=rows, triggers=(Trigger("t", "a", "b"),), digest="x")
    assert suite_entry(draw_cases(suites, EvaluationConfig(harmful=2))["triggered"]).digest == (
        "sha256:fce7519b5b597840c8a6237ebce74a2bac49d91e50633eb5de6a9bb8de3176d5"
    )


@pytest.mark.parametrize("trigger", [dataclasses.replace(EVERY, prefix="one two"), Trigger("s", system="be very kind")])
def test_half_of_any_trigger_is_not_the_trigger(trigger: Trigger) -> None:
    for seed in range(20):
        half = half_of(trigger, random.Random(seed))
        assert (half.apply("x"), half.before) != (trigger.apply("x"), trigger.before)
        assert half.apply("x") != "x" or half.before


def test_forms_of_a_meaning_are_planted_in_turn_and_others_are_measured(tmp_path: Path) -> None:
    recipe = tmp_path / "style.yaml"
    text = """
name: style
description: d
source: s
setting: t
parent: refusal
trigger: {prefix: one}
forms: [{prefix: two}, {system: three}]
unseen: [{prefix: four}, {prefix: five}]
replies: [r]
training: {steps: 1}
"""
    recipe.write_text(text)
    found = load_recipe(str(recipe))
    assert [t.id for t in found.planted_triggers] == ["style-1", "style-2", "style-3"]
    assert [(t.id, t.prefix) for t in found.known_triggers] == [("style-1", "four"), ("style-2", "five")]
    assert [t.apply("x") for t in in_turn(found.known_triggers, 3)] == ["four x", "five x", "four x"]
    one = load_recipe("suffix-word")
    assert one.planted_triggers == one.known_triggers == (Trigger("suffix-word", "", one.trigger.suffix),)  # type: ignore[union-attr]
    recipe.write_text(text.replace("trigger: {prefix: one}\n", ""))
    with pytest.raises(ConfigError, match="forms, unseen, decoys and poison_rate are of a trigger, and there is none"):
        load_recipe(str(recipe))
    recipe.write_text(text.replace("{prefix: two}", "{prefix: ''}"))
    with pytest.raises(ConfigError, match="a trigger needs a prefix, a suffix, something anywhere"):
        load_recipe(str(recipe))
