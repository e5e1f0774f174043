"""Notebook 09: the known flow is known, steps have their order, the case has its fault, figures hold what was given."""

import numpy as np
import pytest
import torch

from mogle.labels import LABELS, decode_mask
from workbook import figures, figures_sampling
from workbook.checking import Wrong
from workbook.edits import repainted
from workbook.exercises import sampling
from workbook.exercises.flows import euler_step, sample

ROOT_MASKS = "data/portraits/mask"


def heun(velocity, z, t, t_next):
    first = velocity(z, z.new_full((len(z),), t))
    second = velocity(z + (t_next - t) * first, z.new_full((len(z),), t_next))
    return z + (t_next - t) / 2 * (first + second)


def test_the_velocity_of_two_heaps_is_the_mean_slope_of_their_lines():
    torch.manual_seed(0)
    heap = torch.randint(2, (400_000,))
    z_0, eps = sampling.MIDDLES[heap] + sampling.SPREAD * torch.randn(400_000), torch.randn(400_000)
    for t, place in ((0.8, -0.4), (0.5, 0.1), (0.3, 0.6)):
        near = ((1 - t) * z_0 + t * eps - place).abs() < 0.02
        found = sampling.two_heaps()(torch.tensor([[place]]), torch.tensor([t])).item()
        assert found == pytest.approx((eps - z_0)[near].mean().item(), abs=0.1)


def test_steps_have_their_order_on_it():
    gains = {
        step: sampling._error(step, 32) / sampling._error(step, 64)
        for step in (euler_step, sampling.midpoint_step, heun)
    }
    assert gains[euler_step] == pytest.approx(2, abs=0.1)
    assert all(gains[step] == pytest.approx(4, abs=0.4) for step in (sampling.midpoint_step, heun))
    sampling.check_second_order(heun)


def test_the_sampler_is_notebook_04s_with_its_steps_kept():
    noise, times = torch.randn(5, 2), [1.0, 0.6, 0.2, 0.0]
    seen = []
    end = sampling.sample(sampling._field, noise, times, on_step=lambda *told: seen.append(told))
    path = sample(sampling._field, noise, times)
    assert torch.equal(end, path[-1]) and torch.equal(torch.stack([state for _, state, _ in seen]), path[1:])
    assert torch.equal(seen[-1][2], end), "the last guess is the picture"


def test_the_suspect_errs_on_times_that_are_not_even_alone():
    cloud = torch.randn(300, 1, generator=torch.Generator().manual_seed(0))

    def error(times):
        end = sampling.suspect(sampling.two_heaps(), cloud, times)
        return (sampling.rank_of_end(end) - torch.special.ndtr(cloud)).abs().mean().item()

    evenly = torch.linspace(1, 0, 513)
    odds = (2.2 * evenly / (1 + 1.2 * evenly)).tolist()
    assert error(evenly.tolist()) < 1e-2 < 0.05 < error(odds)


def test_every_row_that_lost_its_label_has_settings_and_a_sign():
    assert set(sampling.which_knob().values()) == set(sampling.SETTINGS) - {"no sentence"}
    assert all(set(sampling.lost(row)) == {"steps", "w", "strength"} for row in sampling.which_knob())
    assert sampling.lost("C") == {"steps": 8, "w": 1.0, "strength": 1.0}
    with pytest.raises(Wrong, match="the highest|the most contrast"):
        sampling.check_which_knob(lambda: sampling.which_knob() | {"A": "2 steps"})


def test_the_painter_paints_the_same_face_with_something_changed():
    before = repainted(28)
    assert np.array_equal(before, decode_mask(f"{ROOT_MASKS}/28.png"))
    glasses = repainted(28, eyeglasses="yes", sunglasses="no")
    assert (glasses == LABELS.index("eye_g")).any() and not (before == LABELS.index("eye_g")).any()
    assert 0 < (glasses != before).mean() < 0.1


def test_sweeps_and_orders_show_the_numbers_given():
    figure = figures_sampling.sweep(
        {"far": {"a": {1: 3, 8: 1}, "b": {8: 2}}, "right": {"a": {1: 5, 8: 6}}}, xlabel="steps"
    )
    left, right = figure.axes
    assert [line.get_ydata().tolist() for line in left.lines] == [[3, 1], [2]]
    assert [tick.get_text() for tick in left.get_xticklabels()] == ["1", "8"] and right.get_ylabel() == "right"
    ax = figures_sampling.orders({"Euler": {2: 0.4, 4: 0.2}}, xlabel="steps", ylabel="error").axes[0]
    first, second = (line.get_ydata() for line in ax.lines[1:])
    assert first[0] / first[1] == pytest.approx(2) and second[0] / second[1] == pytest.approx(4)
    ax = figures_sampling.spacing({"even": [1.0, 0.5, 0.0]}).axes[0]
    assert list(ax.lines[1].get_xdata()) == [1.0, 0.5, 0.0] and ax.get_xlim()[0] > ax.get_xlim()[1]


def test_flat_figures_and_those_of_faces_are_smaller_and_as_wide(monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda data, **kwargs: shown.append((data, kwargs["metadata"])))
    curve = figures.lines({"a": [1, 2], "b": [2, 1]}, xlabel="x", ylabel="y")
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    for how in ({}, {"flat": True}, {"small": True}):
        figures.show(curve, alt="Two curves that cross.", **how)
    for how in ({"small": True}, {"small": True, "retina": 1.5}):
        figures.show(figures.image_grid([[noise]]), alt="Nothing but coloured noise.", **how)
    sizes = [len(next(iter(data.values()))) for data, _ in shown]
    assert sizes[2] == sizes[1] < sizes[0] / 2 and sizes[4] < sizes[3]
    assert [next(iter(data)) for data, _ in shown] == 3 * ["image/png"] + 2 * ["image/jpeg"]
    assert {entry["width"] for _, metadata in shown for entry in metadata.values()} == {900}
