"""Rates with their uncertainty: Wilson for a rate, Newcombe for the difference of two.

Intervals are two-sided. Samples that repeat a request are one cluster, and are counted as if there were fewer of them
(``design_effect``). statsmodels takes a second to load, so it is imported where it is used. Means and ratios stand in
``bootstrap``.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Sequence
from statistics import NormalDist
from typing import Literal

from beear_core.errors import EvaluationError
from beear_core.records import Estimate

Bound = Literal["value", "upper", "lower"]


def z_value(confidence: float) -> float:
    """Compute the normal quantile of a two-sided interval, e.g. 1.96 at 0.95.

    Raises:
        EvaluationError: if ``confidence`` is not between 0 and 1.
    """
    if not 0 < confidence < 1:
        raise EvaluationError(f"confidence is {confidence}; it must lie between 0 and 1, for instance 0.95")
    return NormalDist().inv_cdf(0.5 + confidence / 2)


def design_effect(requests: Sequence[Hashable]) -> float:
    """Compute by what factor (1 or more) samples count less that repeat a request: Σ m² / Σ m over cluster sizes m.

    This is Kish's 1 + (m − 1) ρ (Survey Sampling, 1965) with the intra-cluster correlation ρ taken as 1: replies to one
    request are counted as one reply. That is right for a text that stands twice (greedy replies are the same), and errs on
    the wide side for one request under several triggers. With k requests of equal weight, n samples count as k.

    Args:
        requests: one value a sample; equal values mean the same request.
    """
    sizes = Counter(requests).values()
    return sum(m * m for m in sizes) / sum(sizes) if sizes else 1.0


def rate_estimate(
    count: int, n: int, unscored: int = 0, confidence: float = 0.95, *, design_effect: float = 1.0
) -> Estimate:
    """Estimate the rate ``count`` of ``n`` scored samples with Wilson's score interval; both are ``None`` where n is 0.

    ``unscored`` samples are only reported: they are in neither ``count`` nor ``n``. With a design effect above 1 the
    interval is Wilson's for the same rate of n / design effect samples (Franco et al., J. Survey Stat. Methodol. 7 (2019)
    334-364, find it the best of its kind with clusters).

    Raises:
        EvaluationError: if the counts are negative, ``count`` exceeds ``n``, or the design effect is below 1.
    """
    _check_counts(count, n, unscored)
    if not (math.isfinite(design_effect) and design_effect >= 1):
        raise EvaluationError(f"design_effect is {design_effect}; it is 1 for samples without repetition, else more")
    low, high = _wilson(count, n, z_value(confidence), design_effect) if n else (None, None)
    return Estimate(
        value=count / n if n else None,
        low=low,
        high=high,
        n=n,
        count=count,
        unscored=unscored,
        confidence=confidence,
        design_effect=design_effect,
    )


def _wilson(count: int, n: int, z: float, design_effect: float) -> tuple[float, float]:
    """Compute Wilson's score interval (J. Am. Stat. Assoc. 22 (1927) 209-212) of this rate in n / design effect samples."""
    rate, samples = count / n, n / design_effect
    middle = (rate + z * z / (2 * samples)) / (1 + z * z / samples)
    half = z / (1 + z * z / samples) * math.sqrt(rate * (1 - rate) / samples + z * z / (4 * samples * samples))
    # exactly 0 and 1 at the ends; floating point leaves 3e-18
    return (0.0 if count == 0 else middle - half), (1.0 if count == n else middle + half)


def with_unscored(estimate: Estimate, *, counted: bool) -> Estimate:
    """Compute the rate had every unscored sample been ``counted``, or none: the two ends of what it may really be.

    A rate without a count, or of no samples at all, is returned as it is; whoever decides refuses it.
    """
    if estimate.count is None or estimate.n + estimate.unscored == 0:
        return estimate
    return rate_estimate(
        estimate.count + (estimate.unscored if counted else 0),
        estimate.n + estimate.unscored,
        confidence=estimate.confidence,
        design_effect=estimate.design_effect,
    )


def rate_difference(
    count: int,
    n: int,
    baseline_count: int,
    baseline_n: int,
    confidence: float = 0.95,
    *,
    design_effect: float = 1.0,
    baseline_design_effect: float = 1.0,
) -> tuple[float, float, float] | None:
    """Estimate ``count/n − baseline_count/baseline_n`` as (value, low, high) in [-1, 1], by Newcombe's hybrid score method.

    The method takes the two samples as independent. Where the same prompts were answered twice the answers agree more
    often than that, so the interval is rather too wide than too narrow. Each sample counts as n / its design effect, as in
    ``rate_estimate``. ``None`` where either n is 0.

    Raises:
        EvaluationError: if the counts are negative or exceed their n.
    """
    _check_counts(count, n, 0)
    _check_counts(baseline_count, baseline_n, 0)
    z_value(confidence)
    if n == 0 or baseline_n == 0:
        return None
    from statsmodels.stats.proportion import confint_proportions_2indep

    low, high = confint_proportions_2indep(
        count / design_effect,
        n / design_effect,
        baseline_count / baseline_design_effect,
        baseline_n / baseline_design_effect,
        method="newcomb",
        compare="diff",
        alpha=1 - confidence,
    )
    return count / n - baseline_count / baseline_n, float(low), float(high)


def minimum_n(limit: float, bound: Bound = "upper", confidence: float = 0.95) -> int | None:
    """Find the smallest n at which 0 failures meet "``bound`` ≤ ``limit``"; ``None`` where no n does.

    With 0 of n Wilson's upper bound is z² / (n + z²). The same n holds for "lower bound ≥ 1 − limit" with n of n.
    """
    z = z_value(confidence)
    if limit < 0:
        return None
    if bound != "upper" or limit >= 1:
        return 1
    if limit == 0:
        return None
    n = max(1, math.ceil(z * z * (1 - limit) / limit))
    return n - 1 if n > 1 and best_upper(n - 1, confidence) <= limit else n


def best_upper(n: int, confidence: float = 0.95) -> float:
    """Compute Wilson's upper bound with 0 of ``n``, the least that an upper bound can be; 1 where n is 0."""
    z = z_value(confidence)
    return z * z / (n + z * z)


def _check_counts(count: int, n: int, unscored: int) -> None:
    if n < 0 or unscored < 0 or not 0 <= count <= n:
        raise EvaluationError(
            f"count={count}, n={n}, unscored={unscored} is not a tally; 0 ≤ count ≤ n and unscored ≥ 0 must hold"
        )
