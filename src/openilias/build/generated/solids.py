"""Solid things seen by a camera: turned bodies, ellipsoids and blocks, ray by ray in closed form.

Object space has x to the right, y down and z towards the viewer of the front; the camera looks along -z.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from openilias.build.generated.textures import Pixels

Floats = NDArray[np.float32]
Matrix = NDArray[np.float64]
_LIGHT = np.array([-0.42, -0.55, 0.72], np.float32)
_AROUND = np.linspace(0, 2 * np.pi, 13)[:-1]
_SPHERE = np.array(
    [
        [np.sin(a) * c, s, np.cos(a) * c]
        for s, c in ((-1, 0), (-0.7, 0.72), (0, 1), (0.7, 0.72), (1, 0))
        for a in _AROUND
    ]
)
_CORNERS = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], float)


@dataclass(frozen=True)
class Part:
    """One primitive of a solid.

    Attributes:
        shape: ``lathe`` (a profile turned around y), ``ellipsoid`` (the unit sphere) or ``block`` (the cube of
            half side 1).
        texture: ``(h, w, 3)`` uint8 RGB. Around a lathe or ellipsoid it runs once, its middle in front, and from
            top to bottom along the surface; a block has its front in the left third, its sides in the middle, its
            top and bottom in the right third.
        frame: ``(3, 3)`` from local to object space.
        centre: ``(3,)`` of the local origin in object space.
        profile: of a lathe, ``(n, 2)``: y from top to bottom, and radius.
        inside: colour of what is seen through the opening of a lathe; None if it is closed.
        gloss: strength of the highlight in [0, 1].
    """

    shape: Literal["lathe", "ellipsoid", "block"]
    texture: Pixels
    frame: Matrix = field(default_factory=lambda: np.eye(3))
    centre: Matrix = field(default_factory=lambda: np.zeros(3))
    profile: Matrix = field(default_factory=lambda: np.zeros((0, 2)))
    inside: tuple[int, int, int] | None = None
    gloss: float = 0.3

    def hull(self) -> Matrix:
        """Return points ``(n, 3)`` in object space around the part."""
        if self.shape == "ellipsoid":
            local = _SPHERE * 1.06
        elif self.shape == "block":
            local = _CORNERS
        else:
            local = np.concatenate([_ring(y, r) for y, r in self.profile])
        return np.asarray(local @ self.frame.T + self.centre)


def _ring(y: float, radius: float) -> Matrix:
    wide = radius * 1.04  # the corners of a dodecagon around the circle
    return np.stack([wide * np.sin(_AROUND), np.full(len(_AROUND), y), wide * np.cos(_AROUND)], 1)


@dataclass
class _View:
    """The rays of a picture: camera position and directions in object space, and its pixel grid."""

    origin: Floats
    columns: Floats  # (w,) x of the picture plane
    rows: Floats  # (h,)
    turn: Floats  # object to camera
    distance: float

    def window(self, points: Matrix) -> tuple[slice, slice]:
        """Return the rows and columns that points in object space project into."""
        seen = points @ self.turn.T.astype(float)
        plane = seen[:, :2] / (self.distance - seen[:, 2:])
        x0, y0 = plane.min(0)
        x1, y1 = plane.max(0)
        columns = slice(int(np.searchsorted(self.columns, x0)), int(np.searchsorted(self.columns, x1, "right")))
        rows = slice(int(np.searchsorted(self.rows, y0)), int(np.searchsorted(self.rows, y1, "right")))
        return rows, columns

    def rays(self, rows: slice, columns: slice, back: Matrix) -> tuple[Floats, ...]:
        """Return the directions' x, y, z ``(h, w)`` after the map ``back`` (3, 3) from object to local space."""
        m = (back @ self.turn.T).astype(np.float32)
        x, y = self.columns[columns][None], self.rows[rows][:, None]
        return tuple(m[i, 0] * x + (m[i, 1] * y - m[i, 2]) for i in range(3))


