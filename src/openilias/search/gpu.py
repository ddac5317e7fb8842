"""Going through the database on a GPU, or wherever PyTorch computes: :class:`DeviceScan` finds what a CPU finds.

Descriptors stay on the device (blocks are tensors there), or come from memory maps, see :meth:`DeviceScan.stream`.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from openilias.core.errors import OpenIliasError
from openilias.search.best import Best, UnusableRowError
from openilias.search.gpu_exact import ExactScores, Scored, exact_scores
from openilias.search.gpu_feed import Feed, Numbers
from openilias.search.gpu_pass import (
    CODES,
    Asked,
    Filter,
    Kernels,
    PassName,
    Rows,
    Survivors,
    TorchFilter,
    TritonFilter,
    ask,
    encode,
    filters,
    is_sound,
    pass_names,
    products,
)

Array = npt.NDArray[Any]

_PAIRS = 1 << 23  # so many survivors of one piece are fine
_MANY = 1 << 20  # after so many it pays to find out at once what counts now
_WORDS = 1 << 22  # length of the list that the kernel writes
_PRODUCTS = 1 << 25  # in memory at once, in pure PyTorch
_ROWS = 1 << 22  # of a piece that is multiplied as it is stored
_BUFFER = 128 << 20
_MOST_MEMORY = 4 << 30
_SHARE = 0.6  # of the free memory
_TRIAL_PRODUCTS = 1 << 33  # with fewer to come it does not pay to try what is fastest
_TRIAL_ROWS = 1 << 18
_SAMPLE, _SAMPLE_THERE = 16_384, 262_144
_FASTEST: dict[tuple[Any, ...], tuple[PassName, int]] = {}
"""What trials of this process have found: first pass, and which of the filters."""


@dataclass(frozen=True)
class _Job:
    """What is looked for in a block.

    Attributes:
        active: which queries are asked.
        there: the same, on the device.
        guess: (Q,) as in :meth:`DeviceScan.scan`.
        below: (Q,) as there.
    """

    active: npt.NDArray[np.int64]
    there: Tensor
    guess: Array
    below: Array


@dataclass(frozen=True)
class _Chosen:
    """How pairs are found and scored."""

    name: PassName
    keep: Filter
    exact: ExactScores


class _Giver:
    """Adds lists to the best in another thread, so that the device need not wait."""

    def __init__(self, best: Best, pool: ThreadPoolExecutor) -> None:
        self.best = best
        self._pool = pool
        self._pending: deque[Future[None]] = deque()

    def give(self, scored: Scored, numbers: Numbers, rows: Tensor) -> None:
        """Add what was found in ``rows`` later; few lists wait."""
        while len(self._pending) > 2:
            self._pending.popleft().result()
        places: npt.NDArray[Any] = scored.row
        values: Array = np.empty((0, rows.shape[1]), np.float32)
        if self.best.needs_rows:
            unique, places = np.unique(scored.row, return_inverse=True)
            values = rows[torch.from_numpy(unique).to(rows.device)].cpu().numpy()
        self._pending.append(self._pool.submit(self._add, scored, numbers, places, values))

    def _add(self, scored: Scored, numbers: Numbers, places: npt.NDArray[Any], values: Array) -> None:
        wide = values.astype(np.float64 if values.dtype == np.float64 else np.float32)
        self.best.add(scored.found(numbers, places), len(scored.row), wide)

    def wait(self) -> None:
        """Wait until all was added."""
        while self._pending:
            self._pending.popleft().result()


class DeviceScan:
    """Searches blocks on a device, as :class:`openilias.search.scan.CpuScan` does on the cores.

    Args:
        queries: (Q, D) float16, float32, float64, int8 or uint8, finite.
        device: ``cuda``, ``cuda:1``, ``mps`` or ``cpu``.
        first_pass: which; by default what is fastest on the first large block. It changes no result.
        memory: bytes of the device that it may take; by default 60 % of what is free, at most 4 GiB.
        kernels: ``triton`` or ``torch``; by default Triton on CUDA, where it works. It changes no result.

    Raises:
        OpenIliasError: there is no such first pass, or Triton is asked for and not installed.
    """

    def __init__(
        self,
        queries: Array,
        *,
        device: str,
        first_pass: str | None = None,
        memory: int | None = None,
        kernels: Kernels | None = None,
    ) -> None:
        self.queries = queries
        self.device = device
        self.first_pass: str | None = None
        """The first pass, if it is chosen."""
        self.scored = 0
        """How many pairs were scored exactly."""
        self._cuda = device.startswith("cuda")
        self._memory = memory or _free_memory(device)
        self._names = pass_names(first_pass, cuda=self._cuda)
        self._filters = filters(kernels, device, _PRODUCTS, _WORDS, self._memory)
        self._chosen: _Chosen | None = None
        self._tried = not self._cuda
        self._feed = Feed(device, min(_BUFFER, self._memory // 16))
        self._coded: dict[PassName, Asked] = {}
        self._next = max(1, _PAIRS // max(1, len(queries)))  # rows of the next piece
        self._many = False  # whether much survived in the last

    # --- what a search asks for ---

    def scan(self, block: Array | Tensor, numbers: int | Numbers, best: Best, guess: Array, below: Array) -> None:
        """Add to ``best`` what reaches both its own limit and the guess, and is below another limit.

        Args:
            block: (N, D), in memory, memory-mapped, or on the device.
            numbers: (N,) canonical rows, or the first of successive ones.
            best: what is known so far.
            guess: (Q,) float32; infinite for queries that are left out.
            below: (Q,) float32; NaN for no limit.

        Raises:
            OpenIliasError: a row is not finite; the device has no such type; or no first pass works on it.
        """
        active = np.flatnonzero(~(guess == np.inf))
        if not len(active) or not len(block):
            return
        if isinstance(numbers, int):
            numbers = range(numbers, numbers + len(block))
        with self._here(), ThreadPoolExecutor(1) as pool:
            giver = _Giver(best, pool)
            job = _Job(active, torch.from_numpy(active).to(self.device), guess, below)
            if isinstance(block, Tensor) and block.device.type == self.device.partition(":")[0]:
                self._scan(block.to(self.device), numbers, job, giver)
            else:
                block = block.cpu().numpy() if isinstance(block, Tensor) else block
                with closing(self._feed.stream([(block, numbers)])) as chunks:
                    for chunk, its_numbers in chunks:
                        self._scan(chunk, its_numbers, job, giver)
            giver.wait()

    def stream(self, items: Iterable[tuple[Array, Numbers]]) -> Generator[list[tuple[Tensor, Numbers]]]:
        """Yield the rows of blocks on the device, and their numbers, one by one: read ahead, cut and joined, in order.

        Args:
            items: (N_i, D) blocks, with N_i numbers each. They are drawn by another thread; its errors are raised here.

        Each is there until the next is asked for. Close it if it is left early.
        """
        with closing(self._feed.stream(items)) as chunks:
            for chunk in chunks:
                yield [chunk]

    def most_bytes(self) -> int:
        """Return how much memory of the device the buffers take at most."""
        return self._memory

    def queries_bytes(self) -> int:
        """Return nothing: they are part of that."""
        return 0

    def release(self) -> None:
        """Keep the buffers: all groups of queries use them."""

    def sample(self, blocks: list[Array] | list[Tensor]) -> int:
        """Return how many rows are worth looking at for a guess."""
        there = all(isinstance(block, Tensor) and block.is_cuda for block in blocks)
        return _SAMPLE_THERE if there else _SAMPLE

    def likely(self, blocks: list[Array] | list[Tensor], size: int, rank: int) -> npt.NDArray[np.float32] | None:
        """Return about the ``rank``-th best score (Q,) of ``size`` rows spread over one block.

        None if a value is not finite.
        """
        tops = []
        (block,) = blocks  # what is on the device is there until the next is
        with self._here():
            for scores, finite in self._approximate(block[:: max(1, len(block) // size)][:size]):
                if not finite:
                    return None
                tops.append(scores.topk(min(rank, len(scores)), dim=0).values)
            top = torch.cat(tops).topk(rank, dim=0).values[-1:].t()
        return self._asked(self._plain).scores(top.cpu().numpy())[:, 0]

    # --- parts of it ---

    @property
    def _plain(self) -> PassName:
        """The first pass of samples, which need no bound."""
        return "float16" if self._cuda else "float32"

    def _approximate(self, rows: Array | Tensor) -> Iterator[tuple[Tensor, bool]]:
        """Yield approximate scores (n, Q), in scales of the queries, of some rows, and whether all are finite."""
        asked = self._asked(self._plain)
        step = max(1, min(_PRODUCTS, self._memory // 48) // len(asked))
        for start in range(0, len(rows), step):
            part = rows[start : start + step]
            there = part if isinstance(part, Tensor) else torch.from_numpy(np.array(part))
            coded = encode(there.to(self.device), self._plain)
            scores = products(coded.codes, asked.codes) / coded.lift[:, None]
            yield scores.masked_fill_(coded.bad[:, None], -torch.inf), not bool(coded.bad.any())

    def _scan(self, chunk: Tensor, numbers: Numbers, job: _Job, giver: _Giver) -> None:
        """Search rows that are on the device, piece by piece."""
        start, best = 0, giver.best
        while start < len(chunk):
            if self._many or not best.complete.all():
                giver.wait()
                best.settle()
            least = np.fmax(best.least, job.guess)
            chosen = self._choose(chunk[start:], job, least)
            stop = min(len(chunk), start + self._most_rows(chunk, chosen, least[job.active]))
            rows = chunk[start:stop].contiguous()
            coded, found = self._find(rows, chosen, job, least)
            bad = coded.bad.nonzero()
            if len(bad):
                raise UnusableRowError(int(numbers[start + int(bad[0])]))
            if isinstance(found, int):  # the list is too short by this factor: once more with fewer rows
                self._next = max(1, len(rows) // (2 * found))
                continue
            before = self.scored
            for scored in self._score(rows, coded, found, chosen, job, least):
                giver.give(scored, numbers[start:stop], rows)
            survived = self.scored - before
            self._many = survived > _MANY
            fitting = _PAIRS / 2 * len(rows) / max(survived, 1)
            self._next = max(1, int(min(8 * max(len(rows), self._next), fitting, _ROWS)))
            start = stop

    def _most_rows(self, chunk: Tensor, chosen: _Chosen, least: Array) -> int:
        """Return how many rows to look at next, so that what survives fits, and so do the codes."""
        dims, most = chunk.shape[1], self._next
        unlimited = int((least == -np.inf).sum())
        if unlimited:
            most = min(most, _PAIRS // unlimited)
        if not chunk.dtype == torch.float16 == CODES[chosen.name] or dims % 16:
            most = min(most, self._memory // 4 // (48 * dims if chunk.dtype == torch.float64 else 24 * dims))
        if isinstance(chosen.keep, TorchFilter):
            most = min(most, chosen.keep.pairs // len(least))
        return max(1, most)

    def _find(self, rows: Tensor, chosen: _Chosen, job: _Job, least: Array) -> tuple[Rows, Survivors | int]:
        """Return rows as the first pass takes them, and what survives of them."""
        asked = self._asked(chosen.name).take(job.active)
        coded = encode(rows, chosen.name)
        return coded, chosen.keep(coded, asked, asked.bars(least[job.active]))

    def _score(
        self, rows: Tensor, coded: Rows, found: Survivors, chosen: _Chosen, job: _Job, least: Array
    ) -> Iterator[Scored]:
        """Yield what counts of what survived."""
        for pairs in found.parts(min(_PAIRS, self._memory // 512)):
            pairs[:, 1] = job.there[pairs[:, 1]]
            self.scored += len(pairs)
            yield from chosen.exact(rows, coded.norm, pairs, least, job.below)

    def _asked(self, name: PassName) -> Asked:
        if name not in self._coded:
            self._coded[name] = ask(self.queries, name, self.device)
        return self._coded[name]

    # --- which first pass ---

    def _choose(self, chunk: Tensor, job: _Job, least: Array) -> _Chosen:
        """Return a first pass that works here; before much work, the fastest."""
        much = len(chunk) * len(job.active) >= _TRIAL_PRODUCTS
        chosen = self._chosen
        if chosen is None:
            pairs = ((name, keep) for name in self._names for keep in self._filters)
            first = next((pair for pair in pairs if self._is_sound(*pair)), None)
            if first is None:
                raise OpenIliasError(
                    f"The first pass {' or '.join(self._names)} does not work on {self.device}.",
                    fix="Search with another one, or on another device.",
                )
            kernels: Kernels = "triton" if isinstance(first[1], TritonFilter) else "torch"
            chosen = _Chosen(*first, exact_scores(self.queries, self.device, self._memory // 8, kernels))
        if much and not self._tried:
            self._tried = True
            what = (self.device, *self._names, len(self._filters), chunk.dtype, chunk.shape[1], len(job.active))
            if what not in _FASTEST:
                rows = chunk[:_TRIAL_ROWS].contiguous()
                likely = self.likely([rows], len(rows) // 8, 4)
                if likely is not None:
                    fastest = self._fastest(chosen, rows, job, np.where(least > -np.inf, least, likely))
                    _FASTEST[what] = fastest.name, self._filters.index(fastest.keep)
            if what in _FASTEST:
                name, number = _FASTEST[what]
                chosen = replace(chosen, name=name, keep=self._filters[number])
        self._chosen, self.first_pass = chosen, chosen.name
        return chosen

    def _fastest(self, now: _Chosen, rows: Tensor, job: _Job, least: Array) -> _Chosen:
        """Return the fastest filter of the first pass in use, or the fastest first pass with it."""
        alike = [keep for keep in self._filters if isinstance(keep, type(now.keep)) and self._is_sound(now.name, keep)]
        seconds = {some: self._seconds(some, rows, job, least) for some in (replace(now, keep=keep) for keep in alike)}
        best = min(seconds, key=lambda some: seconds[some])
        for name in self._names:
            if name != now.name and self._is_sound(name, best.keep):
                other = replace(best, name=name)
                seconds[other] = self._seconds(other, rows, job, least)
        return min(seconds, key=lambda some: seconds[some])

    def _seconds(self, chosen: _Chosen, rows: Tensor, job: _Job, least: Array) -> float:
        fastest, scored = float("inf"), self.scored
        for _ in range(3):
            torch.cuda.synchronize(self.device)
            begun = time.perf_counter()
            coded, found = self._find(rows, chosen, job, least)
            if isinstance(found, int):
                return float("inf")
            deque(self._score(rows, coded, found, chosen, job, least), maxlen=0)
            torch.cuda.synchronize(self.device)
            fastest = min(fastest, time.perf_counter() - begun)
        self.scored = scored
        return fastest

    def _is_sound(self, name: PassName, keep: Filter) -> bool:
        return is_sound(name, self.queries.shape[1], self.device, keep)

    @contextmanager
    def _here(self) -> Iterator[None]:
        with ExitStack() as stack:
            stack.enter_context(torch.no_grad())
            if self._cuda:
                stack.enter_context(torch.cuda.device(self.device))
            yield


def _free_memory(device: str) -> int:
    if not device.startswith("cuda"):
        return _MOST_MEMORY // 4
    free, _ = torch.cuda.mem_get_info(device)
    return min(_MOST_MEMORY, int(_SHARE * free))
