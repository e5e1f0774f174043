"""`mogle generate`: pictures from masks and sentences, and the same picture again from what it says about itself."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mogle.errors import MogleError

if TYPE_CHECKING:
    from PIL import Image

    from mogle.datasets import FaceDataset
    from mogle.pipeline import FaceMoGLEPipeline
    from mogle.provenance import Recipe
    from mogle.sampling import Settings

EXAMPLE = 'Example: mogle generate --mask data/portraits/mask/0.png --prompt "She has blond hair." --seed 7'


def register(app: typer.Typer) -> None:
    """Adds the command to the command line."""
    app.command(epilog=EXAMPLE)(generate)


def generate(
    prompt: Annotated[list[str] | None, typer.Option(help="What the face looks like; repeat for several.")] = None,
    mask: Annotated[list[Path] | None, typer.Option(help="Mask file of the 19 classes; repeat for several.")] = None,
    seed: Annotated[list[int] | None, typer.Option(help="Random seed (0); repeat for several.")] = None,
    steps: Annotated[int | None, typer.Option(help="Denoising steps (28).")] = None,
    size: Annotated[
        str | None, typer.Option(help="Side in pixels, or WxH (the base's own, in the mask's aspect).")
    ] = None,
    labels: Annotated[
        str, typer.Option(help="Whose numbers the masks have: celebamask, bisenet, lapa, farl, segface, one-based.")
    ] = "celebamask",
    fit: Annotated[
        str | None, typer.Option(help="For masks of another shape than --size: crop, pad or stretch.")
    ] = None,
    guidance: Annotated[float | None, typer.Option(help="How strongly the prompt acts (3.5).")] = None,
    strength: Annotated[float | None, typer.Option(help="How strongly the mask acts (1.0); 0 is not at all.")] = None,
    mask_guidance: Annotated[float | None, typer.Option(help="Guidance by the mask at each step (1.0: none).")] = None,
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
    from mogle.labels import check_options
    from mogle.sampling import Settings, check_recipe, check_writable, draw_dataset, processes, sized

    check_options("dataset", labels, fit)
    numbers = {"steps": steps, "guidance": guidance, "strength": strength, "mask_guidance": mask_guidance}
    given = {"prompt": prompt, "mask": mask, "seed": seed, "size": size, **numbers}
    chosen = {name: value for name, value in numbers.items() if value is not None}
    settings = Settings(**chosen, seed=(seed or [0])[0])  # type: ignore[arg-type]
    original = None
    if dataset is not None:
        samples = _samples(dataset, split, only, seed, prompt or mask or like, labels)
        recipes = [settings.recipe("", None, settings.seed, _size(size))]
        needs_mask = only != "prompt"
    elif like is not None:
        original = _like(like, given)
        recipes = [original[1]]
    else:
        recipes = _recipes(prompt, mask, seed, settings, _size(size), labels)
    if dataset is None:
        needs_mask = any(recipe.mask is not None for recipe in recipes)
    for recipe in recipes:
        check_recipe(recipe)
    base_found, adapter_found = base_folder(base), None if adapter == "none" else adapter_folder(adapter)
    if adapter_found is None and needs_mask:
        beside = "prompts alone" if dataset is None else "--only prompt"
        raise MogleError(f"--adapter none: a mask acts through the adapter alone; expected {beside} beside it")
    check_writable(output_dir)

    if dataset is not None:
        state, device = processes(device)
    pipe = load_pipeline(base_found, adapter_found, device, offload=offload)
    origin = origin_of(pipe, base_found, adapter_found)
    if dataset is None:
        _draw(pipe, [sized(recipe, pipe, fit) for recipe in recipes], origin, output_dir, original)
        return
    drawn, kept = draw_dataset(
        pipe, samples, settings, output_dir, origin, size=_size(size), only=only, count=count,
        share=(state.process_index, state.num_processes), fit=fit,
    )  # fmt: skip
    state.wait_for_everyone()
    typer.echo(f"{drawn} pictures drawn, {kept} already there, in {output_dir}")


def _size(text: str | None) -> tuple[int, int]:
    """`256` or `256x128` (width x height) -> (height, width); 0 stands for the base's own until it is loaded."""
    if text is None:
        return 0, 0
    width, cross, height = text.lower().partition("x")
    if not (width.isdecimal() and (height.isdecimal() if cross else True)):
        raise MogleError(f"--size {text}: expected a side or WIDTHxHEIGHT in pixels, such as 128 or 256x128")
    sides = int(height if cross else width), int(width)
    if min(sides) < 1:
        raise MogleError(f"--size {text}: expected at least 1")
    return sides


