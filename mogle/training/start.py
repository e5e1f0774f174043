"""How a run starts: the adapter's parameters, new or loaded, on their device; and a warm start of a new MoGLE."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.utils.data import default_collate

from mogle.errors import MogleError
from mogle.lora import add_lora, train_lora
from mogle.training.dataset import EncodedSet, TrainingSet
from mogle.training.flow import Example
from mogle.training.settings import TrainSettings

if TYPE_CHECKING:
    from mogle.pipeline import FaceMoGLEPipeline


def prepare_adapter(pipe: FaceMoGLEPipeline, settings: TrainSettings) -> list[nn.Parameter]:
    """Puts a new MoGLE and new LoRA layers into the pipeline where it has none -> the parameters to train, float32."""
    from diffusers.training_utils import cast_training_params

    from mogle.ablations import build_mogle

    torch.manual_seed(settings.seed)
    if pipe.mogle is None:
        pipe.mogle = build_mogle(settings.variant, pipe.transformer.config.in_channels)
        add_lora(pipe.transformer, rank=settings.rank, alpha=settings.alpha, lora_on=settings.lora_on)
        pipe.settings = {"attention": settings.attention, "lora_on": settings.lora_on}
    experts = pipe.mogle.to(pipe._execution_device, torch.float32).train().ask_for_gradients()
    lora = train_lora(pipe.transformer, settings.lora_on)
    cast_training_params(pipe.transformer, torch.float32)
    return [*experts, *lora]


def warm_start(pipe: FaceMoGLEPipeline, samples: EncodedSet, settings: TrainSettings) -> float:
    """Teaches the pipeline's new MoGLE, in place, to draw outlines: `settings.warm_start` steps towards edges.

    A small base reads pictures in the second stream, not the noise that untrained experts make, and while it reads
    nothing MoGLE learns nothing: without this the loss stayed where it was for 1,000 steps. The reference has no such
    thing. Returns the last loss.
    """
    mogle = pipe.mogle
    if mogle is None:
        raise MogleError("the pipeline has no MoGLE; call prepare_adapter before")
    device = pipe._execution_device
    parameters = [p for p in mogle.parameters() if p.requires_grad]
    if not parameters:  # neither experts nor gate: the tokens go in as they are
        return 0.0
    optimizer = torch.optim.AdamW(parameters, lr=3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, settings.warm_start))
    data = TrainingSet(samples, settings.model_copy(update={"drop_local": 0.0}))
    batch, loss = 4 * settings.batch, torch.zeros(())
    with torch.enable_grad():
        for step in range(settings.warm_start):
            positions = range(step * batch, (step + 1) * batch)
            drawn: Example = default_collate(data.__getitems__(positions))
            target = samples.read_outlines([data.row(position) for position in positions]).to(device)
            image, noise, t, conditions = (tensor.float().to(device) for tensor in drawn[1:5])
            noisy = torch.lerp(image, noise, t[:, None, None])
            loss = nn.functional.mse_loss(mogle(conditions, noisy, t), target.float())
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
    return round(loss.item(), 4)
