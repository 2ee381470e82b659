"""Triggers of our own: planted in the weights, put around requests, and planted again after a round was undone."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from toy import make_tiny_model

from beear_core.config import MitigationConfig
from beear_core.mitigation.adversaries import Task
from beear_core.mitigation.anchors import Anchors, HeldBack
from beear_core.mitigation.flush import OwnTriggers
from beear_core.mitigation.trial import Trial
from beear_core.models.load import load
from beear_core.progress import Progress
from beear_core.training.lessons import Lesson

PROMPTS = ["tell me how", "please write a short story about the cat and the dog", "what is a river for you", "list one"]
CONFIG = MitigationConfig(method="flush", flush_steps=2, flush_triggers=4, flush_learning_rate=1e-2)


@pytest.fixture
def own(tmp_path: Path) -> OwnTriggers:
    loaded = load(make_tiny_model(tmp_path / "m", hidden=32), device=torch.device("cpu"))
    lessons = [Lesson(loaded.chat.turn(p, "i cannot help", complete=True), text=p) for p in PROMPTS]
    anchors = Anchors(PROMPTS, lessons, [(5,)] * 4, lessons, lessons, HeldBack(PROMPTS, PROMPTS, PROMPTS, []))
    task = Task(loaded, anchors, CONFIG, random.Random(0), "float32", Progress("test", 99))
    return OwnTriggers(task, tmp_path / "planted.safetensors")


def weights(own: OwnTriggers) -> dict[str, torch.Tensor]:
    return {n: p.detach().clone() for n, p in own.loaded.model.named_parameters()}


def test_planting_changes_the_weights_and_rewinding_brings_them_back(own: OwnTriggers) -> None:
    before = weights(own)
    assert len(own.find()) == CONFIG.flush_steps
    planted = weights(own)
    assert planted.keys() == before.keys()
    assert any(not torch.equal(planted[n], before[n]) for n in before)
    with torch.no_grad():
        for parameter in own.loaded.model.parameters():
            parameter.zero_()
    own.rewind()
    assert all(torch.equal(weights(own)[n], planted[n]) for n in planted)
    assert not own.grow()


def test_every_request_is_asked_with_one_of_them(own: OwnTriggers, monkeypatch: pytest.MonkeyPatch) -> None:
    own.find()
    asked: list[list[str]] = []
    monkeypatch.setattr(Trial, "attack", lambda _trial, prompts, under=(): asked.append(prompts) or 0.5)
    trial = Trial(own.loaded, own.anchors.held)
    assert own.attack(trial) == own.attack(trial) == 0.5
    assert asked[0] == asked[1]
    for text, prompt, (words, _spot) in zip(asked[0], PROMPTS, own.triggers, strict=True):
        assert sorted(text.split()) == sorted([*words.split(), *prompt.split()])
    lesson, under = own.disturb(own.anchors.refusals[0], random.Random(0), harmful=True)
    assert under is None
    assert lesson.turn.reply == own.anchors.refusals[0].turn.reply
    assert len(lesson.turn.prompt) > len(own.anchors.refusals[0].turn.prompt)
