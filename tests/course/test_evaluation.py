"""Notebook 10: its numbers are the package's; damage, cheats and figures do what is said of them."""

import numpy as np
import pytest

from mogle.checkpoints import BASE, JUDGES, shipped
from mogle.datasets import FaceDataset
from mogle.metrics import distances, kernels, masks
from mogle.metrics.judges import load_judges, load_text_embedder
from workbook import contest
from workbook.exercises import evaluation
from workbook.figures_evaluation import by_size, estimates


@pytest.fixture(scope="module")
def portraits():
    dataset = FaceDataset(shipped(BASE).parents[1] / "data" / "portraits")
    pictures = np.stack([np.asarray(dataset.image(i)) for i in range(6)])
    return pictures, np.stack([dataset.label_map(i) for i in range(6)]), [dataset.captions(i)[0] for i in range(6)]


def test_what_a_reader_builds_is_the_package_s():
    rng = np.random.default_rng(0)
    true, seen = rng.integers(0, 17, (2, 3, 8, 10))
    matrix = masks.confusion_matrix(true, seen)
    assert np.allclose(evaluation.mask_iou(true, seen), masks.class_iou(matrix), equal_nan=True)
    real, fake = rng.normal(size=(30, 6)), rng.normal(0.5, 2, size=(20, 6))
    assert evaluation.frechet(real, fake) == pytest.approx(distances.fid(real, fake))
    assert evaluation.kid(real, fake) == pytest.approx(kernels.kid(real, fake).value)
    each = rng.random(150)
    assert evaluation.per_picture(distances.structure_as_reported(each), 150) == pytest.approx(each.mean())


def test_damage_keeps_the_shape_and_the_type(portraits):
    pictures = portraits[0][:2]
    for kind in contest.DAMAGE:
        copy = contest.damaged(pictures, kind)
        assert copy.shape == pictures.shape and copy.dtype == np.uint8 and not np.array_equal(copy, pictures)


def test_flattery_moves_little_and_wins_the_judge(portraits):
    pictures, label_maps, _ = portraits
    parser = load_judges(shipped(JUDGES)).parser
    poor = contest.damaged(pictures, "blurred")
    flattered = contest.flattering(parser, poor, label_maps)
    assert np.abs(flattered.astype(int) - poor).max() <= 6
    before, after = ((parser.parse(some) == label_maps).mean() for some in (poor, flattered))
    assert after > before + 0.01


def test_copies_are_taken_once_and_suit_their_sentences(portraits):
    pictures, _, sentences = portraits
    _, features = load_judges(shipped(JUDGES)).reader.read(pictures)
    chosen = contest.copies(load_text_embedder(shipped(JUDGES)), features, sentences[:4])
    assert chosen.tolist() == [0, 1, 2, 3], "its own portrait suits a sentence best"


def test_estimates_show_values_intervals_and_what_is_undecided():
    panels = {
        "x": {"A": {"p": (1.0, 0.5, 2.0), "q": 3.0}},
        "y": {"less": {"p": (0.1, -0.2, 0.4), "q": (0.3, 0.1, 0.5)}},
    }
    left, right = estimates(panels, zero=["y"], notes=["up", "down"], lines={"x": [1.0]}).axes
    assert [left.get_xlabel(), right.get_xlabel()] == ["x\nup", "y\ndown"]
    assert [text.get_text() for text in left.get_yticklabels()] == ["p", "q"]
    marks = [[line for line in ax.lines if len(line.get_xdata()) == 1] for ax in (left, right)]
    assert [[mark.get_xdata()[0] for mark in some] for some in marks] == [[1.0, 3.0], [0.1, 0.3]]
    hollow = [[mark.get_markerfacecolor() == "white" for mark in some] for some in marks]
    assert hollow == [[False, True], [True, False]], "no interval, and one that holds 0"
    ends = [list(line.get_xdata()) for line in left.lines if len(line.get_xdata()) == 2]
    assert [0.5, 2.0] in ends and [1.0, 1.0] in ends


def test_sizes_show_the_mean_of_the_draws_and_the_truth():
    drawn = np.array([[2.0, 4.0], [1.0, 2.0]])
    (ax,) = by_size({"FID": {"some": drawn}}, [10, 20], xlabel="pictures", levels={"FID": {"truth": 0.5}}).axes
    assert list(ax.lines[0].get_ydata()) == [3.0, 1.5] and ax.lines[1].get_ydata()[0] == 0.5
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_xscale()) == ("pictures", "FID", "log")
    assert [text.get_text() for text in ax.get_xticklabels()] == ["10", "20"]
