"""Pretrains the tiny FLUX: rectified flow on portraits, a second token stream, then guidance distillation.

A frozen backbone can only be steered by a second stream of tokens if it knows how to read one. FLUX.1-dev does by its
size; a small model has to be taught. From `stream_from` on, two of three batches carry a second stream at the same
positions: tokens of the same picture, clean or noised, in its own or shuffled colours, in a few flat ones, in gray or
as edges, part of them set to zero. No mask and no label ever appears here: reading masks is what Face-MoGLE's adapter
learns later.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mogle.errors import MogleError
from mogle.training.encode import vae_layout
from mogle.training.flow import sample_times
from mogle.training.loop import (
    Halfway,
    Processes,
    Progress,
    averaged,
    cosine_schedule,
    eager_or_compiled,
    mixed_precision,
)

if TYPE_CHECKING:
    import torch
    from diffusers import AutoencoderKL, FluxTransformer2DModel
    from transformers import CLIPTextModel, T5EncoderModel


@dataclass
class Corpus:
    """Encoded portraits on the training device: N pictures, K captions each, S tokens a picture.

    tokens (N, S, 64): what is to be generated; views: other token sets (N, S, 64) of the same pictures for the second
    stream; clip_ids (N, K, L1) and t5_ids (N, K, L2): captions; empty_clip (L1,) and empty_t5 (L2,): the empty caption;
    image_ids (S, 3): FLUX's positions.
    """

    tokens: torch.Tensor
    views: list[torch.Tensor]
    clip_ids: torch.Tensor
    t5_ids: torch.Tensor
    empty_clip: torch.Tensor
    empty_t5: torch.Tensor
    image_ids: torch.Tensor


def encode_images(vae: AutoencoderKL, images: torch.Tensor) -> torch.Tensor:
    """(N, H, W, 3) uint8 -> (N, H/16 * W/16, 64) packed, scaled latents (the mode), bfloat16."""
    import torch
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


def shuffled_colours(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Each picture (N, H, W, 3) uint8 in colours of its own: colour space is turned at random, contrast too."""
    import torch

    count, device = len(images), images.device
    turns = torch.randn(count, 3, 3, generator=generator, device=device).cpu()  # a GPU is slow at many small QRs
    rotation = torch.linalg.qr(turns)[0].to(device)
    gain = 0.5 + torch.rand(count, 1, 1, generator=generator, device=device)
    out = []
    for chunk, turn in zip(images.split(2048), (rotation * gain).split(2048), strict=True):
        x = chunk.flatten(1, 2).float() / 127.5 - 1
        x = x - x.mean(dim=1, keepdim=True)
        out.append(((x @ turn).clamp(-1, 1) * 127.5 + 127.5).to(torch.uint8).view(chunk.shape))
    return torch.cat(out)


def gray_pictures(images: torch.Tensor) -> torch.Tensor:
    """Each picture (N, H, W, 3) uint8 in gray: of all views the one that keeps most of the picture."""
    import torch

    out = [chunk.float().mean(dim=-1, keepdim=True).to(torch.uint8).expand(*chunk.shape) for chunk in images.split(256)]
    return torch.cat(out)


def posterized_pictures(images: torch.Tensor, generator: torch.Generator, colours: int = 8) -> torch.Tensor:
    """Each picture (N, H, W, 3) uint8 reduced to a few flat colours, drawn anew: shapes without texture or true colour.

    The regions are those of `colours` pixels of the picture itself, picked at random: a pixel goes to the nearest one.
    """
    import torch

    out = []
    for chunk in images.split(256):
        count, device = len(chunk), chunk.device
        x = chunk.permute(0, 3, 1, 2).float()
        x = torch.nn.functional.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False).flatten(2)
        where = torch.randint(x.shape[-1], (count, 1, colours), generator=generator, device=device)
        centres = x.gather(2, where.expand(-1, 3, -1))
        nearest = torch.cdist(x.mT, centres.mT).argmin(dim=-1)
        paint = torch.randint(256, (count, colours, 3), generator=generator, device=device)
        out.append(paint.gather(1, nearest[..., None].expand(-1, -1, 3)).to(torch.uint8).view(chunk.shape))
    return torch.cat(out)


