"""Exercises of notebook 04 on flows: a flow in two dimensions, solutions, checkers that raise `Wrong` with hints."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from workbook.checking import Exercise, Wrong
from workbook.exercises.judging import advice, compare, same

NOTEBOOK = "04_flux_from_the_inside"

#: Of a velocity: (states (B, ...), times (B,)) -> (B, ...).
Velocity = Callable[[Tensor, Tensor], Tensor]


def face(count: int) -> Tensor:
    """Points (count, 2) on a drawing of a face: the outline of a head, two eyes, a mouth, and no nose."""
    part, turn = torch.rand(count, 1), 2 * math.pi * torch.rand(count)
    head = torch.stack([1.1 * turn.cos(), 1.4 * turn.sin()], dim=1)
    side = torch.where(turn < math.pi, 0.45, -0.45)
    eyes = torch.stack([side + 0.1 * (2 * turn).cos(), 0.45 + 0.1 * (2 * turn).sin()], dim=1)
    mouth = torch.stack([0.55 * (turn / 2).cos(), -0.35 - 0.35 * (turn / 2).sin()], dim=1)
    return torch.where(part < 0.6, head, torch.where(part < 0.8, eyes, mouth))


def distance(points: Tensor, drawing: Tensor) -> Tensor:
    """How far points (B, 2) lie from the nearest point of a drawing (M, 2), on average."""
    return torch.cdist(points, drawing).min(dim=1).values.mean()


def best_velocity(drawing: Tensor) -> Velocity:
    """The velocity with the smallest loss if the data are just these points (M, 2): a mean over all of them."""

    def velocity(z: Tensor, t: Tensor) -> Tensor:
        away = z[:, None] - (1 - t)[:, None, None] * drawing
        share = (-away.square().sum(dim=-1) / (2 * t[:, None] ** 2)).softmax(dim=-1)
        return (z - share @ drawing) / t[:, None]

    return velocity


def interpolate(z_0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
    """Z_t = (1 - t) Z_0 + t eps: z_0 and eps (B, ...), a time t (B,) for each sample -> (B, ...)."""
    t = t.view(-1, *[1] * (z_0.ndim - 1))
    return (1 - t) * z_0 + t * eps


def flow_loss(velocity: Velocity, z_0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
    """Mean squared error of the velocity at Z_t against eps - Z_0, a single number."""
    return (velocity(interpolate(z_0, eps, t), t) - (eps - z_0)).square().mean()


def check_flow_loss(mix: Callable[..., Any], loss: Callable[..., Any]) -> None:
    """interpolate(z_0, eps, t) -> Z_t; flow_loss(velocity, z_0, eps, t) -> a number."""
    _check_interpolate(mix)
    z_0, eps, t = torch.randn(5, 3, 4), torch.randn(5, 3, 4), torch.rand(5)
    weight, seen = torch.tensor(0.7, requires_grad=True), list[Tensor]()

    def velocity(z: Tensor, t: Tensor) -> Tensor:
        if not isinstance(t, Tensor) or t.shape != z.shape[:1]:
            raise Wrong("flow_loss: The velocity takes Z_t and then the times t as they are, one for each sample.")
        seen.append(z)
        return weight * z.sin() + t[:, None, None]

    with torch.enable_grad():
        found = loss(velocity, z_0.clone(), eps.clone(), t.clone())
    z_t, target = interpolate(z_0, eps, t), eps - z_0
    if seen and same(seen[0], z_0):
        raise Wrong("flow_loss: The velocity is asked at Z_0; in training it sees Z_t, between picture and noise.")
    if seen and same(seen[0], interpolate(eps, z_0, t)):
        raise Wrong("flow_loss: The velocity is asked at the wrong end of the line: interpolate takes z_0 first.")
    off, asked = velocity(z_t, t) - target, velocity(z_t, t)
    mistakes = {
        "The target points the wrong way: along t the line runs from Z_0 to eps, so its slope is eps - Z_0.": (
            (asked + target).square().mean()
        ),
        "The target is the noise, as in the paper's formula; rectified flow predicts the velocity eps - Z_0.": (
            (asked - eps).square().mean()
        ),
        "The target is the picture; rectified flow predicts the velocity eps - Z_0.": (asked - z_0).square().mean(),
        "The target is Z_t itself; rectified flow predicts the velocity eps - Z_0.": (asked - z_t).square().mean(),
        "You summed the squares; the loss is their mean, so that it does not depend on the size.": off.square().sum(),
        "You summed over the sample and averaged over the batch; the loss is the mean over everything.": (
            off.square().sum(dim=(1, 2)).mean()
        ),
        "These are absolute errors; rectified flow squares them: only then is the mean the best answer.": (
            off.abs().mean()
        ),
        "There is a root around the mean; expected the mean of the squares.": off.square().mean().sqrt(),
        "You kept one loss for each sample; expected one number.": off.square().mean(dim=(1, 2)),
        "You kept the squared errors as they are; expected their mean, one number.": off.square(),
    }
    compare(found, off.square().mean(), mistakes, "a single number", "flow_loss: ")
    if not isinstance(found, Tensor) or not found.requires_grad:
        raise Wrong("flow_loss: Right, but nothing could be trained: .item(), detach() and no_grad cut the way back.")


def _check_interpolate(mix: Callable[..., Any]) -> None:
    z_0, eps, t = torch.randn(4, 4), torch.randn(4, 4), torch.tensor([0.0, 0.2, 0.7, 1.0])

    def mistakes(z_0: Tensor, eps: Tensor, t: Tensor) -> dict[str, Tensor]:
        each = t.view(-1, *[1] * (z_0.ndim - 1))
        found = {
            "Picture and noise are swapped: t = 0 is the picture, t = 1 is noise.": interpolate(eps, z_0, t),
            "The noise is added to the whole picture; the picture's share is 1 - t.": z_0 + each * eps,
            "The noise is not scaled; its share is t.": (1 - each) * z_0 + eps,
            "These are the roots that keep the variance (DDPM); rectified flow takes the straight line.": (
                (1 - each).sqrt() * z_0 + each.sqrt() * eps
            ),
            "This is the velocity eps - Z_0, not the place between the two.": eps - z_0,
        }
        if z_0.shape[-1] == len(t):
            spread = (1 - t) * z_0 + t * eps
            found["t is spread over the last axis, not over the samples: give it the shape (B, 1)."] = spread
        return found

    with advice("t holds one number for each sample, (B,): give it as many axes as z_0 has."):
        found = mix(z_0.clone(), eps.clone(), t.clone())
        compare(found, interpolate(z_0, eps, t), mistakes(z_0, eps, t), "as z_0", "interpolate: ")
    z_0, eps, t = torch.randn(5, 3, 4), torch.randn(5, 3, 4), torch.rand(5)
    with advice("Points are (B, 2), tokens (B, N, C): for points t needs the shape (B, 1), for tokens (B, 1, 1)."):
        found = mix(z_0.clone(), eps.clone(), t.clone())
        compare(found, interpolate(z_0, eps, t), mistakes(z_0, eps, t), "as z_0", "interpolate: for tokens: ")


def euler_step(velocity: Velocity, z: Tensor, t: float, t_next: float) -> Tensor:
    """One step along the velocity: states z (B, ...) at time t -> states at t_next, which is smaller."""
    return z + (t_next - t) * velocity(z, z.new_full(z.shape[:1], t))


def sample(velocity: Velocity, z: Tensor, times: Sequence[float]) -> Tensor:
    """Euler's steps through all times, from noise z (B, ...) at the first to the last -> (len(times), B, ...)."""
    path = [z]
    for t, t_next in pairwise(times):
        path.append(euler_step(velocity, path[-1], t, t_next))
    return torch.stack(path)


