"""Watching a run: a progress bar, pictures at fixed masks and seeds, and how well they follow their masks."""

from __future__ import annotations

import io
import resource
import sys
import time
from collections.abc import Sequence
from importlib.util import find_spec
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


class LivePlot:
    """In a notebook: the loss so far and, where it is measured, the mask accuracy, redrawn in one place."""

    pause = 5.0  # seconds between two drawings, at least

    def __init__(self) -> None:
        self.loss: list[tuple[int, float]] = []
        self.accuracy: list[tuple[int, float]] = []
        self._handle: Any = None
        self._last = time.monotonic()

    def add(self, step: int, usual: float, accuracy: float | None) -> None:
        """Notes a step's smoothed loss; draws if it is time to."""
        self.loss.append((step, usual))
        if accuracy is not None:
            self.accuracy.append((step, accuracy))
        if time.monotonic() - self._last > self.pause:
            self.show()

    def figure(self) -> Any:
        """A matplotlib figure: loss on the left, mask accuracy on the right."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(7, 2.4), layout="constrained")
        curves = {"loss": self.loss, "mask accuracy": self.accuracy}
        curves = {name: curve for name, curve in curves.items() if curve}
        for axis, (name, curve) in zip(np.ravel(figure.subplots(1, len(curves))), curves.items(), strict=True):
            axis.plot(*zip(*curve, strict=True), marker="." if name != "loss" else None)
            axis.set(xlabel="step", ylabel=name)
        return figure

    def show(self) -> None:
        """Draws in the notebook, over the drawing before."""
        from IPython.display import Image, display

        self._last = time.monotonic()
        picture = io.BytesIO()
        self.figure().savefig(picture, format="png", dpi=110)
        shown = Image(picture.getvalue(), alt=f"Loss over {len(self.loss)} steps.")
        if self._handle is None:
            self._handle = display(shown, display_id=True)
        else:
            self._handle.update(shown)


class Watcher:
    """Called after every step. The bar shows loss, images/s, memory and the time left; in a notebook there is a plot.

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
        self._plot = LivePlot() if "ipykernel" in sys.modules and find_spec("matplotlib") else None
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
        if self._plot is not None:
            self._plot.add(trainer.step, trainer.usual, facts.get("mask_accuracy"))
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
        """Ends the bar's line, and draws the plot once more."""
        if self._bar is not None:
            self._bar.close()
        if self._plot is not None and self._plot.loss:
            self._plot.show()

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
