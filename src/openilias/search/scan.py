"""Going through a block of the database on a CPU: first pass, filter and exact scores, tile by tile on all cores."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from openilias.core.errors import OpenIliasError
from openilias.core.executors import usable_cores
from openilias.search.best import Best, UnusableRowError
from openilias.search.first_pass import PASSES, CodedQueries, aligned, is_sound
from openilias.search.kernels import (
    LANES,
    ROWS,
    Limits,
    Noted,
    TileRows,
    approximate,
    bars_of,
    describe_rows,
    share_of_survivors,
    survivors,
)
from openilias.search.keys import Found
from openilias.search.together import Piece, together

Array = npt.NDArray[Any]
_LIST = 1 << 17
_SAMPLE = 16_384
_NO_TOTALS = np.empty((0, 0))
_DENSE, _DENSE_ROWS, _LOOK_AT = 0.25, 256, 32
"""Where more than this share of the pairs survives, one float64 product scores them faster than pair by pair."""
_GLANCED, _TRIED = 256, 1024
_TRIAL_ROWS = 16_384  # a block must have so many rows before it pays to try which first pass is the fastest


def as_stored(rows: Array) -> Array:
    """Return rows as the compiled loops take them: float32, float64, or the bits of float16; a view where it can be."""
    rows = np.ascontiguousarray(rows)
    if rows.dtype == np.float16:
        return rows.view(np.uint16)
    return rows if rows.dtype in (np.float32, np.float64) else rows.astype(np.float32)


class Tile:
    """The buffers of one thread."""

    def __init__(self, asked: CodedQueries, dims: int) -> None:
        kind, width = asked.first_pass, len(asked.codes)
        rows = kind.tile_rows
        self.codes = aligned((rows, dims), kind.code)
        self.products = aligned((rows, width), kind.product)
        self.scale, self.norm = np.empty(rows), np.empty(rows)
        self.rest, self.size, self.own, self.other, self.lift = (np.empty(rows, np.float32) for _ in range(5))
        self.floats, self.doubles = aligned((ROWS, dims), np.float32), aligned((ROWS, dims), np.float64)
        groups = width // LANES
        where, bits = np.empty((2, ROWS * groups), np.int32), np.empty((2, ROWS * groups), np.uint32)
        self.noted = Noted(where, bits, np.empty(groups + 1, np.int32))
        self.bars, self.least = aligned((width,), np.float32), aligned((width,), np.float32)
        length = max(_LIST, 2 * width)
        self.found = Found(np.empty(length, np.int32), np.empty(length, np.uint64), np.empty(length, np.int32))
        self.scored = 0

    def lines(self, stored: Array) -> Array:
        """Return the room for some rows of this type."""
        return self.doubles if stored.dtype == np.float64 else self.floats

    def multiply(self, stored: Array, asked: CodedQueries) -> int:
        """Fill codes and products; return the first row that is not finite, or -1."""
        count = len(stored)
        room = (self.codes[:count], self.scale[:count], self.rest[:count], self.size[:count])
        bad = asked.first_pass.encode(stored, self.lines(stored)[0], *room)
        if bad < 0:
            asked.multiply(self.codes[:count], self.products[:count])
        return bad

    def search(
        self,
        rows: Array,
        numbers: npt.NDArray[np.int64],
        asked: CodedQueries,
        limits: Limits,
        halves: bool,
        give: Callable[[Found, int, Array], None],
    ) -> int:
        """Give what counts of at most :attr:`FirstPass.tile_rows` rows; return the first row not finite, or -1."""
        count, kind = len(rows), asked.first_pass
        stored = as_stored(rows)
        bad = self.multiply(stored, asked)
        if bad >= 0:
            return bad
        parts = (self.norm[:count], self.own[:count], self.other[:count], self.lift[:count])
        tile = TileRows(stored, self.lines(stored), self.noted, numbers, *parts)
        drift = np.float32(kind.drift(rows.shape[1]))
        largest = describe_rows(self.scale[:count], self.rest[:count], self.size[:count], drift, tile)
        bars_of(limits.least, asked.asked.scale, largest, self.bars)
        rounding, products = np.float32(kind.rounding), self.products[:count]
        many = share_of_survivors(_LOOK_AT, products, rounding, tile, asked.asked, self.bars) > _DENSE
        step = _DENSE_ROWS if many else count
        for start in range(0, count, step):
            part = slice(start, start + step)
            own_rows = rows[part]
            some = TileRows(stored[part], tile.lines, tile.noted, *(values[part] for values in tile[3:]))
            totals = own_rows.astype(np.float64) @ asked.doubles.T if many else _NO_TOTALS
            first = 0
            while first < len(own_rows):
                first, kept, scored = survivors(
                    first,
                    products[part],
                    rounding,
                    some,
                    asked.asked,
                    self.bars,
                    limits,
                    halves,
                    totals,
                    self.found,
                )
                self.scored += scored
                give(self.found, kept, own_rows)
        return -1


class CpuScan:
    """Searches blocks with the cores of this machine.

    Args:
        queries: (Q, D) float16, float32 or float64, finite.
        threads: how many; those this process may use by default.
        first_pass: which; by default what is fastest on the first large block. It changes no result.
    """

    def __init__(self, queries: Array, *, threads: int | None = None, first_pass: str | None = None) -> None:
        self.queries = queries
        self.width = len(queries) + -len(queries) % LANES
        self.threads = threads or usable_cores()
        self._wide = queries if queries.dtype == np.float64 else queries.astype(np.float32)
        self._tiles: dict[str, list[Tile]] = {}
        self._coded: dict[str, CodedQueries] = {}
        if first_pass is not None and first_pass not in PASSES:
            raise OpenIliasError(f"There is no first pass {first_pass!r}.", fix=f"Use one of {', '.join(PASSES)}.")
        if first_pass is not None and not _sound(first_pass, queries.shape[1]):
            raise OpenIliasError(
                f"Products in {first_pass} of {queries.shape[1]} dimensions are not exact enough on this machine.",
                fix="Leave the choice of the first pass to the search.",
            )
        self.first_pass = first_pass
        """The first pass, if it is chosen."""
        self.scored = 0
        """How many pairs were scored exactly."""

    def most_bytes(self) -> int:
        """Return how much memory a scan takes at most, whichever first pass is chosen: tiles, or scores of a sample."""
        dims: int = self.queries.shape[1]
        codes = max(kind.tile_rows * (dims + self.width) * 4 for kind in PASSES.values()) + ROWS * dims * 12
        dense = _DENSE_ROWS * (dims + self.width) * 8
        each = codes + dense + 16 * max(_LIST, 2 * self.width)
        return self.threads * each + self.width * _SAMPLE * 4

    def queries_bytes(self) -> int:
        """Return how much memory the queries take at most: as they are, and in all codes."""
        each = 4 + 8 + 2 * sum(np.dtype(kind.code).itemsize for kind in PASSES.values())
        dims: int = self.queries.shape[1]
        return self.width * dims * each

    def release(self) -> None:
        """Give the memory of a scan back."""
        self._tiles.clear()

    def _queries_for(self, name: str) -> CodedQueries:
        if name not in self._coded:
            self._coded[name] = CodedQueries(self._wide, PASSES[name])
        return self._coded[name]

    def scan(
        self, block: Array, numbers: npt.NDArray[np.int64] | range, best: Best, guess: Array, below: Array
    ) -> None:
        """Add to ``best`` what reaches both its own limit and the guess, and is below another limit.

        Args:
            block: (N, D).
            numbers: of N canonical rows.
            best: what is known so far.
            guess: (Q,) float32.
            below: (Q,) float32; NaN for no limit.

        Raises:
            OpenIliasError: a row is not finite.
        """
        asked = self._chosen(block, np.maximum(best.least, guess))
        step = asked.first_pass.tile_rows
        if len(block) < step * self.threads:  # something for each
            step = max(-(-len(block) // self.threads), 1)
        halves = self.queries.dtype == block.dtype == np.float16
        numbers_of_tiles = itertools.count()
        failures: list[int] = []
        more = self.width - len(guess)
        guess, below = np.pad(guess, (0, more), constant_values=np.inf), np.pad(below, (0, more))

        def work(tile: Tile) -> None:
            while not failures:
                start = next(numbers_of_tiles) * step
                if start >= len(block):
                    return
                # What other threads have found counts here too.
                np.maximum(best.least, guess[: len(best.least)], out=tile.least[: len(best.least)])
                tile.least[len(best.least) :] = np.inf
                part = slice(start, start + step)
                limits = Limits(tile.least, below)
                bad = tile.search(
                    np.asarray(block[part]), np.asarray(numbers[part], np.int64), asked, limits, halves, best.add
                )
                if bad >= 0:
                    failures.append(int(numbers[start + bad]))

        with _one_thread_each():
            self._in_threads(work, asked, block.shape[1])
        if failures:
            raise UnusableRowError(min(failures))

    def stream(self, items: Iterable[Piece]) -> Generator[list[Piece]]:
        """Yield the blocks that are worth one guess; memory maps are read where they are searched."""
        return together(items)

    def sample(self, blocks: list[Array]) -> int:
        """Return how many rows of blocks are worth looking at for a guess."""
        return _SAMPLE

    def likely(self, blocks: list[Array], size: int, rank: int) -> npt.NDArray[np.float32] | None:
        """Return about the ``rank``-th best score (Q,) of ``size`` rows spread over blocks."""
        step = sum(len(block) for block in blocks) // size
        rows = [block[::step] for block in blocks]
        scores = np.empty((len(self.queries), sum(len(some) for some in rows)), np.float32)
        start = 0
        for some in rows:
            self.sample_scores(some, scores[:, start : start + len(some)])
            start += len(some)
        place = start - round(rank * start / size)
        scores.partition(place, axis=1)
        likely: npt.NDArray[np.float32] = scores[:, place]
        return likely

    def sample_scores(self, rows: Array, scores: npt.NDArray[np.float32]) -> None:
        """Write approximate scores (Q, n) of some rows."""
        asked = self._queries_for(self.first_pass or self._candidates(rows.shape[1])[0])
        step, starts = asked.first_pass.tile_rows, itertools.count()

        def work(tile: Tile) -> None:
            while (start := next(starts) * step) < len(rows):
                part = np.asarray(rows[start : start + step])
                if tile.multiply(as_stored(part), asked) >= 0:
                    scores[:, start : start + step] = -np.inf  # not finite: the scan says which row
                    continue
                scale = asked.asked.scale[: len(scores)]
                approximate(tile.products[: len(part)], tile.scale, scale, scores[:, start : start + step])

        with _one_thread_each():
            self._in_threads(work, asked, rows.shape[1])

    def _in_threads(self, work: Callable[[Tile], None], asked: CodedQueries, dims: int) -> None:
        tiles = self._tiles.setdefault(asked.first_pass.name, [])
        while len(tiles) < self.threads:
            tiles.append(Tile(asked, dims))
        with ThreadPoolExecutor(self.threads, initializer=_one_torch_thread) as pool:
            for _ in pool.map(work, tiles):
                pass
        self.scored += sum(tile.scored for tile in tiles)
        for tile in tiles:
            tile.scored = 0

    @staticmethod
    def _candidates(dims: int) -> list[str]:
        return [name for name in PASSES if _sound(name, dims)]

    def _chosen(self, block: Array, least: Array) -> CodedQueries:
        """Return the queries for the first pass in use; the first large block shows which is the fastest.

        Args:
            block: (N, D).
            least: (Q,) float32 scores that count there: the work depends on how many reach them.
        """
        if self.first_pass is None and len(block) >= _TRIAL_ROWS:
            rows = np.asarray(block[:: len(block) // _TRIED][:_TRIED])
            limits = Limits(
                np.pad(least, (0, self.width - len(least)), constant_values=np.inf),
                np.full(self.width, np.nan, np.float32),
            )
            halves = self.queries.dtype == block.dtype == np.float16
            names, seconds = self._candidates(block.shape[1]), dict[str, float]()
            for count in (_GLANCED, _TRIED):  # those that are far behind are not tried at length
                with _one_thread_each(), ThreadPoolExecutor(1, initializer=_one_torch_thread) as pool:
                    seconds = {
                        name: pool.submit(_time, rows[:count], self._queries_for(name), limits, halves).result()
                        for name in names
                    }
                names = [name for name in names if seconds[name] <= 2 * min(seconds.values())]
            fastest = min(seconds, key=lambda name: seconds[name])
            self._coded, self._tiles = {fastest: self._coded[fastest]}, {}
            self.first_pass = fastest
        return self._queries_for(self.first_pass or "float32")


@cache
def _sound(name: str, dims: int) -> bool:
    return is_sound(PASSES[name], dims)


def _time(rows: Array, asked: CodedQueries, limits: Limits, halves: bool) -> float:
    """Return the seconds of one row in one thread, after a try that only warms up."""
    tile, numbers = Tile(asked, rows.shape[1]), np.arange(len(rows))
    step = min(asked.first_pass.tile_rows, len(rows))
    fastest = float("inf")
    for part in (slice(64), slice(step), slice(len(rows) - step, len(rows))):
        begun = time.perf_counter()
        tile.search(rows[part], numbers[part], asked, limits, halves, lambda found, length, rows: None)
        spent = (time.perf_counter() - begun) / len(rows[part])
        fastest = fastest if part == slice(64) else min(fastest, spent)
    return fastest


def _one_torch_thread() -> None:
    import torch

    torch.set_num_threads(1)  # of the products that this thread asks for


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Let each thread multiply alone: products shared by threads would make them wait for each other."""
    import torch

    before = torch.get_num_threads()
    try:
        with _libraries().limit(limits=1, user_api="blas"):
            yield
    finally:
        torch.set_num_threads(before)


@cache
def _libraries() -> Any:
    """Return what can limit the threads of NumPy's library; to look for it takes longer than a small search."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()
