"""From recipe to picture: sizes, seeds, batches, shares and going on, with a pipeline that only remembers."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from mogle.errors import Cancelled, MogleError, MogleWarning
from mogle.labels import decode_mask
from mogle.provenance import Recipe, read_picture
from mogle.sampling import Settings, draw, run, seed_of, sized

GOLDEN = Path(__file__).parent / "golden"
ORIGIN = {"base_sha256": "1", "adapter_sha256": "2"}


class Pipe:
    """Gives each seed its own gray picture, and keeps what it was asked for."""

    default_sample_size, vae_scale_factor = 8, 8

    def __init__(self) -> None:
        self.calls: list[dict] = []

    def set_progress_bar_config(self, **options) -> None:
        pass

    def __call__(self, *, height: int, width: int, generator: list, **inputs) -> SimpleNamespace:
        self.calls.append(inputs)
        gray = [g.initial_seed() % 251 for g in generator]
        return SimpleNamespace(images=[Image.new("RGB", (width, height), (g, g, g)) for g in gray])


def recipe_of(index: int) -> Recipe:
    return Settings(steps=1).recipe(f"face {index}", None, seed_of(str(index)), (16, 32))


def test_a_seed_belongs_to_run_and_sample() -> None:
    seeds = {seed_of(name, seed) for name in ("27000", "27001", "tom") for seed in range(3)}
    assert len(seeds) == 9 and all(0 <= seed < 2**63 for seed in seeds) and seed_of("27000", 0) == seed_of("27000")
    assert seed_of("1", 0) == 47631350493125314, "files written before would be made anew"


def test_shares_and_batches_make_the_pictures_of_one_process(tmp_path) -> None:
    files = {name: [tmp_path / name / f"{i}.png" for i in range(7)] for name in ("alone", "shared")}
    assert draw(Pipe(), files["alone"], recipe_of, ORIGIN) == (7, 0)
    pipe = Pipe()
    assert [draw(pipe, files["shared"], recipe_of, ORIGIN, batch=3, share=(k, 2)) for k in (1, 0)] == [(3, 0), (4, 0)]
    assert [len(call["prompt"]) for call in pipe.calls] == [3, 3, 1]
    assert all(a.read_bytes() == b.read_bytes() for a, b in zip(*files.values(), strict=True))


def test_it_goes_on_and_mixes_nothing(tmp_path) -> None:
    files, pipe = [tmp_path / f"{i}.png" for i in range(3)], Pipe()
    draw(pipe, files[:2], recipe_of, ORIGIN)
    assert draw(pipe, files, recipe_of, {**ORIGIN, "machine": "another"}) == (1, 2)
    for changed, origin, words in (
        ({"steps": 2}, ORIGIN, "another steps"),
        ({"mask_guidance": 2.0}, ORIGIN, "another mask_guidance"),
        ({"mask": np.ones((16, 32), np.uint8)}, ORIGIN, "another mask"),
        ({}, {**ORIGIN, "adapter_sha256": "3"}, "another adapter_sha256"),
    ):
        with pytest.raises(MogleError, match=f"0.png: made with {words}; choose an empty folder"):
            draw(pipe, files, lambda i, c=changed: replace(recipe_of(i), **c), origin)
    assert len(pipe.calls) == 3


def test_mask_guidance_reaches_the_pipeline_and_the_picture(tmp_path) -> None:
    pipe = Pipe()
    run(pipe, [recipe_of(0)])
    run(pipe, [replace(recipe_of(0), mask_guidance=1.5)])
    assert [call["mask_guidance"] for call in pipe.calls] == [1.0, 1.5]
    draw(pipe, [tmp_path / "0.png"], lambda i: replace(recipe_of(i), mask_guidance=1.5), ORIGIN)
    assert read_picture(tmp_path / "0.png")[1].mask_guidance == 1.5


def test_a_mask_is_never_squashed_in_silence() -> None:
    wide = np.ones((20, 40), np.uint8)
    recipe = Settings().recipe(None, wide, 0)
    with pytest.warns(MogleWarning, match="40x20 pixels are drawn at 96x48"):
        assert sized(recipe, Pipe()).mask.shape == (48, 96)
    square = replace(recipe, height=64, width=64)
    with pytest.raises(MogleError, match="found 40 x 20 pixels, expected the shape of 64 x 64"):
        sized(square, Pipe())
    with pytest.warns(MogleWarning, match="40 x 20 pixels, stretched out of its shape to 64 x 64"):
        sized(square, Pipe(), "stretch")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert sized(replace(recipe, height=32, width=64), Pipe()).mask.shape == (32, 64)
        assert sized(replace(recipe, mask=wide[:, :20]), Pipe()).mask.shape == (64, 64)
        assert sized(replace(recipe, mask=None, prompt="A man."), Pipe()).height == 64


# --- each step, watched --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def drawing():
    """A call of `run` on the reference's tiny random FLUX with a mask, and that pipeline."""
    from safetensors.torch import load_file

    from mogle.pipeline import FaceMoGLEPipeline

    pipe = FaceMoGLEPipeline.from_pretrained(
        GOLDEN / "flux", **dict.fromkeys(("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"))
    )
    pipe.load_mogle(GOLDEN)
    pipe.set_progress_bar_config(disable=True)
    golden = load_file(GOLDEN / "expected.safetensors")
    text = {name: golden[name] for name in ("prompt_embeds", "pooled_prompt_embeds")}
    recipe = sized(Settings(steps=4, size=(128, 128)).recipe(None, decode_mask(GOLDEN / "mask0.png"), 5), pipe)
    return pipe, lambda on_step=None, **change: run(pipe, [replace(recipe, **change)], on_step, **text)


@pytest.mark.parametrize("change", [{}, {"mask_guidance": 2.0}, {"strength": 0.0}])
def test_a_watched_picture_is_the_same_and_its_last_preview_too(drawing, change) -> None:
    _, draw_it = drawing
    seen = []
    watched = draw_it(lambda step, steps, preview: seen.append((step, steps, preview()[0])), **change)
    alone = draw_it(**change)
    assert np.array_equal(watched[0], alone[0]) and [one[:2] for one in seen] == [(i, 4) for i in range(1, 5)]
    assert np.array_equal(seen[-1][2], alone[0]) and not np.array_equal(seen[0][2], alone[0])


def test_a_preview_is_what_one_long_step_would_give(drawing) -> None:
    pipe, draw_it = drawing
    previews = []
    draw_it(lambda step, steps, preview: previews.append(preview))  # to be decoded later, and without gradients
    one_step = draw_it(steps=1)[0]  # from the same noise along the same velocity to the end
    assert np.abs(np.asarray(previews[0]()[0], int) - np.asarray(one_step, int)).max() <= 1


@pytest.mark.parametrize("at", [1, 3])
def test_a_cancelled_picture_stops_within_the_step(drawing, at) -> None:
    pipe, draw_it = drawing
    expected, forwards = draw_it()[0], []
    handle = pipe.transformer.register_forward_hook(lambda *_: forwards.append(1))

    def cancel(step: int, steps: int, preview) -> None:
        if step == at:
            raise Cancelled

    with pytest.raises(Cancelled):
        draw_it(cancel)
    handle.remove()
    assert len(forwards) == at and not pipe.transformer._forward_hooks
    assert np.array_equal(draw_it()[0], expected), "the next picture is as if nothing had been"
