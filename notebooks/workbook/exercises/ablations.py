"""Exercises of notebook 11, ablations and zero-shot: solutions, and checkers that raise `Wrong` with hints."""

from __future__ import annotations

import base64
import io
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from scipy.stats import norm

from mogle.errors import MogleError
from mogle.labels import LABELS
from mogle.metrics.distances import area_under_curve
from mogle.metrics.intervals import Estimate
from mogle.provenance import Recipe, read_picture, save_picture
from workbook.checking import Exercise, Wrong
from workbook.exercises.judging import compare
from workbook.results import shipped_results

NOTEBOOK = "11_ablations_and_zero_shot"
#: Variant -> what is left of the method, in a few words.
VARIANTS: dict[str, str] = {
    "full": "the whole method",
    "only-global": "only the global expert",
    "only-local": "only the local experts",
    "no-latents": "gate without noisy latents",
    "scalar-gate": "one gate for all places",
    "no-gate": "experts, no gate",
    "no-experts": "gate, no experts",
    "neither": "neither experts nor gate",
}
#: Mask consistency as published, a distance: lower is better.
PUBLISHED = {
    "full": 2.44, "only-global": 2.47, "only-local": 4.87, "no-latents": 2.37, "scalar-gate": 4.74, "no-gate": 3.20,
    "no-experts": 2.60, "neither": 2.49,
}  # fmt: skip


# --- predict the table -------------------------------------------------------------------------------------------


def measured_gaps(number: str = "pixel_accuracy") -> dict[str, Estimate]:
    """Variant -> its number less the whole method's, on the same masks, sentences and noise, with its interval."""
    found = shipped_results()["against"]
    gaps = {name: Estimate(*found[f"ablation-{name}"][number]) for name in VARIANTS if name != "full"}
    return {"full": Estimate(0.0, 0.0, 0.0), **gaps}


def decided(gaps: Mapping[str, Estimate]) -> list[tuple[str, str]]:
    """The pairs (better, worse) whose difference is larger than what chance does to it."""
    half = {name: (gap.high - gap.low) / 2 for name, gap in gaps.items()}
    return [(a, b) for a in gaps for b in gaps if gaps[a].value - gaps[b].value > (half[a] ** 2 + half[b] ** 2) ** 0.5]


def agreement(order: Sequence[str], pairs: Sequence[tuple[str, str]]) -> float:
    """The share of pairs (better, worse) that an order, best first, has the right way round."""
    return float(np.mean([order.index(a) < order.index(b) for a, b in pairs])) if pairs else 1.0


def luck(pairs: Sequence[tuple[str, str]], share: float = 0.95) -> float:
    """The agreement that this share of all random orders stays below."""
    rng, names = np.random.default_rng(0), list(VARIANTS)
    found = [agreement(rng.permutation(names).tolist(), pairs) for _ in range(2000)]
    return float(np.quantile(found, share))


def foretold() -> list[str]:
    """The eight variants as they were measured, best first."""
    gaps = measured_gaps()
    return sorted(gaps, key=lambda name: -gaps[name].value)


