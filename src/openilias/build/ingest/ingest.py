"""An ingest from tables to shards: whoever repeats the call goes on where the last one was, however that ended."""

from __future__ import annotations

import asyncio
import resource
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from openilias.build.ingest.decoders import Decoders
from openilias.build.ingest.fetching import Access, Fetcher, of_bad, of_table
from openilias.build.ingest.hosts import HostCounts, Hosts
from openilias.build.ingest.plan import Plan, PlannedShard, Reader, count_tables, make_plan, read_plan
from openilias.build.ingest.settings import MANIFEST, IngestSettings, begin, keep_to, made_from, open_tables
from openilias.build.ingest.shards import Places, ShardWork, rows_with
from openilias.build.ingest.statuses import parse_retry
from openilias.build.ingest.summary import PLANNED, Ingested, count_up, list_of_ids, write_ids
from openilias.build.tables.metadata import Table
from openilias.build.tables.rows import Bad, Row
from openilias.core.errors import OpenIliasError
from openilias.core.executors import usable_cores
from openilias.core.files import InUseError, made_folder, owned, remove_leftovers_of
from openilias.core.progress import Step, progress, tell
from openilias.core.shards import Share
from openilias.data.http import in_a_loop

_BATCH = 256  # rows that are read at a time
_OPEN = 2  # shards at a time: the next begins while the last images of one are waited for
_FILES_OF_WORKER, _OTHER_FILES = 8, 100  # that are open besides connections: pipes, tables, spools, lookups of names
_WAIT = 1.0  # seconds, until it is looked again whether another process has made the plan

_Job = tuple[ShardWork, int, Row]


def ingest(
    tables: Sequence[Path],
    out: Path,
    settings: IngestSettings | None = None,
    *,
    access: Access | None = None,
    workers: int | None = None,
    share: Share | None = None,
    retry: Sequence[str] = (),
    decode_seconds: float = 60.0,
) -> Ingested:
    """Fetch the images of tables into the shards of a set. Killed or repeated, it goes on.

    The shards and their tables depend on the tables, the settings and what the servers answer; not on the number of
    workers, connections or processes, nor on the order in which answers come.

    Args:
        tables: the metadata of YFCC100M, or tables of URLs; one after the other.
        out: the set, a folder in the official layout.
        settings: what is stored.
        access: how it is fetched.
        workers: processes that decode; all cores by default.
        share: of the shards that this process makes.
        retry: statuses whose rows are asked for again, in the shards that are there; no others are made.
        decode_seconds: that an image may take to decode.

    Raises:
        OpenIliasError: bad input, another ingest in this folder, a host that is gone, a full disk. Nothing is lost.
    """
    settings, access, share = settings or IngestSettings(), access or Access(), share or Share()
    statuses = parse_retry(retry)
    opened = open_tables(tables, settings)
    if out.exists() and not out.is_dir():
        raise OpenIliasError("The output path is a file.", where=out, fix="Give another --out.")
    places = Places(out, settings.name)
    made = made_from(opened, settings)
    with made_folder(places.state):
        plan = _plan(opened, settings, places, made)
    begun = time.monotonic()
    _allow_files(access.connections, workers or usable_cores())
    run = _Run(places, plan, opened, settings, access, statuses, workers or usable_cores(), decode_seconds)
    run.do(share.take(plan.shards))
    found = replace(
        count_up(places, plan),
        elsewhere=run.elsewhere,
        asked=run.asked,
        seconds=time.monotonic() - begun,
        hosts=run.counts,
    )
    if found.whole and not found.listed:
        with suppress(InUseError), owned(places.state):  # else another process is about it
            write_ids(places, plan)
            found = replace(found, listed=True)
    return found


def _allow_files(connections: int, workers: int) -> None:
    """See that this process may open enough files: without them hosts seem to be away, and names unknown.

    Raises:
        OpenIliasError: it may not.
    """
    need = connections + _FILES_OF_WORKER * workers + _OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= need:
        return
    if hard != resource.RLIM_INFINITY and hard < need:
        raise OpenIliasError(
            f"{connections} connections need {need} open files, and this process may have {hard}.",
            fix="Give fewer --connections, or raise the limit (ulimit -n).",
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (need, hard))


