"""FLUX.1-dev's size with random weights on one GPU: time, memory and share of the card's matrix rate of a step.

    python benchmarks/gpu.py --out runs/gpu.md                  # bf16 and NF4, batch 1 and 4, sampling and training
    python benchmarks/gpu.py --forms nf4 --batches 1            # what fits a card of 16 GB
    python benchmarks/gpu.py --small --device cpu --forms fp32  # the same code on a network of 6 M, to try it

Nothing is downloaded. At 512 px: 512 text, 1,024 image and 1,024 condition tokens. "plain" is a diffusers forward over
as many tokens, which is what a plain port of the reference costs at least. Training is one part of a step (forward,
backward, AdamW) with the reference's gradient checkpointing. What does not fit is a line that says so.
"""

from __future__ import annotations

import argparse
import datetime
import gc
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import FluxTransformer2DModel
from sampling import DTYPES as PLAIN
from sampling import Step, seconds
from torch import nn

from mogle.experts import MoGLE
from mogle.lora import NAME, add_lora, train_lora
from mogle.training.flow import Example, VelocityLoss
from mogle.training.plan import matrix_rate
from mogle.training.settings import TrainSettings

DTYPES = {**PLAIN, "nf4": torch.bfloat16}
STEPS = 28  # of one picture
SMALL = {
    "num_layers": 1, "num_single_layers": 2, "num_attention_heads": 4, "attention_head_dim": 64,
    "axes_dims_rope": [16, 24, 24], "joint_attention_dim": 256, "pooled_projection_dim": 128,
}  # fmt: skip


def network(form: str, device: str, small: bool) -> Any:
    """A random FLUX.1-dev, filled layer by layer so that never more than one is there in full precision."""
    with torch.device("meta"):
        model = FluxTransformer2DModel.from_config({"guidance_embeds": True, **(SMALL if small else {})})
    dtype = DTYPES[form]
    chance = torch.Generator(device).manual_seed(0)
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if not isinstance(child, nn.Linear):
                continue
            weight = torch.randn(child.weight.shape, device=device, dtype=dtype, generator=chance) * 0.02
            bias = None if child.bias is None else torch.zeros(child.bias.shape, device=device, dtype=dtype)
            setattr(parent, name, _linear(weight, bias, form == "nf4"))
    for parent in model.modules():  # the few that are no linear layers: norms
        for name, parameter in list(parent.named_parameters(recurse=False)):
            if parameter.is_meta:
                setattr(parent, name, nn.Parameter(torch.ones(parameter.shape, device=device, dtype=dtype)))
    return model.requires_grad_(False)


def _linear(weight: torch.Tensor, bias: torch.Tensor | None, quantised: bool) -> nn.Module:
    rows, columns = weight.shape
    if not quantised:
        layer = nn.Linear(columns, rows, bias is not None, device="meta")
        layer.weight = nn.Parameter(weight, requires_grad=False)
    else:
        import bitsandbytes as bnb

        layer = bnb.nn.Linear4bit(
            columns, rows, bias is not None, compute_dtype=weight.dtype, quant_type="nf4", device="meta"
        )
        four = bnb.nn.Params4bit(weight.cpu(), requires_grad=False, quant_type="nf4", module=layer)
        layer.weight = four.to(weight.device)
    layer.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)
    return layer


def operations(model: Any, tokens: int, batch: int) -> float:
    """Of one forward: two for each weight and token, four for each pair of tokens and channel in each block."""
    config = model.config
    width = config.num_attention_heads * config.attention_head_dim
    # a double block has weights of its own for text and image: each token passes one half of them
    double = 12 * width**2 * config.num_layers
    single = 12 * width**2 * config.num_single_layers
    blocks = config.num_layers + config.num_single_layers
    return batch * tokens * (2.0 * (double + single) + 4.0 * tokens * width * blocks)


