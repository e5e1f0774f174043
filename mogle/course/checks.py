"""The checkers of the exercises: each takes the answers and raises `Wrong`, with hints, where they are not right.

Most work alike: run the answer on small random input, and where it does not give the package's result, compare it with
what plausible mistakes would have given. Inputs are never square, so that swapped axes show.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers.models.embeddings import Timesteps
from torch import Tensor, nn

from mogle.conditions import condition_images, pack_latents
from mogle.course import tokens as solutions
from mogle.course.exercises import Wrong
from mogle.experts import DynamicGate, Expert, MoGLE
from mogle.experts import expert_bank as run_experts
from mogle.labels import DEMO_PALETTE, LABELS, PALETTE


def _same(found: Tensor, expected: Tensor) -> bool:
    return found.shape == expected.shape and torch.allclose(found.double(), expected.double(), rtol=1e-4, atol=1e-5)


def _compare(found: Any, expected: Any, mistakes: Mapping[str, Any], shape: str, what: str = "") -> None:
    """Compare an answer's result with what is expected, and with what each of the mistakes gives.

    Args:
        mistakes: a hint -> the result of an answer that makes this mistake.
        shape: what the axes of the result are.
        what: begins each hint, where an exercise takes several answers.

    Raises:
        Wrong: with the mistake that gives the same, or how far the result is from the expected one.
    """
    if found is None:
        raise Wrong(f"{what}It returned None: is there a `return` at the end?")
    found, expected = torch.as_tensor(found).detach(), torch.as_tensor(expected)
    if _same(found, expected):
        return
    for hint, value in mistakes.items():
        if _same(found, torch.as_tensor(value)):
            raise Wrong(what + hint)
    if found.shape != expected.shape:
        swapped = "Axes are swapped: the" if sorted(found.shape) == sorted(expected.shape) else "The"
        raise Wrong(f"{what}{swapped} shape is {tuple(found.shape)}, expected {tuple(expected.shape)}: {shape}.")
    if found.isnan().any():
        raise Wrong(f"{what}There is a NaN in the result.")
    off = (found.double() - expected.double()).abs().max()
    raise Wrong(f"{what}The shape is right, the values are not: they differ by up to {off:.2g}.")


def _loaded(answer: Any, reference: nn.Module, parts: str) -> Any:
    """An instance of the answer's class with the reference's weights.

    Raises:
        Wrong: it has other parameters than the reference, whose `parts` are named.
    """
    model = answer()
    found, expected = ({n: tuple(v.shape) for n, v in m.state_dict().items()} for m in (model, reference))
    missing, more = [n for n in expected if n not in found], [n for n in found if n not in expected]
    if missing and not more and all(name.endswith("bias") for name in missing):
        raise Wrong(f"A bias is missing ({missing[0]}): nn.Linear has one unless you ask for none.")
    if missing or more:
        what = f"no {missing[0]}" if missing else f"{more[0]}, which the package does not have"
        raise Wrong(f"The parameters do not fit: found {what}; expected {parts}.")
    for name, shape in expected.items():
        if found[name] != shape:
            raise Wrong(f"{name} has the shape {found[name]}, expected {shape}: look at the widths.")
    if few := sum(p.numel() for p in reference.parameters()) - sum(p.numel() for p in model.parameters()):
        raise Wrong(f"{few:,} parameters too few: experts share their weights. Make a new Expert() for each.")
    model.load_state_dict(reference.state_dict())
    return model


@contextmanager
def _advice(text: str) -> Iterator[None]:
    """Where shapes do not fit: torch's own message, and advice that is about the exercise."""
    try:
        yield
    except RuntimeError as error:
        if type(error) is not RuntimeError:  # NotImplementedError and others are not about shapes
            raise
        raise Wrong(f"{' '.join(str(error).split())}.", text) from error


# --- 02 from mask to tokens --------------------------------------------------------------------------------------


