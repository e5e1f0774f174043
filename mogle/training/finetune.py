"""`mogle train` from settings to adapter: data set, encoding, training. The encoders leave memory in between."""

from __future__ import annotations

import json
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mogle.errors import MogleError
from mogle.training.settings import TrainSettings
from mogle.training.sources import PAINTED, PaintedSource, Source, open_source

if TYPE_CHECKING:
    import torch
    from accelerate import Accelerator

    from mogle.training.dataset import EncodedSet
    from mogle.training.encode import Encoder
    from mogle.training.watch import Watcher

ENCODERS = ("vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2")
#: What each precision is called by Accelerate and by torch.
PRECISIONS = {"fp32": ("no", "float32"), "bf16": ("bf16", "bfloat16"), "fp16": ("fp16", "float16")}


def fine_tune(
    out: str | Path,
    settings: TrainSettings,
    *,
    start: str | Path | None = None,
    device: str | None = None,
    cache: str | Path = "runs/cache",
    skip_bad: bool = False,
) -> dict[str, Any]:
    """Trains an adapter on the settings' data set and writes it to `out` -> a summary of the run.

    Where `out` holds checkpoints the run goes on from the last one; `start` goes on from another adapter.

    Raises:
        MogleError: the base, the adapter, the data set or a checkpoint is not what it should be.
    """
    from mogle.checkpoints import adapter_folder, base_folder

    base, adapter = base_folder(settings.base), None if start is None else adapter_folder(start)
    source, skipped = open_source(settings, base_size(base, settings), skip_bad)
    try:
        facts = train_on(source, out, settings, base, device, cache, adapter=adapter)
    finally:
        leave()
    return {**facts, "skipped": skipped}


def leave() -> None:
    """Parts from the other processes, after the last training of this one."""
    from accelerate import PartialState

    PartialState().destroy_process_group()


def describe(settings: TrainSettings, *, device: str | None = None, skip_bad: bool = False) -> str:
    """What `fine_tune` would do, for `--dry-run`: the data set is read, the base is not."""
    from mogle.checkpoints import base_folder, pick_device
    from mogle.training.plan import plan

    base, device = base_folder(settings.base), pick_device(device)
    settings = fitting(settings, device)
    size, longest = (settings.size or 1024,) * 2, 512
    if isinstance(base, Path):  # of a Hub name nothing need be here
        size = base_size(base, settings)
        tokenizer = json.loads((base / "tokenizer_2" / "tokenizer_config.json").read_text())
        longest = min(longest, tokenizer["model_max_length"])
    text = plan(settings, base, size, settings.prompt_tokens or longest, device)
    if settings.data is None:
        return f"{text}\ndata        {settings.count or PAINTED} portraits, painted at {size[0]} px"
    source, skipped = open_source(settings, size, skip_bad)
    captions = sum(len(source.captions(i)) for i in range(len(source.ids))) / len(source.ids)
    left_out = f", {skipped} with problems left out" if skipped else ""
    found = f"{len(source.ids)} samples, {captions:.1f} captions each{left_out}"
    return f"{text}\ndata        {settings.data}: {found}"


def train_on(
    source: Source,
    out: str | Path,
    settings: TrainSettings,
    base: Path | str,
    device: str | None,
    cache: str | Path,
    *,
    adapter: Path | None = None,
) -> dict[str, Any]:
    """Encodes the samples of a source and trains on them; see `fine_tune`. Several may follow each other."""
    import torch
    from accelerate import Accelerator

    from mogle.checkpoints import load_pipeline, pick_device
    from mogle.training.start import prepare_adapter, warm_start
    from mogle.training.trainer import Trainer, checkpoints_in

    device = pick_device(device)
    settings = fitting(settings, device)
    if settings.quantise != "none" and not device.startswith("cuda"):
        raise MogleError(f"quantise={settings.quantise}: a base is quantised on a GPU alone, and this is {device}")
    if find_spec(settings.report_to) is None:  # Accelerate would leave it out without a word
        raise MogleError(f"report_to={settings.report_to}: not installed; expected pip install {settings.report_to}")
    mixed, name = PRECISIONS[settings.precision]
    dtype = getattr(torch, name)
    accelerator = Accelerator(
        cpu=device == "cpu",
        mixed_precision=mixed,
        gradient_accumulation_steps=settings.accumulation,
        log_with=sorted({"tensorboard", settings.report_to}),
        project_dir=str(out),
    )
    encoder = load_encoder(source, base, settings, str(accelerator.device), dtype)
    watcher = make_watcher(source, encoder, settings)
    samples = encoded_samples(source, encoder, base, settings, accelerator, cache)
    parts: dict[str, Any] = {"vae": encoder.pipe.vae} if settings.sample_every else {}
    if settings.quantise != "none":
        parts["transformer"] = _quantised(base, "transformer", settings.quantise, dtype)
    del encoder
    pipe = load_pipeline(base, adapter, str(accelerator.device), dtype=dtype, without=ENCODERS, **parts)
    if adapter is None and not checkpoints_in(out):
        prepare_adapter(pipe, settings)
        warm_start(pipe, samples, settings)
    trainer = Trainer(pipe, samples, settings, out, accelerator, watcher)
    trainer.resume()
    accelerator.init_trackers("mogle", {name: str(value) for name, value in settings.model_dump().items()})
    try:
        return {**trainer.fit(), "samples": len(samples.ids)}
    finally:
        watcher.close()
        for tracker in accelerator.trackers:
            tracker.finish()


