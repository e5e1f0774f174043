"""FLUX's forward with a third stream: condition tokens beside text and image (paper section 3; OminiControl's way).

The condition tokens pass the image side's weights, at the image tokens' positions (RoPE), modulated for time 0, and
take part in the joint attention. LoRA acts on them alone, so it can never be fused into the base.

diffusers' modules do all the work. This file only says in which order, and puts that order *inside* their `forward`
(`install`): whatever hooks on a block or on the whole transformer (offloading, FSDP, checkpointing, compiling) goes on
working. What depends neither on the noisy latents nor on the step is kept in a `RunCache` for one run of the sampler.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import MethodType
from typing import Any, NamedTuple

import torch
from diffusers.models.attention_dispatch import dispatch_attention_fn
from diffusers.models.embeddings import apply_rotary_emb
from diffusers.utils.peft_utils import scale_lora_layers, unscale_lora_layers
from torch import Tensor

from mogle.errors import MogleError

#: Key of the condition in `joint_attention_kwargs`, and name of the LoRA adapter that acts on condition tokens.
#: A LoRA of any other name (a style, a turbo LoRA) acts on all tokens, as it does in diffusers.
NAME = "mogle"
ATTENTION = ("union", "independent", "separate")
LORA_ON = ("condition", "all")
#: The linear layers that get a LoRA, as a regular expression over module names (343 of them in FLUX.1-dev).
LORA_TARGETS = (
    r"x_embedder"
    r"|transformer_blocks\.\d+\.(norm1\.linear|attn\.to_[qkv]|attn\.to_out\.0|ff\.net\.2)"
    r"|single_transformer_blocks\.\d+\.(norm\.linear|proj_mlp|proj_out|attn\.to_[qkv])"
)


def add_lora(
    transformer: Any,
    rank: int = 4,
    alpha: int | None = None,
    init: Any = "gaussian",
    lora_on: str = "condition",
) -> None:
    """Add fresh LoRA layers (B = 0: no effect yet) to `LORA_TARGETS`. Only they will require gradients.

    `alpha` defaults to `rank` (scaling 1); `init` is peft's `init_lora_weights`. With `lora_on="condition"` three
    layers of the last block cannot matter (the condition's queries and outputs end there unused) and are frozen:
    DistributedDataParallel waits for every gradient that is asked for.
    """
    from peft import LoraConfig

    transformer.requires_grad_(False)
    config = LoraConfig(r=rank, lora_alpha=alpha or rank, init_lora_weights=init, target_modules=LORA_TARGETS)
    transformer.add_adapter(config, adapter_name=NAME)
    train_lora(transformer, lora_on)


def train_lora(transformer: Any, lora_on: str = "condition") -> list[torch.nn.Parameter]:
    """Ask for gradients of the LoRA layers that can have one, and of nothing else -> those parameters."""
    transformer.requires_grad_(False)
    idle: set[torch.nn.Parameter] = set()
    if lora_on == "condition" and len(transformer.single_transformer_blocks):
        last = transformer.single_transformer_blocks[-1]
        idle = {p for layer in (last.attn.to_q, last.proj_mlp, last.proj_out) for p in layer.parameters()}
    wanted = [p for name, p in transformer.named_parameters() if "lora_" in name and p not in idle]
    for parameter in wanted:
        parameter.requires_grad_(True)
    return wanted


class RunCache:
    """What stays the same over the steps of one run: embedded text, positions, the condition's modulations; and memory
    that each step writes over, as asking for it anew costs a CPU more than the writing.

    `static=True` promises that the condition stream itself stays the same (attention "independent" and a gate that
    depends on places alone): then its keys and values stay in that memory, and later steps do not compute the stream.
    """

    def __init__(self, static: bool = False):
        self.static = static
        self.scratch: dict[Any, Tensor] = {}
        self._entries: list[tuple[tuple, dict[Any, Any]]] = []

    def entry(self, *tensors: Tensor | None) -> dict[Any, Any]:
        """The store that belongs to just these tensors, unchanged since. Two are kept: prompt and negative prompt."""
        key = tuple((t, None if t is None or t.is_inference() else t._version) for t in tensors)
        for known, store in self._entries:
            if all(a is b and m == n for (a, m), (b, n) in zip(known, key, strict=True)):
                return store
        self._entries = [*self._entries[-1:], (key, {})]
        return self._entries[-1][1]


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
    scratch: dict[Any, Tensor] | None  # memory for what a block forgets


#: Output of one block: text, image, condition, and, if kept, the condition's modulation, and all keys and values.
BlockOutput = tuple[Tensor | None, Tensor, Tensor | None, Any, Any]


# --- linear layers with LoRA, one stream at a time ---------------------------------------------------------------


def _linear(layer: Any, x: Tensor, adapted: bool) -> Tensor:
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
def _without_lora(transformer: Any) -> Iterator[None]:
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
    return _linear(norm.linear, norm.silu(time), adapted).unsqueeze(1).chunk(parts, dim=-1)


def _modulate(norm: Any, x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return torch.addcmul(shift, norm(x), 1 + scale)  # one pass over x where * and + take two


def _heads(attn: Any, layer: Any, norm: Any, x: Tensor, rope: Any, adapted: bool) -> Tensor:
    """(B, L, D) -> (B, L, heads, head): queries and keys are normed and turned to their positions, values are not."""
    heads: Any = _linear(layer, x, adapted).unflatten(-1, (attn.heads, -1))
    if norm is None:
        return heads
    if len(rope) == 1:
        return apply_rotary_emb(norm(heads), rope[0][None], use_real=False)
    return apply_rotary_emb(norm(heads), rope, sequence_dim=1)


def _rows(rope: Rope, start: int, stop: int | None = None) -> Rope:
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


def _double_block(block: Any, s: Streams) -> BlockOutput:
    """FluxTransformerBlock.forward with a third stream."""
    assert s.text is not None
    attn = block.attn
    rope_text, rope_image = _rows(s.rope, 0, s.num_text), _rows(s.rope, s.num_text)

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
    text = torch.addcmul(s.text, text_mod[2], _linear(attn.to_add_out, attended[:, : s.num_text], s.lora_all))
    hidden = _modulate(block.norm2_context, text, text_mod[3], text_mod[4])
    text = _clip(torch.addcmul(text, text_mod[5], _feed_forward(block.ff_context, hidden, s.lora_all)))
    if condition is not None:
        query = _heads(attn, attn.to_q, attn.norm_q, condition, s.rope_condition, True)
        attended = _attend_condition(attn, query, keys, all_keys, s)
        condition = _finish_double(block, s.condition, attended, mod_condition, True)
    return text, image, condition, *_kept(s, mod_condition, all_keys)


def _finish_double(block: Any, x: Any, attended: Tensor, mod: tuple[Tensor, ...], adapted: bool) -> Tensor:
    """Output projection and feed-forward of one image-side stream, with their residuals."""
    x = torch.addcmul(x, mod[2], block.attn.to_out[1](_linear(block.attn.to_out[0], attended, adapted)))
    return torch.addcmul(x, mod[5], _feed_forward(block.ff, _modulate(block.norm2, x, mod[3], mod[4]), adapted))


def _feed_forward(ff: Any, x: Tensor, adapted: bool) -> Tensor:
    gelu, dropout, out = ff.net
    return _linear(out, dropout(gelu.gelu(_linear(gelu.proj, x, adapted))), adapted)


def _single_block(block: Any, s: Streams) -> BlockOutput:
    """FluxSingleTransformerBlock.forward with a third stream; text and image are one."""
    attn, cut = block.attn, s.num_text if s.last else 0
    mod = _modulation(block.norm, s.time, s.lora_all, 3)
    rest = _modulate(block.norm.norm, s.image, mod[0], mod[1])
    rest_keys = _keys(attn, rest, s.rope, s.lora_all)
    rest = rest[:, cut:]  # the last block's text rows would be thrown away
    query = _heads(attn, attn.to_q, attn.norm_q, rest, _rows(s.rope, cut), s.lora_all)

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
    """Feed-forward and output projection of one stream, with its residual."""
    hidden = _linear(block.proj_mlp, normed, adapted)
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
    return _clip(torch.addcmul(x, mod[2], _linear(block.proj_out, joined, adapted)))


# --- the whole transformer ---------------------------------------------------------------------------------------


def forward_streams(
    transformer: Any,
    hidden_states: Tensor,
    condition_states: Tensor | Callable[[Tensor, Tensor], Tensor] | None,
    encoder_hidden_states: Tensor,
    pooled_projections: Tensor,
    timestep: Tensor,
    guidance: Tensor | None,
    img_ids: Tensor,
    txt_ids: Tensor,
    *,
    attention: str = "union",
    conditioning_scale: float = 1.0,
    lora_on: str = "condition",
    condition_mask: Tensor | None = None,
    cache: RunCache | None = None,
) -> Tensor:
    """The velocity that the transformer predicts with a condition stream. Differentiable; dtype and device as given.

    Args:
        transformer: a FluxTransformer2DModel, or a wrapper around one (DDP, FSDP), with or without LoRA layers.
        hidden_states: (B, N, 64) noisy latents.
        condition_states: (B, M, 64) fused tokens, M = N; or what makes them from (hidden_states, timestep); or None:
            then the transformer's own forward runs.
        encoder_hidden_states, pooled_projections: text embeddings (B, T, ...) and (B, ...).
        timestep: (B,) in [0, 1]; guidance: (B,) or None for a base without guidance embedding.
        img_ids, txt_ids: (N, 3) and (T, 3) positions. The condition has the image's.
        attention: "union": all tokens see each other; "independent": condition queries see the condition alone;
            "separate": condition and rest do not see each other, so the velocity is the unconditioned one.
        conditioning_scale: s >= 0; log(s) is added to the logits between condition and rest, both ways. 0 means
            "separate".
        lora_on: "condition", or "all": LoRA on image tokens too, in single blocks also on text tokens.
        condition_mask: bool (B,), False for samples whose condition is to be ignored.
        cache: of one run of a sampler; see `RunCache`.
    """
    install(transformer)
    streams = {
        "condition": condition_states,
        "attention": attention,
        "conditioning_scale": conditioning_scale,
        "lora_on": lora_on,
        "condition_mask": condition_mask,
        "cache": cache,
    }
    return transformer(
        hidden_states=hidden_states,
        encoder_hidden_states=encoder_hidden_states,
        pooled_projections=pooled_projections,
        timestep=timestep,
        guidance=guidance,
        img_ids=img_ids,
        txt_ids=txt_ids,
        joint_attention_kwargs={NAME: streams},
        return_dict=False,
    )[0]


def install(transformer: Any) -> None:
    """Teach a FluxTransformer2DModel, once, the key "mogle" in `joint_attention_kwargs`. Without it nothing changes.

    The forwards are replaced innermost, under any hook that is there already or comes later.
    """
    while not hasattr(transformer, "single_transformer_blocks"):
        transformer = transformer.module  # DDP and the like
    if getattr(transformer, "_has_streams", False):
        return
    for module, forward in (
        (transformer, _transformer_forward),
        *((block, _double_forward) for block in transformer.transformer_blocks),
        *((block, _single_forward) for block in transformer.single_transformer_blocks),
    ):
        bound = MethodType(forward, module)
        registry = getattr(module, "_diffusers_hook", None)
        if registry is not None and registry._fn_refs:
            registry._fn_refs[0].forward = bound
        elif hasattr(module, "_hf_hook"):
            module._old_forward = bound
        else:
            module.forward = bound
    transformer._has_streams = True


def _double_forward(self: Any, *args: Any, **kwargs: Any) -> Any:
    if args and isinstance(args[0], Streams):
        return _double_block(self, args[0])
    return type(self).forward(self, *args, **kwargs)


def _single_forward(self: Any, *args: Any, **kwargs: Any) -> Any:
    if args and isinstance(args[0], Streams):
        return _single_block(self, args[0])
    return type(self).forward(self, *args, **kwargs)


def _transformer_forward(self: Any, *args: Any, **kwargs: Any) -> Any:
    """Plain forward without our key; with it, the condition stream (or none, if there is nothing to condition on)."""
    others = dict(kwargs.get("joint_attention_kwargs") or {})
    streams = others.pop(NAME, None)
    if streams is None:
        return type(self).forward(self, *args, **kwargs)
    check_options(streams["attention"], streams["conditioning_scale"], streams["lora_on"])
    if streams["condition"] is None or streams["attention"] == "separate" or streams["conditioning_scale"] == 0:
        kwargs["joint_attention_kwargs"] = others
        if streams["lora_on"] == "all":
            return type(self).forward(self, *args, **kwargs)
        with _without_lora(self):
            return type(self).forward(self, *args, **kwargs)

    return_dict = kwargs.pop("return_dict", True)
    lora_scale = others.pop("scale", 1.0)
    unknown = [*others, *(k for k in kwargs if k.startswith("controlnet") and kwargs[k] not in (None, False))]
    if unknown or args:
        raise MogleError(f"not supported together with a mask: {', '.join(unknown) or 'positional arguments'}")
    scale_lora_layers(self, lora_scale)
    try:
        velocity = _forward(self, streams, **{k: v for k, v in kwargs.items() if k != "joint_attention_kwargs"})
    finally:
        unscale_lora_layers(self, lora_scale)
    if not return_dict:
        return (velocity,)
    from diffusers.models.modeling_outputs import Transformer2DModelOutput

    return Transformer2DModelOutput(sample=velocity)


def check_options(attention: str, conditioning_scale: float, lora_on: str) -> None:
    """MogleError unless the three options are among those that exist."""
    if attention not in ATTENTION:
        raise MogleError(f"attention={attention!r}: expected one of {', '.join(map(repr, ATTENTION))}")
    if lora_on not in LORA_ON:
        raise MogleError(f"lora_on={lora_on!r}: expected one of {', '.join(map(repr, LORA_ON))}")
    if not 0 <= conditioning_scale < math.inf:
        raise MogleError(f"conditioning_scale={conditioning_scale}: expected a finite number, at least 0")


def _forward(
    self: Any,
    streams: dict[str, Any],
    hidden_states: Tensor,
    encoder_hidden_states: Tensor,
    pooled_projections: Tensor,
    timestep: Tensor,
    img_ids: Tensor,
    txt_ids: Tensor,
    guidance: Tensor | None = None,
    **_: Any,
) -> Tensor:
    lora_all = streams["lora_on"] == "all"
    independent = streams["attention"] == "independent"
    plain_run = not torch.is_grad_enabled() and not torch.compiler.is_compiling()
    # while the whole transformer is being compiled there is no looking at which tensors are the last call's
    cached = plain_run and streams["cache"] is not None
    store: dict[str, Any] = {}
    if cached:
        store = streams["cache"].entry(encoder_hidden_states, pooled_projections, img_ids, txt_ids)
    static = cached and streams["cache"].static and independent

    image = _linear(self.x_embedder, hidden_states, lora_all)
    condition = None
    if not (static and "keys" in store):
        condition = streams["condition"]
        if callable(condition):
            condition = condition(hidden_states, timestep)
        condition = _linear(self.x_embedder, condition.to(hidden_states.dtype), True)

    def time_embedding(time: Tensor) -> Tensor:
        scaled = [x.to(image.dtype) * 1000 for x in (time, guidance) if x is not None]
        return self.time_text_embed(*scaled, pooled_projections)

    if "text" not in store:
        store["text"] = _linear(self.context_embedder, encoder_hidden_states, lora_all)
        store["time"] = time_embedding(torch.zeros_like(timestep))
        cos, sin = self.pos_embed(torch.cat([txt_ids, img_ids], dim=0))
        # complex numbers only where they were measured to be faster, and no gradient or compiler meets them
        store["rope"] = (torch.complex(cos, sin)[:, ::2],) if plain_run and cos.device.type == "cpu" else (cos, sin)
    text, rope = store["text"], store["rope"]
    num_text = text.shape[1]
    s = Streams(
        text=text,
        image=image,
        condition=condition,
        time=time_embedding(timestep),
        time_zero=store["time"],
        rope=rope,
        rope_condition=_rows(rope, num_text),
        bias=_bias(streams, image, num_text, condition_is_key=True),
        bias_condition=None if independent else _bias(streams, image, num_text, condition_is_key=False),
        independent=independent,
        lora_all=lora_all,
        num_text=num_text,
        last=False,
        keep=cached,
        modulation=None,
        keys=None,
        scratch=streams["cache"].scratch if cached else None,
    )

    def run(block: Any, s: Streams) -> Any:
        if torch.is_grad_enabled() and self.gradient_checkpointing:
            return self._gradient_checkpointing_func(block, s)
        return block(s)

    blocks = [*self.transformer_blocks, *self.single_transformer_blocks]
    nothing = [None] * len(blocks)
    known_modulations, known_keys = store.get("modulations", nothing), store.get("keys", nothing)
    memory = store.get("memory")  # where keys are new in each block, one block after the other writes them here
    modulations, keys = [], []
    for index, block in enumerate(blocks):
        if index == len(self.transformer_blocks):
            s = s._replace(text=None, image=torch.cat([s.text, s.image], dim=1))  # type: ignore[list-item]
        s = s._replace(last=block is blocks[-1], modulation=known_modulations[index])
        s = s._replace(keys=known_keys[index] if static else memory)
        text, image, condition, *kept = run(block, s)
        s = s._replace(text=text, image=image, condition=condition)
        modulations.append(kept[0])
        keys.append(kept[1])
        memory = kept[1]
    if cached:
        store["modulations"] = modulations
        store.update({"keys": keys} if static else {"memory": memory})
    return self.proj_out(self.norm_out(s.image, s.time))


def _bias(streams: dict[str, Any], image: Tensor, num_text: int, condition_is_key: bool) -> Tensor | None:
    """What is added to the logits of text and image queries (for condition keys), or of condition queries (for
    text and image keys): log(s) everywhere across the border, -inf on the condition of samples without one."""
    scale, mask = streams["conditioning_scale"], streams["condition_mask"]
    across = image.new_full((1, 1, 1, 1), math.log(scale), dtype=torch.float32)
    if condition_is_key and mask is not None:
        across = across.masked_fill(~mask.to(image.device)[:, None, None, None], -math.inf)
    elif scale == 1:
        return None
    num_image = image.shape[1]
    across = across.expand(-1, -1, -1, num_image if condition_is_key else num_text + num_image)
    same = across.new_zeros(across.shape[0], 1, 1, num_text + num_image if condition_is_key else num_image)
    return torch.cat([same, across] if condition_is_key else [across, same], dim=-1)
