"""Figures of notebook 05: who may look at whom, and bars."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import accumulate

import matplotlib
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from torch import Tensor

from workbook.figures import LINES, STYLE, WIDTH

_MAY, _MAY_NOT = "#0072B2", "#e8e8e8"


def rules(masks: Mapping[str, Tensor], sizes: Mapping[str, int]) -> Figure:
    """Matrices of booleans (L, L), True where a query may look at a key; `sizes` are the streams along both axes."""
    ends = list(accumulate(sizes.values()))
    middles = [end - size / 2 - 0.5 for end, size in zip(ends, sizes.values(), strict=True)]
    with matplotlib.rc_context({"axes.grid": False}, STYLE):
        figure = Figure(figsize=(WIDTH, WIDTH / len(masks) + 0.7), layout="constrained")
        row = figure.subplots(1, len(masks), sharey=True, squeeze=False)[0]
        colours = matplotlib.colors.ListedColormap([_MAY_NOT, _MAY])
        for ax, (name, mask) in zip(row, masks.items(), strict=True):
            ax.imshow(mask.numpy(), cmap=colours, vmin=0, vmax=1, interpolation="nearest")
            for end in ends[:-1]:
                ax.axhline(end - 0.5, color="white")
                ax.axvline(end - 0.5, color="white")
            ax.set_xticks(middles, list(sizes))
            ax.set_yticks(middles, list(sizes), rotation=90, va="center")
            ax.tick_params(length=0)
            ax.set(title=name, xlabel="looked at (keys)")
        row[0].set_ylabel("looking (queries)")
        patches = [Patch(facecolor=_MAY, label="may look"), Patch(facecolor=_MAY_NOT, label="may not look")]
        figure.legend(handles=patches, loc="outside lower center", ncols=2)
    return figure


def bars(values: Mapping[str, float], *, xlabel: str) -> Figure:
    """A bar for each named number, the first one on top, with the number at its end."""
    with matplotlib.rc_context({"axes.grid.axis": "x"}, STYLE):
        figure = Figure(figsize=(WIDTH, 0.9 + 0.4 * len(values)), layout="constrained")
        ax = figure.subplots()
        drawn = ax.barh(list(values), list(values.values()), color=LINES[0], height=0.6)
        ax.bar_label(drawn, fmt="%.1f", padding=4)
        ax.invert_yaxis()
        ax.margins(x=0.08)
        ax.set(xlabel=xlabel)
    return figure
