"""Muon for every weight with two or more axes, AdamW for the rest: more progress a step on small models.

Momentum is made orthogonal by a Newton-Schulz iteration before it is applied (Jordan et al. 2024). torch's own Muon
takes no convolutions and iterates for one matrix after another; this one flattens kernels and iterates for all matrices
of a shape in one batch, in bfloat16 where the machine multiplies it fast: 0.2 s a step instead of 0.5 for 10 M
parameters on two cores. Among several processes each iterates for its share of a batch, and all get the sum.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor


def orthogonalize(matrices: Tensor, steps: int = 5, dtype: torch.dtype = torch.float32) -> Tensor:
    """(G, m, n) -> nearly the closest matrices with orthonormal rows or columns: singular values end near 1."""
    a, b, c = 3.4445, -4.7750, 2.0315
    wide = matrices if matrices.shape[1] <= matrices.shape[2] else matrices.mT
    x = (wide / (wide.flatten(1).norm(dim=1)[:, None, None] + 1e-7)).to(dtype)
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    x = x.to(matrices.dtype)
    return x if matrices.shape[1] <= matrices.shape[2] else x.mT


class Muon(torch.optim.Optimizer):
    """`lr` is on AdamW's scale: an orthogonal update is scaled to the root mean square of a typical AdamW update.

    `dtype` is that of the Newton-Schulz iteration.
    """

    def __init__(
        self,
        parameters: Iterable[torch.nn.Parameter],
        lr: float = 1e-3,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "betas": betas, "weight_decay": weight_decay})
        self.dtype = dtype

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """One update of every parameter that has a gradient."""
        for group in self.param_groups:
            by_shape: dict[tuple[int, int], list[tuple[torch.nn.Parameter, Tensor]]] = {}
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
                ahead = ahead if ahead.shape[0] <= ahead.shape[1] else ahead.mT
                by_shape.setdefault((ahead.shape[0], ahead.shape[1]), []).append((parameter, ahead))
            for (_, longer), pairs in by_shape.items():
                updates = _shared(torch.stack([ahead for _, ahead in pairs]), self.dtype)
                for (parameter, _), update in zip(pairs, updates, strict=True):
                    flat = parameter.flatten(1)
                    update = update if flat.shape[0] <= flat.shape[1] else update.mT
                    parameter.add_(update.reshape(parameter.shape), alpha=-group["lr"] * 0.2 * longer**0.5)

    @staticmethod
    def _adam(parameter: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        state["count"] += 1
        (beta1, beta2), grad = group["betas"], parameter.grad
        assert grad is not None
        state["first"].lerp_(grad, 1 - beta1)
        state["second"].lerp_(grad.square(), 1 - beta2)
        scale = (state["second"] / (1 - beta2 ** state["count"])).sqrt_().add_(1e-8)
        parameter.addcdiv_(state["first"], scale, value=-group["lr"] / (1 - beta1 ** state["count"]))


def _shared(matrices: Tensor, dtype: torch.dtype) -> Tensor:
    """`orthogonalize`, each process for its share of the matrices."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return orthogonalize(matrices, dtype=dtype)
    rank, count = torch.distributed.get_rank(), torch.distributed.get_world_size()
    updates = torch.zeros_like(matrices)
    if rank < len(matrices):
        updates[rank::count] = orthogonalize(matrices[rank::count], dtype=dtype)
    torch.distributed.all_reduce(updates)
    return updates
