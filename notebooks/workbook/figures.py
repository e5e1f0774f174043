"""The course's figures: one style, the 19 classes always in the same order and colours, alt text on every figure.

Each function takes data and returns a matplotlib `Figure`, 900 px wide where GitHub shows it; `show` displays it.
"""

from __future__ import annotations

import base64
import io
import math
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke
from matplotlib.transforms import Bbox
from PIL import Image

from mogle.errors import MogleError
from mogle.labels import LABELS, PALETTE, colorize

#: The 20 experts in the order of the gate's weights.
EXPERTS = ("global", *LABELS)
#: Colours of lines that colour-blind readers can tell apart (Okabe and Ito), and their dashes, for printing in gray.
LINES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES = ("-", "--", "-.", ":")
MAP = "viridis"
WIDTH, DPI, RETINA = 9.0, 100, 2  # inches; pixels per inch as shown; pixels of the file for each that is shown
_GRAY = "#999999"
#: The style sheet, for `matplotlib.rc_context`.
STYLE = Path(__file__).with_suffix(".mplstyle")


def png(figure: Figure, colours: int = 0) -> bytes:
    """The figure as a PNG in retina resolution, the same bytes for the same figure.

    With `colours`, of a palette of so many: a third of the bytes, and enough for bars, lines and text.
    """
    file = io.BytesIO()
    with matplotlib.rc_context(fname=STYLE):
        figure.savefig(file, format="png", dpi=DPI * RETINA, metadata={"Software": None}, pil_kwargs={"optimize": True})
    if colours:
        with Image.open(file) as full:
            file = io.BytesIO()
            full.convert("RGB").quantize(colours, dither=Image.Dither.NONE).save(file, "png", optimize=True)
    return file.getvalue()


def jpeg(figure: Figure, retina: float = RETINA) -> bytes:
    """The figure as a JPEG in retina resolution: a third of a PNG where it shows noise or many portraits."""
    file = io.BytesIO()
    with matplotlib.rc_context(fname=STYLE):
        figure.savefig(file, format="jpeg", dpi=DPI * retina, pil_kwargs={"quality": 80})
    return file.getvalue()


def show(figure: Figure, *, alt: str, small: bool = False, flat: bool = False, retina: float = RETINA) -> None:
    """Display a figure, with a text for those who cannot see it.

    Args:
        small: in fewer bytes, as a JPEG; a figure without pictures in it as if `flat`.
        flat: as a PNG of few colours.
        retina: of a JPEG, its pixels for each that is shown; with 1.5 it has two thirds of the bytes.

    Raises:
        MogleError: the text is missing, or too short to say what there is to see.
    """
    if not isinstance(alt, str) or len(alt.split()) < 3:
        raise MogleError(f"alt={alt!r}: expected a sentence that says what the figure shows")
    from IPython.display import display

    if small and any(ax.images for ax in figure.axes):
        data, metadata = bundle(jpeg(figure, retina), alt, retina)
    else:
        data, metadata = bundle(png(figure, colours=64 if small or flat else 0), alt)
    display(data, metadata=metadata, raw=True)


def bundle(picture: bytes, alt: str, retina: float = RETINA) -> tuple[dict[str, Any], dict[str, Any]]:
    """A PNG or JPEG of `retina` pixels for one that is shown, and its alt text, as Jupyter's data and metadata."""
    with Image.open(io.BytesIO(picture)) as opened:
        width, height = (int(side / retina) for side in opened.size)
        kind = f"image/{str(opened.format).lower()}"
    data = {kind: base64.b64encode(picture).decode(), "text/plain": alt}
    return data, {kind: {"alt": alt, "width": width, "height": height}}


def pixels(picture: Any) -> np.ndarray:
    """A picture in one of two forms: uint8 (H, W, 3), or float (H, W) for a map of numbers.

    Takes PIL images, uint8 (H, W, 3), label maps (uint8 (H, W) -> palette colours), booleans (H, W) -> black and white,
    condition images (3, H, W) in [-1, 1], and maps of numbers (H, W).
    """
    if isinstance(picture, Image.Image):
        picture = picture.convert("RGB")
    array = np.asarray(picture.detach().float().cpu() if hasattr(picture, "detach") else picture)
    if array.ndim == 2 and array.dtype == bool:
        array = np.repeat(array[..., None] * np.uint8(255), 3, axis=2)
    elif array.ndim == 2 and array.dtype == np.uint8:
        array = colorize(array)
    elif array.dtype != np.uint8 and array.ndim == 3 and array.shape[0] == 3:
        array = ((array.clip(-1, 1) + 1) * 127.5).round().astype(np.uint8).transpose(1, 2, 0)
    if array.ndim == 2 or (array.dtype == np.uint8 and array.ndim == 3 and array.shape[2] == 3):
        return array
    found = f"a picture of shape {array.shape} and type {array.dtype}"
    raise MogleError(f"{found}: expected one of those that workbook.figures.pixels lists")