def check_foretold(answer: Any) -> None:
    """The names of the eight variants, best first, as a list or from a function."""
    order = answer() if callable(answer) else answer
    if isinstance(order, (str, dict, set)) or not hasattr(order, "__len__"):
        raise Wrong(f"Expected a list of names, the best first; found {type(order).__name__}.")
    order = list(order)
    if unknown := [name for name in order if name not in VARIANTS]:
        raise Wrong(f"There is no variant {unknown[0]!r}; the names are {', '.join(VARIANTS)}.")
    if twice := [name for name in VARIANTS if order.count(name) > 1]:
        raise Wrong(f"{twice[0]} stands there twice; each name has one place.")
    if missing := [name for name in VARIANTS if name not in order]:
        raise Wrong(f"{missing[0]} is missing; all eight are to be placed, the whole method (full) among them.")
    gaps = measured_gaps()
    pairs = decided(gaps)
    found, needed = agreement(order, pairs), luck(pairs)
    if found >= needed:
        return
    right = f"{found:.0%} of the {len(pairs)} decided pairs are right; luck alone gets {needed:.0%} once in 20 times."
    if agreement(order[::-1], pairs) >= needed:
        raise Wrong(f"The wrong way round: the best stands first. {right}")
    if order == sorted(PUBLISHED, key=lambda name: PUBLISHED[name]):
        raise Wrong(f"That is the paper's order, of another base, more training, and two suspect numbers. {right}")
    better, worse = max(
        ((a, b) for a, b in pairs if order.index(a) > order.index(b)),
        key=lambda pair: gaps[pair[0]].value - gaps[pair[1]].value,
    )
    far = 100 * (gaps[better].value - gaps[worse].value)
    raise Wrong(
        f"{right} Furthest off: you have {worse} before {better}, which gets {far:.1f} more of 100 pixels right. What "
        f"can the base still read of the mask in each of the two?"
    )


# --- many comparisons at once ------------------------------------------------------------------------------------


def still_decided(gaps: Mapping[Any, Sequence[float]]) -> list[Any]:
    """Of (value, low, high), each a 95 % interval by itself, the names that 0 stays outside of if all are to hold.

    With k comparisons each may be wrong in one case of 20 k, so each interval grows (Bonferroni).
    """
    wider = float(norm.ppf(1 - 0.025 / len(gaps)) / norm.ppf(0.975))
    return [name for name, (value, low, high) in gaps.items() if abs(value) > wider * (high - low) / 2]


def check_still_decided(function: Callable[..., Any]) -> None:
    """Name -> (value, low, high) of 95 % intervals -> the names that are still decided if all are to hold together."""
    # name -> distance from 0 in units of half the interval; with 16 of them it has to be more than 1.51
    far = {"a": 4.6, "b": -3.0, "c": 1.3, "d": -1.25, "e": 0.6, "f": -0.2, "g": 2.2, "h": -1.1, "i": 0.0, "j": 0.9}
    far |= {"k": -0.7, "l": 1.05, "m": -20.0, "n": 0.4, "o": -0.95, "p": 0.1}
    rng = np.random.default_rng(0)
    half = dict(zip(far, rng.uniform(0.01, 3, len(far)), strict=True))
    gaps = {name: (x * half[name], (x - 1) * half[name], (x + 1) * half[name]) for name, x in far.items()}
    found = function(dict(gaps))
    if found is None:
        raise Wrong("It returned None: is there a `return` at the end?")
    if isinstance(found, str) or not hasattr(found, "__iter__"):
        raise Wrong(f"Expected the names that are still decided, in a list; found {type(found).__name__}.")
    names, expected, count = set(found), set(still_decided(gaps)), len(gaps)
    if unknown := names - set(gaps):
        raise Wrong(f"{sorted(map(str, unknown))[0]!r} is none of the names that came in; return names, not numbers.")
    if names == expected:
        return

    def wider(factor: float) -> set[str]:
        return {name for name, x in far.items() if abs(x) > factor}

    mistakes = {
        "That is each by itself: one in twenty of those without any effect is among them by luck.": wider(1),
        "You multiplied the intervals by the number of comparisons; the probability of an error is what is shared out, "
        "0.05 / k, and its quantile grows slowly.": wider(count),
        "You multiplied by the root of the number of comparisons; ask for the quantile of 1 - 0.025 / k.": wider(
            count**0.5
        ),
        "You took the quantile of 1 - 0.025 / k as the factor; the intervals are 1.96 standard errors wide already, so "
        "divide by 1.96.": wider(float(norm.ppf(1 - 0.025 / count))),
        "The wrong way round: these are the undecided ones.": set(gaps) - expected,
        "Only those above zero? A difference is decided below zero, too.": {name for name in expected if far[name] > 0},
        "Only those below zero? A difference is decided above zero, too.": {name for name in expected if far[name] < 0},
        "None at all? Some lie many times half their interval away from zero.": set(),
        "You went by the size of the difference alone; a large one with a wide interval shows nothing.": {
            name for name in gaps if abs(gaps[name][0]) > min(abs(gaps[one][0]) for one in expected)
        },
    }
    for hint, wrong in mistakes.items():
        if names == wrong:
            raise Wrong(hint)
    if extra := sorted(names - expected):
        raise Wrong(
            f"{extra[0]} is not decided any more: it lies {abs(far[extra[0]]):.2f} times half its interval from zero, "
            f"and with {count} comparisons it takes 1.51 times."
        )
    raise Wrong(f"{sorted(expected - names)[0]} is missing: it lies far enough from zero for {count} comparisons.")


