"""Settings of a fine-tuning run: a packaged YAML file or one's own, then `name=value` from the command line.

One flat list of fields, so that a setting has one name everywhere. The reference's own config.yaml is read as well.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from mogle.errors import MogleError

CONFIGS = Path(__file__).resolve().parent.parent / "configs" / "train"
#: Where the reference's config.yaml keeps what we have a field for, and what its values are called here.
REFERENCE = CONFIGS.parent / "reference-fields.yaml"

Natural = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Amount = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]


class TrainSettings(BaseModel):
    """What a run of `mogle train` does. The defaults are the reference's wherever it has the setting."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    # --- what is trained on what
    base: str | None = None  # FluxPipeline folder or Hub name; None is the shipped tiny FLUX
    data: str | None = None  # data set folder, or hf:NAME to stream (`mogle.datasets.stream`); None paints portraits
    count: Natural | None = None  # samples to train on; None is all of them (200, where portraits are painted)
    size: Annotated[int, Field(ge=16, le=4096)] | None = None  # pixels on a side; None is what the base was trained at
    captions: Natural | None = None  # captions of a sample that are used; None is all
    labels: str = "celebamask"  # whose numbers the masks have: bisenet, lapa, ...; see `mogle.labels.ORDERS`
    fit: Literal["crop", "pad", "stretch"] | None = None  # samples of another shape; None refuses them
    prompt_tokens: Natural | None = None  # tokens a caption is padded to; None is the base's own length

    # --- the method (paper section 3)
    variant: Literal[
        "full", "only-global", "only-local", "no-latents", "scalar-gate", "no-gate", "no-experts", "neither", "places"
    ] = "full"
    attention: Literal["union", "independent"] = "union"
    lora_on: Literal["condition", "all"] = "condition"
    rank: Natural = 4
    alpha: Natural | None = None  # None: the rank, that is scaling 1
    warm_start: Count = 0  # steps in which a new MoGLE learns to draw outlines, before anything else

    # --- the loss: rectified flow
    guidance: Amount = 1.0  # guidance input of bases that have one
    high_noise: Share = 0.0  # share of the times that lie near noise
    drop_local: Share = 0.1  # probability of an all-black local mask, each for itself
    drop_text: Share = 0.1  # probability of the empty caption

    distil_mask_guidance: Amount | None = None  # w: learn the velocity that the start adapter gives, guided by w

    # --- optimisation
    steps: Natural = 4000
    minutes: Positive | None = None  # stop after so many minutes of training
    batch: Natural = 8  # samples of one step, over all processes and accumulation
    accumulation: Natural = 1  # parts that a process's share of the batch is computed in
    optimizer: Literal["prodigy", "adamw", "adamw8bit"] = "prodigy"
    learning_rate: Positive = 1.0
    weight_decay: Amount = 0.01
    clip: Positive = 0.5  # largest norm of all gradients together
    schedule: Literal["constant", "cosine"] = "constant"
    warmup: Count = 0  # steps
    ema: Share | None = None  # decay of the weights' moving average, which is what is saved; None for none
    seed: Count = 0

    # --- the machine
    precision: Literal["fp32", "bf16", "fp16"] = "bf16"
    quantise: Literal["none", "nf4"] = "none"  # of the frozen transformer; LoRA stays as it is
    quantise_text: Literal["none", "nf4", "int8"] = "none"  # of T5, which only encodes and then leaves memory
    gradient_checkpointing: bool = True
    cache: bool = True  # encode everything once, before training; a stream never is
    workers: Count = 0  # processes that read samples ahead while a cache is made

    # --- watching and keeping
    save_every: Natural = 500  # steps
    keep: Natural = 3  # checkpoints
    sample_every: Count = 0  # steps; 0 for never
    report_to: Literal["tensorboard", "trackio", "wandb"] = "tensorboard"

    @model_validator(mode="before")
    @classmethod
    def _none_as_text(cls, values: dict[str, Any]) -> dict[str, Any]:
        """On the command line None is written `none`."""
        optional = [name for name, field in cls.model_fields.items() if field.default is None]
        return {name: None if value == "none" and name in optional else value for name, value in values.items()}

    @model_validator(mode="after")
    def _whole_parts(self) -> TrainSettings:
        if self.batch % self.accumulation:
            raise MogleError(f"batch={self.batch}: expected a multiple of accumulation={self.accumulation}")
        return self


def _explained(error: Mapping[str, Any], where: str) -> str:
    """A pydantic error in words: what was found, what was expected."""
    if error["type"] == "value_error":  # raised by a validator of ours
        return str(error["ctx"]["error"])
    name, fields = str(error["loc"][0]), TrainSettings.model_fields
    if name not in fields:
        near = difflib.get_close_matches(name, fields, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(fields)}"
        return f"{where}: no field {name!r}; {hint}"
    return f"{name}={error['input']}: expected {error['msg'].removeprefix('Input should be ')}"


def packaged() -> list[str]:
    """Names of the settings files inside the package."""
    return sorted(path.stem for path in CONFIGS.glob("*.yaml"))


def load_train_settings(config: str | Path | None = None, overrides: Sequence[str] = ()) -> TrainSettings:
    """Settings from a packaged name (`reference`, `tiny`, ...) or a YAML file, then `name=value` pairs.

    Raises:
        MogleError: no such file, YAML that is none, a field that does not exist (the nearest name is suggested), or a
            value out of range.
    """
    pairs = {}
    for pair in overrides:
        name, sign, value = pair.partition("=")
        if not sign:
            raise MogleError(f"{pair}: expected name=value, for instance steps=100")
        pairs[name.strip()] = value.strip()
    values = _read(config) if config is not None else {}
    try:
        return TrainSettings.model_validate({**values, **pairs})
    except ValidationError as error:
        first = error.errors()[0]
        where = "settings" if first["loc"][:1] in [(name,) for name in pairs] else str(config)
        raise MogleError(_explained(first, where)) from error


def _read(config: str | Path) -> dict[str, Any]:
    path = CONFIGS / f"{config}.yaml" if str(config) in packaged() else Path(config)
    if not path.is_file():
        raise MogleError(f"{config}: no such settings; expected a YAML file or one of {', '.join(packaged())}")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise MogleError(f"{path}: not readable as YAML ({' '.join(str(error).split())})") from error
    if not isinstance(values, dict):
        raise MogleError(f"{path}: found {type(values).__name__}, expected fields and values")
    return _of_reference(values, str(path)) if {"flux_path", "sd_path"} & values.keys() else values


def _of_reference(tree: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The reference's config.yaml as our fields; what has no field here (loggers, workers) is left out."""
    if tree.get("model", {}).get("union_cond_attn") is False:
        raise MogleError(f"{where}: model.union_cond_attn: false cuts the mask off; there would be nothing to train")
    found: dict[str, Any] = {}
    for path, field in yaml.safe_load(REFERENCE.read_text()).items():
        value: Any = tree
        for part in path.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        if value is not None:
            found[field["name"]] = field.get("values", {}).get(str(value).lower(), value)
    if found.get("steps") == -1:  # no limit there; the paper says 4,000
        del found["steps"]
    found["batch"] = found.get("batch", 1) * found.get("accumulation", 1)  # of one step here
    return found
