"""What faces are painted with: patterns, shapes, lettering. Arrays in, arrays out."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from openilias.build.generated.words import Style

Mask = NDArray[np.uint8]
Pixels = NDArray[np.uint8]
Floats = NDArray[np.floating[Any]]
Colour = Sequence[int]


_RING_HOLE = 0.6  # of the radius of a ring


@lru_cache(maxsize=16)
def _font(size: int) -> Any:
    return ImageFont.load_default(size)


@lru_cache(maxsize=256)
def lettering(text: str, style: Style, height: int = 64) -> Mask:
    """Draw one line of text.

    Pillow's own font is drawn, not an OpenCV one: those differ between OpenCV 4 and 5.

    Returns:
        ``(about height, w)`` uint8, 255 on the ink and 0 beside it, cut close to the ink.
    """
    if style == "spaced":
        text = " ".join(text)
    font = _font(height)
    stroke = {"bold": height // 26, "heavy": height // 15, "outlined": height // 18}.get(style, 0)
    left, top, right, bottom = font.getbbox(text, stroke_width=stroke)
    picture = Image.new("L", (max(int(right - left), 1) + 4, max(int(bottom - top), 1) + 4))
    draw = ImageDraw.Draw(picture)
    draw.text((2 - left, 2 - top), text, font=font, fill=255, stroke_width=stroke)
    if style == "outlined":
        draw.text((2 - left, 2 - top), text, font=font, fill=0)
    mask: Mask = np.array(picture)
    if style == "slanted":
        lean = 0.3
        extra = int(lean * mask.shape[0])
        shear = np.array([[1, -lean, extra], [0, 1, 0]], np.float32)
        mask = cv2.warpAffine(mask, shear, (mask.shape[1] + extra, mask.shape[0]))
    mask.setflags(write=False)  # it is shared by the cache
    return mask


def grid(height: int, width: int) -> tuple[Floats, Floats]:
    """Return x ``(1, width)`` and y ``(height, 1)`` float32 of pixel centres, in units of the larger side."""
    unit = max(height, width)
    x = (np.arange(width, dtype=np.float32) + np.float32(0.5))[None] / unit
    y = (np.arange(height, dtype=np.float32) + np.float32(0.5))[:, None] / unit
    return x, y


def bands(phase: Floats, duty: float, per_pixel: float) -> Floats:
    """Turn a phase in cycles into soft-edged bands: 1 on a share ``duty`` of each cycle, else 0."""
    triangle = np.abs(phase - np.floor(phase) - np.float32(0.5)) * 2
    cover: Floats = np.clip((duty - triangle) / max(2 * per_pixel, 1e-6) + 0.5, 0, 1)
    return cover


def _cover(name: str, rng: np.random.Generator, height: int, width: int) -> Floats:
    """Return how much of the second colour a pattern shows, ``(height, width)`` float32 in [0, 1]."""
    x, y = grid(height, width)
    n = float(rng.uniform(5, 13))
    pixel = n / max(height, width)
    turn, duty = rng.uniform(0, np.pi), float(rng.uniform(0.3, 0.6))
    cos, sin = np.float32(np.cos(turn)), np.float32(np.sin(turn))
    u, v = n * (cos * x + sin * y), n * (cos * y - sin * x)
    if name == "stripes":
        return bands(u, duty, pixel)
    if name == "checks":
        a, b = bands(n * x + 0 * y, 0.5, pixel), bands(n * y + 0 * x, 0.5, pixel)
        return a + b - 2 * a * b
    if name == "dots":
        distance = np.hypot(u - np.round(u), v - np.round(v))
        return np.clip((duty * 0.6 - distance) / pixel + 0.5, 0, 1).astype(np.float32)
    if name == "waves":
        swing = np.float32(rng.uniform(0.2, 0.6))
        return bands(n * y + swing * np.sin(np.float32(rng.uniform(10, 30)) * x), duty, pixel)
    if name == "lattice":
        return np.maximum(bands(u, 0.16, pixel), bands(v, 0.16, pixel))
    dx, dy = x - np.float32(rng.uniform(0.25, 0.5)), y - np.float32(rng.uniform(0.25, 0.6))
    if name == "rings":
        return bands(n * np.hypot(dx, dy), duty, pixel)
    if name == "rays":
        phase = np.arctan2(dy, dx) * np.float32(round(n) / (2 * np.pi)) * 2
        return bands(phase.astype(np.float32), 0.5, 2 * pixel)
    if name == "gradient":
        low, high = float(u.min()), float(u.max())
        return ((u - low) / (high - low)).astype(np.float32)
    return np.zeros((height, width), np.float32)


def fill(image: Pixels, points: NDArray[np.floating], colour: Colour) -> None:
    """Fill a polygon, ``(n, 2)`` x, y in pixels, with soft edges; ``image`` is changed."""
    _fill(image, [points], colour)


def _fill(image: Pixels, contours: Sequence[NDArray[np.floating]], colour: Colour) -> None:
    """Fill what an odd number of contours go around."""
    rounded = [np.round(points * 16).astype(np.int32) for points in contours]
    cv2.fillPoly(image, rounded, [int(c) for c in colour], cv2.LINE_AA, 4)


def _shade(colour: Colour, by: float) -> tuple[int, int, int]:
    r, g, b = (int(np.clip(c * by, 0, 255)) for c in colour)
    return r, g, b


def _facets(image: Pixels, rng: np.random.Generator, colours: Sequence[Colour]) -> None:
    """Tile an image with triangles of a shaken grid."""
    height, width = image.shape[:2]
    rows = int(rng.integers(4, 8))
    columns = max(3, round(rows * width / height))
    ys, xs = np.meshgrid(np.linspace(0, height, rows + 1), np.linspace(0, width, columns + 1), indexing="ij")
    knots = np.stack([xs, ys], -1)
    shake = rng.uniform(-0.38, 0.38, knots.shape) * (width / columns, height / rows)
    shake[[0, -1], :, 1] = 0
    shake[:, [0, -1], 0] = 0
    knots += shake
    for i in range(rows):
        for j in range(columns):
            a, b, c, d = knots[i, j], knots[i, j + 1], knots[i + 1, j + 1], knots[i + 1, j]
            for triangle in ((a, b, c), (a, c, d)):
                fill(image, np.array(triangle), _shade(colours[int(rng.integers(2))], rng.uniform(0.72, 1.2)))


def _hills(image: Pixels, rng: np.random.Generator, colours: Sequence[Colour]) -> None:
    """Paint a sky with a sun and rows of hills before it."""
    height, width = image.shape[:2]
    sun = (rng.uniform(0.15, 0.85) * width, rng.uniform(0.15, 0.4) * height)
    fill(image, outline_points("circle", 3, rng) * rng.uniform(0.08, 0.16) * width + sun, colours[3])
    x = np.linspace(0, width, 48)
    rows = int(rng.integers(3, 6))
    for row in range(rows):
        level = 0.42 + 0.5 * row / rows
        waves = sum(
            rng.uniform(0.01, 0.07) / k * np.sin(k * rng.uniform(3, 8) * x / width + rng.uniform(0, 6))
            for k in (1, 2, 4)
        )
        top = np.stack([x, (level + waves) * height], 1)
        floor = np.array([[width, height], [0, height]])
        fill(image, np.concatenate([top, floor]), _shade(colours[1 + row % 2], 1.15 - 0.12 * row))


def paint_pattern(name: str, rng: np.random.Generator, size: tuple[int, int], rgb: Sequence[Colour]) -> Pixels:
    """Paint a ground of ``size`` (height, width): ``(height, width, 3)`` uint8 RGB."""
    cover = _cover(name, rng, *size)[..., None]
    first, second = np.array(rgb[0], np.float32), np.array(rgb[1], np.float32)
    image: Pixels = (first + cover * (second - first)).astype(np.uint8)
    if name == "facets":
        _facets(image, rng, rgb)
    elif name == "hills":
        _hills(image, rng, rgb)
    return image


def outline_points(name: str, points: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return a closed outline of about unit radius, ``(n, 2)`` float64."""
    turn = rng.uniform(0, 2 * np.pi)
    if name in ("star", "gear", "polygon"):
        steps = {"star": 2, "gear": 4, "polygon": 1}[name]
        angle = turn + np.arange(points * steps) * 2 * np.pi / (points * steps)
        inner = rng.uniform(0.4, 0.62) if name == "star" else 0.78
        low = {"star": (0, 1), "gear": (0, 0, 1, 1), "polygon": (0,)}[name]
        radius = np.where(np.tile(low, points), inner, 1.0)
    else:
        angle = np.linspace(0, 2 * np.pi, 72, endpoint=False)
        radius = np.ones(72)
        if name == "flower":
            radius = 0.72 + 0.28 * np.cos(points * angle + turn)
        elif name == "blob":
            radius = 0.75 + np.cos(np.outer(angle, [2, 3, 4, 5]) + turn) @ rng.uniform(-0.2, 0.2, 4)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1)


