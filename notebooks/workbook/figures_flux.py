"""Figures of notebook 04: a flow in two dimensions as clouds, arrows and paths; and who attends to whom."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import matplotlib
import numpy as np
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from torch import Tensor

from workbook.figures import LINES, MAP, STYLE, WIDTH

#: Of points: small and with sharp edges, which makes files half as large.
_POINT: dict[str, Any] = {"marker": "s", "linestyle": "", "markeredgewidth": 0, "antialiased": False}


def _panels(titles: Iterable[str], behind: Tensor | None, side: float = 2.4) -> tuple[Figure, list[Any]]:
    """A row of square panels of one scale, from -side to side, with a drawing in gray behind what comes."""
    names = list(titles)
    figure = Figure(figsize=(WIDTH, WIDTH / max(len(names), 2.7) + 0.5), layout="constrained")
    row = list(figure.subplots(1, len(names), sharey=True, squeeze=False)[0])
    for ax, name in zip(row, names, strict=True):
        ax.set(title=name, xlabel="x", aspect="equal", xlim=(-side, side), ylim=(-side, side))
        ax.set(xticks=(-1, 0, 1), yticks=(-1, 0, 1))
        if behind is not None:
            ax.plot(*behind.T.numpy(), color="#cccccc", markersize=1.4, zorder=0, **_POINT)
    row[0].set_ylabel("y")
    return figure, row


def clouds(panels: Mapping[str, Tensor], behind: Tensor | None = None) -> Figure:
    """Points (B, 2) under their titles; `behind` them the points of a drawing, in gray."""
    with matplotlib.rc_context({}, STYLE):
        figure, row = _panels(panels, behind)
        for ax, points in zip(row, panels.values(), strict=True):
            ax.plot(*points.T.numpy(), color=LINES[0], markersize=1.4 if len(row) < 4 else 1, **_POINT)
    return figure


def arrows(fields: Mapping[str, tuple[Tensor, Tensor]], behind: Tensor) -> Figure:
    """Arrows (M, 2) at places (M, 2), all of one length; their colour is how long they really are."""
    longest = max(float(arrow.norm(dim=1).max()) for _, arrow in fields.values())
    with matplotlib.rc_context({}, STYLE):
        figure, row = _panels(fields, behind)
        for ax, (places, arrow) in zip(row, fields.values(), strict=True):
            speed = arrow.norm(dim=1)
            looks: dict[str, Any] = {
                "cmap": MAP,
                "clim": (0, longest),
                "angles": "xy",
                "scale_units": "xy",
                "scale": 3.4,
            }
            ends = (arrow / speed[:, None]).T.numpy()
            drawn = ax.quiver(*places.T.numpy(), *ends, speed.numpy(), width=0.008, pivot="mid", **looks)
            drawn.set_antialiased(False)
        figure.colorbar(drawn, ax=row, label="speed", fraction=0.03, pad=0.01, shrink=0.8)
    return figure


def paths(panels: Mapping[str, Tensor], behind: Tensor) -> Figure:
    """Paths (S, B, 2): a ring where each begins, a dot where it ends."""
    with matplotlib.rc_context({}, STYLE):
        figure, row = _panels(panels, behind, side=1.8)
        for ax, path in zip(row, panels.values(), strict=True):
            for i, one in enumerate(np.swapaxes(path.numpy(), 0, 1)):
                colour = LINES[i % len(LINES)]
                ax.plot(*one.T, color=colour, linewidth=1.1)
                ax.plot(*one[0], "o", color=colour, markersize=5, fillstyle="none")
                ax.plot(*one[-1], "o", color=colour, markersize=4)
    return figure


def attention_map(weights: Tensor, num_text: int) -> Figure:
    """Attention weights (T + N, T + N), rows look at columns; lines between text and image."""
    with matplotlib.rc_context({"axes.grid": False}, STYLE):
        figure = Figure(figsize=(WIDTH, 4.6), layout="constrained")
        ax, count = figure.subplots(), len(weights)
        drawn = ax.imshow(weights.numpy(), cmap=MAP, norm=PowerNorm(0.4, vmin=0), interpolation="nearest")
        figure.colorbar(drawn, ax=ax, label="weight")
        ax.axhline(num_text - 0.5, color="white")
        ax.axvline(num_text - 0.5, color="white")
        middle = (num_text / 2, (num_text + count) / 2)
        names = (f"{num_text} text tokens", f"{count - num_text} image tokens")
        ax.set_xticks(middle, names)
        ax.set_yticks(middle, names, rotation=90, va="center")
        ax.set(xlabel="looked at (keys)", ylabel="looking (queries)")
    return figure
