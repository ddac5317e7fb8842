"""RootSIFT + VLAD + PCA whitening: the classical baseline, which needs no download.

RootSIFT (Arandjelovic and Zisserman, CVPR 2012) of OpenCV's SIFT keypoints, aggregated by VLAD (Jegou et al.,
PAMI 2012) with intra-normalisation (Arandjelovic and Zisserman, CVPR 2013), signed power law and L2
normalisation, then PCA whitening (Jegou and Chum, ECCV 2012). The visual words and the whitening are fitted on
images; the fitted file is a model like any other.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field

from openilias.core.errors import OpenIliasError
from openilias.core.files import atomic_path
from openilias.core.ids import Partition
from openilias.core.protocol import Protocol
from openilias.images.boxes import Box
from openilias.images.prepare import Preparation
from openilias.images.resize import resize
from openilias.models.backbone import Backbone, View, normalise
from openilias.models.spec import ModelSpec
from openilias.models.whitening import Whitening

Floats = npt.NDArray[np.float32]
FORMAT = "openilias sift_vlad 1"


class SiftVladSettings(BaseModel):
    """What is fixed when ``sift_vlad`` is fitted; every field changes the descriptors.

    Attributes:
        words: visual words of VLAD.
        dims: wanted dimensions; at most images - 1 come out.
        resolution: of the pictures the fit looks at, and the test resolution of the fitted model.
        keypoints: the strongest so many of an image are used.
        contrast: SIFT's contrast threshold.
        power: exponent of the signed power law.
        whitening: exponent of the variance that each axis is divided by: 0.5 whitens fully, 0 only rotates.
        images: at most so many, drawn at random, are fitted on.
        word_images: at most so many of these are used to learn the words.
        sample: at most so many local descriptors the words are learned from.
        seed: of the draws and of k-means.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    words: int = Field(default=128, ge=2, le=4096)
    dims: int = Field(default=512, ge=2, le=65536)
    resolution: int = Field(default=724, ge=32, le=4096)
    keypoints: int = Field(default=1500, ge=1, le=100_000)
    contrast: float = Field(default=0.01, gt=0, le=1)
    power: float = Field(default=0.5, gt=0, le=1)
    whitening: float = Field(default=0.5, ge=0, le=1)
    images: int = Field(default=5000, ge=3)
    word_images: int = Field(default=300, ge=1)
    sample: int = Field(default=100_000, ge=1000)
    seed: int = Field(default=0, ge=0, le=2**32 - 1)


