"""One check against the records: which number decides, and why it may not.

Everything that stands in the way of deciding (absent, without a value, too few samples, too many unscored, a record
that contradicts itself) ends in a ``CheckResult`` that did not pass and says so.
"""

from __future__ import annotations

import dataclasses

from beear_core.evaluation.metrics import METRICS, MetricSpec
from beear_core.evaluation.statistics import rate_difference
from beear_core.policy import Check
from beear_core.records import CheckResult, Estimate, EvaluationRecord
from beear_core.wording import percent_text, plural, sentence_figure, threshold

_BOUNDS = {"value": "value", "upper": "upper bound", "lower": "lower bound"}


def judge(
    check: Check,
    before: EvaluationRecord,
    after: EvaluationRecord,
    champion: EvaluationRecord | None,
    confidence: float,
) -> list[CheckResult]:
    """The results of one check: one, or one a category where the check asks for every category."""
    baseline = {"absolute": None, "before": before, "champion": champion}[check.versus]
    if check.category != "*":
        return [_judge(check, check.category, before, after, baseline, confidence)]
    names: set[str] = set()
    for record in (before, after, baseline):
        if record is not None and check.metric in record.metrics:
            names |= record.metrics[check.metric].by_category.keys()
    return [_judge(check, name, before, after, baseline, confidence) for name in sorted(names) or ["*"]]


def _judge(
    check: Check,
    category: str | None,
    before: EvaluationRecord,
    after: EvaluationRecord,
    baseline_record: EvaluationRecord | None,
    confidence: float,
) -> CheckResult:
    spec = METRICS[check.metric]
    estimate = _find(after, check.metric, category)
    baseline = _find(baseline_record, check.metric, category)
    blank = CheckResult(
        check=check.id,
        metric=check.metric,
        category=category,
        level=check.level,
        comparison=comparison(check, confidence),
        limit=check.limit,
        decided_on=None,
        estimate=estimate,
        baseline=baseline,
        passed=False,
        reason="",
    )
    if skipped := _skip_reason(check, spec, before, after, baseline_record):
        return dataclasses.replace(blank, passed=True, reason=f"Does not apply: {skipped}.")
    obstacle = _obstacle(check, spec, estimate, "after", confidence)
    if obstacle is None and check.versus != "absolute":
        obstacle = _obstacle(check, spec, baseline, check.versus, confidence)
    if obstacle is not None or estimate is None:
        return dataclasses.replace(blank, reason=f"Cannot be decided, so it does not pass: {spec.title}: {obstacle}.")
    decided_on = _number(check, spec, estimate, baseline, confidence)
    passed = decided_on <= check.limit if check.at_most is not None else decided_on >= check.limit
    reason = _sentence(check, spec, estimate, baseline, decided_on, passed)
    return dataclasses.replace(blank, decided_on=decided_on, passed=passed, reason=reason)


def comparison(check: Check, confidence: float) -> str:
    """The check as a formula: ``upper 95% bound ≤ 0.05`` or ``value − before ≤ 0.02``."""
    quantity = "value" if check.bound == "value" else f"{check.bound} {percent_text(confidence)} bound"
    if check.versus != "absolute":
        quantity = f"value − {check.versus}" if check.bound == "value" else f"{quantity} of value − {check.versus}"
    return f"{quantity} {'≤' if check.at_most is not None else '≥'} {check.limit:g}"


def _find(record: EvaluationRecord | None, metric: str, category: str | None) -> Estimate | None:
    if record is None or metric not in record.metrics:
        return None
    found = record.metrics[metric]
    return found.overall if category is None else found.by_category.get(category)


def _skip_reason(
    check: Check,
    spec: MetricSpec,
    before: EvaluationRecord,
    after: EvaluationRecord,
    baseline_record: EvaluationRecord | None,
) -> str | None:
    """Why a check need not be met; ``None`` where it must be. What was measured before must be measured after."""
    if check.missing != "skip":
        return None
    if spec.optional and spec.name not in after.metrics and spec.name not in before.metrics:
        return f"{spec.title} was not measured, before or after, because no trigger was given"
    if check.versus == "champion" and baseline_record is None:
        return "there is no champion yet to compare with"
    return None


