"""One block of FLUX with a third stream of tokens: diffusers' modules, called in our order.

    text, image, condition = double_block(block, text, image, condition, step)
    _, image, condition = single_block(block, None, image, condition, step)   # text and image are one sequence here

Each stream is modulated, projected to queries, keys and values, and finished by itself; only attention mixes them. The
condition passes the image's weights plus LoRA, at the image's positions, with the modulation of time 0 (paper section
3.3). `transformer.py` walks through the blocks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mogle.attention import Rope, Scratch, attend, join, rotate, rows
from mogle.lora import linear

#: What one block keeps from step to step: the condition's "modulation", and with a static condition all "keys".
BlockCache = dict[str, Any]
#: Text, image and condition tokens; what is no longer wanted is None.
Streams = tuple[Tensor | None, Tensor, Tensor | None]


class Step(NamedTuple):
    """What all blocks of one step share. B samples; T text, N image and N condition tokens; width D."""

    time: Tensor  # (B, D) embedding of time, guidance and pooled text
    time_zero: Tensor  # the same at time 0, for the condition
    rope: Rope  # T + N rows; the condition has the image's
    num_text: int  # T
    bias: Tensor | None  # (B or 1, 1, 1, T + N + N), added to the logits of text and image queries
    bias_condition: Tensor | None  # the same for condition queries
    independent: bool  # condition queries see the condition alone
    lora_all: bool  # LoRA on image tokens too, in single blocks also on text tokens
    static: bool  # the condition is the same at every step: its keys and values are kept
    scratch: Scratch | None  # memory that blocks write over, while sampling on a CPU


def double_block(
    block: Any, text: Tensor | None, image: Tensor, condition: Tensor | None, step: Step,
    cache: BlockCache | None = None, last: bool = False,
) -> Streams:  # fmt: skip
    """FluxTransformerBlock: text has weights of its own. text (B, T, D), image (B, N, D), condition (B, N, D).

    A condition of None is one whose keys and values are in the cache. After the `last` block only the image counts.
    """
    assert text is not None
    attn, on_all = block.attn, step.lora_all
    rope_text, rope_image = rows(step.rope, 0, step.num_text), rows(step.rope, step.num_text)

    mod_text = modulation(block.norm1_context, step.time, on_all, 6)
    normed = modulate(block.norm1_context.norm, text, mod_text[0], mod_text[1])
    query_text = heads(attn, attn.add_q_proj, attn.norm_added_q, normed, rope_text, on_all)
    key_text = heads(attn, attn.add_k_proj, attn.norm_added_k, normed, rope_text, on_all)
    value_text = heads(attn, attn.add_v_proj, None, normed, rope_text, on_all)

    mod = modulation(block.norm1, step.time, on_all, 6)
    normed = modulate(block.norm1.norm, image, mod[0], mod[1])
    query_image, key_image, value_image = queries_keys_values(attn, normed, rope_image, on_all)

    keys, values = [key_text, key_image], [value_text, value_image]
    if condition is not None:
        mod_condition = kept(cache, "modulation", lambda: modulation(block.norm1, step.time_zero, True, 6))
        normed = modulate(block.norm1.norm, condition, mod_condition[0], mod_condition[1])
        query, key, value = queries_keys_values(attn, normed, rope_image, True, no_query=last)
        keys, values = [*keys, key], [*values, value]
    all_keys, all_values = join_keys(keys, values, step, cache)

    attended = attend(attn, join([query_text, query_image]), all_keys, all_values, step.bias)
    image = finish_double(block, image, attended[:, step.num_text :], mod, on_all)
    if last:
        return None, image, None
    if condition is not None:
        seen = (key, value) if step.independent else (all_keys, all_values)
        condition = finish_double(
            block, condition, attend(attn, query, *seen, step.bias_condition), mod_condition, True
        )
    attended = linear(attn.to_add_out, attended[:, : step.num_text], on_all)
    text = torch.addcmul(text, mod_text[2], attended)
    normed = modulate(block.norm2_context, text, mod_text[3], mod_text[4])
    text = torch.addcmul(text, mod_text[5], feed_forward(block.ff_context, normed, on_all))
    return in_range(text), image, condition


def single_block(
    block: Any, text: None, image: Tensor, condition: Tensor | None, step: Step,
    cache: BlockCache | None = None, last: bool = False,
) -> Streams:  # fmt: skip
    """FluxSingleTransformerBlock: text and image are one sequence, `image` (B, T + N, D), condition (B, N, D)."""
    attn, on_all = block.attn, step.lora_all
    first = step.num_text if last else 0  # the last block's text rows would be thrown away

    mod = modulation(block.norm, step.time, on_all, 3)
    normed = modulate(block.norm.norm, image, mod[0], mod[1])
    key_rest = heads(attn, attn.to_k, attn.norm_k, normed, step.rope, on_all)
    value_rest = heads(attn, attn.to_v, None, normed, step.rope, on_all)
    normed = normed[:, first:]
    query_rest = heads(attn, attn.to_q, attn.norm_q, normed, rows(step.rope, first), on_all)

    keys, values = [key_rest], [value_rest]
    if condition is not None:
        mod_condition = kept(cache, "modulation", lambda: modulation(block.norm, step.time_zero, True, 3))
        normed_condition = modulate(block.norm.norm, condition, mod_condition[0], mod_condition[1])
        rope_image = rows(step.rope, step.num_text)
        query, key, value = queries_keys_values(attn, normed_condition, rope_image, True, no_query=last)
        keys, values = [*keys, key], [*values, value]
    all_keys, all_values = join_keys(keys, values, step, cache)

    attended = attend(attn, query_rest, all_keys, all_values, step.bias)
    image = finish_single(block, image[:, first:], normed, attended, mod, on_all, step.scratch)
    if condition is None or last:
        return None, image, None
    seen = (key, value) if step.independent else (all_keys, all_values)
    attended = attend(attn, query, *seen, step.bias_condition)
    condition = finish_single(block, condition, normed_condition, attended, mod_condition, True, step.scratch)
    return None, image, condition


# --- parts of a block, each for one stream -----------------------------------------------------------------------


def modulation(norm: Any, time: Tensor, adapted: bool, parts: int) -> tuple[Tensor, ...]:
    """AdaLN: shift, scale and gate (twice in a double block) from the embedding of the time, each (B, 1, D)."""
    return linear(norm.linear, norm.silu(time), adapted).unsqueeze(1).chunk(parts, dim=-1)


def modulate(norm: Any, x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """shift + (1 + scale) norm(x), in one pass over x."""
    return torch.addcmul(shift, norm(x), 1 + scale)


def heads(attn: Any, layer: Any, norm: Any, x: Tensor, rope: Rope, adapted: bool) -> Tensor:
    """(B, L, D) -> (B, L, heads, head): queries and keys are normed and turned to their positions, values are not."""
    split = linear(layer, x, adapted).unflatten(-1, (attn.heads, -1))
    return split if norm is None else rotate(norm(split), rope)


def queries_keys_values(
    attn: Any, x: Tensor, rope: Rope, adapted: bool, no_query: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Of a stream with the image's weights; `no_query` gives the keys in the queries' place, where nobody asks."""
    key = heads(attn, attn.to_k, attn.norm_k, x, rope, adapted)
    query = key if no_query else heads(attn, attn.to_q, attn.norm_q, x, rope, adapted)
    return query, key, heads(attn, attn.to_v, None, x, rope, adapted)


