"""MoGLE: the mixture of global and local experts that turns 20 condition images into one stream of tokens.

One expert for the whole mask, one for each of the 19 labels, and a gate that weighs them anew for every token and
step from the mask, the noisy latents and the time (paper section 3; names of the reference's state dict).
Shapes: B samples, N tokens of width C = 64, E = 20 experts (0 global, 1..19 local).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from torch import Tensor, nn

from mogle.errors import MogleError
from mogle.labels import LABELS

#: Which experts there are. "none": the condition tokens themselves are mixed; the other two leave experts out.
EXPERTS = ("all", "none", "global", "local")
#: How they are mixed. "none": plain sum, not normalised; "scalar": weights averaged over the tokens;
#: "no_latents": the gate does not see the noisy latents; "places": nor the time, so that its weights depend on the
#: mask alone and the condition stream is the same at every step.
GATES = ("dynamic", "none", "scalar", "no_latents", "places")


class Expert(nn.Module):
    """A small MLP without residual, (..., C) -> (..., C). `expert_bank` runs all at once; here live the weights."""

    def __init__(self, width: int = 64, hidden: int = 32):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, width))

    def forward(self, tokens: Tensor) -> Tensor:
        return self.net(tokens)


def expert_bank(experts: Sequence[Any], tokens: Tensor) -> Tensor:
    """All experts at once, each on its own tokens: E `Expert`s, (B, E, N, C) -> (B, E, N, C)."""
    weight_1, bias_1, weight_2, bias_2 = (
        torch.stack([getattr(expert.net[layer], kind) for expert in experts])
        for layer in (0, 2)
        for kind in ("weight", "bias")
    )
    hidden = torch.relu(tokens.to(weight_1.dtype) @ weight_1.mT + bias_1[:, None])
    return hidden @ weight_2.mT + bias_2[:, None]


class DynamicGate(nn.Module):
    """The weight of every expert for every token: softmax(MLP(C_global + W Z_t + embedding(t)))."""

    def __init__(self, width: int = 64, num_experts: int = 20):
        super().__init__()
        self.time_proj = Timesteps(width, flip_sin_to_cos=True, downscale_freq_shift=0)
        self.timestep_embedding = TimestepEmbedding(width, width)
        self.noise_proj = nn.Linear(width, width)
        self.gate = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, num_experts))

    def forward(
        self, global_tokens: Tensor, noisy_latents: Tensor | None, timestep: Tensor | None, experts: slice = slice(None)
    ) -> Tensor:
        """(B, N, C), (B, N, C) or None, (B,) or None -> float32 (B, N, E), summing to 1 over the chosen `experts`.

        Sine embedding and softmax are float32 whatever the weights are: half precision cannot tell times apart.
        """
        dtype = self.noise_proj.weight.dtype
        hidden = global_tokens.to(dtype)
        if noisy_latents is not None:
            hidden = hidden + self.noise_proj(noisy_latents.to(dtype))
        if timestep is not None:
            hidden = hidden + self.timestep_embedding(self.time_proj(timestep.float()).to(dtype))[:, None]
        return self.gate(hidden)[..., experts].float().softmax(dim=-1)


class MoGLE(nn.Module):
    """`MoGLE()(condition_tokens, noisy_latents, timestep)`: (B, E, N, C), (B, N, C), (B,) -> (B, N, C).

    Every variant has the same parameters under the same names; those that a variant does not use are frozen.
    """

    def __init__(
        self,
        width: int = 64,
        hidden: int = 32,
        num_labels: int = len(LABELS),
        *,
        experts: str = "all",
        gate: str = "dynamic",
    ):
        super().__init__()
        for name, value, known in (("experts", experts, EXPERTS), ("gate", gate, GATES)):
            if value not in known:
                raise MogleError(f"{name}={value!r}: expected one of {', '.join(map(repr, known))}")
        self.experts, self.gate = experts, gate
        self.global_expert = Expert(width, hidden)
        self.local_experts = nn.ModuleList(Expert(width, hidden) for _ in range(num_labels))
        self.gating = DynamicGate(width, num_labels + 1)
        self._used = {"global": slice(0, 1), "local": slice(1, None)}.get(experts, slice(None))
        self._freeze_unused()

    @property
    def static(self) -> bool:
        """True if the fused tokens do not depend on the step (only the mask decides)."""
        return self.gate in ("none", "places") or self.experts == "global"

    def _freeze_unused(self) -> None:
        """A parameter without gradient would stop DistributedDataParallel, and be counted as trained."""
        if self.experts in ("none", "local"):
            self.global_expert.requires_grad_(False)
        if self.experts in ("none", "global"):
            self.local_experts.requires_grad_(False)
        if self.gate == "none" or self.experts == "global":
            self.gating.requires_grad_(False)
        if self.gate in ("no_latents", "places"):
            self.gating.noise_proj.requires_grad_(False)
        if self.gate == "places":
            self.gating.timestep_embedding.requires_grad_(False)

    def expert_outputs(self, condition_tokens: Tensor) -> Tensor:
        """(B, E, N, C) -> (B, E', N, C) of the experts in use, all at once. They depend on the mask alone."""
        tokens = condition_tokens[:, self._used]
        if self.experts == "none":
            return tokens
        return expert_bank([self.global_expert, *self.local_experts][self._used], tokens)

    def gate_weights(self, condition_tokens: Tensor, noisy_latents: Tensor | None, timestep: Tensor | None) -> Tensor:
        """-> float32 (B, N, E') of the experts in use; (B, 1, E') for the scalar gate."""
        if self.gate in ("no_latents", "places"):
            noisy_latents = None
        if self.gate == "places":
            timestep = None
        weights = self.gating(condition_tokens[:, 0], noisy_latents, timestep, self._used)
        return weights.mean(dim=1, keepdim=True) if self.gate == "scalar" else weights

    def forward(
        self, condition_tokens: Tensor, noisy_latents: Tensor, timestep: Tensor, outputs: Tensor | None = None
    ) -> Tensor:
        """Fuse the experts for the noisy latents of one step.

        Args:
            condition_tokens: (B, E, N, C).
            noisy_latents: (B, N, C) the latents that the backbone sees at this step.
            timestep: (B,) in (0, 1), as in training; x 1000 is what the reference's sampler feeds its gate.
            outputs: `expert_outputs(condition_tokens)`, when kept from an earlier step.

        Returns:
            (B, N, C) in the dtype of `noisy_latents`.
        """
        if outputs is None:
            outputs = self.expert_outputs(condition_tokens)
        if self.gate == "none":
            return outputs.sum(dim=1).to(noisy_latents.dtype)
        if self.experts == "global":
            return outputs[:, 0].to(noisy_latents.dtype)
        weights = self.gate_weights(condition_tokens, noisy_latents, timestep).to(outputs.dtype)
        return (outputs * weights.mT.unsqueeze(-1)).sum(dim=1).to(noisy_latents.dtype)
