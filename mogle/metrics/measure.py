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
from mogle.metrics import attributes, distances, kernels
from mogle.metrics.intervals import Estimate, bootstrap, ends, mean_estimate
from mogle.metrics.masks import class_iou, confusion_matrix, mean_iou, pixel_accuracy
from mogle.metrics.rows import Made, Row
from mogle.metrics.samples import Samples
from mogle.metrics.stack import Pictures, batches
from mogle.words import ATTRIBUTES, read_caption

if TYPE_CHECKING:
    from mogle.metrics.judges import Judges, TextEmbedder
    from mogle.metrics.paper import PaperNetworks

DETECTABLE = 20  # pictures of each kind that FID and a classifier need at least

#: Of each picture of a row: its sample's id, its confusion matrix (N,19,19), the reader's features (N,192), and scores
#: (N,): ids, matrices, features, score_text, score_structure. Kept beside the pictures as NAME.npz.
Measured = dict[str, np.ndarray]


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
        from mogle.metrics.judges import load_judges, load_text_embedder

        judges = load_judges(folder)
        return cls(judges, load_text_embedder(folder), record=json.loads((folder / "config.json").read_text()))

    def features(self, pictures: Pictures) -> np.ndarray:
        """The reader's features (N,192) of pictures, of which there may be none."""
        return self.judges.reader.read(pictures)[1] if len(pictures) else np.empty((0, 1))


def load_measured(folder: Path, name: str) -> Measured:
    """What an evaluation has kept of a row.

    Raises:
        MogleError: that row was not measured there.
    """
    path = folder / f"{name}.npz"
    if not path.is_file():
        raise MogleError(f"{path}: no such file; expected a row that `mogle evaluate --out {folder}` has measured")
    with np.load(path, allow_pickle=False) as data:
        return dict(data)


def psnr(real: Pictures, made: Pictures) -> float:
    """Peak signal-to-noise ratio of uint8 pictures (H,W,3) in dB, averaged over the pictures."""
    error = np.array([np.square(a.astype(np.float64) - b).mean() for a, b in zip(real, made, strict=True)])
    return float(np.mean(10 * np.log10(255**2 / np.maximum(error, 1e-12))))


def _expected(row: Row, samples: Samples) -> list[Mapping[str, str | None]]:
    """What the reader ought to see in each picture of a row."""
    if row.source != "pipeline":
        return list(samples.attributes)
    said = [read_caption(caption) for caption in row.captions(samples)]
    if not row.mask:
        return list(said)
    return [attributes.judgeable(s, m, only_invisible=row.swapped) for s, m in zip(said, samples.masks, strict=True)]


def _attribute_means(true: Mapping[str, np.ndarray], read: Mapping[str, np.ndarray]) -> dict[str, Estimate]:
    """Balanced accuracy averaged over the attributes that the mask hides, and over those that it shows."""
    found = {}
    for key, in_mask in (("attributes_hidden", False), ("attributes_shown", True)):
        names = [name for name in true if (true[name] >= 0).any() and ATTRIBUTES[name].in_mask == in_mask]
        if names:
            both = (np.stack([answers[name] for name in names], axis=1) for answers in (true, read))
            found[key] = bootstrap(attributes.recall_counts(*both), attributes.mean_balanced)
    return found


def _set_distances(real: np.ndarray, made: np.ndarray, embedder: TextEmbedder | None) -> dict[str, Estimate]:
    """Distances between the features of two sets; what needs more pictures than there are is left out."""
    found, count = {}, min(len(made), len(real))
    if count > 1:
        found["kid"] = kernels.kid(real, made)
    if count > 1 and embedder is not None:
        found["cmmd"] = kernels.cmmd(embedder.pictures(real), embedder.pictures(made))
    if count >= DETECTABLE:
        found["detection"] = distances.detection_auc(real, made)
        found["fid_endless"] = distances.fid_estimate(real, made)
    return found


def measure(one: Made, tools: Instruments, reference: np.ndarray) -> tuple[dict[str, Any], Measured]:
    """The numbers of one row, and what they were made of; reference: the reader's features (M,192) of other real ones.

    What needs more pictures than there are is left out.
    """
    row, made, samples, (parser, reader), embedder = one.row, one.pictures, one.samples, tools.judges, tools.embedder
    parsed = (labels for part in batches(made) for labels in parser.parse(part))
    matrices = np.stack([confusion_matrix(*pair) for pair in zip(samples.masks, parsed, strict=True)])
    read, features = reader.read(made)
    true = attributes.encode_attributes(_expected(row, samples), reader.values)
    scores = {}
    if embedder is not None:
        scores["text"] = embedder.score(features, row.captions(samples))
    if len(made) > 1:
        scores["structure"] = distances.structure_distances(parser.keys(samples.images), parser.keys(made))
    found = _attribute_means(true, read) | _set_distances(reference, features, embedder)
    found |= {name: mean_estimate(each) for name, each in scores.items()}
    if one.seeds and len(reference) > 1:
        by_seed = np.stack([tools.features(pictures) for pictures in one.seeds], axis=1)
        found["diversity"] = distances.diversity(by_seed, reference)
    in_mask = {"pixel_accuracy": bootstrap(matrices, pixel_accuracy), "mean_iou": bootstrap(matrices, mean_iou)}
    iou = zip(LABELS, class_iou(matrices.sum(axis=0)), strict=True)
    numbers: dict[str, Any] = {
        "title": row.title,
        "n": len(samples),
        "mask": {
            **{name: estimate.value for name, estimate in in_mask.items()},
            "class_iou": {name: None if np.isnan(share) else float(share) for name, share in iou},
        },
        "attributes": attributes.score_attributes(true, read),
        **{name: estimate.value for name, estimate in found.items()},
        "intervals": {name: ends(estimate) for name, estimate in (in_mask | found).items()},
    }
    if "structure" in scores:
        numbers["structure_as_reported"] = distances.structure_as_reported(scores["structure"])
    if min(len(made), len(reference)) >= DETECTABLE:
        numbers["fid"] = distances.fid(reference, features)
        numbers["fid_by_size"] = distances.fid_by_size(reference, features)
    if row.source == "vae":
        numbers["psnr"] = psnr(samples.images, made)
    measured = {"ids": np.array(samples.ids), "matrices": matrices.astype(np.int32), "features": features}
    return numbers, measured | {f"score_{name}": each for name, each in scores.items()}


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
    _, left, right = np.intersect1d(first["ids"], second["ids"], return_indices=True)
    if not len(left):
        raise MogleError("no sample in common; expected two rows of one test set")
    pairs = np.stack([first["matrices"][left], second["matrices"][right]], axis=1)
    found = {"mean_iou": bootstrap(pairs, lambda sums: mean_iou(sums[1]) - mean_iou(sums[0]))}
    found["pixel_accuracy"] = mean_estimate(np.array([pixel_accuracy(b) - pixel_accuracy(a) for a, b in pairs]))
    for score in sorted(key for key in first.keys() & second.keys() if key.startswith("score_")):
        found[score.removeprefix("score_")] = mean_estimate(second[score][right] - first[score][left])
    if real is not None and min(len(left), len(real)) > 2:
        found["kid"] = kernels.kid_difference(real, first["features"][left], second["features"][right])
    plain = {name: [None if np.isnan(n) else float(n) for n in estimate] for name, estimate in found.items()}
    return {"n": len(left), **plain}
