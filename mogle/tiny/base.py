"""Pretrains the tiny FLUX: rectified flow on portraits, alone and with a second token stream.

The trunk is trained at a constant rate and can go on for days; `decay` starts from any of its checkpoints and ends in
weights that can be shipped. What makes two cores fast enough: the whole step is one compiled graph, in bfloat16 where
the processor multiplies it, with attention written out (`mogle.attention`) and Newton-Schulz in batches (`muon`).
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mogle.tiny.corpus import Corpus, Draw
from mogle.tiny.loop import Halfway, Processes, Progress, Speed, averaged, eager_or_compiled
from mogle.tiny.muon import Muon
from mogle.transformer import Condition, install, walk

if TYPE_CHECKING:
    from diffusers import FluxTransformer2DModel
    from transformers import CLIPTextModel, T5EncoderModel

#: Times at which held-out portraits are judged, from nearly noise to nearly done.
TIMES = (0.95, 0.8, 0.5, 0.2)
_SMALL = 1.3  # times the median weight: tokens that hold small parts of a face


class FlowLoss(nn.Module):
    """The velocity's squared error on a batch, weighted by token, as one function that compiles to one graph.

    Text encoders that train belong to it (several processes then share their gradients); frozen ones do not.
    """

    def __init__(self, transformer: Any, corpus: Corpus, speed: Speed, encoders: tuple[Any, Any], train_text: bool):
        super().__init__()
        install(transformer)
        self.transformer, self.speed, self.train_text = transformer, speed, train_text
        self.encoders: Any = nn.ModuleList(encoders) if train_text else encoders
        self.image_ids, self.text_ids = corpus.image_ids, corpus.text_ids
        self.errors = eager_or_compiled(self._errors, speed.compiled)

    def encode(self, clip_ids: Tensor, t5_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Caption ids -> T5's states (B, L, C) and CLIP's pooled vector (B, P)."""
        clip, t5 = self.encoders
        with torch.set_grad_enabled(self.train_text and torch.is_grad_enabled()):
            return t5(t5_ids)[0], clip(clip_ids).pooler_output

    def velocity(
        self, noisy: Tensor, stream: Tensor | None, states: Tensor, pooled: Tensor, t: Tensor, g: Tensor
    ) -> Tensor:
        """(B, S, 64) from encoded captions; g (B,) is the guidance input."""
        with self.speed.autocast():
            return walk(
                self.transformer, Condition(stream), noisy, states, pooled, t, self.image_ids, self.text_ids, g
            ).float()

    def _errors(self, noisy, stream, states, pooled, t, g, target, weight):  # type: ignore[no-untyped-def]
        error = (self.velocity(noisy, stream, states, pooled, t, g) - target).square().mean(dim=-1)
        return (error * weight).mean(), error.detach().mean()

    def forward(self, draw: Draw) -> tuple[Tensor, Tensor]:
        """-> the loss, and the plain mean squared error to watch."""
        states, pooled = self.encode(draw.clip_ids, draw.t5_ids)
        ones = torch.ones_like(draw.t)
        return self.errors(draw.noisy, draw.stream, states, pooled, draw.t, ones, draw.target, draw.weight)


def zero_start(transformer: FluxTransformer2DModel) -> None:
    """Every block starts as the identity, and the velocity as zero (AdaLN-zero): the first steps are nearly linear."""
    modulations = [block.norm.linear for block in transformer.single_transformer_blocks]
    for block in transformer.transformer_blocks:
        modulations += [block.norm1.linear, block.norm1_context.linear]
    for layer in [*modulations, transformer.norm_out.linear, transformer.proj_out]:
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)


def pretrain_base(
    transformer: FluxTransformer2DModel,
    clip: CLIPTextModel,
    t5: T5EncoderModel,
    corpus: Corpus,
    *,
    steps: int,
    batch: int,
    learning_rate: float,
    stream: float,
    drop_text: float,
    high_noise: float,
    drawings: float,
    train_text: bool,
    easy_until: float,
    ema: float,
    seed: int,
    speed: Speed,
    checkpoint: Path | None = None,
    decay_from: Path | None = None,
    watch: Any = None,
) -> dict[str, Any]:
    """Fits the transformer, in place, to the velocity eps - z0 at z_t = (1-t) z0 + t eps; the rate stays constant.

    Args:
        stream: share of the batches that carry a second stream.
        drawings: share of the flat drawings among the views in it; masks are the nearest to them.
        easy_until: up to this share of the steps the second stream is at times the picture itself: attention finds a
            stream sooner if reading it pays. A model that reads views already needs none of that: 0.
        train_text: the text encoders train too; else they stay as they are.
        ema: decay of the moving average of the weights, which is what the result is.
        speed: number format and compiling; an interrupted run goes on with the ones that it began with.
        checkpoint: an interrupted run goes on from this file, bit for bit; more steps later go on from its end.
        decay_from: a checkpoint of the trunk: the rate falls linearly from there to zero in `steps` steps.
        watch: called as watch(step, average of the FlowLoss) now and then: validation and pictures.
    """
    device = corpus.tokens.device
    for model in (transformer, clip, t5):
        model.to(device).requires_grad_(False)
    loss = FlowLoss(transformer, corpus, speed, (clip.eval(), t5.eval()), train_text).train()
    transformer.requires_grad_(True)
    if train_text:
        loss.encoders.requires_grad_(True)
    transformer.time_text_embed.guidance_embedder.requires_grad_(False)  # `distill_guidance` gives it its meaning
    processes = Processes(device)
    shared = processes.share(loss)
    parameters = [p for p in loss.parameters() if p.requires_grad]
    optimizer = Muon(parameters, lr=learning_rate, weight_decay=0.01, dtype=speed.dtype)
    average = averaged(loss, ema)
    halfway = Halfway(checkpoint, models=loss, average=average, optimizer=optimizer)
    first, done = 0, halfway.load(device)
    if decay_from is not None:
        first = Halfway(decay_from, **halfway.parts).load(device) if not done else 0
        first = halfway.note("first", first) if not done else int(halfway.notes["first"])
        done = max(done, first)
    last = first + steps if decay_from is not None else steps
    generator, mine = torch.Generator(device), processes.part_of(batch)
    progress = Progress("decay" if decay_from else "base", last)
    for step in range(done, last):
        generator.manual_seed(processes.seed(seed, step))
        factor = (last - step) / steps if decay_from is not None else min(1.0, (step + 1) / 150)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * factor
        # the same for all processes: a batch with a stream takes longer, and they meet at its end
        with_stream = bool(torch.rand((), generator=torch.Generator().manual_seed(seed * 7919 + step)) < stream)
        easy = max(0.1, 1 - step / (easy_until * last)) if easy_until else 0.1
        draw = corpus.draw(
            mine, generator, stream=with_stream, drop_text=drop_text, high_noise=high_noise,
            drawings=drawings, easy=easy, mixed=max(0.2, easy if easy_until else 0.0),
        )  # fmt: skip
        weighted, plain = shared(draw)
        weighted.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        average.update_parameters(loss)
        progress(step, loss=weighted, **{"stream" if with_stream else "alone": plain})
        halfway.save(step + 1)
        if watch is not None and halfway.is_time(step + 1):
            watch(step + 1, average.module)
    loss.load_state_dict(average.module.state_dict())
    loss.eval().requires_grad_(False)
    return progress.last


