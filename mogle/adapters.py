"""Files of an adapter: LoRA (diffusers' format) and MoGLE, ours and the reference's.

    pytorch_lora_weights.safetensors
    mogle.safetensors | mogle.pt | global_local_mask_moe.pt

Everything is read and held against the base before anything changes. The header of mogle.safetensors also says which
variant of the experts it is and how it was trained (`SETTINGS`); a .pt file has no room for that.
"""

from __future__ import annotations

import pickle
import warnings
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from mogle.errors import MogleError
from mogle.experts import MoGLE
from mogle.transformer import NAME

LORA_FILE = "pytorch_lora_weights.safetensors"
MOGLE_FILES = ("mogle.safetensors", "mogle.pt", "global_local_mask_moe.pt")
#: What an adapter says about itself besides weights: variant of the experts, and options that sampling defaults to.
SETTINGS = ("experts", "gate", "attention", "lora_on")


def read_adapter(folder: str | Path, transformer: Any) -> tuple[MoGLE, dict[str, str]]:
    """Read MoGLE and its settings, and check that it and the LoRA fit this transformer.

    Raises:
        MogleError: files missing or unreadable, a pickle that would run code, tensors that do not fit (the first).
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise MogleError(f"{folder}: no such directory; expected one with {LORA_FILE} and {MOGLE_FILES[0]}")
    mogle_file = next((folder / name for name in MOGLE_FILES if (folder / name).is_file()), None)
    if mogle_file is None or not (folder / LORA_FILE).is_file():
        found = ", ".join(sorted(path.name for path in folder.iterdir())[:8]) or "nothing"
        raise MogleError(f"{folder}: found {found}; expected {LORA_FILE} and one of {', '.join(MOGLE_FILES)}")
    lora, _ = _read(folder / LORA_FILE)
    state, header = _read(mogle_file)
    _check(f"{folder / LORA_FILE}", {name: tuple(t.shape) for name, t in lora.items()}, _lora_shapes(lora, transformer))
    settings = {name: header[name] for name in SETTINGS if name in header}
    variant: dict[str, Any] = {name: settings[name] for name in ("experts", "gate") if name in settings}
    mogle = MoGLE(transformer.config.in_channels, **variant)
    expected = {name: tuple(t.shape) for name, t in mogle.state_dict().items()}
    _check(str(mogle_file), {name: tuple(t.shape) for name, t in state.items()}, expected)
    mogle.load_state_dict(state)
    return mogle, settings


def write_adapter(folder: str | Path, pipe: Any, mogle: MoGLE, settings: dict[str, str], format: str) -> None:
    """Write both files; see `FaceMoGLEPipeline.save_mogle`."""
    from peft.utils import get_peft_model_state_dict

    if format not in ("safetensors", "pt"):
        raise MogleError(f"format={format!r}: expected 'safetensors' or 'pt'")
    config = getattr(pipe.transformer, "peft_config", {}).get(NAME)
    if config is None:
        raise MogleError("there is no LoRA to save: expected load_mogle() or add_lora() before")
    lora = get_peft_model_state_dict(pipe.transformer, adapter_name=NAME)
    state = OrderedDict((name, t.detach().cpu().contiguous()) for name, t in mogle.state_dict().items())
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    metadata = None
    if format == "pt":  # the reference reads no alpha: it goes into B
        scaling = config.lora_alpha / config.r
        lora = {name: t * scaling if "lora_B" in name and scaling != 1 else t for name, t in lora.items()}
        torch.save(state, folder / "mogle.pt")
    else:
        header = {"format": "pt", "experts": mogle.experts, "gate": mogle.gate, **settings}
        save_file(state, folder / "mogle.safetensors", metadata=header)
        kept = ("r", "lora_alpha", "rank_pattern", "alpha_pattern", "target_modules")
        metadata = {name: value for name, value in config.to_dict().items() if name in kept}
        if not isinstance(metadata["target_modules"], str):
            metadata["target_modules"] = sorted(metadata["target_modules"])
    pipe.save_lora_weights(folder, transformer_lora_layers=lora, transformer_lora_adapter_metadata=metadata)
    for name in MOGLE_FILES:  # an older file of another format would be ambiguous
        if name != ("mogle.pt" if format == "pt" else "mogle.safetensors"):
            (folder / name).unlink(missing_ok=True)


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and header of a safetensors or .pt file."""
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, "pt") as file:
                return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
        with warnings.catch_warnings(action="ignore"):  # about pickle protocols
            state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise MogleError(f"{path}: refused, the pickle holds more than weights and could run code") from error
    except (SafetensorError, OSError, RuntimeError, EOFError, ValueError, KeyError, AttributeError) as error:
        line = " ".join(str(error).split())[:120]
        raise MogleError(f"{path}: found no readable weights ({line}); expected an adapter's file") from error
    if not isinstance(state, dict) or not all(isinstance(t, Tensor) for t in state.values()):
        raise MogleError(f"{path}: found a {type(state).__name__}, expected a state dict of tensors")
    return state, {}


def _lora_shapes(lora: dict[str, Tensor], transformer: Any) -> dict[str, tuple[int, ...]]:
    """The shapes that the LoRA's tensors must have on this transformer, at the rank that they have."""
    shapes: dict[str, tuple[int, ...]] = {}
    modules = dict(transformer.named_modules())
    for name, tensor in lora.items():
        module_name, _, kind = name.removeprefix("transformer.").partition(".lora_")
        module: Any = modules.get(module_name)
        if hasattr(module, "in_features") and kind == "A.weight":
            shapes[name] = (tensor.shape[0], module.in_features)
        elif hasattr(module, "in_features") and kind == "B.weight":
            shapes[name] = (module.out_features, tensor.shape[1])
    return shapes


def _check(path: str, found: dict[str, tuple[int, ...]], expected: dict[str, tuple[int, ...]]) -> None:
    """MogleError naming the first tensor that is in only one of the two, or has another shape."""
    for name in [*found, *(name for name in expected if name not in found)]:
        if found.get(name) != expected.get(name):
            have, want = (" x ".join(map(str, d[name])) if name in d else "nothing" for d in (found, expected))
            raise MogleError(
                f"{path}: does not fit this base: {name}: found {have}, expected {want}. An adapter works only on the "
                "base that it was trained on: load that one, or another adapter"
            )
