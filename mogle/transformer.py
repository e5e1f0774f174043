"""FLUX's transformer with a condition stream: tokens -> blocks -> velocity (paper section 3.3).

`forward_streams` walks text, noisy image and condition through the blocks of `blocks.py`. `install` puts that walk
*inside* the forward of diffusers' transformer and blocks: whatever hooks on them (offloading, FSDP, checkpointing,
compiling) goes on working, and without a condition nothing changes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from types import MethodType
from typing import Any

import torch
from diffusers.utils.peft_utils import scale_lora_layers, unscale_lora_layers
from torch import Tensor

from mogle.attention import Scratch, on_cpu_without_gradients, positions
from mogle.blocks import Step, double_block, single_block
from mogle.errors import MogleError
from mogle.lora import NAME, linear, unwrapped, without_lora

ATTENTION = ("union", "independent", "separate")
LORA_ON = ("condition", "all")


@dataclass(frozen=True, eq=False)
class Condition:
    """The second stream of one call, and how it acts.

    Attributes:
        tokens: (B, N, 64) fused tokens; or what makes them from (noisy latents, time); None: there is no condition.
        attention: "union": all tokens see each other; "independent": condition queries see the condition alone;
            "separate": condition and rest do not see each other, so the velocity is the unconditioned one.
        scale: s >= 0; log(s) is added to the logits between condition and rest, both ways. 0 means "separate".
        lora_on: "condition", or "all": LoRA on image tokens too, in single blocks also on text tokens.
        mask: bool (B,), False for samples whose condition is to be ignored; None: it acts on all.
        guidance: w in v = v(text) + w (v(text, condition) - v(text)). 1 is the method as published, in one forward;
            other values, which are this project's addition, take two.
        cache: of one run of a sampler.

    Raises:
        MogleError: an option that does not exist, or a number out of range.
    """

    tokens: Tensor | Callable[[Tensor, Tensor], Tensor] | None
    attention: str = "union"
    scale: float = 1.0
    lora_on: str = "condition"
    mask: Tensor | None = None
    guidance: float = 1.0
    cache: ConditionCache | None = None

    def __post_init__(self) -> None:
        if self.attention not in ATTENTION:
            raise MogleError(f"attention={self.attention!r}: expected one of {', '.join(map(repr, ATTENTION))}")
        if self.lora_on not in LORA_ON:
            raise MogleError(f"lora_on={self.lora_on!r}: expected one of {', '.join(map(repr, LORA_ON))}")
        if not 0 <= self.scale < math.inf:
            raise MogleError(f"conditioning_scale={self.scale}: expected a finite number, at least 0")
        if not 0 <= self.guidance < math.inf:
            raise MogleError(f"mask_guidance={self.guidance}: expected a finite number, at least 0")

    @property
    def acts(self) -> bool:
        """Whether the velocity depends on the tokens at all."""
        return self.tokens is not None and self.attention != "separate" and self.scale > 0 and self.guidance > 0


class ConditionCache:
    """What stays the same over the steps of one run: embedded text, positions, the condition's modulations.

    `static=True` promises that the condition stream itself stays the same (attention "independent" and a gate that
    depends on places alone): then its keys and values are kept too, and later steps do not compute the stream.
    """

    def __init__(self, static: bool = False):
        self.static = static
        self._known: list[tuple[tuple, dict[str, Any]]] = []

    def of(self, *tensors: Tensor | None) -> dict[str, Any]:
        """The store that belongs to just these tensors, unchanged since. Two are kept: prompt and negative prompt."""
        key = tuple((t, None if t is None or t.is_inference() else t._version) for t in tensors)
        for known, store in self._known:
            if all(a is b and m == n for (a, m), (b, n) in zip(known, key, strict=True)):
                return store
        self._known = [*self._known[-1:], (key, {})]
        return self._known[-1][1]


NOTHING = Condition(None)  # what pipelines that know no masks ask for


def forward_streams(
    transformer: Any,
    hidden_states: Tensor,
    condition: Condition,
    encoder_hidden_states: Tensor,
    pooled_projections: Tensor,
    timestep: Tensor,
    guidance: Tensor | None,
    img_ids: Tensor,
    txt_ids: Tensor,
) -> Tensor:
    """The velocity (B, N, 64) that the transformer predicts. Differentiable; dtype and device as given.

    Args:
        transformer: a FluxTransformer2DModel, or a wrapper around one (DDP, FSDP), with or without LoRA layers.
        hidden_states: (B, N, 64) noisy latents.
        encoder_hidden_states, pooled_projections: text embeddings (B, T, ...) and (B, ...).
        timestep: (B,) in [0, 1]; guidance: (B,) or None for a base without guidance embedding.
        img_ids, txt_ids: (N, 3) and (T, 3) positions. The condition has the image's.
    """
    install(transformer)
    return transformer(
        hidden_states=hidden_states,
        encoder_hidden_states=encoder_hidden_states,
        pooled_projections=pooled_projections,
        timestep=timestep,
        guidance=guidance,
        img_ids=img_ids,
        txt_ids=txt_ids,
        joint_attention_kwargs={NAME: condition},
        return_dict=False,
    )[0]


def install(transformer: Any) -> None:
    """Teach a FluxTransformer2DModel, once, the key "mogle" in `joint_attention_kwargs`. Without it nothing changes.

    The forwards are replaced innermost, under any hook that is there already or comes later.
    """
    transformer = unwrapped(transformer)
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
    if len(args) > 3 and isinstance(args[3], Step):
        return double_block(self, *args)
    return type(self).forward(self, *args, **kwargs)


def _single_forward(self: Any, *args: Any, **kwargs: Any) -> Any:
    if len(args) > 3 and isinstance(args[3], Step):
        return single_block(self, *args)
    return type(self).forward(self, *args, **kwargs)


def _transformer_forward(self: Any, *args: Any, **kwargs: Any) -> Any:
    """diffusers' forward where nothing is conditioned on (other pipelines on the same network, too); else the walk."""
    others = dict(kwargs.get("joint_attention_kwargs") or {})
    condition = others.pop(NAME, NOTHING)
    if not condition.acts:
        return _unconditioned(self, condition, args, {**kwargs, "joint_attention_kwargs": others})

    unknown = [k for k in kwargs if k.startswith("controlnet") and kwargs[k] not in (None, False)]
    lora_scale = others.get("scale", 1.0)
    unknown += [name for name in others if name != "scale"]
    if unknown or args:
        raise MogleError(f"not supported together with a mask: {', '.join(unknown) or 'positional arguments'}")
    inputs = {name: value for name, value in kwargs.items() if name not in ("joint_attention_kwargs", "return_dict")}
    if lora_scale != 1:
        scale_lora_layers(self, lora_scale)
    try:
        velocity = walk(self, condition, **inputs)
    finally:
        if lora_scale != 1:
            unscale_lora_layers(self, lora_scale)
    if condition.guidance != 1:
        plain = {**inputs, "joint_attention_kwargs": others, "return_dict": False}
        velocity = torch.lerp(_unconditioned(self, condition, (), plain)[0], velocity, condition.guidance)
    if not kwargs.get("return_dict", True):
        return (velocity,)
    from diffusers.models.modeling_outputs import Transformer2DModelOutput

    return Transformer2DModelOutput(sample=velocity)


