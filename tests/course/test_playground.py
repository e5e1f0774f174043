"""The playground and the gate viewer, driven as a visitor would, but without a browser; and what they are made of."""

import base64
import io
import re
import threading
import time
from dataclasses import replace
from types import SimpleNamespace

import nbformat
import numpy as np
import pytest
import torch
from PIL import Image

from mogle.checkpoints import ADAPTER, BASE, load_pipeline, shipped
from mogle.errors import Cancelled, MogleError
from mogle.labels import LABELS, decode_mask
from mogle.provenance import Recipe, read_picture
from mogle.sampling import run
from mogle.tiny.portraits import sample_attributes, write_captions
from mogle.words import read_caption
from workbook import drawing, gates, sentences
from workbook.playground import Playground, caption, differences, file_name, known_words

pytest.importorskip("anywidget")

MASK = decode_mask("data/portraits/mask/19.png")
SENTENCE = "She has red hair."
CHIPS = [
    (name, value) for shown in (False, True) for name, values in sentences.chips(shown).items() for value in values
]
#: What comes and goes with another fact.
ALONG = {"hat": {"hat_color"}, "hat_color": {"hat"}, "eyeglasses": {"sunglasses"}, "sunglasses": {"eyeglasses"}}


def recipe(**change):
    return replace(Recipe(SENTENCE, MASK, 3, 2, 3.5, 1.0, 128, 128), **change)


# --- sentences -------------------------------------------------------------------------------------------------------


def test_a_chip_says_its_fact_in_words_that_the_encoders_know():
    assert len(CHIPS) > 50
    for name, value in CHIPS:
        for gender in ("woman", "man", None):
            text = sentences.fact_sentence(name, value, gender)
            assert sentences.says(text, name, value) and not sentences.unseen(text, known_words()), text


@pytest.mark.parametrize(
    ("before", "chip", "after"),
    [
        ("", ("hair_color", "red"), "The person has red hair."),
        ("She is young", ("hair_color", "red"), "She is young. She has red hair."),
        ("She has black hair and a hat.", ("hair_color", "red"), "She has red hair and a hat."),
        ("She has blonde hair.", ("hair_color", "gray"), "She has gray hair."),
        ("She has wavy black hair.", ("hair_texture", "wavy"), "She has black hair."),
        ("She has black hair and wears a hat.", ("hat", "yes"), "She has black hair."),
        ("She wears a hat, earrings and lipstick.", ("earrings", "yes"), "She wears a hat and lipstick."),
        ("He wears a hat.", ("hat_color", "red"), "He wears a red hat."),
        ("The background is blue. She smiles.", ("background", "blue"), "She smiles."),
        ("She has turquoise shoes. Her skin is fair.", ("skin", "fair"), "She has turquoise shoes."),
        ("She smiles. Her hair is red.", ("gender", "man"), "He smiles. His hair is red."),
        ("He is old. Behind him is a wall.", ("gender", "man"), "The person is old. Behind the person is a wall."),
        ("Blue eyes", ("gender", "woman"), "Blue eyes. She is a woman."),
    ],
)
def test_what_a_chip_makes_of_a_sentence(before, chip, after):
    assert sentences.toggled(before, *chip) == after


@pytest.mark.parametrize("seed", range(24))
def test_a_chip_changes_one_fact_and_leaves_the_others(seed):
    chance = np.random.default_rng(seed)
    before = write_captions(sample_attributes(chance), chance)[1 + seed % 3]
    stated = read_caption(before)
    for index in chance.integers(len(CHIPS), size=5):
        name, value = CHIPS[index]
        after = sentences.toggled(before, name, value)
        found, others = read_caption(after), {name, *ALONG.get(name, ())}
        assert found.get(name) == (None if stated.get(name) == value else value), (name, value, before, after)
        kept = [{key: one for key, one in facts.items() if key not in others} for facts in (stated, found)]
        assert kept[0] == kept[1], (name, value, before, after)
        assert not re.search(r"\s[.,]|[.,]{2}|\b(a|an|the|and|with|has|is|wears)[.,]|  ", after), after


