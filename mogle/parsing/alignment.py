"""Where a face lies in a photo, and the square around it that CelebA-HQ and FFHQ cut out and turn upright.

Coordinates are pixels of the photo, x to the right and y down, with (0, 0) the upper left corner of the first pixel.
A *frame* is the corners of what is cut out, (4, 2): top left, top right, bottom right, bottom left.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from mogle.errors import MogleError
from mogle.labels import LABELS
from mogle.labels.classes import GROUPS

_FACE = ["skin", "nose", "eye_g", "brows", "eyes", "lips"]
_SMALLEST = 0.003  # of a picture's pixels; a smaller face has no eyes that a parser could see
_FEW = 0.002  # of a face's pixels; a part with fewer is noise


class Face(NamedTuple):
    """What a label map shows of its largest face: a box (left, top, right, bottom), and where eyes and mouth are.

    `features` is (3, 2), the eye on the picture's left (the person's right), the other eye and the mouth, or None
    where one of them is not to be seen.
    """

    box: np.ndarray
    features: np.ndarray | None


def find_face(label_map: np.ndarray) -> Face | None:
    """The largest face in a label map (H, W), in its own pixels; None where it shows none.

    A face is skin in one piece with what is in it, of which two are there: eyes or glasses, a nose, lips.
    """
    from scipy import ndimage

    face = _largest(label_map, _FACE)
    size = face.sum()
    if size < _SMALLEST * label_map.size:
        return None
    (rows, columns) = ndimage.find_objects(face)[0]
    part = np.where(face, label_map, LABELS.index("background"))[rows, columns]
    corner = np.array([columns.start, rows.start], dtype=float)

    def centre(*names: str) -> np.ndarray | None:
        there = _largest(part, names)
        return None if there.sum() < _FEW * size else corner + 0.5 + np.array(ndimage.center_of_mass(there))[::-1]

    seen = [centre("eyes", "eye_g"), centre("nose"), centre("lips")]
    if sum(one is not None for one in seen) < 2:
        return None
    box = np.array([columns.start, rows.start, columns.stop, rows.stop], dtype=float)
    parts = [centre("r_eye"), centre("l_eye"), centre("lips")]  # the person's right eye is on the picture's left
    features = None if any(one is None for one in parts) else np.array(parts)
    return Face(box, features if features is not None and _in_order(features) else None)


def _largest(label_map: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """0 and 1: the largest piece of what is of these classes and groups; the others are noise, or another face's."""
    from scipy import ndimage

    pieces, count = ndimage.label(np.isin(label_map, [label for name in names for label in GROUPS[name]]))
    largest = np.bincount(pieces.ravel())[1:].argmax() + 1 if count else -1
    return (pieces == largest).astype(np.uint8)


def frame_of_features(features: np.ndarray) -> np.ndarray:
    """Eye on the picture's left, other eye and mouth, (3, 2) -> the frame that CelebA-HQ and FFHQ cut out.

    It is turned half by the line of the eyes and half by the line from eyes to mouth; half a side is twice the distance
    of the eyes or 1.8 times that from eyes to mouth, whichever is more.
    """
    left, right, mouth = features
    middle = (left + right) / 2
    across, down = right - left, mouth - middle
    x = across - _quarter_turn(down)
    x *= max(2 * np.hypot(*across), 1.8 * np.hypot(*down)) / np.hypot(*x)
    y, centre = _quarter_turn(x), middle + 0.1 * down
    return np.array([centre - x - y, centre + x - y, centre + x + y, centre - x + y])


def _in_order(features: np.ndarray) -> bool:
    """Whether the first eye is the one on the left of a face that is looked at, however it is turned."""
    (left, right, mouth) = features
    across, down = right - left, mouth - (left + right) / 2
    return across[0] * down[1] > across[1] * down[0]


def _quarter_turn(vector: np.ndarray) -> np.ndarray:
    return np.array([-vector[1], vector[0]])


def frame_of_points(points: Any, scale: float = 1.0) -> np.ndarray:
    """Five points (5, 2), as face detectors give them, times `scale` -> the frame of CelebA-HQ and FFHQ.

    In this order: the eye on the picture's left, the other eye, the nose's tip, the mouth's corner on the picture's
    left, the other corner.

    Raises:
        MogleError: they are not five, or not a face's.
    """
    found = scale * _numbers(
        "points", points, (5, 2), "five (x, y): eyes, nose, mouth's corners, the left of each first"
    )
    features = np.array([found[0], found[1], (found[3] + found[4]) / 2])
    if not _in_order(features):
        raise MogleError("points: found the eyes in the wrong order; expected the one on the picture's left first")
    return frame_of_features(features)


