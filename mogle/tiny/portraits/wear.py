"""Neck, shoulders and clothes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mogle.tiny.portraits.head import Head
from mogle.tiny.portraits.look import Look
from mogle.tiny.portraits.shapes import Array, Canvas, Ripple, ellipse, spline, stroke

NECK, CLOTH = 17, 18


class Body:
    """Neck, shoulders and neckline below the head; the body stays upright when the head tilts."""

    def __init__(self, rng: np.random.Generator, a: Mapping[str, str | None], head: Head) -> None:
        u = rng.uniform
        woman = a["gender"] == "woman"
        self.head, self.unit, self.woman = head, head.unit, woman
        pivot = head.plane([(-0.05 * head.sin, 0.55)])[0]
        chin = head.outline[:, 1].max()
        self.x = float(pivot[0] + u(-0.06, 0.06) * head.unit)
        self.pivot = float(pivot[0])
        self.y = float(chin + (0.02 + 0.36 * u() ** 2) * head.unit)  # where the neck meets the shoulders
        self.y = min(self.y, 0.93)
        self.chin = float(chin)
        self.neck = (u(0.37, 0.43) if woman else u(0.45, 0.54)) * head.half / 0.67
        slope = u(0.04, 0.18)
        self.slopes = (slope + rng.normal(0, 0.03), slope + rng.normal(0, 0.03))
        self.broad = u(1.6, 1.95) if woman else u(1.8, 2.2)
        self.kind = str(
            rng.choice(
                ["crew", "vee", "shirt", "boat", "high", "jacket", "deep"], p=[0.22, 0.16, 0.18, 0.1, 0.1, 0.16, 0.08]
            )
        )
        if a["necklace"] == "yes" and self.kind in ("high", "crew"):
            self.kind = "vee"
        self.bare = u() < (0.08 if woman else 0.02)  # bare shoulders, hardly any cloth
        room = (0.985 - self.y) / head.unit
        self.dip = float(
            np.clip(
                {
                    "crew": u(0.16, 0.34),
                    "vee": u(0.4, 0.8),
                    "shirt": u(0.3, 0.55),
                    "boat": u(0.1, 0.22),
                    "high": -0.1,
                    "jacket": u(0.5, 0.9),
                    "deep": u(0.5, 0.8),
                }[self.kind],
                -0.1,
                max(room, 0.1),
            )
        )
        self.open = {"boat": u(0.85, 1.05), "deep": u(0.7, 1.0), "crew": u(0.52, 0.68)}.get(self.kind, u(0.48, 0.6))
        self.flank = {s: rng.normal(0, 0.03) for s in (-1, 1)}

    def at(self, points: object) -> Array:
        return np.array([self.x, self.y]) + self.unit * np.asarray(points, np.float64)

    def shoulder(self, s: int, grow: float = 0.0) -> list[tuple[float, float]]:
        """Shoulder line from the neck outwards (body units)."""
        k, b = self.slopes[0 if s < 0 else 1], self.broad
        f = self.flank[s]
        return [
            (s * self.neck * 1.02, -0.10 - grow),
            (s * (self.neck + 0.14), 0.02 - grow),
            (s * 0.9, 0.10 + k * 0.6 - grow),
            (s * b * 0.8, 0.22 + k + f - grow),
            (s * b, 0.44 + k + f - grow),
            (s * (b + 0.14), 0.9),
            (s * (b + 0.2), 2.6),
        ]


def draw_neck(canvas: Canvas, head: Head, look: Look, body: Body, face: Array) -> None:
    """Neck and bare chest (label 17) with the shadow of the jaw."""
    b, unit = body, body.unit
    top = (b.pivot - b.x) / unit
    up = (head.y + 0.45 * unit - b.y) / unit
    n = b.neck
    left, right = b.shoulder(-1), b.shoulder(1)
    outline = [
        (top - n * 1.0, up),
        (top * 0.6 - n * 0.98, 0.5 * up - 0.1),
        *left,
        *right[::-1],
        (top * 0.6 + n * 0.98, 0.5 * up - 0.1),
        (top + n, up),
    ]
    shape = b.at(spline(outline, 4))
    x = (canvas.x - np.float32(b.x)) / np.float32(unit)
    y = (canvas.y - np.float32(b.y)) / np.float32(unit)
    nx = np.clip(x / np.float32(n * 1.1), -1, 1) * 0.85
    flat = np.clip((y + 0.05) / 0.35, 0, 1)
    nx = nx * (1 - flat) + np.clip(x / 1.6, -1, 1) * 0.6 * flat
    ny = -0.25 * flat
    light = look.lit(nx, ny, np.sqrt(np.maximum(1 - nx * nx - ny * ny, 0.1)))
    cast = canvas.blur(canvas.shift(face, -0.045 * look.side, 0.075 * unit / 0.36), 0.022 * unit / 0.36)
    light = light * (1 - 0.36 * cast)
    for s in (-1, 1):  # collar bones
        light = light - 0.09 * np.exp(-(((y - 0.20 - 0.10 * s * x) / 0.035) ** 2)) * np.exp(
            -(((x - s * 0.42) / 0.28) ** 2)
        )
        light = light - 0.05 * np.exp(-(((x - s * (0.30 - 0.5 * (y + 0.1))) / 0.05) ** 2)) * np.exp(
            -(((y + 0.1) / 0.3) ** 2)
        )
    canvas.lay(canvas.whole, canvas.mask(shape), look.shade(look.skin, light * 0.97, 0.14), NECK)


def draw_cloth(canvas: Canvas, look: Look, body: Body) -> None:
    """Clothes: folds, light, neckline trim, collar or lapels, sometimes stripes."""
    b, r, unit = body, look.rng, body.unit
    d, w = b.dip, b.open
    left, right = b.shoulder(-1, 0.025), b.shoulder(1, 0.025)
    if b.bare:
        edge = min(max((0.965 - b.y) / unit, 0.4), 1.0)
        neckline = [(-1.0, edge - 0.12), (-0.5, edge), (0, edge + 0.06), (0.5, edge), (1.0, edge - 0.12)]
        left, right = left[4:], right[4:]
    elif b.kind in ("vee", "shirt", "jacket"):
        neckline = [(-w, -0.06), (-w * 0.55, d * 0.42), (-0.03, d), (0.03, d), (w * 0.55, d * 0.42), (w, -0.06)]
    elif b.kind == "high":
        top = min(-0.22, (b.chin - b.y) / unit + 0.05)
        top = max(top, -0.30)
        neckline = [
            (-b.neck * 1.08, top),
            (-b.neck * 0.5, top + 0.09),
            (0, top + 0.12),
            (b.neck * 0.5, top + 0.09),
            (b.neck * 1.08, top),
        ]
    else:
        neckline = [
            (-w, 0.0),
            (-w * 0.72, d * 0.62),
            (-w * 0.3, d * 0.97),
            (w * 0.3, d * 0.97),
            (w * 0.72, d * 0.62),
            (w, 0.0),
        ]
    if not b.bare:
        left = [p for p in left if abs(p[0]) > w + 0.05] if b.kind != "high" else left[1:]
        right = [p for p in right if abs(p[0]) > w + 0.05] if b.kind != "high" else right[1:]
        if b.kind in ("boat", "deep"):
            y0 = float(np.interp(w, [abs(p[0]) for p in b.shoulder(1)[:5]], [p[1] for p in b.shoulder(1)[:5]])) - 0.02
            neckline[0], neckline[-1] = (-w, y0), (w, y0)
    rim = spline(neckline, 5, closed=False)
    outline = np.concatenate([spline(left[::-1], 4, closed=False), rim, spline(right, 4, closed=False)])
    shape = b.at(outline)
    x = (canvas.x - np.float32(b.x)) / np.float32(unit)
    y = (canvas.y - np.float32(b.y)) / np.float32(unit)
    folds = Ripple(r, 4, 0.10, 0.30)(canvas.x, canvas.y * 0.6)
    nx = np.clip(x / 1.5, -1, 1) * 0.75
    light = look.lit(nx, np.full_like(nx, -0.2), np.sqrt(1 - nx * nx - 0.04)) + 0.045 * folds
    color = np.broadcast_to(look.cloth, canvas.image.shape)
    pattern = r.random()
    accent = look.cloth * 0.72 + (0.22 if look.cloth.mean() < 0.6 else 0.0)
    if pattern < 0.30:
        if pattern < 0.18:
            wave = np.sin((y + 0.12 * x * x) * np.float32(r.uniform(24, 36)))
        else:
            wave = np.sin((x + 0.1 * y) * np.float32(r.uniform(22, 34)))
        band = np.clip(2.5 * wave - 0.6, 0, 1)[..., None] * 0.75
        color = color * (1 - band) + accent * band
    dark = look.cloth.mean() < 0.25
    field = look.shade(color, light, 0.05) + (0.03 * np.clip(light - 0.6, 0, 1)[..., None] if dark else 0)
    canvas.fill(shape, field.astype(np.float32), CLOTH)
    trim = np.clip(look.cloth * 0.62, 0, 1) if look.cloth.mean() > 0.3 else np.clip(look.cloth + 0.12, 0, 1)
    clip = canvas.mask(shape)
    if b.kind == "high" and not b.bare:
        canvas.fill(stroke(b.at(np.array(neckline) + (0, 0.16)), 0.04 * unit), trim, alpha=0.5, clip=clip)
        return
    canvas.fill(stroke(b.at(rim[::3]), 0.07 * unit, 0.2), trim, alpha=0.75, clip=clip)
    if b.kind in ("shirt", "jacket") and not b.bare:
        wide = 0.34 if b.kind == "jacket" else 0.22
        low = d + (0.5 if b.kind == "jacket" else 0.12)
        flap_color = np.clip(field * (0.84 if not dark else 1.0) + (0.07 if dark else 0), 0, 1).astype(np.float32)
        for s in (-1, 1):
            flap = [
                (s * (w - 0.06), -0.17),
                (s * (w + 0.12), 0.0),
                (s * (w + wide * 0.7), d * 0.45),
                (s * wide * 0.9, low * 0.82),
                (s * 0.02, low if b.kind == "jacket" else d * 0.98),
                (s * w * 0.5, d * 0.42),
            ]
            shape = b.at(spline(flap, 4))
            canvas.fill(shape, flap_color, CLOTH)
            canvas.fill(stroke(b.at(flap[1:5]), 0.03 * unit), trim, alpha=0.7)
        for k in range(3):
            cx, cy = b.at([(0.0, d + 0.2 + 0.25 * k)])[0]
            canvas.fill(ellipse(cx, cy, 0.03 * unit, 0.03 * unit), trim, alpha=0.9)
