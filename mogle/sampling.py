"""From recipe to picture, for command line, evaluation and notebooks: one way to size, to draw, to keep, to go on.

Noise belongs to the sample: its seed follows from the run's seed and the sample's id alone. So it matters neither how
many processes share a set, nor in which batches they draw it, nor where an earlier run stopped.
"""

from __future__ import annotations

import hashlib
import math
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from mogle.checkpoints import chosen_dtype, pick_device
from mogle.errors import MogleError, MogleWarning
from mogle.labels import decode_mask, resize_labels
from mogle.pictures import nearest_size, same_aspect
from mogle.provenance import Recipe, read_picture, save_picture

if TYPE_CHECKING:
    from accelerate import PartialState

    from mogle.datasets import FaceDataset
    from mogle.pipeline import FaceMoGLEPipeline

#: Height and width in pixels, 0 for what the base was trained at.
Size = tuple[int, int]
#: Draws recipes that agree in all but prompt, mask and seed: `run`, or a variant of it.
Run = Callable[["FaceMoGLEPipeline", Sequence[Recipe]], list[Image.Image]]
#: What is told after each step of a run: its number from 1, how many there are, and what decodes a preview.
OnStep = Callable[[int, int, Callable[[], list[Image.Image]]], Any]
#: Numbers that a layer makes, fewer are not worth a second thread: 35,000 in a tiny picture, 8 million in one of FLUX.
_TOO_FEW = 2**16
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
    size: Size = (0, 0)
    gate_time: str = "training"

    def recipe(self, prompt: str | None, mask: np.ndarray | None, seed: int, size: Size | None = None) -> Recipe:
        """A recipe with these settings, or at another size."""
        sides = size or self.size
        numbers = self.steps, self.guidance, self.strength, *sides, self.mask_guidance
        return Recipe(prompt, mask, seed, *numbers, self.gate_time)


