"""The gate at work: its weights at every step, who leads where, and a picture without some of the experts.

`watch_gate` records a run; `GateMaps` shows it in the browser; `GateViewer` adds switches for the experts.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from functools import partial
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from PIL import Image

from mogle.errors import Cancelled, MogleError
from mogle.labels import LABELS, PALETTE
from mogle.provenance import Recipe
from mogle.sampling import run
from workbook.drawing import CSS, Job, Tell, data_url, figure, final, now, row, start, watched
from workbook.figures import EXPERTS, MAP, image_grid, png
from workbook.widgets import present

#: A colour for each expert: light gray for the global one, the classes' own for the others.
COLORS = np.concatenate([np.full((1, 3), 217, np.uint8), PALETTE])
#: Why the weights that are left are made to sum to 1 again.
WHY = (
    "With this, the weights of the experts that are left sum to 1 again, as the transformer has always seen them: you "
    "see who is missing. Without it the whole condition gets weaker as well, and you see both at once."
)


class Watched(NamedTuple):
    """A run that was looked at: the picture, and for each step the weights (N, 20) and a preview."""

    picture: Image.Image
    recipe: Recipe
    weights: np.ndarray  # float32 (steps, N, 20)
    previews: list[Image.Image]

    @property
    def places(self) -> tuple[int, int]:
        """Rows and columns of places, one token each."""
        return self.recipe.height // 16, self.recipe.width // 16


# --- pure functions --------------------------------------------------------------------------------------------------


def silenced(weights: Any, off: Collection[int], renormalise: bool = True) -> Any:
    """Gate weights (..., 20) with those of the experts `off` set to 0; the others sum to 1 again, if so wished.

    Raises:
        MogleError: no expert would be left.
    """
    if len(set(off)) >= weights.shape[-1]:
        raise MogleError("found all experts turned off, expected at least one that speaks")
    kept = weights * 1
    kept[..., sorted(off)] = 0
    return kept / kept.sum(-1)[..., None] if renormalise else kept


def dominant(weights: np.ndarray) -> np.ndarray:
    """Gate weights (..., 20) -> the expert with the largest one (...)."""
    return np.asarray(weights).argmax(axis=-1)


def change_by_class(before: Image.Image, after: Image.Image, mask: np.ndarray) -> dict[str, float]:
    """By how many of 255 gray levels two pictures differ inside each class of a mask (H, W), most first."""
    gap = difference(before, after)
    found = {LABELS[label]: float(gap[mask == label].mean()) for label in np.unique(mask)}
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def difference(before: Image.Image, after: Image.Image) -> np.ndarray:
    """By how many of 255 gray levels two pictures of one size differ, (H, W), the mean of the three channels."""
    return np.abs(np.asarray(before, float) - np.asarray(after, float)).mean(axis=-1)


def named(off: Collection[int]) -> str:
    """The experts that are off, by name."""
    return ", ".join(EXPERTS[expert] for expert in sorted(off)) or "none"


# --- runs ------------------------------------------------------------------------------------------------------------


@contextmanager
def without_experts(pipe: Any, off: Collection[int], renormalise: bool = True) -> Iterator[None]:
    """Inside the block the pipeline draws without some experts.

    Raises:
        MogleError: no expert would be left; a number that is no expert's; or the pipeline has no gate.
    """
    if wrong := [expert for expert in off if not 0 <= expert < len(EXPERTS)]:
        raise MogleError(f"found expert {wrong[0]}, expected 0 ({EXPERTS[0]}) to {len(EXPERTS) - 1} ({EXPERTS[-1]})")
    if len(set(off)) == len(EXPERTS):
        raise MogleError("found all experts turned off, expected at least one that speaks")
    gate = _gate(pipe)
    if not off:  # not even a division by one: the pictures stay the same, bit for bit
        yield
        return
    hook = gate.register_forward_hook(lambda _module, _inputs, weights: silenced(weights, off, renormalise))
    try:
        yield
    finally:
        hook.remove()


def watch_gate(
    pipe: Any, recipe: Recipe, off: Collection[int] = (), renormalise: bool = True, *, tell: Tell | None = None,
    stopping: threading.Event | None = None,
) -> Watched:  # fmt: skip
    """Draws a recipe and records what the gate does at each step, for a cell that waits for it.

    Args:
        recipe: with a mask; see `workbook.drawing.final`.
        off: experts that are turned off, 0 is the global one.
        tell, stopping: for a caller in the drawing thread.

    Raises:
        MogleError: no mask, or see `without_experts`.
    """
    recipe = final(pipe, recipe)
    if recipe.mask is None:
        raise MogleError("found no mask, expected one: without it there is nothing for the gate to weigh")
    if stopping is None:
        return now(lambda stop: watch_gate(pipe, recipe, off, renormalise, tell=tell, stopping=stop))
    seen: list[np.ndarray] = []
    previews: list[Image.Image] = []

    def keep(step: int, steps: int, preview: Image.Image | None) -> None:
        if preview is not None:
            previews.append(preview)
        if tell is not None:
            tell(step, steps, preview)

    with without_experts(pipe, off, renormalise):
        hook = _gate(pipe).register_forward_hook(
            lambda _module, _inputs, weights: seen.append(weights[0].float().cpu().numpy().copy())
        )
        try:
            picture = run(pipe, [recipe], watched(stopping, keep, every=0))[0]
        finally:
            hook.remove()
    return Watched(picture, recipe, np.stack(seen), previews)


def _gate(pipe: Any) -> Any:
    gate = getattr(pipe.mogle, "gating", None)
    if gate is None:
        raise MogleError("found a pipeline without a gate, expected one with an adapter: pipe.load_mogle(folder)")
    return gate


# --- figures ---------------------------------------------------------------------------------------------------------


def step_figure(run: Watched, step: int) -> Any:
    """The 20 maps of a step, from 1, and in the last place who leads where, in the classes' colours."""
    maps = run.weights[step - 1].T.reshape(-1, *run.places)
    pictures: list[Any] = [*maps, COLORS[dominant(run.weights[step - 1]).reshape(run.places)]]
    names = [*EXPERTS, "who leads (gray: global)"]
    grid, captions = ([list(what[i : i + 7]) for i in range(0, 21, 7)] for what in (pictures, names))
    leading = sorted(
        {int(expert) - 1 for expert in dominant(run.weights[step - 1])} - {-1}
    )  # gray is named in the text
    return image_grid(grid, captions=captions, labels=leading, scale=(0.0, float(run.weights.max())), bar="weight")


