"""Exercises of notebook 07, dynamic gating: solutions, and checkers that raise `Wrong` with hints."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from diffusers.models.embeddings import Timesteps
from torch import Tensor

from mogle.experts import DynamicGate, MoGLE, expert_bank
from workbook.checking import Exercise, Wrong
from workbook.exercises.judging import advice, compare, loaded, same

NOTEBOOK = "07_dynamic_gating"


def gate_entropy(weights: Tensor) -> Tensor:
    """Entropy in bits of the gate's weights (..., E) -> (...): 0 for one expert alone, 4.32 for 20 alike."""
    return torch.special.entr(weights).sum(dim=-1) / math.log(2)


def heard(weights: Tensor, outputs: Tensor, silent: Tensor) -> Tensor:
    """How loud each expert is heard at each token: weight times the distance that its answer moves.

    weights (N, E), outputs and silent (E, N, C), the answers to a mask and to a black picture -> (E, N).
    """
    return weights.T * (outputs - silent).norm(dim=-1)


#: Changes of one input of MoGLE: what is done.
CHANGES = {
    "noise": "another noisy picture Z_t, at the same time",
    "clock": "another time t, with the same Z_t",
    "local": "the hat's local picture black, the global picture as it was",
    "global": "the global picture without the hat, the local pictures as they were",
    "sentence": "another sentence, at the same Z_t and t",
}


def who_notices() -> dict[str, tuple[bool, bool]]:
    """Change -> do the gate's weights change; does any expert's answer change."""
    return {
        "noise": (True, False), "clock": (True, False), "local": (False, True), "global": (True, True),
        "sentence": (False, False),
    }  # fmt: skip


def _gate_inputs() -> tuple[Tensor, Tensor, Tensor]:
    """Global tokens (B, N, 64), noisy latents (B, N, 64), t (B,)."""
    return torch.randn(2, 6, 64), torch.randn(2, 6, 64), torch.tensor([0.2, 0.7])


