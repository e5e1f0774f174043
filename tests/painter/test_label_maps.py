"""What browser and Python agree on: the classes, and how a label map travels."""

import base64
import io
import re
import subprocess
import sys
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mogle.errors import MogleError
from mogle.labels import LABELS, PALETTE, decode_mask, save_mask
from mogle.painter import MAX_SIDE, SCRIPT, STYLE, checked, classes, pack, read_mask, unpack

SIDE = st.integers(1, 1024)


@settings(max_examples=60, deadline=None)
@given(SIDE, SIDE, st.integers(0, 2**32 - 1))
def test_any_label_map_goes_round_unchanged(height, width, seed):
    label_map = np.random.default_rng(seed).integers(0, len(LABELS), (height, width), dtype=np.uint8)
    packed = pack(label_map)
    assert (packed["width"], packed["height"]) == (width, height)
    assert base64.b64decode(packed["labels"]) == label_map.tobytes()
    for back in (unpack(packed), unpack({**packed, "labels": memoryview(label_map.tobytes())})):
        assert back.dtype == np.uint8 and back.shape == (height, width) and (back == label_map).all()
        assert not back.flags.writeable


GOOD = pack(np.zeros((2, 3), np.uint8))


@pytest.mark.parametrize(
    ("packed", "message"),
    [
        (None, "found NoneType, expected an object"),
        ([1, 2], "found list, expected an object"),
        ({"width": 3, "height": 2}, "without labels"),
        ({**GOOD, "width": 4}, "found 8 characters of base64 for 4 x 2 pixels, expected 12"),
        ({**GOOD, "width": 0}, "found 0 x 2 pixels, expected whole numbers from 1 to 2048"),
        ({**GOOD, "height": -1}, "found 3 x -1 pixels"),
        ({**GOOD, "height": "2"}, "expected whole numbers"),
        ({**GOOD, "height": 2.0}, "expected whole numbers"),
        ({**GOOD, "height": True}, "expected whole numbers"),
        ({**GOOD, "height": MAX_SIDE + 1}, "from 1 to 2048"),
        ({**GOOD, "width": 10**400}, "from 1 to 2048"),
        ({**GOOD, "labels": "AAAA*AAA"}, "the base64 is damaged"),
        ({**GOOD, "labels": "AAAAAAAé"}, "the base64 is damaged"),
        ({**GOOD, "labels": "AAAAAAA="}, "found 5 bytes for 3 x 2 pixels, expected 6"),
        ({**GOOD, "labels": b"\0\0\0\0\0"}, "found 5 bytes for 3 x 2 pixels, expected 6"),
        ({**GOOD, "labels": [0] * 6}, "found labels as list, expected base64 or bytes"),
        ({**GOOD, "labels": b"\0\0\0\0\0\x13"}, "found label 19, expected 0 (background) to 18 (cloth)"),
        ({**GOOD, "labels": "A" * 50_000_000}, "found 50000000 characters"),
    ],
)
def test_what_is_no_label_map_is_said(packed, message):
    with pytest.raises(MogleError, match=re.escape(message)):
        unpack(packed)


@settings(max_examples=50, deadline=None)
@given(st.none() | st.integers() | st.text() | st.floats() | st.binary() | st.lists(st.integers()))
def test_nonsense_is_never_more_than_an_error(value):
    for packed in (value, {**GOOD, "labels": value}, {**GOOD, "width": value}, {**GOOD, "height": value}):
        try:
            assert (unpack(packed) == 0).all()
        except MogleError as error:
            assert len(str(error)) < 300


@pytest.mark.parametrize(
    ("label_map", "message"),
    [
        (np.full((4, 4), 19, np.uint8), "label 19"),
        (np.full((4, 4), -1), "label -1"),
        (np.full((4, 4), 0.5), "expected labels 0..18"),
        (np.zeros((4, 4, 3), np.uint8), "shape (4, 4, 3), expected (height, width)"),
        (np.zeros((0, 4), np.uint8), "found 4 x 0 pixels"),
        (np.zeros((1, 3000), np.uint8), "found 3000 x 1 pixels, expected whole numbers from 1 to 2048"),
        (None, "expected (height, width)"),
    ],
)
def test_what_cannot_be_painted_on_is_said(label_map, message):
    with pytest.raises(MogleError, match=re.escape(message)):
        checked(label_map)