@torch.no_grad()
def validate(loss: FlowLoss, heldout: Corpus, view: str = "drawing", seed: int = 99) -> dict[str, float]:
    """Errors on held-out portraits at fixed times and noise: alone and with a stream, whole and on small parts."""
    generator = torch.Generator(heldout.tokens.device).manual_seed(seed)
    z0, t_of = heldout.tokens.float(), heldout.tokens.new_full
    noise = torch.randn(z0.shape, generator=generator, device=z0.device)
    states, pooled = loss.encode(heldout.clip_ids[:, -1].long(), heldout.t5_ids[:, -1].long())
    small = (heldout.weight > _SMALL * heldout.weight.median()).float()
    found = {}
    for name, stream in (("alone", None), ("stream", heldout.views[view].float())):
        for time_ in TIMES:
            t = t_of((len(z0),), time_, dtype=torch.float32)
            noisy = torch.lerp(z0, noise, t[:, None, None])
            velocity = loss.velocity(noisy, stream, states, pooled, t, torch.ones_like(t))
            error = (velocity - (noise - z0)).square().mean(dim=-1)
            found[f"{name} {time_:g}"] = round(error.mean().item(), 5)
            found[f"{name} {time_:g} small"] = round(((error * small).sum() / small.sum()).item(), 5)
    return found


@torch.no_grad()
def sample(
    loss: FlowLoss, corpus: Corpus, stream: Tensor | None, *, since: float = 1.0, steps: int = 20, seed: int = 0
) -> Tensor:
    """Pictures' tokens (B, S, 64) for a corpus' fullest captions and a stream, by Euler steps of equal length.

    With `since` below 1 they start there on the way from the true picture to noise, and take that share of the steps.
    """
    states, pooled = loss.encode(corpus.clip_ids[:, -1].long(), corpus.t5_ids[:, -1].long())
    generator = torch.Generator(corpus.tokens.device).manual_seed(seed)
    noise = torch.randn(corpus.tokens.shape, generator=generator, device=corpus.tokens.device)
    z = torch.lerp(corpus.tokens.float(), noise, since)
    times = torch.linspace(since, 0, round(since * steps) + 1).tolist()
    for now, then in zip(times, times[1:], strict=False):
        t = z.new_full((len(z),), now)
        z = z + (then - now) * loss.velocity(z, stream, states, pooled, t, torch.ones_like(t))
    return z


@torch.no_grad()
def decode(vae: Any, tokens: Tensor) -> Tensor:
    """Tokens (B, S, 64) -> uint8 pictures (B, H, W, 3) on the CPU."""
    from diffusers import FluxPipeline

    config, side = vae.config, round(tokens.shape[1] ** 0.5) * 16
    latents = FluxPipeline._unpack_latents(tokens, side, side, 8) / config.scaling_factor + config.shift_factor
    pixels = vae.decode(latents.to(vae.device, vae.dtype)).sample.float()
    return ((pixels + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).cpu()


class Watch:
    """Writes `validation.jsonl` and pictures of held-out portraits' sentences and views, as training goes on."""

    def __init__(self, folder: Path, heldout: Corpus, vae: Any, pictures: int = 8) -> None:
        self.folder, self.heldout, self.vae, self.pictures = folder, heldout, vae, pictures
        self.start = time.monotonic()

    def __call__(self, step: int, loss: FlowLoss) -> None:
        facts = {"step": step, "seconds": round(time.monotonic() - self.start), **validate(loss, self.heldout)}
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "validation.jsonl").open("a") as file:
            file.write(json.dumps(facts) + "\n")
        self.sheet(loss).save(self.folder / f"step-{step:06d}.png")

    def sheet(self, loss: FlowLoss) -> Any:
        """Rows: portraits through the VAE; from the sentence alone; from sentence and drawing."""
        from PIL import Image

        some = self.heldout.rows(slice(0, self.pictures))
        rows = [some.tokens.float(), sample(loss, some, None), sample(loss, some, some.views["drawing"].float())]
        pixels = torch.cat([torch.cat(list(decode(self.vae, row)), dim=1) for row in rows])
        return Image.fromarray(pixels.numpy())
