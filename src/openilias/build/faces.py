"""The layout of the printed faces of a made-up thing."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from openilias.build.textures import Colour, Mask, Pixels, draw_shape, fill, paint_pattern, place_text
from openilias.build.words import Design, invent_word


def _against(colour: Colour, palette: Sequence[Colour]) -> Colour:
    """Return the colour of the palette, or black or white, that reads best on ``colour``."""
    weights = (0.3, 0.6, 0.1)
    light = float(np.dot(colour, weights))
    return max([*palette, (250, 248, 242), (24, 22, 26)], key=lambda c: abs(float(np.dot(c, weights)) - light))


def _fine_print(
    image: Pixels, rng: np.random.Generator, box: tuple[float, float, float, float], colour: Colour
) -> None:
    """Fill ``box`` (x, y, width, height in pixels) with lines of small text."""
    x, y, width, height = box
    lines = int(rng.integers(3, 6))
    for line in range(lines):
        text = " ".join(invent_word(rng) for _ in range(3)).capitalize()
        step = height / lines
        place_text(image, text, "light", (x, y + line * step, width, 0.8 * step), colour, height=28)


def _barcode(image: Pixels, rng: np.random.Generator, box: tuple[float, float, float, float]) -> None:
    x, y, width, height = (int(v) for v in box)
    image[y : y + height, x : x + width] = 245
    inner = image[y + height // 8 : y + height - height // 8, x + width // 12 : x + width - width // 12]
    widths = rng.integers(1, 4, 40)
    bars = np.repeat(np.tile((30, 245), 20), widths).astype(np.uint8)
    if inner.size:
        row: Mask = cv2.resize(bars[None], (inner.shape[1], 1), interpolation=cv2.INTER_AREA)
        inner[...] = row[0][None, :, None]


def _mark(image: Pixels, design: Design, at: tuple[float, float, float]) -> None:
    """Draw the round mark with its letters; ``at`` is x, y, radius in pixels."""
    x, y, radius = at
    ground = design.rgb[4]
    ink = _against(ground, design.rgb)
    circle = np.stack([f(np.linspace(0, 2 * np.pi, 48, endpoint=False)) for f in (np.cos, np.sin)], 1)
    for share, colour in ((1.0, ink), (0.92, ground), (0.8, ink), (0.74, ground)):
        fill(image, circle * radius * share + (x, y), colour)
    side = radius * 0.95
    place_text(image, design.mark, "heavy", (x - side / 2, y - side / 2, side, side), ink)


def _front(image: Pixels, design: Design, rng: np.random.Generator, inset: float) -> None:
    """Lay out the main face over its ground: motif, small shapes, title, second word, fine print, mark."""
    height, width = image.shape[:2]
    left, top = inset * width, inset * height
    w, h = width - 2 * left, height - 2 * top
    rgb, short = design.rgb, min(w, h)
    title_up, side = rng.random() < 0.6, rng.random() < 0.5
    panel = float(rng.uniform(0.14, 0.22)) * h
    title_y = top + (0.05 * h if title_up else 0.93 * h - panel)
    motif_y = top + h * (0.56 if title_up else 0.42) + rng.uniform(-0.03, 0.03) * h
    motif_x = left + w * rng.uniform(0.38, 0.62)
    radius = 0.5 * short * rng.uniform(0.5, 0.68)
    for _ in range(design.small_count):
        angle, far = rng.uniform(0, 2 * np.pi), radius * rng.uniform(1.1, 1.6)
        at = (
            motif_x + far * np.cos(angle),
            motif_y + far * np.sin(angle),
            0.5 * short * rng.uniform(0.06, 0.15),
        )
        draw_shape(image, rng, design.small, 5, at, rgb[3:4])
    draw_shape(
        image,
        rng,
        design.outline,
        design.points,
        (motif_x, motif_y, radius),
        (rgb[2], rgb[3], rgb[4], rgb[1]),
    )
    ground = rgb[int(rng.integers(2, 5))]
    if rng.random() < 0.75:
        image[int(title_y) : int(title_y + panel), int(left * 0.5) : int(width - left * 0.5)] = ground
    else:
        ground = rgb[0]
    ink = _against(ground, rgb)
    place_text(
        image,
        design.words[0].upper(),
        design.style,
        (left + 0.05 * w, title_y + 0.12 * panel, 0.9 * w, 0.76 * panel),
        ink,
    )
    below = title_y + 1.15 * panel if title_up else title_y - 0.6 * panel
    place_text(
        image,
        design.words[1].title(),
        "bold",
        (left + 0.2 * w, below, 0.6 * w, 0.42 * panel),
        _against(rgb[0], rgb),
    )
    foot = top + (0.84 * h if title_up else 0.05 * h)
    text_x, mark_x = (left + 0.06 * w, left + 0.86 * w) if side else (left + 0.42 * w, left + 0.14 * w)
    if rng.random() < 0.6:
        _fine_print(image, rng, (text_x, foot, 0.52 * w, 0.12 * h), _against(rgb[0], rgb))
    _mark(image, design, (mark_x, foot + 0.06 * h, 0.1 * short))
    if inset < 0.1 and rng.random() < 0.4:
        thick = max(1, int(0.02 * short))
        image[:thick], image[-thick:], image[:, :thick], image[:, -thick:] = rgb[1], rgb[1], rgb[1], rgb[1]


def _side(image: Pixels, design: Design, rng: np.random.Generator) -> None:
    """Lay out a lesser face: the title along it, fine print, a barcode, the mark."""
    height, width = image.shape[:2]
    image[...] = paint_pattern(str(rng.choice(["plain", "gradient", design.pattern])), rng, (height, width), design.rgb)
    tall = height > 1.3 * width
    band = (
        (0.12 * width, 0.06 * height, 0.76 * width, 0.5 * height)
        if tall
        else (0.06 * width, 0.1 * height, 0.6 * width, 0.35 * height)
    )
    x, y, w, h = (int(v) for v in band)
    ground = design.rgb[int(rng.integers(2, 5))]
    image[y : y + h, x : x + w] = ground
    place_text(
        image,
        design.words[0].upper(),
        design.style,
        (x + 1, y + 1, w - 2, h - 2),
        _against(ground, design.rgb),
        upright=not tall,
    )
    ink = _against(design.rgb[0], design.rgb)
    if tall:
        _fine_print(image, rng, (0.1 * width, 0.6 * height, 0.8 * width, 0.2 * height), ink)
        _barcode(image, rng, (0.15 * width, 0.84 * height, 0.7 * width, 0.12 * height))
    else:
        _fine_print(image, rng, (0.06 * width, 0.52 * height, 0.55 * width, 0.38 * height), ink)
        _mark(image, design, (0.82 * width, 0.5 * height, 0.13 * min(height, 2 * width)))


def _canvas(design: Design, rng: np.random.Generator, height: float, width: float) -> Pixels:
    return paint_pattern(design.pattern, rng, (max(8, round(height)), max(8, round(width))), design.rgb)


def paint_faces(design: Design, pixels: int) -> tuple[Pixels, ...]:
    """Paint the faces of a thing; the larger side of its front has ``pixels`` pixels.

    Returns:
        ``(height, width, 3)`` uint8 RGB each: a flat or round thing its front; a box its front, side and top;
        a can the label around it, the front in the middle.
    """
    rng = np.random.default_rng([*design.key, 1])
    height = pixels / max(1.0, design.aspect)
    width = height * design.aspect
    if design.kind.form == "can":
        wrap = _canvas(design, rng, height, np.pi * width)
        around = wrap.shape[1]
        _side(wrap[:, : around // 5], design, rng)
        _front(wrap[:, int(0.32 * around) : int(0.68 * around)], design, rng, 0.03)
        return (wrap,)
    front = _canvas(design, rng, height, width)
    _front(front, design, rng, 0.16 if design.kind.form == "round" else 0.02)
    if design.kind.form != "box":
        return (front,)
    side, top = (
        _canvas(design, rng, height, design.depth * height),
        _canvas(design, rng, design.depth * height, width),
    )
    _side(side, design, rng)
    _side(top, design, rng)
    return front, side, top
