"""Guidance distillation: the guidance input of the base does in one pass what classifier-free guidance does in two."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from mogle.errors import MogleError
from mogle.tiny.base import FlowLoss
from mogle.tiny.corpus import Corpus
from mogle.tiny.loop import Halfway, Processes, Progress, Speed, averaged, cosine_schedule
from mogle.tiny.muon import Muon

if TYPE_CHECKING:
    from diffusers import FluxTransformer2DModel
    from transformers import CLIPTextModel, T5EncoderModel


def smooth_guidance(transformer: FluxTransformer2DModel) -> None:
    """Makes the guidance input a slow function of g, without effect so far; call it once, before distillation.

    Its 256 features are sines of 1000 g. Over [1, 5] most of them turn many times, and a network that met g at random
    has learned to ignore them all. The first layer keeps the waves longer than the range and stays as it is now; the
    second starts at zero, with the mean of its old output as its bias.
    """
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
    stream: float,
    drop_text: float,
    high_noise: float,
    drawings: float,
    seed: int,
    speed: Speed,
    checkpoint: Path | None = None,
) -> dict[str, Any]:
    """Teaches the guidance input g in [1, 5] what classifier-free guidance does, in place.

    One half of a batch has g = 1 and goes on with pretraining, so that the plain model gains meanwhile. For the other
    half the target (Meng et al. 2023, as FLUX.1-dev is said to be made) is v(empty) + w (v(caption) - v(empty)), with
    w = 1 + slope (g - 1) and v by the model as it was at first. (Taught by its own moving average it blew up: what it
    learned for g > 1 showed at g = 1, was amplified, and learned again.) That target has no noise, so its error is
    small and counts `weight` times. The text encoders stay as they are. Weights end as their moving average; with a
    `checkpoint` an interrupted run goes on from there.
    """
    device = corpus.tokens.device
    for model in (transformer, clip, t5):
        model.to(device).requires_grad_(False)
    smooth_guidance(transformer)
    teacher = FlowLoss(copy.deepcopy(transformer), corpus, speed, (clip.eval(), t5.eval()), False).eval()
    student = FlowLoss(transformer, corpus, speed, (clip, t5), False).train()
    transformer.requires_grad_(True)
    transformer.time_text_embed.guidance_embedder.linear_1.requires_grad_(False)
    average = averaged(transformer, 0.995)
    processes = Processes(device)
    shared = processes.share(_Velocity(student))
    parameters = [p for p in transformer.parameters() if p.requires_grad]
    optimizer = Muon(parameters, lr=learning_rate, dtype=speed.dtype)
    schedule = cosine_schedule(optimizer, steps, warmup=min(100, steps // 10))
    progress = Progress("distill", steps)
    halfway = Halfway(checkpoint, models=transformer, average=average, optimizer=optimizer, schedule=schedule)
    generator, mine = torch.Generator(device), processes.part_of(batch)
    if mine % 2:
        raise MogleError(f"batch {batch}: expected an even number of samples for each of {processes.count} processes")
    half, ones = slice(mine // 2, None), torch.ones(mine // 2, device=device)
    nothing = teacher.encode(corpus.empty_clip[None], corpus.empty_t5[None])
    for step in range(halfway.load(device), steps):
        generator.manual_seed(processes.seed(seed, step))
        with_stream = bool(torch.rand((), generator=torch.Generator().manual_seed(seed * 7919 + step)) < stream)
        draw = corpus.draw(
            mine, generator, stream=with_stream, drop_text=drop_text, high_noise=high_noise, drawings=drawings
        )
        guidance = 1 + 4 * torch.rand(len(ones), generator=generator, device=device)
        strength = (1 + slope * (guidance - 1))[:, None, None]
        states, pooled = student.encode(draw.clip_ids, draw.t5_ids)
        with torch.no_grad():
            seen = draw.noisy[half], None if draw.stream is None else draw.stream[half]
            told = teacher.velocity(*seen, states[half], pooled[half], draw.t[half], ones)
            empty_states, empty_pooled = (part.expand(len(ones), *part.shape[1:]) for part in nothing)
            untold = teacher.velocity(*seen, empty_states, empty_pooled, draw.t[half], ones)
        velocity = shared(draw.noisy, draw.stream, states, pooled, draw.t, torch.cat([ones, guidance]))
        plain = (velocity[: len(ones)] - draw.target[: len(ones)]).square().mean(dim=-1)
        flow = (plain * draw.weight[: len(ones)]).mean()
        error = nn.functional.mse_loss(velocity[half], untold + strength * (told - untold))
        (flow + weight * error).backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        schedule.step()
        average.update_parameters(transformer)
        progress(step, error=error, **{"stream" if with_stream else "alone": plain.mean()})
        halfway.save(step + 1)
    transformer.load_state_dict(average.module.state_dict())
    transformer.eval().requires_grad_(False)
    return progress.last


class _Velocity(nn.Module):
    """The student's velocity as a module's forward: what several processes share."""

    def __init__(self, student: FlowLoss) -> None:
        super().__init__()
        self.student = student

    def forward(self, *inputs: Any) -> torch.Tensor:
        return self.student.velocity(*inputs)
