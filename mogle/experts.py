"""MoGLE: the mixture of global and local experts that turns 20 condition images into one stream of tokens.

One expert for the whole mask, one for each of the 19 labels, and a gate that weighs them anew for every token and
step from the mask, the noisy latents and the time (paper section 3; names of the reference's state dict).
Shapes: B samples, N tokens of width C = 64, E = 20 experts (0 global, 1..19 local). Variants: `ablations.py`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from torch import Tensor, nn

from mogle.labels import LABELS


class Expert(nn.Module):
    """A small MLP without residual, (..., C) -> (..., C)."""

    def __init__(self, width: int = 64, hidden: int = 32):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, width))

    def forward(self, tokens: Tensor) -> Tensor:
        return self.net(tokens)


def expert_bank(experts: Iterable[Any], tokens: Tensor) -> Tensor:
    """All experts at once, each on its own tokens: E `Expert`s, (B, E, N, C) -> (B, E, N, C)."""
    experts = list(experts)
    weight_1, bias_1, weight_2, bias_2 = (
        torch.stack([getattr(expert.net[layer], kind) for expert in experts])
        for layer in (0, 2)
        for kind in ("weight", "bias")
    )
    hidden = torch.relu(tokens.to(weight_1.dtype) @ weight_1.mT + bias_1[:, None])
    return hidden @ weight_2.mT + bias_2[:, None]


class DynamicGate(nn.Module):
    """The weight of every expert for every token: softmax(MLP(C_global + W Z_t + embedding(t)))."""

    def __init__(self, width: int = 64, num_experts: int = 1 + len(LABELS)):
        super().__init__()
        self.time_proj = Timesteps(width, flip_sin_to_cos=True, downscale_freq_shift=0)
        self.timestep_embedding = TimestepEmbedding(width, width)
        self.noise_proj = nn.Linear(width, width)
        self.gate = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, num_experts))

    def forward(self, global_tokens: Tensor, noisy_latents: Tensor | None, timestep: Tensor | None) -> Tensor:
        """(B, N, C), (B, N, C), (B,) -> float32 (B, N, E), summing to 1 over the experts. None leaves an input out.

        Sine embedding and softmax are float32 whatever the weights are: half precision cannot tell times apart.
        """
        dtype = self.noise_proj.weight.dtype
        hidden = global_tokens.to(dtype)
        if noisy_latents is not None:
            hidden = hidden + self.noise_proj(noisy_latents.to(dtype))
        if timestep is not None:
            hidden = hidden + self.timestep_embedding(self.time_proj(timestep.float()).to(dtype))[:, None]
        return self.gate(hidden).float().softmax(dim=-1)


class MoGLE(nn.Module):
    """`MoGLE()(condition_tokens, noisy_latents, timestep)`: (B, E, N, C), (B, N, C), (B,) -> (B, N, C).

    Class attributes of variants: `unused` names submodules without a part in the output, and `static` is True where the
    output depends on the mask alone, so that it is the same at every step.
    """

    unused: tuple[str, ...] = ()
    static = False

    def __init__(self, width: int = 64, hidden: int = 32, num_labels: int = len(LABELS)):
        super().__init__()
        self.global_expert = Expert(width, hidden)
        self.local_experts = nn.ModuleList(Expert(width, hidden) for _ in range(num_labels))
        self.gating = DynamicGate(width, num_labels + 1)
        self.ask_for_gradients()

    def ask_for_gradients(self) -> list[nn.Parameter]:
        """Ask for the gradients of what is used, and of nothing else -> those parameters.

        A parameter without gradient would stop DistributedDataParallel, and be counted as trained.
        """
        self.requires_grad_(True)
        for name in self.unused:
            self.get_submodule(name).requires_grad_(False)
        return [p for p in self.parameters() if p.requires_grad]

    def expert_outputs(self, condition_tokens: Tensor) -> Tensor:
        """(B, E, N, C) -> (B, E, N, C). They depend on the mask alone, so a sampler computes them once."""
        return expert_bank([self.global_expert, *self.local_experts], condition_tokens)

    def gate_weights(self, condition_tokens: Tensor, noisy_latents: Tensor, timestep: Tensor) -> Tensor:
        """-> float32 (B, N, E), summing to 1 over the experts."""
        return self.gating(condition_tokens[:, 0], noisy_latents, timestep)

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
        weights = self.gate_weights(condition_tokens, noisy_latents, timestep).to(outputs.dtype)
        return (outputs * weights.mT.unsqueeze(-1)).sum(dim=1).to(noisy_latents.dtype)
