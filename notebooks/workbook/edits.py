"""Masks of one painted face with something changed: longer hair, a hat, glasses."""

from __future__ import annotations

import numpy as np


def repainted(seed: int, **changes: str | None) -> np.ndarray:
    """The label map (128, 128) of the portrait `seed` of the main set with some of its attributes changed.

    The painter draws the rest as before: shapes come from a stream of random numbers of their own.
    """
    from mogle.tiny.portraits import STYLES, sample_attributes
    from mogle.tiny.portraits.painter import draw

    for_attributes, for_drawing, _ = np.random.default_rng([seed, STYLES.index("portraits")]).spawn(3)
    attributes = sample_attributes(for_attributes, "portraits") | changes
    return draw(attributes, for_drawing)[1]
