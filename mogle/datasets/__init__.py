"""`FaceDataset`: pictures, masks and captions in the layout that all data sets of this project share.

    root/face/52.jpg   root/mask/52.png   root/text/52.txt   root/text.json   root/attributes.json

Ids are file names without their ending. They need not be contiguous and may be padded ("00001"); files belong together
by id alone, never by their place in a listing. ``text.json`` ({"52.jpg": [captions]}) may be absent, ``text/`` too, not
both; ``attributes.json`` is what painted portraits have besides. Pictures and masks may end in any of
`mogle.pictures.ENDINGS`, in small or capital letters; texts are UTF-8, with or without a byte-order mark, or UTF-16.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mogle.datasets.files import Files, Problem, in_lines, natural, read_json, read_text
from mogle.errors import MogleError, MogleWarning
from mogle.labels import check_options, decode_mask, resize_labels
from mogle.pictures import ENDINGS, fit_picture, read_rgb, same_aspect, sides

TRAIN_IDS = range(0, 27000)
TEST_IDS = range(27000, 30000)


@dataclass(frozen=True)
class FaceSample:
    """image: RGB; label_map: uint8 (H, W) of the image's size; captions: the first is the one used in testing."""

    id: str
    image: Image.Image
    label_map: np.ndarray
    captions: list[str]
    attributes: dict[str, str | None] | None


