# No deferred annotations here: gradio reads the types of an endpoint's results from the function itself.
"""The endpoints for programs: the same as the page, with plain arguments.

from gradio_client import Client, handle_file
client = Client("http://127.0.0.1:7860")
picture, told = client.predict(prompt="She has blond hair.", mask=handle_file("mask.png"), api_name="/generate")
"""

import asyncio
from typing import Any

import gradio as gr
from gradio import FileData

from mogle.demo.shelf import Shelf
from mogle.demo.studio import Drawn, Studio
from mogle.demo.wishes import read_wish, recipe_of, told
from mogle.painter import pack, unpack

MODEL, FILES = "model", "files"  # what may run side by side: one computation of the model, a few readings of files


class Endpoints:
    """Functions behind the endpoints, with what they work on."""

    def __init__(self, studio: Studio, shelf: Shelf) -> None:
        self.studio, self.shelf = studio, shelf

    def register(self) -> None:
        """Adds the endpoints to the `gr.Blocks` that is being built."""
        for function, queue in ((self.generate, MODEL), (self.parse, MODEL), (self.mask, FILES), (self.reopen, FILES)):
            limit = 1 if queue == MODEL else 4
            about = " ".join((function.__doc__ or "").split())
            gr.api(
                function,
                api_name=function.__name__,
                api_description=about,
                concurrency_id=queue,
                concurrency_limit=limit,
            )

    async def generate(  # type: ignore[misc]  # a generator; gradio documents what it yields last
        self,
        prompt: str = "",
        mask: dict | None = None,
        seed: int = 0,
        steps: int = 28,
        guidance: float = 3.5,
        mask_guidance: float = 1.0,
        strength: float = 1.0,
        size: str = "",
    ) -> tuple[FileData, dict]:
        """Makes a face. Gives a PNG, which carries mask and settings, and the settings; before that, now and then,
        {"step", "steps"}. prompt: what the face looks like; empty for the mask alone. mask: a file of any form that
        `mogle generate --mask` takes, or what /mask, /parse and /reopen give, {"width", "height", "labels": the labels
        0 to 18 row by row, a byte each, in base64}; none for the sentence alone. size: a side in pixels or
        WIDTHxHEIGHT; the base's own where empty.
        """
        numbers = {"seed": seed, "steps": steps, "guidance": guidance, "mask_guidance": mask_guidance}
        wish = read_wish(prompt=prompt, strength=strength, size=size, **numbers)
        label_map, notes = await asyncio.to_thread(self._label_map, mask)
        async for news in self.studio.draw(recipe_of(wish, label_map, self.studio.side)):
            if isinstance(news, Drawn):
                path = self.shelf.keep(news.picture, news.recipe, self.studio.origin)
                yield FileData(path=str(path), orig_name=path.name), told(news.recipe) | {"notes": notes + news.notes}
            else:
                yield None, {"step": news.step, "steps": news.steps}

    async def parse(self, photo: dict) -> dict:
        """Parses a photograph or portrait, a file, to a mask: {"width", "height", "labels", "notes"}."""
        mask, notes = await self.studio.compute(lambda: self.shelf.photo(photo, self.studio.label_map))
        return pack(mask) | {"notes": notes}

    def mask(self, file: dict) -> dict:
        """Reads a mask file of any form: {"width", "height", "labels", "notes"}."""
        mask, notes = self.shelf.mask(file)
        return pack(mask) | {"notes": notes}

    def reopen(self, picture: dict) -> dict:
        """Reads the settings and the mask of a PNG that was made here or by `mogle generate`."""
        recipe = self.shelf.result(picture)[1]
        return told(recipe) | {"mask": None if recipe.mask is None else pack(recipe.mask)}

    def _label_map(self, mask: Any) -> tuple[Any, list[str]]:
        if mask is None:
            return None, []
        return (unpack(mask), []) if isinstance(mask, dict) and "labels" in mask else self.shelf.mask(mask)
