"""How one seed draws what a portrait shows (the attributes of ``mogle.words``).

They are drawn almost independently of what the mask shows, so that captions may be swapped between portraits.
``None`` as a value means that the question does not arise: no hair to have a colour, no hat, eyes behind dark glasses,
or, once painted, too little of it in the picture to tell.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from itertools import accumulate

import numpy as np

from mogle.words import ATTRIBUTES

STYLES = ("portraits", "female", "balanced")  # the main set; women in another visual style; gender x age x skin uniform

# Weights in the order of ATTRIBUTES[name].values; they need not sum to 1. In _BY_GENDER the rows are (woman, man).
_WEIGHTS: dict[str, tuple[float, ...]] = {
    "gender": (0.54, 0.46),
    "age": (0.42, 0.30, 0.28),
    "skin": (0.38, 0.31, 0.31),
    "hair_color": (0.24, 0.24, 0.20, 0.16, 0.16),
    "hair_texture": (0.52, 0.48),
    "bangs": (0.58, 0.42),
    "hat": (0.76, 0.24),
    "hat_color": (1, 1, 1, 1, 1, 1),
    "eyeglasses": (0.62, 0.38),
    "sunglasses": (0.58, 0.42),
    "smiling": (0.5, 0.5),
    "pose": (0.3, 0.4, 0.3),
    "light": (1, 1, 1),
    "background": (1, 1, 1, 1, 1),
    "clothes": (1, 1, 1, 1, 1, 1),
}
_BY_GENDER: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "hair_length": ((0.06, 0.34, 0.60), (0.16, 0.60, 0.24)),
    "facial_hair": ((1, 0, 0), (0.40, 0.25, 0.35)),
    "lipstick": ((0.40, 0.60), (0.82, 0.18)),
    "makeup": ((0.48, 0.52), (0.82, 0.18)),
    "rosy_cheeks": ((0.56, 0.44), (0.70, 0.30)),
    "earrings": ((0.50, 0.50), (0.80, 0.20)),
    "necklace": ((0.58, 0.42), (0.80, 0.20)),
}
# What differs in the women's set: younger, more hats, jewellery and make-up, more coloured hair, more turned heads.
_FEMALE: dict[str, tuple[float, ...]] = {
    "gender": (1, 0),
    "age": (0.58, 0.27, 0.15),
    "hair_color": (0.18, 0.22, 0.26, 0.22, 0.12),
    "hair_length": (0.08, 0.27, 0.65),
    "hat": (0.66, 0.34),
    "lipstick": (0.28, 0.72),
    "makeup": (0.38, 0.62),
    "earrings": (0.36, 0.64),
    "necklace": (0.46, 0.54),
    "pose": (0.35, 0.3, 0.35),
}
_BALANCED: dict[str, tuple[float, ...]] = {"gender": (1, 1), "age": (1, 1, 1), "skin": (1, 1, 1)}


def _weights(name: str, style: str, drawn: Mapping[str, str | None]) -> tuple[float, ...]:
    own = {"female": _FEMALE, "balanced": _BALANCED}.get(style, {})
    if name in own:
        return own[name]
    if name in _BY_GENDER:
        return _BY_GENDER[name][ATTRIBUTES["gender"].values.index(drawn["gender"] or "woman")]
    if name == "hair_color" and drawn["age"] == "elderly":
        return (0.16, 0.17, 0.15, 0.12, 0.40)
    if name == "mouth_open":  # a smile opens the mouth more often
        return (0.52, 0.48) if drawn["smiling"] == "yes" else (0.68, 0.32)
    return _WEIGHTS[name]


def _rule(name: str, drawn: Mapping[str, str | None]) -> tuple[str | None] | None:
    """The value that what is already drawn forces on ``name``, in a tuple (it may be None); else None."""
    if name in ("hair_color", "hair_texture") and drawn["hair_length"] == "bald":
        return (None,)
    if name == "bangs" and (drawn["hair_length"] == "bald" or drawn["hat"] == "yes"):
        return ("no",)
    if name == "hat_color" and drawn["hat"] == "no":
        return (None,)
    if name == "sunglasses" and drawn["eyeglasses"] == "no":
        return (None,)
    if name == "makeup" and drawn["sunglasses"] == "yes":
        return (None,)
    return None


def _drawing_order() -> list[str]:
    """Attributes in an order in which whatever a rule asks for is drawn already."""
    first = ["gender", "age", "skin", "hair_length", "hat", "eyeglasses", "sunglasses", "smiling"]
    return first + [name for name in ATTRIBUTES if name not in first]


def sample_attributes(rng: np.random.Generator, style: str = "portraits") -> dict[str, str | None]:
    """One consistent set of attributes, with the keys of ``ATTRIBUTES`` in their order.

    Takes exactly ``len(ATTRIBUTES)`` uniform numbers from ``rng``, whatever comes out.
    """
    uniform = dict(zip(ATTRIBUTES, rng.random(len(ATTRIBUTES)).tolist(), strict=True))
    drawn: dict[str, str | None] = {}
    for name in _drawing_order():
        forced = _rule(name, drawn)
        if forced is not None:
            drawn[name] = forced[0]
            continue
        cumulative = list(accumulate(_weights(name, style, drawn)))
        place = bisect_right(cumulative, uniform[name] * cumulative[-1])
        drawn[name] = ATTRIBUTES[name].values[min(place, len(cumulative) - 1)]
    return {name: drawn[name] for name in ATTRIBUTES}
