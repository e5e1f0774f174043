"""The checkers of the exercises: answer -> hints, each in terms of the mistake; no hint means right.

Most work alike: run the answer on small random input, and when it is not the package's result, compare it with what
plausible mistakes would have given. Inputs are never square, so that swapped axes show.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers.models.embeddings import Timesteps
from torch import Tensor, nn

from mogle.conditions import condition_images, pack_latents
from mogle.course import tokens as solutions
from mogle.experts import DynamicGate, Expert, MoGLE
from mogle.experts import expert_bank as run_experts
from mogle.labels import DEMO_PALETTE, LABELS, PALETTE

#: A mistake in words -> what it gives.
Mistakes = Mapping[str, Any]


def _same(found: Tensor, expected: Tensor) -> bool:
    return found.shape == expected.shape and torch.allclose(found.double(), expected.double(), rtol=1e-4, atol=1e-5)


def _judge(found: Any, expected: Any, mistakes: Mistakes, shape: str) -> list[str]:
    """No hint if `found` is as expected; the mistake that gives just `found`; or how far off it is."""
    if found is None:
        return ["It returned None: is there a `return` at the end?"]
    found, expected = torch.as_tensor(found).detach(), torch.as_tensor(expected)
    if _same(found, expected):
        return []
    for hint, value in mistakes.items():
        if _same(found, torch.as_tensor(value)):
            return [hint]
    if found.shape != expected.shape:
        return [f"The shape is {tuple(found.shape)}, expected {tuple(expected.shape)}: {shape}."]
    if found.isnan().any():
        return ["There is a NaN in the result."]
    off = (found.double() - expected.double()).abs().max().item()
    return [f"The shape is right, the values are not: they differ by up to {off:.2g}."]


def _make(answer: Any, reference: nn.Module, names: str) -> tuple[Any, list[str]]:
    """An instance of the answer with the reference's weights, or why its parameters cannot take them."""
    model = answer()
    found = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    expected = {name: tuple(value.shape) for name, value in reference.state_dict().items()}
    missing, more = [n for n in expected if n not in found], [n for n in found if n not in expected]
    if missing and not more and all(name.endswith("bias") for name in missing):
        return model, [f"A bias is missing ({missing[0]}): nn.Linear has one unless you ask for none."]
    if missing or more:
        what = f"no {missing[0]}" if missing else f"{more[0]}, which the package does not have"
        return model, [f"The parameters do not fit: found {what}; expected {names}."]
    for name, shape in expected.items():
        if found[name] != shape:
            return model, [f"{name} has the shape {found[name]}, expected {shape}: look at the widths."]
    if shared := sum(p.numel() for p in reference.parameters()) - sum(p.numel() for p in model.parameters()):
        return model, [f"{shared:,} parameters too few: experts share their weights. Make a new Expert() for each."]
    model.load_state_dict(reference.state_dict())
    return model, []


def _run(call: Callable[[], Any], advice: str) -> tuple[Any, list[str]]:
    """The answer's result; where shapes do not fit what torch says of them, and the advice."""
    try:
        return call(), []
    except RuntimeError as error:
        if type(error) is not RuntimeError:  # of a kind of its own, such as a stub's
            raise
        return None, [f"{' '.join(str(error).split())}.", advice]


# --- 02 from mask to tokens --------------------------------------------------------------------------------------


