"""The numbers of one row of the evaluation: do the pictures follow mask and sentence? This is the second pass."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mogle.errors import MogleError
from mogle.labels import LABELS
from mogle.metrics import distances, kernels
from mogle.metrics.attributes import encode_attributes, judgeable, mean_balanced, recall_counts, score_attributes
from mogle.metrics.intervals import Estimate, bootstrap, ends, mean_estimate
from mogle.metrics.masks import class_iou, confusion_matrices, mean_iou, pixel_accuracy
from mogle.metrics.rows import Made, Row
from mogle.metrics.samples import Samples
from mogle.metrics.stack import Pictures, chunks
from mogle.words import ATTRIBUTES, read_caption

if TYPE_CHECKING:
    from mogle.metrics.judges import Judges
    from mogle.metrics.paper import PaperNetworks
    from mogle.metrics.text import TextEmbedder

DETECTABLE = 20  # pictures of each kind that FID and a classifier need at least
_SCORE = "score_"  # before the names of scores in a file


@dataclass(frozen=True)
class Instruments:
    """What pictures are measured with; `record` is what the judges' config.json says about them.

    The embedder tells how well pictures and captions match; the paper's networks give its own six numbers.
    """

    judges: Judges
    embedder: TextEmbedder | None = None
    paper: PaperNetworks | None = None
    record: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def load(cls, folder: Path) -> Instruments:
        """Those of a folder of judges."""
        from mogle.metrics.judges import load_judges
        from mogle.metrics.text import load_text_embedder

        judges = load_judges(folder)
        return cls(judges, load_text_embedder(folder), record=json.loads((folder / "config.json").read_text()))

    def features(self, pictures: Pictures) -> np.ndarray:
        """The reader's features (N,192) of pictures, of which there may be none."""
        return self.judges.reader.read(pictures)[1] if len(pictures) else np.empty((0, 1))


@dataclass(frozen=True)
class Measured:
    """Of each picture: its sample, its confusion matrix (N,19,19), the reader's features (N,192), and scores (N,)."""

    ids: tuple[str, ...]
    matrices: np.ndarray
    features: np.ndarray
    scores: Mapping[str, np.ndarray] = field(default_factory=dict)  # "text", "structure"


def save_measured(folder: Path, name: str, measured: Measured) -> None:
    """Writes NAME.npz."""
    folder.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, Any] = {"ids": np.array(measured.ids), "matrices": measured.matrices.astype(np.int32)}
    arrays["features"] = measured.features.astype(np.float32)
    arrays |= {_SCORE + score: values for score, values in measured.scores.items()}
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


def psnr(real: Pictures, made: Pictures) -> float:
    """Peak signal-to-noise ratio of uint8 pictures (N,H,W,3) in dB, averaged over the pictures."""
    error = np.array([np.square(a.astype(np.float64) - b).mean() for a, b in zip(real, made, strict=True)])
    return float(np.mean(10 * np.log10(255**2 / np.maximum(error, 1e-12))))


def _expected(row: Row, samples: Samples) -> list[Mapping[str, str | None]]:
    """What the reader ought to see in each picture of a row."""
    if row.real:
        return list(samples.attributes)
    said = [read_caption(caption) for caption in row.captions(samples)]
    if not row.mask:
        return list(said)
    return [judgeable(s, m, only_invisible=row.swapped) for s, m in zip(said, samples.masks, strict=True)]


def _attribute_means(
    true: Mapping[str, np.ndarray], read: Mapping[str, np.ndarray], values: Mapping[str, Any]
) -> dict[str, Estimate]:
    """Balanced accuracy averaged over the attributes that the mask hides, and over those that it shows."""
    found = {}
    for key, in_mask in (("attributes_hidden", False), ("attributes_shown", True)):
        names = [name for name in true if (true[name] >= 0).any() and ATTRIBUTES[name].in_mask == in_mask]
        if names:
            counts = [recall_counts(true[name], read[name], len(values[name])) for name in names]
            cuts = np.cumsum([count.shape[1] for count in counts])[:-1]

            def average(sums: np.ndarray, cuts: np.ndarray = cuts) -> float:
                return mean_balanced(np.split(sums, cuts))

            found[key] = bootstrap(np.concatenate(counts, axis=1), average)
    return found


