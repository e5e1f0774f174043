"""FLUX's transformer with a condition stream: tokens -> blocks -> velocity (paper section 3).

`walk` leads text, noisy image and condition through the blocks of `blocks.py` and gives the velocity, the direction
eps - Z_0 from picture to noise. `install` puts our forwards *inside* diffusers' transformer (the walk) and blocks: what
hooks on them (offloading, FSDP, checkpointing, compiling) goes on working, and without a condition diffusers' own
forwards run. A sampler comes in through FluxPipeline, fine-tuning through `forward_streams`, pretraining by `walk`.

diffusers' names: hidden_states are the noisy latents Z_t, encoder_hidden_states the sentence's tokens,
pooled_projections the sentence as one vector; image tokens enter by x_embedder, text tokens by context_embedder.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from types import MethodType
from typing import Any

import torch
from diffusers.utils.peft_utils import scale_lora_layers, unscale_lora_layers
from torch import Tensor

from mogle.attention import Rope, positions
from mogle.blocks import BlockCache, Step, double_block, single_block
from mogle.errors import MogleError
from mogle.lora import NAME, linear, unwrapped, without_lora

ATTENTION = ("union", "independent", "separate")
LORA_ON = ("condition", "all")


@dataclass(frozen=True, eq=False)
class Condition:
    """The condition stream of one call, and how it acts.

    Attributes:
        tokens: (B, N, 64) fused tokens; or what makes them from (noisy latents, time); None: there is no condition.
        attention: "union": all tokens see each other; "independent": condition queries see the condition alone;
            "separate": condition and rest (text and image) do not see each other, so the velocity is the unconditioned
            one; the reference has all three.
        scale: s >= 0, `conditioning_scale` of a call; log(s) is added to the logits between condition and rest, both
            ways, so that before the softmax normalises they count s times as much. 0 means "separate".
        lora_on: "condition", or "all": LoRA on image tokens too, in single blocks also on text tokens.
        present: bool (B,), False for samples without a condition; None: all have one.
        mask_guidance: w in v = v(text) + w (v(text, condition) - v(text)). 1 is the method as published, in one
            forward; other values, which are this project's addition, take two.
        cache: what the steps of one run of a sampler share; None keeps nothing.

    Raises:
        MogleError: an option that does not exist, or a number out of range.
    """

    tokens: Tensor | Callable[[Tensor, Tensor], Tensor] | None
    attention: str = "union"
    scale: float = 1.0
    lora_on: str = "condition"
    present: Tensor | None = None
    mask_guidance: float = 1.0
    cache: ConditionCache | None = None

    def __post_init__(self) -> None:
        if self.attention not in ATTENTION:
            raise MogleError(f"attention={self.attention!r}: expected one of {', '.join(map(repr, ATTENTION))}")
        if self.lora_on not in LORA_ON:
            raise MogleError(f"lora_on={self.lora_on!r}: expected one of {', '.join(map(repr, LORA_ON))}")
        if not 0 <= self.scale < math.inf:
            raise MogleError(f"conditioning_scale={self.scale}: expected a finite number, at least 0")
        if not 0 <= self.mask_guidance < math.inf:
            raise MogleError(f"mask_guidance={self.mask_guidance}: expected a finite number, at least 0")

    @property
    def acts(self) -> bool:
        """Whether the velocity depends on the tokens at all."""
        return self.tokens is not None and self.attention != "separate" and self.scale > 0 and self.mask_guidance > 0


class ConditionCache:
    """What stays the same over the steps of one run: embedded text, positions, the condition's modulations.

    `static=True` promises that the fused tokens are the same at every step. With attention "independent" the whole
    condition stream is then the same, too: its keys and values are kept, and later steps do not compute it. With
    "union" it is not, as it sees the image. A run has one guidance scale. Nothing is kept while gradients are asked
    for, or while the whole transformer is being compiled.
    """

    def __init__(self, static: bool = False):
        self.static = static
        self._known: list[tuple[tuple, Kept]] = []

    def of(self, *tensors: Tensor | None) -> Kept:
        """What is kept for just these tensors, the prompt's and the positions.

        True CFG alternates between two prompts, so the last two are kept.

        A callback may write into an embedding in the middle of a run. torch counts that in `_version`, though not for
        tensors of inference mode, where such a change goes unnoticed.
        """
        key = tuple((t, None if t is None or t.is_inference() else t._version) for t in tensors)
        for known, kept in self._known:
            if all(a is b and m == n for (a, m), (b, n) in zip(known, key, strict=True)):
                return kept
        self._known = [*self._known[-1:], (key, Kept())]
        return self._known[-1][1]


@dataclass
class Kept:
    """Of one prompt in one run; filled in its first step."""

    text: Tensor | None = None  # embedded, (B, T, D)
    time_zero: Tensor | None = None
    rope: Rope = ()
    blocks: list[BlockCache | None] = field(default_factory=list)
    condition_kept: bool = False  # the blocks have the keys and values of a condition that no step changes


#: Stands for the condition where `joint_attention_kwargs` has none: a call by a pipeline that knows no masks.
NOTHING = Condition(None)


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
        if registry is not None and registry._fn_refs:  # diffusers' hooks, the innermost first: it calls this forward
            registry._fn_refs[0].forward = bound
        elif hasattr(module, "_hf_hook"):  # accelerate's hook calls the module's own by this name
            module._old_forward = bound
        else:
            module.forward = bound
    transformer._has_streams = True


def check_hooks(transformer: Any) -> None:
    """Refuse hooks that skip or reuse the work of blocks, such as FirstBlockCache: they know two streams, not three.

    Raises:
        MogleError: one of them is on.
    """
    network = unwrapped(transformer)
    registries = (getattr(module, "_diffusers_hook", None) for module in network.modules())
    names = {name for registry in registries if registry is not None for name in registry.hooks}
    if found := sorted(name for name in names if re.search("cache|fbc|broadcast|skip|smoothed", name)):
        kind = type(network._cache_config).__name__.removesuffix("Config") if network.is_cache_enabled else found[0]
        raise MogleError(f"found {kind} on, which knows no masks: call pipe.transformer.disable_cache() first")


def _double_forward(self: Any, *args: Any, **kwargs: Any) -> Any:
    # From our walk the fourth argument is a Step, from diffusers' own forward the RoPE: then the class's forward runs.
    if len(args) > 3 and isinstance(args[3], Step):
        return double_block(self, *args)
    return type(self).forward(self, *args, **kwargs)


def _single_forward(self: Any, *args: Any, **kwargs: Any) -> Any:
    if len(args) > 2 and isinstance(args[2], Step):
        return single_block(self, *args)
    return type(self).forward(self, *args, **kwargs)


#: What `walk` takes of the arguments of FluxTransformer2DModel.forward; there is no ControlNet with a condition.
INPUTS = (
    "hidden_states", "encoder_hidden_states", "pooled_projections", "timestep", "img_ids", "txt_ids", "guidance",
)  # fmt: skip


def _transformer_forward(self: Any, *args: Any, **kwargs: Any) -> Any:
    """diffusers' forward where nothing is conditioned on (other pipelines on the same network, too); else the walk."""
    others = dict(kwargs.get("joint_attention_kwargs") or {})
    condition = others.pop(NAME, NOTHING)
    if not condition.acts:
        plain = kwargs if condition is NOTHING else {**kwargs, "joint_attention_kwargs": others}
        return _unconditioned(self, condition, args, plain)

    unknown = [k for k in kwargs if k.startswith("controlnet") and kwargs[k] not in (None, False)]
    lora_scale = others.get("scale", 1.0)
    unknown += [name for name in others if name != "scale"]
    if unknown or args:
        raise MogleError(f"not supported together with a mask: {', '.join(unknown) or 'positional arguments'}")
    inputs: dict[str, Any] = {name: kwargs.get(name) for name in INPUTS}
    if lora_scale != 1:
        scale_lora_layers(self, lora_scale)
    try:
        velocity = walk(self, condition, **inputs)
    finally:
        if lora_scale != 1:
            unscale_lora_layers(self, lora_scale)
    if condition.mask_guidance != 1:
        plain = {**inputs, "joint_attention_kwargs": others, "return_dict": False}
        velocity = torch.lerp(_unconditioned(self, condition, (), plain)[0], velocity, condition.mask_guidance)
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
) -> Tensor:
    """FluxTransformer2DModel.forward with three streams, or with two where the condition has no tokens.

    Called directly, as pretraining does, it compiles to one graph; hooks on the whole transformer are not called then.
    Arguments as `forward_streams` has them; `condition.mask_guidance` is the caller's matter.
    """
    assert condition.tokens is None or condition.acts, "a condition that does not act is diffusers' own forward"
    lora_all, independent = condition.lora_on == "all", condition.attention == "independent"
    cache = condition.cache if not torch.is_grad_enabled() and not torch.compiler.is_compiling() else None
    kept = Kept() if cache is None else cache.of(encoder_hidden_states, pooled_projections, img_ids, txt_ids)
    doubles, singles = self.transformer_blocks, self.single_transformer_blocks
    count = len(doubles) + len(singles)

    image = linear(self.x_embedder, hidden_states, lora_all)
    if kept.text is None:  # not kept yet, or nothing is
        kept.text = linear(self.context_embedder, encoder_hidden_states, lora_all)
        kept.time_zero = _time(self, torch.zeros_like(timestep), guidance, pooled_projections, image)
        kept.rope = positions(self, txt_ids, img_ids, image)
        kept.blocks = [None if cache is None else BlockCache() for _ in range(count)]
    tokens, stream = condition.tokens, None
    if tokens is not None and not kept.condition_kept:
        tokens = tokens if isinstance(tokens, Tensor) else tokens(hidden_states, timestep)
        # `condition` inside the blocks: it comes in by the image's embedder, with LoRA from the first layer on
        stream = linear(self.x_embedder, tokens.to(hidden_states.dtype), with_lora=True)
    num_text, num_image = kept.text.shape[1], image.shape[1]
    step = Step(
        time=_time(self, timestep, guidance, pooled_projections, image),
        time_zero=kept.time_zero,  # type: ignore[arg-type]
        rope=kept.rope,
        num_text=num_text,
        bias=_bias_for_rest(condition, image, num_text),
        bias_condition=None if independent else _bias_for_condition(condition, image, num_text + num_image),
        independent=independent,
        lora_all=lora_all,
        keep_condition=cache is not None and cache.static and independent,
    )

    def run(index: int, block: Any, *streams: Tensor | None) -> Any:
        inputs = *streams, step, kept.blocks[index], index == count - 1
        if torch.is_grad_enabled() and self.gradient_checkpointing:
            return self._gradient_checkpointing_func(block, *inputs)
        return block(*inputs)

    text: Tensor | None = kept.text
    for index, block in enumerate(doubles):
        text, image, stream = run(index, block, text, image, stream)
    if len(singles):
        joint = torch.cat([text, image], dim=1)  # type: ignore[list-item]
        for index, block in enumerate(singles, start=len(doubles)):
            joint, stream = run(index, block, joint, stream)
        image = joint  # the last block gives the image's rows alone
    kept.condition_kept = step.keep_condition and condition.tokens is not None
    return self.proj_out(self.norm_out(image, step.time))


