"""Photographs of made-up things: placing them among others, light and camera."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from openilias.build.surfaces import Canvas, Rng, Size, grain, room
from openilias.build.textures import Pixels
from openilias.build.things import Patch, Pose, Quad, Thing, extent, pose_thing
from openilias.images.boxes import Box


def _shadow(canvas: Canvas, alpha: Canvas, at: tuple[int, int], reach: float, strength: float) -> None:
    """Darken the canvas under an alpha layer whose top left corner is ``at`` (x, y)."""
    pad = int(reach) + 1
    soft = cv2.copyMakeBorder(alpha, pad, pad, pad, pad, cv2.BORDER_CONSTANT)
    kernel = (pad | 1, pad | 1)
    soft = cv2.blur(soft, kernel)
    if pad > 5:  # on small ones nobody sees the corners of a box blur
        soft = cv2.blur(soft, kernel)
    x, y = at[0] - pad + int(0.4 * reach), at[1] - pad + int(0.6 * reach)
    left, top = max(0, x), max(0, y)
    part = canvas[top : max(top, y + soft.shape[0]), left : max(left, x + soft.shape[1])]
    dark = 1 - np.float32(strength) * soft[top - y :, left - x :][: part.shape[0], : part.shape[1]]
    if part.size:
        part *= cv2.merge((dark, dark, dark))


def place(
    canvas: Canvas, patches: Sequence[Patch], centre: tuple[float, float], area: float, *, shadow: float
) -> tuple[Canvas, tuple[int, int]] | None:
    """Draw a posed thing whose box has ``area`` pixels around ``centre`` (x, y); ``canvas`` is changed.

    Returns:
        how much of the thing each pixel shows, ``(h, w)`` float32 in [0, 1], and where the top left of that
        array lies in the canvas (x, y); None if the thing is outside.
    """
    height, width = canvas.shape[:2]
    root = float(np.sqrt(area))
    quads = [p.quad * np.float32(root) + np.array(centre, np.float32) for p in patches]
    points = np.concatenate(quads)
    left, top = (int(max(0, np.floor(v) - 1)) for v in points.min(0))
    right, bottom = (int(min(m, np.ceil(v) + 1)) for v, m in zip(points.max(0), (width, height), strict=True))
    if right <= left or bottom <= top:
        return None
    corner, size = np.array((left, top), np.float32), (right - left, bottom - top)
    layers = [_warp(patch, quad - corner, size) for patch, quad in zip(patches, quads, strict=True)]
    alpha = layers[0][1]
    for _, other in layers[1:]:
        alpha = np.maximum(alpha, other)
    if shadow > 0:
        _shadow(canvas, alpha, (left, top), 2 + 0.07 * root, shadow)
    part = canvas[top:bottom, left:right]
    for colour, cover in layers:
        behind = 1 - cover
        part *= cv2.merge((behind, behind, behind))
        part += colour
    return alpha, (left, top)


def visible_box(alpha: Canvas, at: tuple[int, int]) -> Box | None:
    """Return the tight box of the pixels of ``alpha`` above one half, moved by ``at`` (x, y), if any."""
    shown = alpha > 0.5
    rows, columns = np.flatnonzero(shown.any(1)), np.flatnonzero(shown.any(0))
    if not rows.size:
        return None
    first, last = (int(columns[0]), int(rows[0])), (int(columns[-1]), int(rows[-1]))
    return Box(at[0] + first[0], at[1] + first[1], last[0] - first[0] + 1, last[1] - first[1] + 1)


def _warp(patch: Patch, quad: Quad, size: tuple[int, int]) -> tuple[Canvas, Canvas]:
    """Warp a face onto ``quad`` in a layer of ``size`` (width, height).

    Returns:
        colours ``(h, w, 3)`` float32 to 255, multiplied by alpha, and alpha ``(h, w)`` float32 in [0, 1].
    """
    face = patch.face
    sides = np.hypot(*(quad - quad[[1, 2, 3, 0]]).T)
    across, down = max(sides[0], sides[2], 1.0), max(sides[1], sides[3], 1.0)
    # A face is shrunk first: a warp alone reads single pixels and would alias.
    w, h = min(face.shape[1], int(across * 1.2) + 1), min(face.shape[0], int(down * 1.2) + 1)
    if w < face.shape[1] or h < face.shape[0]:
        face = cv2.resize(face, (w, h), interpolation=cv2.INTER_AREA)
    corners = np.array([[-0.5, -0.5], [w - 0.5, -0.5], [w - 0.5, h - 0.5], [-0.5, h - 0.5]], np.float32)
    matrix: Any = cv2.getPerspectiveTransform(corners, quad)
    layer: Pixels = cv2.warpPerspective(face, matrix, size, flags=cv2.INTER_LINEAR)
    colour = cv2.cvtColor(layer, cv2.COLOR_RGBA2RGB).astype(np.float32)
    return colour * np.float32(patch.light), layer[..., 3] * np.float32(1 / 255)


def photograph(rng: Rng, canvas: Canvas, *, strength: float) -> Pixels:
    """Let light and camera at a scene: ``(h, w, 3)`` uint8 RGB.

    ``strength`` 0 only rounds, 1 is a careless photograph: cast, exposure, gradient, blur, noise.
    """
    height, width = canvas.shape[:2]
    unit = max(height, width) / 500
    gain = np.exp(rng.normal(0, 0.09 * strength, 3) + rng.normal(-0.06, 0.17) * strength).astype(np.float32)
    x = np.linspace(-1, 1, width, dtype=np.float32)[None]
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    slope = rng.normal(0, 0.16 * strength, 2).astype(np.float32)
    fall = np.float32(0.14 * strength * rng.random())
    light = np.clip(1 + slope[0] * x + slope[1] * y - fall * (x * x + y * y), 0.3, 1.7)
    seen: Canvas = canvas * cv2.merge([light * g for g in gain])
    sigma = float(rng.gamma(1.5, 0.4)) * strength * unit
    if sigma > 0.35:
        seen = cv2.GaussianBlur(seen, (0, 0), sigma)
    if rng.random() < 0.12 * strength:
        length = 2 * int(rng.integers(1, 4) * max(1.0, unit)) + 1
        kernel = np.zeros((length, length), np.float32)
        cv2.line(kernel, (0, int(rng.integers(length))), (length - 1, int(rng.integers(length))), 1.0, 1)
        seen = cv2.filter2D(seen, -1, kernel / kernel.sum())
    haze = np.float32(rng.uniform(0, 22) * strength)
    noise = grain(rng, (height, width)) * np.float32(rng.gamma(2.0, 1.8) * strength) + haze
    image: Canvas = cv2.scaleAdd(seen, float(1 - haze / 255), noise)
    return np.asarray(np.clip(image, 0, 255) + np.float32(0.5), np.uint8)


def studio(rng: Rng, size: Size) -> Canvas:
    """Paint a plain ground with a soft gradient, as for a catalogue picture."""
    first, second = rng.uniform(150, 245, 2)
    tint = rng.normal(0, 5, 3)
    y = np.linspace(0, 1, size[0], dtype=np.float32)[:, None, None]
    x = np.linspace(-1, 1, size[1], dtype=np.float32)[None, :, None]
    return np.asarray(np.clip(first + (second - first) * y - 14 * x * x + tint, 0, 250), np.float32)


def take_portrait(rng: Rng, size: Size, hero: Thing) -> tuple[Pixels, Box]:
    """Photograph one thing from the front on plain ground, filling much of the frame.

    Args:
        rng: where the randomness comes from.
        size: height and width of the picture in pixels.
        hero: the thing.

    Returns:
        the picture ``(height, width, 3)`` uint8 RGB and the thing's box.
    """
    canvas = studio(rng, size)
    yaw, pitch, roll = rng.uniform(-0.22, 0.22), rng.uniform(-0.16, 0.1), rng.normal(0, 0.03)
    if hero.form == "box":  # turned enough to show its three faces
        yaw, pitch = rng.choice([-1, 1]) * rng.uniform(0.3, 0.6), rng.uniform(-0.4, -0.2)
    patches = pose_thing(hero, Pose(yaw, pitch, roll, rng.uniform(3, 6), False))
    wide, tall = extent(patches)
    root = rng.uniform(0.74, 0.92) * min(size[1] / wide, size[0] / tall)
    centre = (size[1] / 2 + rng.normal(0, 0.01) * size[1], size[0] / 2 + rng.normal(0, 0.01) * size[0])
    shown = place(canvas, patches, centre, root * root, shadow=float(rng.uniform(0.25, 0.5)))
    box = None if shown is None else visible_box(*shown)
    if box is None:
        raise AssertionError("a portrait shows its thing")
    return photograph(rng, canvas, strength=0.25), box


def _centre(rng: Rng, size: Size, sides: tuple[float, float], *, cut: bool) -> tuple[float, float]:
    """Choose where (x, y) a thing of ``sides`` (width, height) goes: inside the frame, or cut by it."""
    at = []
    for length, frame in zip(sides, (size[1], size[0]), strict=True):
        slack = max(0.0, frame - length) / 2
        at.append(frame / 2 + rng.uniform(-slack, slack))
    if cut:
        axis = int(rng.integers(2))
        frame, out = (size[1], size[0])[axis], rng.uniform(-0.2, 0.35) * sides[axis]
        at[axis] = sides[axis] / 2 - out if rng.random() < 0.5 else frame - sides[axis] / 2 + out
    return float(at[0]), float(at[1])


def _pose(rng: Rng, thing: Thing, *, lying: bool, camera: tuple[float, float]) -> Pose:
    """Draw a pose that agrees with the scene's ``camera`` (yaw, pitch)."""
    yaw, pitch = camera
    if lying:
        roll = rng.uniform(-np.pi, np.pi) if rng.random() < 0.5 else rng.normal(0, 0.35)
        if thing.form == "can":
            yaw = rng.uniform(-0.9, 0.9)
    else:
        yaw, roll = yaw + rng.normal(0, 0.25), rng.normal(0, 0.06)
    if thing.form == "box":
        yaw += rng.choice([-1, 1]) * rng.uniform(0.2, 0.5)
    yaw = np.clip(yaw, -1.1, 1.1)  # never from the edge or from behind
    return Pose(float(yaw), float(pitch), float(roll), float(rng.uniform(1.6, 4.5)), lying)


