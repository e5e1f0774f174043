"""Captions say only what is so, and the reader gets it back."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mogle.tiny.portraits.attributes import STYLES, sample_attributes
from mogle.tiny.portraits.captions import describe, full_caption, stated, vocabulary, write_captions
from mogle.words import ATTRIBUTES, read_caption

seeds = st.integers(0, 10**6)


def words(text):
    return re.findall(r"[a-z]+|[.,:;-]", text.lower())


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(seeds, st.sampled_from(STYLES), st.sets(st.sampled_from(sorted(ATTRIBUTES))))
def test_reading_gets_back_exactly_what_was_said(seed, style, names):
    rng = np.random.default_rng(seed)
    attributes = sample_attributes(rng, style)
    assert read_caption(describe(attributes, names, rng, fillers=0.5)) == stated(attributes, names)


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(seeds, st.sampled_from(STYLES))
def test_ten_true_captions_of_known_words(seed, style):
    rng = np.random.default_rng(seed)
    attributes = sample_attributes(rng, style)
    captions = write_captions(attributes, rng)
    assert len(captions) == 10
    for caption in [*captions, full_caption(attributes)]:
        assert read_caption(caption).items() <= attributes.items()
        assert set(words(caption)) <= set(vocabulary())
        assert len(words(caption)) <= 75 and len(caption.split()) <= 60
    first = read_caption(captions[0])
    assert len(first) >= 8 and sum(not ATTRIBUTES[n].in_mask for n in first) * 2 > len(first)
    assert len(read_caption(captions[9])) <= 5 < len(first)
    assert read_caption(full_caption(attributes)) == stated(attributes, ATTRIBUTES)


def test_vocabulary_is_small():
    assert len(vocabulary()) < 250


@pytest.mark.parametrize(
    "text, facts",
    [
        ("She is wearing lipstick. She is attractive and has straight hair.",
         {"gender": "woman", "lipstick": "yes", "hair_texture": "straight"}),
        ("This woman has black hair, and rosy cheeks. She is smiling.",
         {"gender": "woman", "hair_color": "black", "rosy_cheeks": "yes", "smiling": "yes"}),
        ("a BLONDE lady, no eyeglasses, red Backdrop",
         {"gender": "woman", "hair_color": "blond", "eyeglasses": "no", "background": "red"}),
        ("old man with a moustache, black cap and sunglasses",
         {"gender": "man", "age": "elderly", "facial_hair": "mustache", "hat": "yes", "hat_color": "black",
          "eyeglasses": "yes", "sunglasses": "yes"}),
        ("He doesn't wear glasses or a hat but has a beard",
         {"gender": "man", "eyeglasses": "no", "hat": "no", "facial_hair": "beard"}),
        ("without hat and glasses, grey-haired, light skin, looking left, lit from the right",
         {"hat": "no", "eyeglasses": "no", "hair_color": "gray", "skin": "fair", "pose": "left", "light": "right"}),
        ("a bald man wearing red", {"gender": "man", "hair_length": "bald", "clothes": "red"}),
        ("She has no red hair", {"gender": "woman"}),
        ("two cats on a sofa", {}),
    ],
)  # fmt: skip
def test_reads_what_people_write(text, facts):
    assert read_caption(text) == facts
