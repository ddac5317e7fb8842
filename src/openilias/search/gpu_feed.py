"""Bringing blocks of descriptors from memory maps to a device while it computes.

A thread reads ahead: it copies the next rows from the memory map (and so from disk) into a buffer that the device can
read directly, and starts the copy to the device on a stream of its own. Small blocks are joined, large ones cut.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from queue import SimpleQueue
from threading import Event, Thread
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from openilias.core.errors import OpenIliasError
from openilias.core.executors import usable_cores

Array = npt.NDArray[Any]
Numbers = npt.NDArray[np.int64] | range
_READERS = min(16, usable_cores())
_DEPTH = 3


class _Buffer:
    """Room for some rows, on both sides; where the device is a CPU there is one side.

    Args:
        device: the other side.
        home: where it waits to be filled again.
    """

    def __init__(self, device: str, home: SimpleQueue[_Buffer | None]) -> None:
        self.home = home
        self._device = device
        self._here = self._there = torch.empty((0, 0))
        self._count = 0
        self.numbers: Numbers = range(0)
        """Of the rows."""
        self._copied: Any = None
        self._used: Any = None
        if device.startswith("cuda"):
            cuda: Any = torch.cuda  # of which some versions have no types
            self._copied, self._used = cuda.Event(), cuda.Event()

    def load(self, parts: list[Array], readers: ThreadPoolExecutor, stream: Any) -> None:
        """Read the parts, and start their copy to the device."""
        self._count = sum(map(len, parts))
        if self._copied is not None:
            self._copied.synchronize()
        if len(self._here) < self._count:
            self._make(parts[0])
        target, start, tasks = self._here.numpy(), 0, []
        for part in parts:
            step = max(1, -(-len(part) // _READERS))
            for first in range(0, len(part), step):
                piece = part[first : first + step]
                tasks.append(readers.submit(np.copyto, target[start : start + len(piece)], piece))
                start += len(piece)
        for task in tasks:
            task.result()
        if self._copied is not None:
            with torch.cuda.stream(stream):
                stream.wait_event(self._used)
                self._there[:start].copy_(self._here[:start], non_blocking=True)
                self._copied.record(stream)
        elif self._there is not self._here:
            self._there[:start].copy_(self._here[:start])

    def _make(self, like: Array) -> None:
        if self._device == "mps" and like.dtype == np.float64:
            raise OpenIliasError("The device mps has no float64, as this store has.", fix="Search with the CPU.")
        kind = torch.from_numpy(np.empty(0, like.dtype)).dtype
        shape = (self._count, like.shape[1])
        self._here = torch.empty(shape, dtype=kind, pin_memory=self._copied is not None)
        self._there = self._here if self._device == "cpu" else torch.empty(shape, dtype=kind, device=self._device)
        if self._copied is not None:
            # The memory may have been freed a moment ago by work that is still going on there.
            torch.cuda.synchronize(self._device)

    def rows(self) -> Tensor:
        """Return what was read; the current stream waits until it is there."""
        if self._copied is not None:
            torch.cuda.current_stream(self._device).wait_event(self._copied)
        return self._there[: self._count]

    def done(self) -> None:
        """Let it be filled again, once the work that was started on the rows is done."""
        if self._used is not None:
            self._used.record(torch.cuda.current_stream(self._device))
        self.home.put(self)


class Feed:
    """Blocks on a device, one after the other. Buffers are kept from stream to stream.

    Args:
        device: where.
        size: bytes of a buffer; there are three.
    """

    def __init__(self, device: str, size: int) -> None:
        self._device = device
        self._size = size
        self._buffers: dict[tuple[Any, int], list[_Buffer]] = {}
        self._stream: Any = None
        if device.startswith("cuda"):
            cuda: Any = torch.cuda  # of which some versions have no types
            self._stream = cuda.Stream(device)

    def stream(self, items: Iterable[tuple[Array, Numbers]]) -> Generator[tuple[Tensor, Numbers]]:
        """Yield the rows of blocks on the device, cut and joined, in order; each is there until the next is asked for.

        Args:
            items: (N_i, D) blocks, with N_i numbers each. They are drawn by another thread, a little ahead; its errors
                are raised here.

        One stream at a time.
        """
        stop, full = Event(), SimpleQueue[_Buffer | BaseException | None]()

        def read() -> None:
            try:
                with ThreadPoolExecutor(_READERS) as readers:
                    for parts, numbers in self._chunks(items):
                        buffer = self._home(parts[0]).get()
                        if buffer is None or stop.is_set():
                            return
                        buffer.load(parts, readers, self._stream)
                        buffer.numbers = numbers
                        full.put(buffer)
                full.put(None)
            except BaseException as error:
                full.put(error)

        for buffers in self._buffers.values():  # a stream that was left early took some with it
            home = SimpleQueue[_Buffer | None]()
            for buffer in buffers:
                buffer.home = home
                home.put(buffer)
        thread = Thread(target=read, daemon=True)
        thread.start()
        try:
            while (item := full.get()) is not None:
                if isinstance(item, BaseException):
                    raise item
                yield item.rows(), item.numbers
                item.done()
        finally:
            stop.set()
            for buffers in list(self._buffers.values()):
                buffers[0].home.put(None)
            thread.join()

    def _home(self, like: Array) -> SimpleQueue[_Buffer | None]:
        kind = (like.dtype, like.shape[1])
        if kind not in self._buffers:
            home = SimpleQueue[_Buffer | None]()
            self._buffers[kind] = [_Buffer(self._device, home) for _ in range(_DEPTH)]
            for buffer in self._buffers[kind]:
                home.put(buffer)
        return self._buffers[kind][0].home

    def _chunks(self, items: Iterable[tuple[Array, Numbers]]) -> Iterator[tuple[list[Array], Numbers]]:
        """Yield lists of parts of blocks of one kind that together fit into a buffer, and their numbers."""
        parts: list[Array] = []
        numbers: list[Numbers] = []
        room, kind = 0, None
        for block, its_numbers in items:
            start, same = 0, (block.dtype, block.shape[1])
            while start < len(block):
                if parts and (room == 0 or kind != same):
                    yield parts, _joined(numbers)
                    parts, numbers = [], []
                if not parts:
                    room, kind = max(1, self._size // max(1, block.dtype.itemsize * block.shape[1])), same
                parts.append(block[start : start + room])
                numbers.append(its_numbers[start : start + room])
                start += len(parts[-1])
                room -= len(parts[-1])
        if parts:
            yield parts, _joined(numbers)


def _joined(numbers: list[Numbers]) -> Numbers:
    ranges = [some for some in numbers if isinstance(some, range)]
    if len(ranges) == len(numbers) and all(one.stop == other.start for one, other in pairwise(ranges)):
        return range(ranges[0].start, ranges[-1].stop)
    return np.concatenate([np.asarray(some, np.int64) for some in numbers])