def conditions20(function: Callable[[np.ndarray], Any]) -> None:
    """label map (H, W) -> (20, 3, H, W) in [-1, 1]."""
    label_map = (np.arange(24 * 16) // 7 % len(LABELS)).astype(np.uint8).reshape(24, 16)
    expected, answer = condition_images(label_map), function(label_map.copy())
    whole, local = expected[:1], expected[1:]
    found = torch.zeros(0) if answer is None else torch.as_tensor(answer).float()
    if found.numel() and found.min() >= 0:
        raise Wrong(f"The values lie in [0, {255 if found.max() > 1 else 1}]; the VAE expects [-1, 1], black at -1.")
    coloured = torch.where(local > 0, torch.as_tensor(PALETTE / 127.5 - 1).float()[:, :, None, None], -1.0)
    demo = torch.as_tensor(DEMO_PALETTE[label_map]).permute(2, 0, 1)[None] / 127.5 - 1
    reshaped, black = whole.permute(0, 2, 3, 1).reshape(whole.shape), -torch.ones_like(local)
    pairs = {
        "The background is missing: a class like the others, label 0, with an expert of its own.": (whole, local[1:]),
        "All 19 local images are black: do you compare an array with the label, not a PIL image?": (whole, black),
        "Off by one: your local images show labels 1..19, expected 0..18.": (whole, local[1:], black[:1]),
        "The global image comes last, expected first.": (local, whole),
        "Inside its class a local image is white, not in the class's colour.": (whole, coloured),
        "Your local images are inverted; expected: white where the class is, black elsewhere.": (whole, -local),
        "The local images lie in [0, 1]; the VAE expects [-1, 1], black at -1.": (whole, (local + 1) / 2),
        "The global image lies in [0, 1]; the VAE expects [-1, 1].": ((whole + 1) / 2, local),
        "The global image lies in [0, 255]; the VAE expects [-1, 1].": ((whole + 1) * 127.5, local),
        "A reshape does not bring channels to the front, it mixes pixels; permute moves axes.": (reshaped, local),
        "The colours are the web demo's, which swaps left and right; use PALETTE.": (demo, local),
    }
    mistakes = {hint: torch.cat(parts) for hint, parts in pairs.items()} | {
        "The global image is missing: image 0 is the whole mask in its colours, the 19 local ones follow.": local,
        "The channels come last; a VAE takes (20, 3, H, W).": expected.permute(0, 2, 3, 1),
    }
    if found.shape == expected.shape:  # where none of the mistakes above gives the same
        wrong = [label for label in range(len(LABELS)) if not _same(found[1 + label], local[label])]
        which = "The local images are right; image 0 is not the mask in the colours of PALETTE."
        if wrong:
            first = f"{wrong[0]} ({LABELS[wrong[0]]})"
            which = f"{len(wrong)} local images are wrong, the first is that of label {first}."
        mistakes[which] = found
    _compare(answer, expected, mistakes, "20 pictures of 3 channels")


def packing(pack: Callable[..., Any], unpack: Callable[..., Any]) -> None:
    """pack: latents (B, 16, H, W) -> (B, H/2 * W/2, 64); unpack(tokens, H, W) -> latents."""
    batch, channels, height, width = 2, 16, 4, 6
    latents = torch.arange(batch * channels * height * width).float().view(batch, channels, height, width)
    parts, expected = latents.view(batch, channels, height // 2, 2, width // 2, 2), pack_latents(latents)
    halves = latents.view(batch, channels, 2, height // 2, 2, width // 2)
    orders = {
        "The 2 x 2 pixels come before the channels; in FLUX channels vary slowest within a token.": (2, 4, 3, 5, 1),
        "The tokens run column by column; expected row by row, as one reads.": (4, 2, 1, 3, 5),
        "Within a token rows and columns of the 2 x 2 pixels are swapped.": (2, 4, 1, 5, 3),
    }
    wrong = {hint: parts.permute(0, *axes) for hint, axes in orders.items()} | {
        "A reshape alone mixes neighbouring pixels of a row: split H and W into pairs, permute, then reshape.": latents,
        "H and W are split the wrong way round: (H/2, 2) makes neighbours a pair.": halves.permute(0, 3, 5, 1, 2, 4),
    }
    mistakes = {hint: value.reshape(expected.shape) for hint, value in wrong.items()}
    _compare(pack(latents.clone()), expected, mistakes, "(B, H/2 * W/2, 4 x 16)", "pack: ")
    mistakes = {
        "a reshape alone does not undo the permutation.": expected.reshape(latents.shape),
        "height and width are swapped.": solutions.unpack_latents(expected, width, height),
        "height and width are swapped within the 2 x 2 pixels.": parts.transpose(3, 5).reshape(latents.shape),
    }
    _compare(unpack(expected.clone(), height, width), latents, mistakes, "(B, 16, H, W)", "unpack: ")


def _swapping(one: int, other: int) -> solutions.Loader:
    """A loader that takes two classes for each other."""
    order = np.arange(len(LABELS))
    order[[one, other]] = other, one
    return lambda picture: solutions.loader_c(picture)[order]


def broken_loader(is_right: Callable[[Any], Any]) -> None:
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
            raise Wrong(f"It returned {type(verdict).__name__}, expected True or False.")
        if verdict != right:
            hints.append(hint)
    if hints:
        raise Wrong(*hints)


# --- 06 global and local experts ---------------------------------------------------------------------------------


def expert(answer: Any) -> None:
    """class Expert: (..., 64) -> (..., 64) through 32 hidden units."""
    reference, tokens = Expert(), torch.randn(2, 5, 64)
    model = _loaded(answer, reference, "self.net = nn.Sequential(Linear, ReLU, Linear): net.0 and net.2")
    (first, _, second), out = reference.net, reference(tokens)
    mistakes = {
        "You added the input to the output; this expert has no residual.": out + tokens,
        "The ReLU between the two layers is missing: without it they are one linear map.": second(first(tokens)),
        "There is a ReLU after the last layer; outputs may be negative.": out.relu(),
        "The activation is a GELU, expected a ReLU.": second(F.gelu(first(tokens))),
        "The activation is a SiLU, expected a ReLU.": second(F.silu(first(tokens))),
    }
    _compare(model(tokens), out, mistakes, "as many tokens out as in")


def expert_bank(function: Callable[..., Any]) -> None:
    """20 experts and tokens (B, 20, N, 64) -> (B, 20, N, 64), all at once."""
    tokens, experts = torch.randn(2, 20, 6, 64), [Expert() for _ in range(20)]
    layers: list[list[Any]] = [[one.net[i] for one in experts] for i in (0, 2)]
    w1, w2 = (torch.stack([layer.weight for layer in ones]).mT for ones in layers)
    b1, b2 = (torch.stack([layer.bias for layer in ones])[:, None] for ones in layers)
    expected, linear, unbiased = run_experts(experts, tokens), tokens @ w1 + b1, (tokens @ w1).relu() @ w2
    turned = (tokens @ w1.mT.reshape(w1.shape) + b1).relu() @ w2.mT.reshape(w2.shape) + b2
    mistakes = {
        "A reshape does not turn the weights from (out, in) to (in, out), it mixes them; .mT does.": turned,
        "All tokens pass the first expert's weights; each of the 20 has its own.": experts[0](tokens),
        "The ReLU is missing.": linear @ w2 + b2,
        "The first bias is missing.": unbiased + b2,
        "The second bias is missing.": linear.relu() @ w2,
        "Both biases are missing.": unbiased,
        "The outputs are added up already; keep all 20, the gate weighs them later.": expected.sum(dim=1),
        "The outputs are averaged already; keep all 20, the gate weighs them later.": expected.mean(dim=1),
        "The experts are in another order: output i belongs to expert i.": run_experts(experts[::-1], tokens),
    }
    calls: list[None] = []
    for one in experts:
        one.register_forward_hook(lambda *_: calls.append(None))
    advice = "Tokens are (B, 20, N, 64); stacked weights (20, out, in) go in as .mT, biases (20, out) as [:, None]."
    with _advice(advice):
        found = function(experts, tokens.clone())
    _compare(found, expected, mistakes, "(B, 20, N, 64)")
    if calls:
        raise Wrong(f"Right, but one expert after another ({len(calls)} calls): stack their weights and multiply once.")
    try:
        right = _same(function(experts[:7], tokens[:, :7].clone()), expected[:, :7])
    except Exception:
        right = False
    if not right:
        raise Wrong("It fails for 7 experts: their number is len(experts).")


def class_home(function: Callable[[np.ndarray], Any]) -> None:
    """label map (H, W) -> (N, 19): each class's share of each token's patch of 16 x 16 pixels."""
    label_map = np.random.default_rng(0).integers(0, len(LABELS), (4, 6), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    label_map[5:20, 9:30] = 13
    expected = torch.as_tensor(solutions.class_shares(label_map))
    strips = (label_map.reshape(-1, 256, 1) == np.arange(len(LABELS))).mean(axis=1)
    columns = expected.view(2, 3, -1).transpose(0, 1).reshape(expected.shape)
    largest = F.one_hot(expected.argmax(1), len(LABELS))
    mistakes = {
        "The tokens run column by column; expected row by row, as `pack_latents` has them.": columns,
        "These are numbers of pixels; divide by the 256 of a patch.": expected * 256,
        "Your shares sum to 1 over the tokens, not over the classes.": (expected / expected.sum(0)).nan_to_num(),
        "Only the largest class of each patch counts here; the others have a share too.": largest,
        "The background is missing: 19 classes, label 0 first.": expected[:, 1:],
        "A reshape alone cuts rows of the picture, not patches: split both sides, then bring axes in order.": strips,
        "A patch of 8 pixels is one latent; a token is 2 x 2 of them, 16 pixels.": solutions.class_shares(label_map, 8),
    }
    _compare(function(label_map.copy()), expected, mistakes, "tokens by classes")


# --- 07 dynamic gating -------------------------------------------------------------------------------------------


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


def dynamic_gate(answer: Any) -> None:
    """class DynamicGate: global tokens (B, N, 64), noisy latents (B, N, 64), t (B,) -> weights (B, N, 20)."""
    reference, inputs = DynamicGate(), _gate_inputs()
    reference.timestep_embedding.linear_2.weight *= 100  # so that the smallest mistake about time shows
    model = _loaded(answer, reference, "timestep_embedding, noise_proj, gate = Sequential(Linear, ReLU, Linear)")
    with _advice("Tokens are (B, N, 64), the embedded time (B, 64): it lacks an axis."):
        found = model(*inputs)
    mistakes = _gate_mistakes(reference, *inputs)
    _compare(found, reference(*inputs), mistakes, "a weight for each token and expert")


def mogle(answer: Any) -> None:
    """class MoGLE: conditions (B, 20, N, 64), noisy latents (B, N, 64), t (B,) -> (B, N, 64)."""
    reference, c, (_, z, t) = MoGLE(), torch.randn(2, 20, 6, 64), _gate_inputs()
    model = _loaded(answer, reference, "global_expert, local_experts (an nn.ModuleList of 19) and gating")
    gate, experts = reference.gating, [reference.global_expert, *reference.local_experts]
    outputs, rolled = run_experts(experts, c), run_experts([*experts[1:], experts[0]], c)
    weights, of_global = gate(c[:, 0], z, t), run_experts(experts, c[:, :1].expand_as(c))

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
    _compare(model(c, z, t), expected, mistakes, "one token of 64 for each place")


def gate_entropy(function: Callable[[Tensor], Any]) -> None:
    """weights (..., 20) -> entropy in bits (...)."""
    weights = (3 * torch.randn(2, 6, 20)).softmax(-1)
    weights[0, :2] = 0  # where a weight is 0, 0 log 0 has to count as 0
    weights[0, 0, 4], weights[0, 1, [2, 7]] = 1, 0.5
    bits, terms = solutions.gate_entropy(weights), torch.special.entr(weights) / np.log(2)
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
    _compare(found, bits, mistakes, "one number for each token")
