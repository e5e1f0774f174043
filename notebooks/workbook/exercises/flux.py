"""Exercises of notebook 04, FLUX from the inside: solutions, and checkers that raise `Wrong` with hints.

Besides them a double block with a planted fault, which the notebook imports; its exercises on flows: `flows.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mogle.blocks import Modulation, modulate
from workbook.checking import Exercise, Wrong
from workbook.exercises.judging import advice, check_choice, compare, same

NOTEBOOK = "04_flux_from_the_inside"

#: Query, key and value of a stream, (B, L, heads, head) each.
Stream = tuple[Tensor, Tensor, Tensor]


# --- inside FLUX: the notebook's functions, for the planted fault -------------------------------------------------


def modulation(norm: Any, time: Tensor, parts: int) -> Any:
    """AdaLN's Modulation from the vector of the time (B, D): shift, scale, gate, in a double block twice; (B, 1, D)."""
    return Modulation(*norm.linear(F.silu(time)).unsqueeze(1).chunk(parts, dim=-1))


def rotate(x: Tensor, rope: Tensor) -> Tensor:
    """Turn the pairs of x (..., head) by complex numbers of length 1, (..., head / 2)."""
    pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous())
    return torch.view_as_real(pairs * rope).flatten(-2)


def heads(attn: Any, layer: Any, norm: Any, x: Tensor, rope: Tensor) -> Tensor:
    """(B, L, D) -> (B, L, heads, head): queries and keys are normed and turned to their places, values are not."""
    split = layer(x).unflatten(-1, (attn.heads, -1))
    return split if norm is None else rotate(norm(split), rope[:, None])


def rope_map(query: Tensor, key: Tensor, rope: Tensor, here: int) -> Tensor:
    """How similar one query is, at the place `here`, to one key at each of the places.

    query and key (head,), not turned yet; rope (N, head / 2), the places as complex numbers -> dot products (N,).
    """
    return rotate(key, rope) @ rotate(query, rope[here])


def check_rope_map(function: Callable[..., Any]) -> None:
    """query, key (head,), rope (N, head / 2), here -> the dot products (N,)."""
    rows, columns, here = 3, 5, 7
    angle = torch.randn(rows, 1, 4).expand(-1, columns, -1) + torch.randn(1, columns, 4)
    rope = torch.polar(torch.ones(()), angle.reshape(rows * columns, 4))
    query, key = torch.randn(8), torch.randn(8)
    expected, here_query, everywhere = rope_map(query, key, rope, here), rotate(query, rope[here]), rotate(query, rope)
    q, k = (torch.view_as_complex(x.view(4, 2)) for x in (query, key))
    q_half, k_half = (torch.complex(*x.view(2, 4)) for x in (query, key))
    between = rope[here] * rope.conj()
    mistakes = {
        "The query is not turned: it has a place as well, rope[here].": rotate(key, rope) @ query,
        "The keys are not turned: key n lies at place n, rope[n].": (here_query @ key).expand(len(rope)),
        "All keys lie at the query's place here; key n is turned by rope[n].": (query @ key).expand(len(rope)),
        "Query and key are swapped: the query lies here, the keys lie everywhere.": (
            everywhere @ rotate(key, rope[here])
        ),
        "The query lies at place 0, not at the place that is given.": rope_map(query, key, rope, 0),
        "The angles are added: without the conjugate of one of them a product of complex numbers sums them.": (
            (q * k * rope[here] * rope).sum(-1).real
        ),
        "Pairs are neighbours, (x0, x1), (x2, x3) and so on; you took x and its other half as a pair.": (
            (q_half * k_half.conj() * between).sum(-1).real
        ),
        "This is a softmax over the places; expected the dot products themselves.": expected.softmax(dim=-1),
        "The dot products are divided by the square root of the head's width: attention does that later.": (
            expected / 8**0.5
        ),
        "These are cosines; expected the dot products themselves.": expected / query.norm() / key.norm(),
        "These are all places against all; expected one row, the one of here.": everywhere @ rotate(key, rope).T,
        "You did not sum over the head: expected one number for each place.": here_query * rotate(key, rope),
        "The real part is missing: a dot product is the real part of q times the conjugate of k, summed.": (
            (q * k.conj() * between).sum(-1).imag
        ),
    }
    with advice("query and key are (head,), rope is (N, head / 2): rotate(key, rope) gives (N, head)."):
        found = function(query.clone(), key.clone(), rope.clone(), here)
    if isinstance(found, Tensor) and found.is_complex():
        raise Wrong("The numbers are complex; a dot product of real vectors is the real part.")
    compare(found, expected, mistakes, "one number for each place")