def _swirl(z: Tensor, t: Any) -> Tensor:
    """A velocity for the check of a step, which looks at what it is given."""
    if not isinstance(t, Tensor) or t.shape != z.shape[:1]:
        found = f"shape {tuple(t.shape)}" if isinstance(t, Tensor) else f"the number {t}"
        raise Wrong(f"The velocity takes a time for each sample, (B,); found {found}: torch.full((len(z),), t).")
    return z.flip(-1).cos() + t.view(-1, *[1] * (z.ndim - 1)) ** 2


def check_euler(step: Callable[..., Any], walk: Callable[..., Any]) -> None:
    """euler_step(velocity, z, t, t_next) -> z at t_next; sample(velocity, z, times) -> (len(times), B, ...)."""
    for shape in ((5, 2), (3, 4, 6)):
        z, t, t_next = torch.randn(shape), 0.8, 0.5
        now = _swirl(z, torch.full(shape[:1], t))
        later = _swirl(z, torch.full(shape[:1], t_next))
        mistakes = {
            "You walk away from the picture: t_next - t is negative already.": z - (t_next - t) * now,
            "The velocity is added as a whole; a step is t_next - t long.": z + now,
            "The velocity is subtracted as a whole; a step is t_next - t long.": z - now,
            "This goes all the way to t = 0; a step goes from t to t_next.": z - t * now,
            "The velocity is multiplied by a time; expected by the length of the step, t_next - t.": z + t_next * now,
            "The velocity is asked at t_next; Euler asks where he stands, at t.": z + (t_next - t) * later,
            "This is the change alone; add it to z.": (t_next - t) * now,
            "This is the velocity; a step is z plus the velocity times t_next - t.": now,
        }
        given = z.clone()
        found = step(_swirl, given, t, t_next)
        compare(found, euler_step(_swirl, z, t, t_next), mistakes, "as z", "euler_step: ")
        if not same(given, z):
            raise Wrong("euler_step: Right, but += changes the z that it was given: the caller's noise is gone.")
    _check_sample(walk)


