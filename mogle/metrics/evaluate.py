"""`mogle evaluate` in three passes: make the pictures of all rows, measure them, publish what was found."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mogle.errors import MogleError
from mogle.labels import LABELS, colorize
from mogle.metrics.masks import confusion_matrix, mean_iou, pixel_accuracy
from mogle.metrics.measure import DETECTABLE, Instruments, Measured, against, measure
from mogle.metrics.report import gallery, render, write_galleries, write_report
from mogle.metrics.rows import ROWS, SEED_SAMPLES, SEEDS, Made, Row, make
from mogle.metrics.samples import Samples, pictures_of
from mogle.metrics.stack import stored
from mogle.sampling import Settings, draw, sized
from mogle.words import ATTRIBUTES

if TYPE_CHECKING:
    from accelerate import PartialState

    from mogle.metrics.judges import FaceParser
    from mogle.pipeline import FaceMoGLEPipeline


def evaluate(
    pipe: FaceMoGLEPipeline, tools: Instruments, sets: Mapping[str, Samples], *, out: Path,
    settings: Settings, rows: Mapping[str, Row] = ROWS, few: int = 200, state: PartialState | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Fills the rows of the table and writes results.json, table.md, index.html, galleries and pictures into ``out``.

    Args:
        sets: by style, all that the rows have; "portraits" is the test set proper.
        rows: by name; those with an adapter of their own run last, and leave the pipeline with the last.
        few: samples of the rows that show an effect; the others take all.
        state: where several processes share the sampling; the first one measures and writes.

    Returns:
        What results.json holds; from other processes than the first, no rows.

    Raises:
        MogleError: too few samples, pictures of another model in ``out``.
    """
    if any(row.swapped and len(sets[row.style]) < 2 for row in rows.values()):
        raise MogleError("captions can only be swapped between at least two samples; use --n 2 or more")
    share = (state.process_index, state.num_processes) if state is not None else (0, 1)
    made = make(pipe, rows, sets, out, settings, few=few, share=share)
    if state is not None:
        state.wait_for_everyone()
    return _report(made if share[0] == 0 else {}, tools, sets, out, settings)


def judge_pictures(folder: Path, tools: Instruments, samples: Samples, *, out: Path) -> dict[str, Any]:
    """Measures pictures that somebody else made of the samples' masks and sentences, in files named after them.

    Writes results.json, table.md, index.html and galleries into ``out``.
    """
    samples, pictures = pictures_of(folder, samples)
    if len(samples) < 2:
        raise MogleError(f"{folder}: found one picture, expected at least two: distances are between sets")
    row = Row(f"pictures in {folder.name}", detailed=True, column="made")
    return _report({"pictures": Made(row, samples, pictures)}, tools, {"portraits": samples}, out, None)


def judge_masks(
    pipe: FaceMoGLEPipeline, parser: FaceParser, masks: Mapping[str, np.ndarray], prompts: Sequence[str | None],
    seeds: Sequence[int], *, out: Path, settings: Settings, fit: str | None = None,
) -> list[dict[str, Any]]:  # fmt: skip
    """Every mask with every prompt and seed: does the picture, parsed back, have the mask?

    ``masks`` are label maps by name, brought to the pictures' size as `mogle.sampling.sized` says. Writes the pictures,
    masks.json and masks.png (mask, picture, parsed) into ``out`` and returns one record for each picture.
    """
    cases = [(p, seed) for p in range(len(prompts)) for seed in seeds]
    columns: dict[str, list[np.ndarray]] = {"mask": [], "made": [], "parsed back": []}
    records = []
    for name, label_map in masks.items():
        mask: Any = sized(settings.recipe(None, label_map, 0), pipe, fit).mask
        files = [out / "masks" / f"{name}-{p}-{seed}.png" for p, seed in cases]
        recipes = [settings.recipe(prompts[p], mask, seed, mask.shape) for p, seed in cases]
        draw(pipe, files, recipes.__getitem__, settings.origin or {}, batch=settings.batch, title=name)
        made = stored(files, mask.shape)
        for (p, seed), picture, labels in zip(cases, made, parser.parse(made), strict=True):
            matrix = confusion_matrix(mask, labels)
            scores = {"pixel_accuracy": pixel_accuracy(matrix), "mean_iou": mean_iou(matrix)}
            records.append({"mask": name, "prompt": prompts[p], "seed": seed, **scores})
            for column, shown in zip(columns.values(), (colorize(mask), picture, colorize(labels)), strict=True):
                column.append(shown)
    (out / "masks.json").write_text(json.dumps(records, indent=1) + "\n")
    gallery(columns).save(out / "masks.png")
    return records


def _report(
    made: Mapping[str, Made], tools: Instruments, sets: Mapping[str, Samples], out: Path, settings: Settings | None
) -> dict[str, Any]:
    """The second and third pass: measures the rows, and writes the report if there are any."""
    results = _facts(sets["portraits"], tools, settings)
    if not made:
        return results
    out.mkdir(parents=True, exist_ok=True)
    references = {style: tools.features(samples.others) for style, samples in sets.items()}
    seen = {style: tools.paper.features(samples.others) for style, samples in sets.items()} if tools.paper else {}
    measures: dict[str, Measured] = {}
    for name, one in made.items():
        results["rows"][name], measures[name] = measure(one, tools, references[one.row.style])
        if tools.paper is not None:
            results["rows"][name]["paper"], each = tools.paper.measure(one, seen[one.row.style])
            measures[name] |= {f"score_paper_{column}": scores for column, scores in each.items()}
        np.savez_compressed(out / f"{name}.npz", **measures[name])  # type: ignore[arg-type]
    for name, one in made.items():
        if base := next((base for base in one.row.against if base in made and base != name), None):
            found = against(measures[base], measures[name], references[one.row.style])
            results["against"][name] = {"base": base, **found}
    write_galleries(out, made, measures, sets, tools.judges.parser.parse)
    write_report(out, results)
    return results


def _facts(samples: Samples, tools: Instruments, settings: Settings | None) -> dict[str, Any]:
    """What results.json holds before anything is measured."""
    origin = dict((settings and settings.origin) or {})
    facts = {
        "samples": samples, "settings": settings, "tools": tools, "origin": origin, "seeds": SEEDS,
        "seed_samples": SEED_SAMPLES, "enough": DETECTABLE,
    }  # fmt: skip
    return {
        "title": "Text and mask to face",
        "source": samples.source,
        "origin": origin,
        "judges": dict(tools.record),
        "labels": list(LABELS),
        "attributes": list(ATTRIBUTES),
        "hidden": [name for name, attribute in ATTRIBUTES.items() if not attribute.in_mask],
        "notes": render("notes.txt.j2", **facts).splitlines(),
        "warnings": render("warnings.txt.j2", **facts).splitlines(),
        "rows": {},
        "against": {},
    }
