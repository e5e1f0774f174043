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
    from mogle.training.settings import TrainSettings
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
        self.curves: dict[str, list[tuple[int, float]]] = {}
        self._handle: Any = None
        self._last = time.monotonic()

    def add(self, step: int, usual: float, accuracy: float | None) -> None:
        """Notes a step's smoothed loss; draws if it is time to."""
        for name, value in (("loss", usual), ("mask accuracy", accuracy)):
            if value is not None:
                self.curves.setdefault(name, []).append((step, value))
        if time.monotonic() - self._last > self.pause:
            self.show()

    def figure(self) -> Any:
        """A matplotlib figure: loss on the left, mask accuracy on the right."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(7, 2.4), layout="constrained")
        axes = np.ravel(figure.subplots(1, len(self.curves)))
        for axis, (name, curve) in zip(axes, self.curves.items(), strict=True):
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
        self, settings: TrainSettings, encoder: Encoder, label_maps: Sequence[np.ndarray], captions: Sequence[str],
        judge: Callable[[np.ndarray, np.ndarray], float] | None = None,
    ) -> None:  # fmt: skip
        from tqdm.auto import tqdm

        notebook = "ipykernel" in sys.modules
        self.every, self.judge, self.label_maps = settings.sample_every, judge, label_maps
        self._plot = LivePlot() if notebook and find_spec("matplotlib") else None
        quiet = not (notebook or sys.stderr.isatty())
        self._bar = tqdm(total=settings.steps, desc="training", unit=" steps", disable=quiet)
        self._shown: dict[str, str] = {}
        self._first: tuple[int, float] | None = None
        if self.every:  # all that sampling needs of the encoders, before they leave memory
            tokens, index = encoder.masks(label_maps)
            self._inputs = (tokens[index], *encoder.captions(captions))

    def __call__(self, trainer: Trainer, facts: dict[str, float]) -> None:
        """After a step of the trainer: adds to the step's `facts`."""
        if self.every and trainer.step % self.every == 0:
            facts.update(self._sample(trainer))
        if not trainer.accelerator.is_main_process:
            return
        if self._plot is not None:
            self._plot.add(trainer.step, trainer.usual, facts.get("mask_accuracy"))
        facts["memory_gib"] = round(memory_gib(trainer.accelerator.device), 2)
        step, start = self._first = self._first or (trainer.step, time.monotonic())  # the slow first is not counted
        if trainer.step > step:
            speed = (trainer.step - step) * trainer.settings.batch / (time.monotonic() - start)
            facts["images_per_second"] = round(speed, 3)
        names = {"images_per_second": "images/s", "memory_gib": "GiB", "mask_accuracy": "mask"}
        self._shown |= {short: f"{facts[name]:.3g}" for name, short in names.items() if name in facts}
        self._bar.set_postfix({"loss": f"{trainer.usual:.4f}", **self._shown}, refresh=False)
        self._bar.update(trainer.step - self._bar.n)

    def close(self) -> None:
        """Ends the bar's line, and draws the plot once more."""
        self._bar.close()
        if self._plot is not None and self._plot.curves:
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
