"""Does a picture follow its mask? Everything from one confusion matrix over the whole set."""

from __future__ import annotations

import numpy as np

from mogle.errors import MogleError
from mogle.labels import LABELS


def confusion_matrix(true: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Two integer label arrays of one shape -> int64 (19, 19): rows the truth, columns the prediction."""
    if true.shape != predicted.shape:
        raise MogleError(f"label maps of different size: {true.shape} and {predicted.shape}; resize one (nearest)")
    classes, worst = len(LABELS), max(int(true.max(initial=0)), int(predicted.max(initial=0)))
    if worst >= classes:
        raise MogleError(f"label {worst} in a label map; expected 0..{classes - 1}")
    pairs = true.astype(np.int64).ravel() * classes + predicted.ravel()
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def pixel_accuracy(matrix: np.ndarray) -> float:
    """Share of pixels whose class is right."""
    return float(np.trace(matrix) / matrix.sum()) if matrix.sum() else float("nan")


def class_iou(matrix: np.ndarray) -> np.ndarray:
    """Intersection over union of each class (float64); NaN for a class without a true pixel in the set."""
    hit, truth = np.diag(matrix).astype(np.float64), matrix.sum(1)
    return np.where(truth > 0, hit / np.maximum(truth + matrix.sum(0) - hit, 1), np.nan)


def mean_iou(matrix: np.ndarray) -> float:
    """Mean of the IoU over the classes that occur; absent classes are left out, not counted as 0 or 1."""
    iou = class_iou(matrix)
    return float(np.nanmean(iou)) if np.isfinite(iou).any() else float("nan")
