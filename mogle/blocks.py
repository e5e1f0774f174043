"""One block of FLUX with a third stream of tokens: diffusers' modules, called in our order.

    text, image, condition = double_block(block, text, image, condition, step)
    joint, condition = single_block(block, joint, condition, step)     # text and image are one sequence by then

Each stream is modulated, projected to queries, keys and values, and finished by itself; only attention mixes them. The
condition passes the image's weights plus LoRA, at the image's positions, with time 0's modulation (paper section 3).
`transformer.py` walks through the blocks.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from mogle.attention import Rope, attend, join, rotate, rows
from mogle.lora import linear

KeysValues = tuple[Tensor, Tensor]  # each (B, L, heads, head)


class Step(NamedTuple):
    """What all blocks of one step share. B samples; T text, N image and N condition tokens; width D."""

    time: Tensor  # (B, D) embedding of time, guidance and pooled text; diffusers calls it temb
    time_zero: Tensor  # the same at time 0, for the condition
    rope: Rope  # T + N rows; the condition has the image's
    num_text: int  # T
    bias: Tensor | None  # (B or 1, 1, 1, T + N + N), added to the logits of text and image queries; None: nothing
    bias_condition: Tensor | None  # the same for condition queries
    independent: bool  # condition queries see the condition alone
    lora_all: bool  # LoRA on all tokens, wherever a layer has one; text's own layers have none among `LORA_TARGETS`
    static: bool  # the condition is the same at every step: its keys and values are kept


class BlockCache:
    """What one block keeps from step to step: the condition's modulation and, if it is static, all keys and values.

    A class of its own and no dict: offloading hooks hand a block copies of the containers that they know.
    """

    def __init__(self) -> None:
        self.modulation: Modulation | None = None
        self.keys_values: KeysValues | None = None


class Modulation(NamedTuple):
    """AdaLN's shift, scale and gate, each (B, 1, D); in double blocks a second time, for the feed-forward."""

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

    A condition of None is absent, or static with its keys and values in the cache. After the `last` block only the
    image counts.
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
        streams.append(keys_values(attn, normed_condition, rope_image, adapted=True))
    all_keys, all_values = join_streams(streams, step, cache, condition is not None)

    attended = attend(attn, join([query_text, query_image]), all_keys, all_values, step.bias)
    attended_text, attended_image = attended[:, : step.num_text], attended[:, step.num_text :]
    image = finish_double(block, image, attended_image, mod, step.lora_all)
    if last:
        return None, image, None
    if condition is not None:
        query = heads(attn, attn.to_q, attn.norm_q, normed_condition, rope_image, adapted=True)
        seen = streams[-1] if step.independent else (all_keys, all_values)
        attended = attend(attn, query, *seen, step.bias_condition)
        condition = finish_double(block, condition, attended, mod_condition, adapted=True)
    text = torch.addcmul(text, mod_text.gate, linear(attn.to_add_out, attended_text, step.lora_all))
    normed = modulate(block.norm2_context, text, mod_text.shift_mlp, mod_text.scale_mlp)
    fed = feed_forward(block.ff_context, normed, step.lora_all)
    text = torch.addcmul(text, mod_text.gate_mlp, fed)  # type: ignore[arg-type]
    return in_range(text), image, condition


def single_block(
    block: Any, joint: Tensor, condition: Tensor | None, step: Step,
    cache: BlockCache | None = None, last: bool = False,
) -> tuple[Tensor, Tensor | None]:  # fmt: skip
    """FluxSingleTransformerBlock: text and image are one sequence `joint` (B, T + N, D), condition (B, N, D).

    The `last` block gives the image's rows alone, (B, N, D): the others would be thrown away.
    """
    attn, wanted = block.attn, slice(step.num_text if last else 0, None)

    mod = modulation(block.norm, step.time, step.lora_all, parts=3)
    normed = modulate(block.norm.norm, joint, mod.shift, mod.scale)
    streams = [keys_values(attn, normed, step.rope, step.lora_all)]
    normed_wanted = normed[:, wanted]
    query_wanted = heads(attn, attn.to_q, attn.norm_q, normed_wanted, rows(step.rope, wanted.start), step.lora_all)

    if condition is not None:
        rope_image = rows(step.rope, step.num_text)
        mod_condition = condition_modulation(block.norm, step, cache, parts=3)
        normed_condition = modulate(block.norm.norm, condition, mod_condition.shift, mod_condition.scale)
        streams.append(keys_values(attn, normed_condition, rope_image, adapted=True))
    all_keys, all_values = join_streams(streams, step, cache, condition is not None)

    attended = attend(attn, query_wanted, all_keys, all_values, step.bias)
    joint = finish_single(block, joint[:, wanted], normed_wanted, attended, mod, step.lora_all)
    if condition is None or last:
        return joint, None
    query = heads(attn, attn.to_q, attn.norm_q, normed_condition, rope_image, adapted=True)
    seen = streams[-1] if step.independent else (all_keys, all_values)
    attended = attend(attn, query, *seen, step.bias_condition)
    return joint, finish_single(block, condition, normed_condition, attended, mod_condition, True)


