"""The base of all models of local descriptors: it checks what comes out, the child computes it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Sequence
from typing import Annotated, Any

import numpy as np
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field

from openilias.core.errors import OpenIliasError
from openilias.images.boxes import Box
from openilias.models.local_features import LocalFeatures

PrepareLocal = Callable[[Image.Image, tuple[Box, ...]], Any]
"""From an upright RGB picture to what the model takes."""
Scale = Annotated[float, Field(ge=0.05, le=8)]
LOCAL_SCALES = (0.7071, 1.0, 1.4142)
"""Of CVNet in the code of AMES."""


class LocalSettings(BaseModel):
    """What local descriptors depend on besides the images and the model.

    Attributes:
        resolution: larger side of the image at scale 1, in pixels.
        scales: the image is described at each of these factors of its size.
        most: at most so many descriptors of an image are kept, those of largest weight.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    resolution: int = Field(default=770, ge=14, le=20_000)
    scales: tuple[Scale, ...] = Field(default=(1.0,), min_length=1, max_length=16)
    most: int = Field(default=700, ge=1, le=100_000)


class LocalBackbone(ABC):
    """A loaded model of local descriptors.

    Attributes:
        name: how users call it.
        settings: what the descriptors depend on besides.
        dims: length of a descriptor.
        weights_digest: SHA-256 of all weights.
        weights_from: where they came from.
        weight_from: what the weight of a descriptor is: ``detector``, ``norm of the token``, ``response``.
        device: where it computes.
        batch_size: images per pass that suit the model.
    """

    name: str
    settings: LocalSettings
    dims: int
    weights_digest: str
    weights_from: str
    weight_from: str
    device: str = "cpu"
    batch_size: int = 4

    @abstractmethod
    def preparation(self) -> PrepareLocal:
        """Return what prepares a picture; it is sent to other processes, so it must be small."""

    @abstractmethod
    def group_of(self, prepared: Any) -> Hashable:
        """Return what prepared pictures must have in common to go into one batch."""

    @abstractmethod
    def find(self, batch: Sequence[Any]) -> list[LocalFeatures]:
        """Return the descriptors of prepared pictures of one group, by falling weight."""

    @abstractmethod
    def description(self) -> dict[str, Any]:
        """Return what a descriptor depends on beside the weights themselves, as JSON values."""

    def describe(self, batch: Sequence[Any]) -> list[LocalFeatures]:
        """Return the descriptors of prepared pictures of one group, of unit length.

        Raises:
            OpenIliasError: the model returned other dimensions, more than asked for, or not of unit length.
        """
        found = self.find(batch)
        if len(found) != len(batch):
            raise OpenIliasError(f"{self.name} returned {len(found)} results for {len(batch)} images.")
        for features in found:
            if features.descriptors.shape[1] != self.dims or len(features) > self.settings.most:
                raise OpenIliasError(
                    f"{self.name} returned local descriptors of shape {features.descriptors.shape}, expected at most "
                    f"{self.settings.most} of {self.dims} dimensions."
                )
            norms = np.linalg.norm(features.descriptors.astype(np.float32), axis=1)
            if len(norms) and np.abs(norms - 1).max() > 1e-2:
                raise OpenIliasError(f"{self.name} returned local descriptors that are not of unit length.")
        return found
