"""Label map -> 20 condition images -> VAE tokens (paper section 3.1).

Image 0 is the whole mask in palette colours; images 1..19 show one label each, white on black, background first. Most
labels are absent from most masks, so most of the 20 images are the same black one: every distinct image is encoded
once, by the mode of the VAE's latent distribution (the reference draws an unseeded sample).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mogle.labels import LABELS, PALETTE

#: Pixels that go through the VAE at once: on a CPU 16 tiny pictures, or one of 512 px; more at once is slower there.
CHUNK_PIXELS = {"cpu": 2**18}
CHUNK_PIXELS_ELSEWHERE = 2**20
#: Images that go through it at once where some of a mask's are known: always so many, as the bits of one depend on how
#: many are beside it (not on which).
TOGETHER = 4


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


def distinct_images(label_maps: Sequence[np.ndarray]) -> tuple[Tensor, Tensor, Tensor]:
    """Label maps, all (H, W) -> their distinct condition images as bytes, and where each of them goes.

    Returns:
        gray images int8 (G, 1, H, W) of -1 and 1, the black one first, then the local ones that are not empty; global
        images uint8 (M, 3, H, W); index int64 (B, 20) into both, one after the other.
    """
    locals_, globals_ = [torch.full((1, 1, *label_maps[0].shape), -1, dtype=torch.int8)], []
    keys = [label_map.tobytes() for label_map in label_maps]
    index: dict[bytes, Tensor] = {}
    count = 1
    for key, label_map in zip(keys, label_maps, strict=True):
        if key in index:
            continue
        present = np.bincount(label_map.ravel(), minlength=len(LABELS)).nonzero()[0]
        shown = (label_map == present.astype(np.uint8)[:, None, None]).view(np.int8)
        shown *= 2
        shown -= 1
        locals_.append(torch.from_numpy(shown)[:, None])
        globals_.append(torch.from_numpy(np.stack([colour[label_map] for colour in PALETTE.T])))
        index[key] = torch.zeros(1 + len(LABELS), dtype=torch.int64)
        index[key][1 + present] = torch.arange(count, count + len(present))
        count += len(present)
    for number, places in enumerate(index.values()):
        places[0] = count + number
    return torch.cat(locals_), torch.stack(globals_), torch.stack([index[key] for key in keys])


@torch.no_grad()
def encode_images(vae: Any, images: Tensor, device: Any = None, together: int | None = None) -> Tensor:
    """Pictures -> tokens (B, N, 64): mode of the latent, shifted and scaled as FLUX has it.

    Pictures are (B, 3, H, W), or gray (B, 1, H, W); uint8, or of another type in [-1, 1]. `together` go through the VAE
    at once, by default as many as are quick on the device.
    """
    config = vae.config
    device = torch.device(device or vae.device)
    tokens = []
    for part in images.split(together or _chunk(device, images)):
        part = part.to(device)
        if part.dtype == torch.uint8:
            part = part.float().div_(127.5).sub_(1)
        latents = vae.encode(part.to(vae.dtype).expand(-1, 3, -1, -1)).latent_dist.mode()
        tokens.append(pack_latents((latents - (config.shift_factor or 0)) * config.scaling_factor))
    return torch.cat(tokens)


def _chunk(device: torch.device, images: Tensor) -> int:
    """How many of these images go through the VAE at once."""
    return max(1, CHUNK_PIXELS.get(device.type, CHUNK_PIXELS_ELSEWHERE) // images[0, 0].numel())


def encode_distinct(
    vae: Any, label_maps: Sequence[np.ndarray], device: Any = None, known: KnownImages | None = None
) -> tuple[Tensor, Tensor]:
    """Label maps, all (H, W) -> their distinct condition tokens and where each of them goes.

    With `known`, what it has of earlier calls is taken from it: after a stroke of a brush three images or so are new.

    Returns:
        tokens (D, N, 64), the first of them the empty (black) image's; index int64 (B, 20). `tokens[index]` are the
        condition tokens; setting entries of `index[:, 1:]` to 0 drops local masks, as training does.
    """
    gray, coloured, index = distinct_images(label_maps)
    if known is None:
        tokens = torch.cat([encode_images(vae, images, device) for images in (gray, coloured)])
    else:
        tokens = known.encode(vae, [*gray, *coloured], torch.device(device or vae.device))
    return tokens, index.to(tokens.device)


class KnownImages:
    """The tokens of the images that were encoded last, the last used at the end.

    Args:
        room: bytes of tokens that are kept: those of eight masks of 512 px in float32, of a hundred tiny ones. What
            one mask needs is kept in any case.
    """

    def __init__(self, room: int = 2**25) -> None:
        self.room, self.tokens = room, dict[bytes, Tensor]()

    def encode(self, vae: Any, images: Sequence[Tensor], device: torch.device) -> Tensor:
        """`encode_images` of those that are not known yet, by this VAE as it is.

        On a CPU the tokens are the same bits whatever was known, and however many threads torch has: each has some of
        the images to itself, for otherwise they would wait for each other after every layer.
        """
        weights = [(id(p), p.dtype, 0 if p.is_inference() else p._version) for p in vae.parameters()]
        config = vae.config.shift_factor, vae.config.scaling_factor
        as_it_is = repr((weights, config, device, images[0].shape[1:])).encode()
        keys = [hashlib.sha256(as_it_is + image.numpy().tobytes()).digest() for image in images]
        if new := [place for place, key in enumerate(keys) if key not in self.tokens]:
            together = min(TOGETHER, _chunk(device, images[0][None]))
            filled = new + [0] * (-len(new) % together)  # with the black image
            parts = torch.stack([_as_numbers(images[place]) for place in filled]).split(together)
            fresh = torch.cat(_side_by_side(partial(encode_images, vae, device=device), parts, device))
            # each in memory of its own: together they would be kept until the last of them is forgotten
            self.tokens |= {keys[place]: one.clone() for place, one in zip(new, fresh[: len(new)], strict=True)}
        for key in keys:
            self.tokens[key] = self.tokens.pop(key)
        self._drop(len(keys))
        return torch.stack([self.tokens[key] for key in keys])

    def _drop(self, used: int) -> None:
        """Forgets the images that were used longest ago, but none of the last `used`, until the rest have room."""
        surplus = sum(tokens.nbytes for tokens in self.tokens.values()) - self.room
        for key in [*self.tokens][:-used]:
            if surplus <= 0:
                break
            surplus -= self.tokens.pop(key).nbytes


def _side_by_side(function: Callable[[Tensor], Tensor], parts: Sequence[Tensor], device: torch.device) -> list[Tensor]:
    """`function` of each part: on a CPU as many at once as torch has threads, each with one thread."""
    if device.type != "cpu":
        return [function(part) for part in parts]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(threads) as pool:
            return list(pool.map(function, parts))
    finally:
        torch.set_num_threads(threads)


def _as_numbers(image: Tensor) -> Tensor:
    """An image of `distinct_images`, coloured or gray bytes, as float32 (3, H, W) in [-1, 1]."""
    return image.float() / 127.5 - 1 if image.dtype == torch.uint8 else image.float().expand(3, -1, -1)
