"""Attributes that make sense, portraits from seeds, folders in the data sets' layout."""

import json
from collections import Counter

import numpy as np
import pytest
from PIL import Image

import mogle.tiny.portraits as portraits
from mogle.datasets import FaceDataset
from mogle.errors import MogleError
from mogle.labels import LABELS
from mogle.tiny.portraits import STYLES, paint, paint_many, sample_attributes, write_dataset
from mogle.words import ATTRIBUTES, read_caption


def drawn(style, count=2000):
    rng = np.random.default_rng(5)
    return [sample_attributes(rng, style) for _ in range(count)]


@pytest.mark.parametrize("style", STYLES)
def test_attributes_are_consistent(style):
    for a in drawn(style):
        assert list(a) == list(ATTRIBUTES)
        assert all(v is None or v in ATTRIBUTES[n].values for n, v in a.items())
        bald, hat, shades = a["hair_length"] == "bald", a["hat"] == "yes", a["sunglasses"] == "yes"
        assert (a["hair_color"] is None) == (a["hair_texture"] is None) == bald
        assert not (a["bangs"] == "yes" and (bald or hat))
        assert (a["hat_color"] is None) == (not hat)
        assert (a["sunglasses"] is None) == (a["eyeglasses"] == "no")
        assert (a["makeup"] is None) == shades
        assert a["facial_hair"] == "none" or a["gender"] == "man"


def test_every_value_is_common_enough_to_be_learned():
    sets = drawn("portraits", 4000)
    for name, attribute in ATTRIBUTES.items():
        counts = Counter(a[name] for a in sets if a[name] is not None)
        assert min(counts[v] for v in attribute.values) >= 0.08 * sum(counts.values()), (name, counts)


def test_hidden_attributes_tell_little_about_the_mask():
    """Captions are swapped between portraits: every hair colour has to occur with every length, and so on."""
    sets = drawn("portraits", 4000)
    for hidden in ("skin", "hair_color", "light", "background", "clothes", "age"):
        for seen in ("gender", "smiling", "pose"):
            pairs = Counter((a[hidden], a[seen]) for a in sets if a[hidden])
            for value in ATTRIBUTES[hidden].values:
                row = [pairs[value, s] for s in ATTRIBUTES[seen].values]
                whole = [sum(pairs[h, s] for h in ATTRIBUTES[hidden].values) for s in ATTRIBUTES[seen].values]
                share = np.array(row) / np.array(whole)
                assert share.max() - share.min() < 0.06, (hidden, value, seen)


def test_shifted_styles():
    assert {a["gender"] for a in drawn("female")} == {"woman"}
    counts = Counter((a["gender"], a["age"], a["skin"]) for a in drawn("balanced", 6000))
    assert len(counts) == 18 and max(counts.values()) < 1.4 * min(counts.values())


@pytest.mark.parametrize("style", STYLES)
def test_paint_depends_on_nothing_but_the_seed(style):
    one, same, other = paint(3, 48, style), paint(3, 48, style), paint(4, 48, style)
    assert one.image.shape == (48, 48, 3) and one.mask.shape == (48, 48)
    assert one.image.dtype == one.mask.dtype == np.uint8 and one.mask.max() < len(LABELS)
    assert (one.image == same.image).all() and (one.mask == same.mask).all()
    assert (one.attributes, one.captions) == (same.attributes, same.captions)
    assert (one.image != other.image).any()
    assert paint(3, 96, style).captions == one.captions


@pytest.mark.parametrize("style", STYLES)
def test_mask_shows_what_the_attributes_say(style):
    _, masks, attributes, _ = paint_many(range(16), 96, style)
    labels = {"hat": "hat", "eyeglasses": "eye_g", "earrings": "ear_r", "necklace": "neck_l", "mouth_open": "mouth"}
    for mask, a in zip(masks, attributes, strict=True):
        count = np.bincount(mask.ravel(), minlength=len(LABELS))
        for name, label in labels.items():
            assert (a[name] == "yes") == (count[LABELS.index(label)] > 0), (name, a)
        assert (a["hair_length"] == "bald") <= (count[LABELS.index("hair")] == 0)
        for name, attribute in ATTRIBUTES.items():
            if attribute.needs is not None and a[name] is not None:
                assert count[attribute.needs] >= 0.003 * mask.size, (name, a)
        for label in ("skin", "nose", "u_lip", "l_lip"):
            assert count[LABELS.index(label)] > 0


def test_all_classes_occur():
    assert set(np.unique(paint_many(range(16), 96)[1])) == set(range(len(LABELS)))


