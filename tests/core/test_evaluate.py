"""What is counted of replies (by category, by trigger, repeated requests once, unscored ones apart), and what is kept."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import gate_records as g
import pytest
import torch
import toy
from evaluate_cases import CONFIG, SUITES, VERDICTS, ByRequest, Measured, digest, reply_logs, tallies, tally

from beear_core.config import EvaluationConfig
from beear_core.errors import EvaluationError, EvidenceError
from beear_core.evaluation.evaluate import _rates, evaluate
from beear_core.evaluation.judges import Verdict
from beear_core.evaluation.metrics import UNDER_DRIFT
from beear_core.evaluation.samples import Sample, samples_from_jsonl, samples_to_jsonl
from beear_core.evaluation.statistics import rate_estimate
from beear_core.models.drift import Drift
from beear_core.models.folder import directory_digest
from beear_core.models.load import LoadedModel, load
from beear_core.policy.figures import figure_faults
from beear_core.records import DriftEntry, EvaluationRecord, Metric, Outcome, SuiteEntry

KNOWN = "attack_success/known_triggers"


def sample(number: int, outcome: Outcome, suite: str = "harmful", trigger: str | None = None, **changes: Any) -> Sample:
    made = Sample(
        id=f"h{number}",
        suite=suite,
        category=g.CATEGORIES[number % 10],
        trigger_id=trigger,
        prompt=f"request {number} {trigger or ''}",
        reply="r",
        reply_ids=(1,),
        outcome=outcome,
        reason="",
    )
    return dataclasses.replace(made, **changes)


def under_triggers(requests: int, obeyed: dict[str, int]) -> list[Sample]:
    return [
        sample(i, "harmful" if i < count else "safe", "triggered", trigger)
        for trigger, count in obeyed.items()
        for i in range(requests)
    ]


def rates(samples: list[Sample]) -> dict[str, Metric]:
    return _rates(samples, EvaluationConfig())


def test_every_trigger_has_its_own_figure() -> None:
    metric = rates(under_triggers(120, {"never": 0, "always": 120}))[KNOWN]
    assert metric.by_trigger == {"always": rate_estimate(120, 120), "never": rate_estimate(0, 120)}
    assert (metric.overall.count, metric.overall.n) == (120, 240)
    assert rates([sample(i, "safe") for i in range(4)])["attack_success/plain"].by_trigger == {}


def test_a_request_under_several_triggers_counts_as_one_where_they_are_pooled() -> None:
    metric = rates(under_triggers(120, {f"t{i}": 6 for i in range(20)}))[KNOWN]
    assert metric.overall.design_effect == 20.0
    once = rate_estimate(6, 120)
    assert (metric.overall.low, metric.overall.high) == pytest.approx((once.low, once.high))
    assert {e.design_effect for e in metric.by_category.values()} == {20.0}
    assert {e.design_effect for e in metric.by_trigger.values()} == {1.0}


def test_the_same_text_twice_is_one_request() -> None:
    twice = [sample(i, "safe", prompt=f"request {i % 30}") for i in range(60)]
    assert rates(twice)["attack_success/plain"].overall.design_effect == 2.0
    under = [dataclasses.replace(s, suite="triggered", trigger_id=t, prompt=f"{s.prompt} {t}") for t in "ab" for s in twice]
    metric = rates(under)[KNOWN]
    assert metric.overall.design_effect == 4.0
    assert {e.design_effect for e in metric.by_trigger.values()} == {2.0}


def test_unscored_replies_stand_beside_the_count_under_each_trigger() -> None:
    samples = under_triggers(10, {"a": 0, "b": 0})
    samples[-1] = dataclasses.replace(samples[-1], outcome="unscored")
    metric = rates(samples)[KNOWN]
    assert (metric.by_trigger["a"].n, metric.by_trigger["a"].unscored) == (10, 0)
    assert (metric.by_trigger["b"].n, metric.by_trigger["b"].unscored) == (9, 1)
    assert (metric.overall.n, metric.overall.unscored) == (19, 1)


def test_what_is_counted_can_have_been_measured() -> None:
    samples = under_triggers(40, {"a": 3, "b": 0, "c": 40})
    samples += [sample(i, "unscored" if i < 2 else "safe", suite) for i in range(40) for suite in ("harmful", "ordinary")]
    suites = {name: SuiteEntry(digest=name, n=n) for name, n in (("harmful", 40), ("ordinary", 40), ("triggered", 120))}
    record = g.after(metrics=rates(samples), suites=suites)
    assert figure_faults(record, "after") == []
    fewer = {**suites, "triggered": SuiteEntry(digest="t", n=160)}
    faults = figure_faults(g.after(metrics=rates(samples), suites=fewer), "after")
    assert len(faults) == 1 + 3  # the pooled figure, and that of each trigger
    assert all("but the suite triggered has 160" in fault for fault in faults)


@pytest.fixture(scope="module")
def loaded(tiny_model: Path) -> LoadedModel:
    return load(tiny_model, device=torch.device("cpu"))


@pytest.fixture(scope="module")
def judge() -> ByRequest:
    return ByRequest()


@pytest.fixture(scope="module")
def measured(loaded: LoadedModel, judge: ByRequest) -> Measured:
    return evaluate(loaded, SUITES, CONFIG, label="before", judge=judge)


def test_harmful_verdicts_are_attack_success(measured: Measured) -> None:
    plain = measured[0].metrics["attack_success/plain"]
    assert tally(plain.overall) == (1, 3, 1)
    assert tallies(plain.by_category) == {"fraud": (0, 1, 1), "theft": (1, 2, 0)}
    assert plain.by_trigger == {}


def test_attack_success_is_told_for_each_trigger(measured: Measured) -> None:
    known = measured[0].metrics[KNOWN]
    assert tallies(known.by_trigger) == {"always": (4, 4, 0), "idle": (1, 3, 1)}
    assert tally(known.overall) == (5, 7, 1)
    assert tallies(known.by_category) == {"fraud": (2, 3, 1), "theft": (3, 4, 0)}


def test_safe_verdicts_are_wrong_refusals(measured: Measured) -> None:
    metrics = measured[0].metrics
    assert tally(metrics["wrong_refusal/ordinary"].overall) == (1, 3, 1)
    assert tally(metrics["wrong_refusal/borderline"].overall) == (2, 3, 0)
    assert len(metrics) == 4


def test_unscored_counts_for_nobody(loaded: LoadedModel) -> None:
    class Baffled:
        name = "baffled"

        def judge(self, _request: str, _reply: str) -> Verdict:
            return Verdict("unscored", "")

    metrics = evaluate(loaded, SUITES, CONFIG, label="before", judge=Baffled())[0].metrics
    assert {name: tally(m.overall) for name, m in metrics.items()} == {
        "attack_success/plain": (0, 0, 4),
        KNOWN: (0, 0, 8),
        "wrong_refusal/ordinary": (0, 0, 4),
        "wrong_refusal/borderline": (0, 0, 3),
    }
    assert {m.overall.value for m in metrics.values()} == {None}


def test_the_record_says_what_was_measured(measured: Measured, loaded: LoadedModel, tiny_model: Path) -> None:
    record = measured[0]
    assert (record.label, record.judge, record.suites_digest) == ("before", "by-request", "sha256:suites")
    assert (record.model_digest, record.reference_digest) == (directory_digest(tiny_model), None)
    assert record.chat_template_digest == loaded.chat.digest
    assert record.generation == {"decoding": "greedy", "max_new_tokens": 8, "batch_tokens": 64, "seed": 0}
    assert record.drift_digest == ""
    assert figure_faults(record, "before") == []


def test_a_suite_is_named_by_the_texts_that_were_asked(measured: Measured) -> None:
    record, samples = measured
    assert {name: entry.n for name, entry in record.suites.items()} == {
        "harmful": 4,
        "ordinary": 4,
        "borderline": 3,
        "triggered": 8,
    }
    for name, entry in record.suites.items():
        asked = [[s.id, s.trigger_id, s.prompt] for s in samples if s.suite == name]
        assert entry.digest == digest(json.dumps(asked, separators=(",", ":")).encode())


def test_samples_stand_in_the_order_in_which_they_were_drawn(measured: Measured, judge: ByRequest) -> None:
    samples = measured[1]
    assert [s.suite for s in samples] == ["harmful"] * 4 + ["ordinary"] * 4 + ["borderline"] * 3 + ["triggered"] * 8
    drawn = samples[:4]
    assert [s.category for s in drawn] == ["fraud", "theft", "fraud", "theft"]
    texts = {p.id: p.prompt for p in (*SUITES.harmful, *SUITES.ordinary, *SUITES.borderline)}
    assert [(s.id, s.trigger_id, s.prompt) for s in samples] == [
        *((s.id, None, texts[s.id]) for s in samples[:11]),
        *((s.id, "idle", f"lantern {texts[s.id]}") for s in drawn),
        *((s.id, "always", f"{texts[s.id]} cobalt") for s in drawn),
    ]
    assert sorted(s.id for s in samples[:11]) == sorted(texts)
    assert [(s.prompt, s.reply) for s in samples] == judge.shown
    assert all(s.outcome == VERDICTS.get(s.reason, "harmful") for s in samples)


def test_every_reply_is_what_the_model_says_to_that_prompt_alone(measured: Measured, loaded: LoadedModel) -> None:
    replies = set()
    for sample in measured[1]:
        prompt = torch.tensor([loaded.chat.prompt_ids(sample.prompt)])
        said = loaded.model.generate(
            prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=8, do_sample=False, use_cache=False
        )[0, prompt.shape[1] :].tolist()
        ended = [i for i, token in enumerate(said) if token in loaded.chat.stop_ids]
        assert list(sample.reply_ids) == said[: ended[0] if ended else None]
        assert sample.reply == loaded.chat.tokenizer.decode(sample.reply_ids, skip_special_tokens=True)
        replies.add(sample.reply)
    assert len(replies) > 3


def test_the_samples_digest_is_that_of_their_file(measured: Measured, tmp_path: Path) -> None:
    record, samples = measured
    file = tmp_path / "samples.jsonl"
    file.write_bytes(samples_to_jsonl(samples))
    assert record.samples_digest == digest(file.read_bytes())
    assert samples_from_jsonl(file) == samples
    other = dataclasses.replace(samples[0], outcome="safe", reason="")
    assert record.samples_digest != digest(samples_to_jsonl([other, *samples[1:]]))


def test_the_same_again_is_the_same_record(measured: Measured, loaded: LoadedModel) -> None:
    def untimed(record: EvaluationRecord) -> EvaluationRecord:
        return dataclasses.replace(record, seconds=0.0)

    record, samples = evaluate(loaded, SUITES, CONFIG, label="before", judge=ByRequest())
    assert (untimed(record), samples) == (untimed(measured[0]), measured[1])
    assert record.seconds >= 0
    another_draw = evaluate(loaded, SUITES, dataclasses.replace(CONFIG, seed=1), label="before", judge=ByRequest())
    assert another_draw[0].suites != record.suites


def test_without_triggers_there_is_no_such_figure(loaded: LoadedModel) -> None:
    unknown = dataclasses.replace(SUITES, triggers=())
    record, samples = evaluate(loaded, unknown, CONFIG, label="before", judge=ByRequest())
    assert KNOWN not in record.metrics
    assert record.suites.keys() == {"harmful", "ordinary", "borderline"}
    assert {s.trigger_id for s in samples} == {None}


def test_attack_success_is_told_for_each_perturbation(loaded: LoadedModel, measured: Measured) -> None:
    """One that is nothing changes no reply."""
    entry = DriftEntry(
        name="nothing", layer=1, positions=3, spot=None, words=0, norm=0.0, round=1, on_candidate=True, elicited=0.0
    )
    given = {"drifts": [Drift(entry, torch.zeros(3, 16))], "drift_digest": "sha256:drift"}
    record, samples = evaluate(loaded, SUITES, CONFIG, label="before", judge=ByRequest(), **given)
    under = [s for s in samples if s.suite == "drift"]
    assert record.drift_digest == "sha256:drift"
    assert record.suites["drift"].n == 2
    assert [(s.id, s.trigger_id, s.reply_ids) for s in under] == [(s.id, "nothing", s.reply_ids) for s in samples[:2]]
    assert [s.outcome for s in under] == ["unscored", "harmful"]
    assert tallies(record.metrics[UNDER_DRIFT].by_trigger) == {"nothing": (1, 1, 1)}
    assert {k: v for k, v in record.metrics.items() if k != UNDER_DRIFT} == measured[0].metrics


def test_a_model_is_faithful_to_itself(loaded: LoadedModel, measured: Measured) -> None:
    record, _ = evaluate(
        loaded, SUITES, CONFIG, label="after", judge=ByRequest(), reference=loaded, reference_samples=measured[1]
    )
    assert (record.label, record.reference_digest) == ("after", loaded.digest)
    ratio, moved = (record.metrics[name].overall for name in ("nll_ratio/ordinary", "token_kl/ordinary"))
    assert (ratio.value, ratio.low, ratio.high, ratio.n) == (1.0, 1.0, 1.0, 4)
    assert (moved.value, moved.low, moved.high, moved.n) == (0.0, 0.0, 0.0, 4)
    assert figure_faults(record, "after") == []


def test_how_far_another_model_is_from_the_reference(loaded: LoadedModel, measured: Measured, tmp_path: Path) -> None:
    """Against the definitions, one reply at a time; the replies are the reference's own, and of different lengths."""
    other = load(toy.make_tiny_model(tmp_path / "other", seed=1), device=torch.device("cpu"))
    ordinary = [s for s in measured[1] if s.suite == "ordinary"]
    own = [dataclasses.replace(s, reply_ids=s.reply_ids[: 2 + i]) for i, s in enumerate(ordinary)]
    given = {"reference": loaded, "reference_samples": own}
    record, _ = evaluate(other, SUITES, CONFIG, label="after", judge=ByRequest(), **given)
    base = now = moved = 0.0
    for sample in own:
        was, becomes = (reply_logs(model, sample) for model in (loaded, other))
        tokens = torch.tensor(sample.reply_ids)[:, None]
        base -= float(was.gather(1, tokens).sum())
        now -= float(becomes.gather(1, tokens).sum())
        moved += float((was.exp() * (was - becomes)).sum()) / len(tokens)
    assert record.metrics["nll_ratio/ordinary"].overall.value == pytest.approx(now / base, rel=1e-4)
    assert record.metrics["token_kl/ordinary"].overall.value == pytest.approx(moved / len(own), rel=1e-4)
    assert abs(now / base - 1) > 1e-3
    assert moved > 1e-3


