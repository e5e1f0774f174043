"""One sampling step with a mask against a plain diffusers forward over as many tokens, both in this run.

    python benchmarks/sampling.py [--dtype bf16] [--device cpu]

A random FLUX of about 100 M parameters (2 double and 6 single blocks, 12 heads of 64), 1,024 image + 1,024 condition +
128 text tokens. "exact" is the method as it is; "fast" is attention "independent" with a gate that depends on places
alone, whose condition stream is computed once for a run.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from diffusers import FluxTransformer2DModel

from mogle.ablations import build_mogle
from mogle.lora import add_lora
from mogle.pipeline import _Fusion
from mogle.transformer import Condition, ConditionCache, forward_streams

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
SIDE, TEXT = 32, 128  # tokens


def network(dtype: torch.dtype, device: str) -> Any:
    """The random FLUX."""
    torch.manual_seed(0)
    model = FluxTransformer2DModel(
        num_layers=2, num_single_layers=6, num_attention_heads=12, attention_head_dim=64, axes_dims_rope=[16, 24, 24],
        joint_attention_dim=512, pooled_projection_dim=256, guidance_embeds=True,
    )  # fmt: skip
    return model.to(device, dtype).eval().requires_grad_(False)


def positions(rows: int, device: torch.device, columns: int) -> torch.Tensor:
    """(rows * columns, 3)."""
    ids = torch.zeros(rows, columns, 3, device=device)
    ids[..., 1] += torch.arange(rows, device=device)[:, None]
    ids[..., 2] += torch.arange(columns, device=device)
    return ids.flatten(0, 1)


def once(function: Callable[[], Any], device: str) -> float:
    """Seconds of one call."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    start = time.perf_counter()
    function()
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter() - start


def seconds(function: Callable[[], Any], repeats: int, device: str) -> float:
    """Median of the repeats, after one that does not count."""
    return statistics.median([once(function, device) for _ in range(repeats + 1)][1:])


class Step:
    """Random inputs of one step on a network, and what can be done with them; gpu.py measures the same."""

    def __init__(self, model: Any, batch: int, text_tokens: int, side: int) -> None:
        self.model, self.side, config = model, side, model.config
        self.text = self.numbers(batch, text_tokens, config.joint_attention_dim)
        self.pooled = self.numbers(batch, config.pooled_projection_dim)
        self.conditions = self.numbers(1, 20, side * side, 64).repeat(batch, 1, 1, 1)
        self.latents = self.numbers(batch, side * side, 64)
        device = self.latents.device
        self.t, self.guidance = torch.full((batch,), 0.5, device=device), torch.full((batch,), 3.5, device=device)
        self.ids, self.text_ids = positions(side, device, side), torch.zeros(text_tokens, 3, device=device)

    def numbers(self, *shape: int) -> torch.Tensor:
        """Random ones, where and as the network's own are."""
        return torch.randn(*shape, device=self.model.device, dtype=self.model.dtype)

    def plain(self, pictures: int) -> Callable[[], Any]:
        """diffusers' own forward over text and so many pictures' tokens."""
        hidden = self.numbers(len(self.latents), pictures * self.side**2, 64)
        ids = positions(pictures * self.side, hidden.device, self.side)
        return lambda: self.model(
            hidden_states=hidden, encoder_hidden_states=self.text, pooled_projections=self.pooled, timestep=self.t,
            guidance=self.guidance, img_ids=ids, txt_ids=self.text_ids, return_dict=False,
        )  # fmt: skip

    def ours(self, attention: str, variant: str) -> Callable[[], Any]:
        """A step of the sampler, after the first: what does not change is kept."""
        mogle = build_mogle(variant).to(self.latents.device).requires_grad_(False)
        fusion, cache = _Fusion(mogle, self.conditions, 1.0), ConditionCache(static=mogle.static)
        condition = Condition(fusion, attention=attention, cache=cache)
        return lambda: forward_streams(
            self.model, self.latents, condition, self.text, self.pooled, self.t, self.guidance, self.ids, self.text_ids
        )


#: Parts of a step by the names of torch's operators.
PARTS = {"matrix products": ("addmm", "::mm", "bmm", "linear"), "attention": ("scaled_dot_product", "_flash_attention")}


def where_time_goes(function: Callable[[], Any], device: str) -> dict[str, float]:
    """Shares of one call: matrix products, attention, and all else (norms, activations, copies)."""
    from torch.profiler import ProfilerActivity, profile

    cuda = device.startswith("cuda")
    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]) as run:
        function()
    times = {e.key: e.self_device_time_total if cuda else e.self_cpu_time_total for e in run.key_averages()}
    whole = sum(times.values())
    shares = {
        part: sum(value for key, value in times.items() if any(name in key for name in names)) / whole
        for part, names in PARTS.items()
    }
    return {**shares, "all else": 1 - sum(shares.values())}


def main() -> None:
    """Prints one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dtype", choices=DTYPES, default="fp32")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args()
    dtype, device = DTYPES[options.dtype], options.device
    model = network(dtype, device)
    bare, step = Step(copy.deepcopy(model), 1, TEXT, SIDE), Step(model, 1, TEXT, SIDE)
    add_lora(model, rank=4, init=False)  # ours alone: the yardstick is diffusers as it comes
    model.to(device, dtype)
    short, whole = (f"plain forward, {TEXT + part * SIDE * SIDE} tokens" for part in (1, 2))
    ways = {
        whole: bare.plain(2),
        short: bare.plain(1),
        "a step with a mask, exact": step.ours("union", "full"),
        "a step with a mask, fast": step.ours("independent", "places"),
    }
    with torch.inference_mode():
        # in turns after one round that does not count, and each against the plain forward of its own round, so that a
        # slow minute of the machine falls on all of them
        rounds = [[once(way, device) for way in ways.values()] for _ in range(options.repeats + 1)][1:]
        times = dict(zip(ways, zip(*rounds, strict=True), strict=True))
        shares = {name: where_time_goes(way, device) for name, way in ways.items()}
    where = torch.cuda.get_device_name() if device.startswith("cuda") else f"{torch.get_num_threads()} CPU threads"
    print(f"{sum(p.numel() for p in model.parameters()) / 1e6:.0f} M parameters, {options.dtype}, {where}")
    parts = [*PARTS, "all else"]
    print(f"| what | seconds | of the plain forward | {' | '.join(parts)} |\n| --- |{' ---: |' * (2 + len(parts))}")
    for name, values in times.items():
        ratio = statistics.median(a / b for a, b in zip(values, times[whole], strict=True))
        spread = " | ".join(f"{shares[name][part]:.0%}" for part in parts)
        print(f"| {name} | {statistics.median(values):.3f} | {ratio:.2f} | {spread} |")


if __name__ == "__main__":
    main()
