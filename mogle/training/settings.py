"""Settings of a fine-tuning run: a packaged YAML file or one's own, then `name=value` from the command line.

One flat list of fields, so that a setting has one name everywhere. The reference's own config.yaml is read as well.
"""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from mogle.errors import MogleError

CONFIGS = Path(__file__).resolve().parent.parent / "configs" / "train"


@dataclass(frozen=True)
class TrainSettings:
    """What a run of `mogle train` does. The defaults are the reference's wherever it has the setting."""

    # --- what is trained on what
    base: str | None = None  # FluxPipeline folder or Hub name; None is the shipped tiny FLUX
    data: str | None = None  # data set folder; None paints portraits
    count: int | None = None  # samples to train on; None is all of them (200, where portraits are painted)
    size: int | None = None  # pixels on a side; None is what the base was trained at
    captions: int | None = None  # captions of a sample that are used; None is all
    prompt_tokens: int | None = None  # tokens a caption is padded to; None is the base's own length

    # --- the method (paper section 3)
    variant: Literal[
        "full", "only-global", "only-local", "no-latents", "scalar-gate", "no-gate", "no-experts", "neither", "places"
    ] = "full"
    attention: Literal["union", "independent"] = "union"
    lora_on: Literal["condition", "all"] = "condition"
    rank: int = 4
    alpha: int | None = None  # None: the rank, that is scaling 1
    warm_start: int = 0  # steps in which a new MoGLE learns to draw outlines, before anything else

    # --- the loss: rectified flow
    guidance: float = 1.0  # guidance input of bases that have one
    high_noise: float = 0.0  # share of the times that lie near noise
    drop_local: float = 0.1  # probability of an all-black local mask, each for itself
    drop_text: float = 0.1  # probability of the empty caption

    # --- optimisation
    steps: int = 4000
    minutes: float | None = None  # stop after so many minutes of training
    batch: int = 8  # samples of one step, over all processes and accumulation
    accumulation: int = 1  # parts that a process's share of the batch is computed in
    optimizer: Literal["prodigy", "adamw", "adamw8bit"] = "prodigy"
    learning_rate: float = 1.0
    weight_decay: float = 0.01
    clip: float = 0.5  # largest norm of all gradients together
    schedule: Literal["constant", "cosine"] = "constant"
    warmup: int = 0  # steps
    ema: float | None = None  # decay of the weights' moving average, which is what is saved; None for none
    seed: int = 0

    # --- the machine
    precision: Literal["fp32", "bf16", "fp16"] = "bf16"
    quantise: Literal["none", "nf4"] = "none"  # of the frozen transformer; LoRA stays as it is
    quantise_text: Literal["none", "nf4", "int8"] = "none"  # of T5, which only encodes and then leaves memory
    gradient_checkpointing: bool = True
    cache: bool = True  # encode everything once, before training

    # --- watching and keeping
    save_every: int = 500  # steps
    keep: int = 3  # checkpoints
    sample_every: int = 0  # steps; 0 for never
    report_to: Literal["tensorboard", "trackio", "wandb"] = "tensorboard"

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self))
        for name, value in asdict(self).items():
            object.__setattr__(self, name, _checked(name, value, hints[name]))
        for name, low, high in _RANGES:
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise MogleError(f"{name}={value}: expected {_span(low, high)}")
        if self.batch % self.accumulation:
            raise MogleError(f"batch={self.batch}: expected a multiple of accumulation={self.accumulation}")


_MANY = 10**12
_RANGES: tuple[tuple[str, float, float], ...] = (
    *((name, 1, _MANY) for name in ("count", "captions", "prompt_tokens", "rank", "alpha", "steps", "batch")),
    *((name, 1, _MANY) for name in ("accumulation", "save_every", "keep")),
    *((name, 0, _MANY) for name in ("warm_start", "warmup", "sample_every", "seed", "weight_decay", "guidance")),
    *((name, 0, 1) for name in ("high_noise", "drop_local", "drop_text", "ema")),
    *((name, 1e-12, _MANY) for name in ("minutes", "learning_rate", "clip")),
    ("size", 16, 4096),
)


def _span(low: float, high: float) -> str:
    return f"at least {low:g}" if high == _MANY else f"{low:g} to {high:g}"