def test_words_that_were_never_seen_are_named_with_what_may_have_been_meant():
    known = known_words()
    assert sentences.unseen("A clean-shaven man, lit from the left", known) == {}
    assert sentences.unseen("Turquoise lipstik, 3 unicorns", known) == {
        "turquoise": "", "lipstik": "lipstick", "3": "", "unicorns": ""
    }  # fmt: skip
    assert sentences.note_on("She has red hair.", known) == ""
    note = sentences.note_on("a lipstik", known)
    assert note.startswith("Never seen by the text encoders: “lipstik” (did you mean “lipstick”?).")


# --- recipes in words ------------------------------------------------------------------------------------------------


def test_which_settings_differ_is_said_in_words():
    edited = MASK.copy()
    edited[10:12, 60:70] = LABELS.index("hat")
    edited[60, 60] = LABELS.index("hat")
    other = recipe(prompt="She has black hair.", mask=edited, guidance=5.0, steps=6, seed=4)
    assert differences(recipe(), recipe()) == []
    assert differences(recipe(), other) == [
        "sentence: “red” → “black”", "mask: 21 pixels, 20 of them from hair to hat", "seed: 3 → 4", "steps: 2 → 6",
        "guidance: 3.5 → 5",
    ]  # fmt: skip
    assert differences(recipe(), recipe(mask=None)) == ["mask: a mask → no mask"]
    assert differences(recipe(prompt=None), recipe()) == ["sentence: nothing → “She has red hair”"]
    assert differences(recipe(), recipe(mask=MASK[::2])) == ["mask: 128 x 128 → 128 x 64 pixels"]


def test_a_caption_and_a_file_name_tell_recipes_apart():
    assert caption(recipe()) == "seed 3, 2 steps, guidance 3.5. She has red hair."
    assert caption(recipe(prompt=None, strength=0.5)) == "seed 3, 2 steps, guidance 3.5, strength 0.5. (mask alone)"
    assert "no mask" in caption(recipe(mask=None))
    names = {file_name(one) for one in (recipe(), recipe(steps=3), recipe(mask=None), recipe(mask=MASK[:, ::-1]))}
    assert len(names) == 4 and file_name(recipe()) == file_name(recipe(mask=MASK.copy()))
    assert all(re.fullmatch(r"face-3-[0-9a-f]{6}\.png", name) for name in names)


# --- the playground --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pipe():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield load_pipeline(shipped(BASE), shipped(ADAPTER), "cpu")
    torch.set_num_threads(threads)


@pytest.fixture
def play(pipe, tmp_path):
    made = Playground(pipe, MASK, SENTENCE, seed=3, steps=2, words=known_words(), keep=3, folder=tmp_path)
    yield made
    made.wait()


def picture_in(html: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(re.search(r"base64,([^\"]+)", html)[1])))


def generated(play):
    play.generate.click()
    assert play.job is not None
    play.wait()
    return play.results[0]


def test_generate_draws_what_the_controls_say(play, pipe):
    made = generated(play)
    assert not made.recipe.differences(recipe())
    assert made.picture.tobytes() == run(pipe, [recipe()])[0].tobytes(), "the thread draws the same bits"
    assert made.picture.tobytes() == drawing.draw(pipe, recipe()).tobytes()
    assert picture_in(play.picture.value).tobytes() == made.picture.tobytes()
    assert "seed 3, 2 steps" in play.picture.value and 'alt="a face, drawn with seed 3' in play.picture.value
    play.prompt.value, play.steps.value, play.guidance.value, play.strength.value = "", 1, 5.0, 0.5
    assert not generated(play).recipe.differences(recipe(prompt=None, steps=1, guidance=5.0, strength=0.5))


