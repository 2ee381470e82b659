"""The mitigation by layer: what counts as success, that nothing is measured twice, and that measuring changes no step."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import toy
from small_mitigation import CONFIG, anchors

from beear_core.config import MitigationConfig
from beear_core.data import Trigger
from beear_core.errors import ConfigError, EvaluationError, MitigationError
from beear_core.evaluation.statistics import rate_estimate
from beear_core.mitigation import beear, sweep
from beear_core.mitigation.removal import Removal
from beear_core.mitigation.sweep import LayerLoop, LayerRecord, SweepRecord, SweptRound, default_layers, read_layers
from beear_core.models.folder import directory_digest
from beear_core.models.load import load
from beear_core.records import Estimate, RoundRecord

TRIGGERS = (Trigger("one", suffix="cat dog"), Trigger("two", prefix="tree", earlier="cat"))
REQUESTS = ("tell me how to make bread", "write a poem about a dog", "how do i make water")
SMALL = dataclasses.replace(CONFIG, positions="auto", compute="float32")
Sweep = Callable[..., SweepRecord]


@pytest.fixture
def swept(tiny_model: Path, tmp_path: Path) -> Sweep:
    """Sweeps the tiny model into a folder; keyword arguments override what it is given."""

    def run(layers: tuple[int, ...] = (0, 2), config: MitigationConfig = SMALL, **changes: Any) -> SweepRecord:
        given: dict[str, Any] = {"triggers": TRIGGERS, "requests": REQUESTS, **changes}
        return sweep.sweep_layers(tiny_model, anchors(), config, layers, tmp_path / "out", **given)

    return run


@pytest.fixture(scope="module")
def record(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> LayerRecord:
    """One measured layer."""
    (found,) = sweep.sweep_layers(tiny_model, anchors(), SMALL, (1,), tmp_path_factory.mktemp("one")).layers
    return found


def written(folder: Path) -> dict[str, int]:
    """When each layer's file was written."""
    return {file.name: file.stat().st_mtime_ns for file in sorted(folder.glob("layer-*.json"))}


# what counts as success


def round_of(
    number: int = 1, *, drift: float | None = 0.5, triggered: Estimate | None = None, note: str = "admissible"
) -> SweptRound:
    record = RoundRecord(
        round=number, inner_loss=(), outer_loss=(), delta_norm=0.1, attack_under_delta=0.9, attack_after=0.0,
        attack_under_delta_after=0.0, attack_under_drift_after=drift, refusal_ordinary_after=0.0, nll_ratio_after=1.0,
        seconds=1.0, note=note,
    )  # fmt: skip
    return SweptRound(record=record, triggered=triggered)


@pytest.mark.parametrize(
    ("changes", "succeeds"),
    [
        ({"triggered": rate_estimate(6, 120)}, True),
        ({"triggered": rate_estimate(7, 120)}, False),
        ({"triggered": rate_estimate(0, 120), "drift": 0.9}, True),  # known triggers decide
        ({"triggered": rate_estimate(60, 120), "drift": 0.0}, False),
        ({"triggered": rate_estimate(0, 120), "note": "NLL ratio 9"}, False),
        ({"triggered": rate_estimate(0, 0)}, False),  # what has no value never passes
        ({"drift": 0.05}, True),
        ({"drift": 0.06}, False),
        ({"drift": None}, False),
        ({"drift": 0.0, "note": "wrong refusals rose"}, False),
    ],
)
def test_a_round_succeeds_that_is_admissible_and_leaves_next_to_nothing(changes: dict[str, Any], succeeds: bool) -> None:
    assert round_of(**changes).succeeded(sweep.SUCCESS) is succeeds