def rows(model: Any, form: str, batch: int, device: str, repeats: int, text_tokens: int, side: int) -> list[tuple]:
    """(what, seconds or None where memory did not suffice, GiB, operations a second) of each way to make a step."""
    step, dtype, tokens = Step(model, batch, text_tokens, side), DTYPES[form], text_tokens + 2 * side * side

    def training() -> Callable[[], Any]:
        settings = TrainSettings(gradient_checkpointing=True)
        mogle, lora = MoGLE().to(device), train_lora(model, "condition")
        for parameter in lora:
            parameter.data = parameter.data.float()
        model.train().enable_gradient_checkpointing()
        loss = VelocityLoss(model, mogle, settings)
        optimizer = torch.optim.AdamW([*mogle.parameters(), *lora], lr=1e-4)
        noise = torch.randn_like(step.latents.float())
        part = Example("", step.latents, noise, step.t, step.conditions, step.text, step.pooled)

        def once() -> None:
            with torch.autocast(device.split(":")[0], dtype, enabled=dtype != torch.float32):
                loss(part).mean().backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

        return once

    forward = operations(model, tokens, batch)
    found = []
    for what, build, passes, gradient in (
        ("plain, sampling", lambda: step.plain(2), 1, False),
        ("ours, sampling", lambda: step.ours("union", "full"), 1, False),
        ("ours fast, sampling", lambda: step.ours("independent", "places"), 0, False),
        ("ours, training", training, 3, True),
    ):
        if what == "ours, sampling":
            add_lora(model, rank=4, init=False)
        gc.collect()
        if device.startswith("cuda"):
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        try:
            with torch.set_grad_enabled(gradient):
                took = seconds(build(), repeats, device)
        except torch.OutOfMemoryError:
            found.append((what, None, None, None))
            continue
        memory = torch.cuda.max_memory_allocated() / 2**30 if device.startswith("cuda") else None
        found.append((what, took, memory, passes * forward / took if passes else None))
    model.eval().disable_gradient_checkpointing()
    model.delete_adapters(NAME)  # the next plain forward is diffusers as it comes
    return found


def main() -> None:
    """Prints one table, and writes it to --out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--forms", default="bf16,nf4", help=f"some of {', '.join(DTYPES)}, with commas between")
    parser.add_argument("--batches", default="1,4")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--small", action="store_true", help="a network of 6 M instead of FLUX.1-dev's 12 B")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    device = options.device
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise SystemExit(f"--device {device}: found no GPU; expected one, or --small --device cpu --forms fp32")
    where = torch.cuda.get_device_name() if device.startswith("cuda") else f"{torch.get_num_threads()} CPU threads"
    text_tokens, side = (32, 8) if options.small else (512, 32)
    command = " ".join(["python", "benchmarks/gpu.py", *sys.argv[1:]])
    lines = [f"{where}, torch {torch.__version__}, {datetime.date.today()}: `{command}`", ""]
    lines += ["| form | batch | what | a step, s | images/s | peak, GiB | of the matrix rate |", "|---|" + "---:|" * 6]
    for form in options.forms.split(","):
        rate = matrix_rate(device, "bf16" if form == "nf4" else form)
        model = network(form, device, options.small)
        for batch in (int(number) for number in options.batches.split(",")):
            for what, took, memory, speed in rows(model, form, batch, device, options.repeats, text_tokens, side):
                if took is None:
                    cells = ["does not fit", "–", "–", "–"]
                else:
                    cells = [f"{took:.3f}", f"{batch / took / (STEPS if 'sampling' in what else 1):.3f}"]
                    cells += [
                        "–" if memory is None else f"{memory:.1f}",
                        "–" if speed is None else f"{speed / rate:.0%}",
                    ]
                lines.append(f"| {form} | {batch} | {what} | {' | '.join(cells)} |")
                print(lines[-1], flush=True)
        del model
    text = "\n".join(lines) + "\n"
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
