"""One block of FLUX with a third stream of tokens: diffusers' modules, called in our order.

    text, image, condition = double_block(block, text, image, condition, step)
    joint, condition = single_block(block, joint, condition, step)     # text and image are one sequence by then

A *double* block has weights of its own for text and for image; in a *single* block both are one sequence, and attention
and MLP work side by side. Each stream is modulated, projected to queries, keys and values, and finished by itself; only
attention mixes them. The condition passes the image's weights plus LoRA, at the image's positions, so that each of its
tokens meets the image token of its place, and with the modulation of time 0: t is the share of noise, and a mask has
none at any step (paper section 3).

AdaLN, the adaptive layer norm, is x + gate * f(shift + (1 + scale) * norm(x)), where a linear layer makes shift, scale
and gate of the time vector. This gate weighs what f adds; it has nothing to do with MoGLE's gate.

diffusers' names: `context` and `add` belong to text; norm1 stands before attention and norm2 before the MLP, which is
`ff` (feed-forward); `to_out` is a linear layer and a dropout. `transformer.py` walks through the blocks.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from mogle.attention import Rope, attend, join, rotate, rows
from mogle.lora import linear

KeysValues = tuple[Tensor, Tensor]  # each (B, L, heads, head): L tokens, and "head" numbers in each head


class Step(NamedTuple):
    """What all blocks of one step share. B samples; T text, N image and N condition tokens; width D."""

    time: Tensor  # (B, D) the time vector: embedded time, guidance and the sentence as one vector; diffusers' temb
    time_zero: Tensor  # the same at time 0, for the condition
    rope: Rope  # positions, T + N rows; the condition has the image's
    num_text: int  # T
    bias: Tensor | None  # (B or 1, 1, 1, T + N + N), added to the logits of text and image queries; None: nothing
    bias_condition: Tensor | None  # the same for condition queries
    independent: bool  # condition queries see the condition alone
    lora_all: bool  # our LoRA acts on image and text tokens too, wherever its file has a layer for them
    keep_condition: bool  # no step changes the condition stream, so its keys and values are kept


class BlockCache:
    """What one block keeps from step to step: the condition's modulation and, with `keep_condition`, keys and values.

    A class and no dict: offloading hooks hand a block copies of the dicts and lists among its arguments, and what the
    block wrote into a copy would be lost.
    """

    def __init__(self) -> None:
        self.modulation: Modulation | None = None
        self.keys_values: KeysValues | None = None


class Modulation(NamedTuple):
    """AdaLN's shift, scale and gate, each (B, 1, D), in the weights' order; in double blocks again for the MLP."""

    shift: Tensor
    scale: Tensor
    gate: Tensor
    shift_mlp: Tensor | None = None
    scale_mlp: Tensor | None = None
    gate_mlp: Tensor | None = None


def double_block(
    block: Any, text: Tensor, image: Tensor, condition: Tensor | None, step: Step,
    cache: BlockCache | None = None, last: bool = False,
) -> tuple[Tensor | None, Tensor, Tensor | None]:  # fmt: skip
    """FluxTransformerBlock: text has weights of its own. text (B, T, D), image (B, N, D), condition (B, N, D).

    A condition of None is absent, or its keys and values are in the cache already. The `last` block of a base without
    single blocks leaves text and condition out: only the image becomes the velocity.
    """
    attn = block.attn
    rope_text, rope_image = rows(step.rope, 0, step.num_text), rows(step.rope, step.num_text)

    mod_text = modulation(block.norm1_context, step.time, step.lora_all, parts=6)
    normed = modulate(block.norm1_context.norm, text, mod_text.shift, mod_text.scale)
    query_text = heads(attn, attn.add_q_proj, attn.norm_added_q, normed, rope_text, step.lora_all)
    key_text = heads(attn, attn.add_k_proj, attn.norm_added_k, normed, rope_text, step.lora_all)
    value_text = heads(attn, attn.add_v_proj, None, normed, rope_text, step.lora_all)

    mod = modulation(block.norm1, step.time, step.lora_all, parts=6)
    normed = modulate(block.norm1.norm, image, mod.shift, mod.scale)
    query_image = heads(attn, attn.to_q, attn.norm_q, normed, rope_image, step.lora_all)
    streams = [(key_text, value_text), keys_values(attn, normed, rope_image, step.lora_all)]

    if condition is not None:
        mod_condition = condition_modulation(block.norm1, step, cache, parts=6)
        normed_condition = modulate(block.norm1.norm, condition, mod_condition.shift, mod_condition.scale)
        streams.append(keys_values(attn, normed_condition, rope_image, with_lora=True))
    all_keys, all_values = join_streams(streams, step, cache, condition is not None)

    attended = attend(attn, join([query_text, query_image]), all_keys, all_values, step.bias)
    attended_text, attended_image = attended[:, : step.num_text], attended[:, step.num_text :]
    image = finish_double(attn.to_out[0], block.norm2, block.ff, image, attended_image, mod, step.lora_all)
    if last:
        return None, image, None
    if condition is not None:  # its keys are always asked for, its queries only where the stream goes on
        query = heads(attn, attn.to_q, attn.norm_q, normed_condition, rope_image, with_lora=True)
        seen = streams[-1] if step.independent else (all_keys, all_values)
        attended = attend(attn, query, *seen, step.bias_condition)
        condition = finish_double(attn.to_out[0], block.norm2, block.ff, condition, attended, mod_condition, True)
    text = finish_double(
        attn.to_add_out, block.norm2_context, block.ff_context, text, attended_text, mod_text, step.lora_all
    )
    return in_range(text), image, condition


def single_block(
    block: Any, joint: Tensor, condition: Tensor | None, step: Step,
    cache: BlockCache | None = None, last: bool = False,
) -> tuple[Tensor, Tensor | None]:  # fmt: skip
    """FluxSingleTransformerBlock: text and image are one sequence `joint` (B, T + N, D), condition (B, N, D).

    The `last` block gives the image's rows alone, (B, N, D): the others would be thrown away.
    """
    attn = block.attn
    first = step.num_text if last else 0  # of the rows that are wanted

    mod = modulation(block.norm, step.time, step.lora_all, parts=3)
    normed = modulate(block.norm.norm, joint, mod.shift, mod.scale)
    streams = [keys_values(attn, normed, step.rope, step.lora_all)]
    normed_wanted = normed[:, first:]
    query_wanted = heads(attn, attn.to_q, attn.norm_q, normed_wanted, rows(step.rope, first), step.lora_all)

    if condition is not None:
        rope_image = rows(step.rope, step.num_text)
        mod_condition = condition_modulation(block.norm, step, cache, parts=3)
        normed_condition = modulate(block.norm.norm, condition, mod_condition.shift, mod_condition.scale)
        streams.append(keys_values(attn, normed_condition, rope_image, with_lora=True))
    all_keys, all_values = join_streams(streams, step, cache, condition is not None)

    attended = attend(attn, query_wanted, all_keys, all_values, step.bias)
    joint = finish_single(block, joint[:, first:], normed_wanted, attended, mod, step.lora_all)
    if condition is None or last:
        return joint, None
    query = heads(attn, attn.to_q, attn.norm_q, normed_condition, rope_image, with_lora=True)
    seen = streams[-1] if step.independent else (all_keys, all_values)
    attended = attend(attn, query, *seen, step.bias_condition)
    return joint, finish_single(block, condition, normed_condition, attended, mod_condition, True)


# --- parts of a block, each for one stream -----------------------------------------------------------------------


def modulation(norm: Any, time: Tensor, with_lora: bool, parts: int) -> Modulation:
    """AdaLN's numbers from the time vector: 3 parts, or 6 in a double block. `norm` is diffusers' AdaLN module."""
    return Modulation(*linear(norm.linear, norm.silu(time), with_lora).unsqueeze(1).chunk(parts, dim=-1))


def condition_modulation(norm: Any, step: Step, cache: BlockCache | None, parts: int) -> Modulation:
    """The condition's, at time 0: the same at every step, so a cache keeps it."""
    if cache is not None and cache.modulation is not None:
        return cache.modulation
    found = modulation(norm, step.time_zero, True, parts)
    if cache is not None:
        cache.modulation = found
    return found


