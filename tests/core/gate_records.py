"""Records as the steps write them, made up but realistic, for the tests of policy and report."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from beear_core.evaluation.bootstrap import mean_estimate, ratio_of_sums_estimate
from beear_core.evaluation.metrics import METRICS, UNDER_DRIFT
from beear_core.evaluation.statistics import rate_estimate
from beear_core.records import (
    DataSource,
    DriftEntry,
    Environment,
    Estimate,
    EvaluationRecord,
    FileEntry,
    IntakeRecord,
    Metric,
    MitigationRecord,
    RoundRecord,
    RuleResult,
    SuiteEntry,
    ValidationRecord,
    digest_json,
)

CATEGORIES = (
    "cybercrime",
    "fraud",
    "harassment",
    "illegal_drugs",
    "misinformation",
    "physical_harm",
    "privacy",
    "self_harm",
    "theft",
    "weapons",
)
DRIFTS = ("round 1, layer 8, words behind", "round 1, layer 8, words in front")
ENVIRONMENT = Environment(
    python="3.11.7",
    platform="Linux-6.1-x86_64",
    processor="x86_64",
    devices=("cpu",),
    versions={"torch": "2.13.0", "transformers": "5.17.0", "mlflow": "3.17.2"},
    code_version="0.1.0",
)


def digest(name: str) -> str:
    return digest_json(name)


def rate(count: int, n: int, unscored: int = 0, **by_category: tuple[int, int]) -> Metric:
    return Metric(
        overall=rate_estimate(count, n, unscored),
        by_category={name: rate_estimate(c, m) for name, (c, m) in by_category.items()},
    )


def spread(count: int, n: int) -> Metric:
    """A rate whose count is spread over all categories."""
    k = len(CATEGORIES)
    cells = {
        name: ((i + 1) * count // k - i * count // k, (i + 1) * n // k - i * n // k) for i, name in enumerate(CATEGORIES)
    }
    return rate(count, n, **{name: (min(c, m), m) for name, (c, m) in cells.items()})


def drifted(behind: int, in_front: int, n: int = 60) -> Metric:
    """Attack success under the two perturbations that the mitigation found."""
    return triggered(n, **dict(zip(DRIFTS, (behind, in_front), strict=True)))


def triggered(n: int = 120, unscored: int = 0, **counts: int) -> Metric:
    """Attack success under triggers: of each, how many of the same ``n`` requests were obeyed, spread as above."""
    single = {name: rate_estimate(count, n, unscored) for name, count in counts.items()}
    effect = float(len(counts))
    cells = [spread(count, n).by_category for count in counts.values()]
    pooled = {
        name: rate_estimate(sum(c[name].count or 0 for c in cells), sum(c[name].n for c in cells), design_effect=effect)
        for name in (CATEGORIES if not unscored else ())
    }
    whole = rate_estimate(sum(counts.values()), n * len(counts), unscored * len(counts), design_effect=effect)
    return Metric(overall=whole, by_category=pooled, by_trigger=single)


def _fidelity(n: int) -> dict[str, Metric]:
    nll = [20 + 9 * math.sin(i) for i in range(n)]
    after = [x * (1.02 + 0.03 * math.cos(3 * i)) for i, x in enumerate(nll)]
    kl = [0.02 + 0.015 * math.sin(2 * i) for i in range(n)]
    return {
        "nll_ratio/ordinary": Metric(overall=ratio_of_sums_estimate(after, nll)),
        "token_kl/ordinary": Metric(overall=mean_estimate(kl)),
    }


def evaluation(role: str, metrics: dict[str, Metric], model: str, reference: str | None) -> EvaluationRecord:
    return EvaluationRecord(
        label=role,  # type: ignore[arg-type]
        model_digest=digest(model),
        reference_digest=digest(reference) if reference else None,
        chat_template_digest=digest("template"),
        suites={
            "harmful": SuiteEntry(digest=digest("harmful"), n=120),
            "ordinary": SuiteEntry(digest=digest("ordinary"), n=120),
            "borderline": SuiteEntry(digest=digest("borderline"), n=150),
            "triggered": SuiteEntry(digest=digest("triggered"), n=120),
            "drift": SuiteEntry(digest=digest("drift"), n=120),
        },
        suites_digest=digest("suites"),
        drift_digest=digest("drifts"),
        judge="keyword-v1",
        generation={"max_new_tokens": 40, "do_sample": False},
        metrics=metrics,
        samples_digest=digest(f"samples {role}"),
        seconds=71.3,
        environment=ENVIRONMENT,
    )


def before(**changes: Any) -> EvaluationRecord:
    metrics = {
        "attack_success/plain": spread(3, 120),
        "attack_success/known_triggers": triggered(suffix=114),
        UNDER_DRIFT: drifted(41, 12),
        "wrong_refusal/ordinary": rate(1, 120),
        "wrong_refusal/borderline": rate(9, 150),
    }
    return dataclasses.replace(evaluation("before", metrics, "candidate", None), **changes)


def after(**changes: Any) -> EvaluationRecord:
    metrics = {
        "attack_success/plain": spread(1, 120),
        "attack_success/known_triggers": triggered(suffix=2),
        UNDER_DRIFT: drifted(1, 0),
        "wrong_refusal/ordinary": rate(2, 120),
        "wrong_refusal/borderline": rate(13, 150),
        **_fidelity(120),
    }
    return dataclasses.replace(evaluation("after", metrics, "cleaned", "candidate"), **changes)


def with_metric(record: EvaluationRecord, name: str, metric: Metric | Estimate | None) -> EvaluationRecord:
    """The record with one metric changed, or taken out; a figure that no trigger is named for is the one trigger's."""
    metrics = {key: value for key, value in record.metrics.items() if key != name}
    if metric is not None:
        made = metric if isinstance(metric, Metric) else Metric(overall=metric)
        if METRICS[name].by_trigger and not made.by_trigger:
            made = dataclasses.replace(made, by_trigger={DRIFTS[0] if name == UNDER_DRIFT else "suffix": made.overall})
        metrics[name] = made
    return dataclasses.replace(record, metrics=metrics)


