"""Exercises of notebook 09 on sampling: solutions, checkers that raise `Wrong` with hints, and two cases to solve.

The known flow is that of data in two Gaussian heaps, whose best velocity and whose ends can be written down.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from workbook.checking import Exercise, Wrong
from workbook.exercises.flows import Velocity, euler_step
from workbook.exercises.judging import advice, check_choice, compare, same

NOTEBOOK = "09_sampling"

#: (velocity, z, t, t_next) -> z at t_next; times are numbers.
Step = Callable[[Velocity, Tensor, float, float], Tensor]
#: (number from 1, state after the step, guess of the picture).
OnStep = Callable[[int, Tensor, Tensor], Any]


# --- a flow that is known ------------------------------------------------------------------------------------------

MIDDLES, SPREAD = torch.tensor([-1.0, 1.0]), 0.4


def two_heaps(shares: tuple[float, float] = (0.5, 0.5)) -> Velocity:
    """The best velocity where data are numbers (B, 1) in two heaps, Gaussian each, with these shares of them."""

    def velocity(z: Tensor, t: Tensor) -> Tensor:
        t = t[:, None].to(z.dtype)
        variance, away = ((1 - t) * SPREAD) ** 2 + t**2, z - (1 - t) * MIDDLES
        each = (t - (1 - t) * SPREAD**2) / variance * away - MIDDLES
        likely = (torch.tensor(shares).log() - away**2 / (2 * variance)).softmax(dim=-1)
        return (likely * each).sum(dim=-1, keepdim=True)

    return velocity


def rank_of_end(z: Tensor) -> Tensor:
    """Which share of the data in two equal heaps lies below each z."""
    return torch.special.ndtr((z - MIDDLES) / SPREAD).mean(dim=-1, keepdim=True)


def _error(step: Step, steps: int) -> float:
    """How far from their places in the order of the data points land, on average, after even steps.

    On a line paths cannot cross, so each ends at the rank at which it began.
    """
    noise = torch.randn(200, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    z = noise
    for t, t_next in pairwise(torch.linspace(1, 0, steps + 1, dtype=torch.float64).tolist()):
        z = step(two_heaps(), z, t, t_next)
    return (rank_of_end(z) - torch.special.ndtr(noise)).abs().mean().item()


# --- the sampler ---------------------------------------------------------------------------------------------------


def sample(
    velocity: Velocity, noise: Tensor, times: Sequence[float], step: Step = euler_step, on_step: OnStep | None = None
) -> Tensor:
    """Noise (B, ...) at times[0], step by step through all times -> the state at the last one, (B, ...).

    After each step on_step(number, z, guess) is told its number from 1, the state, and the guess of the picture: the
    state led straight on to t = 0 along the line from the state before.
    """
    z = noise
    for number, (t, t_next) in enumerate(pairwise(times), start=1):
        z_next = step(velocity, z, t, t_next)
        if on_step is not None:
            slope = (z_next - z) / (t_next - t)
            on_step(number, z_next, z_next - t_next * slope)
        z = z_next
    return z


def _field(z: Tensor, t: Any) -> Tensor:
    """A velocity for checks, which looks at what it is given."""
    if not isinstance(t, Tensor) or t.shape != z.shape[:1]:
        found = f"shape {tuple(t.shape)}" if isinstance(t, Tensor) else f"the number {t}"
        raise Wrong(f"The velocity takes a time for each sample, (B,); found {found}: torch.full((len(z),), t).")
    return z.flip(-1).cos() + t.view(-1, *[1] * (z.ndim - 1)) ** 2


def _lazy_step(velocity: Velocity, z: Tensor, t: float, t_next: float) -> Tensor:
    """A step that is not Euler's, so that it shows who takes Euler's instead."""
    return z + 0.6 * (t_next - t) * velocity(z, z.new_full(z.shape[:1], t))


def check_sampler(walk: Callable[..., Any]) -> None:
    """sample(velocity, noise, times, step, on_step) -> the last state; on_step(number, z, guess) after each step."""
    times = [1.0, 0.8, 0.5, 0.1, 0.0]
    for shape in ((5, 2), (3, 4, 6)):
        _check_walk(walk, torch.randn(shape), times)
    _check_on_step(walk, torch.randn(3, 4, 6), [0.9, 0.7, 0.4, 0.15])
    noise = torch.randn(4, 2)
    compare(walk(_field, noise, times), sample(_field, noise, times), {}, "as the noise", "without a step: ")


def _check_walk(walk: Callable[..., Any], noise: Tensor, times: list[float]) -> None:
    asked: list[float] = []

    def velocity(z: Tensor, t: Any) -> Tensor:
        found = _field(z, t)
        asked.append(float(t[0]))
        return found

    states = [noise]
    for t, t_next in pairwise(times):
        states.append(_lazy_step(_field, states[-1], t, t_next))
    even = torch.linspace(1, 0, len(times)).tolist()
    mistakes = {
        "You take Euler's step, whatever step is given: call step(velocity, z, t, t_next).": (
            sample(_field, noise, times)
        ),
        "All states came back; expected the last one alone: here nobody needs the others.": torch.stack(states),
        "The last step is missing: times[-1] is where you have to arrive.": states[-2],
        "The first step is missing: begin with the noise at times[0].": (
            sample(_field, noise, times[1:], step=_lazy_step)
        ),
        "The noise came back as it was.": noise,
        "Every step starts from the noise; it has to start where the last one ended.": (
            _lazy_step(_field, noise, times[-2], times[-1])
        ),
        "The steps are all of one length here; take the times that are given.": (
            sample(_field, noise, even, step=_lazy_step)
        ),
        "You walk from the last time to the first: the noise is at times[0].": (
            sample(_field, noise, times[::-1], step=_lazy_step)
        ),
    }
    given = noise.clone()
    found = walk(velocity, given, list(times), _lazy_step)
    if isinstance(found, (list, tuple)):
        raise Wrong("Several things came back; expected one tensor, the last state.")
    if not same(given, noise):
        raise Wrong("The noise has changed: += or copy_ works in place, and the caller needs the noise again.")
    compare(found, states[-1], mistakes, "as the noise")
    if len(asked) > len(times) - 1:
        raise Wrong(f"Right, but {len(asked)} velocities for {len(times) - 1} steps: each step asks by itself, once.")


def _check_on_step(walk: Callable[..., Any], noise: Tensor, times: list[float]) -> None:
    told: list[tuple[Any, Any, Any]] = []
    asked: list[float] = []

    def velocity(z: Tensor, t: Any) -> Tensor:
        asked.append(float(t[0]) if isinstance(t, Tensor) and t.ndim else float(t))
        return _field(z, t)

    with advice("on_step(number, z, guess): a number, and two tensors as large as the noise."):
        walk(velocity, noise.clone(), list(times), _lazy_step, lambda *what: told.append(what))
    count, what = len(times) - 1, "on_step: "
    if len(told) != count:
        raise Wrong(f"{what}It was called {len(told)} times in {count} steps; expected once after each.")
    if any(len(each) != 3 for each in told):
        raise Wrong(f"{what}It was told {len(told[0])} things; expected three: number, z, guess.")
    numbers = [each[0] for each in told]
    if numbers == list(range(count)):
        raise Wrong(f"{what}The numbers begin with 0; the first step is number 1.")
    if numbers != list(range(1, count + 1)):
        raise Wrong(f"{what}The numbers are {numbers}, expected 1 to {count}.")
    z = noise
    for (t, t_next), (_, state, guess) in zip(pairwise(times), told, strict=True):
        z_next = _lazy_step(_field, z, t, t_next)
        slope = (z_next - z) / (t_next - t)
        compare(state, z_next, {
            "It is told the state before the step; expected the one after it.": z,
            "State and guess are in the wrong order: number, z, guess.": z_next - t_next * slope,
        }, "as the noise", what)  # fmt: skip
        compare(guess, z_next - t_next * slope, {
            "The guess is the state itself: lead it on to t = 0, t_next is still left to go.": z_next,
            "The guess goes t far from the new state; only t_next is left to go.": z_next - t * slope,
            "The guess goes t_next far from the state before; from there it is t.": z - t_next * slope,
            "The guess walks towards the noise: z - t_next * slope.": z_next + t_next * slope,
            "The guess goes a whole unit of time; only t_next is left.": z_next - slope,
            "The guess is the slope; the picture lies where the line meets t = 0.": slope,
            "The slope is z_next - z without being divided by t_next - t.": z_next - t_next * (z_next - z),
            "The guess is the state before the step.": z,
        }, "as the noise", what)  # fmt: skip
        z = z_next
    if len(asked) > count:
        raise Wrong(
            f"{what}Right, but {len(asked)} velocities for {count} steps: two states tell the slope without asking."
        )


# --- a step of second order ----------------------------------------------------------------------------------------


def midpoint_step(velocity: Velocity, z: Tensor, t: float, t_next: float) -> Tensor:
    """A step of second order: walk half of it, ask there, and take the whole step with that velocity."""
    middle = (t + t_next) / 2
    halfway = z + (middle - t) * velocity(z, z.new_full(z.shape[:1], t))
    return z + (t_next - t) * velocity(halfway, z.new_full(z.shape[:1], middle))


def check_second_order(step: Callable[..., Any]) -> None:
    """step(velocity, z, t, t_next) -> z at t_next, with two velocities and an error that falls by four."""
    asked: list[float] = []

    def velocity(z: Tensor, t: Any) -> Tensor:
        found = _field(z, t)
        asked.append(float(t[0]))
        return found

    z, t, t_next = torch.randn(4, 3, 5), 0.8, 0.5
    given = z.clone()
    found = step(velocity, given, t, t_next)
    if found is None:
        raise Wrong("It returned None: is there a `return` at the end?")
    if not same(given, z):
        raise Wrong("+= changes the z that it was given: the step needs it again, and so does the caller.")
    right, mistakes = _second_orders(z, t, t_next)
    for hint, value in mistakes.items():
        if same(torch.as_tensor(found), value):
            raise Wrong(hint)
    if len(asked) > 2:
        raise Wrong(f"It asks for {len(asked)} velocities; two are enough for second order, and each is a forward.")
    if out := [time for time in asked if not t_next - 1e-6 <= time <= t + 1e-6]:
        raise Wrong(f"It asks at t = {out[0]:.2f}, which is not between {t} and {t_next}.")
    if any(same(torch.as_tensor(found), value) for value in right):
        return
    compare(torch.as_tensor(found).shape, z.shape, {}, "as z")
    gain = _error(step, 32) / _error(step, 64)
    if not gain > 3.2:
        raise Wrong(f"Twice as many steps make the error {gain:.1f} times smaller; of second order it is about 4.")


def _second_orders(z: Tensor, t: float, t_next: float) -> tuple[list[Tensor], dict[str, Tensor]]:
    """What midpoint and Heun give, and what mistakes give, in words."""

    def at(state: Tensor, time: float) -> Tensor:
        return _field(state, torch.full(z.shape[:1], time))

    h, mid = t_next - t, (t + t_next) / 2
    here = at(z, t)
    half, whole = z + h / 2 * here, z + h * here
    middle, end = at(half, mid), at(whole, t_next)
    mistakes = {
        "This is Euler's step: nothing that is asked later counts.": whole,
        "These are two of Euler's steps, each half as long. Take the whole step with the middle's velocity, from z.": (
            half + h / 2 * middle
        ),
        "The whole step begins in the middle, so it ends half a step too far: begin at z.": half + h * middle,
        "The step with the second velocity is half as long as it should be.": z + h / 2 * middle,
        "The second velocity is asked in the middle, but told the time t: it is (t + t_next) / 2 there.": (
            z + h * at(half, t)
        ),
        "The second velocity is asked in the middle, but told the time t_next.": z + h * at(half, t_next),
        "The second velocity is told the middle's time, but asked where you stand: walk there first.": (
            z + h * at(z, mid)
        ),
        "You walk to the end of the step before you ask, and tell it the middle's time.": z + h * at(whole, mid),
        "The velocity at the end alone: as one-sided as the one at the beginning. Take the mean of both.": (
            z + h * end
        ),
        "The velocity at z and t_next: walk to the end first, then take the mean of both.": z + h * at(z, t_next),
        "The two velocities are added; take their mean, or the step is twice as long.": z + h * (here + end),
        "You walk away from the picture: t_next - t is negative already.": z - h * middle,
        "This is the change alone; add it to z.": h * middle,
    }
    return [z + h * middle, z + h / 2 * (here + end)], mistakes


# --- mask guidance -------------------------------------------------------------------------------------------------


def mask_guided(with_mask: Velocity, without_mask: Velocity, w: float) -> Velocity:
    """The velocity v(text) + w (v(text, mask) - v(text)), in one forward where one is enough."""
    if w == 1:
        return with_mask
    if w == 0:
        return without_mask

    def velocity(z: Tensor, t: Tensor) -> Tensor:
        plain = without_mask(z, t)
        return plain + w * (with_mask(z, t) - plain)

    return velocity


def _spy(name: str, value: Tensor, counts: dict[str, int], inputs: tuple[Tensor, Tensor]) -> Velocity:
    """A velocity that gives the same answer every time and counts how often it is asked."""

    def velocity(z: Tensor, t: Tensor) -> Tensor:
        counts[name] += 1
        if not same(z, inputs[0]) or not isinstance(t, Tensor) or not same(t, inputs[1]):
            raise Wrong("Both velocities take z and t just as they come.")
        return value

    return velocity


def check_mask_guided(guide: Callable[..., Any]) -> None:
    """mask_guided(with_mask, without_mask, w) -> a velocity."""
    z, t = torch.randn(3, 4, 5), torch.rand(3)
    both, plain = _field(z, t), z.sin() - t[:, None, None]
    for w in (2.5, 0.4, 0.0, 1.0):
        counts = {"v(text, mask)": 0, "v(text)": 0}
        velocity = guide(_spy("v(text, mask)", both, counts, (z, t)), _spy("v(text)", plain, counts, (z, t)), w)
        if not callable(velocity):
            raise Wrong("Expected a velocity back: a function of z and t, which the sampler can ask at every step.")
        mistakes = {
            "The two are exchanged: at w = 1 it has to be v(text, mask).": both + w * (plain - both),
            "It begins at v(text, mask) and goes w further, so w = 1 would not be the method itself.": (
                both + w * (both - plain)
            ),
            "The change that the mask makes is all that is left: add it to v(text).": w * (both - plain),
            "v(text, mask) is added as a whole; what is scaled is its difference from v(text).": plain + w * both,
            "w scales the whole velocity: that makes longer steps, not more mask.": w * both,
            "This is v(text, mask), whatever w is.": both,
            "This is v(text), whatever w is.": plain,
            "The sign is the other way round: w (v(text, mask) - v(text)) is added.": plain - w * (both - plain),
            "This is the mean of the two.": (both + plain) / 2,
        }
        compare(velocity(z, t), plain + w * (both - plain), mistakes, "as z", f"at w = {w:g}: ")
        if max(counts.values()) > 1:
            raise Wrong(f"Right, but at w = {w:g} one of the two is asked {max(counts.values())} times.")
        if w in (0, 1) and sum(counts.values()) > 1:
            spared = "v(text)" if w == 1 else "v(text, mask)"
            raise Wrong(f"Right, but at w = {w:g} it asks for {spared} too, a forward that does not count.")


# --- a prediction --------------------------------------------------------------------------------------------------

#: What is done to the picture of 28 steps, or of 8 where that is said.
KNOBS = {
    "56 steps": "56 of Euler's steps instead of 28",
    "second order": "14 steps of second order instead of 28 of Euler's",
    "company": "drawn in one batch with two other faces instead of alone",
    "guidance 1": "guidance_scale 1 instead of 3.5",
    "mask guidance 3": "w = 3 instead of 1",
    "strength 0": "strength 0 instead of 1",
    "another seed": "other noise at the beginning",
}
_WHY = {
    "56 steps": ("28 steps follow the path closely; twice as many follow the same path", "56 forwards instead of 28"),
    "second order": ("it is the same path, followed in another way", "14 steps with two velocities are 28 forwards"),
    "company": ("no token of one sample sees any of another, and each has noise of its own",
                "each step is still one forward for this face"),
    "guidance 1": ("the sentence acts less, and with it all that it says", "the number is an input, not a forward"),
    "mask guidance 3": ("each velocity goes three times as far in the mask's direction",
                        "v(text) and v(text, mask) are two forwards"),
    "strength 0": ("nobody looks at the mask any more", "it is one forward a step, and a cheaper one"),
    "another seed": ("the noise decides all that sentence and mask leave open", "noise costs nothing"),
}  # fmt: skip


def what_changes() -> dict[str, tuple[bool, bool]]:
    """Knob -> is it another face; is it more work."""
    return {
        "56 steps": (False, True), "second order": (False, False), "company": (False, False),
        "guidance 1": (True, False), "mask guidance 3": (True, True), "strength 0": (True, False),
        "another seed": (True, False),
    }  # fmt: skip


def _called(function: Any) -> Any:
    if not callable(function):
        raise Wrong("Keep it a function, which returns the dictionary: a later cell calls it.")
    return function()


def check_what_changes(function: Any) -> None:
    """Knob -> (another face, more work), two of True and False."""
    said, right = _called(function), what_changes()
    if not isinstance(said, dict) or set(said) != set(right):
        raise Wrong(f"Expected a dictionary with the keys {', '.join(right)}.")
    wrong = []
    for knob, truth in right.items():
        pair = said[knob]
        if not isinstance(pair, (tuple, list)) or len(pair) != 2 or any(one not in (True, False) for one in pair):
            raise Wrong(f"{knob}: found {pair!r}; expected two of True and False: another face, then more work.")
        for i, words in enumerate((("the same face", "another face"), ("no more work", "more work"))):
            if bool(pair[i]) != truth[i]:
                wrong.append(f"{knob}: it is {words[truth[i]]}, for {_WHY[knob][i]}.")
    if wrong:
        raise Wrong(*wrong)


# --- a case: a sampler that is almost right -------------------------------------------------------------------------


def suspect(velocity: Velocity, noise: Tensor, times: Sequence[float]) -> Tensor:
    """A sampler whose pictures look fine, and which is wrong."""
    z, count = noise, len(times) - 1
    for i, (t, t_next) in enumerate(pairwise(times)):
        z = z + (t_next - t) * velocity(z, z.new_full(z.shape[:1], 1 - i / count))
    return z


_REFUTED = {
    1: "the steps get shorter and shorter, so on FLUX's times its error would go to zero as well",
    2: "then it would ask once less than there are steps, and the error would shrink as the last step does",
    3: "then its error would stay on even times as well, however many steps it takes",
    5: "then its error would stay at the size of rounding, the same for both lists of times",
    6: "then two runs from the same noise would differ, and its error would stay on even times too",
}


def almost_right() -> int:
    """The number of the explanation that fits.

    On even times the error goes to zero with the number of steps: start, steps and arithmetic are right. On FLUX's
    times it does not, so something there is not what the times say. A spy in the velocity's place shows what: the
    times that it is told are even, whatever list is given.
    """
    return 4


def check_almost_right(answer: Any) -> None:
    """The number of the explanation that fits what was measured."""
    check_choice(answer, "explanation", almost_right(), _REFUTED, "does not fit")


# --- a case: four rows without their labels -------------------------------------------------------------------------

#: What the rows may have been drawn with: the settings that differ from 8 steps, mask guidance 1, strength 1.
SETTINGS: dict[str, dict[str, float]] = {
    "as trained": {},
    "mask guidance 10": {"w": 10.0},
    "strength 0": {"strength": 0.0},
    "2 steps": {"steps": 2},
    "no sentence": {},  # none of the rows: their colours are those of the sentences
}
_ROWS = {"A": "mask guidance 10", "B": "2 steps", "C": "as trained", "D": "strength 0"}


def lost(row: str) -> dict[str, float]:
    """The settings of a row: steps, w and strength."""
    return {"steps": 8, "w": 1.0, "strength": 1.0} | SETTINGS[_ROWS[row]]


def which_knob() -> dict[str, str]:
    """Row -> what it was drawn with.

    D leaves the mask: strength 0. B is blurred, as an average is: 2 steps. A has the most contrast, its dark parts are
    black and its light parts white: too much guidance. What is left is C. All have the sentences' colours, so the
    sentence is there in each.
    """
    return dict(_ROWS)


_SIGNS = {
    "A": "it follows its mask, and it has the most contrast and the sharpest edges of all four",
    "B": "it follows its mask, and fine parts are blurred: it has the least detail of the rows that follow it",
    "C": "it follows its mask, with neither the contrast of A nor the blur of B",
    "D": "its share of right pixels is the lowest by far: other outlines than the mask's, in the right colours",
}


def check_which_knob(answer: Any) -> None:
    """Row -> a name in SETTINGS."""
    said = _called(answer)
    if not isinstance(said, dict) or set(said) != set(_ROWS):
        raise Wrong("Expected a dictionary with the keys A, B, C and D.")
    if unknown := [value for value in said.values() if value not in SETTINGS]:
        raise Wrong(f"Found {unknown[0]!r}; expected one of {', '.join(SETTINGS)}.")
    wrong = []
    for row, right in _ROWS.items():
        if said[row] == "no sentence":
            wrong.append(f"{row}: without a sentence hair, skin and background would have other colours than it asks.")
        elif said[row] != right:
            wrong.append(f"{row} was not drawn with {said[row]}: {_SIGNS[row]}.")
    if wrong:
        raise Wrong(*wrong)


EXERCISES = (
    Exercise("sampler", NOTEBOOK, 2, 20, check_sampler, (sample,), (
        "A loop over neighbours in the list of times. What a step does is left to `step`; keep the newest state only.",
        "The guess needs no new velocity: the slope from the old state to the new one is (z_next - z) / (t_next - t).",
        "for number, (t, t_next) in enumerate(zip(times[:-1], times[1:]), start=1): z_next = step(velocity, z, t, "
        "t_next); then on_step(number, z_next, z_next - t_next * slope) if it is there; then z = z_next.",
    )),
    Exercise("what_changes", NOTEBOOK, 1, 10, check_what_changes, (what_changes,), (
        "Ask twice for each knob. Does it change what a velocity says, or only how its path is followed? And how many "
        "forwards does it take?",
        "Steps and their order follow one path. Guidance, strength and seed are other paths.",
        "Only a second forward in each step, or more steps, make more work. A number that is an input costs nothing.",
    )),
    Exercise("second_order", NOTEBOOK, 3, 25, check_second_order, (midpoint_step,), (
        "Euler asks at the beginning and takes the velocity for constant. Which velocity is nearer to the mean of all "
        "on the way?",
        "Midpoint: walk half a step by Euler, ask there with the time there, then go back. Heun: walk the whole step, "
        "ask there, take the mean of both velocities.",
        "halfway = z + (middle - t) * velocity(z, t); then z + (t_next - t) * velocity(halfway, middle), with times of "
        "shape (B,).",
    )),
    Exercise("almost_right", NOTEBOOK, 2, 15, check_almost_right, (almost_right,), (
        "Which faults shrink when the steps do, and which stay? And on which of the two lists does the error stay?",
        "On even times all is well, so start, steps and arithmetic are. What can be wrong with FLUX's times alone?",
        "Put a spy in the velocity's place: a function that keeps the t that it is told, and compare with the list.",
    )),
    Exercise("mask_guided", NOTEBOOK, 1, 10, check_mask_guided, (mask_guided,), (
        "Begin at v(text), and go w times as far as the mask leads from there.",
        "Return a function of z and t. At w = 1 and at w = 0 one of the two velocities does not count.",
        "if w == 1: return with_mask; if w == 0: return without_mask; else a function that asks both once and returns "
        "plain + w * (both - plain).",
    )),
    Exercise("which_knob", NOTEBOOK, 2, 15, check_which_knob, (which_knob,), (
        "Look first at which rows follow their masks at all, then at colours, then at edges.",
        "The table beside the pictures has three measures. Which setting moves which of them, and in which direction?",
        "Without a mask few pixels are right. Few steps give an average, which is blurred. Too much guidance "
        "exaggerates light and dark.",
    )),
)  # fmt: skip