def foresee(tables: Sequence[Path], settings: IngestSettings) -> Plan:
    """Read the tables and say what an ingest of them would ask for; nothing is written, ids are not compared.

    Raises:
        OpenIliasError: a table cannot be read.
    """
    with progress("reading the tables", total=None, unit="records") as step:
        opened = open_tables(tables, settings)
        return count_tables(opened, per_shard=settings.per_shard, limit=settings.limit, told=step)


def _plan(tables: Sequence[Table], settings: IngestSettings, places: Places, made: dict[str, Any]) -> Plan:
    """Read the plan, if it is of the same tables and settings; the first process makes it, and others wait for it."""
    folder = places.state / PLANNED
    waiting = False
    while not folder.is_dir():
        places.state.mkdir(parents=True, exist_ok=True)  # one that failed may have removed it
        try:
            with owned(places.state):
                if not folder.is_dir():
                    remove_leftovers_of(folder)
                    begin(places.state, places.root, settings.name, made)
                    _make_plan(tables, settings, folder)
        except InUseError:
            if not waiting:
                tell("Another process is reading the tables; this one waits for it.")
            waiting = True
            time.sleep(_WAIT)
    keep_to(places.state, made)
    return read_plan(folder)


def _make_plan(tables: Sequence[Table], settings: IngestSettings, folder: Path) -> None:
    try:
        with progress("reading the tables", total=None, unit="records") as step:
            make_plan(tables, per_shard=settings.per_shard, limit=settings.limit, folder=folder, told=step)
    except BaseException:
        if not any(place.is_dir() for place in folder.parent.iterdir()):  # nothing was made from it
            (folder.parent / MANIFEST).unlink(missing_ok=True)
        raise