# --- widgets ---------------------------------------------------------------------------------------------------------


def gate_maps_widget(run: Watched) -> Any:
    """An anywidget that steps through a run: `.step` is the step, from 1; see `gates.js`."""
    import anywidget
    import traitlets

    class GateMaps(anywidget.AnyWidget):
        _esm = Path(__file__).with_name("gates.js")
        _css = Path(__file__).with_name("gates.css")
        _ipython_display_ = None
        step = traitlets.Int(1, min=1, max=len(run.weights)).tag(sync=True)
        steps = traitlets.Int().tag(sync=True)
        rows = traitlets.Int().tag(sync=True)
        columns = traitlets.Int().tag(sync=True)
        names: Any = traitlets.List().tag(sync=True)
        colors: Any = traitlets.List().tag(sync=True)
        scale: Any = traitlets.List().tag(sync=True)
        weights = traitlets.Bytes().tag(sync=True)
        pictures: Any = traitlets.List().tag(sync=True)
        mask = traitlets.Unicode().tag(sync=True)

    assert run.recipe.mask is not None
    ramp = matplotlib.colormaps[MAP](np.arange(256), bytes=True)[:, :3]
    packed = (run.weights * 65535).round().astype("<u2").tobytes()
    rows, columns = run.places
    return GateMaps(
        steps=len(run.weights), rows=rows, columns=columns, names=list(EXPERTS), colors=_hex(COLORS), scale=_hex(ramp),
        weights=packed, pictures=[data_url(one, "jpeg") for one in run.previews], mask=data_url(run.recipe.mask),
    )  # fmt: skip


def _hex(colors: np.ndarray) -> list[str]:
    return ["#{:02x}{:02x}{:02x}".format(*map(int, color)) for color in colors]


