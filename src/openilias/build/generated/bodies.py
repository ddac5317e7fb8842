"""The bodies of solid things: what they are put together from, and what is painted on it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import cv2
import numpy as np

from openilias.build.generated.designs import Design
from openilias.build.generated.faces import paint_ground, paint_wrap
from openilias.build.generated.solids import Matrix, Part
from openilias.build.generated.textures import Colour, Pixels, fill
from openilias.build.generated.words import COLOURS, Form

Rng = np.random.Generator
_METAL = (188, 190, 196)


def plain(colour: Colour) -> Pixels:
    """Return a texture of one colour."""
    return np.full((2, 6, 3), colour, np.uint8)


def _round_texture(profile: Matrix, pixels: float, colour: Colour) -> Pixels:
    """Return a texture for a whole lathe whose unit of length has ``pixels`` pixels, of one colour."""
    arc = np.hypot(*np.diff(profile, axis=0).T).sum()
    wide = int(np.clip(2 * np.pi * profile[:, 1].max() * pixels, 16, 2200))
    return np.full((max(8, round(arc * pixels)), wide, 3), colour, np.uint8)


def _rows(profile: Matrix, texture: Pixels, top: float, bottom: float) -> slice:
    """Return the rows of a lathe's texture between two heights of its wall."""
    arc = np.concatenate([[0], np.cumsum(np.hypot(*np.diff(profile, axis=0).T))])
    # Rings are horizontal: of several points at one height the last above and the first below count.
    wall = np.maximum.accumulate(profile[:, 0] + np.arange(len(profile)) * 1e-7)
    first, last = (np.interp(y, wall, arc) / arc[-1] * len(texture) for y in (top, bottom))
    return slice(round(float(first)), max(round(float(first)) + 8, round(float(last))))


def _band(texture: Pixels, rows: slice, design: Design, front: float) -> None:
    """Paint what goes once around a thing into rows of its texture."""
    part = texture[rows]
    part[...] = paint_wrap(design, part.shape[0], part.shape[1], front=front)[: part.shape[0], : part.shape[1]]


def _front_share(height: float, radius: float, aspect: float = 0.8) -> float:
    """Return the share of the way around that a front of about ``aspect`` takes on a wall of a height."""
    return float(np.clip(aspect * height / (2 * np.pi * radius), 0.2, 0.4))


def _can(design: Design, rng: Rng, pixels: float) -> list[Part]:
    r = design.aspect / 2
    neck = 0.86 if design.kind.fine == "drink can" else 0.96
    rim = [[-0.485, 0], [-0.485, neck * r - 0.02], [-0.5, neck * r - 0.015], [-0.5, neck * r]]
    profile = np.array([*rim, [-0.45, r], [0.46, r], [0.5, 0.92 * r], [0.5, 0]])
    texture = _round_texture(profile, pixels, _METAL)
    _band(texture, _rows(profile, texture, -0.44, 0.45), design, _front_share(0.9, r))
    return [Part("lathe", texture, profile=profile, gloss=0.5)]


def _smooth(knots: Sequence[tuple[float, float]], count: int) -> Matrix:
    """Return ``count`` points of a smooth curve of radius over height through knots (y, radius)."""
    y, r = np.array(knots, float).T
    at = np.linspace(y[0], y[-1], count)
    # Cosine steps between the knots: no overshoot, so no waist below zero.
    place = np.clip(np.searchsorted(y, at, "right") - 1, 0, len(y) - 2)
    step = (1 - np.cos(np.pi * (at - y[place]) / (y[place + 1] - y[place]))) / 2
    return np.stack([at, r[place] + step * (r[place + 1] - r[place])], 1)


def _tube(points: Matrix, radius: float, texture: Pixels, gloss: float) -> list[Part]:
    """Join points ``(n, 3)`` by cylinders."""
    parts = []
    for first, last in pairwise(points):
        along = last - first
        length = float(np.linalg.norm(along))
        y = along / length
        x = np.cross(y, (0.0, 0.0, 1.0))
        x = x / np.linalg.norm(x) if np.linalg.norm(x) > 1e-6 else np.array([1.0, 0.0, 0.0])
        half = length / 2 + 0.12 * radius
        profile = np.array([[-half, 0], [-half, radius], [half, radius], [half, 0]])
        frame = np.stack([x, y, np.cross(x, y)], 1)
        parts.append(Part("lathe", texture, frame=frame, centre=(first + last) / 2, profile=profile, gloss=gloss))
    return parts


