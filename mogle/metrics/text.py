"""Do picture and sentence belong together? 100 times the cosine of their embeddings, CLIP's way.

Of photographs the embedder is CLIP itself; of painted portraits it is the small one here: on top of the attribute
reader's features for pictures, over words for sentences, trained to find each portrait's own caption among others.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mogle.errors import MogleError

MAX_WORDS = 96
PAD, UNKNOWN = 0, 1


def words_of(sentence: str) -> list[str]:
    """Small-letter words and the marks between sentences."""
    return re.findall(r"[a-z]+|[.,]", sentence.lower())


class TextEmbedder(nn.Module):
    """Pictures' features (B, 192) and sentences -> directions of 96 numbers in one space."""

    WIDTH, OUT, LAYERS, HEADS = 96, 96, 2, 4

    def __init__(self, vocabulary: Sequence[str], features: int = 192) -> None:
        super().__init__()
        self.vocabulary = tuple(vocabulary)
        self.heldout: dict[str, dict[str, float]] = {}  # what it does on pictures and captions it never saw
        self._index = {word: i + 2 for i, word in enumerate(self.vocabulary)}
        self.word = nn.Embedding(len(self.vocabulary) + 2, self.WIDTH, padding_idx=PAD)
        self.place = nn.Parameter(0.02 * torch.randn(MAX_WORDS, self.WIDTH))
        layer = nn.TransformerEncoderLayer(
            self.WIDTH, self.HEADS, 3 * self.WIDTH, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, self.LAYERS, enable_nested_tensor=False)
        self.sentence = nn.Linear(self.WIDTH, self.OUT)
        self.picture = nn.Sequential(nn.Linear(features, 2 * self.OUT), nn.GELU(), nn.Linear(2 * self.OUT, self.OUT))
        self.scale = nn.Parameter(torch.tensor(2.5))  # the logarithm of the temperature's inverse

    def ids(self, sentences: Sequence[str]) -> Tensor:
        """Sentences -> int64 (B, words of the longest); what lies beyond 96 words is cut off."""
        rows = [[self._index.get(word, UNKNOWN) for word in words_of(s)][:MAX_WORDS] or [UNKNOWN] for s in sentences]
        longest = max(map(len, rows))
        return torch.tensor([row + [PAD] * (longest - len(row)) for row in rows])

    def embed_ids(self, ids: Tensor) -> Tensor:
        """int64 (B, W) -> unit vectors (B, 96)."""
        empty = ids == PAD
        states = self.encoder(self.word(ids) + self.place[: ids.shape[1]], src_key_padding_mask=empty)
        mean = states.masked_fill(empty[..., None], 0).sum(1) / (~empty).sum(1, keepdim=True)
        return F.normalize(self.sentence(mean), dim=-1)

    def embed_features(self, features: Tensor) -> Tensor:
        """The reader's features (B, 192) -> unit vectors (B, 96)."""
        return F.normalize(self.picture(features), dim=-1)

    @torch.inference_mode()
    def pictures(self, features: np.ndarray) -> np.ndarray:
        """The reader's features (N, 192) -> unit vectors float32 (N, 96), what CMMD is computed on."""
        return self.embed_features(torch.as_tensor(features, dtype=torch.float32)).numpy()

    @torch.inference_mode()
    def score(self, features: np.ndarray, sentences: Sequence[str]) -> np.ndarray:
        """Features (N, 192) of pictures and their sentences -> (N,) scores, 100 times the cosine."""
        if len(features) != len(sentences):
            raise MogleError(f"{len(features)} pictures and {len(sentences)} sentences; expected as many of each")
        scores = []
        for start in range(0, len(sentences), 256):
            part = slice(start, start + 256)
            said = self.embed_ids(self.ids(sentences[part]))
            seen = self.embed_features(torch.as_tensor(features[part], dtype=torch.float32))
            scores.append((seen * said).sum(-1))
        return 100 * torch.cat(scores).numpy().astype(np.float64)


def load_text_embedder(folder: str | Path) -> TextEmbedder | None:
    """The embedder of a folder of judges, in float32; None in a folder without it."""
    from safetensors.torch import load_file

    folder = Path(folder)
    if not (folder / "text.safetensors").is_file():
        return None
    facts = json.loads((folder / "text.json").read_text())
    embedder = TextEmbedder(facts["vocabulary"])
    embedder.heldout = facts.get("heldout", {})
    embedder.load_state_dict({name: tensor.float() for name, tensor in load_file(folder / "text.safetensors").items()})
    return embedder.eval().requires_grad_(False)
