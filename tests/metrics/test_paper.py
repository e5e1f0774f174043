"""The paper's networks, wired as they should be: the same classes with random weights, nothing downloaded."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    ViTConfig,
    ViTModel,
)

from mogle.errors import MogleError
from mogle.metrics import paper
from mogle.metrics.distances import self_similarity
from mogle.metrics.paper import ClipPictures, ClipText, DinoKeys, Inception, PaperNetworks, Reward, from_ledger, resized
from mogle.metrics.report import COLUMNS, paper_table
from mogle.metrics.rows import Made, Row
from mogle.metrics.samples import Samples

SMALL = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
VISION = {**SMALL, "image_size": 28, "patch_size": 14}


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (19, 40, 40, 3)).astype(np.uint8)  # more than one batch


def test_pictures_are_resized_whole_and_normalised() -> None:
    images = np.zeros((1, 20, 20, 3), np.uint8)
    images[:, :, 10:] = 255
    made = resized(images, 10, (0.5, 0.5, 0.5), (0.25, 0.5, 1.0))
    assert made.shape == (1, 3, 10, 10)
    torch.testing.assert_close(made[0, :, 5, 0], torch.tensor([-2.0, -1.0, -0.5]))
    torch.testing.assert_close(made[0, :, 5, -1], torch.tensor([2.0, 1.0, 0.5]))


def test_cmmd_takes_the_projected_embedding_of_any_number_of_pictures(images) -> None:
    torch.manual_seed(0)
    model = CLIPVisionModelWithProjection(CLIPVisionConfig(**VISION, projection_dim=24))
    features = ClipPictures(model).features(images)
    assert features.shape == (19, 24)
    pixels = resized(images[17:18], 28, *paper.CLIP_COLOURS)
    with torch.no_grad():
        np.testing.assert_allclose(features[17], model(pixels).image_embeds[0], atol=1e-5)


def test_the_text_score_is_a_hundred_cosines_pair_by_pair(images) -> None:
    torch.manual_seed(0)
    text = {**SMALL, "vocab_size": 40, "max_position_embeddings": 12, "eos_token_id": 2, "bos_token_id": 1}
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=VISION, projection_dim=16))

    class Words(dict):
        def to(self, device):
            return self

    def tokenizer(sentences: list[str], **options) -> Words:
        rows = [[1, *(3 + ord(c) % 30 for c in s[:8]), 2] for s in sentences]
        longest = max(map(len, rows))
        ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
        assert options["truncation"] and options["padding"]
        return Words(input_ids=ids, attention_mask=(ids > 0).long())

    sentences = [f"{'she' if i % 2 else 'he'} {i}" for i in range(19)]
    scores = ClipText(model, tokenizer).scores(images, sentences)
    assert scores.shape == (19,) and (np.abs(scores) <= 100).all()
    alone = ClipText(model, tokenizer).scores(images[18:], sentences[18:])
    assert scores[18] == pytest.approx(alone[0], abs=1e-3)
    with pytest.raises(MogleError, match="19 pictures and 1 sentences"):
        ClipText(model, tokenizer).scores(images, sentences[:1])


def test_structure_takes_the_keys_of_the_layer_asked_for_class_token_first(images) -> None:
    torch.manual_seed(0)
    model = ViTModel(
        ViTConfig(**{**SMALL, "num_hidden_layers": 3}, image_size=16, patch_size=8), add_pooling_layer=False
    )
    keys = list(DinoKeys(model, layer=2, size=24).keys(images))
    assert len(keys) == 19 and keys[0].shape == (1 + 9, 32)
    by_hand: list[torch.Tensor] = []
    last = [m for name, m in model.named_modules() if name.endswith((".attention.k_proj", ".attention.key"))][-1]
    hook = last.register_forward_hook(lambda *a: by_hand.append(a[2]))
    with torch.no_grad():
        model(resized(images[:1], 24, *paper.IMAGENET), interpolate_pos_encoding=True)
    hook.remove()
    np.testing.assert_allclose(keys[0], by_hand[0][0], atol=1e-5)
    assert self_similarity(keys[0]).shape == (10, 10)
    with pytest.raises(MogleError, match="found 3 attention layers"):
        DinoKeys(model, layer=11)


def test_inception_sees_each_picture_resized_and_between_minus_one_and_one(images) -> None:
    model = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1))
    flat = np.full_like(images[:2], 192)
    np.testing.assert_allclose(Inception(model).features(flat), 0.5)
    same = Inception(model, side=images.shape[1]).features(images[:, :, : images.shape[1]])
    np.testing.assert_allclose(128 * same + 128, images[:, :, : images.shape[1]].mean((1, 2)), rtol=1e-4)
    (halved,) = Inception(side=20, layers=model).seen(images[:1])
    floats = [Image.fromarray(images[0, ..., c].astype(np.float32), mode="F") for c in range(3)]
    pillows = [np.asarray(one.resize((20, 20), Image.Resampling.BICUBIC)).clip(0, 255) for one in floats]
    assert (np.stack(pillows) % 1 != 0).any()  # as clean-fid resizes: a channel at a time, not rounded
    np.testing.assert_allclose(128 * halved[0] + 128, np.stack(pillows), atol=5e-3)


def test_reward_pairs_pictures_and_sentences(images) -> None:
    class Judge:
        def score(self, sentence: str, picture) -> float:
            return len(sentence) + picture.size[0]

    assert Reward(Judge()).scores(images[:2], ["a", "bcd"]).tolist() == [41, 43]


def test_what_is_missing_is_named_with_the_way_to_get_it(monkeypatch) -> None:
    monkeypatch.setattr(paper, "find_spec", lambda name: None)
    with pytest.raises(MogleError, match="pip install image-reward"):
        Reward()


def test_networks_come_from_the_ledger(tmp_path, monkeypatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(paper, "get", lambda asset: asked.append(asset.hub) or tmp_path)
    assert from_ledger("dino-vitb8", lambda folder, **options: (folder, options), pooling=False) == (
        tmp_path, {"pooling": False},
    )  # fmt: skip
    assert asked == ["facebook/dino-vitb8"]


def test_the_papers_table_has_six_numbers_and_says_what_is_missing(images) -> None:
    rng = np.random.default_rng(0)

    class Fake:
        def __init__(self, device: str) -> None:
            pass

        def features(self, pictures: np.ndarray) -> np.ndarray:
            return pictures.reshape(len(pictures), -1)[:, ::500] / 255 + 0.01 * rng.normal(size=(len(pictures), 10))

        def keys(self, pictures: np.ndarray):
            return (picture[:5, :8, 0].astype(float) for picture in pictures)

        def scores(self, pictures: np.ndarray, sentences: list[str]) -> np.ndarray:
            return pictures.mean((1, 2, 3)) + [len(s) for s in sentences]

    def absent(device: str) -> None:
        raise MogleError("ImageReward is not installed; pip install image-reward")

    names = ("inception", "clip-cmmd", "dino", "clip-text")
    networks_ = PaperNetworks("cpu", {**dict.fromkeys(names, Fake), "reward": absent})
    samples = Samples(tuple("abcdefghijklmnopqrs"), images, images[..., 0], ("a",) * 19, ({},) * 19, [], "noise")
    made = Made(Row("text + mask"), samples, images)
    found, scores = networks_.measure(made, networks_.features(images[::-1].copy()))
    assert {column: len(each) for column, each in scores.items()} == {"structure": 19, "text": 19}
    assert (
        set(found) == set(COLUMNS["paper"]) - {"ImageReward"}
        and "pip install image-reward" in networks_.missing["reward"]
    )
    assert found["structure"]["value"] == 0 == found["structure"]["as_reported"]
    assert found["CMMD"]["interval"][0] < 0.5 and found["FID"]["interval"] is None  # too few for an interval
    head, lines = paper_table({"rows": {"text+mask": {"title": "text + mask", "n": 19, "paper": found}}})
    assert len(head) == 8 and lines[0][-1] == "not measured" and len(lines) == 1 + len(COLUMNS["published"])
    assert paper_table({"rows": {"text+mask": {"title": "text + mask", "n": 19}}})[1] == []
    with pytest.raises(MogleError, match="none of the paper's networks"):
        PaperNetworks("cpu", {"reward": absent})
