"""Answers to `workbook.exercises.experts`: wrong ones with words of their hints, right ones by another way."""

import numpy as np
import torch
from torch import nn

from mogle.experts import Expert, expert_bank
from mogle.labels import LABELS
from workbook.exercises.experts import class_shares, never_seen, train_bank


class Misspelt(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = Expert().net

    def foward(self, tokens):
        return self.net(tokens)


class Residual(Expert):
    def forward(self, tokens):
        return tokens + self.net(tokens)


def net(*layers):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(*(make() for make in layers))

        def forward(self, tokens):
            return self.net(tokens)

    return Net


def mixed_bank(experts, tokens):
    """A bank that turns its weights by a reshape."""
    for layer, shape in ((0, (64, 32)), (2, (32, 64))):
        weights = torch.stack([e.net[layer].weight.reshape(shape) for e in experts])
        tokens = tokens @ weights + torch.stack([e.net[layer].bias for e in experts])[:, None]
        tokens = tokens.relu() if layer == 0 else tokens
    return tokens


def bank_of(first):
    """A bank in which expert i has the weights of expert `first(i)`."""
    return lambda experts, tokens: expert_bank([experts[first(i)] for i in range(20)], tokens)


def bank_of_data(experts, tokens):
    (w1, w2), (b1, b2) = (
        [torch.stack([getattr(e.net[i], kind).data for e in experts]) for i in (0, 2)] for kind in ("weight", "bias")
    )
    return (tokens @ w1.mT + b1[:, None]).relu() @ w2.mT + b2[:, None]


def vmapped(experts, tokens):
    """All experts at once by functorch, without stacking by hand."""
    weights, buffers = torch.func.stack_module_state(experts)
    one = lambda w, b, x: torch.func.functional_call(experts[0], (w, b), (x,))  # noqa: E731
    return torch.vmap(one, in_dims=(0, 0, 1), out_dims=1)(weights, buffers, tokens)


def counted_by_hand(label_map):
    rows = [
        [(label_map[y : y + 16, x : x + 16] == k).sum() / 256 for k in range(19)]
        for y in range(0, label_map.shape[0], 16)
        for x in range(0, label_map.shape[1], 16)
    ]
    return np.array(rows)


class OtherExpert(nn.Module):
    def __init__(self, width=64, hidden=32):
        super().__init__()
        self.net = nn.ModuleList([nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, width)])

    def forward(self, tokens):
        for layer in self.net:
            tokens = layer(tokens)
        return tokens


def mixed(answers):
    return answers.sum(dim=1)


def squares(off):
    return off.square().mean()


def trained(
    mix=mixed, loss_of=squares, rate=0.01, clear=True, step=True, keep=lambda loss: loss.item(), who=slice(None)
):
    """A training loop with one thing changed."""

    def loop(experts, tokens, target, steps):
        optimizer = torch.optim.Adam([weight for expert in experts[who] for weight in expert.parameters()], lr=rate)
        losses = []
        for _ in range(steps):
            loss = loss_of(mix(expert_bank(experts, tokens)) - target)
            if clear:
                optimizer.zero_grad()
            loss.backward()
            if step:
                optimizer.step()
            losses.append(keep(loss))
        return losses

    return loop


def each_alone(experts, tokens, target, steps):
    return trained(lambda answers: answers)(experts, tokens, target[:, None], steps)


def silent_loop(experts, tokens, target, steps):
    trained()(experts, tokens, target, steps)


def by_minibatches(experts, tokens, target, steps):
    """Plain gradient descent with momentum, without an optimizer, on a third of the samples at a time."""
    weights = [weight for expert in experts for weight in expert.parameters()]
    pace, losses = [torch.zeros_like(weight) for weight in weights], []
    for number in range(steps):
        some = torch.arange(number % 3, len(tokens), 3)
        off = torch.vmap(lambda x: x.sum(dim=0))(expert_bank(experts, tokens[some])) - target[some]
        loss = off.pow(2).mean()
        with torch.no_grad():
            for weight, speed, grad in zip(weights, pace, torch.autograd.grad(loss, weights), strict=True):
                speed.mul_(0.9).add_(grad)
                weight.sub_(0.05 * speed)
        losses.append(loss.detach())
    return losses


def names_in(mask):
    return {LABELS[label] for label in np.unique(mask)}


def absent(lessons, mask):
    return [name for name in LABELS if all(name not in names_in(lesson) for lesson in lessons)]


def missing_once(lessons, mask):
    return names_in(mask) - set.intersection(*map(names_in, lessons))


def turned_round(lessons, mask):
    return set.union(*map(names_in, lessons)) - names_in(mask)


def largest(lessons, mask):
    return [max(never_seen(lessons, mask), key=lambda name: (mask == LABELS.index(name)).sum())]


def small(lessons, mask):
    return [name for name in names_in(mask) if (mask == LABELS.index(name)).sum() < 20]


