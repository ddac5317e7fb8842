"""Light and camera: what becomes of a scene on its way to a picture, and the camera that its file names."""

from __future__ import annotations

import cv2
import numpy as np
from PIL import Image

from openilias.build.generated.knobs import Streams
from openilias.build.generated.surfaces import Canvas, Rng, grain
from openilias.build.generated.textures import Pixels

CAMERAS = (
    ("Tarnik", "Tarnik T450", 20),
    ("Obrell", "OBRELL V30", 16),
    ("Pelqua", "Pelqua 12", 13),
    ("Obrell", "OBRELL V31", 11),
    ("Wendrix", "Wendrix Nota 5 Pro", 9),
    ("Pelqua", "Pelqua 14 Pro", 8),
    ("Tarnik", "Tarnik T6 Mark II", 7),
    ("Sundo", "Sundo CX-1", 6),
    ("Wendrix", "Wendrix M5", 5),
    ("Pelqua", "Pelqua Mini (3rd generation)", 3),
    ("Tarnik", "Tarnik Quickshot S5", 2),
)
"""Cameras that nobody makes: maker, model, and in how many of 100 pictures it is named."""
_MAKE, _MODEL = 0x010F, 0x0110


def _light(rng: Rng, height: int, width: int, strength: float) -> tuple[Canvas, Canvas, float]:
    """Return the light on a scene, ``(h, w)`` for each channel, glare ``(h, w)``, and a gamma."""
    cast, exposure = rng.normal(0, 0.09, 3), rng.normal(-0.03, 0.17)
    gain = np.exp((cast + exposure) * strength).astype(np.float32)
    x = np.linspace(-1, 1, width, dtype=np.float32)[None]
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    slope = (rng.normal(0, 0.16, 2) * strength).astype(np.float32)
    fall = np.float32(0.14 * strength * rng.random())
    light = np.clip(1 + slope[0] * x + slope[1] * y - fall * (x * x + y * y), 0.15, 1.9)
    # The shadow of something outside the picture, with a soft straight edge.
    angle, far, soft = rng.uniform(0, 2 * np.pi), rng.uniform(-0.2, 0.7), rng.uniform(0.02, 0.2)
    dark = min(0.85, 0.3 * strength) * (rng.random() < 0.4)
    beyond = (np.float32(np.cos(angle)) * x + np.float32(np.sin(angle)) * y - np.float32(far)) / np.float32(soft)
    light *= 1 - np.float32(dark) * np.clip(beyond * np.float32(0.5) + np.float32(0.5), 0, 1)
    # A lamp that is mirrored.
    at, reach = rng.uniform(-0.7, 0.7, 2).astype(np.float32), np.float32(rng.uniform(0.15, 0.5))
    peak = np.float32(70 * strength * (rng.random() < 0.4))
    glare = peak * np.exp(-((x - at[0]) ** 2 + (y - at[1]) ** 2) / (reach * reach))
    return np.stack([light * g for g in gain]), glare, float(np.exp(rng.normal(0, 0.1) * strength))


def _smear(rng: Rng, canvas: Canvas, sigma: float) -> Canvas:
    """Blur a picture by ``sigma`` pixels: out of focus, or now and then by a movement of the camera."""
    moved, angle = rng.random() < 0.15, rng.uniform(0, np.pi)
    if sigma < 0.3:  # a Gaussian this small is one pixel
        return canvas
    if not moved:
        return np.asarray(cv2.GaussianBlur(canvas, (0, 0), sigma), np.float32)
    # A line of length l has the standard deviation l / sqrt(12); across it half the blur remains.
    half = sigma * np.sqrt(3)
    side = 2 * int(np.ceil(half)) + 3
    kernel = np.zeros((side, side), np.float32)
    middle = np.array([side // 2, side // 2]) * 16
    step = np.array([np.cos(angle), np.sin(angle)]) * half * 16
    ends = [tuple(int(v) for v in middle + sign * step) for sign in (-1, 1)]
    cv2.line(kernel, ends[0], ends[1], 1.0, 1, cv2.LINE_AA, 4)
    kernel = cv2.GaussianBlur(kernel, (0, 0), max(0.3, sigma / 2))
    return np.asarray(cv2.filter2D(canvas, -1, kernel / kernel.sum()), np.float32)


def photograph(streams: Streams, canvas: Canvas, *, illumination: float, blur: float, noise: float = 1.0) -> Pixels:
    """Let light and camera at a scene.

    Args:
        streams: of the picture.
        canvas: ``(h, w, 3)`` float32 RGB, about 0 to 255.
        illumination: strength of cast, exposure, gradient, shadow, glare and haze; 0 leaves the light as it is.
        blur: standard deviation in pixels of a picture of 500 pixels.
        noise: strength of the sensor noise; 0 is none, 1 usual.

    Returns:
        ``(h, w, 3)`` uint8 RGB.
    """
    height, width = canvas.shape[:2]
    seen = canvas
    if illumination > 0:
        rng = streams.of("light")
        light, glare, gamma = _light(rng, height, width, illumination)
        seen = cv2.merge([canvas[..., i] * light[i] + glare for i in range(3)])
        if abs(gamma - 1) > 0.02:
            table = (255 * (np.arange(1025) / 1024) ** gamma).astype(np.float32)
            seen = table[np.clip(seen * np.float32(1024 / 255), 0, 1024).astype(np.int16)]
        haze = np.float32(rng.uniform(0, 22) * illumination)
        seen = seen * (1 - haze / 255) + haze
    # The exposure ends where the sensor is full, before lens and noise are added here.
    seen = np.clip(seen, 0, 255)
    seen = _smear(streams.of("shake"), seen, blur * max(height, width) / 500)
    if noise > 0:
        rng = streams.of("noise")
        seen = seen + grain(rng, (height, width)) * np.float32(rng.gamma(2.0, 1.6) * noise)
    return np.asarray(np.clip(seen, 0, 255) + np.float32(0.5), np.uint8)


def camera_exif(streams: Streams) -> Image.Exif:
    """Return EXIF that names the camera of a picture.

    Each picture draws its own: two of one object have the same one in 12 of 100 pairs, as any two pictures have, so
    that the camera does not tell which belong together.
    """
    shares = np.array([share for *_, share in CAMERAS])
    make, model, _ = CAMERAS[int(streams.of("camera").choice(len(CAMERAS), p=shares / shares.sum()))]
    exif = Image.Exif()
    exif[_MAKE], exif[_MODEL] = make, model
    return exif