def _spots(rng: Rng, size: Size, count: int, keep_out: Box | None) -> tuple[list[tuple[float, float]], float]:
    """Choose ``count`` places (x, y) off the middle of ``keep_out``, and the pixels between neighbours."""
    height, width = size
    step = np.sqrt(height * width / max(count, 1))
    while True:
        x, y = np.meshgrid(np.arange(step / 2, width, step), np.arange(step / 2, height, step))
        spots = np.stack([x.ravel(), y.ravel()], 1)
        if keep_out is not None:
            middle = (keep_out.x + keep_out.width / 2, keep_out.y + keep_out.height / 2)
            far = np.abs(spots - middle) / (keep_out.width, keep_out.height)
            spots = spots[far.max(1) > 0.42]
        if len(spots) >= count:
            break
        step *= 0.88
    spots = spots[rng.permutation(len(spots))[:count]] + rng.normal(0, 0.16 * step, (count, 2))
    return [(float(px), float(py)) for px, py in spots], float(step)


def take_scene(
    rng: Rng, size: Size, hero: Thing | None, share: float, clutter: Sequence[Thing]
) -> tuple[Pixels, Box | None]:
    """Photograph a thing among others.

    Args:
        rng: where the randomness comes from.
        size: height and width of the picture in pixels.
        hero: the thing that matters; None for a picture of the others alone.
        share: the part of the picture that the box of ``hero`` is to fill, in (0, 1); less where it is cut.
        clutter: the other things, each placed once; a few may lie in front of ``hero``.

    Returns:
        the picture ``(height, width, 3)`` uint8 RGB and the tight box of ``hero`` inside it.
    """
    height, width = size
    lying = bool(rng.random() < 0.5)
    camera = (rng.normal(0, 0.12), rng.uniform(0.0, 0.7)) if lying else (rng.normal(0, 0.35), rng.uniform(-0.4, 0.1))
    canvas = room(rng, size, lying=lying)
    depth = float(rng.uniform(0.2, 0.5)) if lying else 0.0
    shadow = float(rng.uniform(0.25, 0.6))
    patches: list[Patch] = []
    area, centre, about = 0.0, (0.0, 0.0), None
    if hero is not None:
        patches = pose_thing(hero, _pose(rng, hero, lying=lying, camera=camera))
        wide, tall = extent(patches)
        most = min(width / wide, height / tall) * (0.98 if share < 0.45 else 1.15)
        root = min(float(np.sqrt(share * height * width)), most)
        area = root * root
        centre = _centre(rng, size, (wide * root, tall * root), cut=bool(rng.random() < 0.2))
        about = Box(
            int(centre[0] - wide * root / 2),
            int(centre[1] - tall * root / 2),
            int(wide * root),
            int(tall * root),
        )
    front = min(len(clutter), int(rng.integers(1, 4))) if about is not None and rng.random() < 0.4 else 0
    spots, step = _spots(rng, size, len(clutter) - front, about)
    for thing, spot in zip(clutter[front:], sorted(spots, key=lambda s: s[1]), strict=True):
        nearness = 1 + depth * (2 * spot[1] / height - 1)
        side = np.clip(step * rng.uniform(0.6, 1.35), 0.04 * max(size), 0.36 * min(size)) * nearness
        pose = _pose(rng, thing, lying=lying, camera=camera)
        place(canvas, pose_thing(thing, pose), spot, float(side * side), shadow=shadow)
    box = None
    if about is not None:
        if rng.random() < 0.75:  # the camera is focused on the hero
            blur = float(rng.uniform(0.6, 2.2)) * max(size) / 500
            canvas = cv2.GaussianBlur(canvas, (0, 0), max(0.3, blur))
        shown = place(canvas, patches, centre, area, shadow=shadow)
        box = None if shown is None else visible_box(*shown)
        for thing in clutter[:front]:
            angle, far = rng.uniform(0, 2 * np.pi), rng.uniform(0.38, 0.55)
            at = (
                centre[0] + far * about.width * np.cos(angle),
                centre[1] + far * about.height * np.sin(angle),
            )
            pose = _pose(rng, thing, lying=lying, camera=camera)
            place(canvas, pose_thing(thing, pose), at, area * float(rng.uniform(0.03, 0.16)), shadow=shadow)
    return photograph(rng, canvas, strength=1.0), box
