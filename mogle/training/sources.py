"""Where the samples of a training come from: a data set's folder, or painted portraits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from mogle.errors import MogleError
from mogle.training.settings import TrainSettings

if TYPE_CHECKING:
    from PIL import Image

PAINTED = 200  # portraits, where neither data set nor count is given


class Source(Protocol):
    """What encoding asks for: `FaceDataset` and `PaintedSource` have it."""

    @property
    def ids(self) -> Sequence[str]: ...
    def image(self, index: int) -> Image.Image: ...
    def label_map(self, index: int) -> np.ndarray: ...
    def captions(self, index: int) -> list[str]: ...


class PaintedSource:
    """Painted portraits as a source of samples: pictures (N, H, W, 3), label maps (N, H, W), captions, first seed."""

    def __init__(self, images: np.ndarray, masks: np.ndarray, captions: list[list[str]], first: int = 0) -> None:
        self.ids: Sequence[str] = [str(first + i) for i in range(len(captions))]
        self._images, self._masks, self._captions = images, masks, captions

    @classmethod
    def paint(cls, count: int, size: tuple[int, int]) -> PaintedSource:
        """The portraits of the seeds 0, 1, ..."""
        from mogle.tiny.portraits import paint_many

        if size[0] != size[1]:
            raise MogleError(f"size {size}: portraits are square; give a data set for other shapes")
        images, masks, _, captions = paint_many(range(count), size=size[0])
        return cls(images, masks, captions)

    def image(self, index: int) -> Image.Image:
        """RGB."""
        from PIL import Image

        return Image.fromarray(self._images[index])

    def label_map(self, index: int) -> np.ndarray:
        """uint8 (H, W)."""
        return self._masks[index]

    def captions(self, index: int) -> list[str]:
        """All of the sample's."""
        return self._captions[index]


def open_source(settings: TrainSettings, size: tuple[int, int], skip_bad: bool = False) -> tuple[Source, int]:
    """The samples to train on, every file of them read once -> them, and how many bad ones were left out.

    Raises:
        MogleError: problems, all of them at once, without `skip_bad`.
    """
    from mogle.datasets import FaceDataset

    if settings.data is None:
        return PaintedSource.paint(settings.count or PAINTED, size), 0
    dataset = FaceDataset.checked(settings.data, split="train", size=size, skip_bad=skip_bad)
    dataset.ids = dataset.ids[: settings.count]
    return dataset, dataset.skipped
