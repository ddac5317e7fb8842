"""The base of all backbones: it checks what comes out, the child computes it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from openilias.core.errors import OpenIliasError
from openilias.core.protocol import Protocol
from openilias.models.spec import ModelSpec

Floats = npt.NDArray[np.float32]


class Backbone(ABC):
    """A loaded model, bound to a resolved protocol.

    Attributes:
        spec: its record.
        protocol: with resolution and pooling filled in.
        weights_from: where they came from: ``hub``, ``published file``, ``file``, ``fit``, ``random, seed N``.
        dims: length of a descriptor.
        device: where it computes.
        weights_digest: SHA-256 of the weights themselves, whatever file they came in.
    """

    spec: ModelSpec
    protocol: Protocol
    dims: int
    weights_digest: str
    weights_from: str
    device: str = "cpu"

    @abstractmethod
    def prepare(self, image: Image.Image) -> npt.NDArray[Any]:
        """Turn an upright RGB picture into the array the model takes; runs in worker threads."""

    @abstractmethod
    def describe(self, batch: npt.NDArray[Any]) -> Floats:
        """Return (B, dims) float32 for B prepared arrays of one shape, normalised or not."""

    def encode_images(self, batch: npt.NDArray[Any]) -> Floats:
        """Return L2-normalised descriptors, (B, dims) float32, of B prepared arrays of one shape.

        Raises:
            OpenIliasError: the model returned another shape, or values that are not finite.
        """
        out = self.describe(batch)
        if out.shape != (len(batch), self.dims):
            raise OpenIliasError(
                f"{self.spec.name} returned shape {out.shape} for {len(batch)} images, expected "
                f"{(len(batch), self.dims)}.",
                fix="Choose another pooling.",
            )
        if not np.isfinite(out).all():
            raise OpenIliasError(f"{self.spec.name} returned values that are not finite.", fix="Check its weights.")
        return normalise(out)

    def encode_texts(self, texts: list[str]) -> Floats:
        """Return L2-normalised descriptors, (B, dims) float32, of B texts.

        Raises:
            OpenIliasError: the model has no text tower.
        """
        raise OpenIliasError(
            f"{self.spec.name} has no text tower: it cannot describe text queries.", fix="Use image queries."
        )


def normalise(descriptors: Floats) -> Floats:
    """L2-normalise rows; a zero row stays zero."""
    norms = np.linalg.norm(descriptors, axis=1, keepdims=True)
    return np.asarray(descriptors / np.maximum(norms, 1e-12), np.float32)
