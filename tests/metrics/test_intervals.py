"""Intervals that say 95 % are right in 90 to 99 of 100 cases, and say so for perfect scores too."""

from __future__ import annotations

import numpy as np
import pytest

from mogle.errors import MogleError
from mogle.metrics.distances import area_under_curve, detection_auc, diversity, fid_estimate, seed_distances
from mogle.metrics.intervals import balanced_estimate, bootstrap, mean_estimate
from mogle.metrics.kernels import SCALE, cmmd, discrepancy, gaussian, kernel_tables, kid, kid_difference
from mogle.metrics.masks import mean_iou, pixel_accuracy

REPEATS = 200


def _mask_counts(rng: np.random.Generator, n: int = 60) -> np.ndarray:
    """Confusion matrices (n, 3, 3) of pictures that differ in how good they are; their expectation is `_MASK_MEAN`."""
    quality = rng.beta(8, 2, size=n)
    shares = [q * np.diag([0.6, 0.3, 0.1]) + (1 - q) / 9 for q in quality]
    return np.stack([rng.multinomial(200, share.ravel()).reshape(3, 3) for share in shares])


_MASK_MEAN = 1e6 * (0.8 * np.diag([0.6, 0.3, 0.1]) + 0.2 / 9)


def _pair(rng: np.random.Generator, shift: float, n: int = 100, d: int = 8) -> tuple[np.ndarray, np.ndarray]:
    return rng.normal(size=(n, d)), rng.normal(size=(n, d)) + shift


def _cubic(shift: float, d: int = 8) -> float:
    """KID between N(0, 1) and N(shift, 1) in d dimensions, from E(s + 1)^3 = 1 + 3 E s + 3 E s^2 + E s^3, s = x.y / d.

    With means a and b: E s = a.b / d, E s^2 = ((a.b)^2 + |a|^2 + |b|^2 + d) / d^2,
    E s^3 = ((a.b)^3 + 3 (a.b) (|a|^2 + |b|^2 + d) + 6 a.b) / d^3 for a, b among 0 and shift.
    """

    def mean(ab: float, aa: float, bb: float) -> float:
        return 3 * ab / d + 3 * (ab**2 + aa + bb + d) / d**2 + (ab**3 + 3 * ab * (aa + bb + d) + 6 * ab) / d**3

    far = d * shift**2
    return mean(0, 0, 0) + mean(far, far, far) - 2 * mean(0, 0, far)


