"""Figures: what is drawn is what was given, in the classes' own order and colours, and never without alt text."""

import base64
import io
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from mogle.errors import MogleError
from mogle.labels import LABELS, PALETTE, colorize
from workbook import figures, figures_gating, widgets

LABEL_MAP = np.arange(16 * 16, dtype=np.uint8).reshape(16, 16) % 19


def opened(figure):
    return Image.open(io.BytesIO(figures.png(figure)))


def test_show_displays_a_retina_picture_with_its_alt_text(monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda data, **kwargs: shown.append((data, kwargs["metadata"])))
    figures.show(figures.image_grid([[LABEL_MAP]]), alt="The 19 classes and their colours.")
    data, metadata = shown[0]
    picture = Image.open(io.BytesIO(base64.b64decode(data["image/png"])))
    assert metadata["image/png"]["alt"] == data["text/plain"] == "The 19 classes and their colours."
    assert picture.width == 2 * metadata["image/png"]["width"] == 1800
    for bad in ("", "figure", None):
        with pytest.raises(MogleError, match="expected a sentence"):
            figures.show(figures.image_grid([[LABEL_MAP]]), alt=bad)
    figures.show(figures.image_grid([[LABEL_MAP]]), alt="The 19 classes again.", small=True)
    data, metadata = shown[1]
    assert set(data) == {"image/jpeg", "text/plain"} and metadata["image/jpeg"]["width"] == 900
    chart = figures.lines({"a": [1, 2]}, xlabel="step", ylabel="loss")
    figures.show(chart, alt="A rising line.", small=True)
    picture = Image.open(io.BytesIO(base64.b64decode(shown[2][0]["image/png"])))
    assert picture.mode == "P" and picture.width == 1800, "a chart stays a PNG, of few colours"
    assert len(figures.png(chart, colours=64)) < len(figures.png(chart)) / 2


def test_the_same_figure_gives_the_same_bytes():
    assert figures.png(figures.image_grid([[LABEL_MAP]])) == figures.png(figures.image_grid([[LABEL_MAP]]))


def test_pixels_of_everything_that_is_a_picture():
    colours = colorize(LABEL_MAP)
    assert np.array_equal(figures.pixels(LABEL_MAP), colours)
    assert np.array_equal(figures.pixels(Image.fromarray(colours)), colours)
    condition = torch.from_numpy(colours).permute(2, 0, 1).float() / 127.5 - 1
    assert np.array_equal(figures.pixels(condition), colours)
    assert figures.pixels(LABEL_MAP == 3).max() == 255 and figures.pixels(LABEL_MAP == 3).shape == (16, 16, 3)
    assert figures.pixels(torch.rand(4, 4)).shape == (4, 4)
    with pytest.raises(MogleError, match="expected one of those"):
        figures.pixels(np.zeros((2, 4, 4)))


def test_overlay_leaves_the_background_alone():
    image = np.full((16, 16, 3), 100, np.uint8)
    laid = figures.overlay(image, LABEL_MAP, 0.25)
    assert (laid[LABEL_MAP == 0] == 100).all()
    assert np.array_equal(laid[LABEL_MAP == 3][0], np.round(75 + 0.25 * PALETTE[3]))


def test_grid_puts_pictures_and_titles_in_their_places():
    maps = [[np.full((4, 8), float(r + c)) for c in range(3)] for r in range(2)]
    maps[1][2] = None
    figure = figures.image_grid(maps, rows=["a", "b"], columns=["x", "y", "z"], labels=LABEL_MAP, bar="share")
    axes = np.array(figure.axes[:6]).reshape(2, 3)
    assert [ax.get_title() for ax in axes[0]] == ["x", "y", "z"] and axes[1, 0].get_ylabel() == "b"
    assert axes[1, 1].images[0].get_array().max() == 2 and not axes[1, 2].images
    assert {ax.images[0].get_clim() for row in axes for ax in row if ax.images} == {(0.0, 2.0)}, "one scale for all"
    assert [t.get_text() for t in figure.legends[0].texts] == [f"{i} {name}" for i, name in enumerate(LABELS)]
    assert opened(figure).width == 1800


