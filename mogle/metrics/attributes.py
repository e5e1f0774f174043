"""Does a picture follow its sentence? Attribute accuracy, balanced over the values of each attribute."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from mogle.metrics.intervals import balanced_estimate

VISIBLE = 20  # pixels of a label at 128 px below which what hangs on it cannot be judged


def encode_attributes(
    attributes: Sequence[Mapping[str, str | None]], values: Mapping[str, Sequence[str]]
) -> dict[str, np.ndarray]:
    """N dictionaries -> {name: int64 (N,)}, the index of each value; -1 where unknown, not applicable or unstated."""
    place = {name: {v: i for i, v in enumerate(vs)} for name, vs in values.items()}
    return {
        name: np.array([-1 if (v := a.get(name)) is None else index[v] for a in attributes], np.int64)
        for name, index in place.items()
    }


def recall_counts(true: np.ndarray, predicted: np.ndarray, values: int) -> np.ndarray:
    """(N,) indices twice -> (N, values, 2): is this picture's true value this one, and was it then read rightly?"""
    told = true[:, None] == np.arange(values)
    return np.stack([told, told & (predicted == true)[:, None]], axis=-1)


def mean_balanced(counts: Sequence[np.ndarray]) -> float:
    """Sums of `recall_counts` (values, 2) of several attributes -> mean over attributes of balanced accuracy."""
    each = [np.mean(c[c[:, 0] > 0, 1] / c[c[:, 0] > 0, 0]) for c in counts if c[:, 0].any()]
    return float(np.mean(each)) if each else float("nan")


def score_attributes(
    true: Mapping[str, np.ndarray], predicted: Mapping[str, np.ndarray]
) -> dict[str, dict[str, float]]:
    """{name: {n, accuracy, balanced, low, high}} of every attribute that occurs; low and high belong to balanced.

    balanced is the mean over the occurring true values of the share read rightly; entries with true < 0 are left out.
    """
    table = {}
    for name, expected in true.items():
        known = expected >= 0
        if known.any():
            hit = predicted[name][known] == expected[known]
            total = np.bincount(expected[known])
            right = np.bincount(expected[known][hit], minlength=len(total))
            balanced, low, high = balanced_estimate(right, total)
            share = {"accuracy": float(hit.mean()), "balanced": balanced, "low": low, "high": high}
            table[name] = {"n": int(known.sum()), **share}
    return table


def judgeable(stated: Mapping[str, str | None], mask: np.ndarray, *, only_invisible: bool) -> dict[str, str]:
    """Of the attributes that a caption states, those that a picture made from ``mask`` can show.

    What hangs on a label (hair colour on hair) needs that label in the mask, with 20 pixels at 128 px or the same
    share at another size. Eye make-up is not asked for where glasses may turn out dark and hide it.
    ``only_invisible`` keeps the attributes that the mask cannot give away.
    """
    from mogle.words import ATTRIBUTES

    enough = VISIBLE * mask.size / 128**2
    kept = {}
    for name, value in stated.items():
        attribute = ATTRIBUTES[name]
        if value is None or (only_invisible and attribute.in_mask):
            continue
        if attribute.needs is not None and np.count_nonzero(mask == attribute.needs) < enough:
            continue
        if name == "makeup" and stated.get("sunglasses") != "no" and np.count_nonzero(mask == 3) >= enough:
            continue
        kept[name] = value
    return kept
