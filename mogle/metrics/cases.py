"""Label maps that somebody brings, each with prompts and seeds: does the picture, parsed back, have the mask?"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mogle.labels import colorize
from mogle.metrics.masks import confusion_matrix, mean_iou, pixel_accuracy
from mogle.metrics.report import gallery
from mogle.metrics.stack import stored
from mogle.sampling import Settings, draw

if TYPE_CHECKING:
    from mogle.metrics.judges import FaceParser
    from mogle.pipeline import FaceMoGLEPipeline


def judge_masks(
    pipe: FaceMoGLEPipeline, parser: FaceParser, masks: Mapping[str, np.ndarray], prompts: Sequence[str | None],
    seeds: Sequence[int], *, out: str | Path, settings: Settings | None = None,
) -> list[dict[str, Any]]:  # fmt: skip
    """Every mask with every prompt and seed: does the picture, parsed back, have the mask?

    ``masks`` are label maps by name, at the size of the pictures wanted. Writes the pictures, masks.json and
    masks.png (mask, picture, parsed) into ``out`` and returns one record for each picture.
    """
    settings, out = settings or Settings(), Path(out)
    cases = [(p, seed) for p in range(len(prompts)) for seed in seeds]
    columns: dict[str, list[np.ndarray]] = {"mask": [], "made": [], "parsed back": []}
    records = []
    for name, mask in masks.items():
        files = [out / "masks" / f"{name}-{p}-{seed}.png" for p, seed in cases]
        recipes = [settings.recipe(prompts[p], mask, seed, mask.shape) for p, seed in cases]
        draw(pipe, files, recipes.__getitem__, settings.origin or {}, batch=settings.batch, title=name)
        made = stored(files, mask.shape)[:]
        for (p, seed), picture, labels in zip(cases, made, parser.parse(made), strict=True):
            matrix = confusion_matrix(mask, labels)
            scores = {"pixel_accuracy": pixel_accuracy(matrix), "mean_iou": mean_iou(matrix)}
            records.append({"mask": name, "prompt": prompts[p], "seed": seed, **scores})
            for title, shown in (("mask", colorize(mask)), ("made", picture), ("parsed back", colorize(labels))):
                columns[title].append(shown)
    (out / "masks.json").write_text(json.dumps(records, indent=1) + "\n")
    gallery(columns).save(out / "masks.png")
    return records