class _Run:
    """One run over some shards."""

    def __init__(
        self,
        places: Places,
        plan: Plan,
        tables: Sequence[Table],
        settings: IngestSettings,
        access: Access,
        retry: frozenset[str],
        workers: int,
        decode_seconds: float,
    ) -> None:
        self._places, self._plan, self._settings, self._access = places, plan, settings, access
        self._retry, self._workers, self._decode_seconds = retry, workers, decode_seconds
        self._reader = Reader(tables)
        self._works: set[ShardWork] = set()
        self.elsewhere = self.asked = 0
        self.counts: dict[str, HostCounts] = {}

    def do(self, shards: Sequence[PlannedShard]) -> None:
        """Make shards, or ask again for rows of them."""
        todo = [shard for shard in shards if self._is_to_do(shard)]
        if not todo:
            return
        with progress("ingest", total=sum(shard.rows for shard in todo), unit="images") as step:
            try:
                in_a_loop(self._all(todo, step))
            except ExceptionGroup as several:  # the first of them ended the others
                raise _first(several) from None
            finally:
                for work in self._works:
                    work.close()

    def _wanted(self, shard: PlannedShard) -> npt.NDArray[np.bool_]:
        """Return (R,) which rows of a shard are to be asked for, if they are not done yet."""
        if not self._places.is_made(shard):
            return np.full(shard.rows, not self._retry)
        found = np.zeros(shard.rows, bool)
        if self._retry:
            chosen = rows_with(self._places.rows(shard), self._retry)
            found[: len(chosen)] = chosen[: shard.rows]
        return found

    def _is_to_do(self, shard: PlannedShard) -> bool:
        """Tell whether there is something to do: rows to ask for, or a shard whose new rows are not in it yet."""
        made = self._places.is_made(shard)
        return bool(self._wanted(shard).any()) or (made and self._places.is_begun(shard))

    async def _all(self, shards: Sequence[PlannedShard], step: Step) -> None:
        hosts = Hosts(self._access.politeness, self._access.patience)
        queue: asyncio.Queue[_Job | None] = asyncio.Queue(self._access.connections)
        slots = asyncio.Semaphore(_OPEN)
        try:
            async with (
                self._access.client() as client,
                Decoders(self._workers, timeout=self._decode_seconds) as decoders,
                asyncio.TaskGroup() as group,
            ):
                ending = _Ending(group, slots, self._works, list_of_ids(self._places.root))
                fetcher = Fetcher(client, decoders, hosts, self._settings, self._access)
                for _ in range(self._access.connections):
                    group.create_task(self._work(queue, fetcher, ending, step))
                for shard in shards:
                    await slots.acquire()
                    if not await self._feed(shard, queue, ending, step):
                        slots.release()
                for _ in range(self._access.connections):
                    await queue.put(None)
        finally:
            self.counts = hosts.counts()

    async def _work(self, queue: asyncio.Queue[_Job | None], fetcher: Fetcher, ending: _Ending, step: Step) -> None:
        while (job := await queue.get()) is not None:
            work, number, row = job
            image, jpeg = await fetcher.row(row)
            work.spool.add(number, image, jpeg)
            self.asked += 1
            step()
            work.left -= 1
            ending.perhaps(work)

    async def _feed(self, shard: PlannedShard, queue: asyncio.Queue[_Job | None], ending: _Ending, step: Step) -> bool:
        """Give out the rows of a shard that are to be asked for; tell whether it was taken."""
        work = await asyncio.to_thread(self._take, shard)  # a spool of gigabytes is read, and others are being answered
        if work is None:
            step(shard.rows)
            return False
        wanted = self._wanted(shard)
        rows = enumerate(self._reader.rows(shard))
        while batch := await asyncio.to_thread(_some, rows):
            for number, row in batch:
                if number in work.spool or not wanted[number]:
                    step()
                elif isinstance(row, Bad):
                    work.spool.add(number, of_bad(row))
                    step()
                elif self._is_duplicate(shard, number):
                    work.spool.add(number, replace(of_table(row), status="duplicate-id"))
                    step()
                else:
                    work.left += 1
                    await queue.put((work, number, row))
        work.fed = True
        ending.perhaps(work)
        return True

    def _take(self, shard: PlannedShard) -> ShardWork | None:
        try:
            work = ShardWork(self._places, shard)
        except InUseError:
            self.elsewhere += 1
            tell(f"{self._places.name(shard)}: another process is making it.")
            return None
        if not len(work.spool) and not self._wanted(shard).any():  # another process has made it meanwhile
            work.close()
            return None
        self._works.add(work)
        return work

    def _is_duplicate(self, shard: PlannedShard, number: int) -> bool:
        duplicates = self._plan.duplicates
        row = np.uint64(shard.number * self._settings.per_shard + number)
        at = int(np.searchsorted(duplicates, row))
        return at < len(duplicates) and bool(duplicates[at] == row)


class _Ending:
    """Ends shards whose rows are all done, beside the work on the next one."""

    def __init__(self, group: asyncio.TaskGroup, slots: asyncio.Semaphore, works: set[ShardWork], ids: Path) -> None:
        self._group, self._slots, self._works, self._ids = group, slots, works, ids
        self._ending: set[ShardWork] = set()

    def perhaps(self, work: ShardWork) -> None:
        """End a shard if all is done."""
        if work.fed and not work.left and work not in self._ending:
            self._ending.add(work)
            self._group.create_task(self._end(work))

    async def _end(self, work: ShardWork) -> None:
        self._ids.unlink(missing_ok=True)  # it is made again from what there is then
        await asyncio.to_thread(work.finish)
        work.close()
        self._works.discard(work)
        self._ending.discard(work)
        self._slots.release()


def _some(rows: Iterator[tuple[int, Row | Bad]]) -> list[tuple[int, Row | Bad]]:
    return list(islice(rows, _BATCH))


def _first(several: ExceptionGroup) -> Exception:
    """Return the failure that ended the others."""
    first = several.exceptions[0]
    return _first(first) if isinstance(first, ExceptionGroup) else first
