"""What the frozen parts of a base make of samples: latents of pictures, condition tokens of masks, text embeddings.

Whatever device encodes, what comes back is on the CPU. It is made anew for every batch (`StreamedSet`), or once, and
kept (`encode_set`, `CachedSet`):

    CACHE/KEY/index.json             what made it
    CACHE/KEY/common.safetensors     the empty mask's tokens, the empty caption
    CACHE/KEY/000000.safetensors     a sample with all its captions; tokens of empty masks are not stored again

KEY is a hash of everything that the numbers depend on: weights of VAE and text encoders, size, labels and colours, the
data set's files, captions. A cache of anything else lies in another folder and is never read. A file is written beside
its name and then moved, so whatever carries the name is whole: a killed run goes on where it stopped, and several
processes share the samples among them.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from accelerate import Accelerator
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

from mogle.conditions import encode_distinct, encode_images
from mogle.datasets.stream import Endless
from mogle.errors import MogleError, MogleWarning
from mogle.files import atomic_write
from mogle.labels import LABELS, PALETTE
from mogle.pipeline import FaceMoGLEPipeline
from mogle.training.flow import DTYPE
from mogle.training.settings import TrainSettings

FORMAT = 3  # of what is kept; part of a cache's key
CHUNK = 8  # samples that are encoded together for a cache
COMMON = "common.safetensors"


class Source(Protocol):
    """What encoding asks of a data set; `FaceDataset` has it, and painted portraits."""

    @property
    def ids(self) -> Sequence[str]: ...
    def image(self, index: int) -> Image.Image: ...
    def label_map(self, index: int) -> np.ndarray: ...
    def captions(self, index: int) -> list[str]: ...


#: A sample as it is read: the picture, uint8 (H, W, 3), and the label map, uint8 (H, W).
Pair = tuple[np.ndarray, np.ndarray]


class Reading(Dataset[Pair]):
    """The pictures and label maps of a source, for a DataLoader, whose processes read ahead."""

    def __init__(self, source: Source) -> None:
        self.source = source

    def __getitem__(self, row: int) -> Pair:
        return np.asarray(self.source.image(row)), self.source.label_map(row)


def read_ahead(source: Source, rows: Sequence[int], workers: int) -> Iterator[Pair]:
    """The samples in this order, read by so many processes while the one that asks for them is busy (0: by itself)."""
    return iter(DataLoader(Reading(source), sampler=rows, batch_size=None, num_workers=workers, collate_fn=tuple))


class Encoded(NamedTuple):
    """One sample with one caption. N tokens, L text tokens."""

    image: Tensor  # (N, 64), scaled latents
    conditions: Tensor  # (20, N, 64)
    states: Tensor  # (L, D2), T5
    pooled: Tensor  # (D1,), CLIP
    outline: Tensor  # (N, 64), the picture's edges in gray, for the warm start; (0,) where there is none


#: One sample with all its captions, as a cache's file has it; see `Encoder.samples`.
Sample = dict[str, Tensor]


class Common(NamedTuple):
    """What stands in for what is dropped: an all-black mask, the empty caption."""

    empty: Tensor  # (N, 64)
    states: Tensor  # (L, D2)
    pooled: Tensor  # (D1,)


def vae_layout(device: torch.device) -> torch.memory_format:
    """The memory layout in which the encoder is fast: in float32 on a CPU channels last (19 ms a picture, not 28)."""
    return torch.contiguous_format if device.type == "cuda" else torch.channels_last


def edge_pictures(images: Tensor) -> Tensor:
    """Gradient magnitude of each picture (N, H, W, 3) uint8, in gray: structure without colour."""
    out = []
    for chunk in images.split(256):
        gray = chunk.float().mean(dim=-1)
        dx = torch.nn.functional.pad(gray[:, :, 2:] - gray[:, :, :-2], (1, 1))
        dy = torch.nn.functional.pad(gray[:, 2:] - gray[:, :-2], (0, 0, 1, 1))
        edges = (2 * (dx.square() + dy.square()).sqrt()).clamp(0, 255).to(torch.uint8)
        out.append(edges[..., None].expand(*chunk.shape))
    return torch.cat(out)


class Encoder:
    """VAE and text encoders of a pipeline, for a training with these settings. All tensors come back on the CPU."""

    def __init__(self, pipe: FaceMoGLEPipeline, size: tuple[int, int], settings: TrainSettings) -> None:
        self.pipe, self.size, self.settings = pipe, size, settings
        self.prompt_tokens = settings.prompt_tokens or pipe.max_prompt_tokens
        pipe.vae.encoder.to(memory_format=vae_layout(pipe.vae.device))

    def _kept(self, tensor: Tensor) -> Tensor:
        return tensor.to("cpu", DTYPE[self.settings.precision])

    def images(self, pictures: Tensor) -> Tensor:
        """RGB pictures, uint8 (n, H, W, 3) -> (n, N, 64)."""
        return self._kept(encode_images(self.pipe.vae, pictures.permute(0, 3, 1, 2).float() / 127.5 - 1))

    def masks(self, label_maps: Sequence[np.ndarray]) -> tuple[Tensor, Tensor]:
        """Label maps -> distinct tokens (D, N, 64), the empty mask's first, and index (n, 20)."""
        tokens, index = encode_distinct(self.pipe.vae, label_maps)
        return self._kept(tokens), index.cpu()

    @torch.no_grad()
    def captions(self, captions: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Captions -> T5 states (n, L, D2) and CLIP's pooled (n, D1)."""
        with warnings.catch_warnings(action="ignore", category=MogleWarning):  # CLIP reads a part
            states, pooled, _ = self.pipe.encode_prompt(list(captions), max_sequence_length=self.prompt_tokens)
        return self._kept(states), self._kept(pooled)

    def texts(self, source: Source, row: int) -> list[str]:
        """The captions of a sample that are used."""
        return source.captions(row)[: self.settings.captions]

    def common(self) -> Common:
        """The tokens of an empty mask and of the empty caption."""
        states, pooled = self.captions([""])
        return Common(self.images(torch.zeros(1, *self.size, 3))[0], states[0], pooled[0])

    def samples(self, read: Sequence[Pair], captions: Sequence[Sequence[str]]) -> list[Sample]:
        """Samples, each with its captions, encoded together -> the tensors that `_with_caption` reads."""
        pictures = torch.from_numpy(np.stack([picture for picture, _ in read]))
        tokens, index = self.masks([label_map for _, label_map in read])
        states, pooled = self.captions([text for texts in captions for text in texts])
        counts, outlines = [len(texts) for texts in captions], self.settings.warm_start > 0
        parts: dict[str, Sequence[Tensor]] = {
            "image": list(self.images(pictures)),
            "outline": list(self.images(edge_pictures(pictures)) if outlines else torch.zeros(len(read), 0)),
            "shown": list(index > 0),
            "conditions": [tokens[places[places > 0]] for places in index],
            "states": states.split(counts),
            "pooled": pooled.split(counts),
        }
        return [dict(zip(parts, tensors, strict=True)) for tensors in zip(*parts.values(), strict=True)]


def _with_caption(sample: Sample, empty: Tensor, caption: int) -> Encoded:
    """A sample with one of its captions; "shown" bool (20,) tells which of its conditions are not the empty one."""
    conditions = empty.repeat(len(sample["shown"]), 1, 1)
    conditions[sample["shown"]] = sample["conditions"]
    return Encoded(sample["image"], conditions, sample["states"][caption], sample["pooled"][caption], sample["outline"])


class StreamedSet:
    """The samples of a source, encoded a batch at a time: no disk, but VAE and text encoders stay in memory."""

    def __init__(self, source: Source, encoder: Encoder) -> None:
        self.source, self.encoder, self.ids, self.common = source, encoder, source.ids, encoder.common()
        counts = Endless(lambda row: len(encoder.texts(source, row)))
        self.captions: Sequence[int] = (
            counts if isinstance(self.ids, Endless) else [counts[i] for i in range(len(self.ids))]
        )

    def read(self, wanted: Sequence[tuple[int, int]]) -> list[Encoded]:
        """Samples by index and number of the caption, on the CPU."""
        texts = [[self.encoder.texts(self.source, index)[caption]] for index, caption in wanted]
        samples = self.encoder.samples([Reading(self.source)[index] for index, _ in wanted], texts)
        return [_with_caption(sample, self.common.empty, 0) for sample in samples]


class CachedSet:
    """The samples of a cache, read from disk as they are asked for (the operating system keeps what it can).

    Raises:
        MogleError: the folder is no whole cache.
    """

    def __init__(self, folder: Path, ids: Sequence[str], captions: Sequence[int]) -> None:
        self.folder, self.ids, self.captions = folder, ids, captions
        files = [folder / COMMON, *(_file(folder, index) for index in range(len(ids)))]
        if missing := [file.name for file in files if not file.exists()]:
            raise MogleError(f"{folder}: found no {missing[0]} ({len(missing)} missing); encode the data set again")
        self.common = Common(**load_file(files[0]))

    def read(self, wanted: Sequence[tuple[int, int]]) -> list[Encoded]:
        """Samples by index and number of the caption, on the CPU."""
        empty = self.common.empty
        return [_with_caption(load_file(_file(self.folder, index)), empty, caption) for index, caption in wanted]


#: The samples of a source, encoded: `ids`, `captions` (how many each has), `common`, and `read`.
EncodedSet = StreamedSet | CachedSet


def encode_set(root: Path, source: Source, encoder: Encoder, accelerator: Accelerator, bar: bool = True) -> CachedSet:
    """The samples of a source from the cache, after all processes together have encoded what is not there yet.

    Args:
        bar: show how far it is, where somebody can see it.

    Raises:
        OSError: the disk is full, or the folder cannot be written.
        MogleError: processes do not write to the same disk.
    """
    facts = cache_facts(source, encoder)
    folder, processes = root / key_of(facts), accelerator.num_processes
    if accelerator.is_main_process:
        with atomic_write(folder / "index.json") as path:
            path.write_text(json.dumps({**facts, "ids": list(source.ids)}))
        _save(encoder.common()._asdict(), folder / COMMON)
    starts = range(0, len(source.ids), CHUNK)[accelerator.process_index :: processes]
    chunks = [range(start, min(start + CHUNK, len(source.ids))) for start in starts]
    # of a chunk all is encoded or nothing: numbers depend, in their last digits, on their batch
    left = [rows for rows in chunks if not all(_file(folder, row).exists() for row in rows)]
    ahead = read_ahead(source, [row for rows in left for row in rows], encoder.settings.workers)
    quiet = None if bar and accelerator.is_main_process else True  # None: where this is no terminal
    done = len(chunks) - len(left)
    scale = CHUNK * processes
    for rows in tqdm(left, "encoding", len(chunks), unit=" samples", unit_scale=scale, disable=quiet, initial=done):
        samples = encoder.samples(list(islice(ahead, len(rows))), [encoder.texts(source, row) for row in rows])
        for row, sample in zip(rows, samples, strict=True):
            _save(sample, _file(folder, row))
    accelerator.wait_for_everyone()
    return CachedSet(folder, source.ids, facts["captions"])


def cache_facts(source: Source, encoder: Encoder) -> dict[str, Any]:
    """Everything that the encodings depend on; of a data set's files their size and time."""
    classes = json.dumps([list(LABELS), PALETTE.tolist()])
    texts = [encoder.texts(source, row) for row in range(len(source.ids))]
    stamp = getattr(source, "stamp", lambda row: None)
    data = json.dumps([[name, texts[row], stamp(row)] for row, name in enumerate(source.ids)])
    return {
        "format": FORMAT,
        "base": Path(encoder.pipe.name_or_path).resolve().name,
        **{part: _weights_id(getattr(encoder.pipe, part)) for part in ("vae", "text_encoder", "text_encoder_2")},
        "size": list(encoder.size),
        "prompt_tokens": encoder.prompt_tokens,
        "outlines": encoder.settings.warm_start > 0,
        "precision": encoder.settings.precision,
        "classes": hashlib.sha256(classes.encode()).hexdigest(),
        "captions": [len(group) for group in texts],
        "data": hashlib.sha256(data.encode()).hexdigest(),
        **{name: getattr(source, name, None) for name in ("labels", "palette", "fit")},
    }


def key_of(facts: dict[str, Any]) -> str:
    """The name of the folder for these facts."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def _weights_id(network: torch.nn.Module) -> str:
    """sha256 over the names, shapes and some numbers of a network's weights, wherever they came from.

    All of a small tensor, and 4,096 numbers evenly spread over a large one: T5-XXL has 4.8 billion, and weights that
    differ in training differ everywhere.
    """
    digest = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        flat = tensor.detach().flatten()
        some = flat[:: max(1, flat.numel() // 4096)].cpu().contiguous()
        digest.update(f"{name}:{tuple(tensor.shape)}:{tensor.dtype}:".encode())
        digest.update(some.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _file(folder: Path, index: int) -> Path:
    return folder / f"{index:06d}.safetensors"


def _save(tensors: dict[str, Tensor], path: Path) -> None:
    with atomic_write(path) as new:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, new)
