"""Mask guidance, distilled: an adapter learns to give in one forward what guiding by its mask takes two for.

v = v(text) + w (v(text, mask) - v(text)) is to masks what classifier-free guidance is to words. FLUX.1-dev has the
latter in one forward, by distillation; this is the same for the mask, and this project's: the paper has neither.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from mogle.lora import NAME, lora_layers
from mogle.transformer import Condition


class Teacher:
    """The adapter as it is now, frozen; it is asked for guided velocities while another one is trained in its place."""

    def __init__(self, transformer: Any, mogle: Any, weight: float) -> None:
        self.layers, self.weight = lora_layers(transformer), weight
        self.mogle = copy.deepcopy(mogle).eval().requires_grad_(False)
        self.lora = {key: half.detach().clone() for key, half in self._halves()}

    def _halves(self) -> Iterator[tuple[tuple[str, str], torch.nn.Parameter]]:
        for name, layer in self.layers.items():
            for kind in ("lora_A", "lora_B"):
                yield (name, kind), getattr(layer, kind)[NAME].weight

    @contextmanager
    def _in_place(self) -> Iterator[None]:
        """The teacher's LoRA in the place of the student's, for a while."""
        students = {}
        for key, half in self._halves():
            students[key], half.data = half.data, self.lora[key].to(half.device)
        try:
            yield
        finally:
            for key, half in self._halves():
                half.data = students[key]

    @torch.no_grad()
    def velocity(
        self, forward: Callable[[Condition], Tensor], condition: Condition, tokens: Tensor, noisy: Tensor, t: Tensor
    ) -> Tensor:
        """The guided velocity (B, N, 64).

        Args:
            forward: from a condition to the velocity, on the batch at hand.
            condition: the student's, for its options and number format.
            tokens: condition tokens (B, 20, N, 64).
            noisy, t: noisy latents (B, N, 64) and their times (B,).
        """
        fused = self.mogle.to(noisy.device)(tokens.float(), noisy, t)
        options = {"attention": condition.attention, "lora_on": condition.lora_on, "guidance": self.weight}
        with self._in_place():
            return forward(Condition(fused.to(condition.tokens.dtype), **options))  # type: ignore[union-attr, arg-type]