def modulate(norm: Any, x: Tensor, shift: Any, scale: Any) -> Tensor:
    """shift + (1 + scale) norm(x), by a plain layer norm; after it one pass over x, not two."""
    return torch.addcmul(shift, norm(x), 1 + scale)


def heads(attn: Any, layer: Any, norm: Any, x: Tensor, rope: Rope, with_lora: bool) -> Tensor:
    """(B, L, D) -> (B, L, heads, head): queries and keys pass an RMS norm and are turned to their positions.

    A `norm` of None is for values, which stay as they are.
    """
    split = linear(layer, x, with_lora).unflatten(-1, (attn.heads, -1))
    return split if norm is None else rotate(norm(split), rope)


def keys_values(attn: Any, x: Tensor, rope: Rope, with_lora: bool) -> KeysValues:
    """Keys and values of a stream with the image's weights."""
    return heads(attn, attn.to_k, attn.norm_k, x, rope, with_lora), heads(attn, attn.to_v, None, x, rope, with_lora)


def join_streams(streams: list[KeysValues], step: Step, cache: BlockCache | None, has_condition: bool) -> KeysValues:
    """Keys and values of text, image and condition, in this order: (B, T + N + N, heads, head), or T + N without one.

    With `keep_condition` the condition's rows stay in the cache, and later steps write text and image into the rows in
    front of them.

    Raises:
        RuntimeError: the condition was left out as kept, and the cache does not have it.
    """
    keys, values = map(list, zip(*streams, strict=True))
    if not step.keep_condition or cache is None:
        return join(keys), join(values)
    if cache.keys_values is None and not has_condition:
        raise RuntimeError("the keys and values of a kept condition are gone: something has replaced a block's cache")
    old_keys, old_values = cache.keys_values or (None, None)
    cache.keys_values = join(keys, old_keys), join(values, old_values)
    return cache.keys_values