class GateViewer:
    """A run to step through, and switches for the experts: draws the same recipe without those that are off.

    Every control is an attribute: `switches` (20 checkboxes, on), `renormalise`, `draw`, `stop`, `all_on`.
    """

    def __init__(self, pipe: Any, run: Watched) -> None:
        import ipywidgets as w

        self.pipe, self.run = pipe, run
        self.without: Image.Image | None = None
        self.job: Job | None = None
        self.maps = gate_maps_widget(run)
        slim, rows = w.Layout(width="auto", min_width="8em"), w.Layout(flex_flow="row wrap", width="auto")
        self.switches = [w.Checkbox(True, description=name, indent=False, layout=slim) for name in EXPERTS]
        self.renormalise = w.Checkbox(True, description="renormalise", indent=False, layout=w.Layout(width="auto"))

        def button(name: str, style: str = "") -> Any:
            made = w.Button(description=name, button_style=style, layout=w.Layout(width="auto"))
            made.add_class("mogle-button")
            return made

        self.draw, self.stop, self.all_on = button("Draw without them", "primary"), button("Stop"), button("All on")
        self.status, self.result = w.HTML(), w.HTML()
        why = w.HTML(f"<small>{escape(WHY)}</small>")
        title = w.HTML("<b>Experts that may speak</b>")
        actions = w.Box([self.draw, self.stop, self.all_on, self.renormalise], layout=rows)
        parts = [self.maps, title, w.Box(self.switches, layout=rows), actions, why, self.status, self.result]
        self.box = w.VBox([w.HTML(f"<style>{CSS}</style>"), *parts])
        self.box.add_class("mogle-play")
        self.draw.on_click(lambda _: self._click())
        self.stop.on_click(lambda _: self.job and self.job.stop())
        self.all_on.on_click(lambda _: self._all_on())
        self._busy(False)

    @property
    def off(self) -> list[int]:
        """The experts that are turned off."""
        return [expert for expert, switch in enumerate(self.switches) if not switch.value]

    def wait(self, seconds: float = 300) -> None:
        """Waits until nothing is being drawn."""
        if self.job is not None:
            self.job.wait(seconds)

    def _all_on(self) -> None:
        for switch in self.switches:
            switch.value = True

    def _click(self) -> None:
        if self.job is not None and self.job.runs:
            return
        off = self.off
        if not off or len(off) == len(EXPERTS):
            self._say("Turn some experts off first." if not off else "Leave at least one expert on.")
            return
        self._busy(True)
        self.job = start(partial(self._work, off, self.renormalise.value))

    def _work(self, off: list[int], renormalise: bool, stopping: threading.Event) -> None:
        try:
            tell = lambda step, steps, _preview: self._say(f"step {step} of {steps}")  # noqa: E731
            with without_experts(self.pipe, off, renormalise):
                picture = run(self.pipe, [self.run.recipe], watched(stopping, tell))[0]
            self.without = picture
            self.result.value = compared(self.run, picture, off, renormalise)
            self._say("")
        except Cancelled:
            self._say("Stopped.")
        except Exception as error:
            self._say(f"It went wrong: {error}")
        finally:
            self._busy(False)

    def _busy(self, busy: bool) -> None:
        self.draw.disabled, self.stop.disabled = busy, not busy

    def _say(self, text: str) -> None:
        self.status.value = f'<div role="status">{escape(text)}</div>' if text else ""

    def display(self, alt: str) -> None:
        """Shows the viewer; the maps of the step in the middle are what is seen where no kernel runs."""
        self.maps.step = (len(self.run.weights) + 1) // 2
        present(self.box, png(step_figure(self.run, self.maps.step)), alt)


def compared(run: Watched, without: Image.Image, off: Collection[int], renormalise: bool) -> str:
    """As HTML: the picture with all experts, the one without some, where they differ, and by how much."""
    assert run.recipe.mask is not None
    gap = difference(run.picture, without)
    gray = Image.fromarray((gap * 255 / max(gap.max(), 1)).round().astype(np.uint8))
    most = list(change_by_class(run.picture, without, run.recipe.mask).items())[:3]
    named_most = ", ".join(f"{name} {value:.0f}" for name, value in most)
    how = "renormalised" if renormalise else "not renormalised"
    figures = [
        figure(run.picture, "the picture with all experts", "all experts"),
        figure(without, f"the picture without {named(off)}", f"without {named(off)}; {how}"),
        figure(gray, "where both differ, bright for much", f"where they differ: by {gap.mean():.1f} of 255 on average"),
    ]
    return row(figures) + f"<p>Most, in gray levels inside the mask's classes: {escape(named_most)}.</p>"
