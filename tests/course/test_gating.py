"""Figures of notebook 07: scales, margins and panels hold what was given."""

import numpy as np
import torch

from workbook import figures_gating


def test_maps_share_a_scale_within_a_column_or_have_their_own():
    maps = [[torch.full((2, 3), float(10 * r + c)) for c in range(2)] for r in range(2)]
    named = figures_gating.scaled_maps(maps, columns=["x", "y"], rows=["a", "b"], bar=["share", "bits"])
    drawn, bars = ([ax for ax in named.axes if bool(ax.images) == there] for there in (True, False))
    assert [ax.images[0].get_clim() for ax in drawn] == [(0, 10), (1, 11), (0, 10), (1, 11)]
    assert [ax.get_xlabel() for ax in bars] == ["share", "bits"], "a named bar below each column"
    assert [ax.get_title() for ax in drawn] == ["x", "y", "", ""] and drawn[2].get_ylabel() == "b"
    own = figures_gating.scaled_maps([[np.array([[0, 1.0]]), np.array([[2.0, 5]])]], bar="weight", titles=[["p", "q"]])
    drawn, bars = ([ax for ax in own.axes if bool(ax.images) == there] for there in (True, False))
    assert [ax.images[0].get_clim() for ax in drawn] == [(0, 1), (2, 5)] and len(bars) == 2
    assert [text.get_text() for text in bars[1].get_xticklabels()] == ["2.00", "5.00"]


def test_differences_show_each_mask_the_mean_and_the_margin():
    figure = figures_gating.differences({"a": [1.0, 3.0], "b": [-1.0, 1.0]}, {"a": 0.1, "b": 0.5}, xlabel="bits")
    ax = figure.axes[0]
    assert [line.get_xdata() for line in ax.lines][1][0] == 2.0 and list(ax.lines[0].get_xdata()) == [1.0, 3.0]
    assert [round(bar.get_width(), 3) for bar in ax.patches][:2] == [0.2, 1.0]
    assert [text.get_text() for text in ax.get_yticklabels()] == ["a", "b"]


def test_panels_have_the_same_names_and_their_own_numbers():
    figure = figures_gating.side_by_side({"share": {"hat": 0.1, "hair": 0.4}, "heard": {"hat": 2.0, "hair": 1.0}})
    assert [ax.get_xlabel() for ax in figure.axes] == ["share", "heard"]
    assert [[bar.get_width() for bar in ax.patches] for ax in figure.axes] == [[0.1, 0.4], [2.0, 1.0]]