def _lathe(part: Part, view: _View, back: Matrix, depth: Floats, section: NDArray[np.int8]) -> None:
    """Keep the nearest hits of the frustums of a lathe; ``depth`` and ``section`` of the whole picture are changed."""
    ox, oy, oz = (back @ (view.origin - part.centre)).astype(np.float32)
    for number, ((y0, r0), (y1, r1)) in enumerate(zip(part.profile[:-1], part.profile[1:], strict=True)):
        rings = np.concatenate([_ring(y0, r0), _ring(y1, r1)])
        rows, columns = view.window(rings @ part.frame.T + part.centre)
        if rows.start >= rows.stop or columns.start >= columns.stop:
            continue
        dx, dy, dz = view.rays(rows, columns, back)
        near = depth[rows, columns]
        kept = section[rows, columns]
        if abs(y1 - y0) < 1e-4:  # a flat ring
            t = (np.float32(y0) - oy) / dy
            radius = (ox + t * dx) ** 2 + (oz + t * dz) ** 2
            hit = (t < near) & (radius <= max(r0, r1) ** 2) & (radius >= min(r0, r1) ** 2)
            near[hit], kept[hit] = t[hit], number
            continue
        slope = np.float32((r1 - r0) / (y1 - y0))
        m = np.float32(r0) + slope * (oy - np.float32(y0))
        a = dx * dx + dz * dz - (slope * dy) ** 2
        b = ox * dx + oz * dz - slope * m * dy
        root = b * b - a * (ox * ox + oz * oz - m * m)
        there = root >= 0
        root = np.sqrt(np.maximum(root, 0))
        a = np.where(np.abs(a) < 1e-9, np.float32(1e-9), a)
        for sign in (-1, 1) if part.inside is not None else (-1,):
            t = (-b + np.float32(sign) * root) / a
            y = oy + t * dy
            hit = there & (y >= y0) & (y <= y1) & (t < near) & (t > 0)
            near[hit], kept[hit] = t[hit], number


def _ellipsoid(part: Part, view: _View, back: Matrix, window: tuple[slice, slice], depth: Floats) -> None:
    o = (back @ (view.origin - part.centre)).astype(np.float32)
    dx, dy, dz = view.rays(*window, back)
    a = dx * dx + dy * dy + dz * dz
    b = o[0] * dx + o[1] * dy + o[2] * dz
    root = b * b - a * np.float32(o @ o - 1)
    t = (-b - np.sqrt(np.maximum(root, 0))) / a
    near = depth[window]
    hit = (root >= 0) & (t < near)
    near[hit] = t[hit]


def _block(part: Part, view: _View, back: Matrix, window: tuple[slice, slice], depth: Floats) -> None:
    o = (back @ (view.origin - part.centre)).astype(np.float32)
    enter, leave = np.float32(-np.inf), np.float32(np.inf)
    for i, d in enumerate(view.rays(*window, back)):
        safe = np.where(np.abs(d) < 1e-9, np.float32(1e-9), d)
        middle, half = -o[i] / safe, 1 / np.abs(safe)
        enter, leave = np.maximum(enter, middle - half), np.minimum(leave, middle + half)
    near = depth[window]
    hit = (enter <= leave) & (enter < near)
    near[hit] = np.broadcast_to(enter, near.shape)[hit]


def _lathe_surface(part: Part, x: Floats, y: Floats, z: Floats, section: Any) -> tuple[Any, Any, Any, Any]:
    """Return normal (nx, ny, nz) and the share of the way along the profile at hits of a lathe."""
    profile = part.profile.astype(np.float32)
    steps = np.diff(profile, axis=0)
    length = np.maximum(np.hypot(steps[:, 0], steps[:, 1]), 1e-6)
    flat = np.stack([steps[:, 0], -steps[:, 1]], 1) / length[:, None]  # outward: (radial, down)
    first, last = flat.copy(), flat.copy()
    smooth = (flat[1:] * flat[:-1]).sum(1) > 0.6  # sharper bends stay edges
    mean = flat[1:] + flat[:-1]
    mean /= np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), 1e-6)
    first[1:][smooth] = mean[smooth]
    last[:-1][smooth] = mean[smooth]
    radius = np.sqrt(x * x + z * z)
    along = np.where(
        np.abs(steps[section, 0]) > np.abs(steps[section, 1]),
        (y - profile[section, 0]) / np.where(steps[section, 0] == 0, 1, steps[section, 0]),
        (radius - profile[section, 1]) / np.where(steps[section, 1] == 0, 1, steps[section, 1]),
    ).clip(0, 1)
    normal = first[section] + along[..., None] * (last[section] - first[section])
    arc = np.concatenate([[0], np.cumsum(length)]).astype(np.float32)
    share = (arc[section] + along * length[section]) / arc[-1]
    unit = 1 / np.maximum(radius, 1e-6)
    return normal[..., 0] * x * unit, normal[..., 1], normal[..., 0] * z * unit, share


