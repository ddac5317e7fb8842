"""Describing an image the plain way: the libraries' own networks and transforms, one image at a time.

Written from the description of the protocol, with none of the package's code, so that both can be compared.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.transforms import functional as TF

Box = tuple[int, int, int, int]


@dataclass
class Twin:
    """A bare network.

    Attributes:
        head: image -> vector.
        maps: image -> ((1, C, h, w) map, (1, P, C) tokens before it or None).
        tokens: the network is a row of tokens, whose grid the official code does not know.
        mean: of the channels.
        std: of the channels.
        patch: sides are padded to multiples of it.
    """

    head: Callable[[Tensor], Tensor]
    maps: Callable[[Tensor], tuple[Tensor, Tensor | None]]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    patch: int = 1
    tokens: bool = False

    def describe(self, data: bytes, boxes: list[Box], options: dict[str, Any]) -> np.ndarray:
        official = options.get("compat") == "official"
        x = self.pixels(data, boxes, options, official)
        views = []
        for scale in options.get("scales", (1.0,)):
            y = x if scale == 1 else F.interpolate(x, scale_factor=scale, mode="bicubic", align_corners=False)
            for angle in options.get("rotations", (0,)):
                if official and angle:
                    z = TF.rotate(y, angle, TF.InterpolationMode.BILINEAR)
                else:  # transposing and flipping turns without loss
                    z = {0: y, 90: y.mT.flip(2), 180: y.flip(2, 3), 270: y.mT.flip(3)}[angle]
                views.append(F.normalize(self.vector(z, options["pooling"], official), dim=1))
        return F.normalize(torch.stack(views).mean(0), dim=1)[0].numpy()

    def pixels(self, data: bytes, boxes: list[Box], options: dict[str, Any], official: bool) -> Tensor:
        image = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
        mask = torch.zeros(image.height, image.width)
        for left, top, width, height in boxes:
            mask[top : top + height, left : left + width] = 1
        use = options.get("positive_boxes", "none")
        if "crop" in use:
            left, top = min(b[0] for b in boxes), min(b[1] for b in boxes)
            right = min(max(b[0] + b[2] for b in boxes), image.width)
            bottom = min(max(b[1] + b[3] for b in boxes), image.height)
            image = Image.fromarray(np.array(image)[top:bottom, left:right])
            if not official:
                mask = mask[top:bottom, left:right]
        rule, res = options.get("resize", "longest"), options["resolution"]
        if rule in ("longest", "pad"):
            ratio = image.height / image.width
            size = (res, max(1, int(res * ratio))) if ratio <= 1 else (max(1, int(res / ratio)), res)
            resized = image.resize(size)
        elif rule == "square":
            resized = TF.resize(image, [res, res])
        else:
            resized = TF.resize(image, res)
        whole = resized.size
        if rule == "center":
            resized = TF.center_crop(resized, [res, res])
        x = TF.normalize(TF.to_tensor(resized), self.mean, self.std)[None]
        least = res if rule == "pad" else options.get("min_size", 0)
        if official:
            x = around(x, max(least, x.shape[2]), max(least, x.shape[3]))
        if "mask" in use:
            if rule == "center" and not official:
                fitted = F.interpolate(mask[None, None], size=(whole[1], whole[0]), mode="nearest")
                fitted = TF.center_crop(fitted, [res, res])
            else:
                fitted = F.interpolate(mask[None, None], size=x.shape[2:], mode="nearest")
            x = x * fitted
        return around(x, max(least, x.shape[2]), max(least, x.shape[3]))

    def vector(self, x: Tensor, pooling: str, official: bool) -> Tensor:
        x = around(x, math.ceil(x.shape[2] / self.patch) * self.patch, math.ceil(x.shape[3] / self.patch) * self.patch)
        with torch.no_grad():
            if pooling == "head":
                return self.head(x)
            grid, before = self.maps(x)
        if pooling == "cls":
            assert before is not None
            return before[:, 0]
        if official and self.tokens:
            row = grid.flatten(2).mT
            grid = (row if before is None else torch.cat([before[:, 1:], row], 1)).mT[..., None]
        if pooling in ("rmac", "rgem"):
            return torch.stack([pooled(part, pooling[1:], official) for part in parts(grid)]).sum(0)
        return pooled(grid, pooling, official)


def around(x: Tensor, height: int, width: int) -> Tensor:
    h, w = height - x.shape[2], width - x.shape[3]
    return F.pad(x, (w // 2, w - w // 2, h // 2, h - h // 2))


def pooled(grid: Tensor, pooling: str, official: bool) -> Tensor:
    flat = grid.flatten(2)
    if pooling == "gap":
        return flat.mean(2)
    if pooling == "mac":
        return flat.max(2).values
    low = flat.min(2, keepdim=True).values.clamp(max=0)
    moved = flat + low if official else flat - low
    root = (moved.clamp(min=1e-6) ** 3).mean(2) ** (1 / 3)
    return root - low[..., 0] if official else root + low[..., 0]


def parts(grid: Tensor) -> list[Tensor]:
    """The whole map, and squares of 2 / (level + 1) of the shorter side; about 40 % of them overlap."""
    height, width = grid.shape[2:]
    short, long = min(height, width), max(height, width)
    steps = torch.arange(2.0, 8.0)
    overlaps = (short**2 - short * ((long - short) / (steps - 1))) / short**2
    more = int(torch.argmin((overlaps - 0.4).abs())) + 1
    extra_w, extra_h = (more, 0) if height < width else (0, more)
    found = [grid]
    for level in (2, 3):
        side = math.floor(2 * short / (level + 1))
        if side == 0:
            continue
        half = math.floor(side / 2 - 1)

        def starts(length: int, count: int, side: int = side, half: int = half) -> list[int]:
            step = (length - side) / (count - 1)
            return [int(v) for v in torch.floor(half + torch.arange(count) * step).long() - half]

        for top in starts(height, level + extra_h):
            for left in starts(width, level + extra_w):
                found.append(grid[:, :, top : top + side, left : left + side])
    return found
