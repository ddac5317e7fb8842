"""From an upright picture to the pixels a network takes; runs in worker processes and knows no network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from openilias.core.errors import OpenIliasError
from openilias.core.protocol import BoxUse, Compat, Resizer, ResizeRule
from openilias.images.boxes import Box
from openilias.images.resize import center_cut, resize, resize_plan

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Preparation:
    """What is done to the pixels of one image before the network.

    Attributes:
        resolution: target size in pixels.
        resize: the rule.
        resizer: the library.
        boxes: what is done to the object boxes.
        compat: ``official`` lays the mask of the whole image over the crop, and over what is put around it.
        least: the side up to which zeros are put around later, in pixels.
    """

    resolution: int
    resize: ResizeRule = "longest"
    resizer: Resizer = "pillow"
    boxes: BoxUse = "none"
    compat: Compat = "paper"
    least: int = 0

    def __call__(self, image: Image.Image, boxes: tuple[Box, ...] = ()) -> npt.NDArray[Any]:
        """Return the pixels (H, W, 3) uint8 of an upright RGB picture; with a mask (H, W, 4), the last 1 inside.

        Raises:
            OpenIliasError: boxes are asked for, and there is none, or none inside the image.
        """
        mask = None
        if self.boxes != "none":
            mask = _mask(image.size, boxes)
            if "crop" in self.boxes:
                area = _around(image.size, boxes)
                image = image.crop(area)
                if self.compat == "paper":
                    mask = mask[area[1] : area[3], area[0] : area[2]]
        pixels = resize(image, self.resize, self.resolution, self.resizer)
        if mask is None or "mask" not in self.boxes:
            return pixels
        if self.compat == "official":
            return _stretched_over(mask, pixels, self.least)
        return np.concatenate([pixels, self._fit(mask, image.size, pixels)[:, :, None]], axis=2)

    def _fit(self, mask: Pixels, size: tuple[int, int], pixels: Pixels) -> Pixels:
        """Bring a mask to the size of the resized picture: the nearest pixel, as the official code."""
        if self.resize != "center":
            return _nearest(mask, pixels.shape[0], pixels.shape[1])
        width, height = resize_plan(*size, "small", self.resolution)
        return center_cut(_nearest(mask, height, width), self.resolution)


def _stretched_over(mask: Pixels, pixels: Pixels, least: int) -> Pixels:
    """Lay a mask over the picture and the zeros around it, as the official code: their own mask is 0."""
    height, width = (max(side, least) for side in pixels.shape[:2])
    top, left = (height - pixels.shape[0]) // 2, (width - pixels.shape[1]) // 2
    inside = slice(top, top + pixels.shape[0]), slice(left, left + pixels.shape[1])
    canvas = np.zeros((height, width, 4), np.uint8)
    canvas[(*inside, slice(3))] = pixels
    canvas[(*inside, 3)] = _nearest(mask, height, width)[inside]
    return canvas


def _inside(size: tuple[int, int], box: Box) -> tuple[int, int, int, int]:
    width, height = size
    return box.x, box.y, min(box.x + box.width, width), min(box.y + box.height, height)


def _mask(size: tuple[int, int], boxes: tuple[Box, ...]) -> Pixels:
    mask = np.zeros((size[1], size[0]), np.uint8)
    for left, top, right, bottom in (_inside(size, box) for box in boxes):
        mask[top:bottom, left:right] = 1
    if not mask.any():
        raise OpenIliasError(
            "This image has no box." if not boxes else "The boxes of this image lie outside it.",
            fix="Masks and crops need a box file for every image of the partition; see: ilias data verify",
        )
    return mask


def _around(size: tuple[int, int], boxes: tuple[Box, ...]) -> tuple[int, int, int, int]:
    corners = np.array([_inside(size, box) for box in boxes])
    corners = corners[(corners[:, 2:] > corners[:, :2]).all(axis=1)]  # those that are inside at all
    left, top = corners[:, :2].min(axis=0)
    right, bottom = corners[:, 2:].max(axis=0)
    return int(left), int(top), int(right), int(bottom)


def _nearest(mask: Pixels, height: int, width: int) -> Pixels:
    """Sample a mask at floor(place * size / new size) in float32, as ``interpolate(mode="nearest")`` of PyTorch."""
    rows, columns = _places(height, mask.shape[0]), _places(width, mask.shape[1])
    found: Pixels = mask[rows[:, None], columns[None, :]]
    return found


def _places(new: int, old: int) -> npt.NDArray[np.int64]:
    step = np.float32(old) / np.float32(new)
    places: npt.NDArray[np.int64] = np.floor(np.arange(new, dtype=np.float32) * step).astype(np.int64)
    return np.minimum(places, old - 1)
