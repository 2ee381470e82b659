"""Can the figures of a record have been measured, and on what? Counts, intervals, sums, suites and triggers must agree.

A record that was edited by hand, that leaves samples or triggers out, or that is about other suites than the validated
ones is found here and does not pass.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from beear_core.evaluation.figures import number
from beear_core.evaluation.metrics import KNOWN_TRIGGERS, METRICS, UNDER_DRIFT, MetricSpec
from beear_core.evaluation.statistics import rate_estimate
from beear_core.records import Estimate, EvaluationRecord, Metric, MitigationRecord, ValidationRecord
from beear_core.wording import plural

_CLOSE = 1e-9  # what another processor's rounding may differ by; far below one sample


def contradiction(estimate: Estimate, spec: MetricSpec) -> str | None:
    """Find what no measurement can give in one figure; ``None`` where all agrees or nothing was measured."""
    value, low, high = estimate.value, estimate.low, estimate.high
    if estimate.n < 0 or estimate.unscored < 0:
        return "a negative number of samples"
    if not (0 < estimate.confidence < 1 and 1 <= estimate.design_effect < math.inf):
        return f"a confidence of {estimate.confidence:g} with a design effect of {estimate.design_effect:g}"
    if value is None:
        return None
    if low is not None and high is not None and low > high:
        return "the interval's lower end is above its upper end"
    if value < 0 or (low is not None and low < 0):
        return "a number below 0"
    if spec.kind == "rate" and (fault := _tally_fault(estimate, value)):
        return fault
    slack = _CLOSE * max(1.0, abs(value))
    if (low is not None and low > value + slack) or (high is not None and high < value - slack):
        return "the value lies outside its own interval"
    return _interval_fault(estimate) if spec.kind == "rate" else None


def _tally_fault(estimate: Estimate, value: float) -> str | None:
    if estimate.count is None or not 0 <= estimate.count <= estimate.n or estimate.n == 0:
        return "a rate needs a count between 0 and n"
    if abs(value - estimate.count / estimate.n) > _CLOSE:
        return f"{estimate.count} of {estimate.n} is not {value:g}"
    return None


def _interval_fault(estimate: Estimate) -> str | None:
    """Compute the interval of a rate again from its counts: a stored one that differs was not measured."""
    again = rate_estimate(
        estimate.count or 0,
        estimate.n,
        estimate.unscored,
        estimate.confidence,
        design_effect=estimate.design_effect,
    )
    for stored, wanted in ((estimate.low, again.low), (estimate.high, again.high)):
        if stored is None or wanted is None or abs(stored - wanted) > _CLOSE:
            given = "none" if estimate.low is None or estimate.high is None else _interval(estimate)
            return f"{estimate.count} of {estimate.n} has the interval {_interval(again)}, the record says {given}"
    return None


def _interval(estimate: Estimate) -> str:
    return f"{number(estimate.low or 0.0, 'rate')} to {number(estimate.high or 0.0, 'rate')}"


def figure_faults(record: EvaluationRecord, role: str) -> list[str]:
    """Find what does not agree in the figures of a record, in sentences without their full stop.

    For all metrics that ``METRICS`` knows: each figure must agree with itself and rest on every sample of its suite (under
    each trigger anew), and categories and triggers must add up to the whole.
    """
    return [
        f"{spec.title} in the {role!r} evaluation: {fault}"
        for spec in METRICS.values()
        if spec.name in record.metrics
        for fault in _metric_faults(record, record.metrics[spec.name], spec)
    ]


def _metric_faults(record: EvaluationRecord, metric: Metric, spec: MetricSpec) -> Iterator[str]:
    run = spec.pooled or spec.suite
    yield from _size_faults(record, "all of them", metric.overall, run, 1)
    for name, estimate in metric.by_trigger.items():
        yield from _size_faults(record, f"trigger {name!r}", estimate, run, len(metric.by_trigger))
    for what, parts in (("categories", metric.by_category), ("triggers", metric.by_trigger)):
        if parts and _tally(parts) != _tally({"": metric.overall}):
            yield f"the {what} add up to {_told(_tally(parts))}, the whole is {_told(_tally({'': metric.overall}))}"
    pooled = {"all of them": metric.overall, **{f"category {n!r}": e for n, e in metric.by_category.items()}}
    for name, estimate in pooled.items():
        if estimate.design_effect < len(metric.by_trigger) - _CLOSE:
            yield (
                f"{name}: pools {plural(len(metric.by_trigger), 'trigger')} with a design effect of "
                f"{estimate.design_effect:g}, as if no request came twice"
            )
    single = {f"trigger {n!r}": e for n, e in metric.by_trigger.items()}
    for name, estimate in {**pooled, **single}.items():
        if fault := contradiction(estimate, spec):
            yield f"{name}: contradicts itself: {fault}"


def _size_faults(record: EvaluationRecord, name: str, estimate: Estimate, suite: str, shares: int) -> Iterator[str]:
    """Compare a figure's samples with its suite, which is divided into ``shares`` figures of equal size."""
    asked = estimate.n + estimate.unscored
    if suite not in record.suites:
        yield f"{name}: {plural(asked, 'sample')} of the suite {suite}, which was not run"
    elif asked * shares != record.suites[suite].n:
        divided = f" under {plural(shares, 'trigger')}" if shares > 1 else ""
        yield (
            f"{name}: {plural(asked, 'sample')} ({estimate.n} scored, {estimate.unscored} unscored), but the suite "
            f"{suite} has {record.suites[suite].n}{divided}"
        )


