"""The paper's table: its six numbers by its own networks, and the rows that it published, to be held side by side.

Published numbers are of MM-CelebA-HQ at the paper's size, 28 steps, on all its test pictures; ours of whatever was
measured, so a comparison is fair only there. Structure is given for one picture; the paper's sum over batches of 64
(`structure_as_reported`) stands beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from mogle.errors import MogleError
from mogle.metrics.distances import fid, fid_estimate, structure_as_reported, structure_distances
from mogle.metrics.intervals import Estimate, ends, mean_estimate
from mogle.metrics.kernels import cmmd, cmmd_estimate, kid, kid_subsets
from mogle.metrics.stack import Pictures

COLUMNS = ("FID", "KID x 1000", "CMMD", "structure", "text", "ImageReward")
#: Table 1 and the ablations of the paper, in COLUMNS' order; structure as reported, None where it gives no number.
PUBLISHED: dict[str, tuple[float | None, ...]] = {
    "text + mask": (22.24, 10.87, 0.477, 2.44, 26.32, 0.7014),
    "mask only": (19.63, 8.29, 0.399, 2.57, 24.53, 0.0398),
    "text only": (34.81, 21.85, 0.636, 4.94, 26.91, 0.9527),
    "zero-shot, MM-FFHQ-Female": (62.93, 31.27, 1.238, 2.77, 28.06, 0.1801),
    "only global": (30.36, 18.16, None, 2.47, 26.30, None),
    "only local": (33.62, 20.45, None, 4.87, 27.07, None),
    "gate without diffusion input": (25.74, 13.12, None, 2.37, 26.53, None),
    "scalar gate": (43.48, 30.58, None, 4.74, 26.72, None),
    "neither expert nor gate": (33.25, 23.07, None, 2.49, 26.71, None),
    "expert, no gate": (26.55, 14.87, None, 3.20, 26.38, None),
    "gate, no expert": (31.30, 19.11, None, 2.60, 26.64, None),
}


class PaperNetworks:
    """All of them that can be had; what cannot stands in `missing` with the reason, and its columns stay empty."""

    def __init__(self, device: str = "cpu", builders: Mapping[str, Callable[..., Any]] | None = None) -> None:
        from mogle.metrics.networks import BUILDERS

        self.missing: dict[str, str] = {}
        self.networks: dict[str, Any] = {}
        self._seen: dict[tuple[str, int], tuple[Pictures, np.ndarray]] = {}
        for name, build in (builders or BUILDERS).items():
            try:
                self.networks[name] = build(device=device)
            except MogleError as error:
                self.missing[name] = str(error)
        if not self.networks:
            raise MogleError("none of the paper's networks can be had:\n  " + "\n  ".join(self.missing.values()))

    def _reference(self, name: str, pictures: Pictures) -> np.ndarray:
        """Features of real pictures, which stay the same from row to row: computed once for one array."""
        key = name, id(pictures)
        if key not in self._seen:  # the pictures are kept with them, so that no other array gets their id
            self._seen[key] = pictures, self.networks[name].features(pictures)
        return self._seen[key][1]

    def measure(
        self, made: Pictures, sentences: Sequence[str], own: Pictures, reference: Pictures
    ) -> dict[str, dict[str, Any]]:
        """{column: {value, low, high, ...}} of uint8 pictures (N,H,W,3).

        Args:
            sentences: what each was made from.
            own: the real picture of each, for structure.
            reference: real pictures (M,H,W,3) for the distances between sets.
        """
        found: dict[str, dict[str, Any]] = {}
        if inception := self.networks.get("inception"):
            real, fake = self._reference("inception", reference), inception.features(made)
            size = min(1000, len(real), len(fake))
            # the interval is that of endless sets, so the biased number itself may lie above it
            interval = fid_estimate(real, fake)[1:] if min(len(real), len(fake)) >= 20 else (np.nan, np.nan)
            found["FID"] = _cell(Estimate(fid(real, fake), *interval))
            scaled = Estimate(*(1000 * part for part in kid(real, fake)))
            found["KID x 1000"] = _cell(scaled, subsets=1000 * float(kid_subsets(real, fake, size=size).mean()))
        if clip := self.networks.get("clip-cmmd"):
            real, fake = self._reference("clip-cmmd", reference), clip.features(made)
            found["CMMD"] = _cell(Estimate(cmmd(real, fake), *cmmd_estimate(real, fake)[1:]))
        if dino := self.networks.get("dino"):
            each = structure_distances(dino.keys(own), dino.keys(made))
            found["structure"] = _cell(mean_estimate(each), as_reported=structure_as_reported(each))
        if text := self.networks.get("clip-text"):
            found["text"] = _cell(mean_estimate(text.scores(made, sentences)))
        if reward := self.networks.get("reward"):
            found["ImageReward"] = _cell(mean_estimate(reward.scores(made, sentences)))
        return found


def _cell(estimate: Estimate, **more: float) -> dict[str, Any]:
    return {"value": estimate.value, "interval": ends(estimate), **more}


def paper_table(results: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Head and lines: our rows by the paper's networks, then the published ones."""

    def shown(cell: Mapping[str, Any] | None) -> str:
        if cell is None:
            return "not measured"
        interval = cell["interval"]
        text = f"{cell['value']:.4g}" + ("" if interval is None else f" [{interval[0]:.4g}, {interval[1]:.4g}]")
        return text + (f" ({cell['as_reported']:.3g} as reported)" if "as_reported" in cell else "")

    ours = [
        [row["title"], str(row["n"]), *(shown(row["paper"].get(column)) for column in COLUMNS)]
        for row in results["rows"].values()
        if "paper" in row
    ]
    if not ours:
        return [], []
    theirs = {name: ["–" if v is None else f"{v:g}" for v in numbers] for name, numbers in PUBLISHED.items()}
    return ["", "n", *COLUMNS], [*ours, *([f"published: {name}", "", *numbers] for name, numbers in theirs.items())]
