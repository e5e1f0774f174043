"""The loaded pipeline and the one thread that may use it: pictures step by step, and photographs parsed.

One thread, because a pipeline draws one picture at a time, and because each thread that computes with torch keeps
a set of helpers of its own.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from PIL import Image

from mogle.demo.notes import noted
from mogle.errors import Cancelled
from mogle.labels import resize_labels
from mogle.provenance import Recipe
from mogle.sampling import check_recipe, run, sized

if TYPE_CHECKING:
    from mogle.parsing import Parser
    from mogle.pipeline import FaceMoGLEPipeline

LARGEST = 1024  # pixels a side of the masks that photographs give
TOLD_EVERY = 0.1  # seconds: each step that is told costs some of the time of the next
PREVIEW_EVERY = 0.25
PREVIEW_SHARE = 0.1  # of the time, at most: to decode a preview may take as long as a step, or much longer
Result = TypeVar("Result")


@dataclass(frozen=True)
class Progress:
    """After some of the steps: its number from 1, how many there are, and what the picture may become."""

    step: int
    steps: int
    preview: Image.Image | None = None


@dataclass(frozen=True)
class Drawn:
    """A picture, the recipe at its final size, and what there is to say of it."""

    picture: Image.Image
    recipe: Recipe
    notes: list[str] = field(default_factory=list)


class Studio:
    """Draws with a pipeline that nobody else uses.

    Args:
        pipe: loaded, on its device.
        origin: what its pictures say about weights and machine, see `mogle.checkpoints.origin_of`.
        parser: makes masks of photographs.
    """

    def __init__(self, pipe: FaceMoGLEPipeline, origin: dict[str, str], parser: Parser) -> None:
        self.pipe, self.origin, self.parser = pipe, origin, parser
        pipe.set_progress_bar_config(disable=True)
        self._thread = ThreadPoolExecutor(1, "studio")

    @property
    def side(self) -> int:
        """Pixels on a side of the base's own pictures."""
        return self.pipe.default_sample_size * self.pipe.vae_scale_factor

    async def draw(self, recipe: Recipe) -> AsyncIterator[Progress | Drawn]:
        """Some steps of a picture, a preview with the first, and at last the picture.

        Who stops listening stops the work: within one step where it has begun, else before it begins.

        Raises:
            MogleError: before anything is computed, or as the pipeline says.
        """
        check_recipe(recipe)
        loop, news, stop = asyncio.get_running_loop(), asyncio.Queue[Progress | None](), threading.Event()

        def tell(item: Progress | None) -> None:
            loop.call_soon_threadsafe(news.put_nowait, item)

        job = self._thread.submit(self._work, recipe, stop, tell)
        job.add_done_callback(lambda _: tell(None))
        try:
            while (item := await news.get()) is not None:
                yield item
            yield job.result()
        finally:
            stop.set()

    async def compute(self, function: Callable[[], Result]) -> Result:
        """Another computation of the same thread, such as parsing a photograph."""
        return await asyncio.wrap_future(self._thread.submit(function))

    def label_map(self, path: Path) -> np.ndarray:
        """The label map of the face in a photograph or portrait, none of its sides above `LARGEST`.

        Raises:
            MogleError: what cannot be read, or no face.
        """
        from mogle.parsing import parse_face

        found = parse_face(path, self.parser).crop_labels
        shrink = max(1, max(found.shape) / LARGEST)
        return resize_labels(found, (round(found.shape[0] / shrink), round(found.shape[1] / shrink)), "stretch")

    def close(self) -> None:
        """Ends the thread when its last computation is done."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _work(self, recipe: Recipe, stop: threading.Event, tell: Callable[[Progress], None]) -> Drawn:
        due = told = time.perf_counter()

        def on_step(step: int, steps: int, preview: Callable[[], list[Image.Image]]) -> None:
            nonlocal due, told
            if stop.is_set():
                raise Cancelled
            began, picture = time.perf_counter(), None
            if began >= due and step < steps:  # after the last one comes the picture itself
                picture = preview()[0]
                cost = time.perf_counter() - began
                due = began + max(PREVIEW_EVERY, cost / PREVIEW_SHARE)
            if picture is not None or step == steps or began >= told + TOLD_EVERY:
                told = began
                tell(Progress(step, steps, picture))

        if stop.is_set():
            raise Cancelled
        with noted() as notes:
            recipe = sized(recipe, self.pipe, "crop" if recipe.height else None)
            picture = run(self.pipe, [recipe], on_step)[0]
        return Drawn(picture, recipe, notes)