def _check_sample(walk: Callable[..., Any]) -> None:
    z, times = torch.randn(5, 2), [1.0, 0.8, 0.5, 0.1, 0.0]
    asked: list[float] = []

    def velocity(z: Tensor, t: Any) -> Tensor:
        asked.append(float(t[0]) if isinstance(t, Tensor) and t.ndim else float(t))
        return _swirl(z, t)

    expected, first = sample(_swirl, z, times), _swirl(z, torch.ones(5))
    jumps = torch.stack([z + (t - 1.0) * first for t in times])
    even = sample(_swirl, z, torch.linspace(1, 0, len(times)).tolist())
    mistakes = {
        "It returns the last state alone; expected all of them, noise first.": expected[-1],
        "The noise itself is missing: it is the first of the states.": expected[1:],
        "The last state is missing: there is a step to the last time too.": expected[:-1],
        "The states are in the wrong order: noise first.": expected.flip(0),
        "Every step starts from the noise, with its velocity; start where the last step ended, and ask anew.": jumps,
        "All states are the last one: += changes them in place. Make a new tensor in each step.": (
            expected[-1:].expand_as(expected)
        ),
        "The steps are all of the same length here; the times that are given are not evenly spaced.": even,
        "The samples come first; expected (len(times), B, ...), as torch.stack gives it.": expected.transpose(0, 1),
    }
    found = walk(velocity, z.clone(), list(times))
    if isinstance(found, (list, tuple)):
        raise Wrong("sample: A list of states came back; torch.stack makes one tensor of them.")
    compare(found, expected, mistakes, "times, samples, ...", "sample: ")
    if len(asked) > len(times) - 1:
        raise Wrong(f"sample: Right, but {len(asked)} velocities for {len(times) - 1} steps: ask once in each step.")


def euler_error() -> tuple[float, float, float]:
    """How far from the face points land with 1, 4 and 28 steps of Euler.

    With one step the velocity is asked at t = 1 alone, where all of the face is still possible: every point lands on
    the mean of the face, where there is no stroke. Four steps can change their mind three times. With 28 hardly
    anything is left.
    """
    drawing = face(5_000)
    middle = drawing.mean(dim=0, keepdim=True)
    return distance(middle, drawing).item(), 0.16, 0.01


