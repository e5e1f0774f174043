"""The 19 classes of CelebAMask-HQ, their colours, and any mask file -> label map.

A *label map* is a uint8 array (H, W) of values 0..18, one class for each pixel. It is the only form of a mask that the
rest of the package knows; every file that people really have comes in through `decode_mask`.
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from mogle.errors import MogleError, MogleWarning

LABELS: tuple[str, ...] = (
    "background", "skin", "nose", "eye_g", "l_eye", "r_eye", "l_brow", "r_brow", "l_ear", "r_ear",
    "mouth", "u_lip", "l_lip", "hair", "hat", "ear_r", "neck_l", "neck", "cloth",
)  # fmt: skip

#: Colours in the data sets' own files, by label: (19, 3).
PALETTE = np.array(
    [
        (0, 0, 0), (204, 0, 0), (76, 153, 0), (204, 204, 0), (51, 51, 255), (204, 0, 204), (0, 255, 255),
        (255, 204, 204), (102, 51, 0), (255, 0, 0), (102, 204, 0), (255, 255, 0), (0, 0, 153), (0, 0, 204),
        (255, 51, 153), (0, 204, 204), (0, 51, 0), (255, 153, 51), (0, 204, 0),
    ],
    dtype=np.uint8,
)  # fmt: skip

#: The palette of the reference's web demo: the colours of left and right eye, brow and ear are swapped.
DEMO_PALETTE = PALETTE[[0, 1, 2, 3, 5, 4, 7, 6, 9, 8, *range(10, 19)]]

#: Larger pictures are refused before a single pixel is decoded: a few kilobytes of PNG can unpack to gigabytes.
MAX_PIXELS = 64_000_000

_PALETTES = {"dataset": PALETTE, "demo": DEMO_PALETTE}
_NEAR = 30  # RGB distance; the closest two palette colours are 51 apart, JPEG noise inside a region stays below this


def decode_mask(image: Any, *, palette: str = "dataset", size: int | tuple[int, int] | None = None) -> np.ndarray:
    """Turn a mask, in any form that people really have, into a label map.

    Args:
        image: a path, a PIL image, or a numpy or torch array. Understood are
            palette pictures (the index is the label, whatever the palette's colours; a palette that a tool reordered
            or filled with other colours is read through its colours instead);
            gray pictures of 8 or 16 bits and arrays (H, W), (1, H, W), (H, W, 1), whose values are the labels;
            RGB and RGBA pictures and arrays (H, W, 3 or 4), (3 or 4, H, W) in palette colours. There a pixel that is
            more than half transparent is background, and a colour outside the palette becomes the nearest one.
        palette: "dataset" (`PALETTE`) or "demo" (`DEMO_PALETTE`); matters for colours only.
        size: resize to this side, or (height, width), by nearest neighbour. None keeps the size.

    Returns:
        uint8 (H, W), values 0..18, a copy.

    Raises:
        MogleError: naming the file, what was found in it and what is expected.

    Warns:
        MogleWarning: with the number of pixels whose colour had to be guessed.
    """
    if palette not in _PALETTES:
        raise MogleError(f"palette={palette!r}: expected one of {', '.join(map(repr, _PALETTES))}")
    if isinstance(image, (str, os.PathLike)):
        name, opened = str(image), open_image(image)
    elif isinstance(image, Image.Image):
        name, opened = str(getattr(image, "filename", "") or "mask"), image
        _load(opened, name)
    else:
        return _resize(_from_array(image, _PALETTES[palette]), size)
    return _resize(_from_picture(opened, name, _PALETTES[palette]), size)


def colorize(label_map: np.ndarray, palette: np.ndarray = PALETTE) -> np.ndarray:
    """Label map (..., H, W) of values 0..18 -> its picture in palette colours, uint8 (..., H, W, 3)."""
    return palette[_checked(np.asarray(label_map), "label map")]


def save_mask(path: str | os.PathLike[str] | IO[bytes], label_map: np.ndarray) -> None:
    """Write a label map as a palette PNG, the form of the data sets' own files."""
    picture = Image.fromarray(_checked(np.asarray(label_map), "label map"))
    picture.putpalette(PALETTE.tobytes())
    picture.save(path, format="PNG")


