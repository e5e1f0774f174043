"""What is measured: test portraits, a data set's samples, or pictures in a folder that belong to them by id."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mogle.errors import MogleError
from mogle.metrics.stack import Pictures, Stack, taken
from mogle.words import read_caption

TEST_IDS = range(27_000, 30_000)
_LISTED = 10  # ids spelled out in a message; the rest is counted


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

    def first(self, count: int) -> Samples:
        """The first `count` of them."""
        if count >= len(self):
            return self
        return replace(self.take(range(count)), source=f"{self.source}, the first {count}")

    def take(self, rows: Sequence[int]) -> Samples:
        """Those with these numbers, in this order."""
        return replace(
            self,
            ids=tuple(self.ids[i] for i in rows),
            images=taken(self.images, rows),
            masks=taken(self.masks, rows),
            captions=tuple(self.captions[i] for i in rows),
            attributes=tuple(self.attributes[i] for i in rows),
        )

    def seed(self, index: int) -> int:
        """The noise of a sample is fixed by its number, so every row starts from the same."""
        return int(self.ids[index]) if self.ids[index].isdecimal() else index


def painted_samples(count: int, size: int, first: int = TEST_IDS.start, style: str = "portraits") -> Samples:
    """Portraits of the test split, painted from their numbers; of a shifted set, with another style."""
    from mogle.tiny.portraits import paint_many

    if not 1 <= count <= TEST_IDS.stop - first:
        raise MogleError(f"{count} portraits from number {first} on: expected 1 to {max(0, TEST_IDS.stop - first)}")
    images, masks, attributes, captions = paint_many(range(first, first + count), size=size, style=style)
    return Samples(
        tuple(str(i) for i in range(first, first + count)),
        images,
        masks,
        tuple(c[0] for c in captions),
        tuple(attributes),
        f"painted {style} {first} to {first + count - 1}",
    )


def folder_samples(
    root: str | Path, count: int, size: int, split: str | None = "test", others: int = 0
) -> tuple[Samples, Pictures]:
    """The first samples of a data set folder, and pictures (M,H,W,3) of up to ``others`` that follow.

    Of photographs, what the first caption states counts as true. Files are read when they are needed.
    """
    from mogle.datasets import FaceDataset

    data = FaceDataset(root, split=split, size=size)
    whole, data.ids = len(data), data.ids[: count + others]
    data.validate()  # what is wrong with any of them is said now, not in the middle
    rows, shape = range(min(count, whole)), (size, size)
    said = [data.captions(i)[0] for i in rows]

    def picture(index: int) -> np.ndarray:
        return np.asarray(data.image(index))

    samples = Samples(
        tuple(data.ids[i] for i in rows),
        Stack(picture, rows, (*shape, 3)),
        Stack(data.label_map, rows, shape),
        tuple(said),
        tuple(data.attributes(i) or read_caption(said[i]) for i in rows),
        f"{Path(root).name}, {'first ' if count < whole else ''}{len(rows)} samples",
        jpeg=any(is_jpeg(data.picture_file(i)) for i in rows),
        warnings=tuple(_mixed_sizes("pictures", [data.picture_file(i) for i in rows], size))
        + tuple(_mixed_sizes("masks", [data.mask_file(i) for i in rows], size)),
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


JPEG_SHOWS = "the traces that JPEG leaves show in every distance"


def is_jpeg(path: Path) -> bool:
    """By its name."""
    return path.suffix.lower() in (".jpg", ".jpeg")


def derangement(count: int, seed: int = 0) -> np.ndarray:
    """A fixed random order in which nothing keeps its place (one cycle; Sattolo's algorithm)."""
    order, rng = np.arange(count), np.random.default_rng(seed)
    for i in range(count - 1, 0, -1):
        j = int(rng.integers(i))
        order[i], order[j] = order[j], order[i]
    return order


def _ids(ids: list[str]) -> str:
    more = f" and {len(ids) - _LISTED} more" if len(ids) > _LISTED else ""
    return ", ".join(sorted(ids)[:_LISTED]) + more


def pictures_of(folder: str | Path, samples: Samples) -> tuple[Samples, Pictures, list[str]]:
    """Pictures in a folder, named ID.png or ID.jpg after their samples.

    Returns:
        the samples that have a picture, the pictures (N,H,W,3) at the samples' size, and warnings: how many samples
        have none, JPEG beside PNG, pictures that had to be resized.

    Raises:
        MogleError: no such folder, nothing in it, pictures of no sample, unreadable ones; all ids at once.
    """
    from PIL import Image

    from mogle.labels import open_image

    folder = Path(folder)
    if not folder.is_dir():
        raise MogleError(f"{folder}: no such folder; expected pictures named after their samples, such as 27000.png")
    files = {path.stem: path for path in sorted(folder.iterdir()) if path.suffix.lower() in (".png", ".jpg", ".jpeg")}
    if not files:
        raise MogleError(f"{folder}: found no picture, expected PNG or JPEG files named after their samples")
    place = {name: i for i, name in enumerate(samples.ids)}
    if strangers := [name for name in files if name not in place]:
        raise MogleError(
            f"{folder}: pictures that belong to no sample: {len(strangers)} ({_ids(strangers)}); "
            f"expected names such as {samples.ids[0]}.png"
        )
    height, width = samples.images.shape[1:3]
    kept, names, broken, resized = [], [], [], 0
    for name in sorted(files, key=place.__getitem__):
        try:
            resized += open_image(files[name]).size != (width, height)
        except (MogleError, OSError) as error:
            broken.append(f"{files[name].name}: {error}")
            continue
        kept.append(place[name])
        names.append(name)

    def picture(index: int) -> np.ndarray:
        image = open_image(files[names[index]]).convert("RGB")
        if image.size != (width, height):
            image = image.resize((width, height), Image.Resampling.LANCZOS)
        return np.asarray(image)

    if broken:
        raise MogleError(f"{folder}: unreadable pictures: {len(broken)}\n  " + "\n  ".join(broken[:_LISTED]))
    warnings = []
    if missing := [name for name in samples.ids if name not in files]:
        warnings.append(f"{len(missing)} of {len(samples)} samples have no picture in {folder.name}: {_ids(missing)}")
    kinds = {is_jpeg(path) for path in files.values()}
    if len(kinds) > 1:
        warnings.append(f"{folder.name} mixes JPEG and PNG: {JPEG_SHOWS}")
    elif kinds != {samples.jpeg}:
        warnings.append(f"JPEG on one side and PNG on the other: {JPEG_SHOWS}")
    if resized:
        warnings.append(f"pictures resized to {width} x {height} px: {resized}; that shows in distances")
    return samples.take(kept), Stack(picture, range(len(kept)), (height, width, 3)), warnings
