"""Answers to `workbook.exercises.evaluation`: wrong ones with words of their hints, right ones by another way."""

import math

import numpy as np
from scipy import linalg, ndimage

from workbook.exercises.evaluation import claims, mask_iou

# --- overlap of masks ------------------------------------------------------------------------------------------------


def by_class(share, absent=np.nan):
    """IoUs from `share(wanted, seen)`, masks of one class each."""

    def answer(true, predicted):
        pairs = [(true == k, predicted == k) for k in range(19)]
        return np.array([share(*pair) if pair[0].any() else absent for pair in pairs])

    return answer


def over_pictures(true, predicted):
    each = np.array([mask_iou(a[None], b[None]) for a, b in zip(true, predicted, strict=True)])
    return np.array([column[np.isfinite(column)].mean() if np.isfinite(column).any() else np.nan for column in each.T])


def nan_where_nowhere(true, predicted):
    found = []
    for k in range(19):
        either = ((true == k) | (predicted == k)).sum()
        found.append(((true == k) & (predicted == k)).sum() / either if either else np.nan)
    return found


def by_confusion(true, predicted):
    matrix = np.bincount(true.ravel().astype(int) * 19 + predicted.ravel(), minlength=361).reshape(19, 19)
    hit, wanted, seen = np.diag(matrix), matrix.sum(1), matrix.sum(0)
    return [float(h / (w + s - h)) if w else float("nan") for h, w, s in zip(hit, wanted, seen, strict=True)]


# --- the Frechet distance --------------------------------------------------------------------------------------------


def two_clouds(middle, means=lambda gap: gap @ gap, ddof=1, factor=2.0):
    """A distance from `middle(S_1, S_2)`, the trace of the root, and `means` of the difference of both means."""

    def answer(real, fake):
        one, other = (np.cov(some, rowvar=False, ddof=ddof) for some in (real, fake))
        return means(real.mean(0) - fake.mean(0)) + np.trace(one + other) - factor * middle(one, other)

    return answer


def of_product(one, other):
    return np.sqrt(np.linalg.eigvals(one @ other).real.clip(0)).sum()


def unclipped(one, other):
    with np.errstate(invalid="ignore"):
        return np.sqrt(np.linalg.eigvals(one @ other).real - 1e-12).sum()


def of_roots(one, other):
    return np.trace(linalg.sqrtm(one) @ linalg.sqrtm(other)).real


def by_numbers(real, fake):
    gaps = real.mean(0) - fake.mean(0), real.std(0, ddof=1) - fake.std(0, ddof=1)
    return sum((gap**2).sum() for gap in gaps)


def by_singular_values(real, fake):
    """tr (S_1 S_2)^(1/2) is the sum of the singular values of X Y^T, where S_1 = X^T X and S_2 = Y^T Y."""
    x, y = ((some - some.mean(0)) / math.sqrt(len(some) - 1) for some in (real, fake))
    gap = real.mean(0) - fake.mean(0)
    return (gap**2).sum() + (x**2).sum() + (y**2).sum() - 2 * np.linalg.svd(x @ y.T, compute_uv=False).sum()


# --- KID -------------------------------------------------------------------------------------------------------------


def likeness(power=3, plus=1.0, divide=lambda d: d):
    return lambda a, b: (a @ b.T / divide(a.shape[1]) + plus) ** power


def off_diagonal(table):
    return (table.sum() - np.trace(table)) / (len(table) * (len(table) - 1))


def discrepancy(k=None, within=off_diagonal, cross=2.0, between=np.mean):
    k = k or likeness()
    return lambda x, y: within(k(x, x)) + within(k(y, y)) - cross * between(k(x, y))


def by_loops(real, fake):
    def k(a, b):
        return (sum(p * q for p, q in zip(a, b, strict=True)) / len(a) + 1) ** 3

    def mean(pairs):
        values = [k(a, b) for a, b in pairs]
        return sum(values) / len(values)

    def others(rows):
        return [(a, b) for i, a in enumerate(rows) for j, b in enumerate(rows) if i != j]

    return mean(others(real)) + mean(others(fake)) - 2 * mean([(a, b) for a in real for b in fake])


# --- how many pictures -----------------------------------------------------------------------------------------------


def enough(z=1.96, spread=lambda d, a, b: d.std(ddof=1), gap=lambda d, a, b: d.mean(), square=True):
    def answer(first, second):
        all_three = second - first, first, second
        value = abs(z * spread(*all_three) / gap(*all_three))
        return math.ceil(value**2 if square else value)

    return answer


def by_trying(first, second):
    difference, count = second - first, 1
    while 1.96 * difference.std(ddof=1) / math.sqrt(count) > abs(difference.mean()):
        count += 1
    return count


# --- what may be written, and who plays ------------------------------------------------------------------------------


def saying(**changes):
    return lambda: {**claims(), **changes}


