"""Fine-tunes MoGLE and LoRA on a frozen base: the method's own training.

Rectified flow: z_t = (1-t) z0 + t eps with t = sigmoid(N(0, 1)); the model sees z_t, the mask's conditions and a
caption, and is asked for eps - z0. Everything that the frozen parts compute (latents, condition tokens, caption
embeddings) is encoded once before the first step.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from mogle.errors import MogleError
from mogle.training.base import edge_pictures, encode_images, noised, sample_times, vae_layout
from mogle.training.loop import (
    Processes,
    Progress,
    averaged,
    cosine_schedule,
    eager_or_compiled,
    mixed_precision,
)

if TYPE_CHECKING:
    import numpy as np
    import torch
    from diffusers import AutoencoderKL

    from mogle.experts import MoGLE
    from mogle.pipeline import FaceMoGLEPipeline


@dataclass(frozen=True)
class AdapterConfig:
    """Settings of one fine-tuning run; the defaults suit the tiny base on two CPU cores.

    `minutes` ends a run early (encoding and warm start not counted); `optimizer` is "adamw" or "prodigy" (the
    reference's, lr 1); `high_noise` is the share of times near noise (see `sample_times`) and `warm_start` the number
    of steps that `warm_start` takes: both are 0 in the reference.
    """

    steps: int = 400
    minutes: float | None = None
    batch: int = 16
    rank: int = 16
    optimizer: str = "adamw"
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    clip: float = 0.5
    drop_local: float = 0.1
    drop_text: float = 0.1
    high_noise: float = 0.5
    guidance: float = 1.0
    average: float | None = None
    warm_start: int = 150
    seed: int = 0


class Pictures(NamedTuple):
    """What the VAE makes of N portraits: nothing else has to be encoded again when base or captions change.

    tokens (N, S, 64); conditions (N, 20, S, 64); empty (S, 64): an all-black condition; outlines (N, S, 64): the
    portraits' edges in gray, for `warm_start` alone.
    """

    tokens: torch.Tensor
    conditions: torch.Tensor
    empty: torch.Tensor
    outlines: torch.Tensor


@dataclass
class AdapterData:
    """What the frozen parts make of N portraits with K captions each.

    states (N, K, L, D2) and pooled (N, K, D1): captions; empty_states (L, D2), empty_pooled (D1,): the empty caption;
    image_ids (S, 3).
    """

    pictures: Pictures
    states: torch.Tensor
    pooled: torch.Tensor
    empty_states: torch.Tensor
    empty_pooled: torch.Tensor
    image_ids: torch.Tensor


def _encode_captions(
    pipe: FaceMoGLEPipeline, captions: Sequence[str], batch: int = 512
) -> tuple[torch.Tensor, torch.Tensor]:
    """T5 states (n, L, D2) and CLIP pooled (n, D1) of n captions, as the pipeline encodes prompts."""
    import torch

    from mogle.training.text import token_ids

    device = pipe.transformer.device
    states, pooled = [], []
    with torch.no_grad():
        for start in range(0, len(captions), batch):
            part = list(captions[start : start + batch])
            states.append(pipe.text_encoder_2(token_ids(pipe.tokenizer_2, part).to(device))[0])
            pooled.append(pipe.text_encoder(token_ids(pipe.tokenizer, part).to(device)).pooler_output)
    return torch.cat(states), torch.cat(pooled)


def encode_pictures(vae: AutoencoderKL, images: np.ndarray, masks: np.ndarray, *, dtype: torch.dtype) -> Pictures:
    """Runs the VAE over (N, H, W, 3) uint8 pictures and (N, H, W) label maps; an absent class is `empty`."""
    import torch
    from diffusers import FluxPipeline

    from mogle.training.vae import colour_masks

    device, count, chunk = vae.device, len(images), 8
    shift, scale = vae.config.shift_factor, vae.config.scaling_factor
    layout = vae_layout(device)
    vae.encoder.to(memory_format=layout)

    def encode(x: torch.Tensor) -> torch.Tensor:
        latent = vae.encode(x.to(vae.dtype).contiguous(memory_format=layout)).latent_dist.mode().float()
        latent = (latent - shift).mul(scale).contiguous()
        return FluxPipeline._pack_latents(latent, *latent.shape).to(dtype)

    faces = torch.as_tensor(images, device=device)
    tokens, outlines = (encode_images(vae, x).to(dtype) for x in (faces, edge_pictures(faces)))
    with torch.no_grad():
        empty = encode(-torch.ones(1, 3, *images.shape[1:3], device=device))[0]
        conditions = torch.empty(count, 20, *empty.shape, dtype=dtype, device=device)
        conditions[:] = empty
        for start in range(0, count, chunk):
            labels = torch.as_tensor(masks[start : start + chunk], device=device)
            conditions[start : start + chunk, 0] = encode(colour_masks(labels))
            present = labels[:, None] == torch.arange(19, device=device)[:, None, None]  # (chunk, 19, H, W)
            rows, classes = present.flatten(2).any(-1).nonzero(as_tuple=True)
            for part in torch.arange(len(rows), device=device).split(4 * chunk):
                binary = present[rows[part], classes[part]].float()[:, None].expand(-1, 3, -1, -1) * 2 - 1
                conditions[start + rows[part], 1 + classes[part]] = encode(binary)
    return Pictures(tokens, conditions, empty, outlines)


def adapter_data(
    pipe: FaceMoGLEPipeline,
    pictures: Pictures,
    captions: Sequence[Sequence[str]],
    size: tuple[int, int],
) -> AdapterData:
    """What `encode_pictures` gave, with K captions for each picture as the pipeline encodes them; size: (H, W)."""
    import torch

    tokens = pictures.tokens
    states, pooled = _encode_captions(pipe, [caption for group in captions for caption in group])
    empty_states, empty_pooled = _encode_captions(pipe, [""])
    shape = (len(captions), len(captions[0]))
    return AdapterData(
        pictures=pictures,
        states=states.to(tokens.dtype).unflatten(0, shape),
        pooled=pooled.to(tokens.dtype).unflatten(0, shape),
        empty_states=empty_states[0].to(tokens.dtype),
        empty_pooled=empty_pooled[0].to(tokens.dtype),
        image_ids=pipe._prepare_latent_image_ids(1, size[0] // 16, size[1] // 16, tokens.device, torch.float32),
    )


def encode_portraits(
    pipe: FaceMoGLEPipeline,
    images: np.ndarray,
    masks: np.ndarray,
    captions: Sequence[Sequence[str]],
    *,
    dtype: torch.dtype | None = None,
) -> AdapterData:
    """Runs VAE and text encoders over (N, H, W, 3) pictures, (N, H, W) label maps and K captions for each."""
    import torch

    pictures = encode_pictures(pipe.vae, images, masks, dtype=dtype or torch.float32)
    return adapter_data(pipe, pictures, captions, images.shape[1:3])


def new_adapter(pipe: FaceMoGLEPipeline, config: AdapterConfig) -> None:
    """Puts an untrained MoGLE and untrained LoRA layers (second matrix zero: no effect yet) into the pipeline."""
    import torch

    from mogle.experts import MoGLE
    from mogle.transformer import add_lora

    torch.manual_seed(config.seed)
    pipe.mogle = MoGLE().to(pipe.transformer.device)
    add_lora(pipe.transformer, rank=config.rank)


def _mogle_of(pipe: FaceMoGLEPipeline) -> MoGLE:
    if pipe.mogle is None:
        raise MogleError("the pipeline has no MoGLE; call new_adapter or load_mogle before training")
    return pipe.mogle


def warm_start(pipe: FaceMoGLEPipeline, data: AdapterData, config: AdapterConfig) -> float:
    """Teaches the pipeline's new MoGLE, in place, to draw outlines: `config.warm_start` steps towards portraits' edges.

    A small base reads pictures in the second stream, not the noise that untrained experts make, and while it reads
    nothing MoGLE learns nothing: without this the loss stayed where it was for 1,000 steps. Returns the last loss.
    """
    import torch

    pictures, device = data.pictures, data.pictures.tokens.device
    mogle = _mogle_of(pipe).float().train().requires_grad_(True)
    optimizer = torch.optim.AdamW(mogle.parameters(), lr=3e-3)
    schedule = cosine_schedule(optimizer, config.warm_start)
    generator = torch.Generator(device).manual_seed(config.seed)
    loss = torch.zeros(())
    for _ in range(config.warm_start):
        rows, _, _, t, noisy = noised(pictures.tokens, 64, generator, config.high_noise)
        drawn = mogle(pictures.conditions[rows].float(), noisy, t)
        loss = torch.nn.functional.mse_loss(drawn, pictures.outlines[rows].float())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
    return round(loss.item(), 4)


def _optimizer(parameters: list[torch.nn.Parameter], config: AdapterConfig) -> torch.optim.Optimizer:
    import torch

    if config.optimizer == "prodigy":
        from prodigyopt import Prodigy

        return Prodigy(
            parameters, lr=1.0, weight_decay=config.weight_decay, use_bias_correction=True, safeguard_warmup=True
        )
    return torch.optim.AdamW(parameters, lr=config.learning_rate, betas=(0.9, 0.99), weight_decay=config.weight_decay)


def train_adapter(
    pipe: FaceMoGLEPipeline, data: AdapterData, config: AdapterConfig, *, compile_model: bool = False
) -> dict[str, Any]:
    """Trains `pipe.mogle` and the transformer's LoRA layers in place; both must be there already (see `new_adapter`).

    Local conditions are dropped to black and captions to "" with the configured probabilities (reference: 0.1 each);
    the global condition is never dropped. Returns the settings, the steps done, the minutes and the last mean loss.
    """
    import torch

    from mogle.transformer import forward_streams, train_lora

    pictures, device = data.pictures, data.pictures.tokens.device
    transformer, mogle = pipe.transformer, _mogle_of(pipe).float().train().requires_grad_(True)
    lora = train_lora(transformer)
    trained = torch.nn.ModuleDict({"mogle": mogle})
    trained.register_module("lora", torch.nn.ParameterList(lora))
    parameters = [p for p in trained.parameters() if p.requires_grad]
    optimizer = _optimizer(parameters, config)
    schedule = cosine_schedule(optimizer, config.steps, warmup=min(100, config.steps // 10))
    average = averaged(trained, config.average) if config.average else None
    generator = torch.Generator(device)

    class Velocity(torch.nn.Module):
        """What several processes share: noisy latents, condition tokens and caption to the velocity."""

        def __init__(self) -> None:
            super().__init__()
            self.transformer: Any = transformer
            self.mogle: Any = mogle
            self.compute = eager_or_compiled(self._compute, compile_model)

        def _compute(self, noisy, conditions, states, pooled, t, guidance):  # type: ignore[no-untyped-def]
            fused = self.mogle(conditions, noisy, t)
            return forward_streams(
                self.transformer, noisy, fused, states, pooled, t, guidance, data.image_ids, text_ids
            )

        def forward(self, *inputs):  # type: ignore[no-untyped-def]
            return self.compute(*inputs)

    processes = Processes(device)
    count = processes.part_of(config.batch)
    text_ids = torch.zeros(data.states.shape[2], 3, device=device)
    velocity_of = processes.share(Velocity())
    guidance = torch.full((count,), config.guidance, device=device) if transformer.config.guidance_embeds else None
    progress = Progress("adapter", config.steps)
    start, step = time.monotonic(), 0
    for step in range(config.steps):
        generator.manual_seed(processes.seed(config.seed, step))
        rows = torch.randint(len(pictures.tokens), (count,), generator=generator, device=device)
        which = torch.randint(data.states.shape[1], (count,), generator=generator, device=device)
        target = pictures.tokens[rows].float()
        noise = torch.randn(target.shape, generator=generator, device=device)
        t = sample_times(count, generator, device, config.high_noise)
        noisy = torch.lerp(target, noise, t[:, None, None])
        dropped = torch.rand(count, 20, generator=generator, device=device) < config.drop_local
        dropped[:, 0] = False
        conditions = torch.where(dropped[..., None, None], pictures.empty, pictures.conditions[rows]).float()
        silent = torch.rand(count, generator=generator, device=device) < config.drop_text
        states = torch.where(silent[:, None, None], data.empty_states, data.states[rows, which]).float()
        pooled = torch.where(silent[:, None], data.empty_pooled, data.pooled[rows, which]).float()
        with mixed_precision(device):
            predicted = velocity_of(noisy, conditions, states, pooled, t, guidance)
        loss = torch.nn.functional.mse_loss(predicted.float(), noise - target)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, config.clip)
        optimizer.step()
        schedule.step()
        if average is not None:
            average.update_parameters(trained)
        progress(step, loss=loss)
        if config.minutes is not None and time.monotonic() - start > 60 * config.minutes:
            break
    if average is not None:
        trained.load_state_dict(average.module.state_dict())
    mogle.eval().requires_grad_(False)
    transformer.requires_grad_(False)
    return {
        **asdict(config),
        "steps_done": step + 1,
        "minutes_taken": round((time.monotonic() - start) / 60, 2),
        **progress.last,
    }


def fine_tune(
    out: str | Path,
    config: AdapterConfig,
    *,
    data: str | Path | None = None,
    count: int = 200,
    base: str | Path | None = None,
    start: str | Path | None = None,
    device: str | None = None,
) -> dict[str, Any]:
    """Trains an adapter on `count` samples of a data set (or on painted portraits) and writes it to `out`.

    `start` goes on from an adapter instead of a new one. Returns what `train_adapter` returns.

    Raises:
        MogleError: the base, the adapter or the data set is not what it should be.
    """
    import numpy as np

    from mogle.checkpoints import adapter_folder, base_folder, load_pipeline
    from mogle.datasets import FaceDataset
    from mogle.portraits import paint_many

    folder = base_folder(base)
    pipe = load_pipeline(folder, None if start is None else adapter_folder(start), device)
    size = pipe.vae.config.sample_size
    if data is None:
        images, masks, _, captions = paint_many(range(count), size=size)
    else:
        samples = FaceDataset(data, split="train", size=size)
        items = [samples[i] for i in range(min(count, len(samples)))]
        images, masks = (
            np.stack([np.asarray(item.image) for item in items]),
            np.stack([item.label_map for item in items]),
        )
        captions = [item.captions or [""] for item in items]
        each = min(len(group) for group in captions)
        captions = [group[:each] for group in captions]
    if start is None:
        new_adapter(pipe, config)
    encoded = encode_portraits(pipe, images, masks, captions)
    if start is None:
        warm_start(pipe, encoded, config)
    facts = train_adapter(pipe, encoded, config)
    pipe.save_mogle(out)
    return facts