def _mug(design: Design, rng: Rng, pixels: float) -> list[Part]:
    r = 0.42 * design.aspect
    foot, belly = rng.uniform(0.72, 1.02), rng.uniform(0.94, 1.12)
    profile = _smooth([(-0.5, r), (0.0, r * belly), (0.47, r * foot)], int(rng.choice([3, 7])))
    profile = np.concatenate([profile, [[0.5, 0.88 * r * foot], [0.5, 0]]])
    texture = _round_texture(profile, pixels, design.rgb[0])
    _band(texture, _rows(profile, texture, -0.47, 0.44), design, _front_share(0.85, r))
    top, bottom = rng.uniform(-0.36, -0.24), rng.uniform(0.18, 0.36)
    out = rng.uniform(0.2, 0.3)
    if rng.random() < 0.3:
        bow = np.array([[0, top], [out, top], [out, bottom], [0, bottom]])
    else:
        turn = np.linspace(-np.pi / 2, np.pi / 2, 10)
        bow = np.stack([out * np.cos(turn) ** 0.8, (top + bottom) / 2 + (bottom - top) / 2 * np.sin(turn)], 1)
    handle = np.stack([bow[:, 0] + 0.93 * r, bow[:, 1], 0 * bow[:, 0]], 1)
    ring = plain(design.rgb[int(rng.choice([0, 1, 4]))])
    body = Part("lathe", texture, profile=profile, inside=design.rgb[4], gloss=0.55)
    return [body, *_tube(handle, float(rng.uniform(0.04, 0.06)), ring, 0.5)]


def _bottle(design: Design, rng: Rng, pixels: float) -> list[Part]:
    r = design.aspect / 2
    neck, shoulder = r * rng.uniform(0.32, 0.5), rng.uniform(-0.22, -0.02)
    waist = r * rng.uniform(0.85, 1.0)
    knots = [(-0.4, neck), (-0.33, neck), (shoulder, r), (0.18, waist), (0.45, r)]
    cap = [[-0.5, 0], [-0.5, neck * 1.1], [-0.4, neck * 1.12]]
    profile = np.concatenate([cap, _smooth(knots, 12), [[0.49, 0.93 * r], [0.5, 0.85 * r], [0.5, 0]]])
    glass = tuple(int(0.55 * c) + 18 for c in design.rgb[int(rng.integers(2, 4))])
    texture = _round_texture(profile, pixels, glass)
    texture[: _rows(profile, texture, -0.4, 0).start] = design.rgb[4]
    label = (shoulder + 0.03, 0.42)
    _band(texture, _rows(profile, texture, *label), design, _front_share(label[1] - label[0], r, 0.9))
    return [Part("lathe", texture, profile=profile, gloss=0.8)]


def _jar(design: Design, rng: Rng, pixels: float) -> list[Part]:
    r = design.aspect / 2
    lid, bulge = r * rng.uniform(0.78, 0.96), rng.uniform(0.9, 1.0)
    body = _smooth([(-0.3, lid * 0.95), (-0.2, r), (0.12, r * bulge), (0.44, r)], 8)
    top = [[-0.5, 0], [-0.5, lid * 0.94], [-0.47, lid], [-0.31, lid], [-0.31, lid * 0.95]]
    profile = np.concatenate([top, body, [[0.49, 0.92 * r], [0.5, 0.8 * r], [0.5, 0]]])
    jam = tuple(int(0.7 * c) + 10 for c in design.rgb[int(rng.integers(2, 4))])
    texture = _round_texture(profile, pixels, jam)
    texture[: _rows(profile, texture, -0.31, 0).start] = design.rgb[4]
    _band(texture, _rows(profile, texture, -0.14, 0.4), design, _front_share(0.54, r, 1.1))
    return [Part("lathe", texture, profile=profile, gloss=0.7)]


