"""`mogle pretrain`."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer

from mogle.errors import MogleError


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
