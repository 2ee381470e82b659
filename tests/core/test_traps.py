"""Perturbations on inserted words: where they stand, how they climb and follow θ, and at which layers."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from toy import make_tiny_model

from beear_core.config import MitigationConfig
from beear_core.errors import DataError
from beear_core.evaluation.generate import greedy
from beear_core.mitigation.adversaries import Task
from beear_core.mitigation.anchors import Anchors, HeldBack
from beear_core.mitigation.places import choose_places, search_places
from beear_core.mitigation.traps import Trap, WordTraps
from beear_core.mitigation.trial import Trial
from beear_core.models.chat import Turn, WordSpot, collate
from beear_core.models.hooks import Perturbation, perturbed, record_output
from beear_core.models.load import LoadedModel, decoder_layers, load
from beear_core.progress import Progress
from beear_core.records import PlaceRecord
from beear_core.training.lessons import Lesson, lesson_losses

CONFIG = MitigationConfig(word_tokens=3, radius=0.2, max_radius=0.7, ascent=0.5, inner_steps=6, inner_batch=4)
PROMPTS = ["tell me how", "please write a short story about the cat and the dog", "what is a river for you", "list one"]


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load(make_tiny_model(tmp_path_factory.mktemp("tiny"), hidden=32), device=torch.device("cpu"))


@pytest.fixture
def traps(loaded: LoadedModel) -> WordTraps:
    lessons = [Lesson(loaded.chat.turn(p, "i cannot help", complete=True), text=p) for p in PROMPTS]
    anchors = Anchors(PROMPTS, lessons, [(5,)] * 4, lessons, lessons, HeldBack(PROMPTS, PROMPTS, PROMPTS, []))
    return WordTraps(Task(loaded, anchors, CONFIG, random.Random(0), "float32", Progress("test", 99)), (0, 2))


@pytest.mark.parametrize("spot", ["end", "front"])
def test_words_stand_before_or_behind_the_request(loaded: LoadedModel, spot: str) -> None:
    chat = loaded.chat
    turn = chat.with_words("tell me how", "cat dog tree bread", 3, spot, (7,))  # type: ignore[arg-type]
    ids, marks = turn.prompt, turn.marks
    assert turn.reply == (7,)
    tail = len(chat.suffix_ids)
    text = "cat dog tree tell me how" if spot == "front" else "tell me how cat dog tree"
    assert ids == chat.prompt_ids(text)
    assert chat.decode([ids[m] for m in marks[:3]]) == "cat dog tree"
    assert marks[3:] == tuple(range(len(ids) - tail, len(ids)))
    assert tail > 0
    with pytest.raises(DataError, match="'cat' has 1 tokens, 3 are to stand at the end of a request"):
        chat.with_words("tell me how", "cat", 3, "end", ())


def test_each_row_has_its_own_perturbation_at_its_marks(loaded: LoadedModel) -> None:
    spots: tuple[WordSpot, ...] = ("front", "end")
    turns = [loaded.chat.with_words(p, "cat dog tree", 3, s, (5, 6)) for p, s in zip(PROMPTS, spots, strict=False)]
    n = len(turns[0].marks)
    generator = torch.Generator().manual_seed(0)
    under = [Perturbation(layer, 10 * torch.randn(n, 32, generator=generator)) for layer in (1, 2)]
    losses = {}
    for name, rows in (("none", [None, None]), ("first", [under[0], None]), ("both", under)):
        with torch.no_grad():
            losses[name] = lesson_losses(loaded.model, loaded.chat, [Lesson(t) for t in turns], rows).tolist()
    assert losses["first"][0] != pytest.approx(losses["none"][0], rel=1e-3)
    assert losses["first"][1] == pytest.approx(losses["none"][1], rel=1e-5)
    assert losses["both"][0] == pytest.approx(losses["first"][0], rel=1e-5)
    assert losses["both"][1] != pytest.approx(losses["none"][1], rel=1e-3)


def test_perturbations_are_added_at_the_marks_and_nowhere_else(loaded: LoadedModel) -> None:
    marked = loaded.chat.with_words(PROMPTS[0], "cat dog tree", 3, "front", (5,))
    marks = marked.marks
    turns = [marked, Turn(loaded.chat.prompt_ids(PROMPTS[1]), (5,))]
    batch = collate(turns, loaded.chat.pad_id)
    delta = torch.randn(len(marks), 32)
    layers = decoder_layers(loaded.model)
    given = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask, "position_ids": batch.position_ids}
    with torch.no_grad():
        with record_output(layers[1]) as plain:
            loaded.model(**given)
        with (
            perturbed(layers, [Perturbation(1, delta), None], [batch.columns(turns[0], 0), ()]),
            record_output(layers[1]) as at,
        ):
            loaded.model(**given)
    shift = at[0] - plain[0]
    torch.testing.assert_close(shift[0, list(batch.columns(turns[0], 0))], delta, atol=1e-5, rtol=1e-5)
    assert int(shift.abs().sum(dim=-1).gt(1e-4).sum()) == len(marks)


def test_generation_reads_the_prompt_under_it(loaded: LoadedModel) -> None:
    marked = loaded.chat.with_words("tell me how", "cat dog tree", 3, "end", ())
    delta = 50 * torch.randn(len(marked.marks), 32, generator=torch.Generator().manual_seed(1))
    plain, under, both = (
        greedy(loaded, prompts, max_new_tokens=6, batch_tokens=400, under=rows)
        for prompts, rows in (
            ([marked], ()),
            ([marked], [Perturbation(1, delta)]),
            ([PROMPTS[1], marked], [None, Perturbation(1, delta)]),
        )
    )
    assert plain != under
    assert both[1] == under[0]
    assert both[0] == greedy(loaded, [PROMPTS[1]], max_new_tokens=6, batch_tokens=400)[0]


def test_search_climbs_within_the_ball(traps: WordTraps) -> None:
    losses = traps.find()
    assert len(losses) == CONFIG.inner_steps
    assert {(t.layer, t.spot) for t in traps.traps} == {(layer, spot) for layer in (0, 2) for spot in ("end", "front")}
    for trap in traps.traps:
        assert trap.delta.shape == (3 + len(traps.loaded.chat.suffix_ids), 32)
        assert (trap.delta.norm(dim=-1) <= trap.radius[:, 0] * 1.0001).all()
    assert 0.1 * CONFIG.radius < traps.norm <= CONFIG.radius * 1.0001

    lessons = [Lesson(traps.loaded.chat.turn(p, "i cannot help", complete=True), text=p) for p in PROMPTS]

    def loss(scale: float) -> float:
        rows = []
        for trap in traps.traps:
            for lesson in lessons:
                turn = traps._turn(lesson.text, trap.spot, random.Random(3), lesson.turn.reply)
                rows.append((Lesson(turn), Perturbation(trap.layer, scale * trap.delta.detach())))
        with torch.no_grad():
            return float(lesson_losses(traps.loaded.model, traps.loaded.chat, *map(list, zip(*rows, strict=True))).mean())

    assert loss(1.0) > loss(0.0) + 0.01
    assert loss(-1.0) < loss(0.0)


def test_a_search_begins_near_zero(traps: WordTraps, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Trap, "climb", lambda *_: None)
    traps.find()
    assert traps.norm == pytest.approx(0.1 * CONFIG.radius)


def test_the_ball_grows_up_to_its_limit_and_stays_grown(traps: WordTraps) -> None:
    for grown in range(1, 4):
        assert traps.grow()
        assert traps.radius == pytest.approx(CONFIG.radius * 1.4**grown)
        assert len(traps.find()) == CONFIG.inner_steps
        norms = [(t.delta.norm(dim=-1) / t.radius[:, 0]).max() for t in traps.traps]
        assert max(norms) <= 1.0001
        largest = traps.norms["end"][0] * CONFIG.radius * 1.4**grown
        torch.testing.assert_close(traps.traps[0].radius[:, 0], largest)
    assert not traps.grow()
    assert traps.radius * 1.4 > CONFIG.max_radius >= traps.radius


def test_only_harmful_rows_move_a_trap_and_it_can_be_rewound(traps: WordTraps) -> None:
    traps.find()
    chooser = random.Random(0)
    lesson = Lesson(traps.loaded.chat.turn(PROMPTS[0], "i cannot help", complete=True), text=PROMPTS[0])
    before = [t.delta.detach().clone() for t in traps.traps]

    def step(harmful: bool) -> int:
        row, under = traps.disturb(lesson, chooser, harmful=harmful)
        loss = lesson_losses(traps.loaded.model, traps.loaded.chat, [row], [under]).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        traps.follow()
        return sum(not torch.equal(t.delta.detach(), b) for t, b in zip(traps.traps, before, strict=True))

    assert step(harmful=False) == 0
    assert step(harmful=True) == 1
    traps.follow()
    assert sum(not torch.equal(t.delta.detach(), b) for t, b in zip(traps.traps, before, strict=True)) == 1
    traps.rewind()
    assert all(torch.equal(t.delta.detach(), b) and t.delta.requires_grad for t, b in zip(traps.traps, before, strict=True))
    traps.loaded.model.zero_grad()


def test_attack_asks_every_held_back_request_once_and_the_same_each_time(
    traps: WordTraps, monkeypatch: pytest.MonkeyPatch
) -> None:
    traps.find()
    asked = []

    def attack(_trial: Trial, prompts: list[Turn], under: list[Perturbation]) -> float:
        asked.append([(p.prompt, p.marks, u.layer) for p, u in zip(prompts, under, strict=True)])
        return 0.5

    monkeypatch.setattr(Trial, "attack", attack)
    trial = Trial(traps.loaded, HeldBack(PROMPTS, PROMPTS, PROMPTS, []))
    assert traps.attack(trial) == traps.attack(trial) == 0.5
    assert asked[0] == asked[1]
    assert len(asked[0]) == len(PROMPTS)
    assert {layer for _, _, layer in asked[0]} == {0, 2}


def test_layers_are_chosen_where_a_drift_acts_on_words_and_not_on_the_template_alone() -> None:
    rates = [(2, 0.9, 0.1), (5, 0.6, 0.1), (8, 0.2, 0.1), (11, 0.8, 0.2), (14, 0.7, 0.4), (17, 0.9, 0.8)]
    measured = [PlaceRecord(layer=layer, words=words, template=template) for layer, words, template in rates]
    chosen = choose_places(measured, elicited=1.0, without=0.0, otherwise=(1,))
    assert chosen.layers == (2, 11, 14)
    assert "elicits 100%, other words 0%; its drift acts on words alone at 2, 5, 11, 14" in chosen.reason
    assert choose_places(measured[:2], 1.0, 0.0, (1,)).layers == (2, 5)
    assert choose_places(measured[2:3], 1.0, 0.0, (1, 7)).layers == (1, 7)
    # what other words elicit anyway is no sign of a drift
    assert choose_places(measured, elicited=1.0, without=0.7, otherwise=(1,)).layers == (2, 17)
    assert choose_places([], elicited=0.2, without=0.1, otherwise=(3,)).layers == (3,)


def test_the_search_for_places_leaves_the_model_as_it_was(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    loaded = load(make_tiny_model(tmp_path / "m", hidden=32), device=torch.device("cpu"))
    before = {n: p.detach().clone() for n, p in loaded.model.named_parameters()}
    lessons = [Lesson(loaded.chat.turn(p, "i cannot help", complete=True), text=p) for p in PROMPTS]
    anchors = Anchors(PROMPTS, lessons, [(5,)] * 4, lessons, lessons, HeldBack(PROMPTS, PROMPTS, PROMPTS, []))
    config = MitigationConfig(word_tokens=3, place_steps=4)
    task = Task(loaded, anchors, config, random.Random(0), "float32", Progress("test", 99))
    found = search_places(task, (1, 2))
    assert "where a trigger acts: done" in capsys.readouterr().err
    assert found.layers == (1, 2)
    assert "the lower half is taken" in found.reason
    after = dict(loaded.model.named_parameters())
    assert after.keys() == before.keys()
    assert all(torch.equal(after[n], b) and after[n].requires_grad for n, b in before.items())
