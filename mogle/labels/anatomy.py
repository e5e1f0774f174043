"""Whether a label map can be a face at all: what lies above what, which side is left, what is larger than what.

Numbers of another face parser are labels too, only of other classes; the map that they give shows it by a neck above
the brows. What is said here is a note, never an error: people draw what they like.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from mogle.labels.classes import GROUPS, LABELS, NEVER_ABOVE, ORDERS, order_table

_SIDE = 512  # larger maps are looked at in every second, third, ... pixel
#: Classes and groups that are there -> how many of their pixels each row of the map has (H,), and each column (W,).
Regions = Mapping[str, tuple[np.ndarray, np.ndarray]]
Measure = Callable[[np.ndarray], float]


def _regions(label_map: np.ndarray) -> Regions:
    step, count = -(-max(label_map.shape) // _SIDE), len(LABELS)
    small = label_map[::step, ::step]
    rows, columns = (
        np.array([np.bincount(line, minlength=count)[:count] for line in lines]) for lines in (small, small.T)
    )
    found = {name: (rows[:, labels].sum(1), columns[:, labels].sum(1)) for name, labels in GROUPS.items()}
    return {name: region for name, region in found.items() if region[0].any()}


def _centre(pixels: np.ndarray) -> float:
    return float(np.average(np.arange(len(pixels)), weights=pixels))


def _first(pixels: np.ndarray) -> int:
    return int(np.flatnonzero(pixels)[0])


def _last(pixels: np.ndarray) -> int:
    return int(np.flatnonzero(pixels)[-1])


def _is_laid_out(found: Regions) -> bool:
    """Whether the nose's centre lies between the skin's edges: then this is laid out as a face."""
    if not {"nose", "skin"} <= found.keys():
        return False
    both = zip(found["nose"], found["skin"], strict=True)  # in rows, and in columns
    return all(_first(skin) <= _centre(nose) <= _last(skin) for nose, skin in both)


def _faults(found: Regions) -> list[str]:
    """What no face has that is held upright, or tilted by less than 60 degrees."""

    def those(words: str, of_one: Measure, of_other: Measure, *pairs: Sequence[str]) -> list[str]:
        """The pairs whose one measures less than the other; measured are the pixels of each row."""
        there = [pair for pair in pairs if set(pair) <= found.keys()]
        return [words.format(*pair) for pair in there if of_one(found[pair[0]][0]) < of_other(found[pair[1]][0])]

    faults = those("{} above {}", _centre, _centre, *NEVER_ABOVE)
    faults += those("{1} below {0}", _last, _first, ("lips", "hat"))
    faults += those("more {1} than {0}", np.sum, np.sum, ("skin", "nose"), ("skin", "l_eye"), ("skin", "r_eye"))
    if _is_laid_out(found):
        faults += those("{1} below {0}", _last, _first, ("eyes", "brows"))
        faults += those("{} above {}", _centre, _centre, ("nose", "eyes"))
        faults += those("{1} below {0}", _centre, _centre, ("lips", "hat"))
    return list(dict.fromkeys(faults))


def _is_mirrored(found: Regions) -> bool:
    """Whether every left part of a face lies on the picture's left of its right part, and eyes or brows are there."""
    pairs = {part: (f"l_{part}", f"r_{part}") for part in ("eye", "brow", "ear")}
    there = [part for part, pair in pairs.items() if set(pair) <= found.keys()]
    columns = [[_centre(found[name][1]) for name in pairs[part]] for part in there]
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
        orders = [name for name in ORDERS if name != "segface" and _is_face(order_table(name)[label_map])]
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
