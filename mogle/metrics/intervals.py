"""95 % intervals: how far a number could lie from what endless pictures of the same kind would give.

Three kinds, each for what it is honest for: a bootstrap over pictures for means and for ratios of counts, Agresti and
Coull's for shares of right answers (a bootstrap of a perfect score would claim to be certain), and a variance in closed
form for kernel distances, in `mogle.metrics.kernels`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from mogle.errors import MogleError

Z = 1.959964  # a standard normal lies within +-Z with a probability of 95 %


class Estimate(NamedTuple):
    """A number, and the ends of its 95 % interval; both NaN where there is too little to say."""

    value: float
    low: float
    high: float


def ends(estimate: Estimate) -> list[float] | None:
    """[low, high] for a JSON file; None where there is no interval."""
    return None if np.isnan(estimate.low) else [estimate.low, estimate.high]


def bootstrap(rows: np.ndarray, statistic: Callable[[np.ndarray], float], repeats: int = 1000) -> Estimate:
    """Percentile bootstrap of a statistic of a sum over pictures.

    Args:
        rows: (n, ...) one table of counts or numbers for each picture.
        statistic: takes their sum (...) and gives a number that does not depend on n, such as an mIoU of a confusion
            matrix.

    Raises:
        MogleError: no picture.
    """
    from scipy import stats

    if not len(rows):
        raise MogleError("found no pictures, expected at least one")
    value, count, flat = float(statistic(rows.sum(axis=0))), len(rows), rows.reshape(len(rows), -1).astype(np.float64)
    if count < 2:
        return Estimate(value, float("nan"), float("nan"))

    def of_drawn(drawn: np.ndarray) -> float:  # counting how often each picture is drawn spares a copy of its table
        return statistic((np.bincount(drawn, minlength=count) @ flat).reshape(rows.shape[1:]))

    with warnings.catch_warnings():  # of samples that leave a number open, which the quantiles below pass over
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        found = stats.bootstrap(
            [np.arange(count)], of_drawn, n_resamples=repeats, batch=100, vectorized=False, method="percentile",
            random_state=np.random.default_rng(0),
        )  # fmt: skip
    low, high = np.nanquantile(found.bootstrap_distribution, [0.025, 0.975])
    return Estimate(value, float(low), float(high))


def mean_estimate(values: np.ndarray) -> Estimate:
    """Mean of independent numbers (n,), with Student's interval."""
    from scipy.stats import t as student

    if not len(values):
        raise MogleError("found no numbers, expected at least one")
    mean, count = float(np.mean(values, dtype=np.float64)), len(values)
    if count < 2:
        return Estimate(mean, float("nan"), float("nan"))
    half = float(student.ppf(0.975, count - 1) * np.std(values, ddof=1, dtype=np.float64) / np.sqrt(count))
    return Estimate(mean, mean - half, mean + half)


def balanced_estimate(right: np.ndarray, total: np.ndarray) -> Estimate:
    """Mean of shares right / total (k,), each with its own total, such as the recalls of a balanced accuracy.

    Agresti and Coull's adjustment, two more right and two more wrong answers shared out, for the interval only.
    """
    right, total = right[total > 0], total[total > 0]
    if not len(total):
        return Estimate(float("nan"), float("nan"), float("nan"))
    value, more = float(np.mean(right / total)), 2 / len(total)
    adjusted = (right + more) / (total + 2 * more)
    half = Z * float(np.sqrt(np.sum(adjusted * (1 - adjusted) / (total + 2 * more)))) / len(total)
    middle = float(np.mean(adjusted))
    return Estimate(value, max(0.0, min(value, middle - half)), min(1.0, max(value, middle + half)))
