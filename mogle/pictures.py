"""Picture files as people have them: opened whole or refused, made RGB, brought to a size in their own shape."""

from __future__ import annotations

import io
import math
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from mogle.errors import MogleError, MogleWarning

#: Larger pictures are refused before a single pixel is decoded: a few kilobytes of PNG can unpack to gigabytes.
MAX_PIXELS = 25_000_000  # 5,000 x 5,000: decoding a mask of colours takes 0.6 GB and seconds
MAX_PHOTO = 100_000_000  # of a JPEG that may be reduced as it is decoded, so that it takes a fraction of that
_BEFORE = "longest side in the file"  # a key of Pillow's `info`
_AT_MOST = f"expected at most {MAX_PIXELS // 1_000_000} million; make it smaller first"

#: Endings of the files that count as pictures in a data set, in any mixture of small and capital letters.
ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")

#: What `fit` may be where a size of another shape is asked for.
FITS = ("crop", "pad", "stretch")

Size = int | tuple[int, int]  # a side, or (height, width)

NEUTRAL = (128, 128, 128)  # what is seen through transparent pixels, and around a padded picture


def open_image(source: str | os.PathLike[str] | bytes, name: str = "") -> Image.Image:
    """Open and fully decode a picture file, or what such a file holds, turned upright where EXIF says how it was held.

    `name` is what messages call it.

    Raises:
        MogleError: the file is missing, a directory, not a picture, cut short, or larger than `MAX_PIXELS`.
    """
    if not isinstance(source, bytes):
        return _opened(_file(source), name or str(source))
    picture = _opened(io.BytesIO(source), name)
    picture.filename = name  # type: ignore[attr-defined]  # what decode_mask calls it
    return picture


def _file(path: str | os.PathLike[str]) -> Path:
    if not Path(path).is_file():
        found = "found a directory," if Path(path).is_dir() else "no such file;"
        raise MogleError(f"{path}: {found} expected an image file")
    return Path(path)


def _opened(file: Path | io.BytesIO, name: str, longest: int | None = None) -> Image.Image:
    """With `longest`, a JPEG is decoded at a half, a quarter or an eighth of its size where that is not below it."""
    with _trying(name, "cannot be opened as an image"):  # a damaged header, or no permission to read
        picture = Image.open(file)
    with picture:  # closes the file, not the pixels
        picture.info[_BEFORE] = max(picture.size)
        if longest is not None and picture.format == "JPEG" and picture.width * picture.height <= MAX_PHOTO:
            scale = min(1, longest / max(picture.size))
            picture.draft(None, (math.ceil(scale * picture.width), math.ceil(scale * picture.height)))
        load(picture, name)
        with _trying(name, "its note on how to turn it (EXIF) is damaged"):
            ImageOps.exif_transpose(picture, in_place=True)
    return picture


def load(picture: Image.Image, name: str) -> None:
    """Decode the pixels of an opened picture, whose size its header has told already."""
    if picture.width * picture.height > MAX_PIXELS:
        raise MogleError(f"{name}: found {picture.width} x {picture.height} pixels, {_AT_MOST}")
    with _trying(name, "the image is damaged or cut short"):
        picture.load()


def converted(picture: Image.Image, mode: str, name: str) -> Image.Image:
    """The picture in another of Pillow's modes; MogleError where Pillow knows no way."""
    trouble = f"found a picture in mode {picture.mode}, which cannot be read as {mode}; save it as an 8-bit RGB PNG"
    with _trying(name, trouble):
        return picture.convert(mode)


@contextmanager
def _trying(name: str, trouble: str) -> Iterator[None]:
    """Whatever Pillow raises (OSError, SyntaxError, struct.error, zlib.error, ...) as a MogleError of one line."""
    try:
        with warnings.catch_warnings(action="ignore"):  # about large pictures, truncated or odd metadata
            yield
    except Image.DecompressionBombError as error:
        raise MogleError(f"{name}: found an enormous picture, {_AT_MOST}") from error
    except UnidentifiedImageError as error:
        found = "found no image in the file, or a damaged one"
        raise MogleError(f"{name}: {found}; expected a PNG, JPEG or other picture") from error
    except Exception as error:
        line = " ".join(str(error).split())[:120] or type(error).__name__
        raise MogleError(f"{name}: {trouble} ({line})") from error


