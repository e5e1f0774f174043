"""Pieces of HTML of the page. What users wrote comes in escaped: a snippet goes into the page as it is."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import numpy as np
from PIL import Image

from mogle.labels import colorize

THUMBNAIL = 64  # pixels


class Example(NamedTuple):
    """A mask to begin with, and a sentence that goes with it."""

    mask: np.ndarray
    prompt: str


def data_url(picture: Image.Image, form: str) -> str:
    """A picture as an address that carries it; `form` is "jpeg" or "png"."""
    packed = io.BytesIO()
    picture.convert("RGB").save(packed, format=form, **({"quality": 80} if form == "jpeg" else {}))
    return f"data:image/{form};base64,{base64.b64encode(packed.getvalue()).decode()}"


def file_url(path: str | Path) -> str:
    """Where the page finds a file of the demo's folder, from the page's own address on."""
    return f"gradio_api/file={quote(str(path))}"


def shown(address: str = "", text: str = "", step: int = 0, steps: int = 0) -> str:
    """A picture or a preview of it, a line below, and how far it is; without an address an empty frame."""
    picture = f'<img src="{escape(address)}" alt="{escape(text)}">' if address else '<div class="empty"></div>'
    bar = f'<progress max="{steps}" value="{step}"></progress>' if steps else ""
    return f'<figure class="shown">{picture}<figcaption>{escape(text)}{bar}</figcaption></figure>'


def buttons(examples: Sequence[Example]) -> str:
    """A button for each example: its mask in colours, and its sentence."""
    made = []
    for index, (mask, prompt) in enumerate(examples):
        small = Image.fromarray(colorize(mask)).resize((THUMBNAIL, THUMBNAIL), Image.Resampling.NEAREST)
        picture = f'<img src="{data_url(small, "png")}" alt="" width="{THUMBNAIL}" height="{THUMBNAIL}">'
        title = escape(prompt)
        made.append(
            f'<button type="button" data-index="{index}" title="{title}">{picture}<span>{title}</span></button>'
        )
    return f'<div class="examples" role="group" aria-label="Examples">{"".join(made)}</div>'
