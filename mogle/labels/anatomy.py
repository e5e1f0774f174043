"""Whether a label map can be a face at all: what lies above what, which side is left, what is larger than what.

Numbers of another face parser are labels too, only of other classes; the map that they give shows it by a neck above
the brows. What is said here is a note, never an error: people draw what they like.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from mogle.labels.classes import LABELS, ORDERS, order_table

_SIDE = 512  # larger maps are looked at in every second, third, ... pixel
_GROUPS = {
    **{name: (name,) for name in LABELS},
    "brows": ("l_brow", "r_brow"), "eyes": ("l_eye", "r_eye"), "lips": ("mouth", "u_lip", "l_lip"),
}  # fmt: skip
#: What a head held upright, or tilted by less than 60 degrees, never has: the first lying above the second.
_NEVER_ABOVE = (
    ("neck", "brows"), ("neck", "eyes"), ("lips", "brows"), ("lips", "eyes"), ("cloth", "eyes"), ("cloth", "brows"),
    ("lips", "eye_g"),
)  # fmt: skip

#: Classes and groups that are there -> their pixels (n, 2): row and column.
Regions = Mapping[str, np.ndarray]


def _regions(label_map: np.ndarray) -> Regions:
    step = -(-max(label_map.shape) // _SIDE)
    small = label_map[::step, ::step]
    found = {name: np.isin(small, [LABELS.index(part) for part in parts]) for name, parts in _GROUPS.items()}
    return {name: np.argwhere(where) for name, where in found.items() if where.any()}


def _higher(one: np.ndarray, other: np.ndarray) -> bool:
    return one[:, 0].mean() < other[:, 0].mean()


def _wholly_higher(one: np.ndarray, other: np.ndarray) -> bool:
    return one[:, 0].max() < other[:, 0].min()


def _larger(one: np.ndarray, other: np.ndarray) -> bool:
    return len(one) > len(other)


def _is_laid_out(found: Regions) -> bool:
    """Whether the nose's centre lies between the skin's edges: then this is laid out as a face."""
    if not {"nose", "skin"} <= found.keys():
        return False
    nose, skin = found["nose"].mean(0), found["skin"]
    return bool(((skin.min(0) <= nose) & (nose <= skin.max(0))).all())


def _faults(found: Regions) -> list[str]:
    """What no face has."""

    def those(wrong: Callable[[np.ndarray, np.ndarray], bool], words: str, *pairs: tuple[str, str]) -> list[str]:
        there = [pair for pair in pairs if set(pair) <= found.keys()]
        return [words.format(*pair) for pair in there if wrong(found[pair[0]], found[pair[1]])]

    faults = those(_higher, "{} above {}", *_NEVER_ABOVE)
    faults += those(_wholly_higher, "{1} below {0}", ("lips", "hat"))
    faults += those(_larger, "more {} than {}", ("nose", "skin"), ("l_eye", "skin"), ("r_eye", "skin"))
    if _is_laid_out(found):
        faults += those(_wholly_higher, "{1} below {0}", ("eyes", "brows"))
        faults += those(_higher, "{} above {}", ("nose", "eyes"))
        faults += those(_higher, "{1} below {0}", ("lips", "hat"))
    return list(dict.fromkeys(faults))


def _is_mirrored(found: Regions) -> bool:
    """Whether every left part of a face lies on the picture's left of its right part, and eyes or brows are there."""
    pairs = {part: (f"l_{part}", f"r_{part}") for part in ("eye", "brow", "ear")}
    there = [part for part, pair in pairs.items() if set(pair) <= found.keys()]
    columns = [[found[name][:, 1].mean() for name in pairs[part]] for part in there]
    return _is_laid_out(found) and there not in ([], ["ear"]) and all(left < right for left, right in columns)


def _is_face(label_map: np.ndarray) -> bool:
    """Whether numbers are labels, nothing speaks against a face, and it is laid out as one."""
    found = _regions(label_map)
    return label_map.max() < len(LABELS) and _is_laid_out(found) and not _faults(found) and not _is_mirrored(found)


def doubt(label_map: np.ndarray) -> str:
    """Why a label map cannot be a face, the likely cause, and what mends it; empty where nothing speaks against it."""
    found = _regions(label_map)
    faults, mirrored, present = _faults(found), _is_mirrored(found), [name for name in LABELS if name in found]
    if present == ["background", "skin"]:
        return (
            "found skin (1) and background (0) alone, expected a face's classes; a black-and-white mask of what is in "
            "front of the background is not enough"
        )
    orders = ["one-based"]
    if present[0] == "skin" and len(present) > 2:
        faults = ["no background (0), but labels from 1 on"]
    elif faults or mirrored:
        others = (name for name in ORDERS if name not in ("celebamask", "segface"))
        orders = [name for name in others if _is_face(order_table(name)[label_map])]
    else:
        return ""
    what = ", ".join(faults[:2]) or "every left part on the picture's left"
    if orders:
        cause = " or ".join(f"labels={name!r}" for name in orders)
        return f"found {what}, which is no face; the numbers look like another parser's: choose {cause}"
    if faults:
        return (
            f"found {what}, which is no face; expected CelebAMask-HQ's numbers (0 {LABELS[0]} ... 18 {LABELS[-1]}): "
            "choose labels= for another parser's numbers, or turn the mask upright"
        )
    return (
        f"found {what}, expected it on the right (left is the person's own): colours of the reference's web demo need "
        "palette='demo'; a mirrored mask needs left and right labels exchanged"
    )