def _vase(design: Design, rng: Rng, pixels: float) -> list[Part]:
    r = design.aspect / 2
    heights = np.cumsum(rng.uniform(0.7, 1.4, 5))
    heights = -0.5 + (heights - heights[0]) / (heights[-1] - heights[0])
    radii = rng.uniform(0.35, 1.0, 5)
    radii[int(rng.integers(1, 4))] = 1.0
    radii[-1] = rng.uniform(0.4, 0.75)
    wall = _smooth([(float(y), float(k * r)) for y, k in zip(heights, radii, strict=True)], 17)
    profile = np.concatenate([wall, [[0.5, 0]]])
    texture = _round_texture(profile, pixels, design.rgb[0])
    _band(texture, _rows(profile, texture, -0.46, 0.47), design, _front_share(0.93, r))
    inside = tuple(int(0.6 * c) for c in design.rgb[0])
    return [Part("lathe", texture, profile=profile, inside=(inside[0], inside[1], inside[2]), gloss=0.6)]


def _ball(design: Design, rng: Rng, pixels: float) -> list[Part]:
    texture = paint_ground(design, np.pi * 0.5 * pixels, np.pi * pixels)
    high = texture.shape[0]
    _band(texture, slice(int(0.2 * high), int(0.8 * high)), design, 0.3)
    return [Part("ellipsoid", texture, frame=np.eye(3) * 0.5, gloss=float(rng.uniform(0.15, 0.6)))]


def _egg(
    centre: Sequence[float], half: Sequence[float], texture: Pixels, *, lean: float = 0, gloss: float = 0.3
) -> Part:
    """Return an ellipsoid with half axes, leaning sideways by radians."""
    cos, sin = np.cos(lean), np.sin(lean)
    turn = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
    return Part("ellipsoid", texture, frame=turn @ np.diag(half), centre=np.array(centre, float), gloss=gloss)


