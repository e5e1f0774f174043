"""From recipe to picture, for command line, evaluation and notebooks: one way to size, to draw, to keep, to go on.

Noise belongs to the sample: its seed follows from the run's seed and the sample's id alone. So it matters neither how
many processes share a set, nor in which batches they draw it, nor where an earlier run stopped.
"""

from __future__ import annotations

import hashlib
import math
import os
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mogle.errors import MogleError, MogleWarning
from mogle.labels import resize_labels
from mogle.pictures import nearest_size, same_aspect
from mogle.provenance import Recipe, read_picture, save_picture

if TYPE_CHECKING:
    from accelerate import PartialState
    from PIL import Image

    from mogle.datasets import FaceDataset
    from mogle.pipeline import FaceMoGLEPipeline

#: Draws recipes that agree in all but prompt, mask and seed: `run`, or a variant of it.
Run = Callable[["FaceMoGLEPipeline", Sequence[Recipe]], "list[Image.Image]"]
#: What must be the same for a picture that is there to be kept, besides its recipe.
_WEIGHTS = ("base_sha256", "adapter_sha256", "without")


def seed_of(name: str, seed: int = 0) -> int:
    """The seed of the sample `name` in a run with this seed: the same wherever and whenever it is drawn."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:7], "big")


@dataclass(frozen=True)
class Settings:
    """How the pictures of a set are drawn; ``origin`` (weights, versions) goes into every PNG and decides what is kept.

    ``seed`` is the run's, from which each sample's is derived; ``batch`` pictures are drawn at once.
    """

    steps: int = 28
    guidance: float = 3.5
    strength: float = 1.0
    batch: int = 16
    origin: Mapping[str, str] | None = None
    mask_guidance: float = 1.0
    seed: int = 0

    def recipe(self, prompt: str | None, mask: np.ndarray | None, seed: int, size: tuple[int, int] = (0, 0)) -> Recipe:
        """A recipe with these settings; size (height, width) in pixels, 0 for what the base was trained at."""
        return Recipe(prompt, mask, seed, self.steps, self.guidance, self.strength, *size, self.mask_guidance)


def check_recipe(recipe: Recipe) -> None:
    """Refuses numbers that cannot work, before anything is loaded.

    Raises:
        MogleError: seed, steps, guidance, strength, mask guidance or size out of range, named as options.
    """
    if not 0 <= recipe.seed < 2**63:
        raise MogleError(f"--seed {recipe.seed}: expected 0 to 2^63 - 1")
    if not 1 <= recipe.steps <= 1000:
        raise MogleError(f"--steps {recipe.steps}: expected 1 to 1000")
    for name in ("guidance", "strength", "mask_guidance"):
        value = getattr(recipe, name)
        if not (math.isfinite(value) and value >= 0):
            raise MogleError(f"--{name.replace('_', '-')} {value}: expected 0 or more")
    for side in (recipe.height, recipe.width):
        if side % 16 or not 0 <= side <= 4096:
            raise MogleError(f"--size {side}: expected a multiple of 16, up to 4096")


def check_writable(folder: Path) -> None:
    """Refuses an output folder that could not be made or written, without making it yet."""
    existing = folder.absolute()
    while not existing.exists():
        existing = existing.parent
    if not existing.is_dir():
        raise MogleError(f"--output-dir {folder}: found a file at {existing}, expected a folder")
    if not os.access(existing, os.W_OK):
        raise MogleError(f"--output-dir {folder}: no permission to write in {existing}")


def sized(recipe: Recipe, pipe: FaceMoGLEPipeline, fit: str | None = None) -> Recipe:
    """The recipe at its final size, its mask brought to that size by nearest neighbour.

    Without a size it is the base's own, in the mask's shape. `fit` ("crop", "pad", "stretch") says what becomes of a
    mask of another shape than the size that was asked for.

    Raises:
        MogleError: a size of another shape than the mask's, without `fit`.

    Warns:
        MogleWarning: the mask is not square: at which size it is drawn.
    """
    side = pipe.default_sample_size * pipe.vae_scale_factor
    height, width = recipe.height or side, recipe.width or side
    if recipe.mask is None:
        return replace(recipe, height=height, width=width)
    if not recipe.height and not same_aspect(recipe.mask.shape, (side, side)) and fit is None:
        rows, columns = recipe.mask.shape
        height, width = nearest_size((rows, columns), 2 * pipe.vae_scale_factor, side**2)
        warnings.warn(
            f"masks of {columns}x{rows} pixels are drawn at {width}x{height}; --size sets another", MogleWarning
        )
        fit = "crop"  # what is left over where no multiple of the unit has quite the mask's shape
    return replace(recipe, height=height, width=width, mask=resize_labels(recipe.mask, (height, width), fit))


def run(pipe: FaceMoGLEPipeline, recipes: Sequence[Recipe], **inputs: Any) -> list[Image.Image]:
    """Pictures of recipes at their final size, made as one batch; they agree in all but prompt, mask and seed.

    ``inputs`` go to the pipeline besides (`condition_tokens` in place of masks).
    """
    import torch

    one = recipes[0]
    if any(recipe.prompt is not None for recipe in recipes):
        inputs["prompt"] = [recipe.prompt for recipe in recipes]
    if any(recipe.mask is not None for recipe in recipes) and "condition_tokens" not in inputs:
        inputs["mask"] = [recipe.mask for recipe in recipes]
    with warnings.catch_warnings():  # what there is to say of a mask was said when it was read
        warnings.filterwarnings("ignore", "mask: ", MogleWarning)
        return pipe(
            **inputs,
            height=one.height,
            width=one.width,
            num_inference_steps=one.steps,
            guidance_scale=one.guidance,
            conditioning_scale=one.strength,
            mask_guidance=one.mask_guidance,
            # on the CPU: the same noise on every device
            generator=[torch.Generator().manual_seed(recipe.seed) for recipe in recipes],
        ).images


def draw(
    pipe: FaceMoGLEPipeline, files: Sequence[Path], recipe_of: Callable[[int], Recipe], origin: Mapping[str, str], *,
    batch: int = 1, share: tuple[int, int] = (0, 1), run: Run = run, title: str = "",
) -> tuple[int, int]:  # fmt: skip
    """Draws `recipe_of(i)`, at its final size, into files[i] -> (pictures drawn, pictures that were there already).

    Of several processes (number, how many) each makes its share. Recipes are asked for when they are needed, so a set
    of any length takes the memory of one batch.

    Raises:
        MogleError: a picture of another recipe or of other weights is in the way.
    """
    from tqdm.auto import tqdm

    mine = range(share[0], len(files), share[1])
    todo = [i for i in mine if not files[i].exists()]
    for i in sorted(set(mine) - set(todo)):
        _check_made(files[i], recipe_of(i), origin)
    pipe.set_progress_bar_config(disable=True)  # one bar for all, not one for each batch
    quiet = share[0] > 0 or not sys.stderr.isatty()
    with tqdm(total=len(mine), initial=len(mine) - len(todo), desc=title, unit=" pictures", disable=quiet) as bar:
        for start in range(0, len(todo), batch):
            chunk = todo[start : start + batch]
            recipes = [recipe_of(i) for i in chunk]
            for i, recipe, picture in zip(chunk, recipes, run(pipe, recipes), strict=True):
                save_picture(files[i], picture, recipe, dict(origin))
            bar.update(len(chunk))
    return len(todo), len(mine) - len(todo)


def draw_dataset(
    pipe: FaceMoGLEPipeline, dataset: FaceDataset, settings: Settings, folder: Path, origin: Mapping[str, str], *,
    size: tuple[int, int] = (0, 0), only: str | None = None, count: int | None = None, share: tuple[int, int] = (0, 1),
    fit: str | None = None,
) -> tuple[int, int]:  # fmt: skip
    """Draws each sample's mask and first caption, or "prompt" or "mask" `only`, as folder/ID.png.

    As in the reference's testing. One at a time: samples may differ in size. Returns and raises what `draw` does.
    """

    def recipe_of(index: int) -> Recipe:
        prompt = None if only == "mask" else dataset.captions(index)[0]
        mask = None if only == "prompt" else dataset.label_map(index)
        return sized(settings.recipe(prompt, mask, seed_of(dataset.ids[index], settings.seed), size), pipe, fit)

    files = [folder / f"{name}.png" for name in dataset.ids[:count]]
    with warnings.catch_warnings():
        warnings.simplefilter("default", MogleWarning)  # once, not for each sample
        return draw(pipe, files, recipe_of, origin, share=share)


def _check_made(path: Path, recipe: Recipe, origin: Mapping[str, str]) -> None:
    _, found, made_by = read_picture(path)
    different = recipe.differences(found) + [key for key in _WEIGHTS if made_by.get(key) != origin.get(key)]
    if different:
        raise MogleError(
            f"{path}: made with another {', '.join(different)}; choose an empty folder, or delete {path.parent}"
        )


def processes(device: str | None) -> tuple[PartialState, str]:
    """This process among those of torchrun or accelerate launch, and the device that it draws on.

    Each has a GPU of its own, unless `device` names one (cuda:1).
    """
    from accelerate import PartialState

    from mogle.checkpoints import pick_device

    state = PartialState(cpu=pick_device(device) == "cpu")
    return state, device if device is not None and ":" in device else str(state.device)
