"""Painted portraits as samples: to fine-tune on, and to evaluate with."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from mogle.datasets import SPLITS
from mogle.errors import MogleError
from mogle.metrics.samples import OTHERS, Samples
from mogle.tiny.portraits import paint_many


class PaintedSource:
    """Painted portraits as `mogle.training.encode.Source`.

    Pictures (N, H, W, 3) and label maps (N, H, W), uint8; captions of each; the first portrait's seed.
    """

    def __init__(self, images: np.ndarray, masks: np.ndarray, captions: list[list[str]], first: int = 0) -> None:
        self.ids: Sequence[str] = [str(first + i) for i in range(len(captions))]
        self._images, self._masks, self._captions = images, masks, captions

    @classmethod
    def paint(cls, count: int, size: tuple[int, int]) -> PaintedSource:
        """The portraits of the seeds 0, 1, ..."""
        if size[0] != size[1]:
            raise MogleError(f"size {size}: portraits are square; give a data set for other shapes")
        images, masks, _, captions = paint_many(range(count), size=size[0])
        return cls(images, masks, captions)

    def image(self, index: int) -> Image.Image:
        """RGB."""
        return Image.fromarray(self._images[index])

    def label_map(self, index: int) -> np.ndarray:
        """uint8 (H, W)."""
        return self._masks[index]

    def captions(self, index: int) -> list[str]:
        """All of the sample's."""
        return self._captions[index]


def painted_samples(count: int, size: int, style: str = "portraits") -> Samples:
    """Portraits of the test split, painted from their numbers; of a shifted set, with another style."""
    test = SPLITS["test"]
    if not 1 <= count <= len(test) - 2:
        raise MogleError(f"--n {count}: expected at most {len(test) - 2}; KID needs portraits besides")
    numbers = test[: count + max(OTHERS, count)]
    images, masks, facts, captions = paint_many(numbers, size=size, style=style)
    return Samples(
        ids=tuple(map(str, numbers[:count])),
        images=images[:count],
        masks=masks[:count],
        captions=tuple(said[0] for said in captions[:count]),
        attributes=tuple(facts[:count]),
        others=images[count:],
        source=f"painted {style} {numbers[0]} to {numbers[count - 1]}",
    )