def _time(self: Any, time: Tensor, guidance: Tensor | None, pooled: Tensor, like: Tensor) -> Tensor:
    """The time vector (B, D) of a time in [0, 1], the guidance scale and the sentence as one vector.

    FLUX's own embedder was trained on thousands of both; only MoGLE's gate takes t in (0, 1), see notebook 07.
    """
    scaled = [x.to(like.dtype) * 1000 for x in (time, guidance) if x is not None]
    return self.time_text_embed(*scaled, pooled)


def _bias_for_rest(condition: Condition, image: Tensor, num_text: int) -> Tensor | None:
    """(B or 1, 1, 1, T + N + N) for text and image queries: 0 on each other, log(s) on the condition's keys, -inf on
    the condition of samples without one. None where nothing would be added.

    The condition's own queries need no -inf: of samples without a condition nobody sees what becomes of them.
    """
    if condition.tokens is None or (condition.scale == 1 and condition.present is None):
        return None
    to_condition = image.new_full((1, 1, 1, 1), math.log(condition.scale), dtype=torch.float32)
    if condition.present is not None:
        to_condition = to_condition.masked_fill(~condition.present.to(image.device)[:, None, None, None], -math.inf)
    num_image = image.shape[1]
    to_rest = to_condition.new_zeros(len(to_condition), 1, 1, num_text + num_image)
    return torch.cat([to_rest, to_condition.expand(-1, -1, -1, num_image)], dim=-1)


def _bias_for_condition(condition: Condition, image: Tensor, num_rest: int) -> Tensor | None:
    """(1, 1, 1, T + N + N) for condition queries: log(s) on text and image, 0 on each other; or None."""
    if condition.tokens is None or condition.scale == 1:
        return None
    to_condition = image.new_full((1, 1, 1, num_rest), math.log(condition.scale), dtype=torch.float32)
    return torch.cat([to_condition, to_condition.new_zeros(1, 1, 1, image.shape[1])], dim=-1)
