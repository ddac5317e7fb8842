"""The names of methods and margins, without anything heavy: commands name them in their help."""

from __future__ import annotations

from typing import Literal

Method = Literal["ujcds", "pcaw", "lw"]
"""UJCDS (the paper's), PCA whitening, learned whitening."""
Margin = Literal["none", "cosface", "arcface"]
"""On the cosine of an image with its own class."""
