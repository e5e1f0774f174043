"""Figures of notebook 08: a training as it grows, several side by side, and what memory is made of."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from workbook.figures import DASHES, LINES, drawing, pixels

_GRAY, _INK = "#bbbbbb", "#222222"


def growth(
    losses: Sequence[float], accuracy: Mapping[int, float], level: float, strip: Mapping[int, Any], mask: Any, *,
    handover: int,
) -> Figure:  # fmt: skip
    """A training: its loss by step, the pixel accuracy at some steps, and pictures of one mask at these.

    Args:
        accuracy, strip: step -> pixel accuracy; step -> picture.
        level: the pixel accuracy without a mask, a dashed line.
        handover: the step at which another loop took over, a dotted line.
    """
    with drawing(5.2) as figure:
        parts: Any = figure.subfigures(2, 1, height_ratios=(3.5, 1.7))
        above, below = parts
        left, right = above.subplots(1, 2)
        steps = np.arange(1, len(losses) + 1)
        left.plot(steps, losses, color=_GRAY, linewidth=1, label="each batch")
        left.plot(steps, smooth(losses), color=LINES[0], label="running mean")
        left.set(xlabel="step", ylabel="loss")
        right.plot(list(accuracy), list(accuracy.values()), color=LINES[1], marker="o", label="with the mask")
        right.axhline(level, color=_INK, linestyle="--", linewidth=1.4, label="sentence alone")
        right.set(xlabel="step", ylabel="pixel accuracy, masks never seen")
        for ax in (left, right):
            ax.axvline(handover, color=LINES[3], linestyle=":", label="the trainer takes over")
            ax.legend(loc="upper right" if ax is left else "center right", fontsize=8)
        row = below.subplots(1, 1 + len(strip))
        titles = ["mask", *(f"{step} steps" for step in strip)]
        for ax, picture, title in zip(row, [mask, *strip.values()], titles, strict=True):
            ax.imshow(pixels(picture), interpolation="nearest")
            ax.set(xticks=[], yticks=[])
            ax.grid(visible=False)
            ax.set_title(title, fontsize=9)
            ax.spines[:].set_visible(False)
    return figure


def smooth(values: Sequence[float], share: float = 0.15) -> np.ndarray:
    """A running mean in which each new value has this share, and the first ones more."""
    out, mean, weight = [], 0.0, 0.0
    for value in values:
        mean, weight = (1 - share) * mean + share * value, (1 - share) * weight + share
        out.append(mean / weight)
    return np.array(out)


def sweeps(panels: Mapping[str, Mapping[str, Sequence[Sequence[float]]]]) -> Figure:
    """A panel for each thing that is varied, on one scale: for each of its values a curve of (step, loss)."""
    with drawing(3.4) as figure:
        row = figure.subplots(1, len(panels), sharey=True)
        for ax, (title, curves_of) in zip(row, panels.items(), strict=True):
            for i, (label, points) in enumerate(curves_of.items()):
                looks: dict[str, Any] = {"color": LINES[i], "linestyle": DASHES[i % len(DASHES)]}
                ax.plot(*zip(*points, strict=True), label=label, **looks)
            ax.set(title=title, xlabel="step")
            ax.legend(fontsize=8, handlelength=3.5)
        row[0].set_ylabel("loss on other portraits")
    return figure


def curves(runs: Mapping[str, Mapping[str, Any]], across: int = 3) -> Figure:
    """A panel for each training, each on a scale of its own: "loss" by step, and "others" as (step, loss)."""
    down = math.ceil(len(runs) / across)
    with drawing(2.3 * down + 0.4) as figure:
        axes = figure.subplots(down, across, sharex=True)
        for ax, (name, run) in zip(axes.flat, runs.items(), strict=True):
            steps = range(1, len(run["loss"]) + 1)
            ax.plot(steps, run["loss"], color=LINES[0], linewidth=1, label="in training, by batch")
            ax.plot(*zip(*run["others"], strict=True), color=LINES[1], linewidth=2.6, label="on other portraits")
            ax.set_title(name, weight="bold", loc="left")
        for ax in axes[-1]:
            ax.set_xlabel("step")
        for ax in axes[:, 0]:
            ax.set_ylabel("loss")
        handles, labels = axes.flat[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=2)
    return figure


def stacked(rows: Mapping[str, Mapping[str, float]], *, xlabel: str) -> Figure:
    """A bar for each row, made of its named parts one after another, the first row on top."""
    with drawing(0.9 + 0.45 * len(rows), {"axes.grid.axis": "x"}) as figure:
        ax = figure.subplots()
        ends = np.zeros(len(rows))
        for i, part in enumerate(next(iter(rows.values()))):
            widths = np.array([parts[part] for parts in rows.values()])
            drawn = ax.barh(list(rows), widths, left=ends, color=LINES[i], height=0.6, label=part)
            ends += widths
        ax.bar_label(drawn, [f"{end:.1f}" for end in ends], padding=4)
        ax.invert_yaxis()
        ax.margins(x=0.08)
        ax.set(xlabel=xlabel)
        figure.legend(loc="outside upper center", ncols=3)
    return figure
