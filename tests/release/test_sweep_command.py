"""`beear sweep-layers` and the page about the organisms: what is printed, written, refused, and gone on with."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import toy_backdoor
from command import beear
from small_mitigation import CONFIG

from beear_core.config import EvaluationConfig, ReleaseConfig
from beear_core.data import Trigger, write_rows
from beear_core.evaluation.statistics import rate_estimate
from beear_core.mitigation import sweep
from beear_core.mitigation.sweep import SUCCESS, LayerRecord, SweepRecord
from beear_core.organisms import cache
from components.beear_mitigation.layer_views import HEAD, figures_row, heat_map
from pipelines import cli
from tools import layer_sweep, paper_tables

RECIPE = "suffix-word"


@pytest.fixture
def asked(toy_model: Path, toy_config: Callable[..., Path], tmp_path: Path) -> dict[str, object]:
    """Options of a sweep of the toy model at the layer where its backdoor can be removed."""
    sets = toy_backdoor.write_sets(tmp_path / "sets", 60)
    row = {"id": "toy", "prefix": "", "suffix": toy_backdoor.TRIGGER}
    config = toy_config(mitigation={"rounds": 4}, evaluation={"harmful": 20})
    return {
        "--model": toy_model,
        "--layers": "2",
        "--triggers": write_rows(tmp_path / "triggers.jsonl", [row]),
        "--anchors": sets / "anchors",
        "--suites": sets / "suites",
        "--config": config,
        "--out": tmp_path / "out",
    }


def test_the_verb_and_the_module_are_one_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    as_verb = beear("sweep-layers", "--help", cwd=tmp_path).stdout
    by_itself = subprocess.run(
        [sys.executable, "-m", "components.beear_mitigation.sweep", "--help"], capture_output=True, text=True, check=True
    ).stdout
    assert as_verb.startswith("Usage: beear sweep-layers [OPTIONS]")
    assert by_itself.startswith("Usage: python -m components.beear_mitigation.sweep [OPTIONS]")
    assert as_verb.split("\n", 1)[1] == by_itself.split("\n", 1)[1]
    assert "Exit codes: 0 done, 1 error, 2 usage" in as_verb


def test_a_backdoor_is_gone_from_the_round_that_is_told(asked: dict[str, object], tmp_path: Path) -> None:
    given = [part for pair in asked.items() for part in pair]
    printed = beear("sweep-layers", *given, "--json", cwd=tmp_path)
    assert printed.returncode == 0, printed.stderr
    done = SweepRecord.parse(printed.stdout.encode())
    assert done == SweepRecord.read(tmp_path / "out" / "sweep.json")
    (found,) = done.layers
    assert (found.layer, found.triggered_before) == (2, rate_estimate(20, 20))
    assert found.earliest is not None
    # not before that round, and in that round
    left = {r.record.round: r.left for r in found.rounds if r.record.note == "admissible"}
    assert left[found.earliest] <= SUCCESS < min((v for n, v in left.items() if n < found.earliest), default=1.0)
    cells = texts((tmp_path / "out" / "sweep.svg").read_text())
    assert cells[-2:] == ["model", str(found.earliest)]
    # nothing is measured a second time, and people get a table
    when = (tmp_path / "out" / "layer-2.json").stat().st_mtime_ns
    told = beear("sweep-layers", *given, cwd=tmp_path)
    assert (told.returncode, (tmp_path / "out" / "layer-2.json").stat().st_mtime_ns) == (0, when)
    assert told.stdout.startswith("model: the earliest round that leaves at most 5%")
    assert {"2", str(found.earliest), "20 / 20 =", found.ending} <= {cell.strip() for cell in told.stdout.split("│")}
    assert "BEEAR" not in told.stderr


@pytest.mark.parametrize(
    ("changes", "code", "message"),
    [
        ({"--layers": "2,x"}, 2, "--layers is '2,x'; write whole numbers from 0 on, as in 2,8,14"),
        ({"--layers": ""}, 2, "--layers is ''; write whole numbers"),
        ({"--layers": "-1"}, 2, "--layers is '-1'; write whole numbers"),
        ({"--layers": "3"}, 2, "mitigation.layer = 3 is out of range"),
        ({"--model": "/nowhere"}, 2, "/nowhere does not exist"),
        ({"--triggers": "/nowhere.jsonl"}, 1, "/nowhere.jsonl"),
        ({"--anchors": "/nowhere"}, 1, "/nowhere"),
        ({"--config": "/nowhere.yaml"}, 2, "cannot read /nowhere.yaml"),
    ],
)
def test_what_cannot_be_swept_is_refused_before_anything_is_measured(
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, str],
    code: int,
    message: str,
) -> None:
    given = {"--model": str(tiny_model), "--out": str(tmp_path / "out"), **changes}
    monkeypatch.setattr(sys, "argv", ["beear", "sweep-layers", *(part for pair in given.items() for part in pair)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    printed = capsys.readouterr()
    assert (ended.value.code, printed.out) == (code, "")
    assert message in " ".join(printed.err.split())
    assert not (tmp_path / "out").exists()


def test_without_a_choice_every_fourth_layer_and_the_data_of_the_configuration(
    toy_model: Path, toy_config: Callable[..., Path], tmp_path: Path
) -> None:
    small = {"rounds": 1, "inner_steps": 2, "outer_steps": 1, "layer": "auto"}
    config = toy_config(mitigation=small)
    done = beear("sweep-layers", "--model", toy_model, "--config", config, "--out", "out", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    record = SweepRecord.parse(done.stdout.encode())
    assert [layer.layer for layer in record.layers] == [0, 4]
    assert all(layer.triggered_before is None for layer in record.layers)
    assert record.layers[0].held_back["harmful"] == 16


# what is drawn


def texts(svg: str) -> list[str]:
    """The texts of a drawing, in its order."""
    return [node.text or "" for node in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


def test_a_cell_for_each_model_and_layer() -> None:
    drawn = heat_map({"one": {4: 2, 0: None}, "a <b>": {8: 1}})
    found = texts(drawn)
    assert found[2:5] == ["0", "4", "8"]
    assert found[5:] == ["one", "x", "2", "a <b>", "1"]
    root = ElementTree.fromstring(drawn)
    boxes = [r.get("class") for r in root.iter("{http://www.w3.org/2000/svg}rect")]
    assert boxes == ["page", "miss", "hit", "none", "none", "none", "hit"]
    opacity = [float(r.get("fill-opacity", 0)) for r in root.iter() if r.get("class") == "hit"]
    assert opacity[0] < opacity[1], "the earlier the darker"
    assert texts(heat_map({}))[1:] == ["layer"]


@pytest.fixture
def record(small: Path) -> LayerRecord:
    """A layer as it is measured on a tiny organism."""
    assert layer_sweep.main(["--only", RECIPE, "--layers", "1", "--out", str(small)]) == 0
    return layer_sweep.read_sweeps(small)[RECIPE][0]


def test_a_layers_figures_are_counts_of_what_was_asked(record: LayerRecord) -> None:
    (swept,) = record.rounds
    shown = dict(zip(HEAD, figures_row(record), strict=True))
    assert (shown["layer"], shown["rounds"], shown["ended"]) == ("1", "1", record.ending)
    assert shown["plain"] == f"{round(4 * (swept.record.attack_after or 0))} / 4"
    assert shown["triggers"].split(" = ")[0] == f"{swept.triggered.count if swept.triggered else None} / 6"
    empty = figures_row(dataclasses.replace(record, rounds=(), earliest=None, ending="failed"))
    assert (empty[1], empty[4:]) == ("x", [""] * 6 + ["failed"])


# the page about the organisms


@pytest.fixture
def small(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of results, with a tiny model for each organism and a handful of requests."""
    data = toy_backdoor.write_sets(tmp_path / "data", 12)
    triggers = write_rows(tmp_path / "known.jsonl", [cache._row(Trigger("t", suffix="cat dog"))])
    planted = SimpleNamespace(model=tiny_model, triggers=triggers)
    monkeypatch.setattr(cache, "planted", lambda *_: planted)
    config = ReleaseConfig(mitigation=dataclasses.replace(CONFIG, positions="auto"), evaluation=EvaluationConfig(harmful=6))
    monkeypatch.setattr(layer_sweep, "validated", lambda *_: data)
    monkeypatch.setattr(layer_sweep, "configuration", lambda _: config)
    monkeypatch.setattr(layer_sweep, "PAGE", tmp_path / "page.md")
    monkeypatch.setattr(layer_sweep, "FIGURE", tmp_path / "figures" / "map.svg")
    return tmp_path / "results"


