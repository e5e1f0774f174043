"""Notebook 00: rows that fill while portraits are drawn, figures of who decides, and what its exercises rely on."""

import base64
import io
import json
from pathlib import Path
from types import SimpleNamespace

import nbformat
import numpy as np
import pytest
import torch
from PIL import Image

from mogle.words import ATTRIBUTES, read_caption
from workbook import figures_quickstart, progress
from workbook.exercises.quickstart import (
    DECIDERS,
    HAT_MASK,
    STATED,
    check_who_decides,
    predicted,
    understood,
    who_decides,
)

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def shown(monkeypatch):
    """What is displayed: (data, metadata and other arguments), one after the other."""
    calls = []
    monkeypatch.setattr("IPython.display.display", lambda data, **kwargs: calls.append((data, kwargs)))
    return calls


def test_a_row_is_one_display_whose_text_never_changes(shown):
    row = progress.Row(["a", "b"], alt="Two gray squares.", before=[np.zeros((8, 8, 3), np.uint8)])
    row.add(np.full((8, 8, 3), 200, np.uint8))
    (first, begun), (second, done) = shown
    assert (begun["update"], done["update"]) == (False, True) and begun["display_id"] == done["display_id"]
    assert first["text/plain"] == second["text/plain"] == "Two gray squares.", "strict tests compare the first text"
    assert set(second) == {"image/jpeg", "text/plain"} and first["image/jpeg"] != second["image/jpeg"]
    picture = Image.open(io.BytesIO(base64.b64decode(second["image/jpeg"])))
    look = done["metadata"]["image/jpeg"]
    assert look["alt"] == "Two gray squares." and picture.width == 2 * look["width"] == 1800


def test_a_film_shows_some_steps_the_first_and_the_last_among_them(shown):
    vae = SimpleNamespace(
        dtype=torch.float32,
        config=SimpleNamespace(scaling_factor=1.0, shift_factor=0.0),
        decode=lambda latents: SimpleNamespace(sample=latents[:, :3]),
    )
    pipe, after_step = SimpleNamespace(vae=vae, num_timesteps=28), progress.film("A face out of noise.", frames=4)
    for step in range(28):
        values = {"latents": torch.full((2, 16, 64), step / 28)}
        assert after_step(pipe, step, None, values) is values
    assert len(shown) == 1 + 4 and len({kwargs["display_id"] for _, kwargs in shown}) == 1


def test_latents_become_the_picture_that_they_stand_for():
    from workbook.exercises.tokens import pack_latents

    latents = torch.zeros(1, 16, 4, 4)
    latents[0, 0, :, 2:] = 1  # red on the right
    latents[0, 1:3] = -1
    vae = SimpleNamespace(
        dtype=torch.float32,
        config=SimpleNamespace(scaling_factor=0.5, shift_factor=0.25),
        decode=lambda x: SimpleNamespace(sample=x[:, :3]),
    )
    picture = np.asarray(progress.decoded(vae, pack_latents((latents - 0.25) * 0.5)))
    assert picture[0, 3].tolist() == [255, 0, 0] and picture[0, 0].tolist() == [128, 0, 0]


def test_verdicts_say_what_is_seen_and_whether_it_was_asked_for():
    squares = [np.full((16, 16, 3), 100, np.uint8)] * 3
    asked = [{"skin": "fair", "age": "young"}, {"skin": "dark"}, {}]
    seen = [{"skin": "fair", "age": "elderly"}, {"skin": "tan", "age": "young"}, {"skin": "fair", "age": "young"}]
    texts = [text.get_text() for text in figures_quickstart.verdicts(squares, asked, seen).axes[0].texts]
    assert {"✓ fair", "✗ elderly", "✗ tan", "skin", "age"} <= set(texts) and "✓ young" not in texts


def test_who_decides_is_whoever_must_be_shared_for_portraits_to_agree():
    alike = {
        "hat": {"mask": 1.0, "sentence": 0.4, "neither": 0.4},
        "hair_color": {"mask": 0.1, "sentence": 0.9, "neither": 0.1},
        "light": {"mask": 0.7, "sentence": 0.6, "neither": 0.5},
    }
    assert [figures_quickstart.measured(one) for one in alike.values()] == ["mask", "sentence", "neither"]
    figure = figures_quickstart.deciders(alike, {"hat": "sentence"})
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert texts[:6] == ["mask", "sentence", "sentence", "", "neither", ""], "measured beside predicted"
    assert [mark.get_xdata().tolist() for mark in figure.axes[0].lines][0] == [1.0, 0.1, 0.7]


def test_the_exercises_know_the_masks_and_sentences_of_the_notebook():
    attributes = json.loads((ROOT / "data/portraits/attributes.json").read_text())["8"]
    in_mask = {name: value for name, value in attributes.items() if ATTRIBUTES[name].in_mask and value is not None}
    assert in_mask == HAT_MASK
    notebook = nbformat.read(ROOT / "notebooks/00_quickstart.ipynb", as_version=4)
    source = next(cell.source for cell in notebook.cells if cell.source.startswith("masks = ["))
    sentences = [line.strip().strip(',"') for line in source.splitlines() if line.strip().startswith('"')]
    facts = [read_caption(sentence) for sentence in sentences]
    assert len(facts) == 3 and all(set(one) == {"gender", *STATED} for one in facts) and "(24, 31, 8)" in source
    for name, decider in who_decides().items():
        expected = "mask" if ATTRIBUTES[name].in_mask else "sentence" if name in STATED else "neither"
        assert decider == expected, name


@pytest.mark.parametrize("decider", DECIDERS)
def test_any_complete_prediction_passes_and_its_counts_are_said(decider):
    prediction = dict.fromkeys(who_decides(), decider) | {"hat": "sentence"}
    check_who_decides(lambda: prediction)
    check_who_decides(dict(reversed(prediction.items())))
    said = predicted(prediction)
    assert f"{decider} {10 if decider == 'sentence' else 9} (" in said and "the figure below tells" in said


@pytest.mark.parametrize(
    ("text", "read", "unread"),
    [
        ("She has red hair. The background is yellow.", "gender = woman, hair color = red", "The background is yellow"),
        ("She has green eyes. She is a woman with lipstick.", "gender = woman, lipstick = yes", "She has green eyes"),
        ("She is young. Her clothes are red.", "gender = woman, age = young, clothes = red", None),
    ],
)
def test_a_sentence_s_facts_are_listed_and_what_nobody_can_read_is_named(text, read, unread):
    said = understood(text)
    assert said.startswith(f"Read in it: {read}. ") and said.endswith("cannot tell.")
    assert ("Nothing was read" in said) == (unread is not None) and (f"“{unread}”." in said) == (unread is not None)
