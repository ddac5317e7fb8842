"""What a local model finds in one image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from openilias.core.errors import OpenIliasError

Y, X, SCALE, WEIGHT = range(4)
"""Columns of the geometry."""


@dataclass(frozen=True, eq=False)
class LocalFeatures:
    """The local descriptors of one image, by falling weight.

    Attributes:
        descriptors: (n, D) float16 or float32 of unit length, or (n, bits / 8) uint8 as of ``numpy.packbits``.
        geometry: (n, 4) float32: y and x in [0, 1] of the image, scale, weight.
        height: of the image that was described, in pixels.
        width: likewise.

    Raises:
        OpenIliasError: on construction, if the shapes do not fit, a number is not finite, or the weights rise.
    """

    descriptors: npt.NDArray[Any]
    geometry: npt.NDArray[np.float32]
    height: int
    width: int

    def __post_init__(self) -> None:
        if self.descriptors.ndim != 2 or self.geometry.shape != (len(self.descriptors), 4):
            raise OpenIliasError(
                f"Local descriptors {self.descriptors.shape} and their geometry {self.geometry.shape} do not fit."
            )
        if not np.isfinite(self.geometry).all() or (
            self.descriptors.dtype.kind == "f" and not np.isfinite(self.descriptors).all()
        ):
            raise OpenIliasError("A local descriptor, or where it is, is not finite.")
        if (np.diff(self.geometry[:, WEIGHT]) > 0).any():
            raise OpenIliasError("Local descriptors are not in the order of their weight.")
        if self.height < 1 or self.width < 1:
            raise OpenIliasError(f"An image of {self.height} x {self.width} pixels has no local descriptors.")

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.descriptors)

    def first(self, count: int) -> LocalFeatures:
        """Return those of largest weight."""
        return LocalFeatures(self.descriptors[:count], self.geometry[:count], self.height, self.width)


def ordered(
    descriptors: npt.NDArray[Any], geometry: npt.NDArray[np.floating], *, height: int, width: int, most: int
) -> LocalFeatures:
    """Return the ``most`` of largest weight, the largest first; of equal weights the first stay first.

    Args:
        descriptors: (n, D).
        geometry: (n, 4), as that of :class:`LocalFeatures`.
        height: of the image, in pixels.
        width: likewise.
        most: how many are kept.
    """
    order = np.argsort(-geometry[:, WEIGHT], kind="stable")[:most]
    kept = np.ascontiguousarray(geometry[order], np.float32)
    return LocalFeatures(np.ascontiguousarray(descriptors[order]), kept, height, width)
