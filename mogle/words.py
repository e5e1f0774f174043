"""What can be said of a face: the attributes, their values, and a reader that gets them out of a sentence.

An attribute that the 19-class mask cannot show (``in_mask=False``: hair colour, skin tone, lipstick, light, ...) has to
reach a picture through the sentence; these are the ones that tell whether a model listens to its text. Attributes and
single words are data, in `words.toml` beside this file; the phrases that the reader knows are below.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path

_WORDS = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Attribute:
    """One question about a portrait.

    ``in_mask`` says whether the label map already answers it; ``needs`` is the label that must be in the mask for the
    question to make sense (13 for the colour of hair), or None.
    """

    name: str
    values: tuple[str, ...]
    in_mask: bool
    needs: int | None = None


ATTRIBUTES: dict[str, Attribute] = {
    name: Attribute(name, tuple(row["values"]), row["in_mask"], row.get("needs"))
    for name, row in _WORDS["attributes"].items()
}


# ---- reading ---------------------------------------------------------------------------------------------------------

_COLOR = r"(red|blue|green|white|black|yellow|brown|gray|pink|purple|orange)"
_GARMENT = r"(?:clothes|clothing|top|shirt|sweater|dress|jacket|blouse|coat|suit|hoodie)"
_HAIR, _SKIN = _WORDS["hair"], _WORDS["skin"]
_HAIR_FIELD = {v: n for n in ("hair_length", "hair_texture", "hair_color") for v in ATTRIBUTES[n].values}
_HAIR_WORD = rf"(?:{'|'.join(_HAIR)}|dark|light|thick|thin|shoulder|length)"
_SKIN_WORD = "|".join(_SKIN)

# Phrases in the order in which they take their words out of the sentence: the colour of a hat must be gone before
# anyone looks for the colour of hair. With each go the facts that it states (* is the word in the pattern's group)
# and those that it states where it is denied. What is said of hair is read by `_hair`.
_FILL_LIGHT = r"(?: (?:comes|coming|falls|falling|is|shines|shining|from|on|the|her|his|their|at|side)){0,6}"
_FILL_WALL = r"(?: (?:behind|her|him|them|the|person|woman|man|is|in))*"
_LOOK = r"(?:looks?|looking|faces?|facing|turns?|turned|turning|head|gazes?|gazing)"
_FILL_LOOK = r"(?: (?:is|to|towards?|the|her|his|their|turned|turning|facing|looking|head|face|a|bit|slightly))*"
_RULES: tuple[tuple[str, str, str], ...] = (
    (rf"(?:light|lit|lighting|lighted){_FILL_LIGHT} (left|right|front)", "light=*", ""),
    (r"(left|right|front)(?: side)? (?:light|lighting|lit)(?! skin| hair)", "light=*", ""),
    (rf"{_COLOR} background", "background=*", ""),
    (rf"background{_FILL_WALL} {_COLOR}", "background=*", ""),
    (rf"{_COLOR} hat", "hat=yes hat_color=*", ""),
    (rf"hat(?: that)?(?: is| in) {_COLOR}", "hat=yes hat_color=*", ""),
    (r"hat", "hat=yes", "hat=no"),
    (r"sunglasses|sun glasses|dark glasses", "eyeglasses=yes sunglasses=yes", "sunglasses=no"),
    (r"(?:clear )?glasses", "eyeglasses=yes sunglasses=no", "eyeglasses=no"),
    (rf"{_COLOR} {_GARMENT}", "clothes=*", ""),
    (rf"(?:dressed in|clad in|{_GARMENT} (?:is|are|in)) {_COLOR}(?: {_GARMENT})?", "clothes=*", ""),
    (rf"wear(?:s|ing)?(?= \w+(?: [.,]|$)) {_COLOR}(?: {_GARMENT})?", "clothes=*", ""),
    (rf"({_SKIN_WORD})(?: colored)? skin", "skin=*", ""),
    (rf"skin(?: tone)? is ({_SKIN_WORD})", "skin=*", ""),
    (r"clean shaven", "facial_hair=none", "facial_hair=none"),
    (r"facial hair|beard|bearded|goatee", "facial_hair=beard", "facial_hair=none"),
    (r"mustache", "facial_hair=mustache", "facial_hair=none"),
    (rf"(?:{_HAIR_WORD}(?: ,)?(?: and)? )+hair", "hair", "hair"),
    (rf"hair (?:that )?(?:is|looks) {_HAIR_WORD}(?:(?: ,)?(?: and)? {_HAIR_WORD})*", "hair", "hair"),
    (r"bald|hairless", "hair_length=bald", ""),
    (r"hair", "hair", "hair"),
    (r"blond|brunette|redhead", "hair", "hair"),
    (r"bangs", "bangs=yes", "bangs=no"),
    (r"lipstick|painted lips|red lips|lips painted(?: red)?", "lipstick=yes", "lipstick=no"),
    (r"(?:heavy )?(?:makeup|eyeshadow)", "makeup=yes", "makeup=no"),
    (r"(?:rosy|red|pink|flushed) cheeks|blush", "rosy_cheeks=yes", "rosy_cheeks=no"),
    (r"cheeks are (?:rosy|red|pink|flushed)", "rosy_cheeks=yes", "rosy_cheeks=no"),
    (r"pale cheeks|cheeks are pale", "rosy_cheeks=no", "rosy_cheeks=yes"),
    (r"earrings", "earrings=yes", "earrings=no"),
    (r"necklace", "necklace=yes", "necklace=no"),
    (r"smile|smiles|smiling", "smiling=yes", "smiling=no"),
    (r"serious|frowning|frowns", "smiling=no", "smiling=yes"),
    (r"(?:mouth|lips)(?: is| are| slightly| wide)* (?:open|apart|parted)", "mouth_open=yes", "mouth_open=no"),
    (r"open(?:ed)? mouth", "mouth_open=yes", "mouth_open=no"),
    (r"(?:mouth|lips)(?: is| are)* (?:closed|shut)|(?:closed|shut) (?:mouth|lips)", "mouth_open=no", "mouth_open=yes"),
    (rf"{_LOOK}{_FILL_LOOK} (left|right)", "pose=*", ""),
    (rf"{_LOOK}(?: at| into| to| the| straight)* (?:camera|ahead|forward|front|viewer)", "pose=front", ""),
    (r"woman|lady|she|her|female|girl|women", "gender=woman", ""),
    (r"man|gentleman|he|his|him|male|guy|boy|men", "gender=man", ""),
    (r"young|youthful", "age=young", ""),
    (r"middle aged", "age=middle-aged", ""),
    (r"elderly|old|older|aged", "age=elderly", ""),
)
_COMPILED = tuple((re.compile(rf"\b(?:{pattern})\b"), stated, denied) for pattern, stated, denied in _RULES)
_NEGATION_ENDS = (".", ",", ";", ":", "but", "with", "in", "against", "while")


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
    facts: dict[str, str] = {}
    sure: set[str] = set()
    for pattern, stated, denied in _COMPILED:
        for match in list(pattern.finditer(sentence)):
            end = match.start() + len(match[0].rstrip()) - 1
            reach = negated[sentence.count(" ", 0, end)]
            word = next(filter(None, match.groups()), "")
            claims = _hair(match[0], reach) if stated == "hair" else _facts(denied if reach else stated, word)
            for name, value in claims.items():
                if name not in facts or (name not in sure and not reach):
                    facts[name] = value
                    if not reach:
                        sure.add(name)
            sentence = sentence[: match.start()] + re.sub(r"\w", "_", match[0]) + sentence[match.end() :]
    return {name: facts[name] for name in ATTRIBUTES if name in facts}
