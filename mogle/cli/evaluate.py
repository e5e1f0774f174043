"""`mogle evaluate`: do pictures follow mask and sentence? Tables over test portraits, or masks of your own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mogle.errors import MogleError

if TYPE_CHECKING:
    import numpy as np

    from mogle.metrics.evaluate import Row, SampleSet
    from mogle.metrics.judges import Judges
    from mogle.metrics.sampling import Settings
    from mogle.pipeline import FaceMoGLEPipeline

EXAMPLE = (
    "Examples: mogle evaluate --n 50 --rows real,reconstruction,text+mask --out runs/eval; "
    'mogle evaluate --masks my-mask.png --prompt "She has blond hair." --seeds 0,1,2'
)
#: Ablations that are also sampled as the reference's inference does it by mistake, with all local masks black.
EMPTIED = ("only-local", "scalar-gate")
OTHERS = 200  # at least so many other real portraits for KID, where there are


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
    steps: Annotated[int, typer.Option(min=1, max=1000, help="Denoising steps.")] = 28,
    guidance: Annotated[float, typer.Option(min=0, help="How strongly the prompt acts.")] = 3.5,
    strength: Annotated[float, typer.Option(min=0, help="How strongly the mask acts.")] = 1.0,
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
    ablation-NAME-emptied for some of them.
    """
    from accelerate import PartialState

    from mogle.checkpoints import JUDGES, adapter_folder, base_folder, load_pipeline, origin_of, pick_device, shipped
    from mogle.cli.generate import check_writable
    from mogle.metrics.evaluate import ROWS, judge_pictures
    from mogle.metrics.evaluate import evaluate as run
    from mogle.metrics.judges import load_judges
    from mogle.metrics.paper import PaperNetworks
    from mogle.metrics.sampling import Settings
    from mogle.metrics.text import load_text_embedder

    painted = [name for name in ROWS if data is None or ROWS[name].style == "portraits"]
    ablations = _ablations() if adapter is None and data is None else {}
    painted += ablations
    chosen = painted if rows is None else [name.strip() for name in rows.split(",") if name.strip()]
    if unknown := [name for name in chosen if name not in {**ROWS, **ablations}]:
        raise MogleError(f"--rows {', '.join(unknown)}: expected some of {', '.join({**ROWS, **ablations})}")
    if shifted := [name for name in chosen if name not in painted]:
        raise MogleError(f"--rows {', '.join(shifted)}: these are painted sets; expected no --data beside them")
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
    labels = _read_masks(masks or [])
    numbers = _numbers(seeds)
    base_found, adapter_found = base_folder(base), adapter_folder(adapter)
    judges_found = judges or shipped(JUDGES)
    check_writable(out)

    found_judges = load_judges(judges_found)
    judged = json.loads((judges_found / "config.json").read_text())
    embedder = load_text_embedder(judges_found)
    if pictures:
        test = _samples(data, n, judged["size"], split)
        judge_pictures(pictures, found_judges, test, out=out, judged=judged, embedder=embedder)
        _say(out)
        return
    state = PartialState(cpu=pick_device(device) == "cpu")
    own = device if device is not None and ":" in device else str(state.device)  # each process has a GPU of its own
    pipe = load_pipeline(base_found, adapter_found, own)
    settings = Settings(steps, guidance, strength, batch, origin_of(pipe, base_found, adapter_found))
    side = pipe.default_sample_size * pipe.vae_scale_factor
    if labels:
        _judge_masks(pipe, found_judges, labels, list(prompt or [None]), numbers, side, out, settings)  # type: ignore[list-item]
        return
    sets = {"portraits": _samples(data, n, side, split)}
    for style in {ROWS[name].style for name in chosen if name in ROWS} - {"portraits"}:
        sets[style] = _samples(None, min(n, few), side, split, style)
    wanted = networks == "paper" and state.is_main_process  # which alone measures
    paper = PaperNetworks(str(pipe._execution_device)) if wanted else None
    run(
        pipe,
        found_judges,
        sets,
        out=out,
        paper=paper,
        ablations=ablations,
        rows=chosen,
        few=few,
        settings=settings,
        judged=judged,
        embedder=embedder,
        state=state if state.num_processes > 1 else None,
    )
    if state.is_main_process:
        _say(out)
    state.wait_for_everyone()


