"""`FaceStream`: the samples of a data set that is read as it comes, by Hugging Face `datasets`.

    mogle train --data hf:OWNER/NAME     a data set of the Hub
    mogle train --data hf:FOLDER         Parquet or Arrow files, a WebDataset, an image folder with a metadata file

Nothing of it is kept on the disk, so that a set larger than the disk trains. Each row has a picture, a mask and
captions, which are a text (a caption a line) or a list of texts, in columns of the names in `COLUMNS`.
"""

from __future__ import annotations

import random
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mogle.datasets import CaptionProblem, FaceSample
from mogle.datasets.files import Finding
from mogle.errors import MogleError, MogleWarning
from mogle.labels import check_options, decode_mask
from mogle.pictures import Size, fit_picture, open_image, read_rgb, same_aspect, sides

STREAMED = "hf:"  # how the name of a data set that is streamed begins, where folders have names too
#: What a row has -> the names that its column may have, of which the first that is there is taken.
COLUMNS = {
    "image": ("image", "face", "jpg"), "mask": ("mask", "mask.png", "label", "conditioning_image"),
    "captions": ("captions", "caption", "text", "txt"), "id": ("id", "image_id", "__key__"),
}  # fmt: skip
BUFFER = 256  # rows among which the next one is drawn: a stream is shuffled by its files, and then within these


class Endless(Sequence[Any]):
    """What a function says of each place, without a last place."""

    def __init__(self, at: Callable[[int], Any]) -> None:
        self.at = at

    def __len__(self) -> int:
        return sys.maxsize

    def __getitem__(self, place: int) -> Any:  # type: ignore[override]  # no slices
        return self.at(place)


class FaceStream:
    """The samples of a stream by their places in the endless sequence of its epochs, as a training asks for them.

    Places are asked for in rising order, or a few from the last `kept` again; for an earlier one all is read anew.
    Every process of several reads the whole stream. A sample is looked at when it comes, not before.

    Args:
        name: of the data set on the Hub, or a folder.
        split: "train", "test", ..., as its files are named.
        size, labels, palette, fit: as `FaceDataset` has them.
        count: the first rows alone.
        seed: of the order; None leaves the stream's own.
        kept: samples that are held, undecoded, to be asked for again.
        skip_bad: leave samples with a problem out, and note which in ``problems``, instead of raising.
        caption_problem: see `FaceDataset.validate`.

    Raises:
        MogleError: it cannot be read, or lacks a column; later, what is wrong with a sample.
    """

    def __init__(
        self, name: str, split: str = "train", size: Size | None = None, *, count: int | None = None,
        seed: int | None = 0, kept: int = 256, skip_bad: bool = False, labels: str = "celebamask",
        palette: str = "dataset", fit: str | None = None, caption_problem: CaptionProblem = None,
    ) -> None:  # fmt: skip
        check_options(palette, labels, fit)
        self.name, self.size, self.fit = name, None if size is None else sides(size), fit
        self._masks: dict[str, Any] = {"labels": labels, "palette": palette}
        self._skip_bad, self._caption_problem, self._kept = skip_bad, caption_problem, kept
        self._rows, first = _opened(name, split)
        self._columns = {part: next((c for c in names if c in first), "") for part, names in COLUMNS.items()}
        for part, names in COLUMNS.items():
            if not self._columns[part] and part != "id":
                raise MogleError(f"{name}: found columns {', '.join(first)}; expected {part} in {' or '.join(names)}")
        self._count, self._seed = count, seed
        self.ids = Endless(lambda place: self._id(self._row(place)))
        self._bad: dict[str, Finding] = {}
        self._said: set[str] = set()  # kinds of notes
        self._begin()

    @property
    def problems(self) -> list[Finding]:
        """What was left out so far."""
        return list(self._bad.values())

    def image(self, place: int) -> Image.Image:
        """The picture alone, RGB, at ``size``."""
        return self._image(self._row(place))

    def label_map(self, place: int) -> np.ndarray:
        """The mask alone, uint8 (H, W), at ``size`` (its own where that is None)."""
        return self._label_map(self._row(place), self.size)

    def captions(self, place: int) -> list[str]:
        """The captions alone; no picture is decoded."""
        return self._captions(self._row(place))

    def __iter__(self) -> Iterator[FaceSample]:
        """The samples of one epoch."""
        return map(self._sample, self._epoch(0))

    # --- from row to sample --------------------------------------------------------------------------------------

    def _id(self, row: dict[str, Any]) -> str:
        """What the row calls itself, or the name of its picture's file."""
        picture = row[self._columns["image"]]
        file = picture.get("path") if isinstance(picture, dict) else None
        return str(row[self._columns["id"]]) if self._columns["id"] else Path(file or "a row without a name").stem

    def _picture(self, row: dict[str, Any], part: str) -> tuple[Any, str]:
        """Bytes or path of a picture, and what messages call it."""
        found, name = row[self._columns[part]], f"{self.name}: {part} of {self._id(row)}"
        if not isinstance(found, dict) or not (found.get("bytes") or found.get("path")):
            raise MogleError(f"{name}: found {type(found).__name__}, expected a picture")
        return found.get("bytes") or found["path"], name

    def _once(self, name: str, read: Callable[[], Any]) -> Any:
        """What `read` gives; a note on how it was read is passed on only where none of its kind was before."""
        with warnings.catch_warnings(record=True) as notes:
            warnings.simplefilter("always", MogleWarning)
            found = read()
        for text in (str(note.message) for note in notes if issubclass(note.category, MogleWarning)):
            kind = re.sub(r"[\d.,%]+", "", text.removeprefix(f"{name}: "))
            if kind not in self._said:
                self._said.add(kind)
                warnings.warn(f"{text} (more like it are not named)", MogleWarning, stacklevel=3)
        return found

    def _image(self, row: dict[str, Any]) -> Image.Image:
        source, name = self._picture(row, "image")
        image = self._once(name, lambda: read_rgb(source, name))
        return image if self.size is None else fit_picture(image, self.size, self.fit, name)

    def _label_map(self, row: dict[str, Any], size: Size | None) -> np.ndarray:
        source, name = self._picture(row, "mask")
        picture: Any = open_image(source, name)
        picture.filename = name  # what `decode_mask` calls it
        return self._once(name, lambda: decode_mask(picture, size=size, fit=self.fit, **self._masks))

    def _captions(self, row: dict[str, Any]) -> list[str]:
        found = row[self._columns["captions"]]
        found = found.decode(errors="replace") if isinstance(found, bytes) else found
        texts = found.splitlines() if isinstance(found, str) else found or []
        captions = [text.replace("\ufeff", "").strip() for text in texts if isinstance(text, str)]
        if not (captions := [caption for caption in captions if caption]):
            raise MogleError(f"{self.name}: found no caption of {self._id(row)}, expected at least one")
        for caption in captions:
            if self._caption_problem is not None and (wrong := self._caption_problem(caption)):
                raise MogleError(f"{self.name}: {self._id(row)}: {wrong}")
        return captions

    def _sample(self, row: dict[str, Any]) -> FaceSample:
        image, label_map = self._image(row), self._label_map(row, self.size)
        if self.size is None and not same_aspect((image.height, image.width), label_map.shape):
            raise MogleError(f"{self.name}: {self._id(row)}: mask and picture of different shapes")
        if self.size is None:
            label_map = self._label_map(row, (image.height, image.width))
        return FaceSample(self._id(row), image, label_map, self._captions(row), None)

    # --- the sequence of rows ------------------------------------------------------------------------------------

    def _begin(self) -> None:
        self._held: dict[int, dict[str, Any]] = {}
        self._next, self._passing = 0, self._passed()

    def _row(self, place: int) -> dict[str, Any]:
        if place < self._next and place not in self._held:
            self._begin()
        while self._next <= place:
            self._held[self._next] = next(self._passing)
            self._held.pop(self._next - self._kept, None)
            self._next += 1
        return self._held[place]

    def _passed(self) -> Iterator[dict[str, Any]]:
        """The rows of all epochs, one after the other."""
        before = -1
        for epoch in range(sys.maxsize):
            if self._next == before:
                raise MogleError(f"{self.name}: no usable sample ({len(self._bad)} with problems)")
            before = self._next
            yield from self._epoch(epoch)

    def _epoch(self, number: int) -> Iterator[dict[str, Any]]:
        """The usable rows of an epoch, as they come."""
        parts, chance = [self._rows], None if self._seed is None else random.Random(f"{self._seed}/{number}")
        if self._count is not None:
            parts = [self._rows.take(self._count)]
        elif chance is not None:
            files = self._rows.num_shards
            parts = [self._rows.shard(files, number) for number in chance.sample(range(files), files)]
        rows = chain.from_iterable(_reading(self.name, part) for part in parts)
        for row in rows if chance is None else _shuffled(rows, chance):
            if self._skip_bad:
                try:
                    self._sample(row)
                except MogleError as error:
                    self._bad[self._id(row)] = Finding("a sample that cannot be read", self._id(row), str(error))
                    continue
            yield row