def frame_of_box(box: Any, scale: float = 1.0) -> np.ndarray:
    """A face's box (left, top, right, bottom), hairline to chin, times `scale` -> an upright square around the head.

    A box says neither where the eyes are nor how the head is tilted, so the square only comes near to CelebA-HQ's.

    Raises:
        MogleError: not four numbers in that order.
    """
    expected = "left, top, right, bottom in pixels, the face from hairline to chin"
    found = scale * _numbers("box", box, (4,), expected)
    (width, height), middle = found[2:] - found[:2], (found[:2] + found[2:]) / 2
    if min(width, height) <= 0:
        raise MogleError(f"box: found {box}, expected {expected}")
    return _square(middle - [0, 0.09 * height], 0.75 * max(width, height))


def _numbers(what: str, given: Any, shape: tuple[int, ...], expected: str) -> np.ndarray:
    try:
        found = np.asarray(given, dtype=float)
    except (TypeError, ValueError) as error:
        raise MogleError(f"{what}: found no numbers, expected {expected}") from error
    if found.shape != shape or not np.isfinite(found).all() or abs(found).max() > 1e6:
        raise MogleError(f"{what}: found shape {found.shape}, expected {expected}")
    return found


def frame_of_whole(size: tuple[int, int], square: bool) -> np.ndarray:
    """All of a photo of (width, height), as it is or in the middle of a square."""
    middle = np.array(size) / 2
    return _square(middle, max(size) / 2) if square else _square(middle, middle)


def _square(middle: np.ndarray, half: Any) -> np.ndarray:
    return middle + half * np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])


def frame_of_face(face: Face, frame: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The frame, in the photo, of a face that was found in what a frame cut out at (height, width)."""
    if face.features is not None:
        return frame_of_features(_moved(face.features, frame, size))
    corners = _moved(face.box[[[0, 1], [2, 1], [2, 3], [0, 3]]], frame, size)
    return frame_of_box([*corners.min(0), *corners.max(0)])


def _moved(points: np.ndarray, frame: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Points (N, 2) of what was cut out with a frame at (height, width) -> the same in the photo."""
    matrix = _matrix(frame, size)
    return points @ matrix[:, :2].T + matrix[:, 2]


def _matrix(frame: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(2, 3): from pixels of the cut (x, y, 1) to the photo's."""
    (height, width), (corner, right, _, below) = size, frame
    return np.stack([(right - corner) / width, (below - corner) / height, corner], axis=1)


def cut(photo: Image.Image, frame: np.ndarray, size: tuple[int, int]) -> Image.Image:
    """What lies in a frame, at (height, width). Beyond the photo's edges its last pixels go on."""
    if np.allclose(frame, frame_of_whole(photo.size, square=False)):
        return photo.resize(size[::-1], Image.Resampling.LANCZOS)
    step = min(max(1, int(np.hypot(*(frame[1] - frame[0])) / size[1])), *photo.size)
    frame, photo = frame / step, photo.reduce(step)  # so that no pixel of a large photo is passed over
    low, high = np.floor(frame.min(0)).astype(int) - 2, np.ceil(frame.max(0)).astype(int) + 2
    columns, rows = (np.clip(np.arange(low[i], high[i]), 0, photo.size[i] - 1) for i in (0, 1))
    around = Image.fromarray(np.asarray(photo)[np.ix_(rows, columns)])
    double = (2 * size[0], 2 * size[1])
    matrix = _matrix(frame - low, double).ravel().tolist()
    turned = around.transform(double[::-1], Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC)
    return turned.resize(size[::-1], Image.Resampling.LANCZOS)


def put_back(label_map: np.ndarray, frame: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The label map of what was cut out -> the whole photo's, uint8 of (height, width); around it is background."""
    matrix = np.vstack([_matrix(frame, label_map.shape), [0, 0, 1]])  # type: ignore[arg-type]
    back = np.linalg.inv(matrix)[:2].ravel().tolist()
    image = Image.fromarray(label_map).transform(size[::-1], Image.Transform.AFFINE, back, Image.Resampling.NEAREST)
    return np.array(image)
