"""Distances between features of pictures: of two sets (FID, a classifier), from seed to seed, and of pairs (structure).

A feature is the vector that some network makes of a picture; the metrics here never see the picture itself.

FID takes each set for a Gaussian (Heusel et al. 2017): |mu_1 - mu_2|^2 + tr(S_1 + S_2 - 2 (S_1 S_2)^(1/2)). It is
biased: small sets come out larger, by about a constant over n, which `extrapolated_fid` removes (Chong and Forsyth
2020). The classifier is Fisher's linear discriminant with a little ridge. Half of the pictures train it, the other
half are scored: scores of several folds together would come out below 0.5 where both sets are alike.

Structure distance, which the paper calls "mask": does a picture have the layout of its real partner? Each picture's
keys (tokens of one attention layer) are compared with each other by cosine, token against token; the distance is the
mean square difference of the two tables (Tumanyan et al. 2022).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from mogle.errors import MogleError
from mogle.metrics.intervals import Estimate, Z, mean_estimate

RIDGE = 1e-2  # of the mean variance of a feature, for the classifier

Moments = tuple[np.ndarray, np.ndarray]  # mean (d,) and covariance (d, d), divided by n - 1, of a set of features


def check_finite(*arrays: np.ndarray) -> None:
    """Raises MogleError where a number is NaN or infinite."""
    if not all(np.isfinite(array).all() for array in arrays):
        raise MogleError("features with NaN or infinity; the pictures or the network that read them are broken")


def check_features(real: np.ndarray, fake: np.ndarray, metric: str) -> None:
    """Two sets of features, (n, d) and (m, d), at least two of each, all finite.

    Raises:
        MogleError: they are not.
    """
    if real.ndim != 2 or fake.ndim != 2 or real.shape[1] != fake.shape[1]:
        raise MogleError(f"features of shapes {real.shape} and {fake.shape}; expected (n, d) and (m, d)")
    if min(len(real), len(fake)) < 2:
        raise MogleError(f"{len(real)} real and {len(fake)} generated pictures; {metric} needs at least two of each")
    check_finite(real, fake)


def moments(features: np.ndarray) -> Moments:
    """Features (n, d), at least two -> their moments in float64, summed around the mean so that no digits are lost."""
    return features.mean(axis=0, dtype=np.float64), np.cov(features, rowvar=False, dtype=np.float64)


def frechet_distance(first: Moments, second: Moments) -> float:
    """The distance between two sets by their moments alone."""
    (first_mean, first_covariance), (second_mean, second_covariance) = first, second
    # tr (S_1 S_2)^(1/2) is the sum of the roots of the eigenvalues of S_1^(1/2) S_2 S_1^(1/2), which is symmetric.
    values, vectors = np.linalg.eigh(first_covariance)
    root = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
    between = np.linalg.eigvalsh(root @ second_covariance @ root).clip(min=0)
    gap, trace = first_mean - second_mean, np.trace(first_covariance + second_covariance)
    return float(gap @ gap + trace - 2 * np.sqrt(between).sum())


def fid(real: np.ndarray, fake: np.ndarray) -> float:
    """Features (n, d) and (m, d) -> FID."""
    check_features(real, fake, "FID")
    return frechet_distance(moments(real), moments(fake))


def fid_by_size(real: np.ndarray, fake: np.ndarray) -> list[tuple[int, float]]:
    """FID of random parts of both sets -> 8 sizes, from half to all of the smaller set, each with its distance."""
    rng, most = np.random.default_rng(0), min(len(real), len(fake))
    sizes = np.unique(np.linspace(max(2, most // 2), most, 8).astype(int)).tolist()
    parts = ([rng.choice(len(rows), size, replace=False) for rows in (real, fake)] for size in sizes)
    return [(size, fid(real[some], fake[others])) for size, (some, others) in zip(sizes, parts, strict=True)]


def extrapolated_fid(by_size: Sequence[Sequence[float]]) -> float:
    """FID of endless sets: the value at 0 of the line through distances over 1 / size."""
    sizes, distances = np.array(by_size).T
    return float(np.polynomial.polynomial.polyfit(1 / sizes, distances, 1)[0])


def fid_estimate(real: np.ndarray, fake: np.ndarray, groups: int = 20) -> Estimate:
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
    rng, sets = np.random.default_rng(0), (real, fake)
    whole = moments(real), moments(fake)
    value = plain = frechet_distance(*whole)
    variance = 0.0
    for rows, other in zip(sets, reversed(whole), strict=True):
        group = rng.permutation(len(rows)) % groups
        left_out = np.array([frechet_distance(moments(rows[group != g]), other) for g in range(groups)])
        value -= (groups - 1) * float(left_out.mean() - plain)
        variance += (groups - 1) * float(left_out.var())
    half = float(student.ppf(0.975, groups - 1) * np.sqrt(variance))
    return Estimate(value, value - half, value + half)


def discriminant_scores(real: np.ndarray, fake: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Features (n, d) and (m, d) -> scores of a random half of each, higher for what looks generated."""
    check_features(real, fake, "detection")
    rng = np.random.default_rng(0)
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

    n = len(negative)
    ranks = rankdata(np.concatenate([negative, positive]))
    # for each picture the share of the other kind that it is above (below, for negatives)
    above = (ranks[n:] - rankdata(positive)) / n
    under = 1 - (ranks[:n] - rankdata(negative)) / len(positive)
    value, few = float(above.mean()), min(n, len(positive))
    variance = sum(float(np.var(part, ddof=1)) / len(part) for part in (above, under))
    half = Z * max(float(np.sqrt(variance)), Z / (few + Z**2) * (value in (0.0, 1.0)))
    return Estimate(value, max(0.0, value - half), min(1.0, value + half))


