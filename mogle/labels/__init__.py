"""The 19 classes of CelebAMask-HQ, their colours, and any mask file -> label map.

A *label map* is a uint8 array (H, W) of values 0..18, one class for each pixel. It is the only form of a mask that the
rest of the package knows; every file that people really have comes in through `decode_mask`.
"""

from __future__ import annotations

import os
import warnings
from typing import IO, Any

import numpy as np
from PIL import Image

from mogle.errors import MogleError, MogleWarning
from mogle.labels.anatomy import doubt
from mogle.labels.classes import DEMO_PALETTE as DEMO_PALETTE
from mogle.labels.classes import LABELS as LABELS
from mogle.labels.classes import ORDERS as ORDERS
from mogle.labels.classes import PALETTE as PALETTE
from mogle.labels.classes import order_table
from mogle.labels.formats import Reading, from_numbers, read_array, read_picture
from mogle.pictures import FITS as FITS
from mogle.pictures import MAX_PIXELS as MAX_PIXELS
from mogle.pictures import fit_window, load, said, sides
from mogle.pictures import nearest_size as nearest_size
from mogle.pictures import open_image as open_image

_PALETTES = {"dataset": PALETTE, "demo": DEMO_PALETTE}


def decode_mask(
    image: Any,
    *,
    palette: str = "dataset",
    labels: str = "celebamask",
    size: int | tuple[int, int] | None = None,
    fit: str | None = None,
) -> np.ndarray:
    """Turn a mask, in any form that people really have, into a label map.

    Args:
        image: a path, a PIL image, or a numpy or torch array. Understood are
            palette pictures (the index is the label, whatever the palette's colours; a palette that a tool reordered
            or filled with other colours is read through its colours instead);
            gray pictures of 8 or 16 bits and arrays (H, W), (1, H, W), (H, W, 1), whose values are the labels;
            RGB and RGBA pictures and arrays (H, W, 3 or 4), (3 or 4, H, W) with the label in every channel;
            the same in palette colours. There a pixel that is more than half transparent is background, one flat
            background of another colour is background too, and noise becomes the nearest colour.
        palette: "dataset" (`PALETTE`) or "demo" (`DEMO_PALETTE`); matters for colours only.
        labels: who gave the numbers, a name in `ORDERS`: "celebamask" (the default), "bisenet"
            (face-parsing.PyTorch), "lapa", "farl", "segface", or "one-based"; matters for numbers only.
        size: resize to this side, or (height, width), by nearest neighbour. None keeps the size.
        fit: what to do where `size` has another shape than the mask: "crop" keeps the middle, "pad" adds background,
            "stretch" loses the shape. None refuses; `nearest_size` names a size that keeps the shape.

    Returns:
        uint8 (H, W), values 0..18, a copy.

    Raises:
        MogleError: naming the file, what was found in it and what is expected.

    Warns:
        MogleWarning: with the number of pixels whose colour had to be guessed; where the label map cannot be a face,
            with the likely cause; where it was cropped, padded or stretched.
    """
    check_options(palette, labels, fit)
    if isinstance(image, dict):
        keys = ", ".join(map(str, list(image)[:4]))
        raise MogleError(
            f"mask: found a dictionary ({keys}), expected one picture; of an editor's take its 'composite'"
        )
    if isinstance(image, (str, os.PathLike)):
        name, image = str(image), open_image(image)
    elif isinstance(image, Image.Image):
        name = str(getattr(image, "filename", "") or "mask")
        load(image, name)
    else:
        name = "mask"
    read = read_picture if isinstance(image, Image.Image) else read_array
    label_map = read(image, Reading(name, _PALETTES[palette], labels))
    if why := doubt(label_map):
        warnings.warn(f"{name}: {why}", MogleWarning, stacklevel=2)
    return label_map if size is None else resize_labels(label_map, size, fit, name)


def check_options(palette: str, labels: str, fit: str | None) -> None:
    """Refuse, by name, what `decode_mask` cannot take for these."""
    if palette not in _PALETTES:
        raise MogleError(f"palette={palette!r}: expected one of {', '.join(map(repr, _PALETTES))}")
    order_table(labels)
    fit_window((1, 1), (1, 1), fit, "mask")


def resize_labels(
    label_map: np.ndarray, size: int | tuple[int, int], fit: str | None = None, name: str = "mask"
) -> np.ndarray:
    """A label map brought to a side, or (height, width), by nearest neighbour: labels cannot be averaged.

    `size` and `fit` as in `decode_mask`, whose note on what was cropped, padded or stretched comes from here.
    """
    height, width = size = sides(size)
    top, left, rows_in, columns_in = fit_window(label_map.shape, size, fit, name)
    if what := said(fit, label_map.shape, size):
        warnings.warn(f"{name}: {what}", MogleWarning, stacklevel=2)
    rows = np.floor(top + (np.arange(height) + 0.5) * rows_in / height).astype(np.intp)
    columns = np.floor(left + (np.arange(width) + 0.5) * columns_in / width).astype(np.intp)
    inside_rows, inside_columns = (
        (rows >= 0) & (rows < label_map.shape[0]),
        (columns >= 0) & (columns < label_map.shape[1]),
    )
    resized = np.zeros((height, width), dtype=np.uint8)
    resized[np.ix_(inside_rows, inside_columns)] = label_map[np.ix_(rows[inside_rows], columns[inside_columns])]
    return resized


def colorize(label_map: np.ndarray, palette: np.ndarray = PALETTE) -> np.ndarray:
    """Label map (..., H, W) of values 0..18 -> its picture in palette colours, uint8 (..., H, W, 3)."""
    return palette[_checked(label_map)]


def save_mask(path: str | os.PathLike[str] | IO[bytes], label_map: np.ndarray) -> None:
    """Write a label map as a palette PNG, the form of the data sets' own files."""
    picture = Image.fromarray(_checked(label_map))
    picture.putpalette(PALETTE.tobytes())
    picture.save(path, format="PNG")


def _checked(label_map: np.ndarray) -> np.ndarray:
    """A uint8 copy of values 0..18; MogleError for others."""
    return from_numbers(np.asarray(label_map), Reading("label map", PALETTE, "celebamask"))
