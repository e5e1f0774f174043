"""Canvas, smooth outlines and low-frequency noise: the vocabulary that every part of a portrait is written in.

All coordinates are fractions of the frame (x right, y down, both in [0, 1] inside the picture), so a portrait does
not depend on the size at which it is rasterised.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

Array = np.ndarray[Any, Any]
Color = Array | tuple[float, float, float]


def rgb(red: float, green: float, blue: float) -> Array:
    """A colour given in 0..255 as float32 in [0, 1]."""
    return np.array([red, green, blue], np.float32) / 255


def smoothstep(low: float, high: float, value: Array) -> Array:
    """0 below `low`, 1 above `high`, cubic between."""
    t = np.clip((value - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


@cache
def _spans(k: int, n: int, closed: bool) -> tuple[Array, Array]:
    """Catmull-Rom basis (n, 4) and the four control points of each span."""
    t = (np.arange(n) / n)[:, None]
    basis = 0.5 * np.hstack([-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, t**3 - t**2])
    i = np.arange(k if closed else k - 1)[:, None] + np.arange(-1, 3)
    return basis, i % k if closed else i + 1


def spline(points: Any, n: int = 6, closed: bool = True) -> Array:
    """Catmull-Rom curve through control points (k, 2) or (k, 3), `n` samples for each span."""
    p = np.asarray(points, np.float64)
    basis, index = _spans(len(p), n, closed)
    q = p if closed else np.concatenate([2 * p[:1] - p[1:2], p, 2 * p[-1:] - p[-2:-1]])
    out = (basis @ q[index]).reshape(-1, p.shape[1])
    return out if closed else np.concatenate([out, p[-1:]])


@cache
def _profile(k: int, taper: float) -> Array:
    return np.asarray(0.5 * (1 - taper + taper * np.sin(np.pi * np.linspace(0, 1, k)) ** 0.6))[:, None]


def stroke(points: Any, width: float, taper: float = 1.0, n: int = 5) -> Array:
    """Outline of a brush stroke along a smooth open curve; `taper` 1 ends in points, 0 keeps the full width."""
    line = spline(points, n, closed=False)
    tangent = np.empty_like(line)
    tangent[1:-1] = line[2:] - line[:-2]
    tangent[0], tangent[-1] = line[1] - line[0], line[-1] - line[-2]
    normal = tangent[:, ::-1] * ((-1.0, 1.0) / (np.hypot(tangent[:, 0], tangent[:, 1]) + 1e-9)[:, None])
    half = normal * (width * _profile(len(line), taper))
    return np.concatenate([line + half, (line - half)[::-1]])


def ellipse(cx: float, cy: float, rx: float, ry: float, angle: float = 0.0, n: int = 24) -> Array:
    """Outline (n, 2) of an ellipse turned by `angle` radians."""
    t = np.linspace(0, 2 * np.pi, n, endpoint=False)
    x, y = rx * np.cos(t), ry * np.sin(t)
    c, s = np.cos(angle), np.sin(angle)
    return np.stack([cx + x * c - y * s, cy + x * s + y * c], 1)


class Ripple:
    """Sum of `n` random plane waves with wavelengths in [low, high] frame widths; about unit variance."""

    def __init__(self, rng: np.random.Generator, n: int, low: float, high: float) -> None:
        angle, length = rng.uniform(0, 2 * np.pi, n), rng.uniform(low, high, n)
        self.kx = (2 * np.pi * np.cos(angle) / length).astype(np.float32)
        self.ky = (2 * np.pi * np.sin(angle) / length).astype(np.float32)
        self.phase = rng.uniform(0, 2 * np.pi, n).astype(np.float32)

    def __call__(self, x: Array, y: Array) -> Array:
        out = np.zeros(np.shape(x), np.float32)
        for kx, ky, p in zip(self.kx, self.ky, self.phase, strict=True):
            out += np.sin(kx * x + ky * y + p)
        return out * np.float32((2 / len(self.kx)) ** 0.5)


class Canvas:
    """Picture (size, size, 3) float32 in [0, 1] and its label map, painted layer by layer.

    A shape is a closed outline. Its antialiased coverage comes from one supersampled fill of its bounding box;
    the label goes where the coverage exceeds one half, so picture and mask agree exactly. Every outline passes
    through one random smooth displacement of the plane, which makes all shapes of a portrait irregular.
    """

    def __init__(self, size: int, rng: np.random.Generator | None = None, wobble: float = 0.006) -> None:
        self.size = size
        self.image = np.zeros((size, size, 3), np.float32)
        self.labels = np.zeros((size, size), np.uint8)
        axis = ((np.arange(size) + 0.5) / size).astype(np.float32)
        self.x, self.y = np.meshgrid(axis, axis)
        self.bend = None
        if rng is not None:  # displacement: 4 plane waves for each of x and y
            a, b = Ripple(rng, 4, 0.25, 0.9), Ripple(rng, 4, 0.25, 0.9)
            mix = np.zeros((8, 2))
            mix[:4, 0] = mix[4:, 1] = wobble * 0.5**0.5
            waves = np.array([np.r_[a.kx, b.kx], np.r_[a.ky, b.ky]], np.float64)
            self.bend = (waves, np.r_[a.phase, b.phase].astype(np.float64), mix)

    def cover(self, *outlines: Array) -> tuple[tuple[slice, slice], Array] | None:
        """Window and coverage in [0, 1] of the union of outlines (k, 2); None when it lies outside the frame."""
        shapes = []
        for outline in outlines:
            p = np.asarray(outline, np.float64)
            if self.bend is not None:
                waves, phase, mix = self.bend
                p = p + np.sin(p @ waves + phase) @ mix
            shapes.append(p * self.size)
        everything = shapes[0] if len(shapes) == 1 else np.concatenate(shapes)
        (low_x, low_y), (high_x, high_y) = everything.min(0).tolist(), everything.max(0).tolist()
        x0, y0 = max(int(low_x) - 1, 0), max(int(low_y) - 1, 0)
        x1, y1 = min(int(high_x) + 2, self.size), min(int(high_y) + 2, self.size)
        if x1 <= x0 or y1 <= y0:
            return None
        extent = max(x1 - x0, y1 - y0)
        scale = 8 if extent <= 40 else 4 if extent <= 256 else 2
        width, height = x1 - x0, y1 - y0
        layer = Image.new("L", (width * scale, height * scale))
        pen = ImageDraw.Draw(layer)
        for p in shapes:
            pen.polygon(((p - (x0, y0)) * scale - 0.5).ravel().tolist(), fill=255)
        filled = np.frombuffer(layer.reduce(scale).tobytes(), np.uint8).reshape(height, width)
        return (slice(y0, y1), slice(x0, x1)), filled * np.float32(1 / 255)

    def mask(self, *outlines: Array) -> Array:
        """Coverage (size, size) of the union of outlines."""
        out = np.zeros((self.size, self.size), np.float32)
        found = self.cover(*outlines)
        if found is not None:
            out[found[0]] = found[1]
        return out

    def fill(
        self,
        outline: Array | list[Array],
        color: Color | None,
        label: int | None = None,
        alpha: float = 1.0,
        clip: Array | None = None,
    ) -> None:
        """Composite one shape, or the union of several; `color` is constant or a (size, size, 3) field, `clip` a
        (size, size) coverage."""
        found = self.cover(*outline) if isinstance(outline, list) else self.cover(outline)
        if found is not None:
            self.lay(*found, color, label, alpha, clip)

    def lay(
        self,
        window: tuple[slice, slice],
        cover: Array,
        color: Color | None,
        label: int | None = None,
        alpha: float = 1.0,
        clip: Array | None = None,
    ) -> None:
        """Composite a coverage that lies in `window`."""
        if clip is not None:
            cover = cover * clip[window]
        if color is not None:
            paint = np.asarray(color, np.float32)
            paint = paint[window] if paint.ndim == 3 else paint
            part = self.image[window]
            part += (cover * alpha)[..., None] * (paint - part)
        if label is not None:
            self.labels[window][cover > 0.5] = label

    @property
    def whole(self) -> tuple[slice, slice]:
        return slice(0, self.size), slice(0, self.size)

    def window(self, cx: float, cy: float, reach: float) -> tuple[slice, slice] | None:
        """The pixels within `reach` of a point in both directions; None outside the frame."""
        n = self.size
        x0, x1 = max(int((cx - reach) * n), 0), min(int((cx + reach) * n) + 1, n)
        y0, y1 = max(int((cy - reach) * n), 0), min(int((cy + reach) * n) + 1, n)
        return (slice(y0, y1), slice(x0, x1)) if x1 > x0 and y1 > y0 else None

    def glow(
        self,
        cx: float,
        cy: float,
        rx: float,
        ry: float,
        color: Color,
        alpha: float,
        clip: Array | None = None,
        angle: float = 0.0,
    ) -> None:
        """A soft Gaussian spot of radii (rx, ry) that blends towards `color`."""
        window = self.window(float(cx), float(cy), 2.2 * max(rx, ry))
        if window is None:
            return
        x, y = self.x[window] - np.float32(cx), self.y[window] - np.float32(cy)
        if angle:
            c, s = np.float32(np.cos(angle)), np.float32(np.sin(angle))
            x, y = x * c + y * s, y * c - x * s
        self.lay(window, np.exp(-((x / np.float32(rx)) ** 2) - (y / np.float32(ry)) ** 2), color, None, alpha, clip)

    def blur(self, field: Array, radius: float) -> Array:
        """Gaussian blur of a (size, size) field in [0, 1]; the radius is a fraction of the frame."""
        layer = Image.fromarray((np.clip(field, 0, 1) * 255).astype(np.uint8))
        return np.asarray(layer.filter(ImageFilter.GaussianBlur(radius * self.size)), np.float32) / 255

    def shift(self, field: Array, dx: float, dy: float) -> Array:
        """`field` moved by (dx, dy) frame fractions, edges repeated."""
        i = np.clip(np.arange(self.size) - round(dy * self.size), 0, self.size - 1)
        j = np.clip(np.arange(self.size) - round(dx * self.size), 0, self.size - 1)
        return field[np.ix_(i, j)]
