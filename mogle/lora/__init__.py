"""LoRA that acts on the tokens of the condition stream alone (the reference's `latent_lora: false`).

peft's layers hold the weights. Which tokens they act on is decided here, one stream at a time, by `linear`: image and
text tokens pass the frozen layer, condition tokens the frozen layer plus its LoRA. So the adapter can never be fused
into the base. A LoRA under any other name (a style, a turbo LoRA) acts on all tokens, as it does in diffusers.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor

from mogle.errors import MogleError

#: Name of our adapter in peft, and key of the condition in `joint_attention_kwargs`.
NAME = "mogle"
#: The linear layers that get a LoRA, as a regular expression over module names (343 of them in FLUX.1-dev).
LORA_TARGETS = (
    r"x_embedder"
    r"|transformer_blocks\.\d+\.(norm1\.linear|attn\.to_[qkv]|attn\.to_out\.0|ff\.net\.2)"
    r"|single_transformer_blocks\.\d+\.(norm\.linear|proj_mlp|proj_out|attn\.to_[qkv])"
)


def add_lora(
    transformer: Any, rank: int = 4, alpha: int | None = None, init: Any = "gaussian", lora_on: str = "condition"
) -> None:
    """Add fresh LoRA layers (B = 0: no effect yet) to `LORA_TARGETS`. Only they will require gradients.

    `alpha` defaults to `rank` (scaling 1); `init` is peft's `init_lora_weights`.
    """
    from peft import LoraConfig

    transformer.requires_grad_(False)
    config = LoraConfig(r=rank, lora_alpha=alpha or rank, init_lora_weights=init, target_modules=LORA_TARGETS)
    transformer.add_adapter(config, adapter_name=NAME)
    remember_lora(transformer)
    train_lora(transformer, lora_on)


def train_lora(transformer: Any, lora_on: str = "condition") -> list[torch.nn.Parameter]:
    """Ask for gradients of the LoRA layers that can have one, and of nothing else -> those parameters.

    With `lora_on="condition"` three layers of the last block cannot matter (the condition's queries and outputs end
    there unused) and stay frozen: DistributedDataParallel waits for every gradient that is asked for.
    """
    transformer.requires_grad_(False)
    idle: set[torch.nn.Parameter] = set()
    if lora_on == "condition" and len(transformer.single_transformer_blocks):
        last = transformer.single_transformer_blocks[-1]
        idle = {p for layer in (last.attn.to_q, last.proj_mlp, last.proj_out) for p in layer.parameters()}
    wanted = [p for name, p in transformer.named_parameters() if "lora_" in name and p not in idle]
    for parameter in wanted:
        parameter.requires_grad_(True)
    return wanted


def linear(layer: Any, x: Tensor, with_lora: bool) -> Tensor:
    """Apply the base layer; add our LoRA only if `with_lora`, and every other active LoRA always."""
    if not hasattr(layer, "lora_A"):
        return layer(x)
    if NAME in layer.merged_adapters:
        raise MogleError("the LoRA is fused into the base; it must act on condition tokens alone: call unfuse_lora()")
    out = layer.base_layer(x)
    for name in () if layer.disable_adapters else layer.active_adapters:
        if name not in layer.lora_A or name in layer.merged_adapters or (name == NAME and not with_lora):
            continue
        if name in layer.lora_variant:
            raise MogleError(f"LoRA {name!r} is a {type(layer.lora_variant[name]).__name__}; expected a plain LoRA")
        down, up = layer.lora_A[name], layer.lora_B[name]
        low = down(layer.lora_dropout[name](x.to(down.weight.dtype))) * layer.scaling[name]
        out = out + up(low).to(out.dtype)
    return out


# --- which layers hold it, and whether it is on ------------------------------------------------------------------


def unwrapped(transformer: Any) -> Any:
    """The network itself, out of what torch.compile or DistributedDataParallel wrap around it."""
    while not hasattr(transformer, "single_transformer_blocks") or hasattr(transformer, "_orig_mod"):
        transformer = transformer._orig_mod if hasattr(transformer, "_orig_mod") else transformer.module
    return transformer


def base_layers(transformer: Any) -> dict[str, Any]:
    """The linear layers by module name, without those that a LoRA has put inside them."""
    return {
        name: module
        for name, module in unwrapped(transformer).named_modules()
        if hasattr(module, "in_features") and ".lora_" not in name and not name.endswith(".base_layer")
    }


def lora_layers(transformer: Any, name: str | None = NAME) -> dict[str, Any]:
    """The layers that hold a LoRA of this name, or one of any name for None, by module name."""
    modules = unwrapped(transformer).named_modules()
    return {path: layer for path, layer in modules if hasattr(layer, "lora_A") and name in (None, *layer.lora_A)}


def remember_lora(transformer: Any) -> None:
    """Note which layers hold our LoRA now, for `check_lora`."""
    unwrapped(transformer)._mogle_lora = frozenset(lora_layers(transformer))


def check_lora(transformer: Any) -> None:
    """Our LoRA is in every layer that it was put into, and switched on: half of it still gives plausible pictures.

    Raises:
        MogleError: it was unloaded, deleted or switched off, in whole or in part.
    """
    expected: frozenset[str] = getattr(unwrapped(transformer), "_mogle_lora", frozenset())
    layers = lora_layers(transformer)
    if missing := sorted(expected - layers.keys()) or (not layers and ["all layers"]):
        raise MogleError(
            f"found experts but no mask LoRA in {len(missing)} of {len(expected)} layers ({missing[0]}, ...): it was "
            "unloaded or deleted; expected all of it: call load_mogle(folder) again, or leave the mask out"
        )
    if off := [name for name, layer in layers.items() if layer.disable_adapters or NAME not in layer.active_adapters]:
        raise MogleError(
            f"found the mask LoRA switched off in {len(off)} of {len(layers)} layers ({off[0]}, ...), expected it on: "
            f"call pipe.enable_lora(), or name {NAME!r} among the adapters in pipe.set_adapters(...)"
        )


def active_adapters(transformer: Any) -> dict[str, list[str]]:
    """The names of the active LoRAs of each layer that has any."""
    return {name: list(layer.active_adapters) for name, layer in lora_layers(transformer, None).items()}


def activate_beside(transformer: Any, before: dict[str, list[str]], name: str) -> None:
    """Make `name` active beside what was active `before`: loading a LoRA switches the others off."""
    for module_name, layer in lora_layers(transformer, name).items():
        layer._active_adapter = [*(other for other in before.get(module_name, []) if other != name), name]


@contextmanager
def without_lora(transformer: Any) -> Iterator[None]:
    """Our LoRA taken out of every layer's active adapters, for a forward of the transformer's own."""
    layers = [layer for layer in lora_layers(transformer).values() if NAME in layer.active_adapters]
    before = [layer._active_adapter for layer in layers]
    for layer in layers:
        layer._active_adapter = [name for name in layer.active_adapters if name != NAME]
    try:
        yield
    finally:
        for layer, active in zip(layers, before, strict=True):
            layer._active_adapter = active


@contextmanager
def lora_set_aside(transformer: Any) -> Iterator[None]:
    """Every LoRA's layer replaced by its base layer for a while: what is saved then is the base."""
    network = unwrapped(transformer)
    with ExitStack() as afterwards:
        for name, layer in lora_layers(network, None).items():
            afterwards.callback(network.set_submodule, name, layer)
            network.set_submodule(name, layer.base_layer)
        yield
