"""What students might answer in notebook 08."""

import torch
import torch.nn.functional as F
from torch import nn

from workbook.exercises.lora import after_resume, broken_curves, how_far, rank_error


def lora_with(forward=None, b=torch.zeros, a=torch.randn, freeze=True):
    """LoRALinear with one thing done otherwise."""

    class Answer(nn.Module):
        def __init__(self, layer, rank=4, alpha=4):
            super().__init__()
            self.layer = layer.requires_grad_(not freeze)
            self.rank, self.alpha = rank, alpha
            self.A = nn.Parameter(a(rank, layer.in_features))
            self.B = nn.Parameter(b(layer.out_features, rank))

        def forward(self, x):
            if forward is not None:
                return forward(self, x)
            return self.layer(x) + self.alpha / self.rank * (x @ self.A.T @ self.B.T)

    return Answer


def low(m, x):
    return m.alpha / m.rank * (x @ m.A.T @ m.B.T)


class Copied(nn.Module):
    def __init__(self, layer, rank=4, alpha=4):
        super().__init__()
        self.scale = alpha / rank
        self.W = nn.Parameter(layer.weight.clone(), requires_grad=False)
        self.b = nn.Parameter(layer.bias.clone(), requires_grad=False)
        self.A, self.B = (
            nn.Parameter(torch.randn(rank, layer.in_features)),
            nn.Parameter(torch.zeros(layer.out_features, rank)),
        )

    def forward(self, x):
        return F.linear(x, self.W, self.b) + self.scale * (x @ self.A.T @ self.B.T)


class OfLinears(nn.Module):
    def __init__(self, layer, rank=4, alpha=4):
        super().__init__()
        self.layer = layer.requires_grad_(False)
        self.A, self.B = (
            nn.Linear(layer.in_features, rank, bias=False),
            nn.Linear(rank, layer.out_features, bias=False),
        )

    def forward(self, x):
        return self.layer(x) + self.B(self.A(x))


class Plain(nn.Module):
    def __init__(self, layer, rank=4, alpha=4):
        super().__init__()
        self.layer = layer.requires_grad_(False)
        self.A, self.B = torch.randn(rank, layer.in_features), torch.zeros(layer.out_features, rank)

    def forward(self, x):
        return self.layer(x) + x @ self.A.T @ self.B.T


class OtherNames(nn.Module):
    def __init__(self, layer, rank=4, alpha=4):
        super().__init__()
        self.layer, self.scale = layer.requires_grad_(False), alpha / rank
        self.down = nn.Parameter(torch.randn(rank, layer.in_features))
        self.up = nn.Parameter(torch.zeros(layer.out_features, rank))

    def forward(self, x):
        return self.layer(x) + self.scale * (x @ self.down.T @ self.up.T)


class Exchanged(Plain):
    def __init__(self, layer, rank=4, alpha=4):
        super().__init__(layer, rank, alpha)
        del self.A, self.B
        self.A = nn.Parameter(torch.randn(layer.out_features, rank))
        self.B = nn.Parameter(torch.zeros(rank, layer.in_features))


class OtherLoRA(nn.Module):
    """By one matrix product of W + BA."""

    def __init__(self, layer, rank=4, alpha=4):
        super().__init__()
        self.base, self.factor = layer, alpha / rank
        for parameter in layer.parameters():
            parameter.requires_grad = False
        self.A = nn.Parameter(nn.init.kaiming_uniform_(torch.empty(rank, layer.in_features)))
        self.B = nn.Parameter(torch.zeros(layer.out_features, rank))

    def forward(self, x):
        return F.linear(x, self.base.weight + self.factor * self.B @ self.A, self.base.bias)


def no_grad_forward(m, x):
    with torch.no_grad():
        return m.layer(x) + low(m, x)


