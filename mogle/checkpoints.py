"""Where weights are, and how a pipeline is loaded from them, for command line, training, evaluation and course."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mogle.errors import MogleError
from mogle.provenance import fingerprint, versions

if TYPE_CHECKING:
    import torch

    from mogle.pipeline import FaceMoGLEPipeline

OFFLOADS = ("none", "model", "group")
DTYPES = ("float32", "bfloat16", "float16")
BASE, ADAPTER, JUDGES = "tiny-flux", "tiny-flux-mogle", "judges"


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
        without: names of parts that are not loaded.
        **parts: parts that are already there, such as a quantised transformer.

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

    from mogle.pipeline import FaceMoGLEPipeline

    with _no_progress_bars():
        try:
            options = {**dict.fromkeys(without), **parts}
            pipe = FaceMoGLEPipeline.from_pretrained(base, dtype=form, **options)
        except (OSError, ValueError) as error:  # what diffusers raises for damaged, foreign or unreachable folders
            line = " ".join(str(error).split())[:200]
            raise MogleError(f"{base}: cannot be loaded as a FluxPipeline ({line})") from error
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
