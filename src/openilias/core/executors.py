"""Doing many pieces of work in processes of this machine, in order, a bounded number ahead."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from threading import Thread
from typing import Any, Literal

from openilias.core.errors import OpenIliasError
from openilias.core.memory import keep_memory

_AHEAD = 4  # jobs begun per worker

Loss = Literal["crash", "timeout"]
Lost = Callable[[Any, Loss], Any]
_ONE_THREAD = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL", "NUMEXPR", "VECLIB_MAXIMUM")} | {
    "OPENCV_FOR_THREADS_NUM": "1"
}
"""The work goes to all cores; a piece of it that went to all of them too would wait for the others."""


def usable_cores() -> int:
    """Return how many cores this process may use, which a scheduler can make fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def ordered_map(
    workers: int,
    *,
    lost: Lost | None = None,
    timeout: float | None = None,
    ahead: int = _AHEAD,
) -> Iterator[Callable[..., Iterator[Any]]]:
    """Give a ``map`` whose results come in the order of the jobs; few are begun before they are asked for.

    For one worker everything happens in this process, where neither a crash nor a time-out can be caught.

    Args:
        workers: processes.
        lost: makes the result of a job whose process died (killed, out of memory, a crash in a decoder) or that took
            too long. Jobs that merely stood beside it are done again. Without it either is an error.
        timeout: seconds that a job may take.
        ahead: jobs begun per worker.

    Raises:
        OpenIliasError: a job was lost, and there is no ``lost``.
    """
    if workers == 1:
        yield map
        return
    pools = _Pools(workers, timeout, ahead)
    try:
        yield lambda function, jobs: _results(pools, function, jobs, lost)
    except BaseException:
        pools.kill()
        raise
    pools.close()


def process_pool(workers: int) -> Any:
    """Return a new pool of processes, each of one thread, that end with this one, also if that is killed."""
    # Loky and not the standard library: it can kill a process that hangs, scripts that use it need no guard, and
    # it does not start processes while others die.
    import loky

    return loky.ProcessPoolExecutor(
        workers,
        context=loky.backend.get_context("loky"),
        initializer=_begin,
        initargs=(os.getpid(),),
        env=_ONE_THREAD,
    )


class _Pools:
    """The pool in use; a new one after a process died or was killed."""

    def __init__(self, workers: int, timeout: float | None, ahead: int) -> None:
        self.most, self.timeout = ahead * workers, timeout
        self._workers = workers
        self._pool: Any = None

    def submit(self, function: Callable[[Any], Any], job: Any) -> Future[Any]:
        if self._pool is None:
            self._pool = process_pool(self._workers)
            # The processes start and import what they need outside of the time that a job may take.
            wait([self._pool.submit(_import, function) for _ in range(2 * self._workers)])
        try:
            begun: Future[Any] = self._pool.submit(function, job)
            return begun
        except BrokenProcessPool as error:  # it died a moment ago; seen when this job's turn comes
            future: Future[Any] = Future()
            future.set_exception(error)
            return future

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None

    def kill(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(kill_workers=True)
            self._pool = None


def _import(function: Callable[[Any], Any]) -> None:
    """Nothing but be sent a function, which imports its module."""
    time.sleep(0.01)  # so that each process gets one


def _begin(parent: int) -> None:
    """Prepare a worker: it ends when its parent does, also when that is killed."""
    keep_memory()
    Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _results(pools: _Pools, function: Callable[[Any], Any], jobs: Iterable[Any], lost: Lost | None) -> Iterator[Any]:
    begun: deque[tuple[Any, Future[Any]]] = deque()
    try:
        for job in jobs:
            begun.append((job, pools.submit(function, job)))
            if len(begun) >= pools.most:
                yield _next(pools, function, begun, lost)
        while begun:
            yield _next(pools, function, begun, lost)
    finally:
        for _, future in begun:
            future.cancel()


def _next(
    pools: _Pools, function: Callable[[Any], Any], begun: deque[tuple[Any, Future[Any]]], lost: Lost | None
) -> Any:
    """Wait for the first job begun; as it is the first, it has been running at least since the last one was."""
    from loky.process_executor import ShutdownExecutorError

    job, future = begun[0]
    try:
        while True:
            try:
                return future.result(pools.timeout)
            except ShutdownExecutorError:  # killed because of another job
                future = pools.submit(function, job)
            except BrokenProcessPool:
                _again(pools, function, begun, lost)
                future = begun[0][1]
            except TimeoutError:
                if future.done():  # at the last moment, or the job's own error
                    return future.result()
                pools.kill()
                return _without(lost, job, "timeout")
    finally:
        begun.popleft()


def _again(
    pools: _Pools, function: Callable[[Any], Any], begun: deque[tuple[Any, Future[Any]]], lost: Lost | None
) -> None:
    """After a crash: any job of the pool may be the one that killed it, so each unfinished one is tried alone."""
    pools.kill()
    for place, (job, future) in enumerate(begun):
        if not (future.done() and isinstance(future.exception(), BrokenProcessPool)):
            continue
        alone = pools.submit(function, job)
        loss: Loss | None = None
        try:
            if isinstance(alone.exception(pools.timeout), BrokenProcessPool):
                loss = "crash"
        except TimeoutError:
            loss = "timeout"
        if loss is not None:
            pools.kill()
            alone = Future()
            alone.set_result(_without(lost, job, loss))
        begun[place] = (job, alone)


def _without(lost: Lost | None, job: Any, loss: Loss) -> Any:
    if lost is not None:
        return lost(job, loss)
    what = "A worker process ended." if loss == "crash" else "A piece of work took too long."
    raise OpenIliasError(what, fix="Give fewer workers, or one, if memory is short; or more time.")
