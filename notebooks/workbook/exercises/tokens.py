"""Exercises of notebook 02, from mask to tokens: solutions, and checkers that raise `Wrong` with hints."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mogle.conditions import condition_images, pack_latents
from mogle.labels import DEMO_PALETTE, LABELS, PALETTE, save_mask
from workbook.checking import Exercise, Wrong
from workbook.exercises.judging import compare, same
from workbook.inputs import Loader, loader_a, loader_b, loader_c

NOTEBOOK = "02_from_mask_to_tokens"


def unpack_latents(tokens: Tensor, height: int, width: int) -> Tensor:
    """The way back from `pack_latents`: tokens (B, H/2 * W/2, 4 C) -> latents (B, C, H, W)."""
    batch, _, channels = tokens.shape
    latents = tokens.view(batch, height // 2, width // 2, channels // 4, 2, 2).permute(0, 3, 1, 4, 2, 5)
    return latents.reshape(batch, channels // 4, height, width)


def loader_is_right(loader: Loader) -> bool:
    """A test for loaders: write a mask of every class, load it, and ask for the same masks back."""
    label_map = np.arange(len(LABELS), dtype=np.uint8).repeat(4).reshape(2, -1)
    file = io.BytesIO()
    save_mask(file, label_map)
    found: Any = loader(Image.open(file))
    return bool(np.array_equal(found, label_map == np.arange(len(LABELS))[:, None, None]))


#: Four faulty ways to pack latents (B, C, H, W); each gives tokens of the right shape, and all numbers are still there.
SUSPECTS: dict[str, Callable[[Tensor], Tensor]] = {
    "A": lambda latents: pack_latents(latents.mT),
    "B": lambda latents: pack_latents(latents).reshape(len(latents), -1, latents.shape[1], 4).mT.flatten(2),
    "C": lambda latents: latents.reshape(len(latents), -1, 4 * latents.shape[1]),
    "D": lambda latents: pack_latents(latents).unflatten(2, (-1, 2, 2)).mT.flatten(2),
}
#: What may have gone wrong, and what one would see then.
FAULTS = {
    1: ("a reshape without permute", "nothing of a portrait would be left, only bands of colour"),
    2: ("rows and columns exchanged in the whole picture", "the portrait would lie on its side"),
    3: ("the two last axes exchanged within each token", "the portrait would stand upright, its fine parts broken up"),
    4: ("places before channels within each token", "one pattern would repeat from patch to patch, in wrong colours"),
    5: ("tokens in reverse order", "the portrait would stand on its head, patch by patch"),
}


def wrong_packings() -> dict[str, int]:
    """Which fault made which of the four pictures.

    On its side: the whole picture is exchanged, 2. Upright, but broken up: within tokens, 3. A pattern that repeats in
    every patch: channels, 4. Bands, and nothing left: a reshape, 1. None stands on its head, so 5 is innocent.
    """
    return {"A": 2, "B": 4, "C": 1, "D": 3}


def check_wrong_packings(answer: Any) -> None:
    """A fault, by its number, for each of the four pictures."""
    found, expected = answer() if callable(answer) else answer, wrong_packings()
    if not isinstance(found, dict):
        raise Wrong("Expected a dictionary: a number of the list for each letter.")
    if missing := [letter for letter in expected if letter not in found]:
        raise Wrong(f"Which fault has {missing[0]}? Expected the four letters A, B, C and D.")
    try:
        numbers = {letter: int(found[letter]) for letter in expected}
    except (TypeError, ValueError):
        raise Wrong("Expected the numbers of the faults, 1 to 5.") from None
    if wrong := [number for number in numbers.values() if number not in FAULTS]:
        raise Wrong(f"There is no fault {wrong[0]}; the numbers go from 1 to {len(FAULTS)}.")
    hints = [
        f"{letter} is not fault {number}: then {FAULTS[number][1]}."
        for letter, number in numbers.items()
        if number != expected[letter]
    ]
    if hints:
        raise Wrong(*hints)


def check_conditions20(function: Callable[[np.ndarray], Any]) -> None:
    """label map (H, W) -> (20, 3, H, W) in [-1, 1]."""
    label_map = (np.arange(24 * 16) // 7 % len(LABELS)).astype(np.uint8).reshape(24, 16)
    given = label_map.copy()
    expected, answer = condition_images(label_map), function(given)
    whole, local = expected[:1], expected[1:]
    found = torch.zeros(0) if answer is None else torch.as_tensor(answer).float()
    if found.numel() and found.min() >= 0:
        raise Wrong(f"The values lie in [0, {255 if found.max() > 1 else 1}]; the VAE expects [-1, 1], black at -1.")
    coloured = torch.where(local > 0, torch.as_tensor(PALETTE / 127.5 - 1).float()[:, :, None, None], -1.0)
    demo = torch.as_tensor(DEMO_PALETTE[label_map]).permute(2, 0, 1)[None] / 127.5 - 1
    reshaped, black = whole.permute(0, 2, 3, 1).reshape(whole.shape), -torch.ones_like(local)
    pairs = {
        "The background is missing: a class like the others, label 0, with an expert of its own.": (whole, local[1:]),
        "All 19 local images are black: do you compare an array with the label, not a PIL image?": (whole, black),
        "Off by one: your local images show labels 1..19, expected 0..18.": (whole, local[1:], black[:1]),
        "The global image comes last, expected first.": (local, whole),
        "Inside its class a local image is white, not in the class's colour.": (whole, coloured),
        "Your local images are inverted; expected: white where the class is, black elsewhere.": (whole, -local),
        "The local images lie in [0, 1]; the VAE expects [-1, 1], black at -1.": (whole, (local + 1) / 2),
        "The global image lies in [0, 1]; the VAE expects [-1, 1].": ((whole + 1) / 2, local),
        "The global image lies in [0, 255]; the VAE expects [-1, 1].": ((whole + 1) * 127.5, local),
        "A reshape does not bring channels to the front, it mixes pixels; permute moves axes.": (reshaped, local),
        "The colours are the web demo's, which swaps left and right; use PALETTE.": (demo, local),
    }
    mistakes = {hint: torch.cat(parts) for hint, parts in pairs.items()} | {
        "The global image is missing: image 0 is the whole mask in its colours, the 19 local ones follow.": local,
        "The channels come last; a VAE takes (20, 3, H, W).": expected.permute(0, 2, 3, 1),
    }
    if found.shape == expected.shape:  # where none of the mistakes above gives the same
        wrong = [label for label in range(len(LABELS)) if not same(found[1 + label], local[label])]
        which = "The local images are right; image 0 is not the mask in the colours of PALETTE."
        if wrong:
            first = f"{wrong[0]} ({LABELS[wrong[0]]})"
            which = f"{len(wrong)} local images are wrong, the first is that of label {first}."
        mistakes[which] = found
    compare(answer, expected, mistakes, "20 pictures of 3 channels")
    if not isinstance(answer, Tensor):
        raise Wrong(f"The values are right, in a {type(answer).__name__}; the VAE takes a torch tensor.")
    if answer.dtype != torch.float32:
        raise Wrong(f"The values are right, as {answer.dtype}; expected float32, which the VAE's weights are.")
    if not np.array_equal(given, label_map):
        raise Wrong(
            "Your function changes the label map that it is given: the caller's mask is spoilt. Work on a copy."
        )
    sparse = np.where(label_map < 3, label_map, 13).astype(np.uint8)
    few = torch.as_tensor(function(sparse))
    if few.shape != expected.shape:
        raise Wrong(
            f"A mask of 4 classes gives {len(few)} pictures, expected 20: labels that do not occur have a picture too, "
            "all black. Go through all 19 labels, not through those that np.unique finds."
        )
    compare(few, condition_images(sparse), {}, "20 pictures of 3 channels", "On a mask of 4 classes: ")


def check_packing(pack: Callable[..., Any], unpack: Callable[..., Any]) -> None:
    """pack: latents (B, 16, H, W) -> (B, H/2 * W/2, 64); unpack(tokens, H, W) -> latents."""
    batch, channels, height, width = 2, 16, 4, 6
    latents = torch.arange(batch * channels * height * width).float().view(batch, channels, height, width)
    parts, expected = latents.view(batch, channels, height // 2, 2, width // 2, 2), pack_latents(latents)
    halves = latents.view(batch, channels, 2, height // 2, 2, width // 2)
    orders = {
        "The 2 x 2 pixels come before the channels; in FLUX channels vary slowest within a token.": (2, 4, 3, 5, 1),
        "The tokens run column by column; expected row by row, as one reads.": (4, 2, 1, 3, 5),
        "Within a token rows and columns of the 2 x 2 pixels are swapped.": (2, 4, 1, 5, 3),
    }
    wrong = {hint: parts.permute(0, *axes) for hint, axes in orders.items()} | {
        "A reshape alone mixes neighbouring pixels of a row: split H and W into pairs, permute, then reshape.": latents,
        "H and W are split the wrong way round: (H/2, 2) makes neighbours a pair.": halves.permute(0, 3, 5, 1, 2, 4),
    }
    mistakes = {hint: value.reshape(expected.shape) for hint, value in wrong.items()}
    compare(pack(latents.clone()), expected, mistakes, "(B, H/2 * W/2, 4 x 16)", "pack: ")
    mistakes = {
        "a reshape alone does not undo the permutation.": expected.reshape(latents.shape),
        "height and width are swapped.": unpack_latents(expected, width, height),
        "height and width are swapped within the 2 x 2 pixels.": parts.transpose(3, 5).reshape(latents.shape),
    }
    compare(unpack(expected.clone(), height, width), latents, mistakes, "(B, 16, H, W)", "unpack: ")


def _swapping(one: int, other: int) -> Loader:
    """A loader that takes two classes for each other."""
    order = np.arange(len(LABELS))
    order[[one, other]] = other, one
    return lambda picture: loader_c(picture)[order]


def check_broken_loader(is_right: Callable[[Any], Any]) -> None:
    """A test for loaders must take the right one and refuse broken ones."""
    names = getattr(getattr(is_right, "__code__", None), "co_names", ())
    if asked := [name for name in names if name.startswith("loader_")]:
        raise Wrong(
            f"It asks {asked[0]} for the answer, so it knows no more than that loader does. Make a mask whose labels "
            "you chose yourself: then you know what must come back."
        )
    hints = []
    swap = "It accepts a loader that swaps {}: do all 19 labels occur, and do you compare where?"
    for loader, right, hint in (
        (loader_c, True, "It refuses the right loader: it asks for something that good masks do not have."),
        (loader_a, False, "It accepts a loader whose 19 masks are all empty: shapes alone are no proof."),
        (loader_b, False, "It accepts the loader that converts to gray: are all 19 classes in your test?"),
        (_swapping(4, 5), False, swap.format("left and right eye")),
        (_swapping(11, 12), False, swap.format("upper and lower lip")),
    ):
        try:
            verdict = is_right(loader)
        except AssertionError:
            raise Wrong(
                "It raised AssertionError; expected an answer: `return` the comparison, True or False."
            ) from None
        if not isinstance(verdict, (bool, np.bool_)):
            raise Wrong(f"It returned {type(verdict).__name__}, expected True or False.")
        if verdict != right:
            hints.append(hint)
    if hints:
        raise Wrong(*hints)


EXERCISES = (
    Exercise("conditions20", NOTEBOOK, 1, 10, check_conditions20, (condition_images,), (
        "20 pictures: the mask in its colours first, then one black-and-white picture for each of the 19 labels.",
        "PALETTE[label_map] gives the colours, channels last; label_map == k gives the picture of label k.",
        "Both become floats of shape (..., 3, H, W): x / 127.5 - 1 for the colours, 2 x - 1 for 0 and 1; torch.cat.",
    )),
    Exercise("packing", NOTEBOOK, 2, 15, check_packing, (pack_latents, unpack_latents), (
        "Three steps: split height and width into pairs, bring the axes into order, join them.",
        "Within a token the channels vary slowest, then the row of the pair, then its column.",
        "view (B, C, H/2, 2, W/2, 2), permute to (B, H/2, W/2, C, 2, 2), reshape; unpack undoes them in reverse.",
    )),
    Exercise("broken_loader", NOTEBOOK, 2, 15, check_broken_loader, (loader_is_right,), (
        "A test needs an input whose right answer is known without the loader.",
        "Write a mask of your own in which all 19 labels occur, save it, and let the loader read the file.",
        "save_mask writes into io.BytesIO; Image.open reads it; compare with label_map == k for each k, everywhere.",
    )),
    Exercise("wrong_packings", NOTEBOOK, 2, 15, check_wrong_packings, (wrong_packings,), (
        "Ask two things of each picture: do its parts lie where they should, and is each patch right in itself?",
        "An order of tokens moves whole patches of 16 x 16 pixels; an order within tokens spoils what is inside them.",
        "Make each fault yourself, from your pack: latents.mT before it is fault 2. Then look at unpack and decode.",
    )),
)  # fmt: skip
