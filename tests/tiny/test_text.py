"""The image-text embedder: what it learns, and what it does not depend on."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mogle.errors import MogleError
from mogle.metrics.judges import MAX_WORDS, TextEmbedder, load_text_embedder
from mogle.tiny.embedder import retrieval, train_text_embedder
from mogle.tiny.save import save_text_embedder


def test_a_sentence_is_read_alone_as_in_a_batch_and_unknown_words_are_allowed() -> None:
    torch.manual_seed(0)
    embedder = TextEmbedder(["she", "has", "red", "hair", "."]).eval()
    short, long = "She has red hair.", "She has red hair. " * 40
    both = embedder.embed_ids(embedder.ids([short, long]))
    torch.testing.assert_close(both[:1], embedder.embed_ids(embedder.ids([short])))
    assert embedder.ids([long]).shape == (1, MAX_WORDS) and embedder.ids([""]).shape == (1, 1)
    torch.testing.assert_close(
        embedder.embed_ids(embedder.ids(["SHE has zebra hair."])),
        embedder.embed_ids(embedder.ids(["she has quokka hair ."])),
    )
    with pytest.raises(MogleError, match="3 pictures and 1 sentences"):
        embedder.score(np.zeros((3, 192)), ["one"])


def test_training_brings_captions_and_their_pictures_together(tmp_path) -> None:
    rng = np.random.default_rng(0)
    colours, wears = ["red", "black", "blond", "white"], ["a hat", "glasses", "a necklace", "earrings"]
    kinds = [(a, b) for a in range(4) for b in range(4)]
    codes = rng.normal(size=(8, 20))
    features = np.stack([5 + codes[a] + codes[4 + b] + 0.05 * rng.normal(size=20) for a, b in kinds])
    captions = [[f"She has {colours[a]} hair and {wears[b]}.", f"Hair: {colours[a]}. {wears[b]}."] for a, b in kinds]
    embedder = train_text_embedder(features, captions, steps=150, batch=16, learning_rate=3e-3, seed=0)
    found = retrieval(embedder, features, [group[0] for group in captions])
    assert found["first"] > 0.9 and found["own"] > found["others"] + 30
    save_text_embedder(tmp_path, embedder, {})
    assert load_text_embedder(tmp_path / "nowhere") is None
    stored = TextEmbedder(embedder.vocabulary, 20)
    assert stored.vocabulary == embedder.vocabulary
