"""CelebAMask-HQ's raw annotations, a black-and-white picture for each part of each face, merged into label maps."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from tqdm import tqdm

from mogle.datasets.files import Problem
from mogle.errors import MogleError
from mogle.files import atomic_write
from mogle.labels import LABELS, open_image, save_mask


def merge_parts(source: Path, out: Path) -> tuple[int, list[Problem]]:
    """`source/**/00007_hair.png`, ... -> `out/7.png`, palette PNGs named as MM-CelebA-HQ's pictures are.

    Where parts overlap, the one of the higher label is seen. A face whose parts cannot all be used is left out; a file
    that is in `out` already is kept. Returns how many were written, and what is wrong with those left out.

    Raises:
        MogleError: no part in `source`.
    """
    faces: dict[int, dict[str, Path]] = {}
    bad: dict[int, Problem] = {}
    for file in sorted(source.rglob("*.png")):
        if named := re.fullmatch(r"(\d+)_(\w+)", file.stem):
            parts = faces.setdefault(int(named[1]), {})
            if named[2] in parts or named[2] not in LABELS[1:]:
                what = f"{file}: expected one file for each part, named {', '.join(LABELS[1:])}"
                bad[int(named[1])] = Problem("parts of other names, or twice", what)
            parts[named[2]] = file
    if not faces:
        raise MogleError(f"{source}: found no parts there or below, expected files such as 00000_hair.png")
    targets = {number: out / f"{number}.png" for number in sorted(faces.keys() - bad.keys())}
    waiting = [number for number, target in targets.items() if not target.exists()]
    for number in tqdm(waiting, unit="face", leave=False, disable=None):
        try:
            label_map = _merge(faces[number])
            with atomic_write(targets[number]) as whole:
                save_mask(whole, label_map)
        except MogleError as error:
            bad[number] = Problem("parts that cannot be used", str(error))
    return len(set(waiting) - bad.keys()), [bad[number] for number in sorted(bad)]


def _merge(parts: Mapping[str, Path]) -> np.ndarray:
    """Parts by name -> label map, later labels over earlier ones."""
    shown = {name: np.asarray(open_image(file).convert("L")) for name, file in parts.items()}
    label_map = np.zeros_like(next(iter(shown.values())))
    for name in sorted(shown, key=LABELS.index):
        if shown[name].shape != label_map.shape or not np.isin(shown[name], (0, 255)).all():
            raise MogleError(f"{parts[name]}: expected black and white alone, and the other parts' size")
        label_map[shown[name] > 0] = LABELS.index(name)
    return label_map
