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
from mogle.metrics.sampling import Settings, sample
from mogle.provenance import Recipe

if TYPE_CHECKING:
    from mogle.metrics.judges import Judges
    from mogle.pipeline import FaceMoGLEPipeline


def judge_masks(
    pipe: FaceMoGLEPipeline,
    judges: Judges,
    masks: Mapping[str, np.ndarray],
    prompts: Sequence[str | None],
    seeds: Sequence[int],
    *,
    out: str | Path,
    settings: Settings | None = None,
) -> list[dict[str, Any]]:
    """Every mask with every prompt and seed: does the picture, parsed back, have the mask?

    ``masks`` are label maps by name, at the size of the pictures wanted. Writes the pictures, masks.json and
    masks.png (mask, picture, parsed) into ``out`` and returns one record for each picture.
    """
    settings, out = settings or Settings(), Path(out)
    cases = [(name, p, seed) for name in masks for p in range(len(prompts)) for seed in seeds]
    recipes = [
        Recipe(
            prompts[p], masks[name], seed, settings.steps, settings.guidance, settings.strength, *masks[name].shape
        )
        for name, p, seed in cases
    ]  # fmt: skip
    names = [f"{name}-{p}-{seed}" for name, p, seed in cases]
    made = sample(pipe, recipes, names, out / "masks", settings, title="masks")[:]
    parsed = judges.parser.parse(made)
    records = []
    for (name, p, seed), labels in zip(cases, parsed, strict=True):
        matrix = confusion_matrix(masks[name], labels)
        records.append(
            {
                "mask": name, "prompt": prompts[p], "seed": seed,
                "pixel_accuracy": pixel_accuracy(matrix), "mean_iou": mean_iou(matrix),
            }
        )  # fmt: skip
    (out / "masks.json").write_text(json.dumps(records, indent=1) + "\n")
    wanted = np.stack([masks[name] for name, _, _ in cases])
    gallery({"mask": colorize(wanted), "made": made, "parsed back": colorize(parsed)}).save(out / "masks.png")
    return records