def open_image(path: str | os.PathLike[str]) -> Image.Image:
    """Open and fully decode a picture file.

    Raises:
        MogleError: the file is missing, a directory, not a picture, cut short, or larger than `MAX_PIXELS`.
    """
    name, path = str(path), Path(path)
    if path.is_dir():
        raise MogleError(f"{name}: found a directory, expected an image file")
    if not path.is_file():
        raise MogleError(f"{name}: no such file; expected an image file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            picture = Image.open(path)
    except Image.DecompressionBombError as error:
        raise MogleError(f"{name}: {_too_large()}") from error
    except UnidentifiedImageError as error:
        raise MogleError(
            f"{name}: found no image in the file, or a damaged one; expected a PNG, JPEG or other picture"
        ) from error
    except Exception as error:  # a header that is damaged in one of many ways, or no permission to read
        raise MogleError(f"{name}: cannot be opened as an image ({_one_line(error)})") from error
    with picture:  # closes the file, not the pixels
        _load(picture, name)
        ImageOps.exif_transpose(picture, in_place=True)
    return picture


def _load(picture: Image.Image, name: str) -> None:
    """Decode the pixels of an opened picture, whose size its header has told already."""
    if picture.width * picture.height > MAX_PIXELS:
        raise MogleError(f"{name}: {_too_large(picture.size)}")
    try:
        picture.load()
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, struct.error, zlib.error, ...
        raise MogleError(f"{name}: the image is damaged or cut short ({_one_line(error)})") from error


def _too_large(size: tuple[int, int] | None = None) -> str:
    found = f"{size[0]} x {size[1]} pixels" if size else "an enormous picture"
    return f"found {found}, expected at most {MAX_PIXELS // 1_000_000} million; make it smaller first"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__


def _from_picture(picture: Image.Image, name: str, palette: np.ndarray) -> np.ndarray:
    """Pick the reading that fits the picture's mode; see `decode_mask`."""
    if picture.mode == "1":
        raise MogleError(f"{name}: found a black-and-white picture, expected a mask of the 19 classes (labels 0..18)")
    if picture.mode in ("P", "PA"):
        return _from_indices(picture, name, palette)
    if picture.mode in ("L", "LA", "I", "F", "I;16", "I;16B", "I;16L"):
        if picture.format == "JPEG":
            raise MogleError(f"{name}: found a gray JPEG, whose compression changes labels; expected a PNG")
        values = np.asarray(picture)
        if picture.mode == "LA":
            values = np.where(values[..., 1] < 128, 0, values[..., 0])
        return _checked(values, name)
    return _from_colours(np.asarray(picture.convert("RGBA")), name, palette)


def _from_indices(picture: Image.Image, name: str, palette: np.ndarray) -> np.ndarray:
    """Palette picture: by index, unless the palette shows that its indices are not labels."""
    index = np.asarray(picture.getchannel(0) if picture.mode == "PA" else picture)
    used = np.unique(index)
    if used[-1] < len(LABELS):
        # Tools that optimise a PNG keep only the colours in use, numbered from 0: then the colours are the labels.
        table = np.array(picture.getpalette("RGB"), dtype=np.uint8).reshape(-1, 3)
        compact = len(used) < len(LABELS) and used[-1] == len(used) - 1 and used[-1] < len(table)
        if not compact or _agrees(table[used], used, PALETTE) or _agrees(table[used], used, DEMO_PALETTE):
            return index.astype(np.uint8)
        if (table[used][:, None] != palette[None]).any(-1).all(-1).any():  # a colour that is nobody's: not reordered
            return index.astype(np.uint8)
        warnings.warn(
            f"{name}: its palette is in another order, so its colours were read, not its indices",
            MogleWarning,
            stacklevel=4,
        )
    return _from_colours(np.asarray(picture.convert("RGBA")), name, palette)


def _agrees(colours: np.ndarray, labels: np.ndarray, palette: np.ndarray) -> bool:
    return bool((colours == palette[labels]).all())


def _from_array(array: Any, palette: np.ndarray) -> np.ndarray:
    """Numpy or torch array -> label map; see `decode_mask` for the shapes."""
    if hasattr(array, "detach"):  # torch, without importing it
        array = array.detach().cpu().numpy()
    values = np.asarray(array)
    found = f"an array of shape {values.shape} and type {values.dtype}"
    if values.dtype.kind not in "uif" or values.size == 0:
        kind = "a black-and-white mask (bool)" if values.dtype.kind == "b" else found
        raise MogleError(f"mask: found {kind}, expected a path, a picture, or an array of labels 0..18 or of colours")
    if values.ndim == 3 and 1 in (values.shape[0], values.shape[-1]):
        values = values[0] if values.shape[0] == 1 else values[..., 0]
    if values.ndim == 2:
        return _checked(values, "mask")
    if values.ndim == 3 and len(LABELS) in (values.shape[0], values.shape[-1]):
        axis = 0 if values.shape[0] == len(LABELS) else -1
        raise MogleError(f"mask: found {found}, which looks one-hot; expected labels (H, W): pass mask.argmax({axis})")
    if values.ndim == 3 and values.shape[-1] not in (3, 4) and values.shape[0] in (3, 4):
        values = values.transpose(1, 2, 0)
    if values.ndim != 3 or values.shape[-1] not in (3, 4):
        raise MogleError(f"mask: found {found}, expected (H, W) labels or (H, W, 3) colours; one mask at a time")
    if values.dtype.kind == "f" or values.min() < 0 or values.max() > 255:
        raise MogleError(f"mask: found colours as {found}, expected integers 0..255; scale and cast to uint8 first")
    return _from_colours(values.astype(np.uint8), "mask", palette)


def _checked(values: np.ndarray, name: str) -> np.ndarray:
    """Values that should be labels -> a uint8 copy of them."""
    if values.size == 0:
        raise MogleError(f"{name}: found no pixels at all, expected a mask")
    if values.dtype.kind == "f" and not (np.isfinite(values).all() and (values == np.rint(values)).all()):
        raise MogleError(
            f"{name}: found values between {values.min():.3g} and {values.max():.3g}, expected labels 0..18"
        )
    low, high = values.min(), values.max()
    if low >= 0 and high < len(LABELS):
        return values.astype(np.uint8)
    present = np.unique(values)
    wrong = [int(v) for v in present if not 0 <= v < len(LABELS)]
    shown = ", ".join(map(str, wrong[:5])) + (", ..." if len(wrong) > 5 else "")
    hint = ""
    if np.isin(present, _luma()).all():
        hint = "; looks like a colour mask turned to gray, which loses classes: use the colour file"
    elif set(present.tolist()) == {0, 255}:
        hint = "; a black-and-white mask of one region is not enough"
    raise MogleError(f"{name}: found label {shown}, expected labels 0..18 (0 {LABELS[0]} ... 18 {LABELS[-1]}){hint}")


def _luma() -> np.ndarray:
    """What `convert("L")` makes of the palette's colours."""
    return np.unique(np.asarray(Image.fromarray(PALETTE[None]).convert("L")))


def _from_colours(colours: np.ndarray, name: str, palette: np.ndarray) -> np.ndarray:
    """Colours uint8 (H, W, 3 or 4) -> label map, each colour to the nearest of the palette."""
    packed = colours[..., :3].astype(np.uint32) @ np.array([65536, 256, 1], dtype=np.uint32)
    if colours.shape[-1] == 4:
        packed[colours[..., 3] < 128] = 0  # background is black
    distinct, where, counts = np.unique(packed, return_inverse=True, return_counts=True)
    rgb = np.stack([distinct >> 16, (distinct >> 8) & 255, distinct & 255], axis=-1).astype(np.int32)
    nearest = np.empty(len(distinct), dtype=np.uint8)
    distance = np.empty(len(distinct), dtype=np.int32)
    for start in range(0, len(distinct), 65536):  # a photograph has a million colours; keep the table small
        squared = ((rgb[start : start + 65536, None] - palette[None].astype(np.int32)) ** 2).sum(-1)
        nearest[start : start + 65536], distance[start : start + 65536] = squared.argmin(1), squared.min(1)
    near = counts[distance <= _NEAR**2].sum()
    if near * 2 < packed.size:
        raise MogleError(
            f"{name}: found {len(distinct)} colours, {near / packed.size:.0%} of the pixels near a palette colour; "
            f"expected a mask in palette colours, not a photograph"
        )
    guessed = int(counts[distance > 0].sum())
    if guessed:
        counted = f"{guessed} of {packed.size} pixels ({guessed / packed.size:.2%})"
        warnings.warn(
            f"{name}: {counted} had no palette colour, the nearest label was taken", MogleWarning, stacklevel=4
        )
    return nearest[where.reshape(packed.shape)]


def _resize(label_map: np.ndarray, size: int | tuple[int, int] | None) -> np.ndarray:
    """Nearest-neighbour resize to a side or (height, width): labels cannot be averaged."""
    if size is None:
        return label_map
    height, width = (size, size) if isinstance(size, int) else size
    if height < 1 or width < 1:
        raise MogleError(f"size={size}: expected a side, or (height, width), of at least 1 pixel")
    rows = (np.arange(height) + 0.5) * label_map.shape[0] / height
    columns = (np.arange(width) + 0.5) * label_map.shape[1] / width
    return label_map[rows.astype(np.intp)[:, None], columns.astype(np.intp)[None, :]]
