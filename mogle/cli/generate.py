"""`mogle generate`: pictures from masks and sentences, and the same picture again from what it says about itself."""

from __future__ import annotations

import math
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mogle.errors import MogleError

if TYPE_CHECKING:
    from PIL import Image

    from mogle.pipeline import FaceMoGLEPipeline
    from mogle.provenance import Recipe

EXAMPLE = 'Example: mogle generate --mask data/portraits/mask/0.png --prompt "She has blond hair." --seed 7'


def register(app: typer.Typer) -> None:
    """Adds the command to the command line."""
    app.command(epilog=EXAMPLE)(generate)


def generate(
    prompt: Annotated[list[str] | None, typer.Option(help="What the face looks like; repeat for several.")] = None,
    mask: Annotated[list[Path] | None, typer.Option(help="Mask file of the 19 classes; repeat for several.")] = None,
    seed: Annotated[list[int] | None, typer.Option(help="Random seed (0); repeat for several.")] = None,
    steps: Annotated[int | None, typer.Option(help="Denoising steps (28).")] = None,
    size: Annotated[int | None, typer.Option(help="Side in pixels (what the base was trained at).")] = None,
    guidance: Annotated[float | None, typer.Option(help="How strongly the prompt acts (3.5).")] = None,
    strength: Annotated[float | None, typer.Option(help="How strongly the mask acts (1.0); 0 is not at all.")] = None,
    like: Annotated[Path | None, typer.Option(help="Make this generated PNG again, from what it carries.")] = None,
    dataset: Annotated[
        Path | None, typer.Option(help="Draw every sample of this data set, as ID.png; goes on where it stopped.")
    ] = None,
    split: Annotated[str, typer.Option(help="Of the data set: test, train or all.")] = "test",
    count: Annotated[int | None, typer.Option(min=1, help="At most so many samples of the data set.")] = None,
    only: Annotated[str | None, typer.Option(help="Of the data set's samples: prompt or mask, not both.")] = None,
    base: Annotated[str | None, typer.Option(help="FluxPipeline folder or Hub name (the shipped tiny FLUX).")] = None,
    adapter: Annotated[str | None, typer.Option(help="LoRA + MoGLE folder (the shipped one), or none.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps, ... (the best there is).")] = None,
    offload: Annotated[
        str, typer.Option(help="For a small GPU: model (a network at a time) or group (layer by layer, slow).")
    ] = "none",
    output_dir: Annotated[Path, typer.Option(help="Where the PNGs go.")] = Path("outputs"),
) -> None:
    """Make faces from a mask, a sentence, or both.

    Prompts, masks and seeds are paired in order; a single one goes with all of the others. Each PNG carries its recipe.
    """
    from mogle.checkpoints import adapter_folder, base_folder, load_pipeline, origin_of

    if dataset is not None:
        from mogle.cli.bulk import generate_dataset

        if prompt or mask or like:
            raise MogleError("--dataset brings its own masks and captions; found --prompt, --mask or --like beside it")
        if only not in (None, "prompt", "mask"):
            raise MogleError(f"--only {only}: expected prompt or mask")
        if len(seed or []) > 1:
            raise MogleError(f"found {len(seed or [])} --seed, expected one: it is mixed with each sample's id")
        (recipe,) = _recipes([""], None, seed, steps, size, guidance, strength)
        _check(recipe)
        check_writable(output_dir)
        parts = ("prompt", "mask") if only is None else (only,)
        generate_dataset(
            dataset, split, recipe, output_dir, parts=parts, count=count, base=base, adapter=adapter, device=device,
            offload=offload,
        )  # fmt: skip
        return
    original: tuple[Image.Image, dict[str, str]] | None = None
    if like is None:
        recipes = _recipes(prompt, mask, seed, steps, size, guidance, strength)
    else:
        given: dict[str, object] = {"prompt": prompt, "mask": mask, "seed": seed, "steps": steps, "size": size}
        given |= {"guidance": guidance, "strength": strength}
        if surplus := [f"--{name}" for name, value in given.items() if value not in (None, [])]:
            raise MogleError(f"--like takes the recipe from the file; found {', '.join(surplus)} beside it")
        recipes, original = _recipe_of(like)
    for recipe in recipes:
        _check(recipe)
    base_found, adapter_found = base_folder(base), None if adapter == "none" else adapter_folder(adapter)
    if adapter_found is None and any(recipe.mask is not None for recipe in recipes):
        raise MogleError("--adapter none: a mask acts through the adapter alone; leave one of the two out")
    check_writable(output_dir)

    pipe = load_pipeline(base_found, adapter_found, device, offload=offload)
    pipe.set_progress_bar_config(disable=not sys.stderr.isatty())
    recipes = [sized(recipe, pipe) for recipe in recipes]
    origin = origin_of(pipe, base_found, adapter_found)
    if original is not None:
        _compare_origin(original[1], origin)
    # One at a time, so that a picture does not depend on what was made beside it; written when all have succeeded.
    pictures = [run_recipe(pipe, recipe) for recipe in recipes]
    _save(pictures, recipes, origin, output_dir)
    if original is not None:
        typer.echo(_compare_pictures(original[0], pictures[0]))


