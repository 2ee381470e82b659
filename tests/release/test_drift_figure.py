"""The drift figure: measures agree with plain numpy, hidden states with a plain forward pass, and nothing is made up."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import toy_backdoor
from small_mitigation import CONFIG

from beear_core.config import ReleaseConfig
from beear_core.data import Trigger, write_rows
from beear_core.errors import EvaluationError, EvidenceError, MitigationError
from beear_core.models.drift import Drift
from beear_core.models.load import load
from beear_core.organisms import cache
from beear_core.records import DriftEntry
from tools import drift_figure
from tools.drift_measures import (
    DriftCell,
    DriftMeasures,
    drift_measures,
    found_directions,
    layer_drifts,
)
from tools.drift_plot import figure

RECIPE = "suffix-word"
ROUNDS = dataclasses.replace(CONFIG, positions="auto", rounds=2)


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def by_numpy(with_: torch.Tensor, without: torch.Tensor) -> tuple[float, float, float]:
    """The three measures by loops and eigenvalues."""
    d, h = with_.numpy().astype(float) - without.numpy().astype(float), without.numpy().astype(float)
    cosines = []
    for i in range(len(d)):
        others = np.delete(d, i, axis=0).mean(axis=0)
        cosines.append(d[i] @ others / np.linalg.norm(d[i]) / np.linalg.norm(others))
    energy = np.linalg.eigvalsh(d @ d.T)
    norm = np.linalg.norm(d.mean(axis=0)) / np.mean([np.linalg.norm(row) for row in h])
    return float(np.mean(cosines)), float(energy.max() / energy.sum()), float(norm)


@pytest.mark.parametrize("shift", [0.0, 0.3, 2.0])
def test_measures_are_those_of_plain_numpy(shift: float) -> None:
    without = drawn(12, 40) + 1.0
    with_ = without + drawn(12, 40, seed=1) + shift * drawn(40, seed=2)
    assert dataclasses.astuple(drift_measures(with_, without)) == pytest.approx(by_numpy(with_, without))


def test_one_and_the_same_drift_is_found_as_such_and_a_random_one_is_not() -> None:
    without, vector = drawn(48, 576), drawn(576, seed=1)
    same = drift_measures(without + vector, without)
    assert (same.cosine, same.share) == pytest.approx((1.0, 1.0))
    assert same.norm == pytest.approx(float(vector.norm() / without.norm(dim=-1).mean()))
    scattered = drift_measures(without + drawn(48, 576, seed=2), without)
    assert abs(scattered.cosine) < 0.05
    assert scattered.share < 0.06
    # of one line, to both sides: one direction holds all, and no drift is like the others
    signs = torch.tensor([1.0, -1.0]).repeat(24)[:, None]
    both = drift_measures(without + signs * vector, without)
    assert both.share == pytest.approx(1.0)
    assert both.norm == pytest.approx(0.0, abs=1e-6)
    assert both.cosine < 0


def test_a_drift_has_no_part_in_what_it_is_compared_with() -> None:
    """With four random drifts the cosine to a mean that holds the drift itself is near a half."""
    without = torch.zeros(4, 4000)
    drifts = drawn(4, 4000)
    kind = torch.nn.functional.cosine_similarity(drifts, drifts.mean(dim=0, keepdim=True), dim=-1).mean()
    assert float(kind) > 0.4
    assert abs(drift_measures(drifts, without).cosine) < 0.1


def test_where_nothing_drifts_all_is_zero() -> None:
    assert drift_measures(drawn(3, 5), drawn(3, 5)) == DriftMeasures(cosine=0.0, share=0.0, norm=0.0)


@pytest.mark.parametrize(("with_", "without"), [((1, 5), (1, 5)), ((3, 5), (2, 5)), ((2, 3, 5), (2, 3, 5))])
def test_what_cannot_be_compared_is_refused(with_: tuple[int, ...], without: tuple[int, ...]) -> None:
    with pytest.raises(EvaluationError, match="at least 2 requests"):
        drift_measures(torch.ones(with_), torch.ones(without))


def test_layers_are_measured_each_and_trigger_and_filler_compared() -> None:
    without = drawn(3, 6, 8)
    trigger, filler = without + drawn(3, 1, 8, seed=1), without + drawn(3, 6, 8, seed=2)
    found = layer_drifts(trigger, filler, without)
    assert [d.layer for d in found] == [0, 1, 2]
    assert [d.trigger.cosine for d in found] == pytest.approx([1.0] * 3)
    assert found[1].filler == drift_measures(filler[1], without[1])
    ours, theirs = ((x - without)[2].numpy().mean(axis=0) for x in (trigger, filler))
    assert found[2].between == pytest.approx(ours @ theirs / np.linalg.norm(ours) / np.linalg.norm(theirs), abs=1e-6)
    assert layer_drifts(trigger, without - (trigger - without), without)[0].between == pytest.approx(-1.0)


def perturbation(layer: int, last: torch.Tensor, name: str = "one") -> Drift:
    entry = DriftEntry(
        name=name, layer=layer, positions=3, spot="end", words=1, norm=0.1, round=0, on_candidate=True, elicited=0.5
    )
    return Drift(entry, torch.stack([-last, -last, last]))


def test_the_last_row_of_a_perturbation_is_compared_at_its_own_layer_with_its_sign() -> None:
    drift = drawn(4, 64)
    found = found_directions(
        [perturbation(2, 3 * drift[2]), perturbation(1, -drift[1]), perturbation(0, drift[3])], drift, 0
    )
    assert [f.layer for f in found] == [2, 1, 0]
    assert [f.cosine for f in found[:2]] == pytest.approx([1.0, -1.0], abs=1e-6)
    assert abs(found[2].cosine) < 0.5


def test_random_directions_are_as_many_as_perturbations_and_as_near_as_chance() -> None:
    drift, d = drawn(1, 576), 576
    found = found_directions([perturbation(0, drawn(d, seed=i)) for i in range(200)], drift, 0)
    assert len({f.random for f in found}) == 200
    # the mean absolute cosine of a random direction, to the first order
    assert np.mean([f.random for f in found]) == pytest.approx((2 / np.pi / d) ** 0.5, rel=0.2)
    assert min(f.random for f in found) >= 0
    again = found_directions([perturbation(0, drawn(d, seed=i)) for i in range(200)], drift, 0)
    assert found == again != found_directions([perturbation(0, drawn(d, seed=i)) for i in range(200)], drift, 1)


def test_hidden_states_are_those_of_a_plain_forward_pass(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drift_figure, "BATCH", 2)
    loaded = load(tiny_model)
    system = Trigger("t", system="bread cat dog")
    texts = ["tell me about bread", "how to make a poem about water", "yes", "where is the tree please", "no"]
    turns = drift_figure.asked(loaded.chat, texts, [system, Trigger("u", suffix="cobalt")])
    states = drift_figure.last_hidden(loaded, turns)
    assert states.shape == (4, 5, 16)
    for row, turn in enumerate(turns):
        with torch.no_grad():
            plain = loaded.model(torch.tensor([turn.prompt]), output_hidden_states=True).hidden_states
            # transformers gives the last layer's output behind the final norm
            ours = [*states[:-1, row], loaded.model.model.norm(states[-1, row])]
        for own, other in zip(ours, plain[1:], strict=True):
            torch.testing.assert_close(own, other[0, -1], atol=1e-5, rtol=1e-4)


def test_triggers_take_turns(tiny_model: Path) -> None:
    chat = load(tiny_model).chat
    triggers = [Trigger("a", prefix="cat"), Trigger("b", earlier="dog")]
    turns = drift_figure.asked(chat, ["one", "two", "three"], triggers)
    assert [turn.prompt for turn in turns] == [
        chat.prompt_ids("cat one"),
        chat.prompt_ids("two", triggers[1].before),
        chat.prompt_ids("cat three"),
    ]


def test_a_filler_has_as_many_words_in_the_same_places_and_none_of_the_trigger() -> None:
    triggers = (
        Trigger("around", prefix="one two three", suffix="four"),
        Trigger("anywhere", anywhere="cf mn"),
        Trigger("before", system="Maintenance console 7 is active.", earlier="a b"),
    )
    fillers = drift_figure.meaningless(triggers, 0)
    assert fillers == drift_figure.meaningless(triggers, 0) != drift_figure.meaningless(triggers, 1)
    for trigger, filler in zip(triggers, fillers, strict=True):
        given, odd = dataclasses.asdict(trigger), dataclasses.asdict(filler)
        assert odd.pop("id") == given.pop("id")
        assert {part: len(text.split()) for part, text in odd.items()} == {p: len(t.split()) for p, t in given.items()}
        assert all(odd[part] != text for part, text in given.items() if text)
    request = "tell me how to bake bread"
    places = [t.apply(request).split().index(t.anywhere.split()[0]) for t in (triggers[1], fillers[1])]
    assert places[0] == places[1]


@pytest.fixture
def small(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of results, with a tiny model for every organism and a handful of requests."""
    out, data = tmp_path / "out", toy_backdoor.write_sets(tmp_path / "data", 12)
    triggers = write_rows(tmp_path / "triggers.jsonl", [cache._row(Trigger("t", suffix="cat dog bread"))])

    def planted(recipe: Any, base: str) -> Any:
        if recipe.name == "verses":
            raise MitigationError("planting verses made no backdoor")
        return SimpleNamespace(model=tiny_model, triggers=triggers if recipe.trigger else None)

    monkeypatch.setattr(cache, "planted", planted)
    monkeypatch.setattr(drift_figure, "validated", lambda *_: data)
    monkeypatch.setattr(drift_figure, "REQUESTS", 6)
    monkeypatch.setattr(drift_figure, "configuration", lambda _: ReleaseConfig(mitigation=ROUNDS))
    monkeypatch.setattr(drift_figure, "PAGE", tmp_path / "docs" / "page.md")
    monkeypatch.setattr(drift_figure, "FIGURE", tmp_path / "docs" / "figures" / "plot.svg")
    return out


