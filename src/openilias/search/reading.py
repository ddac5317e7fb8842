"""Reading shards to search them: in large windows, or only what is kept; and comparing them with their checksums."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from openilias.core.errors import OpenIliasError
from openilias.descriptors.store import Shard

_WINDOW = 256 << 20


def windows(
    shard: Shard, start: int, packed: npt.NDArray[np.uint8] | None
) -> Iterator[tuple[npt.NDArray[Any], int | npt.NDArray[np.int64], int]]:
    """Yield blocks of what is searched of a shard, their canonical rows, and how many rows were read for them."""
    size = None
    if packed is None and shard.mapped:
        first = next(shard.blocks(1), None)
        size = max(_WINDOW // max(first.nbytes, 1), 1) if first is not None else None
    kept = None if packed is None else np.unpackbits(packed, count=shard.rows).astype(np.bool_)
    place = 0
    for block in shard.blocks(size):
        if kept is None:
            yield block, start + place, len(block)
        else:
            inside = np.flatnonzero(kept[place : place + len(block)])
            yield block[inside], start + place + inside, len(block)
        place += len(block)


class Checks:
    """Compares shards with their checksums in threads, beside the search, one shard ahead of it.

    What is read to be compared is read ahead of the search: every file comes from the disk once.
    """

    def __init__(self, shards: dict[int, Shard], *, trust: bool) -> None:
        self._left = [] if trust else list(shards)
        self._shards = shards
        self._begun: dict[int, Future[None]] = {}
        self._pool = ThreadPoolExecutor(2)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    @contextmanager
    def of(self, number: int) -> Iterator[None]:
        """Compare a shard while the block reads it, and begin with the next.

        Raises:
            OpenIliasError: the shard is damaged: said rather than what came of it in the block.
        """
        while self._left and len(self._begun) < 2:
            ahead = self._left.pop(0)
            self._begun[ahead] = self._pool.submit(self._shards[ahead].verify)
        begun = self._begun.pop(number, None)
        try:
            yield
        except OpenIliasError:
            if begun is not None:
                begun.result()
            raise
        if begun is not None:
            begun.result()