def without(name):
    return lambda: {key: value for key, value in claims().items() if key != name}


def distance(pictures, training):
    small, theirs = (some[:, ::4, ::4].astype(float) for some in (pictures, training))
    return [np.abs(theirs - one).mean(axis=(1, 2, 3)).min() for one in small]


def blurred(pictures, sigma=1.0):
    return ndimage.gaussian_filter(pictures, (0, sigma, sigma, 0))


def verdict(near=12, fall=0.05, change=blurred, of=np.median):
    def answer(pictures, masks, training, parse):
        if of(distance(pictures, training)) < near:
            return "copies"
        before, after = (np.nanmean(mask_iou(masks, parse(some))) for some in (pictures, change(pictures)))
        return "flatters" if before - after > fall else "honest"

    return answer


def by_score(pictures, masks, training, parse):
    if np.median(distance(pictures, training)) < 12:
        return "copies"
    return "flatters" if np.nanmean(mask_iou(masks, parse(pictures))) > 0.8 else "honest"


def equal_ones(pictures, masks, training, parse):
    return verdict(near=0.001)(pictures, masks, training, parse)


def paints_over(pictures, masks, training, parse):
    pictures[:] = 0
    return "honest"


def by_changed_pixels(pictures, masks, training, parse):
    """How many pixels get another class by a median filter; copies by the correlation of small gray pictures."""

    def gray(some):
        small = some[:, ::8, ::8].mean(axis=-1).reshape(len(some), -1)
        return (small - small.mean(1, keepdims=True)) / small.std(1, keepdims=True)

    if np.median((gray(pictures) @ gray(training).T / 256).max(axis=1)) > 0.98:
        return "copies"
    filtered = np.stack([ndimage.median_filter(one, (3, 3, 1)) for one in pictures])
    lost = (parse(pictures) == masks).mean() - (parse(filtered) == masks).mean()
    return "flatters" if lost > 0.008 else "honest"


