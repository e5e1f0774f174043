"""Does a picture follow its mask? Everything from one confusion matrix over the whole set."""

from __future__ import annotations

import numpy as np

from mogle.errors import MogleError


def confusion_matrix(true: np.ndarray, predicted: np.ndarray, classes: int = 19) -> np.ndarray:
    """Two integer label arrays of one shape -> int64 (classes, classes): rows the truth, columns the prediction."""
    if true.shape != predicted.shape:
        raise MogleError(f"label maps of different size: {true.shape} and {predicted.shape}; resize one (nearest)")
    worst = max(int(true.max(initial=0)), int(predicted.max(initial=0)))
    if worst >= classes:
        raise MogleError(f"label {worst} in a label map; expected 0..{classes - 1}")
    pairs = true.astype(np.int64).ravel() * classes + predicted.astype(np.int64).ravel()
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def confusion_matrices(true: np.ndarray, predicted: np.ndarray, classes: int = 19) -> np.ndarray:
    """Label maps (N, H, W) twice -> (N, classes, classes), one matrix for each picture: what a bootstrap draws from."""
    return np.stack([confusion_matrix(a, b, classes) for a, b in zip(true, predicted, strict=True)])


def pixel_accuracy(matrix: np.ndarray) -> float:
    """Share of pixels whose class is right."""
    return float(np.trace(matrix) / matrix.sum()) if matrix.sum() else float("nan")


def class_iou(matrix: np.ndarray) -> np.ndarray:
    """Intersection over union of each class (float64); NaN for a class without a true pixel in the set."""
    hit = np.diag(matrix).astype(np.float64)
    truth = matrix.sum(1)
    union = truth + matrix.sum(0) - hit
    return np.where(truth > 0, hit / np.maximum(union, 1), np.nan)


def mean_iou(matrix: np.ndarray) -> float:
    """Mean of the IoU over the classes that occur; absent classes are left out, not counted as 0 or 1."""
    iou = class_iou(matrix)
    return float(np.nanmean(iou)) if np.isfinite(iou).any() else float("nan")