def check_euler_error(answer: Any) -> None:
    """A prediction: the mean distance from the face with 1, 4 and 28 steps, before anything has been run."""
    if not callable(answer):
        raise Wrong("Keep it a function, which returns the three numbers: a later cell calls it.")
    try:
        one, four, many = (float(value) for value in answer())
    except (TypeError, ValueError):
        raise Wrong("Expected three numbers: the mean distance from the face after 1, 4 and 28 steps.") from None
    drawing, noise = face(2_000), torch.randn(300, 2)
    velocity, before = best_velocity(drawing), distance(noise, drawing).item()
    first, second, third = (
        distance(sample(velocity, noise, torch.linspace(1, 0, n + 1).tolist())[-1], drawing).item() for n in (1, 4, 28)
    )
    if not all(value >= 0 and math.isfinite(value) for value in (one, four, many)):
        raise Wrong("A distance is a number, and not below 0.")
    if one < four < many:
        raise Wrong("You expect more steps to err more. Errors do not add up here: each step asks the velocity anew.")
    hints = []
    if one < 0.1:
        hints.append(
            "1 step: you expect the face at once. The lines of training are straight, but many of them cross at each "
            "place; the velocity is their mean, and so the paths bend."
        )
    elif abs(one - before) < 0.05:
        hints.append("1 step: that is how far the noise lies from the face before the step; one step moves it a lot.")
    elif abs(one - first) > 0.1:
        hints.append(
            f"1 step: points land {'farther away' if one < first else 'nearer'} than you say. At t = 1 nothing of the "
            "face is in z, so the best guess of Z_0 is the same for all: its mean. How far is that from a stroke?"
        )
    if not hints and four > one - 0.1:
        hints.append("4 steps: hardly better than one, you say. The second step asks a velocity that knows more.")
    elif not hints and four > second * 2:
        hints.append("4 steps: points land less than half as far away as you say.")
    elif not hints and four < second / 2:
        hints.append("4 steps: points land more than twice as far away as you say; the paths bend, the steps do not.")
    if not hints and many > 0.1:
        hints.append("28 steps: points land much nearer; a step is a seventh as long, and hardly bends any more.")
    if hints:
        raise Wrong(*hints)


EXERCISES = (
    Exercise("flow_loss", NOTEBOOK, 1, 10, check_flow_loss, (interpolate, flow_loss), (
        "Two formulas: Z_t = (1 - t) Z_0 + t eps, and the mean of the squares of v(Z_t, t) - (eps - Z_0).",
        "t is (B,), z_0 may be (B, 2) or (B, N, C): t needs as many axes as z_0, the later ones of length 1.",
        "t.view(-1, *[1] * (z_0.ndim - 1)) does that; then (velocity(z_t, t) - (eps - z_0)).square().mean().",
    )),
    Exercise("euler", NOTEBOOK, 2, 15, check_euler, (euler_step, sample), (
        "A step: z plus the velocity at z and t, times t_next - t. The sampler: one step after the other.",
        "The velocity takes a time for each sample: torch.full((len(z),), t). The path begins with the noise.",
        "path = [z]; for t, t_next in zip(times[:-1], times[1:]): append euler_step(velocity, path[-1], t, t_next). At "
        "the end torch.stack(path).",
    )),
    Exercise("euler_error", NOTEBOOK, 2, 10, check_euler_error, (euler_error,), (
        "With one step only v(z, 1) is asked. What is the best guess of Z_0 where nothing of it is to be seen?",
        "It is the face's mean: how far from a stroke is face(5000).mean(dim=0, keepdim=True)? distance measures it.",
        "With four steps three better answers follow: a third to a quarter of the first distance. With 28 nearly 0.",
    )),
)  # fmt: skip
