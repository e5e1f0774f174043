"""`mogle train` and `mogle pretrain`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mogle.errors import MogleError


def register(app: typer.Typer) -> None:
    """Adds both commands to the command line."""
    app.command(epilog="Example: mogle train --out runs/mine --count 200 --minutes 5")(train)
    app.command(epilog="Example: mogle pretrain --out runs/tiny --device cuda")(pretrain)


def train(
    out: Annotated[Path, typer.Option(help="Folder for the adapter.")],
    data: Annotated[
        Path | None, typer.Option(help="Data set folder (face/, mask/, text/); without it portraits are painted.")
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="How many samples to train on.")] = 200,
    minutes: Annotated[float | None, typer.Option(min=0.01, help="Stop after so many minutes of training.")] = None,
    steps: Annotated[int, typer.Option(min=1)] = 400,
    batch: Annotated[int, typer.Option(min=1)] = 16,
    rank: Annotated[int, typer.Option(min=1, help="LoRA rank.")] = 16,
    optimizer: Annotated[str, typer.Option(help="adamw or prodigy (the reference's).")] = "adamw",
    learning_rate: Annotated[float, typer.Option(min=0.0)] = 1e-3,
    warm_start: Annotated[
        int, typer.Option(min=0, help="Steps in which a new MoGLE first learns to draw outlines; the reference has 0.")
    ] = 150,
    high_noise: Annotated[
        float, typer.Option(min=0, max=1, help="Share of the times that lie near noise; the reference has 0.")
    ] = 0.5,
    base: Annotated[Path | None, typer.Option(help="A FluxPipeline folder.")] = None,
    start: Annotated[Path | None, typer.Option(help="Go on from this adapter instead of a new one.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, ...")] = None,
    seed: Annotated[int, typer.Option()] = 0,
) -> None:
    """Fine-tune Face-MoGLE (MoGLE and LoRA) on a frozen base."""
    from mogle.training.adapter import AdapterConfig, fine_tune

    if optimizer not in ("adamw", "prodigy"):
        raise MogleError(f"--optimizer: found {optimizer!r}; expected adamw or prodigy")
    config = AdapterConfig(
        steps=steps,
        minutes=minutes,
        batch=batch,
        rank=rank,
        optimizer=optimizer,
        learning_rate=learning_rate,
        warm_start=warm_start,
        high_noise=high_noise,
        seed=seed,
    )
    facts = fine_tune(out, config, data=data, count=count, base=base, start=start, device=device)
    typer.echo(f"{facts['steps_done']} steps in {facts['minutes_taken']} min, loss {facts['loss']}; adapter in {out}")


def pretrain(
    out: Annotated[Path, typer.Option(help="Folder for the results of every stage.")],
    settings: Annotated[Path | None, typer.Option(help="YAML like mogle/configs/tiny-flux.yaml.")] = None,
    stages: Annotated[str, typer.Option(help="Comma-separated; all by default.")] = "",
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    workers: Annotated[int | None, typer.Option(help="Processes that paint.")] = None,
    compiled: Annotated[bool, typer.Option(help="Compile the models first: minutes once, then faster steps.")] = False,
    start: Annotated[
        Path | None, typer.Option(help="Go on from this base: keep its VAE and tokenizers, train the rest further.")
    ] = None,
) -> None:
    """Train the tiny FLUX, the judges and the adapter from painted portraits; hours on two CPU cores."""
    from mogle.training import pretrain as stage_module

    chosen = tuple(stages.split(",")) if stages else stage_module.STAGES
    unknown = [stage for stage in chosen if stage not in stage_module.STAGES]
    if unknown:
        raise MogleError(f"--stages: found {', '.join(unknown)}; expected some of {', '.join(stage_module.STAGES)}")
    shop = stage_module.Workshop(
        out,
        stage_module.load_settings(settings),
        device=device,
        workers=workers,
        compile_model=compiled,
        start=start,
    )
    stage_module.pretrain(shop, chosen)
