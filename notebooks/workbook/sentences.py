"""Sentences about a face, changed fact by fact, as the playground's chips do it; and words that a base cannot know.

What a sentence says is what `mogle.words.read_caption` reads in it: a chip adds a fact or takes it out, and leaves all
the other facts as they are.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterator, Mapping

from mogle.words import ATTRIBUTES, read_caption

Facts = Mapping[str, str]

# What a chip adds, by attribute; {v} is the value. {She} and {Her} follow the gender that the sentence has.
_ADDS: dict[str, str] = {
    "age": "{She} is {v}.",
    "skin": "{She} has {v} skin.",
    "hair_color": "{She} has {v} hair.",
    "hair_length": "{She} has {v} hair.",
    "hair_texture": "{She} has {v} hair.",
    "bangs": "{She} has bangs.",
    "facial_hair": "{She} has a {v}.",
    "lipstick": "{She} wears lipstick.",
    "makeup": "{She} wears heavy makeup.",
    "rosy_cheeks": "{She} has rosy cheeks.",
    "hat": "{She} wears a hat.",
    "hat_color": "{She} wears a {v} hat.",
    "eyeglasses": "{She} wears glasses.",
    "sunglasses": "{She} wears sunglasses.",
    "earrings": "{She} wears earrings.",
    "necklace": "{She} wears a necklace.",
    "smiling": "{She} is smiling.",
    "mouth_open": "{Her} mouth is open.",
    "pose": "{She} looks to the {v}.",
    "light": "The light comes from the {v}.",
    "background": "The background is {v}.",
    "clothes": "{Her} clothes are {v}.",
}
_DENIES: dict[str, str] = {
    "bangs": "{She} has no bangs.",
    "lipstick": "{She} wears no lipstick.",
    "makeup": "{She} wears no makeup.",
    "rosy_cheeks": "{She} has pale cheeks.",
    "hat": "{She} wears no hat.",
    "eyeglasses": "{She} wears no glasses.",
    "sunglasses": "{She} wears glasses.",
    "earrings": "{She} wears no earrings.",
    "necklace": "{She} wears no necklace.",
    "smiling": "{She} is not smiling.",
    "mouth_open": "{Her} mouth is closed.",
}
_EXCEPTIONS = {
    ("gender", "woman"): "She is a woman.",
    ("gender", "man"): "He is a man.",
    ("hair_length", "bald"): "{She} is bald.",
    ("facial_hair", "none"): "{She} has no beard.",
    ("pose", "front"): "{She} faces the camera.",
}
# The same words for a woman, for a man and for somebody of whom that is not said.
_GENDERED = (
    ("she", "he", "the person"),
    ("woman", "man", "person"),
    ("lady", "gentleman", "person"),
    ("her", "his", "the"),
    ("behind her", "behind him", "behind the person"),
)
_COLUMNS = {"woman": 0, "man": 1, None: 2}
_VERBS = {"is", "are", "has", "wears", "looks", "faces", "comes", "falls", "does", "smiles", "wear"}
# Words that want another one behind them.
_OPEN = {
    "a", "an", "the", "no", "not", "and", "or", "of", "with", "without", "in", "against", "from", "to", "behind",
    "front", "is", "are", "has", "wears", "wear", "wearing", "does", "her", "his", "dressed", "lit", "comes", "falls",
    "looks", "faces", "facing", "turned", "light", "very",
}  # fmt: skip
_JOINTS = {"and", "or", "with", "without", ",", ".", ";", "but", "is", "are", "has", "wears"}
_ARTICLES = {"a", "an", "the", "no", "not", "of", "her", "his"}
_PREPOSITIONS = {"from", "to", "in", "against", "at", "the", "of"}
_HEADS = {"skin", "background", "wall", "clothes", "top", "shirt"}  # of which nothing is said without the word before
_DESCRIBES = {value for attribute in ATTRIBUTES.values() for value in attribute.values} | {"pale", "brown"}
_NAMES = {"hair_color": "hair", "hat_color": "hat", "eyeglasses": "glasses", "facial_hair": "beard"}


def chips(in_mask: bool) -> dict[str, list[str]]:
    """The chips: attribute -> values that a chip can add, for those that the mask shows or does not show.

    Of a question with yes or no only the "yes" is one: "no hat" is best left out of a sentence.
    """
    rows = ((name, attribute) for name, attribute in ATTRIBUTES.items() if attribute.in_mask == in_mask)
    return {name: [value for value in attribute.values if value != "no"] for name, attribute in rows}


def chip_name(name: str, value: str) -> str:
    """What stands on a chip: the value, or the attribute where the value is only "yes"."""
    word = _NAMES.get(name, name.replace("_", " "))
    if value == "yes":
        return word
    return {"none": "none", "front": "front" if name == "light" else "camera"}.get(value, value)


def group_name(name: str) -> str:
    """What stands before the chips of an attribute; those that have one chip each stand together."""
    if ATTRIBUTES[name].values == ["no", "yes"]:
        return "also"
    return "beard" if name == "facial_hair" else name.replace("_", " ").replace("color", "colour")


def says(sentence: str, name: str, value: str) -> bool:
    """Whether a sentence states a fact."""
    return read_caption(sentence).get(name) == value


def toggled(sentence: str, name: str, value: str) -> str:
    """The sentence with a fact added, or taken out where it states it; other facts stay as they are.

    Another value of the same attribute gives way. A hat that goes takes its colour along, and a coloured hat that is
    added is a hat.
    """
    if says(sentence, name, value):
        return without(sentence, name)
    if name == "gender":
        swapped = _regendered(sentence, value)
        return swapped if says(swapped, name, value) else _joined(swapped, _EXCEPTIONS[name, value])
    stated, expected = read_caption(sentence), read_caption(fact_sentence(name, value))
    if (old := stated.get(name)) is not None:
        if old not in ("yes", "no", "none"):
            for word in _words_for(sentence, old):  # "black hair" -> "red hair"
                swapped = re.sub(rf"\b{word}\b", value, sentence, count=1)
                if read_caption(swapped) == {**stated, name: value}:
                    return swapped
        sentence = without(sentence, name)
    gender = read_caption(sentence).get("gender")
    if name == "hat_color" and stated.get("hat") == "yes":
        swapped = re.sub(r"\b(hat|cap)\b", rf"{value} \1", sentence, count=1)
        if says(swapped, name, value):
            return swapped
    made = _joined(sentence, fact_sentence(name, value, gender))
    wanted = {**read_caption(sentence), **{key: one for key, one in expected.items() if key != "gender"}}
    if read_caption(made) == wanted:
        return made
    for key in expected:  # another fact is in the way, such as "no glasses" before sunglasses
        if key != "gender" and read_caption(sentence).get(key) not in (None, expected[key]):
            sentence = without(sentence, key)
    return _joined(sentence, fact_sentence(name, value, gender))


def _words_for(sentence: str, value: str) -> list[str]:
    """The words of a sentence that may be what was read as `value`, such as blonde for blond."""
    readings = {"blond": ["blonde"], "gray": ["grey"], "elderly": ["old"], "fair": ["pale"], "tan": ["brown"]}
    return [word for word in (value, *readings.get(value, [])) if re.search(rf"\b{word}\b", sentence)]


def without(sentence: str, name: str) -> str:
    """The sentence without what it states about an attribute (and about what hangs on it, such as a hat's colour).

    The shortest run of words goes that takes just this fact along and leaves a sentence behind. Where no run does, the
    whole sentence around it goes and its other facts are said anew.
    """
    stated = read_caption(sentence)
    if name not in stated:
        return sentence
    if name == "gender":
        return _regendered(sentence, None)
    for _ in range(4):  # a fact may be stated more than once
        sentence = _without_once(sentence, name)
        if name not in read_caption(sentence):
            break
    return sentence


def _without_once(sentence: str, name: str) -> str:
    stated = read_caption(sentence)
    along = {"hat": {"hat_color"}, "eyeglasses": {"sunglasses"}, "sunglasses": {"eyeglasses"}}.get(name, set())
    kept = {key: value for key, value in stated.items() if key != name}
    fewer = {key: value for key, value in kept.items() if key not in along}
    parts = _sentences(sentence)
    for i, part in enumerate(parts):
        if name in read_caption(part):
            for shorter in _shorter(part):
                made = " ".join([*parts[:i], *filter(None, [shorter]), *parts[i + 1 :]])
                if read_caption(made) in (kept, fewer):
                    return made
    for i, part in enumerate(parts):  # said anew without it
        if name in read_caption(part):
            gender = stated.get("gender")
            rest = " ".join([*parts[:i], *parts[i + 1 :]])
            for key, value in fewer.items():
                if read_caption(rest).get(key) != value:
                    rest = _joined(rest, fact_sentence(key, value, gender))
            return rest
    return sentence


def _shorter(sentence: str) -> Iterator[str]:
    """One sentence without a run of words, the shortest run first, where a sentence is left; at last nothing at all."""
    tokens = re.findall(r"[\w'’-]+|[^\w\s]", sentence)
    words = len(tokens) - (not re.match(r"\w", tokens[-1]))
    for length in range(1, words):
        for start in range(1, words - length + 1):
            if _stands(tokens, start, start + length):
                yield _written(tokens[:start] + tokens[start + length :])
    yield ""


def _stands(tokens: list[str], start: int, end: int) -> bool:
    """Whether a sentence without tokens[start:end] still is one, as far as can be told without a grammar."""
    low = [token.lower() for token in tokens]
    gone, left = low[start:end], low[:start] + low[end:]
    before, after = low[start - 1], (low[end] if end < len(low) else ".")
    if _VERBS & set(low) and not _VERBS & set(left):
        return False
    if len(gone) > 1 and gone[-1] in {"a", "an", "the"} or gone[-1] in _OPEN and after in _PREPOSITIONS:
        return False
    if gone[-1] in _HEADS and before in _DESCRIBES:
        return False
    if before in _ARTICLES and ({",", "and", "or"} & set(gone) or after in _JOINTS):
        return False
    if before in {"not", "no", ","} and (before != "," or after in {",", ".", "and"}):
        return False
    if before in _OPEN and (after in _JOINTS | _PREPOSITIONS and not (before == "and" and after in _VERBS)):
        return False
    if gone[0] in {"with", "wearing", "has", "wears", "is"} and after == ",":
        return False
    return after not in _HEADS and before != after


def _written(tokens: list[str]) -> str:
    """Words and marks as text, beginning with a capital."""
    text = re.sub(r" ([,.;:!?])", r"\1", " ".join(tokens))
    text = re.sub(r"\b([Aa]) (?=[aeio])", r"\1n ", re.sub(r"\b([Aa])n (?=[^aeiouAEIOU])", r"\1 ", text))
    return text[:1].upper() + text[1:]


def _sentences(text: str) -> list[str]:
    return [part for part in re.split(r"(?<=[.!?;])\s+", text.strip()) if part]


def _joined(sentence: str, another: str) -> str:
    sentence = sentence.strip()
    if sentence and sentence[-1] not in ".!?;":
        sentence = sentence.rstrip(",") + "."
    return f"{sentence} {another}".strip()


def fact_sentence(name: str, value: str, gender: str | None = None) -> str:
    """A sentence of its own for a fact, with the pronouns of a gender; without one it is about "the person"."""
    text = _EXCEPTIONS.get((name, value)) or (_DENIES if value == "no" else _ADDS)[name]
    she, her = (("She", "Her"), ("He", "His"), ("The person", "The"))[_COLUMNS[gender]]
    return text.format(She=she, Her=her, v=value)


def _regendered(sentence: str, gender: str | None) -> str:
    """The sentence about a woman, a man, or somebody of whom that is not said."""
    column = _COLUMNS[gender]
    words = {word: row for row in _GENDERED for word in row[:2]}
    if gender is not None:
        words |= {"person": _GENDERED[1], "the person": _GENDERED[0]}
    pattern = re.compile(rf"\b({'|'.join(sorted(words, key=len, reverse=True))})\b", re.IGNORECASE)

    def other(match: re.Match[str]) -> str:
        made = words[match[0].lower()][column]
        return made[:1].upper() + made[1:] if match[0][0].isupper() else made

    return pattern.sub(other, sentence)


# --- what the encoders have never seen -------------------------------------------------------------------------------


def unseen(sentence: str, known: Collection[str]) -> dict[str, str]:
    """The words of a sentence that are none of `known` -> the known word that looks most alike, or "".

    Capitals do not matter; of words with hyphens the parts count.
    """
    found = dict.fromkeys(word for word in re.findall(r"[^\W\d_]+|\d+", sentence.lower()) if word not in known)
    near = {word: difflib.get_close_matches(word, known, 1, 0.8) for word in found}
    return {word: some[0] if some else "" for word, some in near.items()}


def note_on(sentence: str, known: Collection[str]) -> str:
    """What there is to say of words that the text encoders have never seen, in one or two lines; "" if nothing."""
    words = unseen(sentence, known)
    if not words:
        return ""
    named = ", ".join(f"“{word}” (did you mean “{near}”?)" if near else f"“{word}”" for word, near in words.items())
    return f"Never seen by the text encoders: {named}. They get them in pieces, and what these do is chance."


def what_is_read(sentence: str) -> str:
    """The facts of a sentence, in a line."""
    facts = read_caption(sentence)
    return ", ".join(f"{name.replace('_', ' ')}: {value}" for name, value in facts.items())