def _complain(root: Path, problems: Sequence[Problem], none_left: bool = False) -> MogleError:
    what = "put them right: no usable sample is left without them"
    if not none_left:
        what = "put them right, or leave these samples out with skip_bad=True"
    count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
    return MogleError(f"{root}: {count} in the data set; {what}{in_lines(problems)}")


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
        labels, palette: who gave the masks' numbers, and their colours; see `mogle.labels.decode_mask`.
        fit: "crop", "pad" or "stretch", for samples of another shape than ``size``; None refuses them.

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
        labels: str = "celebamask",
        palette: str = "dataset",
        fit: str | None = None,
    ) -> None:
        if split not in (None, "train", "test"):
            raise MogleError(f"split {split!r}: expected 'train', 'test' or None")
        self.root = Path(root)
        self.size = None if size is None else sides(size)
        self.skip_bad, self.fit = skip_bad, fit
        check_options(palette, labels, fit)
        self.labels, self.palette = labels, palette
        if not (self.root / "face").is_dir():
            found = "a folder without face/" if self.root.is_dir() else "no such folder"
            raise MogleError(f"{self.root}: {found}; expected a data set with face/, mask/ and text/ or text.json")
        self._faces = Files.listed(self.root, "face", ENDINGS)
        self._masks = Files.listed(self.root, "mask", ENDINGS)
        self._texts = Files.listed(self.root, "text", (".txt",))
        self._problems: list[Problem] = []
        listed = read_json(self.root / "text.json", self._problems)
        self._captions = {os.path.splitext(name)[0]: captions for name, captions in listed.items()}
        bad = self._pair_up()
        if self._problems and not skip_bad:
            raise _complain(self.root, self._problems)
        self._quiet = False  # whether the notes on single files have been given
        self._attributes: dict[str, dict[str, str | None]] | None = None
        self.has_split = self._is_celeba_like(list(self._faces.found))
        self.ids = [name for name in sorted(self._faces.found, key=natural) if name not in bad]
        if split and self.has_split:
            inside = TRAIN_IDS if split == "train" else TEST_IDS
            self.ids = [name for name in self.ids if int(name) in inside]
        if not self.ids:
            if self._faces.found.keys() <= bad and self._problems:
                raise _complain(self.root, self._problems, none_left=True)
            wanted = f"the {split} split" if split and self.has_split else "the data set"
            raise MogleError(
                f"{self.root}: no usable sample in {wanted} ({len(self._faces.found)} pictures, {len(bad)} ids with "
                f"problems; train is ids 0..26999, test 27000..29999); use split=None for all of it"
                f"{in_lines(self._problems)}"
            )

    def _pair_up(self) -> set[str]:
        """The ids whose files do not belong together, each with its problems."""
        bad: set[str] = set()
        faces, masks, texts, captions = self._faces.found, self._masks.found, self._texts.found, self._captions
        for name in sorted(faces.keys() | masks.keys() | texts.keys() | captions.keys(), key=natural):
            found: list[tuple[str, str]] = []
            if name not in faces:
                has = [what for what, there in (("mask", masks), ("captions", {**texts, **captions})) if name in there]
                without = f"{' and '.join(has)} without a picture in face/{self._faces.instead(name)}"
                found.append(("no picture", without))
            else:
                found += [("several pictures", what) for what in self._faces.several(name, "pictures")]
                found += [("several masks", what) for what in self._masks.several(name, "masks")]
                if name not in masks:
                    found.append(("no mask", f"no mask/{name}.png{self._masks.instead(name)}"))
                if name in captions:
                    if not _are_captions(captions[name]):
                        found.append(("no captions", "text.json holds no list of captions for it"))
                elif name not in texts:
                    found.append(("no captions", f"no captions (text/{name}.txt or text.json)"))
                else:
                    found += [("several texts", what) for what in self._texts.several(name, "texts")]
            if found:
                bad.add(name)
                self._problems.append(Problem(found[0][0], f"{name}: {', '.join(text for _, text in found)}"))
        return bad

    @classmethod
    def checked(
        cls,
        root: str | os.PathLike[str],
        split: str | None = None,
        size: int | tuple[int, int] | None = None,
        *,
        skip_bad: bool = False,
        caption_problem: Callable[[str], str | None] | None = None,
        **reading: Any,
    ) -> FaceDataset:
        """The data set for a training, after every file has been read once: all that is wrong with it is said at once.

        Args:
            root, split, size, skip_bad: as for the class.
            caption_problem: tells what is wrong with a caption (such as too many tokens), None where nothing is.
            reading: ``labels``, ``palette``, ``fit``.

        Raises:
            MogleError: listing all problems, without ``skip_bad``, or where no sample is left.
        """
        dataset = cls(root, split, size, skip_bad=True, **reading)
        dataset.validate(training=True, caption_problem=caption_problem)
        if dataset._problems and not skip_bad:
            raise _complain(dataset.root, dataset._problems)
        if not dataset.ids:
            raise _complain(dataset.root, dataset._problems, none_left=True)
        return dataset

    def stamp(self, index: int) -> list[int]:
        """Sizes and times of the picture's and the mask's file: they change when either does."""
        files = [self.picture_file(index), self.mask_file(index)]
        return [number for file in files for number in (file.stat().st_size, file.stat().st_mtime_ns)]

    @property
    def problems(self) -> list[str]:
        """What is wrong with the samples that were left out, a line each."""
        return [problem.text for problem in self._problems]

    @property
    def skipped(self) -> int:
        """How many problems were passed over (``skip_bad=True``)."""
        return len(self._problems)

    def _is_celeba_like(self, names: list[str]) -> bool:
        manifest = read_json(self.root / "dataset.json", [])
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
        if self.size is None:
            label_map = resize_labels(label_map, (image.height, image.width), name=str(self.mask_file(index)))
        return FaceSample(name, image, label_map, self.captions(index), self.attributes(index))

    def picture_file(self, index: int) -> Path:
        """Where the picture is."""
        return self.root / "face" / self._faces.found[self.ids[index]][0]

    def mask_file(self, index: int) -> Path:
        """Where the mask is."""
        return self.root / "mask" / self._masks.found[self.ids[index]][0]

    def caption_file(self, index: int) -> Path:
        """Where the captions are."""
        name = self.ids[index]
        return self.root / "text.json" if name in self._captions else self.root / "text" / self._texts.found[name][0]

    def _notes(self) -> AbstractContextManager[Any]:
        """Within it, what `validate` has said already is not said again."""
        return warnings.catch_warnings(action="ignore", category=MogleWarning) if self._quiet else nullcontext()

    def _decode(self, index: int, size: tuple[int, int] | None) -> np.ndarray:
        return decode_mask(self.mask_file(index), palette=self.palette, labels=self.labels, size=size, fit=self.fit)

    def image(self, index: int) -> Image.Image:
        """The picture alone, RGB, at the data set's ``size``."""
        path = self.picture_file(index)
        with self._notes():
            image = read_rgb(path)
        return image if self.size is None else fit_picture(image, self.size, self.fit, str(path))

    def label_map(self, index: int) -> np.ndarray:
        """The mask alone, uint8 (H, W), at the data set's ``size`` (its own where that is None)."""
        with self._notes():
            return self._decode(index, self.size)

    def captions(self, index: int) -> list[str]:
        """The captions alone, all that this sample has; no picture is read."""
        name, path = self.ids[index], self.caption_file(index)
        if name in self._captions:
            return [caption.replace("\ufeff", "") for caption in self._captions[name]]
        captions = [line.strip() for line in read_text(path).splitlines() if line.strip()]
        if not captions:
            raise MogleError(f"{path}: empty; expected one caption a line")
        return captions

    def attributes(self, index: int) -> dict[str, str | None] | None:
        """What a painted portrait shows; None for photographs."""
        if self._attributes is None:
            problems: list[Problem] = []
            self._attributes = read_json(self.root / "attributes.json", problems)
            if problems:
                raise _complain(self.root, problems)
        return self._attributes.get(self.ids[index])

    def validate(self, *, training: bool = False, caption_problem: Callable[[str], str | None] | None = None) -> int:
        """Read every file of every sample: unreadable pictures, masks of another shape or other labels, empty texts.

        With ``training`` a mask of nothing but background is a problem too; `caption_problem` is asked about every
        caption. Returns the number of problems that were passed over (``skip_bad=True``: their samples leave ``ids``).

        Raises:
            MogleError: listing all of them, without ``skip_bad``.

        Warns:
            MogleWarning: what was done that may not have been meant, once for each kind, with the number of files.
        """
        problems: list[Problem] = []
        good: list[str] = []
        with warnings.catch_warnings(record=True) as notes:
            warnings.simplefilter("always", MogleWarning)
            for index, name in enumerate(self.ids):
                found = self._damage(index, training, caption_problem)
                problems += [Problem(problem.kind, f"{name}: {problem.text}") for problem in found]
                if not found:
                    good.append(name)
        self._quiet = True
        kinds: dict[str, list[str]] = {}
        for note in notes:  # alike but for the file and the numbers
            if issubclass(note.category, MogleWarning):
                text = str(note.message)
                kinds.setdefault(re.sub(r"[\d.,%]+", "", text.split(": ", 1)[-1]), []).append(text)
        for texts in kinds.values():
            more = f" (and so for {len(texts) - 1} more)" if len(texts) > 1 else ""
            warnings.warn(texts[0] + more, MogleWarning, stacklevel=2)
        if problems and not self.skip_bad:
            raise _complain(self.root, problems)
        self.ids = good
        self._problems += problems
        return len(problems)

    def _damage(self, index: int, training: bool, caption_problem: Callable[[str], str | None] | None) -> list[Problem]:
        """What is wrong with one sample, read as a training reads it."""
        found: list[Problem] = []

        def attempt(kind: str, read: Callable[[], Any]) -> Any:
            try:
                return read()
            except MogleError as error:
                found.append(Problem(kind, str(error)))
                return None

        picture_file, mask_file = self.picture_file(index), self.mask_file(index)
        image = attempt("a picture that cannot be read", lambda: read_rgb(picture_file))
        mask = attempt("a mask that cannot be read", lambda: self._decode(index, None))
        captions = attempt("captions that cannot be read", lambda: self.captions(index))
        if image is not None and mask is not None:
            shape = image.height, image.width
            if not same_aspect(shape, mask.shape):
                what = f"mask of {mask.shape[1]} x {mask.shape[0]} pixels for a picture of {shape[1]} x {shape[0]}"
                found.append(Problem("mask and picture of different shapes", f"{what}; expected one shape for both"))
            elif (size := self.size) is not None:
                mask = attempt("another shape", lambda: resize_labels(mask, size, self.fit, str(mask_file)))
        if training and mask is not None and not mask.any():
            what = f"{mask_file}: found nothing but background, expected a face; draw it, or leave the sample out"
            found.append(Problem("nothing but background in the mask", what))
        for number, caption in enumerate(captions or [], start=1):
            if caption_problem and (wrong := caption_problem(caption)):
                place = f"{self.caption_file(index)}: caption {number}"
                found.append(Problem("a caption that cannot be used", f"{place}: {wrong}"))
        return found


def _are_captions(value: Any) -> bool:
    """A list of sentences; half of a surrogate pair, which JSON can hold, is no text."""
    if not isinstance(value, list) or not value:
        return False
    return all(isinstance(c, str) and c.strip() and c.encode(errors="ignore").decode() == c for c in value)
