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

from mogle.words import ATTRIBUTES

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
