"""The frozen record of a model."""

from __future__ import annotations

from math import isfinite
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from openilias.core.protocol import Pooling, Protocol

Library = Literal["timm", "torchvision", "open_clip", "hf", "own", "python", "sift_vlad"]
Positions = Literal["library", "bicubic", "offset", "antialiased"]
Triple = tuple[float, float, float]

IMAGENET_MEAN: Triple = (0.485, 0.456, 0.406)
IMAGENET_STD: Triple = (0.229, 0.224, 0.225)


_NOT_DECISIVE = {"weights", "url", "weights_sha256", "layout", "text", "train_resolution", "test", "licence", "source"}
"""The digest of the loaded weights stands for their file; resolutions are in the protocol."""


class TextTower(BaseModel):
    """The text tower that was trained together with an image tower of another library; a model of open_clip.

    Attributes:
        architecture: its name in open_clip.
        tag: which of the published weights.
        quick_gelu: its weights were trained with QuickGELU.
        official: ``ARCHITECTURE/TAG`` that the official code takes instead.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    architecture: str
    tag: str
    quick_gelu: bool = False
    official: str | None = None

    def taken(self, protocol: Protocol) -> TextTower:
        """Return the tower that a protocol asks for; the official code goes by the name for QuickGELU."""
        if protocol.compat == "paper":
            return self
        architecture, _, tag = (self.official or f"{self.architecture}/{self.tag}").partition("/")
        return TextTower(architecture=architecture, tag=tag)


class ModelSpec(BaseModel):
    """Everything about a model that decides its descriptors and can be written down before its weights are there.

    Attributes:
        name: how users call it.
        library: the adapter that loads it; ``own`` is :mod:`openilias.models.own_networks`.
        architecture: its name in that library; for ``python`` a file and a function, ``path.py:function``.
        tag: which of the published weights, where a library has several under one name.
        arguments: further arguments of the architecture.
        projection: keep the head, because it is a projection and not a classifier (CLIP-like models).
        quick_gelu: its weights were trained with QuickGELU.
        positions: how position embeddings are brought to other grids: the way of the ``library``, or as the model's
            authors do (:mod:`openilias.models.positions`).
        weights: where they come from: the library's own ``hub``, a ``url``, a local ``file``, or ``fit`` on images.
        url: of the file, for ``url``.
        weights_sha256: of the file, where known.
        layout: how the file names its tensors (:mod:`openilias.models.checkpoints`); None as the architecture does.
        text: the text tower, where the architecture has none of its own and one was trained with it.
        code_sha256: of what decides beside the weights: the user's own code, or the configuration of a model folder.
        train_resolution: in pixels.
        test: test resolution where it does not follow the rule.
        mean: of the RGB channels in [0, 1].
        std: likewise.
        pooling: how the last map becomes one vector.
        licence: of the weights.
        source: where they were published.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    library: Library
    architecture: str
    tag: str | None = None
    arguments: dict[str, Any] = Field(default_factory=dict)
    projection: bool = False
    quick_gelu: bool = False
    positions: Positions = "library"
    weights: Literal["hub", "url", "file", "fit"] = "hub"
    url: str | None = None
    weights_sha256: str | None = None
    layout: str | None = None
    text: TextTower | None = None
    code_sha256: str | None = None
    train_resolution: int = Field(default=224, ge=1)
    test: int | None = None
    mean: Triple = IMAGENET_MEAN
    std: Triple = IMAGENET_STD
    pooling: Pooling = "head"
    licence: str | None = None
    source: str | None = None

    @model_validator(mode="after")
    def _possible(self) -> ModelSpec:
        if not all(isfinite(value) for value in (*self.mean, *self.std)) or min(self.std) <= 0:
            raise ValueError(f"mean {self.mean} and std {self.std} are not possible")
        if (self.weights == "url") != (self.url is not None):
            raise ValueError("a url belongs to weights from a url")
        return self

    def description(self) -> dict[str, Any]:
        """Return what a descriptor depends on beside the weights themselves, as JSON values."""
        return self.model_dump(mode="json", exclude=_NOT_DECISIVE)

    @property
    def test_resolution(self) -> int:
        """The resolution to test at: one step of {384, 512, 724} above training (paper, section 4)."""
        if self.test is not None:
            return self.test
        return 384 if self.train_resolution < 299 else 512 if self.train_resolution < 512 else 724

    def resolve(self, protocol: Protocol) -> Protocol:
        """Fill in what the protocol leaves to the model."""
        return protocol.model_copy(
            update={
                "resolution": protocol.resolution or self.test_resolution,
                "pooling": protocol.pooling or self.pooling,
            }
        )
