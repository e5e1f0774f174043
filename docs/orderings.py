"""The paper's orderings beside ours: what it found better than what, and whether our rows say so too.

Its numbers and ours are of other pictures, networks and bases, so only the order can be compared: mask (its structure
distance with our pixel accuracy, and with our structure distance), KID, and text (its CLIP score, our embedder's).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mogle.metrics.report import COLUMNS

#: Our row -> the paper's row, and the row of ours that it is held against. The paper's is always text + mask.
PAIRS: dict[str, tuple[str, str]] = {
    "mask": ("mask only", "text+mask"),
    "text": ("text only", "text+mask"),
    "female": ("zero-shot, MM-FFHQ-Female", "text+mask"),
    "ablation-only-global": ("only global", "ablation-full"),
    "ablation-only-local": ("only local", "ablation-full"),
    "ablation-no-latents": ("gate without diffusion input", "ablation-full"),
    "ablation-scalar-gate": ("scalar gate", "ablation-full"),
    "ablation-neither": ("neither expert nor gate", "ablation-full"),
    "ablation-no-gate": ("expert, no gate", "ablation-full"),
    "ablation-no-experts": ("gate, no expert", "ablation-full"),
}
#: What is compared: the paper's column and whether more of it is better; our number, the same, and its factor.
_NUMBERS = (
    ("mask", "structure", False, "pixel_accuracy", True, 1.0),
    ("structure x 1000", "structure", False, "structure", False, 1000.0),
    ("KID x 1000", "KID x 1000", False, "kid", False, 1000.0),
    ("text", "text", True, "text", True, 1.0),
)
SAME, OTHER, OPEN = "as in the paper", "the other way round", "undecided"


def _interval(row: Mapping[str, Any], name: str) -> tuple[float, Sequence[float]] | None:
    value = row["mask"]["pixel_accuracy"] if name == "pixel_accuracy" else row.get(name)
    ends = row["intervals"].get(name)
    return None if value is None or ends is None else (value, ends)


def verdict(published: float, low: float, high: float) -> str:
    """Signs: of the published gain, and of ours, whose interval this is. One that holds zero decides nothing.

    >>> verdict(-2.4, -0.08, -0.03)
    'as in the paper'
    """
    if low <= 0 <= high or published == 0:
        return OPEN
    return SAME if (published > 0) == (low > 0) else OTHER


def _gain(results: Mapping[str, Any], name: str, base: str, key: str) -> tuple[float, float, float] | None:
    """Row less its base with an interval: of the pairs, where there are; else from both rows' own, which is wider."""
    rows, paired = results["rows"], results["against"].get(name)
    if paired is not None and paired["base"] == base and key in paired:
        value, low, high = paired[key]
        return None if low is None else (value, low, high)
    mine, theirs = _interval(rows[name], key), _interval(rows[base], key)
    if mine is None or theirs is None:
        return None
    value, (low, high) = mine
    against, (floor, ceiling) = theirs
    # lower end: both errors that pull down, added as independent ones are
    down = ((value - low) ** 2 + (ceiling - against) ** 2) ** 0.5
    up = ((high - value) ** 2 + (against - floor) ** 2) ** 0.5
    return value - against, value - against - down, value - against + up


def ordering_table(results: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Head and lines: for each pair and number the paper's two values, our difference, and what follows."""
    head = ["less the whole method", "number", "paper: row, whole", "ours: difference", "order"]
    lines = []
    for name, (published, base) in PAIRS.items():
        if name not in results["rows"] or base not in results["rows"]:
            continue
        for title, column, more, key, better, factor in _NUMBERS:
            theirs, whole = (COLUMNS["published"][row].get(column) for row in (published, "text + mask"))
            gain = _gain(results, name, base, key)
            if theirs is None or whole is None or gain is None:
                continue
            value, low, high = (factor * part for part in gain)
            signs = (theirs - whole) * (1 if more else -1), *sorted((1 if better else -1) * end for end in (low, high))
            digits = {"pixel_accuracy": 3, "structure": 2}.get(key, 1)
            shown = f"{value:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}]"
            lines.append([results["rows"][name]["title"], title, f"{theirs:g}, {whole:g}", shown, verdict(*signs)])
    return head, lines
