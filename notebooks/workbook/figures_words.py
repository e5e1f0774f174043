"""Figures of notebook 03: pieces of a text, bars, histograms, and heads as different readers understand a sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse, FancyBboxPatch, Polygon, Rectangle

from workbook.figures import LINES, drawing

_GRAY, _INK, _RIGHT, _WRONG = "#707070", "#222222", LINES[2], LINES[1]


def pieces(rows: Mapping[str, Sequence[str]], ids: Mapping[str, Sequence[int]], places: Mapping[str, int]) -> Figure:
    """Texts cut into pieces: a row of boxes with each piece and its number, and one box for the padding behind.

    Args:
        rows, ids: name of the row -> its pieces, and their numbers.
        places: name of the row -> how many places it is padded to.
    """
    with drawing(0.85 * len(rows) + 0.1, {"axes.grid": False}) as figure:
        ax = figure.subplots()
        ends = []
        for y, (name, parts) in enumerate(rows.items()):
            texts = [*parts, f"+ {places[name] - len(parts)} padding"]
            x = 0.0
            for i, text in enumerate(texts):
                width, last = 0.55 + 0.17 * len(text), i == len(parts)
                looks: dict[str, Any] = {
                    "facecolor": "#eeeeee" if last else "#E3EFF7",
                    "edgecolor": _GRAY if last else LINES[0],
                }
                box = FancyBboxPatch((x, -y), width, 0.62, boxstyle="round,pad=0,rounding_size=0.1", **looks)
                ax.add_patch(box)
                middle = x + width / 2
                ax.text(middle, 0.42 - y, text, ha="center", va="center", color=_INK, fontsize=9)
                if not last:
                    ax.text(middle, 0.16 - y, str(ids[name][i]), ha="center", va="center", color=_GRAY, fontsize=8)
                x += width + 0.12
            ends.append(x)
        ax.set(xlim=(-0.05, max(ends)), ylim=(0.72 - len(rows), 0.75), xticks=[])
        ax.set_yticks([0.31 - y for y in range(len(rows))], rows)
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)
    return figure


def bars(
    series: Mapping[str, Sequence[float]],
    names: Sequence[str],
    *,
    xlabel: str,
    ylabel: str,
    level: float | Sequence[float] = (),
    level_name: str = "",
    colours: Sequence[int] = (),
) -> Figure:
    """Groups of bars: a group for each name, a bar in it for each series; and a dashed line at a level.

    Args:
        level: one for all groups, or one for each.
        colours: for each series the number of its colour.
    """
    used = list(colours) or list(range(len(series)))
    width = 0.8 / len(series)
    with drawing(3.2) as figure:
        ax = figure.subplots()
        for i, (name, values) in enumerate(series.items()):
            places = np.arange(len(names)) + (i - (len(series) - 1) / 2) * width
            ax.bar(places, np.asarray(values, dtype=float), 0.92 * width, color=LINES[used[i]], label=name)
        if level_name:
            levels = np.broadcast_to(level, len(names))
            ends = np.arange(len(names))[:, None] + [-0.5, 0.5]
            ax.hlines(levels, *ends.T, color=_INK, linestyle="--", linewidth=1.4, label=level_name)
        long = max(map(len, names)) * len(names) > 100
        ax.set_xticks(range(len(names)), names, rotation=35 if long else 0, ha="right" if long else "center")
        ax.set(xlabel=xlabel, ylabel=ylabel)
        ax.grid(axis="x", visible=False)
        if len(series) > 1 or level_name:
            figure.legend(loc="outside upper center", ncols=len(series) + 1)
    return figure


def histograms(series: Mapping[str, Any], *, xlabel: str, ylabel: str) -> Figure:
    """Histograms over one another, each in shares of its own series."""
    with drawing(3.2) as figure:
        ax = figure.subplots()
        arrays = {name: np.asarray(values, dtype=float) for name, values in series.items()}
        edges = np.linspace(min(map(np.min, arrays.values())), max(map(np.max, arrays.values())), 61)
        for i, (name, values) in enumerate(arrays.items()):
            heights = np.histogram(values, edges)[0] / len(values)
            ax.stairs(heights, edges, color=LINES[i], fill=True, alpha=0.45)
            ax.stairs(heights, edges, color=LINES[i], linewidth=1.5, label=name)
        ax.set(xlabel=xlabel, ylabel=ylabel)
        figure.legend(loc="outside upper center", ncols=len(series))
    return figure


def heads(
    readings: Mapping[str, Sequence[tuple[float, float]]], sentences: Sequence[str], said: Sequence[tuple[float, float]]
) -> Figure:
    """Heads with hair and hat, red or blue, as the sentences say them and as each reader understands them.

    Where a reader is not sure, the paint is mixed.

    Args:
        readings: reader -> for each sentence how sure it is (0 to 1) that the hair is red, and that the hat is red.
        sentences: they stand over the rows.
        said: for each sentence the same of what it says: 0 or 1.
    """
    columns = {"as it is said": said, **readings}
    with drawing(3.0 * len(sentences), {"axes.grid": False}) as figure:
        axes = figure.subplots(len(sentences), len(columns), squeeze=False)
        for (row, column), ax in np.ndenumerate(axes):
            name, right = list(columns)[column], said[row]
            _head(ax, *map(_mixed, columns[name][row]))
            for line, (what, red, true) in enumerate(zip(("hair", "hat"), columns[name][row], right, strict=True)):
                share, colour = (red, "red") if true else (1 - red, "blue")  # of the colour that is right
                mark, ink = ("✓", _RIGHT) if share > 0.75 else ("✗", _WRONG) if share < 0.25 else ("?", _INK)
                text, ink = (f"{mark} {what}: {share:.0%} {colour}", ink) if column else (f"{colour} {what}", _INK)
                ax.text(0.5, -0.06 - 0.13 * line, text, ha="center", va="center", color=ink)
            if row == 0:
                ax.set_title(name, weight="bold")
            if column == 0:
                quoted = ax.text(-0.05, 1.09, f"“{sentences[row]}”", va="center", style="italic")
                quoted.set_in_layout(False)  # it runs over the columns beside it
    return figure


def _mixed(red: float) -> np.ndarray:
    """Paint of red and blue, red in this share."""
    return red * np.array([0.84, 0.18, 0.18]) + (1 - red) * np.array([0.18, 0.37, 0.82])


def _head(ax: Any, hair: Any, hat: Any) -> None:
    """A head with long hair and a hat, in the unit square."""
    edge: dict[str, Any] = {"edgecolor": _INK, "linewidth": 1.2}
    arc = np.linspace(0, np.pi, 40)
    crown = zip(0.5 + 0.31 * np.cos(arc), 0.46 + 0.39 * np.sin(arc), strict=True)
    ax.add_patch(Polygon([(0.81, 0.08), *crown, (0.19, 0.08)], facecolor=hair, **edge))
    ax.add_patch(Rectangle((0.41, 0.08), 0.18, 0.16, facecolor="#DDAE8C", edgecolor="none"))
    ax.add_patch(Ellipse((0.5, 0.42), 0.42, 0.56, facecolor="#EBC3A4", **edge))
    for x in (0.42, 0.58):
        ax.add_patch(Ellipse((x, 0.46), 0.04, 0.05, facecolor=_INK, edgecolor="none"))
    ax.plot([0.44, 0.5, 0.56], [0.28, 0.26, 0.28], color="#A5493D", linewidth=2.2)
    ax.add_patch(Polygon([(0.3, 0.62), (0.33, 0.96), (0.67, 0.96), (0.7, 0.62)], facecolor=hat, **edge))
    ax.add_patch(Ellipse((0.5, 0.62), 0.78, 0.11, facecolor=hat, **edge))
    ax.set(xlim=(-0.05, 1.05), ylim=(-0.28, 1.18), xticks=[], yticks=[], aspect="equal", facecolor="none")
    ax.spines[:].set_visible(False)