def _checked(name: str, value: Any, hint: Any) -> Any:
    """The value as its field's type; numbers may come as text, from the command line."""
    choices = get_args(hint)
    if get_origin(hint) is Literal:
        if value in choices:
            return value
        raise MogleError(f"{name}={value}: expected one of {', '.join(choices)}")
    if type(None) in choices:
        if value is None or value == "none":
            return None
        hint = next(choice for choice in choices if choice is not type(None))
    if hint is bool and isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    if hint is float and isinstance(value, (int, str)) and not isinstance(value, bool):
        with contextlib.suppress(ValueError):
            value = float(value)
    if hint is int and isinstance(value, str):
        with contextlib.suppress(ValueError):
            value = int(value)
    if isinstance(value, hint) and not (hint is int and isinstance(value, bool)) and value == value:
        return value
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
    raise MogleError(f"{name}={value}: expected {names[hint]}")


def packaged() -> list[str]:
    """Names of the settings files inside the package."""
    return sorted(path.stem for path in CONFIGS.glob("*.yaml"))


def load_train_settings(config: str | Path | None = None, overrides: Sequence[str] = ()) -> TrainSettings:
    """Settings from a packaged name (`reference`, `tiny`, ...) or a YAML file, then `name=value` pairs.

    Raises:
        MogleError: no such file, YAML that is none, a field that does not exist (the nearest name is suggested), or a
            value out of range.
    """
    values = _read(config) if config is not None else {}
    for pair in overrides:
        name, sign, value = pair.partition("=")
        if not sign:
            raise MogleError(f"{pair}: expected name=value, for instance steps=100")
        values[name.strip()] = value.strip()
    _known(values, "settings")
    return TrainSettings(**values)


def _known(values: Mapping[str, Any], where: str) -> None:
    names = [field.name for field in fields(TrainSettings)]
    for name in values:
        if name not in names:
            near = difflib.get_close_matches(str(name), names, n=1)
            hint = f"; did you mean {near[0]}?" if near else f"; there are {', '.join(names)}"
            raise MogleError(f"{where}: no field {name!r}{hint}")


def _read(config: str | Path) -> dict[str, Any]:
    import yaml

    path = CONFIGS / f"{config}.yaml" if str(config) in packaged() else Path(config)
    if not path.is_file():
        raise MogleError(f"{config}: no such settings; expected a YAML file or one of {', '.join(packaged())}")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise MogleError(f"{path}: not readable as YAML ({' '.join(str(error).split())})") from error
    if not isinstance(values, dict):
        raise MogleError(f"{path}: found {type(values).__name__}, expected fields and values")
    if "flux_path" in values:
        return _of_reference(values, str(path))
    _known(values, str(path))
    return dict(values)


#: Where the reference's config.yaml keeps what we have a field for.
_REFERENCE = {
    "flux_path": "base",
    "dtype": "precision",
    "model.latent_lora": "lora_on",
    "model.independent_condition": "attention",
    "train.batch_size": "batch",
    "train.accumulate_grad_batches": "accumulation",
    "train.save_interval": "save_every",
    "train.sample_interval": "sample_every",
    "train.max_steps": "steps",
    "train.gradient_checkpointing": "gradient_checkpointing",
    "train.dataset.path": "data",
    "train.dataset.image_size": "size",
    "train.dataset.drop_text_prob": "drop_text",
    "train.dataset.drop_image_prob": "drop_local",
    "train.lora_config.r": "rank",
    "train.lora_config.lora_alpha": "alpha",
    "train.optimizer.type": "optimizer",
    "train.optimizer.params.lr": "learning_rate",
    "train.optimizer.params.weight_decay": "weight_decay",
}
_PRECISIONS = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}


def _of_reference(tree: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The reference's config.yaml as our fields; what has no field here (loggers, workers) is left out."""
    found: dict[str, Any] = {}
    for path, name in _REFERENCE.items():
        value: Any = tree
        for part in path.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        if value is not None:
            found[name] = value
    if tree.get("model", {}).get("union_cond_attn") is False:
        raise MogleError(f"{where}: model.union_cond_attn: false cuts the mask off; there would be nothing to train")
    found["precision"] = _PRECISIONS.get(found.get("precision", "bfloat16"), found.get("precision"))
    found["optimizer"] = str(found.get("optimizer", "prodigy")).lower()
    found["lora_on"] = "all" if found.get("lora_on") else "condition"
    found["attention"] = "independent" if found.get("attention") else "union"
    if found.get("steps", -1) == -1:  # no limit there; the paper says 4,000
        found["steps"] = TrainSettings.steps
    found["batch"] = found.get("batch", 1) * found.get("accumulation", 1)  # of one step here
    return found
