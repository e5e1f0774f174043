"""A trained base in a wider or deeper network that computes nearly the same: what was learned is not learned again.

Depth: blocks that the old network lacks start as the identity. Width: a new channel of the residual stream is a noisy
copy of an old one that nothing reads yet, so that the layer norms keep their mean and spread; new heads, hidden units
and time channels are random, and nothing reads them yet either. From 192 to 256 channels the velocity of the tiny base
changed by 0.2 % of its energy.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mogle.errors import MogleError

if TYPE_CHECKING:
    from diffusers import FluxTransformer2DModel

#: Of each layer (a regular expression over names): what its outputs and its inputs are. "residual": channels of the
#: streams; "heads", "hidden", "time": units inside a block; "fixed": of a width that does not grow.
_SPACES: tuple[tuple[str, str, str], ...] = (
    (r"^(x|context)_embedder", "residual", "fixed"),
    (r"time_text_embed\..*linear_1", "time", "fixed"),
    (r"time_text_embed\..*linear_2", "time", "time"),
    (r"norm_out\.linear|norm1|single.*\.norm\.linear", "residual", "time"),
    (r"^proj_out", "fixed", "residual"),
    (r"to_[qkv]\.|add_[qkv]_proj", "heads", "residual"),
    (r"to_out|to_add_out", "residual", "heads"),
    (r"ff.*net\.0\.proj|proj_mlp", "hidden", "residual"),
    (r"ff.*net\.2", "residual", "hidden"),
    (r"single.*proj_out", "residual", "heads and hidden"),
)


def grown(old: FluxTransformer2DModel, new: FluxTransformer2DModel, seed: int = 7) -> FluxTransformer2DModel:
    """`new`, freshly initialised (`zero_start`), with what `old` has learned, in place and returned.

    Raises:
        MogleError: the new network is smaller, or its heads have another size.
    """
    before, after = old.config, new.config
    for name in ("num_layers", "num_single_layers", "num_attention_heads"):
        if after[name] < before[name]:
            raise MogleError(f"{name}={after[name]}: expected at least the {before[name]} of the base to go on from")
    if after.attention_head_dim != before.attention_head_dim:
        found = f"attention_head_dim={after.attention_head_dim}"
        raise MogleError(f"{found}: expected the {before.attention_head_dim} of the base to go on from")
    width, more = old.inner_dim, new.inner_dim - old.inner_dim
    generator = torch.Generator().manual_seed(seed)
    copied = torch.cat([torch.randperm(width, generator=generator) for _ in range(0, more, width)] or [torch.arange(0)])
    copied = copied[:more]
    state = new.state_dict()
    for name, weight in old.state_dict().items():
        state[name] = _grown(name, weight.float(), state[name].shape, width, copied, generator)
    new.load_state_dict(state)
    return new


def _grown(
    name: str, weight: Tensor, shape: torch.Size, width: int, copied: Tensor, generator: torch.Generator
) -> Tensor:
    spaces = next(((outputs, inputs) for pattern, outputs, inputs in _SPACES if re.search(pattern, name)), None)
    if spaces is None or weight.shape == shape:
        return weight
    outputs, inputs = spaces

    def noise(*size: int) -> Tensor:
        return torch.randn(*size, generator=generator)

    if outputs == "residual":  # one part, or the shifts, scales and gates of a modulation
        parts = []
        for part in weight.split(width):
            rows = part[copied]
            if weight.ndim == 2 and inputs != "time":
                rows = 0.5**0.5 * (rows + noise(*rows.shape) * rows.square().mean(dim=1, keepdim=True).sqrt())
            parts.append(torch.cat([part, rows]))
        weight = torch.cat(parts)
    elif outputs != "fixed":
        added = noise(shape[0] - len(weight), *weight.shape[1:]) * weight.square().mean().sqrt()
        weight = torch.cat([weight, added if weight.ndim == 2 else 0 * added])
    if weight.ndim == 1 or inputs == "fixed":
        return weight

    def unread(columns: int) -> Tensor:
        return weight.new_zeros(len(weight), columns)

    if inputs == "heads and hidden":
        heads = len(copied)
        hidden = shape[1] - weight.shape[1] - heads
        return torch.cat([weight[:, :width], unread(heads), weight[:, width:], unread(hidden)], dim=1)
    return torch.cat([weight, unread(shape[1] - weight.shape[1])], dim=1)