def step_with(
    noisy=lambda b, t: (1 - t) * b.image + t * b.noise,
    target=lambda b: b.noise - b.image,
    reduce=lambda e: e.square().mean(),
    order=("clear", "backward", "clip", "step"),
    clip=lambda p: nn.utils.clip_grad_norm_(p, 0.5),
    back=lambda loss: loss.item(),
    shape=lambda t: t[:, None, None],
):
    """The training step with one thing done otherwise."""

    def answer(velocity, optimizer, parameters, batch):
        loss = reduce(velocity(noisy(batch, shape(batch.t)), batch) - target(batch))
        for what in order:
            if what == "clear":
                optimizer.zero_grad()
            elif what == "backward":
                loss.backward()
            elif what == "clip":
                clip(parameters)
            else:
                optimizer.step()
        return back(loss)

    return answer


def loss_afterwards(velocity, optimizer, parameters, batch):
    step_with()(velocity, optimizer, parameters, batch)
    t = batch.t[:, None, None]
    noisy = (1 - t) * batch.image + t * batch.noise
    return (velocity(noisy, batch) - (batch.noise - batch.image)).square().mean().item()


def by_grad(velocity, optimizer, parameters, batch):
    """Gradients by torch.autograd.grad, clipped by hand."""
    noisy = torch.stack([torch.lerp(*pair) for pair in zip(batch.image, batch.noise, batch.t, strict=True)])
    loss = F.mse_loss(velocity(noisy, batch), batch.noise - batch.image)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    length = torch.stack([p.grad.norm() for p in parameters]).norm()
    for parameter in parameters:
        parameter.grad.mul_((0.5 / length).clamp(max=1))
    optimizer.step()
    return loss.detach().item()


def reach(**changed):
    return lambda: {**how_far(), **changed}


def curve(**changed):
    return lambda: {**broken_curves(), **changed}


def kept(**changed):
    return lambda: {**after_resume(), **changed}


