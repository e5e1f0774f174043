"""Watching a run: a progress bar, pictures at fixed masks and seeds, and how well they follow their masks."""

from __future__ import annotations

import io
import resource
import sys
import time
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from diffusers.utils import make_image_grid
from PIL import Image
from tqdm.auto import tqdm

from mogle.checkpoints import JUDGES, shipped
from mogle.labels import colorize
from mogle.metrics.judges import JUDGE_SIZE, load_judges
from mogle.training.encode import Encoder, Source
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
        self._drawn, self._last = False, time.monotonic()

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
        for place, (name, curve) in enumerate(self.curves.items(), start=1):
            axis = figure.add_subplot(1, len(self.curves), place, xlabel="step", ylabel=name)
            axis.plot(*zip(*curve, strict=True), marker="." if name != "loss" else None)
        return figure

    def show(self) -> None:
        """Draws in the notebook, over the drawing before."""
        from IPython.display import Image, display

        self._last = time.monotonic()
        picture = io.BytesIO()
        self.figure().savefig(picture, format="png", dpi=110)
        shown = Image(picture.getvalue(), alt=f"Loss over {len(self.curves['loss'])} steps.")
        display(shown, display_id=f"training-{id(self)}", update=self._drawn)
        self._drawn = True


class Watcher:
    """Called after every step. The bar shows loss, images/s, memory and the time left; in a notebook there is a plot.

    Every `settings.sample_every` steps the trainer's pipeline, which then needs a VAE, draws pictures of the first four
    masks. The shipped parser measures them where it can: on painted portraits of its own size.
    """

    def __init__(self, source: Source, encoder: Encoder) -> None:
        settings, notebook = encoder.settings, "ipykernel" in sys.modules
        self._plot = LivePlot() if notebook and find_spec("matplotlib") else None
        quiet = not (notebook or sys.stderr.isatty())
        self._bar = tqdm(total=settings.steps, desc="training", unit=" steps", disable=quiet)
        self._shown: dict[str, str] = {}
        self._parser: Any = None
        if settings.sample_every:  # all that sampling needs of the encoders, before they leave memory
            rows = range(min(4, len(source.ids)))
            self._label_maps = np.stack([source.label_map(row) for row in rows])
            tokens, index = encoder.masks(list(self._label_maps))
            self._inputs = (tokens[index], *encoder.captions([source.captions(row)[0] for row in rows]))
            if settings.data is None and encoder.size == (JUDGE_SIZE, JUDGE_SIZE):
                self._parser, _ = load_judges(shipped(JUDGES))

    def __call__(self, trainer: Trainer, facts: dict[str, float]) -> None:
        """After a step of the trainer: adds to the step's `facts`."""
        if (every := trainer.settings.sample_every) and trainer.step % every == 0:
            facts.update(self._sample(trainer))
        if not trainer.accelerator.is_main_process:
            return
        if self._plot is not None:
            self._plot.add(trainer.step, trainer.usual, facts.get("mask_accuracy"))
        facts["memory_gib"] = round(memory_gib(trainer.accelerator.device), 2)
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
        pipe, label_maps, pictures = trainer.pipe, self._label_maps, []
        conditions, states, pooled = (tensor.to(trainer.accelerator.device) for tensor in self._inputs)
        height, width = label_maps.shape[1:]
        pipe.set_progress_bar_config(disable=True)
        pipe.transformer.eval()
        with trainer.accelerator.autocast():
            for seed in SEEDS:
                pictures += pipe(
                    prompt_embeds=states, pooled_prompt_embeds=pooled, condition_tokens=conditions, height=height,
                    width=width, generator=[torch.Generator().manual_seed(seed) for _ in label_maps],
                ).images  # fmt: skip
        pipe.transformer.train()
        if trainer.accelerator.is_main_process:
            folder = trainer.out / "samples"
            folder.mkdir(parents=True, exist_ok=True)
            masks = [Image.fromarray(picture) for picture in colorize(label_maps)]
            sheet = make_image_grid([*masks, *pictures], rows=1 + len(SEEDS), cols=len(masks))
            sheet.save(folder / f"step-{trainer.step:06d}.png")
        if self._parser is None:
            return {}
        found = self._parser.parse(np.stack([np.asarray(picture) for picture in pictures]))
        return {"mask_accuracy": float((found == np.concatenate([label_maps] * len(SEEDS))).mean())}
