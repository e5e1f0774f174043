"""Notebook 11: which differences are decided, what luck does, what the figures show of them; and its spectrum."""

import re

import numpy as np
import pytest

from mogle.ablations import VARIANTS as CLASSES
from mogle.metrics.intervals import Estimate
from workbook.exercises import ablations
from workbook.exercises.ablations import VARIANTS, agreement, decided, luck, measured_gaps, spectrum
from workbook.figures_ablations import gap_rows, look, score_rows
from workbook.results import shipped_results


def test_the_variants_are_the_paper_s_and_the_results_have_each_of_them():
    assert set(VARIANTS) == set(CLASSES) - {"places"} and set(ablations.PUBLISHED) == set(VARIANTS)
    found = shipped_results()
    for name in set(VARIANTS) - {"full"}:
        assert found["against"][f"ablation-{name}"]["base"] == "ablation-full"
        for number in ("pixel_accuracy", "mean_iou", "structure", "text", "kid"):
            gap = measured_gaps(number)[name]
            assert gap.low <= gap.value <= gap.high


def test_a_pair_is_decided_only_beyond_both_intervals():
    gaps = {name: Estimate(value, value - 1, value + 1) for name, value in zip(VARIANTS, range(8), strict=True)}
    pairs = decided(gaps)
    first, second, third, *_ = VARIANTS
    assert (second, first) not in pairs and (third, first) in pairs and (first, third) not in pairs
    best_first = list(VARIANTS)[::-1]
    assert agreement(best_first, pairs) == 1 and agreement(best_first[::-1], pairs) == 0 and agreement([], []) == 1
    assert 0.6 < luck(pairs) < 0.95, "a random order has half of the pairs, and rarely far more"


def test_rows_say_what_an_interval_decides():
    better, worse, undecided = (3.0, 2.0, 4.0), (-30.0, -33.0, -27.0), (0.02, -0.4, 0.44)
    assert len({look(gap) for gap in (better, worse, undecided)}) == 3
    figure = gap_rows(
        {"pixels": {"a": better, "b": worse}, "text": {"a": undecided}}, groups={"one": ["a"], "two": ["b"]}
    )
    left, right = figure.axes
    texts = [text.get_text() for ax in figure.axes for text in ax.texts]
    assert {"+3.0", "-30.0", "0.0", "one", "two"} == set(texts)
    assert [label.get_text() for label in left.get_yticklabels()] == ["a", "b"]
    assert left.get_xlabel() == "pixels" and right.get_xlabel() == "text"
    for ax, gaps in ((left, (better, worse)), (right, (undecided,))):
        low, high = ax.get_xlim()
        assert all(low < end < high for gap in gaps for end in gap)


def test_the_share_that_is_accused_stands_beside_each_row():
    figure = score_rows({"real": [0, 1, 2, 3], "generated": [2, 3, 4, 5]}, 2.5, xlabel="score")
    shares = [text.get_text() for text in figure.axes[0].texts if re.fullmatch(r"\d+%", text.get_text())]
    assert shares == ["25%", "75%"]


@pytest.mark.parametrize("length", [4, 8, 16, 32])
def test_a_wave_lies_in_the_ring_of_its_length(length):
    x = np.arange(64)
    wave = 128 + 100 * np.sin(2 * np.pi * (x + 0.25) / length)
    pictures = np.broadcast_to(wave[None, None, :, None], (1, 64, 64, 3))
    assert spectrum(pictures)[0].argmax() == 2 * 16 // length


def test_every_case_of_a_file_has_a_verdict_and_all_three_occur():
    with ablations._cases() as cases:
        truths = {truth for _, truth in cases.values()}
        assert truths == {ablations.MADE, ablations.NOT_MADE, ablations.OPEN}
        for path, truth in cases.values():
            assert ablations.verdict(path, ablations._WEIGHTS, ablations._painted) == truth
