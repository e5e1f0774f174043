"""Whether a label map can be a face at all: what lies above what, which side is left, what is larger than what.

Numbers of another face parser are labels too, only of other classes; the map that they give shows it by a neck above
the brows. What is said here is a note, never an error: people draw what they like.
"""

from __future__ import annotations

import numpy as np

from mogle.labels.classes import FAULTS, GROUPS, LABELS, ORDERS, order_table

_SIDE = 512  # larger maps are looked at in every second, third, ... pixel


def _measured(label_map: np.ndarray) -> dict[str, float]:
    """Of each class and group that is there: "size of hat" and so on, in pixels, rows and columns."""
    step, count = -(-max(label_map.shape) // _SIDE), len(LABELS)
    small, found = label_map[::step, ::step], {}
    for (first, middle, last), lines in ((("top", "row", "bottom"), small), (("left", "column", "right"), small.T)):
        counts = np.array([np.bincount(line, minlength=count)[:count] for line in lines])
        for name, labels in GROUPS.items():
            pixels = counts[:, labels].sum(1)
            if pixels.any():
                found[f"size of {name}"] = pixels.sum()
                found[f"{middle} of {name}"] = np.average(np.arange(len(pixels)), weights=pixels)
                found[f"{first} of {name}"], found[f"{last} of {name}"] = np.flatnonzero(pixels)[[0, -1]]
    return found


def _is_laid_out(found: dict[str, float]) -> bool:
    """Whether the nose's centre lies between the skin's edges: then this is laid out as a face."""
    edges = ("top of skin", "row of nose", "bottom of skin"), ("left of skin", "column of nose", "right of skin")
    there = all({*line} <= found.keys() for line in edges)
    return there and all(found[first] <= found[middle] <= found[last] for first, middle, last in edges)


def _faults(found: dict[str, float]) -> list[str]:
    """What no face has that is held upright, or tilted by less than 60 degrees."""
    rules = FAULTS["upright"] + (FAULTS["laid_out"] if _is_laid_out(found) else [])
    known = [rule for rule in rules if {*rule[1:]} <= found.keys()]
    return list(dict.fromkeys(fault for fault, less, more in known if found[less] < found[more]))


def _is_mirrored(found: dict[str, float]) -> bool:
    """Whether every left part of a face lies on the picture's left of its right part, and eyes or brows are there."""
    pairs = [(f"column of l_{part}", f"column of r_{part}") for part in ("eye", "brow", "ear")]
    there = [pair for pair in pairs if {*pair} <= found.keys()]
    mirrored = all(found[left] < found[right] for left, right in there)
    return _is_laid_out(found) and mirrored and there not in ([], pairs[2:])


def _is_face(label_map: np.ndarray) -> bool:
    """Whether numbers are labels, nothing speaks against a face, and it is laid out as one."""
    found = _measured(label_map)
    return label_map.max() < len(LABELS) and _is_laid_out(found) and not _faults(found) and not _is_mirrored(found)


def doubt(label_map: np.ndarray) -> str:
    """Why a label map cannot be a face, the likely cause, and what mends it; empty where nothing speaks against it."""
    found = _measured(label_map)
    faults, mirrored = _faults(found), _is_mirrored(found)
    present = [name for name in LABELS if f"size of {name}" in found]
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
