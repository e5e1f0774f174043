"""Masks as pictures and arrays have them -> label maps: which numbers or colours they hold, and what these stand for.

Nothing is guessed in silence: a number or colour that stands for nothing is refused with its likely cause.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from mogle.errors import MogleError
from mogle.labels.classes import DEMO_PALETTE, LABELS, PALETTE, order_table
from mogle.pictures import converted

_NEAR = 30  # RGB distance; the closest two palette colours are 51 apart, JPEG noise inside a region stays below this
_COLOURS = 1_000_000  # more are a photograph's; masks that were smoothed have a tenth of it
_LOOKED_AT = 1024  # pixels a side in which flat regions are looked for; of larger pictures every second, third, ...
_PATCH = 5  # side in pixels of what counts as a flat region; edges that were smoothed vary within it
_FLAT = 12  # how much JPEG makes the channels of a flat region vary there


_GRAY_JPEG = "found a gray JPEG, whose compression changes labels; expected a PNG: save the mask as one, anew"


class Reading(NamedTuple):
    """How a mask is to be read: its name in messages, the colours of the labels, who gave the numbers.

    `notes` is what was done with it that may not have been meant.
    """

    name: str
    palette: np.ndarray
    labels: str
    notes: list[str]

    def error(self, text: str) -> MogleError:
        """An error that names the mask."""
        return MogleError(f"{self.name}: {text}")


def read_picture(picture: Image.Image, how: Reading) -> np.ndarray:
    """Pick the reading that fits the picture's mode; see `mogle.labels.decode_mask`."""
    if picture.mode == "1":
        raise how.error(f"found a black-and-white picture, expected labels 0..18; {_part_hint(how.name)}")
    if picture.mode in ("P", "PA"):
        return _from_indices(picture, how)
    if picture.mode == "L" or picture.mode[0] in "IF":
        if picture.format == "JPEG":
            raise how.error(_GRAY_JPEG)
        return from_numbers(np.asarray(picture), how)
    return _from_colours(np.asarray(converted(picture, "RGBA", how.name)), how, picture.format == "JPEG")


def read_array(array: Any, how: Reading) -> np.ndarray:
    """Numpy or torch array -> label map; see `mogle.labels.decode_mask` for the shapes."""
    if isinstance(array, dict):
        keys = ", ".join(map(str, list(array)[:4]))
        raise how.error(f"found a dictionary ({keys}), expected one picture; of an editor's take its 'composite'")
    if hasattr(array, "detach"):  # torch, without importing it
        array = array.detach().cpu().numpy()
    values = np.asarray(array)
    found = f"an array of shape {values.shape} and type {values.dtype}"
    if values.dtype.kind not in "uif" or values.size == 0:
        kind = "a black-and-white mask (bool)" if values.dtype.kind == "b" else found
        raise how.error(f"found {kind}, expected a path, a picture, or an array of labels 0..18 or of colours")
    if values.ndim == 3 and 1 in (values.shape[0], values.shape[-1]):
        values = values.squeeze(0 if values.shape[0] == 1 else -1)
    if values.ndim == 2:
        return from_numbers(values, how)
    first, last = (values.shape[0], values.shape[-1]) if values.ndim == 3 else (0, 0)
    if len(LABELS) in (first, last) and (values.dtype.kind == "f" or last not in (3, 4)):
        call = f"mask.argmax({0 if first == len(LABELS) else -1})"
        raise how.error(f"found {found}, which looks one-hot; expected labels (H, W): pass {call}")
    if not {first, last} & {3, 4}:
        raise how.error(f"found {found}, expected (H, W) labels or (H, W, 3) colours; one mask at a time")
    if last not in (3, 4):
        values = values.transpose(1, 2, 0)
    if values.dtype.kind == "f" or values.min() < 0 or values.max() > 255:
        raise how.error(f"found colours as {found}, expected integers 0..255; scale and cast to uint8")
    return _from_colours(values.astype(np.uint8), how)


