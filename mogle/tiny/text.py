"""Text side of the tiny FLUX: a CLIP-class and a T5-class encoder with small tokenizers of their own.

FLUX reads a prompt twice: CLIP's pooled vector joins the timestep in the modulation of every block, T5's sequence of
vectors becomes the text tokens of the joint attention. The tiny track keeps both roles and both classes; only
vocabulary, width and depth are small. As in FLUX, the encoders understand sentences before a transformer sees them:
`train_text_encoders` teaches them to tell what a caption says. Then they train on with the transformer, and are frozen.
"""

from __future__ import annotations

import json
import math
import string
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from transformers import CLIPTextModel, CLIPTokenizer, T5EncoderModel, T5Tokenizer

    from mogle.words import Attribute


def train_clip_tokenizer(captions: Iterable[str], vocab_size: int, max_length: int) -> CLIPTokenizer:
    """Byte-level BPE with CLIP's own pre-tokenisation; lower-cases, knows every byte, so nothing is ever unknown."""
    from tokenizers import pre_tokenizers, trainers
    from transformers import CLIPTokenizer

    special = ["<|startoftext|>", "<|endoftext|>"]
    blank = CLIPTokenizer(vocab={special[0]: 0, special[1]: 1}, merges=[])
    backend = blank.backend_tokenizer
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=special,
        initial_alphabet=sorted(alphabet),
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    backend.train_from_iterator(captions, trainer)
    model = json.loads(backend.to_str())["model"]
    vocab, merges = dict(model["vocab"]), [tuple(pair) for pair in model["merges"]]
    for letter in sorted(alphabet):  # a word may end in any byte, seen in the captions or not
        vocab.setdefault(letter + "</w>", len(vocab))
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=max_length)


