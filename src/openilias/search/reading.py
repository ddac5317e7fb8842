"""Reading shards to search them: in large windows, or only what is kept; and comparing them with their checksums."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from openilias.core.errors import OpenIliasError
from openilias.descriptors.store import Floats, Shard

_WINDOW = 256 << 20


def windows(
    shard: Shard, start: int, packed: npt.NDArray[np.uint8] | None
) -> Iterator[tuple[npt.NDArray[Any], npt.NDArray[np.int64] | range, int]]:
    """Yield blocks of what is searched of a shard, their canonical rows, and how many rows were read for them."""
    size = None
    if packed is None and shard.mapped:
        first = next(shard.blocks(1), None)
        size = max(_WINDOW // max(first.nbytes, 1), 1) if first is not None else None
    kept = None if packed is None else np.unpackbits(packed, count=shard.rows).astype(np.bool_)
    place = 0
    for block in shard.blocks(size):
        if kept is None:
            yield block, range(start + place, start + place + len(block)), len(block)
        else:
            inside = np.flatnonzero(kept[place : place + len(block)])
            yield block[inside], start + place + inside, len(block)
        place += len(block)


def groups(shards: dict[int, Shard], most: int) -> Iterator[list[int]]:
    """Yield the numbers of successive shards that together have about so many rows; of large ones, one."""
    group: list[int] = []
    held = 0
    for number, shard in shards.items():
        group.append(number)
        held += shard.rows  # no file is opened for it: a damaged one is found when it is compared
        if held >= most:
            yield group
            group, held = [], 0
    if group:
        yield group


def picked(shards: Sequence[Shard], rows: npt.NDArray[np.int64]) -> Iterator[Floats]:
    """Yield the descriptors at ascending canonical rows as they are stored, (n, D), never more than a block of them.

    Shards that hold none are not read.
    """
    start = 0
    for shard in shards:
        place, end = start, start + shard.rows
        if np.searchsorted(rows, start) < np.searchsorted(rows, end):
            for block in shard.blocks():
                first, last = np.searchsorted(rows, [place, place + len(block)])
                if first < last:
                    yield np.asarray(block[rows[first:last] - place])
                place += len(block)
        start = end


class Checks:
    """Compares shards with their checksums in threads, beside the search, one shard ahead of it.

    What is read to be compared is read ahead of the search: every file comes from the disk once.

    Args:
        shards: in the order in which they are searched.
        trust: compare nothing.
        threads: how many.
    """

    def __init__(self, shards: dict[int, Shard], *, trust: bool, threads: int) -> None:
        self._left = deque(() if trust else shards.items())
        self._begun: dict[int, Future[None]] = {}
        self._pool = ThreadPoolExecutor(threads)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    @contextmanager
    def of(self, group: list[int]) -> Iterator[None]:
        """Compare shards while the block reads them, and begin with the next.

        Raises:
            OpenIliasError: a shard is damaged: said rather than what came of it in the block.
        """
        while self._left and len(self._begun) <= len(group):
            number, shard = self._left.popleft()
            self._begun[number] = self._pool.submit(shard.verify)
        try:
            yield
        except OpenIliasError:
            self._wait(group)
            raise
        self._wait(group)

    def _wait(self, group: list[int]) -> None:
        for number in group:
            if number in self._begun:
                self._begun.pop(number).result()
