"""Two ways to make the same pictures, held against each other picture by picture.

Differences are measured on the samples that both have, so what makes a mask hard for both drops out; that needs far
fewer pictures than two numbers with an interval each.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mogle.errors import MogleError
from mogle.metrics.intervals import Estimate, bootstrap, mean_estimate
from mogle.metrics.kid import kid_difference
from mogle.metrics.masks import mean_iou, pixel_accuracy
from mogle.metrics.report import differences, measured, table_of


@dataclass(frozen=True)
class Measured:
    """Of each picture: its sample, its confusion matrix (N,19,19), the reader's features (N,192), and scores (N,)."""

    ids: tuple[str, ...]
    matrices: np.ndarray
    features: np.ndarray
    scores: Mapping[str, np.ndarray] = field(default_factory=dict)  # "text", "structure"


_SCORE = "score_"  # before the names of scores in a file


def save_measured(folder: Path, name: str, measured: Measured) -> None:
    """Writes NAME.npz."""
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {
        "ids": np.array(measured.ids),
        "matrices": measured.matrices.astype(np.int32),
        "features": measured.features.astype(np.float32),
        **{_SCORE + score: values for score, values in measured.scores.items()},
    }
    np.savez_compressed(folder / f"{name}.npz", allow_pickle=False, **arrays)


def load_measured(folder: str | Path, name: str) -> Measured:
    """What `save_measured` wrote.

    Raises:
        MogleError: that row was not measured there.
    """
    path = Path(folder) / f"{name}.npz"
    if not path.is_file():
        raise MogleError(f"{path}: no such file; expected a row that `mogle evaluate --out {folder}` has measured")
    with np.load(path, allow_pickle=False) as data:
        scores = {key.removeprefix(_SCORE): data[key] for key in data.files if key.startswith(_SCORE)}
        ids = tuple(str(i) for i in data["ids"])
        return Measured(ids, data["matrices"].astype(np.int64), data["features"], scores)


def shared(first: Measured, second: Measured) -> tuple[np.ndarray, np.ndarray]:
    """Rows of both that belong to the same samples, in the first one's order.

    Raises:
        MogleError: they have no sample in common.
    """
    place = {name: i for i, name in enumerate(second.ids)}
    pairs = [(i, place[name]) for i, name in enumerate(first.ids) if name in place]
    if not pairs:
        raise MogleError("no sample in common; expected two rows of one test set")
    left, right = np.array(pairs).T
    return left, right


def against(first: Measured, second: Measured, real: np.ndarray | None = None) -> dict[str, Any]:
    """Second minus first on the samples that both have: pixel accuracy (mean over pictures), mIoU, every score that
    both have, and, with the features (m,192) of real portraits, KID; each with an interval.

    Returns:
        {"n": ..., "pixel_accuracy": [value, low, high], "mean_iou": [value, low, high], ...}
    """
    left, right = shared(first, second)
    pairs = np.stack([first.matrices[left], second.matrices[right]], axis=1)

    def gain(sums: np.ndarray) -> float:
        return mean_iou(sums[1]) - mean_iou(sums[0])

    pixels = np.array([pixel_accuracy(b) - pixel_accuracy(a) for a, b in pairs])
    found = {"pixel_accuracy": mean_estimate(pixels), "mean_iou": bootstrap(pairs, gain)}
    for score in sorted(first.scores.keys() & second.scores.keys()):
        found[score] = mean_estimate(second.scores[score][right] - first.scores[score][left])
    if real is not None and min(len(left), len(real)) > 2:
        found["kid"] = kid_difference(real, first.features[left], second.features[right])
    return {"n": len(left), **{name: _plain(estimate) for name, estimate in found.items()}}


def _plain(estimate: Estimate) -> list[float | None]:
    return [None if np.isnan(number) else float(number) for number in estimate]


def compare(first: str | Path, *others: str | Path) -> str:
    """Evaluations' folders -> a Markdown table for each other one: it minus the first, for every row that both have.

    Raises:
        MogleError: one is no evaluation, or has no row in common with the first.
    """
    folders = [Path(first), *map(Path, others)]
    results = []
    for folder in folders:
        if not (folder / "results.json").is_file():
            raise MogleError(f"{folder}: found no results.json, expected the --out of a `mogle evaluate`")
        results.append(json.loads((folder / "results.json").read_text())["rows"])
    tables = []
    for folder, rows in zip(folders[1:], results[1:], strict=True):
        names = [name for name in results[0] if name in rows]
        if not names:
            raise MogleError(f"{folders[0]} and {folder} have no row in common; expected at least one")
        found = [against(load_measured(folders[0], name), load_measured(folder, name)) for name in names]
        head, cells = differences(found)
        lines = []
        for name, one, signed in zip(names, found, cells, strict=True):
            kids = [measured(run[name], "kid", run[name].get("kid"), 1, 1000) for run in (results[0], rows)]
            lines.append([results[0][name]["title"], str(one["n"]), *signed, *kids])
        title = f"{folder.name} less {folders[0].name}"
        tables.append(table_of([title, "n in both", *head, "KID x 1000, first", "second"], lines))
    return "\n\n".join(tables) + "\n"
