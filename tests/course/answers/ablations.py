"""Answers to `workbook.exercises.ablations`: wrong ones with words of their hints, right ones by another way."""

import numpy as np
import torch
from scipy.stats import norm

from mogle.errors import MogleError
from mogle.provenance import read_picture
from workbook.exercises.ablations import MADE, NOT_MADE, OPEN, foretold, spectrum, train_detector


def widened(factor):
    """Decided where the difference is more than so many times half of its interval."""
    return lambda gaps: [
        name for name, (value, low, high) in gaps.items() if abs(value) > factor(gaps) * (high - low) / 2
    ]


def bonferroni(gaps):
    return norm.ppf(1 - 0.025 / len(gaps)) / norm.ppf(0.975)


def holm(gaps):
    """Step by step, the surest first: a sharper way to hold all at once."""
    sure = sorted(gaps, key=lambda name: -abs(gaps[name][0]) / (gaps[name][2] - gaps[name][1]))
    kept = []
    for left, name in zip(range(len(sure), 0, -1), sure, strict=True):
        value, low, high = gaps[name]
        if 2 * norm.sf(abs(value) / ((high - low) / 2 / 1.96)) > 0.05 / left:
            break
        kept.append(name)
    return {*kept}


def fixed(masks):
    return (masks[:, None] == np.arange(19)[:, None, None]).sum(0).argmax(0)


def right(maps, masks):
    return (maps == masks).mean()


def between(made, floor, ceiling=1.0):
    return (made - floor) / (ceiling - floor)


def by_counting(masks, made, real):
    """The fixed mask pixel by pixel, and shares as sums."""
    best = np.array(
        [[np.bincount(column, minlength=19).argmax() for column in row] for row in masks.transpose(1, 2, 0)]
    )
    hits = [int(np.equal(maps, masks).sum()) for maps in (np.broadcast_to(best, masks.shape), made, real)]
    return (hits[1] - hits[0]) / (hits[2] - hits[0])


def discriminant(real, made):
    """Fisher's instead of a logistic regression, on the difference to neighbours instead of a spectrum."""

    def seen(pictures):
        gray = pictures.astype(float).mean(-1)
        steps = [np.abs(np.diff(gray, n, axis=1)).mean((1, 2)) for n in (1, 2, 3)]
        return np.log(np.stack([*steps, gray.std((1, 2))], axis=1))

    a, b = seen(real), seen(made)
    axis = np.linalg.solve(np.cov(a.T) + np.cov(b.T) + 1e-6 * np.eye(4), b.mean(0) - a.mean(0))
    return lambda pictures: torch.from_numpy(seen(pictures) @ axis)


def with_raw_pixels(real, made):
    """As many numbers as pixels, and a line through them that fits the training exactly."""
    x = np.concatenate([real, made]).reshape(len(real) + len(made), -1) / 255 - 0.5
    y = np.r_[-np.ones(len(real)), np.ones(len(made))]
    axis = x.T @ np.linalg.solve(x @ x.T + 1e-3 * np.eye(len(x)), y)
    return lambda pictures: (pictures.reshape(len(pictures), -1) / 255 - 0.5) @ axis


def scoring(change):
    """The solution, with something done to its scores: change(scores, pictures)."""

    def train(real, made):
        detector = train_detector(real, made)
        return lambda pictures: change(detector(pictures), pictures)

    return train


def by_the_batch(real, made):
    def scores(pictures):
        x = spectrum(pictures)[:, -1]
        return -(x - x.mean())

    return scores


def judging(*, largest=8, weights=True, measure=np.max, without=OPEN, redraws=True, sizes=NOT_MADE):
    """`verdict` with something else in one of its places."""

    def verdict(file, known, redraw):
        try:
            picture, recipe, origin = read_picture(file)
        except MogleError:
            return without
        if weights and any(origin[name] != value for name, value in known.items()):
            return OPEN
        if not redraws:
            return MADE
        one, other = np.asarray(redraw(recipe), int), np.asarray(picture, int)
        if sizes and one.shape != other.shape:
            return sizes
        return MADE if measure(np.abs(one - other)) <= largest else NOT_MADE

    return verdict


def without_a_net(file, known, redraw):
    picture, recipe, _ = read_picture(file)
    again = redraw(recipe).resize(picture.size)
    return MADE if np.abs(np.asarray(again, int) - np.asarray(picture, int)).max() < 9 else NOT_MADE


MEASURED = foretold()

