"""The base of all backbones: it checks what comes out, the child computes it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from openilias.core.errors import OpenIliasError
from openilias.core.ids import Partition
from openilias.core.protocol import Protocol
from openilias.images.boxes import Box
from openilias.models.spec import ModelSpec

Floats = npt.NDArray[np.float32]
View = tuple[float, int]
"""Scale, and rotation in degrees."""
Prepare = Callable[[Image.Image, tuple[Box, ...]], npt.NDArray[Any]]
"""From an upright RGB picture and its boxes to the array a model takes."""


class Backbone(ABC):
    """A loaded model, bound to a resolved protocol.

    Attributes:
        spec: its record.
        protocol: with resolution and pooling filled in.
        weights_from: where they came from: ``hub``, ``published file``, ``file``, ``fit``, ``random, seed N``.
        dims: length of a descriptor.
        device: where it computes.
        batch_size: images per forward pass that suit the model and the device; more are slower on CPUs.
        weights_digest: SHA-256 of the weights themselves, whatever file they came in.
    """

    spec: ModelSpec
    protocol: Protocol
    dims: int
    weights_digest: str
    weights_from: str
    device: str = "cpu"
    batch_size: int = 8

    @abstractmethod
    def preparation(self, partition: Partition) -> Prepare:
        """Return what prepares a picture of this partition; it is sent to other processes, so it must be small."""

    @abstractmethod
    def describe(self, batch: npt.NDArray[Any], views: tuple[View, ...]) -> Floats:
        """Return (B, dims) float32 for B prepared arrays of one shape, normalised or not.

        Of several views, their unit descriptors combined as the protocol says.
        """

    def group_of(self, shape: tuple[int, ...], views: tuple[View, ...]) -> tuple[int, ...]:
        """Return what the shapes of prepared arrays must have in common to go into one batch."""
        return shape

    def begin(self, arrays: Sequence[npt.NDArray[Any]], views: tuple[View, ...]) -> Callable[[], Floats]:
        """Start describing prepared arrays of one group and return what waits for the result, (B, dims) float32.

        By default all is done at once.
        """
        out = self.describe(np.stack(arrays), views)
        return lambda: out

    def prepare(
        self, image: Image.Image, boxes: tuple[Box, ...] = (), partition: Partition = "distractors"
    ) -> npt.NDArray[Any]:
        """Turn one upright RGB picture into the array the model takes."""
        return self.preparation(partition)(image, boxes)

    def encode_images(self, batch: npt.NDArray[Any], partition: Partition = "distractors") -> Floats:
        """Return L2-normalised descriptors, (B, dims) float32, of B prepared arrays of one shape.

        Raises:
            OpenIliasError: the model returned another shape, or values that are not finite.
        """
        return self.checked(self.describe(batch, self.protocol.views_of(partition)), len(batch))

    def encode_texts(self, texts: list[str]) -> Floats:
        """Return L2-normalised descriptors, (B, dims) float32, of B texts.

        Raises:
            OpenIliasError: the model has no text tower.
        """
        raise OpenIliasError(
            f"{self.spec.name} has no text tower: it cannot describe text queries.", fix="Use image queries."
        )

    def text_digest(self, texts: list[str]) -> str | None:
        """Return the SHA-256 of what decides the descriptors of texts beside :attr:`weights_digest` and the record."""
        return None

    def checked(self, out: Floats, count: int) -> Floats:
        """Normalise what the model returned for ``count`` images or texts.

        Raises:
            OpenIliasError: another shape, or values that are not finite.
        """
        if out.shape != (count, self.dims):
            raise OpenIliasError(
                f"{self.spec.name} returned shape {out.shape} for {count} inputs, expected {(count, self.dims)}.",
                fix="Choose another pooling.",
            )
        if not np.isfinite(out).all():
            raise OpenIliasError(
                f"{self.spec.name} returned values that are not finite.",
                fix="Check its weights; with --precision float16 try bfloat16.",
            )
        return normalise(out)


def normalise(descriptors: Floats) -> Floats:
    """L2-normalise rows; a zero row stays zero."""
    norms = np.linalg.norm(descriptors, axis=1, keepdims=True)
    return np.asarray(descriptors / np.maximum(norms, 1e-12), np.float32)
