"""CMMD: the maximum mean discrepancy between CLIP features under a Gaussian kernel (Jayasumana et al. 2024).

Features are scaled to length 1, sigma is 10, the estimate is the biased one (a set's pairs with itself count), and the
result is multiplied by 1000, all as published.
"""

from __future__ import annotations

import numpy as np

from mogle.metrics.features import blocks, check_features

SIGMA, SCALE = 10.0, 1000.0


def _kernel_mean(left: np.ndarray, right: np.ndarray) -> float:
    """Mean of exp(-|x - y|^2 / (2 sigma^2)) over all pairs, in blocks; of unit vectors |x - y|^2 = 2 - 2 x.y."""
    total = 0.0
    for a in blocks(left):
        a /= np.linalg.norm(a, axis=1, keepdims=True).clip(min=1e-12)
        for b in blocks(right):
            b /= np.linalg.norm(b, axis=1, keepdims=True).clip(min=1e-12)
            # expm1 keeps the digits that 1 - exp would lose: the exponents are at most 0.02
            total += float(np.expm1((a @ b.T - 1) / SIGMA**2).sum())
    return total / (len(left) * len(right))


def cmmd(real: np.ndarray, fake: np.ndarray) -> float:
    """Features (n, d) and (m, d) of CLIP ViT-L/14 at 336 px (or of another network) -> CMMD."""
    check_features(real, fake, "CMMD")
    return SCALE * (_kernel_mean(real, real) + _kernel_mean(fake, fake) - 2 * _kernel_mean(real, fake))
