"""Answers to `workbook.exercises.words`: wrong ones with words of their hints, right ones by another way."""

import torch
import torch.nn.functional as F
from torch import nn

from workbook.exercises.words import predict_colours, predict_padding

# --- nearest_captions ---------------------------------------------------------------------------------------------


def cosines(query, bank):
    return bank @ query / (bank.norm(dim=1) * query.norm())


def best(values, k):
    return values.topk(k).indices


def nearest_in_a_loop(query, bank, k):
    length = lambda x: sum(float(number) ** 2 for number in x) ** 0.5  # noqa: E731
    scored = [(-float(query @ row) / (length(query) * length(row)), place) for place, row in enumerate(bank)]
    return [place for _, place in sorted(scored)[:k]]


# --- predictions --------------------------------------------------------------------------------------------------


def padding_but(**changes):
    """The right predictions, but for the changes whose names begin so."""
    names = {
        "cut_clip": "CLIP's vector, padding cut off",
        "front": "CLIP's vector, padding put in front",
        "cut": "T5's words, padding cut off",
        "doubled": "T5's words, padding doubled",
        "masked": "T5's words, padding cut off, masked before",
    }
    return lambda: {**predict_padding(), **{names[key]: value for key, value in changes.items()}}


def colours_but(**changes):
    names = {
        "bag": "bag of words",
        "clip": "CLIP's vector",
        "t5": "T5's sequence",
        "mixed": "T5's sequence, words shuffled",
    }
    return lambda: {**predict_colours(), **{names[key]: value for key, value in changes.items()}}


# --- leave_one_out ------------------------------------------------------------------------------------------------


def moved(shorter, length=lambda change: change.norm(dim=1)):
    """An answer by what it makes of words and i, and of the change of each vector."""

    def answer(words, embed):
        texts = [" ".join(shorter(list(words), i)) for i in range(len(words))]
        return length(embed(texts) - embed([" ".join(words)]))

    return answer


def without(words, i):
    return words[:i] + words[i + 1 :]


def remove(words, i):
    words.remove(words[i])
    return words


def pops(words, embed):
    """Leaves the words out of the caller's own list."""
    found, whole = moved(without)(words, embed), len(words)
    while len(words) > whole - 2:
        words.pop()
    return found


def one_by_one(words, embed):
    whole = embed([" ".join(words)])[0]
    return [float((embed([" ".join(without(words, i))])[0] - whole).square().sum().sqrt()) for i in range(len(words))]


# --- probe --------------------------------------------------------------------------------------------------------


def probe_with(
    steps=150, rate=0.05, scale=True, asked_scale=True, clear=True, step=True, keep=lambda y: y >= 0, own=False,
    inside=lambda s: s, out=lambda s: s, eps=0.01, layers=nn.Linear, result=lambda probe, losses: (probe, losses),
    loss_of=lambda loss: loss.item(), change=False, uphill=False,
):  # fmt: skip
    def answer(features, labels, values):
        if change:
            features -= features.mean(dim=0)
        said = keep(labels)
        x, y = features[said], labels[said].clamp(min=0 if keep(torch.tensor(-1)) else -1)
        mean, deviation = (x.mean(dim=0), x.std(dim=0) + eps) if scale else (0, 1)
        layer = layers(x.shape[1], values)
        optimizer, losses = torch.optim.Adam(layer.parameters(), lr=rate, maximize=uphill), []
        for _ in range(steps):
            loss = F.cross_entropy(inside(layer((x - mean) / deviation)), y)
            if clear:
                optimizer.zero_grad()
            loss.backward()
            if step:
                optimizer.step()
            losses.append(loss_of(loss))

        def probe(asked):
            if own:
                return layer((asked - asked.mean(dim=0)) / (asked.std(dim=0) + eps))
            return out(layer((asked - mean) / deviation if asked_scale else asked))

        return result(probe, losses)

    return answer


def deep(width, values):
    return nn.Sequential(nn.Linear(width, 64), nn.ReLU(), nn.Linear(64, values))


def probe_by_hand(features, labels, values):
    """Without nn.Linear and without an optimizer, on random parts of the captions."""
    x, y = features[labels != -1], labels[labels != -1]
    mean, deviation = x.mean(0), x.var(0).add(1e-3).sqrt()
    x = (x - mean) / deviation
    weights, bias, losses = torch.zeros(x.shape[1], values, requires_grad=True), torch.zeros(values), []
    bias.requires_grad_(True)
    for _ in range(400):
        rows = torch.randint(len(x), (128,))
        loss = -(x[rows] @ weights + bias).log_softmax(1)[torch.arange(128), y[rows]].mean()
        gradients = torch.autograd.grad(loss, (weights, bias))
        with torch.no_grad():
            for parameter, gradient in zip((weights, bias), gradients, strict=True):
                parameter -= 0.5 * gradient
        losses.append(loss.item())
    return lambda asked: (asked - mean) / deviation @ weights.detach() + bias.detach(), losses


