"""What can be said of a face: the attributes, their values, and a reader that gets them out of a sentence.

An attribute that the 19-class mask cannot show (``in_mask=False``: hair colour, skin tone, lipstick, light, ...) has to
reach a picture through the sentence; these are the ones that tell whether a model listens to its text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np


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
    description: str = ""


_COLORS = ("red", "blue", "green", "white", "black", "yellow")
_NO_YES = ("no", "yes")

ATTRIBUTES: dict[str, Attribute] = {
    a.name: a
    for a in (
        Attribute("gender", ("woman", "man"), True, None, "shape of the face and jaw"),
        Attribute("age", ("young", "middle-aged", "elderly"), False, None, "wrinkles and folds"),
        Attribute("skin", ("fair", "tan", "dark"), False, None, "skin tone"),
        Attribute("hair_color", ("black", "brown", "blond", "red", "gray"), False, 13, "None without hair"),
        Attribute("hair_length", ("bald", "short", "long"), True, None, "long reaches the shoulders"),
        Attribute("hair_texture", ("straight", "wavy"), True, 13, "None without hair"),
        Attribute("bangs", _NO_YES, True, None, "hair over the forehead; never under a hat"),
        Attribute("facial_hair", ("none", "mustache", "beard"), False, None, "men only"),
        Attribute("lipstick", _NO_YES, False, None, "painted lips"),
        Attribute("makeup", _NO_YES, False, None, "heavy eyeshadow; None behind sunglasses"),
        Attribute("rosy_cheeks", _NO_YES, False, None, "red cheeks"),
        Attribute("hat", _NO_YES, True, None, "a hat"),
        Attribute("hat_color", _COLORS, False, 14, "None without a hat"),
        Attribute("eyeglasses", _NO_YES, True, None, "glasses of either kind"),
        Attribute("sunglasses", _NO_YES, False, 3, "dark lenses; None without glasses"),
        Attribute("earrings", _NO_YES, True, None, "at least one earring in sight"),
        Attribute("necklace", _NO_YES, True, None, "a necklace"),
        Attribute("smiling", _NO_YES, True, None, "corners of the mouth turned up"),
        Attribute("mouth_open", _NO_YES, True, None, "a gap between the lips"),
        Attribute("pose", ("left", "front", "right"), True, None, "where the face turns, as seen in the picture"),
        Attribute("light", ("left", "right", "front"), False, None, "the side it comes from, as seen in the picture"),
        Attribute("background", ("blue", "green", "red", "white", "black"), False, None, "colour of the background"),
        Attribute("clothes", _COLORS, False, 18, "colour of the clothes"),
    )
}


# ---- reading ---------------------------------------------------------------------------------------------------------

_COLOR = r"(red|blue|green|white|black|yellow|brown|gray|pink|purple|orange)"
_GARMENT = r"(?:clothes|clothing|top|shirt|sweater|dress|jacket|blouse|coat|suit|hoodie)"
_HAIR_WORDS = {
    "long": "long", "short": "short", "straight": "straight", "wavy": "wavy", "curly": "wavy", "black": "black",
    "brown": "brown", "blond": "blond", "red": "red", "ginger": "red", "gray": "gray", "silver": "gray",
    "white": "gray",
}  # fmt: skip
_HAIR_FIELD = {v: n for n in ("hair_length", "hair_texture", "hair_color") for v in ATTRIBUTES[n].values}
_HAIR_WORD = rf"(?:{'|'.join(_HAIR_WORDS)}|dark|light|thick|thin|shoulder|length)"
_SKIN = {"fair": "fair", "pale": "fair", "light": "fair", "white": "fair", "tan": "tan", "tanned": "tan",
         "olive": "tan", "brown": "tan", "dark": "dark", "black": "dark"}  # fmt: skip
_SKIN_WORDS = "|".join(_SKIN)
_SPELL = {"blonde": "blond", "grey": "gray", "moustache": "mustache", "spectacles": "glasses", "cap": "hat",
          "eyeglasses": "glasses", "fringe": "bangs", "golden": "blond", "backdrop": "background",
          "wall": "background", "complexion": "skin", "skinned": "skin", "haired": "hair",
          "lipsticks": "lipstick", "earring": "earrings", "necklaces": "necklace"}  # fmt: skip

# Patterns in the order in which they take their words out of the sentence: the colour of a hat must be gone before
# anyone looks for the colour of hair. A group holds the value, or `yes`/`no` follow from the pattern.
_FILL_LIGHT = r"(?: (?:comes|coming|falls|falling|is|shines|shining|from|on|the|her|his|their|at|side)){0,6}"
_FILL_WALL = r"(?: (?:behind|her|him|them|the|person|woman|man|is|in))*"
_LOOK = r"(?:looks?|looking|faces?|facing|turns?|turned|turning|head|gazes?|gazing)"
_FILL_LOOK = r"(?: (?:is|to|towards?|the|her|his|their|turned|turning|facing|looking|head|face|a|bit|slightly))*"
_RULES: tuple[tuple[str, str], ...] = (
    (rf"(?:light|lit|lighting|lighted){_FILL_LIGHT} (left|right|front)", "light"),
    (r"(left|right|front)(?: side)? (?:light|lighting|lit)(?! skin| hair)", "light"),
    (rf"{_COLOR} background", "background"),
    (rf"background{_FILL_WALL} {_COLOR}", "background"),
    (rf"{_COLOR} hat", "hat_color"),
    (rf"hat(?: that)?(?: is| in) {_COLOR}", "hat_color"),
    (r"hat", "hat"),
    (r"sunglasses|sun glasses|dark glasses", "sunglasses"),
    (r"(?:clear )?glasses", "eyeglasses"),
    (rf"{_COLOR} {_GARMENT}", "clothes"),
    (
        rf"(?:dressed in|clad in|{_GARMENT} (?:is|are|in)|wear(?:s|ing)?(?= \w+(?: [.,]|$))) {_COLOR}(?: {_GARMENT})?",
        "clothes",
    ),
    (rf"({_SKIN_WORDS})(?: colored)? skin", "skin"),
    (rf"skin(?: tone)? is ({_SKIN_WORDS})", "skin"),
    (r"clean shaven", "shaven"),
    (r"facial hair|beard|bearded|goatee", "beard"),
    (r"mustache", "mustache"),
    (rf"(?:{_HAIR_WORD}(?: ,)?(?: and)? )+hair", "hair"),
    (rf"hair (?:that )?(?:is|looks) {_HAIR_WORD}(?:(?: ,)?(?: and)? {_HAIR_WORD})*", "hair"),
    (r"bald|hairless", "bald"),
    (r"hair", "hair"),
    (r"blond|brunette|redhead", "hair"),
    (r"bangs", "bangs"),
    (r"lipstick|painted lips|red lips|lips painted(?: red)?", "lipstick"),
    (r"(?:heavy )?(?:makeup|eyeshadow)", "makeup"),
    (r"(?:rosy|red|pink|flushed) cheeks|cheeks are (?:rosy|red|pink|flushed)|blush", "rosy_cheeks"),
    (r"pale cheeks|cheeks are pale", "no rosy_cheeks"),
    (r"earrings", "earrings"),
    (r"necklace", "necklace"),
    (r"smile|smiles|smiling", "smiling"),
    (r"serious|frowning|frowns", "no smiling"),
    (r"(?:mouth|lips)(?: is| are| slightly| wide)* (?:open|apart|parted)|open(?:ed)? mouth", "mouth_open"),
    (r"(?:mouth|lips)(?: is| are)* (?:closed|shut)|(?:closed|shut) (?:mouth|lips)", "no mouth_open"),
    (rf"{_LOOK}{_FILL_LOOK} (left|right)", "pose"),
    (rf"{_LOOK}(?: at| into| to| the| straight)* (?:camera|ahead|forward|front|viewer)", "front"),
    (r"woman|lady|she|her|female|girl|women", "woman"),
    (r"man|gentleman|he|his|him|male|guy|boy|men", "man"),
    (r"young|youthful", "young"),
    (r"middle aged", "middle-aged"),
    (r"elderly|old|older|aged", "elderly"),
)
_COMPILED = tuple((re.compile(rf"\b(?:{pattern})\b"), what) for pattern, what in _RULES)
_SIMPLE = {"front": "pose", "woman": "gender", "man": "gender", "young": "age", "middle-aged": "age", "elderly": "age"}


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


def _claims(what: str, match: re.Match[str], negated: bool) -> dict[str, str]:
    """The facts in one matched phrase; empty when it says nothing definite ("not blond")."""
    value = next((g for g in match.groups() if g), None) if match.re.groups else None
    if what == "hair":
        words = match[0].replace("brunette", "brown hair").replace("redhead", "red hair").split()
        if negated:
            return {"hair_length": "bald"} if words == ["hair"] else {}
        return {_HAIR_FIELD[_HAIR_WORDS[w]]: _HAIR_WORDS[w] for w in reversed(words) if w in _HAIR_WORDS}
    if what in ("beard", "mustache", "shaven"):
        return {"facial_hair": "none" if negated or what == "shaven" else what}
    if what == "sunglasses":
        return {"sunglasses": "no"} if negated else {"eyeglasses": "yes", "sunglasses": "yes"}
    if what == "eyeglasses":  # people say "glasses" for clear ones
        return {"eyeglasses": "no"} if negated else {"eyeglasses": "yes", "sunglasses": "no"}
    if what == "hat_color":
        known = {"hat_color": value} if value in ATTRIBUTES["hat_color"].values else {}
        return {} if negated else {"hat": "yes", **known}
    if what.startswith("no ") or ATTRIBUTES.get(what) and ATTRIBUTES[what].values == ("no", "yes"):
        return {what.removeprefix("no "): "no" if negated != what.startswith("no ") else "yes"}
    if negated:
        return {}
    if what == "bald":
        return {"hair_length": "bald"}
    if what in _SIMPLE:
        return {_SIMPLE[what]: what}
    value = _SKIN.get(value or "") if what == "skin" else value
    return {what: value} if value in ATTRIBUTES[what].values else {}


def read_caption(text: str) -> dict[str, str]:
    """The facts that a sentence states, as attribute -> value; what it leaves open is not in the result.

    Reads every generated caption back exactly, and plain English prompts of the same matter in any case and spelling
    ("a blonde lady, no glasses, grey background"). Of two contradicting claims a positive one counts, else the first.
    """
    text = re.sub(r"n['’]t\b", " not", text.lower()).replace("make-up", "makeup").replace("make up", "makeup")
    text = text.replace("eye shadow", "eyeshadow")
    tokens = [_SPELL.get(t, t) for t in re.findall(r"[a-z]+|[.,;:]", text)]
    negated = _negations(tokens)
    sentence = " ".join(tokens)
    starts = np.cumsum([0] + [len(t) + 1 for t in tokens])
    facts: dict[str, str] = {}
    sure: set[str] = set()
    for pattern, what in _COMPILED:
        for match in list(pattern.finditer(sentence)):
            end = match.start() + len(match[0].rstrip()) - 1
            reach = negated[int(np.searchsorted(starts, end, side="right")) - 1]
            for name, value in _claims(what, match, reach).items():
                if name not in facts or (name not in sure and not reach):
                    facts[name] = value
                    if not reach:
                        sure.add(name)
            sentence = sentence[: match.start()] + re.sub(r"\w", "_", match[0]) + sentence[match.end() :]
    return {name: facts[name] for name in ATTRIBUTES if name in facts}