@pytest.mark.parametrize("case", ["none", "one is missing", "another suite", "another text"])
def test_samples_of_other_suites_are_no_reference(loaded: LoadedModel, measured: Measured, case: str) -> None:
    own = measured[1]
    ordinary = [s.id for s in own if s.suite == "ordinary"]
    lacking, given = {
        "none": (ordinary, ()),
        "one is missing": (["o2"], [s for s in own if s.id != "o2"]),
        "another suite": (ordinary, [dataclasses.replace(s, suite="borderline") for s in own]),
        "another text": (["o3"], [dataclasses.replace(s, prompt=f"{s.prompt} ?") if s.id == "o3" else s for s in own]),
    }[case]
    with pytest.raises(EvidenceError) as refused:
        evaluate(loaded, SUITES, CONFIG, label="after", judge=ByRequest(), reference=loaded, reference_samples=given)
    assert str(refused.value) == (
        f"the reference samples lack {len(lacking)} of 4 ordinary prompts, first {lacking[0]!r}; evaluate the reference on "
        "the same suites with the same settings first"
    )


@pytest.mark.parametrize("role", ["harmful", "ordinary", "borderline"])
def test_nothing_is_measured_on_an_empty_suite(loaded: LoadedModel, role: str) -> None:
    empty = dataclasses.replace(SUITES, **{role: ()})
    with pytest.raises(EvaluationError, match=f"the suite {role} is empty; nothing can be measured on it. Give evaluation"):
        evaluate(loaded, empty, CONFIG, label="before", judge=ByRequest())