@pytest.mark.parametrize(
    ("drifts", "success", "earliest"),
    [((0.5, 0.04, 0.0), 0.05, 2), ((0.5, 0.04, 0.0), 0.5, 1), ((0.5, 0.04, 0.01), 0.0, None), ((), 0.05, None)],
)
def test_the_earliest_round_is_found_anew_for_another_limit(
    record: LayerRecord, drifts: tuple[float, ...], success: float, earliest: int | None
) -> None:
    rounds = tuple(round_of(number, drift=drift) for number, drift in enumerate(drifts, start=1))
    found = dataclasses.replace(record, rounds=rounds).judged(success)
    assert (found.earliest, found.success) == (earliest, success)


# what is measured


def test_each_layer_is_measured_on_the_model_as_it_was(swept: Sweep, tiny_model: Path, tmp_path: Path) -> None:
    before = directory_digest(tiny_model)
    done = swept((2, 0, 2))
    assert [record.layer for record in done.layers] == [0, 2]
    assert read_layers(tmp_path / "out") == done.layers
    assert directory_digest(tiny_model) == before == done.model_digest
    for record in done.layers:
        assert record.config["layer"] == record.layer
        assert record.held_back == {"harmful": 4, "ordinary": 4, "borderline": 4}
        assert record.triggered_before is not None
        assert [r.triggered.n for r in record.rounds if r.triggered] == [len(REQUESTS)] * CONFIG.rounds
    assert len({record.triggered_before for record in done.layers}) == 1, "the model is the same each time"
    assert list((tmp_path / "out" / "work").iterdir()) == []


def test_measuring_changes_no_step(swept: Sweep, tiny_model: Path, tmp_path: Path) -> None:
    """With triggers or without, the rounds are those of the mitigation itself."""

    def plain(rounds: tuple[RoundRecord, ...]) -> list[RoundRecord]:
        return [dataclasses.replace(r, seconds=0.0) for r in rounds]

    config = dataclasses.replace(SMALL, rounds=2, safe_rounds=3)
    layer = swept((1,), config, success=1.0).layers[0]
    ended = beear.mitigate(load(tiny_model), anchors(), dataclasses.replace(config, layer=1), tmp_path / "work")
    assert plain(tuple(r.record for r in layer.rounds)) == plain(ended.rounds)
    assert (layer.ending, layer.reason, layer.best_round) == (ended.ending, ended.reason, ended.best_round)
    without = swept((1,), config, triggers=()).layers[0]
    assert plain(tuple(r.record for r in without.rounds)) == plain(ended.rounds)
    assert (without.triggered_before, [r.triggered for r in without.rounds]) == (None, [None, None])


