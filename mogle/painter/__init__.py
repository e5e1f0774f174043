"""The mask painter: a label map drawn by hand in a browser, in notebooks (`mogle.painter.widget`) and on web pages.

`painter.js` keeps the label map itself, one byte a pixel, and stamps hard-edged shapes into it, so that no class can
change on the way. This module is what both sides agree on: the classes with their names and keys, and the form in which
a label map travels.
"""

from __future__ import annotations

import base64
import binascii
import tomllib
from pathlib import Path
from typing import Any

import numpy as np

from mogle.errors import MogleError
from mogle.labels import LABELS, PALETTE, decode_mask
from mogle.pictures import open_image

#: The browser's half: one ES module without dependencies, and its style sheet.
SCRIPT, STYLE = (Path(__file__).with_name(name) for name in ("painter.js", "painter.css"))

#: The longest side that is painted on: what a browser's undo history and a message to it can bear.
MAX_SIDE = 2048

_WORDS: dict[str, dict[str, str]] = tomllib.loads(Path(__file__).with_name("classes.toml").read_text(encoding="utf-8"))


def classes() -> list[dict[str, Any]]:
    """What `mount` of painter.js has to know of each class, in the order of the labels.

    Returns:
        For each class `index`, `name` in words, `note` (the name with the side it lies on), `color` as in the data
        sets' files and `safe`, a colour for colour-blind eyes, both "#rrggbb"; `key`, which chooses it; and `mirror`,
        the index of what lies on the other side of the face.
    """
    found = []
    for index, label in enumerate(LABELS):
        other = {"l_": "r_", "r_": "l_"}.get(label[:2], label[:2]) + label[2:]
        mirror = LABELS.index(other) if other in LABELS else index
        words = _WORDS[label]
        note = words["name"]
        if mirror != index:
            side = "right" if label.startswith("l_") else "left"
            note = f"the person's {note}, on the {side} of the picture"
        color = "#{:02x}{:02x}{:02x}".format(*PALETTE[index].tolist())
        found.append({"index": index, **words, "note": note, "color": color, "mirror": mirror})
    return found


def checked(label_map: Any) -> np.ndarray:
    """A label map as the painter takes it: a read-only uint8 copy (H, W), both sides 1 to `MAX_SIDE`.

    Raises:
        MogleError: another shape, another size, or values beside 0..18.
    """
    values = np.asarray(label_map)
    if values.ndim != 2:
        raise MogleError(f"label map: found an array of shape {values.shape}, expected (height, width)")
    height, width = values.shape
    _check_size(width, height)
    values = decode_mask(values) if values.dtype != np.uint8 else values.copy()
    if (highest := int(values.max())) >= len(LABELS):
        raise MogleError(f"label map: found label {highest}, expected 0 ({LABELS[0]}) to 18 ({LABELS[-1]})")
    values.setflags(write=False)
    return values


def _check_size(width: Any, height: Any, name: str = "label map") -> None:
    for side in (width, height):
        if type(side) is not int or not 1 <= side <= MAX_SIDE:
            found = f"{str(width)[:20]} x {str(height)[:20]} pixels"
            raise MogleError(f"{name}: found {found}, expected whole numbers from 1 to {MAX_SIDE} a side")


def pack(label_map: np.ndarray) -> dict[str, Any]:
    """Label map -> what travels as JSON: `width`, `height`, and `labels`, the bytes row by row in base64.

    Raises:
        MogleError: see `checked`.
    """
    label_map = checked(label_map)
    height, width = label_map.shape
    return {"width": width, "height": height, "labels": base64.b64encode(label_map.tobytes()).decode("ascii")}


def unpack(packed: Any) -> np.ndarray:
    """The inverse of `pack`, for whatever a browser may have sent: a read-only label map (H, W).

    `labels` may be the bytes themselves too, as they travel to and from a widget.

    Raises:
        MogleError: not such an object, damaged base64, a number of bytes that is not width x height, a label that is
            no class, or a side beyond `MAX_SIDE`. Nothing is decoded before its length has been compared.
    """
    if not isinstance(packed, dict):
        raise MogleError(f"label map: found {type(packed).__name__}, expected an object with width, height and labels")
    if missing := [name for name in ("width", "height", "labels") if name not in packed]:
        raise MogleError(f"label map: found an object without {missing[0]}, expected width, height and labels")
    width, height, labels = packed["width"], packed["height"], packed["labels"]
    _check_size(width, height)
    count = width * height
    if isinstance(labels, str):
        expected = 4 * -(-count // 3)
        if len(labels) != expected:
            what = f"found {len(labels)} characters of base64 for {width} x {height} pixels, expected {expected}"
            raise MogleError(f"label map: {what}")
        try:
            labels = base64.b64decode(labels, validate=True)
        except (binascii.Error, ValueError) as error:
            raise MogleError(f"label map: the base64 is damaged ({error})") from error
    if not isinstance(labels, (bytes, bytearray, memoryview)):
        raise MogleError(f"label map: found labels as {type(labels).__name__}, expected base64 or bytes")
    values = np.frombuffer(labels, dtype=np.uint8)
    if values.size != count:
        raise MogleError(f"label map: found {values.size} bytes for {width} x {height} pixels, expected {count}")
    return checked(values.reshape(height, width))


def read_mask(data: bytes, name: str = "file") -> np.ndarray:
    """The bytes of a mask file of any form that `decode_mask` reads -> a label map that can be painted on.

    A browser cannot do that: what it gives of a PNG are colours, changed by its colour management.

    Raises:
        MogleError: see `decode_mask` and `checked`.
    """
    picture = open_image(data, name)
    _check_size(*picture.size, name)
    return checked(decode_mask(picture))
