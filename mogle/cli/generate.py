"""`mogle generate`: pictures from masks and sentences, and the same picture again from what it says about itself."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from typer import Option, Typer, echo

from mogle.errors import MogleError

EXAMPLE = 'Example: mogle generate --mask data/portraits/mask/0.png --prompt "She has blond hair." --seed 7'


def register(app: Typer) -> None:
    """Adds the command to the command line."""
    app.command(epilog=EXAMPLE)(generate)


def generate(
    prompt: Annotated[list[str] | None, Option(help="What the face looks like; repeat for several.")] = None,
    mask: Annotated[list[Path] | None, Option(help="Mask file of the 19 classes; repeat for several.")] = None,
    seed: Annotated[list[int] | None, Option(help="Random seed (0); repeat for several.")] = None,
    steps: Annotated[int | None, Option(help="Denoising steps (28).")] = None,
    size: Annotated[str | None, Option(help="Side in pixels, or WxH (the base's own, in the mask's aspect).")] = None,
    labels: Annotated[
        str, Option(help="Whose numbers the masks have: celebamask, bisenet, lapa, farl, segface, one-based.")
    ] = "celebamask",
    fit: Annotated[str | None, Option(help="For masks of another shape than --size: crop, pad or stretch.")] = None,
    guidance: Annotated[float | None, Option(help="How strongly the prompt acts (3.5).")] = None,
    strength: Annotated[float | None, Option(help="How strongly the mask acts (1.0); 0 is not at all.")] = None,
    mask_guidance: Annotated[float | None, Option(help="Guidance by the mask at each step (1.0: none).")] = None,
    like: Annotated[Path | None, Option(help="Make this generated PNG again, from what it carries.")] = None,
    dataset: Annotated[
        Path | None, Option(help="Draw every sample of this data set, as ID.png; goes on where it stopped.")
    ] = None,
    split: Annotated[str, Option(help="Of the data set: test, train or all.")] = "test",
    count: Annotated[int | None, Option(min=1, help="At most so many samples of the data set.")] = None,
    only: Annotated[str | None, Option(help="Of the data set's samples: prompt or mask, not both.")] = None,
    gate_time: Annotated[
        str | None, Option(help="The gate's time: training (t, the default) or reference (1000 t, as its own sampler).")
    ] = None,
    tier: Annotated[
        str | None,
        Option(help="t4, l4, a100, h100 or tiny (the largest that fits and whose weights are here, else tiny)."),
    ] = None,
    base: Annotated[str | None, Option(help="FluxPipeline folder or Hub name (the tier's, or the tiny FLUX).")] = None,
    adapter: Annotated[str | None, Option(help="LoRA + MoGLE folder (the base's own), or none.")] = None,
    device: Annotated[str | None, Option(help="cpu, cuda, cuda:1, mps, ... (the best there is).")] = None,
    dtype: Annotated[
        str | None, Option(help="Number format: float32, bfloat16 or float16 (the device's own; a CPU's is float32).")
    ] = None,
    offload: Annotated[
        str, Option(help="For a small GPU: model (a network at a time) or group (layer by layer, slow).")
    ] = "none",
    output_dir: Annotated[Path, Option(help="Where the PNGs go.")] = Path("outputs"),
) -> None:
    """Make faces from a mask, a sentence, or both.

    Prompts, masks and seeds are paired in order; a single one goes with all of the others. Each PNG carries its recipe.
    """
    from mogle import sampling
    from mogle.checkpoints import chosen_weights, load_chosen, origin_of
    from mogle.datasets import FaceDataset
    from mogle.labels import check_options
    from mogle.provenance import read_picture

    check_options("dataset", labels, fit)
    numbers: dict[str, Any] = {"steps": steps, "guidance": guidance, "strength": strength}
    numbers |= {"mask_guidance": mask_guidance, "gate_time": gate_time}
    chosen: dict[str, Any] = {name: value for name, value in numbers.items() if value is not None}
    settings = sampling.Settings(**chosen, seed=(seed or [0])[0], size=_sides(size))
    samples = original = None
    if dataset is not None:
        if prompt or mask or like:
            raise MogleError("--dataset brings its own masks and captions; found --prompt, --mask or --like beside it")
        if only not in (None, "prompt", "mask"):
            raise MogleError(f"--only {only}: expected prompt or mask")
        if seed and len(seed) > 1:
            raise MogleError(f"found {len(seed)} --seed, expected one: it is mixed with each sample's id")
        samples = FaceDataset(dataset, split=None if split == "all" else split, labels=labels)
        recipes = [settings.recipe("", None, settings.seed)]  # stands for all where numbers are checked
    elif like is not None:
        given = {"prompt": prompt, "mask": mask, "seed": seed, "size": size, "dtype": dtype, **numbers}
        if surplus := [f"--{name.replace('_', '-')}" for name, value in given.items() if value not in (None, [])]:
            raise MogleError(f"--like takes the recipe from the file; found {', '.join(surplus)} beside it")
        original = read_picture(like)
        recipes, dtype = [original[1]], original[1].dtype or None
    else:
        recipes = sampling.paired(prompt or [], mask or [], seed or [], settings, labels)
    for recipe in recipes:
        sampling.check_recipe(recipe)
    held, base_found, adapter_found = chosen_weights(tier, base, adapter, own=like is None)
    needs_mask = any(recipe.mask is not None for recipe in recipes) if samples is None else only != "prompt"
    if adapter_found is None and needs_mask:
        beside = "prompts alone" if samples is None else "--only prompt"
        raise MogleError(f"--adapter none: a mask acts through the adapter alone; expected {beside} beside it")
    sampling.check_writable(output_dir)

    if samples is not None:
        state, device = sampling.processes(device)
    texts = [one.prompt or "" for one in recipes]
    if samples is not None and only != "mask":
        texts = [samples.captions(i)[0] for i in range(len(samples.ids[:count]))]
    pipe = load_chosen(held, base_found, adapter_found, device, dtype, offload, texts)
    origin = origin_of(pipe, base_found, adapter_found)
    if samples is not None:
        drawn, kept = sampling.draw_dataset(
            pipe, samples, settings, output_dir, origin, state=state, only=only, count=count, fit=fit
        )
        echo(f"{drawn} pictures drawn, {kept} already there, in {output_dir}")
        return
    recipes = [sampling.sized(recipe, pipe, fit) for recipe in recipes]
    if original is not None:
        _note_differences(original[2], origin)
    made = sampling.draw_next(pipe, recipes, output_dir, origin)
    for path in made:
        echo(path)
    if original is not None:
        echo(sampling.compare_pictures(original[0], *made.values()))


def _sides(text: str | None) -> tuple[int, int]:
    """`256` or `256x128` (width x height) -> (height, width); 0 stands for the base's own until it is loaded."""
    if text is None:
        return 0, 0
    sides = text.lower().split("x")
    if len(sides) > 2 or not all(side.isdecimal() and int(side) for side in sides):
        found = f"--size {text}: expected a side or WIDTHxHEIGHT in pixels"
        raise MogleError(f"{found}, each at least 1, such as 128 or 256x128")
    return int(sides[-1]), int(sides[0])


def _note_differences(then: dict[str, str], now: dict[str, str]) -> None:
    """Say what differs from when the picture was made; any of it may change the picture."""
    for key in dict.fromkeys([*then, *now]):
        was, is_ = then.get(key, "nothing"), now.get(key, "nothing")
        if was != is_:
            echo(f"note: {key} differs: the picture was made with {was}, this is {is_}", err=True)
