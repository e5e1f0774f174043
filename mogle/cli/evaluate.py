"""`mogle evaluate`: do pictures follow mask and sentence? Tables over test portraits, or masks of your own."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mogle.errors import MogleError

if TYPE_CHECKING:
    import numpy as np

    from mogle.metrics.rows import Row
    from mogle.metrics.samples import Samples

EXAMPLE = (
    "Examples: mogle evaluate --n 50 --rows real,reconstruction,text+mask --out runs/eval; "
    'mogle evaluate --masks my-mask.png --prompt "She has blond hair." --seeds 0,1,2'
)


def register(app: typer.Typer) -> None:
    """Adds the command to the command line."""
    app.command(epilog=EXAMPLE)(evaluate)
    app.command(epilog="Example: mogle compare runs/eval runs/eval-scalar")(compare)


def evaluate(
    n: Annotated[int, typer.Option("--n", min=2, help="Number of test samples.")] = 500,
    few: Annotated[int, typer.Option(min=2, help="Samples of the rows that only show an effect.")] = 200,
    rows: Annotated[str | None, typer.Option(help="Rows of the table, with commas between (all of them).")] = None,
    data: Annotated[Path | None, typer.Option(help="Data set folder (portraits are painted).")] = None,
    split: Annotated[str, typer.Option(help="Which part of --data: test, train or all.")] = "test",
    pictures: Annotated[Path | None, typer.Option(help="Measure these instead, named after the samples.")] = None,
    masks: Annotated[list[Path] | None, typer.Option(help="Judge these mask files instead; repeatable.")] = None,
    prompt: Annotated[list[str] | None, typer.Option(help="Prompts for --masks; repeatable (none).")] = None,
    seeds: Annotated[str, typer.Option(help="Seeds for --masks, with commas between.")] = "0,1,2",
    labels: Annotated[
        str, typer.Option(help="Whose numbers the masks have: celebamask, bisenet, lapa, farl, segface, one-based.")
    ] = "celebamask",
    fit: Annotated[str | None, typer.Option(help="For samples or masks of another shape: crop, pad, stretch.")] = None,
    steps: Annotated[int, typer.Option(min=1, max=1000, help="Denoising steps.")] = 28,
    guidance: Annotated[float, typer.Option(min=0, help="How strongly the prompt acts.")] = 3.5,
    strength: Annotated[float, typer.Option(min=0, help="How strongly the mask acts.")] = 1.0,
    mask_guidance: Annotated[float, typer.Option(min=0, help="Guidance by the mask at each step; 1: none.")] = 1.0,
    batch: Annotated[int, typer.Option(min=1, help="Pictures made at once.")] = 16,
    base: Annotated[str | None, typer.Option(help="FluxPipeline folder or Hub name (the shipped tiny FLUX).")] = None,
    adapter: Annotated[str | None, typer.Option(help="LoRA + MoGLE folder (the shipped one).")] = None,
    judges: Annotated[Path | None, typer.Option(help="Folder of the judges (the shipped ones).")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps, ... (the best there is).")] = None,
    networks: Annotated[
        str, typer.Option(help="tiny: the shipped judges; paper: also Inception, CLIP, DINO, ImageReward (downloaded).")
    ] = "tiny",
    out: Annotated[Path, typer.Option(help="For pictures, results.json, table.md, gallery.png.")] = Path("runs/eval"),
) -> None:
    """Generate pictures for test portraits and measure them: mask accuracy, attributes, KID, and ablations of MoGLE.

    Run again with the same --out, it goes on where it stopped; under torchrun or accelerate launch several processes or
    GPUs share the sampling. Rows: real, reconstruction, text+mask, text, mask,
    swapped (captions of other portraits), no-local (local masks emptied), scalar-gate (gate averaged over tokens),
    female and balanced (masks and captions of shifted sets), ablation-NAME for each in checkpoints/ablations, and
    ablation-NAME-emptied for some of them; and, where it is named, guided-W: text and mask with mask guidance W.
    """
    from mogle.checkpoints import JUDGES, adapter_folder, base_folder, load_pipeline, origin_of, shipped
    from mogle.labels import check_options
    from mogle.metrics.evaluate import evaluate as run
    from mogle.metrics.evaluate import judge_masks, judge_pictures
    from mogle.metrics.measure import Instruments
    from mogle.metrics.samples import folder_samples
    from mogle.sampling import Settings, check_writable, processes

    chosen = _chosen_rows(rows, with_ablations=not (adapter or data or pictures or masks), painted=data is None)
    if networks not in ("tiny", "paper"):
        raise MogleError(f"--networks {networks}: expected tiny or paper")
    if networks == "paper" and (pictures or masks):
        raise MogleError("--networks paper measures rows of the table; expected no --pictures or --masks beside it")
    if pictures and (masks or rows):
        raise MogleError("--pictures measures what is there; expected neither --masks nor --rows beside it")
    if prompt and not masks:
        raise MogleError("--prompt goes with --masks; test samples bring their own captions")
    if not re.fullmatch(r"\d+(,\d+)*", seeds.replace(" ", "")):
        raise MogleError(f"--seeds {seeds}: expected whole numbers from 0 on with commas between, such as 0,1,2")
    check_options("dataset", labels, fit)
    label_maps = _read_masks(masks or [], labels)
    base_found, adapter_found = base_folder(base), adapter_folder(adapter)
    tools = Instruments.load(judges or shipped(JUDGES))
    check_writable(out)

    def samples(side: int, style: str = "portraits", count: int = n) -> Samples:
        if data is not None:
            return folder_samples(data, count, side, split, labels=labels, fit=fit)
        from mogle.tiny.source import painted_samples

        return painted_samples(count, side, style)

    if pictures:
        judge_pictures(pictures, tools, samples(tools.record["size"]), out=out)
        _say(out)
        return
    state, own = processes(device)
    pipe = load_pipeline(base_found, adapter_found, own)
    origin = origin_of(pipe, base_found, adapter_found)
    settings = Settings(steps, guidance, strength, batch, origin, mask_guidance)
    if label_maps:
        line = "{mask}  seed {seed}  pixel accuracy {pixel_accuracy:.3f}  mIoU {mean_iou:.3f}  {prompt}"
        cases: tuple[Any, list[int]] = prompt or [None], [int(seed) for seed in seeds.split(",")]
        for one in judge_masks(pipe, tools.judges.parser, label_maps, *cases, out=out, settings=settings, fit=fit):
            typer.echo(line.format(**one | {"prompt": one["prompt"] or ""}))
        typer.echo(f"{out / 'masks.png'}: mask, picture, parsed")
        return
    side = pipe.default_sample_size * pipe.vae_scale_factor
    shifted = {row.style for row in chosen.values()} - {"portraits"}
    sets = {"portraits": samples(side)} | {style: samples(side, style, min(n, few)) for style in shifted}
    if networks == "paper" and state.is_main_process:  # which alone measures
        from mogle.metrics.paper import PaperNetworks

        tools = replace(tools, paper=PaperNetworks(str(pipe._execution_device)))
    run(pipe, tools, sets, out=out, rows=chosen, few=few, settings=settings, state=state)
    if state.is_main_process:
        _say(out)
    state.wait_for_everyone()


def _chosen_rows(rows: str | None, with_ablations: bool, painted: bool) -> dict[str, Row]:
    """The rows asked for, or all that can be had: shifted sets are painted, so they do not go with --data."""
    from mogle.metrics.rows import ROWS, guided, shipped_ablations

    known = {**ROWS, **(shipped_ablations() if with_ablations else {})}
    shifted = [] if painted else [name for name, row in known.items() if row.style != "portraits"]
    if rows is None:
        return {name: row for name, row in known.items() if name not in shifted}
    chosen = [name.strip() for name in rows.split(",") if name.strip()]
    for name in chosen:
        if found := re.fullmatch(r"guided-(\d+(?:\.\d+)?)", name):
            known[name] = guided(float(found[1]))
    unknown = [name for name in chosen if name not in known]
    if unknown or not chosen:
        raise MogleError(f"--rows {', '.join(unknown)}: expected some of {', '.join(known)}, guided-WEIGHT")
    if absent := [name for name in chosen if name in shifted]:
        raise MogleError(f"--rows {', '.join(absent)}: these are painted sets; expected no --data beside them")
    return {name: known[name] for name in chosen}


def _say(out: Path) -> None:
    typer.echo((out / "table.md").read_text())
    typer.echo(f"{out / 'index.html'}: everything on one page; table.md, results.json and gallery.png beside it")


def compare(
    first: Annotated[Path, typer.Argument(help="The --out of one evaluation.")],
    others: Annotated[list[Path], typer.Argument(help="Those of others, of the same samples.")],
) -> None:
    """Hold evaluations against the first of them, picture by picture: differences with their intervals."""
    from mogle.metrics.report import compare as table

    typer.echo(table(first, *others))


def _read_masks(paths: list[Path], order: str) -> dict[str, np.ndarray]:
    from mogle.labels import decode_mask

    masks = {path.stem: decode_mask(path, labels=order) for path in paths}
    if len(masks) < len(paths):
        raise MogleError(f"{', '.join(map(str, paths))}: two masks of one name; rename one, results are listed by name")
    if empty := [path for path in paths if not masks[path.stem].any()]:
        raise MogleError(f"{empty[0]}: found nothing but background, expected a face")
    return masks
