"""Masks of one painted face with something changed: longer hair, a hat, glasses."""

from __future__ import annotations

import numpy as np


def repainted(seed: int, **changes: str | None) -> np.ndarray:
    """The label map (128, 128) of the portrait `seed` of the main set with some of its attributes changed."""
    from mogle.tiny.portraits import paint

    return paint(seed, changes=changes).mask
