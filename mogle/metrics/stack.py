"""Many pictures as if they were one array, without holding them: memory does not grow with their number."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np


class Stack:
    """Arrays of one shape, each read when it is asked for and not kept; otherwise like an array (N, ...).

    A slice or a list of numbers gives a real array, a single number one element, `take` a smaller stack.
    """

    def __init__(self, read: Callable[[int], np.ndarray], rows: Sequence[int], shape: tuple[int, ...]) -> None:
        self._read, self._rows, self._shape = read, rows, shape

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self), *self._shape)

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self._read(row) for row in self._rows)

    def __getitem__(self, index: Any) -> np.ndarray:
        if isinstance(index, (int, np.integer)):
            return self._read(self._rows[int(index)])
        numbers = range(len(self))[index] if isinstance(index, slice) else [int(i) for i in index]
        if not len(numbers):
            return np.empty((0, *self._shape), np.uint8)
        return np.stack([self._read(self._rows[i]) for i in numbers])

    def take(self, numbers: Sequence[int]) -> Stack:
        """Those with these numbers, still unread."""
        return Stack(self._read, [self._rows[i] for i in numbers], self._shape)


Pictures: TypeAlias = np.ndarray | Stack  # uint8, (N, H, W, 3) or, of label maps, (N, H, W)


def stored(files: Sequence[Path], size: tuple[int, int]) -> Stack:
    """Pictures (N,H,W,3) in files, read when they are needed; one of another size (H, W) is resized (Lanczos)."""
    from PIL import Image

    from mogle.pictures import read_rgb

    def picture(index: int) -> np.ndarray:
        image = read_rgb(files[index])
        if image.size != size[::-1]:
            image = image.resize(size[::-1], Image.Resampling.LANCZOS)
        return np.asarray(image)

    return Stack(picture, range(len(files)), (*size, 3))


def taken(stack: Pictures, numbers: Sequence[int]) -> Pictures:
    """The elements with these numbers, of either kind."""
    return stack.take(numbers) if isinstance(stack, Stack) else stack[list(numbers)]


def chunks(count: int, size: int = 32) -> Iterator[slice]:
    """Slices that cover `count` elements."""
    return (slice(start, start + size) for start in range(0, count, size))
