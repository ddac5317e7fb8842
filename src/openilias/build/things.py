"""Made-up things in space: flat prints, boxes, cans and plain solids, and how they look from one side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from openilias.build.faces import paint_faces
from openilias.build.textures import Pixels
from openilias.build.words import COLOURS, Design

Rng = np.random.Generator
Quad = NDArray[np.float32]
_LIGHT = np.array([-0.35, -0.5, 0.79])


@dataclass(frozen=True)
class Thing:
    """A thing ready to be posed; its faces are ``(h, w, 4)`` uint8 RGBA, colours multiplied by alpha."""

    form: Literal["flat", "round", "box", "can", "solid"]
    aspect: float
    depth: float
    faces: tuple[Pixels, ...]


@dataclass(frozen=True)
class Pose:
    """Angles in radians; the camera's distance in heights of the thing; ``lying``: roll comes before tilt."""

    yaw: float
    pitch: float
    roll: float
    distance: float
    lying: bool


@dataclass(frozen=True)
class Patch:
    """One visible face: its RGBA pixels, its corners ``(4, 2)`` float32 from its top left, its light."""

    face: Pixels
    quad: Quad
    light: float


def make_thing(design: Design, pixels: int) -> Thing:
    """Paint a design with ``pixels`` along the larger side of its front."""
    faces = []
    for face in paint_faces(design, pixels):
        alpha = np.full((*face.shape[:2], 1), 255, np.uint8)
        if design.kind.form == "round":
            side = face.shape[0]
            alpha[...] = 0
            cv2.circle(alpha, (side * 8, side * 8), side * 8 - 8, 255, -1, cv2.LINE_AA, 4)
            face = (face * (alpha / 255.0)).astype(np.uint8)
        faces.append(np.concatenate([face, alpha], 2))
    return Thing(design.kind.form, design.aspect, design.depth, tuple(faces))


def make_solid(rng: Rng, pixels: int) -> Thing:
    """Make a plain shaded thing without print: a ball, a rod, a block, a leaf."""
    aspect = float(rng.choice([1.0, 1.0, 0.8, 1.25, 0.5, 0.1]))
    power = float(rng.choice([2.0, 2.0, 2.6, 8.0]))
    height, width = pixels, max(4, round(pixels * aspect))
    y = np.linspace(-1.02, 1.02, height, dtype=np.float32)[:, None]
    x = np.linspace(-1.02, 1.02, width, dtype=np.float32)[None]
    body = np.abs(x) ** power + np.abs(y) ** power
    alpha = np.clip((1 - body) * width / (2 * power) + 0.5, 0, 1)
    z = np.sqrt(np.clip(1 - body, 0, 1))
    light = 0.45 + 0.6 * np.clip(-0.4 * x - 0.55 * y + 0.72 * z, 0, 1)
    shine = 120 * rng.random() * np.exp(-((x + 0.35) ** 2 + (y + 0.45) ** 2) * 14)
    colour = np.array(list(COLOURS.values())[int(rng.integers(len(COLOURS)))]) + rng.normal(0, 14, 3)
    colour += rng.uniform(0.1, 0.7) * (colour.mean() - colour)  # things are duller than print
    rgb = np.clip(light[..., None] * colour + shine[..., None], 0, 255) * alpha[..., None]
    face = np.concatenate([rgb, alpha[..., None] * 255], 2).astype(np.uint8)
    return Thing("solid", aspect, 0.0, (face,))


def _turn(axis: int, angle: float) -> NDArray[np.float64]:
    cos, sin = np.cos(angle), np.sin(angle)
    a, b = [i for i in range(3) if i != axis]
    matrix = np.eye(3)
    matrix[a, a] = matrix[b, b] = cos
    matrix[a, b], matrix[b, a] = -sin, sin
    return matrix


