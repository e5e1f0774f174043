"""Answers to `workbook.exercises.sampling`: wrong ones with words of their hints, right ones by another way."""

from itertools import pairwise

import torch

from workbook.exercises.flows import euler_step
from workbook.exercises.sampling import mask_guided, midpoint_step, sample, what_changes, which_knob


def told(change, number=lambda n: n):
    """The sampler, with another thing told after each step: change(z, z_next, t, t_next) -> what follows the number."""

    def walk(velocity, noise, times, step=euler_step, on_step=None):
        z = noise
        for n, (t, t_next) in enumerate(pairwise(times), 1):
            z_next = step(velocity, z, t, t_next)
            if on_step is not None:
                on_step(number(n), *change(z, z_next, t, t_next))
            z = z_next
        return z

    return walk


def guess(z, z_next, t, t_next):
    return z_next - t_next * (z_next - z) / (t_next - t)


def right_told(z, z_next, t, t_next):
    return z_next, guess(z, z_next, t, t_next)


def other_guess(of):
    return told(lambda z, z_next, t, t_next: (z_next, of(z, z_next, t, t_next)))


def walked(change):
    """The sampler through other times."""
    return lambda velocity, noise, times, step=euler_step, on_step=None: sample(
        velocity, noise, change(times), step, on_step
    )


def always_from_noise(velocity, noise, times, step=euler_step, on_step=None):
    for n, (t, t_next) in enumerate(pairwise(times), 1):
        z = step(velocity, noise, t, t_next)
        if on_step is not None:
            on_step(n, *right_told(noise, z, t, t_next))
    return z


def in_place(velocity, noise, times, step=euler_step, on_step=None):
    for t, t_next in pairwise(times):
        noise += step(velocity, noise, t, t_next) - noise
    return noise


def asking_for_the_guess(velocity, noise, times, step=euler_step, on_step=None):
    def look(n, z, found):
        velocity(z, torch.full((len(z),), times[n]))
        on_step(n, z, found)

    return sample(velocity, noise, times, step, look if on_step else None)


def asking_twice(velocity, noise, times, step=euler_step, on_step=None):
    for t in times[:-1]:
        velocity(noise, torch.full((len(noise),), t))
    return sample(velocity, noise, times, step, on_step)


def by_index(velocity, noise, times, step=euler_step, on_step=None):
    """Right: with a list of states, and the guess along the line through both states."""
    states = [noise]
    for i in range(len(times) - 1):
        states.append(step(velocity, states[i], times[i], times[i + 1]))
        if on_step:
            share = times[i] / (times[i] - times[i + 1])
            on_step(i + 1, states[-1], torch.lerp(states[i], states[-1], share))
    return states[-1]


def two(change):
    """A step of two velocities: change(z, h, v, half, whole, at) -> z at t_next; at(state, share of the step) asks."""

    def step(velocity, z, t, t_next):
        h = t_next - t

        def at(state, share):
            return velocity(state, z.new_full((len(z),), t + share * h))

        here = at(z, 0)
        return change(z, h, here, z + h / 2 * here, z + h * here, at)

    return step


def runge_kutta(z, h, v, half, whole, at):
    second = at(half, 0.5)
    third = at(z + h / 2 * second, 0.5)
    return z + h / 6 * (v + 2 * second + 2 * third + at(z + h * third, 1))


def ralston(z, h, v, half, whole, at):
    return z + h * (v / 4 + 3 / 4 * at(z + 2 / 3 * h * v, 2 / 3))


def guided(of):
    """Guidance that always asks both: of(v(text, mask), v(text), w)."""
    return lambda both, plain, w: lambda z, t: of(both(z, t), plain(z, t), w)


def spared(both, plain, w):
    """Right: by lerp, and in one forward where one is enough."""
    if w in (0, 1):
        return plain if w == 0 else both
    return lambda z, t: torch.lerp(plain(z, t), both(z, t), w)


def twice(both, plain, w):
    return both if w == 1 else plain if w == 0 else lambda z, t: plain(z, t) + w * (both(z, t) - plain(z, t))