def test_whole_numbers_of_any_type_are_labels():
    for kind in (np.int64, np.float32):
        assert checked(np.full((2, 2), 18, kind)).dtype == np.uint8


# --- files -----------------------------------------------------------------------------------------------------------


def test_a_file_is_read_as_decode_mask_reads_it(tmp_path):
    face = decode_mask("data/portraits/mask/3.png")
    save_mask(tmp_path / "mask.png", face)
    assert (read_mask((tmp_path / "mask.png").read_bytes()) == face).all()
    file = io.BytesIO()
    Image.fromarray(PALETTE[face]).save(file, format="PNG")
    assert (read_mask(file.getvalue()) == face).all()


def bomb(side: int) -> bytes:
    """A PNG of a few kilobytes that says it has side x side pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    size = side.to_bytes(4, "big")
    pixels = chunk(b"IDAT", zlib.compress(bytes(100_000)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size + size + b"\x08\0\0\0\0") + pixels + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "mine.png: found no image in the file"),
        (b"GIF89a", "mine.png: "),
        (bomb(4000), "mine.png: "),
        (bomb(50_000), "mine.png: found"),
        (bomb(2**31 - 1), "mine.png: found"),
    ],
)
def test_what_is_no_mask_file_is_said(data, message):
    with pytest.raises(MogleError, match=re.escape(message)):
        read_mask(data, "mine.png")


def test_a_mask_too_large_to_paint_on_is_said():
    file = io.BytesIO()
    Image.new("L", (3000, 10)).save(file, format="PNG")
    with pytest.raises(MogleError, match="mine.png: found 3000 x 10 pixels, expected"):
        read_mask(file.getvalue(), "mine.png")


# --- classes ---------------------------------------------------------------------------------------------------------


def test_classes_are_those_of_the_labels():
    found = classes()
    assert [each["index"] for each in found] == list(range(len(LABELS)))
    assert [each["color"] for each in found] == ["#" + bytes(colour).hex() for colour in PALETTE]
    assert len({each["name"] for each in found}) == len({each["key"] for each in found}) == len(LABELS)
    mirrored = {each["name"]: found[each["mirror"]]["name"] for each in found if each["mirror"] != each["index"]}
    assert mirrored == {
        f"{side} {part}": f"{other} {part}"
        for part in ("eye", "eyebrow", "ear")
        for side, other in (("left", "right"), ("right", "left"))
    }
    assert found[LABELS.index("l_lip")]["name"] == "lower lip"
    assert found[LABELS.index("r_ear")]["note"] == "the person's right ear, on the left of the picture"


#: How colours are seen without red, green or blue cones: Machado, Oliveira and Fernandes 2009, in linear RGB.
BLIND = {
    "red": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "green": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "blue": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}


def nearest(colours: list[str]) -> float:
    """The smallest distance (OKLab) of two of these colours, for normal eyes and each kind of colour blindness."""
    rgb = np.array([[int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)] for colour in colours])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    cones = [[0.4122215, 0.5363325, 0.051446], [0.2119035, 0.6806995, 0.107397], [0.0883025, 0.2817188, 0.6299787]]
    opponents = [
        [0.2104543, 0.7936178, -0.004072],
        [1.9779985, -2.4285922, 0.4505937],
        [0.025904, 0.7827718, -0.8086758],
    ]
    found = np.inf
    for eyes in (np.eye(3), *map(np.array, BLIND.values())):
        lab = np.cbrt(np.clip(linear @ eyes.T, 0, 1) @ np.transpose(cones)) @ np.transpose(opponents)
        apart = np.linalg.norm(lab[:, None] - lab, axis=-1) + 9 * np.eye(len(lab))
        found = min(found, apart.min())
    return float(found)


def test_safe_colours_stay_apart_for_colour_blind_eyes():
    assert nearest([each["safe"] for each in classes()]) >= 0.07
    assert nearest([each["color"] for each in classes()]) < 0.01


def test_it_is_cheap_to_import_and_its_files_travel_with_it():
    code = "import sys, mogle.painter; print(*{'torch', 'anywidget', 'ipywidgets', 'scipy'} & {n for n in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
    script = SCRIPT.read_text()
    assert STYLE.is_file() and not re.search(r"https?://|\bimport\b[^(]*\bfrom\b", script)