def draw_shape(
    image: Pixels,
    rng: np.random.Generator,
    name: str,
    points: int,
    at: tuple[float, float, float],
    colours: Sequence[Colour],
) -> None:
    """Draw an outline with smaller ones inside it; ``at`` is x, y, radius in pixels."""
    x, y, radius = at
    turns = outline_points(name, points, rng)
    holes = (1.0, _RING_HOLE) if name == "ring" else (1.0,)
    inner = 1.0
    for place, colour in enumerate(colours):
        if place:
            inner *= float(rng.uniform(0.5, 0.8))
        _fill(image, [turns * radius * inner * hole + (x, y) for hole in holes], colour)


def place_text(
    image: Pixels,
    text: str,
    style: Style,
    box: tuple[float, float, float, float],
    colour: Colour,
    *,
    upright: bool = True,
    height: int = 64,
) -> None:
    """Write text as large as fits into ``box`` (x, y, width, height in pixels), centred.

    ``height`` is that of the letters before they are fitted: less is faster, for small text.
    """
    mask = lettering(text, style, height)
    if not upright:
        mask = np.rot90(mask)
    x, y, width, tall = box
    scale = min(width / mask.shape[1], tall / mask.shape[0])
    # Letters are drawn up to 30% narrower or wider than the font has them, to fill their box.
    w = max(1, int(min(width, mask.shape[1] * scale * 1.3)))
    h = max(1, int(min(tall, mask.shape[0] * scale * 1.3)))
    small: Mask = cv2.resize(mask, (w, h), interpolation=cv2.INTER_AREA)
    left, top = int(x + (width - w) / 2), int(y + (tall - h) / 2)
    part = image[top : top + h, left : left + w]
    ink = small[: part.shape[0], : part.shape[1], None].astype(np.float32) / 255
    part[...] = (part + ink * (np.array(colour, np.float32) - part)).astype(np.uint8)
