"""What happens on the page: each function takes what stands in its fields and gives what shall stand there.

Values come as they were sent, of whatever type; a `MogleError` reaches the page as a message (`mogle.demo.guard`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from mogle.demo.api import Endpoints
from mogle.demo.snippets import Example, data_url, file_url, shown
from mogle.demo.studio import Drawn
from mogle.demo.wishes import LIMITS, caption, chosen, fields_of, new_seed, read_wish, recipe_of
from mogle.errors import MogleError
from mogle.painter import pack, unpack
from mogle.provenance import read_picture

#: The fields that a recipe fills, in the page's order; the mask stands before them.
FIELDS = ("mode", "prompt", "seed", *LIMITS, "size")
RESULTS = 12  # of a session, in its gallery

Results = list[tuple[str, str]]  # file and caption, newest first


class Handlers:
    """The functions of the page, with what they work on."""

    def __init__(self, endpoints: Endpoints, examples: Sequence[Example]) -> None:
        self.endpoints, self.examples = endpoints, examples
        self.studio, self.shelf = endpoints.studio, endpoints.shelf

    async def generate(
        self, painted: Any, fresh: Any, results: Results, *fields: Any
    ) -> AsyncIterator[tuple[str, Results]]:
        """What is shown while a picture is drawn, and the session's results, at last with the new one."""
        given = dict(zip(FIELDS, fields, strict=True))
        if fresh is True or given["seed"] in (None, ""):
            given["seed"] = new_seed()
        mode, prompt = given.pop("mode"), given.pop("prompt")
        prompt, mask = chosen(mode, prompt, unpack(painted) if painted else None)
        recipe = recipe_of(read_wish(prompt=prompt, **given), mask, self.studio.side)
        address = ""
        yield shown(text="The first step ..."), results
        async for news in self.studio.draw(recipe):
            if isinstance(news, Drawn):
                path = str(self.shelf.keep(news.picture, news.recipe, self.studio.origin))
                _tell(news.notes)
                line = caption(news.recipe)
                yield shown(file_url(path), line), [(path, line), *results][:RESULTS]
            else:
                address = data_url(news.preview, "jpeg") if news.preview else address
                yield shown(address, f"Step {news.step} of {news.steps}", news.step, news.steps), results

    def finished(self, results: Results) -> tuple[Any, ...]:
        """What a new result changes beside its picture: gallery, what is at hand, download, seed."""
        path = results[_index(0, len(results))][0]
        return (
            [one for one, _ in results],
            path,
            gr.DownloadButton(value=path, interactive=True),
            gr.Button(interactive=True),
            str(read_picture(path)[1].seed),
        )

    def choose(self, results: Results, event: gr.SelectData) -> tuple[Any, ...]:
        """Shows an earlier result: picture, what is at hand, download."""
        path, line = results[_index(event.index, len(results))]
        return shown(file_url(self._still_there(path)), line), path, path

    def restore(self, path: Any) -> list[Any]:
        """Mask and fields as they were for the result at hand."""
        if not path:
            raise MogleError("there is no result yet")
        return self._filled(read_picture(self._still_there(path))[1])

    def open_result(self, file: Any) -> list[Any]:
        """A result that was downloaded earlier: its picture, then mask and fields as they were."""
        path, recipe = self.shelf.result(file)
        return [shown(file_url(path), caption(recipe)), *self._filled(recipe)]

    def open_mask(self, file: Any) -> dict[str, Any]:
        """A mask file on the painter."""
        return _told(self.endpoints.mask(file))

    async def open_photo(self, file: Any) -> dict[str, Any]:
        """A photograph, parsed, on the painter."""
        return _told(await self.endpoints.parse(file))

    def example(self, event: gr.EventData) -> tuple[Any, ...]:
        """An example's mask and sentence."""
        mask, prompt = self.examples[_index(getattr(event, "index", None), len(self.examples))]
        return pack(mask), prompt

    def _filled(self, recipe: Any) -> list[Any]:
        fields, notes = fields_of(recipe, self.studio.side)
        _tell(notes)
        painted = gr.skip() if recipe.mask is None else pack(recipe.mask)
        return [painted, *(fields[name] for name in FIELDS)]

    def _still_there(self, path: str) -> str:
        if not Path(path).is_file():
            raise MogleError(f"this result is no longer there: they are kept for {self.shelf.kept / 3600:g} hours")
        return path


def _index(index: Any, count: int) -> int:
    if type(index) is not int or not 0 <= index < count:
        raise MogleError(f"found {str(index)[:20]!r}, expected one of {count} that are there")
    return index


def _told(found: dict[str, Any]) -> dict[str, Any]:
    """What an endpoint found, its notes as messages on the page."""
    _tell(found.pop("notes"))
    return found


def _tell(notes: Sequence[str]) -> None:
    for note in dict.fromkeys(notes):
        gr.Warning(escape(note, quote=False))