#: Exercise -> (words of the hint, wrong answer).
WRONG = {
    "nearest_captions": [
        ("wins by its length", lambda q, bank, k: best(bank @ q, k)),
        ("smallest distances", lambda q, bank, k: best(-torch.cdist(q[None], bank)[0], k)),
        ("least similar", lambda q, bank, k: cosines(q, bank).topk(k, largest=False).indices),
        ("the bank's columns", lambda q, bank, k: best(bank / bank.norm(dim=0) @ q, k)),
        ("The sign of a cosine", lambda q, bank, k: best(cosines(q, bank).abs(), k)),
        ("the cosines themselves", lambda q, bank, k: cosines(q, bank).topk(k).values),
        ("expected the first k", lambda q, bank, k: cosines(q, bank).argsort(descending=True)),
        ("in reverse order", lambda q, bank, k: cosines(q, bank).argsort()[-k:]),
        ("fails for k = 5", lambda q, bank, k: best(cosines(q, bank), 3)),
    ],
    "padding": [
        ("CLIP looks only backwards", padding_but(cut_clip="moved")),
        ("Which one is the first now", padding_but(front="moved")),
        ("T5's words, padding cut off: not 'same'", padding_but(cut="same")),
        ("T5's words, padding cut off: not 'alike'", padding_but(cut="alike")),
        ("draws more attention", padding_but(doubled="same")),
        ("no attention before it was cut", padding_but(masked="moved")),
        ("expected one of the words", padding_but(cut="a little")),
        ("Nothing is predicted for “T5's words, padding doubled”", padding_but(doubled=...)),
        ("keep the names", lambda: {"CLIP": "same"}),
        ("returned str", lambda: "same"),
    ],
    "leave_one_out": [
        ("three 'a' here", moved(lambda words, i: [word for word in words if word != words[i]])),
        ("search from the left", moved(remove)),
        ("stay out", moved(lambda words, i: words[i + 1 :])),
        ("from word i on", moved(lambda words, i: words[:i])),
        ("Only word i is kept", moved(lambda words, i: [words[i]])),
        ("the root is missing", moved(without, lambda change: change.square().sum(dim=1))),
        ("the differences themselves", moved(without, lambda change: change)),
        ("1 - cosine", lambda words, embed: 1 - F.cosine_similarity(
            embed([" ".join(without(words, i)) for i in range(len(words))]), embed([" ".join(words)]))),
        ("expected a list of texts", lambda words, embed: embed(" ".join(words))),
        ("changes the list", pops),
    ],
    "probe": [
        ("reached the loss", probe_with(keep=lambda y: y > -5 if y.ndim else torch.tensor(False))),
        ("counted as value 0", probe_with(keep=lambda y: y > -5)),
        ("off centre", probe_with(scale=False)),
        ("does not fall at all", probe_with(step=False)),
        ("zero_grad() in each step", probe_with(clear=False, rate=0.005)),
        ("goes against the gradient", probe_with(uphill=True)),
        ("do it in both places", probe_with(asked_scale=False)),
        ("about two captions alone", probe_with(own=True)),
        ("still falls", probe_with(steps=8)),
        ("does the softmax itself", probe_with(inside=lambda s: s.softmax(dim=1))),
        ("gives probabilities", probe_with(out=lambda s: s.softmax(dim=1))),
        ("its choice", probe_with(out=lambda s: s.argmax(dim=1))),
        ("not linear", probe_with(layers=deep)),
        ("you divide by it", probe_with(eps=0)),
        ("Expected two things", probe_with(result=lambda probe, losses: probe)),
        ("plain numbers", probe_with(loss_of=lambda loss: loss)),
        ("changes the features", probe_with(change=True)),
    ],
    "whose_colour": [
        ("How often can that be right", colours_but(bag=0.9)),
        ("is right once", colours_but(bag=0.0)),
        ("green hair is news", colours_but(clip=1.0)),
        ("looks for just that", colours_but(clip=0.5)),
        ("the vector at 'hat.' moves", colours_but(t5=0.6)),
        ("what is left to tell them apart", colours_but(mixed=0.95)),
        ("is a guess right", colours_but(mixed=0.0)),
        ("half of them is 0.5", colours_but(bag=50)),
        ("expected a number", colours_but(clip="often")),
        ("Nothing is predicted for “bag of words”", colours_but(bag=None)),
    ],
}  # fmt: skip

#: Exercise -> a right answer that is not the package's.
OTHER_WAYS = {
    "nearest_captions": nearest_in_a_loop,
    "padding": lambda: dict(predict_padding()),
    "leave_one_out": one_by_one,
    "probe": probe_by_hand,
    "whose_colour": colours_but(clip=0.8, t5=1.0, mixed=0.6),
}
