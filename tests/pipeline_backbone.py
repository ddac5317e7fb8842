"""A backbone without a network, for tests of what surrounds networks; worker processes import it from here."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from openilias.core.ids import Partition
from openilias.core.protocol import Protocol
from openilias.images.boxes import Box
from openilias.images.prepare import Preparation
from openilias.models.backbone import Backbone, Floats, View
from openilias.models.zoo import find_model


@dataclass(frozen=True)
class Troubled:
    """Prepares as always; a picture whose corner is of a certain colour makes trouble, while ``trouble`` exists."""

    plain: Preparation
    trouble: Path
    pause: float = 0.0

    def __call__(self, image: Image.Image, boxes: tuple[Box, ...] = ()) -> np.ndarray:
        time.sleep(self.pause)
        red, green, blue = image.getpixel((0, 0))
        if self.trouble.exists() and green < 20 and red > 200 and blue > 200:
            os._exit(9)
        if self.trouble.exists() and green > 200 and red < 20 and blue < 20:
            time.sleep(3600)
        return self.plain(image, boxes)


class Tiny(Backbone):
    """Mean colours of a 4 x 4 grid, and the size; sees every batch that comes."""

    def __init__(self, trouble: Path = Path("/nowhere"), pause: float = 0.0, **protocol: object) -> None:
        self.spec = find_model("sift_vlad")
        self.protocol = self.spec.resolve(Protocol.model_validate({"resolution": 64, "dtype": "float32"} | protocol))
        self.dims, self.weights_digest, self.weights_from = 50, "none", "file"
        self.trouble, self.pause = trouble, pause
        self.batches: list[int] = []

    def preparation(self, partition: Partition) -> Troubled:
        protocol = self.protocol
        plain = Preparation(protocol.resolution or 64, boxes=protocol.boxes_of(partition))
        return Troubled(plain, self.trouble, self.pause)

    def describe(self, batch: np.ndarray, views: tuple[View, ...]) -> Floats:
        self.batches.append(len(batch))
        height, width = batch.shape[1:3]
        rows, columns = np.array_split(np.arange(height), 4), np.array_split(np.arange(width), 4)
        means = [batch[:, r][:, :, c, :3].mean((1, 2)) for r in rows for c in columns]
        size = np.broadcast_to([height, width], (len(batch), 2))
        return np.concatenate([*means, size], 1).astype(np.float32)


TROUBLE = {"crash": (255, 0, 255), "hang": (0, 255, 0)}


def trouble_in(path: Path, kind: str) -> None:
    """Give a picture the corner that makes trouble."""
    with Image.open(path) as image:
        pixels = np.array(image.convert("RGB"))
    pixels[:16, :16] = TROUBLE[kind]
    Image.fromarray(pixels).save(path, quality=95)
