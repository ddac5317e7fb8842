"""The re-ranking of an experiment: which local descriptors, how they are compared, how that is put together."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from openilias.models.local_backbone import LocalSettings, Scale
from openilias.rerank.similarities import LocalStep
from openilias.rerank.spatial import SpatialSettings

FILES = ("weights", "detector", "itq", "network", "mix")


class RerankStep(BaseModel):
    """Re-ranking of the shortlists by local descriptors.

    Attributes:
        method: how sets of descriptors are compared; ``none`` leaves the ranking as it is, beside others of a matrix.
        model: of local descriptors, that of the paper by default.
        weights: local file, instead of the published weights.
        random_weights: seed, for no weights at all.
        detector: file of the attention detector of AMES.
        resolution: larger side of the described images.
        scales: at which they are described.
        most: descriptors of an image that are stored.
        bits: that they are packed to by ITQ, learned from those of the database; None compares numbers.
        itq: a binarisation that was learned, instead.
        network: of AMES; a binary one packs them by its own bits.
        precision: in which the network computes.
        shortlist: images of each list that are compared.
        top: images of each list that are described; as many as are compared by default. Runs with one ``top`` share
            their descriptors.
        descriptors: of a database image.
        query_descriptors: of a query.
        spatial: of spatial verification.
        mix: file of ``ilias tune``.
        global_weight: of the global similarity, instead of a file; with gamma.
        gamma: of the sigmoid of the local one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: Literal["none", "chamfer", "spatial", "ames"]
    model: str = "dinov2_vitb14_reg"
    weights: Path | None = None
    random_weights: int | None = Field(default=None, ge=0, le=2**32 - 1)
    detector: Path | None = None
    resolution: int = Field(default=770, ge=14, le=20_000)
    scales: tuple[Scale, ...] = Field(default=(1.0,), min_length=1, max_length=16)
    most: int = Field(default=700, ge=1, le=100_000)
    bits: int | None = Field(default=128, ge=64, le=4096, multiple_of=64)
    itq: Path | None = None
    network: Path | None = None
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    shortlist: int = Field(default=1000, ge=1)
    top: int | None = Field(default=None, ge=1)
    descriptors: int = Field(default=100, ge=1)
    query_descriptors: int = Field(default=600, ge=1)
    spatial: SpatialSettings = SpatialSettings()
    mix: Path | None = None
    global_weight: float | None = Field(default=None, ge=0, le=1)
    gamma: float | None = Field(default=None, gt=0, le=1e6)

    @model_validator(mode="after")
    def _whole(self) -> RerankStep:
        if self.method == "none":
            return self
        numbers = self.global_weight is not None and self.gamma is not None
        if numbers == (self.mix is not None) or (self.global_weight is None) != (self.gamma is None):
            raise ValueError("give mix, a file of ilias tune, or both global_weight and gamma")
        if self.method == "ames" and self.network is None:
            raise ValueError("ames compares by a network: give one")
        if self.top is not None and self.top < self.shortlist:
            raise ValueError("top, the images that are described, must not be smaller than shortlist")
        if max(self.descriptors, self.query_descriptors) > self.most:
            raise ValueError("more descriptors are compared than most, which are stored")
        if self.weights is not None and self.random_weights is not None:
            raise ValueError("only one of weights and random_weights can be given")
        return self

    def anchored(self, folder: Path) -> RerankStep:
        """Return it with its paths relative to a folder."""
        given = {name: getattr(self, name) for name in FILES}
        return self.model_copy(update={name: folder / path for name, path in given.items() if path is not None})

    @property
    def local_settings(self) -> LocalSettings:
        """What the descriptors depend on besides images and model."""
        return LocalSettings(resolution=self.resolution, scales=self.scales, most=self.most)

    def local_step(self) -> LocalStep:
        """Return how they are compared.

        Raises:
            ValueError: the method is ``none``.
        """
        if self.method == "none":
            raise ValueError("nothing is compared")
        return LocalStep(
            method=self.method,
            shortlist=self.shortlist,
            descriptors=self.descriptors,
            query_descriptors=self.query_descriptors,
            spatial=self.spatial,
        )
