"""Blocks that are searched together on a CPU: the more rows share a guess of the first threshold, the better it is."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

Piece = tuple[npt.NDArray[Any], npt.NDArray[np.int64] | range]
_ROWS, _HELD = 1 << 20, 64 << 20
_SMALL = 16_384  # enough to try which first pass is the fastest


def together(items: Iterable[Piece]) -> Generator[list[Piece]]:
    """Yield successive blocks in lists of about a million rows; of those that are not memory-mapped, of few megabytes.

    Small ones are joined: each costs a little by itself.

    Args:
        items: (N, D) blocks and the numbers of their rows.
    """
    pieces: list[Piece] = []
    small: list[Piece] = []
    rows = held = 0

    def join() -> None:
        if len(small) > 1:
            numbers = np.concatenate([np.asarray(numbers, np.int64) for _, numbers in small])
            pieces.append((np.concatenate([block for block, _ in small]), numbers))
        else:
            pieces.extend(small)
        small.clear()

    for block, numbers in items:
        if small and (small[0][0].dtype != block.dtype or len(block) >= _SMALL):
            join()
        (small if len(block) < _SMALL else pieces).append((block, numbers))
        rows += len(block)
        held += block.nbytes if len(block) < _SMALL or not is_mapped(block) else 0
        if sum(len(block) for block, _ in small) >= _SMALL:
            join()
        if rows >= _ROWS or held >= _HELD:
            join()
            yield pieces
            pieces, rows, held = [], 0, 0
    join()
    if pieces:
        yield pieces


def is_mapped(block: npt.NDArray[Any]) -> bool:
    """Tell whether an array is a view of a file, and takes no memory of its own."""
    base: Any = block
    while isinstance(base, np.ndarray):
        if isinstance(base, np.memmap):
            return True
        base = base.base
    return False
