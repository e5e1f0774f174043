"""Pictures drawn while the notebook goes on answering: one worker, which can be watched and stopped, for all widgets.

A kernel hears of a click only while no cell runs, and a pipeline serves one at a time. So pictures are drawn by a
single thread, in the order in which they were asked for, and whoever stops one waits for at most one step.
"""

from __future__ import annotations

import base64
import io
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from PIL import Image

from mogle.errors import Cancelled, MogleError
from mogle.labels import colorize
from mogle.provenance import Recipe, save_picture
from mogle.sampling import OnStep, check_recipe, run, sized

#: What is told while a picture is drawn: the step, how many there are, and now and then a preview.
Tell = Callable[[int, int, Image.Image | None], None]
Result = TypeVar("Result")
_WORKER = ThreadPoolExecutor(1, "drawing")
_EVERY, _SHARE = 0.25, 0.2  # a preview each so many seconds, and in at most this share of the time


class Job(NamedTuple):
    """Work of the one thread: `stop` ends it within a step, `wait` returns when it has ended, however it did."""

    future: Future[Any]
    stopping: threading.Event

    @property
    def runs(self) -> bool:
        return not self.future.done()

    def stop(self) -> None:
        self.stopping.set()

    def wait(self, seconds: float | None = None) -> None:
        self.future.exception(seconds)


def start(work: Callable[[threading.Event], Any]) -> Job:
    """Hands work to the thread; it is given what to look at between two steps."""
    stopping = threading.Event()
    return Job(_WORKER.submit(work, stopping), stopping)


def now(work: Callable[[threading.Event], Result]) -> Result:
    """The same for a cell that waits; interrupting the kernel stops the work too."""
    if threading.current_thread().name.startswith("drawing"):
        return work(threading.Event())
    job = start(work)
    try:
        return job.future.result()
    finally:
        job.stop()


def watched(stopping: threading.Event, tell: Tell | None = None, every: float = _EVERY) -> OnStep:
    """What `mogle.sampling.run` calls after each step: it ends the run when that is wanted, and tells how far it is.

    With every=0 each step has its preview, else only as many as cost little of the time.
    """
    due = time.perf_counter()

    def on_step(step: int, steps: int, preview: Callable[[], list[Image.Image]]) -> None:
        nonlocal due
        if stopping.is_set():
            raise Cancelled
        if tell is None:
            return
        began, seen = time.perf_counter(), None
        if every == 0 or (began >= due and step < steps):  # after the last one comes the picture itself
            seen = preview()[0]
            due = began + max(every, (time.perf_counter() - began) / _SHARE)
        tell(step, steps, seen)

    return on_step


def final(pipe: Any, recipe: Recipe) -> Recipe:
    """The recipe as it is drawn: checked, at its size; a mask of background alone counts as none.

    Raises:
        MogleError: numbers that cannot work, or neither sentence nor mask.
    """
    mask = recipe.mask if recipe.mask is not None and recipe.mask.any() else None
    if not recipe.prompt and mask is None:
        raise MogleError("found neither a sentence nor a mask, expected at least one: paint a face, or describe one")
    if mask is not None and pipe.mogle is None:
        raise MogleError("found a mask but no adapter, expected pipe.load_mogle(folder) first")
    recipe = replace(recipe, prompt=recipe.prompt or None, mask=mask)
    check_recipe(recipe)
    return sized(recipe, pipe, "crop")


def draw(pipe: Any, recipe: Recipe) -> Image.Image:
    """The picture of a recipe, for a cell that waits for it.

    Raises:
        MogleError: see `final`.
    """
    recipe = final(pipe, recipe)
    return now(lambda stopping: run(pipe, [recipe], watched(stopping))[0])


# --- pictures as HTML ------------------------------------------------------------------------------------------------


