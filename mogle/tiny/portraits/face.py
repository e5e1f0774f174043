"""Skin and features of the face: shading, eyes, brows, nose, mouth, wrinkles, beard, make-up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from mogle.tiny.portraits.head import Head
from mogle.tiny.portraits.look import Look
from mogle.tiny.portraits.shapes import Array, Canvas, Ripple, rgb, spline, stroke

SKIN, NOSE, L_EYE, R_EYE, L_BROW, R_BROW, L_EAR, R_EAR, MOUTH, U_LIP, L_LIP = 1, 2, 4, 5, 6, 7, 8, 9, 10, 11, 12

# Relief of the face in head units: x, y, lift over the surface, radii, height. x != 0 stands for both sides.
RELIEF = (
    (0.0, 0.16, 0.08, 0.085, 0.27, 0.075),
    (0.0, 0.42, 0.2, 0.11, 0.10, 0.10),
    (0.13, 0.46, 0.1, 0.06, 0.06, 0.03),
    (0.31, 0.0, 0.0, 0.19, 0.12, -0.055),
    (0.30, -0.2, 0.0, 0.22, 0.08, 0.03),
    (0.40, 0.32, 0.0, 0.2, 0.17, 0.05),
    (0.0, 0.89, 0.03, 0.17, 0.11, 0.045),
    (0.0, 0.68, 0.03, 0.28, 0.15, 0.04),
    (0.0, -0.46, 0.0, 0.42, 0.24, 0.05),
    (0.0, 0.80, 0.03, 0.20, 0.035, -0.016),
)


class Features:
    """Placement of eyes, brows, nose and mouth; drawn from the geometry stream, before any hair is made."""

    def __init__(self, rng: np.random.Generator, a: Mapping[str, str | None], head: Head) -> None:
        woman = a["gender"] == "woman"
        self.woman = woman
        smile, is_open = a["smiling"] == "yes", a["mouth_open"] == "yes"
        u = rng.uniform
        self.eye_x, self.eye_w = u(0.29, 0.33) * head.half / 0.67, u(0.135, 0.16)
        self.eye_h = (u(0.060, 0.085) if woman else u(0.050, 0.072)) * (0.9 if smile else 1.0)
        self.eye_tilt = u(-0.01, 0.035)
        self.gaze = (u(-0.035, 0.035), u(-0.012, 0.012))
        self.brow_y = u(-0.21, -0.145)
        self.brow_t = u(0.034, 0.048) if woman else u(0.058, 0.078)
        self.brow_arch, self.brow_slope = u(0.02, 0.06), u(-0.02, 0.035)
        self.nose_y, self.nose_w = u(0.45, 0.53), u(0.155, 0.195) + (0 if woman else 0.015)
        self.nose_top, self.bridge = u(-0.05, 0.03), u(0.062, 0.085)
        self.mouth_y = np.clip(self.nose_y + u(0.18, 0.24), 0, 0.74)
        self.mouth_w = u(0.27, 0.325) if smile else u(0.20, 0.255)
        self.curl = -u(0.06, 0.09) if smile else u(-0.004, 0.026)
        self.gap = u(0.075, 0.14) if is_open else 0.0
        full = u(0.9, 1.25) if woman else u(0.65, 1.0)
        self.upper, self.lower = 0.062 * full * (0.9 if smile else 1), 0.088 * full
        self.lopsided = rng.normal(0, 0.012, 8)  # left and right never agree
        self.ear_h, self.ear_out = u(0.20, 0.26), u(0.08, 0.15)

    def eye(self, side: int) -> tuple[float, float]:
        return side * self.eye_x, float(self.lopsided[side])


def skin_field(canvas: Canvas, head: Head, look: Look, f: Features, grid: tuple[Array, Array]) -> Array:
    """Shaded skin of the face (size, size, 3): head curvature plus the gradient of the relief, in one light."""
    x, y = grid
    left = np.interp(y, head.edges[:, 0], head.edges[:, 1]).astype(np.float32)
    right = np.interp(y, head.edges[:, 0], head.edges[:, 2]).astype(np.float32)
    u = np.clip((2 * x - left - right) / np.maximum(right - left, 0.3), -1.1, 1.1)
    nx = np.float32(0.9) * u * (0.45 + 0.55 * u * u) + np.float32(0.45 * head.sin) * (1 - u * u)
    v = np.clip(y - 0.15, -1.2, 1.0)
    ny = np.float32(0.55) * v * (0.4 + 0.6 * np.abs(v)) + np.float32(head.nod)
    strength = {"young": 0.95, "middle-aged": 1.1, "elderly": 1.3}[look.age]
    for bx, by, lift, rx, ry, height in RELIEF:
        if by > 0.6 and bx == 0:
            by = by + (f.mouth_y - 0.68)
        if 0.4 < by < 0.5:
            by = by + (f.nose_y - 0.49)
        for s in (1, -1) if bx else (1,):
            spot = head.on_face([(s * bx, by)], lift)
            cx, cy = head.unplane(spot)[0].tolist()
            window = canvas.window(float(spot[0, 0]), float(spot[0, 1]), 2.3 * max(rx, ry) * head.unit)
            if window is None:
                continue
            dx, dy = (x[window] - cx) / rx, (y[window] - cy) / ry
            g = np.exp(-dx * dx - dy * dy) * (2 * height * strength)
            nx[window] += g * dx / rx
            ny[window] += g * dy / ry
    norm = 1 / np.sqrt(nx * nx + ny * ny + np.float32(0.75))
    nx, ny, nz = nx * norm, ny * norm, np.float32(0.866) * norm
    light = look.lit(nx, ny, nz)
    field = look.shade(look.skin, light)
    half = look.light + np.array([0, 0, 1], np.float32)
    half /= np.linalg.norm(half)
    gleam = np.maximum(nx * half[0] + ny * half[1] + nz * half[2], 0) ** 22
    field += gleam[..., None] * (0.10 if look.tone == "dark" else 0.085)
    blotch = Ripple(look.rng, 5, 0.08, 0.3)(canvas.x, canvas.y)
    field *= 1 + blotch[..., None] * np.array([0.006, 0.011, 0.011], np.float32)
    return np.clip(field, 0, 1)


def draw_ear(canvas: Canvas, head: Head, look: Look, f: Features, side: int) -> Array:
    """One ear; returns the outline (it stays behind the face, so on the far side it may be hidden)."""
    turn = head.sin * -side  # > 0: this side faces the viewer
    out = max(f.ear_out + 0.13 * turn, 0.03)
    mid = 0.16 + f.lopsided[side] * 2
    z = -0.04
    w = float(head.width(0.1))
    base = head.unplane(head.project([(side * w * 0.96, mid, z)]))[0]
    h = f.ear_h
    shape = np.array(
        [
            (-0.10, -0.75),
            (0.25, -1.05),
            (0.8, -0.98),
            (1.05, -0.55),
            (0.92, 0.0),
            (0.6, 0.45),
            (0.42, 0.9),
            (0.1, 1.02),
            (-0.12, 0.7),
            (-0.2, 0.0),
        ]
    )
    pts = base + shape * (side * out, h)
    outline = head.plane(spline(pts, 4))
    bright = 1.0 + 0.16 * look.side * side * look.contrast
    color = np.clip(look.skin * bright * np.array([0.98, 0.90, 0.88]), 0, 1).astype(np.float32)
    canvas.fill(outline, color, L_EAR if side > 0 else R_EAR)
    inner = base + shape * (side * out * 0.55, h * 0.62) + (side * out * 0.2, -0.02)
    canvas.fill(head.plane(spline(inner, 4)), color * np.float32(0.72), alpha=0.75)
    rim = base + shape[1:6] * (side * out * 0.8, h * 0.84) + (side * out * 0.06, 0)
    canvas.fill(head.plane(stroke(rim, 0.035)), np.minimum(color * 1.12, 1), alpha=0.6)
    return outline


def draw_nose(canvas: Canvas, head: Head, look: Look, f: Features) -> None:
    """Nostrils and the shadow under the tip; the label is a bell from between the eyes to the nostrils."""
    w, b, ny = f.nose_w, f.bridge, f.nose_y
    a1, a2 = f.lopsided[:2] * 0.6
    bell = [
        (-b, f.nose_top, 0.05),
        (-b * 0.95, 0.16, 0.07),
        (-w * 0.62, ny * 0.64, 0.08),
        (-w - a1, ny - 0.05, 0.05),
        (-w * 0.86, ny + 0.015, 0.04),
        (-w * 0.4, ny + 0.03, 0.12),
        (0, ny + 0.05, 0.15),
        (w * 0.4, ny + 0.03, 0.12),
        (w * 0.86, ny + 0.015, 0.04),
        (w + a2, ny - 0.05, 0.05),
        (w * 0.62, ny * 0.64, 0.08),
        (b * 0.95, 0.16, 0.07),
        (b, f.nose_top, 0.05),
    ]
    pts = np.array(bell)
    z = head.surface(pts[:, 0], pts[:, 1]) + pts[:, 2]
    z[-1] = z[0]
    outline = head.project(np.column_stack([pts[:, :2], z]))
    smooth = np.concatenate([spline(outline, 4, closed=False)])
    canvas.fill(smooth, None, NOSE)
    dark = look.skin * np.array([0.55, 0.42, 0.40], np.float32)
    unit = head.unit
    (tx, ty), (ux, uy) = head.on_face([(0, ny + 0.045), (0, ny + 0.1)], 0.12)
    canvas.glow(ux, uy, 0.15 * unit, 0.045 * unit, dark, 0.32, angle=head.roll)
    if look.side:  # cast shadow on the side away from the light
        sx, sy = head.on_face([(-look.side * w * 0.95, ny - 0.12)], 0.02)[0]
        canvas.glow(sx, sy, 0.07 * unit, 0.2 * unit, dark, 0.42, angle=head.roll)
    for s in (-1, 1):
        px, py = head.on_face([(s * w * 0.48, ny + 0.012)], 0.1)[0]
        canvas.glow(px, py, 0.05 * unit, 0.026 * unit, dark * np.float32(0.5), 0.85, angle=head.roll + s * 0.3)
        wing = [(s * w * 0.92, ny - 0.10), (s * w * 1.06, ny - 0.045), (s * w * 0.92, ny + 0.012)]
        canvas.fill(stroke(head.on_face(wing, 0.05), 0.022 * unit), dark, alpha=0.42)


def eye_outlines(head: Head, f: Features, side: int) -> dict[str, Array]:
    """Every outline and anchor of one eye and brow in the frame, from one projection."""
    ex, ey = f.eye(side)
    w, h, tilt = f.eye_w, f.eye_h * (1 + f.lopsided[side + 3] * 3), f.eye_tilt
    ix, iy, r = f.gaze[0] * side, f.gaze[1] - 0.12 * h, 0.074
    ring = np.linspace(0, 2 * np.pi, 20, endpoint=False)
    disc = np.stack([np.cos(ring), np.sin(ring)], 1)
    lid = [(-w, 0.022), (-0.62 * w, -0.56 * h), (-0.1 * w, -h), (0.45 * w, -0.80 * h), (w, -tilt)]
    low = [(0.55 * w, 0.42 * h), (0.0, 0.60 * h), (-0.55 * w, 0.46 * h)]
    by, t, arch, slope = f.brow_y, f.brow_t, f.brow_arch, f.brow_slope
    bx = np.array([-0.18, -0.05, 0.08, 0.18, 0.25])
    mid = by + np.array([slope * 0.8, -arch * 0.75, -arch, -arch * 0.4, arch * 0.9])
    half = t * np.array([0.42, 0.56, 0.5, 0.34, 0.05])
    brow = np.concatenate([np.stack([bx, mid - half], 1), np.stack([bx, mid + half], 1)[::-1]])
    local: dict[str, Any] = {  # x runs outwards from the eye's centre
        "almond": spline(lid + low, 5),
        "center": [(0, -0.01)],
        "upper": [(0.03, -h - 0.035)],
        "under": [(0.02, 0.62 * h)],
        "fold": [
            (-w * 0.95, -0.02),
            (-0.55 * w, -h - 0.015),
            (0.05 * w, -h - 0.045),
            (0.6 * w, -h - 0.005),
            (w * 1.08, -0.035),
        ],
        "rim": disc * r + (ix, iy),
        "iris": disc * (r * 0.8) + (ix, iy),
        "pupil": disc * (r * 0.42) + (ix, iy),
        "glint": [(ix, iy + r * 0.5)],
        "shade": spline([*lid, (0.45 * w, -0.30 * h), (-0.1 * w, -0.42 * h), (-0.6 * w, -0.2 * h)], 4),
        "catch": disc * 0.026 + (ix, iy - 0.028),
        "tear": disc * 0.02 + (-w * 0.93, 0.02),
        "lash": [*lid, (w * 1.14, -tilt - 0.035)] if f.woman else lid,
        "lower": [(w, -tilt), *low, (-w, 0.022)],
        "brow": spline(brow, 4),
    }
    for k in range(7):
        hx = -0.18 + 0.06 * k
        local[f"hair{k}"] = [(hx, by + t * 0.5), (hx + 0.06, by - arch - t * 0.6)]
    points = np.concatenate([np.asarray(v, np.float64) for v in local.values()]) * (side, 1.0) + (ex, ey)
    cuts = np.cumsum([len(v) for v in local.values()])[:-1]
    return dict(zip(local, np.split(head.on_face(points), cuts), strict=True))


def draw_eyes(canvas: Canvas, head: Head, look: Look, f: Features, a: Mapping[str, str | None], clip: Array) -> None:
    """Sockets, lids, lashes, white, iris, pupil, catch light, brows."""
    unit, w = head.unit, f.eye_w
    makeup = a["makeup"] == "yes"
    crease = look.skin * np.array([0.60, 0.48, 0.46], np.float32)
    for s, eye_label, brow_label in ((-1, R_EYE, R_BROW), (1, L_EYE, L_BROW)):
        o = eye_outlines(head, f, s)
        (cx, cy), (ux, uy), (vx, vy), (gx, gy) = (o[k][0] for k in ("center", "upper", "under", "glint"))
        canvas.glow(cx, cy - 0.02 * unit, w * 1.45 * unit, 0.13 * unit, crease, 0.28, clip, head.roll)
        if makeup:
            canvas.glow(ux, uy, w * 1.28 * unit, 0.088 * unit, look.shadow, 0.95, clip, head.roll)
            canvas.glow(vx, vy, w * 1.1 * unit, 0.045 * unit, look.shadow, 0.55, clip, head.roll)
        canvas.fill(stroke(o["fold"], 0.022 * unit), crease * np.float32(0.8), alpha=0.55)
        white = rgb(238, 234, 230) * np.float32(0.9 + 0.08 * look.side * s)
        inside = canvas.mask(o["almond"])
        canvas.lay(canvas.whole, inside, white, eye_label)
        canvas.fill(o["rim"], look.iris * np.float32(0.45), clip=inside)
        canvas.fill(o["iris"], look.iris, clip=inside)
        bright = np.minimum(look.iris * 1.7, 1)
        canvas.glow(gx, gy, 0.044 * unit, 0.03 * unit, bright, 0.6, inside)
        canvas.fill(o["pupil"], rgb(12, 10, 12), clip=inside)
        canvas.fill(o["shade"], rgb(60, 40, 40), alpha=0.42, clip=inside)
        canvas.fill(o["catch"] + (look.light[0] * 0.03 * unit, 0), rgb(255, 255, 255), alpha=0.95, clip=inside)
        canvas.fill(o["tear"], rgb(206, 132, 124), alpha=0.7, clip=inside)
        thick = (0.062 if makeup else 0.05) if f.woman else 0.034
        canvas.fill(stroke(o["lash"], thick * unit, 0.8), rgb(24, 16, 16), alpha=0.95 if f.woman else 0.75)
        canvas.fill(stroke(o["lower"], 0.02 * unit, 0.7), crease * np.float32(0.6), alpha=0.8 if makeup else 0.5)
        # Brow: a curved stroke that tapers outwards, with hairs across it
        inside = canvas.mask(o["brow"])
        canvas.lay(canvas.whole, inside, look.brow, brow_label, 0.85 if f.woman else 0.92)
        hairs = [stroke(o[f"hair{k}"], 0.016 * unit, 0.5, 2) for k in range(7)]
        canvas.fill(hairs, np.minimum(look.brow * 1.5 + 0.06, 1), alpha=0.45, clip=inside)


def draw_mouth(canvas: Canvas, head: Head, look: Look, f: Features) -> None:
    """Lips with cupid's bow, the gap with teeth, corner and under-lip shadows."""
    w, my, gap = f.mouth_w, f.mouth_y, f.gap
    bend = f.lopsided[4]

    def at(points: Any, lift: float = 0.02) -> Array:
        p = np.array(points, np.float64)
        p[:, 1] += my + f.curl * ((p[:, 0] / w) ** 2 - 0.35) + bend * p[:, 0] / w
        return head.on_face(p, lift)

    up, lo = f.upper, f.lower
    top = [
        (-w, 0),
        (-0.6 * w, -0.55 * up),
        (-0.2 * w, -up - 0.008),
        (0, -0.72 * up),
        (0.2 * w, -up - 0.008),
        (0.6 * w, -0.55 * up),
        (w, 0),
    ]
    seam = [(0.55 * w, 0.004), (0.2 * w, 0.010), (0, 0.018), (-0.2 * w, 0.010), (-0.55 * w, 0.004)]
    part = gap
    rise = [(0.55 * w, part * 0.62), (0.2 * w, part), (0, part * 1.04), (-0.2 * w, part), (-0.55 * w, part * 0.62)]
    base = [
        (-0.62 * w, part * 0.7 + 0.6 * lo),
        (-0.25 * w, part + 0.98 * lo),
        (0, part + 1.04 * lo),
        (0.25 * w, part + 0.98 * lo),
        (0.62 * w, part * 0.7 + 0.6 * lo),
    ]
    unit = head.unit
    dark = look.skin * np.array([0.55, 0.42, 0.4], np.float32)
    ux, uy = at([(0, part + 1.55 * lo)])[0]
    canvas.glow(ux, uy, 0.16 * unit, 0.035 * unit, dark, 0.4, angle=head.roll)
    if gap:
        inner = [(-w * 0.97, 0.0), *seam[::-1], (w * 0.97, 0), *rise]
        hole = at(spline(inner, 4))
        canvas.fill(hole, rgb(70, 18, 22), MOUTH)
        inside = canvas.mask(hole)
        teeth = [
            (-w * 0.8, -0.02),
            (0, -0.02),
            (w * 0.8, -0.02),
            (w * 0.7, gap * 0.40),
            (w * 0.3, gap * 0.66 + 0.01),
            (-w * 0.3, gap * 0.66 + 0.01),
            (-w * 0.7, gap * 0.40),
        ]
        canvas.fill(at(spline(teeth, 4)), rgb(240, 236, 226), alpha=0.97, clip=inside)
        edge = at([(-w, 0.012), (0, 0.026), (w, 0.012)])
        canvas.fill(stroke(edge, 0.03 * unit), rgb(60, 20, 24), alpha=0.35, clip=inside)
        tongue = at(spline([(-0.4 * w, gap * 1.1), (0, gap * 0.78), (0.4 * w, gap * 1.1)], 4))
        canvas.fill(tongue, rgb(190, 86, 86), alpha=0.6, clip=inside)
    lower_in = rise[::-1] if gap else seam[::-1]
    lower_lip = spline([(w, 0), *lower_in[::-1], (-w, 0)], 4, closed=False)
    lower = np.concatenate([lower_lip, spline([(-w, 0), *base, (w, 0)], 4, closed=False)])
    upper = np.concatenate([spline(top, 4, closed=False), spline([(w, 0), *seam, (-w, 0)], 4, closed=False)])
    side = np.clip(
        1 + 0.10 * look.side * look.contrast * np.sign(look.side) * (canvas.x - head.x) * look.side / head.unit,
        0.8,
        1.15,
    )[..., None].astype(np.float32)
    canvas.fill(at(upper), np.clip(look.lip * 0.80 * side, 0, 1), U_LIP)
    canvas.fill(at(lower), np.clip(look.lip * side, 0, 1), L_LIP)
    low_clip = canvas.mask(at(lower))
    for dx, amp in ((-0.22 * w, 0.42), (0.22 * w, 0.42)):
        px, py = at([(dx + 0.12 * w * look.side, part + 0.42 * lo)])[0]
        shine = np.minimum(look.lip * 1.25 + 0.16, 1)
        canvas.glow(px, py, 0.09 * unit, 0.026 * unit, shine, amp * (1.5 if look.lipstick else 1), low_clip, head.roll)
    if not gap:
        canvas.fill(
            stroke(at([(-w * 0.98, 0), *seam[::-1], (w * 0.98, 0)]), 0.026 * unit),
            look.lip * np.float32(0.38),
            alpha=0.85,
        )
    for s in (-1, 1):
        px, py = at([(s * (w + 0.012), 0.0)])[0]
        canvas.glow(px, py, 0.035 * unit, 0.03 * unit, dark, 0.5, angle=head.roll)


