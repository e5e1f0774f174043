"""Exercises of notebook 03, from words to tokens: solutions, and checkers that raise `Wrong` with hints."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from typing import Any
from zlib import crc32

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from workbook.checking import Exercise, Wrong
from workbook.exercises.judging import compare

NOTEBOOK = "03_from_words_to_tokens"
#: What a probe of the exercise has to reach on captions that it was not trained on.
ACCURACY = 0.8
#: How far a predicted share may lie from the measured one, so that 'often' and 'nearly always' are told apart.
#: What a bag of words does can be worked out.
TOLERANCE, EXACT = 0.15, 0.05


# --- solutions ---------------------------------------------------------------------------------------------------


def nearest(query: Tensor, bank: Tensor, k: int) -> Tensor:
    """query (D,), bank (n, D) -> the places (k,) in the bank of the k vectors of largest cosine, best first."""
    cosines = F.normalize(bank, dim=1) @ F.normalize(query, dim=0)
    return cosines.topk(k).indices


def predict_padding() -> dict[str, str]:
    """What becomes of text states where padding changes, as section 4 measures it."""
    return {
        "CLIP's vector, padding cut off": "same",  # a state sees what stands before it, and padding stands behind
        "CLIP's vector, padding put in front": "alike",  # the first end token is now a padding token that saw no word
        "T5's words, padding cut off": "moved",  # they had attended to the padding
        "T5's words, padding doubled": "moved",
        "T5's words, padding cut off, masked before": "same",  # masked padding was not attended to
    }


def leave_one_out(words: Sequence[str], embed: Callable[[list[str]], Tensor]) -> Tensor:
    """How far the sentence's vector moves if word i is left out: words, embed (n texts -> (n, D)) -> (len(words),)."""
    whole = embed([" ".join(words)])
    without = embed([" ".join([*words[:i], *words[i + 1 :]]) for i in range(len(words))])
    return (without - whole).norm(dim=1)


def train_probe(features: Tensor, labels: Tensor, values: int) -> tuple[Callable[[Tensor], Tensor], list[float]]:
    """Train a linear probe: features (n, D), labels (n,) of 0..values-1 or -1 for 'not said'.

    Returns:
        a function from features (m, D) to scores (m, values), and the loss of each step.
    """
    said = labels >= 0
    mean, deviation = features[said].mean(dim=0), features[said].std(dim=0).clamp(min=0.01)
    layer = nn.Linear(features.shape[1], values)
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.05)
    losses = []
    for _ in range(150):
        loss = F.cross_entropy(layer((features[said] - mean) / deviation), labels[said])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    layer.requires_grad_(False)
    return lambda asked: layer((asked - mean) / deviation), losses


def predict_colours() -> dict[str, float]:
    """The share of right answers about swapped colours of hair and hat, as section 9 measures it."""
    return {
        "bag of words": 0.5,  # both sentences of a pair give the same answer: one of them is right
        "CLIP's vector": 0.7,
        "T5's sequence": 0.95,
        "T5's sequence, words shuffled": 0.5,  # without their order the words do not say whose colour is whose
    }


# --- checkers ----------------------------------------------------------------------------------------------------


def check_nearest_captions(function: Callable[..., Any]) -> None:
    """query (D,), bank (n, D), k -> the k places in the bank of largest cosine, best first."""
    query, k = torch.randn(6), 3
    bank = torch.randn(9, 6) * torch.logspace(-1, 1, 9)[:, None]  # of unlike lengths, so that lengths show
    cosines = F.normalize(bank, dim=1) @ F.normalize(query, dim=0)
    order, unscaled = cosines.argsort(descending=True), bank @ query
    mistakes = {
        "These are the largest dot products: a long vector wins by its length. Divide by both lengths.": unscaled,
        "These are the smallest distances: they, too, depend on lengths. Use the cosine.": -(bank - query).norm(dim=1),
        "These are the least similar ones: the largest cosine comes first.": -cosines,
        "Your lengths are those of the bank's columns; each row is a caption, so divide by the length of a row.": (
            F.normalize(bank, dim=0) @ query
        ),
        "The sign of a cosine matters: -1 is the opposite, not the same.": cosines.abs(),
    }
    places = {hint: score.topk(k).indices for hint, score in mistakes.items()}
    places["These are the cosines themselves; expected the places in the bank where they stand."] = cosines.topk(k)[0]
    places["These are all places; expected the first k."] = order
    places["These are the k best in reverse order; the best comes first."] = order[:k].flip(0)
    places["The places are sorted by number; sort by cosine, the best first."] = order[:k].sort()[0]
    compare(function(query.clone(), bank.clone(), k), order[:k], places, "k places in the bank")
    compare(function(query.clone(), bank.clone(), 5), order[:5], {}, "k places", "It fails for k = 5, not for k = 3: ")