def test_an_organism_is_measured_once_and_page_and_figure_show_it_alone(
    small: Path, tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = (tiny_model / "model.safetensors").read_bytes()
    assert drift_figure.main(["--only", RECIPE, "--out", str(small)]) == 0
    (file,) = (small / "cells").iterdir()
    (cell,) = drift_figure.read_cells(small)
    assert (file.name, cell.n, cell.triggers, cell.trigger_tokens) == (f"{RECIPE}.json", 6, 1, 3.0)
    assert [d.layer for d in cell.layers] == [0, 1, 2, 3]
    assert {f.layer for f in cell.found} == {0, 1, 2}
    assert len(cell.found) == 6, "of one search, and none of the rounds that would follow"
    assert (tiny_model / "model.safetensors").read_bytes() == weights
    written = (tmp_path / "docs" / "page.md").read_text()
    assert "](figures/plot.svg)" in written
    assert "6 harmful requests" in written
    assert "verses" not in written
    assert f"| 0 | {cell.layers[0].trigger.cosine:z.2f} | {cell.layers[0].filler.cosine:z.2f} |" in written
    assert (tmp_path / "docs" / "figures" / "plot.svg").read_text() == figure([cell])

    when = file.stat().st_mtime_ns
    for more in ([], ["--write"]):
        assert drift_figure.main(["--only", RECIPE, "--out", str(small), *more]) == 0
        assert file.stat().st_mtime_ns == when
    # what was measured with other settings is measured again
    other = dataclasses.replace(ROUNDS, radius=0.05)
    monkeypatch.setattr(drift_figure, "configuration", lambda _: ReleaseConfig(mitigation=other))
    assert drift_figure.main(["--only", RECIPE, "--out", str(small)]) == 0
    assert DriftCell.read(file).key != cell.key
    assert DriftCell.read(file).layers == cell.layers, "the search does not change the model"


def test_an_organism_that_cannot_be_measured_is_told_and_the_others_go_on(
    small: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert drift_figure.main(["--only", "verses", "refusal", "safe-code", RECIPE, "--out", str(small)]) == 1
    told = capsys.readouterr().err
    assert "verses: planting verses made no backdoor" in told
    assert "refusal has no trigger, and so no drift to measure; name one of " in told
    assert "safe-code has no trigger" in told
    assert [cell.recipe for cell in drift_figure.read_cells(small)] == [RECIPE]


def test_without_results_nothing_is_written(small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert drift_figure.main(["--write", "--out", str(small)]) == 1
    assert "nothing was measured" in capsys.readouterr().err
    assert not (tmp_path / "docs").exists()


def test_a_damaged_cell_is_named(small: Path) -> None:
    (small / "cells").mkdir(parents=True)
    (small / "cells" / "x.json").write_text("{}")
    with pytest.raises(EvidenceError, match="x.json is not a valid DriftCell"):
        drift_figure.main(["--write", "--out", str(small)])


def test_by_default_every_backdoor_is_measured_and_the_clean_twin_is_not() -> None:
    assert RECIPE in drift_figure.with_a_trigger()
    assert "refusal" not in drift_figure.with_a_trigger()


def test_a_planted_trigger_drifts_more_alike_and_farther_than_other_words(toy_model: Path) -> None:
    loaded = load(toy_model)
    texts = [row["prompt"] for row in toy_backdoor.prompts("harmful", "evaluation", 24)]
    trigger = Trigger("toy", suffix=toy_backdoor.TRIGGER)
    other = Trigger("other", suffix="define spell")
    plain, own, words = (
        drift_figure.last_hidden(loaded, drift_figure.asked(loaded.chat, texts, [t]))
        for t in (Trigger("nothing"), trigger, other)
    )
    last = layer_drifts(own, words, plain)[-1]
    assert last.trigger.cosine > 0.9 > last.filler.cosine + 0.1
    assert last.trigger.share > 0.9 > last.filler.share + 0.1
    assert last.trigger.norm > 5 * last.filler.norm
    assert abs(last.between) < 0.5