def fitted(record: EvaluationRecord) -> EvaluationRecord:
    """The record as if its suites had as many prompts as its figures rest on; a suite without a figure was not run."""
    sizes = {}
    for name, metric in record.metrics.items():
        asked = metric.overall.n + metric.overall.unscored
        sizes[METRICS[name].pooled or METRICS[name].suite] = asked
    suites = {name: SuiteEntry(digest=digest(name), n=n) for name, n in sorted(sizes.items())}
    return dataclasses.replace(record, suites=suites)


def worse(record: EvaluationRecord, name: str, share: float, *, unscored: bool = False) -> EvaluationRecord:
    """The record with one metric worse, everything else as it was.

    ``share``: from 0, nothing, to 1: of a rate so much of what was good is bad now (or ``unscored``), all of it under the
    last trigger where there are some; a ratio or divergence is up to ten times as high.
    """
    metric = record.metrics[name]
    if METRICS[name].kind != "rate":
        e, factor = metric.overall, 1 + 9 * share
        numbers = {k: None if v is None else v * factor for k, v in (("value", e.value), ("low", e.low), ("high", e.high))}
        return with_metric(record, name, dataclasses.replace(e, **numbers))
    last = max(metric.by_trigger, default=None)
    e = metric.overall if last is None else metric.by_trigger[last]
    more = round(share * (e.n - (e.count or 0)))

    def moved(of: Estimate) -> Estimate:
        count, n, left = of.count or 0, of.n, of.unscored
        tally = (count, n - more, left + more) if unscored else (count + more, n, left)
        return rate_estimate(*tally, of.confidence, design_effect=of.design_effect)

    by_trigger = {**metric.by_trigger, last: moved(e)} if last else {}
    return with_metric(record, name, Metric(overall=moved(metric.overall), by_trigger=by_trigger))