def by_counting(lessons, mask):
    together = np.bincount(np.concatenate([lesson.ravel() for lesson in lessons]), minlength=19)
    return {name for k, name in enumerate(LABELS) if together[k] == 0 and (mask == k).any()}


#: Exercise -> (words of the hint, wrong answer).
WRONG = {
    "expert": [
        ("no residual", Residual),
        ("ReLU between the two layers is missing", type("Linear", (Expert,), {
            "forward": lambda self, x: self.net[2](self.net[0](x))})),
        ("after the last layer", type("After", (Expert,), {"forward": lambda self, x: self.net(x).relu()})),
        ("GELU", net(lambda: nn.Linear(64, 32), nn.GELU, lambda: nn.Linear(32, 64))),
        ("look at the widths", net(lambda: nn.Linear(64, 64), nn.ReLU, lambda: nn.Linear(64, 64))),
        ("no method called `forward`", Misspelt),
        ("bias is missing", net(lambda: nn.Linear(64, 32, bias=False), nn.ReLU, lambda: nn.Linear(32, 64))),
        ("parameters do not fit", net(lambda: nn.Linear(64, 32), lambda: nn.Linear(32, 64))),
    ],
    "expert_bank": [
        ("first expert's weights", bank_of(lambda i: 0)),
        ("another order", bank_of(lambda i: 19 - i)),
        ("one expert after another (40 products of matrices)",
         lambda experts, x: torch.stack([e(x[:, i]) for i, e in enumerate(experts)], 1)),
        ("cut the way back", lambda experts, x: expert_bank(experts, x).detach()),
        ("len(experts)", lambda experts, x: expert_bank([experts[i] for i in range(20)], x)),
        (".mT does", lambda experts, x: mixed_bank(experts, x)),
        ("stacked weights (20, out, in) go in as .mT",
         lambda experts, x: x @ torch.stack([e.net[0].weight for e in experts])),
        ("added up", lambda experts, x: expert_bank(experts, x).sum(1)),
        ("Both biases", lambda experts, x: (x @ torch.stack([e.net[0].weight for e in experts]).mT).relu()
         @ torch.stack([e.net[2].weight for e in experts]).mT),
    ],
    "class_home": [
        ("column by column",
         lambda m: class_shares(m).reshape(-1, m.shape[1] // 16, 19).swapaxes(0, 1).reshape(-1, 19)),
        ("not patches", lambda m: (m.reshape(-1, 256, 1) == np.arange(19)).mean(axis=1)),
        ("numbers of pixels", lambda m: class_shares(m) * 256),
        ("over the tokens, not over the classes", lambda m: class_shares(m) / class_shares(m).sum(0).clip(1e-9)),
        ("largest class", lambda m: np.eye(19)[class_shares(m).argmax(1)]),
        ("background is missing", lambda m: class_shares(m)[:, 1:]),
        ("one latent", lambda m: class_shares(m, 8)),
        ("expected a numpy array", lambda m: torch.from_numpy(class_shares(m))),
        ("ends at 255", lambda m: (class_shares(m) * 256).astype(np.uint8) / 256),
    ],
    "train_bank": [
        ("pile up", trained(clear=False)),
        ("as they were before", trained(step=False)),
        ("4 of 5 experts are not trained", trained(who=slice(1))),
        ("You average the experts' answers", trained(lambda answers: answers.mean(dim=1))),
        ("You sum the squares", trained(loss_of=lambda off: off.square().sum())),
        ("Each expert alone", each_alone),
        ("absolute errors", trained(loss_of=lambda off: off.abs().mean())),
        ("There is a root", trained(loss_of=lambda off: off.square().mean().sqrt())),
        ("loss has grown", trained(loss_of=lambda off: -off.square().mean())),
        ("hardly fallen", trained(rate=1e-5)),
        ("keep loss.item()", trained(keep=lambda loss: loss)),
        ("`return losses`", silent_loop),
        ("one loss for each of the 80 steps", lambda *given: train_bank(*given)[-1]),
        ("add the experts' answers up", trained(lambda answers: answers)),
    ],
    "never_seen": [
        ("No class at all?", lambda lessons, mask: []),
        ("not in the new mask: an expert", absent),
        ("Missing in one lesson", missing_once),
        ("wrong way round", turned_round),
        ("1 more", largest),
        ("small or rare is not unseen", small),
        ("every class of the new mask", lambda lessons, mask: names_in(mask)),
        ("list of names", lambda lessons, mask: [14, 16]),
        ("no class 'hats'", lambda lessons, mask: ["hats"]),
    ],
}  # fmt: skip

#: Exercise -> a right answer that is not the package's.
OTHER_WAYS = {
    "expert": OtherExpert,
    "expert_bank": vmapped,
    "class_home": counted_by_hand,
    "train_bank": by_minibatches,
    "never_seen": by_counting,
}
