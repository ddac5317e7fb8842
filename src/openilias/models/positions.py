"""Position embeddings, interpolated once per shape."""

from __future__ import annotations

from collections.abc import Callable
from math import isqrt
from typing import Any, Literal, TypeVar

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

    def __init__(
        self,
        table: Callable[[], Tensor],
        old: tuple[int, int] | None,
        *,
        prefix: int,
        antialias: bool = False,
        offset: float = 0.0,
    ) -> None:
        """``table`` returns the network's own (P + h * w, C) for its ``old`` (h, w); the first P have no place.

        Without ``old`` the grid is square. The rest is as in :func:`grid_positions`.
        """
        self._table = table
        self._old = old
        self._prefix = prefix
        self._antialias = antialias
        self._offset = offset
        self._kept: dict[Key, Tensor] = {}

    def __call__(self, grid: tuple[int, int]) -> Tensor:
        """Return (P + h * w, C) for an (h, w) grid."""
        table = self._table()
        return once(self._kept, (grid, table.dtype, table.device), lambda: self._interpolated(table, grid))

    def _interpolated(self, table: Tensor, grid: tuple[int, int]) -> Tensor:
        side = isqrt(len(table) - self._prefix)
        old = self._old or (side, side)
        places = grid_positions(table[self._prefix :], old, grid, antialias=self._antialias, offset=self._offset)
        return torch.cat([table[: self._prefix], places])


class PlacedTokens:
    """Takes the place of timm's ``_pos_embed``: the positions are interpolated as the model's authors do."""

    def __init__(self, transformer: Any, how: Literal["bicubic", "offset", "antialiased"]) -> None:
        """``transformer`` is timm's, with learned positions; ``how`` is described at :data:`WAYS`."""
        antialias, offset = WAYS[how]
        self._transformer = transformer
        # Where the class token has a position of its own, it stands first in the table.
        self._first = 0 if transformer.no_embed_class else transformer.num_prefix_tokens
        self._positions = GridPositions(
            lambda: transformer.pos_embed[0],
            _grid_of(transformer, self._first),
            prefix=self._first,
            antialias=antialias,
            offset=offset,
        )

    def __call__(self, x: Tensor) -> Tensor:
        """Put the prefix tokens before (B, h, w, C) tokens and add the positions; return (B, P + h * w, C)."""
        own, tokens = self._transformer, x.flatten(1, 2)
        prefix = [
            part.expand(len(x), -1, -1) for part in (own.cls_token, getattr(own, "reg_token", None)) if part is not None
        ]
        positions = self._positions((x.shape[1], x.shape[2]))
        if self._first:
            return torch.cat([*prefix, tokens], 1) + positions
        return torch.cat([*prefix, tokens + positions], 1)


def _grid_of(transformer: Any, prefix: int) -> tuple[int, int] | None:
    """Return the grid of the table; None if it came with a file and is another, square one."""
    height, width = transformer.patch_embed.grid_size
    return (height, width) if height * width == transformer.pos_embed.shape[1] - prefix else None


WAYS = {"bicubic": (False, 0.0), "antialiased": (True, 0.0), "offset": (False, 0.1)}
"""Ways to interpolate positions, all bicubic: whether with antialiasing, and what is added to each side of the grid
when the factor is computed: DINO and DINOv2 without registers interpolate by a factor that is (h + 0.1) / H."""


def grid_positions(
    positions: Tensor, old: tuple[int, int], new: tuple[int, int], *, antialias: bool = False, offset: float = 0.0
) -> Tensor:
    """Interpolate (h * w, C) position embeddings from the ``old`` (h, w) grid to the ``new`` one, bicubically.

    Args:
        positions: by rows of the grid.
        old: the grid they are for.
        new: the grid they are wanted for; the same grid leaves them alone.
        antialias: average what is between, when the new grid is smaller.
        offset: added to the sides of the new grid for the factor alone.
    """
    if old == new:
        return positions
    grid = positions.float().view(*old, -1).permute(2, 0, 1)[None]
    if offset:
        factors = [(side + offset) / own for side, own in zip(new, old, strict=True)]
        resized = F.interpolate(grid, scale_factor=factors, mode="bicubic", antialias=antialias)
    else:
        resized = F.interpolate(grid, size=new, mode="bicubic", align_corners=False, antialias=antialias)
    return resized[0].flatten(1).T.to(positions.dtype)
