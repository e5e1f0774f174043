"""The painter keeps its promises: masks agree with attributes, seeds with portraits, sizes with each other."""

from __future__ import annotations

import numpy as np
import pytest

from mogle.tiny.portraits.attributes import STYLES, sample_attributes
from mogle.tiny.portraits.painter import draw


def portrait(seed: int, size: int = 128, style: str = "portraits", **changes: str | None):
    rng = np.random.default_rng([seed, STYLES.index(style)])
    attributes = {**sample_attributes(rng, style), **changes}
    return *draw(attributes, rng, size, style), attributes


@pytest.mark.parametrize("style", STYLES)
def test_mask_shows_what_the_attributes_say(style: str) -> None:
    seen = np.zeros(19, bool)
    for seed in range(40):
        image, labels, a = portrait(seed, style=style)
        assert image.shape == (128, 128, 3) and image.dtype == labels.dtype == np.uint8
        area = np.bincount(labels.ravel(), minlength=19)
        seen |= area > 0
        assert (area[14] >= 150) == (a["hat"] == "yes"), seed
        assert (area[3] >= 60) == (a["eyeglasses"] == "yes"), seed
        assert (area[13] > 0) == (a["hair_length"] != "bald"), seed
        for label, name, least in ((15, "earrings", 6), (16, "necklace", 12), (10, "mouth_open", 8)):
            assert area[label] >= least if a[name] == "yes" else area[label] == 0, (seed, name)
        chin = np.nonzero((labels == 1) | (labels == 12))[0].max()
        below = int((labels[min(chin + 2, 127)] == 13).sum())
        assert below >= 8 if a["hair_length"] == "long" else below < 8, seed
    assert seen.all()


def test_same_seed_same_portrait_at_any_size() -> None:
    first, second, large = portrait(3), portrait(3), portrait(3, size=256)
    assert np.array_equal(first[0], second[0]) and np.array_equal(first[1], second[1])
    small = large[0].reshape(128, 2, 128, 2, 3).mean((1, 3))
    assert np.abs(small - first[0]).mean() < 4
    assert (large[1][::2, ::2] == first[1]).mean() > 0.97


def test_colours_leave_the_mask_alone() -> None:
    one = portrait(5, skin="fair", age="young", lipstick="no", light="left", clothes="red")
    two = portrait(5, skin="dark", age="elderly", lipstick="yes", light="right", clothes="blue")
    assert np.array_equal(one[1], two[1])
    assert np.abs(one[0].astype(int) - two[0]).mean() > 20


def test_skin_tones_do_not_meet_under_any_light() -> None:
    means = {tone: [] for tone in ("fair", "tan", "dark")}
    for seed in range(4):
        for tone, values in means.items():
            for light in ("left", "right", "front"):
                image, labels, _ = portrait(
                    seed, skin=tone, light=light, age="young", rosy_cheeks="no", facial_hair="none"
                )
                values.append(image[labels == 1].mean())
    assert min(means["fair"]) > max(means["tan"]) and min(means["tan"]) > max(means["dark"])
