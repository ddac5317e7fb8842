"""The knobs of the generated benchmark: what makes a positive hard, and how alike hard negatives are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, model_validator

# The official groups of area coverage and clutter, a little inside; positives take turns in them.
_SCALES = ((0.024, 0.066), (0.08, 0.133), (0.17, 0.268), (0.34, 0.82))
_CLUTTER = ((0, 17), (18, 32), (33, 52), (53, 72))
MOST_CLUTTER = 72


def _as_range(value: Any) -> Any:
    """Take one number for both ends, and text ``low:high``."""
    if isinstance(value, str):
        words = value.split(":")
        try:
            numbers = [float(word) for word in words]
        except ValueError:
            numbers = []
        if len(numbers) not in (1, 2):
            raise ValueError(f"expected a number or low:high, not {value!r}")
        value = numbers if len(numbers) == 2 else numbers * 2
    elif isinstance(value, int | float) and not isinstance(value, bool):
        value = (value, value)
    return value


def _in_order(value: tuple[float, float] | None) -> tuple[float, float] | None:
    if value is not None and value[0] > value[1]:
        raise ValueError(f"the lower end ({value[0]:g}) exceeds the upper ({value[1]:g})")
    return value


_Degrees = Annotated[float, Field(ge=0, le=180)]
_Share = Annotated[float, Field(ge=0, le=1)]
_Part = Annotated[float, Field(ge=0, le=0.9)]
_Strength = Annotated[float, Field(ge=0, le=5)]
_Scale = Annotated[float, Field(ge=0.002, le=0.9)]
_Sigma = Annotated[float, Field(ge=0, le=20)]
_Number = Annotated[int, Field(ge=0, le=MOST_CLUTTER)]
_ends = (BeforeValidator(_as_range), AfterValidator(_in_order))


class Knobs(BaseModel, frozen=True, extra="forbid"):
    """Ranges that the positives are drawn from, each on its own: a range ``(low, high)`` or one number.

    Each knob has its own random numbers, so that changing one changes nothing else in the pictures (but flat things
    lie from 30 degrees on, where a wall would be seen aslant). Distractors follow ``hard`` and ``closeness`` only: all
    other knobs leave them as they are. The scenes of the training split follow the knobs of the positives.

    Attributes:
        viewpoint: degrees between the directions from which the query and the positive see the thing; of flat
            things at most 75.
        scale: share of the picture that the box of the whole thing fills, as far as it fits; None takes turns in
            the four groups of the paper.
        occlusion: share of the thing within the picture that other things hide; None hides up to 0.3 of two
            positives in five. The things in front count as clutter.
        illumination: strength of colour cast, exposure, uneven light and shadow: 0 none, 1 a careless photograph.
        blur: standard deviation of the blur in pixels of a picture of 500 pixels, in proportion for other sizes;
            less than 0.3 pixels of the picture itself change nothing.
        clutter: number of other things; None takes turns in the four groups of the paper.
        crop: share of the thing that the frame cuts off; None cuts up to 0.35 of one positive in five.
        closeness: share of its traits that a hard negative has in common with an object; at 1 it differs in one
            small detail only.
        hard: share of the distractors that are hard negatives.
    """

    viewpoint: Annotated[tuple[_Degrees, _Degrees], *_ends] = (0.0, 45.0)
    scale: Annotated[tuple[_Scale, _Scale] | None, *_ends] = None
    occlusion: Annotated[tuple[_Part, _Part] | None, *_ends] = None
    illumination: Annotated[tuple[_Strength, _Strength], *_ends] = (1.0, 1.0)
    blur: Annotated[tuple[_Sigma, _Sigma], *_ends] = (0.0, 1.2)
    clutter: Annotated[tuple[_Number, _Number] | None, *_ends] = None
    crop: Annotated[tuple[_Part, _Part] | None, *_ends] = None
    closeness: Annotated[tuple[_Share, _Share], *_ends] = (0.3, 1.0)
    hard: Annotated[float, Field(ge=0, le=1)] = 0.1

    @model_validator(mode="after")
    def _agree(self) -> Knobs:
        if self.occlusion and self.clutter and self.occlusion[1] > 0 and self.clutter[0] == 0:
            raise ValueError("occlusion: needs clutter of at least 1; the things in front count as clutter")
        return self


class Streams:
    """Random numbers of one picture, a stream of its own for each aspect: drawing more of one moves no other."""

    _ASPECTS = (
        "frame", "viewpoint", "scale", "occlusion", "illumination", "blur", "clutter", "crop", "manner", "pose", "room",
        "heights", "place", "props", "spots", "poses", "front", "focus", "noise", "jpeg", "variant", "turns",
        "light", "shake", "side", "camera",
    )  # fmt: skip

    def __init__(self, *key: int) -> None:
        self._key = key

    def of(self, aspect: str) -> np.random.Generator:
        """Start the stream of an aspect from its beginning."""
        return np.random.default_rng([*self._key, self._ASPECTS.index(aspect)])


@dataclass(frozen=True)
class Shot:
    """What is asked of one picture; the fields are one value each of :class:`Knobs`."""

    viewpoint: float
    scale: float
    occlusion: float
    illumination: float
    blur: float
    clutter: int
    crop: float


def draw_shot(knobs: Knobs, streams: Streams, groups: tuple[int, int]) -> Shot:
    """Draw a value for each knob.

    Args:
        knobs: the ranges.
        streams: of the picture.
        groups: which group (0 to 3) of scale and of clutter it is the turn of, where the knobs leave it open.
    """

    def between(name: str, limits: tuple[float, float]) -> float:
        return float(limits[0] + (limits[1] - limits[0]) * streams.of(name).random())

    def sometimes(name: str, chance: float, limits: tuple[float, float]) -> float:
        rng = streams.of(name)
        value = float(rng.uniform(*limits))
        return value if rng.random() < chance else 0.0

    low, high = np.log(knobs.scale or _SCALES[groups[0]])
    least, most = knobs.clutter or _CLUTTER[groups[1]]
    clutter = int(streams.of("clutter").integers(least, most + 1))
    occlusion = (
        sometimes("occlusion", 0.4, (0.03, 0.3)) if knobs.occlusion is None else between("occlusion", knobs.occlusion)
    )
    if occlusion > 0 and clutter == 0 and knobs.occlusion is not None:
        clutter = 1
    return Shot(
        viewpoint=between("viewpoint", knobs.viewpoint),
        scale=float(np.exp(low + (high - low) * streams.of("scale").random())),
        occlusion=occlusion if clutter else 0.0,
        illumination=between("illumination", knobs.illumination),
        blur=between("blur", knobs.blur),
        clutter=clutter,
        crop=sometimes("crop", 0.2, (0.05, 0.35)) if knobs.crop is None else between("crop", knobs.crop),
    )
