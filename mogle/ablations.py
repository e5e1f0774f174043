"""MoGLE with something taken away: the paper's ablations, and the gate of the fast variant that is this project's.

Each variant is a small class with the parameters of `MoGLE` under the same names, so that all read each other's files.
Those that a variant does not use are frozen.
"""

from __future__ import annotations

from torch import Tensor

from mogle.errors import MogleError
from mogle.experts import MoGLE, expert_bank


class OnlyGlobal(MoGLE):
    """The global expert alone: nothing to weigh."""

    unused: tuple[str, ...] = ("local_experts", "gating")
    static = True

    def expert_outputs(self, condition_tokens: Tensor) -> Tensor:
        return expert_bank([self.global_expert], condition_tokens[:, :1])

    def gate_weights(self, condition_tokens: Tensor, noisy_latents: Tensor, timestep: Tensor) -> Tensor:
        return condition_tokens.new_ones(len(condition_tokens), condition_tokens.shape[2], 1)


class OnlyLocal(MoGLE):
    """The 19 local experts, weights summing to 1 over them."""

    unused = ("global_expert",)

    def expert_outputs(self, condition_tokens: Tensor) -> Tensor:
        return expert_bank(self.local_experts, condition_tokens[:, 1:])

    def gate_weights(self, condition_tokens: Tensor, noisy_latents: Tensor, timestep: Tensor) -> Tensor:
        weights = super().gate_weights(condition_tokens, noisy_latents, timestep)[..., 1:]
        return weights / weights.sum(dim=-1, keepdim=True)


class NoLatents(MoGLE):
    """The gate sees mask and time, not the noisy latents."""

    unused = ("gating.noise_proj",)

    def gate_weights(self, condition_tokens: Tensor, noisy_latents: Tensor, timestep: Tensor) -> Tensor:
        return self.gating(condition_tokens[:, 0], None, timestep)


class PlacesGate(MoGLE):
    """The gate sees the mask alone, so that the condition stream is the same at every step (the fast variant)."""

    unused = ("gating.noise_proj", "gating.timestep_embedding")
    static = True

    def gate_weights(self, condition_tokens: Tensor, noisy_latents: Tensor, timestep: Tensor) -> Tensor:
        return self.gating(condition_tokens[:, 0], None, None)


class ScalarGate(MoGLE):
    """One weight for each expert: the gate's, averaged over the tokens."""

    def gate_weights(self, condition_tokens: Tensor, noisy_latents: Tensor, timestep: Tensor) -> Tensor:
        return super().gate_weights(condition_tokens, noisy_latents, timestep).mean(dim=1, keepdim=True)


class NoGate(MoGLE):
    """The plain sum of the experts, not normalised."""

    unused: tuple[str, ...] = ("gating",)
    static = True

    def gate_weights(self, condition_tokens: Tensor, noisy_latents: Tensor, timestep: Tensor) -> Tensor:
        return condition_tokens.new_ones(len(condition_tokens), 1, condition_tokens.shape[1])


class NoExperts(MoGLE):
    """The condition tokens themselves are weighed."""

    unused = ("global_expert", "local_experts")

    def expert_outputs(self, condition_tokens: Tensor) -> Tensor:
        return condition_tokens


class Neither(NoGate):
    """The plain sum of the condition tokens: nothing is trained but LoRA."""

    unused = ("global_expert", "local_experts", "gating")

    def expert_outputs(self, condition_tokens: Tensor) -> Tensor:
        return condition_tokens


#: Name -> class: what adapter files, settings and `build_mogle` call a variant.
VARIANTS: dict[str, type[MoGLE]] = {
    "full": MoGLE,
    "only-global": OnlyGlobal,
    "only-local": OnlyLocal,
    "no-latents": NoLatents,
    "scalar-gate": ScalarGate,
    "no-gate": NoGate,
    "no-experts": NoExperts,
    "neither": Neither,
    "places": PlacesGate,
}
#: What files written before version 0.2 say instead: (experts, gate).
_OLD_NAMES = {
    ("all", "dynamic"): "full",
    ("global", "dynamic"): "only-global",
    ("local", "dynamic"): "only-local",
    ("all", "no_latents"): "no-latents",
    ("all", "scalar"): "scalar-gate",
    ("all", "none"): "no-gate",
    ("none", "dynamic"): "no-experts",
    ("none", "none"): "neither",
    ("all", "places"): "places",
}


def build_mogle(variant: str = "full", width: int = 64) -> MoGLE:
    """A new MoGLE of a variant, `width` numbers a token.

    Raises:
        MogleError: there is no variant of that name.
    """
    if variant not in VARIANTS:
        raise MogleError(f"variant={variant!r}: expected one of {', '.join(map(repr, VARIANTS))}")
    return VARIANTS[variant](width)


def variant_of(mogle: MoGLE) -> str:
    """The name of a MoGLE's variant.

    Raises:
        MogleError: its class is none of the registry's, so that no file could name it.
    """
    names = {kind: name for name, kind in VARIANTS.items()}
    if type(mogle) not in names:
        raise MogleError(f"{type(mogle).__name__}: expected a class of VARIANTS, which files can name")
    return names[type(mogle)]


def variant_in(header: dict[str, str]) -> str:
    """The variant that an adapter file's header names; the method itself where it says nothing."""
    old = header.get("experts", "all"), header.get("gate", "dynamic")
    return header.get("variant") or _OLD_NAMES.get(old, f"{old[0]} experts, {old[1]} gate")
