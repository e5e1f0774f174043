"""Picture or photo -> label map, through the face parser that the project ships.

The parser learned from painted portraits. On a photograph its map is a first draft to be corrected by hand, not a
measurement; for photographs a parser trained on photographs is the right tool.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from mogle.errors import MogleError

if TYPE_CHECKING:
    from mogle.metrics.judges import FaceParser


def parse_face(
    picture: Any, parser: FaceParser | None = None, *, size: int | tuple[int, int] | None = None
) -> np.ndarray:
    """A face's label map, uint8 (H, W).

    Args:
        picture: a path, a PIL image, or a uint8 array (H, W, 3).
        parser: the network; by default the shipped one.
        size: side, or (height, width), of the result. None keeps the picture's size.
    """
    from PIL import Image

    from mogle.labels import decode_mask
    from mogle.pictures import open_image

    if parser is None:
        from mogle.checkpoints import JUDGES, shipped
        from mogle.metrics.judges import load_judges

        parser = load_judges(shipped(JUDGES)).parser
    if isinstance(picture, (str, os.PathLike)):
        picture = open_image(picture)
    pixels = np.asarray(picture.convert("RGB") if isinstance(picture, Image.Image) else picture)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise MogleError(f"a picture of shape {pixels.shape} and type {pixels.dtype}; expected uint8 (H, W, 3)")
    return decode_mask(parser.parse(pixels[None])[0], size=size)
