"""One block of FLUX with a third stream of tokens: diffusers' modules, called in our order.

`transformer.py` puts these in the place of the blocks' own forwards and walks through them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from diffusers.models.attention_dispatch import dispatch_attention_fn
from diffusers.models.embeddings import apply_rotary_emb
from torch import Tensor

from mogle.errors import MogleError

#: Key of the condition in `joint_attention_kwargs`, and name of the LoRA adapter that acts on condition tokens.
#: A LoRA of any other name (a style, a turbo LoRA) acts on all tokens, as it does in diffusers.
NAME = "mogle"

#: Positions: (cos, sin), each (L, head), or (cos + i sin,) of (L, head / 2), which turns in one pass instead of five.
Rope = tuple[Tensor, ...]


class Streams(NamedTuple):
    """Input of one block. B samples, T text, N image, M condition tokens, width D."""

    text: Tensor | None  # (B, T, D); None in single blocks, where it stands before the image tokens in `image`
    image: Tensor  # (B, N, D), in single blocks (B, T + N, D)
    condition: Tensor | None  # (B, M, D); None where kept keys and values take its place
    time: Tensor  # (B, D) embedding of time, guidance and pooled text, for text and image
    time_zero: Tensor | None  # the same at t = 0, for the condition
    rope: Rope  # of text and image, T + N rows
    rope_condition: Rope  # M rows
    bias: Tensor | None  # (B or 1, 1, 1, T + N + M) added to the logits of text and image queries
    bias_condition: Tensor | None  # the same for condition queries
    independent: bool  # condition queries see condition keys only
    lora_all: bool  # LoRA on text and image tokens too
    num_text: int  # T
    last: bool  # only the image tokens are wanted
    keep: bool  # return the condition's modulation and all keys and values, for the next steps
    modulation: tuple[Tensor, ...] | None  # the condition's, kept from an earlier step
    keys: tuple[Tensor, Tensor] | None  # memory for all keys and values; without `condition` it holds its rows already
    scratch: dict[Any, Tensor] | None  # memory for what a block forgets, kept by size


#: Output of one block: text, image, condition, and, if kept, the condition's modulation, and all keys and values.
BlockOutput = tuple[Tensor | None, Tensor, Tensor | None, Any, Any]


# --- linear layers with LoRA, one stream at a time ---------------------------------------------------------------


def linear(layer: Any, x: Tensor, adapted: bool) -> Tensor:
    """`layer(x)`, with our LoRA only if `adapted`. peft's layers decide nothing here: they only hold the weights."""
    if not hasattr(layer, "lora_A"):
        return layer(x)
    if NAME in layer.merged_adapters:
        raise MogleError("the LoRA is fused into the base; it must act on condition tokens alone: call unfuse_lora()")
    out = layer.base_layer(x)
    for name in () if layer.disable_adapters else layer.active_adapters:
        if name not in layer.lora_A or (name == NAME and not adapted):
            continue
        if name in layer.lora_variant:
            raise MogleError(f"LoRA {name!r} is a {type(layer.lora_variant[name]).__name__}; expected a plain LoRA")
        down, up = layer.lora_A[name], layer.lora_B[name]
        low = down(layer.lora_dropout[name](x.to(down.weight.dtype))) * layer.scaling[name]
        out = out + up(low).to(out.dtype)
    return out


@contextmanager
def without_lora(transformer: Any) -> Iterator[None]:
    """Our LoRA taken out of every layer's active adapters, for a forward of the transformer's own."""
    layers = [m for m in transformer.modules() if hasattr(m, "lora_A") and NAME in m.active_adapters]
    before = [layer._active_adapter for layer in layers]
    for layer in layers:
        layer._active_adapter = [name for name in layer.active_adapters if name != NAME]
    try:
        yield
    finally:
        for layer, active in zip(layers, before, strict=True):
            layer._active_adapter = active


# --- one block ---------------------------------------------------------------------------------------------------


def _modulation(norm: Any, time: Any, adapted: bool, parts: int) -> tuple[Tensor, ...]:
    """AdaLN: shift, scale, gate (twice in a double block), each (B, 1, D)."""
    return linear(norm.linear, norm.silu(time), adapted).unsqueeze(1).chunk(parts, dim=-1)


