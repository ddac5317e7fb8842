"""What cuts a picture into segments. A segmenter is one short class with one method.

A new one: a class with ``record`` and ``segments``, and its line in :func:`load_segmenter`.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated, Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image
from pydantic import BaseModel, Field

from openilias.build.clutter.counts import Segments
from openilias.core.errors import OpenIliasError
from openilias.images.resize import longest_size

Method = Literal["felzenszwalb", "sam", "sam2"]
_USUAL_MODELS = {"sam": "facebook/sam-vit-huge", "sam2": "facebook/sam2.1-hiera-large"}


class SegmenterSpec(BaseModel, frozen=True, extra="forbid"):
    """Which segmentation, and its settings; what processes send each other.

    Attributes:
        method: ``felzenszwalb`` needs no network; ``sam`` and ``sam2`` are those of transformers.
        working_size: ``felzenszwalb``: larger side in pixels to which every picture is brought, up or down, so that
            the number does not depend on its resolution.
        scale: ``felzenszwalb``: larger means larger segments.
        sigma: ``felzenszwalb``: of the smoothing before, in pixels of the working size.
        least_area: ``felzenszwalb``: of a segment, in pixels of the working size.
        model: ``sam``, ``sam2``: ``MODEL[@REVISION]`` of the hub, or a folder; None is the largest published one.
        points: ``sam``, ``sam2``: along a side of the grid of points that are asked for.
        least_iou: ``sam``, ``sam2``: quality that the network itself predicts of a mask.
        least_stability: ``sam``, ``sam2``: overlap of a mask with itself at other thresholds.
        nms: ``sam``, ``sam2``: overlap of the boxes of two masks above which one is left out.
        batch: ``sam``, ``sam2``: points at a time; changes no result.
        device: ``sam``, ``sam2``: where it computes.
    """

    method: Method = "felzenszwalb"
    working_size: Annotated[int, Field(ge=32, le=4096)] = 320
    scale: Annotated[float, Field(gt=0, le=1e6)] = 200.0
    sigma: Annotated[float, Field(ge=0, le=100)] = 0.8
    least_area: Annotated[int, Field(ge=1)] = 100
    model: str | None = None
    points: Annotated[int, Field(ge=1, le=256)] = 32
    least_iou: Annotated[float, Field(ge=0, le=1)] = 0.88
    least_stability: Annotated[float, Field(ge=0, le=1)] = 0.95
    nms: Annotated[float, Field(gt=0, le=1)] = 0.7
    batch: Annotated[int, Field(ge=1)] = 64
    device: str = "cpu"

    @property
    def is_network(self) -> bool:
        """Whether it computes in this process, on a device."""
        return self.method != "felzenszwalb"

    @property
    def named_model(self) -> str:
        """The model of a network."""
        return self.model or _USUAL_MODELS[self.method]


class Segmenter(Protocol):
    """Cuts a picture into segments.

    Attributes:
        record: name, version, settings, revision of the weights: all that the segments depend on.
    """

    record: dict[str, Any]

    def segments(self, picture: npt.NDArray[np.uint8]) -> Segments:
        """Return the segments of an (H, W, 3) picture, in its own size or another one of the same shape."""
        ...


@lru_cache(maxsize=2)
def load_segmenter(spec: SegmenterSpec) -> Segmenter:
    """Load a segmenter.

    Raises:
        OpenIliasError: its model cannot be loaded.
    """
    if not spec.is_network:
        if spec.model is not None:
            raise OpenIliasError("Felzenszwalb's segmentation has no model.", fix="Give --segments sam or sam2.")
        return Felzenszwalb(spec)
    from openilias.build.clutter.sam import AnySam

    return AnySam(spec)


class Felzenszwalb:
    """Felzenszwalb and Huttenlocher, "Efficient graph-based image segmentation" (IJCV 2004), by scikit-image."""

    def __init__(self, spec: SegmenterSpec) -> None:
        self._spec = spec
        names = ("working_size", "scale", "sigma", "least_area")
        self.record: dict[str, Any] = {"name": "felzenszwalb", "version": 1, **{n: getattr(spec, n) for n in names}}

    def segments(self, picture: npt.NDArray[np.uint8]) -> Segments:
        """Return a label per pixel, at the working size."""
        from skimage.segmentation import felzenszwalb

        height, width = picture.shape[:2]
        size = longest_size(width, height, self._spec.working_size)
        small = np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC))
        spec = self._spec
        labels: Segments = felzenszwalb(small, scale=spec.scale, sigma=spec.sigma, min_size=spec.least_area)
        return labels
