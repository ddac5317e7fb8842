"""The protocol: everything a number depends on besides the data and the model."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

ResizeRule = Literal["longest", "small", "center", "square", "pad"]
Pooling = Literal["head", "cls", "gap", "mac", "gem"]
Compat = Literal["paper", "official"]


class Protocol(BaseModel):
    """What is done to images, descriptors and lists. Printed with every result; the defaults are the paper's.

    Attributes:
        resolution: target size in pixels; None takes the model's test resolution (paper, section 4).
        resize: ``longest`` (larger side, aspect kept), ``small`` (smaller side), ``center`` (``small`` and the
            central square), ``square`` (distorted), ``pad`` (``longest``, zeros around up to a square).
        pooling: ``head`` (what the network returns), ``cls``, ``gap``, ``mac``, ``gem``; None takes the model's.
        dtype: of the stored descriptors; scores are those of the stored values.
        k: how many database images are retrieved and evaluated per query.
        compat: ``official`` repeats what the official code does where it errs. Of its quirks these concern what
            is here: GeM of negative maps (7), tars not turned upright (9), GELU for QuickGELU weights (17), register
            tokens pooled (19), the oracle of short lists (5), missing queries left out of the mean (6).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    resolution: int | None = Field(default=None, ge=1, le=20_000)
    resize: ResizeRule = "longest"
    pooling: Pooling | None = None
    dtype: Literal["float16", "float32"] = "float16"
    k: int = Field(default=1000, ge=1, le=2**31 - 1)
    compat: Compat = "paper"

    def description(self) -> dict[str, Any]:
        """Return the fields that a stored descriptor depends on."""
        return self.model_dump(mode="json", exclude={"k"})