def test_chips_and_note_follow_the_sentence_and_change_it(play):
    assert {chip for chip, button in play.chips.items() if button.value} == {("gender", "woman"), ("hair_color", "red")}
    play.chips["hair_color", "black"].value = True
    assert play.prompt.value == "She has black hair." and not play.chips["hair_color", "red"].value
    play.chips["hair_color", "black"].value = False
    assert "black" not in play.prompt.value and play.note.value == ""
    play.prompt.value = "A turquoise <b>hat</b>"
    assert "turquoise" in play.note.value and "<b>" not in play.note.value and play.chips["hat", "yes"].value
    assert not play.chips["gender", "woman"].value


def test_the_seed_is_kept_or_shuffled(play):
    assert generated(play).recipe.seed == generated(play).recipe.seed == 3
    play.lock.value = False
    assert generated(play).recipe.seed == play.seed.value != 3
    before = play.seed.value
    play.shuffle.click()
    assert play.seed.value != before


def test_stop_ends_within_a_step_and_the_next_picture_is_right(play, pipe, monkeypatch):
    steps, arrived, go_on = [], threading.Event(), threading.Event()
    tell = play._tell

    def slow(step, count, preview):
        steps.append(step)
        tell(step, count, preview)
        arrived.set()
        go_on.wait(30)

    monkeypatch.setattr(play, "_tell", slow)
    play.steps.value = 50
    play.generate.click()
    assert arrived.wait(60) and play.generate.disabled and not play.stop.disabled
    play.generate.click()  # a second click while it draws asks for nothing
    play.stop.click()
    go_on.set()
    play.wait()
    assert steps == [1] and "Stopped" in play.status.value and not play.results
    assert play.stop.disabled and not play.generate.disabled and play.progress.layout.visibility == "hidden"
    play.steps.value = 2
    assert generated(play).picture.tobytes() == run(pipe, [recipe()])[0].tobytes()


def test_previews_are_seen_while_it_draws(play, monkeypatch):
    seen = []
    play.picture.observe(lambda change: seen.append(change.new), "value")
    play.steps.value = 3
    generated(play)
    assert any("a preview, step 1 of 3" in html and picture_in(html).size == (128, 128) for html in seen)


def test_the_strip_keeps_results_and_restores_what_made_them(play):
    first = generated(play)
    play.prompt.value, play.seed.value, play.guidance.value = "A man.", 9, 7.0
    play.painter.label_map = np.where(MASK == 1, 0, MASK)
    generated(play)
    card = play.strip.children[1]
    assert "She has red hair." in card.children[0].value
    card.children[1].click()
    assert not play.recipe().differences(first.recipe)
    assert play.prompt.value == SENTENCE and play.seed.value == 3 and (play.painter.label_map == MASK).all()
    assert play.shown is first and picture_in(play.picture.value).tobytes() == first.picture.tobytes()
    for _ in range(3):
        generated(play)
    assert len(play.strip.children) == len(play.results) == 3


def test_a_against_b_uses_one_seed_and_says_what_differs(play):
    assert play.compare.disabled and play.keep_a.disabled
    a = generated(play)
    play.keep_a.click()
    play.seed.value, play.guidance.value = 8, 6.0
    play.chips["hair_color", "black"].value = True
    play.compare.click()
    play.wait()
    b = play.results[0]
    assert b.recipe.seed == a.recipe.seed == 3 and len(play.results) == 2, "A is not drawn again"
    assert re.findall(r"<li>(.+?)</li>", play.ab.value) == ["sentence: “red” → “black”", "guidance: 3.5 → 6"]
    assert play.ab.value.count("<img") == 2 and "B: seed 3, 2 steps" in play.ab.value


