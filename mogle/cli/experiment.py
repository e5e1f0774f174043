"""`mogle experiment`: what the released weights would show, ready to run; on any base and adapter."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mogle.errors import MogleError

group = typer.Typer(no_args_is_help=True, help="Experiments that wait for the released weights, and run on any.")


def register(app: typer.Typer) -> None:
    """Adds the group to the command line."""
    _add("gate-time", "Does the gate want t, as in training, or 1000 t, as in the reference's sampling?")
    _add("local-masks", "What do the local masks do, which the reference's own inference leaves empty?")
    app.add_typer(group, name="experiment")


def _add(name: str, question: str) -> None:
    example = f"Example: mogle experiment {name} --n 200 --data data/mmcelebahq --networks paper"

    @group.command(name, help=f"{question} Prints a table with intervals and what follows from it.", epilog=example)
    def run(
        n: Annotated[int, typer.Option("--n", min=2, help="Number of test samples.")] = 100,
        data: Annotated[Path | None, typer.Option(help="Data set folder (portraits are painted).")] = None,
        split: Annotated[str, typer.Option(help="Which part of --data: test, train or all.")] = "test",
        networks: Annotated[
            str, typer.Option(help="tiny: the shipped judges, for portraits; paper: also DINO, CLIP, ..., for photos.")
        ] = "tiny",
        steps: Annotated[int, typer.Option(min=1, max=1000, help="Denoising steps.")] = 28,
        batch: Annotated[int, typer.Option(min=1, help="Pictures made at once.")] = 4,
        tier: Annotated[str | None, typer.Option(help="As for `mogle generate`.")] = None,
        base: Annotated[str | None, typer.Option(help="As for `mogle generate`.")] = None,
        adapter: Annotated[str | None, typer.Option(help="As for `mogle generate`.")] = None,
        device: Annotated[str | None, typer.Option(help="cpu, cuda, ... (the best there is).")] = None,
        out: Annotated[Path | None, typer.Option(help="For pictures and numbers (runs/experiments/NAME).")] = None,
    ) -> None:
        from mogle.checkpoints import JUDGES, chosen_weights, load_chosen, origin_of, shipped
        from mogle.metrics.experiments import experiment
        from mogle.metrics.measure import Instruments
        from mogle.metrics.samples import folder_samples
        from mogle.sampling import Settings, check_writable

        folder = out or Path("runs/experiments") / name
        if networks not in ("tiny", "paper"):
            raise MogleError(f"--networks {networks}: expected tiny or paper")
        held, base_found, adapter_found = chosen_weights(tier, base, adapter)
        if adapter_found is None:
            raise MogleError("--adapter none: a mask acts through the adapter alone; expected a folder")
        check_writable(folder)
        tools = Instruments.load(shipped(JUDGES))
        pipe = load_chosen(held, base_found, adapter_found, device)
        side = pipe.default_sample_size * pipe.vae_scale_factor
        if data is None:
            from mogle.tiny.source import painted_samples

            samples = painted_samples(n, side)
        else:
            samples = folder_samples(data, n, side, split)
        if networks == "paper":
            from dataclasses import replace

            from mogle.metrics.paper import PaperNetworks

            tools = replace(tools, paper=PaperNetworks(str(pipe._execution_device)))
        settings = Settings(steps, batch=batch, origin=origin_of(pipe, base_found, adapter_found))
        typer.echo(experiment(name, pipe, tools, samples, out=folder, settings=settings))
