"""`mogle generate --dataset`: one picture for each sample of a data set, by several processes or GPUs, resumable.

Noise belongs to the sample: its generator is seeded from the run's seed and the id. So it matters neither how many
processes there are nor where an earlier run stopped.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from mogle.errors import MogleError

if TYPE_CHECKING:
    from mogle.provenance import Recipe


def seed_of(name: str, seed: int) -> int:
    """The seed of one sample: the same wherever and whenever it is drawn."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:7], "big")


def generate_dataset(
    root: Path,
    split: str,
    recipe: Recipe,
    output_dir: Path,
    *,
    parts: Sequence[str] = ("prompt", "mask"),
    count: int | None = None,
    base: str | None = None,
    adapter: str | None = None,
    device: str | None = None,
    offload: str = "none",
) -> tuple[int, int]:
    """Draws every sample's mask and first caption (the reference's testing) as `ID.png` -> (drawn, already there).

    `parts` are those of a sample that are used. `recipe` gives steps, guidance, strength, size and the run's seed. A
    picture that is there is kept if it was made from the same recipe.

    Raises:
        MogleError: no such data set, problems in it, or a picture of another recipe in the way.
    """
    from accelerate import PartialState
    from tqdm.auto import tqdm

    from mogle.checkpoints import adapter_folder, base_folder, load_pipeline, origin_of, pick_device
    from mogle.cli.generate import run_recipe, sized
    from mogle.datasets import FaceDataset
    from mogle.provenance import read_picture, save_picture

    dataset = FaceDataset(root, split=None if split == "all" else split)
    state = PartialState(cpu=pick_device(device) == "cpu")
    adapter_found = None if adapter == "none" else adapter_folder(adapter)
    if adapter_found is None and "mask" in parts:
        raise MogleError("--adapter none: a mask acts through the adapter alone; expected --only prompt beside it")
    base_found = base_folder(base)
    own = device if device is not None and ":" in device else str(state.device)  # each process has a GPU of its own
    pipe = load_pipeline(base_found, adapter_found, own, offload=offload)
    pipe.set_progress_bar_config(disable=True)
    origin = origin_of(pipe, base_found, adapter_found)
    rows = range(len(dataset))[:count][state.process_index :: state.num_processes]
    drawn = kept = 0
    for index in tqdm(rows, disable=not (state.is_main_process and sys.stderr.isatty()), unit=" pictures"):
        name = dataset.ids[index]
        wanted = replace(
            recipe,
            prompt=dataset.captions(index)[0] if "prompt" in parts else None,
            mask=dataset.label_map(index) if "mask" in parts else None,
            seed=seed_of(name, recipe.seed),
        )
        wanted = sized(wanted, pipe)
        path = output_dir / f"{name}.png"
        if path.exists():
            _, found, made_by = read_picture(path)
            if not found.same_as(wanted) or made_by.get("adapter_sha256") != origin.get("adapter_sha256"):
                raise MogleError(f"{path}: made from another recipe or adapter; choose another folder")
            kept += 1
            continue
        save_picture(path, run_recipe(pipe, wanted), wanted, origin)
        drawn += 1
    state.wait_for_everyone()
    typer.echo(f"{drawn} pictures drawn, {kept} already there, in {output_dir}")
    return drawn, kept
