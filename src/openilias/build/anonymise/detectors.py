"""What finds faces and licence plates. A detector is one short class with one method.

A new one: a class with ``record`` and ``find``, and its line in :func:`load_detector`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from openilias.core.errors import OpenIliasError
from openilias.images.boxes import Box

Sought = Literal["face", "plate"]
Picture = npt.NDArray[np.uint8]
"""(H, W, 3) RGB."""


class Sighting(NamedTuple):
    """A box that a detector found, in pixels, and its score."""

    box: Box
    score: float


class Detector(Protocol):
    """Finds the boxes of one kind.

    Attributes:
        record: name, version, settings, digest or revision of the weights: all that the boxes depend on.
    """

    record: dict[str, Any]

    def find(self, picture: Picture) -> list[Sighting]:
        """Return what is found, in any order; boxes may overlap and reach beyond the picture."""
        ...


@dataclass(frozen=True)
class DetectorSpec:
    """Which detector, of what, and its settings; what processes send each other.

    Attributes:
        sought: what it finds.
        name: ``haar``, ``yunet:FILE[#SHA256]``, ``hf:MODEL[@REVISION][#LABEL,...]`` or
            ``owl:MODEL[@REVISION][#TEXT,...]``; a model is a name of the hub or a folder.
        least: smallest side of a box, in pixels.
        neighbours: of ``haar``: how many windows must agree.
        angles: of ``haar``: degrees by which the picture is turned too, to find what is not upright.
        threshold: of the others: least score; None is the detector's own.
        device: of networks.
    """

    sought: Sought
    name: str
    least: int = 20
    neighbours: int | None = None
    angles: tuple[int, ...] = ()
    threshold: float | None = None
    device: str = "cpu"

    @property
    def library(self) -> str:
        """The word before the colon."""
        return self.name.partition(":")[0]

    @property
    def argument(self) -> str:
        """What follows the colon, without what follows ``#``."""
        return self.name.partition(":")[2].rpartition("#")[0] or self.name.partition(":")[2]

    @property
    def choice(self) -> str:
        """What follows ``#``."""
        rest = self.name.partition(":")[2]
        return rest.rpartition("#")[2] if "#" in rest else ""

    @property
    def is_network(self) -> bool:
        """Whether it computes in this process, on a device."""
        return self.library in ("hf", "owl")

    @property
    def source(self) -> str:
        """What stands in the column ``source``: no path of this machine."""
        last = self.argument.rstrip("/").rpartition("/")[2]
        if self.library == "yunet" or self.argument.startswith(("/", ".", "~")):
            return f"{self.library}:{last}"
        return f"{self.library}:{self.argument}" if self.argument else self.library


@lru_cache(maxsize=8)
def load_detector(spec: DetectorSpec) -> Detector:
    """Load a detector.

    Raises:
        OpenIliasError: there is none of this name, or its files cannot be read.
    """
    if spec.name == "haar":
        from openilias.build.anonymise.haar import Haar

        return Haar(spec)
    if spec.library == "yunet" and spec.argument and spec.sought == "face":
        from openilias.build.anonymise.yunet import YuNet

        return YuNet(spec)
    if spec.library == "hf" and spec.argument:
        from openilias.build.anonymise.networks import ByLabel

        return ByLabel(spec)
    if spec.library == "owl" and spec.argument:
        from openilias.build.anonymise.networks import ByText

        return ByText(spec)
    known = "haar, yunet:FILE.onnx, hf:MODEL, owl:MODEL" if spec.sought == "face" else "haar, hf:MODEL, owl:MODEL"
    raise OpenIliasError(f"There is no detector {spec.name!r} of {spec.sought}s.", fix=f"Give one of {known}, or none.")


def clipped(box: Box, width: int, height: int) -> Box | None:
    """Return the part of a box that is inside a picture; None if there is none."""
    x, y = max(0, box.x), max(0, box.y)
    right, bottom = min(width, box.x + box.width), min(height, box.y + box.height)
    return Box(x, y, right - x, bottom - y) if right > x and bottom > y else None


def overlap(first: Box, second: Box) -> int:
    """Return how many pixels two boxes have in common."""
    wide = min(first.x + first.width, second.x + second.width) - max(first.x, second.x)
    tall = min(first.y + first.height, second.y + second.height) - max(first.y, second.y)
    return max(0, wide) * max(0, tall)


def same_thing(first: Box, second: Box) -> bool:
    """Tell whether two boxes are of one thing: half of the smaller lies in the other, which is not far larger."""
    areas = sorted((first.width * first.height, second.width * second.height))
    return 2 * overlap(first, second) > areas[0] and areas[1] <= 4 * areas[0]


def distinct(found: list[Sighting]) -> list[Sighting]:
    """Return one sighting of each thing, the one of the highest score; the result does not depend on the order."""
    kept: list[Sighting] = []
    for one in sorted(found, key=lambda one: (-one.score, one.box)):
        if not any(same_thing(one.box, other.box) for other in kept):
            kept.append(one)
    return kept
