"""The protocol: everything a number depends on besides the data and the model."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from openilias.core.ids import Partition

ResizeRule = Literal["longest", "small", "center", "square", "pad"]
Resizer = Literal["pillow", "torchvision"]
BoxUse = Literal["none", "mask", "crop", "mask+crop"]
Pooling = Literal["head", "cls", "gap", "mac", "gem", "rmac", "rgem"]
Precision = Literal["float32", "bfloat16", "float16"]
StoredType = Literal["float16", "float32"]
ViewsOf = Literal["all", "queries"]
Combine = Literal["mean", "max"]
Compat = Literal["paper", "official"]
Keep = Literal["keep", "remove"]
Fusion = Literal["mean", "zscore", "rank"]
"""How the scores of several rankings become one."""

OFFICIAL_SCALES = (0.707, 1.0, 1.414)
"""The scales of the official multi-scale description."""

OF_SEARCH = ("k", "expand", "self_matches", "duplicates")
"""Fields of the protocol that no descriptor depends on."""


class Expand(BaseModel):
    """Alpha query expansion (paper, section 4): a second search, with each query and the best that it found together.

    Attributes:
        n: how many neighbours.
        alpha: power of their similarity that they weigh; the query weighs 1.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    n: int = Field(ge=1, le=10_000)
    alpha: float = Field(default=1.0, ge=0, le=1000)


class Protocol(BaseModel):
    """What is done to images, descriptors and lists. Printed with every result; the defaults are the paper's.

    Attributes:
        resolution: target size in pixels; None takes the model's test resolution (paper, section 4).
        resize: ``longest`` (larger side, aspect kept), ``small`` (smaller side), ``center`` (``small`` and the
            central square), ``square`` (distorted), ``pad`` (``longest``, zeros around up to a square).
        min_size: sides shorter than this, in pixels, get zeros around after the normalisation; only for ``longest``.
        resizer: ``pillow``, which the official code uses, or ``torchvision`` (faster; differs by a grey level or two
            here and there, by more where bicubic edges reach beyond black or white).
        query_boxes: what is done to the boxes of query images: nothing, ``mask`` (zeros outside their union, after the
            normalisation), ``crop`` (to the rectangle around all of them), or both (supplement B.1).
        positive_boxes: likewise of the positives.
        scales: the image is described at each of these factors of its size, and the descriptors averaged.
        rotations: likewise turned by these angles, counter-clockwise.
        views: whether scales and rotations are those of all images or of the queries only (supplement B.1).
        combine: how the unit descriptors of several views become one: their ``mean``, or the ``max`` of each dimension
            (scale-GeM with an infinite power, as SuperGlobal does).
        pooling: ``head`` (what the network returns), ``cls``, ``gap``, ``mac``, ``gem``, ``rmac``, ``rgem``; None takes
            the model's.
        precision: in which the network computes (autocast); what surrounds it is float32.
        dtype: of the stored descriptors; scores are those of the stored values.
        k: how many database images are retrieved and evaluated per query.
        expand: query expansion; None searches once.
        self_matches: whether a database image that is the query itself, by its id or by the same descriptor, is listed.
        duplicates: whether database images with the same descriptor are all listed, or only the first of them.
        compat: ``official`` repeats what the official code does where it errs. Of its quirks these concern what
            is here: GeM of negative maps (7), rotation that cuts (8), tars not turned upright (9), the uncropped mask
            over the crop (10), GELU for QuickGELU weights (17), R-MAC and R-GeM of tokens without their grid (18),
            register tokens pooled (19), the oracle of short lists (5), missing queries left out of the mean (6), query
            expansion of adapted descriptors without weights (3).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    resolution: int | None = Field(default=None, ge=1, le=20_000)
    resize: ResizeRule = "longest"
    min_size: int = Field(default=0, ge=0, le=20_000)
    resizer: Resizer = "pillow"
    query_boxes: BoxUse = "none"
    positive_boxes: BoxUse = "none"
    scales: tuple[float, ...] = Field(default=(1.0,), min_length=1, max_length=16)
    rotations: tuple[Literal[0, 90, 180, 270], ...] = Field(default=(0,), min_length=1)
    views: ViewsOf = "all"
    combine: Combine = "mean"
    pooling: Pooling | None = None
    precision: Precision = "float32"
    dtype: StoredType = "float16"
    k: int = Field(default=1000, ge=1, le=2**31 - 1)
    expand: Expand | None = None
    self_matches: Keep = "keep"
    duplicates: Keep = "keep"
    compat: Compat = "paper"

    @model_validator(mode="after")
    def _consistent(self) -> Protocol:
        if any(not 0.05 <= scale <= 8 for scale in self.scales):
            raise ValueError("scales must lie between 0.05 and 8")
        for name in ("scales", "rotations"):
            if len(set(getattr(self, name))) != len(getattr(self, name)):
                raise ValueError(f"{name} must differ from each other")
        if self.min_size and self.resize != "longest":
            raise ValueError("min_size belongs to the resize rule longest")
        return self

    def boxes_of(self, partition: Partition) -> BoxUse:
        """Return what is done to the boxes of a partition; distractors have none."""
        if partition == "image_queries":
            return self.query_boxes
        return self.positive_boxes if partition == "positives" else "none"

    def views_of(self, partition: Partition) -> tuple[tuple[float, int], ...]:
        """Return the (scale, rotation) of each view of an image of a partition, in the order of the official code."""
        if self.views == "queries" and partition != "image_queries":
            return ((1.0, 0),)
        return tuple((scale, turn) for scale in self.scales for turn in self.rotations)

    def seen_by(self, partition: Partition) -> Protocol:
        """Return the protocol without what does not concern a partition: what its descriptors depend on.

        Distractors described once serve all that masks, crops or looks several times at queries and positives only.
        """
        plain = partition == "text_queries" or self.views_of(partition) == ((1.0, 0),)
        return self.model_copy(
            update={
                "query_boxes": self.query_boxes if partition == "image_queries" else "none",
                "positive_boxes": self.positive_boxes if partition == "positives" else "none",
                "scales": (1.0,) if plain else self.scales,
                "rotations": (0,) if plain else self.rotations,
                "views": "all",
                "combine": "mean" if plain else self.combine,
            }
        )

    def description(self) -> dict[str, Any]:
        """Return the fields that a stored descriptor depends on."""
        return self.model_dump(mode="json", exclude=set(OF_SEARCH))
