"""Steps a second of the trainer with encodings from the cache, and with everything encoded anew at each step.

    python benchmarks/training.py [--steps 20]

The tiny base and painted portraits, settings "tiny", both loops in this run.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import torch

from mogle.training.finetune import fine_tune
from mogle.training.settings import load_train_settings


def main() -> None:
    """Prints one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--count", type=int, default=64, help="portraits")
    options = parser.parse_args()
    pairs = [f"count={options.count}", "warm_start=0"]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for cache in ("true", "false"):
            settings = load_train_settings("tiny", [*pairs, f"cache={cache}", f"steps={options.steps}"])
            start = time.perf_counter()
            facts = fine_tune(Path(folder, cache), settings, cache=Path(folder, "cache"))
            speed = facts["images_per_second"] / settings.batch
            rows.append((cache, speed, time.perf_counter() - start))
    print(f"{torch.get_num_threads()} CPU threads, batch {settings.batch}, {options.steps} steps")
    print("| cache | steps a second | seconds in all, with loading and encoding |\n| --- | ---: | ---: |")
    for cache, speed, whole in rows:
        print(f"| {cache} | {speed:.3f} | {whole:.1f} |")
    print(f"with cache {rows[0][1] / rows[1][1]:.1f} times as fast")


if __name__ == "__main__":
    main()
