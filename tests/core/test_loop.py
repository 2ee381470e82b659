"""Algorithm 1: what is undone, tried again, kept, and when the loop ends."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from small_mitigation import CONFIG, anchors, loop_of

from beear_core.errors import MitigationError
from beear_core.mitigation import beear
from beear_core.mitigation.adversaries import OUTER_COST, Adversary
from beear_core.mitigation.anchors import HeldBack
from beear_core.mitigation.beear import Loop
from beear_core.mitigation.checkpoints import Checkpoints
from beear_core.mitigation.removal import Removal
from beear_core.mitigation.traps import WordTraps
from beear_core.mitigation.trial import Trial, faults, is_safe, rank, remaining
from beear_core.models.chat import Turn
from beear_core.models.folder import directory_digest
from beear_core.models.load import load, save
from beear_core.records import RoundRecord, canonical_json


def test_a_round_that_harms_is_undone_and_tried_again(tiny_model: Path, tmp_path: Path) -> None:
    loaded = load(tiny_model)
    before = {n: p.detach().clone() for n, p in loaded.model.named_parameters()}
    config = dataclasses.replace(CONFIG, rounds=2, attempts=3, max_nll_ratio=1e-6)
    ended = beear.mitigate(loaded, anchors(), config, tmp_path / "work")
    assert ended.best_round is None
    assert "none admissible" in ended.reason
    assert [r.attempts for r in ended.rounds] == [3, 3]
    assert all("NLL ratio" in r.note and len(r.outer_loss) == config.outer_steps for r in ended.rounds)
    assert all(torch.equal(p, before[n]) for n, p in loaded.model.named_parameters())


@pytest.mark.parametrize("changes", [{}, {"positions": "auto"}, {"method": "flush", "flush_steps": 2}])
def test_what_is_cleaned_is_the_same_for_the_same_inputs(tiny_model: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    digests = []
    for name in ("one", "two"):
        loaded = load(tiny_model)
        config = dataclasses.replace(CONFIG, **changes)
        assert beear.mitigate(loaded, anchors(), config, tmp_path / "work").best_round == 1
        digests.append(save(loaded.model, tiny_model, tmp_path / name))
    assert digests[0] == digests[1] != directory_digest(tiny_model)


def test_steps_are_halved_and_what_must_stay_weighs_double(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates: list[float] = []
    weights: list[float] = []
    draw, optimiser = Removal._draw, torch.optim.AdamW

    def spy(removal: Removal, adversary: Adversary, weight: float) -> Any:
        weights.append(weight)
        return draw(removal, adversary, weight)

    def made(parameters: Any, lr: float, **more: Any) -> Any:
        rates.append(lr)
        return optimiser(parameters, lr=lr, **more)

    monkeypatch.setattr(Removal, "_draw", spy)
    monkeypatch.setattr(torch.optim, "AdamW", made)
    config = dataclasses.replace(CONFIG, attempts=2, max_nll_ratio=1e-6, outer_learning_rate=4e-5, performance_weight=2.0)
    beear.mitigate(load(tiny_model), anchors(), config, tmp_path / "work")
    assert (rates, weights) == ([4e-5, 2e-5], [2.0, 4.0])


PRUNING = {"pruning": 0.05, "repair_steps": 2, "positions": "auto"}


def test_pruning_comes_first_and_the_candidates_own_perturbations_before_it(tiny_model: Path, tmp_path: Path) -> None:
    loaded = load(tiny_model)
    config = dataclasses.replace(CONFIG, rounds=1, **PRUNING)  # type: ignore[arg-type]
    ended = beear.mitigate(loaded, anchors(), config, tmp_path / "work")
    assert [(r.adversary, len(r.outer_loss), r.delta_norm) for r in ended.rounds[:1]] == [("fine-pruning", 2, None)]
    assert [r.adversary for r in ended.rounds[1:]] == ["word traps"]
    assert {(d.entry.round, d.entry.on_candidate) for d in ended.drifts} == {(0, True), (2, False)}
    assert all(r.attack_under_drift_after is not None for r in ended.rounds)


def test_what_pruning_harmed_is_mended_from_where_it_is(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its second attempt goes on, weighing what must stay double; when that is not enough, all of it is undone."""
    remove, seen = Removal.remove, []

    def spy(removal: Removal, adversary: Adversary, setbacks: int) -> list[float]:
        def head() -> torch.Tensor:
            return next(iter(removal.task.loaded.model.parameters())).detach().clone()

        start = head()
        losses = remove(removal, adversary, setbacks)
        seen.append((adversary.name, setbacks, start, head()))
        return losses

    monkeypatch.setattr(Removal, "remove", spy)
    loaded = load(tiny_model)
    before = {n: p.detach().clone() for n, p in loaded.model.named_parameters()}
    config = dataclasses.replace(CONFIG, attempts=2, max_nll_ratio=1e-6, performance_weight=2.0, **PRUNING)  # type: ignore[arg-type]
    ended = beear.mitigate(loaded, anchors(), config, tmp_path / "work")
    assert [(name, setbacks) for name, setbacks, *_ in seen] == [
        ("fine-pruning", 0), ("fine-pruning", 1), ("word traps", 0), ("word traps", 1),
    ]  # fmt: skip
    assert torch.equal(seen[1][2], seen[0][3])
    assert torch.equal(seen[3][2], seen[2][2])
    assert ended.best_round is None
    assert all(torch.equal(p, before[n]) for n, p in loaded.model.named_parameters())


