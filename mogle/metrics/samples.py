"""What is measured: test portraits, a data set's samples, or pictures in a folder that belong to them by id."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mogle.errors import MogleError
from mogle.metrics.stack import Pictures, Stack, stored, taken
from mogle.words import read_caption

TEST_IDS = range(27_000, 30_000)
OTHERS = 200  # at least so many other real portraits for KID, where there are
JPEG_SHOWS = "the traces that JPEG leaves show in every distance"
_LISTED = 10  # ids spelled out in a message; the rest is counted
_JPEG = (".jpg", ".jpeg")


@dataclass(frozen=True)
class Samples:
    """Test portraits: uint8 pictures (N,H,W,3) and label maps (N,H,W), first captions, and what is true of them."""

    ids: tuple[str, ...]
    images: Pictures
    masks: Pictures
    captions: tuple[str, ...]
    attributes: tuple[Mapping[str, str | None], ...]
    source: str
    jpeg: bool = False  # some of the pictures come from JPEG files
    warnings: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the pictures."""
        return self.images.shape[1], self.images.shape[2]

    def first(self, count: int) -> Samples:
        """The first `count` of them."""
        if count >= len(self):
            return self
        return replace(self.take(range(count)), source=f"{self.source}, the first {count}")

    def take(self, rows: Sequence[int]) -> Samples:
        """Those with these numbers, in this order."""
        images, masks = taken(self.images, rows), taken(self.masks, rows)
        ids, captions, facts = (tuple(x[i] for i in rows) for x in (self.ids, self.captions, self.attributes))
        return replace(self, ids=ids, images=images, masks=masks, captions=captions, attributes=facts)  # type: ignore[arg-type]


@dataclass(frozen=True)
class SampleSet:
    """Samples whose masks and captions are used, and other real pictures (M,H,W,3) that KID compares with.

    Not the samples' own pictures: reconstructions of the very same ones would come out closer than any new sample of
    the right distribution can.
    """

    samples: Samples
    reference: Pictures


def sample_set(
    data: Path | None, count: int, side: int, split: str = "test", style: str = "portraits", **reading: Any
) -> SampleSet:
    """The first samples of a folder, read as `FaceDataset` says, or painted ones; the reference are those that follow.

    Raises:
        MogleError: an unknown split, more portraits than there are, or what is wrong with the data set.
    """
    more = max(OTHERS, count)
    if data is None:
        if count > len(TEST_IDS) - 2:
            raise MogleError(f"--n {count}: expected at most {len(TEST_IDS) - 2}; KID needs portraits besides")
        samples, first = painted_samples(count, side, style=style), TEST_IDS.start + count
        return SampleSet(samples, painted_samples(min(more, TEST_IDS.stop - first), side, first, style).images)
    if split not in ("test", "train", "all"):
        raise MogleError(f"--split {split}: expected test, train or all")
    return SampleSet(*folder_samples(data, count, side, None if split == "all" else split, more, **reading))


def painted_samples(count: int, size: int, first: int = TEST_IDS.start, style: str = "portraits") -> Samples:
    """Portraits of the test split, painted from their numbers; of a shifted set, with another style."""
    from mogle.tiny.portraits import paint_many

    if not 1 <= count <= TEST_IDS.stop - first:
        raise MogleError(f"{count} portraits from number {first} on: expected 1 to {max(0, TEST_IDS.stop - first)}")
    numbers = range(first, first + count)
    images, masks, attributes, captions = paint_many(numbers, size=size, style=style)
    said, source = tuple(c[0] for c in captions), f"painted {style} {first} to {first + count - 1}"
    return Samples(tuple(map(str, numbers)), images, masks, said, tuple(attributes), source)


def folder_samples(
    root: str | Path, count: int, size: int, split: str | None = "test", others: int = 0, **reading: Any
) -> tuple[Samples, Pictures]:
    """The first samples of a data set folder, and pictures (M,H,W,3) of up to ``others`` that follow.

    Of photographs, what the first caption states counts as true. Files are read when they are needed.
    """
    from mogle.datasets import FaceDataset

    data = FaceDataset(root, split=split, size=size, **reading)
    whole, data.ids = len(data), data.ids[: count + others]
    data.validate()  # what is wrong with any of them is said now, not in the middle
    rows, shape = range(min(count, whole)), (size, size)
    said = tuple(data.captions(i)[0] for i in rows)
    pictures, masks = [data.picture_file(i) for i in rows], [data.mask_file(i) for i in rows]

    def picture(index: int) -> np.ndarray:
        return np.asarray(data.image(index))

    samples = Samples(
        ids=tuple(data.ids[i] for i in rows),
        images=Stack(picture, rows, (*shape, 3)),
        masks=Stack(data.label_map, rows, shape),
        captions=said,
        attributes=tuple(data.attributes(i) or read_caption(said[i]) for i in rows),
        source=f"{Path(root).name}, {'first ' if count < whole else ''}{len(rows)} samples",
        jpeg=any(file.suffix.lower() in _JPEG for file in pictures),
        warnings=(*_mixed_sizes("pictures", pictures, size), *_mixed_sizes("masks", masks, size)),
    )
    return samples, Stack(picture, range(len(rows), len(data)), (*shape, 3))