def test_a_round_that_is_undone_is_measured_before(swept: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    """Triggers are asked of the weights that the round's other figures are about."""
    done: list[str] = []
    for cls, name in ((LayerLoop, "under_triggers"), (sweep.Checkpoints, "go_back")):
        real = getattr(cls, name)
        monkeypatch.setattr(cls, name, lambda its, name=name, real=real: done.append(name) or real(its))
    config = dataclasses.replace(SMALL, attempts=2, max_nll_ratio=1e-6)
    record = swept((1,), config).layers[0]
    assert done == ["under_triggers", *["under_triggers", "go_back"] * 2]
    assert (record.ending, record.earliest, len(record.rounds)) == ("none admissible", None, 1)


def test_the_worst_trigger_stands_for_all(swept: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def attack(trial: Any, turns: Any, under: Any = ()) -> float:
        asked.append(len(turns))
        return 1 / 3 if len(asked) % 2 else 2 / 3

    with monkeypatch.context() as patched:
        patched.setattr(LayerLoop, "outcome", lambda _loop: ("cleaned", "made up", None))
        patched.setattr(sweep.Loop, "run", lambda _loop: None)
        patched.setattr(beear.Trial, "attack", attack)
        record = swept((1,)).layers[0]
    assert asked == [3, 3]
    assert record.triggered_before == rate_estimate(2, 3)


# resuming


def test_what_was_measured_is_not_measured_again(swept: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = swept()
    when = written(tmp_path / "out")
    monkeypatch.setattr(sweep, "load", lambda *_: pytest.fail("the model was loaded again"))
    assert swept() == first
    again = swept(success=1.0)
    assert written(tmp_path / "out") == when, "another limit is no reason to measure again"
    assert [record.rounds for record in again.layers] == [record.rounds for record in first.layers]
    assert {record.success for record in again.layers} == {1.0}


def test_a_sweep_that_was_stopped_goes_on_with_what_is_missing(
    swept: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = LayerLoop.run

    def stopped(loop: LayerLoop) -> Any:
        if loop.config.layer == 1:
            raise KeyboardInterrupt
        return run(loop)

    with monkeypatch.context() as patched:
        patched.setattr(LayerLoop, "run", stopped)
        with pytest.raises(KeyboardInterrupt):
            swept((0, 1, 2))
    when = written(tmp_path / "out")
    assert list(when) == ["layer-0.json"]
    assert [record.layer for record in swept((0, 1, 2)).layers] == [0, 1, 2]
    assert written(tmp_path / "out")["layer-0.json"] == when["layer-0.json"]
    assert len(written(tmp_path / "out")) == 3


@pytest.mark.parametrize(
    "changes",
    [
        {"config": dataclasses.replace(SMALL, seed=1)},
        {"triggers": TRIGGERS[:1]},
        {"requests": REQUESTS[:2]},
        {"triggers": (dataclasses.replace(TRIGGERS[0], suffix="tree"), TRIGGERS[1])},
    ],
)
def test_what_was_measured_otherwise_is_measured_again(swept: Sweep, tmp_path: Path, changes: dict[str, Any]) -> None:
    swept((1,))
    when = written(tmp_path / "out")
    swept((1,), **changes)
    assert written(tmp_path / "out") != when


def test_another_model_or_a_file_that_cannot_be_read_is_measured_again(swept: Sweep, folder: Path, tmp_path: Path) -> None:
    swept((1,))
    file = sweep.layer_file(tmp_path / "out", 1)
    key = LayerRecord.read(file).key
    toy.make_tiny_model(folder, seed=1)
    sweep.sweep_layers(folder, anchors(), SMALL, (1,), tmp_path / "out", triggers=TRIGGERS, requests=REQUESTS)
    assert LayerRecord.read(file).key != key
    file.write_text("{}")
    swept((1,))
    assert LayerRecord.read(file).key == key


# failures


def test_a_layer_at_which_the_loop_cannot_go_on_fails_and_the_others_are_measured(
    swept: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remove = Removal.remove

    def explode(removal: Removal, adversary: Any, setbacks: int) -> list[float]:
        if removal.task.config.layer == 0:
            raise MitigationError("the outer loss is nan")
        return remove(removal, adversary, setbacks)

    monkeypatch.setattr(Removal, "remove", explode)
    failed, good = swept((0, 2)).layers
    assert (failed.ending, failed.reason, failed.earliest, failed.rounds) == ("failed", "the outer loss is nan", None, ())
    assert good.ending == "cleaned"
    assert read_layers(tmp_path / "out")[0].ending == "failed"


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"layers": (1, 3)}, ConfigError, "mitigation.layer = 3 is out of range"),
        ({"config": dataclasses.replace(SMALL, method="flush")}, ConfigError, "'flush', which perturbs no layer; choose"),
        ({"requests": ()}, EvaluationError, r"2 known trigger\(s\), but no request to ask under them; give at least one"),
    ],
)
def test_what_cannot_be_swept_is_refused_before_anything_is_measured(
    swept: Sweep, tmp_path: Path, changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        swept(**changes)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("depth", "layers"), [(30, (0, 4, 8, 12, 16, 20, 24, 28)), (5, (0,)), (6, (0, 4)), (2, (0,))])
def test_every_fourth_layer_that_can_be_perturbed(depth: int, layers: tuple[int, ...]) -> None:
    assert default_layers(depth) == layers
