"""The layout of the printed faces of a made-up thing."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from openilias.build.generated.designs import Design
from openilias.build.generated.textures import Colour, Mask, Pixels, draw_shape, fill, paint_pattern, place_text
from openilias.build.generated.words import invent_word

# What the random numbers of a face are for: a trait that changes does not move what the others draw.
_PLACES, _GROUND, _MOTIF, _SMALL, _PRINT = range(5)


def _stream(design: Design, purpose: int) -> np.random.Generator:
    """Return the random numbers of one aspect of all faces of a design."""
    return np.random.default_rng([design.layout, design.texture if purpose == _GROUND else 0, purpose])


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


def paint_front(image: Pixels, design: Design, *, inset: float = 0.02) -> None:
    """Lay out the main face over its ground: motif, small shapes, title, second word, fine print, mark.

    Args:
        image: ``(h, w, 3)`` uint8 RGB with the ground; it is changed.
        design: whose face it is.
        inset: share of each side that is left free all around.
    """
    rng, small = _stream(design, _PLACES), _stream(design, _SMALL)
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
    grounded, panelled, printed, framed = int(rng.integers(2, 5)), rng.random(), rng.random(), rng.random()
    for _ in range(design.small_count):
        angle, far = small.uniform(0, 2 * np.pi), radius * small.uniform(1.1, 1.6)
        at = (
            motif_x + far * np.cos(angle),
            motif_y + far * np.sin(angle),
            0.5 * short * small.uniform(0.06, 0.15),
        )
        draw_shape(image, np.random.default_rng(design.layout), design.small, 5, at, rgb[3:4])
    motif = (rgb[2], rgb[3], rgb[4], rgb[1])
    draw_shape(image, _stream(design, _MOTIF), design.outline, design.points, (motif_x, motif_y, radius), motif)
    ground = rgb[grounded]
    if panelled < 0.75:
        image[int(title_y) : int(title_y + panel), int(left * 0.5) : int(width - left * 0.5)] = ground
    else:
        ground = rgb[0]
    place_text(
        image,
        design.title.upper(),
        design.style,
        (left + 0.05 * w, title_y + 0.12 * panel, 0.9 * w, 0.76 * panel),
        _against(ground, rgb),
    )
    below = title_y + 1.15 * panel if title_up else title_y - 0.6 * panel
    second = (left + 0.2 * w, below, 0.6 * w, 0.42 * panel)
    place_text(image, design.second.title(), "bold", second, _against(rgb[0], rgb))
    foot = top + (0.84 * h if title_up else 0.05 * h)
    text_x, mark_x = (left + 0.06 * w, left + 0.86 * w) if side else (left + 0.42 * w, left + 0.14 * w)
    if printed < 0.6:
        box = (text_x, foot, 0.52 * w, 0.12 * h)
        _fine_print(image, _stream(design, _PRINT), box, _against(rgb[0], rgb))
    _mark(image, design, (mark_x, foot + 0.06 * h, 0.1 * short))
    if inset < 0.1 and framed < 0.4:
        thick = max(1, int(0.02 * short))
        image[:thick], image[-thick:], image[:, :thick], image[:, -thick:] = rgb[1], rgb[1], rgb[1], rgb[1]


def paint_side(image: Pixels, design: Design) -> None:
    """Lay out a lesser face over its ground: the title along it, fine print, a barcode, the mark."""
    rng = _stream(design, _PRINT)
    height, width = image.shape[:2]
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
        design.title.upper(),
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


def paint_ground(design: Design, height: float, width: float) -> Pixels:
    """Paint the pattern of a design: about ``(height, width, 3)`` uint8 RGB."""
    size = (max(8, round(height)), max(8, round(width)))
    return paint_pattern(design.pattern, _stream(design, _GROUND), size, design.rgb)


def paint_wrap(design: Design, height: float, width: float, *, front: float = 0.36) -> Pixels:
    """Paint what goes once around a thing: the front in its middle, a share ``front`` of it wide, a side behind."""
    wrap = paint_ground(design, height, width)
    around = wrap.shape[1]
    paint_side(wrap[:, : around // 5], design)
    paint_front(wrap[:, int((0.5 - front / 2) * around) : int((0.5 + front / 2) * around)], design)
    return wrap


def _pages(height: float, width: float, *, upright: bool) -> Pixels:
    """Paint the edges of the pages of a closed book."""
    size = (max(8, round(height)), max(8, round(width)))
    lines = np.random.default_rng(7).integers(196, 240, size[1] if upright else size[0])
    tone = np.broadcast_to(lines[None, :] if upright else lines[:, None], size)
    return np.stack([tone, tone - 4, tone - 18], 2).astype(np.uint8)


def paint_faces(design: Design, pixels: int) -> tuple[Pixels, ...]:
    """Paint the faces of a flat thing or a box; the larger side of its front has ``pixels`` pixels.

    Returns:
        ``(height, width, 3)`` uint8 RGB each: a flat thing its front; a box or book its front, left, right, top,
        bottom and back.
    """
    height = pixels / max(1.0, design.aspect)
    width = height * design.aspect
    front = paint_ground(design, height, width)
    paint_front(front, design, inset={"round": 0.16, "cut": 0.14}.get(design.kind.form, 0.02))
    if design.kind.form not in ("box", "book"):
        return (front,)
    deep = design.depth * height
    side, back = paint_ground(design, height, deep), paint_ground(design, height, width)
    paint_side(side, design)
    paint_side(back, design)
    if design.kind.form == "book":
        edge, top = _pages(height, deep, upright=True), _pages(deep, width, upright=False)
        return front, side, edge, top, top, back
    top = paint_ground(design, deep, width)
    paint_side(top, design)
    return front, side, side, top, top, back
