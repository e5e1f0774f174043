"""Figures of notebook 11: differences with their intervals, row by row, and what a detector says of each kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from workbook.figures import LINES, drawing

_GRAY, _INK = "#707070", "#222222"
#: What an interval decides: its colour, and its mark.
_BETTER, _WORSE, _OPEN = (LINES[2], "^"), (LINES[1], "v"), (_GRAY, "o")
_MEANING = {"less": _WORSE, "no difference is shown": _OPEN, "more": _BETTER}
_STEPS = (1, 3, 10, 30, 100, 300)
Interval = Sequence[float]


def look(gap: Interval) -> tuple[str, str]:
    """Colour and mark of a difference (value, low, high): worse, better, or an interval that holds zero."""
    return _BETTER if gap[1] > 0 else _WORSE if gap[2] < 0 else _OPEN


def gap_rows(
    panels: Mapping[str, Mapping[str, Interval]], *, groups: Mapping[str, Sequence[str]] | None = None,
    straight: float = 1.0,
) -> Figure:  # fmt: skip
    """Rows of differences with their intervals, in panels side by side; the number stands at the right of each.

    Colour and mark say what the interval decides. The axis is logarithmic beyond `straight` on both sides of zero, as
    some differences are a hundred times as large as others.

    Args:
        panels: what a panel's numbers are -> row -> (value, low, high); a row may be missing.
        groups: title -> its rows, by default all rows of the first panel without a title.
    """
    parts = groups or {"": list(next(iter(panels.values())))}
    places, heads, y = dict[str, float](), dict[str, float](), 0.0
    for title, rows in parts.items():
        if title:
            heads[title] = y
            y += 0.9
        for row in rows:
            places[row] = y
            y += 1
        y += 0.35
    with drawing(1.1 + 0.29 * y, {"axes.grid.axis": "x"}) as figure:
        axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        for ax, (title, gaps) in zip(axes, panels.items(), strict=True):
            _panel(ax, {places[row]: gap for row, gap in gaps.items() if row in places}, straight)
            ax.set(xlabel=title, ylim=(y - 0.4, -0.8))
        axes[0].set_yticks(list(places.values()), list(places))
        axes[0].tick_params(axis="y", length=0)
        for title, place in heads.items():
            looks: dict[str, Any] = {"weight": "bold", "va": "center", "ha": "right", "color": _INK}
            axes[0].text(-0.02, place, title, transform=_beside(axes[0]), **looks).set_in_layout(False)
        for name, (colour, mark) in _MEANING.items():
            axes[0].plot([], [], mark, color=colour, markersize=7, label=name)
        figure.legend(loc="outside lower center", ncols=3, fontsize=9)
    return figure


def _beside(ax: Any) -> Any:
    """x as a share of the axes, y in rows."""
    return ax.get_yaxis_transform()


def _panel(ax: Any, gaps: Mapping[float, Interval], straight: float) -> None:
    for y, gap in gaps.items():
        (value, low, high), (colour, mark) = gap, look(gap)
        ax.plot([low, high], [y, y], color=colour, linewidth=2.5, solid_capstyle="butt", zorder=2)
        ax.plot(value, y, mark, color=colour, markersize=7, zorder=3)
        shown = f"{value:+.1f}" if abs(value) >= 0.05 else "0.0"
        ax.text(1.02, y, shown, va="center", ha="left", color=colour, fontsize=9, transform=_beside(ax))
    ends = [end for gap in gaps.values() for end in gap]
    ax.axvline(0, color=_INK, linewidth=1, zorder=1)
    ax.set_xscale("symlog", linthresh=straight, linscale=1.0)
    ticks = [sign * step for sign in (-1, 1) for step in _STEPS if min(ends) <= sign * step <= max(ends)]
    ax.xaxis.set_major_locator(FixedLocator(sorted([0, *ticks])))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:+g}" if value else "0"))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.grid(axis="y", visible=False)
    ax.set_xlim(1.6 * min(-straight / 2, *ends), 1.6 * max(straight / 2, *ends))


def score_rows(scores: Mapping[str, Any], threshold: float, *, xlabel: str) -> Figure:
    """A row of dots for each kind of picture, a dot a picture, and the threshold above which one is accused.

    At the right stands the share that is accused.
    """
    rng = np.random.default_rng(0)
    with drawing(0.9 + 0.42 * len(scores), {"axes.grid.axis": "x"}) as figure:
        ax = figure.subplots()
        for row, (name, values) in enumerate(scores.items()):
            array = np.asarray(values, dtype=float)
            colour = LINES[1] if name.startswith("generated") else LINES[0]
            heights = row + rng.uniform(-0.26, 0.26, len(array))
            ax.plot(array, heights, ".", color=colour, markersize=6, markeredgewidth=0, alpha=0.6, zorder=2)
            share = (array > threshold).mean()
            ax.text(1.01, row, f"{share:.0%}", va="center", color=_INK, fontsize=10, transform=_beside(ax))
        ax.text(1.01, -0.75, "accused", va="center", color=_GRAY, fontsize=9, transform=_beside(ax))
        ax.axvline(threshold, color=_INK, linestyle="--", linewidth=1.4, label="accused from here on")
        ax.set_yticks(range(len(scores)), list(scores))
        ax.tick_params(axis="y", length=0)
        ax.set(xlabel=xlabel, ylim=(len(scores) - 0.5, -0.6))
        ax.grid(axis="y", visible=False)
        figure.legend(loc="outside lower center", fontsize=9)
    return figure
