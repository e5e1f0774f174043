"""Label map -> 20 condition images -> VAE tokens (paper section 3.1).

Image 0 is the whole mask in palette colours; images 1..19 show one label each, white on black, background first. Most
labels are absent from most masks, so most of the 20 images are the same black one: every distinct image is encoded
once, by the mode of the VAE's latent distribution (the reference draws an unseeded sample).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mogle.labels import LABELS, PALETTE

#: Pixels that go through the VAE at once: on a CPU 16 tiny pictures, or one of 512 px; more at once is slower there.
CHUNK_PIXELS = {"cpu": 2**18}
CHUNK_PIXELS_ELSEWHERE = 2**20


def condition_images(label_map: np.ndarray) -> Tensor:
    """uint8 (H, W) of values 0..18 -> float32 (20, 3, H, W) in [-1, 1]."""
    colours = torch.from_numpy(PALETTE[label_map]).permute(2, 0, 1)[None].float() / 127.5 - 1
    local = torch.from_numpy(label_map[None] == np.arange(len(LABELS), dtype=np.uint8)[:, None, None]).float() * 2 - 1
    return torch.cat([colours, local[:, None].expand(-1, 3, -1, -1)])


def pack_latents(latents: Tensor) -> Tensor:
    """Latents (B, C, H, W) -> tokens (B, H/2 * W/2, 4 C) of 2 x 2 pixels, row by row, as FLUX packs them."""
    batch, channels, height, width = latents.shape
    tokens = latents.view(batch, channels, height // 2, 2, width // 2, 2).permute(0, 2, 4, 1, 3, 5)
    return tokens.reshape(batch, height * width // 4, channels * 4)


@torch.no_grad()
def encode_images(vae: Any, images: Tensor, device: Any = None) -> Tensor:
    """Pictures (B, 3, H, W) in [-1, 1] -> tokens (B, N, 64): mode of the latent, shifted and scaled as FLUX has it."""
    config = vae.config
    device = torch.device(device or vae.device)
    chunk = max(1, CHUNK_PIXELS.get(device.type, CHUNK_PIXELS_ELSEWHERE) // images[0, 0].numel())
    tokens = []
    for part in images.split(chunk):
        latents = vae.encode(part.to(device=device, dtype=vae.dtype)).latent_dist.mode()
        tokens.append(pack_latents((latents - (config.shift_factor or 0)) * config.scaling_factor))
    return torch.cat(tokens)


@torch.no_grad()
def encode_distinct(vae: Any, label_maps: Sequence[np.ndarray], device: Any = None) -> tuple[Tensor, Tensor]:
    """Label maps, all (H, W) -> their distinct condition tokens and where each of them goes.

    Returns:
        tokens (D, N, 64), the first of them the empty (black) image's; index int64 (B, 20). `tokens[index]` are the
        condition tokens; setting entries of `index[:, 1:]` to 0 drops local masks, as training does.
    """
    shape = label_maps[0].shape
    images, index, known = [-torch.ones(1, 3, *shape)], [], {}
    count = 1
    for label_map in label_maps:
        key = label_map.tobytes()
        if key not in known:
            present = [0, *(1 + label for label in np.unique(label_map).tolist())]
            images.append(condition_images(label_map)[present])
            known[key] = torch.zeros(1 + len(LABELS), dtype=torch.int64)
            known[key][present] = torch.arange(count, count + len(present))
            count += len(present)
        index.append(known[key])
    tokens = encode_images(vae, torch.cat(images), device)
    return tokens, torch.stack(index).to(tokens.device)
