"""The detectors of faces and licence plates that OpenCV ships: cascades of Haar features (Viola and Jones, 2001)."""

from __future__ import annotations

import hashlib
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
    "face": (("frontalface_alt2", False, 6), ("profileface", True, 6)),
    "plate": (("russian_plate_number", False, 4), ("license_plate_rus_16stages", False, 4)),
}
_FOLDER = Path(cv2.__file__).parent / "data"
_STEP = 1.1  # between the sizes that are looked at


class Haar:
    """Several cascades on the grey picture; the score is the confidence of the last stage."""

    def __init__(self, spec: DetectorSpec) -> None:
        self._least = spec.least
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
            "least": spec.least,
        }

    def find(self, picture: Picture) -> list[Sighting]:
        """Return what each cascade finds, in the picture and in its mirror."""
        grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
        found: list[Sighting] = []
        for cascade, mirrored, neighbours in self._cascades:
            found += self._seen(cascade, grey, neighbours)
            if mirrored:
                wide = grey.shape[1]
                for box, score in self._seen(cascade, np.ascontiguousarray(grey[:, ::-1]), neighbours):
                    found.append(Sighting(box._replace(x=wide - box.x - box.width), score))
        return found

    def _seen(self, cascade: Any, grey: npt.NDArray[np.uint8], neighbours: int) -> list[Sighting]:
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
