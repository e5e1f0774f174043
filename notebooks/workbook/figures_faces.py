"""Figures of notebook 01: bars for the 19 classes, and rows of dots that compare a few numbers for many names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from mogle.labels import LABELS, PALETTE
from workbook.figures import LINES, STYLE, WIDTH

_MARKS = ("o", "D", "^", "s")


def class_bars(table: Any) -> Figure:
    """How often and how large the 19 classes are, two panels side by side: table (19, 2), shares of 0 to 1.

    Sizes are on a logarithmic scale, which has no place for a class that never occurs: its bar is missing there.
    """
    often, large = np.asarray(table, dtype=float).T
    rows, colours = np.arange(len(LABELS)), PALETTE / 255
    with matplotlib.rc_context(fname=STYLE):
        figure = Figure(figsize=(WIDTH, 4.6), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True)
        for ax, values in ((left, often), (right, np.where(large > 0, large, np.nan))):
            ax.barh(rows, 100 * values, color=colours, edgecolor="#999999", linewidth=0.7)
            ax.grid(visible=False, axis="y")
        left.set(xlabel="% of masks that have the class", yticks=rows, ylim=(len(rows) - 0.4, -0.6))
        left.set_yticklabels([f"{i} {name}" for i, name in enumerate(LABELS)])
        right.set(xlabel="% of the picture, in masks that have it", xscale="log")
        ticks = (0.2, 1, 5, 20)
        right.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        right.minorticks_off()
    return figure


def rows_of_dots(
    series: Mapping[str, Mapping[str, float]], *, xlabel: str, ylabel: str = "", first: Sequence[str] = ()
) -> Figure:
    """Names from top to bottom, and for each a mark of every series, joined by a line from lowest to highest.

    Args:
        series: its name -> row -> value; a row that a series lacks has no mark of it.
        first: the rows in order, by default in that of the first series.
    """
    names = list(first) or list(next(iter(series.values())))
    with matplotlib.rc_context(fname=STYLE):
        figure = Figure(figsize=(WIDTH, 0.8 + 0.23 * len(names)), layout="constrained")
        ax = figure.subplots()
        for row, name in enumerate(names):
            values = [some[name] for some in series.values() if name in some]
            if values:
                ax.plot([min(values), max(values)], [row, row], color="#bbbbbb", linewidth=1.5, zorder=1)
        for i, (title, some) in enumerate(series.items()):
            there = [row for row, name in enumerate(names) if name in some]
            looks: dict[str, Any] = {"color": LINES[i], "marker": _MARKS[i], "s": 42, "zorder": 2 + i}
            if i == 1:  # a ring: where two marks fall together the first shows inside the second
                looks = looks | {"facecolor": "none", "edgecolor": LINES[i], "linewidth": 1.8}
                del looks["color"]
            ax.scatter([some[names[row]] for row in there], there, label=title, **looks)
        ax.set(xlabel=xlabel, ylabel=ylabel, yticks=range(len(names)), ylim=(len(names) - 0.4, -0.6))
        ax.set_yticklabels(names)
        figure.legend(loc="outside upper center", ncols=len(series))
    return figure
