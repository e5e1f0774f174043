"""Exercises of notebook 10, evaluation: solutions, and checkers that raise `Wrong` with hints."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import numpy as np
from scipy import ndimage

from mogle.labels import LABELS
from workbook.checking import Exercise, Wrong
from workbook.contest import damaged, flattering
from workbook.exercises.judging import compare

NOTEBOOK = "10_evaluation"
Parse = Callable[[np.ndarray], np.ndarray]  # pictures uint8 (n, H, W, 3) -> label maps (n, H, W)


def mask_iou(true: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Label maps (n, H, W) twice -> (19,), the intersection over union of each class, over all pixels of the set.

    NaN for a class that is nowhere in `true`.
    """
    found = np.full(len(LABELS), np.nan)
    for label in range(len(LABELS)):
        wanted, seen = true == label, predicted == label
        if wanted.any():
            found[label] = (wanted & seen).sum() / (wanted | seen).sum()
    return found


def per_picture(reported: float, n: int, batch: int = 64) -> float:
    """A distance that was summed within batches and averaged over batches -> the mean distance of one of n pictures."""
    return reported * math.ceil(n / batch) / n


def frechet(real: np.ndarray, fake: np.ndarray) -> float:
    """Features (n, d) and (m, d) -> the Frechet distance of the two Gaussians that have their means and covariances."""
    gap = real.mean(axis=0) - fake.mean(axis=0)
    one, other = np.cov(real, rowvar=False), np.cov(fake, rowvar=False)
    values = np.linalg.eigvals(one @ other).real.clip(0)  # of small sets some come out as a tiny negative number
    return float(gap @ gap + np.trace(one) + np.trace(other) - 2 * np.sqrt(values).sum())


