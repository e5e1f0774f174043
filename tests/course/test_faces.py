"""What notebook 01 has in its workbook: attributes without painting, planted faults, its two kinds of figures."""

import numpy as np
import pytest

from mogle.labels import LABELS
from mogle.tiny.portraits import paint
from workbook.exercises.faces import KINDS, class_table, drawn, plant
from workbook.figures import png
from workbook.figures_faces import class_bars, rows_of_dots


@pytest.mark.parametrize("style", ["portraits", "female", "balanced"])
def test_drawn_attributes_are_those_that_are_painted(style):
    for seed, attributes in zip((0, 3, 27000), drawn((0, 3, 27000), style), strict=True):
        painted = paint(seed, 32, style).attributes
        assert list(attributes) == list(painted)
        assert all(value in (attributes[name], None) for name, value in painted.items())


def test_each_fault_is_what_its_kind_says_and_follows_from_its_seed():
    mask = paint(554).mask
    before, bad = mask.copy(), {kind: plant(mask, kind, 1) for kind in KINDS}
    for kind, found in bad.items():
        assert found.dtype == np.uint8 and found.shape == mask.shape and (found != mask).any(), kind
        assert np.array_equal(found, plant(mask, kind, 1)) and np.array_equal(mask, before), kind
    assert np.array_equal(bad["sides"] == 4, mask == 5) and np.array_equal(bad["sides"] == 9, mask == 8)
    assert abs(np.argwhere(bad["nose"] == 2)[:, 1].mean() - 64) > 40
    assert 20 < (bad["island"] != mask).sum() < 100
    assert len(np.unique(bad["missing"])) == len(np.unique(mask)) - 1
    assert len(np.unique(bad["resized"])) > len(np.unique(mask))


def test_bars_stand_for_the_table():
    table = class_table(np.arange(36, dtype=np.uint8).reshape(1, 6, 6) % 17)
    left, right = class_bars(table).axes
    assert [bar.get_width() for bar in left.patches] == pytest.approx(100 * table[:, 0])
    assert [text.get_text() for text in left.get_yticklabels()] == [f"{i} {name}" for i, name in enumerate(LABELS)]
    assert right.get_xscale() == "log" and left.get_xlabel() and right.get_xlabel()


def test_dots_stand_in_the_row_of_their_name():
    figure = rows_of_dots({"one": {"b": 0.2, "a": 0.1}, "two": {"a": 0.7}}, first=["a", "b"], xlabel="x", ylabel="y")
    (ax,) = figure.axes
    assert [text.get_text() for text in ax.get_yticklabels()] == ["a", "b"]
    assert [marks.get_offsets().tolist() for marks in ax.collections] == [[[0.1, 0], [0.2, 1]], [[0.7, 0]]]
    assert png(figure) == png(figure)