def _recipes(
    prompts: list[str] | None,
    masks: list[Path] | None,
    seeds: list[int] | None,
    steps: int | None,
    size: int | None,
    guidance: float | None,
    strength: float | None,
) -> list[Recipe]:
    """Pair prompts, masks and seeds; size 0 stands for the base's own until the base is loaded."""
    from mogle.labels import decode_mask
    from mogle.provenance import Recipe

    if not prompts and not masks:
        raise MogleError("found neither --prompt nor --mask, expected at least one of them")
    counts = {"prompt": len(prompts or [None]), "mask": len(masks or [None]), "seed": len(seeds or [0])}  # type: ignore[list-item]
    number = max(counts.values())
    if any(count not in (1, number) for count in counts.values()):
        found = ", ".join(f"{count} --{name}" for name, count in counts.items() if count > 1)
        raise MogleError(f"found {found}; expected equal numbers, or a single one that goes with all")
    side = 0 if size is None else size
    if size is not None and size < 1:
        raise MogleError(f"--size {size}: expected at least 1")

    def each(values: list | None, default: object) -> list:
        values = values or [default]
        return values * (number // len(values))

    labels = {path: decode_mask(path) for path in dict.fromkeys(masks or [])}
    for path, label_map in labels.items():
        if not label_map.any():
            raise MogleError(
                f"{path}: found nothing but background, expected a face; leave the mask out for text alone"
            )
    return [
        Recipe(
            prompt=text,
            mask=None if path is None else labels[path],
            seed=number_,
            steps=28 if steps is None else steps,
            guidance=3.5 if guidance is None else guidance,
            strength=1.0 if strength is None else strength,
            height=side,
            width=side,
        )
        for text, path, number_ in zip(each(prompts, None), each(masks, None), each(seeds, 0), strict=True)
    ]


def _recipe_of(path: Path) -> tuple[list[Recipe], tuple[Image.Image, dict[str, str]]]:
    from mogle.provenance import read_picture

    picture, recipe, origin = read_picture(path)
    return [recipe], (picture, origin)


def _check(recipe: Recipe) -> None:
    """Refuse numbers that cannot work, before anything is loaded."""
    if not 0 <= recipe.seed < 2**63:
        raise MogleError(f"--seed {recipe.seed}: expected 0 to 2^63 - 1")
    if not 1 <= recipe.steps <= 1000:
        raise MogleError(f"--steps {recipe.steps}: expected 1 to 1000")
    for name, value in (("guidance", recipe.guidance), ("strength", recipe.strength)):
        if not (math.isfinite(value) and value >= 0):
            raise MogleError(f"--{name} {value}: expected 0 or more")
    for side in (recipe.height, recipe.width):
        if side % 16 or not 0 <= side <= 4096:
            raise MogleError(f"--size {side}: expected a multiple of 16, up to 4096")


def check_writable(folder: Path) -> None:
    """Refuse an output folder that could not be made or written, without making it yet."""
    existing = folder.absolute()
    while not existing.exists():
        existing = existing.parent
    if not existing.is_dir():
        raise MogleError(f"--output-dir {folder}: found a file at {existing}, expected a folder")
    if not os.access(existing, os.W_OK):
        raise MogleError(f"--output-dir {folder}: no permission to write in {existing}")


def sized(recipe: Recipe, pipe: FaceMoGLEPipeline) -> Recipe:
    """The recipe at its final size, its mask brought to that size by nearest neighbour."""
    from mogle.labels import decode_mask

    side = pipe.default_sample_size * pipe.vae_scale_factor
    height, width = recipe.height or side, recipe.width or side
    mask = None if recipe.mask is None else decode_mask(recipe.mask, size=(height, width))
    return replace(recipe, height=height, width=width, mask=mask)


def run_recipe(pipe: FaceMoGLEPipeline, recipe: Recipe) -> Image.Image:
    """The picture of a recipe at its final size."""
    import torch

    return pipe(
        prompt=recipe.prompt,
        mask=recipe.mask,
        height=recipe.height,
        width=recipe.width,
        num_inference_steps=recipe.steps,
        guidance_scale=recipe.guidance,
        conditioning_scale=recipe.strength,
        generator=torch.Generator().manual_seed(recipe.seed),  # on the CPU: the same noise on every device
    ).images[0]


def _compare_origin(then: dict[str, str], now: dict[str, str]) -> None:
    """Say what differs from when the picture was made; any of it may change the picture."""
    for key in dict.fromkeys([*then, *now]):
        was, is_ = then.get(key, "nothing"), now.get(key, "nothing")
        if was != is_:
            typer.echo(f"note: {key} differs: the picture was made with {was}, this is {is_}", err=True)


def _compare_pictures(then: Image.Image, now: Image.Image) -> str:
    import numpy as np

    before, after = np.asarray(then.convert("RGB"), dtype=int), np.asarray(now.convert("RGB"), dtype=int)
    if before.shape != after.shape:
        return f"a picture of another size: {after.shape[:2]}, was {before.shape[:2]}"
    difference = np.abs(before - after)
    if not difference.any():
        return "the same picture, bit for bit"
    return f"not the same bits: {(difference > 0).mean():.2%} of the values differ, by {difference.max()}/255 at most"


def _save(pictures: list[Image.Image], recipes: list[Recipe], origin: dict[str, str], folder: Path) -> None:
    """Write `0000.png`, `0001.png`, ... from the first free number on, and name each on stdout."""
    from mogle.provenance import save_picture

    taken = [int(path.stem) for path in folder.glob("[0-9]*.png") if path.stem.isdigit()]
    for number, (picture, recipe) in enumerate(zip(pictures, recipes, strict=True), start=max(taken, default=-1) + 1):
        path = folder / f"{number:04d}.png"
        save_picture(path, picture, recipe, origin)
        typer.echo(path)
