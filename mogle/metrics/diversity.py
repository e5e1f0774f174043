"""How much do pictures of one mask and one sentence differ from seed to seed?"""

from __future__ import annotations

import numpy as np

from mogle.errors import MogleError
from mogle.metrics.intervals import Estimate, mean_estimate


def seed_distances(features: np.ndarray) -> np.ndarray:
    """Features (n samples, k seeds, d) -> (n,): mean distance between two seeds of a sample."""
    if features.ndim != 3 or features.shape[1] < 2:
        raise MogleError(f"features of shape {features.shape}; expected (samples, seeds, d) with at least two seeds")
    if not np.isfinite(features).all():
        raise MogleError("features with NaN or infinity; the pictures or the network that read them are broken")
    i, j = np.triu_indices(features.shape[1], k=1)
    return np.linalg.norm(features[:, i].astype(np.float64) - features[:, j], axis=-1).mean(axis=1)


def diversity(features: np.ndarray, real: np.ndarray) -> Estimate:
    """Features (n, k, d) of n samples at k seeds each -> mean distance between seeds, with its interval.

    In units of the mean distance between two different real pictures, features (m, d): 0, the seed changes nothing; 1,
    as much as between strangers.
    """
    if real.ndim != 2 or len(real) < 2:
        raise MogleError(f"real features of shape {real.shape}; expected (m, d) with at least two pictures")
    strangers = float(np.linalg.norm(np.diff(real.astype(np.float64), axis=0), axis=1).mean())
    return Estimate(*(part / strangers for part in mean_estimate(seed_distances(features))))