#: Exercise -> (words of the hint, wrong answer).
WRONG = {
    "foretold": [
        ("found str", lambda: "full, no-gate"),
        ("no variant 'no gate'", lambda: ["no gate", *MEASURED[1:]]),
        ("neither stands there twice", lambda: ["neither", *(name for name in MEASURED if name != "full"), "neither"]),
        ("full is missing", lambda: [name for name in MEASURED if name != "full"]),
        ("The wrong way round", lambda: MEASURED[::-1]),
        ("Furthest off", lambda: [*MEASURED[4:], *MEASURED[:4]]),
    ],
    "still_decided": [
        ("each by itself", widened(lambda gaps: 1)),
        ("grows slowly", widened(len)),
        ("the root of the number", widened(lambda gaps: len(gaps) ** 0.5)),
        ("divide by 1.96", widened(lambda gaps: norm.ppf(1 - 0.025 / len(gaps)))),
        ("these are the undecided ones", lambda gaps: sorted({*gaps} - {*widened(bonferroni)(gaps)})),
        ("Only those above zero", lambda gaps: [name for name in widened(bonferroni)(gaps) if gaps[name][0] > 0]),
        ("Only those below zero", lambda gaps: [name for name in widened(bonferroni)(gaps) if gaps[name][0] < 0]),
        ("None at all", lambda gaps: []),
        ("return names, not numbers", lambda gaps: [gaps[name][0] for name in widened(bonferroni)(gaps)]),
        ("found int", lambda gaps: len(widened(bonferroni)(gaps))),
        ("1.51 times", widened(lambda gaps: 1.28)),
    ],
    "followed": [
        ("the share of right pixels", lambda m, a, b: right(a, m)),
        ("floor is missing", lambda m, a, b: right(a, m) / right(b, m)),
        ("ceiling is 1", lambda m, a, b: between(right(a, m), right(fixed(m), m))),
        ("compare both with the masks", lambda m, a, b: right(a, b)),
        ("one class everywhere", lambda m, a, b: between(
            right(a, m), max(right(k, m) for k in range(19)), right(b, m))),
        ("guess among 19", lambda m, a, b: between(right(a, m), 1 / 19, right(b, m))),
        ("mean of class numbers", lambda m, a, b: between(right(a, m), right(m.mean(0).round(), m), right(b, m))),
        ("exchanged", lambda m, a, b: between(right(b, m), right(fixed(m), m), right(a, m))),
        ("did not divide", lambda m, a, b: right(a, m) - right(fixed(m), m)),
        ("ratio of each picture", lambda m, a, b: np.mean([
            between(right(x, y), right(fixed(m), y), right(z, y)) for x, y, z in zip(a, m, b, strict=True)])),
    ],
    "train_detector": [
        ("Expected a function", lambda real, made: 0.9),
        ("expected one for each", scoring(lambda scores, pictures: scores.mean())),
        ("NaN or infinite", scoring(lambda scores, pictures: scores * np.nan)),
        ("same score", scoring(lambda scores, pictures: 0 * scores)),
        ("place in the list", scoring(lambda scores, pictures: scores + 5 * np.arange(len(scores)))),
        ("those beside it", by_the_batch),
        ("You give verdicts", scoring(lambda scores, pictures: (scores > 0).astype(int))),
        ("what is made gets the higher", scoring(lambda scores, pictures: -scores)),
        ("by heart", with_raw_pixels),
        ("goes by brightness", scoring(lambda scores, pictures: pictures.mean((1, 2, 3)))),
        ("What of a picture do you look at", scoring(lambda scores, pictures: spectrum(pictures)[:, 0])),
    ],
    "verdict": [
        ("found True", lambda file, known, redraw: True),
        ("not drawn anything", judging(redraws=False)),
        ("rounds otherwise", judging(largest=0)),
        ("A mean over the picture hides it", judging(measure=np.mean)),
        ("saving it as JPEG removes it", judging(without=NOT_MADE)),
        ("none that it could have been made with", judging(without=MADE)),
        ("that yours draws something else", judging(weights=False)),
        ("in the case “cropped”", judging(sizes=None)),
        ("in the case “bare”", without_a_net),
        ("more proof there cannot be", lambda file, known, redraw: OPEN),
    ],
}  # fmt: skip

#: Exercise -> a right answer that is not the package's.
OTHER_WAYS = {
    "foretold": [*foretold()],
    "still_decided": holm,
    "followed": by_counting,
    "train_detector": discriminant,
    "verdict": judging(largest=20, measure=lambda gap: np.quantile(gap, 0.999)),
}