def overlay(image: Any, label_map: np.ndarray, strength: float = 0.5) -> np.ndarray:
    """A mask laid over its picture, uint8 (H, W, 3); the background stays as it is."""
    picture, colours = pixels(image).astype(float), colorize(label_map).astype(float)
    share = strength * (label_map > 0)[..., None]
    return ((1 - share) * picture + share * colours).round().astype(np.uint8)


@contextmanager
def drawing(height: float, style: Any = None) -> Iterator[Figure]:
    """A new figure of a height in inches, and the course's style while it is drawn."""
    with matplotlib.rc_context(style, STYLE):
        yield Figure(figsize=(WIDTH, height), layout="constrained")


def _wrap(text: str, inches: float) -> str:
    return "\n".join(textwrap.wrap(text, max(8, int(inches * 13)))) or " "


def _most_lines(texts: Iterable[str], inches: float) -> int:
    """The number of lines of the text that takes most of them."""
    return max((_wrap(text, inches).count("\n") + 1 for text in texts), default=0)


def _legend(figure: Figure, labels: Any) -> None:
    """The classes among `labels`, in the order of their numbers."""
    patches = [Patch(facecolor=PALETTE[i] / 255, edgecolor=_GRAY, label=f"{i} {LABELS[i]}") for i in labels]
    ncols = min(7, len(patches))
    figure.legend(handles=patches, loc="outside lower center", ncols=ncols, fontsize=9, handlelength=1.2)


def image_grid(
    images: Sequence[Sequence[Any]],
    *,
    rows: Sequence[str] = (),
    columns: Sequence[str] = (),
    captions: Sequence[Sequence[str]] = (),
    labels: Any = (),
    names: bool = False,
    scale: tuple[float, float] | None = None,
    bar: str = "",
    cell: float = 2.2,
) -> Figure:
    """Rows of pictures, with titles over the columns, at the left of the rows, and below each picture.

    Args:
        images: rows of what `pixels` takes; None leaves a place empty. All maps of numbers share one scale.
        labels: classes to put into a legend, for instance a label map.
        names: write the classes' names onto label maps; two of the palette's blues look nearly alike.
        scale: lowest and highest number of the scale; by default those that occur.
        bar: what the numbers of maps are; stands beside the colour bar.
        cell: largest side of a picture in inches.

    Raises:
        MogleError: there are maps of numbers, and `bar` does not say of what.
    """
    count = max(map(len, images))
    side = min(cell, (WIDTH - (1.2 if rows else 0.2)) / count)
    seen = [[None if picture is None else pixels(picture) for picture in row] for row in images]
    maps = [a for row in seen for a in row if a is not None and a.ndim == 2]
    if maps and not bar:
        raise MogleError("found maps of numbers and bar='', expected a word for what the numbers are")
    low, high = scale or (min((m.min() for m in maps), default=0), max((m.max() for m in maps), default=1))
    named = np.unique(np.asarray(labels, dtype=int))
    height = sum(max((a.shape[0] / a.shape[1] for a in row if a is not None), default=1) * side for row in seen)
    height += len(seen) * (0.1 + 0.17 * _most_lines([text for row in captions for text in row], side))
    height += 0.25 + 0.25 * math.ceil(len(named) / 7) + 0.2 * _most_lines(columns, side)
    with drawing(height, {"axes.grid": False}) as figure:
        figure.set_layout_engine("compressed")  # squares in oblongs: what is left over goes outside, not between
        axes, shown = figure.subplots(len(seen), count, squeeze=False), None
        for (r, c), ax in np.ndenumerate(axes):
            picture = seen[r][c] if c < len(seen[r]) else None
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_visible(False)
            if picture is not None:  # "nearest": true pixels, and half the bytes of smoothed ones
                drawn = ax.imshow(picture, cmap=MAP, vmin=low, vmax=high, interpolation="nearest")
                shown = drawn if picture.ndim == 2 else shown
                if names:
                    _name_regions(ax, images[r][c])
            if captions and c < len(captions[r]):
                ax.set_xlabel(_wrap(captions[r][c], side), fontsize=9)
            if r == 0 and c < len(columns):
                ax.set_title(_wrap(columns[c], side))
            if c == 0 and r < len(rows):
                ax.set_ylabel(_wrap(rows[r], 1.0), rotation=0, ha="right", va="center")
        if shown is not None:
            figure.colorbar(shown, ax=axes, fraction=0.03, pad=0.01, label=bar)
        if len(named):
            _legend(figure, named)
    return figure