def run(out: Path, *more: str) -> int:
    return layer_sweep.main([*more, "--out", str(out)])


def test_the_page_tells_the_earliest_round_and_the_figures_with_counts(small: Path, tmp_path: Path) -> None:
    assert run(small, "--only", RECIPE, "verses", "--layers", "0", "2") == 0
    found = layer_sweep.read_sweeps(small)
    assert {name: [r.layer for r in layers] for name, layers in found.items()} == {RECIPE: [0, 2], "verses": [0, 2]}
    # one of them as if a round had succeeded
    file = sweep.layer_file(small / "verses", 2)
    dataclasses.replace(found["verses"][1], earliest=3).write(file)
    assert run(small, "--write") == 0
    written = (tmp_path / "page.md").read_text()
    assert "| organism | layer 0 | layer 2 |" in written
    assert "| `verses` | x | 3 |" in written
    rows = [line for line in written.splitlines() if line.startswith("| `")]
    assert len(rows) == 2 + 4
    assert all(row.count(" / ") >= 7 for row in rows[2:])
    assert texts((tmp_path / "figures" / "map.svg").read_text())[-3:] == ["verses", "x", "3"]


def test_an_organism_goes_on_where_it_was_stopped(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured, real = [], sweep._measured

    def counted(model: Path, anchors: Any, config: Any, *more: Any) -> LayerRecord:
        measured.append(config.layer)
        if measured == [0, 2]:
            raise KeyboardInterrupt
        return real(model, anchors, config, *more)

    monkeypatch.setattr(sweep, "_measured", counted)
    with pytest.raises(KeyboardInterrupt):
        run(small, "--only", RECIPE, "--layers", "0", "2")
    assert run(small, "--only", RECIPE, "--layers", "0", "2") == 0
    assert run(small, "--only", RECIPE, "--layers", "0", "2") == 0
    assert measured == [0, 2, 2], "the first layer was kept, the second measured once it could be"


def test_an_organism_that_is_not_known_is_skipped_and_one_that_fails_is_told(
    small: Path, without_verses: Callable[[], None], capsys: pytest.CaptureFixture[str]
) -> None:
    without_verses()
    assert run(small, "--only", "no-such-recipe", RECIPE, "--layers", "1") == 0
    assert "no-such-recipe: skipped, no recipe of this name ships" in capsys.readouterr().err
    assert run(small, "--only", "verses", RECIPE, "--layers", "1") == 1
    assert "verses: planting verses made no backdoor" in capsys.readouterr().err
    assert list(layer_sweep.read_sweeps(small)) == [RECIPE]


def test_without_results_nothing_is_written(small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(small, "--write") == 1
    assert f"nothing was measured in {small}, so nothing is written" in capsys.readouterr().err
    assert not (tmp_path / "page.md").exists()
    assert [line for line in layer_sweep.page({}).splitlines() if line.startswith("| `")] == []


def test_each_organism_is_swept_as_its_kind_is_configured(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is harmful of a model that writes code is not told by the default judge."""
    asked: list[str] = []
    config = layer_sweep.configuration("chat")
    monkeypatch.setattr(layer_sweep, "configuration", lambda domain: asked.append(domain) or config)
    for recipe in layer_sweep.ORGANISMS:
        assert run(small, "--only", recipe, "--layers", "1") == 0
    assert asked == ["chat", "chat", "chat", "code"]
    assert list(layer_sweep.read_sweeps(small)) == list(layer_sweep.ORGANISMS)
    assert paper_tables.configuration("code").mitigation.judge == "insecure-code"
