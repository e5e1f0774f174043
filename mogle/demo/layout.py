"""The page: what stands where, and which function each event calls."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from mogle.demo.api import FILES, MODEL, Endpoints
from mogle.demo.guard import Blocks
from mogle.demo.handlers import FIELDS, Handlers
from mogle.demo.shelf import Shelf
from mogle.demo.snippets import Example, buttons, shown
from mogle.demo.studio import Studio
from mogle.demo.wishes import BOTH, LIMITS, MASK, MAX_PROMPT, WORDS, Wish, new_seed
from mogle.painter import STYLE, classes, pack

TITLE = "Face-MoGLE"
_HERE = Path(__file__).parent
_DEFAULTS = {name: field.default for name, field in Wish.model_fields.items()}
_HELP = {
    "steps": "From noise to a picture; fewer are quicker.",
    "guidance": "How strongly the sentence acts.",
    "mask_guidance": "Guidance by the mask; 1 is none, more takes twice the time.",
    "strength": "How strongly the mask acts; 0 is not at all.",
}
#: Events that need no queue. Values come as they were sent: the functions check them themselves.
_QUICK: dict[str, Any] = {
    "queue": False,
    "show_progress": "hidden",
    "api_visibility": "private",
    "preprocess": False,
}
_CHOOSE = """element.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (button) trigger("click", { index: Number(button.dataset.index) });
});"""


def style() -> str:
    """The page's style sheet, after the painter's."""
    return STYLE.read_text(encoding="utf-8") + (_HERE / "page.css").read_text(encoding="utf-8")


def theme() -> Any:
    """Gradio's own look in the fonts of the system, for which nothing is loaded; small print that can be read."""
    found = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
    light, dark = "*neutral_600", "*neutral_300"
    return found.set(
        block_info_text_color=light, block_info_text_color_dark=dark,
        body_text_color_subdued=light, body_text_color_subdued_dark=dark,
    )  # fmt: skip


def build(studio: Studio, shelf: Shelf, examples: Sequence[Example]) -> Blocks:
    """The whole page with its endpoints, not yet served."""
    with Blocks(title=TITLE, analytics_enabled=False, fill_width=True) as page:
        gr.Markdown(f"# {TITLE}\nPaint a mask, write a sentence, see the face.", elem_id="title")
        with gr.Row(equal_height=False):
            with gr.Column(scale=5, min_width=320):
                parts = _mask_side(examples)
            with gr.Column(scale=4, min_width=320):
                parts |= _picture_side(examples)
        parts["results"], parts["at hand"] = gr.State([]), gr.State("")
        endpoints = Endpoints(studio, shelf)
        endpoints.register()  # first: they get the names that the functions of the page have too
        _connect(parts, Handlers(endpoints, examples))
        page.load(new_seed, None, parts["seed"], **_QUICK)
    return page


def _mask_side(examples: Sequence[Example]) -> dict[str, Any]:
    start = examples[0].mask if examples else np.zeros((128, 128), np.uint8)
    parts: dict[str, Any] = {
        "mask": gr.HTML(
            pack(start),
            html_template='<div class="mogle-painter-root"></div>',
            js_on_load=(_HERE / "mount.js").read_text(encoding="utf-8"),
            apply_default_css=False,
            elem_id="painter",
            classes=classes(),
        )
    }
    with gr.Row():
        for name in ("mask", "photo", "result"):
            parts[f"open {name}"] = gr.UploadButton(
                f"Open a {name}", file_types=["image"], size="sm", min_width=90, elem_id=f"open-{name}"
            )
    gr.Markdown(
        "A **mask** of the 19 classes in any form, a **photo** that is parsed and can then be corrected, or a "
        "**result** that was downloaded here, with its sentence and settings.",
        elem_classes="hint",
    )
    parts["examples"] = gr.HTML(
        buttons(examples), js_on_load=_CHOOSE, apply_default_css=False, visible=bool(examples), elem_id="examples"
    )
    return parts