def test_maps_of_numbers_say_of_what():
    with pytest.raises(MogleError, match="expected a word for what the numbers are"):
        figures.image_grid([[np.zeros((2, 2))]])
    figure = figures.heat_map(np.eye(3), xlabel="column", ylabel="row", bar="share", names="abc")
    ax, bar = figure.axes
    assert (ax.get_xlabel(), ax.get_ylabel(), bar.get_ylabel()) == ("column", "row", "share")
    assert [text.get_text() for text in ax.get_yticklabels()] == ["a", "b", "c"]


def test_names_stand_inside_their_regions():
    label_map = np.zeros((64, 64), np.uint8)
    label_map[5:60, 5:20], label_map[40:44, 30:60] = 13, 12
    ax = figures.image_grid([[label_map, label_map == 13]], names=True).axes[0]
    places = {text.get_text(): label_map[int(text.get_position()[1]), int(text.get_position()[0])] for text in ax.texts}
    assert places == {"hair": 13, "l_lip": 12}


def test_the_schematic_shows_the_shapes_of_its_mask(tmp_path):
    from mogle.labels import save_mask
    from workbook.schematic import COURSE, PARTS, schematic

    save_mask(tmp_path / "mask.png", np.zeros((96, 64), np.uint8) + 13)
    Image.new("RGB", (64, 96)).save(tmp_path / "face.png")
    files = {"mask": tmp_path / "mask.png", "face": tmp_path / "face.png"}
    found = [text.get_text() for text in schematic("gate", **files).axes[0].texts]
    assert {"mask\n96 × 64", "20 × 24 × 64", "24 × 20", "24 × 64", "20 experts"} <= set(found)
    bold = [text.get_text() for text in schematic("gate", **files).axes[0].texts if text.get_weight() == "bold"]
    assert bold == ["gate"] and "gate" in PARTS
    numbered = [text.get_text() for text in schematic(numbers=COURSE, **files).axes[0].texts]
    assert sorted(set(COURSE.values())) == [f"{number:02d}" for number in range(1, 11)]
    assert numbered[-len(COURSE) :] == list(COURSE.values()), "each part has the number of its notebook"
    with pytest.raises(ValueError, match="expected parts of mask, pictures"):
        schematic("brain", **files)


def test_long_titles_are_wrapped_not_cut_off():
    sentence = "She has long wavy blond hair, a hat, and wears red lipstick."
    figure = figures.image_grid([[LABEL_MAP] * 4], columns=[sentence] * 4, captions=[[sentence] * 4])
    assert figure.axes[0].get_title().replace("\n", " ") == sentence
    figure.draw_without_rendering()
    box = figure.get_window_extent()
    for ax in figure.axes:
        for text in (ax.title, ax.xaxis.label):
            inside = text.get_window_extent()
            assert inside.x0 >= box.x0 and inside.x1 <= box.x1 and inside.y0 >= box.y0 and inside.y1 <= box.y1
    titles = [ax.title.get_window_extent() for ax in figure.axes]
    assert all(left.x1 < right.x0 for left, right in zip(titles, titles[1:], strict=False)), "titles do not overlap"


def test_gate_maps_are_the_weights_of_each_expert():
    weights = torch.rand(6, 20).softmax(-1)
    figure = figures_gating.gate_maps(weights, 2, 3)
    drawn, bars = ([ax for ax in figure.axes if bool(ax.images) == maps] for maps in (True, False))
    assert [ax.get_title() for ax in drawn[:2]] == ["global", "0 background"] and len(drawn) == len(bars) == 20
    assert {ax.get_xlabel() for ax in bars} == {"weight"}, "each map has a colour bar, and each bar says of what"
    for ax, values in zip(drawn, weights.T, strict=True):
        assert np.allclose(ax.images[0].get_array(), values.reshape(2, 3))
        assert np.allclose(ax.images[0].get_clim(), (values.min(), values.max())), "a scale of its own"
    fixed = figures_gating.gate_maps(weights, 2, 3, limits=[(0, 1)] * 20)
    assert {ax.images[0].get_clim() for ax in fixed.axes if ax.images} == {(0, 1)}
    with pytest.raises(MogleError, match="expected"):
        figures_gating.gate_maps(weights.T, 2, 3)


