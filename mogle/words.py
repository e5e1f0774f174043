"""What can be said of a face: the attributes, their values, and a reader that gets them out of a sentence.

An attribute that the 19-class mask cannot show (``in_mask=False``: hair colour, skin tone, lipstick, light, ...) has to
reach a picture through the sentence; these are the ones that tell whether a model listens to its text. Attributes,
words and phrases are data, in `words.toml` beside this file.
"""

from __future__ import annotations

import re
import tomllib
from functools import cache
from pathlib import Path
from typing import NamedTuple

_WORDS = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))


class Attribute(NamedTuple):
    """One question about a portrait.

    ``in_mask`` says whether the label map already answers it; ``needs`` is the label that must be in the mask for the
    question to make sense (13 for the colour of hair), or None.
    """

    name: str
    values: list[str]
    in_mask: bool
    needs: int | None = None


ATTRIBUTES: dict[str, Attribute] = {name: Attribute(name, **row) for name, row in _WORDS["attributes"].items()}


# ---- reading ---------------------------------------------------------------------------------------------------------

_HAIR, _SKIN = _WORDS["hair"], _WORDS["skin"]
_HAIR_FIELD = {v: n for n in ("hair_length", "hair_texture", "hair_color") for v in ATTRIBUTES[n].values}
_PARTS = _WORDS["parts"] | {"skin": f"({'|'.join(_SKIN)})"}
_PARTS["hair"] = f"(?:{'|'.join(_HAIR)}|dark|light|thick|thin|shoulder|length)"
_NEGATION_ENDS = (".", ",", ";", ":", "but", "with", "in", "against", "while")


@cache
def _phrases() -> list[tuple[re.Pattern[str], str, str]]:
    """Each phrase, the facts that it states, and those that it states where it is denied."""

    def whole(phrase: str) -> re.Pattern[str]:
        return re.compile(rf"\b(?:{re.sub(r'{([a-z ]+)}', lambda part: _PARTS[part[1]], phrase)})\b")

    return [(whole(phrase), stated, denied) for phrase, stated, denied in _WORDS["reader"]["phrases"]]


def _negations(tokens: list[str]) -> list[bool]:
    """For every token, whether a 'no', 'not' or 'without' reaches it: up to a comma, a new verb or an 'and'.

    'without' goes on over 'and' ("without hat and glasses"), every one over 'or'.
    """
    flags, active, word = [], False, ""
    for i, token in enumerate(tokens):
        if token in ("no", "not", "without", "never", "neither"):
            active, word = True, token
        elif token in _NEGATION_ENDS or (token == "and" and word != "without"):
            active = False
        elif token in ("is", "has", "wears", "wearing", "smiling", "smiles", "looks", "faces"):
            active = active and tokens[i - 1] in ("not", "no", "never", "without")
        flags.append(active)
    return flags


def _hair(phrase: str, negated: bool) -> dict[str, str]:
    """The facts in a phrase about hair; none where it says nothing definite ("not blond")."""
    words = phrase.replace("brunette", "brown hair").replace("redhead", "red hair").split()
    if negated:
        return {"hair_length": "bald"} if words == ["hair"] else {}
    return {_HAIR_FIELD[_HAIR[w]]: _HAIR[w] for w in reversed(words) if w in _HAIR}


def _facts(claims: str, word: str) -> dict[str, str]:
    """Such as "hat=yes hat_color=*", of which those count that an attribute can have."""
    word = _SKIN[word] if claims == "skin=*" else word
    facts = dict(claim.replace("*", word).split("=") for claim in claims.split())
    return {name: value for name, value in facts.items() if value in ATTRIBUTES[name].values}


def read_caption(text: str) -> dict[str, str]:
    """The facts that a sentence states, as attribute -> value; what it leaves open is not in the result.

    Reads every generated caption back exactly, and plain English prompts of the same matter in any case and spelling
    ("a blonde lady, no glasses, grey background"). Of two contradicting claims a positive one counts, else the first.
    """
    text = re.sub(r"n['’]t\b", " not", text.lower()).replace("make-up", "makeup").replace("make up", "makeup")
    text = text.replace("eye shadow", "eyeshadow")
    tokens = [_WORDS["spellings"].get(t, t) for t in re.findall(r"[a-z]+|[.,;:]", text)]
    negated = _negations(tokens)
    sentence = " ".join(tokens)
    stated: dict[str, str] = {}
    denied: dict[str, str] = {}
    for pattern, claims, denials in _phrases():
        for match in list(pattern.finditer(sentence)):
            end = match.start() + len(match[0].rstrip()) - 1
            reach = negated[sentence.count(" ", 0, end)]
            word = next(filter(None, match.groups()), "")
            facts = _hair(match[0], reach) if claims == "hair" else _facts(denials if reach else claims, word)
            for name, value in facts.items():
                (denied if reach else stated).setdefault(name, value)
            sentence = sentence[: match.start()] + re.sub(r"\w", "_", match[0]) + sentence[match.end() :]
    facts = denied | stated
    return {name: facts[name] for name in ATTRIBUTES if name in facts}
