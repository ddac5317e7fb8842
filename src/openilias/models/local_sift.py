"""RootSIFT as local descriptors (Lowe, IJCV 2004; Arandjelovic and Zisserman, CVPR 2012); no weights to download."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from openilias.images.boxes import Box
from openilias.models.local_backbone import LocalBackbone, LocalSettings, PrepareLocal
from openilias.models.local_features import LocalFeatures, ordered
from openilias.models.sift_vlad import grey_picture

_CONTRAST = 0.01
_HOW = "SIFT of OpenCV with a contrast of 0.01, RootSIFT"


@dataclass(frozen=True)
class SiftPreparation:
    """Finds the descriptors of a picture, where pictures are prepared: in worker processes.

    Attributes:
        settings: resolution, and how many are kept. SIFT has scales of its own.
    """

    settings: LocalSettings

    def __call__(self, image: Image.Image, boxes: tuple[Box, ...] = ()) -> LocalFeatures:
        """Return RootSIFT descriptors; the weight is the response of the detector, the scale the diameter in pixels."""
        import cv2

        grey = grey_picture(image, self.settings.resolution)
        height, width = grey.shape
        points, found = cv2.SIFT.create(contrastThreshold=_CONTRAST).detectAndCompute(grey, None)
        if found is None:
            return LocalFeatures(np.zeros((0, 128), np.float32), np.zeros((0, 4), np.float32), height, width)
        sums = found.sum(axis=1, keepdims=True)
        described = sums[:, 0] > 0
        rooted = np.sqrt(found[described] / sums[described]).astype(np.float32)
        geometry = np.array([(p.pt[1] / height, p.pt[0] / width, p.size, p.response) for p in points], np.float32)
        geometry[:, :2] = geometry[:, :2].clip(0, 1)
        return ordered(rooted, geometry[described], height=height, width=width, most=self.settings.most)


class SiftBackbone(LocalBackbone):
    """RootSIFT descriptors of 128 dimensions."""

    def __init__(self, settings: LocalSettings) -> None:
        """Make it; there is nothing to load."""
        self.name, self.settings, self.dims = "sift", settings, 128
        self.weights_digest = self.weights_from = "none"
        self.weight_from = "response"
        self.batch_size = 32

    def preparation(self) -> PrepareLocal:
        """Return what finds the descriptors of a picture."""
        return SiftPreparation(self.settings)

    def group_of(self, prepared: Any) -> Hashable:
        """All go together."""
        return 0

    def find(self, batch: Sequence[Any]) -> list[LocalFeatures]:
        """Return what was found already."""
        return list(batch)

    def description(self) -> dict[str, Any]:
        """Return what a descriptor depends on."""
        return {"name": self.name, "how": _HOW, **self.settings.model_dump(mode="json", exclude={"scales"})}
