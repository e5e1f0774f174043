"""Answers to `workbook.exercises.playground`: wrong ones with words of their hints, right ones by another way."""

import numpy as np

from mogle.labels import LABELS, colorize
from workbook.exercises.playground import commission, quarrel, touched

EXPERTS = ("global", *LABELS)


def label(name):
    return LABELS.index(name)


def names(of):
    """`touched` with other experts: of(before, after) -> labels."""
    return lambda before, after: (
        ["global", *(LABELS[k] for k in of(before, after))],
        touched(before, after)[1],
    )


def tokens(of):
    """`touched` with another map of tokens: of(changed pixels, the map as it is)."""
    return lambda before, after: (touched(before, after)[0], of(before != after, touched(before, after)[1]))


def without_global(before, after):
    found, places = touched(before, after)
    return [name for name in found if name != "global"], places


def sizes(before, after):
    return [k for k in range(19) if (before == k).sum() != (after == k).sum()]


def patches(changed, size=16):
    height, width = changed.shape
    return changed.reshape(height // size, size, width // size, size)


def by_looking_at_each(before, after):
    """Patch by patch, and expert by expert."""
    height, width = (side // 16 for side in before.shape)
    cut = [slice(16 * i, 16 * i + 16) for i in range(max(height, width))]
    places = np.array([[(before[r, c] != after[r, c]).any() for c in cut[:width]] for r in cut[:height]])
    pictures = [[one, *(one == k for k in range(19))] for one in (before, after)]
    return {name for name, a, b in zip(EXPERTS, *pictures, strict=True) if not np.array_equal(a, b)}, places


def painted(change):
    """The ordered face with something painted over: change(drawing)."""

    def face():
        drawing = commission()
        change(drawing)
        return drawing

    return face


def hat(drawing):
    drawing[2:14, 40:88] = label("hat")


def onto(name, other):
    def change(drawing):
        drawing[drawing == label(name)] = label(other)

    return change


def bobbed(drawing):
    drawing[80:][drawing[80:] == label("hair")] = 0


def half_bobbed(drawing):
    left = drawing[80:, :64]
    left[left == label("hair")] = 0


def lips_exchanged(drawing):
    upper, lower = drawing == label("u_lip"), drawing == label("l_lip")
    drawing[upper], drawing[lower] = label("l_lip"), label("u_lip")


def glasses_low(drawing):
    there = drawing == label("eye_g")
    drawing[there] = label("skin")
    drawing[np.roll(there, 38, axis=0)] = label("eye_g")


def sides_exchanged(drawing):
    left, right = drawing == label("l_brow"), drawing == label("r_brow")
    drawing[left], drawing[right] = label("r_brow"), label("l_brow")


def turned(drawing):
    drawing[20:112, 74:] = np.where(drawing[20:112, 74:] == 0, label("hair"), drawing[20:112, 74:])


def elsewhere(drawing):
    """As wide as it is, and larger: at 256 px it is the same face."""
    return np.kron(drawing, np.ones((2, 2), np.uint8)).astype(np.int64)


def saying(words, edit=lambda mask: quarrel(mask)[0]):
    return lambda mask: (edit(mask.copy()), words)


def necklace(mask):
    mask[104:108, 50:78] = label("neck_l")
    return mask


def repainted(mask):
    mask[:60] = label("hair")
    mask[104:108, 50:78] = label("neck_l")
    return mask


def brow(mask):
    mask[mask == label("l_brow")] = label("skin")
    return mask


#: Exercise -> (words of the hint, wrong answer).
WRONG = {
    "touched": [
        ("Expected two things", lambda before, after: touched(before, after)[1]),
        ("such as those in EXPERTS", lambda before, after: ([0, 14], touched(before, after)[1])),
        ("no expert 'lips'", lambda before, after: (["global", "lips"], touched(before, after)[1])),
        ("global expert is missing", without_global),
        ("Only the classes that gain", names(lambda before, after: np.unique(after[before != after]))),
        ("Only the classes that lose", names(lambda before, after: np.unique(before[before != after]))),
        ("all classes of the mask", names(lambda before, after: np.unique(after))),
        ("keep their sizes", names(sizes)),
        ("map of pixels", tokens(lambda changed, right: changed)),
        ("A patch of 8 pixels", tokens(lambda changed, right: patches(changed, 8).any(axis=(1, 3)))),
        ("rows and columns", tokens(lambda changed, right: right.ravel())),
        ("expected True where", tokens(lambda changed, right: patches(changed).sum(axis=(1, 3)))),
        ("any, not all", tokens(lambda changed, right: patches(changed).all(axis=(1, 3)))),
        ("wrong way round", tokens(lambda changed, right: ~right)),
        ("one pixel of each patch", tokens(lambda changed, right: changed[::16, ::16])),
    ],
    "commission": [
        ("a picture's", lambda: colorize(commission())),
        ("float64", lambda: commission() / 18),
        ("the label 30", painted(lambda drawing: drawing.__setitem__((0, 0), 30))),
        ("no whole patches", lambda: commission()[:120]),
        ("at least 8 %", painted(onto("skin", "background"))),
        ("There is a hat", painted(hat)),
        ("Glasses (eye_g) cover", painted(onto("eye_g", "skin"))),
        ("There is no nose", painted(onto("nose", "skin"))),
        ("mouth is closed", painted(onto("mouth", "u_lip"))),
        ("the person's own", painted(sides_exchanged)),
        ("between the upper lip", painted(lips_exchanged)),
        ("below the nose", painted(glasses_low)),
        ("above the mouth on both sides", painted(bobbed)),
        ("on the picture's left", painted(half_bobbed)),
        ("Mirrored", painted(turned)),
    ],
    "quarrel": [
        ("Expected two things", lambda mask: quarrel(mask)[0]),
        ("a picture's", lambda mask: (colorize(quarrel(mask)[0]), "She wears no glasses.")),
        ("expected that of the old one", lambda mask: (quarrel(mask)[0][:64], "She wears no glasses.")),
        ("as it was", saying("She wears no earrings.", lambda mask: mask)),
        ("Nothing that a mask or a judge knows", saying("A lovely day.")),
        ("only of these can it say otherwise", saying("She has green clothes and red hair.")),
        ("Both agree", saying("She wears glasses.")),
        ("one at a time", saying("She wears no glasses and no earrings.")),
        ("what it said before", saying("She wears no earrings.", brow)),
        ("keep the rest as it is", saying("She wears no necklace.", repainted)),
    ],
}  # fmt: skip

#: Exercise -> a right answer that is not the package's.
OTHER_WAYS = {
    "touched": by_looking_at_each,
    "commission": elsewhere(commission()),
    "quarrel": saying("This woman has red hair. She wears no necklace.", necklace),
}
