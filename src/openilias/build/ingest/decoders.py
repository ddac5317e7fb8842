"""Images are normalised in processes of their own: one that crashes or hangs costs its image, and nothing else."""

from __future__ import annotations

import asyncio
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Self

from openilias.build.normalise import Normalised, NormaliseSettings, normalise
from openilias.core.executors import process_pool
from openilias.images.decode import UnreadableImageError
from openilias.images.refusals import Refusal

_AHEAD = 4  # images per process that are sent to it


@dataclass(frozen=True)
class Unusable:
    """An image that is not stored: why, in a word that tables keep, and in words for people."""

    status: Refusal | Literal["crash", "hang"]
    what: str


Job = tuple[bytes, NormaliseSettings]


def make(job: Job) -> Normalised | Unusable:
    """Normalise one image; what is wrong with it is returned."""
    data, settings = job
    try:
        return normalise(data, settings, where="this image")
    except UnreadableImageError as error:
        return Unusable(error.status, error.what)
    except Exception as error:
        # Whatever a hostile file finds in a decoder costs its row, and is told in it: not a run of months.
        return Unusable("crash", f"the decoder fails: {type(error).__name__}")


class Decoders:
    """Processes that normalise images; used as an asynchronous context. They start with the first image."""

    def __init__(self, workers: int, *, timeout: float) -> None:
        """Prepare.

        Args:
            workers: processes.
            timeout: seconds that an image may take.
        """
        self._workers, self._timeout = workers, timeout
        self._turns = asyncio.Semaphore(_AHEAD * workers)
        self._alone = asyncio.Lock()
        self._pool: Any = None

    async def __aenter__(self) -> Self:
        """Return itself."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the processes."""
        if self._pool is not None:
            pool, self._pool = self._pool, None
            await asyncio.to_thread(pool.shutdown, kill_workers=kind is not None)

    async def __call__(self, data: bytes, settings: NormaliseSettings) -> Normalised | Unusable:
        """Normalise one image."""
        job = (data, settings)
        async with self._turns:
            if self._pool is None:
                self._pool = process_pool(self._workers)
            pool = self._pool
            try:
                return await _result(pool, job, _AHEAD * self._timeout)
            except (TimeoutError, BrokenProcessPool, RuntimeError):  # a pool that is being ended raises the last
                # Which image of the pool it was is not known: whoever was in it is tried alone.
                if self._pool is pool:
                    self._pool = None
                    await asyncio.to_thread(pool.shutdown, kill_workers=True)
            return await self._by_itself(job)

    async def _by_itself(self, job: Job) -> Normalised | Unusable:
        async with self._alone:
            pool = process_pool(1)
            try:
                await asyncio.wrap_future(pool.submit(_nothing))  # imports take no time of the image
                return await _result(pool, job, self._timeout)
            except TimeoutError:
                return Unusable("hang", f"it takes longer than {self._timeout:g} s to decode")
            except BrokenProcessPool:
                return Unusable("crash", "the decoder crashes")
            finally:
                await asyncio.to_thread(pool.shutdown, kill_workers=True)


async def _result(pool: Any, job: Job, seconds: float) -> Normalised | Unusable:
    """Wait for an image; one not waited for any more is not cancelled: a pool that is killed trips over that."""
    future = asyncio.wrap_future(pool.submit(make, job))
    future.add_done_callback(lambda done: done.cancelled() or done.exception())  # else asyncio tells that nobody looked
    return await asyncio.wait_for(asyncio.shield(future), seconds)


def _nothing() -> None:
    pass
