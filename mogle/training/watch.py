"""Watching a run: a progress bar, pictures at fixed masks and seeds, and how well they follow their masks."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from mogle.training.cache import Encoder
    from mogle.training.trainer import Trainer

SEEDS = (0, 1)


def memory_gib(device: torch.device) -> float:
    """The most memory that the run has held so far, in GiB: of the GPU, or of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**30 if sys.platform == "darwin" else 2**20)


class Watcher:
    """Called after every step. The bar shows loss, images/s, memory and the time left.

    `judge` gives pictures (N,H,W,3) and label maps (N,H,W) a share of right pixels; None measures nothing.
    """

    def __init__(
        self,
        encoder: Encoder | None = None,
        label_maps: Sequence[np.ndarray] = (),
        captions: Sequence[str] = (),
        every: int = 0,
        judge: Any = None,
    ) -> None:
        self.every, self.judge, self.label_maps = every, judge, list(label_maps)
        self._bar: Any = None
        self._accuracy = ""
        self._start = time.monotonic()
        if every and encoder is not None:  # all that sampling needs of the encoders, before they leave memory
            tokens, index = encoder.masks(label_maps)
            self._conditions, self._text = tokens[index], encoder.captions(captions)
            self._vae, self._size = encoder.pipe.vae, encoder.size

    def __call__(self, trainer: Trainer, facts: dict[str, float]) -> None:
        """After a step of the trainer."""
        settings = trainer.settings
        if self.every and trainer.step % self.every == 0:
            facts.update(self._sample(trainer))
        if not trainer.accelerator.is_main_process:
            return
        if self._bar is None:
            from tqdm.auto import tqdm

            self._start, self._first = time.monotonic(), trainer.step
            self._bar = tqdm(
                total=settings.steps, initial=trainer.step, desc="training", unit=" steps",
                disable=not (sys.stderr.isatty() or "ipykernel" in sys.modules),
            )  # fmt: skip
            return
        speed = (trainer.step - self._first) * settings.batch / (time.monotonic() - self._start)
        facts["images_per_second"] = round(speed, 3)
        facts["memory_gib"] = round(memory_gib(trainer.accelerator.device), 2)
        shown = {"loss": f"{trainer.usual:.4f}", "images/s": f"{speed:.1f}", "GiB": f"{facts['memory_gib']:.1f}"}
        if "mask_accuracy" in facts:
            self._accuracy = f"{facts['mask_accuracy']:.3f}"
        if self._accuracy:
            shown["mask"] = self._accuracy
        self._bar.set_postfix(shown, refresh=False)
        self._bar.update(1)

    def close(self) -> None:
        """Ends the bar's line."""
        if self._bar is not None:
            self._bar.close()

    def _sample(self, trainer: Trainer) -> dict[str, float]:
        """One picture for each mask and seed, in `samples/`; the same noise every time, so that only training shows."""
        from PIL import Image

        from mogle.labels import colorize

        pipe, (height, width) = trainer.pipe, self._size
        device, count = trainer.accelerator.device, len(self.label_maps)
        was_bar = dict(getattr(pipe, "_progress_bar_config", {}))
        pipe.set_progress_bar_config(disable=True)
        trainer.pipe.transformer.eval()
        rows = [np.stack([colorize(label_map) for label_map in self.label_maps])]
        with torch.no_grad(), trainer.accelerator.autocast():
            for seed in SEEDS:
                latents = pipe(
                    prompt_embeds=self._text[0].to(device), pooled_prompt_embeds=self._text[1].to(device),
                    condition_tokens=self._conditions.to(device), height=height, width=width, output_type="latent",
                    generator=[torch.Generator().manual_seed(seed) for _ in range(count)],
                ).images  # fmt: skip
                rows.append(self._decode(latents))
        trainer.pipe.transformer.train()
        pipe._progress_bar_config = was_bar
        facts: dict[str, float] = {}
        if self.judge is not None:
            facts["mask_accuracy"] = float(np.mean([self.judge(row, np.stack(self.label_maps)) for row in rows[1:]]))
        if trainer.accelerator.is_main_process:
            folder = Path(trainer.out, "samples")
            folder.mkdir(parents=True, exist_ok=True)
            sheet = np.concatenate([np.concatenate(list(row), axis=1) for row in rows])
            Image.fromarray(sheet).save(folder / f"step-{trainer.step:06d}.png")
        return facts

    def _decode(self, latents: torch.Tensor) -> np.ndarray:
        """Tokens (B, N, 64) -> uint8 pictures (B, H, W, 3)."""
        from diffusers import FluxPipeline

        vae, config = self._vae, self._vae.config
        latents = FluxPipeline._unpack_latents(latents, *self._size, 2 ** (len(config.block_out_channels) - 1))
        latents = latents / config.scaling_factor + (config.shift_factor or 0)
        pixels = vae.decode(latents.to(vae.device, vae.dtype)).sample.float()
        return ((pixels + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