def _face(ground: Colour, rng: Rng, side: int, *, nose: Colour) -> Pixels:
    """Paint a head once around: eyes and a mouth in the middle."""
    image = np.full((side, 2 * side, 3), ground, np.uint8)
    apart, level, size = rng.uniform(0.1, 0.16), rng.uniform(0.4, 0.48), rng.uniform(0.03, 0.055)
    ring = np.stack([np.cos(np.linspace(0, 6.2, 20)), np.sin(np.linspace(0, 6.2, 20))], 1) * side
    for sign in (-1, 1):
        at = np.array([1 + sign * apart, level]) * side
        fill(image, ring * (size * 1.5, size * 2) + at, (250, 250, 246))
        fill(image, ring * size + at, (26, 24, 28))
    fill(image, ring * 0.035 + np.array([1, level + 0.1]) * side, nose)
    bend = rng.uniform(0.02, 0.07)
    x = np.linspace(-0.1, 0.1, 9)
    mouth = np.stack([1 + x, level + 0.19 + bend * (1 - (x / 0.1) ** 2)], 1) * side
    cv2.polylines(
        image, [np.round(mouth * 16).astype(np.int32)], False, (60, 26, 26), max(1, side // 40), cv2.LINE_AA, 4
    )
    return image


def _figure(design: Design, rng: Rng, pixels: float) -> list[Part]:
    r = design.aspect / 2
    head = float(rng.uniform(0.13, 0.18))
    wall = _smooth([(-0.17, r * rng.uniform(0.35, 0.55)), (0.1, r * rng.uniform(0.6, 0.95)), (0.47, r)], 9)
    profile = np.concatenate([[[-0.17, 0]], wall, [[0.5, 0.94 * r], [0.5, 0]]])
    texture = _round_texture(profile, pixels, design.rgb[0])
    _band(texture, _rows(profile, texture, -0.14, 0.46), design, _front_share(0.62, r, 1.0))
    skin = ((226, 186, 150), (150, 104, 72), (236, 206, 166), (196, 150, 110))[int(rng.integers(4))]
    parts = [
        Part("lathe", texture, profile=profile, gloss=0.4),
        _egg((0, -0.27, 0), (head, head, head), _face(skin, rng, max(16, round(pixels * 0.5)), nose=design.rgb[2])),
    ]
    brim, tall = head * rng.uniform(1.05, 1.5), float(rng.uniform(0.1, 0.16))
    low, hat = -0.27 - 0.45 * head, plain(design.rgb[4])
    if rng.random() < 0.5:
        tip = np.array([[low - tall - 0.03, 0.005], [low, head * 1.02], [low + 0.015, brim], [low + 0.02, 0]])
    else:
        top = head * rng.uniform(0.6, 0.95)
        tip = np.array(
            [[low - tall, 0], [low - tall, top], [low, top], [low, brim], [low + 0.02, brim], [low + 0.02, 0]]
        )
    parts.append(Part("lathe", hat, profile=tip))
    arm = (0.05, float(rng.uniform(0.13, 0.18)), 0.05)
    for sign in (-1, 1):
        at = (sign * r * 0.86, 0.06, 0.02)
        parts.append(_egg(at, arm, plain(design.rgb[3]), lean=-sign * float(rng.uniform(0.2, 0.5))))
    return parts


def _animal(design: Design, rng: Rng, pixels: float) -> list[Part]:
    cloth = paint_ground(design, 0.6 * pixels, 1.2 * pixels)
    wide = 0.3 * design.aspect
    body = (wide, float(rng.uniform(0.24, 0.3)), 0.8 * wide)
    belly = cloth.copy()
    high = belly.shape[0]
    _band(belly, slice(int(0.24 * high), int(0.72 * high)), design, 0.24)
    limb, head = plain(design.rgb[4]), float(rng.uniform(0.18, 0.23))
    face = _face(design.rgb[0], rng, max(16, round(pixels * 0.6)), nose=design.rgb[2])
    top = 0.2 - body[1] - 0.6 * head
    parts = [
        _egg((0, 0.2, 0), body, belly, gloss=0.04),
        _egg((0, top, 0.02), (head * 1.1, head, head), face, gloss=0.04),
    ]
    ear = [(0.07, 0.07, 0.04), (0.05, 0.17, 0.035), (0.04, 0.1, 0.05)][int(rng.integers(3))]
    lean = float(rng.uniform(0.1, 0.6))
    for sign in (-1, 1):
        up = head * 0.8 + 0.5 * ear[1]
        parts.append(_egg((sign * head * 0.75, top - up, 0), ear, limb, lean=sign * lean, gloss=0.04))
        arm = (0.065, float(rng.uniform(0.15, 0.2)), 0.065)
        parts.append(_egg((sign * (body[0] + 0.02), 0.12, -0.01), arm, cloth, lean=-sign * 0.5, gloss=0.04))
        parts.append(_egg((sign * body[0] * 0.72, 0.43, 0.14), (0.08, 0.07, 0.12), limb, gloss=0.04))
    return parts


def _brick(centre: Sequence[float], half: Sequence[float], texture: Pixels) -> Part:
    return Part("block", texture, frame=np.diag(half), centre=np.array(centre, float), gloss=0.2)


def _three(front: Pixels, side: Pixels, lid: Pixels) -> Pixels:
    """Put front, side and lid side by side, as a block wants them."""
    height, width = front.shape[:2]
    others = [cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA) for image in (side, lid)]
    return np.concatenate([front, *others], 1)


