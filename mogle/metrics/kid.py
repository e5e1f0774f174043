"""Kernel inception distance: the squared maximum mean discrepancy under the kernel (x.y / d + 1)^3, without bias.

Being unbiased it may come out slightly negative for two samples of one distribution. Multiplied by 1000 it is the
number in the paper's tables.
"""

from __future__ import annotations

import numpy as np

from mogle.errors import MogleError
from mogle.metrics.features import check_features
from mogle.metrics.intervals import Estimate
from mogle.metrics.mmd import discrepancy, paired_difference


def _kernel(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    base = left @ right.T
    base /= left.shape[1]
    base += 1
    return base * base * base  # many times faster than ** 3


def kid(real: np.ndarray, fake: np.ndarray) -> Estimate:
    """Features (n,d) and (m,d) -> the unbiased estimate over the full sets, not multiplied by 1000, with its interval.

    Raises:
        MogleError: sets of one picture, of different widths, or with NaN.
    """
    check_features(real, fake, "KID")
    return discrepancy(real, fake, _kernel)


def kid_difference(real: np.ndarray, first: np.ndarray, second: np.ndarray) -> Estimate:
    """KID of second less KID of first, both against real (m,d); row i of first and second (n,d) is of one sample.

    Raises:
        MogleError: fewer than three rows, other widths or numbers of rows, or NaN.
    """
    for features in (first, second):
        check_features(real, features, "KID")
    if len(first) != len(second) or min(len(first), len(real)) < 3:
        raise MogleError(
            f"KID: found {len(first)} and {len(second)} pictures and {len(real)} real ones, expected pairs, and at "
            "least three of each"
        )
    return paired_difference(real, first, second, _kernel)


def kid_subsets(
    real: np.ndarray, fake: np.ndarray, *, size: int = 1000, subsets: int = 100, seed: int = 0
) -> np.ndarray:
    """The estimate on ``subsets`` random subsets of at most ``size`` rows each, as clean-fid does it: (subsets,).

    Their mean is the published kind of KID. Their spread tells how much one subset varies, and overstates the
    uncertainty of the full-set estimate.
    """
    check_features(real, fake, "KID")
    rng = np.random.default_rng(seed)
    size = min(size, len(real), len(fake))

    def part(rows: np.ndarray) -> np.ndarray:
        return rows[rng.choice(len(rows), size, replace=False)]

    return np.array([kid(part(real), part(fake)).value for _ in range(subsets)])
