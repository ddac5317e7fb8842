"""White balance of a photograph: gains from its histogram, applied by a table of 256 values per channel.

The paper says only that white balance is applied to all images (supplement, "Downloading and storing images"), not
which. So the method, and every number in it, is a field of :class:`Balance`, and is recorded.

An illuminant multiplies light, not the values of a file, which are about its square root: gains belong in linear light
(von Kries). ``light="srgb"`` multiplies the stored values instead, as many scripts do.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image
from pydantic import BaseModel, Field

Method = Literal["grey-world", "white-patch", "none"]
Light = Literal["linear", "srgb"]
Gains = tuple[float, float, float]

NEUTRAL: Gains = (1.0, 1.0, 1.0)
_LUMA = (0.2126, 0.7152, 0.0722)  # Rec. 709, whose primaries sRGB has
_UNIT = 1 << 30  # of integers that stand for light, so that sums do not depend on their order


class Balance(BaseModel, frozen=True, extra="forbid"):
    """How white balance is done.

    Attributes:
        method: what is taken for the colour of the light: ``grey-world`` the mean of all pixels (Buchsbaum 1980),
            ``white-patch`` a high percentile of each channel (Land 1977; the maximum itself is noise and highlights).
        percentile: of ``white-patch``, in percent.
        light: whether gains multiply linear light or sRGB values.
        limit: largest ratio of two gains. A cast beyond it is corrected in part: a meadow does not turn grey.
            Grey-world asks half of 630 photographs for more than 1.5, mostly for what they show (``docs/ingest.md``).
        neutral: ratio of two gains up to which a picture is left as it is.
    """

    method: Method = "grey-world"
    percentile: Annotated[float, Field(gt=50, le=100)] = 99.0
    light: Light = "linear"
    limit: Annotated[float, Field(ge=1, le=100)] = 1.5
    neutral: Annotated[float, Field(ge=1, le=2)] = 1.02


def _linear() -> npt.NDArray[np.float64]:
    value = np.arange(256) / 255
    # IEC 61966-2-1
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


_LIGHT: dict[Light, npt.NDArray[np.int64]] = {
    "linear": np.rint(_linear() * _UNIT).astype(np.int64),
    "srgb": np.arange(256, dtype=np.int64) * (_UNIT // 255),
}


def gains_of(histogram: npt.NDArray[np.int64], balance: Balance) -> Gains:
    """Return the gains of red, green and blue for a picture.

    With ``e`` the colour of the light, gains are proportional to ``(1 / e) ** t``, where ``t`` is 1, or less where the
    largest would exceed ``limit`` times the smallest. They are scaled so that the luminance of the mean pixel stays
    what it was, so each lies within ``1 / limit`` and ``limit``. All are exactly 1 if the largest is at most
    ``neutral`` times the smallest.

    Args:
        histogram: (3, 256) int64, how many pixels have each value.
        balance: what to do.
    """
    if balance.method == "none" or not histogram.any():
        return NEUTRAL
    light = _LIGHT[balance.light]
    # In integers: the same picture has the same gains on every machine.
    mean = [int((channel * light).sum()) / int(channel.sum()) for channel in histogram]
    seen = mean if balance.method == "grey-world" else [float(light[v]) for v in percentiles(histogram, balance)]
    dark = float(light[1])  # a channel without light would ask for an infinite gain
    wanted = [-math.log(max(value, dark)) for value in seen]
    spread = max(wanted) - min(wanted)
    if spread <= math.log(balance.neutral):
        return NEUTRAL
    share = min(1.0, math.log(balance.limit) / spread)
    gains = [math.exp(share * (value - wanted[1])) for value in wanted]
    before = sum(weight * value for weight, value in zip(_LUMA, mean, strict=True))
    after = sum(weight * value * gain for weight, value, gain in zip(_LUMA, mean, gains, strict=True))
    scale = before / after if after > 0 else 1.0
    # Rounded, as the last digits of exp and log depend on the machine.
    red, green, blue = (round(gain * scale, 6) for gain in gains)
    return red, green, blue


def percentiles(histogram: npt.NDArray[np.int64], balance: Balance) -> list[int]:
    """Return the least value of each channel below or at which ``percentile`` percent of the pixels lie."""
    total = int(histogram[0].sum())
    rank = max(1, math.ceil(total * balance.percentile / 100))
    return [int(np.searchsorted(np.cumsum(channel), rank)) for channel in histogram]


def table_of(gains: Gains, light: Light) -> npt.NDArray[np.uint8]:
    """Return (3, 256) uint8: what becomes of each value of each channel; too bright is cut off at 255."""
    value = np.arange(256) / 255 if light == "srgb" else _linear()
    scaled = np.minimum(np.multiply.outer(np.array(gains), value), 1.0)
    if light == "linear":
        scaled = np.where(scaled <= 0.0031308, scaled * 12.92, 1.055 * scaled ** (1 / 2.4) - 0.055)
    table: npt.NDArray[np.uint8] = np.floor(scaled * 255 + 0.5).astype(np.uint8)
    return table


def white_balanced(image: Image.Image, balance: Balance) -> tuple[Image.Image, Gains]:
    """Balance an RGB picture; return it, unchanged if it is neutral, and the gains."""
    gains = gains_of(np.array(image.histogram(), np.int64).reshape(3, 256), balance)
    if gains == NEUTRAL:
        return image, gains
    return image.point(table_of(gains, balance.light).reshape(-1).tolist()), gains