def recipe_png(picture: Image.Image, recipe: Recipe, origin: Mapping[str, str] | None = None) -> bytes:
    """The bytes of a PNG with its recipe inside: what `mogle generate --like` and the web demo read."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "picture.png"
        save_picture(path, picture, recipe, dict(origin or {}))
        return path.read_bytes()


def data_url(picture: Image.Image | np.ndarray, form: str = "png") -> str:
    """A picture, or a label map in its colours, as an address that carries it; `form` is "png" or "jpeg"."""
    if isinstance(picture, np.ndarray):
        picture = Image.fromarray(colorize(picture) if picture.ndim == 2 else picture)
    file = io.BytesIO()
    picture.convert("RGB").save(file, format=form, **({"quality": 85} if form == "jpeg" else {}))
    return address(file.getvalue(), form)


def address(file: bytes, form: str = "png") -> str:
    """The bytes of a picture's file as an address that carries them, unchanged."""
    return f"data:image/{form};base64,{base64.b64encode(file).decode()}"


def figure(picture: Image.Image | np.ndarray | None, alt: str, below: str = "", form: str = "png") -> str:
    """A picture with a text for those who cannot see it, and a line below; None is an empty frame."""
    kind = ' class="exact"' if isinstance(picture, np.ndarray) else ""
    seen = '<div class="empty"></div>'
    if picture is not None:
        seen = f'<img{kind} src="{data_url(picture, form)}" alt="{escape(alt, quote=True)}">'
    return f'<figure class="mogle-picture">{seen}<figcaption>{escape(below)}</figcaption></figure>'


def row(figures: Sequence[str]) -> str:
    """Figures side by side, one below the other where there is no room."""
    return f'<div class="mogle-row">{"".join(figures)}</div>'


#: The looks of pictures and controls, in the colours of the page (JupyterLab, VS Code, Colab) or the system.
CSS = """
.mogle-play {
  --ink: var(--jp-ui-font-color1, var(--vscode-editor-foreground, var(--colab-primary-text-color, #1f2328)));
  --line: var(--jp-border-color1, var(--vscode-input-border, #8c959f)); color: var(--ink); max-width: 1180px;
  font: 14px/1.4 system-ui, sans-serif; overflow: hidden; }
.mogle-play .widget-html, .mogle-play .widget-html-content, .mogle-play .widget-label { color: var(--ink); }
.mogle-play .widget-html, .mogle-play .widget-html > .widget-html-content { height: auto; line-height: 1.4; }
.mogle-picture { margin: 0; max-width: 384px; color: var(--ink); }
.mogle-picture img, .mogle-picture .empty { display: block; width: 100%; aspect-ratio: auto; background: #8883; }
.mogle-picture .empty { aspect-ratio: 1; }
.mogle-picture img.exact { image-rendering: pixelated; }
.mogle-picture figcaption { font-size: 13px; overflow-wrap: anywhere; }
.mogle-row { display: flex; flex-wrap: wrap; gap: 12px; }
.mogle-row > .mogle-picture { flex: 1 1 150px; max-width: 300px; }
.mogle-play .mogle-side { flex: 1 1 330px; min-width: 0; }
.mogle-play .mogle-group { display: grid; grid-template-columns: 6.2em minmax(0, 1fr); gap: 6px; padding: 3px 0; }
.mogle-play .mogle-group > .widget-html { min-width: 0; margin: 0; font-size: 13px; line-height: 26px; }
.mogle-play .mogle-group .widget-html-content { line-height: 26px; }
.mogle-play .mogle-chips { gap: 4px; }
.mogle-play button.mogle-chip { width: auto; min-width: 0; height: 26px; line-height: 24px; margin: 0; padding: 0 9px;
  border: 1px solid var(--line); border-radius: 13px; font-size: 13px; }
.mogle-play button.mogle-chip.mod-active { background: #0b62d6; color: #fff; box-shadow: none; }
.mogle-play button.mogle-button { width: auto; min-width: 5em; padding: 0 10px; }
.mogle-play .mogle-note { border-left: 4px solid #D55E00; padding-left: 8px; }
.mogle-play button.mogle-button.mod-primary { background: #0b62d6; color: #fff; }
.mogle-play a { color: inherit; text-decoration: underline; }
.mogle-play .mogle-card { flex: 0 1 148px; min-width: 0; margin: 0; }
.mogle-play .mogle-card .mogle-picture { max-width: 140px; }
"""
