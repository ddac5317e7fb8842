"""Position embeddings, interpolated once per shape."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

_MOST_SHAPES = 32  # a network's 100 shapes would take a gigabyte
Key = tuple[object, ...]
Made = TypeVar("Made")


def once(kept: dict[Key, Made], key: Key, make: Callable[[], Made]) -> Made:
    """Return what is kept under a key, made if it is not there; the oldest go when there are many."""
    if key not in kept:
        if len(kept) == _MOST_SHAPES:
            kept.pop(next(iter(kept)))
        kept[key] = make()
    return kept[key]


class PositionsOnce:
    """Takes the place of timm's ``_pos_embed``, which would interpolate in every forward pass.

    What it adds does not depend on the tokens, so that of zeros is kept for each shape.
    """

    def __init__(self, original: Callable[[Tensor], Any]) -> None:
        """``original`` takes (B, h, w, C) tokens, puts prefix tokens before them and adds the positions."""
        self._original = original
        self._kept: dict[Key, Any] = {}

    def __call__(self, x: Tensor) -> Any:
        """Return what the original returns: (B, P + h * w, C) tokens, or a tuple that begins with them."""
        kept = once(self._kept, (*x.shape[1:], x.dtype, x.device), lambda: self._original(torch.zeros_like(x[:1])))
        positions = kept[0] if isinstance(kept, tuple) else kept
        tokens = x.flatten(1, 2)
        # Positions and tokens are added once, as in the original: the same bits.
        out = positions + F.pad(tokens, (0, 0, positions.shape[1] - tokens.shape[1], 0))
        return (out, *kept[1:]) if isinstance(kept, tuple) else out


class GridPositions:
    """The position embeddings of a network that knows one grid only, for any grid."""

    def __init__(self, table: Callable[[], Tensor], old: tuple[int, int], *, prefix: int, antialias: bool) -> None:
        """``table`` returns the network's own (P + h * w, C) for its ``old`` (h, w); the first P have no place."""
        self._table = table
        self._old = old
        self._prefix = prefix
        self._antialias = antialias
        self._kept: dict[Key, Tensor] = {}

    def __call__(self, grid: tuple[int, int]) -> Tensor:
        """Return (P + h * w, C) for an (h, w) grid."""
        table = self._table()
        return once(self._kept, (grid, table.dtype, table.device), lambda: self._interpolated(table, grid))

    def _interpolated(self, table: Tensor, grid: tuple[int, int]) -> Tensor:
        places = grid_positions(table[self._prefix :], self._old, grid, antialias=self._antialias)
        return torch.cat([table[: self._prefix], places])


def grid_positions(positions: Tensor, old: tuple[int, int], new: tuple[int, int], *, antialias: bool) -> Tensor:
    """Interpolate (h * w, C) position embeddings from the ``old`` (h, w) grid to the ``new`` one, bicubically."""
    if old == new:
        return positions
    grid = positions.float().view(*old, -1).permute(2, 0, 1)[None]
    resized = F.interpolate(grid, size=new, mode="bicubic", align_corners=False, antialias=antialias)
    return resized[0].flatten(1).T.to(positions.dtype)
