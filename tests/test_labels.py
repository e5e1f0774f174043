"""Masks as people have them: every form must give the same label map, every wrong file a line that helps."""

import io
import random
import re
import struct
import time
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from PIL import Image

from mogle.errors import MogleError, MogleWarning
from mogle.labels import (
    DEMO_PALETTE,
    LABELS,
    ORDERS,
    PALETTE,
    colorize,
    decode_mask,
    resize_labels,
    save_mask,
)
from mogle.pictures import nearest_size

CASES = Path(__file__).parent / "cases" / "masks"
PORTRAITS = Path(__file__).parents[1] / "data"
#: A portrait with hair, glasses, one ear hidden by it: what all files in CASES show.
FACE = np.asarray(Image.open(CASES / "rgb_labels_repeated.png"))[..., 0]


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


def numbered(label_map: np.ndarray, labels: str) -> np.ndarray:
    """A label map in another parser's numbers; classes that it does not have become background."""
    numbers = np.zeros(len(LABELS), dtype=np.uint8)
    for number, name in enumerate(ORDERS[labels]):
        if name:
            numbers[LABELS.index(name)] = number
    return numbers[label_map]


def on(ground: int | tuple[int, int, int], label_map: np.ndarray = FACE) -> np.ndarray:
    """The picture of a label map with another background."""
    table = PALETTE.copy()
    table[0] = ground
    return table[label_map]


def jpeg(colours: np.ndarray, quality: int = 92) -> Image.Image:
    file = io.BytesIO()
    Image.fromarray(colours).save(file, "JPEG", quality=quality, subsampling=0)
    return Image.open(file)


def paletted(index: np.ndarray, table: np.ndarray) -> Image.Image:
    picture = Image.fromarray(index)
    picture.putpalette(table.astype(np.uint8).tobytes())
    return picture


def patched(colour: tuple[int, int, int], side: int = 8) -> np.ndarray:
    """The portrait with a square of a colour on its cheek."""
    colours = colorize(FACE)
    colours[70 : 70 + side, 50 : 50 + side] = colour
    return colours


LAPA = np.where(np.isin(FACE, [LABELS.index(name) for name in ORDERS["lapa"]]), FACE, 0).astype(np.uint8)
WHITE_FIRST = np.concatenate([[[255, 255, 255]], PALETTE[[18, 13, 1, 2, 3, 6, 7, 8, 9, 11, 12, 17]]])
WHITE_FIRST_INDEX = np.zeros(19, np.uint8)
WHITE_FIRST_INDEX[[18, 13, 1, 2, 3, 6, 7, 8, 9, 11, 12, 17]] = range(1, 13)

