"""Exercises of notebook 00, quickstart: solutions, and checkers that raise `Wrong` with hints."""

from __future__ import annotations

import re
from collections.abc import Callable
from difflib import get_close_matches
from typing import Any

from mogle.words import ATTRIBUTES, read_caption
from workbook.checking import Exercise, Wrong

NOTEBOOK = "00_quickstart"

#: What the mask with the hat, portrait 8, already shows.
HAT_MASK = {
    "gender": "woman", "hair_length": "short", "bangs": "no", "hat": "yes", "eyeglasses": "no", "earrings": "no",
    "necklace": "yes", "smiling": "yes", "mouth_open": "no", "pose": "front",
}  # fmt: skip
#: What each of the notebook's three sentences states, besides "she".
STATED = ("age", "skin", "hair_color", "lipstick", "clothes", "background")
#: Words and marks; the small FLUX reads 48 pieces of a text, and a rare word has more than one.
LONGEST = 40


def my_sentence() -> str:
    """A sentence for the mask with the hat: at least three facts that no mask shows, and none that this one denies."""
    return "She has red hair and dark skin. She wears a white hat. The background is blue."


def understood(text: str) -> str:
    """The facts that were read out of a sentence, and the sentences in it that say nothing of this kind."""
    facts = read_caption(text)
    known = ", ".join(f"{name.replace('_', ' ')} = {value}" for name, value in facts.items())
    parts = [part.strip() for part in re.split(r"[.;!?]", text) if part.strip()]
    unread = [part for part in parts if not read_caption(re.sub(r"(?i)\b(she|he|her|his)\b", "somebody", part))]
    nothing = f" Nothing was read in “{'”, “'.join(unread)}”." if unread else ""
    return f"Read in it: {known}.{nothing} Whatever else it asks for, check and judge cannot tell."


def check_my_sentence(function: Callable[[], Any]) -> None:
    """A sentence with at least three facts that the mask with the hat cannot show, and none that it denies."""
    text = function() if callable(function) else function
    if not isinstance(text, str):
        raise Wrong(f'It returned {text!r}, expected a text: return "She has ...".')
    if not text.strip():
        raise Wrong("The text is empty. Begin with the hair: She has ... hair.")
    if (count := len(re.findall(r"\w+|[^\w\s]", text))) > LONGEST:
        raise Wrong(f"It has {count} words and marks; keep it to {LONGEST}, the small FLUX does not read more.")
    facts = read_caption(text)
    if not facts:
        raise Wrong("Nothing in it is a fact of the kind that the model has learned; say colours, age or make-up.")
    for name, value in facts.items():
        if HAT_MASK.get(name, value) != value:
            what = name.replace("_", " ")
            how = " Shapes tell it; notebook 01, section 8, measures how well." if name == "gender" else ""
            raise Wrong(f"The mask denies it: for {what} it shows '{HAT_MASK[name]}', and you ask for '{value}'.{how}")
    if "hair" in text.lower() and not {"hair_color", "hair_length", "hair_texture"} & facts.keys():
        known = ", ".join(ATTRIBUTES["hair_color"].values)
        raise Wrong(f"Hair of that kind is unknown here. Its colours are {known}.")
    unseen = [name.replace("_", " ") for name in facts if not ATTRIBUTES[name].in_mask]
    if not unseen:
        raise Wrong("All of it stands in the mask already. Ask for something that is not a matter of places.")
    if len(unseen) < 3:
        found = f"That is a beginning: {len(unseen)} of 3 facts that no mask shows ({', '.join(unseen)})."
        raise Wrong(found, understood(text))


#: What a prediction may say of an attribute.
DECIDERS = ("mask", "sentence", "neither")


def who_decides() -> dict[str, str]:
    """Attribute -> "mask", "sentence" or "neither": what the three masks can show, and what the sentences ask for.

    It is a prediction like yours. That something is shown or asked for does not mean that the model follows.
    """
    return {
        "hat": "mask",  # label 14 marks it, and two of the three masks have none
        "earrings": "mask",  # label 15 marks them, and no sentence speaks of them
        "smiling": "mask",  # the corners of the mouth are a matter of places
        "pose": "mask",  # where the head turns shows in all outlines at once
        "hair_color": "sentence",  # the blue of the mask's hair is the palette's; it stands for 'hair'
        "lipstick": "sentence",  # lips have a label whether they are painted or not
        "age": "sentence",  # wrinkles change no outline that the 19 classes have
        "background": "sentence",  # label 0 says that there is background, and not which colour it has
        "light": "neither",  # a mask has no light and shade, and no sentence says where it comes from
        "rosy_cheeks": "neither",  # cheeks are skin, red or not, and no sentence mentions them
    }


def check_who_decides(function: Callable[[], Any]) -> None:
    """A complete prediction, whatever it says: each attribute once -> "mask", "sentence" or "neither"."""
    said, names = function() if callable(function) else function, list(who_decides())
    if not isinstance(said, dict):
        raise Wrong(f"Expected a dictionary from attributes to words; found a {type(said).__name__}.")
    if any(key in DECIDERS for key in said):
        raise Wrong('It is the wrong way round: write {"hat": ...}, with an attribute before each colon.')
    if unknown := [str(key) for key in said if key not in names]:
        near = get_close_matches(unknown[0].lower().replace(" ", "_"), names, 1)
        meant = f"do you mean {near[0]!r}?" if near else f"expected {', '.join(names)}."
        raise Wrong(f"{unknown[0]!r} is none of the attributes; {meant}")
    if missing := [name for name in names if name not in said]:
        raise Wrong(f"There is no prediction for {', '.join(missing)}.")
    if left := [name for name in names if said[name] in (None, ..., "")]:
        raise Wrong(f"Still open: {', '.join(left)}. Decide before you measure, even if you have to guess.")
    for name in names:
        if isinstance(said[name], (tuple, list, set)):
            raise Wrong(f"{name} has more than one answer; name the one that counts most.")
        if said[name] not in DECIDERS:
            small = str(said[name]).strip().lower()
            more = f" Write it in small letters: {small!r}." if small in DECIDERS else ""
            raise Wrong(f"Found {said[name]!r} for {name}; expected one of 'mask', 'sentence' and 'neither'.{more}")


def predicted(said: dict[str, str]) -> str:
    """How many attributes, and which, a prediction gives to each."""
    lists = {who: [name for name, decider in said.items() if decider == who] for who in DECIDERS}
    parts = [f"{who} {len(some)} ({', '.join(some)})" if some else f"{who} 0" for who, some in lists.items()]
    return f"You predict: {'; '.join(parts)}. Any of this may be right: the figure below tells."


EXERCISES = (
    Exercise("my_sentence", NOTEBOOK, 1, 5, check_my_sentence, (my_sentence,), (
        "A mask shows where things are. What about a face is not a matter of places?",
        "Colours (of hair, skin, hat, clothes, background), age, make-up and the side from which the light comes.",
        "return \"She has red hair and dark skin. She wears a white hat.\" has three of them; choose your own.",
    ), lambda sentence: understood(sentence() if callable(sentence) else sentence)),
    Exercise("who_decides", NOTEBOOK, 1, 10, check_who_decides, (who_decides,), (
        "Ask first what a mask can show at all: outlines, and which things are there. Age, for one, is not in it.",
        "Of what no mask shows, look which attributes our three sentences name. The others are left to chance.",
        "What is shown or asked for need not come: how many pixels has it? Then write ten names with a word each.",
    ), lambda prediction: predicted(prediction() if callable(prediction) else prediction)),
)  # fmt: skip