def _shuffled(rows: Iterator[dict[str, Any]], chance: random.Random) -> Iterator[dict[str, Any]]:
    """The rows in another order; a row comes at most `BUFFER` places early."""
    held: list[dict[str, Any]] = []
    for row in rows:
        held.append(row)
        if len(held) > BUFFER:
            place = chance.randrange(len(held))
            held[place], held[-1] = held[-1], held[place]
            yield held.pop()
    chance.shuffle(held)
    yield from held


def _opened(name: str, split: str) -> tuple[Any, dict[str, Any]]:
    """The data set, pictures undecoded, and its first row.

    Raises:
        MogleError: `datasets` is not installed, there is no such data set, or it cannot be reached.
    """
    try:
        from datasets import load_dataset
    except ImportError as error:
        raise MogleError("streaming needs datasets, which is not installed; pip install 'face-mogle[hub]'") from error
    try:
        rows = load_dataset(name, split=split, streaming=True).decode(False)
    except Exception as error:  # it raises many kinds for what is not there, refused or no data set
        line = " ".join(str(error).split())[:200]
        raise MogleError(
            f"{name}: not to be had as a data set ({line}); expected a name on the Hub or a folder"
        ) from error
    first = next(_reading(name, rows), None)
    if first is None:
        raise MogleError(f"{name}: found no row in split {split!r}, expected samples")
    return rows, first


def _reading(name: str, rows: Any) -> Iterator[dict[str, Any]]:
    """The rows, with what goes wrong on the way as an error of ours."""
    try:
        yield from rows
    except MogleError:
        raise
    except Exception as error:
        line = " ".join(str(error).split())[:200] or type(error).__name__
        raise MogleError(f"{name}: reading stopped ({line}); give the same command again") from error