def _predicted(predict: Callable[[], Any], names: Mapping[str, Any]) -> dict[str, Any]:
    """What was predicted for each name, all filled in.

    Raises:
        NotImplementedError: nothing was filled in.
        Wrong: it is no dict with these names, or only a part was filled in.
    """
    found = predict()
    if not isinstance(found, Mapping):
        raise Wrong(f"It returned {type(found).__name__}, expected a dict with your prediction for each of the names.")
    if missing := [name for name in names if name not in found]:
        raise Wrong(f"There is no prediction for “{missing[0]}”: keep the names as they stand in the stub.")
    empty = [name for name in names if found[name] is None or found[name] is ...]
    if len(empty) == len(names):
        raise NotImplementedError
    if empty:
        raise Wrong(f"Nothing is predicted for {', '.join(f'“{name}”' for name in empty)}.")
    return dict(found)


def check_padding(predict: Callable[[], Any]) -> None:
    """For each change of the padding: "same", "moved" or "alike"."""
    measured = predict_padding()
    said = _predicted(predict, measured)
    words = ("same", "moved", "alike")
    if other := [value for value in said.values() if value not in words]:
        raise Wrong(f"Found {other[0]!r}; expected one of the words {', '.join(map(repr, words))}.")
    why = {
        "CLIP's vector, padding cut off": "It is the state at the first end token. CLIP looks only backwards: what "
        "can this state see of the padding?",
        "CLIP's vector, padding put in front": "CLIP pads with the end token, and the vector is taken at the first "
        "end token. Which one is the first now, and what has it seen?",
        "T5's words, padding cut off": "Nobody told T5 that padding is none of its business: each word attends to "
        "all 48 places, forwards and backwards, so some of its attention went there. The words still attend to each "
        "other.",
        "T5's words, padding doubled": "Twice the padding draws more attention away from the words, but not all.",
        "T5's words, padding cut off, masked before": "With a mask the padding got no attention before it was cut.",
    }
    if wrong := [name for name in measured if said[name] != measured[name]]:
        raise Wrong(*(f"{name}: not {said[name]!r}. {why[name]}" for name in wrong))


def _toy_embed(texts: list[str]) -> Tensor:
    """A stand-in for a text encoder that hears every word and its place: n texts -> (n, 8)."""
    if isinstance(texts, str):
        raise Wrong("embed got a text, expected a list of texts: embed([text]).")
    rows = []
    for text in texts:
        row = torch.zeros(8)
        for place, word in enumerate(text.split()):
            chance = torch.Generator().manual_seed(crc32(word.encode()))
            row += (1 + place / 10) * torch.randn(8, generator=chance)
        rows.append(row)
    return torch.stack(rows)


