"""Frechet inception distance: two sets of features, each taken for a Gaussian (Heusel et al. 2017).

|mu_1 - mu_2|^2 + tr(S_1 + S_2 - 2 (S_1 S_2)^(1/2)). It is biased: small sets come out larger, by about a constant over
n, which `extrapolated_fid` removes (Chong and Forsyth 2020).
"""

from __future__ import annotations

import numpy as np

from mogle.errors import MogleError
from mogle.metrics.features import FeatureMoments, check_features
from mogle.metrics.intervals import Estimate


def frechet_distance(first: FeatureMoments, second: FeatureMoments) -> float:
    """The distance between two sets by their moments alone."""
    # tr (S_1 S_2)^(1/2) is the sum of the roots of the eigenvalues of S_1^(1/2) S_2 S_1^(1/2), which is symmetric.
    values, vectors = np.linalg.eigh(first.covariance)
    root = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
    between = np.linalg.eigvalsh(root @ second.covariance @ root).clip(min=0)
    gap = first.mean - second.mean
    trace = np.trace(first.covariance) + np.trace(second.covariance)
    return float(gap @ gap + trace - 2 * np.sqrt(between).sum())


def fid(real: np.ndarray, fake: np.ndarray) -> float:
    """Features (n, d) and (m, d) -> FID."""
    check_features(real, fake, "FID")
    return frechet_distance(FeatureMoments().add(real), FeatureMoments().add(fake))


def fid_by_size(real: np.ndarray, fake: np.ndarray, *, points: int = 8, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """FID of random parts of both sets -> sizes (points,), from half to all of the smaller set, and distances."""
    check_features(real, fake, "FID")
    rng, most = np.random.default_rng(seed), min(len(real), len(fake))
    sizes = np.unique(np.linspace(max(2, most // 2), most, points).astype(int))
    distances = [
        fid(real[rng.choice(len(real), size, replace=False)], fake[rng.choice(len(fake), size, replace=False)])
        for size in sizes
    ]
    return sizes, np.array(distances)


def extrapolated_fid(sizes: np.ndarray, distances: np.ndarray) -> float:
    """FID of endless sets: the value at 0 of the line through distances over 1 / size."""
    return float(np.polynomial.polynomial.polyfit(1 / np.asarray(sizes, dtype=float), distances, 1)[0])


def fid_estimate(real: np.ndarray, fake: np.ndarray, *, groups: int = 20, seed: int = 0) -> Estimate:
    """FID of endless sets, with its 95 % interval: a jackknife over groups of pictures.

    The distance without each group in turn shows both how it varies and, as the bias falls with 1 / n, how large the
    bias is; that is taken off. So the value lies below `fid`, and may be slightly negative for two samples of one
    distribution.

    Raises:
        MogleError: fewer pictures than groups, or what `fid` raises.
    """
    from scipy.stats import t as student

    check_features(real, fake, "FID")
    if min(len(real), len(fake)) < groups:
        raise MogleError(f"{len(real)} real and {len(fake)} generated pictures; expected at least {groups} of each")
    rng = np.random.default_rng(seed)
    whole = FeatureMoments().add(real), FeatureMoments().add(fake)
    value = plain = frechet_distance(*whole)
    variance = 0.0
    for side, rows in enumerate((real, fake)):
        group = rng.permutation(len(rows)) % groups
        left_out = np.empty(groups)
        for g in range(groups):
            moments = FeatureMoments().add(rows[group != g])
            left_out[g] = frechet_distance(*((moments, whole[1]) if side == 0 else (whole[0], moments)))
        value -= (groups - 1) * (left_out.mean() - plain)
        variance += (groups - 1) / groups * np.square(left_out - left_out.mean()).sum()
    half = float(student.ppf(0.975, groups - 1) * np.sqrt(variance))
    return Estimate(float(value), float(value) - half, float(value) + half)
