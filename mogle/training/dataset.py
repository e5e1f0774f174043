"""What training takes at each place of a run, as a `torch.utils.data.Dataset` keyed by that place.

Sample, noise, time and what is dropped depend on the seed and the position alone, so how a run is divided among
processes and parts, or interrupted, never changes what is computed. Everything here stays on the CPU.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.utils.data import Dataset

from mogle.labels import LABELS
from mogle.training.encode import Common, Encoded, Encoder, Source
from mogle.training.flow import Example, sample_times
from mogle.training.settings import TrainSettings


class EncodedSet(Protocol):
    """Samples encoded, read from a cache (`CachedSet`) or made at the moment they are asked for (`StreamedSet`)."""

    ids: Sequence[str]
    captions: Sequence[int]  # how many each sample has
    common: Common

    def read(self, wanted: Sequence[tuple[int, int]]) -> list[Encoded]:
        """Samples by index and number of the caption, on the CPU."""

    def read_outlines(self, rows: Sequence[int]) -> Tensor:
        """Tokens (n, N, 64) of the pictures' edges, on the CPU."""


class StreamedSet:
    """The samples of a source, encoded a batch at a time: no disk, but VAE and text encoders stay in memory."""

    def __init__(self, source: Source, encoder: Encoder, captions: Sequence[int]) -> None:
        self.source, self.encoder, self.captions = source, encoder, captions
        self.ids, self.common = source.ids, encoder.common()

    def read(self, wanted: Sequence[tuple[int, int]]) -> list[Encoded]:
        """Samples by index and number of the caption, on the CPU."""
        tokens, places = self.encoder.masks([self.source.label_map(index) for index, _ in wanted])
        states, pooled = self.encoder.captions([self.source.captions(index)[caption] for index, caption in wanted])
        images = self.encoder.images([self.source.image(index) for index, _ in wanted])
        return [Encoded(*parts) for parts in zip(images, (tokens[row] for row in places), states, pooled, strict=True)]

    def read_outlines(self, rows: Sequence[int]) -> Tensor:
        """Tokens (n, N, 64) of the pictures' edges, on the CPU."""
        return self.encoder.outlines([self.source.image(index) for index in rows])


class TrainingSet(Dataset[Example]):
    """The endless sequence of shuffled epochs, by position; drops are as the settings say (reference: 0.1 each)."""

    def __init__(self, samples: EncodedSet, settings: TrainSettings) -> None:
        self.samples, self.settings = samples, settings

    def row(self, position: int) -> int:
        """Which sample stands at this place."""
        return sample_of(position, len(self.samples.ids), self.settings.seed)

    def __getitem__(self, position: int) -> Example:
        return self.__getitems__([position])[0]

    def __getitems__(self, positions: Sequence[int]) -> list[Example]:
        """A batch at once, as DataLoader asks for it: without a cache it is encoded together."""
        rows = [self.row(position) for position in positions]
        chances = [
            self._chances(position, self.samples.captions[row]) for position, row in zip(positions, rows, strict=True)
        ]
        found = self.samples.read([(row, chance.caption) for row, chance in zip(rows, chances, strict=True)])
        common, examples = self.samples.common, []
        for row, chance, sample in zip(rows, chances, found, strict=True):
            conditions = torch.where(chance.dropped[:, None, None], common.empty, sample.conditions)
            text = common[1:] if chance.silent else sample[2:]
            examples.append(Example(self.samples.ids[row], sample.image, chance.noise, chance.t, conditions, *text))
        return examples

    def _chances(self, position: int, captions: int) -> _Chances:
        settings, chance = self.settings, torch.Generator().manual_seed(_mixed(self.settings.seed, position, 2))
        t = sample_times(1, chance, "cpu", settings.high_noise)[0]
        silent = bool(torch.rand((), generator=chance) < settings.drop_text)
        dropped = torch.rand(1 + len(LABELS), generator=chance) < settings.drop_local
        dropped[0] = False  # the global condition never
        caption = int(torch.randint(captions, (), generator=chance))
        return _Chances(t, silent, dropped, caption, torch.randn(self.samples.common.empty.shape, generator=chance))


class _Chances(NamedTuple):
    """What is drawn for one position."""

    t: Tensor  # ()
    silent: bool  # the caption is dropped
    dropped: Tensor  # bool (20,)
    caption: int
    noise: Tensor  # (N, 64)


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
