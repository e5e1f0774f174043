"""Can a classifier tell generated pictures from real ones? 0.5: no better than a coin, 1: always.

The classifier is Fisher's linear discriminant on features, with a little ridge. Half of the pictures train it, the
other half are scored: scores of several folds together would come out below 0.5 where both sets are alike.
"""

from __future__ import annotations

import numpy as np

from mogle.metrics.features import check_features
from mogle.metrics.intervals import Estimate, Z

RIDGE = 1e-2  # of the mean variance of a feature


def discriminant_scores(real: np.ndarray, fake: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Features (n, d) and (m, d) -> scores of a random half of each, higher for what looks generated."""
    check_features(real, fake, "detection")
    rng = np.random.default_rng(seed)
    sets = [rng.permutation(rows.astype(np.float64)) for rows in (real, fake)]
    seen, held = [rows[::2] for rows in sets], [rows[1::2] for rows in sets]
    middle = [rows.mean(axis=0) for rows in seen]
    centred = np.concatenate([rows - m for rows, m in zip(seen, middle, strict=True)])
    within = centred.T @ centred / len(centred)
    within += RIDGE * max(np.trace(within) / len(within), 1e-12) * np.eye(len(within))
    axis = np.linalg.solve(within, middle[1] - middle[0])
    return held[0] @ axis, held[1] @ axis


def area_under_curve(negative: np.ndarray, positive: np.ndarray) -> Estimate:
    """Scores (n,) and (m,) -> the chance that a positive scores higher than a negative (ties half), with its interval.

    DeLong's variance (1988); where all pairs are in order it is 0, and the interval is that of no error in n answers.
    """
    from scipy.stats import rankdata

    n, m = len(negative), len(positive)
    ranks = rankdata(np.concatenate([negative, positive]))
    # for each picture the share of the other kind that it is above (below, for negatives)
    above = (ranks[n:] - rankdata(positive)) / n
    under = 1 - (ranks[:n] - rankdata(negative)) / m
    value, few = float(above.mean()), min(n, m)
    variance = sum(float(np.var(part, ddof=1)) / len(part) for part in (above, under))
    half = Z * max(float(np.sqrt(variance)), Z / (few + Z**2) * (value in (0.0, 1.0)))
    return Estimate(value, max(0.0, value - half), min(1.0, value + half))


def detection_auc(real: np.ndarray, fake: np.ndarray, seed: int = 0) -> Estimate:
    """Features (n, d) and (m, d) -> the area under the curve of a classifier that tells them apart."""
    return area_under_curve(*discriminant_scores(real, fake, seed))
