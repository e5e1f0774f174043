"""Watching a run: a progress bar, pictures at fixed masks and seeds, and how well they follow their masks."""

from __future__ import annotations

import io
import resource
import sys
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from mogle.training.encode import Encoder
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
        self.curves: dict[str, list[tuple[int, float]]] = {"loss": [], "mask accuracy": []}
        self._handle: Any = None
        self._last = time.monotonic()

    def add(self, step: int, usual: float, accuracy: float | None) -> None:
        """Notes a step's smoothed loss; draws if it is time to."""
        self.curves["loss"].append((step, usual))
        if accuracy is not None:
            self.curves["mask accuracy"].append((step, accuracy))
        if time.monotonic() - self._last > self.pause:
            self.show()

    def figure(self) -> Any:
        """A matplotlib figure: loss on the left, mask accuracy on the right."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(7, 2.4), layout="constrained")
        curves = {name: curve for name, curve in self.curves.items() if curve}
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
        shown = Image(picture.getvalue(), alt=f"Loss over {len(self.curves['loss'])} steps.")
        if self._handle is None:
            self._handle = display(shown, display_id=True)
        else:
            self._handle.update(shown)


class Watcher:
    """Called after every step. The bar shows loss, images/s, memory and the time left; in a notebook there is a plot.

    Every so many steps the trainer's pipeline, which then needs a VAE, draws pictures. `judge` gives them (N,H,W,3) and
    the label maps (N,H,W) a share of right pixels; None measures nothing.
    """

    def __init__(
        self,
        encoder: Encoder | None = None,
        label_maps: Sequence[np.ndarray] = (),
        captions: Sequence[str] = (),
        every: int = 0,
        judge: Callable[[np.ndarray, np.ndarray], float] | None = None,
    ) -> None:
        self.every, self.judge, self.label_maps = every, judge, list(label_maps)
        self._bar: Any = None
        self._accuracy: dict[str, str] = {}
        self._plot = LivePlot() if "ipykernel" in sys.modules and find_spec("matplotlib") else None
        if every and encoder is not None:  # all that sampling needs of the encoders, before they leave memory
            tokens, index = encoder.masks(label_maps)
            self._inputs = (tokens[index], *encoder.captions(captions))

    def __call__(self, trainer: Trainer, facts: dict[str, float]) -> None:
        """After a step of the trainer."""
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
                total=trainer.settings.steps, initial=trainer.step, desc="training", unit=" steps",
                disable=not (sys.stderr.isatty() or "ipykernel" in sys.modules),
            )  # fmt: skip
            return
        speed = (trainer.step - self._first) * trainer.settings.batch / (time.monotonic() - self._start)
        facts["images_per_second"] = round(speed, 3)
        facts["memory_gib"] = round(memory_gib(trainer.accelerator.device), 2)
        if "mask_accuracy" in facts:
            self._accuracy = {"mask": f"{facts['mask_accuracy']:.3f}"}
        shown = {"loss": f"{trainer.usual:.4f}", "images/s": f"{speed:.1f}", "GiB": f"{facts['memory_gib']:.1f}"}
        self._bar.set_postfix(shown | self._accuracy, refresh=False)
        self._bar.update(1)

    def close(self) -> None:
        """Ends the bar's line, and draws the plot once more."""
        if self._bar is not None:
            self._bar.close()
        if self._plot is not None and self._plot.curves["loss"]:
            self._plot.show()

    def _sample(self, trainer: Trainer) -> dict[str, float]:
        """One picture for each mask and seed, in `samples/`; the same noise every time, so that only training shows."""
        from PIL import Image

        from mogle.labels import colorize

        pipe, (height, width) = trainer.pipe, self.label_maps[0].shape
        conditions, states, pooled = (tensor.to(trainer.accelerator.device) for tensor in self._inputs)
        pipe.set_progress_bar_config(disable=True)
        pipe.transformer.eval()
        rows = [np.stack([colorize(label_map) for label_map in self.label_maps])]
        with trainer.accelerator.autocast():
            for seed in SEEDS:
                pictures = pipe(
                    prompt_embeds=states, pooled_prompt_embeds=pooled, condition_tokens=conditions, height=height,
                    width=width, generator=[torch.Generator().manual_seed(seed) for _ in self.label_maps],
                ).images  # fmt: skip
                rows.append(np.stack([np.asarray(picture) for picture in pictures]))
        pipe.transformer.train()
        if trainer.accelerator.is_main_process:
            folder = Path(trainer.out, "samples")
            folder.mkdir(parents=True, exist_ok=True)
            sheet = np.concatenate([np.concatenate(list(row), axis=1) for row in rows])
            Image.fromarray(sheet).save(folder / f"step-{trainer.step:06d}.png")
        if self.judge is None:
            return {}
        return {"mask_accuracy": float(np.mean([self.judge(row, np.stack(self.label_maps)) for row in rows[1:]]))}