def from_numbers(values: np.ndarray, how: Reading) -> np.ndarray:
    """Numbers (H, W), given by whoever `how.labels` names, -> label map, a copy."""
    if values.size == 0:
        raise how.error("found no pixels at all, expected a mask")
    if values.dtype.kind == "f" and not (np.isfinite(values).all() and (values == np.rint(values)).all()):
        raise how.error(
            f"found values between {values.min():.3g} and {values.max():.3g}, expected labels 0..18; "
            "resize label maps by nearest neighbour, and cast them to uint8"
        )
    table = order_table(how.labels)
    known = np.flatnonzero(table < len(LABELS))
    if np.isin(values, known).all():
        return table[values.astype(np.uint8)]
    present = np.unique(values)
    wrong = [str(int(number)) for number in np.setdiff1d(present, known)]
    shown = ", ".join(wrong[:5] + ["..."] * (len(wrong) > 5))
    order = f"(0 {LABELS[0]} ... 18 {LABELS[-1]})" if how.labels == "celebamask" else f"of labels={how.labels!r}"
    hint = _number_hint(present, how.name)
    raise how.error(f"found label {shown}, expected labels {known[0]}..{known[-1]} {order}; {hint}")


def _number_hint(present: np.ndarray, name: str) -> str:
    """The likely cause of numbers that are no labels, from all that are present."""
    luma = np.unique(np.asarray(Image.fromarray(PALETTE[None]).convert("L")))  # what convert("L") makes of the colours
    found = set(present.tolist())
    if found <= {0, 255}:
        return _part_hint(name)
    if np.isin(present, luma).all():
        return "looks like a colour mask turned to gray, which loses classes: use the colour file"
    if len(found) > 2 * len(LABELS):
        return "looks like a gray picture or a smoothed mask: give a mask of flat regions, not a photograph"
    if found - {255} <= set(range(len(LABELS))):
        return "255 often marks pixels without a label: make them 0 (background) first"
    if found <= set(range(1, len(LABELS) + 1)):
        return "if the numbers begin at 1, choose labels='one-based'"
    step = int(np.gcd.reduce(present.astype(np.int64)))
    if step > 1 and present.min() >= 0 and present.max() // step < len(LABELS):
        return f"looks like labels times {step}, made to be seen: divide by {step}"
    return "leave such pixels 0 (background), or choose labels= for another parser's numbers"


def _part_hint(name: str) -> str:
    """What to do about black and white, with the part's name where the file has it ("00000_hair.png")."""
    parts = [f"part ({label})" for label in LABELS if re.search(rf"(^|[_\W\d]){label}($|[_\W])", Path(name).stem)]
    return (
        f"a black-and-white mask of one {[*parts, 'region'][0]} alone, as CelebAMask-HQ's raw annotations are, is not "
        "enough: join the parts of the face to one mask of labels first (`mogle data merge-parts` does it)"
    )


def _from_indices(picture: Image.Image, how: Reading) -> np.ndarray:
    """Palette picture: by index, unless the palette shows that its indices are not labels."""
    index = np.asarray(picture.getchannel(0) if picture.mode == "PA" else picture)
    used = np.bincount(index.ravel()).nonzero()[0]  # as np.unique finds them, which sorts all pixels
    if how.labels != "celebamask":
        return from_numbers(index, how)
    if used[-1] < len(LABELS):
        table = np.array(picture.getpalette("RGB"), dtype=np.uint8).reshape(-1, 3)
        if not _reordered(table, used, how.palette):
            return index.astype(np.uint8)
        how.notes.append("its palette is in another order, so its colours were read, not its indices")
    return _from_colours(np.asarray(converted(picture, "RGBA", how.name)), how)


def _reordered(table: np.ndarray, used: np.ndarray, palette: np.ndarray) -> bool:
    """Whether a picture's colours, not its indices, say what its regions are.

    Tools that optimise a PNG keep only the colours in use, numbered from 0. One colour that is nobody's may be the
    background's; with more of them the colours are somebody's own, and the indices are the labels.
    """
    if used[-1] >= len(table):
        return False
    colours = table[used]
    if (colours.min(1) == colours.max(1)).all() and (colours == 255).any():  # black and white
        return True
    if len(used) == len(LABELS) or used[-1] != len(used) - 1:
        return False
    if any((colours == known[used]).all() for known in (PALETTE, DEMO_PALETTE)):
        return False
    strange = (colours[:, None] != palette[None]).any(-1).all(-1)
    others = ~strange & (colours != palette[used]).any(-1)
    return not strange.any() or (strange.sum() == 1 and others.sum() >= 3)