def kid(real: np.ndarray, fake: np.ndarray) -> float:
    """Features (n, d) and (m, d) -> the squared maximum mean discrepancy under (x.y / d + 1)^3, without bias."""

    def likeness(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return (a @ b.T / a.shape[1] + 1) ** 3

    def within(a: np.ndarray) -> float:
        table = likeness(a, a)
        return float((table.sum() - np.trace(table)) / (len(a) * (len(a) - 1)))

    return within(real) + within(fake) - 2 * float(likeness(real, fake).mean())


def pictures_needed(first: np.ndarray, second: np.ndarray) -> int:
    """Scores (n,) of two models on the same samples -> how many samples it takes for the interval to leave out 0.

    The least number at which 1.96 standard errors of the mean difference are no longer than that difference.
    """
    difference = second - first
    return math.ceil((1.96 * difference.std(ddof=1) / difference.mean()) ** 2)


def claims() -> dict[str, bool]:
    """Sentence -> whether it may be written."""
    return {
        "women_fid": False, "women_kid": True, "ours": False, "winners": True, "overlap": False, "equal": False,
        "vae": False,
    }  # fmt: skip


def gamed(pictures: np.ndarray, masks: np.ndarray, training: np.ndarray, parse: Parse) -> str:
    """What a model's pictures (n, H, W, 3) for masks (n, H, W) are: "honest", "copies" or "flatters".

    Copies are near a picture of the training set (m, H, W, 3). What flatters the judge loses its score as soon as the
    picture is saved as a JPEG, which an honest picture hardly does.
    """
    small, theirs = (some[:, ::4, ::4].astype(float) for some in (pictures, training))
    nearest = [np.abs(theirs - one).mean(axis=(1, 2, 3)).min() for one in small]
    if np.median(nearest) < 12:
        return "copies"
    once, again = (np.nanmean(mask_iou(masks, parse(some))) for some in (pictures, damaged(pictures, "saved as JPEG")))
    return "flatters" if once - again > 0.12 else "honest"


# --- checkers ------------------------------------------------------------------------------------------------------


def _maps() -> tuple[np.ndarray, np.ndarray]:
    """Label maps (4, 10, 8) twice: 15 to 17 occur in neither, 18 only in the second, 4 only in the first map."""
    rng = np.random.default_rng(0)
    true = np.zeros((4, 10, 8), dtype=np.uint8)
    for k, label in enumerate((1, 13, 2, 11, 17, 14)):
        true[:, k + 1 :, k : k + 4] = label
    true[true == 17] = 12
    true[0, 4:6, 5:7], true[2, :3] = 4, 3
    found = np.where(rng.random(true.shape) < 0.7, true, np.roll(true, 1, axis=2)).astype(np.uint8)
    found[3, 7:, 5:] = 18
    return true, found


def check_mask_iou(function: Callable[..., Any]) -> None:
    """label maps (n, H, W) twice -> (19,): intersection over union by class, over the set."""
    true, predicted = _maps()
    expected, labels = mask_iou(true, predicted), np.arange(len(LABELS))[:, None, None, None]
    wanted, seen = true == labels, predicted == labels
    both, either = (wanted & seen).sum((1, 2, 3)), (wanted | seen).sum((1, 2, 3))
    size, there = wanted.sum((1, 2, 3)), wanted.any((1, 2, 3))
    with np.errstate(invalid="ignore", divide="ignore"):
        by_map = np.array([mask_iou(a[None], b[None]) for a, b in zip(true, predicted, strict=True)])
        means = np.where(there, np.nansum(by_map, 0) / np.isfinite(by_map).sum(0), np.nan)
        pairs = {
            "You took the mean over the pictures; count the pixels of the whole set first, and divide once.": means,
            "This is the share of the class's true pixels that was found. Pixels that were taken for the class and are "
            "none belong into the union, too.": both / size,
            "This is the share of what was taken for the class that is right. Pixels of the class that were missed "
            "belong into the union, too.": both / seen.sum((1, 2, 3)),
            "The union is not the sum of both sizes: that counts the pixels of both twice. Take off the intersection "
            "once.": both / (size + seen.sum((1, 2, 3))),
            "This is the Dice score, twice the intersection over the sum of both sizes; expected the intersection over "
            "the union.": 2 * both / (size + seen.sum((1, 2, 3))),
            "Pixels that both maps leave out are no agreement about the class: only the union counts.": (
                (wanted == seen).mean((1, 2, 3))
            ),
            "This is the union over the intersection: turn it round.": either / both,
            "This is a share of all pixels of the picture; divide by the union.": both / wanted[0].size,
        }
    mistakes = {hint: np.where(there, values, -1) for hint, values in pairs.items()}
    mistakes["The background is missing: it is a class like the others, label 0."] = np.where(there, expected, -1)[1:]
    found = function(true.copy(), predicted.copy())
    if found is not None and np.ndim(found) == 0:
        raise Wrong("It returned one number; expected one for each of the 19 classes. The mean comes later.")
    if found is not None and np.shape(found) == expected.shape:
        found = np.asarray(found, dtype=float)
        absent, only = found[~there], found[18]
        if np.array_equal(absent[np.isfinite(absent)], [0]) and np.isfinite(only):
            raise Wrong(
                "A class that is nowhere in the truth and was seen by mistake has 0 here; expected NaN. Its pixels "
                "count where they are missing, in the unions of other classes."
            )
        if (absent == 0).all():
            raise Wrong("A class that does not occur has 0 here: it would pull the mean down. Expected NaN.")
        if (absent == 1).any():
            raise Wrong("A class that does not occur has 1 here: it would lift the mean. Expected NaN.")
    if found is not None:
        found = np.nan_to_num(np.asarray(found, dtype=float), nan=-1.0)
    compare(found, np.where(there, expected, -1), mistakes, "one number for each class")


def check_per_picture(function: Callable[..., Any]) -> None:
    """a reported distance, n, and the size of a batch -> the mean distance of one picture."""
    cases = ((2.44, 3000, 64), (2.77, 760, 64), (0.5, 200, 64), (0.3, 64, 64), (1.2, 65, 64), (0.9, 100, 32))
    expected = [per_picture(*case) for case in cases]

    def each(rule: Callable[[float, int, int], float]) -> list[float]:
        return [rule(*case) for case in cases]

    mistakes = {
        "You divided by the size of a batch. That would do if every batch were full; the last one rarely is.": each(
            lambda r, n, b: r / b
        ),
        "You divided by the number of pictures. What is reported is a mean over batches: first make the sum of it.": (
            each(lambda r, n, b: r / n)
        ),
        "You left out the last batch, which is not full: round the number of batches up.": each(
            lambda r, n, b: r * (n // b) / n
        ),
        "64 pictures are one full batch of 64 and no second one: n // batch + 1 is one too many there.": each(
            lambda r, n, b: r * (n // b + 1) / n
        ),
        "The number of batches is rounded to the nearest; a batch that is half empty is a batch, too.": each(
            lambda r, n, b: r * round(n / b) / n
        ),
        "You went the other way, from one picture to the batch.": each(lambda r, n, b: r * n / math.ceil(n / b)),
        "You divided by the number of batches; the mean over batches has done that. Multiply, then divide by n.": each(
            lambda r, n, b: r / math.ceil(n / b)
        ),
        "That is the sum of all distances; divide by the number of pictures.": each(
            lambda r, n, b: r * math.ceil(n / b)
        ),
        "Batches have 64 pictures in your function, whatever `batch` says.": each(
            lambda r, n, b: r * math.ceil(n / 64) / n
        ),
    }
    found = each(function)
    if any(value is None for value in found):
        raise Wrong("It returned None: is there a `return` at the end?")
    compare([float(value) for value in found], expected, mistakes, "one number for each case")


def _features() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(40, 5)) @ rng.normal(size=(5, 5)), 0.5 + rng.normal(size=(30, 5)) @ rng.normal(size=(5, 5))


def check_frechet(function: Callable[..., Any]) -> None:
    """features (n, d), (m, d) -> the Frechet distance of two Gaussians."""
    real, fake = _features()
    gap, n, m = real.mean(0) - fake.mean(0), len(real), len(fake)
    one, other = np.cov(real, rowvar=False), np.cov(fake, rowvar=False)
    roots = [_root(matrix) for matrix in (one, other)]
    traces, middle = np.trace(one + other), np.sqrt(np.linalg.eigvals(one @ other).real.clip(0)).sum()
    expected, spread = frechet(real, fake), traces - 2 * middle
    ones, others = one * (n - 1) / n, other * (m - 1) / m
    mistakes = {
        "The means' difference has to be squared: a sum of squares, no length.": np.linalg.norm(gap) + spread,
        "You took the mean of the squares of the means' difference; expected their sum.": (gap**2).mean() + spread,
        "The means are missing.": spread,
        "The covariances are missing.": gap @ gap,
        "The root of a matrix is not the root of each of its numbers: the square root of the product has eigenvalues "
        "that are roots.": gap @ gap + traces - 2 * np.trace(np.sqrt(np.abs(one @ other))),
        "`*` multiplies number by number; the product of two matrices is `@`.": (
            gap @ gap + traces - 2 * np.sqrt(np.linalg.eigvals(one * other).real.clip(0)).sum()
        ),
        "You multiplied the two roots; expected the root of the product, which is another matrix where the covariances "
        "do not share their axes.": gap @ gap + traces - 2 * np.trace(roots[0] @ roots[1]),
        "The factor 2 before the root is missing.": gap @ gap + traces - middle,
        "The sign of the last term is wrong: equal sets would be far apart.": gap @ gap + traces + 2 * middle,
        "The root is missing: add up the roots of the eigenvalues, not the eigenvalues.": (
            gap @ gap + traces - 2 * np.trace(one @ other)
        ),
        "Only variances are compared, number by number; the covariances between the numbers count as well.": (
            gap @ gap + ((np.sqrt(np.diag(one)) - np.sqrt(np.diag(other))) ** 2).sum()
        ),
        "You took the square root of the whole; the distance in the tables is the square.": math.sqrt(expected),
        "The covariances are divided by n; expected n - 1, which is what np.cov does.": (
            gap @ gap + np.trace(ones + others) - 2 * np.sqrt(np.linalg.eigvals(ones @ others).real.clip(0)).sum()
        ),
    }
    try:
        found = function(real.copy(), fake.copy())
    except (ValueError, np.linalg.LinAlgError) as error:
        raise Wrong(f"{error}. Features are in columns here: np.cov(features, rowvar=False) is (d, d).") from error
    if np.iscomplexobj(found):
        raise Wrong("It returned a complex number: take the real part of the eigenvalues, `.real`.")
    compare(found, expected, mistakes, "one number")
    few = function(real[:4].copy(), fake[:4].copy())
    if np.iscomplexobj(few) or not np.isfinite(few):
        raise Wrong("Fewer pictures than numbers give NaN: tiny negative eigenvalues have no root. clip(0) them.")


def _root(matrix: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.sqrt(values.clip(min=0))) @ vectors.T


def check_kid(function: Callable[..., Any]) -> None:
    """features (n, d), (m, d) -> the squared discrepancy, without bias."""
    real, fake = _features()
    real, fake = real[:12], fake[:9]

    def value(power: int = 3, divide: float = 5, plus: float = 1, own: str = "off", cross: float = 2) -> float:
        def table(a: np.ndarray, b: np.ndarray) -> np.ndarray:
            return (a @ b.T / divide + plus) ** power

        def within(a: np.ndarray) -> float:
            k, n = table(a, a), len(a)
            off = k.sum() - np.trace(k)
            return float({"off": off / (n * (n - 1)), "all": k.mean(), "lost": off / n**2, "sum": off}[own])

        return within(real) + within(fake) - cross * float(table(real, fake).mean())

    expected, between = kid(real, fake), (real @ fake.T / 5 + 1) ** 3
    apart = between[np.eye(*between.shape) == 0].mean()
    mistakes = {
        "Pairs of a picture with itself count: a picture is most like itself, so each set looks closer than it is. "
        "This is the biased estimate.": value(own="all"),
        "The pairs with itself are left out of the sum, and still counted in n^2: there are n (n - 1) others.": value(
            own="lost"
        ),
        "You added up the likeness within each set; take the mean over the pairs.": value(own="sum"),
        "The factor 2 before the likeness between the sets is missing.": value(cross=1),
        "The sign of the last term is wrong: what is alike between the sets brings them closer.": value(cross=-2),
        "The d is missing: the product of two features is divided by how many numbers they have.": value(divide=1),
        "The product is divided by the root of d, as in attention; here it is d.": value(divide=math.sqrt(5)),
        "The + 1 in the kernel is missing.": value(plus=0),
        "You squared; the kernel is the third power.": value(power=2),
        "The third power is missing: this kernel compares nothing but the means.": value(power=1),
        "Between the sets every pair counts, also those of equal numbers: they are different pictures.": (
            expected + 2 * float(between.mean()) - 2 * float(apart)
        ),
        "This is 1,000 times the value, as it stands in tables; here it is wanted as it is.": 1000 * expected,
        "You took the square root; without bias the value may be negative, and then there is none.": (
            math.sqrt(abs(expected))
        ),
    }
    try:
        found = function(real.copy(), fake.copy())
    except ValueError as error:
        raise Wrong(f"{error}. The two sets need not have the same size: likeness is a table (n, m).") from error
    cut = "Negative values are cut off at 0: then the mean over many draws lies above 0, and that is a bias."
    compare(found, expected, mistakes | {cut: max(0.0, expected)}, "one number")  # here the right value is negative


def _trials() -> list[tuple[np.ndarray, np.ndarray]]:
    """Scores of two models on the same samples: samples differ more than models do."""
    rng, found = np.random.default_rng(3), []
    for n, gap, scale in ((24, 0.5, 1.0), (40, -0.25, 0.02), (16, 0.4, 30.0)):
        sample, own = rng.normal(size=n), rng.normal(size=(2, n))
        own -= own.mean(axis=1, keepdims=True)  # so that the gap is what was asked for
        found.append((scale * (5 + sample + 0.6 * own[0]), scale * (5 + sample + gap + 0.6 * own[1])))
    return found


def check_pictures_needed(function: Callable[..., Any]) -> None:
    """scores (n,) of two models on the same samples -> the least number that would decide."""
    trials = _trials()
    found = [function(first.copy(), second.copy()) for first, second in trials]
    if any(value is None for value in found):
        raise Wrong("It returned None: is there a `return` at the end?")
    if any(np.ndim(value) for value in found):
        raise Wrong("It returned several numbers; expected one: how many pictures.")
    if any(float(value) != math.floor(float(value)) for value in found):
        raise Wrong("A number of pictures is whole: round it up, math.ceil.")

    def each(rule: Callable[[np.ndarray, np.ndarray, np.ndarray], float]) -> list[float]:
        return [rule(second - first, first, second) for first, second in trials]

    def root(rule: Callable[[np.ndarray], float], z: float = 1.96) -> list[float]:
        return each(lambda d, a, b: (z * rule(d) / d.mean()) ** 2)

    expected = root(lambda d: float(d.std(ddof=1)))
    if all(0.93 * e - 1 <= f <= max(1.07 * e, e + 5) for f, e in zip(found, expected, strict=True)):
        return
    mistakes = {
        "You added the two models' variances, as if each had drawn other samples. They have drawn the same: take the "
        "deviation of the differences.": each(
            lambda d, a, b: 1.96**2 * (a.var(ddof=1) + b.var(ddof=1)) / d.mean() ** 2
        ),
        "The square is missing: an error falls with the root of the number.": each(
            lambda d, a, b: 1.96 * d.std(ddof=1) / abs(d.mean())
        ),
        "The 1.96 is missing: one standard error is not a 95 % interval.": root(lambda d: float(d.std(ddof=1)), 1),
        "You took the standard error, which has the pilot's number in it; take the deviation of single differences.": (
            root(lambda d: float(d.std(ddof=1) / math.sqrt(len(d))))
        ),
        "You asked for the whole interval to be shorter than the difference; the half that points to 0 has to be.": (
            root(lambda d: float(d.std(ddof=1)), 2 * 1.96)
        ),
        "With 1.645 the interval has 90 %; 95 % take 1.96.": root(lambda d: float(d.std(ddof=1)), 1.645),
        "You took the variance of the differences in place of their deviation, and squared it again.": root(
            lambda d: float(d.var(ddof=1))
        ),
        "You took the deviation of one model's scores; that of the differences counts.": each(
            lambda d, a, b: (1.96 * a.std(ddof=1) / d.mean()) ** 2
        ),
        "You divided by a score and not by the difference of the two.": each(
            lambda d, a, b: (1.96 * d.std(ddof=1) / a.mean()) ** 2
        ),
        "That is the number of pictures which the pilot has; how many would it take?": each(lambda d, a, b: len(d)),
    }
    for hint, values in mistakes.items():
        if all(abs(float(f) - math.ceil(v)) <= 0.02 * v for f, v in zip(found, values, strict=True)):
            raise Wrong(hint)
    told = ", ".join(f"{float(f):.0f} (expected about {e:.0f})" for f, e in zip(found, expected, strict=True))
    raise Wrong(f"For three pairs of models it says {told}.")


#: Why a sentence may be written, or may not.
_BECAUSE = {
    "women_fid": "FID of fewer pictures comes out larger whoever has drawn them. Part of the difference is the 760",
    "women_kid": "KID has no bias: fewer pictures make it less sure, not larger",
    "ours": "one number is summed over 64 pictures by DINO, the other is for one picture by a parser of painted faces. "
    "Neither unit nor judge is the same",
    "winners": "mask only has the best FID, KID and CMMD, text + mask the best structure, text only the best text "
    "score and ImageReward. Look them up",
    "overlap": "each interval holds how much the faces differ, and that drops out of a paired difference, which can be "
    "decided all the same",
    "equal": "the interval says what could not be seen with so few pictures: the difference may be 2.2 as well as 0",
    "vae": "every picture of the model leaves through the VAE's decoder, and what that loses no transformer can give "
    "back",
}


def check_claims(function: Callable[[], Any]) -> None:
    """sentence -> True if it may be written."""
    said, right = function() if callable(function) else function, claims()
    if not isinstance(said, dict):
        raise Wrong("Expected a dictionary with a True or False for each of the seven names.")
    if missing := [name for name in right if name not in said]:
        raise Wrong(f"No answer for: {', '.join(missing)}.")
    if more := [str(name) for name in said if name not in right]:
        raise Wrong(f"There is no sentence called {more[0]!r}.")
    if odd := [name for name in right if said[name] not in (True, False)]:
        raise Wrong(f"{odd[0]}: found {said[odd[0]]!r}; expected True or False.")
    wrong = [name for name in right if bool(said[name]) != right[name]]
    if len({bool(said[name]) for name in right}) == 1:
        raise Wrong("Not all of them are alike: some follow from the numbers, and some do not.")
    if wrong:
        may = {True: "may be written", False: "may not be written"}
        raise Wrong(*(f"{name} {may[right[name]]}: {_BECAUSE[name]}." for name in wrong))


@cache
def _suspects() -> tuple[Any, np.ndarray, np.ndarray, dict[str, tuple[str, np.ndarray]]]:
    """A parser, masks, training pictures, and what models have drawn: who -> (what it does, pictures)."""
    from mogle.checkpoints import BASE, JUDGES, shipped
    from mogle.datasets import FaceDataset
    from mogle.metrics.judges import load_judges

    dataset = FaceDataset(shipped(BASE).parents[1] / "data" / "portraits")
    portraits = np.stack([np.asarray(dataset.image(i)) for i in range(len(dataset))])
    masks, good, training = np.stack([dataset.label_map(i) for i in range(4)]), portraits[:4], portraits[8:]
    parser = load_judges(shipped(JUDGES)).parser
    poor, fair = (np.stack([_bent(one, i, *how) for i, one in enumerate(good)]) for how in ((14, 1.5), (5, 0.8)))
    taken = training[[3, 9, 14, 20]]
    suspects = {
        "one that draws badly": ("honest", poor),
        "one that draws fairly well": ("honest", fair),
        "one that draws as well as the painter": ("honest", good),
        "one that copies": ("copies", taken),
        "one that copies and saves as JPEG": ("copies", damaged(taken, "saved as JPEG")),
        "one that copies and makes it a little brighter": ("copies", (taken.astype(int) + 6).clip(0, 255)),
        "one that flatters": ("flatters", flattering(parser, poor, masks, steps=8)),
        "one that flatters a little": ("flatters", flattering(parser, poor, masks, steps=5, most=4)),
    }
    known: dict[int, np.ndarray] = {}

    def parse(pictures: Any) -> np.ndarray:  # as parser.parse, but the second time it is quick
        pictures = np.ascontiguousarray(pictures)
        key = hash(pictures.tobytes())
        if key not in known:
            known[key] = parser.parse(pictures)
        return known[key].copy()

    return parse, masks, training, {who: (what, p.astype(np.uint8)) for who, (what, p) in suspects.items()}


def _bent(picture: np.ndarray, seed: int, far: float, sigma: float) -> np.ndarray:
    """A softened picture whose parts lie up to `far` pixels elsewhere: as a model draws that follows masks roughly."""
    rng = np.random.default_rng(seed)
    shifts = ndimage.gaussian_filter(rng.normal(size=(2, *picture.shape[:2])), (0, 12, 12))
    places = np.indices(picture.shape[:2]) + far * shifts / np.abs(shifts).max()
    soft = ndimage.gaussian_filter(picture, (sigma, sigma, 0)).transpose(2, 0, 1)
    return np.stack([ndimage.map_coordinates(channel, places, order=1, mode="nearest") for channel in soft], axis=2)


def check_gamed(function: Callable[..., Any]) -> None:
    """pictures, masks, training pictures, parse -> "honest", "copies" or "flatters"; tried on eight models."""
    parse, masks, training, suspects = _suspects()
    says = {}
    for who, (_, pictures) in suspects.items():
        given = pictures.copy()
        said = function(given, masks.copy(), training.copy(), parse)
        if said is None:
            raise Wrong("It returned None: is there a `return` in every case?")
        if said not in ("honest", "copies", "flatters"):
            raise Wrong(f'It returned {said!r}; expected "honest", "copies" or "flatters".')
        if not np.array_equal(given, pictures):
            raise Wrong("It changes the pictures that it is given; work on a copy.")
        says[who] = said
    true = {who: what for who, (what, _) in suspects.items()}
    if says != true:
        raise Wrong(*_errors(says, true))


def _errors(says: Mapping[str, str], true: Mapping[str, str]) -> list[str]:
    """What a rule gets wrong, each with what to look at."""
    if len(set(says.values())) == 1:
        only = next(iter(says.values()))
        what = "acquits everyone" if only == "honest" else f'says "{only}" of every model'
        return [f"It {what}: it has to tell three kinds apart."]
    wrong = {who: said for who, said in says.items() if said != true[who]}
    hints = {
        ("draws as well", "flatters"): "A high score is no proof: real portraits have one. Ask what makes it fall.",
        ("draws badly", "flatters"): "Every score falls a little when a picture is changed; by how much does an honest "
        "one?",
        ("fairly", "flatters"): "What you do to a picture may not be so rough that any score falls.",
        (
            "",
            "copies",
        ): "Its pictures are not nearer to a training picture than portraits are to each other: your limit "
        "is too wide.",
        ("saves as JPEG", ""): "Saved again, hardly a pixel is equal: compare by a distance, not by equality.",
        ("brighter", ""): "A few gray levels everywhere are no other picture: allow for more than that.",
        ("copies", ""): "Compare each picture with every training picture, and keep the nearest.",
        ("flatters a little", ""): "Four gray levels are enough to flatter: your limit lets it through.",
        ("flatters", ""): "Its score hangs on changes of a few gray levels. Change the pictures by as little yourself, "
        "parse them again, and compare.",
    }
    found = []
    for who, said in wrong.items():
        hint = next(hint for (part, verdict), hint in hints.items() if part in who and verdict in ("", said))
        found.append(f'Of {who} it says "{said}". {hint}')
    return found


EXERCISES = (
    Exercise("mask_iou", NOTEBOOK, 2, 15, check_mask_iou, (mask_iou,), (
        "Two regions for each class: where it should be, and where it was seen. How many pixels are in both, and in "
        "either?",
        "true == label and predicted == label are booleans (n, H, W); & and | combine them, .sum() counts all of them.",
        "Begin with np.full(19, np.nan). For each label that occurs in true: (wanted & seen).sum() / (wanted | seen)"
        ".sum().",
    )),
    Exercise("per_picture", NOTEBOOK, 1, 10, check_per_picture, (per_picture,), (
        "Go back the way on which the number was made: from the mean over batches to the sum, from there to a picture.",
        "How many batches are there? The last one may be half empty and still counts as one: math.ceil(n / batch).",
        "reported * math.ceil(n / batch) is the sum over all pictures; divide it by n.",
    )),
    Exercise("frechet", NOTEBOOK, 2, 20, check_frechet, (frechet,), (
        "Four terms: the squared length of the means' difference, two traces, and twice the trace of a root.",
        "np.cov(features, rowvar=False) is (d, d). The trace of a matrix's root is the sum of its eigenvalues' roots.",
        "values = np.linalg.eigvals(S_1 @ S_2).real.clip(0); gap @ gap + np.trace(S_1 + S_2) - 2 * np.sqrt(values)"
        ".sum().",
    )),
    Exercise("kid", NOTEBOOK, 2, 20, check_kid, (kid,), (
        "Three tables of likeness: real with real, fake with fake, real with fake. What is the mean of each?",
        "In the tables of a set with itself the diagonal has to go: n (n - 1) numbers are left.",
        "k = (a @ a.T / d + 1) ** 3; (k.sum() - np.trace(k)) / (n * (n - 1)) within a set; minus 2 * the mean between.",
    )),
    Exercise("pictures_needed", NOTEBOOK, 2, 15, check_pictures_needed, (pictures_needed,), (
        "The samples are the same for both models: look at the differences, one for each sample.",
        "With n samples the interval reaches 1.96 s / sqrt(n) to each side. When is that just the mean difference?",
        "Solve for n: (1.96 * differences.std(ddof=1) / differences.mean()) ** 2, rounded up.",
    )),
    Exercise("claims", NOTEBOOK, 1, 10, check_claims, (claims,), (
        "Ask of each sentence: are the two numbers of the same judge, in the same unit, of as many pictures?",
        "Sections 4, 7, 8 and 10 each have one reason for a no. Two of the seven follow from the numbers.",
        "Look up `winners` in the table: who has the best FID, who the best structure, who the best text score?",
    )),
    Exercise("gamed", NOTEBOOK, 3, 30, check_gamed, (gamed,), (
        "Two suspicions, two measurements. What is a copy near to? And what does a score hang on that was flattered?",
        "For copies: the smallest distance to any training picture. For flattery: parse once more after a change that "
        "the eye hardly sees.",
        "damaged(pictures, 'saved as JPEG') takes most of the flattery away and little else: compare "
        "np.nanmean(mask_iou(masks, parse(...))) before and after. Distances of pixels: below about 12 gray levels.",
    )),
)  # fmt: skip