#: What is read, how, the label map, and the note that goes with it ("" for none).
READ = {
    "case: BiSeNet by name": (CASES / "bisenet_order.png", {"labels": "bisenet"}, FACE, ""),
    "case: BiSeNet as if CelebAMask's": (
        CASES / "bisenet_order.png", {}, numbered(FACE, "bisenet"), "labels='bisenet'",
    ),
    "case: the label in R, G and B": (CASES / "rgb_labels_repeated.png", {}, FACE, ""),
    "case: white background": (CASES / "white_background.png", {}, FACE, r"background of colour \(255, 255, 255\)"),
    "case: tall, its own size": (CASES / "tall_128x192.png", {}, np.pad(FACE, ((64, 0), (0, 0))), ""),
    "case: tall, smaller": (
        CASES / "tall_128x192.png", {"size": (96, 64)}, np.pad(FACE, ((64, 0), (0, 0)))[1::2, 1::2], "",
    ),
    "case: tall, cropped": (
        CASES / "tall_128x192.png", {"size": 128, "fit": "crop"}, np.pad(FACE, ((64, 0), (0, 0)))[32:160],
        "128 x 192 pixels, cropped to 128 x 128",
    ),
    "case: tall, padded": (
        CASES / "tall_128x192.png", {"size": 192, "fit": "pad"}, np.pad(FACE, ((64, 0), (32, 32))),
        "padded to 192 x 192",
    ),
    "gray background": (on(128), {}, FACE, "background of colour"),
    "green screen": (on((0, 255, 0)), {}, FACE, "background of colour"),
    "white background, JPEG": (jpeg(on(255).repeat(4, 0).repeat(4, 1)), {"size": 128}, FACE, "background of colour"),
    "white, optimised palette": (paletted(WHITE_FIRST_INDEX[FACE], WHITE_FIRST), {}, FACE, "another order"),
    "white, index 0": (paletted(FACE, np.concatenate([[[255] * 3], PALETTE[1:]])), {}, FACE, ""),
    "white around a transparent face": (np.dstack([on(255), np.where(FACE > 0, 255, 0)]), {}, FACE, ""),
    "RGBA, the label in R, G and B": (Image.fromarray(np.dstack([FACE] * 3)).convert("RGBA"), {}, FACE, ""),
    "array (3, H, W), the label in each": (torch.from_numpy(np.stack([FACE] * 3)), {}, FACE, ""),
    "BiSeNet in R, G and B": (np.dstack([numbered(FACE, "bisenet")] * 3), {"labels": "bisenet"}, FACE, ""),
    "BiSeNet with a palette": (paletted(numbered(FACE, "bisenet"), PALETTE), {"labels": "bisenet"}, FACE, ""),
    "BiSeNet array": (numbered(FACE, "bisenet"), {}, numbered(FACE, "bisenet"), "neck above brows.*labels='bisenet'"),
    "LaPa by name": (numbered(LAPA, "lapa"), {"labels": "lapa"}, LAPA, ""),
    "LaPa as if CelebAMask's": (numbered(LAPA, "lapa"), {}, numbered(LAPA, "lapa"), "labels='lapa'"),
    "FaRL by name": (numbered(FACE, "farl"), {"labels": "farl"}, FACE, ""),
    "SegFace by name": (numbered(FACE, "segface"), {"labels": "segface"}, FACE, ""),
    "FaRL as if CelebAMask's": (numbered(FACE, "farl"), {}, numbered(FACE, "farl"), "labels='farl'"),
    "from 1 by name": (FACE + 1, {"labels": "one-based"}, FACE, ""),
    "from 1 as if from 0": (np.where(FACE == 18, 0, FACE) + 1, {}, np.where(FACE == 18, 0, FACE) + 1, "'one-based'"),
    "skin alone": (np.minimum(FACE, 1), {}, np.minimum(FACE, 1), "black-and-white"),
    "left is right": (colorize(FACE, DEMO_PALETTE), {}, None, "palette='demo'"),
    "mirrored": (np.ascontiguousarray(FACE[:, ::-1]), {}, FACE[:, ::-1], "left and right labels exchanged"),
    "upside down": (np.ascontiguousarray(FACE[::-1]), {}, FACE[::-1], "turn the mask upright"),
    "wide, cropped": (np.pad(FACE, ((0, 0), (20, 20))), {"size": 64, "fit": "crop"}, FACE[1::2, 1::2], "cropped"),
    "wide, stretched": (FACE.repeat(2, 1), {"size": 128, "fit": "stretch"}, FACE, "stretched"),
}  # fmt: skip


@pytest.mark.parametrize("case", READ)
def test_what_people_have_is_read_as_what_it_is(case):
    image, how, expected, words = READ[case]
    with warnings.catch_warnings(record=True) as notes:
        warnings.simplefilter("always")
        decoded = decode_mask(image, **how)
    said = "; ".join(text for note in notes if "had no palette colour" not in (text := str(note.message)))
    assert re.search(words, said) if words else not said, said
    if expected is not None:
        assert decoded.shape == expected.shape and (decoded == expected).mean() >= (0.99 if "JPEG" in case else 1)


