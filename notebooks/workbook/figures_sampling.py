"""Figures of notebook 09: where steps lie on the way, how errors fall with their number, and sweeps in panels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from workbook.figures import DASHES, LINES, drawing

_GRAY, _MARKS = "#999999", "osD^v"


def spacing(rows: Mapping[str, Sequence[float]]) -> Figure:
    """Lists of times as dots on lines from t = 1, at the left, to t = 0."""
    with drawing(0.9 + 0.42 * len(rows)) as figure:
        ax = figure.subplots()
        for row, times in enumerate(rows.values()):
            ax.plot([1, 0], [row, row], color=_GRAY, linewidth=1, zorder=1)
            ax.plot(times, [row] * len(times), "o", color=LINES[row % len(LINES)], markersize=7, zorder=2)
        ax.set_yticks(range(len(rows)), list(rows))
        ax.set(
            xlim=(1.03, -0.03), ylim=(len(rows) - 0.5, -0.5), xlabel="t (noise at the left, the picture at the right)"
        )
        ax.grid(axis="y", visible=False)
    return figure


def orders(errors: Mapping[str, Mapping[int, float]], *, xlabel: str, ylabel: str) -> Figure:
    """Errors over a number, both on logarithmic scales; in gray how they would fall by first and by second order.

    Args:
        errors: name -> number of steps -> error.
    """
    with drawing(3.4) as figure:
        ax = figure.subplots()
        for i, (name, values) in enumerate(errors.items()):
            ax.plot(*zip(*values.items(), strict=True), _MARKS[i] + DASHES[i], color=LINES[i], label=name)
        first = next(iter(errors.values()))
        counts = np.array(list(first), dtype=float)
        for order, dash in ((1, ":"), (2, "-.")):
            guide = 1.5 * first[list(first)[0]] * (counts / counts[0]) ** -order
            ax.plot(counts, guide, dash, color=_GRAY, label=f"order {order}: 1 / steps{'²' * (order == 2)}")
        _counts(ax, list(first))
        ax.set(yscale="log", xlabel=xlabel, ylabel=ylabel)
        figure.legend(loc="outside right upper")
    return figure


def sweep(
    panels: Mapping[str, Mapping[str, Mapping[float, float]]],
    *,
    xlabel: str,
    level: Mapping[str, Sequence[float]] | None = None,
) -> Figure:
    """Panels side by side over one x on a logarithmic scale.

    Args:
        panels: what is on the y axis -> name of a series -> x -> y. A name has the same colour in all panels.
        level: name of a dashed line -> its height in each panel.
    """
    names = list(dict.fromkeys(name for series in panels.values() for name in series))
    with drawing(3.5) as figure:
        row = figure.subplots(1, len(panels), squeeze=False)[0]
        for column, (ax, (ylabel, series)) in enumerate(zip(row, panels.items(), strict=True)):
            for name, values in series.items():
                i = names.index(name)
                ax.plot(*zip(*values.items(), strict=True), _MARKS[i] + DASHES[i], color=LINES[i], label=name)
            for name, heights in (level or {}).items():
                ax.axhline(heights[column], color=_GRAY, linestyle="--", label=name)
            _counts(ax, sorted({x for values in series.values() for x in values}))
            ax.set(xlabel=xlabel, ylabel=ylabel)
        handles, labels = row[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=len(labels))
    return figure


def _counts(ax: Any, counts: Sequence[float]) -> None:
    """A logarithmic axis whose ticks are just these numbers."""
    ax.set_xscale("log")
    ax.set_xticks(counts, [f"{count:g}" for count in counts])
    ax.xaxis.set_minor_locator(NullLocator())