def conditions20(function: Callable[[np.ndarray], Any]) -> list[str]:
    """label map (H, W) -> (20, 3, H, W) in [-1, 1]."""
    label_map = (np.arange(24 * 16) // 7 % len(LABELS)).astype(np.uint8).reshape(24, 16)
    expected = condition_images(label_map)
    whole, local = expected[:1], expected[1:]
    answer = function(label_map.copy())
    if answer is None:
        return _judge(None, expected, {}, "")
    found = torch.as_tensor(answer).float()
    if found.numel() and found.min() >= 0:
        top = "255" if found.max() > 1 else "1"
        return [f"The values lie in [0, {top}]; the VAE expects [-1, 1], black at -1."]
    coloured = torch.where(local > 0, torch.as_tensor(PALETTE / 127.5 - 1).float()[:, :, None, None], -1.0)
    demo = torch.as_tensor(DEMO_PALETTE[label_map]).permute(2, 0, 1)[None] / 127.5 - 1
    mistakes = {
        "The global image is missing: image 0 is the whole mask in its colours, the 19 local ones follow.": local,
        "The background is missing: it is a class like the others, label 0, and has an expert too.": torch.cat(
            [whole, local[1:]]
        ),
        "The channels come last; a VAE takes (20, 3, H, W).": expected.permute(0, 2, 3, 1),
        "All 19 local images are black: is the comparison made with an array, and not with a PIL image?": torch.cat(
            [whole, -torch.ones_like(local)]
        ),
        "Off by one: your local images show the labels 1..19, expected 0..18, background first.": torch.cat(
            [whole, local[1:], -torch.ones_like(local[:1])]
        ),
        "The global image comes last, expected first.": torch.cat([local, whole]),
        "Inside its class a local image is white, not in the class's colour.": torch.cat([whole, coloured]),
        "Your local images are inverted; expected: white where the class is, black elsewhere.": torch.cat(
            [whole, -local]
        ),
        "The local images lie in [0, 1]; the VAE expects [-1, 1], black at -1.": torch.cat([whole, (local + 1) / 2]),
        "The global image lies in [0, 1]; the VAE expects [-1, 1].": torch.cat([(whole + 1) / 2, local]),
        "The global image lies in [0, 255]; the VAE expects [-1, 1].": torch.cat([(whole + 1) * 127.5, local]),
        "A reshape does not bring channels to the front, it mixes pixels; permute moves axes.": torch.cat(
            [whole.permute(0, 2, 3, 1).reshape(whole.shape), local]
        ),
        "The colours are the web demo's, which swaps left and right; use PALETTE.": torch.cat([demo, local]),
    }
    hints = _judge(found, expected, mistakes, "20 pictures of 3 channels")
    if hints and found.shape == expected.shape and hints[0].startswith("The shape is right"):
        if _same(found[1:], local):
            return ["The local images are right; image 0 is not the mask in the colours of PALETTE."]
        wrong = [i for i in range(len(LABELS)) if not _same(found[1 + i], local[i])]
        return [f"{len(wrong)} local images are wrong, the first is that of label {wrong[0]} ({LABELS[wrong[0]]})."]
    return hints


def packing(pack: Callable[..., Any], unpack: Callable[..., Any]) -> list[str]:
    """pack: latents (B, 16, H, W) -> (B, H/2 * W/2, 64); unpack(tokens, H, W) -> latents."""
    batch, channels, height, width = 2, 16, 4, 6
    latents = torch.arange(batch * channels * height * width).float().view(batch, channels, height, width)
    parts, expected = latents.view(batch, channels, height // 2, 2, width // 2, 2), pack_latents(latents)

    def in_order(*axes: int) -> Tensor:
        return parts.permute(0, *axes).reshape(expected.shape)

    mistakes = {
        "The 2 x 2 pixels come before the channels; in FLUX channels vary slowest within a token.": in_order(
            2, 4, 3, 5, 1
        ),
        "The tokens run column by column; expected row by row, as one reads.": in_order(4, 2, 1, 3, 5),
        "Within a token rows and columns of the 2 x 2 pixels are swapped.": in_order(2, 4, 1, 5, 3),
        "A reshape alone mixes neighbouring pixels of a row: split H and W into pairs, permute, then reshape.": (
            latents.reshape(expected.shape)
        ),
        "H and W are split the wrong way round: (H/2, 2), so that the two of a pair are neighbours.": (
            latents.view(batch, channels, 2, height // 2, 2, width // 2)
            .permute(0, 3, 5, 1, 2, 4)
            .reshape(expected.shape)
        ),
        "Width and tokens are swapped: expected (B, N, 64).": expected.mT,
    }
    if hints := _judge(pack(latents.clone()), expected, mistakes, "(B, H/2 * W/2, 4 x 16)"):
        return ["pack: " + hint for hint in hints]
    swapped = solutions.unpack_latents(expected, width, height)
    alone = {
        "unpack: a reshape alone does not undo the permutation.": expected.reshape(latents.shape),
        "unpack: height and width are swapped.": swapped,
        "unpack: height and width are swapped within the 2 x 2 pixels.": (parts.transpose(3, 5).reshape(latents.shape)),
    }
    return _judge(unpack(expected.clone(), height, width), latents, alone, "unpack gives back (B, 16, H, W)")


def _swapping(one: int, other: int) -> solutions.Loader:
    """A loader that takes two classes for each other."""
    order = np.arange(len(LABELS))
    order[[one, other]] = other, one
    return lambda picture: solutions.loader_c(picture)[order]


def broken_loader(is_right: Callable[[Any], Any]) -> list[str]:
    """A test for loaders must take the right one and refuse broken ones."""
    hints = []
    swap = "It accepts a loader that swaps {}: do all 19 labels occur, and do you compare where?"
    for loader, right, hint in (
        (solutions.loader_c, True, "It refuses the right loader: it asks for something that good masks do not have."),
        (solutions.loader_a, False, "It accepts a loader whose 19 masks are all empty: shapes alone are no proof."),
        (solutions.loader_b, False, "It accepts the loader that converts to gray: are all 19 classes in your test?"),
        (_swapping(4, 5), False, swap.format("left and right eye")),
        (_swapping(11, 12), False, swap.format("upper and lower lip")),
    ):
        try:
            verdict = is_right(loader)
        except AssertionError:
            verdict = False
        if not isinstance(verdict, (bool, np.bool_)):
            return [f"It returned {type(verdict).__name__}, expected True or False."]
        if verdict != right:
            hints.append(hint)
    return hints


# --- 06 global and local experts ---------------------------------------------------------------------------------


def expert(answer: Any) -> list[str]:
    """class Expert: (..., 64) -> (..., 64) through 32 hidden units."""
    reference = Expert()
    model, hints = _make(answer, reference, "self.net = nn.Sequential(Linear, ReLU, Linear): net.0 and net.2")
    if hints:
        return hints
    tokens = torch.randn(2, 5, 64)
    first, second, out = reference.net[0], reference.net[2], reference(tokens)
    mistakes = {
        "You added the input to the output; this expert has no residual.": out + tokens,
        "The ReLU between the two layers is missing: without it they are one linear map.": second(first(tokens)),
        "There is a ReLU after the last layer; outputs may be negative.": out.relu(),
        "The activation is a GELU, expected a ReLU.": second(F.gelu(first(tokens))),
        "The activation is a SiLU, expected a ReLU.": second(F.silu(first(tokens))),
    }
    return _judge(model(tokens), out, mistakes, "as many tokens out as in")


def expert_bank(function: Callable[..., Any]) -> list[str]:
    """20 experts and tokens (B, 20, N, 64) -> (B, 20, N, 64), all at once."""
    experts: list[Any] = [Expert() for _ in range(20)]
    calls: list[None] = []
    for one in experts:
        one.register_forward_hook(lambda *_: calls.append(None))
    tokens = torch.randn(2, 20, 6, 64)
    weights = [torch.stack([e.net[i].weight for e in experts]).mT for i in (0, 2)]
    bias = [torch.stack([e.net[i].bias for e in experts])[:, None] for i in (0, 2)]
    expected, linear = run_experts(experts, tokens), tokens @ weights[0] + bias[0]
    hidden = linear.relu()
    mistakes = {
        "A reshape does not turn the weights from (out, in) to (in, out), it mixes them; .mT does.": (
            (tokens @ weights[0].mT.reshape(weights[0].shape) + bias[0]).relu()
            @ weights[1].mT.reshape(weights[1].shape)
            + bias[1]
        ),
        "All tokens pass the first expert's weights; each of the 20 has its own.": experts[0].net(tokens),
        "The ReLU is missing.": linear @ weights[1] + bias[1],
        "The first bias is missing.": (tokens @ weights[0]).relu() @ weights[1] + bias[1],
        "The second bias is missing.": hidden @ weights[1],
        "Both biases are missing.": (tokens @ weights[0]).relu() @ weights[1],
        "The outputs are added up already; keep all 20, the gate weighs them later.": expected.sum(dim=1),
        "The outputs are averaged already; keep all 20, the gate weighs them later.": expected.mean(dim=1),
        "The experts are in another order: output i belongs to expert i.": run_experts(experts[::-1], tokens),
        "Axes swapped: expected (B, 20, N, 64), found (B, N, 20, 64).": expected.transpose(1, 2),
    }
    advice = "Tokens are (B, 20, N, 64); stacked weights (20, out, in) go in as .mT, biases (20, out) as [:, None]."
    calls.clear()
    found, hints = _run(lambda: function(experts, tokens.clone()), advice)
    if hints:
        return hints
    hints = _judge(found, expected, mistakes, "(B, 20, N, 64)")
    if not hints and calls:
        return [f"Right, but one expert after another ({len(calls)} calls): stack their weights and multiply once."]
    if not hints:
        try:
            few = function(experts[:7], tokens[:, :7].clone())
        except Exception:
            few = torch.empty(0)
        return [] if _same(few, expected[:, :7]) else ["It fails for 7 experts: their number is len(experts)."]
    return hints


def class_home(function: Callable[[np.ndarray], Any]) -> list[str]:
    """label map (H, W) -> (N, 19): each class's share of each token's patch of 16 x 16 pixels."""
    label_map = np.random.default_rng(0).integers(0, len(LABELS), (4, 6), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    label_map[5:20, 9:30] = 13
    expected = torch.as_tensor(solutions.class_shares(label_map))
    columns = expected.view(2, 3, -1).transpose(0, 1).reshape(expected.shape)
    mistakes = {
        "The tokens run column by column; expected row by row, as `pack_latents` has them.": columns,
        "These are numbers of pixels; divide by the 256 of a patch.": expected * 256,
        "Your shares sum to 1 over the tokens, not over the classes.": (expected / expected.sum(0)).nan_to_num(),
        "Only the largest class of each patch counts here; the others have a share too.": F.one_hot(
            expected.argmax(1), len(LABELS)
        ),
        "The background is missing: 19 classes, label 0 first.": expected[:, 1:],
        "Axes swapped: expected (tokens, classes).": expected.T,
        "A reshape alone cuts rows of the picture, not patches: split both sides, then bring the axes in order.": (
            torch.as_tensor((label_map.reshape(-1, 256, 1) == np.arange(len(LABELS))).mean(axis=1))
        ),
        "A patch of 8 pixels is one latent; a token is 2 x 2 of them, 16 pixels.": solutions.class_shares(label_map, 8),
    }
    return _judge(function(label_map.copy()), expected, mistakes, "tokens by classes")


# --- 07 dynamic gating -------------------------------------------------------------------------------------------


def _gate_mistakes(gate: DynamicGate, tokens: Tensor, latents: Tensor, time: Tensor) -> dict[str, Tensor]:
    """What goes wrong in a gate, in words and in weights (B, N, 20)."""

    def hidden(t: Tensor) -> Tensor:
        return gate.timestep_embedding(gate.time_proj(t))[:, None]

    noise, logits = gate.noise_proj(latents), gate.gate(tokens + gate.noise_proj(latents) + hidden(time))
    channels = gate.time_proj.num_channels
    sine_first = gate.timestep_embedding(gate.time_proj(time).roll(channels // 2, -1))[:, None]
    shifted = gate.timestep_embedding(Timesteps(channels, True, 1)(time))[:, None]
    mistakes = {
        "Your weights sum to 1 over the tokens, not over the experts: softmax over the last axis.": logits.softmax(1),
        "Your weights sum to 1 over the batch: softmax over the last axis.": logits.softmax(0),
        "The weights do not sum to 1: the softmax is missing.": logits,
        "The weights do not sum to 1: a sigmoid judges each expert alone, a softmax lets them compete.": (
            logits.sigmoid()
        ),
        "The weights are the same for all tokens: the gate is averaged over them (the scalar gate).": (
            logits.softmax(-1).mean(1, keepdim=True).expand_as(logits)
        ),
    }
    for hint, inside in {
        "The gate ignores the noisy latents Z_t.": tokens + hidden(time),
        "The gate ignores the time t.": tokens + noise,
        "The gate ignores the global condition: it does not know the mask.": noise + hidden(time),
        "The latents are added as they are; they pass noise_proj first.": tokens + latents + hidden(time),
        "The time is in thousands: the gate was trained with t in (0, 1).": tokens + noise + hidden(time * 1000),
        "Sine and cosine are swapped: Timesteps(64, flip_sin_to_cos=True, downscale_freq_shift=0).": (
            tokens + noise + sine_first
        ),
        "downscale_freq_shift is 1; expected Timesteps(64, flip_sin_to_cos=True, downscale_freq_shift=0).": (
            tokens + noise + shifted
        ),
        "C_global and Z_t are swapped: noise_proj is for the noisy latents.": (
            gate.noise_proj(tokens) + latents + hidden(time)
        ),
    }.items():
        mistakes[hint] = gate.gate(inside).softmax(-1)
    return mistakes


def dynamic_gate(answer: Any) -> list[str]:
    """class DynamicGate: global tokens (B, N, 64), noisy latents (B, N, 64), t (B,) -> weights (B, N, 20)."""
    reference = DynamicGate()
    model, hints = _make(answer, reference, "timestep_embedding, noise_proj, gate = Sequential(Linear, ReLU, Linear)")
    if hints:
        return hints
    for clock in (reference.timestep_embedding, model.timestep_embedding):
        clock.linear_2.weight *= 100  # so that the smallest mistake about time shows
    inputs = torch.randn(2, 6, 64), torch.randn(2, 6, 64), torch.tensor([0.2, 0.7])
    mistakes = _gate_mistakes(reference, *inputs)
    advice = "Tokens are (B, N, 64), the embedded time (B, 64): it lacks an axis."
    found, hints = _run(lambda: model(*inputs), advice)
    return hints or _judge(found, reference(*inputs), mistakes, "a weight for each token and expert")


def mogle(answer: Any) -> list[str]:
    """class MoGLE: conditions (B, 20, N, 64), noisy latents (B, N, 64), t (B,) -> (B, N, 64)."""
    reference = MoGLE()
    model, hints = _make(answer, reference, "global_expert, local_experts (an nn.ModuleList of 19) and gating")
    if hints:
        return hints
    conditions, latents, time = torch.randn(2, 20, 6, 64), torch.randn(2, 6, 64), torch.tensor([0.2, 0.7])
    outputs, gate = reference.expert_outputs(conditions), reference.gating
    weights = gate(conditions[:, 0], latents, time)

    def mixed(by: Tensor, what: Tensor = outputs) -> Tensor:
        return torch.einsum("bne,benc->bnc", by, what)

    expected = mixed(weights)
    rolled = run_experts([*reference.local_experts, reference.global_expert], conditions)
    mistakes = {
        "The 20 outputs are added without the gate.": outputs.sum(1),
        "The 20 outputs are averaged: every expert has the same weight.": outputs.mean(1),
        "The global expert is missing from the sum.": mixed(weights[..., 1:], outputs[:, 1:]),
        "The local experts are missing from the sum.": mixed(weights[..., :1], outputs[:, :1]),
        "The gate looks at a local condition; it takes the global one, condition_tokens[:, 0].": mixed(
            gate(conditions[:, 1], latents, time)
        ),
        "The gate looks at the mean of the conditions; it takes the global one, condition_tokens[:, 0].": mixed(
            gate(conditions.mean(1), latents, time)
        ),
        "The gate reads the global expert's output; it takes condition_tokens[:, 0] as it is.": mixed(
            gate(outputs[:, 0], latents, time)
        ),
        "Weights and outputs are in different orders: weight 0 is the global expert's, 1 + i local expert i's.": mixed(
            weights.roll(-1, -1)
        ),
        "The weighted outputs are averaged; expected their sum.": expected / 20,
        "The experts see the wrong conditions: tokens 0 are the global expert's, 1..19 the local ones'.": mixed(
            weights, rolled
        ),
        "You added the global condition to the result; there is no residual.": expected + conditions[:, 0],
        "The experts all see the global condition; local expert i sees condition 1 + i.": mixed(
            weights, reference.expert_outputs(conditions[:, :1].expand_as(conditions))
        ),
        "The weights act on the conditions; they weigh the experts' outputs.": mixed(weights, conditions),
    }
    for hint, value in _gate_mistakes(gate, conditions[:, 0], latents, time).items():
        mistakes["In the gate: " + hint] = mixed(value)
    return _judge(model(conditions, latents, time), expected, mistakes, "one token of 64 for each place")


def gate_entropy(function: Callable[[Tensor], Any]) -> list[str]:
    """weights (..., 20) -> entropy in bits (...)."""
    weights = (3 * torch.randn(2, 6, 20)).softmax(-1)
    weights[0, :2] = 0  # where a weight is 0, 0 log 0 has to count as 0
    weights[0, 0, 4], weights[0, 1, [2, 7]] = 1, 0.5
    bits = solutions.gate_entropy(weights)
    other = torch.special.entr(weights) / np.log(2)
    mistakes = {
        "This is in nats: the logarithm to base 2 gives bits.": bits * np.log(2),
        "The logarithm is to base 10; to base 2 it gives bits.": bits * np.log10(2),
        "The sign is missing: the logarithm of a weight is negative, entropy is not.": -bits,
        "You summed over the tokens; sum over the experts, the last axis.": other.sum(dim=1),
        "You averaged over the tokens too; expected one number for each token.": bits.mean(),
        "You averaged over the experts; entropy is the sum.": bits / 20,
        "This is a share of the largest entropy, log2(20); expected bits.": bits / np.log2(20),
        "This is 2 to the power of the entropy, the effective number of experts; expected bits.": 2**bits,
        "Where one weight is 0 the others are lost: NaN counts as 0 before the sum, not after.": bits.where(
            (weights > 0).all(-1), 0
        ),
    }
    found = function(weights.clone())
    if isinstance(found, Tensor) and found.shape == bits.shape and found.isnan().any():
        return ["An expert with the weight 0 gives NaN: 0 x log 0 counts as 0 (torch.special.entr knows)."]
    return _judge(found, bits, mistakes, "one number for each token")
