"""What made-up things lie on or stand before: wood, cloth, tiles, plaster, brick, carpet, marble, blur."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Canvas = NDArray[np.float32]
Size = tuple[int, int]
Rng = np.random.Generator


def fractal(rng: Rng, size: Size, *, cells: tuple[float, float], octaves: int = 4) -> Canvas:
    """Return smooth noise about 0 of standard deviation near 1, ``size`` (height, width) float32.

    ``cells`` is how many bumps the coarsest octave has down and across; each further octave has twice as many
    at half the height.
    """
    height, width = size
    total = np.zeros(size, np.float32)
    for octave in range(octaves):
        rows = int(min(height, cells[0] * 2**octave)) + 2
        columns = int(min(width, cells[1] * 2**octave)) + 2
        bumps = rng.standard_normal((rows, columns), np.float32)
        total += cv2.resize(bumps, (width, height), interpolation=cv2.INTER_LINEAR) * np.float32(0.5**octave)
    return total


@lru_cache(maxsize=2)
def _grain_tile(side: int) -> Canvas:
    tile: Canvas = np.random.default_rng(side).standard_normal((side, side, 3), np.float32)
    tile.setflags(write=False)
    return tile


def grain(rng: Rng, size: Size) -> Canvas:
    """Return white noise ``(height, width, 3)`` float32 of unit variance: a random piece of one big tile."""
    side = max(size) + 256
    top, left = (int(rng.integers(side - length + 1)) for length in size)
    return _grain_tile(side)[top : top + size[0], left : left + size[1]]


def _tint(rng: Rng, colour: tuple[int, int, int], spread: float = 18) -> Canvas:
    # Rooms are greyer than print: lightness varies more than hue.
    return (np.array(colour) + rng.normal(0, 0.45 * spread, 3) + rng.normal(0, spread)).clip(15, 240).astype(np.float32)


def _paint(value: Canvas, base: Canvas, strength: float) -> Canvas:
    light = 1 + np.float32(strength) * value
    # Channel by channel: NumPy is slow where the last axis is short.
    canvas: Canvas = cv2.merge([light * channel for channel in base])
    return canvas


def _pick(rng: Rng, *colours: tuple[int, int, int]) -> Canvas:
    return _tint(rng, colours[int(rng.integers(len(colours)))])


def _wood(rng: Rng, size: Size) -> Canvas:
    height, width = size
    planks = int(rng.integers(1, 8))
    warp = fractal(rng, size, cells=(3, 1.5), octaves=2)
    rings = np.sin(np.arange(height, dtype=np.float32)[:, None] * np.float32(rng.uniform(20, 60) / height) + warp * 3)
    fibre = fractal(rng, size, cells=(height / 3, 5), octaves=2)
    edges = np.linspace(0, height, planks + 1).astype(int)
    value = 0.35 * rings.astype(np.float32) + 0.5 * fibre
    for top, bottom in pairwise(edges):
        value[top:bottom] = np.roll(value[top:bottom], int(rng.integers(width)), axis=1) + rng.normal(0, 0.7)
        value[bottom - 1 : bottom + 1] -= 3.5 if bottom < height else 0.0
    return _paint(value, _pick(rng, (150, 104, 64), (112, 70, 44), (196, 158, 112), (170, 150, 130)), 0.11)


def _cloth(rng: Rng, size: Size) -> Canvas:
    y, x = np.arange(size[0], dtype=np.float32)[:, None], np.arange(size[1], dtype=np.float32)[None]
    thread = np.float32(rng.uniform(1.4, 2.4))
    weave = np.sin(x * thread) * np.sin(y * thread)
    folds = fractal(rng, size, cells=(2, 3), octaves=2)
    canvas = _paint(folds + 0.4 * weave, _tint(rng, (135, 125, 125), 45), 0.12)
    if rng.random() < 0.5:
        period, second = rng.uniform(25, 70), _tint(rng, (150, 140, 140), 55)
        cross = ((x + 4 * folds) % period < period / 2).astype(np.float32)
        if rng.random() < 0.6:
            cross = 0.5 * (cross + ((y + 4 * folds) % period < period / 2).astype(np.float32))
        canvas *= 1 + np.float32(0.7) * cross[..., None] * (second / 128 - 1)
    return canvas


def _to_edge(x: Canvas) -> Canvas:
    part = x - np.floor(x)
    return np.minimum(part, 1 - part)


def _blocks(rng: Rng, size: Size, *, brick: bool) -> Canvas:
    height, width = size
    tall = rng.uniform(0.06, 0.1) * max(size) if brick else rng.uniform(0.1, 0.3) * max(size)
    wide = tall * (rng.uniform(2.2, 3) if brick else 1)
    y = np.arange(height, dtype=np.float32)[:, None] / np.float32(tall)
    x = np.arange(width, dtype=np.float32)[None] / np.float32(wide)
    if brick:
        x = np.asarray(x + np.floor(y) % 2 / 2, np.float32)
    row, column = np.floor(y).astype(int), np.floor(x).astype(int)
    tone = rng.standard_normal((row.max() + 1, column.max() + 1), np.float32)[row, column]
    gap = np.float32(0.035 * tall + 1)
    joint = (_to_edge(x) * np.float32(wide) < gap) | (_to_edge(y) * np.float32(tall) < gap)
    rough = fractal(rng, size, cells=(20, 30), octaves=3)
    base = _pick(rng, (150, 78, 58), (176, 128, 100)) if brick else _tint(rng, (180, 178, 172), 35)
    canvas = _paint(tone * (0.6 if brick else 0.3) + 0.4 * rough * brick, base, 0.13)
    return np.where(joint[..., None], _paint(rough, _tint(rng, (170, 166, 158)), 0.05), canvas).astype(np.float32)


def _plaster(rng: Rng, size: Size) -> Canvas:
    rough = fractal(rng, size, cells=(3, 4), octaves=6)
    return _paint(rough, _tint(rng, (178, 172, 160), 34), rng.uniform(0.03, 0.09))


def _carpet(rng: Rng, size: Size) -> Canvas:
    pile = fractal(rng, size, cells=(size[0] / 4, size[1] / 4), octaves=2) + fractal(rng, size, cells=(3, 3), octaves=3)
    return _paint(pile, _pick(rng, (92, 98, 84), (110, 96, 110), (84, 116, 64), (120, 110, 96)), 0.14)


def _marble(rng: Rng, size: Size) -> Canvas:
    warp = fractal(rng, size, cells=(2, 2), octaves=5)
    veins = np.exp(-np.abs(np.sin(warp * 2.2)) * 6).astype(np.float32)
    base = _pick(rng, (222, 218, 210), (90, 96, 96), (190, 170, 150))
    return _paint(veins - 0.2 * warp, base, float(rng.choice([-0.28, 0.35])))


def _bokeh(rng: Rng, size: Size) -> Canvas:
    height, width = size
    small = np.empty((height // 4 + 1, width // 4 + 1, 3), np.float32)
    low, high = _tint(rng, (90, 90, 80), 40), _tint(rng, (150, 150, 150), 45)
    ramp = np.linspace(0, 1, small.shape[0], dtype=np.float32)[:, None, None]
    small[:] = low * ramp + high * (1 - ramp)
    for _ in range(int(rng.integers(10, 40))):
        at = int(rng.integers(small.shape[1])), int(rng.integers(small.shape[0]))
        colour = [float(c) for c in _tint(rng, (150, 140, 120), 60)]
        cv2.circle(small, at, int(rng.integers(2, max(4, small.shape[0] // 6))), colour, -1)
    soft = cv2.GaussianBlur(small, (0, 0), max(1.0, small.shape[0] / 30))
    canvas: Canvas = cv2.resize(soft, (width, height), interpolation=cv2.INTER_CUBIC)
    return canvas


# The last is no surface but what is far away: nothing lies on it.
_SURFACES: tuple[Callable[[Rng, Size], Canvas], ...] = (
    _wood,
    _cloth,
    lambda rng, size: _blocks(rng, size, brick=False),
    lambda rng, size: _blocks(rng, size, brick=True),
    _plaster,
    _carpet,
    _marble,
    _bokeh,
)


def surface(rng: Rng, size: Size, *, far: bool = False) -> Canvas:
    """Paint one surface of a random kind, ``(height, width, 3)`` float32 RGB, about 0 to 255.

    With ``far`` it may also be what lies out of focus far behind.
    """
    return _SURFACES[int(rng.integers(len(_SURFACES) - (0 if far else 1)))](rng, size)


def ground(rng: Rng, size: Size, tilt: float) -> Canvas:
    """Paint a surface seen from above; the camera is ``tilt`` radians off the vertical."""
    return tilted(surface(rng, size), 0.55 * float(np.sin(tilt)))


def table(rng: Rng, size: Size, edge: int) -> Canvas:
    """Paint a wall, and a floor or table top from row ``edge`` down; all floor if that is outside the picture."""
    height, edge = size[0], max(0, edge)
    canvas, below = surface(rng, size, far=True), surface(rng, size)
    if edge >= height - 2:
        return canvas
    floor = tilted(below[: height - edge], float(rng.uniform(0.35, 0.6)))
    canvas[edge:] = floor * np.linspace(0.8, 1.05, height - edge, dtype=np.float32)[:, None, None]
    if edge > 2:
        soft = max(2, height // 60)
        shade = np.linspace(1, 0.72, soft, dtype=np.float32)[:, None, None]
        canvas[max(0, edge - soft) : edge] *= shade[-min(soft, edge) :]
        canvas[edge : edge + 1] *= np.float32(0.6)
    return canvas


def shelves(rng: Rng, size: Size, boards: list[int], thick: int) -> Canvas:
    """Paint a wall with boards whose upper edges are at the rows ``boards``, each ``thick`` pixels."""
    height, width = size
    canvas = surface(rng, size) * np.float32(rng.uniform(0.65, 0.95))
    wood = _wood(rng, (max(8, thick * 2), width))
    for row in boards:
        top, bottom = max(0, row - thick // 2), min(height, row + thick)
        if bottom <= top:
            continue
        canvas[top:bottom] = wood[: bottom - top]
        canvas[top : max(top, min(row, height))] *= np.float32(1.12)  # the upper side catches the light
        canvas[max(0, row) : bottom] *= np.float32(0.78)
        dark = np.linspace(0.45, 1, 3 * thick, dtype=np.float32)[: max(0, height - bottom), None, None]
        canvas[bottom : bottom + len(dark)] *= dark
    return canvas


def tilted(canvas: Canvas, by: float) -> Canvas:
    """Look at a surface aslant: its far side, at the top, is drawn together by ``by`` in [0, 1)."""
    if by < 0.05:
        return canvas
    height, width = canvas.shape[:2]
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    out = by * width
    spread = corners + np.array([[0, 0], [0, 0], [out, 0], [-out, 0]], np.float32)
    matrix: Any = cv2.getPerspectiveTransform(corners, spread)
    seen: Canvas = cv2.warpPerspective(canvas, matrix, (width, height), borderMode=cv2.BORDER_REFLECT)
    return seen
