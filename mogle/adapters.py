"""Files of an adapter: LoRA (diffusers' format) and MoGLE, ours and the reference's.

    pytorch_lora_weights.safetensors
    mogle.safetensors | mogle.pt | global_local_mask_moe.pt

Everything is read and held against the base before anything changes. The header of mogle.safetensors also says which
variant of the experts it is and how it was trained (`SETTINGS`); a .pt file has no room for that.
"""

from __future__ import annotations

import json
import pickle
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from mogle.ablations import build_mogle, variant_in, variant_of
from mogle.errors import MogleError
from mogle.experts import MoGLE
from mogle.lora import NAME, base_layers, lora_layers, unwrapped
from mogle.lora.keys import PREFIX, plain_lora

LORA_FILE = "pytorch_lora_weights.safetensors"
MOGLE_FILES = ("mogle.safetensors", "mogle.pt", "global_local_mask_moe.pt")
#: Options of a call that an adapter's file may set the defaults of.
SETTINGS = ("attention", "lora_on")


class Adapter(NamedTuple):
    """What an adapter's folder holds: MoGLE, LoRA tensors by module, and defaults for a call's options."""

    mogle: MoGLE
    lora: dict[str, Tensor]  # transformer.MODULE.lora_A.weight, ...lora_B.weight; scaling 1 unless `config` says more
    config: dict[str, Any] | None  # of peft, where the file has one
    settings: dict[str, str]


def read_adapter(folder: str | Path, transformer: Any) -> Adapter:
    """Read MoGLE, LoRA and settings, and check that they fit this transformer.

    Raises:
        MogleError: files missing or unreadable, a pickle that would run code, LoRA of another kind, numbers that are
            none, tensors that do not fit (the first).
    """
    folder = Path(folder)
    mogle_file = next((folder / name for name in MOGLE_FILES if (folder / name).is_file()), None)
    if mogle_file is None or not (folder / LORA_FILE).is_file():
        found = ", ".join(sorted(path.name for path in folder.glob("*"))[:8]) or "nothing"
        found = found if folder.is_dir() else "no such directory"
        raise MogleError(f"{folder}: found {found}; expected {LORA_FILE} and one of {', '.join(MOGLE_FILES)}")
    lora, lora_header = _read(folder / LORA_FILE)
    state, header = _read(mogle_file)
    state = {re.sub(r"^(module\.|_orig_mod\.)+", "", name): tensor for name, tensor in state.items()}
    layers = base_layers(transformer)
    lora = plain_lora(lora, layers, str(folder / LORA_FILE))
    _check(str(folder / LORA_FILE), lora, _lora_shapes(lora, layers))
    try:
        mogle = build_mogle(variant_in(header), unwrapped(transformer).config.in_channels)
    except MogleError as error:
        raise MogleError(f"{mogle_file}: {error}") from error
    _check(str(mogle_file), state, {name: tuple(t.shape) for name, t in mogle.state_dict().items()})
    mogle.load_state_dict(state)
    try:  # peft's settings (rank, alpha) in the header of a file that diffusers wrote
        config = json.loads(lora_header.get("lora_adapter_metadata", "null"))
    except ValueError as error:
        raise MogleError(
            f"{folder / LORA_FILE}: found a damaged header ({error}), expected JSON; fetch the file again"
        ) from error
    return Adapter(mogle, lora, config, {name: header[name] for name in SETTINGS if name in header})