def draw_age(canvas: Canvas, head: Head, look: Look, f: Features, clip: Array, smile: bool) -> None:
    """Folds and lines; none for the young (a smile alone lightly creases the cheeks)."""
    level = {"young": 0.0, "middle-aged": 0.5, "elderly": 1.0}[look.age]
    unit = head.unit
    dark = look.skin * np.array([0.50, 0.38, 0.36], np.float32) * (0.6 if look.tone == "dark" else 1.0)
    pale = np.minimum(look.skin * 1.12 + 0.05, 1)
    u = look.rng.uniform(-1, 1, 24)

    below = head.plane([(0, 0.028)])[0] - head.center
    lines: dict[float, list[Array]] = {}

    def line(points: Any, width: float, alpha: float) -> None:
        lines.setdefault(round(alpha, 2), []).append(stroke(head.on_face(points), width * unit, n=4))

    def ink() -> None:
        """All lines of one strength at once, each with a pale ridge below it."""
        for alpha, strokes in lines.items():
            canvas.fill([p + below for p in strokes], pale, alpha=alpha * 0.55, clip=clip)
            canvas.fill(strokes, dark, alpha=alpha, clip=clip)

    if smile or level:
        fold = 0.14 * smile + (0.0, 0.56, 0.78)[int(2 * level)]
        for s in (-1, 1):
            line(
                [
                    (s * (f.nose_w + 0.02), f.nose_y - 0.05),
                    (s * (f.nose_w + 0.10), f.nose_y + 0.06),
                    (s * (f.mouth_w + 0.09), f.mouth_y - 0.06),
                    (s * (f.mouth_w + 0.10), f.mouth_y + 0.05),
                ],
                0.032 + 0.018 * level,
                fold,
            )
    if not level:
        return ink()
    for s in (-1, 1):
        ex, ey = f.eye(s)
        bag = [(ex - s * 0.13, ey + 0.085), (ex, ey + 0.135), (ex + s * 0.14, ey + 0.09)]
        line(bag, 0.03, 0.44 + 0.28 * (level == 1))
        if level == 1:
            line([(ex - s * 0.10, ey + 0.15), (ex + s * 0.03, ey + 0.20), (ex + s * 0.15, ey + 0.145)], 0.024, 0.4)
            for k in (-1, 0, 1):
                line(
                    [
                        (ex + s * 0.18, ey + 0.025 * k),
                        (ex + s * 0.24, ey + 0.05 * k - 0.01),
                        (ex + s * 0.30, ey + 0.085 * k),
                    ],
                    0.022,
                    0.55,
                )
            line(
                [
                    (s * (f.mouth_w + 0.03), f.mouth_y + 0.07),
                    (s * (f.mouth_w + 0.05), f.mouth_y + 0.16),
                    (s * (f.mouth_w + 0.02), f.mouth_y + 0.22),
                ],
                0.03,
                0.5,
            )
            line([(s * 0.42, 0.30), (s * 0.46, 0.42), (s * 0.43, 0.54)], 0.03, 0.38)
    rows = (-0.34, -0.43, -0.52, -0.60) if level == 1 else (-0.38, -0.50)
    for k, y in enumerate(rows):
        r = u[3 * k : 3 * k + 3] * 0.02
        line(
            [
                (-0.36, y + r[0] + 0.01),
                (-0.15, y - 0.02 + r[1]),
                (0.05, y + r[2]),
                (0.22, y - 0.015),
                (0.36, y + 0.015),
            ],
            0.028,
            0.46 + 0.2 * (level == 1),
        )
    if level == 1:
        for s in (-1, 1):
            line([(s * 0.035, -0.10), (s * 0.045, -0.17), (s * 0.04, -0.24)], 0.024, 0.5)
        for k in range(5):
            px, py = head.on_face([(0.5 * u[12 + k], 0.1 + 0.35 * u[17 + k])])[0]
            canvas.glow(px, py, 0.03 * unit, 0.025 * unit, look.skin * np.array([0.72, 0.6, 0.5]), 0.5, clip)
    return ink()


