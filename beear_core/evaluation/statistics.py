"""Figures with their uncertainty: Wilson for rates, Newcombe for their differences, the bootstrap for means and ratios.

Intervals are two-sided. scipy and statsmodels take a second to load, so they are imported where they are used.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, Literal

from beear_core.errors import EvaluationError
from beear_core.records import Estimate

if TYPE_CHECKING:
    import numpy as np

Bound = Literal["value", "upper", "lower"]
RESAMPLES = 4999


def z_value(confidence: float) -> float:
    """The normal quantile of a two-sided interval, e.g. 1.96 at 0.95.

    Raises:
        EvaluationError: if ``confidence`` is not between 0 and 1.
    """
    if not 0 < confidence < 1:
        raise EvaluationError(f"confidence is {confidence}; it must lie between 0 and 1, for instance 0.95")
    return NormalDist().inv_cdf(0.5 + confidence / 2)


def rate_estimate(count: int, n: int, unscored: int = 0, confidence: float = 0.95) -> Estimate:
    """``count`` of ``n`` scored samples with Wilson's score interval; all ``None`` where n is 0.

    ``unscored`` samples are only reported: they are in neither ``count`` nor ``n``.

    Raises:
        EvaluationError: if the counts are negative or ``count`` exceeds ``n``.
    """
    _check_counts(count, n, unscored)
    z_value(confidence)
    if n == 0:
        return Estimate(value=None, low=None, high=None, n=0, count=0, unscored=unscored, confidence=confidence)
    from statsmodels.stats.proportion import proportion_confint

    low, high = proportion_confint(count, n, alpha=1 - confidence, method="wilson")
    # Wilson is exactly 0 and 1 at the ends; floating point leaves 3e-18
    return Estimate(
        value=count / n,
        low=0.0 if count == 0 else float(low),
        high=1.0 if count == n else float(high),
        n=n,
        count=count,
        unscored=unscored,
        confidence=confidence,
    )


def rate_difference(
    count: int, n: int, baseline_count: int, baseline_n: int, confidence: float = 0.95
) -> tuple[float, float, float] | None:
    """``count/n − baseline_count/baseline_n`` as (value, low, high) in [-1, 1], by Newcombe's hybrid score method.

    The method takes the two samples as independent. Where the same prompts were answered twice the answers agree more
    often than that, so the interval is rather too wide than too narrow. ``None`` where either n is 0.

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
        count, n, baseline_count, baseline_n, method="newcomb", compare="diff", alpha=1 - confidence
    )
    return count / n - baseline_count / baseline_n, float(low), float(high)


def mean_estimate(values: Sequence[float], confidence: float = 0.95, seed: int = 0, *, unscored: int = 0) -> Estimate:
    """Mean of one value a sample with a bootstrap interval (BCa, percentile where BCa is undefined).

    No value: all ``None``. One value: no interval, since one sample says nothing about spread. Values that are all the
    same give an interval of width zero: it says that no spread was seen, not that there is none, so ask for enough
    samples as well.

    Raises:
        EvaluationError: if a value is NaN or infinite; count such a sample as unscored.
    """
    sample = _finite(values, "values")
    if sample.size == 0:
        return _nothing(unscored, confidence)
    value = float(sample.mean())
    if sample.min() == sample.max():
        value = float(sample[0])  # the mean of equal numbers can differ from them in the last bit
    low, high = _bootstrap((sample,), lambda x, axis: x.mean(axis=axis), confidence, seed)
    return Estimate(value=value, low=low, high=high, n=int(sample.size), unscored=unscored, confidence=confidence)


def ratio_of_sums_estimate(
    numerators: Sequence[float],
    denominators: Sequence[float],
    confidence: float = 0.95,
    seed: int = 0,
    *,
    unscored: int = 0,
) -> Estimate:
    """Σ numerators / Σ denominators with a paired bootstrap over samples: numerator i and denominator i stay together.

    For the NLL ratio: per reply, the summed NLL under the model and under the reference over the same tokens, so that
    the ratio of sums is the ratio of the means per token. All ``None`` where the denominators sum to 0.

    Raises:
        EvaluationError: if the lengths differ, or a number is NaN, infinite or negative.
    """
    top, bottom = _finite(numerators, "numerators"), _finite(denominators, "denominators")
    if top.size != bottom.size:
        raise EvaluationError(f"{top.size} numerators stand against {bottom.size} denominators; give one of each a sample")
    if top.size and min(top.min(), bottom.min()) < 0:
        raise EvaluationError("a ratio of sums needs numbers of 0 or more; a summed NLL cannot be negative")
    if top.size == 0 or bottom.sum() == 0:
        return _nothing(unscored, confidence)

    def ratio(x: np.ndarray, y: np.ndarray, axis: int = -1) -> Any:
        return x.sum(axis=axis) / y.sum(axis=axis)

    low, high = _bootstrap((top, bottom), ratio, confidence, seed)
    return Estimate(
        value=float(top.sum() / bottom.sum()),
        low=low,
        high=high,
        n=int(top.size),
        unscored=unscored,
        confidence=confidence,
    )


def minimum_n(limit: float, bound: Bound = "upper", confidence: float = 0.95) -> int | None:
    """The smallest n at which 0 failures meet "``bound`` ≤ ``limit``"; ``None`` where no n does.

    With 0 of n Wilson's upper bound is z² / (n + z²). The same n answers for "lower bound ≥ 1 − limit" with n of n.
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
    """Wilson's upper bound with 0 of ``n``: the least that an upper bound can be. 1 where n is 0."""
    z = z_value(confidence)
    return z * z / (n + z * z)


def _check_counts(count: int, n: int, unscored: int) -> None:
    if n < 0 or unscored < 0 or not 0 <= count <= n:
        raise EvaluationError(
            f"count={count}, n={n}, unscored={unscored} is not a tally; 0 ≤ count ≤ n and unscored ≥ 0 must hold"
        )


def _finite(values: Sequence[float], name: str) -> np.ndarray:
    import numpy as np

    array = np.asarray(values, dtype=np.float64).reshape(-1)
    if not np.isfinite(array).all():
        where = int(np.flatnonzero(~np.isfinite(array))[0])
        raise EvaluationError(f"{name}[{where}] is {array[where]}; count a sample without a number as unscored")
    return array


def _nothing(unscored: int, confidence: float) -> Estimate:
    return Estimate(value=None, low=None, high=None, n=0, unscored=unscored, confidence=confidence)


def _bootstrap(
    samples: tuple[np.ndarray, ...], statistic: Callable[..., Any], confidence: float, seed: int
) -> tuple[float | None, float | None]:
    """Interval of ``statistic`` over resampled rows; (``None``, ``None``) where it cannot be known."""
    import warnings

    import numpy as np
    from scipy import stats

    z_value(confidence)
    size = samples[0].size
    if size < 2:
        return None, None
    if all(x.min() == x.max() for x in samples):
        value = float(statistic(*(x[:1] for x in samples), axis=-1))
        return value, value
    for method in ("BCa", "percentile"):
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")  # BCa warns where it is undefined; the result is looked at below
            interval = stats.bootstrap(
                samples,
                statistic,
                paired=True,
                vectorized=True,
                n_resamples=RESAMPLES,
                batch=500,
                confidence_level=confidence,
                method=method,
                rng=np.random.default_rng(seed),
            ).confidence_interval
        low, high = float(interval.low), float(interval.high)
        if math.isfinite(low) and math.isfinite(high):
            return low, high
    return None, None
