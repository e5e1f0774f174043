"""Where weights are, and how a pipeline is loaded from them, for command line, training, evaluation and course."""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mogle.errors import MogleError, MogleWarning
from mogle.hardware import Machine, Tier, base_here, best_tier, measure
from mogle.neighbours import require
from mogle.provenance import fingerprint, versions

if TYPE_CHECKING:
    import torch

    from mogle.pipeline import FaceMoGLEPipeline

OFFLOADS = ("none", "model", "group")
DTYPES = ("float32", "bfloat16", "float16")
BASE, ADAPTER, JUDGES = "tiny-flux", "tiny-flux-mogle", "judges"
#: Where `mogle weights get face-mogle` puts the released weights, the adapter of every tier but the tiny one.
RELEASED = Path("runs/face-mogle")


def shipped(name: str) -> Path:
    """The folder `checkpoints/NAME` of the project or, for an installed copy, of the working directory or one above it.

    Raises:
        MogleError: there is none.
    """
    for root in (Path(__file__).resolve().parents[1], Path.cwd(), *Path.cwd().parents):
        if (root / "checkpoints" / name).is_dir():
            return root / "checkpoints" / name
    raise MogleError(f"checkpoints/{name}: not found in the project, here or above; work inside a clone of the project")


def base_folder(base: str | Path | None = None) -> Path | str:
    """The base to load: a FluxPipeline folder, a Hub name (`black-forest-labs/FLUX.1-dev`), or the shipped one.

    Raises:
        MogleError: it is none of these.
    """
    if base is None:
        return shipped(BASE)
    folder = Path(base)
    if (folder / "model_index.json").is_file():
        return folder
    if not folder.exists() and re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", str(base)):
        return str(base)
    found = "a folder without model_index.json" if folder.is_dir() else "no such folder"
    raise MogleError(f"{base}: found {found}, expected a FluxPipeline folder or a Hub name (owner/name)")


def adapter_folder(adapter: str | Path | None = None) -> Path:
    """The adapter to load, by default the shipped one.

    Raises:
        MogleError: there is no such folder.
    """
    if adapter is None:
        return shipped(ADAPTER)
    if not Path(adapter).is_dir():
        raise MogleError(f"{adapter}: found no such folder, expected one with LoRA and MoGLE weights")
    return Path(adapter)


def pick_device(device: str | None = None) -> str:
    """The device asked for, or the best there is.

    Raises:
        MogleError: torch does not know or does not find that device.
    """
    import torch

    if device is None:
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise MogleError(f"--device {device}: not available here; expected cpu, cuda, cuda:1, mps, ...") from error
    return device


def pick_dtype(device: str) -> torch.dtype:
    """The number format for inference: float32, on a GPU bfloat16, or float16 where bfloat16 is only emulated (T4)."""
    import torch

    if not device.startswith("cuda"):
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16


def chosen_dtype(pipe: FaceMoGLEPipeline) -> str:
    """The name of a pipeline's number format where it is not the one that its device has by default, else ""."""
    if getattr(pipe, "transformer", None) is None or pipe.transformer.dtype == pick_dtype(pipe._execution_device.type):
        return ""
    return str(pipe.transformer.dtype).removeprefix("torch.")