def kept(cache: BlockCache | None, name: str, compute: Callable[[], Any]) -> Any:
    """What the cache holds under this name, computed when it is first asked for; always computed without a cache."""
    if cache is None:
        return compute()
    if name not in cache:
        cache[name] = compute()
    return cache[name]


def join_keys(keys: list[Tensor], values: list[Tensor], step: Step, cache: BlockCache | None) -> tuple[Tensor, Tensor]:
    """Keys and values of all streams, (B, T + N + N, heads, head) each, in memory of an earlier block or step.

    A static condition's rows stay in the block's cache, where later steps write text and image before them.
    """
    if step.static and cache is not None:
        old = cache.get("keys", (None, None))
        cache["keys"] = both = join(keys, old[0]), join(values, old[1])
        return both
    old = (None, None) if step.scratch is None or step.scratch.keys is None else step.scratch.keys
    both = join(keys, old[0]), join(values, old[1])
    if step.scratch is not None:
        step.scratch.keys = both
    return both


def finish_double(block: Any, x: Tensor, attended: Tensor, mod: tuple[Tensor, ...], adapted: bool) -> Tensor:
    """Output projection and feed-forward of a stream with the image's weights, each with its gate and residual."""
    projected = block.attn.to_out[1](linear(block.attn.to_out[0], attended, adapted))
    x = torch.addcmul(x, mod[2], projected)
    return torch.addcmul(x, mod[5], feed_forward(block.ff, modulate(block.norm2, x, mod[3], mod[4]), adapted))


def feed_forward(ff: Any, x: Tensor, adapted: bool) -> Tensor:
    """diffusers' FeedForward, layer by layer: LoRA may sit on each."""
    gelu, dropout, out = ff.net
    return linear(out, dropout(gelu.gelu(linear(gelu.proj, x, adapted))), adapted)


def finish_single(
    block: Any, x: Tensor, normed: Tensor, attended: Tensor, mod: tuple[Tensor, ...], adapted: bool,
    scratch: Scratch | None,
) -> Tensor:  # fmt: skip
    """MLP beside the attention's output, one projection of both, gate and residual."""
    hidden = linear(block.proj_mlp, normed, adapted)
    if scratch is None:
        joined = torch.cat([attended, block.act_mlp(hidden)], dim=2)
    else:
        joined = scratch.activate_and_join(block.act_mlp, hidden, attended)
    return in_range(torch.addcmul(x, mod[2], linear(block.proj_out, joined, adapted)))


def in_range(x: Tensor) -> Tensor:
    """Values that float16 can hold, as diffusers' blocks keep them."""
    return x.clip(-65504, 65504) if x.dtype == torch.float16 else x
