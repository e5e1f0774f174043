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
from mogle.labels.classes import DEMO_PALETTE, LABELS, ORDERS, PALETTE, order_table
from mogle.labels.formats import Reading, from_numbers, read_array, read_picture
from mogle.pictures import Size, fit_window, load, open_image, same_aspect, sides

__all__ = ["DEMO_PALETTE", "LABELS", "ORDERS", "PALETTE", "colorize", "decode_mask", "resize_labels", "save_mask"]

_PALETTES = {"dataset": PALETTE, "demo": DEMO_PALETTE}


def decode_mask(
    image: Any,
    *,
    palette: str = "dataset",
    labels: str = "celebamask",
    size: Size | None = None,
    fit: str | None = None,
    looked_at: bool = False,
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
            "stretch" loses the shape. None refuses; `mogle.pictures.nearest_size` names a size that keeps it.
        looked_at: the mask was read before, so what no face has is not looked for, which takes most of the time.

    Returns:
        uint8 (H, W), values 0..18, a copy.

    Raises:
        MogleError: naming the file, what was found in it and what is expected.

    Warns:
        MogleWarning: with the number of pixels whose colour had to be guessed; where the label map cannot be a face,
            with the likely cause; where it was cropped, padded or stretched.
    """
    check_options(palette, labels, fit)
    name = "mask"
    if isinstance(image, (str, os.PathLike)):
        name, image = str(image), open_image(image)
    elif isinstance(image, Image.Image):
        name = str(getattr(image, "filename", "") or name)
        load(image, name)
    how = Reading(name, _PALETTES[palette], labels, [])
    label_map = (read_picture if isinstance(image, Image.Image) else read_array)(image, how)
    for note in filter(None, [*how.notes, None if looked_at else doubt(label_map)]):
        warnings.warn(f"{name}: {note}", MogleWarning, stacklevel=2)
    return label_map if size is None else resize_labels(label_map, size, fit, name)


def check_options(palette: str, labels: str, fit: str | None) -> None:
    """Refuse, by name, what `decode_mask` cannot take for these."""
    if palette not in _PALETTES:
        raise MogleError(f"palette={palette!r}: expected one of {', '.join(map(repr, _PALETTES))}")
    order_table(labels)
    fit_window((1, 1), (1, 1), fit, "mask")


def resize_labels(label_map: np.ndarray, size: Size, fit: str | None = None, name: str = "mask") -> np.ndarray:
    """A label map brought to a side, or (height, width), by nearest neighbour: labels cannot be averaged.

    `size` and `fit` as in `decode_mask`, whose note on what was cropped, padded or stretched comes from here.
    """
    (height, width), shape = sides(size), label_map.shape
    top, left, rows_in, columns_in = fit_window(shape, (height, width), fit, name)
    if shape == (height, width):
        return label_map.copy()
    if fit and not same_aspect(shape, (height, width)):
        done = {"crop": "cropped", "pad": "padded", "stretch": "stretched out of its shape"}[fit]
        what = f"of {shape[1]} x {shape[0]} pixels, {done} to {width} x {height}"
        warnings.warn(f"{name}: {what}", MogleWarning, stacklevel=2)
    rows = np.floor(top + (np.arange(height) + 0.5) * rows_in / height)
    columns = np.floor(left + (np.arange(width) + 0.5) * columns_in / width)
    # what lies outside the map comes from a frame of background around it
    places = [(np.clip(at, -1, side) + 1).astype(int) for at, side in zip((rows, columns), shape, strict=True)]
    return np.pad(label_map, 1)[np.ix_(*places)]


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
    return from_numbers(np.asarray(label_map), Reading("label map", PALETTE, "celebamask", []))
