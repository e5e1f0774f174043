"""Hats, glasses, earrings, necklaces."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from mogle.tiny.portraits.head import Head
from mogle.tiny.portraits.look import Look
from mogle.tiny.portraits.shapes import Array, Canvas, Ripple, ellipse, rgb, spline, stroke
from mogle.tiny.portraits.wear import Body

EYE_G, HAT, EAR_R, NECK_L = 3, 14, 15, 16


class Extras:
    """Geometry of hat, glasses, earrings and necklace, from the geometry stream."""

    def __init__(self, rng: np.random.Generator, a: Mapping[str, str | None], head: Head) -> None:
        u = rng.uniform
        self.hat = str(rng.choice(["beanie", "cap", "cap", "brim", "bucket"])) if a["hat"] == "yes" else ""
        # A cap may sit askew, mostly further round than the face
        self.hat_turn = math.copysign(abs(rng.normal(0.15, 0.35)), head.yaw if u() < 0.75 else -head.yaw)
        self.visor_fall = u(0.1, 0.6)
        self.hat_h, self.hat_line, self.hat_r = u(0.12, 0.34), u(-0.52, -0.38), u(0.06, 0.13)
        self.hat_line -= {"bucket": 0.14, "cap": 0.06}.get(self.hat, 0.0)
        self.brim = u(0.38, 0.6)
        self.tilt = rng.normal(0, 0.05)
        self.lens = str(rng.choice(["round", "square", "pilot"]))
        self.lens_w, self.lens_h = u(0.21, 0.265), u(0.15, 0.20)
        self.frame = u(0.032, 0.055)
        self.ring = str(rng.choice(["stud", "hoop", "drop", "drop"]))
        self.ring_r = u(0.075, 0.12)
        self.chain = str(rng.choice(["beads", "chain", "pendant"]))
        self.chain_y, self.chain_w = u(0.02, 0.3), u(0.9, 1.05)


def draw_glasses(canvas: Canvas, head: Head, look: Look, ex: Extras, f_eye: float, dark: bool) -> None:
    """Lenses, frame, bridge and temples in front of the eyes; the label covers all of it."""
    unit = head.unit
    r = look.rng
    tone = ((24, 22, 24), (70, 40, 24), (120, 24, 30), (170, 140, 60), (40, 50, 90))[int(r.integers(5))]
    color = vary_metal(rgb(*tone))
    t = np.linspace(0, 2 * np.pi, 28, endpoint=False)
    power = {"round": 1.0, "square": 0.55, "pilot": 0.8}[ex.lens]
    cx = np.sign(np.cos(t)) * np.abs(np.cos(t)) ** power
    cy = np.sign(np.sin(t)) * np.abs(np.sin(t)) ** power
    if ex.lens == "pilot":
        cy = np.where(cy > 0, cy * 1.15, cy * 0.85)
    base = 0.78

    def at(x: Any, y: Any) -> Array:
        x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
        return head.project(np.stack([x, y, base - 0.5 * x * x], 1))

    reach = f_eye + 0.02
    arm = np.array([(head.near * (reach + ex.lens_w), -0.02), (head.near * float(head.width(0.0)), -0.05)])
    z = np.array([base - 0.5 * arm[0, 0] ** 2, 0.02])
    temple = head.project(np.column_stack([arm, z]))
    canvas.fill(stroke(np.stack([temple[0], temple.mean(0), temple[1]]), 0.055 * unit, 0), color, EYE_G)
    rings = []
    for s in (-1, 1):
        x = s * reach + cx * ex.lens_w
        y = 0.03 + cy * ex.lens_h
        outer = at(x, y)
        inner = at(s * reach + cx * (ex.lens_w - ex.frame), 0.03 + cy * (ex.lens_h - ex.frame))
        canvas.fill(outer, None, EYE_G)
        clip = canvas.mask(inner)
        if dark:
            g = np.clip((canvas.y - head.y) / unit * 1.6 + 0.45, 0, 1)[..., None]
            glass = rgb(14, 14, 20) * (1 - g) + (rgb(54, 50, 56)) * g
            canvas.lay(canvas.whole, clip, glass.astype(np.float32), None, 0.96)
        else:
            canvas.lay(canvas.whole, clip, rgb(236, 244, 250), None, 0.10)
        glare = at(
            s * reach + np.array([-0.5, -0.25, -0.55, -0.8]) * ex.lens_w,
            0.03 + np.array([-0.8, -0.8, 0.8, 0.8]) * ex.lens_h,
        )
        canvas.fill(glare, rgb(255, 255, 255), alpha=0.16 if dark else 0.26, clip=clip)
        rings.append(np.clip(canvas.mask(outer) - clip, 0, 1))
    bridge = at([-0.09, 0.0, 0.09], [0.0, -0.035, 0.0])
    canvas.fill(stroke(bridge, 0.055 * unit, 0), color, EYE_G)
    canvas.lay(canvas.whole, np.maximum(*rings), color)


def vary_metal(color: Array) -> Array:
    """Frames keep a little light even when black."""
    return np.clip(color + 0.02, 0, 1).astype(np.float32)


def draw_hat(canvas: Canvas, head: Head, look: Look, ex: Extras, face: Array) -> None:
    """Beanie, cap, brimmed hat or bucket hat on the skull."""
    unit, r = head.unit, look.rng
    gx, gy = head.grid(canvas.x, canvas.y)
    line = ex.hat_line
    rx, top = head.skull_rx + ex.hat_r, 0.74 + ex.hat_h
    cx = head.skull_x
    t = np.linspace(-np.pi - 0.05, 0.05, 26)
    if ex.hat == "brim":
        dome = np.sign(np.cos(t)) * np.abs(np.cos(t)) ** 0.7
        rise = np.sign(np.sin(t)) * np.abs(np.sin(t)) ** 0.75
    else:
        dome, rise = np.cos(t), np.sin(t)
    low = line + 0.02
    crown = np.stack([cx + dome * rx * (0.94 if ex.hat == "brim" else 1.0), low + rise * (top + 0.30 + line)], 1)
    crown[:, 0] += ex.tilt * (crown[:, 1] - low) * 2
    if ex.hat == "brim":
        crown[:, 1] += 0.07 * np.exp(-(((crown[:, 0] - cx) / 0.2) ** 2)) * (crown[:, 1] < -0.9)
    sag = 0.10 + 0.35 * max(head.nod, 0)
    k = np.linspace(1, -1, 11)[1:-1]
    shift = 0.55 * head.sin
    bottom = np.stack([cx + k * rx, low + sag * (1 - k * k) * (0.3 + 0.7 * (1 - np.abs(k - shift))) * 0.9], 1)
    crown = np.concatenate([crown, bottom])
    nx = np.clip((gx - np.float32(cx)) / np.float32(rx), -1, 1) * 0.9
    ny = np.clip((gy + 0.35) / 0.9, -1, 0.2) * 0.75
    light = look.lit(nx, ny, np.sqrt(np.maximum(1 - nx * nx - ny * ny, 0.06)), 0.5)
    light = light + 0.03 * Ripple(r, 4, 0.08, 0.25)(canvas.x, canvas.y)
    lift = 0.035 if look.hat.mean() < 0.25 else 0.0
    pleat = nx / np.sqrt(np.maximum(1 - 0.7 * ny * ny, 0.2))
    if ex.hat == "beanie":
        rib = np.sin(pleat * np.float32(r.uniform(20, 26)))
        light = light * (1 + 0.09 * rib) + lift * rib
    field = (look.shade(look.hat, light, 0.06) + lift * light[..., None]).astype(np.float32)
    trim = np.clip(look.hat * 0.6, 0, 1) if not lift else look.hat + 0.10
    shadow = canvas.blur(canvas.shift(canvas.mask(head.plane(crown)), -0.02 * look.side, 0.06 * unit / 0.36), 0.015)
    canvas.lay(canvas.whole, shadow * face, look.skin * np.array([0.4, 0.28, 0.26], np.float32), None, 0.5)
    if ex.hat in ("brim", "bucket"):
        wide = rx + (ex.brim if ex.hat == "brim" else 0.16)
        drop = 0.0 if ex.hat == "brim" else 0.16
        a = np.linspace(0, 2 * np.pi, 30, endpoint=False)
        curl = (0.06 if ex.hat == "brim" else -0.10) * np.cos(a) ** 2
        by = low + 0.04 + drop * 0.4
        brim = np.stack(
            [cx + shift * 0.25 + wide * np.cos(a), by + (0.17 + drop) * np.sin(a) - curl + ex.tilt * np.cos(a)], 1
        )
        under = np.clip(field * 0.62, 0, 1)
        canvas.fill(head.plane(spline(brim, 2)), under if ex.hat == "brim" else field, HAT)
    canvas.fill(head.plane(spline(crown, 2)), field, HAT)
    clip = canvas.mask(head.plane(spline(crown, 2)))
    if ex.hat == "cap":
        turn = ex.hat_turn + 1.1 * head.yaw
        a = np.linspace(-1.2, 1.2, 15)

        def ring(forward: float, drop: float) -> Array:
            x = rx * np.sin(a) * (0.97 - 0.12 * forward)
            z = 0.82 * np.cos(a) + forward * np.clip(np.cos(a * 1.3), 0, 1) ** 0.5 - 0.05
            px, pz = x * math.cos(turn) + z * math.sin(turn), z * math.cos(turn) - x * math.sin(turn)
            fall = (ex.visor_fall + head.nod) * np.maximum(pz - 0.75, -0.4) + drop + 0.16 * np.sin(a) ** 2 * forward
            return np.stack([cx + px, line - 0.03 + fall], 1)

        near, far = ring(0.0, 0.03), ring(ex.brim * 1.25, 0.05)
        visor = np.concatenate([spline(near, 2, closed=False), spline(far[::-1], 2, closed=False)])
        edge = np.clip(field * 0.70 + lift, 0, 1)
        canvas.fill(head.plane(visor), edge, HAT)
        canvas.fill(head.plane(stroke(far[2:-2:2], 0.04, 0.3)), np.clip(look.hat * 1.15 + 0.05, 0, 1), alpha=0.6)
        canvas.fill(head.plane(stroke(near[::2], 0.03)), trim, alpha=0.7, clip=clip)
        for s in (-0.4, 0.0, 0.4):
            seam = [
                (cx + s * 0.2, low - top - 0.2),
                (cx + s * rx + shift * 0.4, -0.85),
                (cx + s * rx * 1.5 + shift * 0.5, low),
            ]
            canvas.fill(head.plane(stroke(seam, 0.022)), trim, alpha=0.45, clip=clip)
    elif ex.hat == "beanie":
        fold = np.concatenate([bottom + (0, 0.02), (bottom - (0, 0.20))[::-1]])
        fold[:, 0] = cx + (fold[:, 0] - cx) * 1.12
        canvas.fill(head.plane(spline(fold, 2)), np.clip(field * 1.1 + lift, 0, 1), HAT)
        canvas.fill(head.plane(stroke(bottom[::2] - (0, 0.19), 0.035)), trim, alpha=0.6, clip=clip)
    else:
        band = bottom - (0, 0.09)
        canvas.fill(head.plane(stroke(band[::2], 0.13 if ex.hat == "brim" else 0.04, 0.1)), trim, alpha=0.9, clip=clip)


def draw_earrings(canvas: Canvas, head: Head, look: Look, ex: Extras, visible: dict[int, bool]) -> None:
    """A stud, hoop or drop at each lobe in sight; the side turned to the viewer always has one."""
    unit, r = head.unit, ex.ring_r
    for s in (-1, 1):
        if not visible[s]:
            continue
        base = head.unplane(head.project([(s * float(head.width(0.1)) * 0.98, 0.36, -0.03)]))[0]
        out = max(0.04, 0.06 + 0.10 * head.sin * -s)
        x, y = base[0] + s * out, base[1] + 0.04
        metal = np.clip(look.metal * (1 + 0.1 * look.side * s), 0, 1)
        deep = metal * np.float32(0.55)
        px, py = head.plane([(x, y)])[0]
        if ex.ring == "stud":
            shapes = [ellipse(px, py, r * 0.8 * unit, r * 0.8 * unit)]
        elif ex.ring == "hoop":
            shapes = [ellipse(px, py + 1.25 * r * unit, r * 0.85 * unit, 1.45 * r * unit)]
        else:
            shapes = [
                ellipse(px, py, r * 0.42 * unit, r * 0.42 * unit, n=12),
                spline(
                    np.array([px, py])
                    + r * unit * np.array([(0, 0.2), (0.55, 1.4), (0.75, 2.4), (0, 3.2), (-0.75, 2.4), (-0.55, 1.4)]),
                    4,
                ),
            ]
        for shape in shapes:
            c = shape.mean(0)
            canvas.fill(shape, deep, EAR_R)
            canvas.fill(c + (shape - c) * 0.72, metal)
            if ex.ring == "hoop":
                canvas.fill(c + (shape - c) * 0.45, deep, alpha=0.8)
            canvas.glow(
                c[0] - 0.25 * r * unit,
                c[1] - 0.3 * r * unit,
                0.35 * r * unit,
                0.35 * r * unit,
                rgb(255, 255, 250),
                0.85,
            )


def draw_necklace(canvas: Canvas, look: Look, body: Body, ex: Extras) -> None:
    """Beads, a chain or a pendant around the base of the neck."""
    b, unit = body, body.unit
    room = (0.93 - b.y) / unit
    sag = min(ex.chain_y + 0.28, max(room, 0.10))
    w = b.neck * ex.chain_w
    k = np.linspace(-1, 1, 15)
    line = np.stack([k * w, -0.10 + sag * (1 - np.abs(k) ** 2.2) + 0.03], 1)
    line[:, 1] = np.minimum(line[:, 1], room + 0.02)
    light = np.clip(look.metal * 1.0, 0, 1)
    if ex.chain == "beads":
        pearl = rgb(244, 238, 226) if look.metal[2] > 0.5 else rgb(210, 60, 70)
        path = spline(line, 3, closed=False)
        canvas.fill(stroke(b.at(line), 0.085 * unit, 0), pearl * np.float32(0.6), NECK_L)
        for p in b.at(path[1::3]):
            canvas.fill(ellipse(p[0], p[1], 0.048 * unit, 0.048 * unit, n=12), pearl, NECK_L)
            canvas.glow(p[0] - 0.012 * unit, p[1] - 0.015 * unit, 0.02 * unit, 0.02 * unit, rgb(255, 255, 255), 0.8)
        return
    thick = 0.065 if ex.chain == "chain" else 0.05
    canvas.fill(stroke(b.at(line), (thick + 0.02) * unit, 0), look.metal * np.float32(0.5), NECK_L)
    canvas.fill(stroke(b.at(line - (0, 0.008)), thick * 0.6 * unit, 0), light)
    if ex.chain == "pendant":
        px, py = b.at([line[7] + (0, 0.08)])[0]
        canvas.fill(ellipse(px, py, 0.075 * unit, 0.10 * unit), look.metal * np.float32(0.55), NECK_L)
        canvas.fill(
            ellipse(px, py, 0.05 * unit, 0.07 * unit), rgb(60, 90, 190) if look.metal[2] > 0.5 else rgb(200, 40, 60)
        )
        canvas.glow(px - 0.02 * unit, py - 0.03 * unit, 0.025 * unit, 0.025 * unit, rgb(255, 255, 255), 0.8)