def _colours(
    part: Part, view: _View, back: Matrix, depth: Floats, section: Any, scale: float
) -> tuple[Floats, Floats, Floats]:
    """Return colour (h, w, 3), diffuse light and highlight (h, w) of a part whose rays hit at ``depth``."""
    window = (slice(0, depth.shape[0]), slice(0, depth.shape[1]))
    directions = view.rays(*window, back)
    local = back @ (view.origin - part.centre)
    t = np.where(np.isfinite(depth), depth, 0)
    x, y, z = (np.float32(o) + t * d for o, d in zip(local, directions, strict=True))
    if part.shape == "lathe":
        nx, ny, nz, v = _lathe_surface(part, x, y, z, section)
        u = np.arctan2(x, z) * np.float32(0.5 / np.pi) + np.float32(0.5)
    elif part.shape == "ellipsoid":
        nx, ny, nz = x, y, z
        u = np.arctan2(x, z) * np.float32(0.5 / np.pi) + np.float32(0.5)
        v = np.arcsin(np.clip(y, -1, 1)) * np.float32(1 / np.pi) + np.float32(0.5)
    else:
        most = np.stack([np.abs(x), np.abs(y), np.abs(z)]).argmax(0)
        nx, ny, nz = (np.where(most == i, np.sign(w), 0) for i, w in enumerate((x, y, z)))
        across = np.where(most == 0, -np.sign(x) * z, x * np.where(nz < 0, -1, 1))
        u = (across.clip(-0.98, 0.98) / 2 + np.float32(0.5) + np.choose(most, [1, 2, 0]) + (nz < 0)) / 3
        v = np.where(most == 1, z * np.sign(y), y) / 2 + np.float32(0.5)
    texture = part.texture
    if scale < 1:  # shrunk first: a remap alone reads single pixels
        size = (max(2, round(texture.shape[1] * scale)), max(2, round(texture.shape[0] * scale)))
        texture = cv2.resize(texture, size, interpolation=cv2.INTER_AREA)
    high, wide = texture.shape[:2]
    map_x = np.asarray(u * wide - 0.5, np.float32)
    map_y = np.asarray((v * high - 0.5).clip(0, high - 1), np.float32)
    colour: Floats = cv2.remap(texture, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP).astype(np.float32)
    # To camera space; a normal goes by the inverse transpose of the frame.
    to_camera = (view.turn @ np.linalg.inv(part.frame).T).astype(np.float32)
    n = [to_camera[i, 0] * nx + to_camera[i, 1] * ny + to_camera[i, 2] * nz for i in range(3)]
    unit = 1 / np.maximum(np.sqrt(n[0] ** 2 + n[1] ** 2 + n[2] ** 2), 1e-6)
    facing = nx * directions[0] + ny * directions[1] + nz * directions[2]
    behind = facing > 0
    unit = np.where(behind, -unit, unit)
    diffuse = (n[0] * _LIGHT[0] + n[1] * _LIGHT[1] + n[2] * _LIGHT[2]) * unit
    # The highlight is where the half-way direction between light and eye is the normal.
    half = _LIGHT + np.array([0, 0, 1], np.float32)
    half /= np.linalg.norm(half)
    shine = ((n[0] * half[0] + n[1] * half[1] + n[2] * half[2]) * unit).clip(0, 1)
    shine = np.float32(part.gloss) * (shine**40 + np.float32(0.25) * shine**8)
    rim = (n[2] * unit).clip(0, 1)
    light = np.float32(0.42) + np.float32(0.66) * diffuse.clip(0, 1) - np.float32(0.16) * (1 - rim) ** 2
    if part.inside is not None:
        low, high_y = part.profile[:, 0].min(), part.profile[:, 0].max()
        deep = ((y - np.float32(low)) / np.float32(high_y - low)).clip(0, 1)
        inner = np.array(part.inside, np.float32)
        colour[behind] = inner
        light = np.where(behind, np.float32(0.8) - np.float32(0.5) * np.sqrt(deep), light)
        shine = np.where(behind, 0, shine)
    return colour, np.asarray(light, np.float32), np.asarray(shine, np.float32)


