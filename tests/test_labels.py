"""Masks as people have them: every form must give the same label map, every wrong file a line that helps."""

import struct
import warnings
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from mogle.errors import MogleError, MogleWarning
from mogle.labels import DEMO_PALETTE, LABELS, PALETTE, colorize, decode_mask, save_mask


@pytest.fixture
def mask() -> np.ndarray:
    """All 19 classes as blocks of 8 pixels, with a background wide enough that edges are a minority."""
    label_map = np.zeros((48, 64), dtype=np.uint8)
    for label in range(1, 19):
        row, column = divmod(label, 6)
        label_map[row * 11 + 2 : row * 11 + 12, column * 10 + 1 : column * 10 + 11] = label
    return label_map


def test_the_vocabulary():
    assert len(LABELS) == 19 and PALETTE.shape == DEMO_PALETTE.shape == (19, 3)
    assert LABELS[4] == "l_eye" and LABELS[13] == "hair"
    assert (DEMO_PALETTE[4] == PALETTE[5]).all() and (DEMO_PALETTE[9] == PALETTE[8]).all()
    assert len(np.unique(PALETTE, axis=0)) == 19


@pytest.mark.parametrize("form", ["palette", "gray", "gray16", "rgb", "rgba", "webp", "reordered"])
def test_files_of_every_form_give_the_label_map(mask, form, tmp_path):
    path, colours = tmp_path / "mask.png", Image.fromarray(colorize(mask))
    if form == "palette":
        save_mask(path, mask)
        assert Image.open(path).mode == "P"
    elif form == "gray":
        Image.fromarray(mask).save(path)
    elif form == "gray16":
        Image.fromarray(mask.astype(np.uint16)).save(path)
    elif form == "rgb":
        colours.save(path)
    elif form == "rgba":
        colours.convert("RGBA").save(path)
    elif form == "webp":
        path = tmp_path / "mask.webp"
        colours.save(path, lossless=True)
    else:  # what an optimiser leaves: only the colours in use, in an order of its own
        mask = np.where(mask > 3, 13, mask).astype(np.uint8)
        order = np.array([13, 2, 0, 3, 1])
        picture = Image.fromarray(np.argsort(order)[np.searchsorted(np.sort(order), mask)].astype(np.uint8))
        picture.putpalette(PALETTE[order].tobytes())
        picture.save(path)
        with pytest.warns(MogleWarning, match="another order"):
            assert (decode_mask(path) == mask).all()
        return
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        decoded = decode_mask(path)
        assert decoded.dtype == np.uint8 and (decoded == mask).all()
        assert (decode_mask(Image.open(path)) == mask).all()


def test_arrays(mask):
    for array in (mask, mask.astype(np.int64), mask.astype(np.float32), mask[None], mask[..., None], colorize(mask)):
        assert (decode_mask(array) == mask).all()
        assert (decode_mask(torch.from_numpy(array.copy())) == mask).all()
    assert (decode_mask(torch.from_numpy(colorize(mask)).permute(2, 0, 1)) == mask).all()
    decoded = decode_mask(mask)
    decoded[:] = 0
    assert mask.any(), "the caller's array must not be touched"


def test_palette_indices_win_over_colours(mask, tmp_path):
    for table in (DEMO_PALETTE, np.random.default_rng(0).integers(0, 256, (19, 3), dtype=np.uint8)):
        picture = Image.fromarray(mask)
        picture.putpalette(table.tobytes())
        picture.save(tmp_path / "mask.png")
        assert (decode_mask(tmp_path / "mask.png") == mask).all()


def test_foreign_indices_are_read_through_their_colours(mask, tmp_path):
    picture = Image.fromarray(mask + 100)
    picture.putpalette(bytes(300) + PALETTE.tobytes())
    picture.save(tmp_path / "mask.png")
    assert (decode_mask(tmp_path / "mask.png") == mask).all()


def test_demo_palette(mask):
    demo = colorize(mask, DEMO_PALETTE)
    assert (decode_mask(demo, palette="demo") == mask).all()
    assert ((decode_mask(demo) == 5) == (mask == 4)).all()
    with pytest.raises(MogleError, match="'demo'"):
        decode_mask(demo, palette="reference")