#: Exercise -> (words of the hint, wrong answer).
WRONG = {
    "lora_linear": [
        ("before anything is learned", lora_with(b=torch.randn)),
        ("nothing ever moves", lora_with(a=torch.zeros)),
        ("multiples of each other", lora_with(a=torch.ones)),
        ("would be trained, too", lora_with(freeze=False)),
        ("The layer is copied", Copied),
        ("A is an nn.Linear", OfLinears),
        ("plain tensor", Plain),
        ("A leads down", Exchanged),
        ("There is no self.A", OtherNames),
        ("alpha / rank is missing", lora_with(lambda m, x: m.layer(x) + x @ m.A.T @ m.B.T)),
        ("The factor is alpha;", lora_with(lambda m, x: m.layer(x) + m.rank * low(m, x))),
        ("rank / alpha", lora_with(lambda m, x: m.layer(x) + m.rank / m.alpha * (x @ m.A.T @ m.B.T))),
        ("nonlinearity", lora_with(lambda m, x: m.layer(x) + m.alpha / m.rank * (x @ m.A.T).relu() @ m.B.T)),
        ("does not arrive", lora_with(lambda m, x: m.layer(x))),
        ("is subtracted", lora_with(lambda m, x: m.layer(x) - low(m, x))),
        ("could not be trained", lora_with(no_grad_forward)),
        ("x @ A.T is (..., rank)", lora_with(lambda m, x: m.layer(x) + x @ m.A @ m.B)),
    ],
    "rank_error": [
        ("an error is squared", lambda: [0.6, 0.3, 0.1, 0.0]),
        ("asked is what is left", lambda: [1 - one for one in rank_error()]),
        ("divide by the sum", lambda: [14, 5, 1, 0]),
        ("the smallest away first", lambda: [29 / 30, 25 / 30, 16 / 30, 0]),
        ("counts more than one of 1", lambda: [0.75, 0.5, 0.25, 0]),
        ("begins with rank 0", lambda: [1, 14 / 30, 5 / 30, 1 / 30]),
        ("root of the share", lambda: [one**0.5 for one in rank_error()]),
        ("cannot hold four", lambda: [0, 0, 0, 0]),
        ("more than 0.02 off", lambda: [0.5, 0.2, 0.05, 0]),
        ("expected four: for rank", lambda: [14 / 30, 5 / 30]),
        ("Expected four numbers, for rank", lambda: "a half"),
    ],
    "training_step": [
        ("sign is wrong", step_with(target=lambda b: b.image - b.noise)),
        ("that is DDPM", step_with(target=lambda b: b.noise)),
        ("exchanged in Z_t", step_with(noisy=lambda b, t: t * b.image + (1 - t) * b.noise)),
        ("clean picture", step_with(noisy=lambda b, t: b.image)),
        ("take their mean", step_with(reduce=lambda e: e.square().sum())),
        ("absolute errors", step_with(reduce=lambda e: e.abs().mean())),
        ("zero_grad is missing", step_with(order=("backward", "clip", "step"))),
        ("are not clipped", step_with(order=("clear", "backward", "step"))),
        ("clipped by itself", step_with(clip=lambda p: nn.utils.clip_grad_value_(p, 0.5))),
        ("clipped to 1", step_with(clip=lambda p: nn.utils.clip_grad_norm_(p, 1))),
        ("loss.backward() is missing", step_with(order=("clear", "step"))),
        ("optimizer.step() is missing", step_with(order=("clear", "backward", "clip"))),
        ("steps before there are gradients", step_with(order=("step", "clear", "backward", "clip"))),
        ("clear them before", step_with(order=("backward", "clear", "step"))),
        ("loss.item()", step_with(back=lambda loss: loss)),
        ("It returned None", step_with(back=lambda loss: None)),
        ("the loss after the step", loss_afterwards),
        ("what comes back is not the loss", step_with(back=lambda loss: loss.item() ** 0.5)),
        ("t[:, None, None] fits", step_with(shape=lambda t: t)),
    ],
    "how_far": [
        ("the reach of one step", reach(**{"rate 0.001": 0.001})),
        ("steps point anywhere", reach(**{"rate 0.001": 0.001 * 30**0.5})),
        ("does not halve it", reach(**{"rate 0.001": 0.015})),
        ("so it would be with SGD", reach(**{"loss x 1000": 30})),
        ("does not make smaller steps", reach(**{"loss x 1000": 0.00003})),
        ("ten times the rate", reach(**{"rate 0.01": 0.03})),
        ("moves from the first step on", reach(**{"rate 0.001": 0})),
        ("not the rate times", reach(**{"rate 0.001": 7})),
        ("with the keys", lambda: {"rate 0.001": 0.03}),
        ("Expected a number", reach(**{"rate 0.001": "little"})),
    ],
    "broken_curves": [
        ("A is not 2", curve(A=2)),
        ("B is not 7", curve(B=7)),
        ("C is not 6", curve(C=6)),
        ("D is not 2", curve(D=2)),
        ("E is not 1", curve(E=1)),
        ("F is not 3", curve(F=3)),
        ("F is not 1", curve(F=1)),
        ("with the keys", lambda: {"A": 1}),
        ("expected the number of an explanation", curve(A=9)),
    ],
    "after_resume": [
        ("nothing has been learned", kept(**{"trained numbers": None})),
        ("the first is right", kept(**{"Adam's averages": 1})),
        ("Adam's averages: no step", kept(**{"Adam's averages": None})),
        ("the first batch is another", kept(**{"number of the step": 2})),
        ("they are frozen", kept(**{"weights of the base": 1})),
        ("from the seed and the number of the step alone", kept(chance=1)),
        ("expected 1, 2, or None", kept(chance="never")),
        ("with the keys", lambda: {"chance": None}),
    ],
}

#: Exercise -> a right answer that is not the package's.
OTHER_WAYS = {
    "lora_linear": OtherLoRA,
    "rank_error": lambda: torch.tensor([0.47, 0.17, 0.03, 0.0]),
    "training_step": by_grad,
    "how_far": lambda: {"rate 0.001": 30 * 0.001, "rate 0.01": 30 * 0.01, "loss x 1000": "0.03"},
    "broken_curves": lambda: dict(zip("FEDCBA", (6, 4, 5, 1, 3, 8), strict=True)),
    "after_resume": lambda: dict(reversed(after_resume().items())),
}
