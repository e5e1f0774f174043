"""`mogle train` from settings to adapter: data set, encoding, training. The encoders leave memory in between."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mogle.errors import MogleError
from mogle.training.settings import TrainSettings

if TYPE_CHECKING:
    import torch
    from accelerate import Accelerator
    from PIL import Image

    from mogle.training.cache import EncodedSet, Encoder, Source
    from mogle.training.watch import Watcher

PAINTED = 200  # portraits, where neither data set nor count is given


class PaintedSource:
    """Painted portraits as a source of samples: pictures (N, H, W, 3), label maps (N, H, W), captions, first seed."""

    def __init__(self, images: np.ndarray, masks: np.ndarray, captions: list[list[str]], first: int = 0) -> None:
        self.ids: Sequence[str] = [str(first + i) for i in range(len(captions))]
        self._images, self._masks, self._captions = images, masks, captions

    @classmethod
    def paint(cls, count: int, size: tuple[int, int]) -> PaintedSource:
        """The portraits of the seeds 0, 1, ..."""
        from mogle.tiny.portraits import paint_many

        if size[0] != size[1]:
            raise MogleError(f"size {size}: portraits are square; give a data set for other shapes")
        images, masks, _, captions = paint_many(range(count), size=size[0])
        return cls(images, masks, captions)

    def image(self, index: int) -> Image.Image:
        """RGB."""
        from PIL import Image

        return Image.fromarray(self._images[index])

    def label_map(self, index: int) -> np.ndarray:
        """uint8 (H, W)."""
        return self._masks[index]

    def captions(self, index: int) -> list[str]:
        """All of the sample's."""
        return self._captions[index]


def open_source(settings: TrainSettings, size: tuple[int, int], skip_bad: bool = False) -> tuple[Source, int]:
    """The samples to train on, every file of them read once -> them, and how many bad ones were left out.

    Raises:
        MogleError: problems, all of them at once, without `skip_bad`.
    """
    from mogle.datasets import FaceDataset

    if settings.data is None:
        return PaintedSource.paint(settings.count or PAINTED, size), 0
    dataset = FaceDataset.checked(settings.data, split="train", size=size, skip_bad=skip_bad)
    dataset.ids = dataset.ids[: settings.count]
    return dataset, dataset.skipped


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
    size = base_size(base, settings)
    source, skipped = open_source(settings, size, skip_bad)
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
    if isinstance(base, Path):
        size = base_size(base, settings)
        tokenizer = json.loads((base / "tokenizer_2" / "tokenizer_config.json").read_text())
        text_tokens = settings.prompt_tokens or min(512, tokenizer["model_max_length"])
    else:  # nothing of it need be here
        size = (settings.size or 1024,) * 2
        text_tokens = settings.prompt_tokens or 512
    lines = [plan(settings, base, size, text_tokens, device)]
    if settings.data is None:
        lines.append(f"data        {settings.count or PAINTED} portraits, painted at {size[0]} px")
    else:
        source, skipped = open_source(settings, size, skip_bad)
        captions = sum(len(source.captions(i)) for i in range(len(source.ids))) / len(source.ids)
        left_out = f", {skipped} with problems left out" if skipped else ""
        lines.append(f"data        {settings.data}: {len(source.ids)} samples, {captions:.1f} captions each{left_out}")
    return "\n".join(lines)


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
    from accelerate import Accelerator

    from mogle.checkpoints import load_pipeline, pick_device
    from mogle.training.trainer import DTYPE, PRECISION, Trainer, checkpoints_in, prepare_adapter, warm_start

    device = pick_device(device)
    settings = fitting(settings, device)
    if settings.quantise != "none" and not device.startswith("cuda"):
        raise MogleError(f"quantise={settings.quantise}: a base is quantised on a GPU alone, and this is {device}")
    if find_spec(settings.report_to) is None:  # Accelerate would leave it out without a word
        raise MogleError(f"report_to={settings.report_to}: not installed; expected pip install {settings.report_to}")
    accelerator = Accelerator(
        cpu=device == "cpu",
        mixed_precision=PRECISION[settings.precision],
        gradient_accumulation_steps=settings.accumulation,
        log_with=sorted({"tensorboard", settings.report_to}),
        project_dir=str(out),
    )
    dtype = DTYPE[settings.precision]
    samples, watcher = encoded_samples(source, base, settings, accelerator, dtype, cache)
    parts = {} if settings.quantise == "none" else {"transformer": _quantised(base, "transformer", "nf4", dtype)}
    pipe = load_pipeline(base, adapter, str(accelerator.device), dtype=dtype, without=ENCODERS, **parts)
    if adapter is None and not checkpoints_in(out):
        prepare_adapter(pipe, settings)
        warm_start(pipe, samples, settings)
    trainer = Trainer(pipe, samples, settings, out, accelerator, watcher)
    trainer.resume()
    accelerator.init_trackers("mogle", {name: str(value) for name, value in asdict(settings).items()})
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
    if part == "transformer":
        from diffusers import BitsAndBytesConfig, FluxTransformer2DModel

        loader: Any = FluxTransformer2DModel
    else:
        from transformers import BitsAndBytesConfig, T5EncoderModel

        loader = T5EncoderModel
    config = (
        BitsAndBytesConfig(load_in_8bit=True)
        if form == "int8"
        else BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)
    )
    return loader.from_pretrained(base, subfolder=part, quantization_config=config, torch_dtype=dtype)


ENCODERS = ("vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2")


def fitting(settings: TrainSettings, device: str) -> TrainSettings:
    """The settings as this device can follow them: half precision needs a GPU, bfloat16 one that has it."""
    import torch

    if not device.startswith("cuda"):
        return replace(settings, precision="fp32")
    if settings.precision == "bf16" and not torch.cuda.is_bf16_supported(including_emulation=False):
        return replace(settings, precision="fp16")
    return settings


def encoded_samples(
    source: Source,
    base: Path | str,
    settings: TrainSettings,
    accelerator: Accelerator,
    dtype: torch.dtype,
    cache: str | Path,
) -> tuple[EncodedSet, Watcher]:
    """The samples, encoded (from the cache, which is filled first, or each when it is asked for), and who watches."""
    from tqdm.auto import tqdm

    from mogle.checkpoints import load_pipeline
    from mogle.training.cache import (
        CachedSet,
        Encoder,
        StreamedSet,
        captions_of_each,
        encode_set,
        source_facts,
    )

    parts = {}
    if settings.quantise_text != "none":
        parts["text_encoder_2"] = _quantised(base, "text_encoder_2", settings.quantise_text, dtype)
    pipe = load_pipeline(base, None, str(accelerator.device), dtype=dtype, without=("transformer",), **parts)
    encoder = Encoder(pipe, source.label_map(0).shape, settings.prompt_tokens, dtype)
    captions = captions_of_each(source, settings.captions)
    watcher = _watcher(source, encoder, settings)
    if not settings.cache:
        return StreamedSet(source, encoder, captions), watcher
    facts = {**encoder.facts(base), **source_facts(source, captions)}
    quiet = not (accelerator.is_main_process and sys.stderr.isatty())
    with tqdm(total=len(source.ids), desc="encoding", unit=" samples", disable=quiet) as bar:
        folder = encode_set(
            cache, source, encoder, facts, outlines=settings.warm_start > 0, rank=accelerator.process_index,
            processes=accelerator.num_processes, progress=bar.update,
        )  # fmt: skip
    accelerator.wait_for_everyone()
    return CachedSet(folder), watcher


def _watcher(source: Source, encoder: Encoder, settings: TrainSettings) -> Watcher:
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
