"""Rectified flow: what the loss takes, its times, the loss itself, and what minimises it.

Mask guidance, v = v(text) + w (v(text, mask) - v(text)), is to masks what classifier-free guidance is to words.
FLUX.1-dev has the latter in one forward, by distillation; `Teacher` is the same for the mask, and this project's: the
paper has neither.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mogle.experts import MoGLE
from mogle.lora import NAME, lora_layers
from mogle.pipeline import FaceMoGLEPipeline
from mogle.training.settings import TrainSettings
from mogle.transformer import Condition, forward_streams

DTYPE = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def sample_times(count: int, generator: torch.Generator, device: torch.device | str, high_noise: float = 0.0) -> Tensor:
    """(count,) times t = sigmoid(n), n ~ N(0, 1): the logit-normal density of rectified flow training.

    A share `high_noise` has n ~ N(2, 1.5^2) instead. Sentence and mask say what noise still hides: colours and places,
    which at 64 tokens already show through at t = 0.85. Of the plain density only 4 % lies beyond that.
    """
    n = torch.randn(count, generator=generator, device=device)
    if high_noise:
        high = torch.rand(count, generator=generator, device=device) < high_noise
        n = torch.where(high, 2 + 1.5 * n, n)
    return torch.sigmoid(n)


class Example(NamedTuple):
    """What training takes at one place of a run. A loader stacks B of them: then every shape begins with B."""

    id: str
    image: Tensor  # (N, 64), scaled latents
    noise: Tensor  # (N, 64)
    t: Tensor  # ()
    conditions: Tensor  # (20, N, 64)
    states: Tensor  # (L, D2)
    pooled: Tensor  # (D1,)
    outline: Tensor = torch.empty(0)  # (N, 64), what a warm start learns to draw; the loss has no use for it


class Teacher:
    """The adapter as it is now, frozen; it is asked for guided velocities while another one is trained in its place."""

    def __init__(self, transformer: Any, mogle: MoGLE, weight: float) -> None:
        self.weight, self.mogle = weight, copy.deepcopy(mogle).eval().requires_grad_(False)
        layers = lora_layers(transformer).values()
        self._lora = [half[NAME].weight for layer in layers for half in (layer.lora_A, layer.lora_B)]
        self._own = [parameter.detach().clone() for parameter in self._lora]

    @contextmanager
    def _in_place(self) -> Iterator[None]:
        """The teacher's LoRA in the place of the student's, for a while."""
        with ExitStack() as afterwards:
            for parameter, own in zip(self._lora, self._own, strict=True):
                afterwards.callback(setattr, parameter, "data", parameter.data)
                parameter.data = own.to(parameter.device)
            yield

    @torch.no_grad()
    def velocity(
        self, forward: Callable[[Condition], Tensor], condition: Condition, batch: Example, noisy: Tensor
    ) -> Tensor:
        """The guided velocity (B, N, 64).

        Args:
            forward: from a condition to the velocity, on the batch at hand.
            condition: the student's, for its options.
            batch, noisy: stacked examples and their noisy latents (B, N, 64).
        """
        fused = self.mogle.to(noisy.device)(batch.conditions.float(), noisy, batch.t)
        with self._in_place():
            return forward(replace(condition, tokens=fused, mask_guidance=self.weight))


class VelocityLoss(nn.Module):
    """Rectified flow: mean squared error of the predicted velocity against eps - z0, at z_t = (1-t) z0 + t eps.

    With `distil_mask_guidance` the target is the guided velocity of the adapter as it was when the loss was made.
    """

    def __init__(self, transformer: Any, mogle: MoGLE, settings: TrainSettings) -> None:
        super().__init__()
        self.transformer, self.mogle, self.settings = transformer, mogle, settings
        weight = settings.distil_mask_guidance
        self.teacher = None if weight is None else Teacher(transformer, mogle, weight)

    def forward(self, batch: Example) -> Tensor:
        """Examples of square pictures, stacked by a loader, on this module's device -> their losses, float32 (B,)."""
        config, dtype = self.transformer.config, self.transformer.dtype
        t = batch.t[:, None, None]
        noisy = (1 - t) * batch.image.float() + t * batch.noise
        side = math.isqrt(noisy.shape[1])
        image_ids = FaceMoGLEPipeline._prepare_latent_image_ids(1, side, side, t.device, torch.float32)
        guidance = torch.full_like(batch.t, self.settings.guidance) if config.guidance_embeds else None
        fused = self.mogle(batch.conditions.float(), noisy, batch.t)
        condition = Condition(fused, attention=self.settings.attention, lora_on=self.settings.lora_on)

        def velocity(condition: Condition) -> Tensor:
            return forward_streams(
                self.transformer, noisy.to(dtype), condition, batch.states.to(dtype), batch.pooled.to(dtype),
                batch.t, guidance, image_ids, image_ids.new_zeros(batch.states.shape[1], 3),
            ).float()  # fmt: skip

        target = batch.noise - batch.image.float()
        if self.teacher is not None:
            target = self.teacher.velocity(velocity, condition, batch, noisy)
        return (velocity(condition) - target).square().mean(dim=(1, 2))


def make_optimizer(parameters: list[nn.Parameter], settings: TrainSettings) -> torch.optim.Optimizer:
    """Prodigy as the reference sets it, AdamW, or AdamW with 8-bit states."""
    options: dict[str, Any] = {"lr": settings.learning_rate, "weight_decay": settings.weight_decay}
    if settings.optimizer == "prodigy":
        from prodigyopt import Prodigy

        return Prodigy(parameters, use_bias_correction=True, safeguard_warmup=True, **options)
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(parameters, betas=(0.9, 0.99), **options)
    from bitsandbytes.optim import AdamW8bit

    return AdamW8bit(parameters, betas=(0.9, 0.99), **options)


def make_schedule(optimizer: torch.optim.Optimizer, settings: TrainSettings) -> torch.optim.lr_scheduler.LambdaLR:
    """Of the learning rate: linear warm-up from zero, then constant or a cosine to zero."""
    from diffusers.optimization import get_scheduler

    name = {"constant": "constant_with_warmup", "cosine": "cosine"}[settings.schedule]
    return get_scheduler(name, optimizer, num_warmup_steps=settings.warmup, num_training_steps=settings.steps)