# --- how well a mask is followed, on any set ---------------------------------------------------------------------


def followed(masks: np.ndarray, made: np.ndarray, real: np.ndarray) -> float:
    """0 for the best fixed mask, 1 for the set's own pictures; label maps (n, H, W), asked for and as a judge sees.

    made: of the pictures that were drawn for the masks; real: of the set's own ones.
    """
    fixed = (masks[:, None] == np.arange(len(LABELS))[:, None, None]).sum(axis=0).argmax(axis=0)
    floor, ceiling = (fixed == masks).mean(), (real == masks).mean()
    return float(((made == masks).mean() - floor) / (ceiling - floor))


def check_followed(function: Callable[..., Any]) -> None:
    """Label maps (n, H, W): asked for, read from the pictures that were drawn, read from the set's own -> a number."""
    rng = np.random.default_rng(0)
    masks = rng.choice([0, 0, 0, 1, 1, 13, 14], (7, 12, 10)).astype(np.uint8)
    masks[:, :4], masks[:, 8:, 3:7] = 0, 1

    def spoilt(share: float) -> np.ndarray:
        return np.where(rng.random(masks.shape) < share, rng.choice([2, 17], masks.shape), masks).astype(np.uint8)

    made, real = spoilt(0.3), spoilt(0.1)
    of_made, of_real = (made == masks).mean(), (real == masks).mean()
    fixed = (masks[:, None] == np.arange(19)[:, None, None]).sum(0).argmax(0)
    floor, one_class = (fixed == masks).mean(), max((masks == k).mean() for k in range(19))
    middle = (masks.mean(0).round() == masks).mean()
    each = [[(a[i] == masks[i]).mean() for i in range(7)] for a in (made, real)]
    each_floor = [(fixed == masks[i]).mean() for i in range(7)]
    mistakes = {
        "That is the share of right pixels; on another set it would mean something else.": of_made,
        "The floor is missing: a model that ignores every mask would not get 0 here.": of_made / of_real,
        "The ceiling is 1 here; no picture can seem better than the set's own ones do to this judge.": (
            (of_made - floor) / (1 - floor)
        ),
        "You compare with what the judge sees in the set's own pictures; compare both with the masks.": (
            (made == real).mean()
        ),
        "The floor is one class everywhere; the best fixed mask has a class for each pixel.": (
            (of_made - one_class) / (of_real - one_class)
        ),
        "The floor is a guess among 19 classes; a fixed mask does far better.": (of_made - 1 / 19) / (of_real - 1 / 19),
        "A mean of class numbers is no class; count, and take the most frequent one at each pixel.": (
            (of_made - middle) / (of_real - middle)
        ),
        "Made and real are exchanged.": (of_real - floor) / (of_made - floor),
        "You subtracted the floor and did not divide by what lies between floor and ceiling.": of_made - floor,
        "You averaged the ratio of each picture; a picture whose floor is high then counts most.": float(
            np.mean([(a - f) / (b - f) for a, b, f in zip(*each, each_floor, strict=True)])
        ),
    }
    found = function(masks.copy(), made.copy(), real.copy())
    compare(found, followed(masks, made, real), mistakes, "one number for the whole set")


