"""Exercises of notebook 00, quickstart: solutions, and checkers that raise `Wrong` with hints."""

from __future__ import annotations

import re
from collections.abc import Callable
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


def who_decides() -> dict[str, str]:
    """Attribute -> "mask", "sentence" or "neither", for the three masks and the three sentences of the notebook."""
    return {
        "hat": "mask", "earrings": "mask", "smiling": "mask", "pose": "mask", "hair_color": "sentence",
        "lipstick": "sentence", "age": "sentence", "background": "sentence", "light": "neither",
        "rosy_cheeks": "neither",
    }  # fmt: skip


#: Why it is so, said to whom has predicted something else.
_WHY = {
    "hat": "label 14 marks the hat, and two of the three masks have none",
    "earrings": "label 15 marks them, and no sentence here speaks of them",
    "smiling": "the corners of the mouth are a matter of places: look at the lips' outlines",
    "pose": "where the head turns shows in all outlines at once",
    "hair_color": "the blue of the mask's hair is the palette's, the same for every person; it stands for 'hair'",
    "lipstick": "lips have a label whether they are painted or not; paint is a matter of colour",
    "age": "wrinkles change no outline that the 19 classes have",
    "background": "label 0 says that there is background, and not which colour it has",
    "light": "a mask has no light and shade, and none of the three sentences says where it comes from",
    "rosy_cheeks": "cheeks are skin, red or not, and none of the three sentences mentions them",
}


def check_who_decides(function: Callable[[], Any]) -> None:
    """Attribute -> "mask", "sentence" or "neither"."""
    said, right = function() if callable(function) else function, who_decides()
    if not isinstance(said, dict):
        raise Wrong(f"Expected a dictionary from attributes to words; found a {type(said).__name__}.")
    if missing := [name for name in right if name not in said]:
        raise Wrong(f"There is no prediction for {', '.join(missing)}.")
    if unknown := [said[name] for name in right if said[name] not in ("mask", "sentence", "neither")]:
        raise Wrong(f"Found {unknown[0]!r}; expected one of 'mask', 'sentence' and 'neither'.")
    wrong = [name for name in right if said[name] != right[name]]
    if len(wrong) > len(right) // 2 and len({said[name] for name in right}) == 1:
        raise Wrong(f"Not everything is decided by '{said[wrong[0]]}': some facts are places, some are colours.")
    if wrong:
        raise Wrong(*(f"{name}: not '{said[name]}', for {_WHY[name]}." for name in wrong))


EXERCISES = (
    Exercise("my_sentence", NOTEBOOK, 1, 5, check_my_sentence, (my_sentence,), (
        "A mask shows where things are. What about a face is not a matter of places?",
        "Colours (of hair, skin, hat, clothes, background), age, make-up and the side from which the light comes.",
        "return \"She has red hair and dark skin. She wears a white hat.\" has three of them; choose your own.",
    ), lambda sentence: understood(sentence() if callable(sentence) else sentence)),
    Exercise("who_decides", NOTEBOOK, 1, 10, check_who_decides, (who_decides,), (
        "For each attribute ask two questions: can 19 flat colours show it? If not, do our sentences mention it?",
        "Outlines and the presence of things are the mask's. Read the three sentences again for the rest.",
        "Four are the mask's, four the sentence's, and for two neither says anything: they are left to chance.",
    ), lambda _: "This is what masks can show and sentences say. What the model makes of it is measured below."),
)  # fmt: skip
