"""The report shows the champion's figures beside the model's, and says where they come from."""

from __future__ import annotations

import dataclasses
from typing import Any

import gate_records as g
from report_cases import Page, page

from beear_core.records import ChampionRecord, EvaluationRecord

ASIDE = {"model_name": "chat", "alias": "champion"}


def champion(**changes: Any) -> EvaluationRecord:
    metrics = {**g.after().metrics, "attack_success/plain": g.spread(7, 120)}
    return dataclasses.replace(g.after(), label="champion", model_digest=g.digest("c"), metrics=metrics, **changes)


def looked_up(**values: Any) -> ChampionRecord:
    return ChampionRecord(**{**ASIDE, "version": "4", "model_digest": g.digest("c"), **values})


def test_its_figures_stand_beside_those_of_the_model() -> None:
    because = looked_up(state="measured", reasons=("the judge is 'a' in 'champion', 'b' in 'after'", "torch is 1, 2"))
    text = Page(page(champion=champion(), champion_eval=because)).text
    assert "7 / 120 = 5.8%" in text
    assert "7 / 120 = 5.8%" not in Page(page()).text
    assert "Version 4 of chat is champion; it was measured anew because the judge is 'a' in 'champion', 'b' in" in text
    stored = looked_up(state="stored")
    assert "that it was released on were made in the same way" in Page(page(champion=champion(), champion_eval=stored)).text


def test_figures_of_other_candidates_are_left_out() -> None:
    [shown] = [part for part in page(champion=champion()).split("<table") if "Figures of the champion" in part]
    table = shown.split("</table>")[0]
    assert "Attack success" in table
    for own in ("NLL ratio", "KL", "perturbation", "drift"):
        assert own not in table


def test_that_there_is_none_is_said_where_it_was_asked() -> None:
    assert "chat has no champion yet." in Page(page(champion_eval=ChampionRecord(state="none", **ASIDE))).text
    assert "no champion yet" not in Page(page()).text