def draw_beard(
    canvas: Canvas, head: Head, look: Look, f: Features, kind: str, clip: Array, grid: tuple[Array, Array]
) -> None:
    """Mustache, or mustache with a full beard along the jaw."""
    x, y = grid
    wave = np.sin(46 * x + 5 * np.sin(5 * y) + 9 * y) * 0.10 + np.sin(27 * x - 12 * y) * 0.08
    light = 0.95 + wave + 0.22 * look.side * np.clip(x, -1, 1) * look.contrast
    hair = np.clip(look.beard * light[..., None], 0, 1).astype(np.float32)
    w, top = f.mouth_w, f.mouth_y - f.upper - 0.005
    ny = f.nose_y + 0.05
    stache = [
        (0, ny + 0.01),
        (-0.12, ny + 0.0),
        (-w * 0.9, top - 0.01 + 0.4 * f.curl),
        (-w - 0.10, f.mouth_y + 0.055 + f.curl),
        (-w * 0.75, top + 0.03 + 0.3 * f.curl),
        (0, top + 0.02),
        (w * 0.75, top + 0.03 + 0.3 * f.curl),
        (w + 0.10, f.mouth_y + 0.055 + f.curl),
        (w * 0.9, top - 0.01 + 0.4 * f.curl),
        (0.12, ny),
    ]
    cover = canvas.mask(head.on_face(spline(stache, 5), 0.03))
    if kind == "beard":
        jaw = float(head.width(0.45))
        my = f.mouth_y
        beard = [
            (-jaw * 1.1, 0.12),
            (-jaw * 0.93, 0.34),
            (-w - 0.13, my - 0.14),
            (-w - 0.06, my + 0.02),
            (-w * 0.7, my + 0.17),
            (0, my + f.gap + f.lower + 0.06),
            (w * 0.7, my + 0.17),
            (w + 0.06, my + 0.02),
            (w + 0.13, my - 0.14),
            (jaw * 0.93, 0.34),
            (jaw * 1.1, 0.12),
            (jaw * 1.4, 0.5),
            (0.7, 1.0),
            (0, 1.25),
            (-0.7, 1.0),
            (-jaw * 1.4, 0.5),
        ]
        p = spline(beard, 4)
        flat = head.unplane(head.on_face(np.stack([p[:, 0], np.minimum(p[:, 1], 1.0)], 1)))
        beyond = np.maximum(p[:, 1] - 0.99, 0)
        out = np.where(np.abs(p[:, 0]) > head.width(np.minimum(p[:, 1], 1)) * 0.99, np.sign(p[:, 0]) * 0.25, 0)
        flat += np.stack([out, beyond], 1)
        cover = np.maximum(cover, canvas.mask(head.plane(flat)))
    cover = canvas.blur(cover, 0.012 * head.unit / 0.36) * clip
    canvas.lay(canvas.whole, cover, hair, None, 0.96)