def load_pipeline(
    base: Path | str,
    adapter: Path | None,
    device: str | None = None,
    *,
    dtype: torch.dtype | str | None = None,
    offload: str = "none",
    quantise: str = "none",
    quantise_text: str = "none",
    without: Sequence[str] = (),
    **parts: Any,
) -> FaceMoGLEPipeline:
    """Base and adapter on a device.

    Args:
        base: a FluxPipeline folder or a Hub name.
        adapter: a folder, or None for the base alone.
        device: by default the best there is.
        dtype: number format of the weights, by default `pick_dtype`'s; a name in `DTYPES` will do. Another than the
            default stands in the recipes of the pictures, see `chosen_dtype`.
        offload: for GPUs whose memory does not hold everything (diffusers' offloading). "model" keeps one network at a
            time on the GPU, so the largest has to fit; "group" a few layers at a time, which is slow and fits nearly
            any GPU.
        quantise, quantise_text: "nf4" or "int8" for the transformer and for T5, on a GPU, by bitsandbytes.
        without: names of parts that are not loaded.
        **parts: parts that are already there.

    Raises:
        MogleError: the device is not there, there is no such format, the base is no FluxPipeline, or the adapter does
            not fit it.
    """
    import torch

    device = pick_device(device)
    if isinstance(dtype, str) and dtype not in DTYPES:
        raise MogleError(f"--dtype {dtype}: expected one of {', '.join(DTYPES)}")
    form = getattr(torch, dtype) if isinstance(dtype, str) else dtype or pick_dtype(device)
    if offload not in OFFLOADS:
        raise MogleError(f"--offload {offload}: expected one of {', '.join(OFFLOADS)}")
    if offload != "none" and device == "cpu":
        raise MogleError(f"--offload {offload}: there is no GPU to spare here; leave it out")
    check_forms(device, quantise=quantise, quantise_text=quantise_text)

    from mogle.pipeline import FaceMoGLEPipeline

    if device == "cpu":
        # glibc keeps twice as much of what is freed as the largest piece that it has seen freed, up to 64 MiB. Without
        # this it would give the memory of the VAE's layers back, and take a third of their time to get it again.
        torch.empty(2**25 - 2**16, dtype=torch.uint8)
    options = {
        **dict.fromkeys(without),
        **parts,
        **_quantisation(form, transformer=quantise, text_encoder_2=quantise_text),
    }
    with _no_progress_bars():
        try:
            pipe = FaceMoGLEPipeline.from_pretrained(base, dtype=form, **options)
        except (OSError, ValueError) as error:  # what diffusers raises for damaged, foreign or unreachable folders
            line = " ".join(str(error).split())[:200]
            raise MogleError(f"{base}: cannot be loaded as a FluxPipeline ({line})") from error
        for part in (pipe.transformer, pipe.text_encoder_2):
            for layer in part.modules() if part is not None else ():
                if hasattr(layer, "compute_dtype"):  # weights that came in 4 bits say what suited another GPU
                    layer.compute_dtype = form
        if adapter is not None:
            pipe.load_mogle(adapter)
    if offload == "none":
        return pipe.to(device)
    if offload == "model":
        pipe.enable_model_cpu_offload(device=device)
    else:
        stream = device.startswith("cuda")  # load the next layers while the current ones compute
        pipe.enable_group_offload(torch.device(device), offload_type="leaf_level", use_stream=stream)
    return pipe


def check_forms(device: str, **forms: str) -> None:
    """Refuses, by name, a form in 4 or 8 bits where there is no NVIDIA GPU or no bitsandbytes."""
    for name, form in forms.items():
        if form != "none" and not device.startswith("cuda"):
            raise MogleError(f"{name}={form}: a base is quantised on a GPU alone, and this is {device}")
        if form != "none":
            require("bitsandbytes", f"{name}={form}")


def _quantisation(dtype: torch.dtype, **forms: str) -> dict[str, Any]:
    """What `from_pretrained` has to be told to hold these parts in 4 or 8 bits; they compute in `dtype`."""
    if {*forms.values()} == {"none"}:
        return {}
    import diffusers
    import transformers
    from diffusers.quantizers import PipelineQuantizationConfig

    ways: dict[str, dict[str, Any]] = {
        "nf4": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": dtype},
        "int8": {"load_in_8bit": True},
    }
    library = {"transformer": diffusers, "text_encoder_2": transformers}
    chosen = {part: ways[form] for part, form in forms.items() if form != "none"}
    mapping = {part: library[part].BitsAndBytesConfig(**way) for part, way in chosen.items()}
    return {"quantization_config": PipelineQuantizationConfig(quant_mapping=mapping)}


def tier_at_hand(name: str | None = None) -> Tier | None:
    """The tier of that name, or the largest that fits this machine, if its weights are here; None: the tiny FLUX.

    Raises:
        MogleError: no tier of that name.

    Warns:
        MogleWarning: what the machine lacks for the tier that was asked for; which weights a larger one would need.
    """
    if name is not None:
        best_tier(Machine(), name)  # refuse a name that is none before torch is imported
    machine = measure()
    tier = best_tier(machine, name)
    if name is not None:
        if misfit := tier.misfit(machine):
            warnings.warn(f"tier {tier.name} {misfit}", MogleWarning, stacklevel=2)
        return tier
    if tier.base is None or (base_here(tier) and RELEASED.is_dir()):
        return None if tier.base is None else tier
    lacks = ["flux-dev"] * (not base_here(tier)) + ["face-mogle"] * (not RELEASED.is_dir())
    fetch = " && ".join(f"mogle weights get {asset}" for asset in lacks)
    what = f"this machine fits tier {tier.name}, whose weights are not all here ({fetch}); going on with the tiny FLUX"
    warnings.warn(what, MogleWarning, stacklevel=2)
    return None


