"""What measuring costs: 1,000 portraits through every metric of the tiny track, and memory at 100,000 feature rows.

python benchmarks/metrics.py
"""

from __future__ import annotations

import resource
import sys
import time

import numpy as np

from mogle.checkpoints import JUDGES, shipped
from mogle.metrics.cmmd import cmmd
from mogle.metrics.evaluate import ROWS, measure
from mogle.metrics.fid import fid, fid_by_size, fid_estimate
from mogle.metrics.judges import load_judges
from mogle.metrics.kid import kid
from mogle.metrics.samples import painted_samples
from mogle.metrics.text import load_text_embedder


def peak() -> float:
    """The most memory that this process has had, in GB."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def portraits(count: int) -> None:
    """Every number of one row of `mogle evaluate`, FID besides, on `count` portraits against as many others."""
    samples = painted_samples(count, 128)
    others = painted_samples(count, 128, first=27_000 + count)
    judges, embedder = load_judges(shipped(JUDGES)), load_text_embedder(shipped(JUDGES))
    start = time.perf_counter()
    reference = judges.reader.read(others.images)[1]
    numbers, measured = measure(ROWS["text+mask"], samples.images, samples, judges, reference, embedder=embedder)
    distances = fid(reference, measured.features), cmmd(reference, measured.features)
    fid_estimate(reference, measured.features)
    fid_by_size(reference, measured.features)
    seconds = time.perf_counter() - start
    print(f"{count} portraits through all metrics, painting apart: {seconds:.0f} s, {peak():.1f} GB")
    print(
        f"  KID x 1000 {1000 * numbers['kid']:.2f}, FID {distances[0]:.2f}, CMMD {distances[1]:.3f}: real against real"
    )


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
