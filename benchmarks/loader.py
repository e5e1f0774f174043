"""Samples a second from the disk with all 20 conditions, ours against the reference's way of loading, in one run.

    python benchmarks/loader.py                  # 64 samples: faces of 1024 px, masks of 512 px, trained at 512 px
    python benchmarks/loader.py --data DATA      # a data set of yours

The reference's way: one process opens picture and mask, makes a picture with PIL for each of the 20 conditions, and
turns each into numbers. Ours is what `mogle train` does when it fills its cache: processes read ahead, the label map
is decoded once, only conditions that are not empty are made, as bytes, and they become numbers on the way into the VAE.
In both the VAE is left out: one that does nothing takes its place. The two take turns, a few samples at a time, so that
a slow moment of the machine falls on both, and both give the VAE the same 20 pictures, which is checked.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from diffusers.image_processor import VaeImageProcessor
from PIL import Image

from mogle.conditions import encode_distinct, encode_images
from mogle.datasets import FaceDataset
from mogle.labels import LABELS, resize_labels, save_mask
from mogle.training.encode import Pair, read_ahead


class NoVae:
    """Takes pictures as a VAE does and gives a few zeros for each; keeps what it has seen, if it is to be compared."""

    device, dtype = torch.device("cpu"), torch.float32
    config = SimpleNamespace(shift_factor=0.0, scaling_factor=1.0)

    def __init__(self, keep: bool = False) -> None:
        self.keep, self.seen = keep, []

    def encode(self, pixels: torch.Tensor) -> Any:
        if self.keep:
            self.seen.append(pixels)
        return SimpleNamespace(latent_dist=SimpleNamespace(mode=lambda: torch.zeros(len(pixels), 16, 2, 2)))


def reference_way(data: FaceDataset, index: int, size: int, vae: NoVae) -> None:
    """Picture and 20 condition pictures by PIL, each through the image preprocessing that goes before a VAE."""
    processor = VaeImageProcessor(vae_scale_factor=16)
    vae.encode(processor.preprocess(Image.open(data.picture_file(index)).convert("RGB"), size, size))
    mask = Image.open(data.mask_file(index)).resize((size, size), Image.Resampling.NEAREST)
    labels = np.asarray(mask)
    pictures = [mask.convert("RGB")]
    pictures += [Image.fromarray((labels == k).astype(np.uint8) * 255).convert("RGB") for k in range(len(LABELS))]
    for picture in pictures:
        vae.encode(processor.preprocess(picture, size, size))


def our_way(pair: Pair, vae: NoVae) -> torch.Tensor:
    """As `mogle.training.encode.Encoder` does -> the index (1, 20) of the conditions among what was encoded."""
    picture, label_map = pair
    encode_images(vae, torch.from_numpy(picture.copy())[None].permute(0, 3, 1, 2))
    return encode_distinct(vae, [label_map])[1]


def make_set(folder: Path, count: int) -> Path:
    """Portraits as MM-CelebA-HQ has them: faces of 1024 px as JPEG, masks of 512 px, one caption."""
    from mogle.tiny.portraits import paint

    for part in ("face", "mask", "text"):
        (folder / part).mkdir()
    for seed in range(count):
        made = paint(seed, size=256)
        face = Image.fromarray(made.image).resize((1024, 1024), Image.Resampling.BICUBIC)
        noise = np.random.default_rng(seed).normal(0, 4, (1024, 1024, 1))  # as much to decode as a photograph has
        pixels = (np.asarray(face) + noise).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / "face" / f"{seed}.jpg", quality=92)
        save_mask(folder / "mask" / f"{seed}.png", resize_labels(made.mask, 512))
        (folder / "text" / f"{seed}.txt").write_text("A portrait.\n")
    return folder


def same(theirs: NoVae, ours: NoVae, index: torch.Tensor) -> bool:
    """Whether both gave the VAE the same conditions."""
    made = torch.cat(ours.seen[1:])[index[0]]
    return torch.allclose(torch.cat(theirs.seen[1:]), made, atol=1e-5)


def measure(data: FaceDataset, size: int, workers: int, part: int = 16) -> dict[str, float]:
    """Median seconds for a sample, of parts of the data set."""
    times: dict[str, list[float]] = {"reference": [], "ours": []}
    for rows in (range(start, start + part) for start in range(0, len(data) - part + 1, part)):
        start = time.perf_counter()
        for row in rows:
            reference_way(data, row, size, NoVae())
        times["reference"].append((time.perf_counter() - start) / part)
        pairs = read_ahead(data, [rows[0], *rows], workers)
        next(pairs)  # the processes have begun, as in a run of thousands
        start = time.perf_counter()
        for pair in pairs:
            our_way(pair, NoVae())
        times["ours"].append((time.perf_counter() - start) / part)
        reference_way(data, rows[-1], size, theirs := NoVae(keep=True))
        index = our_way(pair, ours := NoVae(keep=True))
        if not same(theirs, ours, index):
            raise SystemExit(f"{data.ids[rows[-1]]}: the two ways made different conditions")
    return {way: statistics.median(values) for way, values in times.items()}


def main() -> None:
    """Prints one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--count", type=int, default=64)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--workers", type=int, default=2, help="processes that read ahead; 0 for none")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        data = FaceDataset.checked(options.data or make_set(Path(folder), options.count), size=options.size)
        data.ids = data.ids[: options.count]
        found = measure(data, options.size, options.workers)
    print(f"{len(data)} samples at {options.size} px, no VAE; ours with {options.workers} processes that read ahead\n")
    print("| way | samples a second | times the reference's |\n| --- | ---: | ---: |")
    for way, seconds in found.items():
        print(f"| {way} | {1 / seconds:.1f} | {found['reference'] / seconds:.1f} |")


if __name__ == "__main__":
    main()
