"""`FaceDataset`: pictures, masks and captions in the layout that all data sets of this project share.

    root/face/52.jpg   root/mask/52.png   root/text/52.txt   root/text.json   root/attributes.json

Ids are file names without their ending. They need not be contiguous and may be padded ("00001"); files belong together
by id alone, never by their place in a listing. ``text.json`` ({"52.jpg": [captions]}) may be absent, ``text/`` too, not
both; ``attributes.json`` is what painted portraits have besides.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mogle.errors import MogleError
from mogle.labels import decode_mask, open_image

TRAIN_IDS = range(0, 27000)
TEST_IDS = range(27000, 30000)
_FACES = (".jpg", ".jpeg", ".png")
_LISTED = 20  # problems spelled out in a message; the rest is counted


@dataclass(frozen=True)
class FaceSample:
    """image: RGB; label_map: uint8 (H, W) of the image's size; captions: the first is the one used in testing."""

    id: str
    image: Image.Image
    label_map: np.ndarray
    captions: list[str]
    attributes: dict[str, str | None] | None


def _natural(name: str) -> tuple[Any, ...]:
    """Sort key: 2 before 10, "00002" before "10"."""
    return tuple((0, int(part), part) if part.isdigit() else (1, 0, part) for part in re.findall(r"\d+|\D+", name))


def _listing(folder: Path, endings: Sequence[str]) -> dict[str, list[str]]:
    """Id -> names of its files. Other files (thumbnails, half-written parts) are nobody's business."""
    found: dict[str, list[str]] = {}
    if folder.is_dir():
        for entry in sorted(os.listdir(folder)):
            stem, ending = os.path.splitext(entry)
            if ending.lower() in endings and not entry.startswith("."):
                found.setdefault(stem, []).append(entry)
    return found


def _read_json(path: Path, problems: list[str]) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(value, dict):
            return value
        problems.append(f"{path.name}: found a JSON {type(value).__name__}, expected an object")
    except (OSError, ValueError) as error:
        problems.append(f"{path.name}: not readable as JSON ({error})")
    return {}


def _complain(root: Path, problems: list[str]) -> MogleError:
    more = f"\n  ... and {len(problems) - _LISTED} more" if len(problems) > _LISTED else ""
    lines = "".join(f"\n  {p}" for p in problems[:_LISTED])
    return MogleError(
        f"{root}: {len(problems)} problem{'s' if len(problems) > 1 else ''} in the data set; "
        f"put them right, or leave these samples out with skip_bad=True{lines}{more}"
    )