def detection_auc(real: np.ndarray, fake: np.ndarray) -> Estimate:
    """Features (n, d) and (m, d) -> the area under the curve of a classifier that tells them apart."""
    return area_under_curve(*discriminant_scores(real, fake))


def seed_distances(features: np.ndarray) -> np.ndarray:
    """Features (n samples, k seeds, d) -> (n,): mean distance between two seeds of a sample."""
    if features.ndim != 3 or features.shape[1] < 2:
        raise MogleError(f"features of shape {features.shape}; expected (samples, seeds, d) with at least two seeds")
    check_finite(features)
    i, j = np.triu_indices(features.shape[1], k=1)
    return np.linalg.norm(features[:, i].astype(np.float64) - features[:, j], axis=-1).mean(axis=1)


def diversity(features: np.ndarray, real: np.ndarray) -> Estimate:
    """Features (n, k, d) of n samples at k seeds each -> mean distance between seeds, with its interval.

    In units of the mean distance between two different real pictures, features (m, d), at least two: 0, the seed
    changes nothing; 1, as much as between strangers.
    """
    strangers = float(np.linalg.norm(np.diff(real.astype(np.float64), axis=0), axis=1).mean())
    return mean_estimate(seed_distances(features) / strangers)


def self_similarity(keys: np.ndarray) -> np.ndarray:
    """Keys (T, d), the class token included -> cosines (T, T)."""
    unit = keys / np.linalg.norm(keys, axis=-1, keepdims=True).clip(min=1e-8)
    return unit @ unit.T


def structure_distances(real: Iterable[np.ndarray], fake: Iterable[np.ndarray]) -> np.ndarray:
    """Keys (T, d) of real pictures and of their generated partners, in the same order -> (n,) distances.

    Only one pair is held at a time.

    Raises:
        MogleError: no pair, keys of different shapes, or NaN.
    """
    distances = []
    for a, b in zip(real, fake, strict=True):
        if a.shape != b.shape or a.ndim != 2:
            raise MogleError(f"keys of shapes {a.shape} and {b.shape}; expected (T, d) twice")
        gap = self_similarity(a.astype(np.float64)) - self_similarity(b.astype(np.float64))
        distances.append(np.square(gap).mean())
    if not distances:
        raise MogleError("found no pairs of pictures, expected at least one")
    check_finite(np.array(distances))
    return np.array(distances)


def structure_as_reported(distances: np.ndarray) -> float:
    """The reference's convention: summed within batches of 64, averaged over batches. Its 2.44 is 0.038 a picture.

    It depends on how many pictures there are and on the batch, so the mean of `structure_distances` is what we report
    first.
    """
    return float(np.mean([part.sum() for part in np.split(distances, range(64, len(distances), 64))]))