def _set_distances(real: np.ndarray, made: np.ndarray, embedder: TextEmbedder | None) -> dict[str, Estimate]:
    """Distances between the features of two sets; what needs more pictures than there are is left out."""
    found = {}
    if min(len(made), len(real)) > 1:
        found["kid"] = kernels.kid(real, made)
        if embedder is not None:
            seen = embedder.pictures(real), embedder.pictures(made)
            found["cmmd"] = Estimate(kernels.cmmd(*seen), *kernels.cmmd_estimate(*seen)[1:])
    if min(len(made), len(real)) >= DETECTABLE:
        found["detection"] = distances.detection_auc(real, made)
        found["fid_endless"] = distances.fid_estimate(real, made)
    return found


def measure(one: Made, tools: Instruments, reference: np.ndarray) -> tuple[dict[str, Any], Measured]:
    """The numbers of one row, and what they were made of; reference: the reader's features (M,192) of other real ones.

    What needs more pictures than there are is left out.
    """
    row, made, samples, (parser, reader), embedder = one.row, one.pictures, one.samples, tools.judges, tools.embedder
    parts = chunks(len(made))
    matrices = np.concatenate([confusion_matrices(samples.masks[p], parser.parse(made[p])) for p in parts])
    matrix = matrices.sum(axis=0)
    read, features = reader.read(made)
    true = encode_attributes(_expected(row, samples), reader.values)
    scores: dict[str, np.ndarray] = {}
    if embedder is not None:
        scores["text"] = embedder.score(features, row.captions(samples))
    if len(made) > 1:
        scores["structure"] = distances.structure_distances(parser.keys(samples.images), parser.keys(made))
    found = {**_attribute_means(true, read, reader.values), **_set_distances(reference, features, embedder)}
    found |= {name: mean_estimate(each) for name, each in scores.items()}
    if one.seeds and len(reference) > 1:
        features_by_seed = np.stack([tools.features(pictures) for pictures in one.seeds], axis=1)
        found["diversity"] = distances.diversity(features_by_seed, reference)
    in_mask = {"pixel_accuracy": bootstrap(matrices, pixel_accuracy), "mean_iou": bootstrap(matrices, mean_iou)}
    iou = {name: None if np.isnan(v) else float(v) for name, v in zip(LABELS, class_iou(matrix), strict=True)}
    numbers: dict[str, Any] = {
        "title": row.title,
        "n": len(samples),
        "mask": {**{name: estimate.value for name, estimate in in_mask.items()}, "class_iou": iou},
        "attributes": score_attributes(true, read),
        **{name: estimate.value for name, estimate in found.items()},
        "intervals": {name: ends(estimate) for name, estimate in {**in_mask, **found}.items()},
    }
    if "structure" in scores:
        numbers["structure_as_reported"] = distances.structure_as_reported(scores["structure"])
    if min(len(made), len(reference)) >= DETECTABLE:
        numbers["fid"] = distances.fid(reference, features)
        by_size = distances.fid_by_size(reference, features)
        numbers["fid_by_size"] = [[int(size), float(distance)] for size, distance in zip(*by_size, strict=True)]
    if row.psnr:
        numbers["psnr"] = psnr(samples.images, made)
    return numbers, Measured(samples.ids, matrices, features, scores)


def against(first: Measured, second: Measured, real: np.ndarray | None = None) -> dict[str, Any]:
    """Second minus first, picture by picture, on the samples that both have.

    So what makes a mask hard for both drops out, which needs far fewer pictures than two numbers with an interval each.
    Pixel accuracy (mean over pictures), mIoU, every score that both have, and, with the features (m,192) of real
    portraits, KID; each with an interval.

    Returns:
        {"n": ..., "pixel_accuracy": [value, low, high], "mean_iou": [value, low, high], ...}

    Raises:
        MogleError: they have no sample in common.
    """
    _, left, right = np.intersect1d(first.ids, second.ids, return_indices=True)
    if not len(left):
        raise MogleError("no sample in common; expected two rows of one test set")
    pairs = np.stack([first.matrices[left], second.matrices[right]], axis=1)
    found = {"mean_iou": bootstrap(pairs, lambda sums: mean_iou(sums[1]) - mean_iou(sums[0]))}
    found["pixel_accuracy"] = mean_estimate(np.array([pixel_accuracy(b) - pixel_accuracy(a) for a, b in pairs]))
    for score in sorted(first.scores.keys() & second.scores.keys()):
        found[score] = mean_estimate(second.scores[score][right] - first.scores[score][left])
    if real is not None and min(len(left), len(real)) > 2:
        found["kid"] = kernels.kid_difference(real, first.features[left], second.features[right])
    plain = {name: [None if np.isnan(n) else float(n) for n in estimate] for name, estimate in found.items()}
    return {"n": len(left), **plain}