def _second_stream(
    corpus: Corpus, rows: torch.Tensor, easy: float, mixed: float, generator: torch.Generator
) -> torch.Tensor:
    """(B, S, 64): for each sample a random view, at times mixed with the picture's own tokens, noised, or with gaps.

    The mixtures are the bridge: a network that has learned to copy the picture itself ignored every other view, until
    there were pictures half one and half the other. `mixed` is their share of the samples; with probability `easy` a
    sample is the picture itself.
    """
    import torch

    device, count, tokens = rows.device, len(rows), corpus.tokens.shape[1]

    def uniform(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=generator, device=device)

    views = torch.stack([view[rows] for view in corpus.views])
    which = torch.randint(len(views), (count,), generator=generator, device=device)
    own, stream = corpus.tokens[rows].float(), views[which, torch.arange(count, device=device)].float()
    stream = torch.lerp(stream, own, torch.where(uniform(count) < mixed, uniform(count), 0.0)[:, None, None])
    level = torch.where(uniform(count) < 0.75, 0.0, 0.8 * uniform(count))[:, None, None]
    stream = torch.lerp(stream, torch.randn(stream.shape, generator=generator, device=device), level)
    keep = torch.where(uniform(count) < 0.75, 1.0, uniform(count))[:, None]
    stream = stream * (uniform(count, tokens) < keep)[..., None]
    return torch.where((uniform(count) < easy)[:, None, None], own, stream)


