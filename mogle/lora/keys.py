"""One LoRA, many spellings: the key names that other tools write, as diffusers' own.

What says the same is converted (peft's prefixes and adapter names, missing prefixes, alphas, kohya and ai-toolkit
names); what is not a plain LoRA is refused by its name; nothing is left out in silence.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from mogle.errors import MogleError

PREFIX = "transformer."
#: Parts of key names that give away adapters of another kind.
_OTHER_KINDS = {
    "lokr_": "LoKr",
    "hada_": "LoHa",
    "oft_": "OFT",
    "lora_mid": "LoCon",
    "dora_scale": "DoRA",
    "lora_magnitude_vector": "DoRA",
    "vera_lambda": "VeRA",
    "ia3_": "IA3",
}
_EXPECTED = "expected a plain LoRA of a FluxTransformer2DModel"


def plain_lora(state: dict[str, Tensor], modules: Iterable[str], where: str) -> dict[str, Tensor]:
    """The LoRA's tensors as `transformer.MODULE.lora_A.weight` and `...lora_B.weight`, alphas folded into B.

    Args:
        modules: names of the transformer's modules, to tell a missing prefix from a foreign name.
        where: the file, for messages.

    Raises:
        MogleError: another kind of adapter, or names that no converter knows; the first of them.
    """
    for part, kind in _OTHER_KINDS.items():
        if found := next((name for name in state if part in name), None):
            raise MogleError(f"{where}: found {kind} weights ({found}), {_EXPECTED}: LoRA trained without {kind}")
    known = set(modules)
    named = {_spelled(name, known): tensor for name, tensor in state.items()}
    if any(_module_of(name) not in known for name in named):
        named = _converted(state, where)
    alphas = {name.removesuffix(".alpha"): named[name] for name in named if name.endswith(".alpha")}
    lora = {name: tensor for name, tensor in named.items() if not name.endswith(".alpha")}
    for module, alpha in alphas.items():
        down, up = f"{module}.lora_A.weight", f"{module}.lora_B.weight"
        if down not in lora or up not in lora:
            raise MogleError(f"{where}: found {module}.alpha, expected {module}.lora_A and lora_B beside it")
        lora[up] = lora[up] * (float(alpha) / len(lora[down]))
    for name in lora:
        other = name.replace("lora_A", "lora_B") if "lora_A" in name else name.replace("lora_B", "lora_A")
        if other == name or other not in lora:
            raise MogleError(f"{where}: found {name}, expected lora_A and lora_B of each layer")
    return lora


def _spelled(name: str, modules: set[str]) -> str:
    """The name without what peft and other wrappers put around and into it."""
    name = re.sub(r"^(base_model\.model\.|_orig_mod\.|module\.)+", "", name).replace("._orig_mod.", ".")
    name = re.sub(r"\.(lora_[AB])\.(?!weight)[^.]+\.weight$", r".\1.weight", name)
    name = re.sub(r"\.lora\.(down|up)\.weight$", lambda m: f".lora_{'A' if m[1] == 'down' else 'B'}.weight", name)
    return f"{PREFIX}{name}" if _module_of(name) in modules and not name.startswith(PREFIX) else name


def _module_of(name: str) -> str:
    return re.split(r"\.lora_[AB]\.|\.alpha$", name.removeprefix(PREFIX))[0]


def _as_kohya(name: str) -> str:
    """Black Forest Labs' own names of layers, as ComfyUI and ai-toolkit write them, as kohya's scripts do."""
    known = re.fullmatch(r"(?:diffusion_model\.|transformer\.)?((?:double|single)_blocks\..*)(\.lora_.*|\.alpha)", name)
    if known is None:
        return name
    kind = known[2].replace(".lora_A.", ".lora_down.").replace(".lora_B.", ".lora_up.")
    return f"lora_unet_{known[1].replace('.', '_')}{kind}"


def _converted(state: dict[str, Tensor], where: str) -> dict[str, Tensor]:
    """Names of kohya's scripts, ai-toolkit, ComfyUI, XLabs and others, by diffusers' own converters."""
    from diffusers.loaders import FluxLoraLoaderMixin

    state = {_as_kohya(name): tensor for name, tensor in state.items()}
    floats = {name: t if t.is_floating_point() else t.float() for name, t in state.items()}
    try:
        found: Any = FluxLoraLoaderMixin.lora_state_dict(floats, return_alphas=True)
    except Exception as error:  # the converters raise whatever a name that they do not know leads to
        first, line = next(iter(state), "nothing"), " ".join(str(error).split())[:120]
        raise MogleError(f"{where}: found keys such as {first}, {_EXPECTED} ({line})") from error
    lora, alphas = found
    return {**lora, **{name: torch.as_tensor(alpha) for name, alpha in (alphas or {}).items()}}
