"""Backgrounds, and the finish that sets the shifted styles apart."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageFilter

from mogle.tiny.portraits.look import Look
from mogle.tiny.portraits.shapes import Array, Canvas, Ripple, ellipse


def draw_background(canvas: Canvas, look: Look, style: str) -> None:
    """A gradient in the named colour with a light side, vignette, and blurred lights or shapes; plainer patterns for
    the shifted styles."""
    r = look.rng
    x, y = canvas.x, canvas.y
    base = look.backdrop
    angle, depth = r.uniform(0, 2 * np.pi), r.uniform(0.05, 0.22)
    tone: Array = 1 + np.float32(depth) * (
        (x - 0.5) * np.float32(np.cos(angle)) + (y - 0.5) * np.float32(np.sin(angle))
    )
    tone = tone + 0.16 * look.side * (x - 0.5)
    tone = tone + 0.05 * Ripple(r, 4, 0.5, 1.4)(x, y)
    lift = 0.10 if base.mean() < 0.3 else 0.0
    canvas.image[:] = base * tone[..., None] + lift * (tone[..., None] - 1)
    kind = r.integers(4)
    if style == "female":  # rays or bands, flat and clear
        if kind < 2:
            cx, cy = r.uniform(0.3, 0.7), r.uniform(0.2, 0.7)
            fan = np.sin(np.arctan2(y - cy, x - cx) * int(r.integers(7, 13)) + r.uniform(0, 6))
        else:
            a = r.uniform(0, np.pi)
            fan = np.sin((x * np.cos(a) + y * np.sin(a)) * r.uniform(25, 45))
        canvas.image += (0.07 * np.clip(4 * fan, -1, 1))[..., None].astype(np.float32)
    elif style == "balanced":  # a horizon: wall and ledge
        level = r.uniform(0.3, 0.75) + r.uniform(-0.15, 0.15) * (x - 0.5)
        canvas.image *= (1 - 0.16 / (1 + np.exp(-(y - level) * 90)))[..., None].astype(np.float32)
    elif kind == 1:  # out-of-focus lights
        layer = np.zeros_like(x)
        for _ in range(int(r.integers(5, 11))):
            rad = r.uniform(0.03, 0.09)
            one = canvas.mask(ellipse(r.uniform(), r.uniform(0, 0.8), rad, rad))
            layer += one * r.uniform(0.3, 1)
        glow = canvas.blur(layer, 0.008)[..., None]
        canvas.image += glow * (0.16 * base + 0.07)
    elif kind == 2:  # blurred upright shapes, like a window or a shelf
        layer = np.zeros_like(x)
        for _ in range(int(r.integers(2, 5))):
            cx, half = r.uniform(), r.uniform(0.04, 0.16)
            box = np.array([(cx - half, r.uniform(-0.2, 0.4)), (cx + half, -0.2), (cx + half, 1.1), (cx - half, 1.1)])
            layer = np.maximum(layer, canvas.mask(box) * r.uniform(0.4, 1))
        sign = r.choice([-1, 1])
        canvas.image += sign * canvas.blur(layer, 0.025)[..., None] * (0.13 * base + 0.03)
    vignette = ((x - 0.5) ** 2 + (y - 0.5) ** 2) * np.float32(r.uniform(0.0, 0.5))
    canvas.image *= 1 - vignette[..., None]
    np.clip(canvas.image, 0, 1, out=canvas.image)


def finish(canvas: Canvas, look: Look, style: str) -> Array:
    """The picture (size, size, 3) uint8: main style as it is, "female" as a tinted ink drawing, "balanced" softer."""
    image = canvas.image * look.tint
    if style == "female":
        tone = image.mean(2, keepdims=True)
        steps = np.round(tone * 7) / 7
        image = image * (0.35 + 0.65 * (steps + 0.08) / (tone + 0.08))
        image = 0.86 * image + 0.14 * np.array([0.99, 0.93, 0.90], np.float32)
        edge = np.zeros_like(canvas.x)
        lab = canvas.labels
        edge[:, 1:] = lab[:, 1:] != lab[:, :-1]
        edge[1:] = np.maximum(edge[1:], lab[1:] != lab[:-1])
        ink = Image.fromarray((edge * 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(canvas.size * 0.005))
        line = np.clip(np.asarray(ink, np.float32) / 255 * 1.3 * canvas.size / 128, 0, 1)[..., None]
        image = image * (1 - 0.55 * line) + 0.55 * line * np.array([0.16, 0.08, 0.16], np.float32)
    elif style == "balanced":
        image = 0.5 + 0.88 * (image - 0.5)
    return (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)
