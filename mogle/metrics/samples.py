"""What is measured: test portraits, a data set's samples, or pictures in a folder that belong to them by id."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mogle.datasets import FaceDataset
from mogle.errors import MogleError
from mogle.metrics.stack import Pictures, Stack, stored, taken
from mogle.pictures import open_image
from mogle.words import read_caption

OTHERS = 200  # at least so many other real portraits for KID, where there are
JPEG_SHOWS = "the traces that JPEG leaves show in every distance"
_LISTED = 10  # ids spelled out in a message; the rest is counted
_JPEG = (".jpg", ".jpeg")


@dataclass(frozen=True)
class Samples:
    """Test portraits: uint8 pictures (H,W,3) and label maps (H,W), first captions, and what is true of them.

    `others` are real pictures that KID compares with. They are not the samples' own: reconstructions of the very same
    ones would come out closer than any new sample of the right distribution can.
    """

    ids: tuple[str, ...]
    images: Pictures
    masks: Pictures
    captions: tuple[str, ...]
    attributes: tuple[Mapping[str, str | None], ...]
    others: Pictures
    source: str
    jpeg: bool = False  # some of the pictures come from JPEG files
    warnings: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the pictures."""
        return self.masks[0].shape

    def first(self, count: int) -> Samples:
        """The first `count` of them."""
        if count >= len(self):
            return self
        return replace(self.take(range(count)), source=f"{self.source}, the first {count}")

    def take(self, rows: Sequence[int]) -> Samples:
        """Those with these numbers, in this order."""
        ids, captions, facts = (tuple(x[i] for i in rows) for x in (self.ids, self.captions, self.attributes))
        images, masks = taken(self.images, rows), taken(self.masks, rows)
        return replace(self, ids=ids, images=images, masks=masks, captions=captions, attributes=facts)  # type: ignore[arg-type]


def folder_samples(root: Path, count: int, size: int, split: str = "test", **reading: Any) -> Samples:
    """The first samples of a data set's split, read as `FaceDataset` says; those that follow are the others.

    Of photographs, what the first caption states counts as true. Files are read when they are needed.

    Raises:
        MogleError: an unknown split, or what is wrong with the data set.
    """
    if split not in ("test", "train", "all"):
        raise MogleError(f"--split {split}: expected test, train or all")
    data = FaceDataset(root, split=None if split == "all" else split, size=size, **reading)
    whole, data.ids = len(data), data.ids[: count + max(OTHERS, count)]
    data.validate()  # what is wrong with any of them is said now, not in the middle
    rows = range(min(count, whole))
    said = tuple(data.captions(i)[0] for i in rows)
    pictures, masks = [data.picture_file(i) for i in rows], [data.mask_file(i) for i in rows]

    def picture(index: int) -> np.ndarray:
        return np.asarray(data.image(index))

    return Samples(
        ids=tuple(data.ids[i] for i in rows),
        images=Stack(picture, rows),
        masks=Stack(data.label_map, rows),
        captions=said,
        attributes=tuple(data.attributes(i) or read_caption(said[i]) for i in rows),
        others=Stack(picture, range(len(rows), len(data))),
        source=f"{root.name}, {'first ' if count < whole else ''}{len(rows)} samples",
        jpeg=any(file.suffix.lower() in _JPEG for file in pictures),
        warnings=(*_mixed_sizes("pictures", pictures, size), *_mixed_sizes("masks", masks, size)),
    )


def _mixed_sizes(what: str, files: Sequence[Path], size: int) -> list[str]:
    """A warning where files of one kind differ in size: what was brought to `size` from afar looks different."""
    from PIL import Image

    sizes: Counter[tuple[int, int]] = Counter()
    for file in files:
        with Image.open(file) as picture:  # reads the header alone
            sizes[picture.size] += 1
    counts = ", ".join(f"{count} of {width} x {height}" for (width, height), count in sizes.most_common(_LISTED))
    warning = f"{what} differ in size ({counts} px) and were brought to {size} x {size}: that shows in every number"
    return [warning] if len(sizes) > 1 else []


def _listed(ids: Sequence[str]) -> str:
    more = f" and {len(ids) - _LISTED} more" if len(ids) > _LISTED else ""
    return ", ".join(sorted(ids)[:_LISTED]) + more


def derangement(count: int) -> np.ndarray:
    """A fixed random order in which nothing keeps its place: one cycle through all."""
    cycle, order = np.random.default_rng(0).permutation(count), np.empty(count, dtype=int)
    order[cycle] = np.roll(cycle, 1)
    return order


def pictures_of(folder: Path, samples: Samples) -> tuple[Samples, Pictures]:
    """Pictures in a folder, named ID.png or ID.jpg after their samples.

    Returns:
        the samples that have a picture, and the pictures (H,W,3) at the samples' size. The samples' warnings say how
        many have none, and of JPEG beside PNG and of pictures that had to be resized.

    Raises:
        MogleError: no such folder, nothing in it, pictures of no sample, unreadable ones; all ids at once.
    """
    if not folder.is_dir():
        raise MogleError(f"{folder}: no such folder; expected pictures named after their samples, such as 27000.png")
    files = {path.stem: path for path in sorted(folder.iterdir()) if path.suffix.lower() in (".png", *_JPEG)}
    if not files:
        raise MogleError(f"{folder}: found no picture, expected PNG or JPEG files named after their samples")
    if strangers := [name for name in files if name not in samples.ids]:
        found = f"pictures that belong to no sample: {len(strangers)} ({_listed(strangers)})"
        raise MogleError(f"{folder}: {found}; expected names such as {samples.ids[0]}.png")
    size, warnings = samples.size, []
    kept = [i for i, name in enumerate(samples.ids) if name in files]
    chosen = [files[samples.ids[i]] for i in kept]
    resized, broken = 0, []
    for path in chosen:
        try:
            resized += open_image(path).size != size[::-1]
        except (MogleError, OSError) as error:
            broken.append(f"{path.name}: {error}")
    if broken:
        raise MogleError(f"{folder}: unreadable pictures: {len(broken)}\n  " + "\n  ".join(broken[:_LISTED]))
    if missing := [name for name in samples.ids if name not in files]:
        found = f"{len(missing)} of {len(samples)} samples have no picture in {folder.name}"
        warnings.append(f"{found}: {_listed(missing)}")
    kinds = {path.suffix.lower() in _JPEG for path in chosen}
    if len(kinds) > 1:
        warnings.append(f"{folder.name} mixes JPEG and PNG: {JPEG_SHOWS}")
    elif kinds != {samples.jpeg}:
        warnings.append(f"JPEG on one side and PNG on the other: {JPEG_SHOWS}")
    if resized:
        warnings.append(f"pictures resized to {size[1]} x {size[0]} px: {resized}; that shows in distances")
    source = f"{samples.source}; {len(kept)} pictures"
    belonging = replace(samples.take(kept), source=source, warnings=(*warnings, *samples.warnings))
    return belonging, stored(chosen, size)
