"""FLUX's forward with a third stream: condition tokens beside text and image (paper section 3; OminiControl's way).

The condition tokens pass the image side's weights, at the image tokens' positions (RoPE), modulated for time 0, and
take part in the joint attention. LoRA acts on them alone, so it can never be fused into the base.

diffusers' modules do all the work. `blocks.py` says in which order, and this file puts that order *inside* their
`forward` (`install`): whatever hooks on a block or on the whole transformer (offloading, FSDP, checkpointing,
compiling) goes on working. What depends neither on the noisy latents nor on the step stays in a `RunCache` for a run.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from types import MethodType
from typing import Any

import torch
from diffusers.utils.peft_utils import scale_lora_layers, unscale_lora_layers
from torch import Tensor

from mogle.blocks import NAME, Streams, double_block, linear, rows, single_block, without_lora
from mogle.errors import MogleError

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
        return double_block(self, args[0])
    return type(self).forward(self, *args, **kwargs)


def _single_forward(self: Any, *args: Any, **kwargs: Any) -> Any:
    if args and isinstance(args[0], Streams):
        return single_block(self, args[0])
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
        with without_lora(self):
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
    on_cpu = hidden_states.device.type == "cpu"  # complex RoPE and reused memory: only where they were measured
    store: dict[str, Any] = {}
    if cached:
        store = streams["cache"].entry(encoder_hidden_states, pooled_projections, img_ids, txt_ids)
    static = cached and streams["cache"].static and independent

    image = linear(self.x_embedder, hidden_states, lora_all)
    condition = None
    if not (static and "keys" in store):
        condition = streams["condition"]
        if callable(condition):
            condition = condition(hidden_states, timestep)
        condition = linear(self.x_embedder, condition.to(hidden_states.dtype), True)

    def time_embedding(time: Tensor) -> Tensor:
        scaled = [x.to(image.dtype) * 1000 for x in (time, guidance) if x is not None]
        return self.time_text_embed(*scaled, pooled_projections)

    if "text" not in store:
        store["text"] = linear(self.context_embedder, encoder_hidden_states, lora_all)
        store["time"] = time_embedding(torch.zeros_like(timestep))
        cos, sin = self.pos_embed(torch.cat([txt_ids, img_ids], dim=0))
        # complex numbers where no gradient or compiler meets them
        store["rope"] = (torch.complex(cos, sin)[:, ::2],) if plain_run and on_cpu else (cos, sin)
    text, rope = store["text"], store["rope"]
    num_text = text.shape[1]
    s = Streams(
        text=text,
        image=image,
        condition=condition,
        time=time_embedding(timestep),
        time_zero=store["time"],
        rope=rope,
        rope_condition=rows(rope, num_text),
        bias=_bias(streams, image, num_text, condition_is_key=True),
        bias_condition=None if independent else _bias(streams, image, num_text, condition_is_key=False),
        independent=independent,
        lora_all=lora_all,
        num_text=num_text,
        last=False,
        keep=cached,
        modulation=None,
        keys=None,
        scratch=streams["cache"].scratch if cached and on_cpu else None,
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
        own_keys = known_keys[index] if static else memory
        s = s._replace(last=block is blocks[-1], modulation=known_modulations[index], keys=own_keys)
        text, image, condition, *kept = run(block, s)
        s = s._replace(text=text, image=image, condition=condition)
        modulations.append(kept[0])
        keys.append(kept[1])
        memory = kept[1] if on_cpu else None
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
