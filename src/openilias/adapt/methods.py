"""The names of methods and margins, without anything heavy: commands name them in their help."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

Method = Literal["ujcds", "pcaw", "lw"]
"""UJCDS (the paper's), PCA whitening, learned whitening."""
Margin = Literal["none", "cosface", "arcface"]
"""On the cosine of an image with its own class."""
LARGEST_MARGIN = 1.5
"""Half of what cosines span, and a little less than a right angle."""
USUAL_SIZE: Mapping[Margin, float] = MappingProxyType({"none": 0.0, "cosface": 0.35, "arcface": 0.5})
"""Of a margin, where none is given: that of its paper."""