def test_a_saved_or_downloaded_picture_has_its_recipe_inside(play, tmp_path):
    play._known_origin = {"base": "tiny"}
    made = generated(play)
    play.save.click()
    name = file_name(made.recipe)
    assert name in play.status.value
    picture, said, origin = read_picture(tmp_path / name)
    assert picture.tobytes() == made.picture.tobytes() and not said.differences(made.recipe)
    assert origin == {"base": "tiny"} and f'download="{name}"' in play.link.value
    assert base64.b64decode(re.search(r"base64,([^\"]+)", play.link.value)[1]) == (tmp_path / name).read_bytes()


def test_what_cannot_be_drawn_is_said_and_nothing_breaks(play, monkeypatch):
    play.painter.label_map = np.zeros((128, 128), np.uint8)
    made = generated(play)
    assert made.recipe.mask is None, "an empty mask is none"
    play.prompt.value = " "
    play.generate.click()
    assert "found neither a sentence nor a mask" in play.status.value and not play.generate.disabled
    play.prompt.value = "word " * 200
    play.generate.click()
    play.wait()
    assert "tokens, expected at most" in play.status.value and not play.generate.disabled
    play.prompt.value = "A man."
    monkeypatch.setattr("workbook.playground.run", lambda *_: 1 / 0)
    play.generate.click()
    play.wait()
    assert "ZeroDivisionError" in play.status.value and not play.generate.disabled
    assert len(play.results) == 1


def test_where_no_kernel_runs_a_picture_stands_in(play, monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda data, **kwargs: shown.append((data, kwargs["metadata"])))
    play.display(alt="A mask and a picture of it.")
    [(data, metadata)] = shown
    assert data["application/vnd.jupyter.widget-view+json"]["model_id"] == play.box.model_id
    assert metadata["image/png"]["alt"] == data["text/plain"] == "A mask and a picture of it."
    assert Image.open(io.BytesIO(base64.b64decode(data["image/png"]))).width == 1800
    assert len(play.results) == 1 and not play.generate.disabled


def test_the_notebook_goes_on_whatever_was_played_first(pipe, monkeypatch):
    monkeypatch.setattr("IPython.display.display", lambda *_, **__: None)
    cells = [cell.source for cell in nbformat.read("notebooks/12_playground.ipynb", as_version=4).cells]
    makes, claims = (
        next(source for source in cells if words in source).replace("steps=20", "steps=2")
        for words in ("play = playground(", "bit for bit")
    )
    course = SimpleNamespace(base=shipped(BASE), adapter=shipped(ADAPTER))
    kernel = {"course": course, "pipe": pipe, "mask": MASK.copy(), "sentence": SENTENCE}
    exec(makes, kernel)
    play = kernel["play"]
    play.prompt.value, play.lock.value = "A man in turquoise.", False
    play.painter.label_map = np.where(MASK == 1, 0, MASK)
    generated(play)
    play.keep_a.click()
    play.guidance.value = 6.0
    play.compare.click()  # it may still draw when the next cell is run
    exec(claims, kernel)
    play.wait()
    assert len(play.results) == 3


def test_one_worker_draws_in_order_and_a_cell_waits_its_turn():
    order, release = [], threading.Event()
    job = drawing.start(lambda stopping: (release.wait(30), order.append("first")))
    assert job.runs
    threading.Timer(0.05, release.set).start()
    assert drawing.now(lambda stopping: order.append("second") or 7) == 7
    assert order == ["first", "second"] and not job.runs
    with pytest.raises(Cancelled):
        drawing.now(lambda stopping: (stopping.set(), drawing.watched(stopping)(1, 2, lambda: []))[1])
    with pytest.raises(MogleError, match="neither"):
        drawing.final(None, recipe(prompt="", mask=MASK * 0))


def test_few_previews_where_they_are_dear():
    seen = []
    on_step = drawing.watched(threading.Event(), lambda *news: seen.append(news), every=0.01)

    def preview():
        time.sleep(0.02)
        return ["picture"]

    for step in range(1, 5):
        on_step(step, 4, preview)
    assert seen == [(1, 4, "picture"), (2, 4, None), (3, 4, None), (4, 4, None)]