def _row_pairs(
    rng: np.random.Generator, near: float, far: float, n: int = 100, d: int = 8
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Real rows, and two sets whose rows share most of what makes them differ from each other, as two pictures of one
    mask and seed do: each N(shift, 1)."""
    common = rng.normal(size=(n, d))
    made = [0.95 * common + np.sqrt(1 - 0.95**2) * rng.normal(size=(n, d)) + shift for shift in (near, far)]
    return rng.normal(size=(n, d)), made[0], made[1]


CASES = {
    "mean": (lambda r: mean_estimate(r.exponential(size=40)), 1.0),
    "pixel accuracy": (lambda r: bootstrap(_mask_counts(r), pixel_accuracy, 300), pixel_accuracy(_MASK_MEAN)),
    "mIoU": (lambda r: bootstrap(_mask_counts(r), mean_iou, 300), mean_iou(_MASK_MEAN)),
    "balanced, good": (lambda r: balanced_estimate(r.binomial([60, 25], [0.98, 0.9]), np.array([60, 25])), 0.94),
    "balanced, nearly perfect": (lambda r: balanced_estimate(r.binomial([80, 80], 0.99), np.array([80, 80])), 0.99),
    "KID, alike": (lambda r: kid(*_pair(r, 0.0)), 0.0),
    "KID, near": (lambda r: kid(*_pair(r, 0.2)), _cubic(0.2)),
    "KID, far": (lambda r: kid(*_pair(r, 1.0)), _cubic(1.0)),
    "KID, paired": (lambda r: kid_difference(*_row_pairs(r, 0.6, 0.7)), _cubic(0.7) - _cubic(0.6)),
    "KID, paired, far": (lambda r: kid_difference(*_row_pairs(r, 0.2, 1.0)), _cubic(1.0) - _cubic(0.2)),
    "linear kernel": (lambda r: discrepancy(*kernel_tables(*_pair(r, 0.3), lambda a, b: a @ b.T)), 8 * 0.3**2),
    "FID, alike": (lambda r: fid_estimate(*_pair(r, 0.0, d=3)), 0.0),
    "FID, far": (lambda r: fid_estimate(*_pair(r, 0.5, d=3)), 3 * 0.5**2),
    "AUC": (lambda r: area_under_curve(r.normal(size=50), 1 + r.normal(size=50)), 0.760250),
    "AUC, chance": (lambda r: area_under_curve(r.normal(size=50), r.normal(size=70)), 0.5),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_intervals_cover_the_truth(name: str) -> None:
    estimate, truth = CASES[name]
    rng = np.random.default_rng(11)
    made = [estimate(rng) for _ in range(REPEATS)]
    covered = np.mean([e.low <= truth <= e.high for e in made])
    assert 0.90 <= covered <= 0.99, covered
    middle = np.array([e.value for e in made])
    assert abs(middle.mean() - truth) < 4 * middle.std() / np.sqrt(REPEATS) + 1e-9  # no bias to speak of
    assert all(e.low <= e.value <= e.high for e in made)


def test_a_paired_difference_is_that_of_both_and_surer() -> None:
    real, first, second = _row_pairs(np.random.default_rng(3), 0.6, 0.7)
    apart, paired = (kid(real, first), kid(real, second)), kid_difference(real, first, second)
    assert paired.value == pytest.approx(apart[1].value - apart[0].value)
    assert 3 * (paired.high - paired.low) < sum(e.high - e.low for e in apart)
    nothing = kid_difference(real, first, first)
    assert nothing.value == 0 and nothing.low == nothing.high == 0
    with pytest.raises(MogleError, match="found 100 and 99 pictures and 100 real ones, expected pairs"):
        kid_difference(real, first, second[1:])


def test_the_gaussian_kernels_interval_covers_what_large_sets_give() -> None:
    rng = np.random.default_rng(0)

    def pair(n: int) -> tuple[np.ndarray, np.ndarray]:
        return rng.normal(size=(n, 6)) + 1, rng.normal(size=(n, 6)) + 1.3

    truth = np.mean([SCALE * discrepancy(*kernel_tables(*pair(1500), gaussian)).value for _ in range(12)])
    covered = np.mean([e.low <= truth <= e.high for e in (cmmd(*pair(80)) for _ in range(REPEATS))])
    assert 0.90 <= covered <= 0.99, covered


def test_an_interval_of_one_picture_or_of_a_perfect_score_does_not_pretend() -> None:
    one = bootstrap(np.eye(3, dtype=int)[None], pixel_accuracy)
    assert one.value == 1 and np.isnan(one.low)
    perfect = balanced_estimate(np.array([20]), np.array([20]))
    assert perfect.value == perfect.high == 1 and 0.75 < perfect.low < 0.95
    assert area_under_curve(np.zeros(20), np.ones(20)).low < 0.95
    with pytest.raises(MogleError, match="no pictures"):
        bootstrap(np.empty((0, 3, 3)), pixel_accuracy)


def test_a_classifier_tells_apart_what_differs_and_nothing_else() -> None:
    rng = np.random.default_rng(0)
    real, same, other = rng.normal(size=(3, 150, 10))
    assert detection_auc(real, other + 2).value > 0.99
    alike = detection_auc(real, same)
    assert alike.low < 0.5 < alike.high
    ties = area_under_curve(np.zeros(5), np.zeros(7))
    assert ties.value == 0.5
    negative, positive = rng.integers(0, 6, 30), rng.integers(2, 8, 20)
    pairs = (positive[:, None] > negative).mean() + (positive[:, None] == negative).mean() / 2
    assert area_under_curve(negative, positive).value == pytest.approx(pairs)


def test_diversity_is_measured_in_strangers() -> None:
    rng = np.random.default_rng(0)
    real = rng.normal(size=(500, 16))
    assert diversity(np.repeat(rng.normal(size=(30, 1, 16)), 3, axis=1), real).value == 0
    strangers = diversity(rng.normal(size=(200, 3, 16)), real)
    assert strangers.low < 1 < strangers.high or strangers.value == pytest.approx(1, abs=0.02)
    assert seed_distances(np.array([[[0.0, 0], [3, 4], [0, 0]]])).tolist() == [pytest.approx(10 / 3)]
    with pytest.raises(MogleError, match="two seeds"):
        seed_distances(np.zeros((3, 1, 4)))
