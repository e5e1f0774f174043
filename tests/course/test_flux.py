"""Notebook 04: its functions are the package's, its planted fault is where the answer says, its figures are drawn."""

import inspect

import pytest
import torch
from diffusers import FluxTransformer2DModel

from mogle import blocks
from mogle.training.flow import sample_times
from workbook import figures_flux
from workbook.exercises import flows, flux
from workbook.figures import png

T, N = 5, 6


@pytest.fixture(scope="module")
def inputs():
    """A small random FLUX, its text and image tokens, the vector of the time, and all places."""
    torch.manual_seed(0)
    model = FluxTransformer2DModel(
        num_layers=1, num_single_layers=1, attention_head_dim=8, num_attention_heads=3, axes_dims_rope=(2, 2, 4),
        joint_attention_dim=16, pooled_projection_dim=16, guidance_embeds=True,
    )  # fmt: skip
    for name, weight in model.requires_grad_(False).named_parameters():
        if ".norm_" in name:
            weight.normal_(1, 0.3)
    ids = torch.cat([torch.zeros(T, 3), torch.cartesian_prod(torch.zeros(1), torch.arange(2.0), torch.arange(3.0))])
    cos, sin = model.pos_embed(ids)
    return model, torch.randn(2, T, 24), torch.randn(2, N, 24), torch.randn(2, 24), torch.complex(cos, sin)[:, ::2]


def right_block(inputs):
    model, text, image, time, rope = inputs
    step = blocks.Step(time, time, (rope,), T, None, None, False, False, False)
    return blocks.double_block(model.transformer_blocks[0], text, image, None, step)[:2]


def test_the_planted_fault_spoils_the_image_alone(inputs):
    model, text, image, time, rope = inputs
    (text_right, image_right), block = right_block(inputs), model.transformer_blocks[0]
    found_text, found_image = flux.suspect(block, text, image, time, rope)
    assert torch.allclose(found_text, text_right, atol=1e-5) and found_image.shape == image_right.shape
    assert (found_image - image_right).abs().max() > 1e-3


def test_the_planted_fault_is_one_word_of_the_line_that_is_the_answer(inputs):
    model, *rest = inputs
    lines = inspect.getsource(flux.suspect).splitlines()
    numbers = [line.rpartition("# ")[2] for line in lines if "  # " in line]
    assert numbers == [str(i) for i in range(1, 19)] and set(flux._ACQUITTED) == set(range(1, 19)) - {9}
    faulty = next(i for i, line in enumerate(lines) if line.endswith(f"# {flux.planted_bug()}"))
    lines[faulty] = lines[faulty].replace("norm_k", "norm_q")
    mended = dict(vars(flux))
    exec("\n".join(lines), mended)
    for found, right in zip(mended["suspect"](model.transformer_blocks[0], *rest), right_block(inputs), strict=True):
        assert torch.allclose(found, right, atol=1e-5)


def test_the_best_velocity_of_one_point_leads_to_it_in_one_step():
    point, noise = torch.tensor([[0.3, -0.7]]), torch.randn(4, 2)
    walk = flows.sample(flows.best_velocity(point), noise, [1.0, 0.0])
    assert torch.allclose(walk[-1], point.expand(4, 2), atol=1e-6) and torch.equal(walk[0], noise)


def test_the_best_velocity_has_the_least_loss():
    torch.manual_seed(0)
    drawing = flows.face(40)
    best = flows.best_velocity(drawing)
    batch = (
        drawing.repeat(250, 1),
        torch.randn(10_000, 2),
        sample_times(10_000, torch.Generator().manual_seed(0), "cpu"),
    )
    least = flows.flow_loss(best, *batch)
    for other in (lambda z, t: best(z, t) + 0.3, lambda z, t: 0.8 * best(z, t), lambda z, t: z / t[:, None]):
        assert flows.flow_loss(other, *batch) > least


def test_figures_are_drawn_and_the_same_every_time():
    drawing, grid = flows.face(50), torch.cartesian_prod(torch.linspace(-2, 2, 3), torch.linspace(-2, 2, 3))
    for draw in (
        lambda: figures_flux.clouds({"one": drawing, "two": grid}, behind=drawing),
        lambda: figures_flux.arrows({"t = 1": (grid, grid + 0.1)}, drawing),
        lambda: figures_flux.paths({"paths": torch.stack([grid, grid / 2])}, drawing),
        lambda: figures_flux.attention_map(torch.linspace(0, 1, (T + N) ** 2).view(T + N, T + N), T),
    ):
        assert png(draw()) == png(draw())