def load_tier(
    tier: Tier, base: Path | str, adapter: Path | None, device: str | None = None, *, dtype: str | None = None,
    offload: str | None = None, prompts: Sequence[str] = (),
) -> FaceMoGLEPipeline:  # fmt: skip
    """Base and adapter as a tier holds them; pictures are of the tier's size where nobody says another.

    Args:
        dtype, offload: in place of the tier's own.
        prompts: sentences that will be drawn. On a tier that frees its text encoders the first of them are encoded
            before the transformer is loaded; any others load the text encoders once more.

    Raises:
        MogleError: as `load_pipeline`.
    """
    import torch

    from mogle.pipeline import Texts

    form = dtype or {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[tier.dtype]
    load = partial(
        load_pipeline, base, device=device, dtype=form, quantise=tier.quantise, quantise_text=tier.quantise_text
    )
    texts = Texts(partial(load, None, without=("transformer", "vae")), prompts) if tier.frees_text else None
    if texts is not None and prompts:
        texts(prompts[:1])
    pipe = load(adapter, offload=offload or tier.offload, without=("text_encoder", "text_encoder_2") if texts else ())
    pipe.texts, pipe.default_sample_size = texts, tier.size // pipe.vae_scale_factor
    return pipe


def chosen_weights(
    tier: str | None = None, base: str | None = None, adapter: str | None = None, own: bool = True
) -> tuple[Tier | None, Path | str, Path | None]:
    """The tier, if one says how the base is held, the base and the adapter (None where "none" was asked for).

    With neither tier nor weights named it is the best tier whose weights are here; `own` is False where a picture that
    is made again brings its own.

    Raises:
        MogleError: as `tier_at_hand`, `base_folder` and `adapter_folder`.

    Warns:
        MogleWarning: as `tier_at_hand`.
    """
    held = tier_at_hand(tier) if tier is not None or (own and not (base or adapter)) else None
    if held is not None and held.base is not None:
        base, adapter = base or str(base_here(held) or held.base), adapter or str(RELEASED)
    return held, base_folder(base), None if adapter == "none" else adapter_folder(adapter)


def load_chosen(
    held: Tier | None, base: Path | str, adapter: Path | None, device: str | None = None, dtype: str | None = None,
    offload: str = "none", prompts: Sequence[str] = (),
) -> FaceMoGLEPipeline:  # fmt: skip
    """What `chosen_weights` has found, loaded; what a tier costs is said on stderr before.

    Args:
        device, dtype, offload: as for `load_pipeline`; with a tier "none" leaves it its own offloading.
        prompts: sentences that will be drawn, see `load_tier`.

    Raises:
        MogleError: as `load_pipeline`.
    """
    if held is None:
        return load_pipeline(base, adapter, device, dtype=dtype, offload=offload)
    print(held.cost(), file=sys.stderr)
    offloaded = None if offload == "none" else offload
    return load_tier(held, base, adapter, device, dtype=dtype, offload=offloaded, prompts=prompts)


@contextmanager
def _no_progress_bars() -> Iterator[None]:
    """Hide the bars that diffusers and transformers draw for each model that they load."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    with ExitStack() as afterwards:
        for library in (diffusers_logging, transformers_logging):
            if library.is_progress_bar_enabled():
                library.disable_progress_bar()
                afterwards.callback(library.enable_progress_bar)
        yield


def origin_of(pipe: FaceMoGLEPipeline, base: Path | str, adapter: Path | None) -> dict[str, str]:
    """What a picture depends on besides its recipe: weights, versions, machine. Folders are given by name, not path."""
    import torch

    origin = {"base": str(base)}
    if isinstance(base, Path):
        origin = {"base": base.resolve().name, "base_sha256": fingerprint(base)}
    if adapter is not None:
        origin |= {"adapter": adapter.resolve().name, "adapter_sha256": fingerprint(adapter)}
    device = pipe._execution_device
    machine = [device.type, str(pipe.transformer.dtype).removeprefix("torch.")]
    if device.type == "cpu":
        machine.append(f"{torch.get_num_threads()} threads")
    elif device.type == "cuda":
        machine.append(torch.cuda.get_device_name(device))
    return origin | {"machine": ", ".join(machine), "versions": versions()}
