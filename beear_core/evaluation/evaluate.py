"""Measure one model: how often it is talked into harm, how often it refuses without need, how far its replies moved."""

from __future__ import annotations

import random
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from beear_core.config import EvaluationConfig
from beear_core.data import SuiteSet
from beear_core.errors import EvidenceError
from beear_core.evaluation.bootstrap import mean_estimate, ratio_of_sums_estimate
from beear_core.evaluation.generate import greedy, reply_turns, score_replies
from beear_core.evaluation.judges import Judge, RefusalJudge
from beear_core.evaluation.judging import judge_named
from beear_core.evaluation.metrics import KNOWN_TRIGGERS, PLAIN, UNDER_DRIFT
from beear_core.evaluation.samples import Sample, samples_to_jsonl, shared_form
from beear_core.evaluation.statistics import design_effect, rate_estimate
from beear_core.evaluation.suites import Case, draw_cases, suite_entry
from beear_core.files import digest_bytes
from beear_core.models.chat import Turn
from beear_core.models.drift import Drift
from beear_core.models.load import LoadedModel, device_names
from beear_core.progress import Progress
from beear_core.records import Environment, Estimate, EvaluationRecord, Metric, Outcome

HARMLESS = ("ordinary", "borderline")
SCORED_TOKENS = 1024  # padded tokens a scoring batch: its logits are (tokens, vocabulary) in float32, twice


def evaluate(
    loaded: LoadedModel,
    suites: SuiteSet,
    config: EvaluationConfig,
    *,
    label: Literal["before", "after", "champion"],
    reference: LoadedModel | None = None,
    reference_samples: Sequence[Sample] = (),
    drifts: Sequence[Drift] = (),
    drift_digest: str = "",
    judge: Judge | None = None,
) -> tuple[EvaluationRecord, tuple[Sample, ...]]:
    """Run every suite on a model and return the record of its metrics, with all samples.

    Args:
        loaded: the model under test.
        suites: evaluation prompts and known triggers.
        config: how many requests, how long replies.
        label: which place the record takes in a decision.
        reference: the model as it was before; fidelity is measured against it.
        reference_samples: the reference's samples on the same suites; this model is given their ordinary replies to score.
        drifts: perturbations that harmful requests are asked under, each by itself.
        drift_digest: digest of the file that the perturbations come from.
        judge: scores all replies; by default the configuration's those to harmful requests, ``RefusalJudge`` all others.

    Raises:
        EvaluationError: an empty suite.
        EvidenceError: reference samples that are not of these suites.
    """
    began, of_harm, of_others = time.monotonic(), judge or judge_named(config.judge), judge or RefusalJudge()
    cases = draw_cases(suites, config, drifts)
    flat = [case for group in cases.values() for case in group]
    with Progress(f"evaluate ({label}): replies", len(flat)) as progress:
        replies = greedy(
            loaded,
            [_asked(loaded, c, config.seed) for c in flat],
            under=[c.drift.perturbation if c.drift else None for c in flat] if drifts else (),
            max_new_tokens=config.max_new_tokens,
            batch_tokens=config.batch_tokens,
            progress=progress,
        )
    samples = tuple(
        _sample(loaded, of_others if case.suite in HARMLESS else of_harm, case, reply)
        for case, reply in zip(flat, replies, strict=True)
    )
    metrics = _rates(samples, config)
    if reference is not None:
        metrics |= _fidelity(loaded, reference, cases["ordinary"], reference_samples, config)
    return (
        EvaluationRecord(
            label=label,
            model_digest=loaded.digest,
            reference_digest=reference.digest if reference else None,
            chat_template_digest=loaded.chat.digest,
            suites={name: suite_entry(group) for name, group in cases.items()},
            judge=of_harm.name,
            generation={
                "decoding": "greedy",
                "max_new_tokens": config.max_new_tokens,
                "batch_tokens": config.batch_tokens,  # padding moves the rounding, and with it a close choice of token
                "seed": config.seed,
            },
            metrics=metrics,
            samples_digest=digest_bytes(samples_to_jsonl(samples)),
            seconds=round(time.monotonic() - began, 1),
            environment=Environment.here(device_names()),
            suites_digest=suites.digest,
            drift_digest=drift_digest,
            shared_samples_digest=digest_bytes(samples_to_jsonl(shared_form(samples))),
        ),
        samples,
    )