#: Exercise -> (words of the hint, wrong answer).
WRONG = {
    "mask_iou": [
        ("count the pixels of the whole set first", over_pictures),
        ("share of the class's true pixels that was found", by_class(lambda w, s: (w & s).sum() / w.sum())),
        ("share of what was taken for the class", by_class(lambda w, s: (w & s).sum() / s.sum())),
        ("counts the pixels of both twice", by_class(lambda w, s: (w & s).sum() / (w.sum() + s.sum()))),
        ("Dice", by_class(lambda w, s: 2 * (w & s).sum() / (w.sum() + s.sum()))),
        ("both maps leave out", by_class(lambda w, s: (w == s).mean())),
        ("turn it round", by_class(lambda w, s: (w | s).sum() / (w & s).sum())),
        ("share of all pixels", by_class(lambda w, s: (w & s).sum() / w.size)),
        ("has 0 here: it would pull", by_class(lambda w, s: (w & s).sum() / (w | s).sum(), absent=0)),
        ("has 1 here", by_class(lambda w, s: (w & s).sum() / (w | s).sum(), absent=1)),
        ("was seen by mistake", nan_where_nowhere),
        ("background is missing", lambda t, p: mask_iou(t, p)[1:]),
        ("one for each of the 19 classes", lambda t, p: np.nanmean(mask_iou(t, p))),
    ],
    "per_picture": [
        ("every batch were full", lambda r, n, batch=64: r / batch),
        ("first make the sum", lambda r, n, batch=64: r / n),
        ("left out the last batch", lambda r, n, batch=64: r * (n // batch) / n),
        ("no second one", lambda r, n, batch=64: r * (n // batch + 1) / n),
        ("half empty", lambda r, n, batch=64: r * round(n / batch) / n),
        ("went the other way", lambda r, n, batch=64: r * n / math.ceil(n / batch)),
        ("divided by the number of batches", lambda r, n, batch=64: r / math.ceil(n / batch)),
        ("the sum of all distances", lambda r, n, batch=64: r * math.ceil(n / batch)),
        ("whatever `batch` says", lambda r, n, batch=64: r * math.ceil(n / 64) / n),
    ],
    "frechet": [
        ("no length", two_clouds(of_product, np.linalg.norm)),
        ("mean of the squares", two_clouds(of_product, lambda gap: (gap**2).mean())),
        ("means are missing", two_clouds(of_product, lambda gap: 0)),
        ("covariances are missing", lambda x, y: ((x.mean(0) - y.mean(0)) ** 2).sum()),
        ("root of each of its numbers", two_clouds(lambda a, b: np.trace(np.sqrt(np.abs(a @ b))))),
        ("multiplies number by number", two_clouds(lambda a, b: np.sqrt(np.linalg.eigvals(a * b).real.clip(0)).sum())),
        ("multiplied the two roots", two_clouds(of_roots)),
        ("factor 2", two_clouds(of_product, factor=1)),
        ("sign of the last term", two_clouds(of_product, factor=-2)),
        ("not the eigenvalues", two_clouds(lambda a, b: np.trace(a @ b))),
        ("Only variances", by_numbers),
        ("square root of the whole", lambda x, y: math.sqrt(by_singular_values(x, y))),
        ("divided by n", two_clouds(of_product, ddof=0)),
        ("complex", two_clouds(lambda a, b: np.sqrt(np.linalg.eigvals(a @ b).astype(complex)).sum())),
        ("rowvar=False", lambda x, y: np.trace(np.cov(x) @ np.cov(y))),
        ("clip(0)", two_clouds(unclipped)),
    ],
    "kid": [
        ("biased estimate", discrepancy(within=np.mean)),
        ("still counted in n^2", discrepancy(within=lambda t: (t.sum() - np.trace(t)) / t.size)),
        ("take the mean over the pairs", discrepancy(within=lambda t: t.sum() - np.trace(t))),
        ("factor 2", discrepancy(cross=1)),
        ("sign of the last term", discrepancy(cross=-2)),
        ("The d is missing", discrepancy(likeness(divide=lambda d: 1))),
        ("root of d", discrepancy(likeness(divide=math.sqrt))),
        ("+ 1", discrepancy(likeness(plus=0))),
        ("You squared", discrepancy(likeness(power=2))),
        ("nothing but the means", discrepancy(likeness(power=1))),
        ("different pictures", discrepancy(between=lambda t: t[~np.eye(*t.shape, dtype=bool)].mean())),
        ("1,000 times", lambda x, y: 1000 * by_loops(x, y)),
        ("square root", lambda x, y: math.sqrt(abs(by_loops(x, y)))),
        ("cut off at 0", lambda x, y: max(0, by_loops(x, y))),
        ("table (n, m)", lambda x, y: ((x * y).sum(1) + 1) ** 3),
    ],
    "pictures_needed": [
        ("drawn the same", enough(spread=lambda d, a, b: math.sqrt(a.var(ddof=1) + b.var(ddof=1)))),
        ("The square is missing", enough(square=False)),
        ("The 1.96 is missing", enough(z=1)),
        ("pilot's number in it", enough(spread=lambda d, a, b: d.std(ddof=1) / math.sqrt(len(d)))),
        ("whole interval to be shorter", enough(z=3.92)),
        ("95 % take 1.96", enough(z=1.645)),
        ("in place of their deviation", enough(spread=lambda d, a, b: d.var(ddof=1))),
        ("one model's scores", enough(spread=lambda d, a, b: a.std(ddof=1))),
        ("divided by a score", enough(gap=lambda d, a, b: a.mean())),
        ("which the pilot has", lambda a, b: len(a)),
        ("is whole", lambda a, b: (1.96 * (b - a).std(ddof=1) / (b - a).mean()) ** 2),
        ("expected one: how many", lambda a, b: b - a),
    ],
    "claims": [
        ("comes out larger whoever has drawn them", saying(women_fid=True)),
        ("KID has no bias", saying(women_kid=False)),
        ("Neither unit nor judge", saying(ours=True)),
        ("Look them up", saying(winners=False)),
        ("drops out of a paired difference", saying(overlap=True)),
        ("may be 2.2 as well as 0", saying(equal=True)),
        ("no transformer can give back", saying(vae=True)),
        ("Not all of them are alike", lambda: dict.fromkeys(claims(), False)),
        ("No answer for: vae", without("vae")),
        ("expected True or False", saying(ours="no")),
        ("no sentence called", saying(men=True)),
        ("Expected a dictionary", lambda: [True] * 7),
    ],
    "gamed": [
        ("acquits everyone", lambda *_: "honest"),
        ('says "flatters" of every', lambda *_: "flatters"),
        ("A high score is no proof", by_score),
        ("by how much does an honest one", verdict(fall=0.015)),
        ("not be so rough", verdict(fall=0.06, change=lambda some: np.roll(some, 2, axis=2))),
        ("your limit is too wide", verdict(near=50)),
        ("Saved again, hardly a pixel", equal_ones),
        ("A few gray levels everywhere", verdict(near=5.2)),
        ("keep the nearest", verdict(near=-1)),
        ("Four gray levels", verdict(fall=0.14)),
        ("hangs on changes of a few", verdict(fall=2.0)),
        ("returned None", lambda *some: some and None),
        ("expected \"honest\"", lambda *_: "guilty"),
        ("work on a copy", paints_over),
    ],
}  # fmt: skip

#: Exercise -> a right answer that is not the package's.
OTHER_WAYS = {
    "mask_iou": by_confusion,
    "per_picture": lambda reported, n, batch=64: reported * len(range(0, n, batch)) / n,
    "frechet": by_singular_values,
    "kid": by_loops,
    "pictures_needed": by_trying,
    "claims": lambda: {name: np.bool_(value) for name, value in claims().items()},
    "gamed": by_changed_pixels,
}
