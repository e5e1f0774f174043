"""What the frozen parts make of a data set, encoded once: image latents, condition tokens, caption embeddings.

    CACHE/KEY/index.json                 what made it, and the shards
    CACHE/KEY/common.safetensors         the empty mask's tokens, the empty caption
    CACHE/KEY/shard-00000.safetensors    `SHARD` samples each; empty masks are not stored again

KEY is a hash of everything that the numbers depend on: weights of VAE and text encoders, size, labels and colours, the
data set's files, captions. A cache of anything else lies in another folder and is never read. A shard is written beside
its name and then moved, so whatever carries the name is whole: a killed run goes on where it stopped, and several
processes share the shards among them.
"""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from mogle.conditions import encode_distinct, encode_images
from mogle.errors import MogleError, MogleWarning
from mogle.labels import LABELS, PALETTE

if TYPE_CHECKING:
    from collections.abc import Callable

    from PIL import Image

    from mogle.pipeline import FaceMoGLEPipeline

FORMAT = 1  # of the files; part of the key
SHARD = 64  # samples


class Source(Protocol):
    """Where samples come from: `FaceDataset`, or painted portraits."""

    @property
    def ids(self) -> Sequence[str]: ...
    def image(self, index: int) -> Image.Image: ...
    def label_map(self, index: int) -> np.ndarray: ...
    def captions(self, index: int) -> list[str]: ...


class Encoded(NamedTuple):
    """One sample with one caption. N tokens, L text tokens."""

    image: Tensor  # (N, 64), scaled latents
    conditions: Tensor  # (20, N, 64)
    states: Tensor  # (L, D2), T5
    pooled: Tensor  # (D1,), CLIP


class Common(NamedTuple):
    """What stands in for what is dropped: an all-black mask, the empty caption."""

    empty: Tensor  # (N, 64)
    states: Tensor  # (L, D2)
    pooled: Tensor  # (D1,)


class EncodedSet(Protocol):
    """Samples as the trainer takes them, from a cache or encoded anew at every step."""

    ids: Sequence[str]
    captions: int  # of each sample
    common: Common

    def read(self, index: int, caption: int) -> Encoded: ...
    def read_outlines(self, index: int) -> Tensor: ...


