"""Margins on the cosine of an image with its own class: CosFace, ArcFace, and none."""

from __future__ import annotations

import torch
from torch import Tensor

from openilias.adapt.methods import Margin

_EDGE = 1e-7  # of the cosines that have a finite slope


def with_margin(cosines: Tensor, kind: Margin, margin: float) -> tuple[Tensor, Tensor]:
    """Return what stands for the cosine of an image with its class, and its derivative by that cosine.

    Args:
        cosines: (B,) in [-1, 1].
        kind: ``cosface`` (Wang et al., CVPR 2018) subtracts the margin, ``arcface`` (Deng et al., CVPR 2019) adds it to
            the angle.
        margin: of the cosine, or in radians.
    """
    if kind == "arcface":
        inside = cosines.clamp(-1 + _EDGE, 1 - _EDGE)
        angle = torch.acos(inside)
        slope = torch.sin(angle + margin) / torch.sin(angle)
        return torch.cos(angle + margin), torch.where(inside == cosines, slope, torch.zeros_like(slope))
    return cosines - (margin if kind == "cosface" else 0.0), torch.ones_like(cosines)
