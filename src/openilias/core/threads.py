"""Threads: when images go to all cores, each image is to be worked on by one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def one_thread_per_worker() -> Iterator[None]:
    """Keep OpenCV and BLAS to the calling thread inside the block, and put back what was before.

    Otherwise their pools wait actively for the same cores (see ``benchmarks/frame.py``).
    """
    import cv2
    from threadpoolctl import threadpool_limits

    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        with threadpool_limits(1, user_api="blas"):
            yield
    finally:
        cv2.setNumThreads(before)
