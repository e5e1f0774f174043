"""One portrait from attributes and a random stream: layers from the background to the earrings."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mogle.tiny.portraits.accessories import Extras, draw_earrings, draw_glasses, draw_hat, draw_necklace
from mogle.tiny.portraits.face import Features, draw_ear, draw_face
from mogle.tiny.portraits.hair import HAIR, Hair, hair_field
from mogle.tiny.portraits.head import Head
from mogle.tiny.portraits.look import Look
from mogle.tiny.portraits.scene import draw_background, finish
from mogle.tiny.portraits.shapes import Array, Canvas, ellipse
from mogle.tiny.portraits.wear import Body, draw_cloth, draw_neck


def draw(
    attributes: Mapping[str, str | None], rng: np.random.Generator, size: int = 128, style: str = "portraits"
) -> tuple[Array, Array]:
    """Paint one portrait.

    Args:
        attributes: a value for each name of ``ATTRIBUTES`` (None where the question does not arise).
        rng: two independent streams are derived from it, one for all shapes and one for all colours, so portraits
            of one seed that differ only in attributes invisible in the mask have the same mask.
        size: side in pixels; the same stream gives the same portrait at every size.
        style: "portraits", "female" or "balanced".

    Returns:
        image (size, size, 3) uint8 and label map (size, size) uint8 with the 19 CelebAMask-HQ classes.
    """
    a = attributes
    shape_seed, color_seed = rng.integers(2**62, size=2)
    geometry = np.random.default_rng(shape_seed)
    canvas = Canvas(size, geometry)
    head = Head(geometry, a["pose"] or "front", a["gender"] == "woman", style)
    features = Features(geometry, a, head)
    body = Body(geometry, a, head)
    extras = Extras(geometry, a, head)
    hair = Hair(geometry, a, head)
    look = Look(np.random.default_rng(color_seed), a, style)
    bald = hair.length == "bald"

    grid = head.grid(canvas.x, canvas.y)
    draw_background(canvas, look, style)
    face = canvas.mask(head.outline)
    skull = head.plane(ellipse(head.skull_x, head.skull_y, head.skull_rx, head.skull_ry))
    strands = None
    if bald:
        nx = np.clip((grid[0] - head.skull_x) / head.skull_rx, -1, 1) * 0.9
        light = look.lit(nx, np.clip(grid[1] * 0.5, -0.6, 0.2), np.sqrt(1 - nx * nx))
        canvas.fill(skull, look.shade(look.skin, light.astype(np.float32)), 1)
    else:
        strands = hair_field(canvas, head, look, hair, grid)
        canvas.lay(canvas.whole, canvas.mask(*hair.back, skull), strands * np.float32(0.62), HAIR)
    draw_neck(canvas, head, look, body, face)
    draw_cloth(canvas, look, body)
    front = canvas.mask(*hair.front) if hair.front else None
    if a["necklace"] == "yes":
        draw_necklace(canvas, look, body, extras)
    for side in (-1, 1):
        draw_ear(canvas, head, look, features, side)
    face = draw_face(canvas, head, look, features, a, grid)
    if a["eyeglasses"] == "yes":
        draw_glasses(canvas, head, look, extras, features.eye_x, a["sunglasses"] == "yes")
    if front is not None and strands is not None:
        cast = canvas.blur(canvas.shift(front, -0.025 * look.side, 0.022), 0.018) * face
        canvas.lay(canvas.whole, cast, look.skin * np.array([0.42, 0.3, 0.28], np.float32), None, 0.42)
        canvas.lay(canvas.whole, front, strands, HAIR)
        for side in (-1, 1):
            if hair.ear_over[side]:
                draw_ear(canvas, head, look, features, side)
    if extras.hat:
        draw_hat(canvas, head, look, extras, face)
    if a["earrings"] == "yes":
        near = head.near if a["pose"] != "front" else 0
        draw_earrings(canvas, head, look, extras, {-1: near <= 0, 1: near >= 0})
    return finish(canvas, look, style), canvas.labels
