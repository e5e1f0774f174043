"""Photo or picture -> label map, for masks that people have only as a photo.

    mogle.parsing.parsers     the parsers, and their numbers -> CelebAMask-HQ's labels, by name
    mogle.parsing.alignment   where the face is; cut out and turned as CelebA-HQ and FFHQ do it

A parser of photos is trained on faces that were cut out and turned upright, and so is the base that draws from the
mask. So a photo is aligned first, by five points where a detector gave them, or by eyes and mouth that the parser
itself finds in a first look at the whole photo.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from mogle.errors import MogleError, MogleWarning
from mogle.labels.anatomy import doubt
from mogle.parsing.alignment import (
    cut,
    find_face,
    frame_of_box,
    frame_of_face,
    frame_of_points,
    frame_of_whole,
    put_back,
)
from mogle.parsing.parsers import PARSERS, Parser, load_parser
from mogle.pictures import read_photo

__all__ = ["LONGEST", "PARSERS", "ParsedFace", "Parser", "load_parser", "parse_face"]

LONGEST = 2048  # pixels a side that photos are reduced to
#: A frame, what lies in it, and its label map.
Look = tuple[np.ndarray, Image.Image, np.ndarray]
_LOOKS = 3  # at most, to find eyes and mouth, before the one that counts
_SETTLED = 0.03  # of the frame's side: a frame that moved less is where it belongs


@dataclass(frozen=True, eq=False)
class ParsedFace:
    """A face in a photo.

    Attributes:
        photo: the photo upright, RGB, reduced if it was huge: the frame of `label_map` and `corners`.
        label_map: uint8 (H, W), labels 0..18; background outside of what was cut out.
        crop: what was cut out and turned upright.
        crop_labels: uint8 (side, side), its label map: the mask to draw from.
        corners: (4, 2), where the crop lies in the photo: top left, top right, bottom right, bottom left.
        aligned_by: "points" that were given; "features": eyes and mouth that the parser found; "box": the face as a
            whole, as eyes or mouth were not to be seen, so the head is not turned; "whole": nothing was cut out.
    """

    photo: Image.Image
    label_map: np.ndarray
    crop: Image.Image
    crop_labels: np.ndarray
    corners: np.ndarray
    aligned_by: str


def parse_face(
    photo: Any,
    parser: str | Parser = "portraits",
    *,
    points: Any = None,
    box: Any = None,
    align: bool | None = None,
    size: int | None = None,
) -> ParsedFace:
    """The label map of the one face, or the largest, in a photo or picture.

    Args:
        photo: a path, a file's bytes, a PIL image of any mode, or a uint8 array; EXIF says how it was held.
        parser: a name in `PARSERS`, or what `load_parser` gave, which saves loading it each time.
        points: five points (x, y) in pixels of the upright photo, from the picture's left: eye, eye, nose, mouth's
            corner, mouth's corner. They alone decide how the face is cut out.
        box: left, top, right, bottom of the face, from hairline to chin: where to look for eyes and mouth.
        align: False takes the picture as it is, such as one that was aligned before; default: what the parser needs.
        size: side of the crop; default: 512, or of a whole picture its own.

    Raises:
        MogleError: what cannot be read, no face, or weights that are not there.

    Warns:
        MogleWarning: where the label map cannot be a face, with the likely cause.
    """
    parser = load_parser(parser) if isinstance(parser, str) else parser
    name, upright, scale = read_photo(photo, LONGEST)
    aligned = points is not None or box is not None or (parser.side > 0 if align is None else align)
    whole = frame_of_whole(upright.size, square=aligned or parser.side > 0)
    side = size or (512 if aligned or parser.side else None)
    shape = (side, side) if side else upright.size[::-1]

    def look(frame: np.ndarray) -> Look:
        crop = cut(upright, frame, shape)
        return frame, crop, parser.parse(np.array(crop))

    if points is not None:
        how, (frame, crop, labels) = "points", look(frame_of_points(points, scale))
    elif aligned:
        start = whole if box is None else frame_of_box(box, scale)
        how, (frame, crop, labels) = _search(look, start)
    else:
        how, (frame, crop, labels) = "whole", look(whole)
    if find_face(labels) is None:
        painted = "it knows painted portraits alone, photos need another one; " if parser.name == "portraits" else ""
        raise MogleError(
            f"{name}: the parser {parser.name!r} found no face; {painted}expected eyes, nose and mouth to be seen: cut "
            "the photo to head and shoulders, or give box=(left, top, right, bottom) of the face"
        )
    if note := doubt(labels):
        warnings.warn(f"{name}: in what was parsed, {note}", MogleWarning, stacklevel=2)
    return ParsedFace(upright, put_back(labels, frame, upright.size[::-1]), crop, labels, frame, how)


def _search(look: Callable[[np.ndarray], Look], frame: np.ndarray) -> tuple[str, Look]:
    """Looks for a face, from a frame on, until what is cut out stays in place; see `ParsedFace.aligned_by`."""
    how = "box"
    for _ in range(_LOOKS):
        seen = look(frame)
        face = find_face(seen[2])
        if face is None:
            return how, seen
        how = "box" if face.features is None else "features"
        target = frame_of_face(face, frame, seen[2].shape)  # type: ignore[arg-type]
        if abs(target - frame).max() < _SETTLED * np.hypot(*(frame[1] - frame[0])):
            return how, seen
        frame = target
    return how, look(frame)
