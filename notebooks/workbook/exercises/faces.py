"""Exercises of notebook 01, faces, masks, captions: solutions, checkers, and the faults that are planted in masks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Any

import numpy as np
from PIL import Image
from scipy import ndimage

from mogle.datasets import FaceDataset
from mogle.labels import LABELS, PALETTE, colorize
from workbook.checking import Exercise, Wrong
from workbook.exercises.judging import compare

NOTEBOOK = "01_faces_masks_captions"
_SKIN, _NOSE, _L_EYE, _R_EYE, _L_BROW, _R_BROW, _MOUTH, _U_LIP, _L_LIP = 1, 2, 4, 5, 6, 7, 10, 11, 12


def drawn(seeds: Iterable[int], style: str = "portraits") -> list[dict[str, str | None]]:
    """The attributes that portraits of these seeds are painted from, without painting them: 10,000 in a second.

    Where a painted portrait says None because too little of a thing is in sight, they still have its value.
    """
    from mogle.tiny.portraits import STYLES, sample_attributes

    streams = (np.random.default_rng([seed, STYLES.index(style)]).spawn(3)[0] for seed in seeds)
    return [sample_attributes(stream, style) for stream in streams]


# --- faults --------------------------------------------------------------------------------------------------------

#: What can be planted, and how such a fault comes about.
KINDS = {
    "sides": "left and right labels of eyes, brows and ears are exchanged",
    "nose": "the nose lies outside the face",
    "island": "a small patch of another class lies where it cannot be",
    "missing": "a class that every face has is gone",
    "resized": "the mask's colours were resized smoothly, which makes new ones",
}


def plant(label_map: np.ndarray, kind: str, seed: int) -> np.ndarray:
    """A copy of a label map (H, W) with a fault of a kind in `KINDS`, placed by the seed."""
    return _PLANTERS[kind](label_map.copy(), np.random.default_rng(seed))


def _exchange_sides(label_map: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    order = np.arange(len(LABELS), dtype=np.uint8)
    order[[4, 5, 6, 7, 8, 9]] = 5, 4, 7, 6, 9, 8
    return order[label_map]


def _move_nose(label_map: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """To the left or right edge of the picture, at any height."""
    height, width = label_map.shape
    rows, columns = np.nonzero(label_map == _NOSE)
    label_map[rows, columns] = _SKIN
    column = int(rng.integers(width // 16, width // 9))
    column = column if rng.random() < 0.5 else width - 1 - column
    rows = rows - int(rows.mean()) + int(rng.integers(height // 8, height - height // 8))
    columns = columns - int(columns.mean()) + column
    label_map[rows.clip(0, height - 1), columns.clip(0, width - 1)] = _NOSE
    return label_map


def _strand(label_map: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A disc of a small class, far from where that class is."""
    small = (_NOSE, _L_EYE, _R_EYE, _L_BROW, _R_BROW, _MOUTH, _U_LIP, _L_LIP)
    label = int(rng.choice([k for k in small if (label_map == k).any()]))
    rows, columns = np.nonzero(ndimage.distance_transform_edt(label_map != label) > label_map.shape[0] // 4)
    place = int(rng.integers(len(rows)))
    y, x = np.indices(label_map.shape)
    radius = int(rng.integers(3, 6))
    label_map[(y - rows[place]) ** 2 + (x - columns[place]) ** 2 <= radius**2] = label
    return label_map


def _remove(label_map: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    label = int(rng.choice((_SKIN, _NOSE, _U_LIP, _L_LIP)))
    label_map[label_map == label] = 0 if label == _SKIN else _SKIN
    return label_map


def _resize_colours(label_map: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Smaller and back with bicubic filtering; each pixel then takes the class of the nearest colour."""
    height, width = label_map.shape
    share = rng.uniform(0.6, 0.85)
    smaller = int(width * share), int(height * share)
    picture = Image.fromarray(colorize(label_map)).resize(smaller, Image.Resampling.BICUBIC)
    colours = np.asarray(picture.resize((width, height), Image.Resampling.BICUBIC)).astype(int)
    return ((colours[:, :, None] - PALETTE.astype(int)) ** 2).sum(-1).argmin(-1).astype(np.uint8)


_PLANTERS = {
    "sides": _exchange_sides,
    "nose": _move_nose,
    "island": _strand,
    "missing": _remove,
    "resized": _resize_colours,
}


# --- solutions -----------------------------------------------------------------------------------------------------


def class_table(label_maps: np.ndarray) -> np.ndarray:
    """Label maps (n, H, W) -> (19, 2): the share of maps that have the class, and its mean share of the pixels there.

    The mean is over the maps that have the class; both are 0 for one that never occurs.
    """
    shares = np.stack([(label_maps == label).mean(axis=(1, 2)) for label in range(len(LABELS))])
    often = (shares > 0).mean(axis=1)
    return np.stack([often, shares.mean(axis=1) / np.where(often > 0, often, 1)], axis=1)


def apart(one: Sequence[Any], other: Sequence[Any]) -> float:
    """How far apart two lists of values are: 0 where all values have the same shares, 1 where none is in both.

    Half the sum over all values of the absolute difference of their shares, the total variation distance.
    """
    first, second = Counter(one), Counter(other)
    return sum(abs(first[v] / len(one) - second[v] / len(other)) for v in first.keys() | second.keys()) / 2


def faulty(label_map: np.ndarray) -> bool:
    """Whether something is wrong with a label map (H, W), by five rules that hold for nearly all good ones."""
    height, width = label_map.shape
    pieces, centres = 0, {}
    for label in np.unique(label_map):
        parts, count = ndimage.label(label_map == label, np.ones((3, 3)))
        pieces += count
        middle = np.array(ndimage.center_of_mass(parts > 0, parts, range(1, count + 1)))
        sizes = np.bincount(parts.ravel())[1:]
        centres[int(label)] = np.average(middle, axis=0, weights=sizes)
        in_one = label in (_NOSE, _L_EYE, _R_EYE, _L_BROW, _R_BROW, _MOUTH, _U_LIP, _L_LIP)
        if in_one and np.ptp(middle, axis=0).max() > height * 0.2:
            return True  # an island
    if not {_SKIN, _NOSE, _U_LIP, _L_LIP} <= centres.keys():
        return True  # a class is missing
    pairs = [(a, b) for a, b in ((_L_EYE, _R_EYE), (_L_BROW, _R_BROW), (8, 9)) if {a, b} <= centres.keys()]
    if any(centres[left][1] < centres[right][1] for left, right in pairs):
        return True  # the person's left lies on the picture's right
    down, aside = centres[_U_LIP] - centres[_NOSE]
    return bool(pieces > 60 or not 0 < down < height * 0.3 or abs(aside) > width * 0.15)


def predict(x: np.ndarray, y: np.ndarray, new: np.ndarray, ridge: float = 30.0) -> np.ndarray:
    """A linear layer fitted to features x (n, d) and classes y (n,) -> the classes that it gives to `new` (m, d).

    Least squares with every class counting alike, by their formula instead of a training loop.
    """
    mean, spread = x.mean(axis=0), x.std(axis=0) + 1e-3
    x, new = (x - mean) / spread, (new - mean) / spread
    targets = np.eye(y.max() + 1)[y]
    weight = (1 / targets.sum(axis=0).clip(1))[y, None]
    weight = weight / weight.mean()
    middle, level = (weight * x).mean(axis=0), (weight * targets).mean(axis=0)
    x, targets = x - middle, targets - level
    layer = np.linalg.solve((weight * x).T @ x + ridge * np.eye(x.shape[1]), (weight * x).T @ targets)
    return ((new - middle) @ layer + level).argmax(axis=1)


def skill(x: np.ndarray, values: np.ndarray, folds: int = 5) -> float:
    """How well a linear layer tells values (n,) from features x (n, d): 0 for guessing, 1 for always right.

    Each value is told by a layer that has not seen it; the share that is right counts alike for every value.
    """
    names, y = np.unique(values, return_inverse=True)
    if len(names) < 2:
        return 0.0
    fold, told = np.arange(len(y)) % folds, np.zeros_like(y)
    for k in range(folds):
        told[fold == k] = predict(x[fold != k], y[fold != k], x[fold == k])
    right = np.mean([(told[y == v] == v).mean() for v in range(len(names))])
    return float((right - 1 / len(names)) / (1 - 1 / len(names)))


def shown(statistics: np.ndarray, values: np.ndarray, gender: np.ndarray) -> bool:
    """Whether a mask's statistics (n, d) tell the values (n,) beyond what they tell of the gender (n,).

    Among women alone, and among men alone, the gender has nothing to tell any more.
    """
    within = [skill(statistics[gender == g], values[gender == g]) for g in np.unique(gender)]
    return bool(np.mean(within) > 0.15)


# --- checkers ------------------------------------------------------------------------------------------------------


def check_class_table(function: Callable[[np.ndarray], Any]) -> None:
    """label maps (n, H, W) -> (19, 2): how often, and how large where it occurs."""
    rng = np.random.default_rng(0)
    maps = rng.integers(0, 15, (5, 12, 8), dtype=np.uint8)
    maps[1:, :, 4:], maps[2:, 2:8], maps[3:, 7:] = 0, 13, 1
    maps[:4, 0, 0] = 17  # in four maps of five; 15, 16 and 18 occur in none
    expected, pixels = class_table(maps), maps[0].size
    shares = np.stack([(maps == label).mean(axis=(1, 2)) for label in range(len(LABELS))])
    often, large = expected.T
    face = np.stack([(maps == k).sum((1, 2)) / (maps > 0).sum((1, 2)) for k in range(len(LABELS))])
    middle = [np.median(row[row > 0]) if row.any() else 0 for row in shares]
    pairs = {
        "The second column is the mean over all maps; a map without the class says nothing about its size. Divide by "
        "the number of maps that have it.": (often, shares.mean(1)),
        "The second column is in pixels; expected the share of all pixels.": (often, large * pixels),
        "The first column is a number of maps; expected their share.": (often * len(maps), large),
        "The first column is the share of pixels of the class; expected the share of maps in which it occurs at all.": (
            shares.mean(1),
            large,
        ),
        "The columns are swapped: how often comes first.": (large, often),
        "These are per cent; expected shares between 0 and 1.": (often * 100, large * 100),
        "The second column is the share of the face without background; expected the share of all pixels.": (
            often,
            face.sum(1) / np.maximum((face > 0).sum(1), 1),
        ),
        "The second column is the median; expected the mean.": (often, np.array(middle)),
    }
    mistakes = {hint: np.stack(columns, axis=1) for hint, columns in pairs.items()}
    mistakes["The background is missing: it is a class like the others, label 0."] = expected[1:]
    there = expected[often > 0]
    mistakes[
        "Classes that occur in no map are left out, so rows are no labels any more: go through range(19), not through "
        "what np.unique finds."
    ] = there
    found = function(maps.copy())
    if found is not None and np.isnan(np.asarray(found, dtype=float)).any():
        raise Wrong("There is a NaN: a class that occurs in no map has no mean size, 0 / 0. Make it 0.")
    compare(found, expected, mistakes, "classes by (how often, how large)")


def check_apart(function: Callable[..., Any]) -> None:
    """two lists of values -> half the sum of the absolute differences of their shares."""
    lists = (
        (["a"] * 3 + ["b"], ["a"] * 2 + ["b"] * 6 + ["c"] * 2),
        (["no"] * 7 + ["yes"] * 3, ["yes", "no"] * 3),
        (["red"] * 4, ["blue"] * 5 + ["green"]),
        (["x", "y", "z", "x"], ["z", "x", "x", "y", "z", "y", "x", "x"]),
        (["k"] * 4 + ["l"] * 4 + ["m", "n"], ["k", "l", "m", "m", "n", "n"]),
    )
    tables = []
    for one, other in lists:
        names = sorted({*one, *other})
        tables.append(tuple(np.array([some.count(name) for name in names], float) for some in (one, other)))
    differences = [p / p.sum() - q / q.sum() for p, q in tables]
    expected = np.array([apart(*pair) for pair in lists])
    mistakes = {
        "Halve the sum: a share that one list lacks, another has too much of, so every difference counts twice.": [
            2 * v for v in expected
        ],
        "These are differences of counts; divide each by the length of its list first.": [
            np.abs(p - q).sum() / 2 for p, q in tables
        ],
        "Positive and negative differences cancel: take their absolute values.": [d.sum() / 2 for d in differences],
        "This is the largest difference; expected half their sum.": [np.abs(d).max() for d in differences],
        "This is half the sum of squares; expected absolute values.": [(d**2).sum() / 2 for d in differences],
        "This is the Euclidean distance; expected half the sum of absolute values.": [
            np.sqrt((d**2).sum()) for d in differences
        ],
        "Only values of the first list are counted; one that only the second has differs as well.": [
            np.abs(d[p > 0]).sum() / 2 for (p, _), d in zip(tables, differences, strict=True)
        ],
        "Only values that both lists have are counted; one that a single list has differs most.": [
            np.abs(d[(p > 0) & (q > 0)]).sum() / 2 for (p, q), d in zip(tables, differences, strict=True)
        ],
        "This is how much the lists share: 1 for equal ones. Expected 0 for equal ones.": list(1 - expected),
        "This is the mean of the differences, which depends on how many values there are; expected half their sum.": [
            np.abs(d).mean() for d in differences
        ],
    }
    found = [function(list(one), list(other)) for one, other in lists]
    if any(value is None for value in found):
        raise Wrong("It returned None: is there a `return` at the end?")
    if any(np.ndim(value) for value in found):
        raise Wrong("It returned several numbers; expected one, half the sum of them.")
    signless = [np.abs(np.array(v)) for v in (found, expected)]
    if np.allclose(*signless) and not np.allclose(found, expected):
        raise Wrong("Some results are negative; a distance never is.")
    compare([float(v) for v in found], expected, mistakes, "one number for each pair of lists")


@cache
def _examined() -> tuple[list[np.ndarray], dict[str, list[np.ndarray]]]:
    """Good masks of two sets that the notebook does not show, and the same with faults of each kind."""
    from mogle.checkpoints import BASE, shipped

    data = shipped(BASE).parents[1] / "data"
    good = [FaceDataset(data / name).label_map(i) for name in ("female", "balanced") for i in range(16)]
    return good, {kind: [plant(m, kind, i) for i, m in enumerate(good[k % 2 :: 2])] for k, kind in enumerate(KINDS)}


#: Kind -> what a rule overlooks that misses nearly all of it, and one that misses some.
_MISSED = {
    "sides": (
        "Compare columns of a left part and its right one: the person's left lies on the picture's right.",
        "Glasses hide the eyes' labels, and hair may hide an ear: compare whichever pairs are there.",
    ),
    "nose": (
        "Where is a nose, seen from the lips?",
        "It may land at any height, on hair or clothes: compare its column with the lips', too.",
    ),
    "island": (
        "In how many pieces does an eye, a lip or a nose come? scipy.ndimage.label counts them.",
        "The patch may be a piece of any small class: look at all of them, brows and mouth too.",
    ),
    "missing": (
        "Which classes had a frequency of 1 in your table?",
        "There are four classes that every mask has; you ask for some of them.",
    ),
    "resized": (
        "Smooth resizing leaves thin seams of wrong classes along the edges: count all pieces of all classes.",
        "Count the pieces of all classes together: how many do good masks have at most, and how many have these?",
    ),
}


def check_faulty(function: Callable[[np.ndarray], Any]) -> None:
    """label map (H, W) -> whether something is wrong with it; judged on masks of two other sets."""
    good, bad = _examined()

    def verdicts(masks: list[np.ndarray]) -> list[bool]:
        said = []
        for mask in masks:
            given = mask.copy()
            value = function(given)
            if value is None:
                raise Wrong("It returned None for some mask: say False where nothing is wrong.")
            if not isinstance(value, (bool, np.bool_)):
                raise Wrong(f"It returned {type(value).__name__}, expected True or False.")
            if not np.array_equal(given, mask):
                raise Wrong("It changes the mask that it is given; work on a copy.")
            said.append(bool(value))
        return said

    alarms, found = verdicts(good), {kind: verdicts(masks) for kind, masks in bad.items()}
    if all(alarms):
        raise Wrong("It refuses every mask, the good ones too: a rule that always says True finds nothing.")
    if not any(map(any, found.values())):
        raise Wrong("It finds no fault at all: begin with the one that you can see at once, and write a rule for it.")
    hints = []
    if sum(alarms) > len(good) // 10:
        hints.append(f"It refuses {sum(alarms)} of {len(good)} good masks. {_common(good, alarms)}")
    for kind, said in found.items():
        if sum(said) < 0.8 * len(said):
            hint = _MISSED[kind][sum(said) > len(said) // 4]
            hints.append(f"It finds {sum(said)} of {len(said)} masks of the kind '{kind}'. {hint}")
    if hints:
        raise Wrong(*hints)


def _common(good: list[np.ndarray], alarms: list[bool]) -> str:
    """What the refused masks have in common that hardly any of the others has."""
    has = np.array([[(mask == label).any() for label in range(len(LABELS))] for mask in good])
    refused, taken = has[np.array(alarms)].mean(axis=0), has[~np.array(alarms)].mean(axis=0)
    gap = refused - taken
    label = int(np.abs(gap).argmax())
    if refused[label] in (0, 1) and abs(gap[label]) > 0.5:
        return f"All of those {'have' if refused[label] else 'lack'} {LABELS[label]}, which a good mask may."
    return "Try your rule on good masks first: what do they all keep to, and by how much?"


@cache
def _worlds() -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Made-up statistics (n, 40) of which the first tells the gender, the gender, and yes or no of attributes."""
    n, rng = 600, np.random.default_rng(22)
    woman = rng.random(n) < 0.55
    x = rng.normal(size=(n, 40))
    x[:, 0] = np.where(woman, 1, -1) + 0.3 * x[:, 0]

    def toss(chance: Any) -> np.ndarray:
        return rng.random(n) < chance

    worlds = {
        "plain": x[:, 3] > 0,
        "through gender": toss(np.where(woman, 0.8, 0.2)),
        "rare": toss(0.15),
        "beard": ~woman & toss(0.5),
        "men": np.where(woman, toss(0.5), x[:, 5] > 0),
        "women": np.where(woman, x[:, 6] > 0, toss(0.5)),
        "weak": x[:, 7] + 1.6 * rng.normal(size=n) > 0,
        "nobody": np.zeros(n, dtype=bool),
    }
    return x, np.where(woman, "woman", "man"), worlds | {f"toss {i}": toss(0.5) for i in range(6)}


def check_shown(function: Callable[..., Any]) -> None:
    """statistics (n, d), values (n,), gender (n,) -> whether the mask shows more than the gender; in made-up worlds."""
    x, gender, worlds = _worlds()
    says = {}
    for name, yes in worlds.items():
        value = function(x.copy(), np.where(yes, "yes", "no"), gender.copy())
        if not isinstance(value, (bool, np.bool_)):
            raise Wrong(f"It returned {type(value).__name__}, expected True or False.")
        says[name] = bool(value)
    tossed = sum(yes for name, yes in says.items() if name.startswith("toss"))
    if not says["plain"]:
        raise Wrong("It says no to an attribute that stands in the statistics: one of the 40 numbers alone tells it.")
    if tossed == 6 and says["nobody"]:
        raise Wrong("It says yes to everything, to coin tosses and to an attribute that nobody has.")
    if tossed == 6:
        raise Wrong("It says yes to every coin toss: was the layer judged on values that it had been fitted to?")
    if tossed > 1:
        raise Wrong(
            f"It says yes to {tossed} of 6 coin tosses: chance alone gives a little more than 0. Ask for 0.1 or more."
        )
    if says["rare"]:
        raise Wrong(
            "It says yes to a rare attribute that the mask does not show: who always says no is right in 85 % of the "
            "cases. Every value has to count alike, as it does in `skill`."
        )
    if says["through gender"]:
        raise Wrong(
            "It says yes to an attribute that most women and few men have, tossed without a look at the mask. The mask "
            "shows the gender, and the rest is guessed: compare women with women, and men with men."
        )
    if says["nobody"]:
        raise Wrong("It says yes to an attribute that nobody has: then there is nothing to tell.")
    if says["beard"]:
        raise Wrong("It says yes to a beard that no woman and every other man has, tossed without a look at the mask.")
    missed = [who for who in ("men", "women") if not says[who]]
    if len(missed) == 2:
        raise Wrong("It misses what masks show of one gender alone: one group that tells is enough.")
    if missed:
        raise Wrong(f"It misses what only the masks of {missed[0]} show: look at both groups.")
    if not says["weak"]:
        raise Wrong("It misses what the statistics show weakly, as waves of the hair: your limit is too high.")


EXERCISES = (
    Exercise("class_table", NOTEBOOK, 1, 10, check_class_table, (class_table,), (
        "Two questions for each class: in how many maps does it occur, and how much of those maps does it cover?",
        "(label_maps == label).mean(axis=(1, 2)) is the class's share of each map; it is 0 where the class is absent.",
        "how often: (share > 0).mean(); how large: share[share > 0].mean(), or 0 if there is none. One row a label.",
    )),
    Exercise("faulty", NOTEBOOK, 3, 30, check_faulty, (faulty,), (
        "Take one kind of fault at a time. What is true of good masks and of no mask of that kind?",
        "np.argwhere(mask == label).mean(axis=0) is a class's centre (row, column); scipy.ndimage.label counts pieces.",
        "Left parts right of right ones; upper lip below the nose and near its column; small classes in one place; "
        "1, 2, 11 and 12 there; fewer than about 60 pieces in all.",
    )),
    Exercise("apart", NOTEBOOK, 1, 10, check_apart, (apart,), (
        "Count first: how often does each value occur in either list, as a share of that list?",
        "Go through the values of both lists; a value that a list lacks has the share 0 there.",
        "sum(abs(share of v in one - share of v in other) for v in all values) / 2; list.count(v) / len(list).",
    )),
    Exercise("shown", NOTEBOOK, 2, 20, check_shown, (shown,), (
        "If a mask shows the gender, it seems to show all that goes with the gender. How can you take the gender away?",
        "Among women alone the gender is the same for all. Ask for the skill there, and among men.",
        "The mean of skill(statistics[gender == g], values[gender == g]) over both, compared with about 0.15.",
    )),
)  # fmt: skip
