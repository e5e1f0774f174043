"""The three layouts, pairing by id, splits, and every problem at once."""

import json
import random
import shutil
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mogle.datasets import FaceDataset
from mogle.errors import MogleError, MogleWarning
from mogle.labels import ORDERS, save_mask
from mogle.pictures import fit_picture

CASES = Path(__file__).parent / "cases"
FACE = np.asarray(Image.open(CASES / "masks" / "rgb_labels_repeated.png"))[..., 0]


def make(root, ids, *, ending="jpg", text_json=True, texts=True, size=16, mask_size=None):
    for folder in ("face", "mask", "text"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for k, name in enumerate(ids):
        Image.new("RGB", (size, size), (k * 7 % 256, 0, 0)).save(root / "face" / f"{name}.{ending}")
        save_mask(root / "mask" / f"{name}.png", np.full([mask_size or size] * 2, k % 19, np.uint8))
        if texts:
            (root / "text" / f"{name}.txt").write_text(f"Caption of {name}.\nAnother.\n")
    if text_json:
        names = {f"{name}.{ending}": [f"Caption of {name}.", "Another."] for name in ids}
        (root / "text.json").write_text(json.dumps(names))
    return root


@pytest.mark.parametrize(
    "ids, options",
    [
        (["0", "2", "10", "27000"], {}),  # MM-CelebA-HQ
        (["00001", "00002", "00010"], {}),  # MM-FFHQ-Female
        (["52", "55", "101", "86001"], {"text_json": False}),  # MM-FairFace-HQ
        (["3", "20"], {"texts": False, "ending": "png"}),
        (["9", "10", "face-2", "face-10"], {"text_json": False, "ending": "JPEG"}),
    ],
)
def test_layouts(tmp_path, ids, options):
    data = FaceDataset(make(tmp_path, ids, **options))
    (tmp_path / "face" / "Thumbs.db").write_bytes(b"")
    assert data.ids == ids
    for k, sample in enumerate(data):
        assert sample.id == ids[k] and sample.captions == [f"Caption of {ids[k]}.", "Another."]
        assert sample.image.mode == "RGB" and sample.attributes is None
        assert (sample.label_map == k % 19).all() and sample.label_map.dtype == np.uint8
    assert data.validate() == 0


def test_split_by_number_only_where_numbered_as_celeba(tmp_path):
    celeba = make(tmp_path / "a", ["0", "26999", "27000", "29999"])
    assert FaceDataset(celeba, "train").ids == ["0", "26999"]
    assert FaceDataset(celeba, "test").ids == ["27000", "29999"]
    for other in (
        make(tmp_path / "b", ["00001", "00002"]),
        make(tmp_path / "c", ["52", "28000"], text_json=False),
        make(tmp_path / "d", ["1", "40000"]),
    ):
        data = FaceDataset(other, "test")
        assert len(data) == 2 and not data.has_split
    with pytest.raises(MogleError, match="no usable sample in the test split"):
        FaceDataset(make(tmp_path / "e", ["0", "1"]), "test")


def test_size(tmp_path):
    make(tmp_path, ["0"], size=32, mask_size=16)
    assert FaceDataset(tmp_path)[0].label_map.shape == (32, 32)
    sample = FaceDataset(tmp_path, size=(24, 20), fit="stretch")[0]
    assert sample.image.size == (20, 24) and sample.label_map.shape == (24, 20)


@pytest.mark.parametrize("size", [(64, 64), (30, 50), (128, 96), (256, 300)])
def test_pictures_are_resized_as_pillow_does_it(size, monkeypatch):
    noise = np.random.default_rng(0).integers(0, 256, (128, 128, 3)).astype(np.uint8)
    picture = Image.fromarray(noise)
    expected = np.asarray(picture.resize(size[::-1], Image.Resampling.LANCZOS)).astype(int)
    found = np.abs(np.asarray(fit_picture(picture, size, "stretch")) - expected)
    assert found.max() <= 2 and (found > 0).mean() < 0.02

    def old(*_, **__):
        raise ValueError("Anti-alias option is restricted to bilinear and bicubic modes")

    monkeypatch.setattr("torch.nn.functional.interpolate", old)
    assert (np.asarray(fit_picture(picture, size, "stretch")) == expected).all()
    assert (np.asarray(fit_picture(picture, (128, 128), None)) == noise).all()


def test_all_problems_at_once(tmp_path):
    make(tmp_path, [str(i) for i in range(6)])
    (tmp_path / "mask" / "1.png").unlink()
    (tmp_path / "face" / "2.jpg").unlink()
    Image.new("RGB", (16, 16)).save(tmp_path / "face" / "3.png")
    with pytest.raises(MogleError) as error:
        FaceDataset(tmp_path)
    message = str(error.value)
    assert "3 problems" in message and "no mask/1.png" in message and "skip_bad" in message
    assert "2: mask and captions without a picture" in message and "3: 2 pictures" in message
    data = FaceDataset(tmp_path, skip_bad=True)
    assert data.ids == ["0", "4", "5"] and len(data.problems) == 3


def test_validate_reads_files(tmp_path):
    make(tmp_path, [str(i) for i in range(4)], text_json=False)
    (tmp_path / "face" / "0.jpg").write_bytes((tmp_path / "face" / "0.jpg").read_bytes()[:200])
    save_mask(tmp_path / "mask" / "1.png", np.zeros((16, 24), np.uint8))
    (tmp_path / "text" / "2.txt").write_text("\n")
    with pytest.raises(MogleError) as error:
        FaceDataset(tmp_path).validate()
    message = str(error.value)
    assert "3 problems" in message and "0.jpg" in message and "24 x 16" in message and "2.txt" in message
    data = FaceDataset(tmp_path, skip_bad=True)
    assert data.validate() == 3 and data.ids == ["3"]


@pytest.mark.parametrize("content", ["{", "[]", '{"0.jpg": "not a list"}'])
def test_damaged_text_json(tmp_path, content):
    make(tmp_path, ["0"], texts=False)
    (tmp_path / "text.json").write_text(content)
    with pytest.raises(MogleError, match="text.json"):
        FaceDataset(tmp_path)


def test_no_data_set(tmp_path):
    with pytest.raises(MogleError, match="no such folder"):
        FaceDataset(tmp_path / "absent")
    with pytest.raises(MogleError, match="without face/"):
        FaceDataset(tmp_path)
    with pytest.raises(MogleError, match="expected 'train'"):
        FaceDataset(tmp_path, "val")


def portraits(root, count=3, *, size=128):
    """A data set of portraits, all with one mask."""
    for folder in ("face", "mask", "text"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for k in range(count):
        Image.new("RGB", (size, size), (40 * k, 90, 90)).save(root / "face" / f"p{k}.png")
        save_mask(root / "mask" / f"p{k}.png", FACE)
        (root / "text" / f"p{k}.txt").write_text(f"A portrait.\nNumber {k}.\n")
    return root


def too_long(caption: str) -> str | None:
    words = len(caption.split())
    return f"found {words} words, expected at most 150; shorten it" if words > 150 else None


def notes_of(read):
    with warnings.catch_warnings(record=True) as notes:
        warnings.simplefilter("always")
        return read(), [str(note.message) for note in notes]


@pytest.mark.parametrize("case", ["bom_txt", "cmyk_gray16", "few_captions", "rgb_labels", "upper_png", "webp"])
def test_data_as_people_have_it_is_read_as_what_it_is(case):
    data, notes = notes_of(lambda: FaceDataset.checked(CASES / "data" / case, caption_problem=too_long))
    assert len(data) == len(list((CASES / "data" / case / "face").iterdir()))
    assert [note for note in notes if case != "cmyk_gray16"] == []
    for sample in data:
        assert sample.captions[0][0].isupper() and sample.image.mode == "RGB"
        own = Image.open(next((CASES / "data" / case / "mask").glob(f"{sample.id}.*")))
        assert (sample.label_map == (np.asarray(own)[..., 0] if case == "rgb_labels" else np.asarray(own))).all()
    if case == "few_captions":
        assert {sample.id: len(sample.captions) for sample in data} == {"p2": 3, "p3": 1}


def test_faces_lose_nothing_when_read():
    root = CASES / "data" / "cmyk_gray16"
    data, notes = notes_of(lambda: FaceDataset.checked(root))
    assert len(notes) == 1 and "p5.png: 42% of the picture is transparent" in notes[0]
    pictures = {sample.id: np.asarray(sample.image).astype(int) for sample in data}
    plain = np.asarray(Image.open(CASES / "data" / "upper_png" / "face" / "p1.jpg")).astype(int)
    assert np.abs(pictures["p1"] - plain).mean() < 3, "CMYK"
    deep = np.asarray(Image.open(root / "face" / "p3.png"))
    assert (pictures["p3"] == np.rint(deep / 257.0)[..., None]).all(), "16-bit gray"
    clear = np.asarray(Image.open(root / "face" / "p5.png"))[..., 3] == 0
    assert (pictures["p5"][clear] == 128).all() and clear.any(), "transparency"


def deep_gray(root):
    values = (np.arange(128 * 128).reshape(128, 128) % 250).astype(np.uint16)
    Image.fromarray(values).save(root / "face" / "p0.png")  # 8-bit values in a 16-bit file


def transparent_palette(root):
    picture = Image.new("P", (128, 128), 3)
    picture.putpalette([0, 0, 0] * 3 + [200, 10, 10])
    picture.save(root / "face" / "p0.png", transparency=3)


def clear_gray(root):
    Image.new("LA", (128, 128), (200, 0)).save(root / "face" / "p0.png")


def utf16(root):
    (root / "text" / "p0.txt").write_text("A portrait.\nNumber 0.\n", encoding="utf-16")


def text_json_with_mark(root):
    shutil.rmtree(root / "text")
    texts = {f"p{k}.png": ["\ufeffA portrait.", f"Number {k}."] for k in range(3)}
    (root / "text.json").write_text(json.dumps(texts), encoding="utf-8-sig")


def capitals(root):
    (root / "face" / "p0.png").rename(root / "face" / "p0.PNG")
    (root / "mask" / "p1.png").rename(root / "mask" / "p1.Png")
    (root / "text" / "p2.txt").rename(root / "text" / "p2.TXT")


def other_endings(root):
    for folder, k, ending in (("face", 0, "tiff"), ("face", 1, "BMP"), ("mask", 2, "webp"), ("mask", 0, "tif")):
        path = root / folder / f"p{k}.png"
        Image.open(path).convert("RGB").save(path.with_suffix(f".{ending}"), lossless=True)
        path.unlink()


def windows_lines(root):
    (root / "text" / "p0.txt").write_bytes(b"A portrait.\r\n\r\nNumber 0.\r\n")


@pytest.mark.parametrize(
    "change, value, note",
    [
        (deep_gray, (5, 5, 5), ""),
        (transparent_palette, (128, 128, 128), "100% of the picture is transparent"),
        (clear_gray, (128, 128, 128), "100% of the picture is transparent"),
        (utf16, (0, 90, 90), ""),
        (text_json_with_mark, (0, 90, 90), ""),
        (capitals, (0, 90, 90), ""),
        (other_endings, (0, 90, 90), ""),
        (windows_lines, (0, 90, 90), ""),
    ],
)
def test_odd_files_that_can_be_read(tmp_path, change, value, note):
    change(portraits(tmp_path))
    data, notes = notes_of(lambda: FaceDataset.checked(tmp_path))
    assert len(data) == 3 and len(notes) == bool(note) and all(note in said for said in notes)
    assert data[0].image.getpixel((5, 0)) == value and data[0].captions == ["A portrait.", "Number 0."]
    assert all((sample.label_map == FACE).all() for sample in data)


def empty_masks(root):
    for k in range(3):
        save_mask(root / "mask" / f"p{k}.png", np.zeros((128, 128), np.uint8))


def heic(root):
    (root / "face" / "p0.png").rename(root / "face" / "p0.heic")


def no_masks(root):
    shutil.rmtree(root / "mask")


def two_masks(root):
    shutil.copy(root / "mask" / "p0.png", root / "mask" / "p0.tif")


def long_caption(root):
    (root / "text" / "p1.txt").write_text("A portrait.\n" + "very " * 200 + "long\n")


def latin1(root):
    (root / "text" / "p1.txt").write_bytes(b"Une fa\xe7ade.\n")


def other_shape(root):
    Image.new("RGB", (128, 192)).save(root / "face" / "p1.png")


def parts(root):
    for k in range(3):
        Image.fromarray(np.where(FACE == 13, 255, 0).astype(np.uint8)).save(root / "mask" / f"p{k}.png")


def half_a_pair(root):
    (root / "text.json").write_text('{"p1.png": ["\\ud800"]}')


def deep_json(root):
    (root / "text.json").write_text("[" * 100_000)


def floating(root):
    Image.fromarray(np.full((128, 128), 0.5, np.float32)).save(root / "face" / "p1.tiff")
    (root / "face" / "p1.png").unlink()


@pytest.mark.parametrize(
    "change, words",
    [
        (empty_masks, ["3 problems", "p0: ", "p0.png: found nothing but background, expected a face", "p2: "]),
        (heic, ["p0: mask and captions without a picture in face/ (found face/p0.heic, expected an ending of"]),
        (no_masks, ["3 problems", "p0: no mask/p0.png", "p2: no mask/p2.png"]),
        (two_masks, ["p0: 2 masks: p0.png, p0.tif; keep one"]),
        (long_caption, ["p1: ", "p1.txt: caption 2: found 201 words, expected at most 150; shorten it"]),
        (latin1, ["p1: ", "p1.txt: not readable as text", "expected UTF-8"]),
        (other_shape, ["p1: mask of 128 x 128 pixels for a picture of 128 x 192"]),
        (parts, ["3 problems", "p0.png: found label 255", "one region alone"]),
        (half_a_pair, ["p1: text.json holds no list of captions"]),
        (deep_json, ["text.json: not readable as JSON"]),
        (floating, ["p1: ", "p1.tiff: found gray values between 0.5 and 0.5", "expected 8 or 16 bits"]),
    ],
)
def test_what_is_wrong_is_said_of_its_sample_and_file(tmp_path, change, words):
    change(portraits(tmp_path))
    with pytest.raises(MogleError) as caught:
        FaceDataset.checked(tmp_path, caption_problem=too_long)
    assert all(word in str(caught.value) for word in words), caught.value
    every = change in (empty_masks, no_masks, parts)
    if every:  # nothing is left, and the reasons are said all the same
        with pytest.raises(MogleError) as caught:
            FaceDataset.checked(tmp_path, skip_bad=True)
        assert all(word in str(caught.value) for word in words[1:]), caught.value
    elif change is not deep_json:
        data = FaceDataset.checked(tmp_path, skip_bad=True, caption_problem=too_long)
        assert len(data) == 2 and len(data.problems) == 1


def test_a_caption_that_is_too_long_is_found_before_the_run():
    with pytest.raises(MogleError, match="p3.txt: caption 1: found 200 words, expected at most 150"):
        FaceDataset.checked(CASES / "data" / "long_caption", caption_problem=too_long)
    data = FaceDataset.checked(CASES / "data" / "long_caption", skip_bad=True, caption_problem=too_long)
    assert data.ids == ["p2"]


def test_many_problems_and_notes_are_counted_by_kind(tmp_path):
    portraits(tmp_path, 30)
    for k in range(20):
        (tmp_path / "mask" / f"p{k}.png").write_bytes(b"nothing")
    for k in range(20, 25):
        save_mask(tmp_path / "mask" / f"p{k}.png", np.zeros((128, 128), np.uint8))
    for k in range(25, 30):
        Image.new("LA", (128, 128), (9, 99)).save(tmp_path / "face" / f"p{k}.png")
    with (
        pytest.raises(MogleError) as caught,
        pytest.warns(MogleWarning, match="p25.*transparent.*so for 4 more") as said,
    ):
        FaceDataset.checked(tmp_path)
    assert len(said) == 1 and "25 problems" in str(caught.value) and str(caught.value).count("\n") == 9
    assert "and 17 more: 12 with a mask that cannot be read, 5 with nothing but background" in str(caught.value)


def test_shapes_are_kept_or_changed_by_request(tmp_path):
    portraits(tmp_path)
    tall = np.pad(FACE, ((64, 0), (0, 0)))
    for k in range(3):
        Image.fromarray(np.repeat((tall > 0)[..., None] * np.uint8(255), 3, 2)).save(tmp_path / "face" / f"p{k}.png")
        save_mask(tmp_path / "mask" / f"p{k}.png", tall)
    with pytest.raises(MogleError, match="p0: .*p0.png: found 128 x 192 pixels, expected the shape of 128 x 128"):
        FaceDataset.checked(tmp_path, size=128)
    assert FaceDataset.checked(tmp_path, size=(96, 64))[0].label_map.shape == (96, 64)
    for fit, expected in (("crop", tall[32:160]), ("pad", None)):
        data, notes = notes_of(lambda fit=fit: FaceDataset.checked(tmp_path, size=128, fit=fit))
        assert len(notes) == 1 and {"crop": "cropped", "pad": "padded"}[fit] in notes[0] and "so for 2 more" in notes[0]
        sample, quiet = notes_of(lambda data=data: data[0])
        assert quiet == [] and sample.image.size == (128, 128) and sample.label_map.shape == (128, 128)
        face = np.asarray(sample.image)[..., 0]
        assert ((face > 250) == (sample.label_map > 0))[:, 24:-24].mean() > 0.97
        assert expected is None or (sample.label_map == expected).all()


def test_masks_in_another_parsers_numbers(tmp_path):
    portraits(tmp_path)
    table = np.array([ORDERS["bisenet"].index(name) for name in ORDERS["celebamask"]], np.uint8)
    for k in range(3):
        Image.fromarray(table[FACE]).save(tmp_path / "mask" / f"p{k}.png")
    with pytest.warns(MogleWarning, match="labels='bisenet'.*so for 2 more"):
        FaceDataset.checked(tmp_path)
    data, notes = notes_of(lambda: FaceDataset.checked(tmp_path, labels="bisenet"))
    assert notes == [] and (data[1].label_map == FACE).all()
    with pytest.raises(MogleError, match="expected one of 'celebamask'"):
        FaceDataset(tmp_path, labels="bisnet")


def test_200_damaged_texts_end_in_captions_or_an_error_that_helps(tmp_path):
    random_, root = random.Random(1), portraits(tmp_path, 2)
    texts = json.dumps({f"p{k}.png": ["A portrait.", "Ein Gesicht, schön."] for k in range(2)}).encode()
    captions = "A portrait.\nEin schönes Gesicht.\n".encode("utf-8-sig")
    for number in range(200):
        content = bytearray(texts if number % 2 else captions)
        start, kind = random_.randrange(len(content)), random_.randrange(3)
        if kind == 0:
            for _ in range(random_.randint(1, 6)):
                content[random_.randrange(len(content))] ^= 1 << random_.randrange(8)
        elif kind == 1:
            del content[start : start + random_.randint(1, len(content))]
        else:
            content[start:start] = content[start : start + random_.randint(1, 8)] * random_.randint(1, 5000)
        (root / "text.json").unlink(missing_ok=True)
        (root / ("text.json" if number % 2 else "text/p0.txt")).write_bytes(content)
        began = time.monotonic()
        try:
            data = FaceDataset(root)
            assert all(isinstance(c, str) and c.strip() for k in range(len(data)) for c in data.captions(k))
        except MogleError as error:
            assert str(root) in str(error)
        assert time.monotonic() - began < 5, number
