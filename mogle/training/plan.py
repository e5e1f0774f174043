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
from mogle.datasets.stream import Endless
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


def transformer_config(base: Path | str) -> dict[str, Any]:
    """The transformer's configuration: of the folder, of an earlier download, or as published.

    Raises:
        MogleError: a Hub name of which nothing is here; nothing is downloaded for a dry run.
    """
    file = "transformer/config.json"
    found = base / file if isinstance(base, Path) else try_to_load_from_cache(base, file)
    if isinstance(found, (str, Path)):
        return json.loads(Path(found).read_text())
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


def describe(settings: TrainSettings, *, device: str | None = None, skip_bad: bool = False) -> str:
    """What `fine_tune` would do, for `--dry-run`: the data set is read, the base is not."""
    base, device = base_folder(settings.base), pick_device(device)
    settings = fitting(settings, device)
    side, text_tokens = settings.size or 1024, settings.prompt_tokens or 512
    if isinstance(base, Path):  # of a Hub name nothing need be here
        side, _ = base_size(base, settings)
        longest = AutoTokenizer.from_pretrained(base / "tokenizer_2").model_max_length
        text_tokens = settings.prompt_tokens or min(512, longest)
    found = f"{settings.count or PAINTED} portraits, painted at {side} px"
    if settings.data is not None:
        source = open_source(settings, (side, side), base, skip_bad)
        found = f"{settings.data}: streamed, its first sample is {source.ids[0]}"
        if not isinstance(source.ids, Endless):
            captions = sum(len(source.captions(i)) for i in range(len(source.ids))) / len(source.ids)
            found = f"{settings.data}: {len(source.ids)} samples, {captions:.1f} captions each"
        if skipped := len(getattr(source, "problems", ())):
            found += f", {skipped} with problems left out"
    lines = _estimates(settings, base, side, text_tokens, device)
    return "\n".join([*lines, f"data        {found}"])


def _estimates(settings: TrainSettings, base: Path | str, side: int, text_tokens: int, device: str) -> list[str]:
    """What is trained, and the memory and time that it takes, in lines of text."""
    counts = count_parameters(transformer_config(base), settings)
    image_tokens = side * side // 256
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
    return [
        f"base        {base}: {counts['frozen']:,} parameters, frozen, {form}",
        f"trained     {counts['trained']:,} parameters: LoRA {counts['lora']:,} in {counts['lora_modules']} layers "
        f"(rank {settings.rank}), MoGLE {counts['mogle']:,} ({settings.variant})",
        f"step        {settings.batch} samples of {side} x {side} px in {settings.accumulation} parts; "
        f"{text_tokens} text + {image_tokens} image + {image_tokens} condition tokens",
        f"memory      {gib(weights + states + activations)}, an estimate: weights {gib(weights)}; trained "
        f"parameters, gradients and {settings.optimizer}'s states {gib(states)}; activations {gib(activations)} = "
        f"{micro} samples x {tokens} tokens x {counts['width']} wide x {byte} bytes x "
        f"({counts['blocks']} blocks x {kept} + 24)",
        f"time        {step:.2g} s a step, {hours:.2g} h for {settings.steps} steps, an estimate: {passes} x "
        f"parameters x tokens x samples = {operations:.3g} operations, at {rate / 1e9:.0f} G a second (measured "
        f"now on {device}); attention and small layers come on top",
    ]
