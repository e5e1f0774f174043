"""What the metrics on features share: checks, float64 in blocks, and running statistics of a stream.

A feature is the vector that some network makes of a picture; the metrics here never see the picture itself.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from mogle.errors import MogleError

BLOCK = 2048  # rows that are in memory in float64 at once


def check_features(real: np.ndarray, fake: np.ndarray, metric: str) -> None:
    """Two sets of features, (n, d) and (m, d), at least two of each, all finite.

    Raises:
        MogleError: they are not.
    """
    if real.ndim != 2 or fake.ndim != 2 or real.shape[1] != fake.shape[1]:
        raise MogleError(f"features of shapes {real.shape} and {fake.shape}; expected (n, d) and (m, d)")
    if min(len(real), len(fake)) < 2:
        raise MogleError(f"{len(real)} real and {len(fake)} generated pictures; {metric} needs at least two of each")
    if not all(np.isfinite(block).all() for rows in (real, fake) for block in blocks(rows)):
        raise MogleError("features with NaN or infinity; the pictures or the network that read them are broken")


def blocks(rows: np.ndarray) -> Iterator[np.ndarray]:
    """The rows in float64, `BLOCK` at a time."""
    return (rows[i : i + BLOCK].astype(np.float64) for i in range(0, len(rows), BLOCK))


class FeatureMoments:
    """Mean and covariance of features that come in batches; memory does not grow with their number."""

    def __init__(self) -> None:
        self.count = 0
        self._sum: np.ndarray | float = 0.0
        self._outer: np.ndarray | float = 0.0
        self._origin: np.ndarray | None = None

    def add(self, features: np.ndarray) -> FeatureMoments:
        """Takes (n, d) more; sums are kept around the first batch's mean, so that no digits are lost."""
        for rows in blocks(features):
            if self._origin is None:
                self._origin = rows.mean(axis=0)
            centred = rows - self._origin
            self.count += len(rows)
            self._sum = self._sum + centred.sum(axis=0)
            self._outer = self._outer + centred.T @ centred
        return self

    @property
    def mean(self) -> np.ndarray:
        """(d,)."""
        if self._origin is None:
            raise MogleError("found no features, expected at least one picture")
        return self._origin + self._sum / self.count

    @property
    def covariance(self) -> np.ndarray:
        """(d, d), divided by n - 1."""
        if self.count < 2:
            raise MogleError(f"found {self.count} pictures; a covariance needs at least two")
        mean = np.asarray(self._sum) / self.count
        return (self._outer - self.count * np.outer(mean, mean)) / (self.count - 1)
