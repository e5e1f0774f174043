"""`mogle train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Adds the command to the command line."""
    app.command(epilog="Example: mogle train --out runs/mine --count 200 --minutes 5 rank=8")(train)


def train(
    settings: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME=VALUE]...", help="Any field, such as rank=8 variant=no-gate.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for the adapter; a run that was cut off there goes on.")] = Path(
        "runs/adapter"
    ),
    config: Annotated[str, typer.Option(help="Packaged settings (tiny, reference, ...) or a YAML file.")] = "tiny",
    data: Annotated[
        Path | None,
        typer.Option(
            help="Data set folder (face/, mask/, text/), or hf:NAME to stream one; else portraits are painted."
        ),
    ] = None,
    count: Annotated[int | None, typer.Option(min=1, help="How many samples to train on.")] = None,
    minutes: Annotated[float | None, typer.Option(min=0.01, help="Stop after so many minutes of training.")] = None,
    base: Annotated[str | None, typer.Option(help="A FluxPipeline folder or Hub name.")] = None,
    start: Annotated[
        Path | None,
        # torchrun would take --start for an abbreviation of its own --start-method
        typer.Option("--from-adapter", help="Go on from this adapter instead of a new one."),
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, ...")] = None,
    cache: Annotated[Path, typer.Option(help="Where encoded data sets are kept.")] = Path("runs/cache"),
    skip_bad: Annotated[bool, typer.Option(help="Leave damaged samples out, and say how many.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be trained and what it takes.")] = False,
) -> None:
    """Fine-tune Face-MoGLE (MoGLE and LoRA) on a frozen base."""
    from mogle.training.settings import load_train_settings

    given = {"data": data, "count": count, "minutes": minutes, "base": base}
    options = [f"{name}={value}" for name, value in given.items() if value is not None]
    chosen = load_train_settings(config, [*options, *(settings or [])])

    if dry_run:
        from mogle.training.plan import describe

        typer.echo(describe(chosen, device=device, skip_bad=skip_bad))
        return
    from mogle.training.finetune import fine_tune

    facts = fine_tune(out, chosen, start=start, device=device, cache=cache, skip_bad=skip_bad)
    left_out = f", {facts['skipped']} bad samples left out" if facts["skipped"] else ""
    if facts["stopped"] == "signal":
        said = f"stopped after {facts['steps']} steps; the same command goes on from there"
    else:
        said = f"{facts['steps']} steps in {facts['minutes']} min, loss {facts['loss']:.4f}; adapter in {out}"
    typer.echo(said + left_out)
