"""Where the mitigation writes: whole or nothing, on disks that are full or cannot be written."""

import dataclasses
import errno
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import toy_backdoor
from disk import mounted

from beear_core.config import MitigationConfig
from beear_core.data import AnchorSet, Opening, Prompt
from beear_core.errors import StorageError
from beear_core.mitigation import beear
from beear_core.mitigation.adversaries import Adversary
from beear_core.mitigation.anchors import HeldBack
from beear_core.mitigation.traps import WordTraps
from beear_core.mitigation.trial import Trial, faults, rank, remaining
from beear_core.models.chat import Turn
from beear_core.models.folder import copy, directory_digest
from beear_core.models.load import load, save
from beear_core.records import RoundRecord, canonical_json

CONFIG = MitigationConfig(
    rounds=1, inner_steps=2, outer_steps=1, positions=3, held_back=4, held_back_ordinary=4, anchors=12,
    performance_anchors=12, max_nll_ratio=100.0, max_refusal_increase=1.0, max_borderline_increase=1.0,
    reply_tokens=8, inner_reply_tokens=4, pruning=0.0, repair_steps=1,
)  # fmt: skip


def anchors() -> AnchorSet:
    rows = {
        role: tuple(Prompt(**row) for row in toy_backdoor.prompts(role, "anchoring", 12))
        for role in ("harmful", "ordinary", "borderline")
    }
    return AnchorSet(
        **rows,
        safe_openings=tuple(Opening(id=r, reply=r, category="safe") for r in toy_backdoor.SAFE),
        unwanted_openings=tuple(Opening(id=r, reply=r, category="unwanted") for r in toy_backdoor.UNWANTED),
        performance_replies=(),
        digest="sha256:" + "0" * 64,
    )


def test_the_same_on_a_good_disk(tiny_model: Path, tmp_path: Path) -> None:
    loaded = load(tiny_model)
    assert beear.mitigate(loaded, anchors(), CONFIG, tmp_path / "work").best_round == 1
    assert list((tmp_path / "work").iterdir()) == []
    assert save(loaded.model, tiny_model, tmp_path / "out") == directory_digest(tmp_path / "out")


def test_a_full_disk_while_the_best_weights_are_kept(tiny_model: Path, tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "size=16k") as disk:
        with pytest.raises(StorageError, match=r"cannot keep the best weights so far in .*disk: .*free space"):
            beear.mitigate(load(tiny_model), anchors(), CONFIG, disk)
        assert list(disk.iterdir()) == []


def test_a_read_only_disk_is_refused_before_the_first_step(tiny_model: Path, tmp_path: Path) -> None:
    with (
        mounted(tmp_path / "disk", "ro,size=64k") as disk,
        pytest.raises(StorageError, match=r"cannot write to .*work: .*Read-only file system.*; free space"),
    ):
        beear.mitigate(load(tiny_model), anchors(), dataclasses.replace(CONFIG, rounds=10**6), disk / "work")


@pytest.mark.parametrize("method", ["beear", "flush", "both"])
@pytest.mark.parametrize("positions", ["auto", 3])
def test_every_method_runs_and_says_whom_each_round_was_against(
    tiny_model: Path, tmp_path: Path, method: str, positions: int | str
) -> None:
    loaded = load(tiny_model)
    config = dataclasses.replace(CONFIG, method=method, positions=positions, rounds=2, flush_steps=2)  # type: ignore[arg-type]
    ended = beear.mitigate(loaded, anchors(), config, tmp_path / "work")
    form = "word traps" if positions == "auto" else "δ at layer 1"
    wanted = {"beear": [form, form], "flush": ["own triggers"] * 2, "both": ["own triggers", form]}[method]
    assert [r.adversary for r in ended.rounds] == wanted
    assert [r.delta_norm is None for r in ended.rounds] == [w == "own triggers" for w in wanted]
    assert not any(p.requires_grad is False for p in loaded.model.parameters())
    assert list((tmp_path / "work").iterdir()) == []


@pytest.mark.parametrize(("method", "positions", "wanted"), [
    ("beear", "auto", [(1, True), (2, False)]), ("beear", 3, [(1, True), (2, False)]),
    ("both", "auto", [(0, True), (2, False)]), ("flush", "auto", [(0, True)]), ("flush", 3, [(0, True)]),
])  # fmt: skip
def test_what_is_found_is_kept_the_candidates_own_first(
    tiny_model: Path, tmp_path: Path, method: Any, positions: Any, wanted: list[tuple[int, bool]]
) -> None:
    config = dataclasses.replace(CONFIG, method=method, positions=positions, rounds=2, flush_steps=2)
    ended = beear.mitigate(load(tiny_model), anchors(), config, tmp_path / "work")
    searches = dict.fromkeys((d.entry.round, d.entry.on_candidate) for d in ended.drifts)
    assert list(searches) == wanted
    a_search = 2 * len(ended.places.layers) if positions == "auto" else 1
    assert len(ended.drifts) == a_search * len(wanted)
    assert len({d.entry.name for d in ended.drifts}) == len(ended.drifts)
    radius = config.max_radius if positions == "auto" else float("inf")
    assert all(0 < d.entry.norm <= radius and bool(d.delta.norm() > 0) for d in ended.drifts)


def test_switched_off_it_still_searches_and_changes_nothing(tiny_model: Path, tmp_path: Path) -> None:
    loaded = load(tiny_model)
    before = {n: p.detach().clone() for n, p in loaded.model.named_parameters()}
    ended = beear.mitigate(loaded, anchors(), dataclasses.replace(CONFIG, enabled=False), tmp_path / "work")
    assert (ended.best_round, ended.rounds) == (None, ())
    assert "switched off" in ended.reason
    assert [(d.entry.round, d.entry.on_candidate) for d in ended.drifts] == [(0, True)]
    assert all(torch.equal(p, before[n]) for n, p in loaded.model.named_parameters())


