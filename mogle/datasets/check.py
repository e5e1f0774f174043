"""`mogle data check`: everything that is wrong with a data set, by kind, and the mending of what can be mended safely.

What is mended is what `FaceDataset` reads all the same and other tools may not, and CelebAMask-HQ's raw annotations, a
black-and-white picture for each part of each face, are merged. Nothing is deleted; a file is written whole or not.
"""

from __future__ import annotations

import json
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from mogle.datasets import FaceDataset
from mogle.datasets.files import Finding, read_text
from mogle.errors import MogleError, MogleWarning
from mogle.files import atomic_write
from mogle.labels import LABELS, decode_mask, save_mask
from mogle.pictures import open_image

_FIRST = 5  # ids that are named for each kind
_WIDTH = 42  # of the column of kinds
_BOMS = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")  # of UTF-8, and UTF-16 in both orders of bytes


def check(root: str | Path) -> tuple[int, list[Finding]]:
    """Read every file of a data set -> the number of samples that are fit for training, and all that was found.

    Raises:
        MogleError: no data set, or one without a single usable sample; the message lists the problems.
    """
    dataset = FaceDataset(root, skip_bad=True)
    found, good = list(dataset.problems), 0
    for index in tqdm(range(len(dataset)), unit="sample", leave=False, disable=None):
        those = dataset.inspect(index)
        usable = all(finding.note for finding in those)
        found += those + (list(_untidy(dataset, index)) if usable else [])
        good += usable
    listed = [caption for value in dataset._captions.values() if isinstance(value, list) for caption in value]
    return good, found + (list(_untidy_text("text.json", dataset.root / "text.json", listed)) if listed else [])


def mend(found: Sequence[Finding]) -> tuple[list[Finding], list[str]]:
    """Mend what can be -> what was mended, and why the rest was not. A mask that has to be guessed at is left."""
    done, failed = [], []
    for finding, repair in [(finding, finding.mend) for finding in found if finding.mend]:
        try:
            with warnings.catch_warnings(action="error", category=MogleWarning):
                repair()
            done.append(finding)
        except (MogleError, MogleWarning, OSError) as error:
            failed.append(str(error))
    return done, failed


def table(found: Sequence[Finding]) -> str:
    """One line for each kind, the most frequent first: count, kind, first ids; below it the first finding in full."""
    lines = []
    for kind, count in Counter(finding.kind[:_WIDTH] for finding in found).most_common():
        these = [finding for finding in found if finding.kind[:_WIDTH] == kind]
        ids = ", ".join([finding.id for finding in these[:_FIRST]] + ["..."] * (count > _FIRST))
        lines += [f"{count:>6}  {kind:<{_WIDTH}}  {ids}", f"{'':<8}{these[0].text}"]
    return "\n".join(lines)


def _untidy(dataset: FaceDataset, index: int) -> Iterator[Finding]:
    """What of a good sample's files can be mended; renaming comes last, so that the paths before it hold."""
    name, mask, captions = dataset.ids[index], dataset.mask_file(index), dataset.caption_file(index)
    with Image.open(mask) as picture:
        if picture.format == "PNG" and picture.mode in ("RGB", "RGBA"):
            yield _mendable("a mask without a palette", name, mask, _write_palette)
    if captions.name != "text.json":
        yield from _untidy_text(name, captions, read_text(captions).splitlines())
    for path in (dataset.picture_file(index), mask, captions):
        if path.suffix != path.suffix.lower():
            yield _mendable("an ending in capital letters", name, path, _rename)


def _untidy_text(name: str, path: Path, captions: Sequence[str]) -> Iterator[Finding]:
    if path.read_bytes().startswith(_BOMS):
        yield _mendable("a byte-order mark", name, path, _write_text)
    if any(caption != _clean(caption) for caption in captions):
        yield _mendable("white space around or within captions", name, path, _write_text)


def _mendable(kind: str, name: str, path: Path, mend: Callable[[Path], None]) -> Finding:
    return Finding(kind, name, f"{path}: {kind}", note=True, mend=lambda: mend(path))


def _clean(caption: object) -> object:
    return " ".join(caption.replace("\ufeff", "").split()) if isinstance(caption, str) else caption


def _write_palette(path: Path) -> None:
    with atomic_write(path) as part:
        save_mask(part, decode_mask(path))


def _write_text(path: Path) -> None:
    text = read_text(path)
    if path.suffix == ".json":
        pairs = json.loads(text, object_pairs_hook=list)
        if len(dict(pairs)) < len(pairs) or json.loads(text) != dict(pairs):
            raise MogleError(f"{path}: has names twice, or more than lists of captions; put that right first")
        tidy = {name: [_clean(c) for c in value] if isinstance(value, list) else value for name, value in pairs}
        text = json.dumps(tidy, ensure_ascii=False, indent=1)
    else:
        text = "".join(f"{line}\n" for line in map(_clean, text.splitlines()) if line)
    with atomic_write(path) as part:
        part.write_text(text, encoding="utf-8")


def _rename(path: Path) -> None:
    path.rename(path.with_suffix(path.suffix.lower()))  # a sample with a file of that name too has several, and is bad


def merge_parts(source: Path, out: Path) -> tuple[int, list[Finding]]:
    """`source/**/00007_hair.png`, ... -> `out/7.png`, palette PNGs named as MM-CelebA-HQ's pictures are.

    Where parts overlap, the one of the higher label is seen. A face whose parts cannot all be used is left out; a file
    that is in `out` already is kept. Returns how many were written, and what is wrong with those left out.

    Raises:
        MogleError: no part in `source`.
    """
    faces: dict[int, list[Path]] = {}
    for file in sorted(source.rglob("*.png")):
        if named := re.fullmatch(r"(\d+)_\w+", file.stem):
            faces.setdefault(int(named[1]), []).append(file)
    if not faces:
        raise MogleError(f"{source}: found no parts there or below, expected files such as 00000_hair.png")
    bad, waiting = [], [number for number in sorted(faces) if not (out / f"{number}.png").exists()]
    for number in tqdm(waiting, unit="face", leave=False, disable=None):
        try:
            label_map = _merge(faces[number])
            with atomic_write(out / f"{number}.png") as whole:
                save_mask(whole, label_map)
        except MogleError as error:
            bad.append(Finding("parts of other names, twice, or that do not fit", str(number), str(error)))
    return len(waiting) - len(bad), bad


def _merge(files: Sequence[Path]) -> np.ndarray:
    """Parts -> label map, later labels over earlier ones."""
    parts: dict[str, np.ndarray] = {}
    for file in files:
        name = file.stem.partition("_")[2]
        if name in parts or name not in LABELS[1:]:
            raise MogleError(f"{file}: expected one file for each part, named {', '.join(LABELS[1:])}")
        parts[name] = np.asarray(open_image(file).convert("L"))
        if parts[name].shape != next(iter(parts.values())).shape or not np.isin(parts[name], (0, 255)).all():
            raise MogleError(f"{file}: expected black and white alone, and the other parts' size")
    label_map = np.zeros_like(parts[name])
    for name in sorted(parts, key=LABELS.index):
        label_map[parts[name] > 0] = LABELS.index(name)
    return label_map
