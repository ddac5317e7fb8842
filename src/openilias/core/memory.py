"""Memory: networks ask for the same large pieces for each batch; the system gives them page by page every time."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

# Of glibc's malloc.h: parameters of mallopt, and what its own adjusting arrives at in a process that uses large pieces.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4
_USUAL = ((_MMAP_MAX, 65536), (_MMAP_THRESHOLD, 32 << 20), (_TRIM_THRESHOLD, 64 << 20))
_KEPT = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, 1 << 30))


@cache
def _malloc() -> Any:
    """Return the C library where its memory can be told what to keep: glibc's, that is on most Linux machines."""
    try:
        library = ctypes.CDLL(None)
        return library if hasattr(library, "gnu_get_libc_version") and hasattr(library, "mallopt") else None
    except (OSError, TypeError):
        return None


def keep_memory() -> None:
    """Keep up to 1 GB of what is given back, in this process from now on; does nothing where that cannot be told.

    What that is worth for networks on a CPU, and for SIFT: ``benchmarks/memory.py``.
    """
    if _malloc() is not None:
        for parameter, value in _KEPT:
            _malloc().mallopt(parameter, value)


@contextmanager
def memory_kept() -> Iterator[None]:
    """Keep memory inside the block, and give back to the system what is free after it."""
    keep_memory()
    try:
        yield
    finally:
        if _malloc() is not None:
            for parameter, value in _USUAL:
                _malloc().mallopt(parameter, value)
            _malloc().malloc_trim(0)