def see(parts: tuple[Part, ...], turn: Matrix, distance: float, root: float) -> tuple[Pixels, NDArray[np.float32]]:
    """Render a solid.

    Args:
        parts: what it is made of.
        turn: rotation (3, 3) from object to camera space.
        distance: of the camera from the origin, in units of object space.
        root: the picture has about ``root ** 2`` pixels.

    Returns:
        ``(h, w, 4)`` uint8 RGBA, colours multiplied by alpha, cut tight to the solid; and the corners ``(4, 2)``
        float32 of that picture in the picture plane, from the top left, clockwise.
    """
    hulls = [part.hull() for part in parts]
    seen = np.concatenate(hulls) @ turn.T
    plane = seen[:, :2] / (distance - seen[:, 2:])
    low, high = plane.min(0), plane.max(0)
    extent = float(np.sqrt(np.prod(high - low)))
    samples = float(np.clip(270 / max(root, 1), 1.2, 1.8))  # per pixel and axis
    step = extent / max(root * samples, 8)
    count = np.ceil((high - low) / step).astype(int) + 1
    grid = [(low[i] + step * np.arange(count[i])).astype(np.float32) for i in range(2)]
    view = _View((turn.T @ (0, 0, distance)).astype(np.float32), grid[0], grid[1], turn.astype(np.float32), distance)
    depth = np.full((count[1], count[0]), np.inf, np.float32)
    owner = np.full(depth.shape, -1, np.int8)
    section = np.zeros(depth.shape, np.int8)
    backs: list[Matrix] = [np.asarray(np.linalg.inv(part.frame), np.float64) for part in parts]
    for number, (part, back, hull) in enumerate(zip(parts, backs, hulls, strict=True)):
        window = view.window(hull)
        before = depth[window].copy()
        if part.shape == "lathe":
            _lathe(part, view, back, depth, section)
        elif part.shape == "ellipsoid":
            _ellipsoid(part, view, back, window, depth)
        else:
            _block(part, view, back, window, depth)
        owner[window][depth[window] < before] = number
    layer = np.zeros((*depth.shape, 4), np.float32)
    for number, (part, back) in enumerate(zip(parts, backs, strict=True)):
        mine = owner == number
        rows, columns = np.flatnonzero(mine.any(1)), np.flatnonzero(mine.any(0))
        if not rows.size:
            continue
        box = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
        piece = _View(view.origin, view.columns[box[1]], view.rows[box[0]], view.turn, distance)
        hits = np.where(mine[box], depth[box], np.inf)
        around = np.pi if part.shape != "block" else 3.0
        wide = (len(piece.columns) if part.shape != "block" else max(len(piece.columns), len(piece.rows))) * around
        kept = np.where(mine[box], section[box], 0)
        colour, light, shine = _colours(part, piece, back, hits, kept, min(1.0, wide / part.texture.shape[1]))
        lit = colour * light[..., None] + np.float32(235) * shine[..., None]
        layer[box][mine[box], :3] = lit[mine[box]]
        layer[box][mine[box], 3] = 255
    small = cv2.resize(
        layer,
        (max(1, round(count[0] / samples)), max(1, round(count[1] / samples))),
        interpolation=cv2.INTER_AREA,
    )
    face = np.asarray(np.clip(small, 0, 255) + np.float32(0.5), np.uint8)
    return _tight(face, (grid[0][0], grid[1][0]), (grid[0][-1], grid[1][-1]))


def _tight(face: Pixels, low: Any, high: Any) -> tuple[Pixels, NDArray[np.float32]]:
    """Cut a picture to what it shows; ``low`` and ``high`` are its first and last x, y in the picture plane."""
    shown = face[..., 3] > 127
    rows, columns = np.flatnonzero(shown.any(1)), np.flatnonzero(shown.any(0))
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    step = (np.array(high) - low) / (face.shape[1], face.shape[0])
    x0, x1 = low[0] + step[0] * left, low[0] + step[0] * right
    y0, y1 = low[1] + step[1] * top, low[1] + step[1] * bottom
    quad = np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], np.float32)
    return np.ascontiguousarray(face[top:bottom, left:right]), quad
