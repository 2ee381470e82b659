"""Where the mitigation writes, and that every method runs: whole or nothing, on disks that are full or read-only."""

import dataclasses
import errno
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from disk import mounted
from small_mitigation import CONFIG, anchors

from beear_core.errors import StorageError
from beear_core.mitigation import beear
from beear_core.models.folder import copy, directory_digest
from beear_core.models.load import load, save


def test_the_same_on_a_good_disk(tiny_model: Path, tmp_path: Path) -> None:
    loaded = load(tiny_model)
    assert beear.mitigate(loaded, anchors(), CONFIG, tmp_path / "work").best_round == 1
    assert list((tmp_path / "work").iterdir()) == []
    assert save(loaded.model, tiny_model, tmp_path / "out") == directory_digest(tmp_path / "out")


def test_a_full_disk_while_the_best_weights_are_kept(tiny_model: Path, tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "size=16k") as disk:
        with pytest.raises(
            StorageError, match=r"cannot keep the best weights so far in .*disk/mitigation-\w+: .*free space"
        ):
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