@dataclass(frozen=True)
class SiftVlad:
    """A fitted model: words (K, 128) float32, whitening of (K * 128,) vectors."""

    settings: SiftVladSettings
    words: Floats
    whitening: Whitening

    @property
    def digest(self) -> str:
        """SHA-256 of settings and numbers."""
        digest = hashlib.sha256(self.settings.model_dump_json().encode())
        for array in (self.words, self.whitening.mean, self.whitening.projection):
            digest.update(str(array.shape).encode() + np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()


def root_sift(grey: npt.NDArray[np.uint8], *, keypoints: int = 1500, contrast: float = 0.01) -> Floats:
    """Return at most ``keypoints`` RootSIFT descriptors (n, 128) float32 of a grey picture (H, W); n may be 0."""
    import cv2

    sift = cv2.SIFT.create(nfeatures=keypoints, contrastThreshold=contrast)
    _, found = sift.detectAndCompute(grey, None)
    if found is None:
        return np.zeros((0, 128), np.float32)
    sums = np.maximum(found.sum(axis=1, keepdims=True), 1e-12)
    # With equal responses OpenCV keeps more than it was asked for.
    return np.asarray(np.sqrt(found / sums), np.float32)[:keypoints]


def vlad(descriptors: Floats, words: Floats, *, power: float = 0.5) -> Floats:
    """Aggregate local descriptors (n, d) by their residuals to the nearest of (K, d) words.

    Returns:
        (K * d,) float32: residual sums, L2-normalised per word, raised to a signed power, L2-normalised; zero if
        n is 0.
    """
    sums = np.zeros(words.shape, np.float32)
    if len(descriptors):
        nearest = ((words**2).sum(axis=1) - 2 * descriptors @ words.T).argmin(axis=1)
        belongs = np.zeros((len(words), len(descriptors)), np.float32)
        belongs[nearest, np.arange(len(descriptors))] = 1
        sums = belongs @ descriptors - belongs.sum(axis=1, keepdims=True) * words
    residuals = normalise(sums).ravel()
    vector = np.sign(residuals) * np.abs(residuals) ** power
    return np.asarray(vector / max(float(np.linalg.norm(vector)), 1e-12), np.float32)


def vlad_of(grey: npt.NDArray[np.uint8], words: Floats, settings: SiftVladSettings) -> Floats:
    """Return the VLAD vector (K * 128,) float32 of a grey picture (H, W)."""
    found = root_sift(grey, keypoints=settings.keypoints, contrast=settings.contrast)
    return vlad(found, words, power=settings.power)


def grey_picture(image: Image.Image, resolution: int) -> npt.NDArray[np.uint8]:
    """Resize a picture to a larger side of ``resolution`` and make it grey (H, W) uint8."""
    picture: npt.NDArray[np.uint8] = np.asarray(Image.fromarray(resize(image, "longest", resolution)).convert("L"))
    return picture


def learn_words(descriptors: Floats, settings: SiftVladSettings) -> Floats:
    """Cluster local descriptors (n, 128) into visual words (K, 128) float32.

    Raises:
        OpenIliasError: fewer descriptors than words.
    """
    from sklearn.cluster import MiniBatchKMeans

    if len(descriptors) < settings.words:
        raise OpenIliasError(
            f"{len(descriptors)} keypoints are too few to learn {settings.words} visual words.",
            fix="Fit on more images, or with fewer --words.",
        )
    means = MiniBatchKMeans(settings.words, random_state=settings.seed, n_init=1, batch_size=8192)
    return np.asarray(means.fit(descriptors).cluster_centers_, np.float32)


def save_sift_vlad(model: SiftVlad, path: Path, *, fitted_on: dict[str, Any]) -> None:
    """Write a fitted model to one ``.safetensors`` file that carries its digest."""
    from safetensors.numpy import save_file

    arrays = {
        "words": model.words,
        "mean": model.whitening.mean,
        "projection": np.ascontiguousarray(model.whitening.projection),
    }
    metadata = {
        "format": FORMAT,
        "settings": model.settings.model_dump_json(),
        "digest": model.digest,
        "fitted_on": json.dumps(fitted_on, sort_keys=True),
    }
    with atomic_path(path) as temporary:
        save_file(arrays, temporary, metadata=metadata)


def load_sift_vlad(path: Path) -> tuple[SiftVlad, dict[str, Any]]:
    """Read a fitted model; return it and what it was fitted on.

    Raises:
        OpenIliasError: no such file, not a fitted model, or its numbers are not those of its digest.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise OpenIliasError(
            "There is no such fitted model.", where=path, fix="Make one with: ilias models fit sift_vlad"
        )
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise OpenIliasError("This file is not a fitted sift_vlad.", where=path, fix="Fit one.")
            settings = SiftVladSettings.model_validate_json(metadata["settings"])
            words, mean, projection = (file.get_tensor(name) for name in ("words", "mean", "projection"))
            fitted_on: dict[str, Any] = json.loads(metadata["fitted_on"])
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise OpenIliasError(f"This fitted model cannot be read: {error}.", where=path, fix="Fit it again.") from None
    model = SiftVlad(settings, words, Whitening(mean, projection))
    if model.digest != metadata.get("digest"):
        raise OpenIliasError("This fitted model is damaged: its digest differs.", where=path, fix="Fit it again.")
    return model, fitted_on


@dataclass(frozen=True)
class SiftPreparation:
    """From a picture to its VLAD vector: the keypoints are found where pictures are decoded."""

    pixels: Preparation
    words: Floats
    settings: SiftVladSettings

    def __call__(self, image: Image.Image, boxes: tuple[Box, ...] = ()) -> Floats:
        """Return (K * 128,) float32. Where a mask is asked for, what lies outside is black."""
        found = self.pixels(image, boxes)
        if found.shape[2] == 4:
            found = found[:, :, :3] * found[:, :, 3:]
        grey = np.asarray(Image.fromarray(found).convert("L"))
        if self.pixels.resize == "pad":
            grey = _padded(grey, self.pixels.resolution)
        return vlad_of(grey, self.words, self.settings)


def _padded(grey: npt.NDArray[np.uint8], side: int) -> npt.NDArray[np.uint8]:
    extra = [max(side - length, 0) for length in grey.shape]
    return np.pad(grey, [(more // 2, more - more // 2) for more in extra])


class SiftVladBackbone(Backbone):
    """A fitted ``sift_vlad``; the keypoints are found in the worker processes."""

    def __init__(self, spec: ModelSpec, protocol: Protocol, *, weights: Path) -> None:
        self._model, self.fitted_on = load_sift_vlad(weights)
        settings = self._model.settings
        if protocol.pooling is not None and protocol.pooling != "head":
            raise OpenIliasError("sift_vlad has VLAD as its pooling.", fix="Leave --pooling out.")
        for name, plain in (("scales", (1.0,)), ("rotations", (0,)), ("min_size", 0), ("precision", "float32")):
            if getattr(protocol, name) != plain:
                raise OpenIliasError(
                    f"sift_vlad takes no {name}: SIFT itself finds the scale and the rotation of each keypoint.",
                    fix=f"Leave --{name.replace('_', '-')} out.",
                )
        self.spec = spec.model_copy(update={"test": settings.resolution})
        self.protocol = self.spec.resolve(protocol)
        self.weights_digest, self.weights_from = self._model.digest, "fit"
        self.dims = int(self._model.whitening.projection.shape[1])

    def preparation(self, partition: Partition) -> SiftPreparation:
        """Return what makes the VLAD vector (K * 128,) float32 of a picture of this partition."""
        protocol, settings = self.protocol, self._model.settings
        pixels = Preparation(
            protocol.resolution or settings.resolution,
            protocol.resize,
            protocol.resizer,
            protocol.boxes_of(partition),
            protocol.compat,
        )
        return SiftPreparation(pixels, self._model.words, settings)

    def describe(self, batch: npt.NDArray[Any], views: tuple[View, ...]) -> Floats:
        """Whiten VLAD vectors: (B, K * 128) to (B, dims)."""
        return self._model.whitening.apply(batch)
