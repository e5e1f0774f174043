"""What somebody who plays waits for, against a plain diffusers picture of the same base, both in this run.

    python benchmarks/playground.py [--dtype bf16] [--rounds 7]

The shipped tiny base and adapter on this machine's CPU: a picture of 28 steps from mask and sentence, and previews of 6
steps of the same mask, of one that a stroke has changed, and of a new one. The yardstick is a picture of 28 steps by
diffusers' own FluxPipeline from the sentence alone, with as many text tokens. Then the same once more with a process on
each core that does nothing but compute.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace

import mogle  # noqa: F401  # isort: skip  # before torch, whose threads it tells how to wait
import torch
from diffusers import FluxPipeline
from diffusers.utils import logging
from sampling import DTYPES, once

from mogle.checkpoints import adapter_folder, base_folder, load_pipeline
from mogle.errors import MogleWarning
from mogle.labels import LABELS
from mogle.sampling import Settings, run, sized
from mogle.tiny.portraits import paint

SENTENCE = "She has blond hair and wears lipstick."


@contextlib.contextmanager
def others(count: int) -> Iterator[None]:
    """So many processes that compute."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def ways(dtype: torch.dtype) -> dict[str, Callable[[], object]]:
    """What is timed, by name; the yardstick first."""
    pipe = load_pipeline(base_folder(), adapter_folder(), "cpu", dtype=dtype)
    plain = FluxPipeline.from_pretrained(base_folder(), torch_dtype=dtype)
    for one in (pipe, plain):
        one.set_progress_bar_config(disable=True)
    known, new = sized(Settings(steps=6).recipe(SENTENCE, paint(0).mask, 0), pipe), paint(1).mask
    picture = replace(known, steps=28)
    strokes = iter(range(10**9))

    def stroke() -> object:
        mask, row = known.mask.copy(), next(strokes) % 64
        mask[row : row + 2, 40:60] = (mask[row : row + 2, 40:60] + 1) % len(LABELS)
        return run(pipe, [replace(known, mask=mask)])

    def anew() -> object:
        pipe.known_images.tokens.clear()
        return run(pipe, [replace(known, mask=new)])

    def by_diffusers() -> object:
        settings = {"height": picture.height, "width": picture.width, "num_inference_steps": 28}
        generator = torch.Generator().manual_seed(0)
        return plain(SENTENCE, max_sequence_length=pipe.max_prompt_tokens, generator=generator, **settings)

    return {
        "a plain FluxPipeline picture, 28 steps": by_diffusers,
        "a picture, 28 steps": lambda: run(pipe, [picture]),
        "a preview, 6 steps, the same mask": lambda: run(pipe, [known]),
        "a preview, 6 steps, after a stroke": stroke,
        "a preview, 6 steps, a new mask": anew,
    }


def main() -> None:
    """Prints one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dtype", choices=DTYPES, default="fp32")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    warnings.simplefilter("ignore", FutureWarning)
    warnings.simplefilter("ignore", MogleWarning)
    logging.disable_progress_bar()
    timed, cores, tables = ways(DTYPES[options.dtype]), os.cpu_count() or 1, []
    for busy in (0, cores):
        with others(busy):
            # in turns, after a round that does not count, each against the plain picture of its own round
            rounds = [[once(way, "cpu") for way in timed.values()] for _ in range(options.rounds + 1)][1:]
        tables.append(dict(zip(timed, zip(*rounds, strict=True), strict=True)))
    print(f"{options.dtype}, {torch.get_num_threads()} threads, {cores} cores, {torch.__version__}")
    print("| what | seconds | of a plain picture | busy: seconds | of a plain picture | of its idle time |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    yardstick = next(iter(timed))
    for name in timed:
        row, medians = [], [statistics.median(table[name]) for table in tables]
        for table, median in zip(tables, medians, strict=True):
            ratio = statistics.median(a / b for a, b in zip(table[name], table[yardstick], strict=True))
            row += [f"{median:.2f}", f"{ratio:.2f}"]
        print(f"| {name} | {' | '.join(row)} | {medians[1] / medians[0]:.1f} |")


if __name__ == "__main__":
    main()