def attend_jointly(text: Stream, image: Stream) -> tuple[Tensor, Tensor]:
    """Joint attention: every token of both streams looks at every token of both.

    text (B, T, heads, head) and image (B, N, heads, head), query, key and value each -> (B, T, D), (B, N, D).
    """
    query, key, value = (torch.cat(pair, dim=1).transpose(1, 2) for pair in zip(text, image, strict=True))
    weights = (query @ key.mT / query.shape[-1] ** 0.5).softmax(dim=-1)
    attended, num_text = (weights @ value).transpose(1, 2).flatten(2), text[0].shape[1]
    return attended[:, :num_text], attended[:, num_text:]


def check_attend_jointly(function: Callable[..., Any]) -> None:
    """Query, key and value of text and of image, (B, L, heads, head) each -> (B, T, D) and (B, N, D)."""
    batch, num_text, num_image, count, width = 2, 3, 5, 4, 6
    text = tuple(torch.randn(batch, num_text, count, width) for _ in range(3))
    image = tuple(torch.randn(batch, num_image, count, width) for _ in range(3))
    query, key, value = (torch.cat(pair, dim=1).transpose(1, 2) for pair in zip(text, image, strict=True))
    logits = query @ key.mT

    def of(weights: Tensor, values: Tensor = value) -> tuple[Tensor, Tensor]:
        attended = (weights @ values).transpose(1, 2).flatten(2)
        return attended[:, :num_text], attended[:, num_text:]

    apart = torch.full_like(logits, -math.inf)
    apart[..., :num_text, :num_text] = apart[..., num_text:, num_text:] = 0
    across, right = torch.zeros_like(logits).masked_fill(apart == 0, -math.inf), of((logits / width**0.5).softmax(-1))
    mixed = ((logits / width**0.5).softmax(-1) @ value).reshape(batch, num_text + num_image, count * width)
    whole = torch.einsum("bhqc,bhkc->bqk", query, key)[:, None] / (count * width) ** 0.5
    joined = torch.cat(right, dim=1)
    mistakes = {
        "Each stream looks at itself alone; joint means that keys and values of both are joined.": (
            of((logits / width**0.5 + apart).softmax(-1))
        ),
        "Each stream looks at the other alone; its own keys and values belong there too.": (
            of((logits / width**0.5 + across).softmax(-1))
        ),
        "The logits are not divided by the square root of the head's width.": of(logits.softmax(-1)),
        "The logits are divided by the root of the whole width D; expected that of one head.": (
            of((logits / (count * width) ** 0.5).softmax(-1))
        ),
        "The logits are divided by the head's width; expected by its square root.": of((logits / width).softmax(-1)),
        "The softmax is over the queries; the weights of one query sum to 1 over the keys, the last axis.": (
            of((logits / width**0.5).softmax(-2))
        ),
        "The softmax is over the heads; the weights of one query sum to 1 over the keys, the last axis.": (
            of((logits / width**0.5).softmax(1))
        ),
        "The softmax is missing.": of(logits / width**0.5),
        "The heads are merged in the wrong order: bring (B, heads, L, head) to (B, L, heads, head) before flatten.": (
            mixed[:, :num_text],
            mixed[:, num_text:],
        ),
        "All heads are taken as one: each head has a softmax of its own.": of(whole.softmax(-1)),
        "The two results are swapped: text first.": right[::-1],
        "The split is in the wrong place: the first T tokens are the text's.": (
            joined[:, :num_image],
            joined[:, num_image:],
        ),
    }
    with advice("Join along the tokens, dim=1; then bring the heads before the tokens: transpose(1, 2)."):
        found = function(text, image)
    if isinstance(found, Tensor):
        raise Wrong("One tensor came back; expected two: the text's rows, and the image's.")
    if not isinstance(found, tuple | list) or len(found) != 2:
        raise Wrong("Expected two tensors back: the text's rows, and the image's.")
    if all(isinstance(x, Tensor) and x.ndim == 4 for x in found):
        raise Wrong("The heads are still apart: flatten (B, L, heads, head) to (B, L, D), for the output's layer.")
    shapes = [tuple(x.shape) for x in right]
    for hint, pair in mistakes.items():
        if all(same(torch.as_tensor(one), other) for one, other in zip(found, pair, strict=True)):
            raise Wrong(hint)
    if [tuple(x.shape) for x in found] != shapes:
        raise Wrong(f"The shapes are {[tuple(x.shape) for x in found]}, expected {shapes}: (B, T, D) and (B, N, D).")
    for name, one, expected in zip(("text: ", "image: "), found, right, strict=True):
        compare(one, expected, {}, "batch, tokens, D", name)


def feed_forward(ff: Any, x: Tensor) -> Tensor:
    """A linear layer, GELU, and a linear layer back to D."""
    first, _, last = ff.net
    return last(F.gelu(first.proj(x), approximate="tanh"))


