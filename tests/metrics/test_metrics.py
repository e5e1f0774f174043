"""Metrics against naive computations and against the numbers of the reference's libraries."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from mogle.errors import MogleError
from mogle.metrics import kernels
from mogle.metrics.attributes import encode_attributes, judgeable, score_attributes
from mogle.metrics.distances import (
    extrapolated_fid,
    fid,
    fid_by_size,
    frechet_distance,
    moments,
    structure_as_reported,
    structure_distances,
)
from mogle.metrics.kernels import cmmd, kid, kid_subsets
from mogle.metrics.masks import class_iou, confusion_matrix, mean_iou, pixel_accuracy

GOLDEN = Path(__file__).parents[1] / "golden"


def naive_kid(real: np.ndarray, fake: np.ndarray) -> float:
    def k(a: np.ndarray, b: np.ndarray) -> float:
        return (float(np.dot(a, b)) / len(a) + 1) ** 3

    n, m = len(real), len(fake)
    xx = sum(k(real[i], real[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    yy = sum(k(fake[i], fake[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    return xx + yy - 2 * sum(k(a, b) for a in real for b in fake) / (n * m)


def test_kid_matches_cleanfid() -> None:
    features = load_file(GOLDEN / "metrics.safetensors")
    expected = json.loads((GOLDEN / "metrics.json").read_text())
    real, fake = features["inception.real"], features["inception.fake"]
    assert kid(real, fake).value == pytest.approx(expected["kid_full_set"], rel=1e-3)
    subsets = kid_subsets(real, fake, size=expected["kid_subset_size"])
    assert subsets.mean() == pytest.approx(np.mean(expected["kid_subset_estimates"]), abs=0.005)


def test_kid_matches_a_double_loop_in_any_blocks(monkeypatch) -> None:
    rng = np.random.default_rng(0)
    real, fake = rng.normal(size=(13, 7)), rng.normal(0.3, 1, size=(9, 7))
    monkeypatch.setattr(kernels, "BLOCK", 4)
    assert kid(real, fake).value == pytest.approx(naive_kid(real, fake), rel=1e-10)
    assert kid(real[rng.permutation(13)], fake).value == pytest.approx(kid(real, fake).value, rel=1e-10)
    same = [kid(rng.normal(size=(60, 7)), rng.normal(size=(60, 7))).value for _ in range(100)]
    assert abs(np.mean(same)) < 4 * np.std(same) / 10 and min(same) < 0  # unbiased


def test_fid_cmmd_and_structure_match_the_reference() -> None:
    features = load_file(GOLDEN / "metrics.safetensors")
    expected = json.loads((GOLDEN / "metrics.json").read_text())
    assert fid(features["inception.real"], features["inception.fake"]) == pytest.approx(expected["fid"], rel=1e-3)
    assert cmmd(features["clip.real"], features["clip.fake"]).value == pytest.approx(expected["cmmd"], rel=2e-3)
    distances = structure_distances(features["keys.real"], features["keys.fake"])
    assert distances.mean() == pytest.approx(expected["structure_per_image"], rel=1e-3)
    assert structure_as_reported(distances) == pytest.approx(expected["structure_as_reported"], rel=1e-3)


SET_DISTANCES = {
    "FID": fid,
    "KID": lambda real, fake: kid(real, fake).value,
    "CMMD": lambda real, fake: cmmd(real, fake).value,
}


@pytest.mark.parametrize("metric", SET_DISTANCES.values(), ids=SET_DISTANCES)
def test_distances_between_sets_obey_their_laws(metric) -> None:
    rng = np.random.default_rng(0)
    real, fake = rng.normal(size=(80, 6)) + 2, 1.3 * rng.normal(size=(70, 6)) + 2.5
    value = metric(real, fake)
    assert value == pytest.approx(metric(fake, real), rel=1e-6)
    assert value == pytest.approx(metric(real[rng.permutation(80)], fake[rng.permutation(70)]), rel=1e-6)
    assert metric(real, fake + 1) != pytest.approx(value, rel=1e-3) and metric(real, real) <= 1e-6
    turn = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    assert metric(real @ turn, fake @ turn) == pytest.approx(value, rel=1e-6)


@pytest.mark.parametrize("metric", [SET_DISTANCES["FID"], SET_DISTANCES["CMMD"]], ids=["FID", "CMMD"])
def test_every_picture_twice_changes_next_to_nothing_and_identical_sets_are_at_distance_zero(metric) -> None:
    rng = np.random.default_rng(0)
    real, fake = rng.normal(size=(300, 6)) + 2, 1.3 * rng.normal(size=(300, 6)) + 2.5
    twice = metric(np.repeat(real, 2, axis=0), np.repeat(fake, 2, axis=0))
    assert twice == pytest.approx(metric(real, fake), rel=5e-3)  # FID divides by n - 1; CMMD's biased estimate agrees
    assert metric(real, real) == pytest.approx(0, abs=1e-6)


def test_kid_takes_a_copied_picture_for_more_agreement_than_there_is() -> None:
    rng = np.random.default_rng(0)
    real, fake = rng.normal(size=(50, 6)), rng.normal(size=(50, 6))
    assert kid(real, np.repeat(fake[:5], 10, axis=0)).value > 5 * abs(kid(real, fake).value)  # a collapsed generator
    assert kid(real, real).value < 0  # each picture meets itself across the sets, and not within them


@pytest.mark.filterwarnings("ignore:Metric `Kernel Inception Distance` will save")
def test_fid_and_kid_match_torchmetrics() -> None:
    import torch
    from torchmetrics.image.fid import FrechetInceptionDistance
    from torchmetrics.image.kid import KernelInceptionDistance

    class Features(torch.nn.Module):
        """Rows pass through: torchmetrics computes on our features."""

        num_features = 16

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.flatten(1)

    rng = np.random.default_rng(0)
    real, fake = rng.normal(size=(120, 16)), rng.normal(size=(120, 16)) * 1.2 + 0.3
    theirs = (
        FrechetInceptionDistance(feature=Features(), input_img_size=(1, 4, 4)).set_dtype(torch.float64),
        KernelInceptionDistance(feature=Features(), subsets=2, subset_size=120).set_dtype(torch.float64),
    )
    for metric, ours in zip(theirs, (fid(real, fake), kid(real, fake).value), strict=True):
        for rows, is_real in ((real, True), (fake, False)):
            metric.update(torch.from_numpy(rows).view(-1, 1, 4, 4), real=is_real)
        value = metric.compute()
        assert ours == pytest.approx(float(value[0] if isinstance(value, tuple) else value), rel=1e-4)


def test_fid_ignores_a_common_shift_and_sees_a_shift_between() -> None:
    rng = np.random.default_rng(1)
    real, fake = rng.normal(size=(200, 4)), rng.normal(size=(200, 4))
    assert fid(real + 7, fake + 7) == pytest.approx(fid(real, fake), rel=1e-6)
    assert fid(real, real + np.array([3, 0, 4, 0])) == pytest.approx(25, rel=1e-6)


def test_moments_lose_no_digits() -> None:
    rows = np.random.default_rng(2).normal(size=(50, 5)).astype(np.float32) + 1000
    mean, covariance = moments(rows)
    np.testing.assert_allclose(mean, rows.astype(float).mean(0))
    np.testing.assert_allclose(covariance, np.cov(rows.astype(float), rowvar=False), rtol=1e-8, atol=1e-10)
    assert frechet_distance(moments(rows), moments(rows[::-1])) == pytest.approx(0, abs=1e-6)


def test_fid_of_small_sets_is_too_large_and_extrapolation_mends_it() -> None:
    rng = np.random.default_rng(3)
    real, fake = rng.normal(size=(1500, 12)), rng.normal(size=(1500, 12)) + 0.1
    truth = 12 * 0.1**2
    small, large = fid(real[:60], fake[:60]), fid(real, fake)
    assert small > large > truth
    assert abs(extrapolated_fid(fid_by_size(real, fake)) - truth) < abs(large - truth)


@pytest.mark.parametrize(
    "real, fake", [((1, 4), (5, 4)), ((5, 4), (5, 3)), ((5,), (5, 4))], ids=["one picture", "widths", "shape"]
)
def test_kid_names_what_is_wrong(real, fake) -> None:
    with pytest.raises(MogleError):
        kid(np.zeros(real), np.zeros(fake))


def test_kid_refuses_nan() -> None:
    with pytest.raises(MogleError, match="NaN"):
        kid(np.full((4, 3), np.nan), np.zeros((4, 3)))


def test_confusion_matrix_and_its_numbers_match_loops() -> None:
    rng = np.random.default_rng(1)
    true, predicted = rng.integers(0, 5, (3, 8, 8)), rng.integers(0, 7, (3, 8, 8))
    matrix = confusion_matrix(true, predicted)
    naive = np.zeros((19, 19), int)
    for t, p in zip(true.ravel(), predicted.ravel(), strict=True):
        naive[t, p] += 1
    assert np.array_equal(matrix, naive)
    assert pixel_accuracy(matrix) == pytest.approx((true == predicted).mean())
    ious = [((true == c) & (predicted == c)).sum() / ((true == c) | (predicted == c)).sum() for c in range(5)]
    assert class_iou(matrix)[:5] == pytest.approx(ious) and np.isnan(class_iou(matrix)[5:]).all()
    assert mean_iou(matrix) == pytest.approx(np.mean(ious))  # labels 5 and 6 occur in the prediction alone
    perfect = confusion_matrix(true, true)
    assert pixel_accuracy(perfect) == mean_iou(perfect) == 1


def test_confusion_matrix_refuses_what_does_not_fit() -> None:
    with pytest.raises(MogleError, match="size"):
        confusion_matrix(np.zeros((2, 2), int), np.zeros((2, 3), int))
    with pytest.raises(MogleError, match="label 19"):
        confusion_matrix(np.full((2, 2), 19), np.zeros((2, 2), int))


def test_balanced_accuracy_counts_values_equally_and_skips_the_unknown() -> None:
    true, read = np.array([0, 0, 0, 1, -1]), np.array([0, 0, 1, 1, 1])
    assert score_attributes({"hat": true}, {"hat": read})["hat"]["balanced"] == pytest.approx((2 / 3 + 1) / 2)
    values = {"hat": ("no", "yes"), "hat_color": ("red", "blue")}
    encoded = encode_attributes([{"hat": "no", "hat_color": None}, {"hat": "yes", "hat_color": "blue"}, {}], values)
    assert encoded["hat"].tolist() == [0, 1, -1] and encoded["hat_color"].tolist() == [-1, 1, -1]
    table = score_attributes(encoded, {"hat": np.array([0, 0, 0]), "hat_color": np.array([0, 1, 1])})
    assert table["hat"].items() >= {"n": 2, "accuracy": 0.5, "balanced": 0.5}.items() and table["hat_color"]["n"] == 1


def test_only_what_the_mask_can_show_is_judged() -> None:
    mask = np.zeros((128, 128), np.uint8)
    mask[:40], mask[100:] = 13, 18
    said = {"gender": "man", "hair_color": "red", "hat_color": "blue", "makeup": "yes", "skin": "dark"}
    assert judgeable(said, mask, only_invisible=True) == {"hair_color": "red", "makeup": "yes", "skin": "dark"}
    assert "gender" in judgeable(said, mask, only_invisible=False)
    mask[60:70, 30:90] = 3  # glasses, of which the sentence does not say whether they are dark
    assert "makeup" not in judgeable(said, mask, only_invisible=True)
    assert "makeup" in judgeable({**said, "sunglasses": "no"}, mask, only_invisible=True)
