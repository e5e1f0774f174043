"""The head as a solid: proportions, pose, and the projection of points on its surface to the frame.

Head units: the eye line is y = 0, the chin y = 1, the crown about y = -1; x runs to the picture's right, z to the
viewer. A horizontal section of the face is half a superellipse of half-width `width(y)` and depth `depth(y)`, so a
turned head foreshortens its far side, hides what lies behind the limb and shows the near ear, as a real one does.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from mogle.tiny.portraits.shapes import Array, spline

# Half-width, jaw, chin and temple of the face shapes; the last three relative to the first.
SHAPES = {
    "oval": (0.635, 0.73, 0.37, 0.94),
    "round": (0.70, 0.80, 0.42, 0.95),
    "square": (0.67, 0.86, 0.50, 0.96),
    "long": (0.58, 0.76, 0.40, 0.95),
    "heart": (0.65, 0.66, 0.29, 1.0),
}
POWER = 0.83  # 2 / 2.4: flatter in front than an ellipse


class Head:
    """Pose and proportions drawn from `rng` for the attributes pose and gender."""

    def __init__(self, rng: np.random.Generator, pose: str, woman: bool, framing: str) -> None:
        turn = {"front": rng.uniform(-6, 6), "left": -rng.uniform(15, 41), "right": rng.uniform(15, 41)}[pose]
        self.yaw = math.radians(turn)
        self.pitch = math.radians(min(max(rng.normal(0, 5), -12), 12))
        self.roll = math.radians(min(max(rng.normal(0, 7), -20), 20))
        # Plain floats throughout: a numpy float64 would turn every float32 field it meets into float64.
        self.sin, self.cos = math.sin(self.yaw), math.cos(self.yaw)
        self.nod, self.cos_pitch = math.sin(self.pitch), math.cos(self.pitch)
        c, s = math.cos(self.roll), math.sin(self.roll)
        self.spin = np.array([[c, s], [-s, c]])
        width, jaw, chin, temple = SHAPES[str(rng.choice(list(SHAPES)))]
        width += rng.normal(0, 0.015)
        jaw = (jaw + (-0.03 if woman else 0.05) + rng.normal(0, 0.02)) * width
        chin = (chin + (-0.03 if woman else 0.05) + rng.normal(0, 0.02)) * width
        temple *= width
        low, high = {"portraits": (0.335, 0.43), "female": (0.27, 0.33), "balanced": (0.31, 0.38)}[framing]
        self.unit = rng.uniform(low, high) * (0.68 / width) ** 0.4
        chin_y = min(max(rng.normal(0.84, 0.042), 0.765), 0.92)
        eye_y = min(max(chin_y - self.unit, 0.385), 0.535) if framing != "female" else rng.uniform(0.41, 0.48)
        rows = np.array(
            [
                (0, -1.02),
                (0.5, -0.97),
                (0.84, -0.78),
                (temple / width, -0.42),
                (1, -0.06),
                (0.985, 0.2),
                (0.5 * (0.97 + jaw / width), 0.45),
                (jaw / width, 0.68),
                (0.5 * (jaw + chin) / width, 0.86),
                (chin / width * 0.72, 0.96),
                (0, 1.0),
            ]
        )
        rows[:, 0] *= width
        self.rows = spline(rows, 4, closed=False)
        self.rows[:, 1] = np.maximum.accumulate(self.rows[:, 1])
        self.half = width
        self.skew = rng.normal(0, 0.025)  # one half of the face a little wider
        self.center = np.array([0.5 + rng.normal(0, 0.025) - 0.36 * self.sin * self.unit, eye_y])
        self.x, self.y = self.center.tolist()
        # Skull: an ellipsoid around (0, -0.3, -0.1); its silhouette is an ellipse in the picture plane.
        self.skull_x = -0.1 * self.sin
        self.skull_y = -0.3
        self.skull_rx = math.hypot((width + 0.03) * self.cos, 0.86 * self.sin)
        self.skull_ry = 0.73
        self.near = -1 if self.yaw > 0 else 1  # the side (sign of x) that turns to the viewer
        self.tabulate()
        self.outline_rows()

    def width(self, y: Any) -> Array:
        """Half-width of the face at height y."""
        return np.interp(y, self.rows[:, 1], self.rows[:, 0])

    @staticmethod
    def depth(y: Any) -> Array:
        """Distance of the face's front from the plane of the ears."""
        return np.interp(
            y, [-1.02, -0.9, -0.6, -0.3, 0.0, 0.3, 0.7, 1.0], [0.0, 0.36, 0.66, 0.75, 0.72, 0.74, 0.76, 0.68]
        )

    @staticmethod
    def back(y: Any) -> Array:
        """Depth at which the face ends: the ear, and along the jaw forward to the chin."""
        return np.interp(y, [0.35, 0.7, 0.9, 1.0], [0.0, 0.14, 0.4, 0.62])

    def surface(self, x: Any, y: Any) -> Array:
        """z of the face at (x, y)."""
        r = np.clip(np.abs(x) / (self.width(y) + 1e-6), 0, 1)
        base = self.back(y)
        return base + (self.depth(y) - base) * (1 - r ** (2 / POWER)) ** (POWER / 2)

    def project(self, points: Any) -> Array:
        """Points (n, 3) in head units to the frame (n, 2)."""
        p = np.asarray(points, np.float64)
        x = p[:, 0] * (1 + self.skew * np.sign(p[:, 0]))
        across = x * self.cos + p[:, 2] * self.sin
        ahead = p[:, 2] * self.cos - x * self.sin
        return self.plane(np.stack([across, p[:, 1] * self.cos_pitch + (ahead - 0.5) * self.nod], 1))

    def plane(self, points: Any) -> Array:
        """Points (n, 2) of the picture plane in head units (roll and scale only) to the frame."""
        return np.asarray(points, np.float64) @ (self.unit * self.spin) + self.center

    def unplane(self, points: Any) -> Array:
        """Inverse of `plane`."""
        return (np.asarray(points, np.float64) - self.center) @ (self.spin.T / self.unit)

    def grid(self, x: Array, y: Array) -> tuple[Array, Array]:
        """Picture-plane head coordinates of the frame's pixels, float32."""
        c, s = math.cos(self.roll), math.sin(self.roll)
        dx, dy = (x - self.x) / self.unit, (y - self.y) / self.unit
        return (dx * c + dy * s).astype(np.float32), (dy * c - dx * s).astype(np.float32)

    def on_face(self, points: Any, lift: float = 0.0) -> Array:
        """Points (n, 2) on the face's surface to the frame; what lies behind the limb is moved to the limb."""
        p = np.asarray(points, np.float64)
        row = np.minimum(np.maximum((p[:, 1] + 1.02) * (47 / 2.02), 0), 46.999)
        ratio = p[:, 0] / (np.interp(p[:, 1], self.rows[:, 1], self.rows[:, 0]) + 1e-6)
        col = np.minimum(np.maximum(ratio * 20 + 20, 0), 39.999)
        i, j = row.astype(np.intp), col.astype(np.intp)
        a, b = (row - i)[:, None], (col - j)[:, None]
        t, k = self.table, i * 41 + j
        out = (t[k] * (1 - b) + t[k + 1] * b) * (1 - a) + (t[k + 41] * (1 - b) + t[k + 42] * b) * a
        return self.plane(out + (lift * self.sin, lift * self.cos * self.nod))

    def tabulate(self) -> None:
        """Picture-plane position of the face's surface on a grid of (y, x / width), hidden parts moved to the limb."""
        y, r = np.meshgrid(np.linspace(-1.02, 1, 48), np.linspace(-1, 1, 41), indexing="ij")
        x = r * self.width(y)
        z = self.surface(x, y)
        x = x * (1 + self.skew * np.sign(x))
        across = x * self.cos + z * self.sin
        ahead = z * self.cos - x * self.sin
        if self.yaw > 0:
            across[:, 20:] = np.maximum.accumulate(across[:, 20:], 1)
        else:
            across[:, 20::-1] = np.minimum.accumulate(across[:, 20::-1], 1)
        self.table = np.stack([across, y * self.cos_pitch + (ahead - 0.5) * self.nod], 2).reshape(-1, 2)

    def outline_rows(self) -> None:
        """Silhouette of the face: `left` and `right` (k, 2) in the frame, `outline` the closed contour, and
        `edges` (k, 3): picture-plane y, left x, right x."""
        t = np.linspace(-np.pi / 2, np.pi / 2, 33)
        w, y = self.rows[:, :1], self.rows[:, 1]
        sx = np.sign(np.sin(t)) * np.abs(np.sin(t)) ** POWER
        base = self.back(y)[:, None]
        z = base + (self.depth(y)[:, None] - base) * np.cos(t).clip(0) ** POWER
        x = w * sx
        across = x * (1 + self.skew * np.sign(x)) * self.cos + z * self.sin
        i = np.arange(len(y))
        sides = []
        for j in (across.argmin(1), across.argmax(1)):
            sides.append(self.project(np.stack([x[i, j], y, z[i, j]], 1)))
        self.left, self.right = sides
        self.outline = np.concatenate([self.left, self.right[::-1]])
        pl, pr = self.unplane(self.left), self.unplane(self.right)
        self.edges = np.stack([0.5 * (pl[:, 1] + pr[:, 1]), pl[:, 0], pr[:, 0]], 1)

    def edge(self, side: int, y: Any) -> Array:
        """Picture-plane x of the face's silhouette at picture-plane height y on one side (-1 left, 1 right)."""
        return np.interp(y, self.edges[:, 0], self.edges[:, 1 if side < 0 else 2])
