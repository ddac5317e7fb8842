"""From the last map of a network to one vector. All functions take (B, C, N) and return (B, C)."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

MapPooling = Literal["gap", "mac", "gem"]


def pool(maps: Tensor, pooling: MapPooling, *, official: bool = False) -> Tensor:
    """Pool (B, C, N) activations over their N places.

    Args:
        maps: activations.
        pooling: ``gap`` mean, ``mac`` maximum, ``gem`` generalised mean.
        official: repeat the sign error of the official GeM on negative maps.
    """
    if pooling == "gap":
        return maps.mean(2)
    if pooling == "mac":
        return maps.amax(2)
    return gem(maps, official=official)


def gem(maps: Tensor, *, p: float = 3.0, eps: float = 1e-6, official: bool = False) -> Tensor:
    """Generalised-mean pooling (Radenovic et al., PAMI 2019) of (B, C, N) activations.

    Channels with negative values are lifted by their minimum first and lowered after, so that the power is
    taken of non-negative values. The official code moves them the wrong way (``official``).
    """
    lowest = maps.amin(2, keepdim=True).clamp(max=0)
    lift = lowest if official else -lowest
    return (maps + lift).clamp(min=eps).pow(p).mean(2).pow(1 / p) - lift.squeeze(2)