def test_mask_does_not_give_the_hidden_attributes_away():
    """Two sets of attributes that differ only in what the mask cannot show are painted with the same mask."""
    from mogle.tiny.portraits.painter import draw

    rng = np.random.default_rng(2)
    for seed in range(6):
        one, other = (sample_attributes(rng) for _ in range(2))
        mixed = {n: other[n] if not a.in_mask and one[n] and other[n] else one[n] for n, a in ATTRIBUTES.items()}
        (image, mask), (image2, mask2) = (draw(a, np.random.default_rng(seed), 64, "portraits") for a in (one, mixed))
        assert (mask == mask2).all() and (image != image2).any()


def test_out_of_sight_is_not_asked_for():
    attributes = {n: a.values[-1] for n, a in ATTRIBUTES.items()}
    mask = np.zeros((64, 64), np.uint8)
    mask[:32], mask[0, :5] = LABELS.index("cloth"), LABELS.index("hair")
    shown = portraits._in_sight(attributes, mask)
    gone = {"hair_length", "hair_color", "hair_texture", "hat_color", "sunglasses"}
    assert {n for n, v in shown.items() if v is None} == gone
    for share, hat, gone in ((0.05, "yes", True), (0.2, "yes", False), (0.05, "no", False)):
        mask[:] = 0
        mask[: round(64 * share)] = LABELS.index("hair")
        seen = portraits._in_sight({**attributes, "hat": hat}, mask)
        assert (seen["hair_texture"] is None) == gone and seen["hair_color"], "waves under a hat take more hair"
    assert portraits.full_caption(shown)
    assert len(portraits.write_captions(shown, np.random.default_rng(0))) == 10


def test_paint_many_does_not_depend_on_workers():
    seeds = [*range(33), 7]
    alone, together = paint_many(seeds, 32, workers=1), paint_many(seeds, 32, workers=2)
    for a, b in zip(alone[:2], together[:2], strict=True):
        assert (a == b).all()
    assert alone[2:] == together[2:]
    assert (alone[0][7] == alone[0][33]).all() and (alone[0][5] == paint(5, 32).image).all()


@pytest.mark.parametrize("arguments", [(-1,), (1.5,), (0, 8), (0, 64, "cubist")])
def test_bad_arguments(arguments):
    with pytest.raises(MogleError):
        paint(*arguments)


def contents(root):
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("style, first", [("portraits", "0"), ("female", "00000"), ("balanced", "0")])
def test_written_set_reads_back(tmp_path, style, first):
    assert write_dataset(tmp_path, [0, 1, 7], 32, style, workers=1) == 3
    data = FaceDataset(tmp_path)
    assert data.validate() == 0 and len(data) == 3 and data.ids[0] == first
    assert data.has_split == (style == "portraits")
    assert (tmp_path / "text.json").exists() == (style != "balanced")
    for sample, seed in zip(data, (0, 1, 7), strict=True):
        portrait = paint(seed, 32, style)
        assert (sample.label_map == portrait.mask).all()
        assert np.abs(np.asarray(sample.image, int) - portrait.image).mean() < 6
        assert sample.captions == portrait.captions and sample.attributes == portrait.attributes
        assert read_caption(sample.captions[0]).items() <= sample.attributes.items()
    with Image.open(tmp_path / "mask" / f"{first}.png") as mask:
        assert mask.mode == "P"


def test_a_stopped_run_goes_on(tmp_path, monkeypatch):
    whole, halting = tmp_path / "whole", tmp_path / "halting"
    write_dataset(whole, range(5), 32, workers=1)
    honest, left = portraits.paint, iter(range(3))

    def tired(*arguments):
        if next(left, None) is None:
            raise KeyboardInterrupt
        return honest(*arguments)

    monkeypatch.setattr(portraits, "paint", tired)
    with pytest.raises(KeyboardInterrupt):
        write_dataset(halting, range(5), 32, workers=1)
    (halting / "mask" / "1.png").unlink()
    monkeypatch.setattr(portraits, "paint", honest)
    write_dataset(halting, range(2), 32, workers=1)
    write_dataset(halting, range(2, 5), 32, workers=2)
    assert contents(halting) == contents(whole)
    assert json.loads((whole / "dataset.json").read_text())["seeds"] == [[0, 4]]


def test_leaves_other_data_alone(tmp_path):
    write_dataset(tmp_path / "a", [0], 32, workers=1)
    with pytest.raises(MogleError, match="size 32, asked for size 48"):
        write_dataset(tmp_path / "a", [1], 48, workers=1)
    (tmp_path / "b" / "face").mkdir(parents=True)
    (tmp_path / "b" / "face" / "0.jpg").write_bytes(b"mine")
    with pytest.raises(MogleError, match="not painted here"):
        write_dataset(tmp_path / "b", [0], 32, workers=1)
    (tmp_path / "c").write_text("a file")
    with pytest.raises(MogleError, match="found a file"):
        write_dataset(tmp_path / "c", [0], 32, workers=1)
    assert contents(tmp_path / "b") == {"face/0.jpg": b"mine"}
