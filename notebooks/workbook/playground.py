"""The prompt playground: paint a mask, write a sentence, turn the knobs, and see the face, in a notebook.

Thin widgets around pure functions: sentences are changed in `workbook.sentences`, pictures are drawn by
`mogle.sampling` in the thread of `workbook.drawing`. Works with ipywidgets 7.7 (Colab) as with 8.
"""

from __future__ import annotations

import difflib
import random
import re
import threading
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from mogle.errors import Cancelled, MogleError
from mogle.painter import classes
from mogle.provenance import Recipe, mask_hash
from mogle.sampling import run
from workbook import sentences
from workbook.drawing import CSS, Job, address, figure, final, now, recipe_png, row, start, watched
from workbook.widgets import present

#: The sliders: name -> label, lowest, highest and step; whole numbers make a slider of whole numbers.
SLIDERS: dict[str, tuple[str, float, float, float]] = {
    "steps": ("steps", 1, 50, 1),
    "guidance": ("guidance", 0.0, 10.0, 0.5),
    "mask_guidance": ("mask guidance", 0.0, 5.0, 0.25),
    "strength": ("strength", 0.0, 2.0, 0.05),
}
#: What each of them is for, said when the pointer rests on it.
_TIPS = {
    "steps": "how many steps from noise to picture; 6 make a quick sketch",
    "guidance": "how strongly the sentence acts",
    "mask_guidance": "how far to go where the mask leads; 1 is the method as published, others take twice as long",
    "strength": "how much the mask counts in the attention; 0 ignores it, 1 is what was trained",
}
MAX_SEED = 2**31 - 1
_NOUNS = {"mask_guidance": "mask guidance", "prompt": "sentence"}


# --- pure functions --------------------------------------------------------------------------------------------------


def caption(recipe: Recipe) -> str:
    """What made a picture, in a line or two; numbers that are the usual ones are left out, seed and steps never."""
    parts = [f"seed {recipe.seed}", f"{recipe.steps} steps", f"guidance {recipe.guidance:g}"]
    parts += [f"{_NOUNS.get(name, name)} {getattr(recipe, name):g}" for name in ("mask_guidance", "strength")
              if getattr(recipe, name) != 1]  # fmt: skip
    if recipe.mask is None:
        parts.append("no mask")
    return f"{', '.join(parts)}. {recipe.prompt or '(mask alone)'}"


def mask_differences(before: np.ndarray | None, after: np.ndarray | None) -> str:
    """In which pixels two masks differ, and from which class to which most; "" where they are the same."""
    if before is None or after is None:
        return (
            ""
            if before is after
            else f"{'no mask' if before is None else 'a mask'} → " + ("no mask" if after is None else "a mask")
        )
    if before.shape != after.shape:
        (h, w), (i, j) = before.shape, after.shape
        return f"{w} x {h} → {j} x {i} pixels"
    changed = before != after
    if not changed.any():
        return ""
    pairs, counts = np.unique(np.stack([before[changed], after[changed]]), axis=1, return_counts=True)
    names = [row["name"] for row in classes()]
    a, b = pairs[:, counts.argmax()]
    count, most = int(changed.sum()), int(counts.max())
    whole = "" if most == count else f", {most} of them"
    return f"{count} pixel{'s' * (count > 1)}{whole} from {names[a]} to {names[b]}"


def sentence_differences(before: str | None, after: str | None) -> str:
    """Which words differ: “black” → “red”; "" where none does."""
    old, new = ((text or "").split() for text in (before, after))
    parts = []
    for kind, a, b, c, d in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if kind != "equal":
            gone, come = " ".join(old[a:b]).strip(".,"), " ".join(new[c:d]).strip(".,")
            parts.append(" → ".join(f"“{text}”" if text else "nothing" for text in (gone, come)))
    return ", ".join(parts)


def differences(a: Recipe, b: Recipe) -> list[str]:
    """Which settings differ, each in a line: "guidance: 3.5 → 5"; none where both give the same picture."""
    found = []
    for name in a.differences(b):
        old, new = getattr(a, name), getattr(b, name)
        if name == "mask":
            said = mask_differences(old, new)
        elif name == "prompt":
            said = sentence_differences(old, new)
        else:
            said = f"{old:g} → {new:g}" if isinstance(old, float) else f"{old} → {new}"
        found.append(f"{_NOUNS.get(name, name)}: {said}")
    return found