def _ablations() -> dict[str, Row]:
    """A row for each adapter in checkpoints/ablations, and a second one for some of them."""
    from mogle.checkpoints import shipped
    from mogle.metrics.evaluate import Row
    from mogle.tiny.ablations import TITLES

    try:
        folders = {path.name: path for path in sorted(shipped("ablations").iterdir()) if path.is_dir()}
    except MogleError:  # none are shipped
        return {}
    rows = {f"ablation-{name}": Row(TITLES[name], adapter=folders[name]) for name in TITLES if name in folders}
    for name in EMPTIED:
        if name in folders:
            title = f"{TITLES[name]}, local masks emptied"
            rows[f"ablation-{name}-emptied"] = Row(title, adapter=folders[name], without="locals")
    return rows


def _say(out: Path) -> None:
    typer.echo((out / "table.md").read_text())
    typer.echo(f"{out / 'index.html'}: everything on one page; table.md, results.json and gallery.png beside it")


def compare(
    first: Annotated[Path, typer.Argument(help="The --out of one evaluation.")],
    others: Annotated[list[Path], typer.Argument(help="Those of others, of the same samples.")],
) -> None:
    """Hold evaluations against the first of them, picture by picture: differences with their intervals."""
    from mogle.metrics.compare import compare as table

    typer.echo(table(first, *others))


def _numbers(seeds: str) -> list[int]:
    try:
        numbers = [int(part) for part in seeds.split(",")]
    except ValueError:
        raise MogleError(f"--seeds {seeds}: expected whole numbers with commas between, such as 0,1,2") from None
    if min(numbers) < 0:
        raise MogleError(f"--seeds {seeds}: expected 0 or more")
    return numbers


def _read_masks(paths: list[Path]) -> dict[str, np.ndarray]:
    from mogle.labels import decode_mask

    labels: dict[str, np.ndarray] = {}
    for path in paths:
        if path.stem in labels:
            raise MogleError(f"{path}: two masks of the name {path.stem!r}; rename one, results are listed by name")
        labels[path.stem] = decode_mask(path)
        if not labels[path.stem].any():
            raise MogleError(f"{path}: found nothing but background, expected a face")
    return labels


def _samples(data: Path | None, count: int, side: int, split: str, style: str = "portraits") -> SampleSet:
    """The samples, and other real pictures to hold generated ones against: those that follow in the test split."""
    from mogle.metrics.evaluate import SampleSet
    from mogle.metrics.samples import TEST_IDS, folder_samples, painted_samples

    more = max(OTHERS, count)
    if data is None:
        if count > len(TEST_IDS) - 2:
            raise MogleError(f"--n {count}: expected at most {len(TEST_IDS) - 2}; KID needs portraits besides")
        samples, first = painted_samples(count, side, style=style), TEST_IDS.start + count
        return SampleSet(samples, painted_samples(min(more, TEST_IDS.stop - first), side, first, style).images)
    if split not in ("test", "train", "all"):
        raise MogleError(f"--split {split}: expected test, train or all")
    return SampleSet(*folder_samples(data, count, side, None if split == "all" else split, more))


def _judge_masks(
    pipe: FaceMoGLEPipeline,
    judges: Judges,
    labels: dict[str, np.ndarray],
    prompts: list[str | None],
    seeds: list[int],
    side: int,
    out: Path,
    settings: Settings,
) -> None:
    from mogle.labels import decode_mask
    from mogle.metrics.cases import judge_masks

    sized = {name: decode_mask(label_map, size=side) for name, label_map in labels.items()}
    for record in judge_masks(pipe, judges, sized, prompts, seeds, out=out, settings=settings):
        typer.echo(
            f"{record['mask']}  seed {record['seed']}  pixel accuracy {record['pixel_accuracy']:.3f}  "
            f"mIoU {record['mean_iou']:.3f}  {record['prompt'] or ''}"
        )
    typer.echo(f"{out / 'masks.png'}: mask, picture, parsed")
