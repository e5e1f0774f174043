"""Attention over several streams: positions, joining, attending. What each device does fast is decided here alone.

Each function has one plain meaning (RoPE; concatenation along the tokens; softmax(Q K^T / sqrt(d) + bias) V) and, where
it was measured to pay, a second way to compute it on a CPU: complex RoPE while sampling, attention written out while
training in bfloat16.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.attention_dispatch import dispatch_attention_fn
from diffusers.models.embeddings import apply_rotary_emb
from torch import Tensor

#: Positions by RoPE, the rotary position embedding: pairs of a head's numbers are turned by angles that grow with the
#: place. (cos, sin), each (L, head), in which a pair's two columns are equal; or, for a CPU, (cos + i sin,) of
#: (L, head / 2), which turns by one complex product where the other form takes five passes over the memory.
Rope = tuple[Tensor, ...]


def on_cpu_without_gradients(x: Tensor) -> bool:
    """True while sampling on a CPU, without gradients and without compiling, which does not know complex numbers."""
    return x.device.type == "cpu" and not torch.is_grad_enabled() and not torch.compiler.is_compiling()


def positions(transformer: Any, text_ids: Tensor, image_ids: Tensor, like: Tensor) -> Rope:
    """RoPE of the text's and the image's tokens: (T, 3) and (N, 3) places (0, row, column) -> T + N rows."""
    cos, sin = transformer.pos_embed(torch.cat([text_ids, image_ids], dim=0))
    return (torch.complex(cos, sin)[:, ::2],) if on_cpu_without_gradients(like) else (cos, sin)


def rows(rope: Rope, start: int, stop: int | None = None) -> Rope:
    """The positions of some of the tokens."""
    return tuple(part[start:stop] for part in rope)


def rotate(heads: Tensor, rope: Rope) -> Tensor:
    """Turn queries or keys (B, L, heads, head) to their positions."""
    if len(rope) == 1:
        return apply_rotary_emb(heads, rope[0][None], use_real=False)
    return apply_rotary_emb(heads, rope, sequence_dim=1)


def join(parts: list[Tensor], memory: Tensor | None = None) -> Tensor:
    """(B, L, heads, head) each -> (B, all L, heads, head), laid out head by head: a CPU attends a tenth faster so.

    With `memory`, an earlier result, the parts are written over its first rows; the rows after them stay.
    """
    if memory is None:
        return torch.cat([part.transpose(1, 2) for part in parts], dim=2).transpose(1, 2)
    start = 0
    for part in parts:
        memory[:, start : start + part.shape[1]] = part
        start += part.shape[1]
    return memory


def attend(attn: Any, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None) -> Tensor:
    """(B, L, heads, head) -> (B, L, D), by the attention backend that the user has chosen for `attn` in diffusers.

    Where a CPU trains in bfloat16 attention is written out: the backward of torch's flash kernel takes ten times as
    long there (64 samples x 6 heads x 112 tokens: 72 ms, 9 ms written out).
    """
    if query.device.type == "cpu" and torch.is_grad_enabled() and torch.is_autocast_enabled("cpu"):
        return _attend_written_out(query, key, value, bias)
    processor = attn.processor
    backend, parallel = getattr(processor, "_attention_backend", None), getattr(processor, "_parallel_config", None)
    bias = None if bias is None else bias.to(query.dtype)
    out = dispatch_attention_fn(query, key, value, attn_mask=bias, backend=backend, parallel_config=parallel)
    return out.flatten(2, 3).to(query.dtype)


def _attend_written_out(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None) -> Tensor:
    dtype = torch.get_autocast_dtype("cpu")
    query, key, value = (x.to(dtype).transpose(1, 2) for x in (query * query.shape[-1] ** -0.5, key, value))
    logits = query @ key.transpose(-1, -2)
    weights = (logits if bias is None else logits + bias.to(dtype)).softmax(dim=-1).to(dtype)
    return (weights @ value).transpose(1, 2).flatten(2)
