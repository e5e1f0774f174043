"""The two judges: shapes, files, and that a few steps of training teach them something."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from mogle.errors import MogleError
from mogle.metrics.judges import AttributeReader, FaceParser, Judges, load_judges
from mogle.tiny.judges import disturb, measure_judges, train_judges, warp_grid
from mogle.tiny.save import parameters, save_judges
from mogle.words import ATTRIBUTES


def squares(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, list[dict[str, str | None]]]:
    """Pictures of one square; its side of the picture is its class, its colour stands for a hat's."""
    rng = np.random.default_rng(seed)
    images = rng.integers(70, 110, (count, 32, 32, 3)).astype(np.uint8)
    masks = np.zeros((count, 32, 32), np.uint8)
    attributes: list[dict[str, str | None]] = []
    for image, mask in zip(images, masks, strict=True):
        x, y, red = rng.choice([2, 18]), rng.integers(2, 18), rng.random() < 0.5
        image[y : y + 12, x : x + 12] = (220, 60, 40) if red else (40, 60, 220)
        mask[y : y + 12, x : x + 12] = 5 if x == 2 else 4
        attributes.append({"hat": "yes", "hat_color": "red" if red else "blue"})
    return images, masks, attributes


def test_networks_are_small_and_take_any_size() -> None:
    torch.manual_seed(0)
    parser = FaceParser().eval()
    reader = AttributeReader({name: a.values for name, a in ATTRIBUTES.items()}).eval()
    assert parameters(parser) <= 600_000 and parameters(reader) <= 600_000
    with torch.no_grad():
        assert parser(torch.rand(2, 3, 50, 70)).shape == (2, 19, 50, 70)
        read = reader(torch.rand(2, 3, 96, 96))
        assert {name: logits.shape[1] for name, logits in read.items()} == {
            n: len(a.values) for n, a in ATTRIBUTES.items()
        }
        assert reader.features(torch.rand(2, 3, 128, 128)).shape == (2, AttributeReader.FEATURES)


def test_augmentation_keeps_range_and_leaves_some_samples_in_place() -> None:
    rng = torch.Generator().manual_seed(0)
    grid = warp_grid(64, (16, 16), 1.0, rng, "cpu")
    still = torch.nn.functional.affine_grid(torch.eye(2, 3)[None], [1, 1, 16, 16], align_corners=False)
    unmoved = (grid - still).abs().amax((1, 2, 3)) < 1e-6
    assert 4 < int(unmoved.sum()) < 32 and float((grid - still).abs().max()) < 0.8
    image = disturb(torch.rand(8, 3, 16, 16), 1.0, rng)
    assert float(image.min()) >= 0 and float(image.max()) <= 1


def test_training_teaches_both_and_the_files_keep_it(tmp_path) -> None:
    torch.set_num_threads(1)
    images, masks, attributes = squares(120)
    facts = train_judges(images, masks, attributes, out=tmp_path, steps=25, batch=8, heldout=40, seed=1)
    config = json.loads((tmp_path / "config.json").read_text())
    measured = config["heldout"]
    assert measured == facts["heldout"] and config["training"]["samples"] == 80
    assert measured["balanced_accuracy"]["hat_color"] > 0.9 and measured["pixel_accuracy"] > 0.9
    again = measure_judges(load_judges(tmp_path), images[80:], masks[80:], attributes[80:])
    assert again == measured
    assert sum(f.stat().st_size for f in tmp_path.iterdir()) < 2.5e6


def test_training_goes_on_and_may_take_softened_pictures(tmp_path) -> None:
    images, masks, attributes = squares(24)
    first = train_judges(images, masks, attributes, out=tmp_path, steps=1, batch=8, heldout=8)
    started, soft = load_judges(tmp_path), np.full_like(images, 127)
    record = {"before": first["training"]}
    before = {name: {k: v.clone() for k, v in net.state_dict().items()} for name, net in started._asdict().items()}
    facts = train_judges(
        images, masks, attributes, out=tmp_path, steps=1, batch=8, heldout=8, softened=soft, start=started,
        only="reader", record=record,
    )  # fmt: skip
    assert facts["heldout"]["n"] == facts["heldout_softened"]["n"] == 8
    assert facts["heldout"] != facts["heldout_softened"]
    card = (tmp_path / "README.md").read_text()
    assert "Training: reader 1 steps of 16, seed" in card and "Before that: parser 1 steps" in card
    for name, network in load_judges(tmp_path)._asdict().items():
        same = all(torch.equal(value, before[name][key]) for key, value in network.state_dict().items())
        assert same == (name == "parser")


def test_training_is_repeatable() -> None:
    from mogle.tiny.judges import train_parser

    images, masks, _ = squares(24)
    first, second = (train_parser([images], masks, steps=2, batch=8, seed=3)[0].parse(images) for _ in range(2))
    assert np.array_equal(first, second)


def test_wrong_folders_and_counts_are_named(tmp_path) -> None:
    with pytest.raises(MogleError, match="parser.safetensors"):
        load_judges(tmp_path)
    save_judges(tmp_path, Judges(FaceParser(), AttributeReader({"hat": ("no", "yes")})))
    config = json.loads((tmp_path / "config.json").read_text())
    config["attributes"]["heads"]["hat"] = ["no", "yes", "perhaps"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(MogleError, match="does not fit"):
        load_judges(tmp_path)
    images, masks, attributes = squares(4)
    with pytest.raises(MogleError, match="equal numbers"):
        train_judges(images, masks[:3], attributes, out=tmp_path, heldout=1)
    with pytest.raises(MogleError, match="judges to start from"):
        train_judges(images, masks, attributes, out=tmp_path, heldout=1, only="reader")
