"""Does a picture follow its sentence? Attribute accuracy, balanced over the values of each attribute."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from mogle.labels import LABELS
from mogle.metrics.intervals import balanced_estimate
from mogle.words import ATTRIBUTES

GLASSES = LABELS.index("eye_g")
VISIBLE = 20  # pixels of a label at 128 px below which what hangs on it cannot be judged


def encode_attributes(
    attributes: Sequence[Mapping[str, str | None]], values: Mapping[str, Sequence[str]]
) -> dict[str, np.ndarray]:
    """N dictionaries -> {name: int64 (N,)}, the index of each value; -1 where unknown, not applicable or unstated."""
    return {
        name: np.array([-1 if each.get(name) is None else known.index(each[name]) for each in attributes], np.int64)
        for name, known in values.items()
    }


def recall_counts(true: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Indices of A attributes' values (N, A) twice -> (N, A, values, 2).

    Of each picture: is the true value this one, and if so, was it read rightly?
    """
    told = true[..., None] == np.arange(true.max() + 1)
    return np.stack([told, told & (predicted == true)[..., None]], axis=-1)


def mean_balanced(counts: np.ndarray) -> float:
    """Sums of `recall_counts` over pictures (A, values, 2) -> mean over attributes of balanced accuracy.

    Values and attributes that do not occur are left out.
    """
    recalls = np.ma.divide(counts[..., 1], counts[..., 0])  # where nothing is counted, the result is masked
    return float(np.ma.filled(recalls.mean(axis=-1).mean(), np.nan))


def score_attributes(
    true: Mapping[str, np.ndarray], predicted: Mapping[str, np.ndarray]
) -> dict[str, dict[str, float]]:
    """{name: {n, accuracy, balanced, low, high}} of every attribute that occurs; low and high belong to balanced.

    balanced is the mean over the occurring true values of the share read rightly; entries with true < 0 are left out.
    """
    table = {}
    for name, expected in true.items():
        total, right = recall_counts(expected[:, None], predicted[name][:, None]).sum(axis=0)[0].T
        if total.any():
            balanced, low, high = balanced_estimate(right, total)
            share = {"accuracy": float(right.sum() / total.sum()), "balanced": balanced, "low": low, "high": high}
            table[name] = {"n": int(total.sum()), **share}
    return table


def judgeable(stated: Mapping[str, str | None], mask: np.ndarray, *, only_invisible: bool) -> dict[str, str]:
    """Of the attributes that a caption states, those that a picture made from ``mask`` can show.

    What hangs on a label (hair colour on hair) needs that label in the mask, with 20 pixels at 128 px or the same
    share at another size. Eye make-up is not asked for where glasses may turn out dark and hide it.
    ``only_invisible`` keeps the attributes that the mask cannot give away.
    """
    enough = VISIBLE * mask.size / 128**2
    kept = {}
    for name, value in stated.items():
        attribute = ATTRIBUTES[name]
        given_away = only_invisible and attribute.in_mask
        absent = attribute.needs is not None and np.count_nonzero(mask == attribute.needs) < enough
        dark = name == "makeup" and stated.get("sunglasses") != "no" and np.count_nonzero(mask == GLASSES) >= enough
        if value is not None and not (given_away or absent or dark):
            kept[name] = value
    return kept