class FaceDataset(Sequence[FaceSample]):
    """The samples of a data set, in the natural order of their ids.

    Args:
        root: the folder.
        split: "train" is ids 0..26999 and "test" 27000..29999, by number, for a root numbered as MM-CelebA-HQ is:
            unpadded numbers below 30,000, with a text.json or without gaps (painted folders say in dataset.json
            whether they are such a set). Every other root (MM-FFHQ-Female, MM-FairFace-HQ, a folder of your own)
            has no split: "train", "test" and None all mean all of it.
        size: side, or (height, width), that pictures (Lanczos) and label maps (nearest) are brought to. None keeps the
            picture's size, and brings the label map to it (CelebA-HQ has 1,024 px faces and 512 px masks).
        skip_bad: leave samples with a problem out, and say how many in ``skipped``, instead of raising.

    Only names are looked at here, so that opening 30,000 samples takes no time; `validate` reads every file.

    Raises:
        MogleError: no such data set, an empty split, or all problems at once: picture without mask or captions, mask or
            captions without picture, two pictures of one id, unreadable JSON.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        split: str | None = None,
        size: int | tuple[int, int] | None = None,
        *,
        skip_bad: bool = False,
    ) -> None:
        if split not in (None, "train", "test"):
            raise MogleError(f"split {split!r}: expected 'train', 'test' or None")
        self.root = Path(root)
        self.size = (size, size) if isinstance(size, int) else size
        self.skip_bad = skip_bad
        if not (self.root / "face").is_dir():
            found = "a folder without face/" if self.root.is_dir() else "no such folder"
            raise MogleError(f"{self.root}: {found}; expected a data set with face/, mask/ and text/ or text.json")
        faces = _listing(self.root / "face", _FACES)
        masks = _listing(self.root / "mask", (".png",))
        self._texts = _listing(self.root / "text", (".txt",))
        problems: list[str] = []
        listed = _read_json(self.root / "text.json", problems)
        self._captions = {os.path.splitext(name)[0]: captions for name, captions in listed.items()}
        bad: set[str] = set()
        for name in sorted(faces.keys() | masks.keys() | self._texts.keys() | self._captions.keys(), key=_natural):
            what = []
            if name not in faces:
                has = [
                    w
                    for w, there in (("mask", masks), ("captions", {**self._texts, **self._captions}))
                    if name in there
                ]
                what.append(f"{' and '.join(has)} without a picture in face/")
            else:
                if len(faces[name]) > 1:
                    what.append(f"{len(faces[name])} pictures: {', '.join(faces[name])}")
                if name not in masks:
                    what.append(f"no mask/{name}.png")
                if name not in self._texts and name not in self._captions:
                    what.append(f"no captions (text/{name}.txt or text.json)")
                elif name in self._captions and not _are_captions(self._captions[name]):
                    what.append("text.json holds no list of captions for it")
            if what:
                bad.add(name)
                problems.append(f"{name}: {', '.join(what)}")
        if problems and not skip_bad:
            raise _complain(self.root, problems)
        self.problems = problems
        self._faces = faces
        self.has_split = self._is_celeba_like(list(faces))
        self.ids = [name for name in sorted(faces, key=_natural) if name not in bad]
        if split and self.has_split:
            inside = TRAIN_IDS if split == "train" else TEST_IDS
            self.ids = [name for name in self.ids if int(name) in inside]
        if not self.ids:
            wanted = f"the {split} split" if split and self.has_split else "the data set"
            raise MogleError(
                f"{self.root}: no usable sample in {wanted} ({len(faces)} pictures, {len(bad)} with problems; train is "
                "ids 0..26999, test 27000..29999); use split=None for all of it"
            )
        self._attributes: dict[str, dict[str, str | None]] | None = None

    @classmethod
    def checked(
        cls,
        root: str | os.PathLike[str],
        split: str | None = None,
        size: int | tuple[int, int] | None = None,
        *,
        skip_bad: bool = False,
    ) -> FaceDataset:
        """The data set after every file has been read once: what is wrong with it is said at once, and all of it.

        Raises:
            MogleError: listing all problems, without ``skip_bad``.
        """
        dataset = cls(root, split, size, skip_bad=True)
        dataset.validate()
        if dataset.problems and not skip_bad:
            raise _complain(dataset.root, dataset.problems)
        if not dataset.ids:
            raise MogleError(f"{dataset.root}: every sample has a problem, such as {dataset.problems[0]}")
        return dataset

    def stamp(self, index: int) -> list[int]:
        """Sizes and times of the picture's and the mask's file: they change when either does."""
        name = self.ids[index]
        files = [self.picture_file(index), self.root / "mask" / f"{name}.png"]
        return [number for file in files for number in (file.stat().st_size, file.stat().st_mtime_ns)]

    @property
    def skipped(self) -> int:
        """How many problems were passed over (``skip_bad=True``)."""
        return len(self.problems)

    def _is_celeba_like(self, names: list[str]) -> bool:
        manifest = _read_json(self.root / "dataset.json", [])
        if "style" in manifest:
            return manifest["style"] == "portraits"
        if not all(n.isdecimal() and str(int(n)) == n and int(n) < TEST_IDS.stop for n in names):
            return False
        numbers = [int(n) for n in names]
        return bool(self._captions) or max(numbers, default=0) - min(numbers, default=0) + 1 == len(numbers)

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[FaceSample]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index: int) -> FaceSample:  # type: ignore[override]  # no slices: pictures are loaded one by one
        name = self.ids[index]
        image, label_map = self.image(index), self.label_map(index)
        if self.size is None and label_map.shape != (image.height, image.width):
            label_map = decode_mask(label_map, size=(image.height, image.width))
        return FaceSample(name, image, label_map, self.captions(index), self.attributes(index))

    def picture_file(self, index: int) -> Path:
        """Where the picture is."""
        return self.root / "face" / self._faces[self.ids[index]][0]

    def mask_file(self, index: int) -> Path:
        """Where the mask is."""
        return self.root / "mask" / f"{self.ids[index]}.png"

    def image(self, index: int) -> Image.Image:
        """The picture alone, RGB, at the data set's ``size``."""
        image = open_image(self.picture_file(index)).convert("RGB")
        if self.size is not None and image.size != self.size[::-1]:
            image = image.resize(self.size[::-1], Image.Resampling.LANCZOS)
        return image

    def label_map(self, index: int) -> np.ndarray:
        """The mask alone, uint8 (H, W), at the data set's ``size`` (its own where that is None)."""
        return decode_mask(self.mask_file(index), size=self.size)

    def captions(self, index: int) -> list[str]:
        """The captions alone; no picture is read."""
        name = self.ids[index]
        if name in self._captions:
            return list(self._captions[name])
        path = self.root / "text" / self._texts[name][0]
        try:
            captions = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        except (OSError, UnicodeDecodeError) as error:
            raise MogleError(
                f"{path}: not readable as text ({error}); expected one caption a line, in UTF-8"
            ) from error
        if not captions:
            raise MogleError(f"{path}: empty; expected one caption a line")
        return captions

    def attributes(self, index: int) -> dict[str, str | None] | None:
        """What a painted portrait shows; None for photographs."""
        if self._attributes is None:
            problems: list[str] = []
            self._attributes = _read_json(self.root / "attributes.json", problems)
            if problems:
                raise _complain(self.root, problems)
        return self._attributes.get(self.ids[index])

    def validate(self) -> int:
        """Read every file of every sample: unreadable pictures, masks of another shape or other labels, empty texts.

        Returns the number of problems that were passed over (``skip_bad=True``: their samples leave ``ids``).

        Raises:
            MogleError: listing all of them, without ``skip_bad``.
        """
        problems: list[str] = []
        good: list[str] = []
        for index, name in enumerate(self.ids):
            found = self._damage(index)
            problems += [f"{name}: {what}" for what in found]
            if not found:
                good.append(name)
        if problems and not self.skip_bad:
            raise _complain(self.root, problems)
        self.ids = good
        self.problems += problems
        return len(problems)

    def _damage(self, index: int) -> list[str]:
        found: list[str] = []

        def attempt(read: Callable[[], Any]) -> Any:
            try:
                return read()
            except MogleError as error:
                found.append(str(error))
                return None

        image = attempt(lambda: open_image(self.picture_file(index)))
        mask = attempt(lambda: decode_mask(self.mask_file(index)))
        attempt(lambda: self.captions(index))
        if image is not None and mask is not None:
            width, height = image.size
            mask_height, mask_width = mask.shape
            if abs(height * mask_width - width * mask_height) > 0.01 * width * mask_height:
                found.append(f"mask of {mask_width} x {mask_height} pixels for a picture of {width} x {height}")
        return found


def _are_captions(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(c, str) and c.strip() for c in value)
