"""Position embeddings, interpolated once per shape."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

_MOST_SHAPES = 32  # a network's 100 shapes would take a gigabyte


class PositionsOnce:
    """Takes the place of timm's ``_pos_embed``, which would interpolate in every forward pass.

    What it adds does not depend on the tokens, so that of zeros is kept for each shape.
    """

    def __init__(self, original: Callable[[Tensor], Any]) -> None:
        """``original`` takes (B, h, w, C) tokens, puts prefix tokens before them and adds the positions."""
        self._original = original
        self._kept: dict[tuple[object, ...], Any] = {}

    def __call__(self, x: Tensor) -> Any:
        """Return what the original returns: (B, P + h * w, C) tokens, or a tuple that begins with them."""
        key = (*x.shape[1:], x.dtype, x.device)
        if key not in self._kept:
            if len(self._kept) == _MOST_SHAPES:
                self._kept.pop(next(iter(self._kept)))
            self._kept[key] = self._original(torch.zeros_like(x[:1]))
        kept = self._kept[key]
        positions = kept[0] if isinstance(kept, tuple) else kept
        tokens = x.flatten(1, 2)
        # Positions and tokens are added once, as in the original: the same bits.
        out = positions + F.pad(tokens, (0, 0, positions.shape[1] - tokens.shape[1], 0))
        return (out, *kept[1:]) if isinstance(kept, tuple) else out


def grid_positions(positions: Tensor, old: tuple[int, int], new: tuple[int, int], *, antialias: bool) -> Tensor:
    """Interpolate (h * w, C) position embeddings from the ``old`` (h, w) grid to the ``new`` one, bicubically."""
    if old == new:
        return positions
    grid = positions.float().view(*old, -1).permute(2, 0, 1)[None]
    resized = F.interpolate(grid, size=new, mode="bicubic", align_corners=False, antialias=antialias)
    return resized[0].flatten(1).T.to(positions.dtype)
