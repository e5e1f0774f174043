"""Hair: outlines for every cut, and one shaded strand texture for all of it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mogle.tiny.portraits.head import Head
from mogle.tiny.portraits.look import Look
from mogle.tiny.portraits.shapes import Array, Canvas, spline

HAIR = 13


class Hair:
    """Outlines (frame coordinates) behind the head (`back`) and before it (`front`), from the geometry stream."""

    def __init__(self, rng: np.random.Generator, a: Mapping[str, str | None], head: Head) -> None:
        self.rng, self.head = rng, head
        self.back: list[Array] = []
        self.front: list[Array] = []
        self.length = a["hair_length"]
        self.wavy = a["hair_texture"] == "wavy"
        self.hat = a["hat"] == "yes"
        self.woman = a["gender"] == "woman"
        self.bangs = a["bangs"] == "yes"
        u = rng.uniform
        self.part = float(rng.choice([-1, 1])) * u(0.0, 0.34)
        self.ear_over = {-1: rng.random() < 0.12, 1: rng.random() < 0.12}  # an ear that shows through the hair
        self.phase = rng.uniform(0, 2 * np.pi, 12)
        self.bump = rng.uniform(0.6, 1.4, 12)
        self.side_vol = u(0.06, 0.32) + (0.06 if self.wavy else 0.0)
        self.top_vol = u(0.08, 0.24) + (0.04 if self.wavy else 0.0)
        self.lopside = rng.normal(0, 0.05)
        self.square = u(0.80, 1.0)
        if self.length == "short":
            big = self.wavy and u() < 0.45
            self.side_vol = u(0.14, 0.38) if big else u(0.03, 0.15)
            self.top_vol = u(0.16, 0.36) if big else u(0.05, 0.24)
        if self.hat:
            self.side_vol, self.top_vol = min(self.side_vol, 0.12), min(self.top_vol, 0.04)
        self.line = u(-0.66, -0.52)
        if self.length == "bald":
            return
        self.cut = "plain"
        if self.length == "short":
            self.cut = str(
                rng.choice(["crop", "crop", "bob", "updo"] if self.woman else ["crop", "crop", "crop", "recede"])
            )
            if self.cut == "bob" and not self.bangs and u() < 0.2:
                self.cut = "crop"
            self._crop()
            if self.cut == "updo" and not self.hat:
                self._bun()
            if self.cut == "bob":
                end = u(0.42, 0.68)
                for s in (-1, 1):
                    self._curtain(s, end + rng.normal(0, 0.03), 0.0, u(-0.02, 0.12))
        else:
            self._long()
        if self.bangs:
            self._fringe()

    def _bumps(self, t: Array) -> Array:
        """Unevenness of an outline along its parameter: slow swells, and curls when wavy."""
        p = self.phase
        slow = 0.022 * np.sin(2 * t + p[0]) + 0.018 * np.sin(3.3 * t + p[1]) + 0.012 * np.sin(5.7 * t + p[2])
        if self.wavy:
            slow = slow + 0.034 * np.abs(np.sin(4.6 * self.bump[0] * t + p[3])) + 0.016 * np.sin(13 * t + p[4])
        return slow

    def outer(self, t: Array) -> Array:
        """Outer silhouette at angle t (0 right, -pi/2 up) in the picture plane of the head."""
        h = self.head
        side = np.maximum(self.side_vol + self.lopside * np.cos(t), 0.03)
        grow = self._bumps(t)
        c, s = np.cos(t), np.sin(t)
        c, s = np.sign(c) * np.abs(c) ** self.square, np.sign(s) * np.abs(s) ** self.square
        x = h.skull_x + (h.skull_rx + side + grow) * c
        y = h.skull_y + (h.skull_ry + self.top_vol + grow + self.lopside * np.cos(2 * t + self.phase[5])) * s
        # Hair never lies inside the far contour of a turned face
        margin, low = 0.02 + 0.35 * self.side_vol, y > -0.92
        x = np.where(low & (c > 0), np.maximum(x, h.edge(1, y) + margin), x)
        x = np.where(low & (c < 0), np.minimum(x, h.edge(-1, y) - margin), x)
        return np.stack([x, y], 1)

    def _hairline(self, n: int = 11) -> Array:
        """Front edge of the hair from the left to the right sideburn, in face coordinates."""
        h, u = self.head, self.rng.uniform
        w = float(h.width(0.0))
        low = u(0.02, 0.3) if not self.woman else u(-0.12, 0.16)
        temple, mid = u(0.66, 0.82), self.line
        peak = u(-0.04, 0.05)
        corner = mid + u(0.0, 0.10)
        if self.bangs:
            corner, temple = mid, 0.82
        elif self.cut == "recede":
            corner, temple, mid = u(-0.80, -0.70), u(0.55, 0.66), u(-0.78, -0.6)
        left = [
            (-w * 1.02, low),
            (-w * 0.93, low + 0.02),
            (-w * 0.92, -0.14),
            (-w * (temple + 0.06), -0.34),
            (-w * temple, corner + 0.12),
            (-w * 0.42, corner - 0.02),
        ]
        right = [
            (w * 0.42, corner - 0.02),
            (w * temple, corner + 0.12 + self.rng.normal(0, 0.02)),
            (w * (temple + 0.06), -0.34),
            (w * 0.92, -0.14),
            (w * 0.93, low + 0.02),
            (w * 1.02, low),
        ]
        line = np.array([*left, (self.part * 0.5, mid + peak), *right])
        line[2:-2] += self.rng.normal(0, 0.016, line[2:-2].shape)
        return line

    def _crop(self) -> None:
        """Hair that ends at the ears: silhouette arc above, hairline below."""
        h = self.head
        line = h.unplane(h.on_face(spline(self._hairline(), 3, closed=False), 0.0))
        for side in (0, -1):  # the ends reach the silhouette of the face
            s = -1 if side == 0 else 1
            line[side, 0] = h.edge(s, line[side, 1]) + s * (
                0.02 if self.length == "long" else min(0.4 * self.side_vol + 0.02, 0.14)
            )
        t = np.linspace(-np.pi + 0.15, -0.15, 26)
        arc = self.outer(t)
        keep = []
        for s, end in ((-1, line[0]), (1, line[-1])):
            y = np.linspace(arc[0 if s < 0 else -1, 1], end[1], 5)[1:-1]
            x = np.linspace(arc[0 if s < 0 else -1, 0], end[0], 5)[1:-1]
            bow = 0.0 if self.length == "long" else s * self.side_vol
            keep.append(np.stack([x + bow * np.array([0.55, 0.75, 0.45]), y], 1))
        outline = np.concatenate([arc, keep[1], line[::-1], keep[0][::-1]])
        self.front.append(h.plane(spline(outline, 2)))

    def _bun(self) -> None:
        """Hair gathered in a bun above or behind."""
        h, u = self.head, self.rng.uniform
        x, y, r = h.skull_x + u(-0.35, 0.35) - 0.3 * h.sin, u(-1.28, -1.05), u(0.2, 0.34)
        if u() < 0.35:  # a pony tail falling behind one side, above the jaw
            s = float(h.near)
            pts = [
                (s * 0.45, -0.9),
                (s * 0.95, -0.75),
                (s * u(1.0, 1.25), -0.2),
                (s * u(0.9, 1.1), u(0.25, 0.5)),
                (s * 0.8, 0.1),
                (s * 0.7, -0.4),
            ]
            self.back.append(h.plane(spline(np.array(pts) + (h.skull_x, 0), 5)))
            return
        t = np.linspace(0, 2 * np.pi, 15, endpoint=False)
        rr = r * (1 + 0.5 * self._bumps(t))
        self.back.append(h.plane(spline(np.stack([x + 1.15 * rr * np.cos(t), y + rr * np.sin(t)], 1), 3)))

    def _fall(self, points: Array) -> Array:
        """Hair below the jaw hangs down the frame, not along the tilted head."""
        p = np.array(points)
        p[:, 0] += np.tan(self.head.roll) * np.maximum(p[:, 1] - 0.5, 0) * 0.85
        return p

    def _edge_out(self, s: int, y: Array, flare: float) -> Array:
        h = self.head
        base = h.skull_x + s * (h.skull_rx + max(self.side_vol + s * self.lopside, 0.03))
        wave = 0.025 * np.sin(3.1 * y + self.phase[6 + (s > 0)])
        if self.wavy:
            wave = wave + 0.055 * np.sin(7.0 * self.bump[1] * y + self.phase[8 + (s > 0)])
        return base + s * (flare * np.maximum(y, 0) + wave + 0.05 * np.sin(np.clip(y, 0, 1) * 3) * self.bump[2])

    def _curtain(
        self, s: int, end: float, sweep: float, cover: float, flare: float = 0.0, inner_end: float = 0.42
    ) -> None:
        """One half of parted hair in front of the head, from the parting down one side of the face to y = `end`.

        `sweep` in [0, 1] draws it across brow and eye, `cover` is how far it overlaps the cheek.
        """
        h = self.head
        px = self.part
        top = h.unplane(h.on_face([(px, self.line - 0.02)]))[0]
        e = [float(h.edge(s, v)) for v in (-0.35, -0.1, 0.2, 0.55)]
        mid = 0.5 * (top[0] + e[0])
        c = cover
        ys = np.array([-0.42 + 0.14 * sweep, -0.12, 0.2, 0.55])
        xs = np.array(
            [
                mid + s * (0.10 - 0.12 * sweep),
                e[1] - s * (c + 0.08 + 0.30 * sweep),
                e[2] - s * (c + 0.34 * sweep),
                e[3] - s * (c + 0.16 * sweep),
            ]
        )
        xs += self.rng.normal(0, 0.018, 4)
        if self.wavy:
            xs += s * 0.03 * np.sin(8 * ys + self.phase[10])
        inner = [top, (top[0] + s * 0.12, self.line + 0.04 + 0.05 * sweep), *zip(xs, ys, strict=True)]
        low = [v for v in (0.85, 1.15, 1.5, 1.9) if v < end - 0.15]
        for v in low:
            inner.append((s * inner_end + 0.35 * h.sin * (v < 1) + 0.03 * np.sin(5 * v + self.phase[11]), v))
        if len(low) == 0:
            inner = [p for p in inner if p[1] < end - 0.04]
        edge = np.array(inner, np.float64)
        y_out = np.linspace(end, -0.3, max(int(6 + end * 3), 6))
        out = np.stack([self._edge_out(s, y_out, flare), y_out], 1)
        if end < 0.8:
            out[0, 0] -= s * 0.08
        x0, x1 = edge[-1, 0], out[0, 0]
        k = np.linspace(0, 1, 5)[1:-1]
        tips = np.stack([x0 + (x1 - x0) * k, end + 0.03 + self.rng.normal(0, 0.04, 3)], 1)
        t = np.linspace(-0.25, -np.pi / 2 - 0.1, 12) if s > 0 else np.linspace(-np.pi + 0.25, -np.pi / 2 + 0.1, 12)
        arc = self.outer(t)
        arc = arc[(arc[:, 0] - top[0]) * s > -0.12]
        outline = np.concatenate([edge, tips, out, arc])
        self.front.append(h.plane(self._fall(spline(outline, 3))))

    def _long(self) -> None:
        """Long hair: a mass behind the head, and a curtain on each side, in front of or behind the shoulder."""
        h, u, rng = self.head, self.rng.uniform, self.rng
        sweep_side = -int(np.sign(self.part)) or 1
        if rng.random() < 0.25:  # all the volume on one side
            self.lopside = sweep_side * u(0.1, 0.3)
        flare = u(-0.06, 0.16) + (0.05 if self.wavy else 0)
        ends = {s: u(1.22, 1.5) if rng.random() < 0.4 else u(1.5, 2.3) for s in (-1, 1)}
        y = np.linspace(-0.3, 1, 7)
        sides = []
        for s in (-1, 1):
            ys = np.concatenate([y, np.linspace(1, ends[s], 4)[1:]])
            sides.append(np.stack([self._edge_out(s, ys, flare), ys], 1))
        arc = self.outer(np.linspace(-np.pi + 0.25, -0.25, 22))
        bottom = np.array([(x, 0.5 * (ends[-1] + ends[1]) + rng.normal(0, 0.05)) for x in (0.3, -0.3)])
        back = np.concatenate([arc, sides[1], bottom, sides[0][::-1]])
        self.back.append(h.plane(self._fall(spline(back, 3))))
        style = rng.random()
        for s in (-1, 1):
            sweep = 0.0
            cover = u(-0.03, 0.13)
            if not self.hat and not self.bangs and s == sweep_side and style < 0.36:
                sweep = u(0.35, 1.0) * (1.0 if s == h.near else 1 - 1.1 * abs(h.sin))
            tucked = style > 0.72 or (style > 0.55 and s == -sweep_side)
            if self.hat:
                sweep = 0.0
            if tucked:
                continue
            forward = rng.random() < 0.6
            self._curtain(
                s, ends[s] if forward else u(0.75, 1.0), sweep, cover, flare, u(0.34, 0.58) if forward else u(0.5, 0.62)
            )
        self._crop()

    def _fringe(self) -> None:
        """Hair over the forehead with an uneven lower edge."""
        h, u, rng = self.head, self.rng.uniform, self.rng
        w = float(h.width(-0.3))
        slope, level = u(-0.10, 0.10), u(-0.34, -0.20)
        x = np.linspace(-0.95, 0.95, 15) + rng.uniform(-0.03, 0.03, 15)
        arch = u(-0.02, 0.14)
        y = level + slope * x + arch * x * x + rng.normal(0, 0.016, 15)
        y[1:-1:2] -= u(0.0, 0.10) * rng.uniform(0.3, 1, 7)  # gaps between locks
        low = np.stack([x * w, y], 1)
        top = np.stack([np.linspace(0.93, -0.93, 7) * w, np.full(7, self.line - 0.30)], 1)
        side = np.array([(w, -0.42), (w, -0.58), (0.96 * w, -0.74)])  # along the temple, so that no gap opens there
        pts = np.concatenate([spline(low, 2, closed=False), side, top, side[::-1] * (-1, 1)])
        flat = h.unplane(h.on_face(pts, 0.03))
        flat[:, 0] += 0.035 * np.sign(pts[:, 0]) * (np.abs(pts[:, 0]) > 0.85 * w)
        self.front.append(h.plane(flat))


def hair_field(canvas: Canvas, head: Head, look: Look, hair: Hair, grid: tuple[Array, Array]) -> Array:
    """Strands (size, size, 3): stripes along nested copies of the silhouette, a gloss band, and the light.

    With s = (X - parting) / half-width(Y), lines of constant s start at the parting and follow the outline down;
    stripes are a few sinusoids in s, bent by waves for wavy hair.
    """
    x, y = grid
    r = look.rng
    t = np.clip((y + 1.15) / 1.1, 0.0, 1)
    wide = np.float32(head.skull_rx + 0.1) * (0.12 + 0.88 * np.sqrt(1 - (1 - t) ** 2))
    apex = np.float32(hair.part * 0.8 + 0.36 * head.sin)
    px = apex * (1 - 0.8 * t) + np.float32(head.skull_x) * t
    s = (x - px) / wide
    if hair.wavy:
        k = r.uniform(6.5, 9)
        s = s + np.float32(0.085) * np.sin(np.float32(k) * y + 2.2 * s + np.float32(r.uniform(0, 6)))
    ph = r.uniform(0, 6.28, 6).astype(np.float32)
    f = r.uniform(0.9, 1.12, 4).astype(np.float32)
    drift = 0.8 * y
    strands = (
        0.42 * np.sin(30 * f[0] * s + ph[0] + drift)
        + 0.5 * np.sin(19 * f[1] * s + ph[1] - 1.5 * drift)
        + 0.42 * np.sin(11 * f[2] * s + ph[2])
        + 0.25 * np.sin(41 * f[3] * s + ph[3] + 2 * drift)
    )
    strands *= np.clip(wide * 1.8, 0.2, 1)
    if hair.wavy:
        curls = np.sin(13 * x + 2.0 * np.sin(9 * y + ph[4]) + ph[5]) * np.sin(12 * y + 2.0 * np.sin(8 * x + ph[2]))
        strands = 0.62 * strands + 0.75 * curls
    nx = np.clip((x - np.float32(head.skull_x)) / np.float32(head.skull_rx + 0.15), -1, 1) * 0.85
    ny = np.clip((y + 0.35) / 0.95, -1, 0.35) * 0.75
    nz = np.sqrt(np.maximum(1 - nx * nx - ny * ny, 0.05))
    light = look.lit(nx, ny, nz, 0.50)
    gloss = np.exp(-(((y + 0.66 - 0.22 * nx * nx - 0.1 * look.side * nx) / 0.15) ** 2)) * np.clip(light, 0, 1.2)
    gloss = gloss + 0.5 * np.exp(-(((y - 0.45) / 0.22) ** 2)) * np.clip(light, 0, 1.2)
    tone = light * (1 + 0.17 * strands) + 0.06 * strands
    shine = gloss * (0.55 + 0.45 * strands)
    field = look.hair * tone[..., None] + np.clip(shine, 0, 1)[..., None] * (0.20 * look.hair + 0.045)
    root = look.hair * np.array([0.9, 0.86, 0.82], np.float32)
    depth = np.clip(1 - light, 0, 1)[..., None]
    return np.clip(field * (1 - 0.3 * depth) + 0.3 * depth * root * light[..., None], 0, 1).astype(np.float32)
