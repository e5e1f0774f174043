"""`MaskPainter` without a browser: what it sends, what it takes, what stands in for it."""

import base64
import io
import warnings

import numpy as np
import pytest
from PIL import Image

from mogle.datasets import FaceDataset
from mogle.errors import MogleError
from mogle.labels import LABELS, PALETTE, decode_mask, save_mask

pytest.importorskip("anywidget")

from mogle.painter.widget import MaskPainter

HAIR = LABELS.index("hair")


@pytest.fixture
def painter() -> MaskPainter:
    return MaskPainter("data/portraits/mask/3.png")


def test_it_begins_empty_or_with_a_mask_of_any_form(painter):
    with warnings.catch_warnings(action="error"):
        assert MaskPainter().label_map.shape == (512, 512) and not MaskPainter(size=(32, 16)).label_map.any()
    assert MaskPainter(size=(32, 16)).label_map.shape == (32, 16)
    face = decode_mask("data/portraits/mask/3.png")
    assert (painter.label_map == face).all() and (MaskPainter(PALETTE[face]).label_map == face).all()
    assert MaskPainter(face, size=64).label_map.shape == (64, 64)
    with pytest.raises(MogleError, match="nowhere.png: no such file"):
        MaskPainter("nowhere.png")


def test_what_is_set_is_told_and_sent_in_one_piece(painter):
    told, sent = [], []
    painter.observe(lambda change: told.append(change.new), "label_map")
    painter._send = lambda message, buffers=None: sent.append((message, buffers))
    painter.label_map = mine = np.full((3, 4), HAIR, np.int64)
    assert len(told) == 1 and (told[0] == HAIR).all() and painter.label_map.dtype == np.uint8
    [(message, buffers)] = sent
    assert message["state"] == {"label_map": {"width": 4, "height": 3}}
    assert message["buffer_paths"] == [["label_map", "labels"]] and bytes(buffers[0]) == bytes([HAIR] * 12)
    mine[:] = 0
    assert (painter.label_map == HAIR).all(), "it keeps a copy"
    with pytest.raises(ValueError, match="read-only"):
        painter.label_map[0, 0] = 0


def test_a_stroke_in_the_browser_arrives(painter):
    told = []
    painter.observe(lambda change: told.append(change.new), "label_map")
    painter.set_state({"label_map": {"width": 2, "height": 3, "labels": memoryview(bytes([0, 1, 2, 3, 4, 18]))}})
    assert painter.label_map.tolist() == [[0, 1], [2, 3], [4, 18]] and len(told) == 1
    assert painter.names() == ["background", "skin", "nose", "glasses", "left eye", "clothes"]


@pytest.mark.parametrize("bad", [np.full((4, 4), 19, np.uint8), np.zeros((4, 4, 3)), "text", None])
def test_what_is_no_label_map_changes_nothing(painter, bad):
    before = painter.label_map
    with pytest.raises(MogleError):
        painter.label_map = bad
    with pytest.raises(MogleError):
        painter.set_state({"label_map": {"width": 4, "height": 4, "labels": memoryview(bytes([19] * 16))}})
    assert painter.label_map is before


def test_it_loads_a_sample_of_a_data_set(painter):
    dataset = FaceDataset("data/portraits")
    painter.load("data/portraits", 7)
    assert (painter.label_map == dataset.label_map(dataset.ids.index("7"))).all()
    painter.load(dataset, "12")
    assert (painter.label_map == dataset.label_map(dataset.ids.index("12"))).all()
    with pytest.raises(MogleError, match="found no sample 'nobody', expected one of its ids, such as 0, 1, 2"):
        painter.load(dataset, "nobody")


def test_it_takes_what_a_parser_finds_in_a_photo(painter):
    photo = Image.new("RGB", (6, 5))
    painter.from_photo(photo, lambda picture: np.full((picture.height, picture.width), HAIR))
    assert painter.label_map.shape == (5, 6) and (painter.label_map == HAIR).all()


def test_a_file_from_the_browser_is_painted_on_or_its_fault_said(painter):
    said = []
    painter.send = lambda content, buffers=None: said.append(content)
    file, face = io.BytesIO(), decode_mask("data/portraits/mask/5.png")
    save_mask(file, face)
    painter._handle_custom_msg({"kind": "file", "name": "mine.png"}, [memoryview(file.getvalue())])
    assert (painter.label_map == face).all() and said == [{"kind": "say", "text": "", "wrong": False}]
    painter._handle_custom_msg({"kind": "file", "name": "bad.png"}, [memoryview(b"no picture")])
    assert said[1]["wrong"] and said[1]["text"].startswith("bad.png: found no image")
    odd, file = face[::-1], io.BytesIO()  # a face upside down: painted on, with a note
    save_mask(file, odd)
    painter._handle_custom_msg({"kind": "file", "name": "odd.png"}, [memoryview(file.getvalue())])
    assert (painter.label_map == odd).all() and not said[2]["wrong"] and "odd.png" in said[2]["text"]
    for nonsense in (None, {}, {"kind": "file"}, {"kind": "other"}):
        painter._handle_custom_msg(nonsense, [])
    assert len(said) == 3


def test_a_picture_stands_in_where_no_kernel_runs(painter):
    data, metadata = painter._repr_mimebundle_()
    assert data["application/vnd.jupyter.widget-view+json"]["model_id"] == painter.model_id
    with Image.open(io.BytesIO(base64.b64decode(data["image/png"]))) as picture:
        seen = np.asarray(picture.convert("RGB"))
    assert (seen[::3, ::3] == PALETTE[painter.label_map]).all()
    assert metadata["image/png"]["alt"].startswith("a mask of 128 x 128 pixels: background, skin, nose")
    assert metadata["image/png"]["width"] == seen.shape[1] == 384
    assert MaskPainter._ipython_display_ is None  # by which ipywidgets 7 would display the widget alone