def _robot(design: Design, rng: Rng, pixels: float) -> list[Part]:
    wide = 0.33 * design.aspect
    deep, trunk = wide * rng.uniform(0.6, 0.9), float(rng.uniform(0.2, 0.25))
    front = paint_wrap(design, 2 * trunk * pixels, 6 * wide * pixels, front=1 / 3)
    third = front.shape[1] // 3
    parts = [
        _brick(
            (0, 0.08, 0),
            (wide, trunk, deep),
            _three(front[:, third : 2 * third], front[:, :third], plain(design.rgb[0])),
        )
    ]
    head = (wide * rng.uniform(0.55, 0.85), float(rng.uniform(0.11, 0.15)), deep * 0.8)
    side = max(16, round(pixels * 0.4))
    face = _face(design.rgb[3], rng, side, nose=design.rgb[2])[:, side // 2 : side + side // 2]
    middle = 0.08 - trunk - head[1] - 0.015
    parts.append(_brick((0, middle, 0), head, _three(face, plain(design.rgb[3]), plain(design.rgb[3]))))
    limb = plain(design.rgb[4])
    leg = (0.5 - 0.08 - trunk) / 2
    for sign in (-1, 1):
        parts.append(_brick((sign * wide * 0.5, 0.5 - leg, 0), (wide * 0.32, leg, deep * 0.6), limb))
        arm = np.array([[sign * (wide + 0.05), -0.06, 0], [sign * (wide + rng.uniform(0.05, 0.14)), 0.24, 0.06]])
        parts += _tube(arm, 0.045, limb, 0.3)
        parts.append(_egg((*arm[1][:1], arm[1][1] + 0.03, arm[1][2]), (0.06, 0.06, 0.06), plain(design.rgb[1])))
    if rng.random() < 0.7:
        tip = np.array([[0, middle - head[1] - 0.1, 0], [0, middle - head[1], 0]])
        parts += _tube(tip, 0.016, plain(_METAL), 0.5)
        parts.append(_egg(tip[0], (0.035, 0.035, 0.035), plain(design.rgb[2])))
    return parts


def make_plain(rng: Rng) -> tuple[float, tuple[Part, ...]]:
    """Build a thing without print: a ball, an egg, a block, a pencil, a bowl, a bottle, a spinning top.

    Returns:
        its width (1 is its height) and its parts.
    """
    colour = np.array(list(COLOURS.values())[int(rng.integers(len(COLOURS)))]) + rng.normal(0, 14, 3)
    colour += rng.uniform(0.1, 0.7) * (colour.mean() - colour)  # things are duller than print
    paint = plain([int(c) for c in np.clip(colour, 8, 246)])
    gloss, sort = float(rng.uniform(0.05, 0.7)), int(rng.integers(7))
    if sort == 0:
        return 1.0, (_egg((0, 0, 0), (0.5, 0.5, 0.5), paint, gloss=gloss),)
    if sort == 1:
        wide = float(rng.uniform(0.35, 0.9))
        return 2 * wide, (_egg((0, 0, 0), (wide, 0.5, wide), paint, gloss=gloss),)
    if sort == 2:
        half = rng.uniform(0.3, 0.7, 2)
        return 2 * float(half[0]), (Part("block", paint, frame=np.diag([half[0], 0.5, half[1]]), gloss=gloss),)
    if sort == 3:
        profile = np.array([[-0.5, 0.0], [-0.48, 0.012], [-0.4, 0.045], [0.5, 0.045], [0.5, 0]])
        return 0.09, (Part("lathe", paint, profile=profile, gloss=gloss),)
    wide = float(rng.uniform(0.4, 0.9))
    if sort == 4:
        wall = _smooth([(-0.5, wide), (0.3, wide * rng.uniform(0.6, 0.9)), (0.5, wide * 0.4)], 6)
        r, g, b = (int(0.8 * c) for c in paint[0, 0])
        part = Part("lathe", paint, profile=np.concatenate([wall, [[0.5, 0]]]), gloss=gloss, inside=(r, g, b))
        return 2 * wide, (part,)
    top = wide * float(rng.uniform(0.1, 0.3))
    low = wide if sort == 5 else 0.02
    wall = _smooth([(-0.5, top), (-0.2, top), (0.1, wide * 0.8), (0.5, low)], 9)
    return 2 * wide, (Part("lathe", paint, profile=np.concatenate([[[-0.5, 0]], wall, [[0.5, 0]]]), gloss=gloss),)


_BUILDERS: dict[Form, Callable[[Design, Rng, float], list[Part]]] = {
    "can": _can,
    "mug": _mug,
    "bottle": _bottle,
    "jar": _jar,
    "vase": _vase,
    "ball": _ball,
    "figure": _figure,
    "animal": _animal,
    "robot": _robot,
}


def is_solid(form: Form) -> bool:
    """Tell whether things of a form are made of solid parts, not of flat faces."""
    return form in _BUILDERS


def make_body(design: Design, pixels: int) -> tuple[Part, ...]:
    """Build and paint a solid thing about 1 high around the origin; its larger side has ``pixels`` pixels of print."""
    rng = np.random.default_rng([design.shape, 1])
    return tuple(_BUILDERS[design.kind.form](design, rng, pixels / max(1.0, design.aspect)))
