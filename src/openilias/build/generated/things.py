"""Made-up things in space: flat prints, boxes and solids, and how they look from one side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from openilias.build.generated.bodies import is_solid, make_body, make_plain
from openilias.build.generated.designs import Design
from openilias.build.generated.faces import paint_faces
from openilias.build.generated.solids import Matrix, Part, see
from openilias.build.generated.textures import Pixels, outline_points
from openilias.build.generated.words import Form

Rng = np.random.Generator
Quad = NDArray[np.float32]
_LIGHT = np.array([-0.35, -0.5, 0.79])
_SQUARE = np.array([[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]])
_CIRCLE = np.stack([f(np.linspace(0, 2 * np.pi, 64, endpoint=False)) for f in (np.cos, np.sin)], 1) / 2


@dataclass(frozen=True, eq=False)
class Thing:
    """A thing ready to be posed, its height 1 and its middle at the origin; the same only as itself.

    Attributes:
        form: of its kind; ``plain`` for solids without print.
        aspect: width / height.
        depth: of a box, depth / height.
        faces: of flat things and boxes, ``(h, w, 4)`` uint8 RGBA, colours multiplied by alpha.
        outline: of a flat thing, ``(n, 2)``, its edge in units of width and height.
        parts: of a solid.
    """

    form: Form | Literal["plain"]
    aspect: float
    depth: float = 0.0
    faces: tuple[Pixels, ...] = ()
    outline: Matrix = field(default_factory=lambda: _SQUARE)
    parts: tuple[Part, ...] = ()

    @property
    def flat(self) -> bool:
        """Whether it has one face only."""
        return len(self.faces) == 1


@dataclass(frozen=True)
class Pose:
    """Rotation (3, 3) from the thing to the camera, which looks along -z; its distance in heights of the thing."""

    turn: Matrix
    distance: float


@dataclass(frozen=True)
class Patch:
    """One visible face: RGBA pixels, corners ``(4, 2)`` float32 from the top left, edge ``(n, 2)``, its light."""

    face: Pixels
    quad: Quad
    edge: Quad
    light: float


def _edge_of(design: Design) -> Matrix:
    """Return the outline of a flat thing in units of its width and height, its box the unit square."""
    if design.kind.form == "round":
        return _CIRCLE
    if design.kind.form != "cut":
        return _SQUARE
    rng = np.random.default_rng([design.shape, 2])
    if design.kind.mid == "sticker":
        name = str(rng.choice(["blob", "flower", "gear", "polygon", "star"]))
        points = outline_points(name, int(rng.integers(5, 11)), rng)
        points = points / np.abs(points).max()
        reach = np.linalg.norm(points, axis=1, keepdims=True)
        points = points * (0.4 + 0.6 / np.maximum(reach, 0.2))  # fuller, so that print has room
    else:
        cut = rng.uniform(0.08, 0.3)
        angle = np.linspace(0, 2 * np.pi, 64, endpoint=False)
        power = rng.uniform(0.2, 1.0)  # between a rectangle and an ellipse
        round_ = np.stack([np.sign(f) * np.abs(f) ** power for f in (np.cos(angle), np.sin(angle))], 1)
        tag = np.array([[-1, -1 + cut], [-1 + cut, -1], [1 - cut, -1], [1, -1 + cut], [1, 1 - cut], [1 - cut, 1]])
        tag = np.concatenate([tag, [[-1 + cut, 1], [-1, 1 - cut]]])
        one_sided = np.array([[-1, -0.3], [-1 + 2 * cut, -1], [1, -1], [1, 1], [-1 + 2 * cut, 1], [-1, 0.3]])
        points = (round_, tag, one_sided)[int(rng.integers(3))]
    low, high = points.min(0), points.max(0)
    return np.asarray((points - low) / (high - low) - 0.5)


def _cut_out(face: Pixels, edge: Matrix, *, border: bool) -> Pixels:
    """Make ``(h, w, 4)`` of a face: cut along its edge, with a white border along it if asked."""
    height, width = face.shape[:2]
    alpha = np.full((height, width), 255, np.uint8)
    if edge is not _SQUARE:
        alpha[...] = 0
        points = (edge + 0.5) * (width - 1, height - 1)
        cv2.fillPoly(alpha, [np.round(points * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
        if border:
            thick = max(1, round(0.035 * min(height, width)))
            face = face.copy()
            line = [np.round(points * 16).astype(np.int32)]
            cv2.polylines(face, line, True, (246, 245, 240), 2 * thick, cv2.LINE_AA, 4)
        face = (face * (alpha[..., None] / 255.0)).astype(np.uint8)
    return np.concatenate([face, alpha[..., None]], 2)


def _dished(face: Pixels) -> Pixels:
    """Shade a plate: a rim that rises around a flat middle."""
    side = face.shape[0]
    at = np.linspace(-1, 1, side, dtype=np.float32)
    x, y = at[None], at[:, None]
    radius = np.sqrt(x * x + y * y)
    slope = np.where(radius > 0.68, np.float32(1.0), 0) - 2.0 * np.exp(-(((radius - 0.66) / 0.03) ** 2))
    light = 1 + 0.13 * slope * (x * 0.6 + y * 0.8) / np.maximum(radius, 0.2)
    return np.asarray(np.clip(face * light[..., None], 0, 255), np.uint8)


def make_thing(design: Design, pixels: int) -> Thing:
    """Build and paint a design with ``pixels`` along the larger side of its front."""
    form = design.kind.form
    if is_solid(form):
        return Thing(form, design.aspect, parts=make_body(design, pixels))
    edge = _edge_of(design)
    painted = paint_faces(design, pixels)
    if design.kind.mid == "plate":
        painted = (_dished(painted[0]),)
    faces = tuple(_cut_out(face, edge, border=form == "cut") for face in painted)
    return Thing(form, design.aspect, design.depth, faces, edge)


def make_solid(rng: Rng) -> Thing:
    """Make a plain shaded thing without print."""
    aspect, parts = make_plain(rng)
    return Thing("plain", aspect, parts=parts)


def turned(*, yaw: float = 0.0, pitch: float = 0.0, roll: float = 0.0, lying: bool = False) -> Matrix:
    """Return a rotation from angles in radians.

    ``yaw`` turns about the upright axis, ``pitch`` below zero looks from above. ``roll`` turns in the picture; of a
    ``lying`` thing it turns on the surface before the camera is tilted by ``pitch``.
    """
    (cy, sy), (cp, sp), (cr, sr) = ((np.cos(a), np.sin(a)) for a in (yaw, pitch, roll))
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_x = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    about_z = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    return np.asarray(about_x @ about_z @ about_y if lying else about_z @ about_x @ about_y)


_FRONT = [[-1, -1, 1], [1, -1, 1], [1, 1, 1], [-1, 1, 1]]
_BOX = [
    _FRONT,
    [[-1, -1, -1], [-1, -1, 1], [-1, 1, 1], [-1, 1, -1]],
    [[1, -1, 1], [1, -1, -1], [1, 1, -1], [1, 1, 1]],
    [[-1, -1, -1], [1, -1, -1], [1, -1, 1], [-1, -1, 1]],
    [[-1, 1, 1], [1, 1, 1], [1, 1, -1], [-1, 1, -1]],
    [[1, -1, -1], [-1, -1, -1], [-1, 1, -1], [1, 1, -1]],
]


def _flat_patches(thing: Thing, pose: Pose, distance: float) -> list[Patch]:
    half = np.array([thing.aspect, 1.0, thing.depth]) / 2
    corners = np.array(_BOX[: len(thing.faces)]) * half
    points = corners @ pose.turn.T
    right, down = points[:, 1] - points[:, 0], points[:, 3] - points[:, 0]
    normals = np.roll(right, -1, 1) * np.roll(down, 1, 1) - np.roll(right, 1, 1) * np.roll(down, -1, 1)
    normals /= np.sqrt((normals**2).sum(1, keepdims=True))
    facing = (normals * ((0, 0, distance) - points.mean(1))).sum(1) > 0
    lights = np.clip(0.5 + 0.62 * normals @ _LIGHT, 0.35, 1.15)
    quads = (points[..., :2] / (distance - points[..., 2:])).astype(np.float32)
    edges = quads
    if thing.flat and thing.outline is not _SQUARE:
        edge = np.column_stack([thing.outline * (thing.aspect, 1.0), np.zeros(len(thing.outline))]) @ pose.turn.T
        edges = (edge[:, :2] / (distance - edge[:, 2:])).astype(np.float32)[None]
    return [Patch(thing.faces[i], quads[i], edges[i], float(lights[i])) for i in range(len(thing.faces)) if facing[i]]


def pose_thing(thing: Thing, pose: Pose, root: float = 120.0) -> list[Patch]:
    """Project what is visible of a thing; the box around all of it has its middle at 0 and area 1.

    Args:
        thing: the thing.
        pose: how it is turned.
        root: solids are rendered with about ``root ** 2`` pixels.

    Returns:
        the faces towards the camera; none of a flat thing seen from behind.
    """
    distance = pose.distance * max(1.0, thing.aspect)
    if thing.parts:
        face, quad = see(thing.parts, pose.turn, distance, root)
        patches = [Patch(face, quad, quad, 1.0)]
    else:
        patches = _flat_patches(thing, pose, distance)
        if not patches:
            return []
    everything = np.concatenate([patch.edge for patch in patches])
    low, high = everything.min(0), everything.max(0)
    middle, scale = (low + high) / 2, np.float32(1 / np.sqrt(np.prod(high - low)))
    return [Patch(p.face, (p.quad - middle) * scale, (p.edge - middle) * scale, p.light) for p in patches]


def spun(patches: Sequence[Patch], angle: float) -> list[Patch]:
    """Turn what :func:`pose_thing` gave in the picture by radians; the box around it keeps area 1 and middle 0."""
    cos, sin = np.cos(angle), np.sin(angle)
    turn = np.array([[cos, sin], [-sin, cos]], np.float32)
    edges = [patch.edge @ turn for patch in patches]
    points = np.concatenate(edges)
    low, high = points.min(0), points.max(0)
    middle, scale = (low + high) / 2, np.float32(1 / np.sqrt(np.prod(high - low)))
    return [
        Patch(p.face, (p.quad @ turn - middle) * scale, (edge - middle) * scale, p.light)
        for p, edge in zip(patches, edges, strict=True)
    ]


def extent(patches: Sequence[Patch]) -> tuple[float, float]:
    """Return width and height of what :func:`pose_thing` gave; their product is 1."""
    points = np.concatenate([p.edge for p in patches])
    width, height = points.max(0) - points.min(0)
    return float(width), float(height)
