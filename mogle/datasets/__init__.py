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
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from mogle.datasets.files import Files, Finding, in_lines, natural, read_json, read_text
from mogle.errors import MogleError, MogleWarning
from mogle.labels import check_options, decode_mask, resize_labels
from mogle.pictures import ENDINGS, Size, fit_picture, read_rgb, same_aspect, sides

#: The ids of each split, by number, where a data set has splits.
SPLITS = {"train": range(0, 27000), "test": range(27000, 30000)}
#: Tells what is wrong with a caption (such as too many tokens), None where nothing is; or nobody does.
CaptionProblem = Callable[[str], str | None] | None


class FaceSample(NamedTuple):
    """image: RGB; label_map: uint8 (H, W) of the image's size; captions: the first is the one used in testing."""

    id: str
    image: Image.Image
    label_map: np.ndarray
    captions: list[str]
    attributes: dict[str, str | None] | None


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
        skip_bad: leave samples with a problem out, and say which in ``problems``, instead of raising.
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
        size: Size | None = None,
        *,
        skip_bad: bool = False,
        labels: str = "celebamask",
        palette: str = "dataset",
        fit: str | None = None,
    ) -> None:
        if split is not None and split not in SPLITS:
            raise MogleError(f"split {split!r}: expected 'train', 'test' or None")
        check_options(palette, labels, fit)
        self.root, self.skip_bad = Path(root), skip_bad
        self.size = None if size is None else sides(size)
        self.labels, self.palette, self.fit = labels, palette, fit
        if not (self.root / "face").is_dir():
            found = "a folder without face/" if self.root.is_dir() else "no such folder"
            raise MogleError(f"{self.root}: {found}; expected a data set with face/, mask/ and text/ or text.json")
        self._faces, self._masks = (Files(self.root / folder, ENDINGS) for folder in ("face", "mask"))
        self._texts = Files(self.root / "text", (".txt",))
        self._captions: dict[str, Any] = {}
        self.problems: list[Finding] = []
        try:
            listed = read_json(self.root / "text.json")
            self._captions = {os.path.splitext(name)[0]: captions for name, captions in listed.items()}
        except MogleError as error:
            self.problems.append(Finding("unreadable text.json", "text.json", str(error)))
        everything = {*self._faces.found, *self._masks.found, *self._texts.found, *self._captions}
        names = sorted(everything, key=natural)
        for name in names:
            if faults := list(self._faults(name)):
                what = ", ".join(text for _, text in faults)
                self.problems.append(Finding(faults[0][0], name, f"{name}: {what}"))
        self.ids = [name for name in names if name in self._faces.found]
        self._leave_out_problems()
        self._quiet = False  # whether the notes on single files have been given
        self.has_split = self._is_celeba_like(list(self._faces.found))
        if split and self.has_split:
            self.ids = [name for name in self.ids if int(name) in SPLITS[split]]
        if not self.ids:
            wanted = f"the {split} split" if split and self.has_split else "the data set"
            raise MogleError(
                f"{self.root}: no usable sample in {wanted} ({len(self._faces.found)} pictures, {len(self.problems)} "
                "problems; train is ids 0..26999, test 27000..29999); use split=None for all of it"
                f"{in_lines(self.problems)}"
            )

    def _faults(self, name: str) -> Iterator[tuple[str, str]]:
        """What is wrong with the files of an id: the kind of problem, and what was found."""
        has = ["mask"] * (name in self._masks.found)
        has += ["captions"] * (name in self._texts.found or name in self._captions)
        yield from self._faces.faults(name, "picture", f"{' and '.join(has)} without a picture in face/")
        if name in self._faces.found:
            yield from self._masks.faults(name, "mask", f"no mask/{name}.png")
            if name not in self._captions:
                yield from self._texts.faults(name, "caption file", f"no captions (text/{name}.txt or text.json)")
            elif not _are_captions(self._captions[name]):
                yield "no captions", "text.json holds no list of captions for it"

    def _leave_out_problems(self) -> None:
        """Takes samples with a problem out; raises all problems, unless they may be left out and something is left."""
        bad = {problem.id for problem in self.problems}
        self.ids = [name for name in self.ids if name not in bad]
        if self.problems and not (self.skip_bad and self.ids):
            what = "put them right, or leave these samples out with skip_bad=True"
            if not self.ids:
                what = "put them right: no usable sample is left without them"
            count = f"{len(self.problems)} problem{'s' if len(self.problems) > 1 else ''}"
            raise MogleError(f"{self.root}: {count} in the data set; {what}{in_lines(self.problems)}")

    @classmethod
    def checked(
        cls,
        root: str | os.PathLike[str],
        *,
        skip_bad: bool = False,
        caption_problem: CaptionProblem = None,
        **reading: Any,
    ) -> FaceDataset:
        """The data set for a training, after every file has been read once: all that is wrong with it is said at once.

        Args:
            root, skip_bad: as for the class.
            caption_problem: see `validate`.
            reading: ``split``, ``size``, ``labels``, ``palette``, ``fit``.

        Raises:
            MogleError: listing all problems, without ``skip_bad``, or where no sample is left.
        """
        dataset = cls(root, skip_bad=True, **reading)
        dataset.skip_bad = skip_bad
        dataset.validate(training=True, caption_problem=caption_problem)
        return dataset

    def stamp(self, index: int) -> list[int]:
        """Sizes and times of the picture's and the mask's file: they change when either does."""
        files = [self.picture_file(index), self.mask_file(index)]
        return [number for file in files for number in (file.stat().st_size, file.stat().st_mtime_ns)]

    def _is_celeba_like(self, names: list[str]) -> bool:
        with suppress(MogleError):  # somebody else's file of this name
            if style := read_json(self.root / "dataset.json").get("style"):
                return style == "portraits"
        if not all(n.isdecimal() and str(int(n)) == n and int(n) < SPLITS["test"].stop for n in names):
            return False
        numbers = [int(n) for n in names]
        return bool(self._captions) or max(numbers, default=0) - min(numbers, default=0) + 1 == len(numbers)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> FaceSample:  # type: ignore[override]  # no slices: pictures are loaded one by one
        name = self.ids[index]
        image, label_map = self.image(index), self.label_map(index)
        if self.size is None:
            label_map = resize_labels(label_map, (image.height, image.width), name=str(self.mask_file(index)))
        return FaceSample(name, image, label_map, self.captions(index), self.attributes(index))

    def picture_file(self, index: int) -> Path:
        """Where the picture is."""
        return self._faces.path(self.ids[index])

    def mask_file(self, index: int) -> Path:
        """Where the mask is."""
        return self._masks.path(self.ids[index])

    def caption_file(self, index: int) -> Path:
        """Where the captions are."""
        name = self.ids[index]
        return self.root / "text.json" if name in self._captions else self._texts.path(name)

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

    def _decode(self, index: int, size: tuple[int, int] | None) -> np.ndarray:
        reading: Any = {"palette": self.palette, "labels": self.labels, "size": size, "fit": self.fit}
        return decode_mask(self.mask_file(index), looked_at=self._quiet, **reading)

    def _notes(self) -> AbstractContextManager[Any]:
        """Within it, what `validate` has said already is not said again."""
        return warnings.catch_warnings(action="ignore", category=MogleWarning) if self._quiet else nullcontext()

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
        return self._attributes.get(self.ids[index])

    @cached_property
    def _attributes(self) -> dict[str, dict[str, str | None]]:
        return read_json(self.root / "attributes.json")

    def validate(self, *, training: bool = False, caption_problem: CaptionProblem = None) -> int:
        """Read every file of every sample: unreadable pictures, masks of another shape or other labels, empty texts.

        With ``training`` a mask of nothing but background is a problem too; `caption_problem` is asked about every
        caption. Returns the number of problems that were passed over (``skip_bad=True``: their samples leave ``ids``).

        Raises:
            MogleError: listing all of them, without ``skip_bad``, or where no sample is left.

        Warns:
            MogleWarning: what was done that may not have been meant, once for each kind, with the number of files.
        """
        found = [finding for index in range(len(self)) for finding in self.inspect(index, training, caption_problem)]
        self._quiet = True
        notes: dict[str, list[str]] = {}
        for note in (finding for finding in found if finding.note):
            notes.setdefault(note.kind, []).append(note.text)
        for texts in notes.values():
            more = f" (and so for {len(texts) - 1} more)" if len(texts) > 1 else ""
            warnings.warn(texts[0] + more, MogleWarning, stacklevel=2)
        self.problems += [finding for finding in found if not finding.note]
        self._leave_out_problems()
        return sum(not finding.note for finding in found)

    def inspect(self, index: int, training: bool = True, caption_problem: CaptionProblem = None) -> list[Finding]:
        """Read all of one sample as a training does -> what is wrong with it, and what was noted; see `validate`."""
        name, size, found = self.ids[index], self.size, []

        def problem(kind: str, text: object) -> None:
            found.append(Finding(kind, name, f"{name}: {text}"))

        def attempt(kind: str, read: Callable[[], Any]) -> Any:
            try:
                return read()
            except MogleError as error:
                problem(kind, error)

        with warnings.catch_warnings(record=True) as notes:
            warnings.simplefilter("always", MogleWarning)
            image = attempt("a picture that cannot be read", lambda: read_rgb(self.picture_file(index)))
            mask = attempt("a mask that cannot be read", lambda: self._decode(index, None))
            captions = attempt("captions that cannot be read", lambda: self.captions(index))
            mask_file = str(self.mask_file(index))
            if image is not None and mask is not None:
                if not same_aspect((image.height, image.width), mask.shape):
                    shapes = f"{mask.shape[1]} x {mask.shape[0]} pixels for a picture of {image.width} x {image.height}"
                    problem("mask and picture of different shapes", f"mask of {shapes}; expected one shape for both")
                elif size is not None:
                    mask = attempt("another shape", lambda: resize_labels(mask, size, self.fit, mask_file))
        if training and mask is not None and not mask.any():
            what = f"{mask_file}: found nothing but background, expected a face; draw it, or leave the sample out"
            problem("nothing but background in the mask", what)
        for number, caption in enumerate(captions or [], start=1):
            if caption_problem and (wrong := caption_problem(caption)):
                problem("a caption that cannot be used", f"{self.caption_file(index)}: caption {number}: {wrong}")
        for text in (str(note.message) for note in notes if issubclass(note.category, MogleWarning)):
            kind = re.sub(r"[\d.,%]+", "", text.split(": ", 1)[-1])  # alike but for the file and the numbers
            found.append(Finding(kind, name, text, note=True))
        return found


def _are_captions(value: Any) -> bool:
    """A list of sentences; half of a surrogate pair, which JSON can hold, is no text."""
    if not isinstance(value, list) or not value:
        return False
    return all(isinstance(c, str) and c.strip() and c.encode(errors="ignore").decode() == c for c in value)
