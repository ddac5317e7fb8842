"""The views of multi-scale and multi-rotation description, on normalised (B, C, H, W) images."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def scale(images: Tensor, factor: float) -> Tensor:
    """Resize by a factor: bicubic without antialiasing, sizes rounded down but to 1, as the official code does."""
    if factor == 1:
        return images
    size = [int(side * factor) for side in images.shape[2:]]
    if min(size) == 0:
        return F.interpolate(images, size=[max(side, 1) for side in size], mode="bicubic", align_corners=False)
    return F.interpolate(images, scale_factor=factor, mode="bicubic", align_corners=False)


def rotate(images: Tensor, angle: int, *, official: bool = False) -> Tensor:
    """Turn counter-clockwise by a multiple of 90 degrees, exactly.

    Args:
        images: (B, C, H, W).
        angle: in degrees.
        official: keep the canvas, so that the ends of an oblong image are cut off and zeros appear at the sides.
    """
    if angle == 0:
        return images
    if official:
        from torchvision.transforms import InterpolationMode
        from torchvision.transforms.functional import rotate as turn

        turned: Tensor = turn(images, angle, InterpolationMode.BILINEAR)
        return turned
    return torch.rot90(images, angle // 90, (2, 3))
