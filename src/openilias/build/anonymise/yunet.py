"""YuNet, the small network for faces that OpenCV runs (Wu et al., 2023); its file is given by the user."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from openilias.build.anonymise.detectors import DetectorSpec, Picture, Sighting
from openilias.core.errors import OpenIliasError
from openilias.core.files import read_bytes
from openilias.images.boxes import Box

_THRESHOLD = 0.6
_MOST_BYTES = 2**30


class YuNet:
    """``cv2.FaceDetectorYN`` on the whole picture."""

    def __init__(self, spec: DetectorSpec) -> None:
        path = Path(spec.argument).expanduser()
        try:
            data = read_bytes(path, most=_MOST_BYTES)
        except OSError as error:
            raise OpenIliasError(
                f"This network cannot be read: {error.strerror or error}.", where=path, fix="yunet:FILE.onnx"
            ) from None
        digest = hashlib.sha256(data).hexdigest()
        if spec.choice and spec.choice.lower() != digest:
            raise OpenIliasError(
                f"The SHA-256 of this file is {digest}, {spec.choice} was given.", where=path, fix="Get it again."
            )
        self._least = spec.least
        threshold = _THRESHOLD if spec.threshold is None else spec.threshold
        try:
            # From memory: what was digested is what runs.
            self._network = cv2.FaceDetectorYN.create(
                "onnx", np.frombuffer(data, np.uint8), np.zeros(0, np.uint8), (320, 320), threshold, 0.3, 5000
            )
            self._network.setInputSize((320, 320))
        except (cv2.error, TypeError) as error:
            raise OpenIliasError(
                f"OpenCV cannot read this network: {str(error).strip()}.", where=path, fix="Give YuNet as ONNX."
            ) from None
        self.record: dict[str, Any] = {
            "name": "yunet",
            "version": 1,
            "sha256": digest,
            "threshold": threshold,
            "least": spec.least,
        }

    def find(self, picture: Picture) -> list[Sighting]:
        """Return the faces."""
        self._network.setInputSize((picture.shape[1], picture.shape[0]))
        try:
            _, rows = self._network.detect(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
        except cv2.error as error:
            raise OpenIliasError(f"This network is not YuNet: {str(error).strip()}.") from None
        found = []
        for row in [] if rows is None else rows.tolist():
            x, y, width, height = (round(value) for value in row[:4])
            if min(width, height) >= self._least:
                found.append(Sighting(Box(x, y, width, height), float(row[-1])))
        return found