def _samples(
    root: Path, split: str, only: str | None, seeds: list[int] | None, beside: object, labels: str
) -> FaceDataset:
    from mogle.datasets import FaceDataset

    if beside:
        raise MogleError("--dataset brings its own masks and captions; found --prompt, --mask or --like beside it")
    if only not in (None, "prompt", "mask"):
        raise MogleError(f"--only {only}: expected prompt or mask")
    if len(seeds or []) > 1:
        raise MogleError(f"found {len(seeds or [])} --seed, expected one: it is mixed with each sample's id")
    return FaceDataset(root, split=None if split == "all" else split, labels=labels)


def _like(path: Path, given: Mapping[str, object]) -> tuple[Image.Image, Recipe, dict[str, str]]:
    from mogle.provenance import read_picture

    if surplus := [f"--{name.replace('_', '-')}" for name, value in given.items() if value not in (None, [])]:
        raise MogleError(f"--like takes the recipe from the file; found {', '.join(surplus)} beside it")
    return read_picture(path)


def _recipes(
    prompts: list[str] | None,
    masks: list[Path] | None,
    seeds: list[int] | None,
    settings: Settings,
    size: tuple[int, int],
    order: str,
) -> list[Recipe]:
    """Pair prompts, masks and seeds."""
    from mogle.labels import decode_mask

    if not prompts and not masks:
        raise MogleError("found neither --prompt nor --mask, expected at least one of them")
    lists: dict[str, list] = {"prompt": prompts or [None], "mask": masks or [None], "seed": seeds or [0]}
    number = max(map(len, lists.values()))
    if any(len(values) not in (1, number) for values in lists.values()):
        found = ", ".join(f"{len(values)} --{name}" for name, values in lists.items() if len(values) > 1)
        raise MogleError(f"found {found}; expected equal numbers, or a single one that goes with all")
    labels = {path: decode_mask(path, labels=order) for path in dict.fromkeys(masks or [])}
    for path, label_map in labels.items():
        if not label_map.any():
            raise MogleError(
                f"{path}: found nothing but background, expected a face; leave the mask out for text alone"
            )
    each = [values * (number // len(values)) for values in lists.values()]
    return [settings.recipe(text, labels.get(path), seed, size) for text, path, seed in zip(*each, strict=True)]


def _draw(
    pipe: FaceMoGLEPipeline,
    recipes: list[Recipe],
    origin: dict[str, str],
    folder: Path,
    original: tuple[Image.Image, Recipe, dict[str, str]] | None,
) -> None:
    """Draw all, then write `0000.png`, `0001.png`, ... from the first free number on, and name each on stdout."""
    from mogle.provenance import save_picture
    from mogle.sampling import run

    pipe.set_progress_bar_config(disable=not sys.stderr.isatty())
    if original is not None:
        _compare_origin(original[2], origin)
    # One at a time, so that a picture does not depend on what was made beside it; written when all have succeeded.
    pictures = [run(pipe, [recipe])[0] for recipe in recipes]
    taken = [int(path.stem) for path in folder.glob("[0-9]*.png") if path.stem.isdigit()]
    for number, (picture, recipe) in enumerate(zip(pictures, recipes, strict=True), start=max(taken, default=-1) + 1):
        path = folder / f"{number:04d}.png"
        save_picture(path, picture, recipe, origin)
        typer.echo(path)
    if original is not None:
        typer.echo(_compare_pictures(original[0], pictures[0]))


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