def _unconditioned(self: Any, condition: Condition, args: tuple, kwargs: dict[str, Any]) -> Any:
    """diffusers' own forward; our LoRA stays away from it unless it is meant for all tokens."""
    if condition.lora_on == "all":
        return type(self).forward(self, *args, **kwargs)
    with without_lora(self):
        return type(self).forward(self, *args, **kwargs)


def walk(
    self: Any,
    condition: Condition,
    hidden_states: Tensor,
    encoder_hidden_states: Tensor,
    pooled_projections: Tensor,
    timestep: Tensor,
    img_ids: Tensor,
    txt_ids: Tensor,
    guidance: Tensor | None = None,
    **_: Any,
) -> Tensor:
    """FluxTransformer2DModel.forward with three streams, or with two where the condition has no tokens.

    Arguments as `forward_streams` has them. Compiles to one graph; hooks on the whole transformer are not called.
    """
    lora_all, independent = condition.lora_on == "all", condition.attention == "independent"
    cache = condition.cache if not torch.is_grad_enabled() and not torch.compiler.is_compiling() else None
    kept: dict[str, Any] = {}
    if cache is not None:
        kept = cache.of(encoder_hidden_states, pooled_projections, img_ids, txt_ids)
    static = cache is not None and cache.static and independent
    blocks = [*self.transformer_blocks, *self.single_transformer_blocks]

    image = linear(self.x_embedder, hidden_states, lora_all)
    if "text" not in kept:
        kept["text"] = linear(self.context_embedder, encoder_hidden_states, lora_all)
        kept["time zero"] = _time(self, torch.zeros_like(timestep), guidance, pooled_projections, image)
        kept["rope"] = positions(self, txt_ids, img_ids, image)
        kept["scratch"] = Scratch() if cache is not None and on_cpu_without_gradients(image) else None
        kept["blocks"] = [None if cache is None else {} for _ in blocks]
        kept["condition is known"] = False
    tokens, stream = condition.tokens, None
    if tokens is not None and not kept["condition is known"]:
        tokens = tokens if isinstance(tokens, Tensor) else tokens(hidden_states, timestep)
        stream = linear(self.x_embedder, tokens.to(hidden_states.dtype), True)
    text: Tensor | None = kept["text"]
    num_text = kept["text"].shape[1]
    step = Step(
        time=_time(self, timestep, guidance, pooled_projections, image),
        time_zero=kept["time zero"],
        rope=kept["rope"],
        num_text=num_text,
        bias=_bias(condition, image, num_text, condition_is_key=True),
        bias_condition=None if independent else _bias(condition, image, num_text, condition_is_key=False),
        independent=independent,
        lora_all=lora_all,
        static=static,
        scratch=kept["scratch"],
    )

    for index, block in enumerate(blocks):
        if index == len(self.transformer_blocks):
            text, image = None, torch.cat([text, image], dim=1)  # type: ignore[list-item]
        inputs = text, image, stream, step, kept["blocks"][index], block is blocks[-1]
        if torch.is_grad_enabled() and self.gradient_checkpointing:
            text, image, stream = self._gradient_checkpointing_func(block, *inputs)
        else:
            text, image, stream = block(*inputs)
    kept["condition is known"] = static
    return self.proj_out(self.norm_out(image, step.time))


