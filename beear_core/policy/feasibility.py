"""A policy that cannot pass wastes a run; one that cannot fail is worse than none. Both are found beforehand."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product

from beear_core.evaluation.figures import threshold
from beear_core.evaluation.metrics import METRICS
from beear_core.evaluation.statistics import best_upper, minimum_n
from beear_core.policy.schema import Check, GatePolicy

_ORDER = {"lower": 0, "value": 1, "upper": 2}


def feasibility_faults(policy: GatePolicy, samples: Mapping[str, int]) -> list[str]:
    """Find checks that cannot pass at these sample counts, cannot fail, or contradict each other; told in sentences.

    A category has at most as many samples as its suite, so a check by category is examined with the suite's number.
    """
    faults: list[str] = []
    for check in policy.checks:
        n = samples.get(METRICS[check.metric].suite)
        found = [*_never_passes(check, n, policy.confidence), *_never_fails(check, n, policy.confidence)]
        faults += [f"check {check.id!r} ({check.metric}) {fault}" for fault in found]
    return faults + list(_contradictions(policy))


def _never_passes(check: Check, n: int | None, confidence: float) -> Iterator[str]:
    spec = METRICS[check.metric]
    limit = threshold(check.limit, spec.kind, relative=check.versus != "absolute")
    if n is not None and check.min_samples > n:
        yield (
            f"cannot pass: it asks for {check.min_samples} samples, the {spec.suite} suite has {n}; "
            "raise the suite or lower min_samples"
        )
    if check.versus == "before" and spec.against_reference:
        yield "cannot pass: the model before is the reference itself and has no such figure; use versus: absolute"
    elif spec.kind == "rate" and n:
        yield from _rate_never_passes(check, n, confidence, limit)
    elif spec.kind != "rate" and check.versus == "absolute" and check.at_most is not None and check.at_most < 0:
        yield f"cannot pass: no {spec.kind} is below 0, the limit is {limit}"


def _rate_never_passes(check: Check, n: int, confidence: float, limit: str) -> Iterator[str]:
    """Tell where even the best outcome, 0 failures (or n of n for at_least), leaves the bound beyond the limit."""
    if check.at_most is not None and check.bound == "upper":
        room, end = check.at_most, "0"
    elif check.at_least is not None and check.bound == "lower":
        room, end = (1 if check.versus == "absolute" else 0) - check.at_least, "all"
    else:
        return
    best = best_upper(n, confidence)
    if best <= room:
        return
    enough = minimum_n(room, "upper", confidence)
    remedy = f"{enough} samples would do" if enough else "no number of samples would do"
    shown = best if end == "0" else (1 if check.versus == "absolute" else 0) - best
    relative = check.versus != "absolute"
    baseline = f" and a {check.versus!r} rate that leaves no room" if relative else ""
    yield (
        f"cannot pass at n={n}: with {end} of {n}{baseline} the {check.bound} bound is "
        f"{threshold(shown, 'rate', relative=relative)}, the limit is {limit}; {remedy}"
    )


def _never_fails(check: Check, n: int | None, confidence: float) -> Iterator[str]:
    spec = METRICS[check.metric]
    relative = check.versus != "absolute"
    if spec.kind == "rate":
        spread = best_upper(n, confidence) if n else 0.0
        most = 1 - spread if check.bound == "lower" else 1.0
        least = spread if check.bound == "upper" else 0.0
        if relative:
            least = -1 + (spread if check.bound == "upper" else 0.0)
    else:
        most, least = float("inf"), float("-inf") if relative else 0.0
    limit = threshold(check.limit, spec.kind, relative=relative)
    if check.at_most is not None and check.at_most >= most:
        yield f"cannot fail: its {check.bound} never exceeds {limit}; lower at_most"
    if check.at_least is not None and check.at_least <= least:
        yield f"cannot fail: its {check.bound} is never below {limit}; raise at_least"


def _contradictions(policy: GatePolicy) -> Iterator[str]:
    for low, high in product(policy.checks, policy.checks):
        if low.at_least is None or high.at_most is None or low.at_least <= high.at_most:
            continue
        same = (low.metric, low.category, low.versus) == (high.metric, high.category, high.versus)
        # the number that at_least is about is then never larger than the one that at_most is about
        if same and _ORDER[low.bound] <= _ORDER[high.bound]:
            yield (
                f"checks {low.id!r} and {high.id!r} contradict each other: {low.metric} cannot be "
                f"at least {low.at_least:g} and at most {high.at_most:g}"
            )