def _from_colours(colours: np.ndarray, how: Reading, jpeg: bool = False) -> np.ndarray:
    """Colours uint8 (H, W, 3 or 4) -> label map: equal channels are labels, else each colour's nearest in the palette.

    Pixels more than half transparent are background.
    """
    clear = (colours[..., 3:] < 128).any(-1, keepdims=True)  # nowhere, where there is no fourth channel
    colours = np.where(clear, 0, colours[..., :3]).astype(np.uint8)
    if (colours.min(-1) == colours.max(-1)).all():
        if jpeg and colours.any():
            raise how.error(_GRAY_JPEG)
        return from_numbers(colours[..., 0], how)
    if how.labels != "celebamask":
        raise how.error(
            f"found colours, expected numbers for labels={how.labels!r}; give the parser's own label map, "
            "or leave labels= out for a mask in palette colours"
        )
    packed = colours[..., 0].astype(np.uint32) << 16 | colours[..., 1].astype(np.uint32) << 8 | colours[..., 2]
    distinct, counts = np.unique(packed, return_counts=True)
    if len(distinct) > _COLOURS:
        raise how.error(f"found {len(distinct)} colours; expected a mask in palette colours, not a photograph")
    rgb = np.stack([distinct >> 16, distinct >> 8 & 255, distinct & 255], axis=-1).astype(np.uint8)
    nearest, distance = _nearest(rgb, how.palette)
    if (distance > _NEAR**2).any():
        step = -(-max(packed.shape) // _LOOKED_AT)
        place = np.searchsorted(distinct, packed[::step, ::step])
        far, black = (distance > _NEAR**2)[place], (nearest == 0)[place]
        background = _foreign_background(colours[::step, ::step], far, black, how)
        if background is not None:
            nearest, distance = _nearest(rgb, np.concatenate([how.palette, background]))
            nearest[nearest == len(how.palette)] = 0
    total, guessed, near = counts.sum(), counts[distance > 0].sum(), counts[distance <= _NEAR**2].sum()
    if near * 2 < total:
        raise how.error(
            f"found {len(counts)} colours, {near / total:.0%} of the pixels near a palette colour; "
            "expected a mask in palette colours, not a photograph"
        )
    if guessed and not nearest.any():
        raise how.error(
            f"found nothing but {len(counts)} nearly black colours; expected palette colours, or the same "
            "label in R, G and B, saved without loss (PNG, not JPEG)"
        )
    if guessed:
        share = f"{guessed} of {total} pixels ({guessed / total:.2%})"
        how.notes.append(f"{share} had no palette colour, the nearest label was taken")
    return nearest[np.searchsorted(distinct, packed)]


def _nearest(rgb: np.ndarray, palette: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each colour's nearest label, and its squared distance."""
    squared = np.stack([((rgb - colour) ** 2).sum(-1, dtype=np.int32) for colour in palette.astype(np.int32)])
    return squared.argmin(0).astype(np.uint8), squared.min(0)


def _foreign_background(colours: np.ndarray, far: np.ndarray, black: np.ndarray, how: Reading) -> np.ndarray | None:
    """The one flat colour (1, 3) outside the palette that a picture has for its background, None where it has none.

    Args:
        colours: uint8 (H, W, 3).
        far: (H, W), pixels farther from the palette than noise explains.
        black: (H, W), pixels nearest to the palette's own background.
        how: gets a note where there is one.

    Raises:
        MogleError: flat regions of a colour that is nobody's and not the background's.
    """
    from scipy.ndimage import minimum_filter, morphological_gradient

    spread = morphological_gradient(colours, size=(_PATCH, _PATCH, 1)).max(-1)
    calm = spread[(spread <= 2 * _FLAT) & ~far]  # inside the regions; lossless files have no noise there
    noise, left = (_FLAT, far.size // 2000) if calm.size and np.median(calm) > 0 else (0, 0)
    flat = minimum_filter(far, size=_PATCH) & (spread <= noise)
    if flat.sum() <= left:
        return None
    shades, counts = np.unique(colours[flat], axis=0, return_counts=True)
    shade = shades[counts.argmax()]
    alike = _nearest(colours, shade[None])[1] <= _NEAR**2
    edge = np.concatenate([alike[0], alike[-1], alike[:, 0], alike[:, -1]])
    if (flat & ~alike).sum() <= left and edge.mean() >= 0.1 and (black & ~alike & ~far).mean() <= 0.01:
        how.notes.append(
            f"found a background of colour {tuple(shade.tolist())} ({alike.mean():.0%} of the pixels), expected "
            f"{tuple(PALETTE[0].tolist())}; it was taken as background"
        )
        return shade[None]
    raise how.error(
        f"found {len(shades)} colours far from the palette, such as {tuple(shade.tolist())} in "
        f"{alike.sum()} of {far.size} pixels; expected a mask in palette colours (mogle.labels.PALETTE), not a "
        "photograph or another tool's colours: give that tool's label map instead"
    )
