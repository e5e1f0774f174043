"""CMMD: the maximum mean discrepancy between CLIP features under a Gaussian kernel (Jayasumana et al. 2024).

Features are scaled to length 1, sigma is 10, the estimate is the biased one (a set's pairs with itself count), and the
result is multiplied by 1000, all as published.
"""

from __future__ import annotations

import numpy as np

from mogle.metrics.features import check_features
from mogle.metrics.intervals import Estimate
from mogle.metrics.mmd import discrepancy, kernel_tables

SIGMA, SCALE = 10.0, 1000.0


def _kernel(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """exp(-|x - y|^2 / (2 sigma^2)) - 1 of directions; of unit vectors |x - y|^2 = 2 - 2 x.y.

    The constant drops out of the discrepancy, and expm1 keeps the digits that 1 - exp would lose.
    """
    left = left / np.linalg.norm(left, axis=1, keepdims=True).clip(min=1e-12)
    right = right / np.linalg.norm(right, axis=1, keepdims=True).clip(min=1e-12)
    return np.expm1((left @ right.T - 1) / SIGMA**2)


def cmmd(real: np.ndarray, fake: np.ndarray) -> float:
    """Features (n, d) and (m, d) of CLIP ViT-L/14 at 336 px (or of another network) -> CMMD as published."""
    check_features(real, fake, "CMMD")
    own, other, between = kernel_tables(real, fake, _kernel)
    # pairs of a picture with itself count, and this kernel is 0 for them
    within = own.mean * (1 - 1 / len(real)) + other.mean * (1 - 1 / len(fake))
    return SCALE * (within - 2 * between.mean)


def cmmd_estimate(real: np.ndarray, fake: np.ndarray) -> Estimate:
    """The same without the bias, which is about 20 / n on two sets of n, and with its interval."""
    check_features(real, fake, "CMMD")
    return Estimate(*(SCALE * part for part in discrepancy(real, fake, _kernel)))
