"""Text side of the tiny FLUX: a CLIP-class and a T5-class encoder with small tokenizers of their own.

FLUX reads a prompt twice: CLIP's pooled vector joins the timestep in the modulation of every block, T5's sequence of
vectors becomes the text tokens of the joint attention. The tiny track keeps both roles and both classes; only
vocabulary, width and depth are small. The encoders are trained together with the transformer, then frozen.
"""

from __future__ import annotations

import json
import math
import string
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from transformers import CLIPTextModel, CLIPTokenizer, T5EncoderModel, T5Tokenizer


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