def base_size(base: Path | str, settings: TrainSettings) -> tuple[int, int]:
    """Height and width to train at: the setting, or what the base's VAE says it was trained at."""
    from diffusers import AutoencoderKL

    side = settings.size or AutoencoderKL.load_config(base, subfolder="vae")["sample_size"]
    if side % 16:
        raise MogleError(f"size={side}: expected a multiple of 16")
    return side, side


def fitting(settings: TrainSettings, device: str) -> TrainSettings:
    """The settings as this device can follow them: half precision needs a GPU, bfloat16 one that has it."""
    import torch

    precision: str = settings.precision
    if not device.startswith("cuda"):
        precision = "fp32"
    elif precision == "bf16" and not torch.cuda.is_bf16_supported(including_emulation=False):
        precision = "fp16"
    return settings.model_copy(update={"precision": precision})


def _quantised(base: Path | str, part: str, form: str, dtype: torch.dtype) -> Any:
    """A part of the base in 4 or 8 bits, by bitsandbytes; it computes in `dtype`.

    Raises:
        MogleError: bitsandbytes is not installed.
    """
    if find_spec("bitsandbytes") is None:
        raise MogleError(
            f"{part} in {form}: bitsandbytes is not installed; expected pip install 'face-mogle[gpu]', or "
            "quantise=none and quantise_text=none"
        )
    import diffusers
    import transformers

    library: Any = diffusers if part == "transformer" else transformers
    network = diffusers.FluxTransformer2DModel if part == "transformer" else transformers.T5EncoderModel
    options: dict[str, Any] = {"load_in_8bit": True}
    if form == "nf4":
        options = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": dtype}
    config = library.BitsAndBytesConfig(**options)
    return network.from_pretrained(base, subfolder=part, quantization_config=config, torch_dtype=dtype)


def load_encoder(source: Source, base: Path | str, settings: TrainSettings, device: str, dtype: torch.dtype) -> Encoder:
    """VAE and text encoders of the base, on the device, for pictures of the source's size."""
    from mogle.checkpoints import load_pipeline
    from mogle.training.encode import Encoder

    parts = {}
    if settings.quantise_text != "none":
        parts["text_encoder_2"] = _quantised(base, "text_encoder_2", settings.quantise_text, dtype)
    pipe = load_pipeline(base, None, device, dtype=dtype, without=("transformer",), **parts)
    return Encoder(pipe, source.label_map(0).shape, settings.prompt_tokens, dtype)


def encoded_samples(
    source: Source,
    encoder: Encoder,
    base: Path | str,
    settings: TrainSettings,
    accelerator: Accelerator,
    cache: str | Path,
) -> EncodedSet:
    """The samples, encoded: from the cache, which is filled first, or each when it is asked for."""
    from tqdm.auto import tqdm

    from mogle.training.cache import CachedSet, captions_of_each, encode_set, source_facts
    from mogle.training.dataset import StreamedSet

    captions = captions_of_each(source, settings.captions)
    if not settings.cache:
        return StreamedSet(source, encoder, captions)
    facts = {**encoder.facts(base), **source_facts(source, captions)}
    quiet = not (accelerator.is_main_process and sys.stderr.isatty())
    with tqdm(total=len(source.ids), desc="encoding", unit=" samples", disable=quiet) as bar:
        folder = encode_set(
            cache, source, encoder, facts, outlines=settings.warm_start > 0, rank=accelerator.process_index,
            processes=accelerator.num_processes, progress=bar.update,
        )  # fmt: skip
    accelerator.wait_for_everyone()
    return CachedSet(folder)


def make_watcher(source: Source, encoder: Encoder, settings: TrainSettings) -> Watcher:
    """Pictures of the first four masks, if they are asked for; measured by the shipped parser on what it knows."""
    from mogle.checkpoints import JUDGES, shipped
    from mogle.metrics.judges import JUDGE_SIZE, load_judges
    from mogle.training.watch import Watcher

    if not settings.sample_every:
        return Watcher()
    rows = range(min(4, len(source.ids)))
    judge = None
    if isinstance(source, PaintedSource) and encoder.size == (JUDGE_SIZE, JUDGE_SIZE):
        parser, _ = load_judges(shipped(JUDGES))

        def judge(pictures: np.ndarray, label_maps: np.ndarray) -> float:
            return float((parser.parse(pictures) == label_maps).mean())

    label_maps, captions = [source.label_map(i) for i in rows], [source.captions(i)[0] for i in rows]
    return Watcher(encoder, label_maps, captions, settings.sample_every, judge)
