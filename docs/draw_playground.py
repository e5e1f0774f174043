"""The README's moving picture: `python docs/draw_playground.py`, a mask edited by hand and the face that follows.

Each scene paints a stroke or writes a word, and then samples with the shipped weights; what is seen on the way are the
previews of `mogle.sampling.run`, as the web demo and the notebooks' playground show them.
"""

from __future__ import annotations

import argparse
import io
import textwrap
from collections.abc import Iterator, Sequence
from itertools import pairwise
from os.path import commonprefix
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

SIDE, GAP, LINE = 256, 12, 26  # pixels of each half, between them, and of a line of text
LIMIT = 600_000  # bytes
STROKE, TYPED, STEP, DONE = 70, 60, 130, 1800  # milliseconds that a frame is seen
MASK = Path(__file__).resolve().parents[1] / "data" / "portraits" / "mask" / "19.png"


class Scene(NamedTuple):
    """What somebody does, the sentence afterwards, and a stroke: class, radius, points (x, y) in the mask's pixels."""

    title: str
    sentence: str
    label: str = ""
    radius: int = 0
    points: Sequence[tuple[int, int]] = ()


SCENES = (
    Scene("a mask", "She has red hair and fair skin."),
    Scene("paint hair", "She has red hair and fair skin.", "hair", 6, ((92, 33), (78, 27), (58, 24), (38, 29))),
    Scene("write", "She has black hair and fair skin."),
    Scene("paint a hat", "She has black hair and fair skin. She wears a blue hat.", "hat", 10,
          ((24, 38), (36, 26), (54, 19), (76, 19), (94, 27), (106, 40), (90, 22), (64, 10), (38, 20), (64, 14))),
)  # fmt: skip


class Seen(NamedTuple):
    """What a frame shows: the label map, the face, the sentence, and what is said below both halves."""

    mask: np.ndarray
    face: Image.Image | None
    sentence: str
    title: str
    step: int = 0
    steps: int = 0
    cursor: tuple[int, int, int] | None = None  # x, y and radius of the brush in the mask's pixels


def stamped(mask: np.ndarray, scene: Scene) -> Iterator[tuple[np.ndarray, tuple[int, int, int]]]:
    """The mask while a brush goes along the points, hard-edged as in the painter; and where the brush is, how large."""
    from mogle.labels import LABELS

    rows, columns = np.mgrid[: mask.shape[0], : mask.shape[1]]
    ends = pairwise(np.array(scene.points, float))
    path = [place for a, b in ends for place in np.linspace(a, b, int(np.hypot(*(b - a)) / 2))]
    for number, (x, y) in enumerate(path):
        there = np.hypot(columns - x, rows - y) <= scene.radius
        mask = np.where(there, LABELS.index(scene.label), mask).astype(np.uint8)
        if number % 4 == 3 or number == len(path) - 1:
            yield mask, (round(x), round(y), scene.radius)


def frame(seen: Seen) -> Image.Image:
    """One frame: mask and face side by side, the sentence above, what happens below."""
    from mogle.labels import colorize

    large, small = (ImageFont.load_default(size) for size in (20, 17))
    height = 2 * LINE + SIDE + LINE + 8
    page = Image.new("RGB", (2 * SIDE + GAP, height), "white")
    pen = ImageDraw.Draw(page)
    for number, line in enumerate(textwrap.wrap(f"“{seen.sentence}”", 56)[:2]):
        pen.text((2, 2 + number * LINE), line, "#1f2328", large)
    top, right = 2 * LINE, SIDE + GAP
    page.paste(Image.fromarray(colorize(seen.mask)).resize((SIDE, SIDE), Image.Resampling.NEAREST), (0, top))
    if seen.face is None:
        pen.rectangle((right, top, right + SIDE - 1, top + SIDE - 1), "#eaeef2")
    else:
        page.paste(seen.face.resize((SIDE, SIDE), Image.Resampling.BICUBIC), (right, top))
    if seen.cursor is not None:
        x, y, radius = (value * SIDE / seen.mask.shape[1] for value in seen.cursor)
        pen.circle((x, top + y), radius + 2, outline="white", width=3)
        pen.circle((x, top + y), radius + 2, outline="black", width=1)
    pen.text((2, top + SIDE + 5), seen.title, "#1f2328", small)
    if seen.steps:
        pen.text((right, top + SIDE + 5), f"step {seen.step} of {seen.steps}", "#1f2328", small)
        x, y, length = right + 130, top + SIDE + 12, SIDE - 131
        pen.rectangle((x, y, x + length, y + 8), "#d0d7de")
        pen.rectangle((x, y, x + length * seen.step // seen.steps, y + 8), "#0b62d6")
    return page


def played(steps: int, seed: int = 1) -> Iterator[tuple[Seen, int]]:
    """What is seen, and for how many milliseconds."""
    from mogle.checkpoints import adapter_folder, base_folder, load_pipeline
    from mogle.labels import decode_mask
    from mogle.sampling import Settings, run, sized

    pipe = load_pipeline(base_folder(), adapter_folder(), "cpu")
    pipe.set_progress_bar_config(disable=True)
    mask, sentence, face = decode_mask(MASK), "", None
    for scene in SCENES:
        for painted, cursor in stamped(mask, scene):
            mask = painted
            yield Seen(mask, face, sentence, scene.title, cursor=cursor), STROKE
        for end in range(len(commonprefix([sentence, scene.sentence])), len(scene.sentence), 3):
            yield Seen(mask, face, scene.sentence[:end] + "|", scene.title), TYPED
        sentence = scene.sentence
        previews: list[Image.Image] = []
        recipe = sized(Settings(steps=steps).recipe(sentence, mask, seed), pipe)
        (face,) = run(pipe, [recipe], lambda step, of, preview, kept=previews: kept.append(preview()[0]))
        for step, preview in enumerate(previews, start=1):
            if step % 2 or step == steps:  # every other one is enough to see it form
                yield Seen(mask, preview, sentence, scene.title, step, steps), DONE if step == steps else STEP


def packed(frames: Sequence[Image.Image], times: Sequence[int]) -> bytes:
    """The frames as an animated WebP that goes on for ever, as good as `LIMIT` allows."""
    for quality in range(80, 20, -10):
        file = io.BytesIO()
        options: dict[str, Any] = {"duration": list(times), "loop": 0, "quality": quality, "method": 6}
        frames[0].save(file, "WEBP", save_all=True, append_images=frames[1:], minimize_size=True, **options)
        if file.tell() <= LIMIT:
            break
    return file.getvalue()


def main(arguments: Sequence[str] | None = None) -> None:
    """Draws the moving picture and says where it is and how large."""
    parser = argparse.ArgumentParser(prog="python docs/draw_playground.py", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs/playground.webp"))
    parser.add_argument("--steps", type=int, default=20)
    options = parser.parse_args(arguments)
    seen, times = zip(*played(options.steps), strict=True)
    file = packed([frame(one) for one in seen], times)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_bytes(file)
    print(f"{options.out}: {len(seen)} frames, {sum(times) / 1000:.0f} s, {len(file) // 1000} kB")


if __name__ == "__main__":
    main()