def _obstacle(check: Check, spec: MetricSpec, estimate: Estimate | None, role: str, confidence: float) -> str | None:
    """What keeps an estimate from deciding; ``None`` where nothing does."""
    if estimate is None:
        return f"was not measured in the {role!r} evaluation"
    told = f"{sentence_figure(estimate, spec.kind)} in the {role!r} evaluation"
    if estimate.value is None:
        return f"has no value in the {role!r} evaluation ({estimate.n} scored, {estimate.unscored} unscored)"
    if contradiction := _contradiction(estimate, spec):
        return f"{told} contradicts itself: {contradiction}"
    if estimate.n < check.min_samples:
        return f"{told} rests on {plural(estimate.n, 'scored sample')}, at least {check.min_samples} are needed"
    share = estimate.unscored / (estimate.n + estimate.unscored)
    if share > check.max_unscored:
        return (
            f"{told} leaves {estimate.unscored} of {estimate.n + estimate.unscored} unscored ({share:.1%}), at most "
            f"{threshold(check.max_unscored, 'rate')} may be"
        )
    if check.bound == "value":
        return None
    if estimate.low is None or estimate.high is None:
        return f"{told} has no interval, and the check decides on its {check.bound} bound"
    if estimate.confidence < confidence:
        return (
            f"{told} has an interval at {percent_text(estimate.confidence)} confidence, the policy asks for "
            f"{percent_text(confidence)}"
        )
    return None


def _contradiction(estimate: Estimate, spec: MetricSpec) -> str | None:
    """What no measurement can give, so that a record edited by hand does not pass."""
    value, low, high = estimate.value, estimate.low, estimate.high
    if value is None:
        return None
    if estimate.n < 0 or estimate.unscored < 0:
        return "a negative number of samples"
    if low is not None and high is not None and low > high:
        return "the interval's lower end is above its upper end"
    if value < 0 or (low is not None and low < 0):
        return "a number below 0"
    if spec.kind != "rate":
        return None
    if estimate.count is None or not 0 <= estimate.count <= estimate.n or estimate.n == 0:
        return "a rate needs a count between 0 and n"
    if abs(value - estimate.count / estimate.n) > 1e-9:
        return f"{estimate.count} of {estimate.n} is not {value:g}"
    if (low is not None and low > value) or (high is not None and high < value):
        return "the value lies outside its own interval"
    return None


def _number(check: Check, spec: MetricSpec, estimate: Estimate, baseline: Estimate | None, confidence: float) -> float:
    """The number that decides, rounded to 12 places so that 0.07 − 0.05 is 0.02."""
    ends = {"value": estimate.value, "upper": estimate.high, "lower": estimate.low}
    number = ends[check.bound] or 0.0  # never None: _obstacle looked
    if check.versus != "absolute" and baseline is not None:
        if check.bound == "value":
            number -= baseline.value or 0.0
        elif spec.kind == "rate":
            number = _rate_bound(check, estimate, baseline, confidence)
        else:  # no joint interval for two bootstrapped figures: the two ends that are farthest apart
            number -= (baseline.low if check.bound == "upper" else baseline.high) or 0.0
    return round(number, 12)


def _rate_bound(check: Check, estimate: Estimate, baseline: Estimate, confidence: float) -> float:
    difference = rate_difference(estimate.count or 0, estimate.n, baseline.count or 0, baseline.n, confidence)
    if difference is None:  # n is 0, which _obstacle refuses
        return 1.0 if check.at_most is not None else -1.0
    return difference[2] if check.bound == "upper" else difference[1]


def _sentence(
    check: Check,
    spec: MetricSpec,
    estimate: Estimate,
    baseline: Estimate | None,
    decided_on: float,
    passed: bool,
) -> str:
    relative = check.versus != "absolute"
    told = f"{spec.title}: {sentence_figure(estimate, spec.kind)}"
    if relative:
        where = "before" if check.versus == "before" else "in the champion"
        told += f", against {sentence_figure(baseline, spec.kind)} {where}"
    quantity = _BOUNDS[check.bound]
    if relative:
        quantity = "increase" if check.bound == "value" else f"{quantity} of the increase"
    shown = threshold(decided_on, spec.kind, relative=relative)
    limit = threshold(check.limit, spec.kind, relative=relative)
    bound = "at most" if check.at_most is not None else "at least"
    if passed:
        return f"{told}. The {quantity}, {shown}, is {bound} {limit} as required."
    wrong = "above" if check.at_most is not None else "below"
    why = check.reason if check.reason.endswith(".") else f"{check.reason}."
    return f"{told}. The {quantity}, {shown}, is {wrong} the limit of {limit}. Why this limit: {why}"