def read_rgb(source: str | os.PathLike[str] | bytes, name: str = "") -> Image.Image:
    """A photograph or portrait as 8-bit RGB, whatever its file holds; see `to_rgb`, and `open_image`."""
    return to_rgb(open_image(source, name), name or str(source))


class Photo(NamedTuple):
    """A photograph as `read_photo` gives it: its name in messages, the pixels, and how much they were reduced.

    `scale` is at most 1: a place in the photo as it was, in pixels, times it is the place in `picture`.
    """

    name: str
    picture: Image.Image
    scale: float


def read_photo(photo: Any, longest: int) -> Photo:
    """A photograph in any form -> upright, 8-bit RGB, no side above `longest` pixels.

    Args:
        photo: a path, a file's bytes, a PIL image of any mode, or a uint8 array (H, W) or (H, W, 3 or 4).
        longest: larger photos are reduced to it, JPEGs as they are decoded, so those may have `MAX_PHOTO` pixels.

    Raises:
        MogleError: see `open_image` and `to_rgb`; or an array that is no picture.
    """
    name = str(getattr(photo, "filename", "") or "photo")
    if isinstance(photo, bytes):
        picture = _opened(io.BytesIO(photo), name, longest)
    elif isinstance(photo, (str, os.PathLike)):
        name = str(photo)
        picture = _opened(_file(photo), name, longest)
    elif isinstance(photo, Image.Image):
        load(photo, name)
        with _trying(name, "its note on how to turn it (EXIF) is damaged"):
            picture = ImageOps.exif_transpose(photo)
    else:
        with _trying(name, "expected a path, a picture, or a uint8 array (H, W) or (H, W, 3 or 4)"):
            picture = Image.fromarray(np.asarray(photo))
        load(picture, name)
    before = picture.info.get(_BEFORE) or max(picture.size)
    picture = to_rgb(picture, name)
    picture.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    return Photo(name, picture, max(picture.size) / before)


def to_rgb(picture: Image.Image, name: str) -> Image.Image:
    """A decoded picture as 8-bit RGB.

    Gray of 16 bits is brought to 8; CMYK goes through the file's own colour profile where it has one; what is
    transparent is laid on neutral gray, whatever colours lie beneath.

    Raises:
        MogleError: numbers that are no picture's, such as floating-point ones.

    Warns:
        MogleWarning: where transparent pixels were replaced.
    """
    if picture.mode == "F" or picture.mode.startswith("I"):
        return _from_deep_gray(picture, name)
    if picture.has_transparency_data:
        rgba = converted(picture, "RGBA", name)
        if seen_through := (np.asarray(rgba.getchannel("A")) < 255).mean():
            what = f"{seen_through:.0%} of the picture is transparent; it was laid on neutral gray"
            warnings.warn(f"{name}: {what}", MogleWarning, stacklevel=2)
        ground = Image.new("RGBA", rgba.size, (*NEUTRAL, 255))
        return Image.alpha_composite(ground, rgba).convert("RGB")
    if picture.mode == "CMYK" and picture.info.get("icc_profile"):
        from PIL import ImageCms

        with suppress(ImageCms.PyCMSError, OSError):  # a profile of something else is as if there were none
            profile = ImageCms.ImageCmsProfile(io.BytesIO(picture.info["icc_profile"]))
            found = ImageCms.profileToProfile(picture, profile, ImageCms.createProfile("sRGB"), outputMode="RGB")
            return found or picture.convert("RGB")
    return converted(picture, "RGB", name)


def _from_deep_gray(picture: Image.Image, name: str) -> Image.Image:
    """Gray of 16 bits, in Pillow's modes I;16 and I, -> RGB."""
    values = np.asarray(picture)
    if picture.mode == "F" or values.min() < 0 or values.max() > 65535:
        raise MogleError(
            f"{name}: found gray values between {values.min():.3g} and {values.max():.3g} (mode {picture.mode}), "
            "expected 8 or 16 bits; save it as an 8-bit RGB PNG"
        )
    if values.max() > 255:  # otherwise 8-bit values in a 16-bit file
        values = np.rint(values / 257.0)
    return Image.fromarray(values.astype(np.uint8)).convert("RGB")