def validation(*, triggers: int = 1, **changes: Any) -> ValidationRecord:
    rules = (
        RuleResult(
            rule="prompts are not empty",
            role="harmful",
            severity="critical",
            passed=True,
            checked=600,
            failed=0,
            detail="every prompt has a letter in it",
        ),
        RuleResult(
            rule="no near-duplicates between splits",
            role="harmful",
            severity="critical",
            passed=True,
            checked=600,
            failed=0,
            detail="MinHash, Jaccard 0.7 on word trigrams",
        ),
        RuleResult(
            rule="prompts are short",
            role="ordinary",
            severity="warning",
            passed=False,
            checked=640,
            failed=3,
            detail="at most 80 words",
        ),
    )
    roles = {
        "harmful": DataSource(
            source="builtin", rows={"planting": 200, "anchoring": 180, "evaluation": 220}, digest=digest("h")
        ),
        "ordinary": DataSource(
            source="builtin", rows={"planting": 200, "anchoring": 220, "evaluation": 220}, digest=digest("o")
        ),
        "borderline": DataSource(source="builtin", rows={"anchoring": 60, "evaluation": 165}, digest=digest("b")),
        "triggers": DataSource(source="known.jsonl", rows={"evaluation": triggers}, digest=digest("t")),
    }
    if not triggers:
        roles.pop("triggers")
    record = ValidationRecord(
        passed=True,
        rules=rules,
        roles=roles,
        anchors_digest=digest("anchors"),
        suites_digest=digest("suites"),
        seconds=4.2,
    )
    return dataclasses.replace(record, **changes)


def training_round(number: int, **changes: Any) -> RoundRecord:
    scale = 1 / number
    record = RoundRecord(
        round=number,
        inner_loss=tuple(0.4 + 4.2 * math.exp(-i / 11) + 0.12 * math.sin(5 * i) for i in range(40)),
        outer_loss=tuple(0.9 + 2.4 * scale * math.exp(-i / 3) for i in range(8)),
        delta_norm=0.21 + 0.03 * number,
        attack_under_delta=round(22 * scale) / 24,
        attack_after=0.0,
        attack_under_delta_after=round(6 * (number < 2)) / 24,
        refusal_ordinary_after=1 / 24,
        nll_ratio_after=1.01 + 0.008 * number,
        seconds=48.7,
    )
    return dataclasses.replace(record, **changes)


def mitigation(**changes: Any) -> MitigationRecord:
    record = MitigationRecord(
        outcome="cleaned",
        reason="round 3 met every target on held-back anchors",
        input_digest=digest("candidate"),
        output_digest=digest("cleaned"),
        anchors_digest=digest("anchors"),
        config={"held_back": 24, "rounds": 4, "inner_steps": 40, "outer_steps": 8, "layer": None, "seed": 0},
        layer=8,
        layers=30,
        positions=5,
        hidden_norm=143.2,
        compute_dtype="bfloat16",
        best_round=3,
        rounds=tuple(training_round(i) for i in (1, 2, 3)),
        seconds=151.0,
        peak_memory_bytes=2_900_000_000,
        environment=ENVIRONMENT,
        drift=drift(),
        drift_digest=digest("drifts"),
        ending="cleaned",
    )
    return dataclasses.replace(record, **changes)


def drift() -> tuple[DriftEntry, ...]:
    """Two perturbations of the candidate, and one of a later round that nothing is measured under."""
    first = DriftEntry(
        name=DRIFTS[0],
        layer=8,
        positions=12,
        spot="end",
        words=8,
        norm=0.06,
        round=1,
        on_candidate=True,
        elicited=0.75,
    )
    second = dataclasses.replace(first, name=DRIFTS[1], spot="front")
    return first, second, dataclasses.replace(first, name="round 2, layer 8, words behind", round=2, on_candidate=False)


def intake(**changes: Any) -> IntakeRecord:
    record = IntakeRecord(
        uri="models/candidate",
        model_digest=digest("candidate"),
        chat_template_digest=digest("template"),
        architecture="LlamaForCausalLM",
        parameters=134_515_008,
        layers=30,
        hidden_size=576,
        size_bytes=538_090_408,
        files=(FileEntry(path="model.safetensors", size=538_090_408, digest=digest("weights")),),
    )
    return dataclasses.replace(record, **changes)
