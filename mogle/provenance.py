"""What a generated picture says about itself, in PNG text chunks: enough to make it again, and that a machine made it.

There is no time and no full path among the chunks, so the same recipe on the same machine gives the same file, byte for
byte, and a shared picture does not tell where its maker keeps things.
"""

from __future__ import annotations

import base64
import hashlib
import io
import os
import platform
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, PngImagePlugin

import mogle
from mogle.errors import MogleError
from mogle.files import atomic_write
from mogle.labels import decode_mask, save_mask
from mogle.pictures import open_image

SOURCE = "AI-generated"
_NUMBERS: dict[str, type] = {
    "seed": int, "steps": int, "guidance": float, "strength": float, "mask_guidance": float, "gate_time": str,
}  # fmt: skip
_PACKAGES = ("torch", "diffusers", "transformers", "peft", "numpy", "pillow")
_WHOLE = 64_000_000  # bytes; of larger files the first and last megabyte go into a fingerprint, not all 24 GB of FLUX


@dataclass(frozen=True)
class Recipe:
    """What decides a picture, apart from weights and machine; `mask` is the label map (height, width) or None.

    `dtype` is the number format where another than the device's own was chosen, as "bfloat16" on a CPU, else "".
    """

    prompt: str | None
    mask: np.ndarray | None
    seed: int
    steps: int
    guidance: float
    strength: float
    height: int
    width: int
    mask_guidance: float = 1.0
    gate_time: str = "training"
    dtype: str = ""

    def differences(self, other: Recipe) -> list[str]:
        """Names of the fields in which two recipes differ; none: the same picture on the same weights and machine."""
        return [name for name, mine in vars(self).items() if not np.array_equal(mine, vars(other)[name])]


def mask_hash(label_map: np.ndarray) -> str:
    """sha256 over size and labels: the same for every file form of the same mask."""
    size = f"{label_map.shape[0]}x{label_map.shape[1]}:".encode()
    return hashlib.sha256(size + np.ascontiguousarray(label_map, dtype=np.uint8).tobytes()).hexdigest()


def fingerprint(folder: str | os.PathLike[str]) -> str:
    """sha256 over names, sizes and contents of the weights and settings in a folder."""
    digest = hashlib.sha256()
    for path in sorted(Path(folder).rglob("*")):
        if path.suffix in (".safetensors", ".pt", ".json", ".txt", ".model") and path.is_file():
            size = path.stat().st_size
            digest.update(f"{path.relative_to(folder).as_posix()}:{size}:".encode())
            with path.open("rb") as file:
                digest.update(file.read(_WHOLE if size <= _WHOLE else 1_000_000))
                file.seek(max(file.tell(), size - 1_000_000))
                digest.update(file.read())
    return digest.hexdigest()


def versions() -> str:
    """The versions that can change a picture's last bits, in one line."""
    found = [f"python {platform.python_version()}", f"mogle {mogle.__version__}"]
    return ", ".join(found + [f"{name} {metadata.version(name)}" for name in _PACKAGES])


def save_picture(path: Path, picture: Image.Image, recipe: Recipe, origin: dict[str, str]) -> None:
    """Write a PNG with its recipe and origin (weights, versions, device) as text chunks; whole or not at all."""
    chunks = PngImagePlugin.PngInfo()
    numbers = {name: str(getattr(recipe, name)) for name in _NUMBERS}
    texts = {"Source": SOURCE, "Software": f"Face-MoGLE {mogle.__version__}", **numbers}
    texts |= {"size": f"{recipe.width}x{recipe.height}", **origin}
    if recipe.dtype:
        texts["dtype"] = recipe.dtype
    if recipe.prompt is not None:
        texts["prompt"] = recipe.prompt
    if recipe.mask is not None:
        packed = io.BytesIO()
        save_mask(packed, recipe.mask)
        texts |= {"mask_sha256": mask_hash(recipe.mask), "mask": base64.b64encode(packed.getvalue()).decode()}
    for key, text in texts.items():
        chunks.add_text(key, text)
    with atomic_write(path) as part:
        picture.save(part, format="PNG", pnginfo=chunks)


def read_picture(path: str | os.PathLike[str]) -> tuple[Image.Image, Recipe, dict[str, str]]:
    """The picture, its recipe and its origin, from a PNG that `save_picture` wrote.

    Raises:
        MogleError: the file is no picture, carries no recipe, or one that does not add up.
    """
    picture = open_image(path)
    # older files do not name the last two
    texts = {"mask_guidance": "1.0", "gate_time": "training"}
    texts |= {key: str(text) for key, text in getattr(picture, "text", {}).items()}
    if texts.pop("Source", None) != SOURCE or "seed" not in texts:
        raise MogleError(f"{path}: found no recipe in the file, expected a PNG that `mogle generate` wrote")
    try:
        width, height = (int(side) for side in texts.pop("size").split("x"))
        mask, expected = None, texts.pop("mask_sha256", None)
        if expected is not None:
            mask = decode_mask(open_image(base64.b64decode(texts.pop("mask")), "mask"))
            if mask_hash(mask) != expected:
                raise ValueError("the mask is not the one of its hash")
        numbers: dict[str, Any] = {name: number(texts.pop(name)) for name, number in _NUMBERS.items()}
        prompt, dtype = texts.pop("prompt", None), texts.pop("dtype", "")
        recipe = Recipe(prompt, mask, height=height, width=width, dtype=dtype, **numbers)
    except (KeyError, ValueError, OSError) as error:
        raise MogleError(f"{path}: the recipe in the file is damaged ({error})") from error
    texts.pop("Software", None)
    return picture, recipe, texts