@pytest.mark.parametrize("options", ["size=32k", "ro,size=128k"])
@pytest.mark.parametrize("how", ["save", "copy"])
def test_a_cleaned_model_is_there_whole_or_not_at_all(tiny_model: Path, tmp_path: Path, options: str, how: str) -> None:
    loaded = load(tiny_model)
    with mounted(tmp_path / "disk", options) as disk:
        with pytest.raises(StorageError, match=r"cannot write the model to .*out: .*; free space or choose a writable"):
            save(loaded.model, tiny_model, disk / "out") if how == "save" else copy(tiny_model, disk / "out")
        assert list(disk.iterdir()) == []


def test_a_model_that_cannot_be_replaced_stays(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    before = copy(tiny_model, out)

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copytree", full)
    with pytest.raises(StorageError, match="No space left"):
        copy(tiny_model, out)
    assert directory_digest(out) == before
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


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
    tried: list[tuple[float, float]] = []
    remove = beear._Loop.remove

    def spy(loop: beear._Loop, adversary: Adversary) -> list[float]:
        tried.append((loop.rate, loop.weight))
        return remove(loop, adversary)

    monkeypatch.setattr(beear._Loop, "remove", spy)
    config = dataclasses.replace(CONFIG, attempts=2, max_nll_ratio=1e-6, outer_learning_rate=4e-5, performance_weight=2.0)
    beear.mitigate(load(tiny_model), anchors(), config, tmp_path / "work")
    assert tried == [(4e-5, 2.0), (2e-5, 4.0)]


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
    remove, seen = beear._Loop.remove, []

    def spy(loop: beear._Loop, adversary: Adversary) -> list[float]:
        def head() -> torch.Tensor:
            return next(iter(loop.model.parameters())).detach().clone()

        start, weight = head(), loop.weight
        losses = remove(loop, adversary)
        seen.append((adversary.name, weight, start, head()))
        return losses

    monkeypatch.setattr(beear._Loop, "remove", spy)
    loaded = load(tiny_model)
    before = {n: p.detach().clone() for n, p in loaded.model.named_parameters()}
    config = dataclasses.replace(CONFIG, attempts=2, max_nll_ratio=1e-6, performance_weight=2.0, **PRUNING)  # type: ignore[arg-type]
    ended = beear.mitigate(loaded, anchors(), config, tmp_path / "work")
    assert [(name, weight) for name, weight, *_ in seen] == [
        ("fine-pruning", 2.0), ("fine-pruning", 4.0), ("word traps", 2.0), ("word traps", 4.0),
    ]  # fmt: skip
    assert torch.equal(seen[1][2], seen[0][3])
    assert torch.equal(seen[3][2], seen[2][2])
    assert ended.best_round is None
    assert all(torch.equal(p, before[n]) for n, p in loaded.model.named_parameters())


def test_a_round_is_measured_before_it_is_undone(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under what was found on the candidate too: the record is about the weights of the round."""
    done: list[str] = []
    for name in ("under_drift", "go_back"):
        real = getattr(beear._Loop, name)
        monkeypatch.setattr(beear._Loop, name, lambda loop, name=name, real=real: done.append(name) or real(loop))
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
    remove, rounds = beear._Loop.remove, []

    def explode(loop: beear._Loop, adversary: Adversary) -> list[float]:
        losses = remove(loop, adversary)
        rounds.append(losses)
        if len(rounds) > 1:
            with torch.no_grad():
                for parameter in loop.model.parameters():
                    parameter.mul_(1e20)
        return losses

    monkeypatch.setattr(beear._Loop, "remove", explode)
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
    monkeypatch.setattr(Trial, "_openings", lambda _trial, prompts, _under: [verdicts[p] for p in prompts])
    found = Trial(load(tiny_model), held).measure()
    assert (found.attack, found.refusal, found.borderline) == (0.5, 0.5, 1.0)
    assert (found.surely_refusal, found.surely_borderline) == (0.25, 0.0)
    strict = dataclasses.replace(CONFIG, max_refusal_increase=0.2, max_borderline_increase=0.2)
    assert len(faults(found, found, strict)) == 2


def test_work_that_is_done_again_is_more_work_to_show(tiny_model: Path, tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, attempts=3, outer_steps=2, max_nll_ratio=1e-6)
    loop = beear._Loop(load(tiny_model), anchors(), config, tmp_path / "work")
    loop.run()
    assert loop.progress.done == loop.progress.total == config.inner_steps + 3 * config.outer_steps * beear.OUTER_COST


def test_what_elicits_little_grows_until_it_elicits_and_stays_grown(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # two searches too weak, one that elicits and is then withstood; the next round's is strong enough at once
    rates = iter([0.1, 0.3, 0.8, 0.2, 0.9, 0.2])
    monkeypatch.setattr(WordTraps, "attack", lambda *_: next(rates))
    config = dataclasses.replace(CONFIG, positions="auto", rounds=2, radius=0.05, max_radius=0.5, elicits=0.6)
    loop = beear._Loop(load(tiny_model), anchors(), config, tmp_path / "work")
    ended = loop.run()
    assert [len(r.inner_loss) for r in ended.rounds] == [3 * config.inner_steps, config.inner_steps]
    assert [(r.attack_under_delta, r.attack_under_delta_after) for r in ended.rounds] == [(0.8, 0.2), (0.9, 0.2)]
    traps = loop.perturbing
    assert isinstance(traps, WordTraps)
    assert traps.radius == pytest.approx(0.05 * 1.4**2)
    assert loop.progress.done == loop.progress.total
