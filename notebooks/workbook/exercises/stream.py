"""Exercises of notebook 05, a second stream: solutions, and checkers that raise `Wrong` with hints.

Besides them toy pictures with their masks, on which the notebook trains two small transformers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from workbook.checking import Exercise, Wrong
from workbook.exercises.judging import advice, check_choice, compare, same

NOTEBOOK = "05_a_second_stream"

VARIANTS = ("union", "independent", "separate")
#: Key and value of a stream, (B, L, heads, head) each.
KeyValue = tuple[Tensor, Tensor]


# --- toy pictures ------------------------------------------------------------------------------------------------


def toy_pictures(count: int) -> tuple[Tensor, Tensor]:
    """Pictures of 4 x 4 tokens, each a colour: a light rectangle on dark ground -> colours (B, 16, 3) in [-1, 1], and
    where the rectangle is (B, 16), 1 or 0."""
    low, high = torch.randint(0, 4, (count, 2, 2)).sort(dim=1).values.unbind(dim=1)  # of row and column
    place = torch.arange(4)
    rows, columns = ((place >= low[:, i, None]) & (place <= high[:, i, None]) for i in (0, 1))
    mask = (rows[:, :, None] & columns[:, None, :]).flatten(1).float()
    light, dark = 0.2 + 0.8 * torch.rand(count, 1, 3), -0.2 - 0.8 * torch.rand(count, 1, 3)
    return torch.where(mask[:, :, None] > 0, light, dark), mask


# --- LoRA for the condition tokens alone -------------------------------------------------------------------------


def stream_linear(weight: Tensor, bias: Tensor, a: Tensor, b: Tensor, x: Tensor, num_condition: int) -> Tensor:
    """A linear layer for all tokens, with LoRA for the condition tokens alone, which come last in x.

    weight (out, in), bias (out,), a (r, in), b (out, r), x (B, L, in) -> (B, L, out).
    """
    out = F.linear(x, weight, bias)
    first = x.shape[1] - num_condition
    return torch.cat([out[:, :first], out[:, first:] + x[:, first:] @ a.T @ b.T], dim=1)


def check_stream_linear(function: Callable[..., Any]) -> None:
    """weight, bias, a, b, x (B, L, in), num_condition -> (B, L, out)."""
    weight, bias, a, b = torch.randn(5, 7), torch.randn(5), torch.randn(2, 7), torch.randn(5, 2)
    x, count = torch.randn(3, 10, 7), 4
    plain, low = F.linear(x, weight, bias), x @ a.T @ b.T
    without_bias = F.linear(x, weight)

    def where(first: int, last: int, added: Tensor = low, base: Tensor = plain) -> Tensor:
        on = torch.zeros(10, 1)
        on[first:last] = 1
        return base + on * added

    condition_alone = where(6, 10)
    replaced = torch.cat([plain[:, :6], low[:, 6:]], dim=1)
    mistakes = {
        "LoRA acts on all tokens; text and image have to pass W as it was trained.": where(0, 10),
        "LoRA acts on text and image and not on the condition: it is the other way round.": where(0, 6),
        "LoRA acts on the first tokens of x; the condition tokens are its last.": where(0, 4),
        "LoRA acts on nothing: where is B A x?": plain,
        "The condition tokens get B A x alone; LoRA is added to W x.": replaced,
        "The bias is missing: the frozen layer has one.": where(6, 10, base=without_bias),
        "The bias is added twice for condition tokens; LoRA has none.": where(6, 10, added=low + bias),
        "B A x is subtracted; it is added.": where(6, 10, added=-low),
        "B A x is divided by the rank; alpha equals the rank here, so the factor is 1.": where(6, 10, added=low / 2),
        "There is a nonlinearity between A and B; LoRA is linear.": where(6, 10, added=(x @ a.T).relu() @ b.T),
        "The condition's rows alone came back; text and image go on, too.": condition_alone[:, 6:],
    }
    given = [t.clone() for t in (weight, bias, a, b, x)]
    with advice("x is (B, L, in): x @ a.T is (B, L, r), and that @ b.T is (B, L, out)."):
        found = function(*given, count)
    if not all(torch.equal(one, other) for one, other in zip(given, (weight, bias, a, b, x), strict=True)):
        raise Wrong("A tensor that you were given has changed; the frozen weights stay frozen. Is there a +=?")
    compare(found, condition_alone, mistakes, "batch, all tokens, out")
    if not same(torch.as_tensor(function(*given, 0)), plain):
        raise Wrong("With no condition tokens LoRA acts on all of them: x[:, -0:] is all of x. Count from the front.")


# --- who fuses it, and what then --------------------------------------------------------------------------------


def fusing_fault() -> int:
    """The number of the explanation that fits: fused weights give text and image tokens B A x, too.

    Fused, W + B A is the only matrix left, and whoever passes the layer passes it, with or without a condition. The
    proof: without fusing, LoRA switched on for all tokens gives the very same numbers.
    """
    return 4


#: Why each of the other explanations fails, with what shows it.
_REFUTED = {
    1: "rounding makes errors near 1e-6; the difference that you measure is many thousand times as large",
    2: "fused weights give the condition tokens what they had before: compare the last rows, which are equal",
    3: "without a condition there is no stream that could be missed: the frozen layer never asked for one",
    5: "the product is in the right order; (A B) does not even have the shape of W",
    6: "the bias is the same vector before and after; LoRA has none",
}


def check_fusing_fault(answer: Any) -> None:
    """The number of the explanation that fits."""
    check_choice(answer, "explanation", fusing_fault(), _REFUTED, "does not hold")


# --- who sees whom -----------------------------------------------------------------------------------------------


def who_sees_whom(variant: str, num_rest: int, num_condition: int) -> Tensor:
    """bool (L, L), L = num_rest + num_condition: True where a query (row) may look at a key (column).

    The rest (text and image) comes first. union: all see all; independent: condition queries see the condition alone;
    separate: condition and rest do not see each other.
    """
    total = num_rest + num_condition
    condition = torch.arange(total) >= num_rest
    query, key = condition[:, None], condition[None, :]
    if variant == "union":
        return torch.ones(total, total, dtype=torch.bool)
    if variant == "independent":
        return ~query | key
    if variant == "separate":
        return query == key
    raise ValueError(f"variant={variant!r}: expected one of {', '.join(VARIANTS)}")


def check_who_sees_whom(function: Callable[..., Any]) -> None:
    """variant, num_rest, num_condition -> bool (L, L)."""
    rest, count = 5, 3
    size = rest + count
    zeros = torch.zeros(size, size, dtype=torch.bool)

    def with_parts(rest_rest: bool, rest_cond: bool, cond_rest: bool, cond_cond: bool) -> Tensor:
        out = zeros.clone()
        out[:rest, :rest], out[:rest, rest:] = rest_rest, rest_cond
        out[rest:, :rest], out[rest:, rest:] = cond_rest, cond_cond
        return out

    flipped = "True and False are exchanged: True means that the query may look."
    mistakes: dict[str, dict[str, Tensor]] = {
        "union": {
            flipped: zeros,
            "Nobody sees the condition; in a union everybody sees everybody.": with_parts(True, False, True, True),
            "Each token sees itself alone; in a union everybody sees everybody.": torch.eye(size, dtype=torch.bool),
            "These are the parts of 'separate'.": with_parts(True, False, False, True),
            "These are the parts of 'independent'.": with_parts(True, True, False, True),
            "A triangle is for tokens in an order of time; here everybody sees everybody.": zeros.logical_not().tril(),
        },
        "independent": {
            flipped: with_parts(False, False, True, False),
            "Rows and columns are exchanged: it is the condition that does not look; it is looked at. Rows are "
            "queries.": with_parts(True, False, True, True),
            "Text and image do not see the condition here, so it could not act: these are the parts of "
            "'separate'.": with_parts(True, False, False, True),
            "The condition sees the rest and not itself: it is the other way round.": with_parts(
                True, True, True, False
            ),
            "The condition sees nobody, not even itself: a softmax over nothing.": with_parts(True, True, False, False),
            "The condition still sees text and image: these are the parts of 'union'.": ~zeros,
        },
        "separate": {
            flipped: with_parts(False, True, True, False),
            "The rest still sees the condition: these are the parts of 'independent'.": with_parts(
                True, True, False, True
            ),
            "The condition still sees the rest; both directions are blocked.": with_parts(True, False, True, True),
            "Everybody still sees everybody: these are the parts of 'union'.": ~zeros,
            "The condition sees nobody, not even itself: a softmax over nothing.": with_parts(
                True, False, False, False
            ),
        },
    }
    for variant in VARIANTS:
        found = function(variant, rest, count)
        if isinstance(found, Tensor) and found.is_floating_point():
            raise Wrong(f"{variant}: The numbers are of type {found.dtype}; expected True and False.")
        shape = "queries (rows), keys (columns)"
        compare(found, who_sees_whom(variant, rest, count), mistakes[variant], shape, f"{variant}: ")


def influences() -> dict[str, tuple[bool, bool]]:
    """Variant -> does the velocity change with the mask; does the condition stream change with the noisy image."""
    return {"union": (True, True), "independent": (True, False), "separate": (False, False)}


def _measured() -> dict[str, tuple[bool, bool]]:
    """The same by two layers of attention on random tokens, with the one stream or the other changed."""
    rest, condition, other = torch.randn(6, 8), torch.randn(4, 8), torch.randn(6, 8)
    layers = torch.randn(2, 3, 8, 8) / 3

    def walk(rest: Tensor, condition: Tensor, variant: str) -> tuple[Tensor, Tensor]:
        x, seen = torch.cat([rest, condition]), who_sees_whom(variant, 6, 4)
        for query, key, value in layers:
            logits = ((x @ query) @ (x @ key).T / 8**0.5).masked_fill(~seen, -math.inf)
            x = x + logits.softmax(dim=-1) @ (x @ value)
        return x[:6], x[6:]

    found = {}
    for variant in VARIANTS:
        velocity, stream = walk(rest, condition, variant)
        found[variant] = (
            not same(walk(rest, other[:4], variant)[0], velocity),
            not same(walk(other, condition, variant)[1], stream),
        )
    return found


#: What each wrong half of a prediction overlooks.
_OVERLOOKED = {
    ("union", 0): "union: image queries look at the condition's keys, so a changed mask changes what they find.",
    ("union", 1): "union: condition queries look at the image's keys, so the stream changes with it, step by step.",
    ("independent", 0): "independent: only the condition's own view is closed; the image still looks at it.",
    ("independent", 1): "independent: condition queries see the condition alone, whose time is 0: nothing of the noisy "
    "image reaches them.",
    ("separate", 0): "separate: neither looks at the other, and attention is the only place where tokens meet; so the "
    "mask reaches nobody.",
    ("separate", 1): "separate: the condition does not look at the image either.",
}


def check_influences(answer: Any) -> None:
    """A prediction for each variant: (velocity changes with the mask, stream changes with the noisy image)."""
    found = answer() if callable(answer) else answer
    if not isinstance(found, Mapping) or set(found) != set(VARIANTS):
        raise Wrong(f"Expected a dictionary with the keys {', '.join(VARIANTS)}.")
    hints = []
    for variant, truth in _measured().items():
        try:
            pair = tuple(found[variant])
        except TypeError:
            pair = ()
        if len(pair) != 2 or not all(isinstance(one, bool | int) and one in (0, 1) for one in pair):
            raise Wrong(f"{variant}: Expected two of True and False, for the velocity and for the stream.")
        hints += [_OVERLOOKED[variant, i] for i in (0, 1) if bool(pair[i]) is not truth[i]]
    if hints:
        raise Wrong(*hints)


# --- keys and values kept over steps -----------------------------------------------------------------------------


def attend_kept(
    query: Tensor, rest: KeyValue, make_condition: Callable[[], KeyValue], memory: dict[str, Any]
) -> Tensor:
    """What text and image find in one step; the condition's keys and values are made in the first step alone.

    query (B, L, heads, head) and rest = (key, value) of text and image at this step; make_condition() gives the
    condition's (key, value); memory is a dict of this run, empty in its first step -> (B, L, D).
    """
    if "condition" not in memory:
        memory["condition"] = make_condition()
    key, value = (torch.cat(pair, dim=1).transpose(1, 2) for pair in zip(rest, memory["condition"], strict=True))
    query = query.transpose(1, 2)
    weights = (query @ key.mT / query.shape[-1] ** 0.5).softmax(dim=-1)
    return (weights @ value).transpose(1, 2).flatten(2)


def _attended(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    query, key, value = (x.transpose(1, 2) for x in (query, key, value))
    out = F.scaled_dot_product_attention(query, key, value)
    return out.transpose(1, 2).flatten(2)


def _steps(count: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    for _ in range(count):
        query, key, value = torch.randn(3, 2, 5, 2, 6)
        yield query, key, value


def check_attend_kept(function: Callable[..., Any]) -> None:
    """query, rest (key, value), make_condition, memory -> (B, L, D), over several steps and two runs."""
    for run in ("first run", "second run"):
        condition: KeyValue = (torch.randn(2, 3, 2, 6), torch.randn(2, 3, 2, 6))
        calls, memory = list[int](), dict[str, Any]()

        def make(condition: KeyValue = condition, calls: list[int] = calls) -> KeyValue:
            calls.append(1)
            return condition[0].clone(), condition[1].clone()

        before: list[KeyValue] = []
        for step, (query, key, value) in enumerate(_steps(3)):
            both = [torch.cat(pair, dim=1) for pair in zip((key, value), condition, strict=True)]
            mistakes = {
                "The condition is missing among the keys and values.": _attended(query, key, value),
                "Text and image look at the condition alone; their own keys and values belong there, too.": _attended(
                    query, *condition
                ),
                "The values are used as keys, or the keys as values.": _attended(query, both[1], both[0]),
                "The heads are still apart: flatten (B, L, heads, head) to (B, L, D).": _attended(
                    query, *both
                ).unflatten(-1, (2, 6)),
            }
            if before:
                old = before[-1]
                stale = [torch.cat(pair, dim=1) for pair in zip(before[0], condition, strict=True)]
                grown = [torch.cat([x for pair in before for x in [pair[i]]] + [both[i]], dim=1) for i in (0, 1)]
                mistakes |= {
                    "Keys and values of text and image are kept as well; they change with every step.": _attended(
                        query, *stale
                    ),
                    "Keys and values of text and image pile up: those of earlier steps are still there.": _attended(
                        query, *grown
                    ),
                    "The keys of text and image are those of the step before.": _attended(
                        query, *(torch.cat(pair, dim=1) for pair in zip(old, condition, strict=True))
                    ),
                }
            with advice("Join along the tokens, dim=1: torch.cat([key, condition_key], dim=1)."):
                found = function(query.clone(), (key.clone(), value.clone()), make, memory)
            if step == 0 and not calls:
                raise Wrong(
                    f"In the {run} make_condition was never called: the memory is a dict of this run, and nothing may "
                    "be kept anywhere else."
                    if run == "second run"
                    else "make_condition was never called; where do the condition's keys and values come from?"
                )
            compare(found, _attended(query, *both), mistakes, "batch, tokens, D", f"step {step + 1}: ")
            if len(calls) > 1:
                raise Wrong(
                    "make_condition is called twice in the first step: once gives both, key and value."
                    if step == 0
                    else "make_condition is called again in the second step: keep what it gave in `memory`."
                )
            before.append((key, value))


EXERCISES = (
    Exercise("stream_linear", NOTEBOOK, 2, 15, check_stream_linear, (stream_linear,), (
        "All tokens pass the frozen layer. To the result of the last num_condition tokens B A x is added.",
        "The condition begins at x.shape[1] - num_condition. For tokens as rows, B A x is x @ a.T @ b.T.",
        "out = F.linear(x, weight, bias); then torch.cat([out[:, :first], out[:, first:] + x[:, first:] @ a.T @ b.T], "
        "dim=1).",
    )),
    Exercise("fusing_fault", NOTEBOOK, 1, 5, check_fusing_fault, (fusing_fault,), (
        "Compare fused and unfused token by token: which rows changed, and which did not?",
        "The condition's rows are the same as before. The others changed, with a condition beside them or without.",
        "Call stream_linear with num_condition = L, so that LoRA acts on every token. What does that equal?",
    )),
    Exercise("who_sees_whom", NOTEBOOK, 2, 15, check_who_sees_whom, (who_sees_whom,), (
        "There are four parts: rest at rest, rest at condition, condition at rest, condition at condition.",
        "Rows look, columns are looked at. 'independent' closes one part of the four, 'separate' closes two.",
        "Begin with torch.ones(total, total, dtype=torch.bool). mask[num_rest:, :num_rest] = False is what "
        "'independent' closes; 'separate' also closes mask[:num_rest, num_rest:].",
    )),
    Exercise("influences", NOTEBOOK, 2, 10, check_influences, (influences,), (
        "Attention is the only place where tokens meet. Follow who looks at whom: news travels from key to query.",
        "The mask reaches the velocity if image queries see condition keys. What lets the image reach the stream?",
        "Look at your three masks: the part at the upper right answers the first question, the lower left the second.",
    )),
    Exercise("attend_kept", NOTEBOOK, 2, 20, check_attend_kept, (attend_kept,), (
        "Only what never changes may be kept: the condition's key and value. Those of text and image are always new.",
        "If the memory has nothing yet, call make_condition() and put its pair there. Then join and attend as ever.",
        'if "condition" not in memory: memory["condition"] = make_condition(). Then torch.cat along dim=1 for keys and '
        "for values, the usual softmax, and flatten(2).",
    )),
)  # fmt: skip
