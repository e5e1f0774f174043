"""Colours and light of one portrait: everything that the mask does not show is drawn here.

It has its own random stream, so the shapes of a portrait do not depend on its colours.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mogle.tiny.portraits.shapes import Array, rgb

SKIN = {"fair": (244, 208, 186), "tan": (188, 130, 92), "dark": (98, 60, 42)}
HAIR = {
    "black": (34, 29, 32),
    "brown": (98, 60, 36),
    "blond": (228, 188, 108),
    "red": (154, 58, 26),
    "gray": (176, 178, 184),
}
CLOTH = {
    "red": (196, 40, 44),
    "blue": (46, 84, 190),
    "green": (44, 140, 70),
    "white": (236, 234, 230),
    "black": (36, 36, 42),
    "yellow": (238, 198, 44),
}
BACKDROP = {
    "blue": (92, 142, 206),
    "green": (104, 166, 112),
    "red": (190, 84, 84),
    "white": (228, 226, 222),
    "black": (38, 38, 44),
}
IRIS = ((92, 56, 30), (70, 44, 28), (70, 118, 168), (84, 128, 84), (120, 96, 50), (96, 110, 120))
LIPSTICK = ((190, 22, 48), (168, 18, 84), (206, 40, 92), (150, 20, 40), (214, 44, 40))
SHADOW = ((104, 60, 150), (44, 92, 170), (26, 128, 128), (150, 50, 120), (60, 56, 74))
LIGHT = {"left": (-0.84, -0.22, 0.5), "right": (0.84, -0.22, 0.5), "front": (0.0, -0.34, 0.94)}


def vary(rng: np.random.Generator, color: tuple[float, float, float], amount: float = 10.0) -> Array:
    """A colour near the given one: shared brightness and small tint changes, in units of 1/255."""
    base = rgb(*color)
    return np.clip(base + (rng.normal(0, amount) + rng.normal(0, amount * 0.4, 3)) / 255, 0.02, 1).astype(np.float32)


class Look:
    """Palette and light of a portrait."""

    def __init__(self, rng: np.random.Generator, a: Mapping[str, str | None], style: str) -> None:
        self.rng = rng
        self.woman = a["gender"] == "woman"
        self.age = a["age"] or "young"
        self.tone = a["skin"] or "fair"
        self.skin = vary(rng, SKIN[self.tone], 5.0)
        self.hair = vary(rng, HAIR[a["hair_color"] or "brown"], 5.0)
        iris = vary(rng, IRIS[int(rng.integers(2 if self.tone == "dark" else len(IRIS)))], 8)
        self.iris = iris
        brow = {
            "black": (30, 24, 24),
            "brown": (72, 44, 28),
            "blond": (150, 106, 52),
            "red": (122, 52, 26),
            "gray": (132, 128, 126),
        }[a["hair_color"] or "black"]
        brow_rgb = vary(rng, brow, 5)
        if self.tone == "dark":
            brow_rgb = brow_rgb * 0.6
        self.brow = brow_rgb
        # A beard must stand out from the skin: darker than it, or on dark and tan skin as light as fair or gray hair
        light_hair = a["hair_color"] in ("blond", "gray")
        self.beard = {
            "fair": brow_rgb * 0.95,
            "tan": self.hair * 0.98 if light_hair else brow_rgb * 0.72,
            "dark": self.hair * 0.85 if a["hair_color"] in ("blond", "gray", "red") else brow_rgb * 0.5,
        }[self.tone].astype(np.float32)
        natural = {"fair": (212, 138, 128), "tan": (166, 98, 80), "dark": (104, 56, 50)}[self.tone]
        self.lip = vary(rng, natural, 5)
        self.lipstick = a["lipstick"] == "yes"
        stick = LIPSTICK[int(rng.integers(len(LIPSTICK)))]
        if self.lipstick:
            self.lip = vary(rng, stick, 6)
        shadow = vary(rng, SHADOW[int(rng.integers(len(SHADOW)))], 8)
        self.shadow = shadow + (0.12 if self.tone == "dark" else 0.0)
        self.cloth = vary(rng, CLOTH[a["clothes"] or "blue"], 9)
        self.hat = vary(rng, CLOTH[a["hat_color"] or "blue"], 9)
        self.backdrop = vary(rng, BACKDROP[a["background"] or "blue"], 9)
        self.metal = rgb(*((226, 184, 70) if rng.random() < 0.6 else (214, 218, 226)))
        jitter = rng.normal(0, 0.07, 3)
        light = np.array(LIGHT[a["light"] or "front"]) + jitter * (1, 1, 0)
        self.light = (light / np.linalg.norm(light)).astype(np.float32)
        self.side = float(np.sign(self.light[0])) if a["light"] in ("left", "right") else 0.0
        self.contrast = 0.8 if style == "balanced" else 1.0
        warm = rng.normal(0, 0.015)
        self.tint = np.array([1 + warm, 1.0, 1 - warm], np.float32)

    def lit(self, nx: Array, ny: Array, nz: Array, ambient: float = 0.46) -> Array:
        """Brightness about 1 for unit normals (any equal shapes): wrapped Lambert shading."""
        lx, ly, lz = self.light
        lambert = (nx * lx + ny * ly + nz * lz + np.float32(0.22)) / np.float32(1.22)
        full = ambient + (1.08 - ambient) * np.maximum(lambert, 0) * (1.16 if self.side else 1.0)
        return 1 + self.contrast * (full - 1)

    def shade(self, color: Array, light: Array, depth: float = 0.12) -> Array:
        """`color` under brightness `light`: shadows turn warm, highlights towards white. Fields (size, size)."""
        light = light[..., None]
        cool = np.array([1, 1 - depth, 1 - 1.4 * depth], np.float32)
        dark = np.clip(1 - light, 0, 1)
        out = color * np.minimum(light, 1) * (1 - dark * (1 - cool))
        return np.clip(out + np.maximum(light - 1, 0) * (0.6 * color + 0.3), 0, 1)
