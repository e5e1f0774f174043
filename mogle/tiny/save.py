"""Writes the networks that measure: what `load_judges` and `load_text_embedder` read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from mogle.metrics.judges import CLASSES, JUDGE_SIZE, Judges, TextEmbedder


def parameters(module: nn.Module) -> int:
    """Number of trained numbers in a network."""
    return sum(p.numel() for p in module.parameters())


def save_judges(folder: str | Path, judges: Judges, record: Mapping[str, Any] | None = None) -> None:
    """Writes parser.safetensors and attributes.safetensors (float16) and config.json with ``record`` inside."""
    from safetensors.torch import save_file

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name, network in (("parser", judges.parser), ("attributes", judges.reader)):
        state = {key: value.detach().cpu() for key, value in network.state_dict().items()}
        half = {key: value.half() if value.is_floating_point() else value for key, value in state.items()}
        save_file({key: value.contiguous() for key, value in half.items()}, folder / f"{name}.safetensors")
    config = {
        "size": JUDGE_SIZE,
        "parser": {"classes": CLASSES, "parameters": parameters(judges.parser)},
        "attributes": {"heads": judges.reader.values, "parameters": parameters(judges.reader)},
        **(record or {}),
    }
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")


def save_text_embedder(folder: str | Path, embedder: TextEmbedder, facts: dict[str, Any]) -> None:
    """Writes text.safetensors (float16) and text.json: the words, and how it was trained and does."""
    from safetensors.torch import save_file

    folder = Path(folder)
    state = {name: tensor.detach().half().contiguous() for name, tensor in embedder.state_dict().items()}
    save_file(state, folder / "text.safetensors")
    (folder / "text.json").write_text(json.dumps({**facts, "vocabulary": embedder.vocabulary}, indent=1) + "\n")
