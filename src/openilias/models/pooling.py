"""From the last map of a network to one vector."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

import numpy as np
import torch
from torch import Tensor

MapPooling = Literal["gap", "mac", "gem", "rmac", "rgem"]
LEVELS = (1, 2, 3)


def pool(maps: Tensor, pooling: MapPooling, *, official: bool = False) -> Tensor:
    """Pool (B, C, h, w) activations over their places; return (B, C).

    Args:
        maps: activations.
        pooling: ``gap`` mean, ``mac`` maximum, ``gem`` generalised mean, ``rmac`` and ``rgem`` the sum of the maximum
            or the generalised mean over the :func:`regions`.
        official: repeat the sign error of the official GeM on negative maps.
    """
    generalised = partial(gem, official=official)
    whole: dict[str, Callable[[Tensor], Tensor]] = {"gap": _mean, "mac": _maximum, "gem": generalised}
    if pooling in whole:
        return whole[pooling](maps.flatten(2))
    each = _maximum if pooling == "rmac" else generalised
    height, width = maps.shape[2:]
    parts = [each(maps[:, :, top : top + h, left : left + w].flatten(2)) for top, left, h, w in regions(height, width)]
    return torch.stack(parts, 1).sum(1)


def _mean(maps: Tensor) -> Tensor:
    return maps.mean(2)


def _maximum(maps: Tensor) -> Tensor:
    return maps.amax(2)


def gem(maps: Tensor, *, p: float = 3.0, eps: float = 1e-6, official: bool = False) -> Tensor:
    """Generalised-mean pooling (Radenovic et al., PAMI 2019) of (B, C, N) activations; return (B, C).

    Channels with negative values are lifted by their minimum first and lowered after, so that the power is
    taken of non-negative values. The official code moves them the wrong way (``official``).
    """
    lowest = maps.amin(2, keepdim=True).clamp(max=0)
    lift = lowest if official else -lowest
    return (maps + lift).clamp(min=eps).pow(p).mean(2).pow(1 / p) - lift.squeeze(2)


def regions(height: int, width: int, levels: tuple[int, ...] = LEVELS) -> list[tuple[int, int, int, int]]:
    """Return (top, left, height, width) of the regions of R-MAC (Tolias et al., ICLR 2016) of a map.

    As in the official code, to the letter: level 1 is the whole map; level l has l squares along the shorter side and
    some more along the longer one (along the height, if both are equal), which overlap by about 40 %.
    """
    shorter = min(height, width)
    # A reciprocal and a product, as PyTorch divides a number by a tensor: ties are decided by the last bit.
    apart = (1 / np.arange(1, 7, dtype=np.float32)) * np.float32(max(height, width) - shorter)
    overlap = (np.float32(shorter**2) - np.float32(shorter) * apart) / np.float32(shorter**2)
    more = int(np.argmin(np.abs(overlap - np.float32(0.4)))) + 1
    more_down, more_across = (0, more) if height < width else (more, 0)
    found = []
    for level in levels:
        if level == 1:
            found.append((0, 0, height, width))
            continue
        side = 2 * shorter // (level + 1)
        if side == 0:
            continue
        tops = _starts(height, side, level + more_down)
        lefts = _starts(width, side, level + more_across)
        found += [(top, left, side, side) for top in tops for left in lefts]
    return found


def _starts(length: int, side: int, count: int) -> list[int]:
    step = np.float32((length - side) / (count - 1)) if count > 1 else np.float32(0)
    before = np.float32(np.floor(side / 2 - 1))
    starts = np.floor(before + np.arange(count, dtype=np.float32) * step) - before
    return [int(start) for start in starts]
