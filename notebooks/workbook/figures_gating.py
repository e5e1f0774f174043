"""Figures of notebook 07: maps that have a scale each, a quiz over several masks, and lists of experts side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from mogle.errors import MogleError
from workbook.figures import EXPERTS, LINES, MAP, STYLE, WIDTH, drawing

_GRAY, _INK = "#707070", "#222222"
Limits = tuple[float, float]


def scaled_maps(
    maps: Sequence[Sequence[Any]],
    *,
    bar: str | Sequence[str],
    columns: Sequence[str] = (),
    rows: Sequence[str] = (),
    titles: Sequence[Sequence[str]] = (),
    limits: Sequence[Sequence[Limits]] = (),
    cell: float = 2.2,
) -> Figure:
    """Rows of maps of numbers. Each has a colour bar of its own; or, with `columns`, each column has one for all of its
    maps.

    Args:
        bar: what the numbers are, the same everywhere or by column; stands at every colour bar, between its lowest and
            its highest number.
        columns, rows: names over the columns and at the left of the rows.
        titles: a name over each map.
        limits: the ends of each map's scale; by default its lowest and highest number.
        cell: largest side of a map in inches.
    """
    arrays = [[_array(one) for one in row] for row in maps]
    count, left = max(map(len, arrays)), 0.75 if rows else 0.1
    names = [bar] * count if isinstance(bar, str) else list(bar)
    side, gap = min(cell, (WIDTH - left) / count - 0.14), 0.14
    if side == cell:  # few maps: spread them
        gap = (WIDTH - left) / count - side
    over, under = (0.04, 0.04) if columns else (0.26, 0.38)
    tall = over + side + under
    height = tall * len(arrays) + (0.25 + 0.4 if columns else 0.0)
    with matplotlib.rc_context({"axes.grid": False}, STYLE):
        figure = Figure(figsize=(WIDTH, height))

        def place(x: float, y: float, wide: float, high: float) -> Any:  # inches, y from above
            return figure.add_axes((x / WIDTH, 1 - (y + high) / height, wide / WIDTH, high / height))

        for r, row in enumerate(arrays):
            for c, array in enumerate(row):
                x, y = left + gap / 2 - 0.07 + c * (side + gap), (0.25 if columns else 0.0) + r * tall + over
                low, high = _ends(arrays, limits, r, c, bool(columns))
                ax = place(x, y, side, side)
                drawn = ax.imshow(array, cmap=MAP, vmin=low, vmax=high, interpolation="nearest")
                ax.set(xticks=[], yticks=[])
                ax.spines[:].set_visible(False)
                title = columns[c] if columns and r == 0 else titles[r][c] if titles else ""
                ax.set_title(title, pad=4, fontsize=10)
                if rows and c == 0:
                    ax.set_ylabel(rows[r], rotation=0, ha="right", va="center")
                if not columns or r == len(arrays) - 1:
                    _bar(figure, drawn, place(x, y + side + 0.05, side, 0.07), low, high, names[c])
    return figure


def _array(one: Any) -> np.ndarray:
    return np.asarray(one.detach().float().cpu() if hasattr(one, "detach") else one, dtype=float)


def _ends(arrays: Any, limits: Any, r: int, c: int, by_column: bool) -> Limits:
    if limits:
        return tuple(limits[r][c])  # type: ignore[return-value]
    maps = [row[c] for row in arrays] if by_column else [arrays[r][c]]
    return min(float(m.min()) for m in maps), max(float(m.max()) for m in maps)


def _bar(figure: Figure, drawn: Any, place: Any, low: float, high: float, name: str) -> None:
    colours = figure.colorbar(drawn, cax=place, orientation="horizontal", ticks=[low, high])
    colours.outline.set_visible(False)  # type: ignore[operator]
    place.set_xticklabels([f"{end:.{2 if high >= 0.1 else 3}f}" for end in (low, high)], fontsize=8)
    for text, where in zip(place.get_xticklabels(), ("left", "right"), strict=True):
        text.set_ha(where)
    place.tick_params(length=0, pad=2)
    place.set_xlabel(name, fontsize=8, color=_GRAY, labelpad=-9)


def gate_maps(weights: Any, height: int, width: int, *, limits: Sequence[Limits] = ()) -> Figure:
    """The gate's weights of one sample (N, 20), N = height x width, as 20 small maps, each on a scale of its own.

    Args:
        limits: for each expert the ends of its scale; by default its lowest and its highest weight.
    """
    array = _array(weights)
    if array.shape != (height * width, len(EXPERTS)):
        raise MogleError(f"weights of shape {array.shape}: expected ({height * width}, {len(EXPERTS)})")
    maps = array.T.reshape(-1, height, width)
    ends = list(limits) or [(float(one.min()), float(one.max())) for one in maps]
    names = [f"{i - 1} {name}" if i else name for i, name in enumerate(EXPERTS)]
    grid, titles, scales = ([list(what[i : i + 7]) for i in range(0, 20, 7)] for what in (maps, names, ends))
    return scaled_maps(grid, titles=titles, limits=scales, bar="weight")


def differences(claims: Mapping[str, Sequence[float]], margins: Mapping[str, float], *, xlabel: str) -> Figure:
    """For each claim a dot for each mask, the mean, and in gray what is too little to count, from -margin to margin."""
    with drawing(1.1 + 0.62 * len(claims)) as figure:
        ax = figure.subplots()
        for row, (claim, values) in enumerate(claims.items()):
            margin = margins[claim]
            ax.barh(row, 2 * margin, left=-margin, height=0.5, color="#dddddd", zorder=1)
            ax.plot(values, [row] * len(values), "o", color=LINES[0], markersize=6, alpha=0.7, zorder=2)
            ax.plot(np.mean(values), row, "|", color=LINES[1], markersize=26, markeredgewidth=3, zorder=3)
        ax.axvline(0, color=_INK, linewidth=1, zorder=1)
        ax.set_yticks(range(len(claims)), list(claims))
        ax.set(xlabel=xlabel, ylim=(len(claims) - 0.4, -0.6))
        ax.grid(axis="y", visible=False)
        ax.barh([0], [0], color="#dddddd", label="too little to count")
        ax.plot([], [], "o", color=LINES[0], label="one mask")
        ax.plot([], [], "|", color=LINES[1], markersize=12, markeredgewidth=3, label="mean")
        figure.legend(loc="outside lower center", ncols=3, fontsize=9)
    return figure


def side_by_side(panels: Mapping[str, Mapping[str, float]], *, lit: Sequence[str] = ()) -> Figure:
    """Panels of bars over the same names, in one order; names in `lit` have another colour.

    Args:
        panels: what a panel's numbers are -> name -> number.
    """
    names = list(next(iter(panels.values())))
    with matplotlib.rc_context({"axes.grid.axis": "x"}, STYLE):
        figure = Figure(figsize=(WIDTH, 0.9 + 0.25 * len(names)), layout="constrained")
        row = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        for ax, (title, values) in zip(row, panels.items(), strict=True):
            colours = [LINES[1] if name in lit else LINES[0] for name in names]
            ax.barh(names, [values[name] for name in names], color=colours, height=0.65)
            ax.set(xlabel=title)
            ax.locator_params(axis="x", nbins=4)
        row[0].invert_yaxis()
    return figure