def _captions(
    corpus: Corpus, rows: torch.Tensor, drop: float, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """A random caption for each row, empty with probability `drop`: ids for CLIP (B, L1) and for T5 (B, L2)."""
    import torch

    device = rows.device
    which = torch.randint(corpus.clip_ids.shape[1], (len(rows),), generator=generator, device=device)
    empty = (torch.rand(len(rows), generator=generator, device=device) < drop)[:, None]
    clip_ids = torch.where(empty, corpus.empty_clip, corpus.clip_ids[rows, which].long())
    t5_ids = torch.where(empty, corpus.empty_t5, corpus.t5_ids[rows, which].long())
    return clip_ids, t5_ids


def noised(
    tokens: torch.Tensor, batch: int, generator: torch.Generator, high_noise: float = 0.0
) -> tuple[torch.Tensor, ...]:
    """A random batch on its way to noise: rows (B,), z0, eps (B, S, 64), t (B,), z_t = (1-t) z0 + t eps."""
    import torch

    device = tokens.device
    rows = torch.randint(len(tokens), (batch,), generator=generator, device=device)
    target = tokens[rows].float()
    noise = torch.randn(target.shape, generator=generator, device=device)
    t = sample_times(batch, generator, device, high_noise)
    return rows, target, noise, t, torch.lerp(target, noise, t[:, None, None])


def _velocity_module(transformer: Any, clip: Any, t5: Any, corpus: Corpus, compile_model: bool) -> torch.nn.Module:
    """Transformer and text encoders as one module, caption ids to velocity: what several processes share."""
    import torch

    from mogle.transformer import forward_streams

    flow = eager_or_compiled(forward_streams, compile_model)
    text_ids = torch.zeros(corpus.t5_ids.shape[-1], 3, device=corpus.tokens.device)

    class Velocity(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.transformer, self.clip, self.t5 = transformer, clip, t5

        def forward(self, noisy, stream, clip_ids, t5_ids, t, guidance):  # type: ignore[no-untyped-def]
            states, pooled = self.t5(t5_ids)[0], self.clip(clip_ids).pooler_output
            return flow(self.transformer, noisy, stream, states, pooled, t, guidance, corpus.image_ids, text_ids)

    return Velocity()


def pretrain_base(
    transformer: FluxTransformer2DModel,
    clip: CLIPTextModel,
    t5: T5EncoderModel,
    corpus: Corpus,
    *,
    steps: int,
    batch: int,
    learning_rate: float,
    stream_from: float,
    easy_stream: float,
    drop_text: float,
    high_noise: float,
    seed: int,
    compile_model: bool = False,
    checkpoint: Path | None = None,
) -> dict[str, Any]:
    """Fits transformer and text encoders together, in place, to the velocity eps - z0 at z_t = (1-t) z0 + t eps.

    Attention finds the second stream sooner if reading it pays: up to `easy_stream` of the way it is the picture
    itself, which fades into the views over the tenth before; mixtures of both grow rarer to the end. A model that reads
    views already needs neither: `easy_stream=0`. The guidance input is drawn from [1, 5] and means nothing yet:
    `distill_guidance` gives it its meaning. Weights end as their moving average. With a `checkpoint` an interrupted run
    goes on from there.
    """
    import torch

    from mogle.tiny.muon import Muon

    device = corpus.tokens.device
    models = _velocity_module(transformer, clip, t5, corpus, compile_model).to(device).train().requires_grad_(True)
    processes = Processes(device)
    velocity_of = processes.share(models)
    optimizer = Muon(models.parameters(), lr=learning_rate, weight_decay=0.01)
    schedule = cosine_schedule(optimizer, steps, warmup=min(500, steps // 10))
    average = averaged(models, 0.9995 if steps > 4000 else 0.995)
    generator = torch.Generator(device)
    progress = Progress("base", steps)
    halfway = Halfway(checkpoint, models=models, average=average, optimizer=optimizer, schedule=schedule)
    mine = processes.part_of(batch)
    for step in range(halfway.load(device), steps):
        generator.manual_seed(processes.seed(seed, step))
        rows, target, noise, t, noisy = noised(corpus.tokens, mine, generator, high_noise)
        guidance = 1 + 4 * torch.rand(mine, generator=generator, device=device)
        with_stream = step >= stream_from * steps and step % 3 > 0
        easy = min(1.0, max(0.0, 10 * (easy_stream - step / steps)))
        mixed = 1 - step / steps if easy_stream else 0.0
        stream = _second_stream(corpus, rows, easy, mixed, generator) if with_stream else None
        clip_ids, t5_ids = _captions(corpus, rows, drop_text, generator)
        with mixed_precision(device):
            velocity = velocity_of(noisy, stream, clip_ids, t5_ids, t, guidance)
        loss = torch.nn.functional.mse_loss(velocity.float(), noise - target)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(models.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        average.update_parameters(models)
        progress(step, **{"stream" if with_stream else "alone": loss})
        halfway.save(step + 1)
    models.load_state_dict(average.module.state_dict())
    models.eval().requires_grad_(False)
    return progress.last


def smooth_guidance(transformer: FluxTransformer2DModel) -> None:
    """Makes the guidance input a slow function of g, without effect so far; call it once, before distillation.

    Its 256 features are sines of 1000 g. Over [1, 5] most of them turn many times, and a network that met g at random
    has learned to ignore them all. The first layer keeps the waves longer than the range and stays as it is now; the
    second starts at zero, with the mean of its old output as its bias.
    """
    import torch

    embed = transformer.time_text_embed
    layer, last = embed.guidance_embedder.linear_1, embed.guidance_embedder.linear_2
    with torch.no_grad():
        g = torch.linspace(1, 5, 65, device=layer.weight.device)
        mean = embed.guidance_embedder(embed.time_proj(1000 * g)).mean(dim=0)
        half = layer.in_features // 2
        turns = 4000 * torch.exp(-math.log(10_000) * torch.arange(half, device=g.device) / half)  # radians over [1, 5]
        slow = (turns < 2 * math.pi).repeat(2)
        weight = torch.randn(layer.weight.shape, generator=torch.Generator().manual_seed(0)).to(g.device)
        layer.weight.copy_(weight * slow * 1.5 / slow.sum() ** 0.5)
        layer.bias.zero_()
        last.weight.zero_()
        last.bias.copy_(mean)


def distill_guidance(
    transformer: FluxTransformer2DModel,
    clip: CLIPTextModel,
    t5: T5EncoderModel,
    corpus: Corpus,
    *,
    steps: int,
    batch: int,
    learning_rate: float,
    slope: float,
    weight: float,
    drop_text: float,
    high_noise: float,
    seed: int,
    compile_model: bool = False,
    checkpoint: Path | None = None,
) -> dict[str, Any]:
    """Teaches the guidance input g in [1, 5] to do in one pass what classifier-free guidance does in two, in place.

    One half of a batch has g = 1 and goes on with pretraining, so that the plain model gains meanwhile. For the other
    half the target (Meng et al. 2023, as FLUX.1-dev is said to be made) is v(empty) + w (v(caption) - v(empty)), with
    w = 1 + slope (g - 1) and v by the model as it was at first. (Taught by its own moving average it blew up: what it
    learned for g > 1 showed at g = 1, was amplified, and learned again.) That target has no noise, so its error is
    small and counts `weight` times. The text encoders stay as they are. Weights end as their moving average; with a
    `checkpoint` an interrupted run goes on from there.
    """
    import torch

    from mogle.tiny.muon import Muon
    from mogle.transformer import forward_streams

    device = corpus.tokens.device
    smooth_guidance(transformer)
    teacher = copy.deepcopy(transformer).eval().requires_grad_(False)
    transformer.requires_grad_(True).train()
    transformer.time_text_embed.guidance_embedder.linear_1.requires_grad_(False)
    average = averaged(transformer, 0.995)
    processes = Processes(device)
    flow = eager_or_compiled(forward_streams, compile_model)
    text_ids = torch.zeros(corpus.t5_ids.shape[-1], 3, device=device)

    class Student(torch.nn.Module):
        """What several processes share."""

        def __init__(self) -> None:
            super().__init__()
            self.transformer = transformer

        def forward(self, noisy, stream, states, pooled, t, guidance):  # type: ignore[no-untyped-def]
            return flow(self.transformer, noisy, stream, states, pooled, t, guidance, corpus.image_ids, text_ids)

    velocity_of = processes.share(Student())
    optimizer = Muon([p for p in transformer.parameters() if p.requires_grad], lr=learning_rate)
    schedule = cosine_schedule(optimizer, steps, warmup=min(100, steps // 10))
    generator = torch.Generator(device)
    progress = Progress("distill", steps)
    halfway = Halfway(checkpoint, models=transformer, average=average, optimizer=optimizer, schedule=schedule)
    mine = processes.part_of(batch)
    if mine % 2:
        raise MogleError(f"batch {batch}: expected an even number of samples for each of {processes.count} processes")
    plain, ones = mine // 2, torch.ones(mine // 2, device=device)
    with torch.no_grad():
        nothing = t5(corpus.empty_t5[None])[0], clip(corpus.empty_clip[None]).pooler_output
    for step in range(halfway.load(device), steps):
        generator.manual_seed(processes.seed(seed, step))
        rows, start, noise, t, noisy = noised(corpus.tokens, mine, generator, high_noise)
        stream = _second_stream(corpus, rows, 0.0, 0.0, generator) if step % 3 else None
        guidance = 1 + 4 * torch.rand(mine - plain, generator=generator, device=device)
        strength = (1 + slope * (guidance - 1))[:, None, None]
        clip_ids, t5_ids = _captions(corpus, rows, drop_text, generator)
        with mixed_precision(device):
            with torch.no_grad():
                states, pooled = t5(t5_ids)[0], clip(clip_ids).pooler_output
                empty = [part.expand(plain, *part.shape[1:]).to(states.dtype) for part in nothing]
                seen = noisy[plain:], None if stream is None else stream[plain:]
                when = t[plain:], ones, corpus.image_ids, text_ids
                told = flow(teacher, *seen, states[plain:], pooled[plain:], *when).float()
                untold = flow(teacher, *seen, *empty, *when).float()
            velocity = velocity_of(noisy, stream, states, pooled, t, torch.cat([ones, guidance])).float()
        flow_loss = torch.nn.functional.mse_loss(velocity[:plain], (noise - start)[:plain])
        error = torch.nn.functional.mse_loss(velocity[plain:], untold + strength * (told - untold))
        optimizer.zero_grad(set_to_none=True)
        (flow_loss + weight * error).backward()
        torch.nn.utils.clip_grad_norm_(transformer.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        average.update_parameters(transformer)
        progress(step, error=error, **{"stream" if stream is not None else "alone": flow_loss})
        halfway.save(step + 1)
    transformer.load_state_dict(average.module.state_dict())
    transformer.eval().requires_grad_(False)
    return progress.last
