"""Figures of notebook 10: numbers with their intervals, row by row, and numbers by how many pictures there are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from workbook.figures import DASHES, LINES, drawing

_INK, _GRAY = "#222222", "#707070"
_MARKS = ("o", "D", "^", "s")
Number = float | Sequence[float]  # a value, or a value and the ends of its interval


def estimates(
    panels: Mapping[str, Mapping[str, Mapping[str, Number]]],
    *,
    zero: Sequence[str] = (),
    notes: Sequence[str] = (),
    lines: Mapping[str, Sequence[float]] | None = None,
) -> Figure:
    """Rows of numbers with their 95 % intervals, in panels side by side that share the rows.

    A mark without an interval is hollow.

    Args:
        panels: what a panel's numbers are -> series -> row -> a value, or (value, low, high). A series that is in
            several panels has one colour.
        zero: the panels with a line at 0; there a mark is hollow, too, whose interval holds 0.
        notes: a line of text below each panel's name: which way is better.
        lines: panel -> other places for a line; they are always in sight.
    """
    rows = list(dict.fromkeys(row for panel in panels.values() for some in panel.values() for row in some))
    names = list(dict.fromkeys(name for panel in panels.values() for name in panel))
    most = max(len(panel) for panel in panels.values())
    with drawing(1.3 + (0.2 + 0.16 * most) * len(rows), {"axes.grid.axis": "x"}) as figure:
        axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        for k, (ax, (title, panel)) in enumerate(zip(axes, panels.items(), strict=True)):
            for i, (name, some) in enumerate(panel.items()):
                shift = (i - (len(panel) - 1) / 2) * 0.28
                number = names.index(name)
                for row, found in some.items():
                    value, low, high = found if isinstance(found, Sequence) else (found, np.nan, np.nan)
                    y = rows.index(row) + shift
                    open_ = np.isnan(low) or (title in zero and low <= 0 <= high)
                    looks: dict[str, Any] = {"color": LINES[number], "markersize": 7, "marker": _MARKS[number]}
                    looks |= {"markerfacecolor": "white" if open_ else LINES[number], "markeredgewidth": 1.8}
                    ax.plot([low, high], [y, y], color=LINES[number], linewidth=2, zorder=2)
                    ax.plot([value], [y], linestyle="", zorder=3, **looks)
            for place in [*([0.0] if title in zero else ()), *(lines or {}).get(title, ())]:
                ax.axvline(place, color=_INK, linewidth=1.2, zorder=1)
            ax.set_xlabel(title + (f"\n{notes[k]}" if notes else ""))
            ax.locator_params(axis="x", nbins=5)
            ax.margins(x=0.08)
        axes[0].set_yticks(range(len(rows)), rows)
        axes[0].set_ylim(len(rows) - 0.4, -0.6)
        if len(names) > 1:
            for i, name in enumerate(names):
                axes[0].plot([], [], color=LINES[i], marker=_MARKS[i], label=name)
            figure.legend(loc="outside upper center", ncols=len(names))
    return figure


def by_size(
    panels: Mapping[str, Mapping[str, Any]],
    x: Sequence[float],
    *,
    xlabel: str,
    levels: Mapping[str, Mapping[str, float]] | None = None,
    log: bool = True,
) -> Figure:
    """Numbers by how many pictures they were measured on, in panels side by side.

    Args:
        panels: what the numbers are -> series -> (len(x), repeats), drawn as a mean and a band from the lowest to the
            highest; or (len(x),), drawn as a line.
        levels: panel -> name -> a height at which a dashed line lies, such as the truth.
        log: x is logarithmic.
    """
    with drawing(3.4) as figure:
        axes = figure.subplots(1, len(panels), squeeze=False)[0]
        for ax, (title, panel) in zip(axes, panels.items(), strict=True):
            for i, (name, values) in enumerate(panel.items()):
                y = np.asarray(values, dtype=float).reshape(len(x), -1)
                if y.shape[1] > 1:
                    ax.fill_between(x, y.min(axis=1), y.max(axis=1), color=LINES[i], alpha=0.18, linewidth=0)
                ax.plot(x, y.mean(axis=1), color=LINES[i], linestyle=DASHES[i], marker="o", markersize=4, label=name)
            heights = (levels or {}).get(title, {})
            for i, (name, height) in enumerate(heights.items()):
                ax.axhline(height, color=LINES[i] if len(heights) > 1 else _INK, linestyle=":", label=name)
            ax.set(xlabel=xlabel, ylabel=title)
            if log:
                ax.set_xscale("log")
                ax.set_xticks(list(x), [f"{one:g}" for one in x])
                ax.minorticks_off()
            ax.legend(fontsize=9)
    return figure
