"""Putting posed things into a picture: layers with alpha, shadows, boxes, and how much of a layer is hidden."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np

from openilias.build.generated.surfaces import Canvas
from openilias.build.generated.textures import Pixels
from openilias.build.generated.things import Patch, Quad
from openilias.images.boxes import Box


@dataclass(frozen=True)
class Layer:
    """A thing at a place: colours ``(h, w, 3)`` float32 to 255 multiplied by alpha, alpha ``(h, w)`` in [0, 1].

    ``x`` and ``y`` are where its top left corner lies in the picture, of which it may stick out.
    """

    colour: Canvas
    alpha: Canvas
    x: int
    y: int

    def moved(self, dx: int, dy: int) -> Layer:
        """Return the layer at another place."""
        return replace(self, x=self.x + dx, y=self.y + dy)


def make_layer(patches: Sequence[Patch], root: float, centre: tuple[float, float]) -> Layer:
    """Draw a posed thing whose box has ``root ** 2`` pixels around ``centre`` (x, y)."""
    quads = [p.quad * np.float32(root) + np.array(centre, np.float32) for p in patches]
    points = np.concatenate(quads)
    corner = np.floor(points.min(0)) - 1
    size = tuple(int(v) for v in np.ceil(points.max(0)) + 1 - corner)
    colour, alpha = _warp(patches[0], quads[0] - corner.astype(np.float32), (size[0], size[1]))
    for patch, quad in zip(patches[1:], quads[1:], strict=True):
        other, cover = _warp(patch, quad - corner.astype(np.float32), (size[0], size[1]))
        behind = 1 - cover
        colour = colour * cv2.merge((behind, behind, behind)) + other
        alpha = np.maximum(alpha, cover)
    return Layer(colour, alpha, int(corner[0]), int(corner[1]))


def _warp(patch: Patch, quad: Quad, size: tuple[int, int]) -> tuple[Canvas, Canvas]:
    """Warp a face onto ``quad`` in a layer of ``size`` (width, height)."""
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


def _overlap(canvas: Canvas, x: int, y: int, shape: tuple[int, ...]) -> tuple[slice, slice, slice, slice]:
    """Return rows and columns of the canvas, then of a layer at (x, y), where they meet."""
    top, left = max(0, y), max(0, x)
    bottom, right = max(top, min(canvas.shape[0], y + shape[0])), max(left, min(canvas.shape[1], x + shape[1]))
    return slice(top, bottom), slice(left, right), slice(top - y, bottom - y), slice(left - x, right - x)


def cast_shadow(canvas: Canvas, layer: Layer, strength: float, *, standing: bool) -> None:
    """Darken the canvas by the shadow of a layer: under and beside a lying thing, along the floor of a standing one."""
    root = float(np.sqrt(layer.alpha.size))
    reach, alpha, x, y = 1.5 + 0.055 * root, layer.alpha, layer.x, layer.y
    if standing:
        height, width = alpha.shape
        lean, flat = 0.55, 0.3  # the light comes from the upper left, in front: the shadow falls to the right, behind
        tall, wide = max(2, round(flat * height)), round(width + lean * flat * height)
        matrix = np.array([[1, -lean * flat * height / tall, lean * flat * height], [0, 1, 0]], np.float32)
        low = cv2.resize(alpha, (width, tall), interpolation=cv2.INTER_AREA)
        alpha = cv2.warpAffine(low, matrix, (wide, tall))
        y += height - tall
        reach *= 0.6
    pad = int(reach) + 1
    soft = cv2.copyMakeBorder(alpha, pad, pad, pad, pad, cv2.BORDER_CONSTANT)
    kernel = (pad | 1, pad | 1)
    soft = cv2.blur(soft, kernel)
    if pad > 5:  # on small ones nobody sees the corners of a box blur
        soft = cv2.blur(soft, kernel)
    if not standing:
        x, y = x + int(0.4 * reach), y + int(0.6 * reach)
    rows, columns, own_rows, own_columns = _overlap(canvas, x - pad, y - pad, soft.shape)
    part = canvas[rows, columns]
    if part.size:
        dark = 1 - np.float32(strength) * soft[own_rows, own_columns]
        part *= cv2.merge((dark, dark, dark))


def paste(canvas: Canvas, layer: Layer) -> None:
    """Put a layer over the canvas, which is changed."""
    rows, columns, own_rows, own_columns = _overlap(canvas, layer.x, layer.y, layer.alpha.shape)
    part = canvas[rows, columns]
    if part.size:
        behind = 1 - layer.alpha[own_rows, own_columns]
        part *= cv2.merge((behind, behind, behind))
        part += layer.colour[own_rows, own_columns]


def visible_box(layer: Layer, size: tuple[int, int]) -> Box | None:
    """Return the tight box of what a layer shows within a picture of ``size`` (height, width).

    A pixel counts if the thing covers more than half of it (of a tiny thing: as much as it covers of any), also where
    another thing lies in front; what the frame cuts off does not count. None if nothing is left.
    """
    top, left = max(0, -layer.y), max(0, -layer.x)
    inside = layer.alpha[top : size[0] - layer.y, left : size[1] - layer.x] if _meets(layer, size) else None
    if inside is None or not inside.any():
        return None
    shown = inside > 0.5 if inside.max() > 0.5 else inside == inside.max()
    rows, columns = np.flatnonzero(shown.any(1)), np.flatnonzero(shown.any(0))
    x, y = layer.x + left + int(columns[0]), layer.y + top + int(rows[0])
    return Box(x, y, int(columns[-1] - columns[0]) + 1, int(rows[-1] - rows[0]) + 1)


def _meets(layer: Layer, size: tuple[int, int]) -> bool:
    height, width = layer.alpha.shape
    return layer.x < size[1] and layer.y < size[0] and layer.x + width > 0 and layer.y + height > 0


def hidden_share(layer: Layer, front: Sequence[Layer], size: tuple[int, int]) -> float:
    """Return the share of a layer within a picture of ``size`` (height, width) that layers in front hide, by alpha."""
    height, width = layer.alpha.shape
    free = np.ones((height, width), np.float32)
    for other in front:
        rows, columns, own_rows, own_columns = _overlap(free, other.x - layer.x, other.y - layer.y, other.alpha.shape)
        free[rows, columns] *= 1 - other.alpha[own_rows, own_columns]
    top, left = max(0, -layer.y), max(0, -layer.x)
    inside = (slice(top, max(top, size[0] - layer.y)), slice(left, max(left, size[1] - layer.x)))
    whole = float(layer.alpha[inside].sum())
    return max(0.0, 1 - float((layer.alpha[inside] * free[inside]).sum()) / whole) if whole > 0 else 0.0


def cut_share(layer: Layer, size: tuple[int, int]) -> float:
    """Return the share of a layer, by alpha, that lies outside a picture of ``size`` (height, width)."""
    top, left = max(0, -layer.y), max(0, -layer.x)
    inside = layer.alpha[top : max(top, size[0] - layer.y), left : max(left, size[1] - layer.x)]
    return max(0.0, 1 - float(inside.sum()) / max(float(layer.alpha.sum()), 1e-6))


def cut_by_frame(layer: Layer, size: tuple[int, int], share: float, side: int) -> Layer:
    """Move a layer over one side of the frame (0 left, 1 right, 2 top, 3 bottom) until ``share`` of it is cut off."""
    sums = layer.alpha.sum(0 if side < 2 else 1)
    if side % 2:
        sums = sums[::-1]
    out = int(np.searchsorted(np.cumsum(sums) / sums.sum(), share))
    extent = layer.alpha.shape[1 if side < 2 else 0]
    frame = size[1] if side < 2 else size[0]
    at = -out if side % 2 == 0 else frame - extent + out
    return layer.moved(at - layer.x, 0) if side < 2 else layer.moved(0, at - layer.y)