def changing(**more):
    return lambda: what_changes() | {name.replace("_", " "): pair for name, pair in more.items()}


def rows(**more):
    return lambda: which_knob() | more


#: Exercise -> (words of the hint, wrong answer).
WRONG = {
    "sampler": [
        ("Euler's step, whatever step is given",
         lambda v, noise, times, step=None, on_step=None: sample(v, noise, times, on_step=on_step)),
        ("All states came back",
         lambda v, noise, times, step=euler_step, on_step=None: torch.stack(
             [sample(v, noise, times[: i + 1], step) for i in range(len(times))])),
        ("last step is missing", walked(lambda times: times[:-1])),
        ("first step is missing", walked(lambda times: times[1:])),
        ("came back as it was", lambda v, noise, times, step=None, on_step=None: noise),
        ("starts from the noise", always_from_noise),
        ("all of one length", walked(lambda times: torch.linspace(1, 0, len(times)).tolist())),
        ("from the last time to the first", walked(lambda times: times[::-1])),
        ("works in place", in_place),
        ("each step asks by itself", asking_twice),
        ("called 0 times", lambda v, noise, times, step=euler_step, on_step=None: sample(v, noise, times, step)),
        ("begin with 0", told(right_told, lambda n: n - 1)),
        ("The numbers are", told(right_told, lambda n: 1)),
        ("told 2 things", told(lambda z, z_next, t, t_next: (z_next,))),
        ("state before the step; expected", told(lambda z, z_next, t, t_next: (z, guess(z, z_next, t, t_next)))),
        ("in the wrong order", told(lambda *states: right_told(*states)[::-1])),
        ("guess is the state itself", other_guess(lambda z, z_next, t, t_next: z_next)),
        ("goes t far", other_guess(lambda z, z_next, t, t_next: z_next - t * (z_next - z) / (t_next - t))),
        ("from there it is t", other_guess(lambda z, z_next, t, t_next: z - t_next * (z_next - z) / (t_next - t))),
        ("towards the noise", other_guess(lambda z, z_next, t, t_next: z_next + t_next * (z_next - z) / (t_next - t))),
        ("a whole unit of time", other_guess(lambda z, z_next, t, t_next: z_next - (z_next - z) / (t_next - t))),
        ("guess is the slope", other_guess(lambda z, z_next, t, t_next: (z_next - z) / (t_next - t))),
        ("without being divided", other_guess(lambda z, z_next, t, t_next: z_next - t_next * (z_next - z))),
        ("tell the slope without asking", asking_for_the_guess),
    ],
    "what_changes": [
        ("follow the same path", changing(**{"56_steps": (True, True)})),
        ("56 forwards instead of 28", changing(**{"56_steps": (False, False)})),
        ("14 steps with two velocities", changing(second_order=(False, True))),
        ("the same path, followed in another way", changing(second_order=(True, False))),
        ("no token of one sample", changing(company=(True, False))),
        ("still one forward for this face", changing(company=(False, True))),
        ("is an input, not a forward", changing(guidance_1=(True, True))),
        ("v(text) and v(text, mask) are two", changing(mask_guidance_3=(True, False))),
        ("nobody looks at the mask", changing(strength_0=(False, False))),
        ("noise costs nothing", changing(another_seed=(True, True))),
        ("two of True and False", changing(company=False)),
        ("with the keys 56 steps", lambda: {"another seed": (True, False)}),
        ("Keep it a function", what_changes()),
    ],
    "second_order": [
        ("This is Euler's step", euler_step),
        ("two of Euler's steps", two(lambda z, h, v, half, whole, at: half + h / 2 * at(half, 0.5))),
        ("begins in the middle", two(lambda z, h, v, half, whole, at: half + h * at(half, 0.5))),
        ("half as long as it should be", two(lambda z, h, v, half, whole, at: z + h / 2 * at(half, 0.5))),
        ("told the time t:", two(lambda z, h, v, half, whole, at: z + h * at(half, 0))),
        ("told the time t_next", two(lambda z, h, v, half, whole, at: z + h * at(half, 1))),
        ("walk there first", two(lambda z, h, v, half, whole, at: z + h * at(z, 0.5))),
        ("tell it the middle's time", two(lambda z, h, v, half, whole, at: z + h * at(whole, 0.5))),
        ("as one-sided", two(lambda z, h, v, half, whole, at: z + h * at(whole, 1))),
        ("walk to the end first", two(lambda z, h, v, half, whole, at: z + h * at(z, 1))),
        ("are added; take their mean", two(lambda z, h, v, half, whole, at: z + h * (v + at(whole, 1)))),
        ("away from the picture", two(lambda z, h, v, half, whole, at: z - h * at(half, 0.5))),
        ("change alone", two(lambda z, h, v, half, whole, at: h * at(half, 0.5))),
        ("asks for 4 velocities", two(runge_kutta)),
        ("not between", two(lambda z, h, v, half, whole, at: z + h * (1.5 * v - 0.5 * at(z - h * v, -1)))),
        ("of second order it is", two(lambda z, h, v, half, whole, at: z + h * (0.7 * v + 0.3 * at(half, 0.5)))),
        ("+= changes", lambda v, z, t, t_next: z.add_(midpoint_step(v, z, t, t_next) - z)),
        ("a time for each sample", lambda v, z, t, t_next: z + (t_next - t) * v(z + (t_next - t) / 2 * v(z, t), t)),
    ],
    "almost_right": [
        ("Explanation 1 does not fit: the steps get shorter", lambda: 1),
        ("Explanation 2 does not fit: then it would ask once less", lambda: 2),
        ("Explanation 3 does not fit", lambda: 3),
        ("Explanation 5 does not fit", lambda: "5"),
        ("Explanation 6 does not fit", 6),
        ("no explanation 7", lambda: 7),
        ("Expected the number", lambda: "the times"),
    ],
    "mask_guided": [
        ("The two are exchanged", guided(lambda both, plain, w: both + w * (plain - both))),
        ("goes w further", guided(lambda both, plain, w: both + w * (both - plain))),
        ("is all that is left", guided(lambda both, plain, w: w * (both - plain))),
        ("added as a whole", guided(lambda both, plain, w: plain + w * both)),
        ("makes longer steps", guided(lambda both, plain, w: w * both)),
        ("This is v(text, mask), whatever", lambda both, plain, w: both),
        ("This is v(text), whatever", lambda both, plain, w: plain),
        ("The sign is", guided(lambda both, plain, w: plain - w * (both - plain))),
        ("mean of the two", guided(lambda both, plain, w: (both + plain) / 2)),
        ("is asked 2 times", twice),
        ("asks for v(text, mask) too", guided(lambda both, plain, w: plain + w * (both - plain))),
        ("asks for v(text) too", lambda both, plain, w: plain if w == 0 else guided(torch.lerp)(plain, both, w)),
        ("take z and t just as they come",
         lambda both, plain, w: lambda z, t: mask_guided(both, plain, w)(z, t.mean())),
        ("Expected a velocity back", lambda both, plain, w: w),
    ],
    "which_knob": [
        ("A was not drawn with as trained", rows(A="as trained")),
        ("B was not drawn with as trained", rows(B="as trained")),
        ("C was not drawn with 2 steps", rows(C="2 steps")),
        ("D was not drawn with mask guidance 10", rows(D="mask guidance 10")),
        ("D: without a sentence", rows(D="no sentence")),
        ("expected one of as trained", rows(A="too much")),
        ("keys A, B, C and D", lambda: {"A": "as trained"}),
        ("Keep it a function", which_knob()),
    ],
}  # fmt: skip

#: Exercise -> a right answer that is not the package's.
OTHER_WAYS = {
    "sampler": by_index,
    "what_changes": lambda: {name: [int(one) for one in pair] for name, pair in what_changes().items()},
    "second_order": two(ralston),
    "almost_right": "explanation 4",
    "mask_guided": spared,
    "which_knob": lambda: dict(sorted(which_knob().items(), reverse=True)),
}
