"""The resize rules of the benchmark and zero padding."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

from openilias.core.protocol import ResizeRule
from openilias.images.decode import MOST_PIXELS, UnreadableImageError

Floats = npt.NDArray[np.float32]


def longest_size(width: int, height: int, resolution: int) -> tuple[int, int]:
    """Return (width, height) with the larger side ``resolution`` and the other truncated, at least 1."""
    ratio = height / width
    if ratio <= 1:
        return resolution, max(1, int(resolution * ratio))
    return max(1, int(resolution / ratio)), resolution


def resize(image: Image.Image, rule: ResizeRule, resolution: int) -> Image.Image:
    """Resize an RGB picture by one of the rules of the official code.

    ``longest`` and ``pad`` are bicubic, the others bilinear, all antialiased as Pillow does. ``pad`` only resizes:
    its zeros come after the normalisation (:func:`pad_to`).

    Raises:
        UnreadableImageError: the whole of a long image by ``small`` or ``center``, of which ``center`` is cut out,
            would have more than :data:`~openilias.images.decode.MOST_PIXELS` pixels.
    """
    width, height = image.size
    if rule in ("longest", "pad"):
        return image.resize(longest_size(width, height, resolution), Image.Resampling.BICUBIC)
    if rule == "square":
        return image.resize((resolution, resolution), Image.Resampling.BILINEAR)
    # The other side is truncated from exact integers, as torchvision does.
    small = (
        (resolution, int(resolution * height / width))
        if width <= height
        else (int(resolution * width / height), resolution)
    )
    if small[0] * small[1] > MOST_PIXELS:
        raise UnreadableImageError(
            f"This image of {width} x {height} pixels becomes {small[0]} x {small[1]} by the resize rule {rule!r}.",
            fix="Crop it, or take another resize rule.",
        )
    image = image.resize(small, Image.Resampling.BILINEAR)
    if rule == "small":
        return image
    left, top = round((image.width - resolution) / 2), round((image.height - resolution) / 2)
    return image.crop((left, top, left + resolution, top + resolution))


def _split(extra: int) -> tuple[int, int]:
    return extra // 2, extra - extra // 2


def pad_to(array: Floats, height: int, width: int) -> Floats:
    """Put zeros around a (C, H, W) array up to the given size, the odd pixel right and below.

    A side that is larger already is left as it is.
    """
    _, h, w = array.shape
    return np.pad(array, ((0, 0), _split(max(height - h, 0)), _split(max(width - w, 0))))


def pad_to_multiple(array: Floats, multiple: tuple[int, int]) -> Floats:
    """Put zeros around a (C, H, W) array up to the next multiple of (height, width), as :func:`pad_to`."""
    _, h, w = array.shape
    return pad_to(array, -(-h // multiple[0]) * multiple[0], -(-w // multiple[1]) * multiple[1])
