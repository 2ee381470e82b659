"""A mitigation that was killed goes on after its last whole round, and ends as if nothing had been."""

from __future__ import annotations

import dataclasses
import fcntl
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from small_mitigation import CONFIG, anchors

from beear_core.errors import StorageError
from beear_core.mitigation import beear
from beear_core.mitigation.beear import Loop, Mitigation
from beear_core.models.folder import directory_digest
from beear_core.models.load import load, save

ROUNDS = dataclasses.replace(CONFIG, rounds=3, safe_rounds=9, target_attack_rate=0.0, compute="float32")
FORMS: dict[str, dict[str, Any]] = {
    "published": {},
    "words": {"positions": "auto", "radius": 0.05, "max_radius": 0.5, "elicits": 1.0},
    "flush": {"method": "flush", "flush_steps": 2, "positions": "auto"},
    "both": {"method": "both", "flush_steps": 2, "positions": "auto"},
    "pruning": {"pruning": 0.05, "repair_steps": 2, "positions": "auto"},
    "undone": {"positions": "auto", "attempts": 2, "max_nll_ratio": 1e-6},
    "search": {"positions": "auto", "layer": "search", "place_steps": 2},
}


class Killed(BaseException):
    """Not an error of the loop's own, like a kill."""


@contextmanager
def killed_in_round(number: int) -> Iterator[None]:
    real = Loop.round

    def played(its: Loop, this: int, *rest: Any) -> Any:
        done = real(its, this, *rest)
        if this == number:
            raise Killed  # all of the round's work is done, and none of it written down
        return done

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Loop, "round", played)
        yield


def ended(model: Path, work: Path, out: Path, **changes: Any) -> tuple[Mitigation, str]:
    """How a mitigation ends, and the digest of its model."""
    loaded = load(model)
    done = beear.mitigate(loaded, anchors(), dataclasses.replace(ROUNDS, **changes), work)
    return done, save(loaded.model, model, out)


def said(done: Mitigation) -> list[Any]:
    """All that a mitigation tells but for times."""
    rounds = [dataclasses.replace(r, seconds=0.0) for r in done.rounds]
    return [
        rounds,
        done.best_round,
        done.ending,
        done.reason,
        done.places,
        [(d.entry, d.delta.tolist()) for d in done.drifts],
    ]


@pytest.mark.parametrize("form", FORMS)
def test_what_was_killed_ends_like_what_was_not(tiny_model: Path, tmp_path: Path, form: str) -> None:
    changes, work = FORMS[form], tmp_path / "work"
    whole, digest = ended(tiny_model, tmp_path / "other", tmp_path / "whole", **changes)
    assert len(whole.rounds) >= 3
    for number in (2, 3):
        with killed_in_round(number):
            ended(tiny_model, work, tmp_path / "killed", **changes)
    assert list(work.glob("*/accepted-*")), "weights to go on from"
    gone_on, gone_on_digest = ended(tiny_model, work, tmp_path / "gone on", **changes)
    assert (whole.restored, gone_on.restored) == (0, 2)
    assert said(gone_on) == said(whole)
    assert gone_on_digest == digest
    assert list(work.iterdir()) == [], "nothing is left when all went well"


def test_of_a_round_that_was_worse_than_the_best_both_weights_are_kept(tiny_model: Path, tmp_path: Path) -> None:
    """The best round's weights are not those to go on from."""
    real = Loop.round

    def worse(its: Loop, number: int, *rest: Any) -> Any:
        done = real(its, number, *rest)
        return dataclasses.replace(done, attack_after=number / 10, attack_under_drift_after=0.0)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Loop, "round", worse)
        whole, digest = ended(tiny_model, tmp_path / "other", tmp_path / "whole")
        with killed_in_round(3):
            ended(tiny_model, tmp_path / "work", tmp_path / "killed")
        assert len(list((tmp_path / "work").glob("*/accepted-*"))) == 2
        gone_on, gone_on_digest = ended(tiny_model, tmp_path / "work", tmp_path / "gone on")
    assert (whole.best_round, gone_on.best_round, gone_on.restored) == (1, 1, 2)
    assert gone_on_digest == digest


