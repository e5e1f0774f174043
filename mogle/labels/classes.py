"""The 19 classes of CelebAMask-HQ: their names, their colours, and the numbers that other face parsers give them."""

from __future__ import annotations

import numpy as np

from mogle.errors import MogleError

LABELS: tuple[str, ...] = (
    "background", "skin", "nose", "eye_g", "l_eye", "r_eye", "l_brow", "r_brow", "l_ear", "r_ear",
    "mouth", "u_lip", "l_lip", "hair", "hat", "ear_r", "neck_l", "neck", "cloth",
)  # fmt: skip

#: Colours in the data sets' own files, by label: (19, 3).
PALETTE = np.array(
    [
        (0, 0, 0), (204, 0, 0), (76, 153, 0), (204, 204, 0), (51, 51, 255), (204, 0, 204), (0, 255, 255),
        (255, 204, 204), (102, 51, 0), (255, 0, 0), (102, 204, 0), (255, 255, 0), (0, 0, 153), (0, 0, 204),
        (255, 51, 153), (0, 204, 204), (0, 51, 0), (255, 153, 51), (0, 204, 0),
    ],
    dtype=np.uint8,
)  # fmt: skip

#: The palette of the reference's web demo: the colours of left and right eye, brow and ear are swapped.
DEMO_PALETTE = PALETTE[[0, 1, 2, 3, 5, 4, 7, 6, 9, 8, *range(10, 19)]]

_FARL = (
    "background", "neck", "skin", "cloth", "l_ear", "r_ear", "l_brow", "r_brow", "l_eye", "r_eye", "nose", "mouth",
    "l_lip", "u_lip", "hair", "eye_g", "hat", "ear_r", "neck_l",
)  # fmt: skip

#: Which class each number stands for, by who gives the numbers; "" where a number stands for nothing. "l_" is the
#: person's left and lies on the picture's right in all of them; FaRL's own short names ("re", "lb") are the viewer's.
ORDERS: dict[str, tuple[str, ...]] = {
    "celebamask": LABELS,
    "bisenet": (  # face-parsing.PyTorch
        "background", "skin", "l_brow", "r_brow", "l_eye", "r_eye", "eye_g", "l_ear", "r_ear", "ear_r", "nose",
        "mouth", "u_lip", "l_lip", "neck", "neck_l", "cloth", "hair", "hat",
    ),
    "lapa": (  # and Helen: no ears, neck, clothes, hats; "mouth" is the inside of it
        "background", "skin", "l_brow", "r_brow", "l_eye", "r_eye", "nose", "u_lip", "mouth", "l_lip", "hair",
    ),
    "farl": _FARL,
    "segface": _FARL,
    "one-based": ("", *LABELS),  # CelebAMask-HQ's own order, counted from 1
}  # fmt: skip


def order_table(labels: str) -> np.ndarray:
    """Number -> label, uint8 (256,), for a name in `ORDERS`; 255 where a number stands for nothing.

    Raises:
        MogleError: no such name.
    """
    if labels not in ORDERS:
        raise MogleError(f"labels={labels!r}: expected one of {', '.join(map(repr, ORDERS))}")
    known = [LABELS.index(name) if name else 255 for name in ORDERS[labels]]
    return np.array(known + [255] * (256 - len(known)), dtype=np.uint8)