# fmt: off
def suspect(block: Any, text: Tensor, image: Tensor, time: Tensor, rope: Tensor) -> tuple[Tensor, Tensor]:
    """A double block, one line of which is wrong: text (B, T, D), image (B, N, D) -> the same."""
    attn, num_text = block.attn, text.shape[1]
    rope_text, rope_image = rope[:num_text], rope[num_text:]                               # 1

    mod_text = modulation(block.norm1_context, time, parts=6)                              # 2
    normed = modulate(block.norm1_context.norm, text, mod_text.shift, mod_text.scale)      # 3
    query_text = heads(attn, attn.add_q_proj, attn.norm_added_q, normed, rope_text)        # 4
    key_text = heads(attn, attn.add_k_proj, attn.norm_added_k, normed, rope_text)          # 5
    value_text = heads(attn, attn.add_v_proj, None, normed, rope_text)                     # 6

    mod = modulation(block.norm1, time, parts=6)                                           # 7
    normed = modulate(block.norm1.norm, image, mod.shift, mod.scale)                       # 8
    query_image = heads(attn, attn.to_q, attn.norm_k, normed, rope_image)                  # 9
    key_image = heads(attn, attn.to_k, attn.norm_k, normed, rope_image)                    # 10
    value_image = heads(attn, attn.to_v, None, normed, rope_image)                         # 11

    streams = (query_text, key_text, value_text), (query_image, key_image, value_image)
    attended_text, attended_image = attend_jointly(*streams)                               # 12

    image = image + mod.gate * attn.to_out[0](attended_image)                              # 13
    normed = modulate(block.norm2, image, mod.shift_mlp, mod.scale_mlp)                    # 14
    image = image + mod.gate_mlp * feed_forward(block.ff, normed)                          # 15

    text = text + mod_text.gate * attn.to_add_out(attended_text)                           # 16
    normed = modulate(block.norm2_context, text, mod_text.shift_mlp, mod_text.scale_mlp)   # 17
    text = text + mod_text.gate_mlp * feed_forward(block.ff_context, normed)               # 18
    return text, image
# fmt: on


def planted_bug() -> int:
    """The number of the faulty line of `suspect`.

    Its text is right, so all keys and values are: text queries look at every one of them. Its image is wrong from the
    attention on. What the image's attention has and the text's has not is the image's query.
    """
    return 9


#: Why each of the other lines of `suspect` is right.
_ACQUITTED = {
    1: "the first T rows of rope are the text's, the others the image's",
    2: "it is the text's modulation, norm1_context's; and the text comes out right",
    3: "it is AdaLN of the text, with the first shift and scale; and the text comes out right",
    4: "it is the text's query, and the text comes out right",
    5: "text queries look at these keys, and the text comes out right",
    6: "values are neither normed nor turned; text queries read these, and the text comes out right",
    7: "it is the image's modulation, norm1's, with six parts as in line 2",
    8: "the image's keys and values are made of it; were it wrong, the text would be, too",
    10: "text queries look at the image's keys as well, and the text comes out right",
    11: "text queries read the image's values as well, and the text comes out right",
    12: "for these queries, keys and values it gives what it should; one of them is wrong before",
    13: "its result differs from yours because attended_image is wrong already",
    14: "its result differs from yours because image is wrong already; it is the second shift and scale, as it should",
    15: "its result differs from yours because image is wrong already; the gate is the second one, as it should",
    16: "it is the text's, and the text comes out right",
    17: "it is AdaLN of the text once more, with the second shift and scale; and the text comes out right",
    18: "it is the text's MLP with the second gate, and the text comes out right",
}


def check_planted_bug(answer: Any) -> None:
    """The number of the line of `suspect` that is wrong."""
    check_choice(answer, "line", planted_bug(), _ACQUITTED, "is right")


EXERCISES = (
    Exercise("rope_map", NOTEBOOK, 2, 15, check_rope_map, (rope_map,), (
        "Turn the query to its own place and the key to every place; then compare by dot products.",
        "rotate(key, rope) gives all N keys, (N, head); rotate(query, rope[here]) is one query, (head,).",
        "A matrix times a vector is all dot products at once: rotate(key, rope) @ rotate(query, rope[here]).",
    )),
    Exercise("attend_jointly", NOTEBOOK, 2, 15, check_attend_jointly, (attend_jointly,), (
        "Join query, key and value of both streams along the tokens, attend once, and split the result.",
        "torch.cat([a, b], dim=1) joins two queries, keys or values: (B, T + N, heads, head). `attend` does the rest.",
        "attend(*(torch.cat(pair, dim=1) for pair in zip(text, image))) does both; the first T rows are the text's.",
    )),
    Exercise("planted_bug", NOTEBOOK, 1, 10, check_planted_bug, (planted_bug,), (
        "Run it beside your own block on the same input: which of the two outputs differs?",
        "The text's output is right. Which lines does it depend on? All of them are acquitted.",
        "Text queries look at all keys and values. What is left: the image's query, and what comes after attention.",
    )),
)  # fmt: skip
