"""Trains the small image-text embedder: each portrait must find its own caption in the batch, and the other way round.

python -m mogle.tiny.embedder --judges checkpoints/judges
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F

from mogle.metrics.judges import TextEmbedder, load_text_embedder, words_of
from mogle.tiny.loop import Progress, cosine_schedule
from mogle.tiny.save import save_text_embedder


def train_text_embedder(
    features: np.ndarray, captions: Sequence[Sequence[str]], *, steps: int, batch: int, learning_rate: float, seed: int
) -> TextEmbedder:
    """The reader's features (N, 192) of portraits and their captions -> an embedder in which they meet (InfoNCE)."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    vocabulary = sorted({word for group in captions for caption in group for word in words_of(caption)})
    embedder = TextEmbedder(vocabulary, features.shape[1])
    pictures = torch.as_tensor(features, dtype=torch.float32)
    mean, deviation = pictures.mean(0), pictures.std(0).clamp(min=1e-3)
    optimizer = torch.optim.AdamW(embedder.parameters(), lr=learning_rate, weight_decay=0.02)
    schedule = cosine_schedule(optimizer, steps, warmup=steps // 20)
    progress = Progress("text embedder", steps)
    own = torch.arange(batch)
    for step in range(steps):
        rows = [int(i) for i in rng.choice(len(captions), batch, replace=False)]
        said = embedder.ids([captions[i][int(rng.integers(len(captions[i])))] for i in rows])
        # a generator's pictures are not quite what the reader knows: noise keeps its features from being taken exactly
        seen = (pictures[rows] - mean) / deviation + 0.2 * torch.randn(batch, len(deviation))
        logits = embedder.scale.exp() * embedder.embed_features(seen) @ embedder.embed_ids(said).T
        loss = (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(embedder.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        progress(step, loss=loss)
    with torch.no_grad():  # the standardisation becomes part of the first layer
        layer = cast(torch.nn.Linear, embedder.picture[0])
        layer.bias.sub_(layer.weight @ (mean / deviation))
        layer.weight.div_(deviation)
    return embedder.eval().requires_grad_(False)


@torch.inference_mode()
def retrieval(embedder: TextEmbedder, features: np.ndarray, captions: Sequence[str]) -> dict[str, Any]:
    """How often a picture (N, 192) finds its own caption first, or among five, and the score for own and others.

    Captions that are equal, word for word, count as own.
    """
    pictures = embedder.embed_features(torch.as_tensor(features, dtype=torch.float32))
    sentences = embedder.embed_ids(embedder.ids(captions))
    cosines = (pictures @ sentences.T).numpy()
    same = np.array([[a == b for b in captions] for a in captions])
    best = np.argsort(-cosines, axis=1)[:, :5]
    found = np.take_along_axis(same, best, axis=1)
    return {
        "n": len(captions),
        "first": float(found[:, 0].mean()),
        "among_five": float(found.any(1).mean()),
        "own": float(100 * np.diag(cosines).mean()),
        "others": float(100 * cosines[~same].mean()),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Paints portraits from seeds 1,000,000 on and trains the embedder on what the reader sees in them."""
    from mogle.metrics.judges import load_judges
    from mogle.tiny.portraits import full_caption, paint_many

    parser = argparse.ArgumentParser(prog="python -m mogle.tiny.embedder", description=main.__doc__)
    parser.add_argument("--judges", default="checkpoints/judges", help="where the reader is and the embedder goes")
    parser.add_argument("--portraits", type=int, default=8000)
    parser.add_argument("--heldout", type=int, default=500)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    first, reader = 1_000_000, load_judges(options.judges).reader
    images, _, attributes, short = paint_many(range(first, first + options.portraits + options.heldout))
    features, start = reader.read(images)[1], time.monotonic()
    captions = [[*group, full_caption(known)] for group, known in zip(short, attributes, strict=True)]
    wanted = {"steps": options.steps, "batch": options.batch, "learning_rate": options.learning_rate}
    count = options.portraits
    embedder = train_text_embedder(features[:count], captions[:count], seed=options.seed, **wanted)
    facts: dict[str, Any] = {
        "training": {
            "samples": count,
            "portraits": f"style portraits, seeds {first}..{first + count - 1}",
            "seed": options.seed,
            **wanted,
            "minutes": round((time.monotonic() - start) / 60, 2),
            "hardware": f"{torch.get_num_threads()} CPU threads",
            "torch": torch.__version__,
        }
    }
    save_text_embedder(options.judges, embedder, facts)
    stored = load_text_embedder(options.judges)
    assert stored is not None
    held = features[count:]
    facts["heldout"] = {
        "first captions": retrieval(stored, held, [group[0] for group in captions[count:]]),
        "full sentences": retrieval(stored, held, [group[-1] for group in captions[count:]]),
    }
    save_text_embedder(options.judges, stored, facts)
    print(facts["heldout"])


if __name__ == "__main__":
    main()