def draw_face(
    canvas: Canvas,
    head: Head,
    look: Look,
    f: Features,
    a: Mapping[str, str | None],
    grid: tuple[Array, Array],
) -> Array:
    """The whole face onto the canvas; returns its coverage (size, size)."""
    field = skin_field(canvas, head, look, f, grid)
    outline = head.outline
    cover = canvas.mask(outline)
    canvas.lay(canvas.whole, cover, field, SKIN)
    unit = head.unit
    for s in (-1, 1):
        px, py = head.on_face([(s * 0.40, 0.34)])[0]
        rosy = a["rosy_cheeks"] == "yes"
        warm = {"fair": (236, 96, 104), "tan": (214, 62, 62), "dark": (176, 34, 46)}[look.tone]
        canvas.glow(px, py, 0.24 * unit, 0.19 * unit, rgb(*warm), 0.62 if rosy else 0.06, cover, head.roll)
    draw_nose(canvas, head, look, f)
    if a["facial_hair"] in ("mustache", "beard"):
        draw_beard(canvas, head, look, f, str(a["facial_hair"]), cover, grid)
    draw_age(canvas, head, look, f, cover, a["smiling"] == "yes")
    draw_mouth(canvas, head, look, f)
    draw_eyes(canvas, head, look, f, a, cover)
    return cover
