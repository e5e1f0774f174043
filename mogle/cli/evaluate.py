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

    from mogle.metrics.judges import FaceParser
    from mogle.metrics.rows import Row
    from mogle.pipeline import FaceMoGLEPipeline
    from mogle.sampling import Settings

EXAMPLE = (
    "Examples: mogle evaluate --n 50 --rows real,reconstruction,text+mask --out runs/eval; "
    'mogle evaluate --masks my-mask.png --prompt "She has blond hair." --seeds 0,1,2'
)
#: Ablations that are also sampled as the reference's inference does it by mistake, with all local masks black.
EMPTIED = ("only-local", "scalar-gate")


def register(app: typer.Typer) -> None:
    """Adds the command to the command line."""
    app.command(epilog=EXAMPLE)(evaluate)
    app.command(epilog="Example: mogle compare runs/eval runs/eval-scalar")(compare)


def evaluate(
    n: Annotated[int, typer.Option("--n", help="Number of test samples.")] = 500,
    few: Annotated[int, typer.Option(min=2, help="Samples of the rows that only show an effect.")] = 200,
    rows: Annotated[str | None, typer.Option(help="Rows of the table, with commas between (all of them).")] = None,
    data: Annotated[Path | None, typer.Option(help="Data set folder (portraits are painted).")] = None,
    split: Annotated[str, typer.Option(help="Which part of --data: test, train or all.")] = "test",
    pictures: Annotated[
        Path | None,
        typer.Option(help="Measure this folder's pictures, named after the samples, instead of making any."),
    ] = None,
    masks: Annotated[list[Path] | None, typer.Option(help="Judge these mask files instead; repeatable.")] = None,
    prompt: Annotated[list[str] | None, typer.Option(help="Prompts for --masks; repeatable (none).")] = None,
    seeds: Annotated[str, typer.Option(help="Seeds for --masks, with commas between.")] = "0,1,2",
    labels: Annotated[
        str, typer.Option(help="Whose numbers the masks have: celebamask, bisenet, lapa, farl, segface, one-based.")
    ] = "celebamask",
    fit: Annotated[
        str | None, typer.Option(help="For samples and masks of another shape: crop, pad or stretch.")
    ] = None,
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
    out: Annotated[Path, typer.Option(help="Where pictures, results.json, table.md and gallery.png go.")] = Path(
        "runs/eval"
    ),
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
    from mogle.metrics.evaluate import judge_pictures
    from mogle.metrics.measure import Instruments
    from mogle.metrics.paper import PaperNetworks
    from mogle.metrics.rows import ROWS
    from mogle.metrics.samples import sample_set
    from mogle.sampling import Settings, check_writable, processes

    known = {**ROWS, **(_ablations() if not (adapter or data or pictures or masks) else {})}
    chosen = _chosen_rows(rows, known, painted=data is None)
    if pictures and (masks or rows):
        raise MogleError("--pictures measures what is there; expected neither --masks nor --rows beside it")
    if networks not in ("tiny", "paper"):
        raise MogleError(f"--networks {networks}: expected tiny or paper")
    if networks == "paper" and (pictures or masks):
        raise MogleError(
            "--networks paper measures rows of the table; expected neither --pictures nor --masks beside it"
        )
    if prompt and not masks:
        raise MogleError("--prompt goes with --masks; test samples bring their own captions")
    if n < 2:
        raise MogleError(f"--n {n}: expected at least 2")
    check_options("dataset", labels, fit)
    label_maps, numbers = _read_masks(masks or [], labels), _numbers(seeds)
    reading: dict[str, Any] = {"labels": labels, "fit": fit}
    base_found, adapter_found = base_folder(base), adapter_folder(adapter)
    tools = Instruments.load(judges or shipped(JUDGES))
    check_writable(out)

    if pictures:
        judge_pictures(pictures, tools, sample_set(data, n, tools.record["size"], split, **reading), out=out)
        _say(out)
        return
    state, own = processes(device)
    pipe = load_pipeline(base_found, adapter_found, own)
    origin = origin_of(pipe, base_found, adapter_found)
    settings = Settings(steps, guidance, strength, batch, origin, mask_guidance)
    if label_maps:
        _judge_masks(pipe, tools.judges.parser, label_maps, prompt, numbers, out, settings, fit)
        return
    side = pipe.default_sample_size * pipe.vae_scale_factor
    sets = {"portraits": sample_set(data, n, side, split, **reading)}
    for style in {row.style for row in chosen.values()} - sets.keys():
        sets[style] = sample_set(None, min(n, few), side, split, style)
    if networks == "paper" and state.is_main_process:  # which alone measures
        tools = replace(tools, paper=PaperNetworks(str(pipe._execution_device)))
    share = state if state.num_processes > 1 else None
    run(pipe, tools, sets, out=out, rows=chosen, few=few, settings=settings, state=share)
    if state.is_main_process:
        _say(out)
    state.wait_for_everyone()


def _chosen_rows(rows: str | None, known: dict[str, Row], painted: bool) -> dict[str, Row]:
    """The rows asked for, or all that can be had: shifted sets are painted, so they do not go with --data."""
    from mogle.metrics.rows import guided

    shifted = [] if painted else [name for name, row in known.items() if row.style != "portraits"]
    if rows is None:
        return {name: row for name, row in known.items() if name not in shifted}
    chosen = [name.strip() for name in rows.split(",") if name.strip()]
    weights = {name: re.fullmatch(r"guided-(\d+(?:\.\d+)?)", name) for name in chosen}
    known = {**known, **{name: guided(float(found[1])) for name, found in weights.items() if found}}
    unknown = [name for name in chosen if name not in known]
    if unknown or not chosen:
        raise MogleError(f"--rows {', '.join(unknown)}: expected some of {', '.join(known)}, guided-WEIGHT")
    if absent := [name for name in chosen if name in shifted]:
        raise MogleError(f"--rows {', '.join(absent)}: these are painted sets; expected no --data beside them")
    return {name: known[name] for name in chosen}


def _ablations() -> dict[str, Row]:
    """A row for each adapter in checkpoints/ablations, and a second one for some of them."""
    from mogle.checkpoints import shipped
    from mogle.metrics.rows import ablation
    from mogle.tiny.ablations import TITLES

    try:
        folders = {path.name: path for path in sorted(shipped("ablations").iterdir()) if path.is_dir()}
    except MogleError:  # none are shipped
        return {}
    rows = {f"ablation-{name}": ablation(TITLES[name], folders[name]) for name in TITLES if name in folders}
    for name in EMPTIED:
        if name in folders:
            title = f"{TITLES[name]}, local masks emptied"
            rows[f"ablation-{name}-emptied"] = ablation(title, folders[name], without="locals")
    return rows


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


def _numbers(seeds: str) -> list[int]:
    try:
        numbers = [int(part) for part in seeds.split(",")]
    except ValueError:
        raise MogleError(f"--seeds {seeds}: expected whole numbers with commas between, such as 0,1,2") from None
    if min(numbers) < 0:
        raise MogleError(f"--seeds {seeds}: expected 0 or more")
    return numbers


def _read_masks(paths: list[Path], order: str) -> dict[str, np.ndarray]:
    from mogle.labels import decode_mask

    labels: dict[str, np.ndarray] = {}
    for path in paths:
        if path.stem in labels:
            raise MogleError(f"{path}: two masks of the name {path.stem!r}; rename one, results are listed by name")
        labels[path.stem] = decode_mask(path, labels=order)
        if not labels[path.stem].any():
            raise MogleError(f"{path}: found nothing but background, expected a face")
    return labels


def _judge_masks(
    pipe: FaceMoGLEPipeline,
    parser: FaceParser,
    labels: dict[str, np.ndarray],
    prompts: list[str] | None,
    seeds: list[int],
    out: Path,
    settings: Settings,
    fit: str | None,
) -> None:
    from mogle.metrics.evaluate import judge_masks
    from mogle.sampling import sized

    recipes = {name: sized(settings.recipe(None, label_map, 0), pipe, fit) for name, label_map in labels.items()}
    masks = {name: recipe.mask for name, recipe in recipes.items() if recipe.mask is not None}
    for record in judge_masks(pipe, parser, masks, prompts or [None], seeds, out=out, settings=settings):
        typer.echo(
            f"{record['mask']}  seed {record['seed']}  pixel accuracy {record['pixel_accuracy']:.3f}  "
            f"mIoU {record['mean_iou']:.3f}  {record['prompt'] or ''}"
        )
    typer.echo(f"{out / 'masks.png'}: mask, picture, parsed")
