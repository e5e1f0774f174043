"""Rectified flow: what the loss takes, its times, the loss itself, and what minimises it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from mogle.training.guided import Teacher
from mogle.training.settings import TrainSettings
from mogle.transformer import Condition, forward_streams

if TYPE_CHECKING:
    from mogle.experts import MoGLE


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


class VelocityLoss(nn.Module):
    """Rectified flow: mean squared error of the predicted velocity against eps - z0, at z_t = (1-t) z0 + t eps.

    With a teacher the target is its guided velocity instead.
    """

    def __init__(
        self, transformer: Any, mogle: MoGLE, settings: TrainSettings, image_ids: Tensor, teacher: Teacher | None = None
    ) -> None:
        super().__init__()
        self.teacher = teacher
        self.transformer, self.mogle, self.settings = transformer, mogle, settings
        self.image_ids: Tensor
        self.register_buffer("image_ids", image_ids, persistent=False)

    def forward(self, batch: Example) -> Tensor:
        """Examples stacked by a loader, all on this module's device -> the losses of the samples, float32 (B,)."""
        config, dtype = self.transformer.config, self.transformer.dtype
        t = batch.t[:, None, None]
        noisy = (1 - t) * batch.image.float() + t * batch.noise
        fused = self.mogle(batch.conditions.float(), noisy, batch.t)
        guidance = torch.full_like(batch.t, self.settings.guidance) if config.guidance_embeds else None
        condition = Condition(fused.to(dtype), attention=self.settings.attention, lora_on=self.settings.lora_on)

        def velocity(condition: Condition) -> Tensor:
            return forward_streams(
                self.transformer, noisy.to(dtype), condition, batch.states.to(dtype), batch.pooled.to(dtype),
                batch.t, guidance, self.image_ids, self.image_ids.new_zeros(batch.states.shape[1], 3),
            ).float()  # fmt: skip

        target = batch.noise - batch.image.float()
        if self.teacher is not None:
            target = self.teacher.velocity(velocity, condition, batch.conditions, noisy, batch.t)
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
