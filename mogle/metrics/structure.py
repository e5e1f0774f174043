"""Structure distance: does a picture have the layout of its real partner? The paper calls it "mask".

Each picture's keys (tokens of one attention layer) are compared with each other by cosine, token against token; the
distance is the mean square difference of the two tables (Tumanyan et al. 2022).
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from mogle.errors import MogleError

REPORTED_BATCH = 64


def self_similarity(keys: np.ndarray) -> np.ndarray:
    """Keys (T, d), the class token included -> cosines (T, T)."""
    unit = keys / np.linalg.norm(keys, axis=-1, keepdims=True).clip(min=1e-8)
    return unit @ unit.T


def structure_distances(real: np.ndarray, fake: np.ndarray) -> np.ndarray:
    """Keys (n, T, d) of real pictures and of their generated partners, in the same order -> (n,) distances."""
    if real.shape != fake.shape or real.ndim != 3:
        raise MogleError(f"keys of shapes {real.shape} and {fake.shape}; expected (n, T, d) twice, pair by pair")
    if not len(real):
        raise MogleError("found no pairs of pictures, expected at least one")
    pairs = zip(real.astype(np.float64), fake.astype(np.float64), strict=True)
    distances = np.array([np.square(self_similarity(a) - self_similarity(b)).mean() for a, b in pairs])
    if not np.isfinite(distances).all():
        raise MogleError("keys with NaN or infinity; the pictures or the network that read them are broken")
    return distances


def paired_structure(real: Iterable[np.ndarray], fake: Iterable[np.ndarray]) -> np.ndarray:
    """The same from keys (T, d) that come one picture after the other: (n,). Only two are held at a time."""
    parts = [structure_distances(a[None], b[None]) for a, b in zip(real, fake, strict=True)]
    return np.concatenate(parts) if parts else structure_distances(np.empty((0, 1, 1)), np.empty((0, 1, 1)))


def structure_as_reported(distances: np.ndarray, batch: int = REPORTED_BATCH) -> float:
    """The reference's convention: summed within batches of 64, averaged over batches. Its 2.44 is 0.038 a picture.

    It depends on how many pictures there are and on the batch, so the mean of `structure_distances` is what we report
    first.
    """
    return float(np.mean([distances[i : i + batch].sum() for i in range(0, len(distances), batch)]))
