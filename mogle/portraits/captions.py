"""Captions in the manner of MM-CelebA-HQ, and a reader that gets the facts back out of a sentence.

A small probabilistic grammar: every fact has a few wordings, each wording has a place in a sentence (before the noun,
after "has", after "wears", after "is", at a sentence's end, or a sentence of its own), and sentences are filled from
them. Words are few and plain, so that a small text encoder can learn them all: see :func:`vocabulary`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cache

import numpy as np

from mogle.portraits.attributes import ATTRIBUTES

MAX_WORDS, MAX_TOKENS = 47, 57  # words; words and marks. The tiny text encoders' short sequences hold such a caption
Facts = Mapping[str, str | None]

# name -> value -> wordings, "place: text". {She}, {Her}, {him} follow the gender, {v} is the value.
_WORDINGS: dict[str, dict[str, tuple[str, ...]]] = {
    "age": {
        "young": ("adj: young", "adj: young", "sent: {She} is young."),
        "middle-aged": ("adj: middle-aged", "adj: middle-aged", "sent: {She} is middle-aged."),
        "elderly": ("adj: elderly", "adj: old", "sent: {She} is elderly.", "sent: {She} is old."),
    },
    "skin": {
        "fair": ("has: fair skin", "has: pale skin", "sent: {Her} skin is fair."),
        "tan": ("has: tan skin", "has: brown skin", "sent: {Her} skin is tan."),
        "dark": ("has: dark skin", "has: dark skin", "sent: {Her} skin is dark."),
    },
    "bangs": {"yes": ("has: bangs",), "no": ("has: no bangs", "tail: without bangs")},
    "facial_hair": {
        "none": ("has: no beard", "has: no facial hair", "is: clean-shaven", "tail: without a beard"),
        "mustache": ("has: a mustache",),
        "beard": ("has: a beard", "has: a beard", "adj: bearded"),
    },
    "lipstick": {
        "yes": ("wears: lipstick", "wears: lipstick", "has: painted lips"),
        "no": ("wears: no lipstick", "tail: without lipstick", "sent: {She} does not wear lipstick."),
    },
    "makeup": {
        "yes": ("wears: heavy makeup", "wears: heavy makeup", "wears: makeup", "wears: eyeshadow"),
        "no": ("wears: no makeup", "tail: without makeup", "wears: no eyeshadow", "sent: {She} does not wear makeup."),
    },
    "rosy_cheeks": {
        "yes": ("has: rosy cheeks", "has: rosy cheeks", "has: red cheeks", "sent: {Her} cheeks are rosy."),
        "no": ("has: pale cheeks", "sent: {Her} cheeks are pale."),
    },
    "earrings": {"yes": ("wears: earrings",), "no": ("wears: no earrings", "tail: without earrings")},
    "necklace": {"yes": ("wears: a necklace",), "no": ("wears: no necklace", "tail: without a necklace")},
    "smiling": {
        "yes": ("is: smiling", "is: smiling", "adj: smiling", "has: a smile", "has: a big smile",
                "sent: {She} smiles."),
        "no": ("is: not smiling", "is: serious", "sent: {She} does not smile."),
    },
    "mouth_open": {
        "yes": ("has: an open mouth", "has: mouth slightly open", "sent: {Her} mouth is open."),
        "no": ("has: a closed mouth", "sent: {Her} mouth is closed.", "sent: {Her} lips are closed."),
    },
    "pose": {
        "front": ("sent: {She} looks straight ahead.", "sent: {She} faces the camera.", "is: facing the camera"),
        "left": ("sent: {She} looks to the {v}.", "sent: {She} faces {v}.", "is: turned to the {v}", "is: facing {v}"),
    },
    "light": {
        "left": (
            "sent: The light comes from the {v}.",
            "sent: Light falls from the {v}.",
            "is: lit from the {v}",
            "tail: with light from the {v}",
        ),
    },
    "background": {
        "blue": (
            "sent: The background is {v}.",
            "sent: Behind {him} is a {v} wall.",
            "tail: in front of a {v} background",
            "tail: against a {v} background",
        ),
    },
    "clothes": {
        "red": ("is: dressed in {v}", "wears: {v} clothes", "wears: a {v} top", "wears: a {v} shirt",
                "sent: {Her} clothes are {v}."),
    },
    "hat": {"yes": ("wears: a hat",), "no": ("wears: no hat", "tail: without a hat")},
    "hat_color": {"red": ("wears: a {v} hat", "wears: a {v} hat", "wears: a {v} cap", "sent: {Her} hat is {v}.")},
    "eyeglasses": {"no": ("wears: no glasses", "wears: no eyeglasses", "tail: without glasses")},
    "sunglasses": {
        "no": ("wears: eyeglasses", "wears: glasses", "wears: clear glasses"),
        "yes": ("wears: sunglasses", "wears: sunglasses", "wears: dark glasses"),
    },
    "hair_length": {"bald": ("adj: bald", "has: no hair", "sent: {She} is bald.")},
}  # fmt: skip
# Wordings with {v} serve every value of their attribute but those that have a row of their own.

_HAIR = ("has: {v} hair", "has: {v} hair", "sent: {Her} hair is {listed}.")
_SPELLINGS = {"blond": ("blond", "blonde"), "gray": ("gray", "grey")}
# Words of MM-CelebA-HQ that claim nothing the painter draws.
_FILLERS = (
    "adj: attractive", "sent: {She} is attractive.", "has: high cheekbones", "has: an oval face", "has: big lips",
    "has: a pointy nose", "has: arched eyebrows", "has: bushy eyebrows",
)  # fmt: skip
_FRAMES = ("A portrait of {a}", "A photo of {a}", "A picture of {a}", "{A}")
_NOUNS = {"woman": ("woman", "woman", "lady"), "man": ("man", "man", "gentleman"), None: ("person",)}
_PRONOUNS = {
    "woman": {"She": "She", "Her": "Her", "him": "her"},
    "man": {"She": "He", "Her": "His", "him": "him"},
    None: {"She": "The person", "Her": "The", "him": "the person"},
}
_ADJECTIVE_ORDER = ("attractive", "smiling", "young", "middle-aged", "elderly", "old", "bald", "bearded")
_GLUE = "this is the a an portrait of and has wears is wearing with . ,"


def _wordings(name: str, value: str) -> tuple[str, ...]:
    rows = _WORDINGS[name]
    chosen = rows[value] if value in rows else next(r for r in rows.values() if any("{v}" in w for w in r))
    return tuple(w.replace("{v}", value) for w in chosen)


def _tokens(text: str) -> list[str]:
    return re.findall(r"[a-z]+|[.,:;-]", text.lower())


@cache
def vocabulary() -> tuple[str, ...]:
    """Every word and mark that captions are made of, sorted: what a tokenizer has to know."""
    texts = [_GLUE, *_FILLERS, *_FRAMES, *_HAIR]
    for name, attribute in ATTRIBUTES.items():
        for value in attribute.values:
            if name.startswith("hair"):
                texts.extend(_SPELLINGS.get(value, (value,)))
            if name in _WORDINGS and (value in _WORDINGS[name] or "{v}" in str(_WORDINGS[name])):
                texts.extend(_wordings(name, value))
    for gender in _NOUNS:
        texts.extend((*_NOUNS[gender], *_PRONOUNS[gender].values()))
    return tuple(sorted(set(_tokens(re.sub(r"\{\w+\}|\w+: ", " ", " ".join(texts))))))


def stated(attributes: Facts, names: Iterable[str]) -> dict[str, str]:
    """What a caption that speaks of ``names`` states: also the hat of a hat's colour, and the kind of the glasses.

    Leaves out what does not apply (value None) and a woman's missing beard, which nobody mentions.
    """
    wanted = set(names)
    if wanted & {"eyeglasses", "sunglasses"}:
        wanted |= {"eyeglasses", "sunglasses"}
    if "hat_color" in wanted and attributes["hat"] == "yes":
        wanted.add("hat")
    if (
        attributes.get("eyeglasses") == "yes" and attributes.get("sunglasses") is None
    ):  # there is no word for both kinds
        wanted.discard("eyeglasses")
    if attributes.get("gender") == "woman":
        wanted.discard("facial_hair")
    return {n: v for n in ATTRIBUTES if n in wanted and (v := attributes.get(n)) is not None}


def _pick(rng: np.random.Generator, options: tuple[str, ...]) -> str:
    return options[int(rng.integers(len(options)))]


def _listed(items: list[str], comma: bool = True) -> str:
    """'a', 'a and b', 'a, b, and c' (the comma before 'and' is MM-CelebA-HQ's habit)."""
    if len(items) < 2:
        return "".join(items)
    return ", ".join(items[:-1]) + (", and " if comma and len(items) > 2 else " and ") + items[-1]


def _wording_options(facts: dict[str, str], rng: np.random.Generator) -> list[tuple[str, ...]]:
    """For every thing to say, its possible wordings; facts that belong together become one."""
    todo = {n: v for n, v in facts.items() if n != "gender"}
    options: list[tuple[str, ...]] = []
    if todo.get("hair_length") != "bald":
        adjectives = [todo.pop(n) for n in ("hair_length", "hair_texture", "hair_color") if n in todo]
        adjectives = [_pick(rng, _SPELLINGS.get(a, (a,))) for a in adjectives]
        if adjectives:
            both = {"{v}": " ".join(adjectives), "{listed}": _listed(adjectives, comma=False)}
            options.append(tuple(re.sub(r"\{v\}|\{listed\}", lambda m: both[m[0]], w) for w in _HAIR))
    if "hat_color" in todo:
        todo.pop("hat", None)
    if "sunglasses" in todo:
        todo.pop("eyeglasses", None)
    return options + [_wordings(name, value) for name, value in todo.items()]


def _article(phrase: str) -> str:
    return ("an " if phrase[0] in "aeiou" else "a ") + phrase


def describe(attributes: Facts, names: Iterable[str], rng: np.random.Generator, *, fillers: float = 0.0) -> str:
    """A caption that states exactly ``stated(attributes, names)``, in random words.

    ``fillers`` is the chance of an idle remark ("high cheekbones"). Without "gender" among the names it speaks of
    a person.
    """
    facts = stated(attributes, names)
    gender = facts.get("gender")
    options = _wording_options(facts, rng)
    if rng.random() < fillers:
        options.append((_pick(rng, _FILLERS),))
    parts: dict[str, list[str]] = {place: [] for place in ("adj", "has", "wears", "is", "tail", "sent")}
    for i in rng.permutation(len(options)):
        free = tuple(o for o in options[i] if len(parts["adj"]) < 2 or not o.startswith("adj:")) or options[i]
        place, text = _pick(rng, free).split(": ", 1)
        parts[place].append(re.sub(r"\{(\w+)\}", lambda m: _PRONOUNS[gender][m[1]], text))
    for place in ("has", "wears", "is"):  # "earrings and no hat": a 'no' in front would seem to reach further
        parts[place].sort(key=lambda t: t.startswith(("no ", "not ")))
    adjectives = sorted(parts["adj"], key=_ADJECTIVE_ORDER.index)
    person = " ".join([*adjectives, _pick(rng, _NOUNS[gender])])
    if rng.random() < 0.2:
        return _fragment(person, parts, rng)
    return _sentences(person, _PRONOUNS[gender]["She"], parts, rng)


def _fragment(person: str, parts: dict[str, list[str]], rng: np.random.Generator) -> str:
    """'A portrait of an elderly man with a beard, wearing a red hat, lit from the left. ...': as people prompt."""
    frame = _pick(rng, _FRAMES)
    text = frame.format(a=_article(person), A=_article(person).capitalize())
    if parts["has"]:
        text += " with " + _listed(parts["has"])
    pieces = ["wearing " + _listed(parts["wears"])] if parts["wears"] else []
    pieces += parts["is"] + parts["tail"]
    return " ".join([", ".join([text, *pieces]) + ".", *parts["sent"]])


def _sentences(person: str, pronoun: str, parts: dict[str, list[str]], rng: np.random.Generator) -> str:
    """'This woman has black hair, and rosy cheeks. She is wearing lipstick.': as MM-CelebA-HQ speaks."""
    clauses = []
    for place, most in (("has", 3), ("wears", 3), ("is", 2)):
        verb = _pick(rng, ("wears", "is wearing")) if place == "wears" else place
        items = parts[place]
        clauses += [f"{verb} {_listed(items[i : i + most])}" for i in range(0, len(items), most)]
    order = [clauses[i] for i in rng.permutation(len(clauses))]
    bodies = []
    while order:
        take = 2 if len(order) > 1 and rng.random() < 0.4 else 1
        bodies.append(" and ".join(order[:take]))
        order = order[take:]
    opening = _pick(rng, (f"This {person}", f"The {person}", _article(person).capitalize()))
    said = [f"{opening} {bodies[0]}"] if bodies else [f"This is {_article(person)}"]
    said += [f"{pronoun} {body}" for body in bodies[1:]]
    for k, tail in enumerate(parts["tail"]):
        at = k % len(said)
        said[at] += (", " if tail.startswith("without") or "," in said[at] else " ") + tail
    later = [sentence + "." for sentence in said[1:]] + parts["sent"]
    return " ".join([said[0] + ".", *(later[i] for i in rng.permutation(len(later)))])


def full_caption(attributes: Facts) -> str:
    """Every attribute that applies, in one fixed sentence (at most 75 words and marks)."""
    facts = stated(attributes, ATTRIBUTES)
    hair = " ".join(facts[n] for n in ("hair_length", "hair_texture", "hair_color") if n in facts)
    worn = {"bangs": "bangs", "lipstick": "lipstick", "makeup": "makeup", "earrings": "earrings",
            "necklace": "necklace", "hat": "hat"}  # fmt: skip
    said = {n: ("" if facts[n] == "yes" else "no ") + word for n, word in worn.items() if n in facts}
    if facts["hat"] == "yes":
        said["hat"] = " ".join([*([facts["hat_color"]] if "hat_color" in facts else []), "hat"])
    glasses = {"no": "glasses", "yes": "sunglasses", None: "no glasses"}[facts.get("sunglasses")]
    beard = {"none": "no beard"}.get(facts.get("facial_hair", ""), facts.get("facial_hair", ""))
    items = [
        f"{facts['skin']} skin",
        "no hair" if hair == "bald" else f"{hair} hair" if hair else "",
        said["bangs"], beard, said["lipstick"], said.get("makeup", ""),
        "rosy cheeks" if facts["rosy_cheeks"] == "yes" else "pale cheeks",
        said["hat"], glasses if "eyeglasses" in facts else "", said["earrings"], said["necklace"],
        "a smile" if facts["smiling"] == "yes" else "no smile",
        "open mouth" if facts["mouth_open"] == "yes" else "closed mouth",
        f"{facts['clothes']} clothes" if "clothes" in facts else "",
        "facing the camera" if facts["pose"] == "front" else f"facing {facts['pose']}",
        f"lit from the {facts['light']}",
        f"{facts['background']} background",
    ]  # fmt: skip
    return f"{_article(facts['age'] + ' ' + facts['gender']).capitalize()} with {', '.join(i for i in items if i)}."


def _mentioned(attributes: Facts, rng: np.random.Generator, chance: float, negative: float) -> list[str]:
    """Names to speak of, each with ``chance``; what is absent ('no hat') is mentioned more rarely by ``negative``."""
    names = []
    for name, u in zip(ATTRIBUTES, rng.random(len(ATTRIBUTES)), strict=True):
        value = attributes[name]
        if value is None or name == "gender":
            continue
        absent = value in ("no", "none") and name not in ("sunglasses", "mouth_open")
        if u < chance * (negative if absent else 1.0):
            names.append(name)
    return names


def _within_limit(attributes: Facts, names: list[str], rng: np.random.Generator, fillers: float) -> str:
    names = list(names)
    while True:
        text = describe(attributes, names, rng, fillers=fillers)
        if len(text.split()) <= MAX_WORDS and len(_tokens(text)) <= MAX_TOKENS:
            return text
        # The mask shows the visible ones anyway, so they give way first.
        spare = [n for n in names if ATTRIBUTES[n].in_mask and n != "gender"] or names[1:]
        names.remove(spare[int(rng.integers(len(spare)))])


def write_captions(attributes: Facts, rng: np.random.Generator) -> list[str]:
    """Ten captions. The first, used in testing, states nearly all that the mask cannot show; the last is short."""
    hidden = [n for n in stated(attributes, ATTRIBUTES) if not ATTRIBUTES[n].in_mask]
    told = [n for n, u in zip(hidden, rng.random(len(hidden)), strict=True) if u < 0.92]
    seen = [n for n in _mentioned(attributes, rng, 0.35, 0.3) if n not in hidden]
    seen = [seen[i] for i in rng.permutation(len(seen))[:3]]
    if len(told) < 7:
        told = hidden
    captions = [_within_limit(attributes, ["gender", *told, *seen], rng, 0.15)]
    for _ in range(8):
        names = _mentioned(attributes, rng, rng.uniform(0.2, 0.95), 0.5)
        while len(names) < 3:
            names = _mentioned(attributes, rng, 0.5, 0.5)
        if rng.random() < 0.94:
            names.append("gender")
        captions.append(_within_limit(attributes, names, rng, 0.3))
    few = _mentioned(attributes, rng, 1.0, 0.3)
    few = [few[i] for i in rng.permutation(len(few))[: int(rng.integers(1, 3))]]
    return [*captions, describe(attributes, ["gender", *few], rng)]


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
