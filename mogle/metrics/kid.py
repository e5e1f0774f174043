"""Kernel inception distance: the squared maximum mean discrepancy under the kernel (x.y / d + 1)^3, without bias.

Being unbiased it may come out slightly negative for two samples of one distribution. Multiplied by 1000 it is the
number in the paper's tables. Kernel sums run in float64 and in blocks, so memory does not grow with the square of n.
"""

from __future__ import annotations

import numpy as np

from mogle.errors import MogleError

BLOCK = 2048  # rows of the kernel matrix that are in memory at once


def _check(real: np.ndarray, fake: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if real.ndim != 2 or fake.ndim != 2 or real.shape[1] != fake.shape[1]:
        raise MogleError(f"features of shapes {real.shape} and {fake.shape}; expected (n, d) and (m, d)")
    if min(len(real), len(fake)) < 2:
        raise MogleError(f"{len(real)} real and {len(fake)} generated pictures; KID needs at least two of each")
    if not (np.isfinite(real).all() and np.isfinite(fake).all()):
        raise MogleError("features with NaN or infinity; the pictures or the network that read them are broken")
    return real.astype(np.float64), fake.astype(np.float64)


def _kernel_sum(left: np.ndarray, right: np.ndarray) -> float:
    width = left.shape[1]
    return sum(
        float(((left[i : i + BLOCK] @ right[j : j + BLOCK].T / width + 1) ** 3).sum())
        for i in range(0, len(left), BLOCK)
        for j in range(0, len(right), BLOCK)
    )


def _within(rows: np.ndarray) -> float:
    """Mean of the kernel over pairs of different rows."""
    own = float((((rows**2).sum(1) / rows.shape[1] + 1) ** 3).sum())
    return (_kernel_sum(rows, rows) - own) / (len(rows) * (len(rows) - 1))


def kid(real: np.ndarray, fake: np.ndarray) -> float:
    """Features (n,d) and (m,d) -> the unbiased estimate over the full sets (not multiplied by 1000)."""
    real, fake = _check(real, fake)
    return _within(real) + _within(fake) - 2 * _kernel_sum(real, fake) / (len(real) * len(fake))


def kid_subsets(
    real: np.ndarray, fake: np.ndarray, *, size: int = 1000, subsets: int = 100, seed: int = 0
) -> np.ndarray:
    """The estimate on ``subsets`` random subsets of at most ``size`` rows each, as clean-fid does it: (subsets,).

    Their mean is the published kind of KID. Their spread tells how much one subset varies, and overstates the
    uncertainty of the full-set estimate.
    """
    real, fake = _check(real, fake)
    rng = np.random.default_rng(seed)
    size = min(size, len(real), len(fake))
    return np.array(
        [
            kid(real[rng.choice(len(real), size, replace=False)], fake[rng.choice(len(fake), size, replace=False)])
            for _ in range(subsets)
        ]
    )