def _modulate(norm: Any, x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return torch.addcmul(shift, norm(x), 1 + scale)  # one pass over x where * and + take two


def _heads(attn: Any, layer: Any, norm: Any, x: Tensor, rope: Any, adapted: bool) -> Tensor:
    """(B, L, D) -> (B, L, heads, head): queries and keys are normed and turned to their positions, values are not."""
    heads: Any = linear(layer, x, adapted).unflatten(-1, (attn.heads, -1))
    if norm is None:
        return heads
    if len(rope) == 1:
        return apply_rotary_emb(norm(heads), rope[0][None], use_real=False)
    return apply_rotary_emb(norm(heads), rope, sequence_dim=1)


def rows(rope: Rope, start: int, stop: int | None = None) -> Rope:
    """The positions of some of the tokens."""
    return tuple(part[start:stop] for part in rope)


def _keys(attn: Any, x: Tensor, rope: Any, adapted: bool) -> tuple[Tensor, Tensor]:
    return _heads(attn, attn.to_k, attn.norm_k, x, rope, adapted), _heads(attn, attn.to_v, None, x, rope, adapted)


def _join(*parts: Tensor, memory: Tensor | None = None) -> Tensor:
    """(B, L, heads, head) each -> (B, all L, heads, head), laid out head by head: a CPU attends a tenth faster so.

    Written into `memory`, an earlier result, if given; rows beyond the parts' stay.
    """
    if memory is None:
        return torch.cat([part.transpose(1, 2) for part in parts], dim=2).transpose(1, 2)
    start = 0
    for part in parts:
        memory[:, start : start + part.shape[1]] = part
        start += part.shape[1]
    return memory


def _join_keys(s: Streams, *parts: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor]:
    """Keys and values of text, image and condition, each in one; without the condition's they are in `s.keys`."""
    keys, values = zip(*(part for part in parts if part is not None), strict=True)
    memory = s.keys or (None, None)
    return _join(*keys, memory=memory[0]), _join(*values, memory=memory[1])


def _attend(attn: Any, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None) -> Tensor:
    """(B, L, heads, head) -> (B, L, D), by the attention backend that the user has chosen in diffusers."""
    processor = attn.processor
    backend, parallel = getattr(processor, "_attention_backend", None), getattr(processor, "_parallel_config", None)
    bias = None if bias is None else bias.to(query.dtype)
    out = dispatch_attention_fn(query, key, value, attn_mask=bias, backend=backend, parallel_config=parallel)
    return out.flatten(2, 3).to(query.dtype)


def _attend_condition(attn: Any, query: Tensor, keys: Any, all_keys: Any, s: Streams) -> Tensor:
    """Attention of the condition queries: over everything, or over the condition alone."""
    key, value = keys if s.independent else all_keys
    return _attend(attn, query, key, value, s.bias_condition)


def _kept(s: Streams, modulation: Any, keys: Any) -> tuple[Any, Any]:
    return (modulation, keys) if s.keep else (None, None)


def _clip(x: Tensor) -> Tensor:
    return x.clip(-65504, 65504) if x.dtype == torch.float16 else x


def double_block(block: Any, s: Streams) -> BlockOutput:
    """FluxTransformerBlock.forward with a third stream."""
    assert s.text is not None
    attn = block.attn
    rope_text, rope_image = rows(s.rope, 0, s.num_text), rows(s.rope, s.num_text)

    text_mod = _modulation(block.norm1_context, s.time, s.lora_all, 6)
    text = _modulate(block.norm1_context.norm, s.text, text_mod[0], text_mod[1])
    query_text = _heads(attn, attn.add_q_proj, attn.norm_added_q, text, rope_text, s.lora_all)
    text_keys = (
        _heads(attn, attn.add_k_proj, attn.norm_added_k, text, rope_text, s.lora_all),
        _heads(attn, attn.add_v_proj, None, text, rope_text, s.lora_all),
    )

    mod = _modulation(block.norm1, s.time, s.lora_all, 6)
    image = _modulate(block.norm1.norm, s.image, mod[0], mod[1])
    query = _join(query_text, _heads(attn, attn.to_q, attn.norm_q, image, rope_image, s.lora_all))
    image_keys = _keys(attn, image, rope_image, s.lora_all)

    condition, keys, mod_condition = None, None, s.modulation or ()
    if s.condition is not None:
        mod_condition = mod_condition or _modulation(block.norm1, s.time_zero, True, 6)
        condition = _modulate(block.norm1.norm, s.condition, mod_condition[0], mod_condition[1])
        keys = _keys(attn, condition, s.rope_condition, True)
    all_keys = _join_keys(s, text_keys, image_keys, keys)

    attended = _attend(attn, query, all_keys[0], all_keys[1], s.bias)
    image = _finish_double(block, s.image, attended[:, s.num_text :], mod, s.lora_all)
    if s.last:
        return None, image, None, *_kept(s, mod_condition, all_keys)
    text = torch.addcmul(s.text, text_mod[2], linear(attn.to_add_out, attended[:, : s.num_text], s.lora_all))
    hidden = _modulate(block.norm2_context, text, text_mod[3], text_mod[4])
    text = _clip(torch.addcmul(text, text_mod[5], _feed_forward(block.ff_context, hidden, s.lora_all)))
    if condition is not None:
        query = _heads(attn, attn.to_q, attn.norm_q, condition, s.rope_condition, True)
        attended = _attend_condition(attn, query, keys, all_keys, s)
        condition = _finish_double(block, s.condition, attended, mod_condition, True)
    return text, image, condition, *_kept(s, mod_condition, all_keys)


def _finish_double(block: Any, x: Any, attended: Tensor, mod: tuple[Tensor, ...], adapted: bool) -> Tensor:
    """Output projection and feed-forward of one image-side stream, with their residuals."""
    x = torch.addcmul(x, mod[2], block.attn.to_out[1](linear(block.attn.to_out[0], attended, adapted)))
    return torch.addcmul(x, mod[5], _feed_forward(block.ff, _modulate(block.norm2, x, mod[3], mod[4]), adapted))


def _feed_forward(ff: Any, x: Tensor, adapted: bool) -> Tensor:
    gelu, dropout, out = ff.net
    return linear(out, dropout(gelu.gelu(linear(gelu.proj, x, adapted))), adapted)


def single_block(block: Any, s: Streams) -> BlockOutput:
    """FluxSingleTransformerBlock.forward with a third stream; text and image are one."""
    attn, cut = block.attn, s.num_text if s.last else 0
    mod = _modulation(block.norm, s.time, s.lora_all, 3)
    rest = _modulate(block.norm.norm, s.image, mod[0], mod[1])
    rest_keys = _keys(attn, rest, s.rope, s.lora_all)
    rest = rest[:, cut:]  # the last block's text rows would be thrown away
    query = _heads(attn, attn.to_q, attn.norm_q, rest, rows(s.rope, cut), s.lora_all)

    condition, keys, mod_condition = None, None, s.modulation or ()
    if s.condition is not None:
        mod_condition = mod_condition or _modulation(block.norm, s.time_zero, True, 3)
        condition = _modulate(block.norm.norm, s.condition, mod_condition[0], mod_condition[1])
        keys = _keys(attn, condition, s.rope_condition, True)
    all_keys = _join_keys(s, rest_keys, keys)

    attended = _attend(attn, query, all_keys[0], all_keys[1], s.bias)
    image = _finish_single(block, s.image[:, cut:], rest, attended, mod, s.lora_all, s.scratch)
    if s.last:
        return None, image, None, *_kept(s, mod_condition, all_keys)
    if condition is not None:
        query = _heads(attn, attn.to_q, attn.norm_q, condition, s.rope_condition, True)
        attended = _attend_condition(attn, query, keys, all_keys, s)
        condition = _finish_single(block, s.condition, condition, attended, mod_condition, True, s.scratch)
    return None, image, condition, *_kept(s, mod_condition, all_keys)


def _finish_single(
    block: Any, x: Any, normed: Tensor, attended: Tensor, mod: tuple[Tensor, ...], adapted: bool, scratch: Any
) -> Tensor:
    """Feed-forward and output projection of one stream, with its residual; in `scratch` if there is one."""
    hidden = linear(block.proj_mlp, normed, adapted)
    if scratch is None or torch.compiler.is_compiling() or attended.dtype != hidden.dtype:
        joined = torch.cat([attended, block.act_mlp(hidden)], dim=2)
    else:
        width = attended.shape[2]
        shape = (*hidden.shape[:2], width + hidden.shape[2])
        key = (shape, hidden.dtype, hidden.device)
        if key not in scratch:
            scratch[key] = hidden.new_empty(shape)
        joined = scratch[key]
        joined[..., :width] = attended
        torch.ops.aten.gelu.out(hidden, approximate=block.act_mlp.approximate, out=joined[..., width:])
    return _clip(torch.addcmul(x, mod[2], linear(block.proj_out, joined, adapted)))
