"""Pictures for an evaluation: generated once, kept as PNG with their recipes inside, and read again the next time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mogle.errors import MogleError
from mogle.metrics.stack import Pictures, Stack, chunks
from mogle.provenance import Recipe, mask_hash, read_picture, save_picture

if TYPE_CHECKING:
    from diffusers import AutoencoderKL

    from mogle.pipeline import FaceMoGLEPipeline


@dataclass(frozen=True)
class Settings:
    """How pictures are sampled; ``origin`` (weights, versions) goes into every PNG and decides what may be reused."""

    steps: int = 28
    guidance: float = 3.5
    strength: float = 1.0
    batch: int = 16
    origin: Mapping[str, str] | None = None


def sample(
    pipe: FaceMoGLEPipeline, recipes: Sequence[Recipe], names: Sequence[str], folder: Path, settings: Settings,
    without: str | None = None, title: str = "", share: tuple[int, int] = (0, 1),
) -> Stack:  # fmt: skip
    """Pictures (N,H,W,3) of the recipes as ``folder/NAME.png``; what is there already is not made again.

    Of several processes (number, how many) each makes its share; the stack is whole when all of them have.
    """
    from tqdm.auto import tqdm

    origin = {**(settings.origin or {}), **({"without": without} if without else {})}
    files = [folder / f"{name}.png" for name in names]
    mine = range(share[0], len(files), share[1])
    todo = [i for i in mine if not files[i].exists()]
    for i in set(mine) - set(todo):
        _check_made(files[i], recipes[i], origin)
    pipe.set_progress_bar_config(disable=True)  # one bar for all, not one for each batch
    bar = tqdm(
        total=len(mine), initial=len(mine) - len(todo), desc=title or folder.name, unit="picture", disable=share[0] > 0
    )
    with bar:
        for start in range(0, len(todo), settings.batch):
            chunk = todo[start : start + settings.batch]
            for i, picture in zip(chunk, _run(pipe, [recipes[i] for i in chunk], without), strict=True):
                save_picture(files[i], picture, recipes[i], dict(origin))
            bar.update(len(chunk))
    return stored(files, (recipes[0].height, recipes[0].width))


def stored(files: Sequence[Path], size: tuple[int, int]) -> Stack:
    """Pictures (N,H,W,3) in files of one size, read when they are needed."""
    from mogle.labels import open_image

    def picture(index: int) -> np.ndarray:
        return np.asarray(open_image(files[index]).convert("RGB"))

    return Stack(picture, range(len(files)), (*size, 3))


def _check_made(path: Path, recipe: Recipe, origin: Mapping[str, str]) -> None:
    """The picture was made by just this recipe and these weights."""
    _, then, made_by = read_picture(path)
    wanted, found = _plain(recipe), _plain(then)
    for key in ("base_sha256", "adapter_sha256", "without"):
        wanted[key], found[key] = origin.get(key), made_by.get(key)
    different = [key for key in wanted if wanted[key] != found[key]]
    if different:
        raise MogleError(
            f"{path}: made with another {', '.join(different)}; choose an empty --out, or delete {path.parent}"
        )


def _plain(recipe: Recipe) -> dict[str, Any]:
    return {**recipe.__dict__, "mask": None if recipe.mask is None else mask_hash(recipe.mask)}


@contextmanager
def _gate(pipe: FaceMoGLEPipeline, kind: str | None) -> Iterator[None]:
    """MoGLE with another kind of gate on the same weights, for a while."""
    if kind is None or pipe.mogle is None:
        yield
        return
    before, pipe.mogle.gate = pipe.mogle.gate, kind
    try:
        yield
    finally:
        pipe.mogle.gate = before


def _run(pipe: FaceMoGLEPipeline, recipes: Sequence[Recipe], without: str | None) -> list[Any]:
    """One batch. Recipes of one batch agree in all but prompt, mask and seed."""
    import torch

    one = recipes[0]
    inputs: dict[str, Any] = {}
    if any(r.prompt is not None for r in recipes):
        inputs["prompt"] = [r.prompt or "" for r in recipes]
    if any(r.mask is not None for r in recipes):
        inputs["mask"] = [r.mask for r in recipes]
    if without == "locals":
        inputs["condition_tokens"] = empty_locals(pipe, inputs.pop("mask"))
    with _gate(pipe, "scalar" if without == "places" else None):
        return pipe(
            **inputs,
            height=one.height,
            width=one.width,
            num_inference_steps=one.steps,
            guidance_scale=one.guidance,
            conditioning_scale=one.strength,
            generator=[torch.Generator().manual_seed(r.seed) for r in recipes],
        ).images


def empty_locals(pipe: FaceMoGLEPipeline, masks: Sequence[np.ndarray]) -> Any:
    """Condition tokens (B,20,N,64) whose 19 local masks are all black, as they were in the reference's inference."""
    from mogle.conditions import encode_distinct

    tokens, index = encode_distinct(pipe.vae, masks, pipe._execution_device)
    index[:, 1:] = 0
    return tokens[index]


def reconstruct(vae: AutoencoderKL, images: np.ndarray, batch: int = 16) -> np.ndarray:
    """Pictures (N,H,W,3) through the VAE and back: the best that any generator on this VAE can do."""
    import torch

    made = []
    with torch.inference_mode():
        for part in chunks(len(images), batch):
            pixels = torch.from_numpy(images[part]).permute(0, 3, 1, 2).to(vae.device, vae.dtype)
            decoded = vae.decode(vae.encode(pixels / 127.5 - 1).latent_dist.mode()).sample
            made.append(((decoded.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).cpu())
    return torch.cat(made).numpy()


def reconstructions(vae: AutoencoderKL, images: Pictures, names: Sequence[str], folder: Path) -> Stack:
    """The same of many, kept as ``folder/NAME.png``; made anew each time, which costs little."""
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{name}.png" for name in names]
    for part in chunks(len(images), 16):
        for picture, path in zip(reconstruct(vae, images[part]), files[part], strict=True):
            Image.fromarray(picture).save(path)
    return stored(files, (images.shape[1], images.shape[2]))
