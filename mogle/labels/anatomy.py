"""Whether a label map can be a face at all: what lies above what, which side is left, what is larger than what.

Numbers of another face parser are labels too, only of other classes; the map that they give shows it by a neck above
the brows. What is said here is a note, never an error: people draw what they like.
"""

from __future__ import annotations

import numpy as np

from mogle.labels.classes import LABELS, ORDERS, order_table

_SIDE = 512  # larger maps are looked at in every second, third, ... pixel
_GROUPS = {
    "brows": ("l_brow", "r_brow"), "eyes": ("l_eye", "r_eye"), "lips": ("mouth", "u_lip", "l_lip"),
    **{name: (name,) for name in LABELS},
}  # fmt: skip
#: What a head held upright, or tilted by less than 60 degrees, never has: the first lying above the second.
_NEVER_ABOVE = (
    ("neck", "brows"), ("neck", "eyes"), ("lips", "brows"), ("lips", "eyes"), ("cloth", "eyes"), ("cloth", "brows"),
    ("lips", "eye_g"),
)  # fmt: skip


class _Layout:
    """Pixels, centres and vertical extents of the classes in a label map."""

    def __init__(self, label_map: np.ndarray) -> None:
        step = max(1, -(-max(label_map.shape) // _SIDE))
        small = label_map[::step, ::step]
        self.size = small.size
        flat, count = small.ravel(), len(LABELS)
        rows, columns = np.indices(small.shape)
        self.counts = np.bincount(flat, minlength=count)
        many = np.maximum(self.counts, 1)
        self.y = np.bincount(flat, rows.ravel(), minlength=count) / many
        self.x = np.bincount(flat, columns.ravel(), minlength=count) / many
        by_row = np.zeros((small.shape[0], count), dtype=bool)
        by_row[rows.ravel(), flat] = True
        self.by_row = by_row
        self.skin_columns = np.flatnonzero((small == LABELS.index("skin")).any(0))

    def members(self, group: str) -> list[int]:
        """The labels of a group that are there."""
        return [label for name in _GROUPS[group] if self.counts[label := LABELS.index(name)]]

    def height_of(self, group: str) -> float | None:
        """The row of a group's centre; None where it is not there."""
        found = self.members(group)
        return float(np.average(self.y[found], weights=self.counts[found])) if found else None

    def extent(self, group: str) -> tuple[int, int] | None:
        """A group's first and last row."""
        rows = np.flatnonzero(self.by_row[:, self.members(group)].any(1))
        return (int(rows[0]), int(rows[-1])) if len(rows) else None

    def above(self, one: str, other: str) -> bool:
        """Whether both are there and one's centre is above the other's."""
        first, second = self.height_of(one), self.height_of(other)
        return first is not None and second is not None and first < second

    def wholly_above(self, one: str, other: str) -> bool:
        """Whether both are there and all of one is above all of the other."""
        first, second = self.extent(one), self.extent(other)
        return first is not None and second is not None and first[1] < second[0]

    def larger(self, one: str, other: str) -> bool:
        """Whether both are there and one has more pixels."""
        first, second = (int(self.counts[self.members(group)].sum()) for group in (one, other))
        return first > second > 0

    def nose_in_skin(self) -> bool:
        """Whether the nose's centre lies between the skin's edges: then this is laid out as a face."""
        extent, nose = self.extent("skin"), LABELS.index("nose")
        if extent is None or not self.counts[nose]:
            return False
        columns = self.skin_columns
        return extent[0] <= self.y[nose] <= extent[1] and columns[0] <= self.x[nose] <= columns[-1]

    def mirrored(self) -> bool:
        """Whether every left part lies on the picture's left of its right part, and eyes or brows are there."""
        pairs = [[LABELS.index(side + part) for side in ("l_", "r_")] for part in ("eye", "brow", "ear")]
        both = [(left, right) for left, right in pairs if self.counts[left] and self.counts[right]]
        return any(left < 8 for left, _ in both) and all(self.x[left] < self.x[right] for left, right in both)


def _faults(layout: _Layout) -> list[str]:
    found = [f"{one} above {other}" for one, other in _NEVER_ABOVE if layout.above(one, other)]
    if layout.wholly_above("lips", "hat"):
        found.append("hat below lips")
    found += [f"more {part} than skin" for part in ("nose", "l_eye", "r_eye") if layout.larger(part, "skin")]
    if layout.nose_in_skin():
        found += ["brows below eyes"] if layout.wholly_above("eyes", "brows") else []
        found += ["nose above eyes"] if layout.above("nose", "eyes") else []
        found += ["hat below lips"] if layout.above("lips", "hat") and "hat below lips" not in found else []
    return found


def doubt(label_map: np.ndarray) -> str:
    """Why a label map cannot be a face, the likely cause, and what mends it; empty where nothing speaks against it."""
    layout = _Layout(label_map)
    present = np.flatnonzero(layout.counts)
    if present.tolist() == [0, 1]:
        return (
            "found skin (1) and background (0) alone, expected a face's classes; a black-and-white mask of what is in "
            "front of the background is not enough"
        )
    faults = _faults(layout)
    if present[0] == 1 and len(present) > 2:
        return _said(["no background (0), but labels from 1 on"], ["one-based"])
    mirrored = layout.nose_in_skin() and layout.mirrored()
    if not faults and not mirrored:
        return ""
    orders = [name for name in ORDERS if name not in ("celebamask", "segface") and _fits(label_map, name)]
    if faults or orders:
        return _said(faults or ["every left part on the picture's left"], orders)
    return (
        "found every left part on the picture's left, expected it on the right (left is the person's own): colours of "
        "the reference's web demo need palette='demo'; a mirrored mask needs left and right labels exchanged"
    )


def _fits(label_map: np.ndarray, name: str) -> bool:
    """Whether the same numbers make a face in another order: nothing against it, and skin there."""
    table = order_table(name)
    if label_map.max() >= len(table) or (table[np.unique(label_map)] == 255).any():
        return False
    layout = _Layout(table[label_map])
    return layout.nose_in_skin() and not _faults(layout) and not layout.mirrored()


def _said(faults: list[str], orders: list[str]) -> str:
    if orders:
        cause = " or ".join(f"labels={name!r}" for name in orders)
        return (
            f"found {', '.join(faults[:2])}, which is no face; the numbers look like another parser's: choose {cause}"
        )
    return (
        f"found {', '.join(faults[:2])}, which is no face; expected CelebAMask-HQ's numbers (0 {LABELS[0]} ... 18 "
        f"{LABELS[-1]}): choose labels= for another parser's numbers, or turn the mask upright"
    )