REFUSED = {
    "case: one part": (CASES / "00000_hair_rgb.png", {}, r"one part \(hair\).*join the parts"),
    "case: tall made square": (CASES / "tall_128x192.png", {"size": 128}, "found 128 x 192.*fit='crop' or fit='pad'"),
    "one part, gray": (np.where(FACE == 13, 255, 0).astype(np.uint8), {}, "one region alone"),
    "one part, palette": (paletted((FACE == 13).astype(np.uint8), np.array([[0] * 3, [255] * 3])), {}, "one region"),
    "one part, inverted": (np.dstack([np.where(FACE == 13, 0, 255)] * 3), {}, "one region"),
    "a strange region": (patched((255, 255, 255)), {}, r"such as \(255, 255, 255\) in 64 of 16384"),
    "a strange small region": (patched((255, 0, 255), 5), {}, "colours far from the palette"),
    "a strange region on white": (np.where(FACE[..., None] == 13, (90, 90, 200), on(255)), {}, "colours far from"),
    "another tool's colours": (
        np.stack([np.arange(19) * 13, 255 - np.arange(19) * 13, np.arange(19) * 7 % 256], 1)[FACE], {}, "far from",
    ),
    "labels made to be seen": (FACE * 13, {}, "labels times 13"),
    "labels made to be seen, RGB": (np.dstack([FACE * 10] * 3), {}, "labels times 10"),
    "unlabelled pixels": (np.where(FACE == 0, 255, FACE), {}, "255 often marks pixels without a label"),
    "from 1 to 19": (FACE + 1, {}, "labels='one-based'"),
    "from 0 as if from 1": (FACE, {"labels": "one-based"}, "label 0, expected labels 1..19"),
    "19 classes as LaPa's 11": (FACE, {"labels": "lapa"}, "expected labels 0..10 of labels='lapa'"),
    "colours as numbers": (colorize(FACE), {"labels": "bisenet"}, "found colours, expected numbers"),
    "no such parser": (FACE, {"labels": "bisnet"}, "expected one of 'celebamask', 'bisenet'"),
    "no such fit": (FACE, {"fit": "squash"}, "expected one of 'crop', 'pad', 'stretch'"),
    "labels in R, G and B as JPEG": (jpeg(np.dstack([FACE] * 3)), {}, "JPEG|nearly black"),
    "a gray photograph": (np.dstack([np.add.outer(np.arange(128), np.arange(128)).astype(np.uint8)] * 3), {}, "gray"),
    "a photograph on black": (
        np.where(FACE[..., None] > 0, np.random.default_rng(0).integers(90, 256, (128, 128, 3)), 0), {}, "photograph",
    ),
    "wide made tall": (FACE.repeat(2, 1), {"size": (128, 64)}, "found 256 x 128.*such as"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_read_is_refused_with_its_cause(case):
    image, how, words = REFUSED[case]
    with pytest.raises(MogleError, match=words) as caught:
        decode_mask(image, **how)
    said = str(caught.value)
    assert "\n" not in said and "expected" in said and (not isinstance(image, Path) or said.startswith(str(image)))


def test_the_projects_own_masks_are_read_without_a_word():
    for path in sorted(PORTRAITS.glob("*/mask/*.png")):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert (decode_mask(path) == np.asarray(Image.open(path))).all()


def test_other_parsers_numbers_are_recognised_in_every_portrait():
    for labels in ("bisenet", "farl", "one-based", "lapa"):
        for path in sorted(PORTRAITS.glob("portraits/mask/*.png"))[::4]:
            numbers = numbered(np.asarray(Image.open(path)), labels)
            if labels == "one-based" and numbers.max() > 18:
                continue
            with pytest.warns(MogleWarning, match=f"labels='{labels}'"):
                decode_mask(numbers)


def test_left_and_right_are_the_persons_own_in_every_order():
    left, right = (np.argwhere(np.isin(FACE, LABELS.index(brow)))[:, 1].mean() for brow in ("l_brow", "r_brow"))
    assert left > right
    assert all(order.index("l_eye") + 1 == order.index("r_eye") for order in ORDERS.values())
    assert all(set(order) <= {*LABELS, ""} for order in ORDERS.values())


@pytest.mark.parametrize(
    "shape, pixels, size",
    [
        ((128, 128), None, (128, 128)),
        ((512, 512), 128**2, (128, 128)),
        ((192, 128), 128**2, (144, 96)),
        ((192, 128), None, (192, 128)),
        ((1024, 768), 1024**2, (1152, 864)),
        ((100, 130), None, (96, 128)),
        ((1, 900), 256, (16, 16)),
    ],
)
def test_the_nearest_size_keeps_the_shape(shape, pixels, size):
    found = nearest_size(shape, pixels=pixels)
    assert found[0] % 16 == found[1] % 16 == 0
    if shape != (1, 900):
        assert found == size


label_maps = npst.arrays(np.uint8, st.tuples(st.integers(2, 20), st.integers(2, 20)), elements=st.integers(0, 18))


@settings(max_examples=60, deadline=None)
@given(label_maps, st.integers(0, 2**32 - 1), st.floats(0, 25))
def test_noise_below_the_threshold_changes_no_label(label_map, seed, most):
    label_map[0, 0] = 1  # a mask of nothing but noise around black is refused
    generator = np.random.default_rng(seed)
    noise = generator.normal(size=(*label_map.shape, 3))
    noise *= most * generator.random((*label_map.shape, 1)) / np.linalg.norm(noise, axis=-1, keepdims=True)
    colours = np.clip(np.trunc(colorize(label_map) + noise), 0, 255).astype(np.uint8)
    with warnings.catch_warnings(action="ignore", category=MogleWarning):
        assert (decode_mask(colours) == label_map).all()
        shuffled = generator.permutation(label_map.size)
        moved = colours.reshape(-1, 3)[shuffled].reshape(colours.shape)
        assert (decode_mask(moved) == label_map.ravel()[shuffled].reshape(label_map.shape)).all()


@settings(max_examples=60, deadline=None)
@given(label_maps, st.integers(1, 5), st.sampled_from(["celebamask", "bisenet", "farl"]))
def test_label_maps_survive_writing_reading_and_whole_factors(label_map, factor, labels):
    file = io.BytesIO()
    save_mask(file, label_map)
    larger = tuple(factor * side for side in label_map.shape)
    with warnings.catch_warnings(action="ignore", category=MogleWarning):
        decoded = decode_mask(Image.open(file), size=larger)
        assert (decoded == label_map.repeat(factor, 0).repeat(factor, 1)).all()
        assert (resize_labels(decoded, label_map.shape) == label_map).all()
        assert (decode_mask(numbered(label_map, labels), labels=labels) == label_map).all()


def mutated(content: bytes, random_: random.Random) -> bytes:
    """Bytes flipped, cut, or repeated."""
    kind, data = random_.randrange(3), bytearray(content)
    start = random_.randrange(len(data))
    if kind == 0:
        for _ in range(random_.randint(1, 8)):
            data[random_.randrange(len(data))] ^= 1 << random_.randrange(8)
    elif kind == 1:
        del data[start : start + random_.randint(1, len(data))]
    else:
        data[start:start] = data[start : start + random_.randint(1, 64)] * random_.randint(1, 50)
    return bytes(data)


def test_300_damaged_masks_end_in_a_label_map_or_an_error_that_helps(tmp_path):
    random_, path = random.Random(0), tmp_path / "mask.png"
    originals = [(CASES / name).read_bytes() for name in ("bisenet_order.png", "white_background.png")]
    save_mask(path, FACE)
    originals.append(path.read_bytes())
    for form in ("JPEG", "WEBP", "TIFF", "BMP", "GIF"):
        file = io.BytesIO()
        Image.fromarray(colorize(FACE)).save(file, form)
        originals.append(file.getvalue())
    for number in range(300):
        path.write_bytes(mutated(originals[number % len(originals)], random_))
        began = time.monotonic()
        with warnings.catch_warnings(action="ignore"):
            try:
                decoded = decode_mask(path)
                assert decoded.dtype == np.uint8 and decoded.ndim == 2 and decoded.max() < 19
            except MogleError as error:
                assert str(error).startswith(str(path))
        assert time.monotonic() - began < 5, number
