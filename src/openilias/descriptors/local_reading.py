"""Reading a few rows each of many array files, with a bounded number of files open and nothing held.

Mapped arrays will not do for this: a page fault on a cold disk reads far around the few rows that are wanted, what
was touched counts as memory, and each mapping keeps its file open. So rows are read from the files where they lie. The
system is told of all of them first, and fetches them from the disk at once.
"""

from __future__ import annotations

import os
import resource
import weakref
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from openilias.core.errors import OpenIliasError

AGAIN = "Make the store again with --overwrite."
_MOST = 8192  # open files, whatever the system grants
_ADVISE = getattr(os, "posix_fadvise", None)  # macOS has none

Array = npt.NDArray[Any]
Integers = npt.NDArray[np.int64]


def most_open() -> int:
    """Return how many files are kept open: half of what the system grants a process."""
    granted = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return _MOST if granted < 0 else max(min(granted // 2, _MOST), 1)


class _Handle:
    """An open file; closed when nobody holds this any more."""

    def __init__(self, path: Path) -> None:
        try:
            self.number = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise OpenIliasError(f"This file cannot be read: {error}.", where=path, fix=AGAIN) from None
        weakref.finalize(self, os.close, self.number)


class RowFile:
    """The rows of a ``.npy`` file, read where they lie."""

    def __init__(self, path: Path) -> None:
        """Read the header.

        Raises:
            OpenIliasError: the file is missing, truncated, or no array of numbers.
        """
        array = mapped(path)
        if array.ndim not in (1, 2) or not array.flags.c_contiguous:
            raise OpenIliasError(f"Expected rows of numbers, found {array.shape}.", where=path, fix=AGAIN)
        self.path, self.shape, self.dtype = path, array.shape, array.dtype
        self.kind = f"{array.shape[1:]} {array.dtype}"
        self.bytes_of_row = int(array.dtype.itemsize * np.prod(array.shape[1:], dtype=np.int64))
        self.start = int(getattr(array, "offset", 0))
        self._handle: _Handle | None = None

    def opened(self) -> _Handle:
        """Return the open file; of too many, the one that was opened first is closed."""
        handle = self._handle
        if handle is None:
            handle = self._handle = _Handle(self.path)
            _OPEN.append(weakref.ref(self))
            for _ in range(len(_OPEN) - most_open()):
                first = _OPEN.popleft()()
                if first is not None:
                    first._handle = None
        return handle

    def rows(self, first: int, count: int) -> Array:
        """Return some rows.

        Raises:
            OpenIliasError: the file cannot be read, or ends before they do.
        """
        out = np.empty((count, *self.shape[1:]), self.dtype)
        if out.size:
            self.read_into(self.opened().number, out, self.start + first * self.bytes_of_row)
        return out

    def read_into(self, handle: int, memory: Any, place: int) -> None:
        """Fill some memory from a byte of the file on.

        Raises:
            OpenIliasError: as :meth:`rows`.
        """
        try:
            read = os.preadv(handle, (memory,), place)
        except OSError as error:
            raise OpenIliasError(
                f"This file cannot be read: {error}.", where=self.path, fix="Check the disk."
            ) from None
        if read != memory.nbytes:
            raise OpenIliasError("This file is truncated.", where=self.path, fix=AGAIN)


_OPEN: deque[weakref.ref[RowFile]] = deque()
"""The first opened first."""


def mapped(path: Path) -> Array:
    """Return an array, memory-mapped.

    Raises:
        OpenIliasError: the file is missing or damaged.
    """
    try:
        array: Array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise OpenIliasError(f"This file cannot be read: {error}.", where=path, fix=AGAIN) from None
    return array


def gathered(files: list[RowFile], which: Integers, first: Integers, count: Integers) -> Array:
    """Return rows of several files, one piece after the other.

    Args:
        files: of rows of the same length and dtype; at least one.
        which: (n,) file of each piece.
        first: (n,) its first row.
        count: (n,) its rows.

    Raises:
        OpenIliasError: files that do not go together, or that end before their rows do.
    """
    one = files[0]
    for file in files:
        if file.kind != one.kind:
            raise OpenIliasError(
                f"Its rows are of {file.kind}, those of {one.path} are of {one.kind}.", where=file.path, fix=AGAIN
            )
    ends = np.cumsum(count)
    out = np.empty((int(ends[-1]) if len(ends) else 0, *one.shape[1:]), one.dtype)
    if not out.size:
        return out
    memory, each = out.reshape(-1).view(np.uint8).data, one.bytes_of_row
    order = np.lexsort((first, which))
    columns = (which, (ends - count) * each, ends * each, first * each)
    pieces = zip(*(column[order].tolist() for column in columns), strict=True)
    most, waiting, handles = most_open(), list[tuple[int, memoryview, int, int]](), dict[int, _Handle]()
    for number, start, end, place in pieces:
        if number not in handles:
            if len(handles) == most:
                _read(files, waiting)
                waiting, handles = [], {}
            handles[number] = files[number].opened()
        waiting.append((handles[number].number, memory[start:end], files[number].start + place, number))
    _read(files, waiting)
    return out


def _read(files: list[RowFile], pieces: list[tuple[int, memoryview, int, int]]) -> None:
    if _ADVISE is not None:
        for handle, piece, place, _ in pieces:
            _ADVISE(handle, place, piece.nbytes, os.POSIX_FADV_WILLNEED)
    for handle, piece, place, number in pieces:
        files[number].read_into(handle, piece, place)
