"""The adaptation of an experiment: a layer that is there, or one that is learned first."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from openilias.adapt.methods import LARGEST_MARGIN, Margin


class AdaptStep(BaseModel):
    """A linear layer between the descriptors and the search.

    Attributes:
        file: a layer, or the folder of a learned one, instead of learning one.
        train: the training set that one is learned from: a list, or a folder.
        images: the folder that the paths of the list lie in; by default that of the list.
        method: how it is learned; ``none`` searches the descriptors as they are, beside the others of a matrix.
        domains: of the training set; all by default.
        dim: of the adapted descriptors.
        epochs: of UJCDS, as all that follow; see :class:`openilias.adapt.ujcds.Settings`.
        batch_size: images of a step.
        learning_rate: of Adam.
        weight_decay: of Adam, added to the gradient.
        scale: of the cosines.
        margin: on the cosine of an image with its class.
        margin_size: of the cosine, or in radians; by default that of the paper of the margin.
        sampled: approximation: a step takes its classes and so many drawn ones.
        held_out: images kept back to measure recall on while it learns.
        seed: everything that is drawn follows from it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: Path | None = None
    train: Path | None = None
    images: Path | None = None
    method: Literal["none", "ujcds", "pcaw", "lw"] = "ujcds"
    domains: tuple[str, ...] | None = None
    dim: int = Field(default=512, ge=1)
    epochs: int = Field(default=2, ge=1)
    batch_size: int = Field(default=128, ge=1)
    learning_rate: float = Field(default=1e-3, gt=0, le=1000)
    weight_decay: float = Field(default=1e-6, ge=0, le=1000)
    scale: float = Field(default=16.0, gt=0, allow_inf_nan=False)
    margin: Margin = "none"
    margin_size: float | None = Field(default=None, gt=0, le=LARGEST_MARGIN)
    sampled: int | None = Field(default=None, ge=1)
    held_out: int = Field(default=1000, ge=0)
    seed: int = Field(default=0, ge=0, le=2**32 - 2)

    @model_validator(mode="after")
    def _one_source(self) -> AdaptStep:
        if self.file is None and self.train is None and self.method != "none":
            raise ValueError("give a file, or train: the images that a layer is learned from")
        if self.file is not None and self.model_fields_set - {"file"}:
            raise ValueError("a file is a layer that was learned: nothing else can be said of it")
        if self.images is not None and self.train is None:
            raise ValueError("images is the folder of the images in train")
        if self.margin == "none" and self.margin_size is not None:
            raise ValueError("margin_size is the size of a margin: give margin too")
        if self.domains is not None and not self.domains:
            raise ValueError("domains names no domain")
        return self

    def anchored(self, folder: Path) -> AdaptStep:
        """Return it with its paths relative to a folder."""
        given = {name: getattr(self, name) for name in ("file", "train", "images")}
        return self.model_copy(update={name: folder / path for name, path in given.items() if path is not None})