# --- the gate --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def watched(pipe):
    return gates.watch_gate(pipe, recipe())


def test_the_gate_is_watched_and_the_picture_is_the_same(pipe, watched):
    assert watched.weights.shape == (2, 64, 20) and np.allclose(watched.weights.sum(-1), 1, atol=1e-5)
    assert len(watched.previews) == 2 and watched.places == (8, 8)
    assert watched.picture.tobytes() == run(pipe, [recipe()])[0].tobytes()
    with pytest.raises(MogleError, match="found no mask"):
        gates.watch_gate(pipe, recipe(mask=None))


@pytest.mark.parametrize("renormalise", [True, False])
def test_experts_that_are_off_have_no_weight(pipe, watched, renormalise):
    off = [0, 14]
    found = gates.watch_gate(pipe, recipe(), off, renormalise).weights
    assert (found[..., off] == 0).all()
    first = watched.weights[0]  # at the first step nothing has changed yet but the weights
    left = np.delete(first, off, axis=-1)
    expected = left / left.sum(-1, keepdims=True) if renormalise else left
    assert np.allclose(np.delete(found[0], off, axis=-1), expected, atol=1e-5)
    assert run(pipe, [recipe()])[0].tobytes() == watched.picture.tobytes(), "afterwards all speak again"


def test_someone_has_to_speak(pipe):
    with pytest.raises(MogleError, match="at least one"), gates.without_experts(pipe, range(20)):
        pass
    with pytest.raises(MogleError, match="found expert 20"), gates.without_experts(pipe, [20]):
        pass
    with pytest.raises(MogleError, match="at least one"):
        gates.silenced(np.ones((1, 20)), range(20))
    assert gates.named([14, 0]) == "global, hair" and gates.named([]) == "none"


def test_who_leads_and_what_changed():
    weights = np.full((3, 20), 0.01)
    weights[[0, 1, 2], [5, 0, 19]] = 0.8
    assert gates.dominant(weights).tolist() == [5, 0, 19]
    before = Image.new("RGB", (4, 2))
    after = before.copy()
    after.putpixel((3, 1), (30, 60, 90))
    mask = np.array([[0, 0, 0, 0], [0, 0, 0, 13]], np.uint8)
    assert gates.difference(before, after)[1, 3] == 60 and gates.difference(before, after).sum() == 60
    assert gates.change_by_class(before, after, mask) == {"hair": 60.0, "background": 0.0}


def test_the_viewer_shows_a_run_and_draws_without_some(pipe, watched, monkeypatch):
    viewer = gates.GateViewer(pipe, watched)
    maps = viewer.maps
    sent = np.frombuffer(maps.weights, "<u2").reshape(2, 64, 20) / 65535
    assert np.abs(sent - watched.weights).max() < 1e-4 and (maps.steps, maps.rows, maps.columns) == (2, 8, 8)
    assert len(maps.pictures) == 2 and len(maps.names) == len(maps.colors) == 20 and len(maps.scale) == 256
    viewer.draw.click()
    assert viewer.job is None and "Turn some experts off" in viewer.status.value
    viewer.switches[0].value = False
    assert viewer.off == [0] and viewer.renormalise.value
    viewer.draw.click()
    viewer.wait()
    expected = gates.watch_gate(pipe, recipe(), [0]).picture
    assert viewer.without.tobytes() == expected.tobytes()
    assert viewer.result.value.count("<img") == 3 and "without global; renormalised" in viewer.result.value
    for switch in viewer.switches:
        switch.value = False
    viewer.draw.click()
    assert "at least one" in viewer.status.value
    viewer.all_on.click()
    assert viewer.off == []
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda data, **kwargs: shown.append(data))
    viewer.display(alt="Twenty maps and who leads.")
    assert "image/png" in shown[0] and maps.step == 1
