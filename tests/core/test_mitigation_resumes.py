"""A mitigation that was killed goes on after the last round that was done, and ends with the same bytes."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from small_mitigation import CONFIG, anchors

from beear_core.mitigation import beear
from beear_core.mitigation.beear import Loop, Mitigation
from beear_core.mitigation.checkpoints import Checkpoints
from beear_core.mitigation.traps import WordTraps
from beear_core.models.folder import directory_digest
from beear_core.models.load import load, save

LONG = dataclasses.replace(
    CONFIG, rounds=3, safe_rounds=9, target_attack_rate=0.0, positions="auto", outer_learning_rate=1e-3
)
KINDS: dict[str, dict[str, Any]] = {
    "word traps": {},
    "traps that grow": {"elicits": 1.0, "radius": 0.5, "max_radius": 2.0},
    "one perturbation": {"positions": 3},
    "own triggers in turn": {"method": "both", "flush_steps": 2},
    "after pruning": {"pruning": 0.05, "repair_steps": 2},
    "where a round is undone": {"max_nll_ratio": 1e-6, "attempts": 2},
}


class Killed(BaseException):
    """As a kill: no handler of errors sees it."""


def _mitigated(model: Path, work: Path, out: Path, changes: dict[str, Any]) -> tuple[str, Mitigation]:
    loaded = load(model)
    ended = beear.mitigate(loaded, anchors(), dataclasses.replace(LONG, **changes), work)
    return save(loaded.model, model, out), ended


def _killed_in(number: int, monkeypatch: pytest.MonkeyPatch, work: Path) -> list[int]:
    """Kill the mitigation in a round, after θ moved, once; returns the rounds as they begin."""
    begun: list[int] = []
    attack, round_ = Loop.under_drift, Loop.round

    def under_drift(loop: Loop) -> float | None:
        if begun == list(range(1, number + 1)):
            raise Killed
        return attack(loop)

    def counted(loop: Loop, nth: int, *more: Any) -> Any:
        begun.append(nth)
        return round_(loop, nth, *more)

    monkeypatch.setattr(Loop, "under_drift", under_drift)
    monkeypatch.setattr(Loop, "round", counted)
    return begun


def _plain(ended: Mitigation) -> list[Any]:
    """What a mitigation found, but for the time that it took."""
    rounds = [dataclasses.replace(r, seconds=0.0) for r in ended.rounds]
    return [ended.ending, ended.best_round, ended.reason, rounds, [d.entry for d in ended.drifts]]


@pytest.mark.parametrize("changes", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_killed_mitigation_ends_as_one_that_was_not(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, changes: dict[str, Any]
) -> None:
    if "elicits" in changes:
        monkeypatch.setattr(WordTraps, "attack", lambda *_: 0.5)
    digest, ended = _mitigated(tiny_model, tmp_path / "once", tmp_path / "one", changes)
    work = tmp_path / "work"
    begun = _killed_in(number, monkeypatch, work)
    with pytest.raises(Killed):
        _mitigated(tiny_model, work, tmp_path / "no", changes)
    again, after = _mitigated(tiny_model, work, tmp_path / "two", changes)

    every = list(range(1, len(ended.rounds) + 1))
    assert begun == [*range(1, number + 1), *every[number - 1 :]], "no round that was done is done again"
    assert again == digest
    assert _plain(after) == _plain(ended)
    assert list(work.iterdir()) == []
    if "max_nll_ratio" not in changes:
        assert digest != directory_digest(tiny_model), "else every order of rounds ends with these bytes"


@pytest.mark.parametrize("changed", ["seed", "anchors", "code"])
def test_what_another_mitigation_left_is_not_gone_on_from(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], changed: str
) -> None:
    begun = _killed_in(2, monkeypatch, tmp_path)
    with pytest.raises(Killed):
        beear.mitigate(load(tiny_model), anchors(), LONG, tmp_path)
    other, config = anchors(), LONG
    if changed == "anchors":
        other = dataclasses.replace(other, digest="sha256:" + "1" * 64)
    elif changed == "seed":
        config = dataclasses.replace(config, seed=7)
    else:
        monkeypatch.setattr(beear, "code_digest", lambda: "sha256:" + "2" * 64)
    beear.mitigate(load(tiny_model), other, config, tmp_path)

    assert begun == [1, 2, 1, 2, 3]
    words = {"seed": "configuration"}.get(changed, changed)
    assert f"is of another {words}: the mitigation begins anew" in capsys.readouterr().err


@pytest.mark.parametrize("fault", ["cut", "weights", "drifts"])
def test_what_cannot_be_read_is_begun_anew(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    begun = _killed_in(2, monkeypatch, tmp_path)
    with pytest.raises(Killed):
        beear.mitigate(load(tiny_model), anchors(), LONG, tmp_path)
    if fault == "cut":
        state = tmp_path / "standing.json"
        state.write_bytes(state.read_bytes()[:100])
    else:
        for file in tmp_path.glob(f"{fault}-*"):
            file.unlink()
    assert beear.mitigate(load(tiny_model), anchors(), LONG, tmp_path).best_round is not None

    assert begun == [1, 2, 1, 2, 3]


def test_a_kill_while_the_state_is_written_loses_one_round_at_most(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights are accepted before the state names them; what it names is there as long as it does."""
    digest, _ = _mitigated(tiny_model, tmp_path / "once", tmp_path / "one", {})
    stand, calls = Checkpoints.stand, []

    def killed(its: Checkpoints, *given: Any) -> None:
        calls.append(given)
        if len(calls) == 2:
            raise Killed
        stand(its, *given)

    monkeypatch.setattr(Checkpoints, "stand", killed)
    with pytest.raises(Killed):
        _mitigated(tiny_model, tmp_path / "work", tmp_path / "no", {})

    assert _mitigated(tiny_model, tmp_path / "work", tmp_path / "two", {})[0] == digest


def test_what_is_not_saved_yet_is_still_there(tiny_model: Path, tmp_path: Path) -> None:
    """Until the caller removes it: a kill while the model is saved loses no round."""
    loaded = load(tiny_model)
    first = beear.mitigate(loaded, anchors(), LONG, tmp_path / "work", clear=False)
    digest = save(loaded.model, tiny_model, tmp_path / "one")
    loaded = load(tiny_model)
    again = beear.mitigate(loaded, anchors(), LONG, tmp_path / "work", clear=False)

    assert again.rounds == first.rounds, "to the tenth of a second: none was run again"
    assert save(loaded.model, tiny_model, tmp_path / "two") == digest
