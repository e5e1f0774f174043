"""Procedural portraits: picture, exact 19-class mask, attributes and ten captions, all from one seed.

    portrait = paint(7)                         # 128 px; the same seed gives the same portrait at any size
    images, masks, attributes, captions = paint_many(range(1000))
    write_dataset("data/portraits", range(32))  # the folders of MM-CelebA-HQ

Seeds are ids: 0..26999 train, 27000..29999 test, as in MM-CelebA-HQ; from 1,000,000 on they pretrain the tiny backbone
and the judges.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image

from mogle.errors import MogleError
from mogle.files import atomic_write
from mogle.labels import LABELS, decode_mask, save_mask
from mogle.tiny.portraits.attributes import STYLES, sample_attributes
from mogle.tiny.portraits.captions import describe, full_caption, vocabulary, write_captions
from mogle.words import ATTRIBUTES

__all__ = [
    "STYLES", "VERSION", "Portrait", "describe", "full_caption", "paint", "paint_many",
    "portrait_id", "sample_attributes", "vocabulary", "write_captions", "write_dataset",
]  # fmt: skip

#: Of the painting: raised when a seed no longer gives the same portrait, so that old folders are not continued.
VERSION = 2
MIN_SIZE = 16
IN_SIGHT = 0.003  # share of the picture (49 pixels at 128 px) from which on the colour of a thing can be told
TEXTURE_IN_SIGHT = 0.12  # the same of hair under a hat, from which on waves can be told: they show at the crown
MANIFEST = "dataset.json"

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Portrait:
    """image: uint8 (size, size, 3), RGB; mask: uint8 (size, size), labels 0..18; captions: ten."""

    seed: int
    image: np.ndarray
    mask: np.ndarray
    attributes: dict[str, str | None]
    captions: list[str]


def _check(style: str, size: int) -> None:
    if style not in STYLES:
        raise MogleError(f"style {style!r}: expected one of {', '.join(STYLES)}")
    if isinstance(size, bool) or not isinstance(size, (int, np.integer)) or size < MIN_SIZE:
        raise MogleError(f"size {size!r}: expected a whole number of pixels, {MIN_SIZE} or more")


def _streams(seed: int, style: str) -> list[np.random.Generator]:
    """One generator each for attributes, drawing and captions: a change in one leaves the others as they were."""
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise MogleError(f"seed {seed!r}: expected a whole number, 0 or more")
    return np.random.default_rng([int(seed), STYLES.index(style)]).spawn(3)


def _in_sight(attributes: dict[str, str | None], mask: np.ndarray) -> dict[str, str | None]:
    """What the painted picture shows: hair that vanished under a hat has no length or colour that anyone could tell."""
    share = np.bincount(mask.ravel(), minlength=len(LABELS)) / mask.size
    hidden = {name for name, a in ATTRIBUTES.items() if a.needs is not None and share[a.needs] < IN_SIGHT}
    if "hair_color" in hidden and attributes["hair_length"] != "bald":
        hidden.add("hair_length")
    if attributes["hat"] == "yes" and share[ATTRIBUTES["hair_texture"].needs] < TEXTURE_IN_SIGHT:
        hidden.add("hair_texture")
    return {name: None if name in hidden else value for name, value in attributes.items()}


def paint(
    seed: int, size: int = 128, style: str = "portraits", changes: Mapping[str, str | None] | None = None
) -> Portrait:
    """The portrait of a seed. The same arguments give the same bytes; another size shows the same portrait.

    `changes` replaces some of its attributes; the rest is painted as before, for shapes come from a stream of random
    numbers of their own.

    Raises MogleError on an unknown style, a negative seed, or a size below 16 pixels.
    """
    from mogle.tiny.portraits.painter import draw

    _check(style, size)
    for_attributes, for_drawing, for_captions = _streams(seed, style)
    attributes = sample_attributes(for_attributes, style) | dict(changes or {})
    image, mask = draw(attributes, for_drawing, int(size), style)
    attributes = _in_sight(attributes, mask)
    return Portrait(int(seed), image, mask, attributes, write_captions(attributes, for_captions))


def _in_pool(function: Callable[[T], R], jobs: Sequence[T], workers: int | None) -> Iterator[R]:
    """``map`` over processes, results in order; in this process for one worker or one job."""
    workers = min(workers or os.cpu_count() or 1, len(jobs))
    if workers <= 1:
        yield from map(function, jobs)
        return
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    # Painting is plain numpy, for which forking is safe even beside torch's threads (torch's own DataLoader forks as
    # well); unlike spawning it needs no `if __name__ == "__main__"` in a user's script and costs no imports.
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        with warnings.catch_warnings():  # Python 3.12+ warns about forking beside threads
            warnings.simplefilter("ignore", DeprecationWarning)
            results = pool.map(function, jobs)
        yield from results


def _chunks(seeds: Iterable[int], length: int) -> list[list[int]]:
    seeds = list(seeds)
    return [seeds[i : i + length] for i in range(0, len(seeds), length)]


def _paint_chunk(job: tuple[list[int], int, str]) -> list[Portrait]:
    seeds, size, style = job
    return [paint(seed, size, style) for seed in seeds]


def paint_many(
    seeds: Iterable[int], size: int = 128, style: str = "portraits", workers: int | None = None
) -> tuple[np.ndarray, np.ndarray, list[dict[str, str | None]], list[list[str]]]:
    """Images uint8 (N, size, size, 3), masks uint8 (N, size, size), attributes and captions, in the seeds' order.

    ``workers``: processes, None for one a core, 1 for none but this one. The result does not depend on it.
    """
    _check(style, size)
    chunks = _chunks(seeds, 32)
    count = sum(map(len, chunks))
    images = np.empty((count, size, size, 3), np.uint8)
    masks = np.empty((count, size, size), np.uint8)
    attributes: list[dict[str, str | None]] = []
    captions: list[list[str]] = []
    for portraits in _in_pool(_paint_chunk, [(chunk, size, style) for chunk in chunks], workers):
        for portrait in portraits:
            images[len(captions)], masks[len(captions)] = portrait.image, portrait.mask
            attributes.append(portrait.attributes)
            captions.append(portrait.captions)
    return images, masks, attributes, captions


# ---- folders in the data sets' layout --------------------------------------------------------------------------------


def portrait_id(seed: int, style: str = "portraits") -> str:
    """A portrait's file name: "7", or "00007" in the women's set, which is named as MM-FFHQ-Female is."""
    return f"{seed:05d}" if style == "female" else str(seed)


def _write_json(path: Path, value: Any) -> None:
    with atomic_write(path) as part:
        part.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise MogleError(f"{path}: not readable as JSON ({error}); delete it and paint again") from error
    if not isinstance(value, dict):
        raise MogleError(f"{path}: found a JSON {type(value).__name__}, expected an object")
    return value


def _write_chunk(job: tuple[str, list[int], int, str]) -> list[tuple[str, dict[str, str | None], list[str]]]:
    """Paint and write what is missing of these seeds; a portrait is complete when its text, written last, is there."""
    root, seeds, size, style = job
    done = []
    for seed in seeds:
        name = portrait_id(seed, style)
        face, mask, text = (Path(root, *p) for p in (("face", name + ".jpg"), ("mask", name + ".png"),
                                                     ("text", name + ".txt")))  # fmt: skip
        if face.is_file() and mask.is_file() and text.is_file():
            attributes = _in_sight(sample_attributes(_streams(seed, style)[0], style), decode_mask(mask))
            done.append((name, attributes, text.read_text(encoding="utf-8").splitlines()))
            continue
        portrait = paint(seed, size, style)
        picture = Image.fromarray(portrait.image)
        with atomic_write(face) as part:
            picture.save(part, format="JPEG", quality=95, subsampling=0)
        with atomic_write(mask) as part:
            save_mask(part, portrait.mask)
        with atomic_write(text) as part:
            part.write_text("\n".join(portrait.captions) + "\n", encoding="utf-8")
        done.append((name, portrait.attributes, portrait.captions))
    return done


def _runs(seeds: Iterable[int]) -> list[list[int]]:
    """Sorted seeds as runs [first, last]: [0, 1, 2, 7] -> [[0, 2], [7, 7]]."""
    runs: list[list[int]] = []
    for seed in sorted(set(seeds)):
        if runs and seed == runs[-1][1] + 1:
            runs[-1][1] = seed
        else:
            runs.append([seed, seed])
    return runs


def _claim(root: Path, seeds: list[int], size: int, style: str) -> None:
    """Make the folders and the manifest, having made sure that the root is ours and of the same kind."""
    if root.exists() and not root.is_dir():
        raise MogleError(f"{root}: found a file, expected a folder or nothing")
    manifest = _read_json(root / MANIFEST)
    folders = [root / name for name in ("face", "mask", "text")]
    if not manifest and any(f.is_symlink() or (f.exists() and any(f.iterdir())) for f in folders):
        raise MogleError(f"{root}: holds a data set that was not painted here (no {MANIFEST}); choose another folder")
    kind = {"style": style, "size": int(size), "painter": VERSION}
    other = {key: manifest[key] for key in kind if manifest and manifest.get(key) != kind[key] and key in manifest}
    if other:
        found = ", ".join(f"{k} {v}" for k, v in other.items())
        asked = ", ".join(f"{k} {kind[k]}" for k in other)
        raise MogleError(f"{root}: holds portraits of {found}, asked for {asked}; choose another folder or empty it")
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
        if not folder.resolve().is_relative_to(root.resolve()):
            raise MogleError(f"{folder}: leads outside {root}; replace the link by a folder")
    known = [s for first, last in manifest.get("seeds", []) for s in range(first, last + 1)]
    _write_json(root / MANIFEST, {**kind, "seeds": _runs([*known, *seeds])})


def write_dataset(
    root: str | os.PathLike[str],
    seeds: Iterable[int],
    size: int = 128,
    style: str = "portraits",
    workers: int | None = None,
    progress: bool = False,
) -> int:
    """Paint a data set: face/ID.jpg, mask/ID.png, text/ID.txt, text.json, attributes.json; returns how many portraits.

    The three styles take the layouts of MM-CelebA-HQ, MM-FFHQ-Female (ids of five digits) and MM-FairFace-HQ (no
    text.json). What is there already is kept, so a run that was stopped can be started again, and more seeds can be
    added. Nothing is written outside ``root``; a folder with other data is refused (MogleError).
    """
    from tqdm import tqdm

    root = Path(root)
    seeds = list(seeds)
    _check(style, size)
    for seed in seeds:
        _streams(seed, style)
    _claim(root, [int(s) for s in seeds], size, style)
    jobs = [(str(root), chunk, int(size), style) for chunk in _chunks(seeds, 32)]
    texts, attributes = _read_json(root / "text.json"), _read_json(root / "attributes.json")
    with tqdm(total=len(seeds), unit="portrait", disable=not progress) as bar:
        for done in _in_pool(_write_chunk, jobs, workers):
            for name, facts, captions in done:
                texts[name + ".jpg"] = captions
                attributes[name] = facts
            bar.update(len(done))
    if style != "balanced":
        _write_json(root / "text.json", dict(sorted(texts.items(), key=lambda i: int(i[0][:-4]))))
    _write_json(root / "attributes.json", dict(sorted(attributes.items(), key=lambda i: int(i[0]))))
    return len(seeds)
