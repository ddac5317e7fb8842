"""Segment Anything, 1 and 2, of transformers: all masks of a grid of points that the network itself finds good."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from openilias.build.clutter.counts import Segments
from openilias.build.clutter.segmenters import SegmenterSpec
from openilias.build.networks import load_network
from openilias.core.errors import OpenIliasError
from openilias.models.quiet import quiet


class AnySam:
    """The pipeline ``mask-generation`` with the settings of the spec; the masks may overlap."""

    def __init__(self, spec: SegmenterSpec) -> None:
        from transformers import pipeline

        self._spec = spec
        network, prepare, record = load_network(
            "AutoModelForMaskGeneration", "AutoImageProcessor", spec.named_model, spec.device
        )
        kind = str(network.config.model_type)
        if kind.startswith("sam2") != (spec.method == "sam2"):
            raise OpenIliasError(f"This is a model of the type {kind}, not {spec.method}.", where=spec.named_model)
        with quiet():
            self._generate = pipeline("mask-generation", model=network, image_processor=prepare, device=spec.device)
        names = ("points", "least_iou", "least_stability", "nms")
        self.record: dict[str, Any] = {
            "name": spec.method,
            "version": 1,
            **record,
            **{name: getattr(spec, name) for name in names},
        }

    def segments(self, picture: npt.NDArray[np.uint8]) -> Segments:
        """Return a mask per segment, in the size of the picture; (0, H, W) if there is none."""
        spec = self._spec
        with quiet():
            found = self._generate(
                Image.fromarray(picture),
                points_per_crop=spec.points,
                points_per_batch=spec.batch,
                pred_iou_thresh=spec.least_iou,
                stability_score_thresh=spec.least_stability,
                crops_nms_thresh=spec.nms,
            )["masks"]
        masks = [np.asarray(mask, bool) for mask in found]
        return np.stack(masks) if masks else np.zeros((0, *picture.shape[:2]), bool)
