"""Notebook 03: its figures show what they are given, and captions count as data before its package cell."""

import io

import numpy as np
import torch
from nbformat.v4 import new_code_cell
from PIL import Image

from workbook import figures, figures_words
from workbook.authoring import fresh, report


def texts(figure):
    return [text.get_text() for ax in figure.axes for text in ax.texts]


def drawn(figure):
    return np.asarray(Image.open(io.BytesIO(figures.png(figure))))


def test_pieces_are_drawn_in_order_with_their_numbers_and_the_padding():
    figure = figures_words.pieces({"CLIP": ["start", "hat", "end"]}, {"CLIP": [0, 361, 1]}, {"CLIP": 52})
    assert texts(figure) == ["start", "0", "hat", "361", "end", "1", "+ 49 padding"]
    assert drawn(figure).shape[1] == 1800


def test_bars_are_as_high_as_their_numbers():
    given = {"one": [0.2, 0.4], "two": torch.tensor([0.6, 0.8])}
    figure = figures_words.bars(given, ["a", "b"], xlabel="x", ylabel="y", level=[0.1, 0.3], level_name="guess")
    ax = figure.axes[0]
    heights = sorted(patch.get_height() for patch in ax.patches)
    assert np.allclose(heights, [0.2, 0.4, 0.6, 0.8]) and (ax.get_xlabel(), ax.get_ylabel()) == ("x", "y")
    assert np.allclose([segment[0, 1] for segment in ax.collections[0].get_segments()], [0.1, 0.3])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["guess", "one", "two"]


def test_histograms_are_shares_of_their_own_series():
    figure = figures_words.histograms({"few": torch.tensor([0.0, 1.0]), "many": np.zeros(9)}, xlabel="x", ylabel="y")
    sums = [patch.get_data().values.sum() for patch in figure.axes[0].patches]
    assert np.allclose(sums, 1)


def test_heads_say_who_is_right_wrong_and_unsure():
    sentences, said = ["red hair, blue hat", "blue hair, red hat"], [(1, 0), (0, 1)]
    figure = figures_words.heads({"reader": [(0.9, 0.1), (0.9, 0.5)]}, sentences, said)
    found = texts(figure)
    assert "✓ hair: 90% red" in found and "✓ hat: 90% blue" in found
    assert "✗ hair: 10% blue" in found and "? hat: 50% red" in found
    colours = [ax.patches[0].get_facecolor()[:3] for ax in figure.axes]
    assert colours[0] == (0.84, 0.18, 0.18) and colours[0] != colours[2], "hair as it is said, red and then blue"


def test_captions_are_data_and_encoders_are_not():
    notebook = fresh("A title")
    notebook.cells.insert(
        2, new_code_cell("from mogle.tiny.portraits import describe\nfrom mogle.words import ATTRIBUTES")
    )
    assert report(notebook) == []
    notebook.cells.insert(2, new_code_cell("from mogle.tiny.text import token_ids\nimport mogle"))
    assert [line.split(" is used")[0] for line in report(notebook)] == [
        "cell 3: mogle.tiny.text.token_ids",
        "cell 3: mogle",
    ]
