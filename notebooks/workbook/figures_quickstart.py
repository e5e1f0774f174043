"""Figures of notebook 00: what was asked and what is seen, picture by picture; and who decides what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from workbook.figures import LINES, WIDTH, drawing, pixels

_RIGHT, _WRONG, _UNASKED, _INK, _GRAY = "#CFE8DF", "#F7D9C6", "#f2f2f2", "#222222", "#707070"
#: What may decide an attribute: its colour, and its mark (kind, size, shift within the row).
DECIDERS: dict[str, tuple[str, tuple[str, int, float]]] = {
    "mask": (LINES[0], ("o", 8, -0.16)),
    "sentence": (LINES[1], ("s", 8, 0.16)),
    "neither": (_GRAY, ("|", 14, 0)),
}


def verdicts(
    pictures: Sequence[Any],
    asked: Sequence[Mapping[str, str]],
    seen: Sequence[Mapping[str, str]],
) -> Figure:
    """A column for each picture, a row for each attribute: what a judge sees, and whether that was asked for.

    Args:
        asked: for each picture, attribute -> value; what it does not name is left empty.
        seen: the same as the judge reads the picture.
    """
    names = list(dict.fromkeys(name for each in asked for name in each))
    left, tall = 1.5, 0.42  # in units of a column's width
    height = WIDTH / (left + len(pictures)) * (1.0 + tall * len(names)) + 0.35
    with drawing(height, {"axes.grid": False}) as figure:
        board = figure.subplots()
        for c, (picture, wanted, found) in enumerate(zip(pictures, asked, seen, strict=True)):
            board.imshow(_thumbnail(picture), extent=(c + 0.02, c + 0.98, 0.03, 0.99), interpolation="nearest")
            for r, name in enumerate(names):
                right, low = wanted.get(name) == found[name], -tall * (r + 1)
                colour = _RIGHT if right else _WRONG if name in wanted else _UNASKED
                board.add_patch(Rectangle((c + 0.02, low + 0.02), 0.96, tall - 0.04, facecolor=colour))
                text = f"{'✓' if right else '✗'} {found[name]}" if name in wanted else ""
                size = 9 if len(text) < 11 else 7.5
                board.text(c + 0.5, low + tall / 2, text, ha="center", va="center", color=_INK, fontsize=size)
        for r, name in enumerate(names):
            where: dict[str, Any] = {"ha": "right", "va": "center", "color": _INK, "fontsize": 10}
            board.text(-0.06, -tall * (r + 0.5), name.replace("_", " "), **where)
        board.set(xlim=(-left, len(pictures)), ylim=(-tall * len(names), 1.0), aspect="equal")
        board.axis("off")
        for colour, text in ((_RIGHT, "✓ as asked"), (_WRONG, "✗ something else"), (_UNASKED, "not asked")):
            board.plot([], [], "s", markersize=10, color=colour, label=text)
        figure.legend(loc="outside lower center", ncols=3, fontsize=9)
    return figure


def _thumbnail(picture: Any) -> Image.Image:
    return Image.fromarray(pixels(picture)).resize((80, 80), Image.Resampling.LANCZOS)


def deciders(alike: Mapping[str, Mapping[str, float]], said: Mapping[str, str]) -> Figure:
    """For each attribute how often two portraits are read alike, by what they share; and who was said to decide.

    Args:
        alike: attribute -> {"mask": share, "sentence": share, "neither": share}, each from 0 to 1.
        said: attribute -> a key of `DECIDERS`, or nothing.
    """
    names = list(alike)
    with drawing(1.0 + 0.29 * len(names)) as figure:
        ax = figure.subplots()
        rows = np.arange(len(names))
        for key, (colour, (kind, size, shift)) in DECIDERS.items():
            values, text = [alike[name][key] for name in names], "neither" if key == "neither" else f"the {key} alone"
            looks: dict[str, Any] = {"color": colour, "markersize": size, "zorder": 3}
            looks["markeredgewidth"] = 2.5 if kind == "|" else 0
            ax.plot(values, rows + shift, kind, label=f"two portraits that share {text}", **looks)
        for row, name in enumerate(names):
            best = measured(alike[name])
            ax.text(1.1, row, best, color=DECIDERS[best][0], va="center", weight="bold")
            ax.text(1.38, row, said.get(name, ""), color=_INK, va="center")
        for x, title in ((1.1, "measured"), (1.38, "predicted")):
            ax.text(x, -1.1, title, color=_INK, va="center", fontsize=9)
        ax.set_yticks(rows, [name.replace("_", " ") for name in names])
        ax.set(xlim=(-0.04, 1.62), ylim=(len(names) - 0.4, -1.6), xlabel="share of pairs that are read alike")
        ax.set_xticks([0, 0.25, 0.5, 0.75, 1])
        ax.spines["bottom"].set_bounds(0, 1)
        ax.grid(axis="y", visible=False)
        figure.legend(loc="outside lower center", ncols=3, fontsize=9)
    return figure


def measured(alike: Mapping[str, float], margin: float = 0.25) -> str:
    """Who decides: what two portraits have to share to be read alike more often, by at least the margin."""
    gains = {key: alike[key] - alike["neither"] for key in ("mask", "sentence")}
    best = max(gains, key=lambda key: gains[key])
    return best if gains[best] >= margin else "neither"