def sizes(record: EvaluationRecord) -> dict[str, int]:
    """Count the requests that a figure of each suite rests on, as ``feasibility_faults`` takes them."""
    run = {name: entry.n for name, entry in record.suites.items()}
    if UNDER_DRIFT in record.metrics and "drift" in run:
        run["drift"] //= max(1, len(record.metrics[UNDER_DRIFT].by_trigger))
    return run


def _tally(parts: Mapping[str, Estimate]) -> tuple[int, int, int]:
    """Add up the counts, the scored and the unscored samples of all parts."""
    estimates = parts.values()
    return sum(e.count or 0 for e in estimates), sum(e.n for e in estimates), sum(e.unscored for e in estimates)


def _told(tally: tuple[int, int, int]) -> str:
    return f"{tally[0]} of {tally[1]} with {tally[2]} unscored"


def suites_faults(records: Mapping[str, EvaluationRecord], validation: ValidationRecord | None) -> list[str]:
    """Find evaluations (by role) that were not run on the validated folder of suites, or do not say on which."""
    if validation is None:
        return ["there is no validation record for the suites of the evaluations"]
    faults = []
    for role, record in records.items():
        if not record.suites_digest:
            faults.append(f"the {role!r} evaluation does not say which suites it was run on; evaluate again")
        elif record.suites_digest != validation.suites_digest:
            wanted = validation.suites_digest or "none"
            faults.append(f"the {role!r} evaluation was run on suites {record.suites_digest}, validated were {wanted}")
    return faults


def trigger_faults(records: Mapping[str, EvaluationRecord], validation: ValidationRecord | None) -> list[str]:
    """Find evaluations (by role) that leave out a validated trigger, or have more than were validated."""
    if validation is None:
        return ["there is no validation record that says which triggers are known"]
    known = sum(validation.roles["triggers"].rows.values()) if "triggers" in validation.roles else 0
    faults = []
    for role, record in records.items():
        ran, once = (record.suites[name].n if name in record.suites else 0 for name in ("triggered", "harmful"))
        figures = len(record.metrics[KNOWN_TRIGGERS].by_trigger) if KNOWN_TRIGGERS in record.metrics else 0
        if ran != known * once:
            faults.append(
                f"the {role!r} evaluation asked {plural(ran, 'request')} under triggers; with {known} validated and "
                f"{plural(once, 'harmful request')} there must be {known * once}; evaluate with all of them"
            )
        if figures != known:
            told = f"figures for {plural(figures, 'trigger')}, {known} were validated"
            faults.append(f"the {role!r} evaluation has {told}; evaluate again")
    return faults


def drift_faults(records: Mapping[str, EvaluationRecord], mitigation: MitigationRecord | None) -> list[str]:
    """Find evaluations (by role) not made under exactly the perturbations that the mitigation found on the candidate."""
    found = {entry.name for entry in mitigation.drift if entry.on_candidate} if mitigation else set()
    digest = mitigation.drift_digest if mitigation else ""
    faults = []
    if mitigation is not None and not found:
        faults.append("the mitigation names no perturbation that it found on the candidate; run it again")
    for role, record in records.items():
        measured = set(record.metrics[UNDER_DRIFT].by_trigger) if UNDER_DRIFT in record.metrics else set()
        if record.drift_digest != digest:
            given = record.drift_digest or "none"
            faults.append(
                f"the {role!r} evaluation was made under the perturbations {given}, the mitigation left {digest or 'none'}"
            )
        if lacking := sorted(found - measured):
            faults.append(
                f"the {role!r} evaluation lacks {len(lacking)} of {plural(len(found), 'perturbation')}, first "
                f"{lacking[0]!r}; evaluate with all"
            )
        if foreign := sorted(measured - found):
            faults.append(f"the {role!r} evaluation has figures under {foreign[0]!r}, which the mitigation did not find")
    return faults