def _time(self: Any, time: Tensor, guidance: Tensor | None, pooled: Tensor, like: Tensor) -> Tensor:
    """The embedding (B, D) of a time in [0, 1], the guidance and the pooled text."""
    scaled = [x.to(like.dtype) * 1000 for x in (time, guidance) if x is not None]
    return self.time_text_embed(*scaled, pooled)


def _bias(condition: Condition, image: Tensor, num_text: int, condition_is_key: bool) -> Tensor | None:
    """What is added to the logits of text and image queries (for condition keys), or of condition queries (for
    text and image keys): log(s) everywhere across the border, -inf on the condition of samples without one."""
    if condition.tokens is None:
        return None
    across = image.new_full((1, 1, 1, 1), math.log(condition.scale), dtype=torch.float32)
    if condition_is_key and condition.mask is not None:
        across = across.masked_fill(~condition.mask.to(image.device)[:, None, None, None], -math.inf)
    elif condition.scale == 1:
        return None
    num_image = image.shape[1]
    across = across.expand(-1, -1, -1, num_image if condition_is_key else num_text + num_image)
    same = across.new_zeros(across.shape[0], 1, 1, num_text + num_image if condition_is_key else num_image)
    return torch.cat([same, across] if condition_is_key else [across, same], dim=-1)
