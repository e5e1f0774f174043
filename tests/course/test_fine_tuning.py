"""Notebook 08: its figures, and that the recorded trainings show what the notebook says of them."""

import numpy as np
import pytest

from workbook.exercises.lora import CURVES, FAULTS, broken_curves, recorded
from workbook.figures_training import curves, growth, smooth, stacked, sweeps

RUNS = recorded()["runs"]


def by_fault(number):
    letter = next(letter for letter, fault in broken_curves().items() if fault == number)
    run = RUNS[CURVES[letter]]
    return np.array(run["loss"]), np.array([value for _, value in run["others"]])


def test_each_broken_training_shows_what_is_said_of_it():
    losses, sound = by_fault(1)
    assert sound[-1] < 0.9 * sound[0] and sound[-1] <= 1.01 * sound.min()
    assert np.ptp(by_fault(3)[1]) == 0, "nothing is trained: level to the last digit"
    assert np.ptp(by_fault(6)[1][2:]) == 0 and by_fault(6)[1][2] < by_fault(6)[1][0]
    half = len(sound) // 2
    assert np.allclose(by_fault(8)[1][: half + 1], sound[: half + 1]) and by_fault(8)[1][half + 1] > sound[half] * 1.03
    assert by_fault(5)[0][0] > 3 * losses[0] and by_fault(5)[1][-1] > by_fault(5)[1][0]
    one_batch, others = by_fault(4)
    assert np.abs(np.diff(one_batch[5:])).max() < 0.2 * np.abs(np.diff(losses[5:])).max()
    assert one_batch[-1] < 0.8 * others[-1] and others[-1] > others.min()
    assert set(broken_curves().values()) < set(FAULTS)


def test_a_running_mean_begins_with_the_first_value():
    assert smooth([3.0, 3.0, 3.0]) == pytest.approx([3, 3, 3])
    assert smooth([1.0, 0.0])[1] == pytest.approx(0.85 / 1.85)


def test_figures_name_their_axes():
    picture = np.zeros((8, 8, 3), np.uint8)
    grown = growth([0.5, 0.4, 0.3], {0: 0.5, 3: 0.7}, 0.6, {0: picture, 3: picture}, picture, handover=1)
    assert [ax.get_title() for ax in grown.axes[2:]] == ["mask", "0 steps", "3 steps"]
    swept = sweeps({"rank": {"1": [(0, 1.0), (5, 0.5)]}, "rate": {"2": [(0, 1.0), (5, 0.4)]}})
    several = curves({name: {"loss": [1.0, 0.5], "others": [(0, 1.0), (2, 0.6)]} for name in "ABCD"}, across=2)
    bars = stacked({"t4": {"weights": 6.0, "trained": 0.5}, "l4": {"weights": 6.0, "trained": 1.5}}, xlabel="GiB")
    for ax in [*grown.axes[:2], swept.axes[0], several.axes[2]]:
        assert ax.get_xlabel() and ax.get_ylabel()
    assert [text.get_text() for text in bars.axes[0].texts] == ["6.5", "7.5"] and bars.axes[0].get_xlabel() == "GiB"
