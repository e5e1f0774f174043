"""Frechet inception distance: two sets of features, each taken for a Gaussian (Heusel et al. 2017).

|mu_1 - mu_2|^2 + tr(S_1 + S_2 - 2 (S_1 S_2)^(1/2)). It is biased: small sets come out larger, by about a constant over
n, which `extrapolated_fid` removes (Chong and Forsyth 2020).
"""

from __future__ import annotations

import numpy as np

from mogle.metrics.features import FeatureMoments, check_features


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