def _mixed_sizes(what: str, files: Sequence[Path], size: int) -> list[str]:
    """A warning where files of one kind differ in size: what was brought to `size` from afar looks different."""
    from PIL import Image

    sizes: Counter[tuple[int, int]] = Counter()
    for file in files:
        with Image.open(file) as picture:  # reads the header alone
            sizes[picture.size] += 1
    if len(sizes) == 1:
        return []
    counts = ", ".join(f"{count} of {width} x {height}" for (width, height), count in sizes.most_common(_LISTED))
    return [f"{what} differ in size ({counts} px) and were brought to {size} x {size}: that shows in every number"]


def derangement(count: int, seed: int = 0) -> np.ndarray:
    """A fixed random order in which nothing keeps its place: one cycle through all."""
    cycle, order = np.random.default_rng(seed).permutation(count), np.empty(count, dtype=int)
    order[cycle] = np.roll(cycle, 1)
    return order


def _listed(ids: Sequence[str]) -> str:
    more = f" and {len(ids) - _LISTED} more" if len(ids) > _LISTED else ""
    return ", ".join(sorted(ids)[:_LISTED]) + more


def pictures_of(folder: str | Path, samples: Samples) -> tuple[Samples, Pictures]:
    """Pictures in a folder, named ID.png or ID.jpg after their samples.

    Returns:
        the samples that have a picture, and the pictures (N,H,W,3) at the samples' size. The samples' warnings say how
        many have none, and of JPEG beside PNG and of pictures that had to be resized.

    Raises:
        MogleError: no such folder, nothing in it, pictures of no sample, unreadable ones; all ids at once.
    """
    from mogle.pictures import open_image

    folder = Path(folder)
    if not folder.is_dir():
        raise MogleError(f"{folder}: no such folder; expected pictures named after their samples, such as 27000.png")
    files = {path.stem: path for path in sorted(folder.iterdir()) if path.suffix.lower() in (".png", *_JPEG)}
    if not files:
        raise MogleError(f"{folder}: found no picture, expected PNG or JPEG files named after their samples")
    if strangers := [name for name in files if name not in samples.ids]:
        raise MogleError(
            f"{folder}: pictures that belong to no sample: {len(strangers)} ({_listed(strangers)}); "
            f"expected names such as {samples.ids[0]}.png"
        )
    height, width = samples.size
    kept = [i for i, name in enumerate(samples.ids) if name in files]
    chosen = [files[samples.ids[i]] for i in kept]
    broken, resized = [], 0
    for path in chosen:
        try:
            resized += open_image(path).size != (width, height)
        except (MogleError, OSError) as error:
            broken.append(f"{path.name}: {error}")
    if broken:
        raise MogleError(f"{folder}: unreadable pictures: {len(broken)}\n  " + "\n  ".join(broken[:_LISTED]))
    warnings = []
    if missing := [name for name in samples.ids if name not in files]:
        warnings.append(
            f"{len(missing)} of {len(samples)} samples have no picture in {folder.name}: {_listed(missing)}"
        )
    kinds = {path.suffix.lower() in _JPEG for path in chosen}
    if len(kinds) > 1:
        warnings.append(f"{folder.name} mixes JPEG and PNG: {JPEG_SHOWS}")
    elif kinds != {samples.jpeg}:
        warnings.append(f"JPEG on one side and PNG on the other: {JPEG_SHOWS}")
    if resized:
        warnings.append(f"pictures resized to {width} x {height} px: {resized}; that shows in distances")
    source = f"{samples.source}; {len(kept)} pictures"
    found = replace(samples.take(kept), source=source, warnings=(*warnings, *samples.warnings))
    return found, stored(chosen, samples.size)