class Encoder:
    """VAE and text encoders of a pipeline; `dtype` is that of what they give."""

    def __init__(self, pipe: FaceMoGLEPipeline, size: tuple[int, int], prompt_tokens: int | None, dtype: torch.dtype):
        from mogle.tiny.base import vae_layout

        self.pipe, self.size, self.dtype = pipe, size, dtype
        pipe.vae.encoder.to(memory_format=vae_layout(pipe._execution_device))
        self.prompt_tokens = prompt_tokens or pipe.max_prompt_tokens

    def images(self, images: Sequence[Image.Image]) -> Tensor:
        """Pictures -> (n, N, 64)."""
        pixels = torch.from_numpy(np.stack([np.asarray(image) for image in images])).permute(0, 3, 1, 2)
        return encode_images(self.pipe.vae, pixels.float() / 127.5 - 1, self.pipe._execution_device).to(self.dtype)

    def outlines(self, images: Sequence[Image.Image]) -> Tensor:
        """Pictures -> tokens of their edges in gray, (n, N, 64)."""
        from PIL import Image as PIL_Image

        from mogle.tiny.base import edge_pictures

        edges = edge_pictures(torch.from_numpy(np.stack([np.asarray(image) for image in images])))
        return self.images([PIL_Image.fromarray(edge) for edge in edges.numpy()])

    def masks(self, label_maps: Sequence[np.ndarray]) -> tuple[Tensor, Tensor]:
        """Label maps -> distinct tokens (D, N, 64), the empty mask's first, and index (n, 20)."""
        tokens, index = encode_distinct(self.pipe.vae, label_maps, self.pipe._execution_device)
        return tokens.to(self.dtype), index

    def captions(self, captions: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Captions -> T5 states (n, L, D2) and CLIP's pooled (n, D1)."""
        states, pooled = [], []
        with torch.no_grad(), warnings.catch_warnings(action="ignore", category=MogleWarning):  # CLIP reads a part
            for start in range(0, len(captions), 64):
                part = list(captions[start : start + 64])
                found = self.pipe.encode_prompt(part, max_sequence_length=self.prompt_tokens)
                states.append(found[0].to(self.dtype))
                pooled.append(found[1].to(self.dtype))
        return torch.cat(states), torch.cat(pooled)

    def common(self) -> Common:
        """The tokens of an empty mask and of the empty caption."""
        black = -torch.ones(1, 3, *self.size)
        states, pooled = self.captions([""])
        empty = encode_images(self.pipe.vae, black, self.pipe._execution_device).to(self.dtype)
        return Common(empty[0], states[0], pooled[0])

    def facts(self, base: Path | str) -> dict[str, Any]:
        """Everything about the encoders that their numbers depend on."""
        palette = hashlib.sha256(json.dumps([list(LABELS), PALETTE.tolist()]).encode()).hexdigest()
        return {
            "format": FORMAT,
            "base": str(base) if isinstance(base, str) else base.resolve().name,
            **{part: _weights_id(self.pipe, part) for part in ("vae", "text_encoder", "text_encoder_2")},
            "size": list(self.size),
            "prompt_tokens": self.prompt_tokens,
            "labels": palette,
            "dtype": str(self.dtype).removeprefix("torch."),
        }


def _weights_id(pipe: FaceMoGLEPipeline, part: str) -> str:
    """sha256 over the names, shapes and some numbers of a network's weights, wherever they came from.

    All of a small tensor, and 4,096 numbers evenly spread over a large one: T5-XXL has 4.8 billion, and weights that
    differ in training differ everywhere.
    """
    digest = hashlib.sha256()
    for name, tensor in getattr(pipe, part).state_dict().items():
        flat = tensor.detach().flatten()
        some = flat[:: max(1, flat.numel() // 4096)].cpu().contiguous()
        digest.update(f"{name}:{tuple(tensor.shape)}:{tensor.dtype}:".encode())
        digest.update(some.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def source_facts(source: Source, captions: int) -> dict[str, Any]:
    """What of a data set the encodings depend on: its ids, captions, and the size and time of its files."""
    digest = hashlib.sha256()
    stamp = getattr(source, "stamp", None)
    for index, name in enumerate(source.ids):
        texts = source.captions(index)[:captions]
        digest.update(json.dumps([name, texts, stamp(index) if stamp else None]).encode())
    return {"samples": len(source.ids), "captions": captions, "data": digest.hexdigest()}


def key_of(facts: dict[str, Any]) -> str:
    """The name of the folder for these facts."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def captions_of_each(source: Source, limit: int | None) -> int:
    """How many captions every sample has, at most `limit`."""
    least = min(len(source.captions(index)) for index in range(len(source.ids)))
    return max(1, min(least, limit or least))


def encode_set(
    root: str | Path,
    source: Source,
    encoder: Encoder,
    facts: dict[str, Any],
    *,
    outlines: bool = False,
    rank: int = 0,
    processes: int = 1,
    progress: Callable[[int], None] | None = None,
) -> Path:
    """Encodes what of this process's shards is not there yet -> the cache's folder.

    The caller has to wait for the other processes before it reads. `progress` is told of every sample done.

    Raises:
        OSError: the disk is full, or the folder cannot be written.
    """
    from safetensors.torch import save_file

    folder = Path(root) / key_of({**facts, "outlines": outlines})
    folder.mkdir(parents=True, exist_ok=True)
    common = encoder.common()
    if rank == 0:
        _write(folder / "common.safetensors", lambda path: save_file(common._asdict(), path))
        text = json.dumps({**facts, "outlines": outlines, "ids": list(source.ids)})
        _write(folder / "index.json", lambda path: path.write_text(text))
    for number, start in enumerate(range(0, len(source.ids), SHARD)):
        path = folder / f"shard-{number:05d}.safetensors"
        rows = range(start, min(start + SHARD, len(source.ids)))
        if number % processes == rank and not path.exists():
            tensors = _encode_shard(source, encoder, rows, facts["captions"], outlines)
            _write(path, lambda path, tensors=tensors: save_file(tensors, path))  # type: ignore[misc]
        if progress:
            progress(len(rows))
    return folder


def _encode_shard(source: Source, encoder: Encoder, rows: range, captions: int, outlines: bool) -> dict[str, Tensor]:
    images = [source.image(i) for i in rows]
    tokens, index = encoder.masks([source.label_map(i) for i in rows])
    texts = [caption for i in rows for caption in source.captions(i)[:captions]]
    distinct = list(dict.fromkeys(texts))
    states, pooled = encoder.captions(distinct)
    place = {text: row for row, text in enumerate(distinct)}
    which = torch.tensor([place[text] for text in texts]).view(len(rows), captions)
    tensors = {"image": encoder.images(images), "conditions": tokens, "index": index, "which": which}
    tensors |= {"states": states, "pooled": pooled}
    if outlines:
        tensors["outlines"] = encoder.outlines(images)
    return {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}


def _write(path: Path, write: Callable[[Path], Any]) -> None:
    """Writes beside the name, then moves there: a file that has its name is whole."""
    new = path.with_suffix(f".{os.getpid()}.new")
    try:
        write(new)
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)


class CachedSet:
    """The samples of a cache, read from disk as they are asked for (the operating system keeps what it can).

    Raises:
        MogleError: the folder is no whole cache.
    """

    def __init__(self, folder: Path) -> None:
        from safetensors.torch import load_file

        try:
            index = json.loads((folder / "index.json").read_text())
            self.common = Common(**load_file(folder / "common.safetensors"))
        except (OSError, ValueError, TypeError) as error:
            raise MogleError(f"{folder}: found no whole cache ({error}); remove it to encode anew") from error
        self.ids, self.captions = index["ids"], index["captions"]
        self._paths = [folder / f"shard-{n:05d}.safetensors" for n in range(-(-len(self.ids) // SHARD))]
        missing = [path.name for path in self._paths if not path.exists()]
        if missing:
            raise MogleError(f"{folder}: found no {missing[0]} ({len(missing)} missing); encode the data set again")
        self._open: dict[int, dict[str, Any]] = {}

    def _shard(self, number: int) -> dict[str, Any]:
        """Lazy slices of a shard's tensors; small ones as tensors. At most 64 shards stay open."""
        from safetensors import safe_open

        if number not in self._open:
            if len(self._open) >= 64:
                self._open.pop(next(iter(self._open)))
            file = safe_open(self._paths[number], "pt")
            small = {name: file.get_tensor(name) for name in ("index", "which")}
            lazy = {name: file.get_slice(name) for name in file.keys() if name not in small}  # noqa: SIM118
            self._open[number] = {**small, **lazy, "file": file}
        return self._open[number]

    def read(self, index: int, caption: int) -> Encoded:
        """Sample `index` with its caption number `caption`."""
        shard, row = self._shard(index // SHARD), index % SHARD
        places = shard["index"][row]
        first, last = int(places[places > 0].min()), int(places.max())
        tokens = shard["conditions"][first : last + 1]
        conditions = self.common.empty.expand(len(places), *self.common.empty.shape).clone()
        conditions[places > 0] = tokens[places[places > 0] - first]
        text = int(shard["which"][row, caption])
        return Encoded(shard["image"][row], conditions, shard["states"][text], shard["pooled"][text])

    def read_outlines(self, index: int) -> Tensor:
        """Tokens (N, 64) of the picture's edges."""
        return self._shard(index // SHARD)["outlines"][index % SHARD]


class StreamedSet:
    """The same samples, encoded at the moment they are asked for: no disk, but VAE and text encoders stay in memory."""

    def __init__(self, source: Source, encoder: Encoder, captions: int) -> None:
        self.source, self.encoder, self.captions = source, encoder, captions
        self.ids, self.common = source.ids, encoder.common()

    def read(self, index: int, caption: int) -> Encoded:
        """Sample `index` with its caption number `caption`."""
        tokens, places = self.encoder.masks([self.source.label_map(index)])
        states, pooled = self.encoder.captions([self.source.captions(index)[caption]])
        image = self.encoder.images([self.source.image(index)])[0]
        return Encoded(image, tokens[places[0]], states[0], pooled[0])

    def read_outlines(self, index: int) -> Tensor:
        """Tokens (N, 64) of the picture's edges."""
        return self.encoder.outlines([self.source.image(index)])[0]
