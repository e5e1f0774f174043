"""What measuring costs: 1,000 portraits through every metric of the tiny track, and memory at 100,000 feature rows.

python benchmarks/metrics.py
"""

from __future__ import annotations

import resource
import sys
import time

import numpy as np

from mogle.checkpoints import JUDGES, shipped
from mogle.metrics.distances import fid
from mogle.metrics.kernels import cmmd, kid
from mogle.metrics.measure import Instruments, measure
from mogle.metrics.rows import ROWS, Made
from mogle.tiny.source import painted_samples


def peak() -> float:
    """The most memory that this process has had, in GB."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def portraits(count: int) -> None:
    """Every number of one row of `mogle evaluate`, FID besides, on `count` portraits against as many others."""
    samples = painted_samples(count, 128)
    tools = Instruments.load(shipped(JUDGES))
    start = time.perf_counter()
    reference = tools.features(samples.others)
    numbers, _ = measure(Made(ROWS["text+mask"], samples, samples.images), tools, reference)
    seconds = time.perf_counter() - start
    print(f"{count} portraits through all metrics, painting apart: {seconds:.0f} s, {peak():.1f} GB")
    found = f"KID x 1000 {1000 * numbers['kid']:.2f}, FID {numbers['fid']:.2f}, CMMD {numbers['cmmd']:.3f}"
    print(f"  {found}: real against real")


def rows(count: int, width: int = 192) -> None:
    """KID, CMMD and FID of two sets of `count` random features."""
    rng = np.random.default_rng(0)
    real = rng.standard_normal((count, width), dtype=np.float32)
    fake = rng.standard_normal((count, width), dtype=np.float32) + 0.1
    before = peak()
    for name, metric in (("FID", fid), ("KID", kid), ("CMMD", cmmd)):
        start = time.perf_counter()
        metric(real, fake)
        print(f"{name} of {count:,} rows of {width}: {time.perf_counter() - start:.0f} s, {peak():.1f} GB", flush=True)
    assert peak() < max(4.0, before)


if __name__ == "__main__":
    portraits(1000)
    rows(100_000)
