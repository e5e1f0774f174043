"""How the tiny base draws as its training goes on, and where it errs: by part of the face and by noise level.

python docs/base_curve.py runs/tiny CHECKPOINT... [--n 200] [--out docs/base.json]

Checkpoints are what the stages `base` and `decay` of `mogle pretrain` write. Held-out portraits are drawn from their
fullest sentence and a flat drawing in random colours as second stream: what the base can do before any adapter. Each
is drawn from noise, and from part of the way to it with the true picture beneath: what is right from there on was
right in the picture, so where the numbers fall is where the base errs. The parser of checkpoints/judges reads them.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mogle.labels import LABELS
from mogle.metrics.judges import load_judges
from mogle.metrics.masks import class_iou, confusion_matrix, mean_iou, pixel_accuracy
from mogle.tiny.base import FlowLoss, decode, sample
from mogle.tiny.pretrain import Workshop, _corpus, _networks, load_settings

SINCE = (1.0, 0.8, 0.6, 0.4)


def score(masks: np.ndarray, pictures: np.ndarray, parser: Any) -> dict[str, Any]:
    """Pixel accuracy, mIoU and each class's IoU of pictures (N, H, W, 3) against label maps (N, H, W)."""
    matrix = confusion_matrix(masks, parser.parse(pictures))
    each = {name: round(float(iou), 3) for name, iou in zip(LABELS, class_iou(matrix), strict=True)}
    return {"accuracy": round(pixel_accuracy(matrix), 4), "miou": round(mean_iou(matrix), 4), "iou": each}


def main() -> None:
    """Measures each checkpoint, prints a table and writes everything as JSON."""
    from diffusers import AutoencoderKL

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="what mogle pretrain has written")
    parser.add_argument("checkpoints", type=Path, nargs="+")
    parser.add_argument("--settings", type=Path, required=True)
    parser.add_argument("--n", type=int, default=200)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()

    shop = Workshop(given.folder, load_settings(given.settings))
    _, heldout = _corpus(shop).split()
    some, masks = heldout.rows(slice(0, given.n)), shop.portraits()[1][-len(heldout.tokens) :][: given.n]
    vae = AutoencoderKL.from_pretrained(shop.base_dir / "vae").float().eval()
    judge = load_judges("checkpoints/judges").parser
    found: dict[str, Any] = {
        "portraits": len(masks),
        "reconstruction": score(masks, _pictures(vae, some.tokens), judge),
    }
    print(f"| samples | {' | '.join(f'from t = {since:g}' for since in SINCE)} |\n|---|{'---|' * len(SINCE)}")
    for path in given.checkpoints:
        state = torch.load(path, weights_only=True, map_location="cpu")
        transformer, clip, t5 = _networks(shop)
        loss = FlowLoss(transformer, some, shop.speed, (clip, t5), False).eval()
        loss.load_state_dict({k.removeprefix("module."): v for k, v in state["average"].items() if k != "n_averaged"})
        samples = state["steps"] * shop.settings["base"]["train"]["batch"]
        rows = {}
        for since in SINCE:
            tokens = sample(loss, some, some.views["drawing"].float(), since=since)
            rows[f"{since:g}"] = score(masks, _pictures(vae, tokens), judge)
        found[path.stem] = {"samples": samples, **rows}
        print(f"| {samples:,} | {' | '.join(str(row['miou']) for row in rows.values())} |", flush=True)
    if given.out:
        given.out.write_text(json.dumps(found, indent=1) + "\n")


def _pictures(vae: Any, tokens: torch.Tensor) -> np.ndarray:
    return torch.cat([decode(vae, part) for part in tokens.float().split(64)]).numpy()


if __name__ == "__main__":
    main()