def _gate_mistakes(gate: DynamicGate, tokens: Tensor, latents: Tensor, t: Tensor) -> dict[str, Tensor]:
    """What goes wrong in a gate, in words and in weights (B, N, 20)."""
    waves, embedding = gate.time_proj(t), gate.timestep_embedding
    channels = waves.shape[-1]
    noise, time = gate.noise_proj(latents), embedding(waves)[:, None]
    thousands = embedding(gate.time_proj(1000 * t))[:, None]
    sine_first = embedding(waves.roll(channels // 2, -1))[:, None]
    shifted = embedding(Timesteps(channels, True, 1)(t))[:, None]
    logits, right = gate.gate(tokens + noise + time), "Timesteps(64, flip_sin_to_cos=True, downscale_freq_shift=0)"
    averaged = logits.softmax(-1).mean(1, keepdim=True).expand_as(logits)
    inside = {
        "The gate ignores the noisy latents Z_t.": tokens + time,
        "The gate ignores the time t.": tokens + noise,
        "The gate ignores the global condition: it does not know the mask.": noise + time,
        "The latents are added as they are; they pass noise_proj first.": tokens + latents + time,
        "The time is in thousands: the gate was trained with t in (0, 1).": tokens + noise + thousands,
        f"Sine and cosine are swapped: expected {right}.": tokens + noise + sine_first,
        f"downscale_freq_shift is 1; expected {right}.": tokens + noise + shifted,
        "C_global and Z_t are swapped: noise_proj is for the noisy latents.": gate.noise_proj(tokens) + latents + time,
    }
    return {hint: gate.gate(hidden).softmax(-1) for hint, hidden in inside.items()} | {
        "Your weights sum to 1 over the tokens, not over the experts: softmax over the last axis.": logits.softmax(1),
        "Your weights sum to 1 over the batch: softmax over the last axis.": logits.softmax(0),
        "The weights do not sum to 1: the softmax is missing.": logits,
        "The weights do not sum to 1: a sigmoid judges each expert alone; use a softmax.": logits.sigmoid(),
        "The weights are the same for all tokens: the gate is averaged over them (the scalar gate).": averaged,
    }


def check_dynamic_gate(answer: Any) -> None:
    """class DynamicGate: global tokens (B, N, 64), noisy latents (B, N, 64), t (B,) -> weights (B, N, 20)."""
    reference, inputs = DynamicGate(), _gate_inputs()
    reference.timestep_embedding.linear_2.weight *= 100  # so that the smallest mistake about time shows
    model = loaded(answer, reference, "timestep_embedding, noise_proj, gate = Sequential(Linear, ReLU, Linear)")
    with advice("Tokens are (B, N, 64), the embedded time (B, 64): it lacks an axis."), torch.enable_grad():
        found = model(*inputs)
    mistakes = _gate_mistakes(reference, *inputs)
    compare(found, reference(*inputs), mistakes, "a weight for each token and expert")
    _check_trainable(model, found)


def check_mogle(answer: Any) -> None:
    """class MoGLE: conditions (B, 20, N, 64), noisy latents (B, N, 64), t (B,) -> (B, N, 64)."""
    reference, c, (_, z, t) = MoGLE(), torch.randn(2, 20, 6, 64), _gate_inputs()
    model = loaded(answer, reference, "global_expert, local_experts (an nn.ModuleList of 19) and gating")
    gate, experts = reference.gating, [reference.global_expert, *reference.local_experts]
    outputs, rolled = expert_bank(experts, c), expert_bank([*experts[1:], experts[0]], c)
    weights, of_global = gate(c[:, 0], z, t), expert_bank(experts, c[:, :1].expand_as(c))

    def mixed(by: Tensor, what: Tensor = outputs) -> Tensor:
        return torch.einsum("bne,benc->bnc", by, what)

    expected, wrong_gate = mixed(weights), "it takes condition_tokens[:, 0]"
    mistakes = {
        "The 20 outputs are added without the gate.": outputs.sum(1),
        "The 20 outputs are averaged: every expert has the same weight.": outputs.mean(1),
        "The global expert is missing from the sum.": mixed(weights[..., 1:], outputs[:, 1:]),
        "The local experts are missing from the sum.": mixed(weights[..., :1], outputs[:, :1]),
        f"The gate looks at a local condition; {wrong_gate}, the global one.": mixed(gate(c[:, 1], z, t)),
        f"The gate looks at the mean of the conditions; {wrong_gate}, the global one.": mixed(gate(c.mean(1), z, t)),
        f"The gate reads the global expert's output; {wrong_gate} as it is.": mixed(gate(outputs[:, 0], z, t)),
        "Weights and outputs are in different orders; in both 0 is the global expert's.": mixed(weights.roll(-1, -1)),
        "The weighted outputs are averaged; expected their sum.": expected / 20,
        "The experts see the wrong conditions; condition 0 is the global expert's.": mixed(weights, rolled),
        "You added the global condition to the result; there is no residual.": expected + c[:, 0],
        "All experts see the global condition; local expert i sees condition 1 + i.": mixed(weights, of_global),
        "The weights act on the conditions; they weigh the experts' outputs.": mixed(weights, c),
    }
    in_gate = _gate_mistakes(gate, c[:, 0], z, t)
    mistakes |= {f"In the gate: {hint}": mixed(value) for hint, value in in_gate.items()}
    with torch.enable_grad():
        found = model(c, z, t)
    compare(found, expected, mistakes, "one token of 64 for each place")
    _check_trainable(model, found)


def _check_trainable(model: Any, found: Tensor) -> None:
    """Whether the result has a way back to every weight.

    Raises:
        Wrong: to none of them, or not to those of some part.
    """
    why = "no_grad or detach() cuts the way back to"
    if not found.requires_grad:
        raise Wrong(f"Right, but nothing could be trained: {why} the weights.")
    names, parameters = zip(*model.named_parameters(), strict=True)
    with torch.enable_grad():
        gradients = torch.autograd.grad((found * torch.randn(found.shape)).sum(), parameters, allow_unused=True)
    if cut := [name for name, gradient in zip(names, gradients, strict=True) if gradient is None]:
        parts = ", ".join(dict.fromkeys(name.split(".")[0] for name in cut))
        raise Wrong(f"Right, but not all of it could be trained: {why} the weights of {parts}.")


def check_gate_entropy(function: Callable[[Tensor], Any]) -> None:
    """weights (..., 20) -> entropy in bits (...)."""
    weights = (3 * torch.randn(2, 6, 20)).softmax(-1)
    weights[0, :2] = 0  # where a weight is 0, 0 log 0 has to count as 0
    weights[0, 0, 4], weights[0, 1, [2, 7]] = 1, 0.5
    bits, terms = gate_entropy(weights), torch.special.entr(weights) / np.log(2)
    lost, found = bits.where((weights > 0).all(-1), 0), function(weights.clone())
    if isinstance(found, Tensor) and found.shape == bits.shape and found.isnan().any():
        raise Wrong("An expert with the weight 0 gives NaN: 0 x log 0 counts as 0 (torch.special.entr knows).")
    mistakes = {
        "This is in nats: the logarithm to base 2 gives bits.": bits * np.log(2),
        "The logarithm is to base 10; to base 2 it gives bits.": bits * np.log10(2),
        "The sign is missing: the logarithm of a weight is negative, entropy is not.": -bits,
        "You summed over the tokens; sum over the experts, the last axis.": terms.sum(dim=1),
        "You averaged over the tokens too; expected one number for each token.": bits.mean(),
        "You averaged over the experts; entropy is the sum.": bits / 20,
        "This is a share of the largest entropy, log2(20); expected bits.": bits / np.log2(20),
        "This is 2 to the power of the entropy, the effective number of experts; expected bits.": 2**bits,
        "Where one weight is 0 the others are lost: NaN counts as 0 before the sum, not after.": lost,
    }
    compare(found, bits, mistakes, "one number for each token")
    for some, shape in ((weights[1], "(N, 20)"), (weights[1, 0], "(20,)")):
        try:
            right = same(torch.as_tensor(function(some.clone())), gate_entropy(some))
        except IndexError:
            right = False
        if not right:
            raise Wrong(f"It fails for weights of shape {shape}: the experts are the last axis, dim=-1.")


def check_heard(function: Callable[..., Any]) -> None:
    """weights (N, E), outputs and silent (E, N, C) -> (E, N)."""
    weights, outputs, silent = torch.randn(6, 20).softmax(-1), torch.randn(20, 6, 64), torch.randn(20, 6, 64)
    moved, alone = (outputs - silent).norm(dim=-1), outputs.norm(dim=-1)
    by = weights.T[..., None]
    mistakes = {
        "The weights are missing: a loud expert with a small weight is hardly heard.": moved,
        "That is the weight alone; an expert that does not move says nothing, whatever its weight.": weights.T,
        "You took the length of the whole answer; subtract what the expert says to a black picture.": weights.T * alone,
        "That is the difference of two lengths; expected the length of the difference.": (
            weights.T * (alone - silent.norm(dim=-1)).abs()
        ),
        "You weighed the answer and then subtracted all of the silent one; both have the same weight.": (
            (by * outputs - silent).norm(dim=-1)
        ),
        "These are squared lengths; take the root.": weights.T * moved.square(),
        "You added absolute values; a length is the root of a sum of squares.": (
            weights.T * (outputs - silent).abs().sum(-1)
        ),
        "The experts are added up before the length is taken; each is to be heard alone.": (
            (by * (outputs - silent)).sum(0).norm(dim=-1)
        ),
        "The tokens are averaged already; expected one number for each expert and token.": (weights.T * moved).mean(1),
        "The weights are used as logits once more; they are weights already.": weights.softmax(-1).T * moved,
    }
    with advice("Weights are (N, E), answers (E, N, C): one of them has to be turned, weights.T is (E, N)."):
        found = function(weights.clone(), outputs.clone(), silent.clone())
    compare(found, heard(weights, outputs, silent), mistakes, "experts, tokens")


#: Why it is so: of the weights, and of the answers.
_NOTICED = {
    "noise": ("the gate reads Z_t, through noise_proj", "experts read pictures of the mask, and no Z_t"),
    "clock": ("the gate is told the time", "nobody tells the experts what time it is"),
    "local": ("of the mask the gate reads C_global alone", "the hat's expert reads just this picture"),
    "global": ("the gate reads C_global", "C_global is what the global expert reads"),
    "sentence": ("the sentence is no input of the gate", "the sentence is no input of any expert"),
}


def check_who_notices(function: Callable[[], Any]) -> None:
    """Change -> (do the gate's weights change, does any expert's answer change), two of True and False."""
    said, right = function() if callable(function) else function, who_notices()
    if not isinstance(said, dict) or set(said) != set(right):
        raise Wrong(f"Expected a dictionary with the keys {', '.join(right)}.")
    wrong = []
    for change, truth in right.items():
        pair = said[change]
        if not isinstance(pair, (tuple, list)) or len(pair) != 2 or any(one not in (True, False) for one in pair):
            raise Wrong(f"{change}: found {pair!r}; expected two of True and False: weights, then answers.")
        halves = zip(("weights", "answers"), pair, truth, _NOTICED[change], strict=True)
        off = [(what, so, why) for what, one, so, why in halves if bool(one) != so]
        good = "" if len(off) == 2 else f" The {'answers' if off and off[0][0] == 'weights' else 'weights'} are right."
        for what, so, why in off:
            wrong.append(f"{change}: the {what} {'change' if so else 'stay'}, for {why}.{good}")
    if wrong:
        raise Wrong(*wrong)


EXERCISES = (
    Exercise("dynamic_gate", NOTEBOOK, 2, 15, check_dynamic_gate, (DynamicGate,), (
        "Three things are added before the small network: the global tokens, the projected latents, the embedded time.",
        "The time is one vector for each sample, (B, 64); the tokens are (B, N, 64). Softmax is over the experts.",
        "hidden = global_tokens + self.noise_proj(latents) + self.timestep_embedding(self.time_proj(t))[:, None]; then "
        "self.gate(hidden).softmax(-1).",
    )),
    Exercise("mogle", NOTEBOOK, 3, 20, check_mogle, (MoGLE,), (
        "Two lines do the work: the outputs of all experts, and their sum weighted by the gate.",
        "The gate reads condition_tokens[:, 0] as it is. Outputs are (B, 20, N, 64), weights (B, N, 20).",
        "Bring the weights to (B, 20, N, 1): weights.transpose(1, 2)[..., None]; multiply, and sum over axis 1.",
    )),
    Exercise("who_notices", NOTEBOOK, 1, 10, check_who_notices, (who_notices,), (
        "Write down what the gate reads, and what each expert reads. Nothing else can change them.",
        "The gate reads C_global, Z_t and t. The global expert reads C_global, and local expert i its own picture.",
        "For each change ask twice: is it in the gate's list? Is it in any expert's?",
    )),
    Exercise("gate_entropy", NOTEBOOK, 1, 10, check_gate_entropy, (gate_entropy,), (
        "Entropy is -sum w log2 w over the experts, which are the last axis.",
        "A weight of exactly 0 contributes 0, but 0 * log2(0) is NaN.",
        "torch.special.entr(w) is -w ln w with 0 for 0; divide its sum by ln 2.",
    )),
    Exercise("heard", NOTEBOOK, 2, 10, check_heard, (heard,), (
        "Two factors for each expert and token: how much the gate lets through, and how far the answer has moved.",
        "The movement is the length of outputs - silent over the last axis, (E, N); weights are (N, E).",
        "weights.T * (outputs - silent).norm(dim=-1).",
    )),
)  # fmt: skip