# --- a detector --------------------------------------------------------------------------------------------------


def spectrum(pictures: np.ndarray, rings: int = 16) -> np.ndarray:
    """Pictures (n, H, W, 3) -> (n, rings): how much of their gray lies in waves of each length, as logarithms.

    The first ring has the longest waves, the last those of about two pixels.
    """
    gray = np.asarray(pictures, np.float32).mean(axis=-1)
    power = np.abs(np.fft.fft2(gray - gray.mean(axis=(1, 2), keepdims=True))) ** 2
    height, width = gray.shape[1:]
    rate = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None])
    ring = np.minimum((2 * rings * rate).astype(int), rings)  # what lies beyond half a wave a pixel is left out
    inside = [ring == i for i in range(rings)]
    return np.log(np.stack([power[:, one].mean(axis=1) for one in inside], axis=1) + 1e-3)


def train_detector(real: np.ndarray, made: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Pictures (n, H, W, 3) and (m, H, W, 3) -> a function: pictures -> a score for each, higher for what looks made.

    A logistic regression on the waves of the picture, standardised by those of the training.
    """
    x = np.concatenate([spectrum(real), spectrum(made)])
    y = torch.cat([torch.zeros(len(real)), torch.ones(len(made))])
    middle, spread = x.mean(axis=0), x.std(axis=0) + 1e-6
    inputs = torch.from_numpy((x - middle) / spread).float()
    weights = torch.zeros(inputs.shape[1] + 1, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        logits = inputs @ weights[1:] + weights[0]
        value = torch.nn.functional.binary_cross_entropy_with_logits(logits, y) + 1e-3 * weights[1:].square().sum()
        value.backward()
        return value

    with torch.enable_grad():
        optimizer.step(loss)
    axis = weights.detach().numpy()
    return lambda pictures: (spectrum(pictures) - middle) / spread @ axis[1:] + axis[0]


def textures(rng: np.random.Generator, count: int, made: bool) -> np.ndarray:
    """Pictures uint8 (count, 64, 64, 3) of blots in any colour and light; what is made lacks a little fine detail."""
    coarse = torch.from_numpy(rng.normal(size=(count, 3, 8, 8)).astype(np.float32))
    picture = torch.nn.functional.interpolate(coarse, (64, 64), mode="bicubic").numpy().transpose(0, 2, 3, 1)
    fine = rng.normal(size=(count, 64, 64, 1)).astype(np.float32)
    if made:
        fine = 0.5 * fine + 0.25 * (np.roll(fine, 1, axis=1) + np.roll(fine, 1, axis=2))
    light, contrast = rng.uniform(100, 150, (count, 1, 1, 3)), rng.uniform(15, 30, (count, 1, 1, 1))
    return (light + contrast * picture + 0.3 * contrast * fine).clip(0, 255).astype(np.uint8)


def _auc(real: np.ndarray, made: np.ndarray) -> float:
    return area_under_curve(real, made).value


def check_train_detector(function: Callable[..., Any]) -> None:
    """Pictures of both kinds, uint8 (n, H, W, 3) -> a function: pictures -> scores (n,), higher for what is made."""
    rng = np.random.default_rng(0)
    real, made = textures(rng, 48, made=False), textures(rng, 40, made=True)
    held = textures(rng, 30, made=False), textures(rng, 30, made=True)
    with torch.enable_grad():
        detector = function(real.copy(), made.copy())
    if detector is None:
        raise Wrong("It returned None: is there a `return` at the end?")
    if not callable(detector):
        raise Wrong(f"Expected a function that takes pictures and gives scores; found {type(detector).__name__}.")

    def scored(pictures: np.ndarray) -> np.ndarray:
        found = detector(pictures.copy())
        array = np.asarray(found.detach().cpu() if hasattr(found, "detach") else found, dtype=float)
        if array.shape != (len(pictures),):
            raise Wrong(f"For {len(pictures)} pictures the scores have the shape {array.shape}, expected one for each.")
        if not np.isfinite(array).all():
            raise Wrong("Some scores are NaN or infinite: is there a logarithm of 0, or a division by it?")
        return array

    both = np.concatenate(held)
    scores = scored(both)
    if np.ptp(scores) < 1e-9:
        raise Wrong("Every picture gets the same score: nothing of the picture reaches it, or nothing was learned.")
    order = rng.permutation(len(both))
    if _differs(scored(both[order]), scores[order]):
        raise Wrong("A score changes with the place in the list; a detector has to look at the picture alone.")
    if _differs(np.concatenate([scored(both[i : i + 1]) for i in (0, 1, 58, 59)]), scores[[0, 1, 58, 59]]):
        raise Wrong("A picture's score depends on those beside it: standardise by the numbers of the training.")
    if len(np.unique(scores)) == 2:
        raise Wrong("You give verdicts, one of two numbers; give scores, so that the threshold can be chosen later.")
    auc = _auc(*np.split(scores, 2))
    if auc < 0.2:
        raise Wrong(f"The wrong way round (area under the curve {auc:.2f}): what is made gets the higher scores.")
    if auc > 0.9:
        return
    known = _auc(scored(real), scored(made))
    if known > 0.95:
        raise Wrong(
            f"It knows the pictures of its training by heart ({known:.2f}) and tells new ones at {auc:.2f}: fewer "
            "numbers for each picture, or a penalty on weights."
        )
    plain = np.concatenate([real, made]).mean(axis=(1, 2, 3)), np.concatenate([scored(real), scored(made)])
    if abs(np.corrcoef(*plain)[0, 1]) > 0.9:
        raise Wrong(f"It goes by brightness, which says nothing here ({auc:.2f}): look at the finest detail.")
    raise Wrong(
        f"On pictures that it has not seen the area under the curve is {auc:.2f}; here the one kind lacks fine detail, "
        "and 0.9 is easy. What of a picture do you look at?"
    )


def _differs(one: np.ndarray, other: np.ndarray) -> bool:
    return bool(np.abs(one - other).max() > 1e-3 * max(1.0, np.abs(other).max()))


# --- what a recipe proves ----------------------------------------------------------------------------------------

MADE, NOT_MADE, OPEN = "made with this recipe", "not made with this recipe", "cannot tell"
ROUNDING = 8  # gray levels of 255 by which single pixels may differ from machine to machine


def verdict(file: Any, weights: Mapping[str, str], redraw: Callable[[Recipe], Image.Image]) -> str:
    """Whether a PNG is what its own recipe says.

    Args:
        weights: the fingerprints of base and adapter at hand, base_sha256 and adapter_sha256.
        redraw: draws a recipe with them.
    """
    try:
        picture, recipe, origin = read_picture(file)
    except MogleError:  # no recipe, or a damaged one: that says nothing about the picture
        return OPEN
    if any(origin.get(name) != value for name, value in weights.items()):
        return OPEN
    again, there = (np.asarray(one.convert("RGB"), dtype=int) for one in (redraw(recipe), picture))
    if again.shape != there.shape or np.abs(again - there).max() > ROUNDING:
        return NOT_MADE
    return MADE


def _painted(recipe: Recipe) -> Image.Image:
    """Stands in for a model: a picture that follows from the recipe."""
    words = sum(map(ord, recipe.prompt or ""))
    rng = np.random.default_rng([recipe.seed, words])
    grid = rng.integers(20, 235, (4, 4, 3)).repeat(8, axis=0).repeat(8, axis=1)
    return Image.fromarray(grid.astype(np.uint8))


@contextmanager
def _cases() -> Iterator[dict[str, tuple[Path, str]]]:
    """Case -> its file and what is true of it. The weights at hand are those of `_WEIGHTS`."""
    recipe = Recipe("She has red hair.", None, 7, 4, 3.5, 1.0, 32, 32)
    picture = np.asarray(_painted(recipe))
    rounded = (picture + np.random.default_rng(1).integers(-1, 2, picture.shape)).astype(np.uint8)
    retouched = picture.copy()
    retouched[8:12, 8:12] = 255 - retouched[8:12, 8:12]
    stranger = np.asarray(_painted(Recipe("", None, 99, 4, 3.5, 1.0, 32, 32)))
    other = Recipe("She has black hair.", None, 7, 4, 3.5, 1.0, 32, 32)
    with tempfile.TemporaryDirectory() as folder:

        def saved(name: str, pixels: np.ndarray, said: Recipe | None = recipe, **origin: str) -> Path:
            path = Path(folder) / f"{name}.png"
            if said is None:
                Image.fromarray(pixels).save(path)
            else:
                save_picture(path, Image.fromarray(pixels), said, {**_WEIGHTS, **origin})
            return path

        yield {
            "honest": (saved("honest", picture), MADE),
            "rounded": (saved("rounded", rounded), MADE),
            "stranger": (saved("stranger", stranger), NOT_MADE),
            "other words": (saved("other-words", picture, other), NOT_MADE),
            "retouched": (saved("retouched", retouched), NOT_MADE),
            "cropped": (saved("cropped", picture[:, 4:-4]), NOT_MADE),
            "bare": (saved("bare", picture, None), OPEN),
            "other weights": (saved("other-weights", stranger, adapter_sha256="5678"), OPEN),
            "same look, other weights": (saved("same-look", picture, base_sha256="5678"), OPEN),
            "damaged": (_damaged(saved("damaged", picture)), OPEN),
        }


_WEIGHTS = {"base_sha256": "1234", "adapter_sha256": "abcd"}


def _damaged(path: Path) -> Path:
    """The file with a mask in its recipe that is not the one of its hash."""
    from PIL import PngImagePlugin

    with Image.open(path) as opened:
        opened.load()
        chunks = PngImagePlugin.PngInfo()
        for key, text in opened.text.items():  # type: ignore[attr-defined]
            chunks.add_text(key, text)
        mask = io.BytesIO()
        Image.fromarray(np.ones((32, 32), np.uint8)).save(mask, format="PNG")
        chunks.add_text("mask", base64.b64encode(mask.getvalue()).decode())
        chunks.add_text("mask_sha256", "0" * 64)
        opened.save(path, pnginfo=chunks)
    return path


#: Case, what was said of it -> what is wrong with that.
_UNPROVEN = {
    ("honest", NOT_MADE): "A file whose picture comes out again, bit for bit, was made with its recipe.",
    ("honest", OPEN): "A recipe, its weights, and the same picture once more: more proof there cannot be.",
    ("rounded", NOT_MADE): "Another processor rounds otherwise: differences of one gray level are no other picture.",
    ("stranger", MADE): "Anybody can copy a recipe into another picture: draw it again, and compare.",
    ("other words", MADE): "The sentence in the file was exchanged; drawn again, it gives another picture.",
    ("retouched", MADE): "A patch of 16 pixels was painted over. A mean over the picture hides it: look at the largest "
    "difference.",
    ("cropped", MADE): "The picture was cropped, and the recipe gives one of another size.",
    ("bare", NOT_MADE): "No recipe says nothing about where a picture comes from: saving it as JPEG removes it.",
    ("bare", MADE): "There is no recipe in the file, so none that it could have been made with.",
    (
        "other weights",
        NOT_MADE,
    ): "It names an adapter that you do not have; that yours draws something else is no proof.",
    ("other weights", MADE): "It names an adapter that you do not have, and you cannot know what that would draw.",
    ("same look, other weights", MADE): "The recipe names another base than yours; that yours gives the same picture "
    "is no proof of what it says.",
    ("damaged", NOT_MADE): "A damaged recipe is as good as none: it says nothing about the picture.",
    ("damaged", MADE): "The recipe's mask does not fit its hash: what is damaged proves nothing.",
}


def check_verdict(function: Callable[..., Any]) -> None:
    """A PNG's path, fingerprints of the weights at hand, a function that draws a recipe -> one of three verdicts."""
    with _cases() as cases:
        for name, (path, truth) in cases.items():
            drawn = list[Recipe]()

            def redraw(recipe: Recipe, drawn: list[Recipe] = drawn) -> Image.Image:
                drawn.append(recipe)
                return _painted(recipe)

            try:
                found = function(path, dict(_WEIGHTS), redraw)
            except NotImplementedError:
                raise
            except Exception as error:
                what = f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
                raise Wrong(f"It raised an error in the case “{name}” ({what}); a verdict is due.") from None
            if found is None:
                raise Wrong("It returned None in a case: every way through the function has to end in a verdict.")
            if found not in (MADE, NOT_MADE, OPEN):
                raise Wrong(f"Expected one of {MADE!r}, {NOT_MADE!r} and {OPEN!r}; found {found!r}.")
            if found != truth:
                why = _UNPROVEN.get((name, found), f"expected {truth!r}, found {found!r}.")
                never = " Your function has not drawn anything." if truth == NOT_MADE and not drawn else ""
                raise Wrong(f"{why}{never}")


EXERCISES = (
    Exercise("foretold", NOTEBOOK, 1, 10, check_foretold, (foretold,), (
        "Ask of each variant what of the mask still reaches the base, and in a form that it has learned to read.",
        "`neither` adds up twenty pictures' tokens as they are; `no-experts` mixes them with weights that sum to 1.",
        "Untrained parts have to learn what to write, in a few hundred steps. Which variants have little to learn? "
        "Which one sends what FLUX has never read? Which one sees a single picture of the twenty?",
    )),
    Exercise("still_decided", NOTEBOOK, 2, 15, check_still_decided, (still_decided,), (
        "If 20 comparisons may be wrong in one case of 20 together, how often may each of them be?",
        "1.96 is the normal quantile of 1 - 0.05 / 2. For k comparisons it is that of 1 - 0.05 / (2 k).",
        "wider = norm.ppf(1 - 0.025 / len(gaps)) / 1.96, with `from scipy.stats import norm`; keep the names with "
        "abs(value) > wider * (high - low) / 2.",
    )),
    Exercise("followed", NOTEBOOK, 2, 15, check_followed, (followed,), (
        "Three shares of right pixels: of the fixed mask, of the pictures that were drawn, of the set's own pictures.",
        "The best fixed mask has, at each pixel, the class that most of the masks have there.",
        "fixed = (masks[:, None] == np.arange(19)[:, None, None]).sum(0).argmax(0); then (made - floor) / (ceiling - "
        "floor), each a mean of `... == masks`.",
    )),
    Exercise("train_detector", NOTEBOOK, 3, 30, check_train_detector, (train_detector,), (
        "A few numbers for each picture, and a line that parts the two kinds. The numbers must not know the subject.",
        "`spectrum` gives sixteen numbers. Bring them to mean 0 and deviation 1, by the training pictures alone.",
        "Logistic regression: minimise binary_cross_entropy_with_logits(x @ w + b, y); return a function that does the "
        "same to new pictures, with the same mean, deviation, w and b.",
    )),
    Exercise("verdict", NOTEBOOK, 2, 15, check_verdict, (verdict,), (
        "What does the file claim, can you check the claim, and does the check come out? Three questions, three ends.",
        "`read_picture` raises MogleError where there is no whole recipe; its third value holds the fingerprints.",
        "Fingerprints differ: cannot tell. Else draw again, and compare sizes and the largest difference of any pixel, "
        "with a few gray levels allowed for rounding.",
    )),
)  # fmt: skip
