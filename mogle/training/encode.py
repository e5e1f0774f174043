"""What the frozen parts of a base make of samples: latents of pictures, condition tokens of masks, text embeddings.

Whatever device encodes, what comes back is on the CPU: it goes to disk, or through a loader to the training device.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mogle.conditions import encode_distinct, encode_images
from mogle.errors import MogleWarning
from mogle.labels import LABELS, PALETTE

if TYPE_CHECKING:
    from mogle.pipeline import FaceMoGLEPipeline

FORMAT = 2  # of what is kept; part of a cache's key


class Source(Protocol):
    """What encoding asks of a data set; `FaceDataset` has it, and painted portraits."""

    @property
    def ids(self) -> Sequence[str]: ...
    def image(self, index: int) -> Image.Image: ...
    def label_map(self, index: int) -> np.ndarray: ...
    def captions(self, index: int) -> list[str]: ...


def caption_counts(source: Source, limit: int | None = None) -> list[int]:
    """How many captions each sample has, at most `limit`."""
    counts = (len(source.captions(index)) for index in range(len(source.ids)))
    return [count if limit is None else min(count, limit) for count in counts]


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
    """VAE and text encoders of a pipeline; `dtype` is that of what they give. All tensors come back on the CPU."""

    def __init__(self, pipe: FaceMoGLEPipeline, size: tuple[int, int], prompt_tokens: int | None, dtype: torch.dtype):
        self.pipe, self.size, self.dtype = pipe, size, dtype
        self.device = pipe._execution_device
        pipe.vae.encoder.to(memory_format=vae_layout(self.device))
        self.prompt_tokens = prompt_tokens or pipe.max_prompt_tokens

    def _kept(self, tensor: Tensor) -> Tensor:
        return tensor.to("cpu", self.dtype)

    def images(self, pictures: Sequence[Any]) -> Tensor:
        """RGB pictures (PIL, or uint8 (H, W, 3)) -> (n, N, 64)."""
        pixels = torch.from_numpy(np.stack([np.asarray(picture) for picture in pictures])).permute(0, 3, 1, 2)
        return self._kept(encode_images(self.pipe.vae, pixels.float() / 127.5 - 1, self.device))

    def outlines(self, pictures: Sequence[Any]) -> Tensor:
        """RGB pictures -> tokens of their edges in gray, (n, N, 64)."""
        pixels = torch.from_numpy(np.stack([np.asarray(picture) for picture in pictures]))
        return self.images(list(edge_pictures(pixels)))

    def masks(self, label_maps: Sequence[np.ndarray]) -> tuple[Tensor, Tensor]:
        """Label maps -> distinct tokens (D, N, 64), the empty mask's first, and index (n, 20)."""
        tokens, index = encode_distinct(self.pipe.vae, label_maps, self.device)
        return self._kept(tokens), index.cpu()

    def captions(self, captions: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Captions -> T5 states (n, L, D2) and CLIP's pooled (n, D1)."""
        states, pooled = [], []
        with torch.no_grad(), warnings.catch_warnings(action="ignore", category=MogleWarning):  # CLIP reads a part
            for start in range(0, len(captions), 64):
                part = list(captions[start : start + 64])
                found = self.pipe.encode_prompt(part, max_sequence_length=self.prompt_tokens)
                states.append(self._kept(found[0]))
                pooled.append(self._kept(found[1]))
        return torch.cat(states), torch.cat(pooled)

    def common(self) -> Common:
        """The tokens of an empty mask and of the empty caption."""
        states, pooled = self.captions([""])
        return Common(self.images([np.zeros((*self.size, 3), np.uint8)])[0], states[0], pooled[0])

    def facts(self, base: Path | str) -> dict[str, Any]:
        """Everything about the encoders that their numbers depend on."""
        palette = hashlib.sha256(json.dumps([list(LABELS), PALETTE.tolist()]).encode()).hexdigest()
        return {
            "format": FORMAT,
            "base": str(base) if isinstance(base, str) else base.resolve().name,
            **{part: _weights_id(getattr(self.pipe, part)) for part in ("vae", "text_encoder", "text_encoder_2")},
            "size": list(self.size),
            "prompt_tokens": self.prompt_tokens,
            "labels": palette,
            "dtype": str(self.dtype).removeprefix("torch."),
        }


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
