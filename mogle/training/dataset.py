"""What training takes at each place of a run, as a `torch.utils.data.Dataset` keyed by that place.

Sample, noise, time and what is dropped depend on the seed and the position alone, so how a run is divided among
processes and parts, or interrupted, never changes what is computed. Everything here stays on the CPU.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils.data import Dataset

from mogle.datasets.stream import Endless
from mogle.labels import LABELS
from mogle.training.encode import EncodedSet
from mogle.training.flow import Example, sample_times
from mogle.training.settings import TrainSettings


class TrainingSet(Dataset[Example]):
    """The endless sequence of shuffled epochs, by position; drops are as the settings say (reference: 0.1 each).

    A stream is such a sequence already, shuffled as far as its buffer reaches.
    """

    def __init__(self, samples: EncodedSet, settings: TrainSettings) -> None:
        self.samples, self.settings = samples, settings

    def __getitem__(self, position: int) -> Example:
        return self.__getitems__([position])[0]

    def __getitems__(self, positions: Sequence[int]) -> list[Example]:
        """A batch at once, as DataLoader asks for it: without a cache it is encoded together."""
        ids, common, examples = self.samples.ids, self.samples.common, []
        rows = positions
        if not isinstance(ids, Endless):
            rows = [sample_of(position, len(ids), self.settings.seed) for position in positions]
        drawn = [self._draw(position, row) for position, row in zip(positions, rows, strict=True)]
        found = self.samples.read([(row, caption) for row, (caption, *_) in zip(rows, drawn, strict=True)])
        for row, sample, (_, t, silent, dropped, noise) in zip(rows, found, drawn, strict=True):
            conditions = torch.where(dropped[:, None, None], common.empty, sample.conditions)
            states, pooled = common[1:] if silent else (sample.states, sample.pooled)
            examples.append(Example(ids[row], sample.image, noise, t, conditions, states, pooled, sample.outline))
        return examples

    def _draw(self, position: int, row: int) -> tuple[int, Tensor, bool, Tensor, Tensor]:
        """What is left to chance: the caption's number; time (); whether the caption is dropped; which conditions are,
        bool (20,); noise (N, 64)."""
        settings, chance = self.settings, torch.Generator().manual_seed(_mixed(self.settings.seed, position, 2))
        t = sample_times(1, chance, "cpu", settings.high_noise)[0]
        silent = bool(torch.rand((), generator=chance) < settings.drop_text)
        dropped = torch.rand(1 + len(LABELS), generator=chance) < settings.drop_local
        dropped[0] = False  # the global condition never
        caption = int(torch.randint(self.samples.captions[row], (), generator=chance))
        return caption, t, silent, dropped, torch.randn(self.samples.common.empty.shape, generator=chance)


def sample_of(position: int, count: int, seed: int) -> int:
    """Which of `count` samples stands at this place in the endless sequence of shuffled epochs."""
    epoch, place = divmod(position, count)
    return int(_order(epoch, count, seed)[place])


@functools.lru_cache(maxsize=2)
def _order(epoch: int, count: int, seed: int) -> Tensor:
    return torch.randperm(count, generator=torch.Generator().manual_seed(_mixed(seed, epoch, 1)))


def _mixed(seed: int, number: int, purpose: int) -> int:
    """A seed of its own for each use; hashed, because neighbouring seeds give generators that begin alike."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{number}/{purpose}".encode()).digest()[:4], "big")