def check_leave_one_out(function: Callable[..., Any]) -> None:
    """words, embed -> the distance (len(words),) by which the vector moves if word i is left out."""
    words = ["a", "man", "with", "a", "hat", "and", "a", "red", "beard"]
    given, whole = list(words), _toy_embed([" ".join(words)])

    def moved(texts: list[list[str]]) -> Tensor:
        return _toy_embed([" ".join(text) for text in texts]) - whole

    def first_gone(word: str) -> list[str]:
        i = words.index(word)
        return words[:i] + words[i + 1 :]

    change = moved([words[:i] + words[i + 1 :] for i in range(len(words))])
    without = change + whole
    mistakes = {
        "All words that are spelt alike are gone at once: there are three 'a' here. Leave out place i alone.": moved(
            [[other for other in words if other != word] for word in words]
        ).norm(dim=1),
        "The first word of the same spelling is gone, not word i: `remove` and `replace` search from the left.": moved(
            [first_gone(word) for word in words]
        ).norm(dim=1),
        "The words are left out one after the other and stay out: start from the whole sentence each time.": moved(
            [words[i + 1 :] for i in range(len(words))]
        ).norm(dim=1),
        "Everything from word i on is gone; only word i should be.": moved([words[:i] for i in range(len(words))]).norm(
            dim=1
        ),
        "Only word i is kept; expected the others without it.": moved([[word] for word in words]).norm(dim=1),
        "These are squared distances: the root is missing.": change.square().sum(dim=1),
        "These are 1 - cosine; expected the distance, the length of the difference.": 1
        - F.cosine_similarity(without, whole),
        "These are cosines: a large one means that the word matters little. Expected the distance.": (
            F.cosine_similarity(without, whole)
        ),
        "These are differences of lengths; expected the length of the difference.": (
            without.norm(dim=1) - whole.norm(dim=1)
        ).abs(),
        "Each distance is to the sentence without the first word; expected to the whole sentence.": (
            without - without[0]
        ).norm(dim=1),
        "These are the differences themselves; expected their lengths, one number for each word.": change,
    }
    found = function(given, _toy_embed)
    if isinstance(found, (list, tuple)):
        found = torch.tensor([float(value) for value in found])
    compare(found, change.norm(dim=1), mistakes, "one distance for each word")
    if given != words:
        raise Wrong(f"Your function changes the list that it is given: {len(words) - len(given)} words are gone.")


