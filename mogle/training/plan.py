"""`mogle train --dry-run`: what would be trained, on what, and what it would take. The base is not loaded.

Parameters are counted on a network without memory (torch's meta device). Memory and time are estimates, and their
formulas stand beside them; only the machine's matrix rate is measured.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import FluxTransformer2DModel
from huggingface_hub import try_to_load_from_cache
from torch.utils.benchmark import Timer
from transformers import AutoTokenizer

from mogle.ablations import build_mogle
from mogle.checkpoints import base_folder, pick_device
from mogle.errors import MogleError
from mogle.lora import add_lora
from mogle.training.finetune import PAINTED, base_size, fitting, open_source
from mogle.training.flow import DTYPE
from mogle.training.settings import TrainSettings

#: Bytes of optimiser state for one trained number.
_STATES = {"adamw": 8, "prodigy": 16, "adamw8bit": 2}
_NF4 = 0.5 + 4 / 64  # 4 bits, and one float32 scale for 64 numbers
#: The published networks differ in this alone; the rest are the defaults of diffusers' class.
_PUBLISHED = {"black-forest-labs/FLUX.1-dev": True, "black-forest-labs/FLUX.1-schnell": False}


def describe(settings: TrainSettings, *, device: str | None = None, skip_bad: bool = False) -> str:
    """What `fine_tune` would do, for `--dry-run`: the data set is read, the base is not."""
    base, device = base_folder(settings.base), pick_device(device)
    settings = fitting(settings, device)
    size, longest = (settings.size or 1024,) * 2, 512
    if isinstance(base, Path):  # of a Hub name nothing need be here
        size = base_size(base, settings)
        longest = min(longest, AutoTokenizer.from_pretrained(base / "tokenizer_2").model_max_length)
    if settings.data is None:
        found = f"{settings.count or PAINTED} portraits, painted at {size[0]} px"
    else:
        source, skipped = open_source(settings, size, base, skip_bad)
        captions = sum(len(source.captions(i)) for i in range(len(source.ids))) / len(source.ids)
        found = f"{settings.data}: {len(source.ids)} samples, {captions:.1f} captions each"
        found += f", {skipped} with problems left out" if skipped else ""
    return f"{plan(settings, base, size, settings.prompt_tokens or longest, device)}\ndata        {found}"


def transformer_config(base: Path | str) -> dict[str, Any]:
    """The transformer's configuration: of the folder, of an earlier download, or as published.

    Raises:
        MogleError: a Hub name of which nothing is here; nothing is downloaded for a dry run.
    """
    path = base / "transformer" / "config.json" if isinstance(base, Path) else None
    if path := path or try_to_load_from_cache(str(base), "transformer/config.json"):
        return json.loads(Path(path).read_text())
    if base in _PUBLISHED:
        return {"guidance_embeds": _PUBLISHED[str(base)]}
    raise MogleError(f"{base}: found no configuration on this machine; a dry run downloads nothing")


def count_parameters(config: dict[str, Any], settings: TrainSettings) -> dict[str, int]:
    """Numbers in the frozen transformer, in LoRA and its layers, in MoGLE, and how many of them are trained."""
    with torch.device("meta"):
        network = FluxTransformer2DModel.from_config(config)
        frozen = sum(p.numel() for p in network.parameters())
        add_lora(network, rank=settings.rank, alpha=settings.alpha, init=False, lora_on=settings.lora_on)
        mogle = build_mogle(settings.variant, network.config.in_channels)
    lora = [p for name, p in network.named_parameters() if "lora_" in name]
    return {
        "frozen": frozen,
        "lora": sum(p.numel() for p in lora),
        "lora_modules": len(lora) // 2,
        "mogle": sum(p.numel() for p in mogle.parameters()),
        "trained": sum(p.numel() for p in [*lora, *mogle.parameters()] if p.requires_grad),
        "blocks": len(network.transformer_blocks) + len(network.single_transformer_blocks),
        "width": network.inner_dim,
    }


def matrix_rate(device: str, precision: str, seconds: float = 0.5) -> float:
    """Measured: floating-point operations a second of a matrix product on this device."""
    side, dtype = 4096 if device.startswith("cuda") else 1024, DTYPE[precision]
    factors = {name: torch.randn(side, side, device=device, dtype=dtype) for name in "ab"}
    timer = Timer("a @ b", globals=factors, num_threads=torch.get_num_threads())
    return 2 * side**3 / timer.blocked_autorange(min_run_time=seconds).median


def plan(settings: TrainSettings, base: Path | str, size: tuple[int, int], text_tokens: int, device: str) -> str:
    """The report, as text."""
    config = transformer_config(base)
    counts = count_parameters(config, settings)
    image_tokens = size[0] * size[1] // 256
    tokens = text_tokens + 2 * image_tokens
    micro = settings.batch // settings.accumulation
    byte = DTYPE[settings.precision].itemsize
    weights = counts["frozen"] * (_NF4 if settings.quantise == "nf4" else byte)
    states = counts["trained"] * (4 + 4 + _STATES[settings.optimizer] + (4 if settings.ema else 0))
    kept = 1 if settings.gradient_checkpointing else 24  # activations of a block that wait for the way back
    activations = micro * tokens * counts["width"] * byte * (counts["blocks"] * kept + 24)
    rate = matrix_rate(device, settings.precision)
    passes = 6 if settings.gradient_checkpointing else 4  # frozen weights need no gradients of their own
    operations = passes * counts["frozen"] * tokens * settings.batch
    step = operations / rate

    def gib(number: float) -> str:
        return f"{number / 2**30:.2f} GiB"

    form = settings.precision if settings.quantise == "none" else settings.quantise
    hours = step * settings.steps / 3600
    lines = (
        f"base        {base}: {counts['frozen']:,} parameters, frozen, {form}",
        f"trained     {counts['trained']:,} parameters: LoRA {counts['lora']:,} in {counts['lora_modules']} layers "
        f"(rank {settings.rank}), MoGLE {counts['mogle']:,} ({settings.variant})",
        f"step        {settings.batch} samples of {size[0]} x {size[1]} px in {settings.accumulation} parts; "
        f"{text_tokens} text + {image_tokens} image + {image_tokens} condition tokens",
        f"memory      {gib(weights + states + activations)}, an estimate: weights {gib(weights)}; trained "
        f"parameters, gradients and {settings.optimizer}'s states {gib(states)}; activations {gib(activations)} = "
        f"{micro} samples x {tokens} tokens x {counts['width']} wide x {byte} bytes x "
        f"({counts['blocks']} blocks x {kept} + 24)",
        f"time        {step:.2g} s a step, {hours:.2g} h for {settings.steps} steps, an estimate: {passes} x "
        f"parameters x tokens x samples = {operations:.3g} operations, at {rate / 1e9:.0f} G a second (measured "
        f"now on {device}); attention and small layers come on top",
    )
    return "\n".join(lines)
