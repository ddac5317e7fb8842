"""The resize rules of the benchmark."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

from openilias.core.protocol import Resizer, ResizeRule
from openilias.images.decode import MOST_PIXELS, UnreadableImageError

Pixels = npt.NDArray[np.uint8]


def longest_size(width: int, height: int, resolution: int) -> tuple[int, int]:
    """Return (width, height) with the larger side ``resolution`` and the other truncated, at least 1."""
    ratio = height / width
    if ratio <= 1:
        return resolution, max(1, int(resolution * ratio))
    return max(1, int(resolution / ratio)), resolution


def resize_plan(width: int, height: int, rule: ResizeRule, resolution: int) -> tuple[int, int]:
    """Return the (width, height) that a rule resizes to, before anything is cut out or put around.

    Raises:
        UnreadableImageError: the whole of a long image by ``small`` or ``center``, of which ``center`` is cut out,
            would have more than :data:`~openilias.images.decode.MOST_PIXELS` pixels.
    """
    if rule in ("longest", "pad"):
        return longest_size(width, height, resolution)
    if rule == "square":
        return resolution, resolution
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
    return small


def resize(image: Image.Image, rule: ResizeRule, resolution: int, resizer: Resizer = "pillow") -> Pixels:
    """Resize an RGB picture by one of the rules of the official code; return (H, W, 3) uint8.

    ``longest`` and ``pad`` are bicubic, the others bilinear, all antialiased as Pillow does. ``pad`` only resizes:
    its zeros come after the normalisation.

    Raises:
        UnreadableImageError: as :func:`resize_plan`.
    """
    size = resize_plan(*image.size, rule, resolution)
    how = Image.Resampling.BICUBIC if rule in ("longest", "pad") else Image.Resampling.BILINEAR
    pixels = _pillow(image, size, how) if resizer == "pillow" else _torchvision(image, size, how)
    return center_cut(pixels, resolution) if rule == "center" else pixels


def center_cut(pixels: Pixels, side: int) -> Pixels:
    """Cut the central square out of (H, W, ...) pixels."""
    top, left = (round((length - side) / 2) for length in pixels.shape[:2])
    return pixels[top : top + side, left : left + side]


def _pillow(image: Image.Image, size: tuple[int, int], how: Image.Resampling) -> Pixels:
    return np.asarray(image.resize(size, how))


def _torchvision(image: Image.Image, size: tuple[int, int], how: Image.Resampling) -> Pixels:
    import torch
    from torch.nn.functional import interpolate

    # What torchvision.transforms.v2.functional.resize does of uint8 in channels-last order.
    pixels = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)[None]
    mode = "bicubic" if how == Image.Resampling.BICUBIC else "bilinear"
    out = interpolate(pixels, size=(size[1], size[0]), mode=mode, antialias=True, align_corners=False)
    found: Pixels = out[0].permute(1, 2, 0).contiguous().numpy()
    return found