def file_name(recipe: Recipe) -> str:
    """A name for the picture's file: its seed, and a few letters that are others for another recipe."""
    words = repr({**vars(recipe), "mask": None if recipe.mask is None else mask_hash(recipe.mask)})
    return f"face-{recipe.seed}-{mask_hash(np.frombuffer(words.encode(), np.uint8)[None])[:6]}.png"


# --- the widget ------------------------------------------------------------------------------------------------------


class Made(NamedTuple):
    """A picture and what made it."""

    picture: Image.Image
    recipe: Recipe


class Playground:
    """Controls, a painter, and pictures. Every control is an attribute: set its `.value`, or call its `click()`.

    Args:
        pipe: with its adapter. The thread of `workbook.drawing` uses it; cells draw with `workbook.drawing.draw`, so
            that they wait for their turn.
        mask: label map to begin with, or a `MaskPainter`, which is then part of the playground; None is an empty one.
        prompt, seed, steps, guidance, mask_guidance, strength: what the controls say at the beginning.
        words: the words that the base's text encoders have seen, in small letters; None: nothing is said of words.
        origin: called once, when the first picture is kept: what its file says of weights and machine.
        keep: how many results the strip has.
    """

    def __init__(
        self, pipe: Any, mask: Any = None, prompt: str = "", *, seed: int = 0, steps: int = 28, guidance: float = 3.5,
        mask_guidance: float = 1.0, strength: float = 1.0, words: Collection[str] | None = None,
        origin: Callable[[], Mapping[str, str]] | None = None, keep: int = 12, folder: str | Path = "outputs",
    ) -> None:  # fmt: skip
        from mogle.painter.widget import MaskPainter

        self.pipe, self.words, self.keep, self.folder = pipe, words, keep, Path(folder)
        self._origin = origin
        self._known_origin: dict[str, str] | None = None if origin else {}
        pipe.set_progress_bar_config(disable=True)
        side = pipe.default_sample_size * pipe.vae_scale_factor
        self.painter = mask if isinstance(mask, MaskPainter) else MaskPainter(mask, None if mask is not None else side)
        self.results: list[Made] = []
        self.a: Made | None = None
        self.job: Job | None = None
        self._build(prompt, seed, (steps, guidance, mask_guidance, strength))
        self._read_prompt()

    # --- what is there to see ----------------------------------------------------------------------------------------

    def _build(self, prompt: str, seed: int, numbers: Sequence[float]) -> None:
        import ipywidgets as w

        wide, rows = w.Layout(width="auto"), w.Layout(flex_flow="row wrap", width="auto")
        self.prompt = w.Textarea(prompt, placeholder="Describe a face", rows=3, layout=wide)
        self.note, self.status, self.link = w.HTML(), w.HTML(), w.HTML()
        self.chips: dict[tuple[str, str], Any] = {}
        self.seed = w.BoundedIntText(seed, min=0, max=MAX_SEED, description="seed", layout=w.Layout(width="190px"))
        self.lock = w.Checkbox(True, description="keep it", indent=False, layout=w.Layout(width="auto"))
        self.sliders: dict[str, Any] = {}
        for (name, (label, low, high, step)), value in zip(SLIDERS.items(), numbers, strict=True):
            make = w.IntSlider if isinstance(step, int) else w.FloatSlider
            limits = {"min": low, "max": max(high, value), "step": step, "value": value}
            slider = make(**limits, description=label, continuous_update=False, layout=w.Layout(width="98%"))
            slider.style.description_width = "8em"
            self.sliders[name] = slider
        self.steps, self.guidance, self.mask_guidance, self.strength = self.sliders.values()

        def button(name: str, tip: str, style: str = "") -> Any:
            made = w.Button(description=name, tooltip=tip, button_style=style, layout=w.Layout(width="auto"))
            made.add_class("mogle-button")
            return made

        self.shuffle = button("Shuffle", "another seed")
        self.generate = button("Generate", "draw what mask, sentence and knobs say", "primary")
        self.stop = button("Stop", "ends the picture that is being drawn, within one step")
        self.keep_a = button("Keep as A", "the picture that is shown becomes A, to compare with")
        self.compare = button("A against B", "draws what the controls say now as B, with A's seed")
        self.save = button("Save", f"writes the picture that is shown, with its recipe inside, into {self.folder}/")
        self.picture = w.HTML(figure(None, "", "No picture yet"))
        self.progress = w.IntProgress(0, min=0, max=1, layout=w.Layout(width="98%", visibility="hidden"))
        self.progress.style.bar_color = "#0b62d6"
        self.ab = w.HTML()
        self.strip = w.Box(layout=w.Layout(flex_flow="row wrap", width="auto"))

        more = w.Accordion([self._groups(False), self._groups(True)], layout=wide)
        for i, title in enumerate(("Only the sentence can say", "The mask shows it, too")):
            more.set_title(i, title)
        more.selected_index = None
        self.more = more
        tips = w.HTML(
            "<details><summary>What the knobs do</summary><ul>"
            + "".join(f"<li><b>{SLIDERS[name][0]}</b>: {tip}</li>" for name, tip in _TIPS.items())
            + "</ul></details>"
        )
        seeds = w.Box([self.seed, self.shuffle, self.lock], layout=rows)
        actions = w.Box([self.generate, self.stop, self.save, self.keep_a, self.compare], layout=rows)
        side = [self.prompt, self.note, more, seeds, *self.sliders.values(), tips]
        controls, seen = w.VBox(side), w.VBox([actions, self.progress, self.picture, self.status, self.link])
        for part in (self.painter, controls, seen):
            part.add_class("mogle-side")
        self.box = w.VBox([
            w.HTML(f"<style>{CSS}</style>"), w.Box([self.painter, controls, seen], layout=rows), self.ab, self.strip
        ])  # fmt: skip
        self.box.add_class("mogle-play")

        self.prompt.observe(lambda _: self._read_prompt(), "value")
        self.shuffle.on_click(lambda _: self._shuffle())
        self.generate.on_click(lambda _: self._click([None]))
        self.stop.on_click(lambda _: self.job and self.job.stop())
        self.save.on_click(lambda _: self._save())
        self.keep_a.on_click(lambda _: self._keep_a())
        self.compare.on_click(lambda _: self._click(["A", "B"]))
        self._busy(False)

    def _groups(self, in_mask: bool) -> Any:
        """The chips of all attributes that the mask shows, or does not show."""
        import ipywidgets as w

        groups: dict[str, list[Any]] = {}
        for name, values in sentences.chips(in_mask).items():
            group = groups.setdefault(sentences.group_name(name), [])
            for value in values:
                chip = w.ToggleButton(
                    False, description=sentences.chip_name(name, value), layout=w.Layout(width="auto")
                )
                chip.add_class("mogle-chip")
                chip.observe(partial(self._toggle, name, value), "value")
                self.chips[name, value] = chip
                group.append(chip)
        boxes = []
        for title, chips in groups.items():
            box = w.Box(chips, layout=w.Layout(flex_flow="row wrap", width="auto"))
            box.add_class("mogle-chips")
            boxes.append(w.Box([w.HTML(escape(title)), box], layout=w.Layout(width="auto")))
            boxes[-1].add_class("mogle-group")
        return w.VBox(boxes)

    # --- sentence and seed -------------------------------------------------------------------------------------------

    def _read_prompt(self) -> None:
        """Chips and note follow the sentence, whoever wrote it."""
        facts = sentences.read_caption(self.prompt.value)
        self._following = True  # chips that follow are not clicked
        try:
            for (name, value), chip in self.chips.items():
                chip.value = facts.get(name) == value
        finally:
            self._following = False
        text = "" if self.words is None else sentences.note_on(self.prompt.value, self.words)
        self.note.value = f'<div class="mogle-note" role="status">{escape(text)}</div>' if text else ""

    def _toggle(self, name: str, value: str, change: Any) -> None:
        if not self._following:
            self.prompt.value = sentences.toggled(self.prompt.value, name, value)
            self._read_prompt()  # also where the sentence stays the same

    def _shuffle(self) -> None:
        self.seed.value = random.randrange(1_000_000)

    # --- drawing -----------------------------------------------------------------------------------------------------

    def recipe(self) -> Recipe:
        """What the controls and the painter say now, at its final size.

        Raises:
            MogleError: neither sentence nor mask.
        """
        numbers = {name: slider.value for name, slider in self.sliders.items()}
        mask = self.painter.label_map
        return final(self.pipe, Recipe(self.prompt.value.strip(), mask, self.seed.value, height=0, width=0, **numbers))

    def draw(self) -> Made:
        """Draws what the controls say, while the cell waits."""
        recipe = self.recipe()
        self._work([(None, recipe)])
        return self.results[0]

    def wait(self, seconds: float = 300) -> None:
        """Waits until nothing is being drawn."""
        if self.job is not None:
            self.job.wait(seconds)

    def _click(self, names: Sequence[str | None]) -> None:
        """Begins to draw one picture, or A and B."""
        if self.job is not None and self.job.runs:
            return
        if names == [None] and not self.lock.value:
            self._shuffle()
        try:
            with warnings.catch_warnings(record=True, action="always") as notes:
                wanted = self.recipe()
            todo: list[tuple[str | None, Recipe]] = [(None, wanted)]
            if names != [None]:
                if self.a is None:
                    raise MogleError("there is no A yet: draw a picture, then keep it as A")
                todo = [("A", self.a.recipe), ("B", replace(wanted, seed=self.a.recipe.seed))]
        except MogleError as error:
            self._say(str(error), wrong=True)
            return
        self._say(" ".join(str(note.message) for note in notes))
        self._busy(True)
        self.job = start(partial(self._guarded, todo))

    def _guarded(self, todo: Sequence[tuple[str | None, Recipe]], stopping: threading.Event) -> None:
        """Draws in the thread; whatever goes wrong there is said."""
        try:
            self._draw(todo, stopping)
        except Cancelled:
            self._say("Stopped.")
        except MogleError as error:
            self._say(str(error), wrong=True)
        except Exception as error:
            self._say(f"It went wrong: {type(error).__name__}: {error}", wrong=True)
        finally:
            self._busy(False)

    def _work(self, todo: Sequence[tuple[str | None, Recipe]]) -> None:
        now(partial(self._draw, todo))

    def _draw(self, todo: Sequence[tuple[str | None, Recipe]], stopping: threading.Event) -> None:
        pair: list[Made] = []
        for name, recipe in todo:
            if name == "A" and self.a is not None:
                pair.append(self.a)  # it is there already, and the same recipe gives the same picture
                continue
            if stopping.is_set():
                raise Cancelled
            picture = run(self.pipe, [recipe], watched(stopping, self._tell))[0]
            made = Made(picture, recipe)
            self._add(made)
            pair.append(made)
        if len(pair) == 2:
            self._show_pair(*pair)

    def _tell(self, step: int, steps: int, preview: Image.Image | None) -> None:
        self.progress.max, self.progress.value = steps, step
        if preview is not None:
            text = f"step {step} of {steps}"
            self.picture.value = figure(preview, f"a preview, {text}", text, "jpeg")

    def _busy(self, busy: bool) -> None:
        for button in (self.generate, self.compare, self.keep_a, self.save):
            button.disabled = busy
        self.stop.disabled = not busy
        self.progress.value = 0
        self.progress.layout.visibility = "visible" if busy else "hidden"
        if not busy:
            self.compare.disabled = self.a is None
            self.keep_a.disabled = self.save.disabled = not self.results
            if self.results:
                self._show(self.shown)

    def _say(self, text: str, wrong: bool = False) -> None:
        kind = ' class="mogle-note"' if wrong else ""
        self.status.value = f'<div{kind} role="status">{escape(text)}</div>' if text else ""

    # --- results -----------------------------------------------------------------------------------------------------

    def _add(self, made: Made) -> None:
        import ipywidgets as w

        self.results = [made, *self.results][: self.keep]
        back = w.Button(
            description="Restore", tooltip=f"back to: {caption(made.recipe)}", layout=w.Layout(width="auto")
        )
        back.on_click(lambda _: self.restore(made))
        card = w.VBox([w.HTML(figure(made.picture, caption(made.recipe), caption(made.recipe), "jpeg")), back])
        card.add_class("mogle-card")
        cards = (card, *self.strip.children)
        self.strip.children = cards[: self.keep]
        for old in cards[self.keep :]:
            for widget in (*old.children, old):
                widget.close()
        self.shown = made
        self._show(made)

    def _show(self, made: Made) -> None:
        self.shown = made
        self.picture.value = figure(made.picture, f"a face, drawn with {caption(made.recipe)}", caption(made.recipe))
        self.link.value = self._link(made)

    def _link(self, made: Made) -> str:
        file = recipe_png(made.picture, made.recipe, self.origin())
        name = file_name(made.recipe)
        return f'<a download="{name}" href="{address(file)}">Download {name}</a> (its recipe is inside)'

    def origin(self) -> Mapping[str, str]:
        """What files say of weights and machine; found out once."""
        if self._known_origin is None:
            assert self._origin is not None
            self._known_origin = dict(self._origin())
        return self._known_origin

    def restore(self, made: Made) -> None:
        """Controls and painter say what made a picture, and the picture is shown."""
        recipe = made.recipe
        for name, slider in self.sliders.items():
            value = getattr(recipe, name)
            slider.min, slider.max = min(slider.min, value), max(slider.max, value)
            slider.value = value
        self.prompt.value, self.seed.value = recipe.prompt or "", recipe.seed
        self.painter.label_map = (
            np.zeros((recipe.height, recipe.width), np.uint8) if recipe.mask is None else recipe.mask
        )
        self._show(made)
        self._say("Controls and mask are those of this picture.")

    def _save(self) -> None:
        path = self.folder / file_name(self.shown.recipe)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(recipe_png(self.shown.picture, self.shown.recipe, self.origin()))
        except OSError as error:
            self._say(f"{path.name} cannot be saved: {error.strerror}", wrong=True)
        else:
            self._say(f"Saved as {path}, with its recipe inside.")

    def _keep_a(self) -> None:
        self.a = self.shown
        self.compare.disabled = False
        self.ab.value = row([self._half("A", self.a), figure(None, "", "B: change something, then A against B")])

    def _half(self, name: str, made: Made) -> str:
        return figure(made.picture, f"picture {name}: {caption(made.recipe)}", f"{name}: {caption(made.recipe)}")

    def _show_pair(self, a: Made, b: Made) -> None:
        lines = differences(a.recipe, b.recipe) or [
            "nothing: change a knob, the sentence or the mask, and compare again"
        ]
        said = "".join(f"<li>{escape(line)}</li>" for line in lines)
        self.ab.value = row([self._half("A", a), self._half("B", b)]) + f"<p>From A to B:</p><ul>{said}</ul>"

    # --- where no kernel runs ----------------------------------------------------------------------------------------

    def display(self, alt: str) -> None:
        """Shows the playground; mask and picture of its beginning, drawn now, are what is seen where no kernel runs."""
        from workbook.figures import image_grid, png

        made = self.draw()
        shown = image_grid([[made.recipe.mask, made.picture]], columns=["mask", "picture"], cell=1.9)
        present(self.box, png(shown), alt)
        self._busy(False)


def known_words() -> set[str]:
    """The words that the tiny base's text encoders have learned from."""
    from mogle.tiny.portraits.captions import vocabulary

    return {word for word in vocabulary() if re.match(r"[a-z]", word)}


def playground(
    course: Any, pipe: Any = None, mask: Any = None, prompt: str = "", *, tier: str | None = None,
    dtype: str | None = None, **options: Any,
) -> Playground:  # fmt: skip
    """A `Playground` of the course's own base and adapter: it knows their words, and its files say what made them.

    Without a pipeline one is chosen and loaded as by `mogle generate` (`tier`, `dtype`), so that it plays with
    FLUX.1-dev where a GPU and the weights are there.
    """
    from mogle.checkpoints import chosen_weights, load_chosen, origin_of

    held, base, adapter = (None, course.base, course.adapter) if pipe is not None else chosen_weights(tier)
    if pipe is None:
        pipe = load_chosen(held, base, adapter, dtype=dtype, prompts=[prompt])
    tiny = held is None or held.base is None  # FLUX.1-dev's encoders know every word
    own = {"words": known_words() if tiny else None, "origin": lambda: origin_of(pipe, base, adapter)}
    return Playground(pipe, mask, prompt, **{**own, **options})
