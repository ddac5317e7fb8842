"""Doing many pieces of work in processes of this machine, in order, a bounded number ahead."""

from __future__ import annotations

import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.connection import wait
from multiprocessing.synchronize import Barrier
from threading import Thread
from typing import Any

from openilias.core.errors import OpenIliasError

_AHEAD = 4  # jobs begun per worker


@contextmanager
def ordered_map(
    workers: int,
    *,
    setup: Callable[[], None] | None = None,
    lost: Callable[[Any], Any] | None = None,
) -> Iterator[Callable[..., Iterator[Any]]]:
    """Give a ``map`` whose results come in the order of the jobs; few are begun before they are asked for.

    For one worker everything happens in this process. More are spawned: a script must call this under
    ``if __name__ == "__main__":``.

    Args:
        workers: processes.
        setup: called once in each spawned process.
        lost: makes the result of a job whose process died (killed, out of memory, a crash in a decoder). Jobs that
            merely stood beside it are done again. Without it a dead process is an error.

    Raises:
        OpenIliasError: a process died, and there is no ``lost``.
    """
    if workers == 1:
        yield map
        return
    pools = _Pools(workers, setup)
    try:
        yield lambda function, jobs: _results(pools, function, jobs, lost)
    finally:
        pools.close()


class _Pools:
    """The pool in use; a new one after a process died."""

    def __init__(self, workers: int, setup: Callable[[], None] | None) -> None:
        self.workers = workers
        self._setup = setup
        self._pool: ProcessPoolExecutor | None = None

    def submit(self, function: Callable[[Any], Any], job: Any) -> Future[Any]:
        if self._pool is None:
            self._pool = _full_pool(self.workers, self._setup)
        try:
            return self._pool.submit(function, job)
        except BrokenProcessPool as error:  # it died a moment ago; seen when this job's turn comes
            future: Future[Any] = Future()
            future.set_exception(error)
            return future

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None


def _full_pool(workers: int, setup: Callable[[], None] | None) -> ProcessPoolExecutor:
    """A pool whose processes all exist: one that starts a process while another dies can fail or hang in Python."""
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(
        workers, mp_context=context, initializer=_begin, initargs=(context.Barrier(workers), setup)
    )
    for _ in range(workers):  # none is idle before the last has come, so each of these starts one
        pool.submit(_nothing)
    return pool


def _nothing() -> None:
    pass


def _begin(all_here: Barrier, setup: Callable[[], None] | None) -> None:
    """Prepare a worker: it ends when its parent does, also when that is killed."""
    all_here.wait()
    parent = multiprocessing.parent_process()
    if parent is not None:
        Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()
    if setup is not None:
        setup()


def _end_with(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)


def _results(
    pools: _Pools,
    function: Callable[[Any], Any],
    jobs: Iterable[Any],
    lost: Callable[[Any], Any] | None,
) -> Iterator[Any]:
    begun: deque[tuple[Any, Future[Any]]] = deque()
    for job in jobs:
        begun.append((job, pools.submit(function, job)))
        if len(begun) >= _AHEAD * pools.workers:
            yield _next(pools, function, begun, lost)
    while begun:
        yield _next(pools, function, begun, lost)


def _next(
    pools: _Pools,
    function: Callable[[Any], Any],
    begun: deque[tuple[Any, Future[Any]]],
    lost: Callable[[Any], Any] | None,
) -> Any:
    try:
        return begun[0][1].result()
    except BrokenProcessPool:
        if lost is None:
            raise OpenIliasError(
                "A worker process ended.",
                fix="Give fewer workers, or one; a script must have an 'if __name__ == \"__main__\":' around it.",
            ) from None
        # Any job of the broken pool may be the one that killed it: each unfinished one is tried alone.
        pools.close()
        for place, (job, future) in enumerate(begun):
            if isinstance(future.exception(), BrokenProcessPool):
                begun[place] = (job, _alone(pools, function, job, lost))
        return begun[0][1].result()
    finally:
        begun.popleft()


def _alone(pools: _Pools, function: Callable[[Any], Any], job: Any, lost: Callable[[Any], Any]) -> Future[Any]:
    future = pools.submit(function, job)
    if isinstance(future.exception(), BrokenProcessPool):
        pools.close()
        future = Future()
        future.set_result(lost(job))
    return future