def same_aspect(shape: tuple[int, ...], size: tuple[int, ...]) -> bool:
    """Whether two (height, width) have the same shape, up to 1 % or what rounding to whole pixels makes of it."""
    (height, width), (rows, columns) = shape[:2], size[:2]
    off = abs(rows * width - columns * height)
    return off <= 0.01 * columns * height or off <= 0.5 * max(width, height)


def nearest_size(shape: tuple[int, ...], unit: int = 16, pixels: int | None = None) -> tuple[int, int]:
    """The (height, width) in multiples of `unit` whose shape is nearest to that of `shape`.

    Args:
        shape: (height, width) of a mask or picture.
        unit: both sides become multiples of it; 16 is FLUX's (8 for the VAE, 2 for patches).
        pixels: about how many the result should have, such as the square of the side that a base was trained at;
            None means as many as `shape` has. Shape counts for more than size: (192, 128) gives (144, 96) for 128 x 128
            pixels, which is exact, and not (160, 112).
    """
    height, width = shape[:2]
    area = pixels or height * width
    ideal = math.sqrt(area * height / width) / unit
    found = []
    for rows in range(max(1, int(ideal / 2)), math.ceil(ideal * 2) + 1):
        for columns in (max(1, math.floor(rows * width / height)), max(1, math.ceil(rows * width / height))):
            shape_off = abs(math.log(rows * width / (columns * height)))
            size_off = abs(math.log(rows * columns * unit**2 / area))
            found.append((10 * shape_off + size_off, rows * unit, columns * unit))
    return min(found)[1:]


def sides(size: Size) -> tuple[int, int]:
    """A side, or (height, width), as the latter; MogleError where it is less than a pixel."""
    height, width = (size, size) if isinstance(size, int) else size
    if height < 1 or width < 1:
        raise MogleError(f"size={size}: expected a side, or (height, width), of at least 1 pixel")
    return height, width


def fit_window(shape: tuple[int, ...], size: tuple[int, int], fit: str | None, name: str) -> tuple[float, ...]:
    """Which part (top, left, height, width) of a picture of `shape`, in its pixels, becomes one of `size`.

    "crop" keeps the middle, "pad" reaches beyond the edges, "stretch" takes everything and loses the shape; None
    refuses sizes of another shape.

    Raises:
        MogleError: another shape and no `fit`, or a `fit` that there is not.
    """
    if fit is not None and fit not in FITS:
        raise MogleError(f"fit={fit!r}: expected one of {', '.join(map(repr, FITS))}, or None to keep the shape")
    height, width = shape[:2]
    if fit == "stretch" or same_aspect(shape, size):
        return 0.0, 0.0, float(height), float(width)
    if fit is None:
        rows, columns = nearest_size(shape, 16, size[0] * size[1])
        raise MogleError(
            f"{name}: found {width} x {height} pixels, expected the shape of {size[1]} x {size[0]} (width x height); "
            f"ask for a size of its own shape, such as {columns} x {rows}, or choose fit='crop' or fit='pad'"
        )
    scale = (min if fit == "crop" else max)(height / size[0], width / size[1])
    part = size[0] * scale, size[1] * scale
    return (height - part[0]) / 2, (width - part[1]) / 2, *part


def fit_picture(image: Image.Image, size: tuple[int, int], fit: str | None, name: str = "picture") -> Image.Image:
    """A picture brought to (height, width) by Lanczos, see `fit_window`; padding is neutral gray."""
    top, left, height, width = fit_window((image.height, image.width), size, fit, name)
    if (height, width) == (image.height, image.width):
        return _lanczos(image, size)
    if top >= 0 and left >= 0:
        return image.resize(size[::-1], Image.Resampling.LANCZOS, box=(left, top, left + width, top + height))
    return ImageOps.pad(image, size[::-1], Image.Resampling.LANCZOS, color=NEUTRAL)


def _lanczos(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """All of an RGB picture at (height, width): by torch, where it can, in a quarter of Pillow's time.

    The two differ by 1/255 in one value of thousands, of pure noise by at most 2/255.
    """
    import torch

    if size == (image.height, image.width):
        return image.copy()
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]
    try:
        made = torch.nn.functional.interpolate(pixels, size, mode="lanczos", antialias=True)
    except ValueError:  # a torch without it
        return image.resize(size[::-1], Image.Resampling.LANCZOS)
    return Image.fromarray(made[0].permute(1, 2, 0).contiguous().numpy())
