"""`mogle pretrain` and `mogle data paint`."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer

from mogle.errors import MogleError


def register(app: typer.Typer, data: typer.Typer) -> None:
    """Adds `mogle pretrain`, and `paint` to the group `mogle data`."""
    app.command(epilog="Example: mogle pretrain --out runs/tiny --device cuda")(pretrain)
    data.command(epilog="Example: mogle data paint --set female --out runs/data/female --ids 0-31,64")(paint)


def pretrain(
    out: Annotated[Path, typer.Option(help="Folder for the results of every stage.")],
    settings: Annotated[Path | None, typer.Option(help="YAML like mogle/tiny/settings.yaml.")] = None,
    stages: Annotated[str, typer.Option(help="Comma-separated; all by default.")] = "",
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    workers: Annotated[int | None, typer.Option(help="Processes that paint.")] = None,
    compiled: Annotated[
        bool | None,
        typer.Option(
            "--compiled/--eager",
            help="Compile the models first: minutes once, then twice as fast (where there is a C++ compiler).",
        ),
    ] = None,
    start: Annotated[
        Path | None,
        typer.Option("--from-base", help="Go on from this base: keep its VAE and tokenizers, train the rest further."),
    ] = None,
    trunk: Annotated[
        Path | None, typer.Option(help="Checkpoint of stage base that stage decay starts from (the last one).")
    ] = None,
) -> None:
    """Train the tiny FLUX, the judges and the adapter from painted portraits; hours on two CPU cores."""
    from mogle.tiny import pretrain as stage_module
    from mogle.tiny.loop import keep_memory

    keep_memory(sys.argv[1:])
    chosen = tuple(stages.split(",")) if stages else stage_module.STAGES
    unknown = [stage for stage in chosen if stage not in stage_module.STAGES]
    if unknown:
        raise MogleError(f"--stages: found {', '.join(unknown)}; expected some of {', '.join(stage_module.STAGES)}")
    shop = stage_module.Workshop(
        out,
        stage_module.load_settings(settings),
        device=device,
        workers=workers,
        compile_model=shutil.which(os.environ.get("CXX", "g++")) is not None if compiled is None else compiled,
        start=start,
        trunk=trunk,
    )
    stage_module.pretrain(shop, chosen)


def paint(
    out: Annotated[Path, typer.Option(help="Folder to write: face/, mask/, text/, text.json, attributes.json.")],
    which: Annotated[str, typer.Option("--set", help="portraits, female or balanced.")] = "portraits",
    count: Annotated[int, typer.Option(help="How many.")] = 32,
    first: Annotated[int, typer.Option(help="The first id; an id is its portrait's seed.")] = 0,
    ids: Annotated[str | None, typer.Option(help="Instead of count and first: ids such as 0-31,64.")] = None,
    size: Annotated[int, typer.Option(help="Side in pixels.")] = 128,
    workers: Annotated[int | None, typer.Option(help="Processes; by default one for each core.")] = None,
) -> None:
    """Paint portraits with masks, captions and attributes, each from its seed; what is there already is kept."""
    from mogle.tiny.portraits import write_dataset

    for name, value in (("count", count), ("workers", workers)):
        if value is not None and value < 1:
            raise MogleError(f"--{name} {value}: expected at least 1")
    seeds = list(range(first, first + count)) if ids is None else parse_ids(ids)
    write_dataset(out, seeds, size=size, style=which, workers=workers, progress=sys.stderr.isatty())
    typer.echo(f"{len(seeds)} {which} of {size} px in {out}")


def parse_ids(text: str) -> list[int]:
    """`0-31,64` -> the ids 0 to 31 and 64, in that order, each once."""
    ids: dict[int, None] = {}
    for part in text.split(","):
        low, dash, high = part.strip().partition("-")
        if not low.isdigit() or (dash and not high.isdigit()) or (dash and int(high) < int(low)):
            raise MogleError(f"--ids {text}: found {part.strip()!r}, expected ids such as 0-31,64")
        ids |= dict.fromkeys(range(int(low), int(high or low) + 1))
    return list(ids)