def _name_regions(ax: Any, label_map: Any) -> None:
    """Each class's name where its region is widest; pictures that are no label maps get none."""
    from scipy.ndimage import distance_transform_edt

    if not isinstance(label_map, np.ndarray) or label_map.ndim != 2 or label_map.dtype != np.uint8:
        return
    for label in np.unique(label_map[label_map > 0]):
        inside = distance_transform_edt(np.pad(label_map == label, 1))[1:-1, 1:-1]
        y, x = np.unravel_index(inside.argmax(), inside.shape)
        outline = [withStroke(linewidth=2, foreground="black")]
        ax.text(x, y, LABELS[label], color="white", fontsize=8, ha="center", va="center", path_effects=outline)


def heat_map(values: Any, *, xlabel: str, ylabel: str, bar: str, names: Sequence[str] = ()) -> Figure:
    """One map of numbers (rows, columns) with named axes; `names` stand at both axes, as in a confusion matrix."""
    array = np.asarray(values.detach().float().cpu() if hasattr(values, "detach") else values)
    with drawing(min(7.0, 1.2 + 7.0 * array.shape[0] / array.shape[1]), {"axes.grid": False}) as figure:
        ax = figure.subplots()
        figure.colorbar(ax.imshow(array, cmap=MAP, interpolation="nearest"), ax=ax, label=bar)
        ax.set(xlabel=xlabel, ylabel=ylabel)
        if names:
            ax.set_xticks(range(len(names)), names, rotation=90)
            ax.set_yticks(range(len(names)), names)
    return figure


def scatter_labels(
    x: Mapping[int, float], series: Mapping[str, Mapping[int, float]], *, xlabel: str, ylabel: str
) -> Figure:
    """A mark for each class in its colour, over x on a logarithmic scale: dots, and rings for a second series.

    Keys of `x` and of each series are labels; the names stand beside the last series' marks.
    """
    with drawing(3.8) as figure:
        ax = figure.subplots()
        for (name, y), ring in zip(series.items(), (False, True), strict=False):
            for label in sorted(y):
                colour = PALETTE[label] / 255
                looks = {"facecolor": "none", "edgecolor": colour} if ring else {"color": colour, "edgecolor": _GRAY}
                ax.scatter(x[label], y[label], s=70, linewidth=2 if ring else 1, zorder=2, **looks)
            ax.scatter([], [], s=70, linewidth=2, edgecolor=_GRAY, facecolor="none" if ring else _GRAY, label=name)
        ax.set(xlabel=xlabel, ylabel=ylabel, xscale="log")
        ax.margins(x=0.08, y=0.12)
        if len(series) > 1:
            figure.legend(loc="outside right upper")
        marks = [(x[label], y[label]) for y in series.values() for label in y]
        _name_points(ax, {label: (x[label], y) for label, y in list(series.values())[-1].items()}, marks)
    return figure


def _name_points(ax: Any, points: Mapping[int, tuple[float, float]], marks: Sequence[tuple[float, float]]) -> None:
    """The classes' names beside their points, each at the first place where it covers no mark and no other name."""
    ax.figure.draw_without_rendering()  # now the axes have their size
    pixel = ax.figure.dpi / 72
    taken = [Bbox.from_bounds(u - 6, v - 6, 12, 12) for u, v in ax.transData.transform(marks) / pixel]
    edge = ax.get_window_extent().x1 / pixel
    for label, point in sorted(points.items()):
        (u, v), width = ax.transData.transform(point) / pixel, 5.6 * len(LABELS[label])
        right, left, middle = 8, -8 - width, -width / 2
        places = [(right, -4), (left, -4), *((x, y) for y in (8, -16, 18, -26) for x in (middle, right, left))]
        boxes = [Bbox.from_bounds(u + x, v + y, width, 9) for x, y in places]
        best = next((i for i, box in enumerate(boxes) if box.x1 < edge and not box.count_overlaps(taken)), 0)
        taken.append(boxes[best])
        far = abs(places[best][1] + 4) > 12
        arrow = {"arrowstyle": "-", "color": _GRAY, "linewidth": 0.7, "shrinkB": 5} if far else None
        where = {"xytext": places[best], "textcoords": "offset points"}
        ax.annotate(LABELS[label], point, **where, fontsize=9, arrowprops=arrow)


def lines(series: Mapping[str, Any], *, x: Any = None, xlabel: str, ylabel: str, colours: Sequence[int] = ()) -> Figure:
    """Named series over one x (by default 0, 1, ...), told apart by colour and by dash.

    Args:
        colours: for each series the number of its colour; series of one colour differ by their dashes.
    """
    used = list(colours) or [i % len(LINES) for i in range(len(series))]
    with drawing(3.2) as figure:
        ax = figure.subplots()
        for i, (name, values) in enumerate(series.items()):
            y = np.asarray(values, dtype=float)
            dash = DASHES[(used[:i].count(used[i]) if colours or len(series) > len(LINES) else i) % len(DASHES)]
            ax.plot(np.arange(len(y)) if x is None else x, y, color=LINES[used[i]], linestyle=dash, label=name)
        ax.set(xlabel=xlabel, ylabel=ylabel)
        if len(series) > 1:
            figure.legend(loc="outside right upper")
    return figure
