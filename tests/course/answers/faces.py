"""Answers to `workbook.exercises.faces`: wrong ones with words of their hints, right ones by another way."""

from collections import Counter

import numpy as np
import torch
from scipy import ndimage

from workbook.exercises.faces import apart, class_table, predict, skill

SMALL = (2, 4, 5, 6, 7, 10, 11, 12)


def shares(label_maps):
    return np.stack([(label_maps == k).mean((1, 2)) for k in range(19)])


def columns(of):
    """A table from `of(shares (19, n), how often (19,), how large (19,))`."""

    def table(label_maps):
        often, large = class_table(label_maps).T
        return np.stack(of(shares(label_maps), often, large), axis=1)

    return table


def table_by_unique(label_maps):
    rows = []
    for label in np.unique(label_maps):
        share = (label_maps == label).mean((1, 2))
        rows.append((np.mean(share > 0), share[share > 0].mean()))
    return np.array(rows)


def table_with_nan(label_maps):
    share = shares(label_maps)
    with np.errstate(invalid="ignore"):
        return np.stack([(share > 0).mean(1), share.sum(1) / (share > 0).sum(1)], 1)


def table_of_faces(label_maps):
    inside = (label_maps > 0).sum((1, 2))
    share = np.stack([(label_maps == k).sum((1, 2)) / inside for k in range(19)])
    return np.stack([(share > 0).mean(1), share.sum(1) / (share > 0).sum(1).clip(1)], 1)


def table_by_bincount(label_maps):
    counts = np.array([np.bincount(one.ravel(), minlength=19) for one in label_maps])
    table = torch.zeros(19, 2, dtype=torch.float64)
    for label, column in enumerate(counts.T):
        if column.any():
            table[label, 0] = np.count_nonzero(column) / len(column)
            table[label, 1] = column[column > 0].mean() / label_maps[0].size
    return table


def distance(each=abs, total=sum, values=lambda p, q: p.keys() | q.keys(), normal=True, half=2):
    def answer(one, other):
        p, q = Counter(one), Counter(other)
        m, n = (len(one), len(other)) if normal else (1, 1)
        return total([each(p[v] / m - q[v] / n) for v in sorted(values(p, q))]) / half

    return answer


def centre(mask, label):
    return np.argwhere(mask == label).mean(axis=0)


def pieces(mask, labels=range(19)):
    return sum(ndimage.label(mask == label, np.ones((3, 3)))[1] for label in labels)


def sides(mask, pairs=((4, 5), (6, 7), (8, 9))):
    there = [(a, b) for a, b in pairs if (mask == a).any() and (mask == b).any()]
    return any(centre(mask, a)[1] < centre(mask, b)[1] for a, b in there)


def nose(mask, down=True, aside=True):
    if not (mask == 2).any() or not (mask == 11).any():
        return False
    y, x = centre(mask, 11) - centre(mask, 2)
    return (down and not 0 < y < 40) or (aside and abs(x) > 20)


def island(mask, labels=SMALL, least=1):
    for label in labels:
        parts, count = ndimage.label(mask == label, np.ones((3, 3)))
        large = [k for k in range(1, count + 1) if (parts == k).sum() >= least]
        middle = [np.argwhere(parts == k).mean(axis=0) for k in large]
        if len(large) > 1 and np.ptp(middle, axis=0).max() > 26:
            return True
    return False


def missing(mask, labels=(1, 2, 11, 12)):
    return not all((mask == label).any() for label in labels)


def resized(mask, limit=60):
    return pieces(mask) > limit


def rules(**replaced):
    """All five rules, some of them replaced."""
    used = {"sides": sides, "nose": nose, "island": island, "missing": missing, "resized": resized} | replaced
    return lambda mask: bool(any(rule(mask) for rule in used.values()))


def never(mask):
    return False


def spoils(mask):
    mask[mask == 2] = 1
    return False


def by_pieces_and_places(mask):
    """Five rules in other terms than the package's: extents, sizes of pieces, colours of the neighbourhood."""
    counts = np.bincount(mask.ravel(), minlength=19)
    if (counts[[1, 2, 11, 12]] == 0).any():
        return np.True_
    rows, cols = ({k: np.nonzero((mask == k).any(1 - axis))[0] for k in np.flatnonzero(counts)} for axis in (0, 1))
    here = [k for k in SMALL if counts[k]]
    tall = any(np.ptp(rows[k]) > 45 or np.ptp(cols[k]) > 45 for k in here)
    pairs = [(cols[a], cols[b]) for a, b in ((4, 5), (6, 7), (8, 9)) if counts[a] and counts[b]]
    crossed = any(np.median(left) < np.median(right) for left, right in pairs)
    down, aside = (np.median(lines[12]) - np.median(lines[2]) for lines in (rows, cols))
    edges = (mask[1:] != mask[:-1]).sum() + (mask[:, 1:] != mask[:, :-1]).sum()
    return np.bool_(tall or crossed or not 3 < down < 45 or abs(aside) > 18 or edges > 2600 or island(mask))


def over(limit, of=np.mean, groups=("woman", "man")):
    """Skill among women and among men, above a limit."""
    return lambda x, v, g: bool(of([skill(x[g == k], v[g == k]) for k in groups]) > limit)


