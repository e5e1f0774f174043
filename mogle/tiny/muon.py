"""Muon for every weight with two or more axes, AdamW for the rest: more progress a step on small models.

Momentum is made orthogonal by a Newton-Schulz iteration before it is applied (Jordan et al. 2024). torch's own Muon
takes no convolutions and works in bfloat16, which many CPUs only emulate; this one flattens kernels, in float32. Among
several processes each iterates for its share of the matrices, and all get the sum.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor


def orthogonalize(matrix: Tensor, steps: int = 5) -> Tensor:
    """(m, n) -> nearly the closest matrix with orthonormal rows or columns: singular values end near 1."""
    a, b, c = 3.4445, -4.7750, 2.0315
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.mT
    x = wide / (wide.norm() + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x if matrix.shape[0] <= matrix.shape[1] else x.mT


class Muon(torch.optim.Optimizer):
    """`lr` is on AdamW's scale: an orthogonal update is scaled to the root mean square of a typical AdamW update."""

    def __init__(
        self,
        parameters: Iterable[torch.nn.Parameter],
        lr: float = 1e-3,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """One update of every parameter that has a gradient."""
        shared = torch.distributed.is_available() and torch.distributed.is_initialized()
        rank, count = (torch.distributed.get_rank(), torch.distributed.get_world_size()) if shared else (0, 1)
        for group in self.param_groups:
            matrices: list[torch.nn.Parameter] = []
            updates: list[Tensor] = []
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["first"] = torch.zeros_like(parameter)
                    if parameter.ndim < 2:
                        state["second"], state["count"] = torch.zeros_like(parameter), 0
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                if parameter.ndim < 2:
                    self._adam(parameter, state, group)
                    continue
                momentum = state["first"]
                momentum.lerp_(parameter.grad, 1 - group["momentum"])
                ahead = parameter.grad.lerp(momentum, group["momentum"]).flatten(1)
                if len(matrices) % count == rank:  # the others' updates come from their processes
                    update = orthogonalize(ahead) * (0.2 * max(ahead.shape) ** 0.5)
                else:
                    update = torch.zeros_like(ahead)
                matrices.append(parameter)
                updates.append(update.flatten())
            if shared and updates:
                flat = torch.cat(updates)
                torch.distributed.all_reduce(flat)
                updates = list(flat.split([parameter.numel() for parameter in matrices]))
            for parameter, update in zip(matrices, updates, strict=True):
                parameter.add_(update.view_as(parameter), alpha=-group["lr"])

    @staticmethod
    def _adam(parameter: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        state["count"] += 1
        (beta1, beta2), grad = group["betas"], parameter.grad
        assert grad is not None
        state["first"].lerp_(grad, 1 - beta1)
        state["second"].lerp_(grad.square(), 1 - beta2)
        scale = (state["second"] / (1 - beta2 ** state["count"])).sqrt_().add_(1e-8)
        parameter.addcdiv_(state["first"], scale, value=-group["lr"] / (1 - beta1 ** state["count"]))