def _probe_data() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Features (n, D) and labels (n,), -1 for 'not said', to train on; and as many to ask, all of them said.

    As a text encoder's vectors: off centre, of unlike scales, and one number never changes.
    """
    n, width, values = 1500, 16, 5
    hidden, towards = torch.randn(2 * n, width), torch.randn(width, values)
    hidden[:, 0], towards[0] = 0, 0
    labels = (hidden @ towards + 0.2 * torch.randn(2 * n, values)).argmax(dim=1)
    features = 3 + hidden * torch.logspace(-1.3, 0.3, width)
    silent = torch.rand(n) < 0.5
    return features[:n], labels[:n].masked_fill(silent, -1), features[n:], labels[n:]


def check_probe(function: Callable[..., Any]) -> None:
    """features (n, D), labels (n,), -1 for 'not said', values -> (features (m, D) -> scores (m, values)), losses."""
    features, labels, asked, truth = data = _probe_data()
    said = labels >= 0
    with torch.enable_grad():
        probe, losses = _parts(_train(function, features, labels))
        _form(probe, asked)
        right = probe(asked.clone()).argmax(dim=1) == truth
        on_training = probe(features[said].clone()).detach()
        with _spoilt_gradients():
            again = _train(function, features, labels)[0](asked.clone()).detach()
    if not again.isfinite().all():
        raise Wrong("Gradients of earlier steps are still there in the next one and add up: zero_grad() in each step.")
    lost, doubly = (F.cross_entropy(x, labels[said]).item() for x in (on_training, on_training.softmax(dim=1)))
    if abs(losses[-1] - doubly) < 0.05 < abs(losses[-1] - lost):
        raise Wrong("cross_entropy takes scores and does the softmax itself; here it got probabilities.")
    if (accuracy := right.float().mean().item()) < ACCURACY:
        _explain(function, data, probe, losses, accuracy)


def _train(function: Callable[..., Any], features: Tensor, labels: Tensor) -> Any:
    given, values = (features.clone(), labels.clone()), int(labels.max()) + 1
    torch.manual_seed(0)
    try:
        answer = function(*given, values)
    except IndexError as error:
        if "out of bounds" not in str(error):
            raise
        raise Wrong("Labels of -1 reached the loss: the caption does not say it. Train on the others.") from None
    if not (torch.equal(given[0], features) and torch.equal(given[1], labels)):
        raise Wrong("Your function changes the features or labels that it is given: the next probe would be misled.")
    return answer


def _parts(answer: Any) -> tuple[Callable[..., Any], list[float]]:
    """Probe and losses, if it is these two that were returned."""
    if answer is None:
        raise Wrong("It returned None: is there a `return` at the end?")
    if not isinstance(answer, tuple) or len(answer) != 2 or not callable(answer[0]):
        raise Wrong("Expected two things to come back: the probe, which can be called, and the list of losses.")
    probe, losses = answer
    if not isinstance(losses, Sequence) or not losses or not all(isinstance(loss, Real) for loss in losses):
        raise Wrong("The losses should be a list of plain numbers, one for each step: losses.append(loss.item()).")
    return probe, [float(loss) for loss in losses]


def _form(probe: Callable[..., Any], asked: Tensor) -> None:
    """The probe gives scores, linear in what it is asked, whatever else is asked with it."""
    scores = probe(asked.clone()).detach()
    if scores.ndim == 1:
        raise Wrong("The probe gives one number for each caption, its choice; expected a score for each value.")
    if scores.shape != (len(asked), 5):
        raise Wrong(
            f"The probe gives the shape {tuple(scores.shape)}, expected {(len(asked), 5)}: a score for each value."
        )
    if scores.isnan().any():
        raise Wrong("The scores are NaN. One feature never changes: its deviation is 0, and you divide by it.")
    total = scores.sum(dim=1)
    if scores.min() >= 0 and torch.allclose(total, torch.ones_like(total), atol=1e-4):
        raise Wrong(
            "The probe gives probabilities; expected scores, as the linear layer gives them, before the softmax."
        )
    two = probe(asked[:2].clone()).detach()
    if not torch.allclose(two, scores[:2], rtol=1e-2, atol=1e-2):
        raise Wrong(
            "Asked about two captions alone, the probe answers otherwise than among others: keep mean and deviation of "
            "the training features, do not take those of what is asked."
        )
    middle, size = probe((asked[:50] + asked[50:100]) / 2).detach(), scores.abs().max().clamp(min=1)
    if (middle - (scores[:50] + scores[50:100]) / 2).abs().max() > 1e-3 * size:
        raise Wrong(
            "The probe is not linear: a network with layers of its own could work out what the vector does not show."
        )


def _explain(
    function: Callable[..., Any],
    data: Sequence[Tensor],
    probe: Callable[..., Any],
    losses: list[float],
    accuracy: float,
) -> None:
    """Why a probe is right too seldom.

    Raises:
        Wrong: always.
    """
    features, labels, asked, truth = data
    said = labels >= 0
    mean, deviation = features[said].mean(dim=0), features[said].std(dim=0).clamp(min=1e-6)
    found = f"On captions that it has not seen it is right in {accuracy:.0%}, expected {ACCURACY:.0%} or more. "
    choice = probe(asked.clone()).argmax(dim=1)
    standard = probe((asked - mean) / deviation).argmax(dim=1)
    if (standard == truth).float().mean() > ACCURACY:
        raise Wrong(
            found + "It was trained on standardised features and is asked about raw ones: do it in both places."
        )
    if (choice == 0).float().mean() > 1.5 * (truth == 0).float().mean() and len(losses) > 50 and losses[-1] < losses[0]:
        raise Wrong(found + "It answers 0 far too often: are captions that do not say it (-1) counted as value 0?")
    if losses[-1] > 0.98 * losses[0] and max(losses) - min(losses) < 0.1:
        raise Wrong(found + "The loss does not fall at all: each step needs loss.backward() and optimizer.step().")
    if losses[-1] > losses[0]:
        raise Wrong(
            found + f"The loss rises from {losses[0]:.1f} to {losses[-1]:.1f}: a step goes against the gradient, and "
            "not too far."
        )
    with torch.enable_grad():
        _, other = _parts(_train(function, 5 + 7 * features, labels))
    if len(other) != len(losses) or abs(other[-1] - losses[-1]) > 0.02:
        raise Wrong(
            found
            + "The features are used as they are, off centre and of unlike scales: subtract their mean and divide "
            "by their deviation first."
        )
    raise Wrong(found + f"The loss still falls when you stop, after {len(losses)} steps: more of them, or larger ones.")


class _spoilt_gradients:
    """After each step of an optimizer its gradients become NaN: whoever clears them does not notice."""

    def __enter__(self) -> None:
        def spoil(optimizer: Any, args: Any, kwargs: Any) -> None:
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    if parameter.grad is not None:
                        parameter.grad.fill_(torch.nan)

        self.hook = register_optimizer_step_post_hook(spoil)

    def __exit__(self, *_: object) -> None:
        self.hook.remove()


def check_whose_colour(predict: Callable[[], Any]) -> None:
    """For each reader: the share (0 to 1) of swapped colours that it gives to the right owner."""
    measured = predict_colours()
    said = _predicted(predict, measured)
    if other := [value for value in said.values() if not isinstance(value, Real)]:
        raise Wrong(f"Found {other[0]!r}; expected a number between 0 and 1.")
    if outside := [value for value in said.values() if not 0 <= value <= 1]:
        raise Wrong(f"Found {outside[0]}; a share lies between 0 and 1, half of them is 0.5.")
    bag, shuffled = "bag of words", "T5's sequence, words shuffled"
    why = {
        (bag, True): "It gets the same bag for both sentences of a pair, so it gives both the same answer. How often "
        "can that be right?",
        (bag, False): "It knows nothing about owners, but it is made to choose one of two colours. Who always gives "
        "the same answer to both sentences is right once.",
        ("CLIP's vector", True): "One vector has to hold everything, and this encoder learned from captions in which "
        "hair is black, brown, blond, red or gray: green hair is news to it.",
        ("CLIP's vector", False): "Two vectors of cosine 0.999 are still two vectors. What differs is small, but a "
        "probe looks for just that, and hats it has met in every colour.",
        ("T5's sequence", False): "Section 3: the vector at 'hat.' moves when the colours are swapped, though the word "
        "stays. What the probe needs is in there.",
        (shuffled, True): "The words are shuffled before T5 reads them, and both sentences of a pair have the same "
        "words: what is left to tell them apart?",
        (shuffled, False): "Shuffled words tell T5 nothing about owners, but the probe is made to choose one of two "
        "colours. How often is a guess right?",
    }  # fmt: skip
    wrong = [n for n, share in measured.items() if abs(said[n] - share) > (EXACT if n == bag else TOLERANCE)]
    if wrong:
        raise Wrong(
            *(f"{n}: measured is {'less' if said[n] > measured[n] else 'more'} than your {float(said[n]):.2f}. "
              f"{why[n, bool(said[n] > measured[n])]}" for n in wrong)
        )  # fmt: skip


EXERCISES = (
    Exercise("nearest_captions", NOTEBOOK, 1, 10, check_nearest_captions, (nearest,), (
        "The cosine is the dot product of two vectors, each divided by its own length.",
        "Bring the query and every row of the bank to length 1 first; then one product gives all cosines.",
        "bank / bank.norm(dim=1, keepdim=True) times query / query.norm(); topk(k) gives values and places: .indices.",
    )),
    Exercise("padding", NOTEBOOK, 2, 10, check_padding, (predict_padding,), (
        "Ask for each: which places can the state that is taken see, and is padding among them?",
        "CLIP sees backwards only, T5 in both directions; CLIP's vector stands at the first end token, and its padding "
        "is made of end tokens.",
        "What cannot be seen changes nothing (same). What was seen and goes away moves states. A state that sees no "
        "word is the same for every caption (alike).",
    )),
    Exercise("leave_one_out", NOTEBOOK, 2, 15, check_leave_one_out, (leave_one_out,), (
        "As many shorter sentences as there are words, each compared with the whole one.",
        "words[:i] + words[i + 1:] is the list without word i; ' '.join makes a text of it; embed takes a list.",
        "(embed(shorter) - embed([whole])).norm(dim=1): the whole sentence's single row serves all of them.",
    )),
    Exercise("probe", NOTEBOOK, 2, 25, check_probe, (train_probe,), (
        "Section 8 has every part by hand for one step: choose the rows, standardise, scores, loss, gradient, step.",
        "Before the loop: rows with labels >= 0, their mean and deviation, nn.Linear, an optimizer. In it: scores, "
        "cross_entropy, zero_grad, backward, step, loss.item(). After it: a function that standardises and scores.",
        "torch.optim.Adam(layer.parameters(), lr=0.05) and 150 steps on all rows at once suffice; "
        "std(dim=0).clamp(min=0.01) keeps a feature that never changes; return (lambda x: layer((x - mean) / "
        "deviation)), losses.",
    )),
    Exercise("whose_colour", NOTEBOOK, 2, 10, check_whose_colour, (predict_colours,), (
        "0.5 is what one reaches by guessing between two colours; 1 is never to mix them up.",
        "Which readers get something different for the two sentences of a pair? Sections 2, 3 and 7 have shown it.",
        "A bag is the same for both sentences: exactly one half. A vector that differs a little: in between. Words "
        "in any order: nothing says any more whose colour is whose, and the probe guesses.",
    )),
)  # fmt: skip