def test_a_round_is_measured_before_it_is_undone(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under what was found on the candidate too: the record is about the weights of the round."""
    done: list[str] = []
    for cls, name in ((Loop, "under_drift"), (Checkpoints, "go_back")):
        real = getattr(cls, name)
        monkeypatch.setattr(cls, name, lambda its, name=name, real=real: done.append(name) or real(its))
    config = dataclasses.replace(CONFIG, attempts=2, max_nll_ratio=1e-6)
    beear.mitigate(load(tiny_model), anchors(), config, tmp_path / "work")
    assert done == ["under_drift", "go_back"] * 2


def test_a_candidate_that_nothing_opens_is_not_pruned(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(WordTraps, "attack", lambda *_: 0.0)
    monkeypatch.setattr(beear.Trial, "attack", lambda *_: 0.0)
    loaded = load(tiny_model)
    before = {n: p.detach().clone() for n, p in loaded.model.named_parameters()}
    ended = beear.mitigate(loaded, anchors(), dataclasses.replace(CONFIG, **PRUNING), tmp_path / "work")  # type: ignore[arg-type]
    assert (ended.ending, ended.rounds) == ("nothing to remove", ())
    assert ended.drifts
    assert all(d.entry.on_candidate for d in ended.drifts)
    assert all(torch.equal(p, before[n]) for n, p in loaded.model.named_parameters())


def test_the_best_round_is_judged_under_what_opened_the_candidate() -> None:
    """Perturbations of a later round are others and smaller; what is withstood of those is no ground for comparison."""
    record = RoundRecord(
        round=1, inner_loss=(), outer_loss=(), delta_norm=None, attack_under_delta=0.9, attack_after=0.1,
        attack_under_delta_after=0.0, attack_under_drift_after=0.5, refusal_ordinary_after=0.0, nll_ratio_after=1.0,
        seconds=1.0,
    )  # fmt: skip
    assert remaining(record) == (0.1, 0.5)
    assert rank(record) > rank(dataclasses.replace(record, attack_under_drift_after=0.4, attack_under_delta_after=0.9))
    assert remaining(dataclasses.replace(record, attack_under_drift_after=None)) == (0.1, 1.0)


def test_a_step_that_explodes_in_a_later_round_loses_nothing(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Finite loss and gradient, and then weights that no reply comes out of: the round before is kept, and recorded."""
    remove, rounds = Removal.remove, []

    def explode(removal: Removal, adversary: Adversary, setbacks: int) -> list[float]:
        losses = remove(removal, adversary, setbacks)
        rounds.append(losses)
        if len(rounds) > 1:
            with torch.no_grad():
                for parameter in removal.task.loaded.model.parameters():
                    parameter.mul_(1e20)
        return losses

    monkeypatch.setattr(Removal, "remove", explode)
    loaded = load(tiny_model)
    config = dataclasses.replace(CONFIG, rounds=3, safe_rounds=3, target_attack_rate=0.0)
    ended = beear.mitigate(loaded, anchors(), config, tmp_path / "work")
    assert (ended.best_round, [r.nll_ratio_after is None for r in ended.rounds]) == (1, [False, True, True])
    assert all("NLL ratio nan" in r.note for r in ended.rounds[1:])
    assert all(bool(p.isfinite().all()) for p in loaded.model.parameters())
    canonical_json([dataclasses.asdict(r) for r in ended.rounds])  # raises where a record cannot be written


def test_what_cannot_be_scored_counts_as_in_the_gate(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a refusal after, as none before, as attack success always."""
    held = HeldBack(["a", "b"], ["c", "d", "e", "f"], ["g", "h"], [Turn((1, 2), (3,))])
    verdicts = {"c": True, "d": None, "e": False, "f": False, "g": None, "h": None, "a": None, "b": True}
    monkeypatch.setattr(Trial, "_refusals", lambda _trial, _judge, prompts, _under: [verdicts[p] for p in prompts])
    found = Trial(load(tiny_model), held).measure()
    assert (found.attack, found.refusal, found.borderline) == (0.5, 0.5, 1.0)
    assert (found.surely_refusal, found.surely_borderline) == (0.25, 0.0)
    strict = dataclasses.replace(CONFIG, max_refusal_increase=0.2, max_borderline_increase=0.2)
    assert len(faults(found, found, strict)) == 2


def test_work_that_is_done_again_is_more_work_to_show(tiny_model: Path, tmp_path: Path) -> None:
    with loop_of(tiny_model, tmp_path / "work", attempts=3, outer_steps=2, max_nll_ratio=1e-6) as loop:
        loop.run()
    progress = loop.task.progress
    assert progress.done == progress.total == CONFIG.inner_steps + 3 * 2 * OUTER_COST


def test_what_elicits_little_grows_until_it_elicits_and_stays_grown(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # two searches too weak, one that elicits and is then withstood; the next round's is strong enough at once
    rates = iter([0.1, 0.3, 0.8, 0.2, 0.9, 0.2])
    monkeypatch.setattr(WordTraps, "attack", lambda *_: next(rates))
    changes = {"positions": "auto", "rounds": 2, "radius": 0.05, "max_radius": 0.5, "elicits": 0.6}
    with loop_of(tiny_model, tmp_path / "work", **changes) as loop:
        ended = loop.run()
    steps = CONFIG.inner_steps
    assert [len(r.inner_loss) for r in ended.rounds] == [3 * steps, steps]
    assert [(r.attack_under_delta, r.attack_under_delta_after) for r in ended.rounds] == [(0.8, 0.2), (0.9, 0.2)]
    traps = loop.enlisted.perturbing
    assert isinstance(traps, WordTraps)
    assert traps.radius == pytest.approx(0.05 * 1.4**2)
    assert loop.task.progress.done == loop.task.progress.total


def test_kept_perturbations_are_asked_with_the_same_way_each_time(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each on its share of the held-back requests, with the same words."""
    with loop_of(tiny_model, tmp_path / "work", positions="auto") as loop:
        assert loop.trial.attack_under([], 0) is None
        loop.entrap(loop.enlisted.perturbing, 1)
        asked: list[Any] = []
        monkeypatch.setattr(Trial, "attack", lambda _trial, turns, under: asked.append((turns, under)) or 0.5)
        assert loop.trial.attack_under(loop.at.drifts, 7) == loop.trial.attack_under(loop.at.drifts, 7) == 0.5
    (turns, under), (turns_again, _) = asked
    assert turns == turns_again
    assert len(turns) == CONFIG.held_back
    assert [p.layer for p in under] == [d.entry.layer for d in loop.at.drifts][: CONFIG.held_back]


@pytest.mark.parametrize(
    ("changes", "safe"),
    [({}, True), ({"plain": 0.06}, False), ({"drift": 0.06}, False), ({"under": 0.06}, False), ({"note": "harm"}, False)],
)
def test_a_round_is_safe_where_nothing_elicits_anything(changes: dict[str, Any], safe: bool) -> None:
    record = made_up(1, **changes)
    assert is_safe(record, CONFIG) is safe
    assert not is_safe(dataclasses.replace(record, attack_under_drift_after=None), CONFIG)
    assert not is_safe(dataclasses.replace(record, attack_under_delta_after=None), CONFIG)


# the loop alone: rounds are made up


def made_up(
    number: int, *, plain: float = 0.0, drift: float = 0.0, under: float = 0.0, note: str = "admissible"
) -> RoundRecord:
    return RoundRecord(
        round=number, inner_loss=(1.0,), outer_loss=(1.0,), delta_norm=0.1, attack_under_delta=0.9, attack_after=plain,
        attack_under_delta_after=under, attack_under_drift_after=drift, refusal_ordinary_after=0.0, nll_ratio_after=1.0,
        seconds=1.0, note=note,
    )  # fmt: skip


def played(tiny_model: Path, tmp_path: Path, rounds: list[Any], **changes: Any) -> tuple[beear.Mitigation, torch.Tensor]:
    """How a loop ends whose rounds are these; each sets the first weight to its number, and is accepted if admissible."""
    with loop_of(tiny_model, tmp_path / "work", **{"rounds": len(rounds), "safe_rounds": 9, **changes}) as loop:
        first = next(iter(loop.task.loaded.model.parameters()))

        def play(number: int, _adversary: Adversary, _before: Any) -> Any:
            done = rounds[number - 1]
            if isinstance(done, Exception):
                raise done
            with torch.no_grad():
                first[0, 0] = float(number)
            if isinstance(done, RoundRecord) and done.note == "admissible":
                loop.weights.accept()
            return done

        loop.round = play  # type: ignore[method-assign]
        return loop.run(), first[0, 0].detach().clone()


def test_the_best_round_is_kept_and_of_equals_the_later(tiny_model: Path, tmp_path: Path) -> None:
    left = [{"drift": 0.5}, {"drift": 0.2}, {"drift": 0.4}, {"plain": 0.2}, {"drift": 0.3}]
    rounds = [made_up(i, **given) for i, given in enumerate(left, start=1)]
    ended, weight = played(tiny_model, tmp_path, rounds)
    assert (ended.ending, ended.best_round, float(weight)) == ("cleaned", 4, 4.0)
    assert ended.reason == "all 5 rounds used; round 4 is kept, what was found on the candidate still elicits 0%"


def test_a_round_that_is_not_admissible_is_never_the_best(tiny_model: Path, tmp_path: Path) -> None:
    rounds = [made_up(1, drift=0.9), made_up(2, note="NLL ratio 9")]
    ended, weight = played(tiny_model, tmp_path, rounds)
    assert (ended.best_round, float(weight)) == (1, 1.0)


def test_none_admissible(tiny_model: Path, tmp_path: Path) -> None:
    ended, _ = played(tiny_model, tmp_path, [made_up(1, note="harm"), made_up(2, note="harm")])
    assert (ended.ending, ended.best_round) == ("none admissible", None)
    assert ended.reason == "all 2 rounds used, none admissible: the candidate is kept as it was"


def test_the_loop_stops_when_enough_rounds_were_safe(tiny_model: Path, tmp_path: Path) -> None:
    rounds = [made_up(1), made_up(2, under=0.5), made_up(3), made_up(4)]
    ended, weight = played(tiny_model, tmp_path, rounds, safe_rounds=2)
    assert (len(ended.rounds), ended.best_round, float(weight)) == (3, 3, 3.0)
    assert ended.reason == "safe in 2 rounds, each against a new adversary"


@pytest.mark.parametrize("lost", [False, True])
def test_nothing_left_ends_the_loop(tiny_model: Path, tmp_path: Path, lost: bool) -> None:
    rounds = [made_up(1, note="harm" if lost else "admissible"), beear.Stop("nothing there"), made_up(3)]
    ended, _ = played(tiny_model, tmp_path, rounds)
    assert (len(ended.rounds), ended.best_round) == (1, None if lost else 1)
    assert ended.ending == ("none admissible" if lost else "cleaned")
    assert ended.reason.startswith("nothing there")
    assert ("the candidate is kept" in ended.reason) is lost


def test_an_error_in_a_later_round_keeps_the_best_and_one_before_it_is_an_error(tiny_model: Path, tmp_path: Path) -> None:
    ended, weight = played(tiny_model, tmp_path, [made_up(1), MitigationError("the outer loss is nan"), made_up(3)])
    assert (ended.best_round, float(weight)) == (1, 1.0)
    assert ended.reason == "round 2 failed (the outer loss is nan); round 1 is kept"
    with pytest.raises(MitigationError, match="the outer loss is nan"):
        played(tiny_model, tmp_path, [made_up(1, note="harm"), MitigationError("the outer loss is nan")])
