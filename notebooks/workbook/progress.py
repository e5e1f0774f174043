"""Pictures that appear while they are made: one display, filled from left to right, the same on every machine.

A text bar of progress would leave times and rates in a committed notebook. Here what is shown in the end is the result
itself, and in between one sees how far it is. Updates change the picture alone, never the text beside it. Noise makes
large PNGs, so these rows are JPEGs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any
from uuid import uuid4

import numpy as np
import torch
from PIL import Image

from workbook.exercises.tokens import unpack_latents
from workbook.figures import bundle, image_grid, jpeg


class Row:
    """A row of places for pictures, displayed at once; each picture that is added fills the next one.

    Args:
        columns: a title for each place.
        alt: for those who cannot see it; what the row shows when it is full.
        before: pictures that stand in front, under the first titles.
        cell: largest side of a picture in inches.
    """

    def __init__(self, columns: Sequence[str], *, alt: str, before: Sequence[Any] = (), cell: float = 2.2) -> None:
        self.columns, self.alt, self.cell = columns, alt, cell
        self.pictures: list[Any] = list(before)
        self._id = uuid4().hex
        self._draw(update=False)

    def add(self, picture: Any) -> None:
        """Fill the next place with what `workbook.figures.pixels` takes."""
        self.pictures.append(picture)
        self._draw(update=True)

    def _draw(self, update: bool) -> None:
        from IPython.display import display

        places = [*self.pictures, *[None] * (len(self.columns) - len(self.pictures))]
        data, metadata = bundle(jpeg(image_grid([places], columns=self.columns, cell=self.cell)), self.alt)
        display(data, metadata=metadata, raw=True, display_id=self._id, update=update)


def film(alt: str, frames: int = 7) -> Callable[..., dict[str, Any]]:
    """A `callback_on_step_end` for a pipeline: the first of its pictures as it is after some of the steps, in a row.

    Args:
        alt: what the row shows, for those who cannot see it.
        frames: how many of the steps are shown, the first and the last among them.
    """
    row, shown = None, list[int]()

    def after_step(pipe: Any, step: int, _time: Any, values: dict[str, Any]) -> dict[str, Any]:
        nonlocal row, shown
        if row is None:
            shown = sorted({round(number) for number in np.linspace(1, pipe.num_timesteps, frames)})
            row = Row([f"step {number}" for number in shown], alt=alt, cell=1.25)
        if step + 1 in shown:
            row.add(decoded(pipe.vae, values["latents"][:1]))
        return values

    return after_step


@torch.no_grad()
def decoded(vae: Any, tokens: torch.Tensor) -> Image.Image:
    """Latents of one square picture as FLUX handles them, (1, N, 64) -> the picture."""
    side = 2 * math.isqrt(tokens.shape[1])
    latents = unpack_latents(tokens, side, side).to(vae.dtype) / vae.config.scaling_factor + vae.config.shift_factor
    colours = vae.decode(latents).sample[0].float().clip(-1, 1).permute(1, 2, 0)
    return Image.fromarray(((colours + 1) * 127.5).round().to(torch.uint8).cpu().numpy())