def _picture_side(examples: Sequence[Example]) -> dict[str, Any]:
    prompt = examples[0].prompt if examples else ""
    parts: dict[str, Any] = {
        "mode": gr.Radio([BOTH, WORDS, MASK], value=BOTH, show_label=False, container=False, elem_id="mode"),
        "prompt": gr.Textbox(prompt, label="Sentence", lines=2, max_length=MAX_PROMPT, elem_id="prompt"),
    }
    with gr.Row():
        parts["generate"] = gr.Button("Generate", variant="primary", min_width=120, elem_id="generate")
        parts["cancel"] = gr.Button("Cancel", variant="stop", min_width=80, elem_id="cancel")
    parts["status"] = gr.HTML(
        "", apply_default_css=False, min_height=24, elem_id="status"
    )  # place in the queue, errors
    parts["shown"] = gr.HTML(shown(text="No picture yet."), apply_default_css=False, elem_id="shown")
    with gr.Row():
        parts["download"] = gr.DownloadButton(
            "Download picture, mask and settings", interactive=False, size="sm", min_width=200, elem_id="download"
        )
        parts["restore"] = gr.Button("Use its settings", interactive=False, size="sm", min_width=120, elem_id="restore")
    with gr.Accordion("Settings", open=False, elem_id="settings"):
        with gr.Row(equal_height=False):
            parts["seed"] = gr.Textbox(label="Seed", max_lines=1, max_length=19, min_width=150, elem_id="seed")
            with gr.Column(min_width=150):
                parts["shuffle"] = gr.Button("Shuffle", size="sm", elem_id="shuffle")
                parts["fresh"] = gr.Checkbox(False, label="New seed each time", container=False, elem_id="fresh")
        for name, (low, high) in LIMITS.items():
            step = 1 if name == "steps" else 0.1
            parts[name] = gr.Slider(
                low, high, _DEFAULTS[name], step=step, label=name.replace("_", " ").capitalize(), info=_HELP[name],
                elem_id=name,
            )  # fmt: skip
        parts["size"] = gr.Textbox(
            label="Size",
            info="A side in pixels or WIDTHxHEIGHT; the base's own where empty.",
            max_lines=1,
            elem_id="size",
        )
    gr.Markdown("Results of this session, kept for two hours:", elem_classes="hint")
    parts["gallery"] = gr.Gallery(
        show_label=False, columns=4, fit_columns=False, height="auto", object_fit="contain",
        allow_preview=False, buttons=[], interactive=False, elem_id="gallery",
    )  # fmt: skip
    return parts


def _connect(parts: dict[str, Any], handlers: Handlers) -> None:
    """Which function each event calls."""
    fields = [parts[name] for name in FIELDS]
    reading = _QUICK | {"queue": True, "concurrency_id": FILES, "concurrency_limit": 4}
    reading |= {"show_progress": "minimal", "show_progress_on": parts["status"]}
    modelled = reading | {"concurrency_id": MODEL, "concurrency_limit": 1}

    drawing = parts["generate"].click(
        handlers.generate,
        [parts["mask"], parts["fresh"], parts["results"], *fields],
        [parts["shown"], parts["results"]],
        **modelled,
    )
    drawing.failure(lambda: shown(text="No picture."), None, parts["shown"], **_QUICK)
    at_hand = [parts["at hand"], parts["download"]]
    drawing.success(
        handlers.finished, parts["results"], [parts["gallery"], *at_hand, parts["restore"], parts["seed"]], **_QUICK
    )
    parts["cancel"].click(lambda: shown(text="Cancelled."), None, parts["shown"], cancels=[drawing], **_QUICK)
    parts["gallery"].select(handlers.choose, parts["results"], [parts["shown"], *at_hand], **_QUICK)
    parts["restore"].click(handlers.restore, parts["at hand"], [parts["mask"], *fields], **reading)
    parts["shuffle"].click(new_seed, None, parts["seed"], **_QUICK)
    parts["examples"].click(handlers.example, None, [parts["mask"], parts["prompt"]], **_QUICK)
    parts["open mask"].upload(handlers.open_mask, parts["open mask"], parts["mask"], **reading)
    parts["open photo"].upload(handlers.open_photo, parts["open photo"], parts["mask"], **modelled)
    parts["open result"].upload(
        handlers.open_result, parts["open result"], [parts["shown"], parts["mask"], *fields], **reading
    )
