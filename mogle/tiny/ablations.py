"""The paper's ablations, and a fast variant that it does not have, each trained by configuration alone.

    torchrun --nproc-per-node 2 -m mogle.tiny.ablations --out checkpoints/ablations --steps 400

All have the same base, portraits, seed and number of steps; `full` is the method itself with that budget, so that the
others have something fair to be held against.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path

from mogle.errors import MogleError
from mogle.tiny.loop import main_process

#: Name -> fields of `TrainSettings` that differ from the method's. Its row in tables stands in mogle/metrics/rows.toml.
ABLATIONS: dict[str, tuple[str, ...]] = {
    "full": (),
    "only-global": ("variant=only-global",),
    "only-local": ("variant=only-local",),
    "no-latents": ("variant=no-latents",),
    "scalar-gate": ("variant=scalar-gate",),
    "no-gate": ("variant=no-gate",),
    "no-experts": ("variant=no-experts",),
    "neither": ("variant=neither",),
    "fast": ("attention=independent", "variant=places"),
}


def train_ablations(
    out: str | Path, names: Sequence[str], overrides: Sequence[str], *, count: int, first_seed: int, cache: str | Path
) -> None:
    """Trains the named ablations one after another; one whose adapter is there already is not trained again.

    Raises:
        MogleError: an unknown name, or what training raises.
    """
    from accelerate import PartialState

    from mogle.checkpoints import base_folder
    from mogle.tiny.portraits import full_caption, paint_many
    from mogle.tiny.source import PaintedSource
    from mogle.training.finetune import base_size, train_on
    from mogle.training.settings import load_train_settings

    if unknown := [name for name in names if name not in ABLATIONS]:
        raise MogleError(f"{', '.join(unknown)}: no such ablation; expected some of {', '.join(ABLATIONS)}")
    base = base_folder(None)
    side, _ = base_size(base, load_train_settings("tiny"))
    images, masks, attributes, captions = paint_many(range(first_seed, first_seed + count), size=side)
    texts = [[*group, full_caption(known)] for group, known in zip(captions, attributes, strict=True)]
    source = PaintedSource(images, masks, texts, first_seed)
    # asked before the first of them: no process sees what another has just finished
    todo = [name for name in names if not Path(out, name, "mogle.safetensors").exists()]
    for name in todo:
        folder = Path(out, name)
        settings = load_train_settings("tiny", [*overrides, *ABLATIONS[name]])
        work = folder.with_name(f"{name}.part")
        facts = train_on(source, work, settings, base, "cpu", cache)
        if main_process():
            folder.mkdir(parents=True, exist_ok=True)
            for file in work.glob("*.safetensors"):
                shutil.copy(file, folder / file.name)
            shutil.rmtree(work)
            print(f"{name}: {facts['steps']} steps, loss {facts['loss']:.4f}, {facts['minutes']} min", flush=True)
    PartialState().destroy_process_group()


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line of `train_ablations`."""
    parser = argparse.ArgumentParser(prog="python -m mogle.tiny.ablations", description=__doc__.split("\n")[0])
    parser.add_argument("--out", default="checkpoints/ablations")
    parser.add_argument("--names", default=",".join(ABLATIONS), help="with commas between (all)")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--rank", type=int, default=4)
    parser.add_argument("--count", type=int, default=3000, help="portraits")
    parser.add_argument("--first-seed", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=4)
    parser.add_argument("--cache", default="runs/cache")
    options = parser.parse_args(arguments)
    overrides = [f"steps={options.steps}", f"rank={options.rank}", f"seed={options.seed}"]
    train_ablations(
        options.out,
        options.names.split(","),
        overrides,
        count=options.count,
        first_seed=options.first_seed,
        cache=options.cache,
    )


if __name__ == "__main__":
    main()
