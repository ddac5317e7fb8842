"""Margins on the cosine of an image with its own class: CosFace, ArcFace, and none."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from openilias.adapt.methods import Margin

_EDGE = 1e-7  # of the cosines that have a finite slope


def with_margin(cosines: Tensor, kind: Margin, margin: float) -> tuple[Tensor, Tensor]:
    """Return what stands for the cosine of an image with its class, and its derivative by that cosine.

    Args:
        cosines: (B,) in [-1, 1].
        kind: ``cosface`` (Wang et al., CVPR 2018) subtracts the margin, ``arcface`` (Deng et al., CVPR 2019) adds it to
            the angle. Where that is more than half a turn, the cosine would rise again: as the authors do, the cosine
            less margin * sin(margin) is taken there.
        margin: of the cosine, or in radians.
    """
    if kind == "arcface":
        inside = cosines.clamp(-1 + _EDGE, 1 - _EDGE)
        angle = torch.acos(inside)
        slope = torch.where(inside == cosines, torch.sin(angle + margin) / torch.sin(angle), 0.0)
        within = angle + margin <= math.pi
        below = cosines - margin * math.sin(margin)
        return torch.where(within, torch.cos(angle + margin), below), torch.where(within, slope, 1.0)
    return cosines - (margin if kind == "cosface" else 0.0), torch.ones_like(cosines)
