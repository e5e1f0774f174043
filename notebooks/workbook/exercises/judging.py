"""What the checkers of the exercises share: comparing a result with the right one and with what mistakes would give.

A checker runs an answer on small random input, and where it does not give the package's result, compares it with what
plausible mistakes would have given. Inputs are never square, so that swapped axes show.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from workbook.checking import Wrong


def same(found: Tensor, expected: Tensor) -> bool:
    return found.shape == expected.shape and torch.allclose(found.double(), expected.double(), rtol=1e-4, atol=1e-5)


def compare(found: Any, expected: Any, mistakes: Mapping[str, Any], shape: str, what: str = "") -> None:
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
    if same(found, expected):
        return
    for hint, value in mistakes.items():
        if same(found, torch.as_tensor(value)):
            raise Wrong(what + hint)
    if found.shape != expected.shape:
        swapped = "Axes are swapped: the" if sorted(found.shape) == sorted(expected.shape) else "The"
        raise Wrong(f"{what}{swapped} shape is {tuple(found.shape)}, expected {tuple(expected.shape)}: {shape}.")
    if found.isnan().any():
        raise Wrong(f"{what}There is a NaN in the result.")
    off = (found.double() - expected.double()).abs().max()
    raise Wrong(f"{what}The shape is right, the values are not: they differ by up to {off:.2g}.")


def loaded(answer: Any, reference: nn.Module, parts: str) -> Any:
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


def check_choice(answer: Any, what: str, right: int, refuted: Mapping[int, str], verdict: str) -> None:
    """The number of one line, explanation, ... (`what`), given as it is or by a function.

    Args:
        refuted: each other number -> why it is not that one; `verdict` stands before it.

    Raises:
        Wrong: it is no number, none of these, or one that is refuted.
    """
    found = answer() if callable(answer) else answer
    try:
        number = int(str(found).strip().lower().removeprefix(what))
    except ValueError:
        raise Wrong(f"Expected the number of one {what}; found {found!r}.") from None
    if number == right:
        return
    if number not in refuted:
        raise Wrong(f"There is no {what} {number}; the numbers go from 1 to {max(right, *refuted)}.")
    raise Wrong(f"{what.capitalize()} {number} {verdict}: {refuted[number]}.")


@contextmanager
def advice(text: str) -> Iterator[None]:
    """Where shapes do not fit: torch's own message, and advice that is about the exercise."""
    try:
        yield
    except RuntimeError as error:
        if type(error) is not RuntimeError:  # NotImplementedError and others are not about shapes
            raise
        raise Wrong(f"{' '.join(str(error).split())}.", text) from error