def test_lines_show_the_numbers_given():
    figure = figures.lines({"a": [1, 2], "b": [3, 4]}, x=[0.5, 1], xlabel="t", ylabel="bits")
    first, second = figure.axes[0].lines
    assert first.get_ydata().tolist() == [1, 2] and first.get_xdata().tolist() == [0.5, 1]
    assert first.get_color() != second.get_color() and first.get_linestyle() != second.get_linestyle()
    assert len(set(figures.LINES)) == len(figures.LINES)
    one, two, three = (
        figures.lines({n: [1, 2] for n in "abc"}, xlabel="t", ylabel="bits", colours=(0, 1, 0)).axes[0].lines
    )
    assert one.get_color() == three.get_color() != two.get_color()
    assert one.get_linestyle() == two.get_linestyle() != three.get_linestyle()


def test_a_widget_renders_what_its_controls_say(monkeypatch):
    calls, shown = [], []

    def render(mask, seed):
        calls.append((mask, seed))
        return Image.fromarray(np.full((16, 16, 3), seed, np.uint8))

    widget = widgets.explorer(render, mask={"a hat": 0, "long hair": 1}, seed=range(5))
    menu, slider, picture = widget.children
    before = picture.value
    menu.value, slider.value = 1, 4
    assert calls == [(0, 0), (1, 0), (1, 4)] and picture.value != before
    monkeypatch.setattr("IPython.display.display", lambda data, **kwargs: shown.append(data))
    widgets.explore(render, alt="A gray square to play with.", mask=[0, 1], seed=range(5))
    assert "application/vnd.jupyter.widget-view+json" in shown[0] and shown[0]["text/plain"].startswith("A gray square")
    static = Image.open(io.BytesIO(base64.b64decode(shown[0]["image/png"])))
    assert static.size == (384, 384), "the picture that stands in"


def test_names_of_classes_cover_no_mark_and_no_other_name():
    size = {label: 10.0 * (1 + label % 4) for label in range(19)}
    y = {label: 0.5 + 0.05 * (label // 4) for label in range(19)}
    figure = figures.scatter_labels(size, {"local": y}, xlabel="pixels", ylabel="IoU")
    figure.canvas.draw()
    boxes = [text.get_window_extent() for text in figure.axes[0].texts]
    assert [text.get_text() for text in figure.axes[0].texts] == list(LABELS)
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_a_widget_shows_figures_as_wide_as_any_other(monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda data, **kwargs: shown.append(kwargs["metadata"]))
    maps = np.random.default_rng(0).random((3, 64, 20))
    widgets.explore(
        lambda step: figures_gating.gate_maps(maps[step], 8, 8), alt="Twenty maps of one step.", step=range(3)
    )
    assert shown[0]["image/png"]["width"] == 900


def test_without_ipywidgets_the_first_picture_is_shown(monkeypatch, capsys):
    shown = []
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    monkeypatch.setattr("IPython.display.display", lambda data, **kwargs: shown.append(data))
    render = lambda gray, seed: Image.new("RGB", (64, 64), (gray, seed, 0))  # noqa: E731
    widgets.explore(render, alt="A square of one colour.", gray={"dark": 10, "light": 200}, seed=range(5, 9))
    picture = Image.open(io.BytesIO(base64.b64decode(shown[0]["image/png"])))
    assert picture.getpixel((9, 9)) == (10, 5, 0) and "pip install ipywidgets" in capsys.readouterr().out