def test_it_goes_on_after_a_kill_that_no_code_sees(tiny_model: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    code = f"""
import dataclasses, os, signal, sys
sys.path[:0] = {[str(Path(__file__).parent), str(Path(__file__).parents[1])]!r}
from pathlib import Path
from beear_core.mitigation.beear import Loop
from test_going_on import ended
real = Loop.round
def played(its, number, *rest):
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(its, number, *rest)
Loop.round = played
ended(Path({str(tiny_model)!r}), Path({str(work)!r}), Path({str(tmp_path / "killed")!r}))
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -signal.SIGKILL
    whole, digest = ended(tiny_model, tmp_path / "other", tmp_path / "whole")
    gone_on, gone_on_digest = ended(tiny_model, work, tmp_path / "gone on")
    assert gone_on.restored == 2
    assert said(gone_on) == said(whole)
    assert gone_on_digest == digest


def test_what_was_killed_while_it_was_saved_is_not_done_again(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Killed), beear.resumable_mitigation(load(tiny_model), anchors(), ROUNDS, tmp_path / "work"):
        raise Killed
    monkeypatch.setattr(Loop, "round", lambda *_: pytest.fail("a round was done again"))
    done, digest = ended(tiny_model, tmp_path / "work", tmp_path / "gone on")
    assert done.restored == len(done.rounds) == 3
    assert digest != directory_digest(tiny_model)


@pytest.mark.parametrize("damage", ["state", "weights", "cut", "perturbations"])
def test_what_is_damaged_is_not_gone_on_with(
    tiny_model: Path, tmp_path: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    work = tmp_path / "work"
    whole, digest = ended(tiny_model, tmp_path / "other", tmp_path / "whole")
    with killed_in_round(3):
        ended(tiny_model, work, tmp_path / "killed")
    (folder,) = work.iterdir()
    weights = next(folder.glob("accepted-*"))
    (drifts,) = folder.glob("drift-*")
    if damage == "state":
        (folder / "standing.json").write_text("{")
    elif damage == "weights":
        weights.unlink()
    elif damage == "cut":
        weights.write_bytes(weights.read_bytes()[:-8])
    else:
        data = bytearray(drifts.read_bytes())
        data[-1] ^= 1
        drifts.write_bytes(data)
    anew, anew_digest = ended(tiny_model, work, tmp_path / "anew")
    assert anew.restored == 0
    assert "beginning anew" in capsys.readouterr().err
    assert (said(anew), anew_digest) == (said(whole), digest)
    assert list(work.iterdir()) == []


def test_other_settings_do_not_go_on_from_it(tiny_model: Path, tmp_path: Path) -> None:
    with killed_in_round(2):
        ended(tiny_model, tmp_path / "work", tmp_path / "killed")
    done, _ = ended(tiny_model, tmp_path / "work", tmp_path / "other", seed=1)
    assert done.restored == 0
    assert len(list((tmp_path / "work").iterdir())) == 1, "what was killed can still be gone on with"


def test_two_at_the_same_do_not_disturb_each_other(tiny_model: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    with killed_in_round(2):
        ended(tiny_model, work, tmp_path / "killed")
    (lock,) = work.glob("*/.lock")
    with lock.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(StorageError, match="another process is cleaning the same model"):
            ended(tiny_model, work, tmp_path / "second")
    assert ended(tiny_model, work, tmp_path / "third")[0].restored == 1


def test_an_error_before_any_round_leaves_nothing(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: Any) -> Any:
        raise StorageError("no space left")

    monkeypatch.setattr(Loop, "round", failing)
    with pytest.raises(StorageError, match="no space left"):
        ended(tiny_model, tmp_path / "work", tmp_path / "out")
    assert list((tmp_path / "work").iterdir()) == []
