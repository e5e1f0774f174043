"""The 19 classes of CelebAMask-HQ: their names, their colours, and the numbers that other face parsers give them.

All of it is data, in `classes.toml` beside this file.
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mogle.errors import MogleError

_DATA = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))

#: Names, by label.
LABELS: tuple[str, ...] = tuple(_DATA["classes"])

#: Colours in the data sets' own files, by label: (19, 3).
PALETTE = np.array(list(_DATA["classes"].values()), dtype=np.uint8)

#: The palette of the reference's web demo: the colours of left and right eye, brow and ear are swapped.
DEMO_PALETTE = PALETTE[[0, 1, 2, 3, 5, 4, 7, 6, 9, 8, *range(10, 19)]]

#: Which class each number stands for, by who gives the numbers; "" where a number stands for nothing.
ORDERS: dict[str, list[str]] = _DATA["orders"]

#: The labels of each class, and of classes that are looked at together.
GROUPS = {name: [label] for label, name in enumerate(LABELS)}
GROUPS |= {group: [LABELS.index(name) for name in names] for group, names in _DATA["groups"].items()}

#: What no face has: words for it, and two measures of which the first is then less than the second.
FAULTS: dict[str, list[list[str]]] = _DATA["faults"]


def order_table(labels: str) -> np.ndarray:
    """Number -> label, uint8 (256,), for a name in `ORDERS`; 255 where a number stands for nothing.

    Raises:
        MogleError: no such name.
    """
    if labels not in ORDERS:
        raise MogleError(f"labels={labels!r}: expected one of {', '.join(map(repr, ORDERS))}")
    return names_table(ORDERS[labels])


def names_table(names: Sequence[str]) -> np.ndarray:
    """Number -> label, uint8 (256,), for class names by number; 255 where a number stands for nothing ("")."""
    table = np.full(256, 255, dtype=np.uint8)
    for number, name in enumerate(names):
        table[number] = LABELS.index(name) if name else 255
    return table
