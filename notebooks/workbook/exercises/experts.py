"""Exercises of notebook 06, global and local experts: solutions, and checkers that raise `Wrong` with hints."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from mogle.experts import Expert, expert_bank
from mogle.labels import LABELS
from workbook.checking import Exercise, Wrong
from workbook.exercises.judging import advice, compare, loaded, same

NOTEBOOK = "06_global_and_local_experts"


def class_shares(label_map: np.ndarray, patch: int = 16) -> np.ndarray:
    """Which class lives where: label map (H, W) -> (N, 19), each class's share of each token's patch, row by row.

    A token stands for `patch` x `patch` pixels (8 of the VAE, times 2 of the packing); every row sums to 1.
    """
    height, width = label_map.shape
    patches = label_map.reshape(height // patch, patch, width // patch, patch).swapaxes(1, 2).reshape(-1, patch**2)
    return (patches[:, :, None] == np.arange(len(LABELS))).mean(axis=1)


def check_expert(answer: Any) -> None:
    """class Expert: (..., 64) -> (..., 64) through 32 hidden units."""
    reference, tokens = Expert(), torch.randn(2, 5, 64)
    model = loaded(answer, reference, "self.net = nn.Sequential(Linear, ReLU, Linear): net.0 and net.2")
    (first, _, second), out = reference.net, reference(tokens)
    mistakes = {
        "You added the input to the output; this expert has no residual.": out + tokens,
        "The ReLU between the two layers is missing: without it they are one linear map.": second(first(tokens)),
        "There is a ReLU after the last layer; outputs may be negative.": out.relu(),
        "The activation is a GELU, expected a ReLU.": second(F.gelu(first(tokens))),
        "The activation is a SiLU, expected a ReLU.": second(F.silu(first(tokens))),
    }
    compare(model(tokens), out, mistakes, "as many tokens out as in")


class _Products(TorchDispatchMode):
    """Counts products of matrices, whichever function of torch asks for them."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func.overloadpacket.__name__ in ("mm", "addmm", "bmm", "baddbmm", "mv", "addmv", "dot")
        return func(*args, **(kwargs or {}))


def check_expert_bank(function: Callable[..., Any]) -> None:
    """20 experts and tokens (B, 20, N, 64) -> (B, 20, N, 64), all at once."""
    tokens, experts = torch.randn(2, 20, 6, 64), [Expert() for _ in range(20)]
    layers: list[list[Any]] = [[one.net[i] for one in experts] for i in (0, 2)]
    w1, w2 = (torch.stack([layer.weight for layer in ones]).mT for ones in layers)
    b1, b2 = (torch.stack([layer.bias for layer in ones])[:, None] for ones in layers)
    expected, linear, unbiased = expert_bank(experts, tokens), tokens @ w1 + b1, (tokens @ w1).relu() @ w2
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
        "The experts are in another order: output i belongs to expert i.": expert_bank(experts[::-1], tokens),
    }
    shapes = "Tokens are (B, 20, N, 64); stacked weights (20, out, in) go in as .mT, biases (20, out) as [:, None]."
    with advice(shapes), _Products() as products, torch.enable_grad():
        found = function(experts, tokens.clone())
    compare(found, expected, mistakes, "(B, 20, N, 64)")
    if products.count > len(experts) // 2:
        found = f"{products.count} products of matrices"
        raise Wrong(
            f"Right, but one expert after another ({found}): stack their weights and multiply once for each layer."
        )
    if not found.requires_grad:
        raise Wrong("Right, but nothing could be trained: .data, detach() and no_grad cut the way back to the weights.")
    try:
        right = same(function(experts[:7], tokens[:, :7].clone()), expected[:, :7])
    except Exception:
        right = False
    if not right:
        raise Wrong("It fails for 7 experts: their number is len(experts).")


def check_class_home(function: Callable[[np.ndarray], Any]) -> None:
    """label map (H, W) -> (N, 19): each class's share of each token's patch of 16 x 16 pixels."""
    label_map = np.random.default_rng(0).integers(0, len(LABELS), (4, 6), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    label_map[5:20, 9:30], label_map[16:, :16] = 13, 4  # and one patch of a single class
    expected = torch.as_tensor(class_shares(label_map))
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
        "A patch of 8 pixels is one latent; a token is 2 x 2 of them, 16 pixels.": class_shares(label_map, 8),
    }
    whole = (expected == 1).any(1, keepdim=True)
    mistakes["A counter of type uint8 ends at 255, and a full patch has 256 pixels: it counts 0."] = expected.where(
        ~whole, 0
    )
    found = function(label_map.copy())
    compare(found, expected, mistakes, "tokens by classes")
    if not isinstance(found, np.ndarray):
        raise Wrong(f"The values are right, in a {type(found).__name__}; expected a numpy array, which label maps are.")


EXERCISES = (
    Exercise("expert", NOTEBOOK, 1, 5, check_expert, (Expert,), (
        "Two linear layers with a ReLU between them, as in section 2, and nothing around them.",
        "The layers go into __init__, as self.net; forward passes the tokens through them.",
        "self.net = nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, width)); forward returns "
        "self.net(tokens).",
    )),
    Exercise("expert_bank", NOTEBOOK, 3, 20, check_expert_bank, (expert_bank,), (
        "What does one layer of all experts look like as a single product? Stack the weights of the 20 first layers.",
        "nn.Linear keeps (out, in): the stack is (20, 32, 64); tokens (B, 20, N, 64) need (20, 64, 32) on their right.",
        "tokens @ stacked.mT + biases[:, None], relu, and the same with the second layers; biases are (20, 32).",
    )),
    Exercise("class_home", NOTEBOOK, 2, 15, check_class_home, (class_shares,), (
        "Cut the label map into patches first, 256 pixels in a row for each; then count.",
        "reshape (H/16, 16, W/16, 16), swap the two axes in the middle, reshape to (N, 256).",
        "(patches[:, :, None] == np.arange(19)).mean(axis=1) gives all shares at once.",
    )),
)  # fmt: skip
