"""The README's grid: `python docs/draw_grid.py`, 36 portraits of the test split, seeds 0 to 35, none left out.

Each pair shows a mask and the picture that it and its portrait's first caption gave.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

FIRST = 27_000  # the test split begins here; nothing was trained on it


def sheet(pairs: Sequence[tuple[Image.Image, Image.Image]], columns: int = 6, gap: int = 4) -> Image.Image:
    """Pairs of a mask and a picture of one size (w, h), `columns` pairs in a row, on white."""
    width, height = pairs[0][0].size
    rows = -(-len(pairs) // columns)
    page = Image.new("RGB", (columns * (2 * width + gap) - gap, rows * (height + gap) - gap), "white")
    for i, pair in enumerate(pairs):
        x, y = i % columns * (2 * width + gap), i // columns * (height + gap)
        page.paste(pair[0], (x, y))
        page.paste(pair[1], (x + width, y))
    return page


def draw(count: int, batch: int = 12, steps: int = 28) -> list[tuple[Image.Image, Image.Image]]:
    """`count` pairs from the shipped weights: portrait FIRST + i with seed i."""
    import torch

    from mogle.checkpoints import adapter_folder, base_folder, load_pipeline
    from mogle.labels import colorize
    from mogle.tiny.portraits import paint

    pipe = load_pipeline(base_folder(), adapter_folder())
    pipe.set_progress_bar_config(disable=True)
    size = pipe.default_sample_size * pipe.vae_scale_factor
    pairs = []
    for start in range(0, count, batch):
        seeds = range(start, min(start + batch, count))
        portraits = [paint(FIRST + seed, size=size) for seed in seeds]
        pictures = pipe(
            [portrait.captions[0] for portrait in portraits],
            [portrait.mask for portrait in portraits],
            num_inference_steps=steps,
            generator=[torch.Generator().manual_seed(seed) for seed in seeds],
        ).images
        pairs += [(Image.fromarray(colorize(p.mask)), picture) for p, picture in zip(portraits, pictures, strict=True)]
    return pairs


def main(arguments: Sequence[str] | None = None) -> None:
    """Draws the grid and says where it is."""
    parser = argparse.ArgumentParser(prog="python docs/draw_grid.py", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs/grid.png"))
    parser.add_argument("--count", type=int, default=36)
    options = parser.parse_args(arguments)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    sheet(draw(options.count)).save(options.out, optimize=True)
    print(f"{options.out}: {options.count} portraits, seeds 0 to {options.count - 1}")


if __name__ == "__main__":
    main()
