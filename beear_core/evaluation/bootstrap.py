"""Means and ratios with their uncertainty: the bootstrap over samples, or over requests where some are repeated.

Intervals are two-sided. scipy takes a second to load, so it is imported where it is used.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING, Any

from beear_core.errors import EvaluationError
from beear_core.evaluation.statistics import design_effect, z_value
from beear_core.records import Estimate

if TYPE_CHECKING:
    import numpy as np

RESAMPLES = 4999


def mean_estimate(
    values: Sequence[float],
    confidence: float = 0.95,
    seed: int = 0,
    *,
    unscored: int = 0,
    requests: Sequence[Hashable] | None = None,
) -> Estimate:
    """Estimate the mean of one value a sample, with a bootstrap interval (BCa, percentile where BCa is undefined).

    ``requests``: one value a sample, the same for samples of the same request; those are drawn together.

    Without values everything is ``None``. A single value has no interval, since one sample says nothing about spread.
    Values that are all the same give an interval of width zero: it says that no spread was seen, not that there is none,
    so ask for enough samples as well.

    Raises:
        EvaluationError: if a value is NaN or infinite; count such a sample as unscored.
    """
    sample = _finite(values, "values")
    if sample.size == 0:
        return _nothing(unscored, confidence)
    value = float(sample.mean())
    if sample.min() == sample.max():
        value = float(sample[0])  # the mean of equal numbers can differ from them in the last bit
    if requests is None or len(set(requests)) == sample.size:
        low, high = _bootstrap((sample,), lambda x, axis: x.mean(axis=axis), confidence, seed)
    else:
        ones = _finite([1.0] * sample.size, "weights")
        low, high = _bootstrap(_clustered((sample, ones), requests), _ratio, confidence, seed)
    return _bootstrapped(value, low, high, int(sample.size), unscored, confidence, requests)


def ratio_of_sums_estimate(
    numerators: Sequence[float],
    denominators: Sequence[float],
    confidence: float = 0.95,
    seed: int = 0,
    *,
    unscored: int = 0,
    requests: Sequence[Hashable] | None = None,
) -> Estimate:
    """Estimate Σ numerators / Σ denominators with a bootstrap over samples: numerator i and denominator i stay together.

    ``requests``: one value a sample, the same for samples of the same request; those are drawn together.

    For the NLL ratio give, for each reply, the summed NLL under the model and under the reference over the same tokens:
    the ratio of sums is then the ratio of the means per token. Everything is ``None`` where the denominators sum to 0.

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
    drawn = (top, bottom) if requests is None else _clustered((top, bottom), requests)
    low, high = _bootstrap(drawn, _ratio, confidence, seed)
    value = float(top.sum() / bottom.sum())
    return _bootstrapped(value, low, high, int(top.size), unscored, confidence, requests)


def _finite(values: Sequence[float], name: str) -> np.ndarray:
    import numpy as np

    array = np.asarray(values, dtype=np.float64).reshape(-1)
    if not np.isfinite(array).all():
        where = int(np.flatnonzero(~np.isfinite(array))[0])
        raise EvaluationError(f"{name}[{where}] is {array[where]}; count a sample without a number as unscored")
    return array


def _nothing(unscored: int, confidence: float) -> Estimate:
    return Estimate(value=None, low=None, high=None, n=0, unscored=unscored, confidence=confidence)


def _ratio(x: np.ndarray, y: np.ndarray, axis: int = -1) -> Any:
    return x.sum(axis=axis) / y.sum(axis=axis)


def _clustered(samples: tuple[np.ndarray, ...], requests: Sequence[Hashable]) -> tuple[np.ndarray, ...]:
    """Sum each column over the samples of each request, requests in the order in which they first come."""
    import numpy as np

    if len(requests) != samples[0].size:
        raise EvaluationError(f"{len(requests)} requests stand against {samples[0].size} values; give one a sample")
    number = {request: i for i, request in enumerate(dict.fromkeys(requests))}
    rows = [number[request] for request in requests]
    return tuple(np.bincount(rows, weights=column, minlength=len(number)) for column in samples)


def _bootstrapped(
    value: float,
    low: float | None,
    high: float | None,
    n: int,
    unscored: int,
    confidence: float,
    requests: Sequence[Hashable] | None,
) -> Estimate:
    """Widen the interval to hold the estimate: BCa can leave its own outside when samples are few and skewed."""
    return Estimate(
        value=value,
        low=None if low is None else min(low, value),
        high=None if high is None else max(high, value),
        n=n,
        unscored=unscored,
        confidence=confidence,
        design_effect=1.0 if requests is None else design_effect(requests),
    )


def _bootstrap(
    samples: tuple[np.ndarray, ...], statistic: Callable[..., Any], confidence: float, seed: int
) -> tuple[float | None, float | None]:
    """Compute an interval of ``statistic`` over resampled rows; (``None``, ``None``) where it cannot be known."""
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
