"""What the notebooks look at and the pipeline does not need: tokens back to latents, classes by token, loaders.

Most functions here are solutions of exercises; `reveal` prints their source. The first two make the tokens of notebook
02 for the notebooks after it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mogle.conditions import encode_distinct, encode_images
from mogle.labels import LABELS, decode_mask, save_mask


def condition_tokens(base: Path, label_maps: Sequence[np.ndarray]) -> Tensor:
    """Label maps, all (H, W) -> the 20 conditions' tokens (B, 20, N, 64), by the VAE of a FluxPipeline folder."""
    tokens, index = encode_distinct(_vae(base), label_maps)
    return tokens[index]


def picture_tokens(base: Path, file: Path) -> Tensor:
    """A picture's own tokens Z_0 (1, N, 64), by the VAE of a FluxPipeline folder."""
    with Image.open(file) as opened:
        pixels = torch.from_numpy(np.array(opened.convert("RGB")))
    return encode_images(_vae(base), pixels.permute(2, 0, 1)[None].float() / 127.5 - 1)


def _vae(base: Path) -> Any:
    from diffusers import AutoencoderKL

    return AutoencoderKL.from_pretrained(base / "vae").float().eval().requires_grad_(False)


def unpack_latents(tokens: Tensor, height: int, width: int) -> Tensor:
    """The way back from `pack_latents`: tokens (B, H/2 * W/2, 4 C) -> latents (B, C, H, W)."""
    batch, _, channels = tokens.shape
    latents = tokens.view(batch, height // 2, width // 2, channels // 4, 2, 2).permute(0, 3, 1, 4, 2, 5)
    return latents.reshape(batch, channels // 4, height, width)


def class_shares(label_map: np.ndarray, patch: int = 16) -> np.ndarray:
    """Which class lives where: label map (H, W) -> (N, 19), each class's share of each token's patch, row by row.

    A token stands for `patch` x `patch` pixels (8 of the VAE, times 2 of the packing); every row sums to 1.
    """
    height, width = label_map.shape
    patches = label_map.reshape(height // patch, patch, width // patch, patch).swapaxes(1, 2).reshape(-1, patch**2)
    return (patches[:, :, None] == np.arange(len(LABELS))).mean(axis=1)


def gate_entropy(weights: Tensor) -> Tensor:
    """Entropy in bits of the gate's weights (..., E) -> (...): 0 for one expert alone, 4.32 for 20 alike."""
    return torch.special.entr(weights).sum(dim=-1) / math.log(2)


# --- three loaders, one of them right (notebook 02) --------------------------------------------------------------

#: Takes an opened palette picture, gives 19 masks (19, H, W) of booleans.
Loader = Callable[[Image.Image], np.ndarray]


def loader_a(picture: Image.Image) -> np.ndarray:
    """19 masks (19, H, W) from a mask file."""
    height_width = picture.size[::-1]
    return np.stack([np.full(height_width, picture == label) for label in range(len(LABELS))])


def loader_b(picture: Image.Image) -> np.ndarray:
    """19 masks (19, H, W) from a mask file."""
    gray = np.asarray(picture.convert("L"))
    return np.stack([gray == label for label in range(len(LABELS))])


def loader_c(picture: Image.Image) -> np.ndarray:
    """19 masks (19, H, W) from a mask file."""
    label_map = decode_mask(picture)
    return np.stack([label_map == label for label in range(len(LABELS))])


def loader_is_right(loader: Loader) -> bool:
    """A test for loaders: write a mask of every class, load it, and ask for the same masks back."""
    import io

    label_map = np.arange(len(LABELS), dtype=np.uint8).repeat(4).reshape(2, -1)
    file = io.BytesIO()
    save_mask(file, label_map)
    found: Any = loader(Image.open(file))
    return bool(np.array_equal(found, label_map == np.arange(len(LABELS))[:, None, None]))
