"""Painted portraits as the base trains on them: latents, views for the second stream, weights of tokens, captions.

One draw (`Corpus.draw`) is a whole batch with everything random in it, from one generator that is seeded anew for every
step: a run that goes on needs no state of a generator.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from mogle.labels import LABELS
from mogle.tiny.loop import mixed_precision
from mogle.training.encode import vae_layout
from mogle.training.flow import sample_times

if TYPE_CHECKING:
    from diffusers import AutoencoderKL

#: How much the parts of a face count for those who look at it, in the loss of the base (area of a token) and of the VAE
#: (pixels). Their share of the picture is small: both eyes are 1 % of it.
PARTS_IN_TOKENS = {
    "nose": 0.3, "eye_g": 1.0, "l_eye": 2.0, "r_eye": 2.0, "l_brow": 1.0, "r_brow": 1.0, "l_ear": 0.5, "r_ear": 0.5,
    "mouth": 1.0, "u_lip": 1.0, "l_lip": 1.0, "ear_r": 1.0, "neck_l": 1.0,
}  # fmt: skip
HELDOUT = 256  # portraits at the end of a corpus that are never trained on


class Draw(NamedTuple):
    """One batch on its way to noise. B samples of S tokens."""

    noisy: Tensor  # (B, S, 64) z_t = (1-t) z0 + t eps
    stream: Tensor | None  # (B, S, 64) the second stream
    clip_ids: Tensor  # (B, L1)
    t5_ids: Tensor  # (B, L2)
    t: Tensor  # (B,)
    target: Tensor  # (B, S, 64) eps - z0
    weight: Tensor  # (B, S), mean 1 over the corpus


@dataclass(frozen=True)
class Corpus:
    """Encoded portraits on the training device: N pictures, K captions each, S tokens a picture.

    tokens (N, S, 64): what is to be generated; views: other token sets (N, S, 64) of the same pictures for the second
    stream; weight (N, S): what a token counts in the loss; clip_ids (N, K, L1) and t5_ids (N, K, L2): captions, the
    last names everything; empty_clip (L1,) and empty_t5 (L2,): the empty caption; image_ids (S, 3): FLUX's positions.
    """

    tokens: Tensor
    views: dict[str, Tensor]
    weight: Tensor
    clip_ids: Tensor
    t5_ids: Tensor
    empty_clip: Tensor
    empty_t5: Tensor
    image_ids: Tensor

    @property
    def text_ids(self) -> Tensor:
        """FLUX's positions of the text: none."""
        return torch.zeros(self.t5_ids.shape[-1], 3, device=self.tokens.device)

    def split(self, heldout: int = HELDOUT) -> tuple[Corpus, Corpus]:
        """All but the last portraits, and the last."""
        return self.rows(slice(None, -heldout)), self.rows(slice(-heldout, None))

    def rows(self, rows: slice) -> Corpus:
        """Some of the portraits."""
        whole = {f.name: getattr(self, f.name) for f in fields(self)}
        some = {name: whole[name][rows] for name in ("tokens", "weight", "clip_ids", "t5_ids")}
        return replace(self, **some, views={name: view[rows] for name, view in self.views.items()})

    def draw(
        self, batch: int, generator: torch.Generator, *, stream: bool, drop_text: float, high_noise: float,
        drawings: float, easy: float = 0.0, mixed: float = 0.2,
    ) -> Draw:  # fmt: skip
        """A random batch; captions are empty with probability `drop_text`; see `sample_times` and `_stream`."""
        device = self.tokens.device
        rows = torch.randint(len(self.tokens), (batch,), generator=generator, device=device)
        z0 = self.tokens[rows].float()
        noise = torch.randn(z0.shape, generator=generator, device=device)
        t = sample_times(batch, generator, device, high_noise)
        second = self._stream(rows, drawings, easy, mixed, generator) if stream else None
        clip_ids, t5_ids = self._captions(rows, drop_text, generator)
        return Draw(
            torch.lerp(z0, noise, t[:, None, None]), second, clip_ids, t5_ids, t, noise - z0, self.weight[rows].float()
        )

    def _captions(self, rows: Tensor, drop: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        device = rows.device
        which = torch.randint(self.clip_ids.shape[1], (len(rows),), generator=generator, device=device)
        empty = (torch.rand(len(rows), generator=generator, device=device) < drop)[:, None]
        clip_ids = torch.where(empty, self.empty_clip, self.clip_ids[rows, which].long())
        return clip_ids, torch.where(empty, self.empty_t5, self.t5_ids[rows, which].long())

    def _stream(self, rows: Tensor, drawings: float, easy: float, mixed: float, generator: torch.Generator) -> Tensor:
        """(B, S, 64): a random view of each sample, at times mixed with the picture's own tokens, noised, or with gaps.

        A share of `drawings` of the samples see a flat drawing, the others the other views, each as often.

        The mixtures are the bridge: a network that has learned to copy the picture itself ignored every other view,
        until there were pictures half one and half the other. `mixed` is their share of the samples; with probability
        `easy` a sample is the picture itself.
        """
        device, count, tokens = rows.device, len(rows), self.tokens.shape[1]

        def uniform(*shape: int) -> Tensor:
            return torch.rand(*shape, generator=generator, device=device)

        views = torch.stack([view[rows] for view in self.views.values()])
        drawn = torch.tensor([name.startswith("drawing") for name in self.views], device=device)
        shares = torch.where(drawn, drawings / drawn.sum(), (1 - drawings) / (~drawn).sum())
        which = shares.multinomial(count, replacement=True, generator=generator)
        own, stream = self.tokens[rows].float(), views[which, torch.arange(count, device=device)].float()
        stream = torch.lerp(stream, own, torch.where(uniform(count) < mixed, uniform(count), 0.0)[:, None, None])
        level = torch.where(uniform(count) < 0.75, 0.0, 0.8 * uniform(count))[:, None, None]
        stream = torch.lerp(stream, torch.randn(stream.shape, generator=generator, device=device), level)
        keep = torch.where(uniform(count) < 0.75, 1.0, uniform(count))[:, None]
        stream = stream * (uniform(count, tokens) < keep)[..., None]
        return torch.where((uniform(count) < easy)[:, None, None], own, stream)


def token_weights(masks: Tensor, patch: int = 16) -> Tensor:
    """(N, H, W) labels -> (N, S): from 1 for a patch without small parts up to 4, divided by the mean of all."""
    value = torch.zeros(len(LABELS), device=masks.device)
    for name, part in PARTS_IN_TOKENS.items():
        value[LABELS.index(name)] = part
    shares = [F.avg_pool2d(value[chunk.long()][:, None], patch).flatten(1) for chunk in masks.split(1024)]
    weight = 1 + 3 * (1 - torch.exp(-torch.cat(shares) / 0.08))
    return weight / weight.mean()


def encode_images(vae: AutoencoderKL, images: Tensor) -> Tensor:
    """(N, H, W, 3) uint8 -> (N, H/16 * W/16, 64) packed, scaled latents (the mode), bfloat16."""
    from diffusers import FluxPipeline

    shift, scale = vae.config.shift_factor, vae.config.scaling_factor
    layout = vae_layout(images.device)
    vae.encoder.to(memory_format=layout)
    out = []
    with torch.no_grad(), mixed_precision(images.device):
        for chunk in images.split(256 if images.device.type == "cuda" else 16):
            x = (chunk.permute(0, 3, 1, 2).float() / 127.5 - 1).contiguous(memory_format=layout)
            latent = (vae.encode(x).latent_dist.mode().float() - shift) * scale
            out.append(FluxPipeline._pack_latents(latent.contiguous(), *latent.shape).to(torch.bfloat16))
    return torch.cat(out)
