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

import functools
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm.auto import tqdm

from mogle.errors import MogleError
from mogle.files import atomic_write
from mogle.training.encode import Common, Encoded, Encoder, Source

SHARD = 64  # samples


def source_facts(source: Source, captions: Sequence[int]) -> dict[str, Any]:
    """What of a data set the encodings depend on: its ids, captions, and the size and time of its files."""
    digest = hashlib.sha256()
    stamp = getattr(source, "stamp", None)
    for index, name in enumerate(source.ids):
        texts = source.captions(index)[: captions[index]]
        digest.update(json.dumps([name, texts, stamp(index) if stamp else None]).encode())
    reading = {name: getattr(source, name, None) for name in ("labels", "palette", "fit")}
    return {"samples": len(source.ids), "captions": list(captions), **reading, "data": digest.hexdigest()}


def key_of(facts: dict[str, Any]) -> str:
    """The name of the folder for these facts."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def encode_set(
    root: str | Path,
    source: Source,
    encoder: Encoder,
    facts: dict[str, Any],
    *,
    outlines: bool = False,
    rank: int = 0,
    processes: int = 1,
) -> Path:
    """Encodes what of this process's shards is not there yet -> the cache's folder.

    The caller has to wait for the other processes before it reads.

    Raises:
        OSError: the disk is full, or the folder cannot be written.
    """
    facts = {**facts, "outlines": outlines}
    folder = Path(root) / key_of(facts)
    folder.mkdir(parents=True, exist_ok=True)
    if rank == 0:
        _save(encoder.common()._asdict(), folder / "common.safetensors")
        with atomic_write(folder / "index.json") as path:
            path.write_text(json.dumps({**facts, "ids": list(source.ids)}))
    starts = range(0, len(source.ids), SHARD)
    bar = tqdm(starts, desc="encoding", unit=" samples", unit_scale=SHARD, disable=rank > 0 or None)  # None: on a TTY
    for number, start in enumerate(bar):
        path, rows = _shard(folder, number), range(start, min(start + SHARD, len(source.ids)))
        if number % processes == rank and not path.exists():
            _save(_encode_shard(source, encoder, rows, facts["captions"], outlines), path)
    return folder


def _shard(folder: Path, number: int) -> Path:
    return folder / f"shard-{number:05d}.safetensors"


def _encode_shard(
    source: Source, encoder: Encoder, rows: range, captions: Sequence[int], outlines: bool
) -> dict[str, Tensor]:
    images = [source.image(i) for i in rows]
    tokens, index = encoder.masks([source.label_map(i) for i in rows])
    texts = [caption for i in rows for caption in source.captions(i)[: captions[i]]]
    place = {text: row for row, text in enumerate(dict.fromkeys(texts))}
    states, pooled = encoder.captions(list(place))
    which = torch.tensor([place[text] for text in texts])  # of one sample after another
    first = torch.tensor([0, *(captions[i] for i in rows)]).cumsum(0)
    tensors = {"image": encoder.images(images), "conditions": tokens, "index": index, "which": which, "first": first}
    tensors |= {"states": states, "pooled": pooled}
    return tensors | ({"outlines": encoder.outlines(images)} if outlines else {})


def _save(tensors: dict[str, Tensor], path: Path) -> None:
    with atomic_write(path) as new:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, new)


class CachedSet:
    """The samples of a cache, read from disk as they are asked for (the operating system keeps what it can).

    Raises:
        MogleError: the folder is no whole cache.
    """

    def __init__(self, folder: Path) -> None:
        try:
            index = json.loads((folder / "index.json").read_text())
            self.common = Common(**load_file(folder / "common.safetensors"))
        except (OSError, ValueError, TypeError) as error:
            raise MogleError(f"{folder}: found no whole cache ({error}); remove it to encode anew") from error
        self.ids, self.captions = index["ids"], index["captions"]
        self._paths = [_shard(folder, number) for number in range(-(-len(self.ids) // SHARD))]
        missing = [path.name for path in self._paths if not path.exists()]
        if missing:
            raise MogleError(f"{folder}: found no {missing[0]} ({len(missing)} missing); encode the data set again")
        self._shard = functools.lru_cache(maxsize=64)(self._open)

    def _open(self, number: int) -> dict[str, Any]:
        """Lazy slices of a shard's tensors; small ones as tensors."""
        file = safe_open(self._paths[number], "pt")
        small = {name: file.get_tensor(name) for name in ("index", "which", "first")}
        return {name: file.get_slice(name) for name in file.keys()} | small | {"file": file}  # noqa: SIM118

    def _read(self, index: int, caption: int) -> Encoded:
        shard, row = self._shard(index // SHARD), index % SHARD
        places = shard["index"][row]
        first, last = int(places[places > 0].min()), int(places.max())
        tokens = shard["conditions"][first : last + 1]
        conditions = self.common.empty.expand(len(places), *self.common.empty.shape).clone()
        conditions[places > 0] = tokens[places[places > 0] - first]
        text = int(shard["which"][shard["first"][row] + caption])
        return Encoded(shard["image"][row], conditions, shard["states"][text], shard["pooled"][text])

    def read(self, wanted: Sequence[tuple[int, int]]) -> list[Encoded]:
        """Samples by index and number of the caption, on the CPU."""
        return [self._read(index, caption) for index, caption in wanted]

    def read_outlines(self, rows: Sequence[int]) -> Tensor:
        """Tokens (n, N, 64) of the pictures' edges, on the CPU."""
        return torch.stack([self._shard(row // SHARD)["outlines"][row % SHARD] for row in rows])