def _can_face(wrap: Pixels, aspect: float, yaw: float, tilt: float) -> Pixels:
    """Bend a label around a can seen from a little above: RGBA of can and lid."""
    label = wrap.shape[0]
    width = max(8, round(label * aspect))
    lid = max(2.0, width / 2 * np.sin(tilt))
    tall = label * np.cos(tilt)
    x = np.linspace(-1, 1, width, dtype=np.float32)[None]
    y = np.arange(int(tall + 2 * lid) + 1, dtype=np.float32)[:, None]
    bow = np.sqrt(1 - x * x)
    down = (y - np.float32(lid) * (1 + bow)) / np.float32(tall)
    around = np.arcsin(x) + 0 * y
    map_x = ((around + yaw) / (2 * np.pi) + 0.5) * wrap.shape[1]
    seen: NDArray[np.float32] = cv2.remap(
        wrap, map_x.astype(np.float32), np.float32(label) * down, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP
    ).astype(np.float32)
    seen[..., :3] *= (0.42 + 0.62 * np.clip(np.cos(around + 0.5), 0, 1) + 0.2 * np.exp(-((x + 0.45) ** 2) * 60))[
        ..., None
    ]
    rim = (down < 0.03) | (down > 0.97)
    seen[rim] *= np.array([0, 0, 0, 1], np.float32)
    seen[rim] += np.array([120, 122, 126, 0], np.float32)
    inside = (down >= 0) & (down <= 1)
    ellipse = x * x + ((y - np.float32(lid)) / np.float32(lid)) ** 2
    seen[~inside] = 0
    seen[(ellipse <= 1) & (down < 0)] = (176, 178, 182, 255)
    seen[(ellipse <= 0.8) & (down < 0)] = (206, 208, 212, 255)
    return np.asarray(np.clip(seen, 0, 255), np.uint8)


_FRONT = [[-1, -1, 1], [1, -1, 1], [1, 1, 1], [-1, 1, 1]]
_LEFT = [[-1, -1, -1], [-1, -1, 1], [-1, 1, 1], [-1, 1, -1]]
_RIGHT = [[1, -1, 1], [1, -1, -1], [1, 1, -1], [1, 1, 1]]
_TOP = [[-1, -1, -1], [1, -1, -1], [1, -1, 1], [-1, -1, 1]]
_BOTTOM = [[-1, 1, 1], [1, 1, 1], [1, 1, -1], [-1, 1, -1]]


def _flat_quads(thing: Thing) -> tuple[list[Pixels], NDArray[np.float64]]:
    """Return the faces and their corners ``(n, 4, 3)``, clockwise from outside; y down, z to the camera."""
    half = np.array([thing.aspect, 1.0, thing.depth]) / 2
    if thing.form != "box":
        return [thing.faces[0]], np.array([_FRONT]) * half
    front, side, lid = thing.faces
    return [front, side, side, lid, lid], np.array([_FRONT, _LEFT, _RIGHT, _TOP, _BOTTOM]) * half


def pose_thing(thing: Thing, pose: Pose) -> list[Patch]:
    """Project the visible faces of a thing; the box around all of them has its middle at 0 and area 1."""
    if thing.form in ("can", "solid"):
        face = thing.faces[0]
        if thing.form == "can":
            face = _can_face(face, thing.aspect, pose.yaw, min(0.5, abs(pose.pitch)))
        h, w = face.shape[0] / 2, face.shape[1] / 2
        corners = np.array([[-w, -h], [w, -h], [w, h], [-w, h]]) @ _turn(2, pose.roll)[:2, :2].T
        patches = [Patch(face, corners.astype(np.float32), 1.0)]
    else:
        tilt, roll = _turn(0, pose.pitch) @ _turn(1, pose.yaw), _turn(2, pose.roll)
        rotation = tilt @ roll if pose.lying else roll @ tilt
        camera = pose.distance * max(1.0, thing.aspect)
        faces, corners = _flat_quads(thing)
        points = corners @ rotation.T
        right, down = points[:, 1] - points[:, 0], points[:, 3] - points[:, 0]
        normals = np.roll(right, -1, 1) * np.roll(down, 1, 1) - np.roll(right, 1, 1) * np.roll(down, -1, 1)
        normals /= np.sqrt((normals**2).sum(1, keepdims=True))
        facing = (normals * ((0, 0, camera) - points.mean(1))).sum(1) > 0
        lights = np.clip(0.5 + 0.62 * normals @ _LIGHT, 0.35, 1.15)
        quads = (points[..., :2] / (camera - points[..., 2:])).astype(np.float32)
        patches = [Patch(faces[i], quads[i], float(lights[i])) for i in range(len(faces)) if facing[i]]
    everything = np.concatenate([patch.quad for patch in patches])
    low, high = everything.min(0), everything.max(0)
    scale = np.float32(1 / np.sqrt(np.prod(high - low)))
    return [Patch(p.face, (p.quad - (low + high) / 2) * scale, p.light) for p in patches]


def extent(patches: Sequence[Patch]) -> tuple[float, float]:
    """Return width and height of what :func:`pose_thing` gave; their product is 1."""
    low_high = np.concatenate([p.quad for p in patches])
    width, height = low_high.max(0) - low_high.min(0)
    return float(width), float(height)
