"""What the notebooks look at and the pipeline does not need: tokens back to latents, classes by token, loaders.

Most functions here are solutions of exercises; `reveal` prints their source. The first two make the tokens of notebook
02 for the notebooks after it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mogle.conditions import encode_distinct, encode_images
from mogle.labels import LABELS, decode_mask


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
    label_map = decode_mask(picture, looked_at=True)  # any label map, a face or not
    return np.stack([label_map == label for label in range(len(LABELS))])
