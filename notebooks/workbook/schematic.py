"""The schematic of the whole method, which opens every notebook with the part at hand lit up."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle
from PIL import Image

from mogle.conditions import condition_images
from mogle.labels import decode_mask
from workbook.figures import LINES, STYLE, WIDTH, pixels, show

_LIT, _FILL, _DIM, _GRAY, _INK = LINES[1], "#FBE9DD", "#bbbbbb", "#707070", "#222222"
#: Boxes: name -> (left, bottom, width, height) on a board of 10 x 4.2.
_BOXES = {
    "sentence": (0.05, 3.3, 2.3, 0.7),
    "words": (2.75, 3.3, 1.25, 0.7),
    "tokens": (2.75, 1.55, 1.25, 0.8),
    "experts": (4.45, 2.05, 1.25, 0.7),
    "gate": (4.45, 1.15, 1.25, 0.7),
    "stream": (6.15, 1.55, 1.05, 0.8),
    "flux": (7.6, 0.1, 1.15, 3.9),
    "lora": (7.7, 1.6, 0.95, 0.7),
    "noise": (2.75, 0.15, 1.25, 0.7),
    "steps": (9.0, 0.15, 0.95, 0.7),
}
_ARROWS = (
    ("mask", "pictures"), ("pictures", "tokens"), ("tokens", "experts"), ("tokens", "gate"), ("noise", "gate"),
    ("experts", "stream"), ("gate", "stream"), ("stream", "lora"), ("sentence", "words"), ("words", "flux"),
    ("noise", "flux"), ("flux", "steps"), ("steps", "face"),
)  # fmt: skip
#: Pictures one above the other: name -> (left, bottom), side, how many.
_PICTURES = {"mask": ((0.05, 1.35), 1.2, 1), "pictures": ((1.65, 0.95), 0.62, 3), "face": ((9.0, 1.5), 0.95, 1)}
_GAP = 0.06
PARTS = ("mask", "pictures", *_BOXES, "face")
BOARD = (10, 4.2)  # width and height
#: Which notebook takes which part to pieces; 11 leaves parts out, and 12 plays with the whole.
COURSE = {
    "mask": "01", "face": "10", "pictures": "02", "tokens": "02", "words": "03", "flux": "04", "noise": "04",
    "stream": "05", "experts": "06", "gate": "07", "lora": "08", "steps": "09",
}  # fmt: skip


#: For those who cannot see it; the parts at hand are named after it.
ALT = (
    "A map of the method. A mask becomes 20 pictures, these become tokens, 20 experts and a gate make one condition "
    "stream of them. FLUX, frozen, has three streams: text from a sentence, the condition with LoRA, and the noisy "
    "image; 28 steps lead to the face."
)


def place(part: str) -> tuple[float, float, float, float]:
    """Left, bottom, width and height of a part on the board."""
    if part in _BOXES:
        return _BOXES[part]
    (left, bottom), side, count = _PICTURES[part]
    return left, bottom, side, count * (side + _GAP) - _GAP


def schematic(*lit: str, mask: Path, face: Path, numbers: Mapping[str, str] | None = None) -> Figure:
    """Mask -> 20 pictures -> tokens -> experts and gate -> second stream -> transformer -> face.

    Args:
        *lit: the parts at hand, of `PARTS`; the others are drawn in gray.
        mask, face: the files that are shown. The shapes in the figure are those of this mask.
        numbers: a part -> the number that it carries in a disc.

    Raises:
        ValueError: a part that does not exist.
    """
    if unknown := {*lit, *(numbers or {})} - set(PARTS):
        raise ValueError(f"found {', '.join(sorted(unknown))}; expected parts of {', '.join(PARTS)}")
    label_map = decode_mask(mask)
    images = condition_images(label_map)
    height, width = label_map.shape
    n, e = height * width // 256, len(images)  # a token stands for 16 x 16 pixels
    texts: dict[str, tuple[str, str]] = {
        "sentence": ("“She has black hair\nand wears a hat.”", ""),
        "words": ("CLIP and T5", "text tokens"),
        "tokens": ("VAE, pack", f"{e} × {n} × 64"),
        "experts": (f"{e} experts", f"{e} × {n} × 64"),
        "gate": ("gate", f"{n} × {e}"),
        "stream": ("condition\nstream", f"{n} × 64"),
        "flux": ("", ""),
        "lora": ("condition", "with LoRA"),
        "noise": ("noise, time", f"{n} × 64"),
        "steps": ("28 steps", "and VAE"),
    }
    chosen = [0, *(1 + label for label in (14, 13))]  # global, hat, hair
    with matplotlib.rc_context({"axes.grid": False}, STYLE):
        figure = Figure(figsize=(WIDTH, WIDTH * 0.42))
        board = figure.add_axes((0, 0, 1, 1), xlim=(0, BOARD[0]), ylim=(0, BOARD[1]))
        board.axis("off")
        for name in _BOXES:
            _box(board, name, *texts[name], name in lit)
        _pictures(board, "mask", [pixels(label_map)], f"mask\n{height} × {width}", "mask" in lit)
        _pictures(board, "pictures", [pixels(images[i]) for i in chosen], f"{e} pictures", "pictures" in lit)
        _pictures(board, "face", [np.asarray(Image.open(face).convert("RGB"))], "face", "face" in lit)
        for start, end in _ARROWS:
            _arrow(board, place(start), place(end), start in lit and end in lit)
        looks: dict[str, Any] = {"color": _INK if "flux" in lit else _GRAY, "va": "center", "ha": "center"}
        left, _, width, _ = _BOXES["flux"]
        for y, name in ((3.65, "text"), (2.95, "FLUX,\nfrozen"), (0.5, "image")):
            weight = "bold" if "flux" in lit and "FLUX" in name else "normal"
            board.text(left + width / 2, y, name, weight=weight, **looks)
        for name, number in (numbers or {}).items():
            left, bottom, _, height = place(name)  # over pictures stands their text, so below them there is room
            _disc(
                board, left + 0.16, bottom if name in ("mask", "pictures", "face") else bottom + height + 0.05, number
            )
    return figure


def _disc(board: Any, x: float, y: float, number: str) -> None:
    """A number in a disc."""
    looks: dict[str, Any] = {"ha": "center", "va": "center", "color": "white", "fontsize": 9, "weight": "bold"}
    board.plot(x, y, "o", markersize=17, color=LINES[0], zorder=4)
    board.text(x, y - 0.01, number, zorder=5, **looks)


def show_lit(*lit: str, mask: Path, face: Path) -> None:
    """Display the schematic, with a text for those who cannot see it."""
    show(schematic(*lit, mask=mask, face=face), alt=f"{ALT} Lit here: {', '.join(lit)}.")


def show_course(*, mask: Path, face: Path) -> None:
    """Display the schematic with the number of the notebook that takes each part to pieces."""
    parts = "; ".join(f"{number} {part}" for part, number in sorted(COURSE.items(), key=lambda item: item[1]))
    show(
        schematic(mask=mask, face=face, numbers=COURSE), alt=f"{ALT} Numbers of notebooks stand at the parts: {parts}."
    )


def _box(board: Any, name: str, title: str, shape: str, lit: bool) -> None:
    """A named box with the shape of what leaves it."""
    left, bottom, width, height = _BOXES[name]
    colours: dict[str, Any] = {
        "edgecolor": _LIT if lit else _DIM,
        "facecolor": _FILL if lit else "white",
        "linewidth": 2.5 if lit else 1,
    }
    board.add_patch(FancyBboxPatch((left, bottom), width, height, boxstyle="round,pad=0,rounding_size=0.08", **colours))
    ink, weight = (_INK, "bold") if lit else (_GRAY, "normal")
    middle = left + width / 2
    board.text(
        middle, bottom + height * (0.68 if shape else 0.5), title, ha="center", va="center", color=ink, weight=weight
    )
    board.text(middle, bottom + height * 0.26, shape, ha="center", va="center", color=ink, fontsize=9)


def _pictures(board: Any, name: str, pictures: list[Any], text: str, lit: bool) -> None:
    """Pictures one above the other, with a text above them."""
    (left, bottom), side, _ = _PICTURES[name]
    for i, picture in enumerate(pictures):
        low = bottom + i * (side + _GAP)
        board.imshow(picture, extent=(left, left + side, low, low + side), interpolation="nearest", zorder=2)
        frame: dict[str, Any] = {
            "edgecolor": _LIT if lit else _DIM,
            "linewidth": 2.5 if lit else 1,
            "facecolor": "none",
        }
        board.add_patch(Rectangle((left, low), side, side, zorder=3, **frame))
    ink, weight = (_INK, "bold") if lit else (_GRAY, "normal")
    top = bottom + len(pictures) * (side + _GAP)
    board.text(left + side / 2, top + 0.05, text, ha="center", va="bottom", color=ink, weight=weight, fontsize=9)
    board.set(xlim=(0, BOARD[0]), ylim=(0, BOARD[1]), aspect="auto")


def _arrow(board: Any, start: tuple[float, ...], end: tuple[float, ...], lit: bool) -> None:
    """From the side of one thing that faces the other: rightwards where there is room, else up or down."""
    (left, bottom, width, height), (left_2, bottom_2, width_2, height_2) = start, end
    if left_2 >= left + width:
        low, high = max(bottom, bottom_2) + 0.3, min(bottom + height, bottom_2 + height_2) - 0.3
        middle = bottom + height / 2, bottom_2 + height_2 / 2
        if low <= high:  # side by side: a level arrow, from or to the middle of the smaller one
            middle = (middle[0] if height < height_2 else middle[1],) * 2
        points = (left + width + 0.04, middle[0]), (left_2 - 0.04, middle[1])
    elif bottom_2 >= bottom + height:
        points = (left + width / 2, bottom + height + 0.04), (left_2 + width_2 / 2, bottom_2 - 0.04)
    else:
        points = (left + width / 2, bottom - 0.04), (left + width / 2, bottom_2 + height_2 + 0.04)
    looks = {"arrowstyle": "-|>", "color": _LIT if lit else _GRAY, "linewidth": 1.8 if lit else 1.1, "shrinkA": 0}
    board.annotate("", points[1], points[0], arrowprops={**looks, "shrinkB": 0, "mutation_scale": 12}, zorder=1)