def seen_before(x, values, gender):
    """Judged on the very values that the layer was fitted to."""
    right = []
    for g in ("woman", "man"):
        names, y = np.unique(values[gender == g], return_inverse=True)
        right.append(np.mean(predict(x[gender == g], y, x[gender == g]) == y) if len(names) > 1 else 0)
    return bool(np.mean(right) > 0.6)


def accuracy(x, values, gender):
    """The share that is right, whatever guessing would give; half of the values are kept for judging."""
    right = []
    for g in ("woman", "man"):
        _, y = np.unique(values[gender == g], return_inverse=True)
        x_of, half = x[gender == g], len(y) // 2
        often = np.bincount(y[:half]).argmax()
        guess = np.full(len(y) - half, often)
        told = predict(x_of[:half], y[:half], x_of[half:]) if len(set(y)) > 1 else guess
        right.append(max(np.mean(told == y[half:]), np.mean(guess == y[half:])))
    return bool(np.mean(right) > 0.66)


def beyond_the_gender(x, values, gender):
    """Another control: what the statistics tell, less what the gender alone tells."""
    of_gender = (gender == "woman").astype(float)[:, None]
    return skill(np.hstack([x, of_gender]), values) - max(0.0, skill(of_gender, values)) > 0.12


#: Exercise -> (words of the hint, wrong answer).
WRONG = {
    "class_table": [
        ("mean over all maps", columns(lambda s, often, large: (often, s.mean(1)))),
        ("in pixels", columns(lambda s, often, large: (often, large * 96))),
        ("a number of maps", columns(lambda s, often, large: ((s > 0).sum(1), large))),
        ("occurs at all", columns(lambda s, often, large: (s.mean(1), large))),
        ("columns are swapped", columns(lambda s, often, large: (large, often))),
        ("per cent", columns(lambda s, often, large: (100 * often, 100 * large))),
        ("without background", table_of_faces),
        ("background is missing", lambda m: class_table(m)[1:]),
        ("np.unique", table_by_unique),
        ("There is a NaN", table_with_nan),
        ("Axes are swapped", lambda m: class_table(m).T),
        ("median", columns(lambda s, often, large: (often, [np.median(r[r > 0]) if r.any() else 0 for r in s]))),
    ],
    "apart": [
        ("Halve the sum", distance(half=1)),
        ("differences of counts", distance(normal=False)),
        ("cancel", distance(each=float)),
        ("largest difference", distance(total=max, half=1)),
        ("sum of squares", distance(each=lambda d: d * d)),
        ("Euclidean", lambda one, other: distance(each=lambda d: d * d, half=1)(one, other) ** 0.5),
        ("first list are counted", distance(values=lambda p, q: p.keys())),
        ("both lists have are counted", distance(values=lambda p, q: p.keys() & q.keys())),
        ("how much the lists share", lambda one, other: 1 - apart(one, other)),
        ("mean of the differences", distance(total=np.mean, half=1)),
        ("a distance never is", lambda one, other: -apart(one, other)),
        ("several numbers", distance(total=np.array)),
    ],
    "faulty": [
        ("finds no fault at all", never),
        ("refuses every mask", lambda mask: True),
        ("0 of 16 masks of the kind 'sides'", rules(sides=never)),
        ("Glasses hide the eyes' labels", rules(sides=lambda m: sides(m, [(4, 5)]))),
        ("Where is a nose", rules(nose=never)),
        ("at any height", rules(nose=lambda m: nose(m, aside=False))),
        ("In how many pieces", rules(island=never)),
        ("any small class", rules(island=lambda m: island(m, (2, 10, 11, 12)))),
        ("frequency of 1", rules(missing=never)),
        ("four classes that every mask has", rules(missing=lambda m: missing(m, (1, 2)))),
        (
            "pieces of all classes together",
            rules(resized=never, sides=lambda m: sides(m, [(4, 5), (6, 7)]), island=lambda m: island(m, least=26)),
        ),
        ("All of those have eye_g", rules(missing=lambda m: missing(m, (1, 2, 4, 5, 11, 12)))),
        ("what do they all keep to", rules(resized=lambda m: resized(m, 15))),
        ("returned str", lambda mask: "nose" if nose(mask) else ""),
        ("returned None", lambda mask: True if sides(mask) else None),
        ("work on a copy", spoils),
    ],
    "shown": [
        ("compare women with women", lambda x, v, g: skill(x, v) > 0.15),
        ("to everything", lambda x, v, g: True),
        ("stands in the statistics", lambda x, v, g: False),
        ("of 6 coin tosses", over(0)),
        ("every coin toss", seen_before),
        ("rare attribute", accuracy),
        ("masks of men show", over(0.15, groups=["woman"])),
        ("masks of women show", over(0.15, groups=["man"])),
        ("one group that tells is enough", over(0.2, of=min)),
        ("your limit is too high", over(0.35, of=max)),
        ("returned float", lambda x, v, g: skill(x, v)),
    ],
}

#: Exercise -> a right answer that is not the package's.
OTHER_WAYS = {
    "class_table": table_by_bincount,
    "apart": lambda one, other: 1 - sum(min(one.count(v) / len(one), other.count(v) / len(other)) for v in {*one}),
    "faulty": by_pieces_and_places,
    "shown": beyond_the_gender,
}
