"""`mogle train` from settings to adapter: data set, encoding, training. The encoders leave memory in between."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from accelerate import Accelerator, PartialState

from mogle.checkpoints import adapter_folder, base_folder, check_forms, load_pipeline, pick_device
from mogle.datasets import FaceDataset
from mogle.datasets.stream import STREAMED, Endless, FaceStream
from mogle.errors import MogleError
from mogle.neighbours import require
from mogle.pipeline import ENCODERS
from mogle.training.encode import Encoder, Source, StreamedSet, encode_set
from mogle.training.flow import DTYPE
from mogle.training.settings import TrainSettings
from mogle.training.trainer import Trainer, checkpoints_in, warm_start
from mogle.training.watch import Watcher

PAINTED = 200  # portraits, where neither data set nor count is given


def open_source(settings: TrainSettings, size: tuple[int, int], base: Path | str, skip_bad: bool = False) -> Source:
    """The samples to train on, every file of them read once, or a stream of them, each read when it comes.

    Captions are counted by the base's tokenizer, where it is on this machine: one that is too long would stop the run.

    Raises:
        MogleError: problems, all of them at once, without `skip_bad`.
    """
    if settings.data is None:
        from mogle.tiny.source import PaintedSource

        return PaintedSource.paint(settings.count or PAINTED, size)
    reading: Any = {"split": "train", "size": size, "labels": settings.labels, "fit": settings.fit}
    reading["caption_problem"] = _caption_problem(base, settings.prompt_tokens) if isinstance(base, Path) else None
    if settings.data.startswith(STREAMED):
        name, kept = settings.data.removeprefix(STREAMED), 8 * settings.batch
        return FaceStream(name, seed=settings.seed, count=settings.count, kept=kept, skip_bad=skip_bad, **reading)
    dataset = FaceDataset.checked(settings.data, skip_bad=skip_bad, **reading)
    dataset.ids = dataset.ids[: settings.count]
    return dataset


def _caption_problem(base: Path, prompt_tokens: int | None) -> Callable[[str], str | None]:
    """What is wrong with a caption, as `FaceDataset.checked` asks."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(base / "tokenizer_2")
    limit = prompt_tokens or min(512, tokenizer.model_max_length)

    def problem(caption: str) -> str | None:
        count = len(tokenizer(caption, verbose=False).input_ids)
        return f"a caption of {count} tokens, expected at most {limit}" if count > limit else None

    return problem


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
    base, adapter = base_folder(settings.base), None if start is None else adapter_folder(start)
    if settings.distil_mask_guidance is not None and adapter is None:
        raise MogleError(
            "distil_mask_guidance: found no adapter to learn from, expected --from-adapter FOLDER beside it"
        )
    source = open_source(settings, base_size(base, settings), base, skip_bad)
    try:
        facts = train_on(source, out, settings, base, device, cache, adapter=adapter)
    finally:
        PartialState().destroy_process_group()
    return {**facts, "skipped": len(getattr(source, "problems", ()))}


def train_on(
    source: Source, out: str | Path, settings: TrainSettings, base: Path | str, device: str | None, cache: str | Path,
    *, adapter: Path | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Encodes the samples of a source and trains on them; see `fine_tune`. Several may follow each other."""
    device = pick_device(device)
    settings = fitting(settings, device)
    check_needs(settings, device)
    accelerator = Accelerator(
        cpu=device == "cpu", mixed_precision=settings.precision.replace("fp32", "no"), project_dir=str(out),
        gradient_accumulation_steps=settings.accumulation, log_with=sorted({"tensorboard", settings.report_to}),
    )  # fmt: skip
    device, dtype = str(accelerator.device), DTYPE[settings.precision]
    forms: Any = {"dtype": dtype, "quantise": settings.quantise, "quantise_text": settings.quantise_text}
    encoders = load_pipeline(base, None, device, without=("transformer",), **forms)
    encoder = Encoder(encoders, source.label_map(0).shape, settings)
    watcher = Watcher(source, encoder)
    endless = isinstance(source.ids, Endless)
    cached = settings.cache and not endless
    samples = encode_set(Path(cache), source, encoder, accelerator) if cached else StreamedSet(source, encoder)
    vae = encoders.vae if settings.sample_every else None
    del encoder, encoders  # before the transformer comes
    pipe = load_pipeline(base, adapter, device, without=ENCODERS, vae=vae, **forms)
    if adapter is None and not checkpoints_in(out):
        warm_start(pipe, samples, settings)
    trainer = Trainer(pipe, samples, settings, out, accelerator, watcher)
    trainer.resume()
    accelerator.init_trackers("mogle", {name: str(value) for name, value in settings.model_dump().items()})
    try:
        facts = trainer.fit()
        return {**facts, "samples": facts["steps"] * settings.batch if endless else len(samples.ids)}
    finally:
        watcher.close()
        for tracker in accelerator.trackers:
            tracker.finish()


def base_size(base: Path | str, settings: TrainSettings) -> tuple[int, int]:
    """Height and width to train at: the setting, or what the base's VAE says it was trained at."""
    side = settings.size or diffusers.AutoencoderKL.load_config(base, subfolder="vae")["sample_size"]
    if side % 16:
        raise MogleError(f"size={side}: expected a multiple of 16")
    return side, side


def fitting(settings: TrainSettings, device: str) -> TrainSettings:
    """The settings as this device can follow them: half precision needs a GPU, bfloat16 one that has it."""
    precision = settings.precision if device.startswith("cuda") else "fp32"
    if precision == "bf16" and not torch.cuda.is_bf16_supported(including_emulation=False):
        precision = "fp16"
    return settings.model_copy(update={"precision": precision})


def check_needs(settings: TrainSettings, device: str) -> None:
    """MogleError if a setting asks for a GPU or a package that is not here: before hours of encoding."""
    check_forms(device, quantise=settings.quantise, quantise_text=settings.quantise_text)
    if settings.optimizer == "adamw8bit":
        require("bitsandbytes", "optimizer=adamw8bit")
    require(settings.report_to, f"report_to={settings.report_to}")  # Accelerate would leave it out without a word
