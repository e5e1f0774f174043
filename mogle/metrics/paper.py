"""The paper's six numbers by its own networks, for one row of the evaluation.

What it published (`tables.toml`) is of MM-CelebA-HQ at the paper's size, 28 steps, on all its test pictures; ours of
whatever was measured, so a comparison is fair only there. Structure is given for one picture; the paper's sum over
batches of 64 (`structure_as_reported`) stands beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from mogle.errors import MogleError
from mogle.metrics.distances import fid, fid_estimate, structure_as_reported, structure_distances
from mogle.metrics.intervals import Estimate, ends, mean_estimate
from mogle.metrics.kernels import cmmd, kid, kid_subsets
from mogle.metrics.stack import Pictures


class PaperNetworks:
    """All of them that can be had; what cannot stands in `missing` with the reason, and its columns stay empty."""

    def __init__(self, device: str = "cpu", builders: Mapping[str, Callable[..., Any]] | None = None) -> None:
        from mogle.metrics.networks import BUILDERS

        self.missing: dict[str, str] = {}
        self.networks: dict[str, Any] = {}
        for name, build in (builders or BUILDERS).items():
            try:
                self.networks[name] = build(device=device)
            except MogleError as error:
                self.missing[name] = str(error)
        if not self.networks:
            raise MogleError("none of the paper's networks can be had:\n  " + "\n  ".join(self.missing.values()))

    def features(self, pictures: Pictures) -> dict[str, np.ndarray]:
        """{network: features (N,d)} of those that distances between sets stand on."""
        return {
            name: self.networks[name].features(pictures) for name in ("inception", "clip-cmmd") if name in self.networks
        }

    def measure(
        self, made: Pictures, sentences: Sequence[str], own: Pictures, reference: Mapping[str, np.ndarray]
    ) -> dict[str, dict[str, Any]]:
        """{column: {value, interval, ...}} of uint8 pictures (H,W,3).

        Args:
            sentences: what each was made from.
            own: the real picture of each, for structure.
            reference: `features` of real pictures, for the distances between sets.
        """
        found: dict[str, dict[str, Any]] = {}
        features, networks = self.features(made), self.networks
        if "inception" in networks:
            real, fake = reference["inception"], features["inception"]
            # the interval is that of endless sets, so the biased number itself may lie above it
            interval = fid_estimate(real, fake)[1:] if min(len(real), len(fake)) >= 20 else (np.nan, np.nan)
            found["FID"] = _cell(Estimate(fid(real, fake), *interval))
            subsets = 1000 * float(kid_subsets(real, fake).mean())
            found["KID x 1000"] = _cell(Estimate(*(1000 * part for part in kid(real, fake))), subsets=subsets)
        if "clip-cmmd" in networks:
            found["CMMD"] = _cell(cmmd(reference["clip-cmmd"], features["clip-cmmd"]))
        if dino := networks.get("dino"):
            each = structure_distances(dino.keys(own), dino.keys(made))
            found["structure"] = _cell(mean_estimate(each), as_reported=structure_as_reported(each))
        for column, name in (("text", "clip-text"), ("ImageReward", "reward")):
            if name in networks:
                found[column] = _cell(mean_estimate(networks[name].scores(made, sentences)))
        return found


def _cell(estimate: Estimate, **more: float) -> dict[str, Any]:
    return {"value": estimate.value, "interval": ends(estimate), **more}
