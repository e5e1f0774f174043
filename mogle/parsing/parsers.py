"""Face parsers: picture -> numbers of classes -> labels in CelebAMask-HQ's order, matched by the names of the classes.

portraits   the judges' own, for painted portraits; ships with the project
segformer   SegFormer trained on CelebAMask-HQ, safetensors
farl        FaRL's, which the reference uses: TorchScript, that is a program; loading it runs what is in it
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mogle.errors import MogleError, MogleWarning
from mogle.labels import LABELS, ORDERS
from mogle.labels.classes import names_table

if TYPE_CHECKING:
    from torch import Tensor

PARSERS = ("portraits", "segformer", "farl")


@dataclass(frozen=True)
class Parser:
    """A face parser.

    Attributes:
        name: in messages.
        side: pixels a side of the pictures it is meant for, faces cut out and turned as CelebA-HQ's are; 0: it takes
            whole pictures of any shape.
        parse: picture uint8 (H, W, 3) -> labels uint8 (H, W) in CelebAMask-HQ's order.
    """

    name: str
    side: int
    parse: Callable[[np.ndarray], np.ndarray]


def load_parser(name: str, folder: str | Path | None = None, device: str | None = None) -> Parser:
    """A parser of `PARSERS`, from a folder or from where `mogle weights get` puts it. Nothing is downloaded.

    Raises:
        MogleError: no such parser, its weights are not there (and which command fetches them), or are not what they
            are said to be.

    Warns:
        MogleWarning: TorchScript whose hash is known neither from the ledger nor from a download.
    """
    from mogle.checkpoints import JUDGES, pick_device, shipped

    if name not in PARSERS:
        raise MogleError(f"parser {name!r}: expected one of {', '.join(PARSERS)}")
    device = pick_device(device)
    if name == "portraits":
        from mogle.metrics.judges import load_judges

        judge = load_judges(folder or shipped(JUDGES), device).parser
        return Parser(name, 0, lambda picture: judge.parse(picture[None])[0])
    missing = f"the weights of the {name} parser are not here; `mogle weights get {name}` fetches them"
    try:
        found = Path(folder) if folder is not None else shipped(name)
    except MogleError as error:
        raise MogleError(missing) from error
    load = {"segformer": _load_segformer, "farl": _load_farl}[name]
    try:
        return load(found, device)
    except FileNotFoundError as error:
        raise MogleError(f"{found}: found no {error}; {missing}") from error


def network_parser(
    name: str, side: int, names: Sequence[str], logits: Callable[[Tensor], Tensor], device: str = "cpu"
) -> Parser:
    """A parser from a network.

    Args:
        name: in messages.
        side: pixels a side that the network was trained at.
        names: the class of each of its numbers, named as in CelebAMask-HQ: "l_" is the person's left, which lies on
            the picture's right.
        logits: float32 RGB (1, 3, side, side) in [0, 1] -> (1, classes, any height and width).

    Raises:
        MogleError: a class that CelebAMask-HQ does not have; while parsing, another number of classes.
    """
    import torch
    import torch.nn.functional as F

    if strange := [one for one in names if one and one not in LABELS]:
        raise MogleError(f"{name}: found a class {strange[0]!r}, expected {', '.join(LABELS)}")
    table = names_table(names)

    @torch.inference_mode()
    def parse(picture: np.ndarray) -> np.ndarray:
        image = torch.as_tensor(picture, device=device).permute(2, 0, 1)[None].float() / 255
        found = logits(F.interpolate(image, (side, side), mode="bilinear", antialias=True))
        if found.shape[1] != len(names):
            raise MogleError(f"{name}: found {found.shape[1]} classes, expected {len(names)}")
        whole = F.interpolate(found.float(), picture.shape[:2], mode="bilinear", antialias=False)
        return table[whole.argmax(1)[0].cpu().numpy()]

    return Parser(name, side, parse)


def _load_farl(folder: Path, device: str) -> Parser:
    """FaRL's parser as facer publishes it: 448 px in [0, 1] -> (logits, another output)."""
    import torch

    from mogle.assets.ledger import find, read_lock, verify

    asset = find("farl", "weights")
    file = asset.files[0]
    path = folder / file.names[0]
    if not path.is_file():
        raise FileNotFoundError(path.name)
    verify(asset, path.name, path)
    if not file.sha256 and not read_lock(asset)["files"].get(path.name):
        what = "is TorchScript, which runs code as it is loaded, and its hash is not known from a download"
        warnings.warn(f"{path} {what}: use it only if you trust where it is from", MogleWarning, stacklevel=3)
    try:
        network = torch.jit.load(path, map_location=device).eval()
    except RuntimeError as error:
        raise MogleError(f"{path}: cannot be loaded as TorchScript ({_line(error)})") from error
    return network_parser("farl", 448, ORDERS["farl"], lambda image: network(image)[0], device)


def _load_segformer(folder: Path, device: str) -> Parser:
    """SegFormer in transformers' own files; its classes are named in its settings."""
    if absent := [one for one in ("config.json", "model.safetensors") if not (folder / one).is_file()]:
        raise FileNotFoundError(absent[0])
    import torch
    from transformers import SegformerForSemanticSegmentation

    try:
        network, info = SegformerForSemanticSegmentation.from_pretrained(
            folder, use_safetensors=True, local_files_only=True, output_loading_info=True
        )
    except Exception as error:
        raise MogleError(f"{folder}: cannot be loaded as a SegFormer ({_line(error)})") from error
    if info["missing_keys"]:
        raise MogleError(f"{folder}: no weights for {min(info['missing_keys'])}, expected all of a SegFormer's")
    network = network.float().to(device).eval()
    settings: dict[str, Any] = {}
    if (folder / "preprocessor_config.json").is_file():
        settings = json.loads((folder / "preprocessor_config.json").read_text(encoding="utf-8"))
    mean, std = (
        torch.tensor(settings.get(key, default), device=device)[:, None, None]
        for key, default in (("image_mean", [0.485, 0.456, 0.406]), ("image_std", [0.229, 0.224, 0.225]))
    )
    names = [network.config.id2label[number] for number in range(network.config.num_labels)]
    return network_parser("segformer", 512, names, lambda image: network((image - mean) / std).logits, device)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__