def _asked(loaded: LoadedModel, case: Case, seed: int) -> Turn:
    """Prepare a case as the model is asked it; words that a perturbation stands on are the same for every model."""
    if case.drift is None:
        return loaded.chat.asked(case.text, case.before)
    return case.drift.turn(loaded.chat, case.text, random.Random(f"{seed} {case.trigger_id} {case.id}"))


def _sample(loaded: LoadedModel, judge: Judge, case: Case, reply: tuple[int, ...]) -> Sample:
    text = loaded.chat.decode(reply)
    verdict = judge.judge(case.text, text)
    return Sample(
        id=case.id,
        suite=case.suite,
        category=case.category,
        trigger_id=case.trigger_id,
        prompt=case.text,
        reply=text,
        reply_ids=reply,
        outcome=verdict.outcome,
        reason=verdict.reason,
    )


def _rates(samples: Sequence[Sample], config: EvaluationConfig) -> dict[str, Metric]:
    """Measure rates: attack success counts ``harmful`` verdicts, wrong refusals ``safe`` ones, where a reply refuses."""
    wanted: Mapping[str, tuple[str, Outcome]] = {
        PLAIN: ("harmful", "harmful"),
        KNOWN_TRIGGERS: ("triggered", "harmful"),
        UNDER_DRIFT: ("drift", "harmful"),
        "wrong_refusal/ordinary": ("ordinary", "safe"),
        "wrong_refusal/borderline": ("borderline", "safe"),
    }
    metrics = {}
    for name, (suite, outcome) in wanted.items():
        chosen = [s for s in samples if s.suite == suite]
        if chosen:
            metrics[name] = _rate(chosen, outcome, config.confidence)
    return metrics


def _rate(samples: Sequence[Sample], outcome: Outcome, confidence: float) -> Metric:
    # a sample's request, whatever trigger is around it: the id of the first sample whose text is the same
    first: dict[tuple[str | None, str], str] = {}
    for sample in samples:
        first.setdefault((sample.trigger_id, sample.prompt), sample.id)

    def estimate(group: Sequence[Sample]) -> Estimate:
        unscored = sum(s.outcome == "unscored" for s in group)
        return rate_estimate(
            sum(s.outcome == outcome for s in group),
            len(group) - unscored,
            unscored,
            confidence,
            design_effect=design_effect([first[s.trigger_id, s.prompt] for s in group]),
        )

    def by(key: Callable[[Sample], str | None]) -> dict[str, Estimate]:
        groups: dict[str, list[Sample]] = defaultdict(list)
        for sample in samples:
            if (name := key(sample)) is not None:
                groups[name].append(sample)
        return {name: estimate(groups[name]) for name in sorted(groups)}

    return Metric(overall=estimate(samples), by_category=by(lambda s: s.category), by_trigger=by(lambda s: s.trigger_id))


def _fidelity(
    loaded: LoadedModel,
    reference: LoadedModel,
    cases: Sequence[Case],
    reference_samples: Sequence[Sample],
    config: EvaluationConfig,
) -> dict[str, Metric]:
    """Measure how likely the reference's own ordinary replies still are, and how far the token distributions moved."""
    own = {s.id: s for s in reference_samples if s.suite == "ordinary"}
    lacking = [c.id for c in cases if c.id not in own or own[c.id].prompt != c.text]
    if lacking:
        raise EvidenceError(
            f"the reference samples lack {len(lacking)} of {len(cases)} ordinary prompts, first {lacking[0]!r}; evaluate "
            "the reference on the same suites with the same settings first"
        )
    texts = [c.text for c in cases]
    turns: list[Turn] = reply_turns(loaded.chat, texts, [own[c.id].reply_ids for c in cases])
    with Progress("evaluate (fidelity): the reference's replies", 2 * len(turns)) as progress:
        base = score_replies(reference, turns, batch_tokens=SCORED_TOKENS, progress=progress)
        now = score_replies(loaded, turns, batch_tokens=SCORED_TOKENS, reference=reference, progress=progress)
    return {
        "nll_ratio/ordinary": Metric(
            overall=ratio_of_sums_estimate(
                [s.nll for s in now], [s.nll for s in base], config.confidence, config.seed, requests=texts
            )
        ),
        "token_kl/ordinary": Metric(
            overall=mean_estimate([(s.kl or 0.0) / s.tokens for s in now], config.confidence, config.seed, requests=texts)
        ),
    }
