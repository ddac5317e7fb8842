"""The detectors of faces and licence plates that OpenCV ships: cascades of Haar features (Viola and Jones, 2001)."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from openilias.build.anonymise.detectors import DetectorSpec, Picture, Sighting
from openilias.core.errors import OpenIliasError
from openilias.images.boxes import Box

# File, whether it is tried in the mirror too (it knows faces from one side only), windows that must agree.
_CASCADES = {
    "face": (("frontalface_alt2", False, 6), ("profileface", True, 8)),
    "plate": (("russian_plate_number", False, 4), ("license_plate_rus_16stages", False, 4)),
}
_FOLDER = Path(cv2.__file__).parent / "data"
_STEP = 1.1  # between the sizes that are looked at


Grey = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]


class Haar:
    """Several cascades on the grey picture; the score is the confidence of the last stage."""

    def __init__(self, spec: DetectorSpec) -> None:
        self._least, self._angles = spec.least, (0, *sorted(set(spec.angles) - {0}))
        self._cascades = []
        files = []
        for name, mirrored, usual in _CASCADES[spec.sought]:
            neighbours = spec.neighbours or usual
            path = _FOLDER / f"haarcascade_{name}.xml"
            cascade = cv2.CascadeClassifier(str(path)) if path.is_file() else None
            if cascade is None or cascade.empty():
                raise OpenIliasError(
                    "This OpenCV comes without its cascades.", where=path, fix="Install opencv-python-headless 4."
                )
            self._cascades.append((cascade, mirrored, neighbours))
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            files.append({"name": name, "mirrored": mirrored, "neighbours": neighbours, "sha256": digest})
        self.record: dict[str, Any] = {
            "name": "haar",
            "version": 1,
            "cascades": files,
            "step": _STEP,
            "angles": list(self._angles),
            "least": spec.least,
        }

    def find(self, picture: Picture) -> list[Sighting]:
        """Return what each cascade finds: in the picture, in its mirror, in the picture turned."""
        grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
        found: list[Sighting] = []
        for cascade, mirrored, neighbours in self._cascades:
            for angle in self._angles:
                turned, back = _turned(grey, angle)
                seen = self._seen(cascade, turned, neighbours)
                if mirrored:
                    wide = turned.shape[1]
                    other = self._seen(cascade, np.ascontiguousarray(turned[:, ::-1]), neighbours)
                    seen += [Sighting(box._replace(x=wide - box.x - box.width), score) for box, score in other]
                found += [Sighting(_moved_back(box, back), score) for box, score in seen]
        return found

    def _seen(self, cascade: Any, grey: Grey, neighbours: int) -> list[Sighting]:
        boxes, _, weights = cascade.detectMultiScale3(
            grey,
            scaleFactor=_STEP,
            minNeighbors=neighbours,
            minSize=(self._least, self._least),
            outputRejectLevels=True,
        )
        return [
            Sighting(Box(*map(int, box)), float(weight)) for box, weight in zip(boxes, np.ravel(weights), strict=True)
        ]


def _turned(grey: Grey, angle: int) -> tuple[Grey, Floats]:
    """Return a picture that is turned by degrees, whole, and the (2, 3) map of its points back to the picture."""
    if angle == 0:
        return grey, np.eye(2, 3)
    height, width = grey.shape
    way = cv2.getRotationMatrix2D((width / 2, height / 2), angle, 1.0)
    wide, tall = (math.ceil(abs(row[0]) * width + abs(row[1]) * height) for row in (way[0].tolist(), way[1].tolist()))
    way[:, 2] += ((wide - width) / 2, (tall - height) / 2)
    turned = cv2.warpAffine(grey, way, (wide, tall), borderMode=cv2.BORDER_REPLICATE)
    return turned.astype(np.uint8), cv2.invertAffineTransform(way).astype(np.float64)


def _moved_back(box: Box, back: Floats) -> Box:
    """Return an upright box of the same size around the same thing."""
    x, y = back @ (box.x + box.width / 2, box.y + box.height / 2, 1.0)
    return Box(round(x - box.width / 2), round(y - box.height / 2), box.width, box.height)
