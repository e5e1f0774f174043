"""Exercises of notebook 06, global and local experts: solutions, and checkers that raise `Wrong` with hints."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
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


def painter(hidden: int = 16) -> Expert:
    """An expert that answers with a colour: (..., 64) -> (..., 3)."""
    expert = Expert(hidden=hidden)
    expert.net[2] = nn.Linear(hidden, 3)
    return expert


def train_bank(experts: Sequence[Any], tokens: Tensor, target: Tensor, steps: int) -> list[float]:
    """Train the experts in place until the sum of their answers is the target -> the loss of each step.

    tokens (B, E, N, 64), target (B, N, 3).
    """
    optimizer = torch.optim.Adam([weight for expert in experts for weight in expert.parameters()], lr=0.01)
    losses = []
    for _ in range(steps):
        loss = (expert_bank(experts, tokens).sum(dim=1) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def never_seen(lessons: Sequence[np.ndarray], mask: np.ndarray) -> list[str]:
    """The classes of a new label map that none of the lessons, label maps too, has: their experts know nothing."""
    seen = {label for lesson in lessons for label in np.unique(lesson).tolist()}
    return [LABELS[label] for label in np.unique(mask).tolist() if label not in seen]


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


def check_train_bank(function: Callable[..., Any]) -> None:
    """experts, tokens (B, E, N, 64), target (B, N, 3), steps -> the loss of each step; the experts are trained."""
    experts, tokens, steps = [painter() for _ in range(5)], torch.randn(6, 5, 8, 64), 80
    target = expert_bank([painter() for _ in range(5)], tokens).sum(dim=1)
    before = [[weight.clone() for weight in expert.parameters()] for expert in experts]
    answers = expert_bank(experts, tokens)
    off = answers.sum(dim=1) - target
    start, piled = off.square().mean(), _watch_gradients(experts)
    shapes = "expert_bank gives (B, E, N, 3), the target is (B, N, 3): add the experts' answers up, sum(dim=1)."
    with advice(f"{shapes} And nothing may be detached on the way to the loss."), torch.enable_grad():
        losses = function(experts, tokens.clone(), target.clone(), steps)
    _check_losses(losses, steps)
    pairs = enumerate(zip(experts, before, strict=True))
    still = [i for i, (expert, old) in pairs if _same_weights(expert.parameters(), old)]
    if len(still) == len(experts):
        raise Wrong("The experts are as they were before: optimizer.step() is missing, or it trains copies of them.")
    if still:
        raise Wrong(f"{len(still)} of {len(experts)} experts are not trained: the optimizer needs everyone's weights.")
    if piled:
        raise Wrong("The gradients of earlier steps are still there and pile up: zero_grad() before backward().")
    mistakes = {
        "You average the experts' answers; the painting is their sum.": (answers.mean(dim=1) - target).square().mean(),
        "You sum the squares; the loss is their mean, so that it does not depend on the size.": off.square().sum(),
        "Each expert alone shall paint the whole; it is their sum that shall.": (
            (answers - target[:, None]).square().mean()
        ),
        "These are absolute errors; expected the mean of the squares.": off.abs().mean(),
        "There is a root around the mean; expected the mean of the squares.": start.sqrt(),
    }
    for hint, value in mistakes.items():
        if abs(float(losses[0]) / float(value) - 1) < 1e-3:
            raise Wrong(hint)
    end = (expert_bank(experts, tokens).sum(dim=1) - target).square().mean()
    if not end < start:
        raise Wrong("The loss has grown: is its sign right, and the learning rate small enough?")
    if end > 0.5 * start:
        raise Wrong(f"The loss has hardly fallen in {steps} steps: try Adam with a larger learning rate, 0.01.")


def _same_weights(weights: Any, others: Sequence[Tensor]) -> bool:
    return all(torch.equal(weight, other) for weight, other in zip(weights, others, strict=True))


def _watch_gradients(experts: Sequence[nn.Module]) -> list[bool]:
    """A list that fills as soon as a backward pass adds to the gradients of one before."""
    piled = list[bool]()
    for weight in (weight for expert in experts for weight in expert.parameters()):
        fresh = list[Tensor]()
        weight.register_hook(lambda grad, fresh=fresh: fresh.append(grad.clone()))

        def compared(weight: Tensor, fresh: list[Tensor] = fresh) -> None:
            grad = weight.grad
            if grad is not None and not torch.allclose(grad, fresh[-1]):
                piled.append(True)

        weight.register_post_accumulate_grad_hook(compared)
    return piled


def _check_losses(losses: Any, steps: int) -> None:
    if losses is None:
        raise Wrong("It returned None: is there a `return losses` at the end?")
    if not isinstance(losses, (list, tuple, np.ndarray, Tensor)) or len(losses) != steps:
        count = f"{len(losses)} of them" if hasattr(losses, "__len__") else f"a {type(losses).__name__}"
        raise Wrong(f"Expected one loss for each of the {steps} steps, found {count}.")
    if any(isinstance(loss, Tensor) and loss.requires_grad for loss in losses):
        raise Wrong("Each loss you keep holds on to its whole graph of computations: keep loss.item(), a number.")
    if not np.isfinite([float(loss) for loss in losses]).all():
        raise Wrong("The loss is no longer a number: the learning rate is too large.")


def check_never_seen(function: Callable[..., Any]) -> None:
    """lessons, label maps, and a new label map -> names of the classes that will be painted wrongly."""

    def drawn(*labels: int) -> np.ndarray:
        return np.repeat(np.array([0, 0, 1, *labels], dtype=np.uint8), 16).reshape(-1, 16)

    lessons, mask = [drawn(1, 2, 13, 10, 15), drawn(2, 13, 3, 17)], drawn(2, 10, 13, 13, 14, 14, 14, 16)
    found = function([lesson.copy() for lesson in lessons], mask.copy())
    if found is None:
        raise Wrong("It returned None: is there a `return` at the end?")
    if isinstance(found, str) or not all(isinstance(name, str) for name in found):
        raise Wrong("Expected a list of names, such as those in LABELS.")
    if unknown := sorted(set(found) - set(LABELS)):
        raise Wrong(f"There is no class {unknown[0]!r}; the names are in LABELS.")
    expected, names, present = set(never_seen(lessons, mask)), set(found), {LABELS[k] for k in np.unique(mask)}
    if names == expected:
        return
    each = [{LABELS[k] for k in np.unique(lesson)} for lesson in lessons]
    seen, everywhere = set.union(*each), set.intersection(*each)
    if not names:
        raise Wrong("No class at all? An expert whose mask was black in every lesson has never had to say a thing.")
    if names == seen - present:
        raise Wrong("The wrong way round: these are in the lessons and not in the new mask.")
    if names == set(LABELS) - seen or names - present - seen:
        raise Wrong("Some of these are not in the new mask: an expert that has nothing to paint paints nothing wrong.")
    if names == present - everywhere:
        raise Wrong("Missing in one lesson is not missing in all: one mask with the class is a lesson for its expert.")
    if names == present:
        raise Wrong("That is every class of the new mask: most of their experts have had lessons.")
    if extra := sorted(names & seen):
        raise Wrong(f"{extra[0]} occurs in the lessons, so its expert has learned it; small or rare is not unseen.")
    raise Wrong(f"{len(expected - names)} more: large and small classes alike can be missing in the lessons.")


EXERCISES = (
    Exercise("expert", NOTEBOOK, 1, 5, check_expert, (Expert,), (
        "Two linear layers with a ReLU between them, as in section 2, and nothing around them.",
        "The layers go into __init__, as self.net; forward passes the tokens through them.",
        "self.net = nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, width)); forward returns "
        "self.net(tokens).",
    )),
    Exercise("expert_bank", NOTEBOOK, 2, 20, check_expert_bank, (expert_bank,), (
        "What does one layer of all experts look like as a single product? Stack the weights of the 20 first layers.",
        "nn.Linear keeps (out, in): the stack is (20, 32, 64); tokens (B, 20, N, 64) need (20, 64, 32) on their right.",
        "tokens @ stacked.mT + biases[:, None], relu, and the same with the second layers; biases are (20, 32).",
    )),
    Exercise("class_home", NOTEBOOK, 2, 15, check_class_home, (class_shares,), (
        "Cut the label map into patches first, 256 pixels in a row for each; then count.",
        "reshape (H/16, 16, W/16, 16), swap the two axes in the middle, reshape to (N, 256).",
        "(patches[:, :, None] == np.arange(19)).mean(axis=1) gives all shares at once.",
    )),
    Exercise("train_bank", NOTEBOOK, 2, 20, check_train_bank, (train_bank,), (
        "Five lines in a loop: the painting, its loss, old gradients away, backward, a step. And keep the loss.",
        "The optimizer takes the weights of all experts, made before the loop; the painting is the bank's sum(dim=1).",
        "torch.optim.Adam([w for e in experts for w in e.parameters()], lr=0.01); loss = (painting - target).square()"
        ".mean(); losses.append(loss.item()).",
    )),
    Exercise("never_seen", NOTEBOOK, 2, 10, check_never_seen, (never_seen,), (
        "What has an expert been asked for, if its mask was black in every lesson?",
        "Compare two sets: the labels that occur in any of the lessons, and those of the new mask.",
        "np.unique of each lesson, joined into one set; then LABELS[k] for each k of np.unique(mask) outside it.",
    )),
)  # fmt: skip
