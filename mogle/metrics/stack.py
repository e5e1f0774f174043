"""Many pictures as one sequence, without holding them: memory does not grow with their number."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np


class Stack(Sequence[np.ndarray]):
    """Arrays of one shape: `read(row)` for each of `rows`, when it is asked for, and not kept."""

    def __init__(self, read: Callable[[int], np.ndarray], rows: Sequence[int]) -> None:
        self.read, self.rows = read, rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> np.ndarray:  # type: ignore[override]  # no slices: one picture at a time
        return self.read(self.rows[index])


Pictures: TypeAlias = Sequence[np.ndarray] | np.ndarray  # uint8, N times (H, W, 3) or, of label maps, (H, W)


def taken(pictures: Pictures, rows: Sequence[int]) -> Stack:
    """Those with these numbers, still unread."""
    return Stack(pictures.__getitem__, rows)


def batches(pictures: Pictures, size: int = 32) -> Iterator[np.ndarray]:
    """Arrays (at most `size`, H, W, ...) that cover all pictures."""
    for start in range(0, len(pictures), size):
        yield np.stack([pictures[i] for i in range(start, min(start + size, len(pictures)))])


def stored(files: Sequence[Path], size: tuple[int, int]) -> Stack:
    """Pictures (H,W,3) in files; one of another size (H, W) is resized (Lanczos)."""
    from PIL import Image

    from mogle.pictures import read_rgb

    def picture(row: int) -> np.ndarray:
        return np.asarray(read_rgb(files[row]).resize(size[::-1], Image.Resampling.LANCZOS))

    return Stack(picture, range(len(files)))