def finish_double(
    out: Any, norm: Any, ff: Any, x: Tensor, attended: Tensor, mod: Modulation, with_lora: bool
) -> Tensor:
    """The rest of a double block for one stream: output projection, then MLP, each with its gate and residual."""
    x = torch.addcmul(x, mod.gate, linear(out, attended, with_lora))
    normed = modulate(norm, x, mod.shift_mlp, mod.scale_mlp)
    return torch.addcmul(x, mod.gate_mlp, feed_forward(ff, normed, with_lora))  # type: ignore[arg-type]


def feed_forward(ff: Any, x: Tensor, with_lora: bool) -> Tensor:
    """diffusers' FeedForward, layer by layer, as any may hold a LoRA; its GELU has the first linear layer inside."""
    gelu, dropout, out = ff.net
    return linear(out, dropout(gelu.gelu(linear(gelu.proj, x, with_lora))), with_lora)


def finish_single(block: Any, x: Tensor, normed: Tensor, attended: Tensor, mod: Modulation, with_lora: bool) -> Tensor:
    """MLP beside the attention's output, one projection of both, gate and residual."""
    joined = torch.cat([attended, block.act_mlp(linear(block.proj_mlp, normed, with_lora))], dim=2)
    return in_range(torch.addcmul(x, mod.gate, linear(block.proj_out, joined, with_lora)))


def in_range(x: Tensor) -> Tensor:
    """Values that float16 can hold (65504 is its largest), wherever diffusers' blocks clip, to equal them."""
    return x.clip(-65504, 65504) if x.dtype == torch.float16 else x