# --- parts of a block, each for one stream -----------------------------------------------------------------------


def modulation(norm: Any, time: Tensor, adapted: bool, parts: int) -> Modulation:
    """AdaLN: shift, scale and gate (twice in a double block) from the embedding of the time."""
    return Modulation(*linear(norm.linear, norm.silu(time), adapted).unsqueeze(1).chunk(parts, dim=-1))


def condition_modulation(norm: Any, step: Step, cache: BlockCache | None, parts: int) -> Modulation:
    """The condition's, at time 0: the same at every step, so a cache keeps it."""
    if cache is not None and cache.modulation is not None:
        return cache.modulation
    found = modulation(norm, step.time_zero, True, parts)
    if cache is not None:
        cache.modulation = found
    return found


def modulate(norm: Any, x: Tensor, shift: Any, scale: Any) -> Tensor:
    """shift + (1 + scale) norm(x); after the norm one pass over x, not two."""
    return torch.addcmul(shift, norm(x), 1 + scale)


def heads(attn: Any, layer: Any, norm: Any, x: Tensor, rope: Rope, adapted: bool) -> Tensor:
    """(B, L, D) -> (B, L, heads, head): queries and keys are normed and turned to their positions, values are not."""
    split = linear(layer, x, adapted).unflatten(-1, (attn.heads, -1))
    return split if norm is None else rotate(norm(split), rope)


def keys_values(attn: Any, x: Tensor, rope: Rope, adapted: bool) -> KeysValues:
    """Keys and values of a stream with the image's weights."""
    return heads(attn, attn.to_k, attn.norm_k, x, rope, adapted), heads(attn, attn.to_v, None, x, rope, adapted)


def join_streams(streams: list[KeysValues], step: Step, cache: BlockCache | None, has_condition: bool) -> KeysValues:
    """Keys and values of text, image and condition, in this order, (B, T + N + N, heads, head) each.

    The rows of a static condition stay in the block's cache, and text and image are written before them.

    Raises:
        RuntimeError: the condition was left out as static, and the cache does not have it.
    """
    store = cache if step.static else None
    old = (None, None) if store is None or store.keys_values is None else store.keys_values
    if step.static and not has_condition and old[0] is None:
        raise RuntimeError("the keys and values of a static condition are gone: something has replaced a block's cache")
    keys, values = zip(*streams, strict=True)
    joined = join(list(keys), old[0]), join(list(values), old[1])
    if store is not None:
        store.keys_values = joined
    return joined


def finish_double(block: Any, x: Tensor, attended: Tensor, mod: Modulation, adapted: bool) -> Tensor:
    """Output projection and feed-forward of a stream with the image's weights, each with its gate and residual."""
    x = torch.addcmul(x, mod.gate, block.attn.to_out[1](linear(block.attn.to_out[0], attended, adapted)))
    normed = modulate(block.norm2, x, mod.shift_mlp, mod.scale_mlp)
    return torch.addcmul(x, mod.gate_mlp, feed_forward(block.ff, normed, adapted))  # type: ignore[arg-type]


def feed_forward(ff: Any, x: Tensor, adapted: bool) -> Tensor:
    """diffusers' FeedForward, layer by layer: LoRA may sit on each."""
    gelu, dropout, out = ff.net
    return linear(out, dropout(gelu.gelu(linear(gelu.proj, x, adapted))), adapted)


def finish_single(block: Any, x: Tensor, normed: Tensor, attended: Tensor, mod: Modulation, adapted: bool) -> Tensor:
    """MLP beside the attention's output, one projection of both, gate and residual."""
    joined = torch.cat([attended, block.act_mlp(linear(block.proj_mlp, normed, adapted))], dim=2)
    return in_range(torch.addcmul(x, mod.gate, linear(block.proj_out, joined, adapted)))


def in_range(x: Tensor) -> Tensor:
    """Values that float16 can hold, where diffusers' blocks clip them too: text, and all of a single block."""
    return x.clip(-65504, 65504) if x.dtype == torch.float16 else x