def train_t5_tokenizer(captions: Iterable[str], vocab_size: int, max_length: int) -> T5Tokenizer:
    """Unigram pieces as T5's, with the captions' own words whole, each with the mark behind it: a short sequence.

    Words come first (score: log of their share), then trained pieces of words, then single characters: an unseen word
    falls apart into pieces or letters and is never lost.
    """
    from tokenizers import trainers
    from transformers import T5Tokenizer

    captions = list(captions)
    backend = T5Tokenizer(extra_ids=0).backend_tokenizer
    special = ["<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(
        vocab_size=vocab_size // 2, special_tokens=special, unk_token="<unk>", show_progress=False
    )
    backend.train_from_iterator(captions, trainer)
    trained = [(piece, float(score)) for piece, score in json.loads(backend.to_str())["model"]["vocab"]]

    words = Counter(word for caption in captions for word in caption.split())
    total = sum(words.values())
    pieces = [(name, 0.0) for name in special]
    pieces += [("▁" + word, math.log(count / total)) for word, count in words.most_common(vocab_size // 2)]
    known = {piece for piece, _ in pieces}
    lowest = min(score for _, score in pieces)
    pieces += [(piece, score + lowest) for piece, score in trained if piece not in known]
    known = {piece for piece, _ in pieces}
    letters = string.ascii_letters + string.digits + string.punctuation + "▁"
    pieces += [(letter, 2 * lowest - 5.0) for letter in letters if letter not in known]
    return T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=max_length)


def build_clip_encoder(tokenizer: CLIPTokenizer, width: int, layers: int) -> CLIPTextModel:
    """An untrained CLIP text encoder; its pooled output is the state at the end-of-text token."""
    from transformers import CLIPTextConfig, CLIPTextModel

    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        projection_dim=width,
        num_hidden_layers=layers,
        num_attention_heads=max(width // 32, 1),
        max_position_embeddings=tokenizer.model_max_length,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return CLIPTextModel(config)


def build_t5_encoder(tokenizer: T5Tokenizer, width: int, layers: int) -> T5EncoderModel:
    """An untrained T5 encoder (gated GELU, relative positions, as in T5 v1.1)."""
    from transformers import T5Config, T5EncoderModel

    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=width,
        d_kv=32,
        d_ff=2 * width,
        num_layers=layers,
        num_heads=max(width // 32, 1),
        dropout_rate=0.0,
        feed_forward_proj="gated-gelu",
        pad_token_id=0,
        eos_token_id=1,
        is_encoder_decoder=False,
        use_cache=False,
    )
    return T5EncoderModel(config)


def token_ids(tokenizer: Any, captions: Sequence[str]) -> torch.Tensor:
    """(len(captions), model_max_length) int64 ids, padded and truncated as `FluxPipeline.encode_prompt` does it."""
    return tokenizer(
        list(captions),
        padding="max_length",
        max_length=tokenizer.model_max_length,
        truncation=True,
        return_tensors="pt",
    ).input_ids


def said_in(captions: Sequence[str], attributes: Mapping[str, Attribute]) -> torch.Tensor:
    """int64 (len(captions), A): for each attribute the number of the value that the caption states, -1 for none."""
    import torch

    from mogle.words import read_caption

    said = torch.full((len(captions), len(attributes)), -1, dtype=torch.int64)
    for row, caption in enumerate(captions):
        claims = read_caption(caption)
        for column, (name, attribute) in enumerate(attributes.items()):
            if claims.get(name) in attribute.values:
                said[row, column] = attribute.values.index(claims[name])
    return said


def train_text_encoders(
    clip: CLIPTextModel,
    t5: T5EncoderModel,
    clip_ids: torch.Tensor,
    t5_ids: torch.Tensor,
    said: torch.Tensor,
    *,
    steps: int,
    batch: int,
    learning_rate: float,
    seed: int,
) -> dict[str, float]:
    """Teaches both encoders, in place, to tell which colour a caption gives to what: ids (n, L1), (n, L2), said (n, A).

    From CLIP's pooled vector, and from the mean of T5's states, linear heads predict every stated attribute (-1: not
    stated); the heads are thrown away. Trained by the velocity alone the encoders knew the colours of a caption, but
    not whose they were: of T5's states a linear probe got the background right in 64 % of the captions, and pictures
    mixed the colours of clothes, hat and background.
    """
    import torch
    from torch import nn
    from torch.nn import functional as F

    from mogle.tiny.loop import Progress, cosine_schedule
    from mogle.tiny.muon import Muon

    device, width = clip_ids.device, (clip.config.hidden_size, t5.config.d_model)
    torch.manual_seed(seed)
    values = [max(2, int(column.max()) + 1) for column in said.T]
    heads = nn.ModuleList(nn.ModuleList(nn.Linear(w, count) for count in values) for w in width).to(device)
    encoders = [*clip.train().requires_grad_(True).parameters(), *t5.train().requires_grad_(True).parameters()]
    optimizer = Muon(encoders, lr=learning_rate, weight_decay=0.01)
    for_heads = torch.optim.AdamW(heads.parameters(), lr=1e-2)
    schedule = cosine_schedule(optimizer, steps, warmup=min(30, steps // 10))
    generator, progress = torch.Generator().manual_seed(seed), Progress("text", steps)
    for step in range(steps):
        rows = torch.randint(len(said), (batch,), generator=generator).to(device)
        pooled = clip(clip_ids[rows].long()).pooler_output
        states = t5(t5_ids[rows].long())[0].mean(dim=1)
        target = said[rows]
        losses = []
        for features, some in zip((pooled, states), heads, strict=True):
            features = F.layer_norm(features, features.shape[-1:])
            each = [
                F.cross_entropy(head(features), column, ignore_index=-1, reduction="sum")
                for head, column in zip(some, target.T, strict=True)  # type: ignore[call-overload]
            ]
            losses.append(torch.stack(each).sum() / (target >= 0).sum().clamp(min=1))
        optimizer.zero_grad(set_to_none=True)
        for_heads.zero_grad(set_to_none=True)
        (losses[0] + losses[1]).backward()
        nn.utils.clip_grad_norm_(encoders, 1.0)
        optimizer.step()
        for_heads.step()
        schedule.step()
        progress(step, clip=losses[0], t5=losses[1])
    clip.eval().requires_grad_(False)
    t5.eval().requires_grad_(False)
    return progress.last
