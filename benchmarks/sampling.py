"""One sampling step with a mask against a plain diffusers forward over as many tokens, both in this run.

    python benchmarks/sampling.py [--dtype bf16] [--device cpu]

A random FLUX of about 100 M parameters (2 double and 6 single blocks, 12 heads of 64), 1,024 image + 1,024 condition +
128 text tokens. "exact" is the method as it is; "fast" is attention "independent" with a gate that depends on places
alone, whose condition stream is computed once for a run.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from diffusers import FluxTransformer2DModel

from mogle.experts import MoGLE
from mogle.pipeline import _Fusion
from mogle.transformer import RunCache, add_lora, forward_streams

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
SIDE, TEXT = 32, 128  # tokens


def network(dtype: torch.dtype, device: str) -> Any:
    """The random FLUX with LoRA of rank 4."""
    torch.manual_seed(0)
    model = FluxTransformer2DModel(
        num_layers=2, num_single_layers=6, num_attention_heads=12, attention_head_dim=64, axes_dims_rope=[16, 24, 24],
        joint_attention_dim=512, pooled_projection_dim=256, guidance_embeds=True,
    )  # fmt: skip
    add_lora(model, rank=4, init=False)
    return model.to(device, dtype).eval().requires_grad_(False)


def positions(rows: int, device: str, columns: int = SIDE) -> torch.Tensor:
    """(rows * columns, 3)."""
    ids = torch.zeros(rows, columns, 3, device=device)
    ids[..., 1] += torch.arange(rows, device=device)[:, None]
    ids[..., 2] += torch.arange(columns, device=device)
    return ids.flatten(0, 1)


def seconds(function: Callable[[], Any], repeats: int, device: str) -> float:
    """Median of the repeats, after one that does not count."""
    times = []
    for _ in range(repeats + 1):
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        start = time.perf_counter()
        function()
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


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
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    dtype, device = DTYPES[options.dtype], options.device
    model = network(dtype, device)
    count = SIDE * SIDE

    def numbers(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, device=device, dtype=dtype)

    conditions, latents = numbers(1, 20, count, 64), numbers(1, count, 64)
    text, pooled = numbers(1, TEXT, 512), numbers(1, 256)
    t, guidance = torch.tensor([0.5], device=device), torch.tensor([3.5], device=device)
    image_ids, text_ids = positions(SIDE, device), torch.zeros(TEXT, 3, device=device)

    def plain(rows: int) -> Callable[[], Any]:
        """diffusers' own forward over text and `rows` rows of image tokens."""
        hidden, ids = numbers(1, rows * SIDE, 64), positions(rows, device)
        return lambda: model(
            hidden_states=hidden, encoder_hidden_states=text, pooled_projections=pooled, timestep=t, guidance=guidance,
            img_ids=ids, txt_ids=text_ids, return_dict=False,
        )  # fmt: skip

    def ours(attention: str, gate: str) -> Callable[[], Any]:
        """A step of the sampler, after the first: what does not change is kept."""
        mogle = MoGLE(gate=gate).to(device).requires_grad_(False)
        fusion, cache = _Fusion(mogle, conditions, 1.0), RunCache(static=mogle.static)
        return lambda: forward_streams(
            model, latents, fusion, text, pooled, t, guidance, image_ids, text_ids, attention=attention, cache=cache
        )

    ways = {
        f"plain forward, {TEXT + 2 * count} tokens": plain(2 * SIDE),
        f"plain forward, {TEXT + count} tokens": plain(SIDE),
        "a step with a mask, exact": ours("union", "dynamic"),
        "a step with a mask, fast": ours("independent", "places"),
    }
    with torch.inference_mode():
        rows = [(name, seconds(way, options.repeats, device)) for name, way in ways.items()]
        shares = {name: where_time_goes(way, device) for name, way in ways.items()}
    where = torch.cuda.get_device_name() if device.startswith("cuda") else f"{torch.get_num_threads()} CPU threads"
    print(f"{sum(p.numel() for p in model.parameters()) / 1e6:.0f} M parameters, {options.dtype}, {where}")
    parts = [*PARTS, "all else"]
    print(f"| what | seconds | of the plain forward | {' | '.join(parts)} |\n| --- |{' ---: |' * (2 + len(parts))}")
    for name, value in rows:
        spread = " | ".join(f"{shares[name][part]:.0%}" for part in parts)
        print(f"| {name} | {value:.3f} | {value / rows[0][1]:.2f} | {spread} |")


if __name__ == "__main__":
    main()
