"""What somebody asks for, checked, becomes a recipe; and a recipe becomes what stands in the fields of the page."""

from __future__ import annotations

import secrets
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mogle.errors import MogleError
from mogle.provenance import Recipe

#: The least and the most that may be asked for; the page's sliders end there too.
LIMITS: dict[str, tuple[float, float]] = {
    "steps": (1, 100),
    "guidance": (0, 20),
    "mask_guidance": (0, 10),
    "strength": (0, 5),
}
MAX_PROMPT = 2000  # characters; what a base reads of them is said by itself
MAX_AREA = 1024**2  # pixels of a picture, or the base's own size where that is more
BOTH, WORDS, MASK = "Mask and sentence", "Sentence alone", "Mask alone"


def _within(name: str) -> Any:
    low, high = LIMITS[name]
    return Field(ge=low, le=high)


class Wish(BaseModel):
    """The words and numbers of a request, whoever sent it; beside them stands the mask."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, str_strip_whitespace=True)

    prompt: Annotated[str, Field(max_length=MAX_PROMPT)] = ""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    steps: Annotated[int, _within("steps")] = 28
    guidance: Annotated[float, _within("guidance")] = 3.5
    mask_guidance: Annotated[float, _within("mask_guidance")] = 1.0
    strength: Annotated[float, _within("strength")] = 1.0
    size: Annotated[str, Field(pattern=r"^(\d{1,4}(x\d{1,4})?)?$")] = ""


def read_wish(**values: Any) -> Wish:
    """A request's values, of whatever type they are; None is as good as left out.

    Raises:
        MogleError: naming the value, what was found and what is expected.
    """
    try:
        return Wish.model_validate({name: value for name, value in values.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        name, found = str(first["loc"][0]), first["input"]
        if name == "size" and isinstance(found, str):
            expected = "a side in pixels or WIDTHxHEIGHT, such as 256 or 256x128, or nothing for the base's own"
        else:
            expected = first["msg"].removeprefix("Input should be ").removeprefix("String should have ")
        shown = f"{len(found)} characters" if isinstance(found, str) and len(found) > 60 else repr(found)[:60]
        raise MogleError(f"{name.replace('_', ' ')}: found {shown}, expected {expected}") from error


def recipe_of(wish: Wish, mask: np.ndarray | None, side: int) -> Recipe:
    """The recipe of a request, at its own size or, where none is given, at none yet; see `mogle.sampling.sized`.

    Args:
        wish: words and numbers.
        mask: label map (H, W), or None for the sentence alone.
        side: pixels on a side of the base's own pictures.

    Raises:
        MogleError: neither sentence nor mask, an empty mask, or a size that cannot be drawn here.
    """
    prompt = wish.prompt or None
    if mask is not None and not mask.any():
        raise MogleError("the mask is empty: draw a face, open a mask, or ask for the sentence alone")
    if prompt is None and mask is None:
        raise MogleError("found neither a sentence nor a mask, expected at least one: write what the face looks like")
    across, _, down = (wish.size or "0").partition("x")
    width, height = int(across), int(down or across)
    if wish.size and (width % 16 or height % 16 or not width or not height):
        raise MogleError(f"size: found {wish.size}, expected multiples of 16 pixels")
    if width * height > (limit := max(side**2, min(4 * side**2, MAX_AREA))):
        raise MogleError(f"size: found {width} x {height} pixels, expected at most {limit} in all")
    numbers = wish.steps, wish.guidance, wish.strength
    return Recipe(prompt, mask, wish.seed, *numbers, height, width, wish.mask_guidance)


def fields_of(recipe: Recipe, side: int) -> tuple[dict[str, Any], list[str]]:
    """What the page shows of a recipe that is opened again, and notes on what it cannot show.

    The seed is text: a browser's numbers have 53 bits, and a seed may have 63.
    """
    own = (recipe.height, recipe.width) == (side, side)
    fields: dict[str, Any] = {"mode": _mode(recipe), "prompt": recipe.prompt or "", "seed": str(recipe.seed)}
    fields["size"] = "" if own else f"{recipe.width}x{recipe.height}"
    notes = []
    for name, (low, high) in LIMITS.items():
        found = getattr(recipe, name)
        fields[name] = min(max(found, low), high)
        if fields[name] != found:
            what = f"the file says {found}, which is not drawn here; now {fields[name]:g}"
            notes.append(f"{name.replace('_', ' ')}: {what}")
    return fields, notes


def chosen(mode: Any, prompt: Any, mask: np.ndarray | None) -> tuple[Any, np.ndarray | None]:
    """Sentence and mask as far as the choice between them lets them take part."""
    if mode not in (BOTH, WORDS, MASK):
        raise MogleError(f"found {str(mode)[:40]!r}, expected one of {BOTH}, {WORDS}, {MASK}")
    return "" if mode == MASK else prompt, None if mode == WORDS else mask


def new_seed() -> str:
    """A seed that nobody can foresee, short enough to be read out."""
    return str(secrets.randbelow(2**32))


def told(recipe: Recipe) -> dict[str, Any]:
    """A recipe as the API tells it, without the mask."""
    values = {**vars(recipe), "has_mask": recipe.mask is not None}
    del values["mask"]
    return values


def caption(recipe: Recipe) -> str:
    """One line on a picture: its seed and what else was chosen."""
    line = f"seed {recipe.seed}, steps {recipe.steps}, guidance {recipe.guidance:g}"
    return line if _mode(recipe) == BOTH else f"{line}, {_mode(recipe).lower()}"


def _mode(recipe: Recipe) -> str:
    if recipe.mask is None:
        return WORDS
    return BOTH if recipe.prompt else MASK
