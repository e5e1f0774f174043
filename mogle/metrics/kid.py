"""Kernel inception distance: the squared maximum mean discrepancy under the kernel (x.y / d + 1)^3, without bias.

Being unbiased it may come out slightly negative for two samples of one distribution. Multiplied by 1000 it is the
number in the paper's tables. Kernel sums run in float64 and in blocks, so memory does not grow with the square of n.
"""

from __future__ import annotations

import numpy as np

from mogle.metrics.features import blocks, check_features


def _kernel_sum(left: np.ndarray, right: np.ndarray) -> float:
    width = left.shape[1]
    return sum(float(((a @ b.T / width + 1) ** 3).sum()) for a in blocks(left) for b in blocks(right))


def _within(rows: np.ndarray) -> float:
    """Mean of the kernel over pairs of different rows."""
    own = sum(float((((block**2).sum(1) / rows.shape[1] + 1) ** 3).sum()) for block in blocks(rows))
    return (_kernel_sum(rows, rows) - own) / (len(rows) * (len(rows) - 1))


def kid(real: np.ndarray, fake: np.ndarray) -> float:
    """Features (n,d) and (m,d) -> the unbiased estimate over the full sets (not multiplied by 1000)."""
    check_features(real, fake, "KID")
    return _within(real) + _within(fake) - 2 * _kernel_sum(real, fake) / (len(real) * len(fake))


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
    return np.array(
        [
            kid(real[rng.choice(len(real), size, replace=False)], fake[rng.choice(len(fake), size, replace=False)])
            for _ in range(subsets)
        ]
    )