def test_guessed_pixels_are_counted(mask, tmp_path):
    colours = colorize(mask)
    colours[0, :3] = (3, 2, 1)
    with pytest.warns(MogleWarning, match=r"\b3 of 3072 pixels"):
        assert (decode_mask(colours) == mask).all()
    Image.fromarray(colorize(mask).repeat(8, 0).repeat(8, 1)).save(tmp_path / "mask.jpg", quality=90)
    with pytest.warns(MogleWarning, match="pixels"):
        decoded = decode_mask(tmp_path / "mask.jpg", size=mask.shape)
    assert (decoded == mask).mean() > 0.99
    smooth = Image.fromarray(colorize(mask)).resize((640, 480), Image.Resampling.BICUBIC)
    with pytest.warns(MogleWarning, match="pixels"):
        assert (decode_mask(smooth, size=mask.shape) == mask).mean() > 0.95


def test_transparent_pixels_are_background(mask):
    picture = np.dstack([colorize(mask), np.full(mask.shape, 255, np.uint8)])
    picture[:20, :, 3] = 0
    expected = mask.copy()
    expected[:20] = 0
    assert (decode_mask(picture) == expected).all()
    assert (decode_mask(Image.fromarray(picture)) == expected).all()


def test_resize_is_nearest_neighbour(mask):
    double = decode_mask(mask, size=(96, 128))
    assert (double == mask.repeat(2, 0).repeat(2, 1)).all()
    assert (decode_mask(double, size=mask.shape) == mask).all()
    assert decode_mask(mask, size=37, fit="stretch").shape == (37, 37)
    assert set(np.unique(decode_mask(mask, size=(97, 61), fit="stretch"))) <= set(range(19))
    with pytest.raises(MogleError, match="at least 1"):
        decode_mask(mask, size=0)


def png(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header promises width x height pixels."""
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)),
        (b"IDAT", zlib.compress(b"")),
        (b"IEND", b""),
    ]
    parts = [
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def test_wrong_files_are_named_with_what_was_found(mask, tmp_path):
    save_mask(tmp_path / "good.png", mask)
    good = (tmp_path / "good.png").read_bytes()
    (tmp_path / "text.png").write_text("not a picture")
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "cut.png").write_bytes(good[:-40])
    (tmp_path / "bomb.png").write_bytes(png(10_000, 10_000))
    (tmp_path / "huge.png").write_bytes(png(60_000, 60_000))
    Image.fromarray(mask + 1).save(tmp_path / "nineteen.png")
    Image.fromarray(colorize(mask)).convert("L").save(tmp_path / "luma.png")
    Image.fromarray(mask > 0).save(tmp_path / "binary.png")
    Image.fromarray(mask).save(tmp_path / "gray.jpg")
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "photo.png")
    for name, words in {
        "missing.png": "no such file",
        "": "directory",
        "text.png": "no image",
        "empty.png": "no image",
        "cut.png": "cut short",
        "bomb.png": "10000 x 10000 pixels",
        "huge.png": "enormous",
        "nineteen.png": "label 19",
        "luma.png": "turned to gray",
        "binary.png": "black-and-white",
        "gray.jpg": "gray JPEG",
        "photo.png": "not a photograph",
    }.items():
        with pytest.raises(MogleError) as caught:
            decode_mask(tmp_path / name)
        message = str(caught.value)
        assert message.startswith(str(tmp_path / name)) and words in message and "\n" not in message, message


@pytest.mark.parametrize(
    "array, words",
    [
        (np.full((4, 4), 0.5), "between 0.5 and 0.5"),
        (np.full((4, 4), np.nan), "labels 0..18"),
        (np.full((4, 4), -1), "label -1"),
        (np.full((4, 4), 255), "label 255"),
        (np.eye(19)[np.zeros((4, 4), int)].transpose(2, 0, 1), r"argmax\(0\)"),
        (np.zeros((4, 4), bool), "bool"),
        (np.zeros((2, 8, 8), np.uint8), "one mask at a time"),
        (np.zeros((4, 4, 3), np.float32), "cast to uint8"),
        (np.zeros((0, 4), np.uint8), "shape"),
        (None, "expected a path"),
        ("", "directory"),
    ],
)
def test_wrong_arrays(array, words):
    with pytest.raises(MogleError, match=words):
        decode_mask(array)


def test_all_background_is_a_mask():
    assert not decode_mask(np.zeros((8, 8), np.uint8)).any()
