"""Exercises of notebook 08, fine-tuning with LoRA: solutions, and checkers that raise `Wrong` with hints."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from workbook.checking import Exercise, Wrong
from workbook.exercises.judging import advice, compare, same

NOTEBOOK = "08_fine_tuning_with_lora"
#: Trainings that were run once, with their curves: `python benchmarks/fine_tuning.py` writes the file.
RECORDED = Path(__file__).resolve().parents[1] / "trainings.json"


def recorded() -> dict[str, Any]:
    """What is kept of trainings that were run once."""
    found: dict[str, Any] = json.loads(RECORDED.read_text())
    return found


# --- LoRA on one layer -------------------------------------------------------------------------------------------


class LoRALinear(nn.Module):
    """A frozen linear layer with a trained correction of low rank: W x + b + alpha / rank B A x."""

    def __init__(self, layer: nn.Linear, rank: int = 4, alpha: float = 4) -> None:
        super().__init__()
        self.layer = layer.requires_grad_(False)
        self.scale = alpha / rank
        self.A = nn.Parameter(torch.randn(rank, layer.in_features) / rank)
        self.B = nn.Parameter(torch.zeros(layer.out_features, rank))

    def forward(self, x: Tensor) -> Tensor:
        """x (..., in) -> (..., out)."""
        return self.layer(x) + self.scale * (x @ self.A.T @ self.B.T)


_SHAPES = "x is (..., in): x @ A.T is (..., rank), and that @ B.T is (..., out)."


def check_lora_linear(answer: Any) -> None:
    """class LoRALinear(layer, rank, alpha): x (..., in) -> (..., out)."""
    layer, rank, alpha = nn.Linear(7, 5), 3, 6
    before = {name: tensor.clone() for name, tensor in layer.state_dict().items()}
    model = answer(layer, rank, alpha)
    parameters = dict(model.named_parameters())
    for name, shape in {"A": (rank, 7), "B": (5, rank)}.items():
        part = getattr(model, name, None)
        if isinstance(part, nn.Linear):
            raise Wrong(f"{name} is an nn.Linear; expected an nn.Parameter of shape {shape}, which later cells read.")
        if not isinstance(part, Tensor):
            raise Wrong(f"There is no self.{name}; expected an nn.Parameter of shape {shape}.")
        if name not in parameters:
            raise Wrong(f"{name} is a plain tensor: no optimiser finds it. Make it an nn.Parameter.")
        if tuple(part.shape) != shape:
            raise Wrong(f"{name} has the shape {tuple(part.shape)}, expected {shape}: A leads down, B leads up again.")
    own = [p for name, p in parameters.items() if name not in ("A", "B")]
    if not any(p is layer.weight for p in own):
        raise Wrong("The layer is copied, or it is no part of the module: keep the one that you are given.")
    if any(p.requires_grad for p in own):
        raise Wrong("The layer's own weights would be trained, too: layer.requires_grad_(False) freezes them.")
    _check_beginning(model, before)
    _check_correction(model, layer, alpha / rank)


def _check_beginning(model: Any, before: Mapping[str, Tensor]) -> None:
    """Before training nothing has changed, and there is a way on from there."""
    x = torch.randn(2, 4, 7)
    if model.B.any():
        raise Wrong("B does not begin at zero: the network is another one before anything is learned.")
    if not model.A.any():
        raise Wrong("A begins at zero, and so does B: the gradients of both are zero, and nothing ever moves.")
    if int(torch.linalg.matrix_rank(model.A)) < len(model.A):
        raise Wrong("The rows of A are multiples of each other, and training keeps them so: draw them at random.")
    plain = F.linear(x, before["weight"], before["bias"])
    with advice(_SHAPES):
        found = model(x)
    compare(found, plain, {}, "batch, tokens, out", "With B = 0 the layer has to do what it did: ")


def _check_correction(model: Any, layer: nn.Linear, scale: float) -> None:
    """With a B that has learned something, the output is that of W + alpha / rank B A; and it can be trained."""
    x = torch.randn(2, 4, 7)
    model.B.copy_(torch.randn(model.B.shape))
    plain, low = layer(x), x @ model.A.T @ model.B.T
    mistakes = {
        "alpha / rank is missing: B A x is added as it is.": plain + low,
        "The factor is alpha; it is alpha / rank.": plain + scale * len(model.A) * low,
        "The factor is rank / alpha; it is alpha / rank.": plain + low / scale,
        "That is B A x alone; it is added to what the frozen layer gives.": scale * low,
        "B A x does not arrive: the output is the frozen layer's.": plain,
        "The bias is added a second time; LoRA has none.": plain + scale * low + layer.bias,
        "There is a nonlinearity between A and B; LoRA is linear.": plain + scale * (x @ model.A.T).relu() @ model.B.T,
        "B A x is subtracted; it is added.": plain - scale * low,
    }
    with advice(_SHAPES), torch.enable_grad():
        found = model(x)
    compare(found, plain + scale * low, mistakes, "batch, tokens, out")
    with torch.enable_grad():
        wanted = [model.A, model.B]
        gradients = (
            torch.autograd.grad(found.sum(), wanted, allow_unused=True) if found.requires_grad else [None] * len(wanted)
        )
    if any(gradient is None for gradient in gradients):
        raise Wrong("Right, but it could not be trained: no_grad, detach or .data cuts the way back to A or B.")
    if not same(torch.as_tensor(model(x[0, 0])), (plain + scale * low)[0, 0]):
        raise Wrong("It fails for a single token (in,): whatever stands before the last axis is carried along.")


# --- what rank does ----------------------------------------------------------------------------------------------

#: The singular values of the change that the notebook plants.
PLANTED = (4.0, 3.0, 2.0, 1.0)


def rank_error() -> list[float]:
    """The share of the squared error that is left when the best B A of rank 1, 2, 3, 4 has been learned.

    Each singular value adds its square; the best B A of rank r takes the r largest ones away.
    """
    squares = [value**2 for value in PLANTED]
    return [sum(squares[rank:]) / sum(squares) for rank in range(1, len(PLANTED) + 1)]


def check_rank_error(function: Callable[[], Any]) -> None:
    """The shares that are left with rank 1, 2, 3, 4: four numbers."""
    found = function() if callable(function) else function
    try:
        said = torch.as_tensor([float(one) for one in found])
    except (TypeError, ValueError):
        raise Wrong(f"Expected four numbers, for rank 1, 2, 3 and 4; found {found!r}.") from None
    right, values = torch.tensor(rank_error()), torch.tensor(PLANTED)
    squares = values.square()
    tail, count = values.sum() - values.cumsum(0), len(values)
    mistakes = {
        "These are shares of the singular values; an error is squared, and so are they.": tail / values.sum(),
        "That is what has been learned; asked is what is left.": 1 - right,
        "These are squares, not shares: divide by the sum of all four.": right * squares.sum(),
        "You take the smallest away first; the best correction begins with the largest.": (
            1 - squares.flip(0).cumsum(0) / squares.sum()
        ),
        "Every rank takes the same share away in your answer; a singular value of 4 counts more than one of 1.": (
            1 - torch.arange(1, count + 1) / count
        ),
        "It begins with rank 0: with rank 1 the largest is gone already.": torch.cat([torch.ones(1), right[:-1]]),
        "That is the root of the share; asked is the squared error's.": right.sqrt(),
        "One direction cannot hold four: with rank 1 something is left.": torch.zeros(count),
    }
    if said.shape != right.shape:
        raise Wrong(f"Found {len(said)} numbers, expected four: for rank 1, 2, 3 and 4.")
    near = {hint: value for hint, value in mistakes.items() if (said - value).abs().max() < 0.01}
    if (said - right).abs().max() <= 0.02:
        return
    if near:
        raise Wrong(next(iter(near)))
    worst = int((said - right).abs().argmax())
    raise Wrong(f"Rank {worst + 1}: {said[worst]:.2f} is more than 0.02 off. Which of the four squares are left then?")


# --- one step of training ----------------------------------------------------------------------------------------


def training_step(velocity: Callable[..., Tensor], optimizer: Any, parameters: Sequence[Tensor], batch: Any) -> float:
    """One step of rectified flow -> the loss, a number.

    velocity takes Z_t (B, N, C) and the batch; the batch has image, noise (B, N, C) and t (B,).
    """
    t = batch.t[:, None, None]
    noisy = (1 - t) * batch.image + t * batch.noise
    loss = (velocity(noisy, batch) - (batch.noise - batch.image)).square().mean()
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(parameters, 0.5)
    optimizer.step()
    return loss.item()


class _Toy:
    """A small network on two batches, an optimiser that notes what happens when, and the parameters afterwards."""

    def __init__(self) -> None:
        chance = torch.Generator().manual_seed(0)
        self.weight, self.bias = (torch.randn(*s, generator=chance).requires_grad_() for s in ((3, 3), (3,)))
        self.events: list[str] = []
        self.parameters = [self.weight, self.bias]
        self.weight.register_hook(lambda _: self.events.append("backward"))
        self.optimizer = torch.optim.SGD(self.parameters, lr=0.1)
        for name in ("zero_grad", "step"):
            setattr(self.optimizer, name, self._noted(name))
        self.seen: list[Tensor] = []
        self.batches = [
            SimpleNamespace(
                image=2 * torch.randn(4, 5, 3, generator=chance),
                noise=torch.randn(4, 5, 3, generator=chance),
                t=torch.rand(4, generator=chance),
            )
            for _ in range(2)
        ]

    def _noted(self, name: str) -> Callable[..., Any]:
        own = getattr(self.optimizer, name)

        def call(*given: Any, **named: Any) -> Any:
            self.events.append(name)
            return own(*given, **named)

        return call

    def velocity(self, noisy: Tensor, batch: Any) -> Tensor:
        self.seen.append(noisy.detach())
        return noisy @ self.weight + self.bias * batch.t[:, None, None]

    def losses(self, step: Callable[..., Any]) -> list[Any]:
        """What two steps give back."""
        with torch.enable_grad():
            return [step(self.velocity, self.optimizer, self.parameters, batch) for batch in self.batches]

    def changed(self) -> Tensor:
        """All parameters in one row."""
        return torch.cat([p.detach().flatten() for p in self.parameters])


def _step_with(
    target: Callable[[Any], Tensor] = lambda b: b.noise - b.image,
    noisy: Callable[[Any, Tensor], Tensor] = lambda b, t: (1 - t) * b.image + t * b.noise,
    reduce: Callable[[Tensor], Tensor] = lambda error: error.square().mean(),
    clip: Callable[[Any], Any] = lambda parameters: nn.utils.clip_grad_norm_(parameters, 0.5),
    clear: bool = True,
) -> Callable[..., float]:
    """A step with one thing done otherwise, for comparison."""

    def step(velocity: Any, optimizer: Any, parameters: Any, batch: Any) -> float:
        loss = reduce(velocity(noisy(batch, batch.t[:, None, None]), batch) - target(batch))
        if clear:
            optimizer.zero_grad()
        loss.backward()
        clip(parameters)
        optimizer.step()
        return loss.item()

    return step


#: What goes wrong in the loss, and in what follows it: hint -> a step that makes this mistake.
_STEP_MISTAKES = {
    "The target's sign is wrong: the velocity points from the picture to the noise, eps - Z_0.": _step_with(
        target=lambda b: b.image - b.noise
    ),
    "The target is the noise; that is DDPM. Rectified flow predicts eps - Z_0.": _step_with(target=lambda b: b.noise),
    "The target is the picture; rectified flow predicts eps - Z_0.": _step_with(target=lambda b: b.image),
    "Picture and noise are exchanged in Z_t: at t = 1 all is noise.": _step_with(
        noisy=lambda b, t: t * b.image + (1 - t) * b.noise
    ),
    "The network is shown the clean picture; show it Z_t.": _step_with(noisy=lambda b, t: b.image),
    "The squared errors are added up; take their mean.": _step_with(reduce=lambda e: e.square().sum()),
    "These are absolute errors; square them.": _step_with(reduce=lambda e: e.abs().mean()),
    "The gradients of the step before are still there and add up: zero_grad is missing.": _step_with(clear=False),
    "The gradients are not clipped: together they may be 0.5 long.": _step_with(clip=lambda parameters: None),
    "Each gradient is clipped by itself; their length together counts (clip_grad_norm_).": _step_with(
        clip=lambda parameters: nn.utils.clip_grad_value_(parameters, 0.5)
    ),
    "The gradients are clipped to 1; to 0.5.": _step_with(
        clip=lambda parameters: nn.utils.clip_grad_norm_(parameters, 1.0)
    ),
}


def check_training_step(function: Callable[..., Any]) -> None:
    """velocity, optimizer, parameters, batch -> the loss; and the parameters have moved as they should."""
    toy, right = _Toy(), _Toy()
    before, expected = toy.changed(), right.losses(training_step)
    with advice("t is (B,) and pictures are (B, N, C): t[:, None, None] fits them."):
        found = toy.losses(function)
    if found[0] is None:
        raise Wrong("It returned None; give the loss back, as a number.")
    if isinstance(found[0], Tensor) and found[0].requires_grad:
        raise Wrong("The loss comes back with all that it was computed from, which stays in memory: loss.item().")
    _check_order(toy, before)
    numbers = torch.tensor([float(one) for one in found])
    alike = same(numbers, torch.tensor(expected)) and same(toy.changed(), right.changed())
    if alike:
        return
    for hint, step in _STEP_MISTAKES.items():
        other = _Toy()
        losses = torch.tensor(other.losses(step))
        if same(toy.changed(), other.changed()) and same(numbers, losses):
            raise Wrong(hint)
    if same(toy.changed(), right.changed()):
        after = torch.tensor([_loss_after(right, k) for k in range(2)])
        if same(numbers[1:], after[1:]):
            raise Wrong("That is the loss after the step; give back the one that the step has minimised.")
        raise Wrong("The parameters move as they should, but what comes back is not the loss.")
    if same(numbers[:1], torch.tensor(expected[:1])):
        raise Wrong("The loss is right, what follows is not: compare zero_grad, backward, clipping, step.")
    raise Wrong(f"The loss is {numbers[0]:.4f} where {expected[0]:.4f} is expected: look at Z_t, target and mean.")


def _loss_after(toy: _Toy, k: int) -> float:
    """The loss of a batch with the parameters as they are at the end."""
    batch = toy.batches[k]
    t = batch.t[:, None, None]
    noisy = (1 - t) * batch.image + t * batch.noise
    return float((toy.velocity(noisy, batch) - (batch.noise - batch.image)).square().mean())


def _check_order(toy: _Toy, before: Tensor) -> None:
    """What has to happen does, and in an order in which it acts."""
    events = toy.events
    if "backward" not in events:
        raise Wrong("There are no gradients: loss.backward() is missing.")
    if "step" not in events:
        raise Wrong("The parameters have not moved: optimizer.step() is missing.")
    if events.index("step") < events.index("backward"):
        raise Wrong("The optimiser steps before there are gradients: first backward, then step.")
    first = events[: events.index("step")]
    if "zero_grad" in first[first.index("backward") :] or torch.equal(toy.changed(), before):
        raise Wrong("The gradients are cleared between backward and step, so the step has none: clear them before.")


# --- how far Adam goes -------------------------------------------------------------------------------------------

#: Steps and rate of the run that the question is about.
REACH_STEPS, REACH_RATE = 30, 1e-3


def how_far() -> dict[str, float]:
    """How far from zero a number of B is after 30 steps of Adam, if its gradient is the same each time: with a rate of
    0.001; with 0.01; with 0.001 and a loss that is multiplied by 1,000.

    Adam divides the mean gradient by the root of the mean squared one. For a gradient that stays the same the quotient
    is 1, whatever its size, so each step is as long as the rate. Others hardly ever get further.
    """
    return {"rate 0.001": 0.03, "rate 0.01": 0.3, "loss x 1000": 0.03}


def check_how_far(function: Callable[[], Any]) -> None:
    """{"rate 0.001": number, "rate 0.01": number, "loss x 1000": number}."""
    said, right = function() if callable(function) else function, how_far()
    if not isinstance(said, dict) or set(said) != set(right):
        raise Wrong(f"Expected a dictionary with the keys {', '.join(right)}.")
    try:
        found = {case: float(value) for case, value in said.items()}
    except (TypeError, ValueError):
        raise Wrong("Expected a number for each of the three cases.") from None
    wrong = [line for case, value in found.items() if (line := _reach(case, value, right[case], found))]
    if wrong:
        raise Wrong(*wrong)


def _reach(case: str, said: float, right: float, all_said: Mapping[str, float]) -> str:
    """What is wrong with the number for one case, empty where nothing is."""
    if right / 1.25 <= said <= 1.25 * right:
        return ""

    def near(value: float) -> bool:
        return math.isclose(said, value, rel_tol=0.05)

    rate = right / REACH_STEPS
    if near(rate):
        return f"{case}: that is the reach of one step, and there are {REACH_STEPS}."
    if near(rate * REACH_STEPS**0.5):
        return f"{case}: so far goes a walk whose steps point anywhere; asked is the furthest, with all steps one way."
    if near(right / 2):
        return f"{case}: the clipping at 0.5 does not halve it: Adam divides by the gradient's size, clipped or not."
    if case == "loss x 1000" and near(1000 * right):
        return f"{case}: so it would be with SGD. Adam divides by the gradient's own size, and the 1,000 drops out."
    if case == "loss x 1000" and near(right / 1000):
        return f"{case}: a larger loss does not make smaller steps; Adam divides the 1,000 out, and nothing more."
    if case == "rate 0.01" and near(all_said["rate 0.001"]):
        return f"{case}: the rate is the length of a step; with ten times the rate it is not the same."
    if near(0.0):
        return f"{case}: B begins at zero, but its gradient is not zero; it moves from the first step on."
    return f"{case}: {said:g} is not the rate times the number of steps; here each step is as long as the rate."


# --- curves of broken trainings ----------------------------------------------------------------------------------

#: Explanations that are offered for the recorded curves.
FAULTS = {
    1: "nothing: this is the training as it should be",
    2: "the learning rate is far too high",
    3: "nothing is trained: the optimiser holds the wrong parameters",
    4: "the same eight portraits, with the same noise and times, at every step",
    5: "the sign of the target is wrong: Z_0 - eps",
    6: "the learning rate has fallen to zero after a quarter of the steps",
    7: "each portrait is trained with the mask of another one",
    8: "after half of the steps the run was resumed without Adam's averages and at twenty times the rate",
}


def broken_curves() -> dict[str, int]:
    """Curve -> the number of the explanation that fits it."""
    return {"A": 8, "B": 3, "C": 1, "D": 5, "E": 4, "F": 6}


#: Curve -> the recorded training that it is of.
CURVES = {
    "A": "resumed wrongly",
    "B": "nothing is trained",
    "C": "as it should be",
    "D": "sign of the target",
    "E": "one batch",
    "F": "rate falls to zero",
}


def unnamed() -> dict[str, dict[str, Any]]:
    """Curve -> "loss" by step, "others" as pairs of step and loss; not the name, which would tell what is wrong."""
    runs = recorded()["runs"]
    return {letter: {part: runs[name][part] for part in ("loss", "others")} for letter, name in CURVES.items()}


#: Curve -> what is to be seen on it.
_SEEN = {
    "A": "it falls as it should for half of the steps, and then jumps",
    "B": "on other portraits it is not just bad, it is level to the last digit from the first step to the last",
    "C": "both curves fall, and to the end",
    "D": "it begins several times as high as the others, and the other portraits get worse while it falls",
    "E": "in training it falls without jitter, while other portraits in the end get worse",
    "F": "it falls as it should, and then is level to the last digit on other portraits",
}
#: Explanation -> what a curve of it would look like.
_LOOKS = {
    1: "a sound run falls on other portraits until the end",
    2: "far too high a rate throws the loss up in the first steps",
    3: "where nothing is trained, the loss on other portraits never changes at all",
    4: "with one batch the training loss loses its jitter, because noise and times are the same each time",
    5: "with the wrong sign the first loss is already several times too high, before any step",
    6: "with a rate of zero nothing changes any more, and before that it falls",
    7: "with masks of others it comes down less than a sound run, but weights move, and it is never exactly level",
    8: "a wrong resumption shows at one place, in the middle",
}


def check_broken_curves(function: Callable[[], Any]) -> None:
    """Curve -> number of the explanation."""
    said, right = function() if callable(function) else function, broken_curves()
    if not isinstance(said, dict) or set(said) != set(right):
        raise Wrong(f"Expected a dictionary with the keys {', '.join(right)} and a number for each.")
    wrong = []
    for curve, number in said.items():
        if isinstance(number, bool) or number not in FAULTS:
            raise Wrong(f"{curve}: found {number!r}; expected the number of an explanation, 1 to {len(FAULTS)}.")
        if number != right[curve]:
            wrong.append(f"{curve} is not {number}: {_SEEN[curve]}; {_LOOKS[number]}.")
    if wrong:
        raise Wrong(*wrong)


# --- what a checkpoint has to hold -------------------------------------------------------------------------------


def after_resume() -> dict[str, int | None]:
    """What a resumed run lacks -> the first of its steps whose loss differs from the undisturbed run's; None: none.

    A loss is computed before the step changes anything. So what the first one needs is there or it differs at once;
    what only the step needs shows from the second on.
    """
    return {
        "trained numbers": 1,
        "Adam's averages": 2,
        "number of the step": 1,
        "weights of the base": None,
        "chance": None,
    }


_WHY = {
    "trained numbers": "without them nothing has been learned, and the first loss already shows it",
    "Adam's averages": "the loss comes before the step: the first is right, its step is another, the second shows it",
    "number of the step": "it says which portraits, noise and times are due, so the first batch is another one",
    "weights of the base": "they are frozen: the base's own file has them, to the last bit",
    "chance": "noise, times and what is dropped follow from the seed and the number of the step alone",
}


def check_after_resume(function: Callable[[], Any]) -> None:
    """What is lacking -> 1, 2 or None."""
    said, right = function() if callable(function) else function, after_resume()
    if not isinstance(said, dict) or set(said) != set(right):
        raise Wrong(f"Expected a dictionary with the keys {', '.join(right)}.")
    wrong = []
    for part, step in said.items():
        if step is not None and (isinstance(step, bool) or not isinstance(step, int)):
            raise Wrong(f"{part}: found {step!r}; expected 1, 2, or None for no step.")
        if step != right[part]:
            found = "no step" if step is None else f"step {step}"
            wrong.append(f"{part}: {found} is not the first that differs: {_WHY[part]}.")
    if wrong:
        raise Wrong(*wrong)


EXERCISES = (
    Exercise("lora_linear", NOTEBOOK, 2, 15, check_lora_linear, (LoRALinear,), (
        "Three things are kept: the frozen layer, A and B. Only the last two are parameters that ask for gradients.",
        "A is (rank, in) and random, B is (out, rank) and zero; the correction is alpha / rank times B A x.",
        "self.layer = layer.requires_grad_(False); nn.Parameter for A and B; forward: self.layer(x) + alpha / rank * "
        "(x @ self.A.T @ self.B.T).",
    )),
    Exercise("rank_error", NOTEBOOK, 1, 10, check_rank_error, (rank_error,), (
        "Four directions that are at right angles: the squared error is the sum of four squares.",
        "A correction of rank r takes r of them away, and the best one takes the largest.",
        "All: 16 + 9 + 4 + 1 = 30. With rank 1 the 16 is gone, and 14 / 30 is left.",
    )),
    Exercise("training_step", NOTEBOOK, 2, 20, check_training_step, (training_step,), (
        "Two halves: the loss of notebook 04 on this batch, and the five lines that every training in PyTorch has.",
        "Z_t = (1 - t) image + t noise, target noise - image, t as (B, 1, 1). Then clear, backward, clip, step.",
        "loss = (velocity(noisy, batch) - target).square().mean(); optimizer.zero_grad(); loss.backward(); "
        "torch.nn.utils.clip_grad_norm_(parameters, 0.5); optimizer.step(); return loss.item().",
    )),
    Exercise("how_far", NOTEBOOK, 1, 10, check_how_far, (how_far,), (
        "How long is one step of Adam? Look at the formula for a gradient that is the same at every step.",
        "If the gradient is g each time, the mean is g and the root of the mean square is |g|: their quotient is 1.",
        "Each step is as long as the rate, so n steps go n times as far; a factor in the loss drops out.",
    )),
    Exercise("broken_curves", NOTEBOOK, 2, 20, check_broken_curves, (broken_curves,), (
        "Read the level at the very first step, before anything has been learned; then the other portraits' curve.",
        "Exactly level is another thing than noisy and flat: it means that no weight moves. Where does it begin?",
        "Jitter of the training loss comes from new noise and times at each step; one curve has none. A jump at one "
        "place has its reason at that place.",
    )),
    Exercise("after_resume", NOTEBOOK, 2, 10, check_after_resume, (after_resume,), (
        "Write down what the first loss after the resumption is computed from, and what the step after it needs.",
        "The loss needs the weights and the batch. The step needs the gradient and what the optimiser remembers.",
        "What the loss needs shows at step 1, what only the step needs at step 2. Which of the five can be had anew?",
    )),
)  # fmt: skip