def paired(
    prompts: Sequence[str], masks: Sequence[Path], seeds: Sequence[int], settings: Settings, labels: str = "celebamask"
) -> list[Recipe]:
    """Prompts, mask files and seeds in order, a single one with all of the others -> recipes, not yet at their size.

    Raises:
        MogleError: neither prompt nor mask, numbers that do not go together, a mask of background alone.
    """
    if not prompts and not masks:
        raise MogleError("found neither --prompt nor --mask, expected at least one of them")
    lists: dict[str, Sequence[Any]] = {"prompt": prompts or [None], "mask": masks or [None], "seed": seeds or [0]}
    number = max(map(len, lists.values()))
    if any(len(values) not in (1, number) for values in lists.values()):
        found = ", ".join(f"{len(values)} --{name}" for name, values in lists.items() if len(values) > 1)
        raise MogleError(f"found {found}; expected equal numbers, or a single one that goes with all")
    maps = {path: decode_mask(path, labels=labels) for path in dict.fromkeys(masks)}
    if empty := [path for path, label_map in maps.items() if not label_map.any()]:
        what = "found nothing but background, expected a face"
        raise MogleError(f"{empty[0]}: {what}; leave the mask out for text alone")
    each = [[*values] * (number // len(values)) for values in lists.values()]
    return [settings.recipe(prompt, maps.get(path), seed) for prompt, path, seed in zip(*each, strict=True)]


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
        if not 0 <= value < math.inf:  # nor NaN
            raise MogleError(f"--{name.replace('_', '-')} {value}: expected 0 or more")
    if recipe.gate_time not in ("training", "reference"):
        raise MogleError(f"--gate-time {recipe.gate_time}: expected training or reference")
    for side in (recipe.height, recipe.width):
        if side % 16 or not 0 <= side <= 4096:
            raise MogleError(f"--size {side}: expected a multiple of 16, up to 4096")


def check_writable(folder: Path) -> None:
    """Refuses an output folder that could not be made or written, without making it yet."""
    existing = next(part for part in (folder.absolute(), *folder.absolute().parents) if part.exists())
    if not existing.is_dir():
        raise MogleError(f"--output-dir {folder}: found a file at {existing}, expected a folder")
    if not os.access(existing, os.W_OK):
        raise MogleError(f"--output-dir {folder}: no permission to write in {existing}")


def sized(recipe: Recipe, pipe: FaceMoGLEPipeline, fit: str | None = None) -> Recipe:
    """The recipe at its final size, its mask brought to that size by nearest neighbour, and in the pipeline's format.

    Without a size it is the base's own, in the mask's shape. `fit` ("crop", "pad", "stretch") says what becomes of a
    mask of another shape than the size that was asked for.

    Raises:
        MogleError: a size of another shape than the mask's, without `fit`.

    Warns:
        MogleWarning: the mask is not square: at which size it is drawn.
    """
    side, mask = pipe.default_sample_size * pipe.vae_scale_factor, recipe.mask
    height, width = recipe.height or side, recipe.width or side
    if mask is not None:
        if not recipe.height and not same_aspect(mask.shape, (side, side)) and fit is None:
            height, width = nearest_size(mask.shape, 2 * pipe.vae_scale_factor, side**2)
            found = f"{mask.shape[1]}x{mask.shape[0]}"
            warnings.warn(f"masks of {found} pixels are drawn at {width}x{height}; --size sets another", MogleWarning)
            fit = "crop"  # what is left over where no multiple of the unit has quite the mask's shape
        mask = resize_labels(mask, (height, width), fit)
    return replace(recipe, height=height, width=width, mask=mask, dtype=chosen_dtype(pipe))


def run(
    pipe: FaceMoGLEPipeline, recipes: Sequence[Recipe], on_step: OnStep | None = None, **inputs: Any
) -> list[Image.Image]:
    """Pictures of recipes at their final size, made as one batch; they agree in all but prompt, mask and seed.

    Args:
        pipe: with an adapter where a recipe has a mask.
        recipes: at their final size, see `sized`.
        on_step: called after each step as `on_step(step, steps, preview)`, with step from 1 to steps; `preview()`
            decodes what the pictures are expected to become, as a list, and costs nothing where it is not called.
            What it raises stops the run there and then and goes on to the caller; `mogle.errors.Cancelled` is meant
            for that. The pictures are those of a run without it, bit for bit.
        **inputs: go to the pipeline besides (`condition_tokens` in place of masks).
    """
    import torch

    one = recipes[0]
    if any(recipe.prompt is not None for recipe in recipes):
        inputs["prompt"] = [recipe.prompt for recipe in recipes]
    if any(recipe.mask is not None for recipe in recipes) and "condition_tokens" not in inputs:
        inputs["mask"] = [recipe.mask for recipe in recipes]
    inputs |= {"height": one.height, "width": one.width, "num_inference_steps": one.steps}
    inputs |= {"guidance_scale": one.guidance, "conditioning_scale": one.strength, "mask_guidance": one.mask_guidance}
    inputs |= {"gate_time": one.gate_time}
    # on the CPU: the same noise on every device
    inputs["generator"] = [torch.Generator().manual_seed(recipe.seed) for recipe in recipes]
    with warnings.catch_warnings():  # what there is to say of a mask was said when it was read
        warnings.filterwarnings("ignore", "mask: ", MogleWarning)
        if "mask" in inputs and len(recipes) == 1:  # by all threads: the pipeline remembers it
            pipe.encode_conditions(inputs["mask"], one.height, one.width)
        with _threads_that_pay(pipe, recipes):
            if on_step is None:
                return pipe(**inputs).images
            with _watched(pipe, on_step, one.height, one.width) as callback:
                return pipe(**inputs, callback_on_step_end=callback).images


@contextmanager
def _threads_that_pay(pipe: FaceMoGLEPipeline, recipes: Sequence[Recipe]) -> Iterator[None]:
    """On a CPU, one thread for pictures so small that two would mostly wait for each other.

    On two cores a tiny picture takes as long with one thread; beside other work, when each thread waits for one that is
    not running, it takes two thirds of the time.
    """
    import torch

    config, before = getattr(getattr(pipe, "transformer", None), "config", None), torch.get_num_threads()
    if config is None or before == 1 or pipe._execution_device.type != "cpu":
        yield
        return
    picture = recipes[0].height * recipes[0].width // (2 * pipe.vae_scale_factor) ** 2
    tokens = len(recipes) * (pipe.max_prompt_tokens + 2 * picture)  # of text, picture and condition
    small = tokens * config.num_attention_heads * config.attention_head_dim <= _TOO_FEW
    torch.set_num_threads(1 if small else before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _watched(pipe: FaceMoGLEPipeline, on_step: OnStep, height: int, width: int) -> Iterator[Callable[..., dict]]:
    """What diffusers calls after each step, while it is listened to what velocity the transformer gives.

    The velocity could be had from the latents before and after, too, but in bfloat16 little is left of a difference.
    """
    import torch

    given: list[torch.Tensor] = []

    def listen(_module: Any, _args: Any, velocity: Any) -> None:
        given[:] = [velocity[0]]

    def callback(_pipe: Any, index: int, _timestep: Any, tensors: dict[str, torch.Tensor]) -> dict[str, Any]:
        latents, velocity, time = tensors["latents"], given[0], pipe.scheduler.sigmas[index + 1].item()

        @torch.no_grad()
        def preview() -> list[Image.Image]:
            clean = latents - time * velocity  # Z_t = Z_0 + t v, from where the step ended
            clean = pipe._unpack_latents(clean, height, width, pipe.vae_scale_factor)
            clean = clean / pipe.vae.config.scaling_factor + pipe.vae.config.shift_factor
            return pipe.image_processor.postprocess(pipe.vae.decode(clean, return_dict=False)[0], output_type="pil")

        on_step(index + 1, pipe.num_timesteps, preview)
        return {}

    handle = pipe.transformer.register_forward_hook(listen)
    try:
        yield callback
    except BaseException:
        pipe.maybe_free_model_hooks()  # as at the end of a run: with offloading the GPU is left empty
        raise
    finally:
        handle.remove()


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
        _, found, made_by = read_picture(files[i])
        different = recipe_of(i).differences(found) + [key for key in _WEIGHTS if made_by.get(key) != origin.get(key)]
        if different:
            what = f"{files[i]}: made with another {', '.join(different)}"
            raise MogleError(f"{what}; choose an empty folder, or delete {files[i].parent}")
    pipe.set_progress_bar_config(disable=True)  # one bar for all, not one for each batch
    quiet = True if share[0] else None  # None: quiet where stderr is no terminal
    with tqdm(total=len(mine), initial=len(mine) - len(todo), desc=title, unit=" pictures", disable=quiet) as bar:
        for chunk in (todo[start : start + batch] for start in range(0, len(todo), batch)):
            recipes = [recipe_of(i) for i in chunk]
            for i, recipe, picture in zip(chunk, recipes, run(pipe, recipes), strict=True):
                save_picture(files[i], picture, recipe, dict(origin))
            bar.update(len(chunk))
    return len(todo), len(mine) - len(todo)


def draw_dataset(
    pipe: FaceMoGLEPipeline, dataset: FaceDataset, settings: Settings, folder: Path, origin: Mapping[str, str], *,
    state: PartialState, only: str | None = None, count: int | None = None, fit: str | None = None,
) -> tuple[int, int]:  # fmt: skip
    """Draws each sample's mask and first caption, or "prompt" or "mask" `only`, as folder/ID.png.

    As in the reference's testing. One at a time: samples may differ in size. Returns and raises what `draw` does, after
    all processes have drawn their share.
    """

    def recipe_of(index: int) -> Recipe:
        prompt = None if only == "mask" else dataset.captions(index)[0]
        mask = None if only == "prompt" else dataset.label_map(index)
        return sized(settings.recipe(prompt, mask, seed_of(dataset.ids[index], settings.seed)), pipe, fit)

    files = [folder / f"{name}.png" for name in dataset.ids[:count]]
    with warnings.catch_warnings():
        warnings.simplefilter("default", MogleWarning)  # once, not for each sample
        done = draw(pipe, files, recipe_of, origin, share=(state.process_index, state.num_processes))
    state.wait_for_everyone()
    return done


def draw_next(
    pipe: FaceMoGLEPipeline, recipes: Sequence[Recipe], folder: Path, origin: Mapping[str, str]
) -> dict[Path, Image.Image]:
    """Draws recipes at their final size into `0000.png`, `0001.png`, ..., from the first free number on.

    One at a time, so that a picture does not depend on what was made beside it; written when all have succeeded.
    """
    pipe.set_progress_bar_config(disable=None)  # that is, where stderr is no terminal
    pictures = [run(pipe, [recipe])[0] for recipe in recipes]
    taken = [int(path.stem) for path in folder.glob("[0-9]*.png") if path.stem.isdigit()]
    made = {folder / f"{number:04d}.png": one for number, one in enumerate(pictures, start=max(taken, default=-1) + 1)}
    for recipe, (path, picture) in zip(recipes, made.items(), strict=True):
        save_picture(path, picture, recipe, dict(origin))
    return made


def compare_pictures(then: Image.Image, now: Image.Image) -> str:
    """Whether two pictures are the same, in words."""
    before, after = np.asarray(then.convert("RGB"), dtype=int), np.asarray(now.convert("RGB"), dtype=int)
    if before.shape != after.shape:
        return f"a picture of another size: {after.shape[:2]}, was {before.shape[:2]}"
    difference = np.abs(before - after)
    if not difference.any():
        return "the same picture, bit for bit"
    return f"not the same bits: {(difference > 0).mean():.2%} of the values differ, by {difference.max()}/255 at most"


def processes(device: str | None) -> tuple[PartialState, str]:
    """This process among those of torchrun or accelerate launch, and the device that it draws on.

    Each has a GPU of its own, unless `device` names one (cuda:1).
    """
    from accelerate import PartialState

    state = PartialState(cpu=pick_device(device) == "cpu")
    return state, device if device is not None and ":" in device else str(state.device)
