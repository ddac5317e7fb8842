"""Networks of transformers that draw boxes: by labels that they were trained on, or by a text.

They are loaded from the hub or from a folder, and nothing is fetched when ``HF_HUB_OFFLINE`` is set.
"""

from __future__ import annotations

from typing import Any

from openilias.build.anonymise.detectors import DetectorSpec, Picture, Sighting
from openilias.build.networks import load_network
from openilias.core.errors import OpenIliasError, first_few
from openilias.images.boxes import Box

_LABELS = {
    "face": ("face", "human face", "human-face", "faces"),
    "plate": ("license plate", "licence plate", "license-plate", "licence-plate", "number plate", "plate"),
}
_TEXTS = {"face": ("a human face",), "plate": ("a license plate",)}
_THRESHOLD = {"hf": 0.3, "owl": 0.1}


def _sightings(result: dict[str, Any], least: int) -> list[tuple[int, Sighting]]:
    """Return the label and the sighting of each box of a result of transformers, in whole pixels around it."""
    found = []
    for label, score, (left, top, right, bottom) in zip(
        result["labels"].tolist(), result["scores"].tolist(), result["boxes"].tolist(), strict=True
    ):
        box = Box(int(left // 1), int(top // 1), int(-(-right // 1) - left // 1), int(-(-bottom // 1) - top // 1))
        if min(box.width, box.height) >= least:
            found.append((label, Sighting(box, score)))
    return found


class ByLabel:
    """A network that was trained on labels, one of which is what is sought."""

    def __init__(self, spec: DetectorSpec) -> None:
        self._spec = spec
        self._threshold = _THRESHOLD["hf"] if spec.threshold is None else spec.threshold
        self._network, self._prepare, record = load_network(
            "AutoModelForObjectDetection", "AutoImageProcessor", spec.argument, spec.device
        )
        names = {int(key): str(name) for key, name in self._network.config.id2label.items()}
        wanted = [word.strip().lower() for word in spec.choice.split(",")] if spec.choice else _LABELS[spec.sought]
        self._labels = {number for number, name in names.items() if name.lower() in wanted}
        if not self._labels:
            raise OpenIliasError(
                f"This model has no label for {spec.sought}s; it has {first_few(list(names.values()), most=20)}.",
                where=spec.name,
                fix=f"Name labels: {spec.name.partition('#')[0]}#LABEL,LABEL",
            )
        self.record: dict[str, Any] = {
            "name": "hf",
            "version": 1,
            **record,
            "labels": sorted(names[number] for number in self._labels),
            "threshold": self._threshold,
            "least": spec.least,
        }

    def find(self, picture: Picture) -> list[Sighting]:
        """Return the boxes of the labels sought."""
        import torch

        inputs = self._prepare(images=picture, return_tensors="pt").to(self._spec.device)
        with torch.inference_mode():
            outputs = self._network(**inputs)
        results = self._prepare.post_process_object_detection(
            outputs, threshold=self._threshold, target_sizes=[picture.shape[:2]]
        )
        return [one for label, one in _sightings(results[0], self._spec.least) if label in self._labels]


class ByText:
    """A network with an open vocabulary, asked for what is sought in words."""

    def __init__(self, spec: DetectorSpec) -> None:
        self._spec = spec
        self._threshold = _THRESHOLD["owl"] if spec.threshold is None else spec.threshold
        self._texts = [word.strip() for word in spec.choice.split(",")] if spec.choice else list(_TEXTS[spec.sought])
        self._network, self._prepare, record = load_network(
            "AutoModelForZeroShotObjectDetection", "AutoProcessor", spec.argument, spec.device
        )
        self.record: dict[str, Any] = {
            "name": "owl",
            "version": 1,
            **record,
            "texts": self._texts,
            "threshold": self._threshold,
            "least": spec.least,
        }

    def find(self, picture: Picture) -> list[Sighting]:
        """Return the boxes of the texts."""
        import torch

        inputs = self._prepare(text=[self._texts], images=picture, return_tensors="pt").to(self._spec.device)
        with torch.inference_mode():
            outputs = self._network(**inputs)
        results = self._prepare.post_process_grounded_object_detection(
            outputs, threshold=self._threshold, target_sizes=[picture.shape[:2]]
        )
        return [one for _, one in _sightings(results[0], self._spec.least)]