def write_adapter(folder: str | Path, pipe: Any, mogle: MoGLE, settings: Mapping[str, str], format: str) -> None:
    """Write both files; see `FaceMoGLEPipeline.save_mogle`."""
    if format not in ("safetensors", "pt"):
        raise MogleError(f"format={format!r}: expected 'safetensors' or 'pt'")
    transformer = unwrapped(pipe.transformer)
    config = getattr(transformer, "peft_config", {}).get(NAME)
    if config is None:
        raise MogleError("there is no LoRA to save: expected load_mogle() or add_lora() before")
    lora = lora_state(transformer)
    state = {name: t.detach().cpu().contiguous() for name, t in mogle.state_dict().items()}
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    metadata = None
    if format == "pt":  # the reference reads no alpha: it goes into B
        scaling = config.lora_alpha / config.r
        lora = {name: t * scaling if "lora_B" in name and scaling != 1 else t for name, t in lora.items()}
        torch.save(state, folder / "mogle.pt")
    else:
        header = {"format": "pt", "variant": variant_of(mogle), **settings}
        save_file(state, folder / "mogle.safetensors", metadata=header)
        names = ("r", "lora_alpha", "rank_pattern", "alpha_pattern", "target_modules")
        metadata = {name: value for name, value in config.to_dict().items() if name in names}
        if not isinstance(metadata["target_modules"], str):
            metadata["target_modules"] = sorted(metadata["target_modules"])
    pipe.save_lora_weights(folder, transformer_lora_layers=lora, transformer_lora_adapter_metadata=metadata)
    for name in MOGLE_FILES:  # an older file of another format would be ambiguous
        if name != ("mogle.pt" if format == "pt" else "mogle.safetensors"):
            (folder / name).unlink(missing_ok=True)


def lora_state(transformer: Any) -> dict[str, Tensor]:
    """Our LoRA's tensors, MODULE.lora_A.weight and MODULE.lora_B.weight, on the CPU, wherever offloading keeps them."""
    from accelerate.utils import align_module_device

    state = {}
    for name, layer in lora_layers(transformer).items():
        for kind in ("lora_A", "lora_B"):
            half = getattr(layer, kind)[NAME]
            with align_module_device(half):
                state[f"{name}.{kind}.weight"] = half.weight.detach().cpu().clone()
    return state


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and header of a safetensors or .pt file; each number has to be one."""
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, "pt") as file:
                state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                header = file.metadata() or {}
        else:
            with warnings.catch_warnings(action="ignore"):  # about pickle protocols
                state, header = torch.load(path, map_location="cpu", weights_only=True), {}
    except pickle.UnpicklingError as error:
        raise MogleError(f"{path}: refused, the pickle holds more than weights and could run code") from error
    except Exception as error:  # a damaged file leads the readers anywhere
        line = " ".join(str(error).split())[:120]
        raise MogleError(f"{path}: found no readable weights ({line}); expected an adapter's file") from error
    if not isinstance(state, dict) or not all(isinstance(t, Tensor) for t in state.values()):
        raise MogleError(f"{path}: found a {type(state).__name__}, expected a state dict of tensors")
    for name, tensor in state.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise MogleError(f"{path}: {name}: found NaN or infinity, expected weights; fetch or train it again")
    return state, header


def _lora_shapes(lora: Mapping[str, Tensor], layers: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """The shapes that the LoRA's tensors must have on this transformer, at the rank that they have."""
    shapes: dict[str, tuple[int, ...]] = {}
    for name, tensor in lora.items():
        module, half, _ = name.removeprefix(PREFIX).partition(".lora_A.")
        if half and module in layers:
            rank, layer = tensor.shape[0] if tensor.ndim else 0, layers[module]
            shapes[name] = rank, layer.in_features
            shapes[name.replace("lora_A", "lora_B")] = layer.out_features, rank
    return shapes


def _check(path: str, found: Mapping[str, Tensor], expected: Mapping[str, tuple[int, ...]]) -> None:
    """MogleError naming the first tensor that is in only one of the two, or has another shape."""
    shapes = {name: tuple(tensor.shape) for name, tensor in found.items()}
    for name in [*shapes, *(name for name in expected if name not in shapes)]:
        if shapes.get(name) != expected.get(name):
            have, want = (" x ".join(map(str, d[name])) if name in d else "nothing" for d in (shapes, expected))
            raise MogleError(
                f"{path}: does not fit this base: {name}: found {have}, expected {want}. An adapter works only on the "
                "base that it was trained on: load that one, or another adapter"
            )
