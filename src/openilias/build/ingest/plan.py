"""Which rows of the tables belong to which shard, and which ids stand twice; found in one pass before all else.

A shard has ``per_shard`` rows of the tables, in their order: photographs, and records that cannot be used; videos are
passed over. So its rows depend on the tables alone. What is kept is where each shard begins.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from openilias.build.tables.lines import is_packed
from openilias.build.tables.metadata import Table
from openilias.build.tables.rows import Bad, Position, Record, Row, Video
from openilias.core.errors import OpenIliasError
from openilias.core.files import atomic_folder, read_json, write_json

PLAN, DUPLICATES = "plan.json", "duplicates.npy"
_MOST_NAME = 100  # bytes of a member name in the header of a tar
_TOLD = 1000  # records, between two calls for progress
_BUCKETS = 64
_HELD = 2**16  # ids, before they are written


@dataclass(frozen=True)
class PlannedShard:
    """Where a shard begins, and how many rows it has.

    Attributes:
        number: from 0.
        table: in which it begins.
        start: where in that table.
        rows: how many.
    """

    number: int
    table: int
    start: Position
    rows: int


@dataclass(frozen=True)
class Plan:
    """The shards of an ingest, and what the tables hold.

    Attributes:
        shards: in order.
        photos: rows that will be asked for, duplicates among them.
        videos: passed over.
        bad: records that cannot be used.
        duplicates: (D,) uint64, ascending: rows, counted over all shards, whose id an earlier one has.
    """

    shards: tuple[PlannedShard, ...]
    photos: int
    videos: int
    bad: int
    duplicates: npt.NDArray[np.uint64]

    @property
    def rows(self) -> int:
        """How many rows all shards have."""
        return self.photos + self.bad


def usable(record: Record) -> Record:
    """Take a row whose id fits no tar for what it is."""
    if isinstance(record, Row) and len(record.id.encode()) + len(".jpg") > _MOST_NAME:
        return Bad(f"its id is longer than {_MOST_NAME - len('.jpg')} bytes", record.where, record.after)
    return record


def make_plan(
    tables: Sequence[Table], *, per_shard: int, limit: int | None, folder: Path, told: Callable[[int], None]
) -> None:
    """Read the tables once, and write the plan to a folder.

    Raises:
        OpenIliasError: a table cannot be read to its end, or has no rows.
    """
    with atomic_folder(folder) as made:
        ids = _Ids(made)
        found = _count(tables, per_shard=per_shard, limit=limit, told=told, seen=ids.add)
        np.save(made / DUPLICATES, ids.duplicates())
        value: dict[str, Any] = asdict(found)
        del value["duplicates"]
        write_json(made / PLAN, value)


def count_tables(tables: Sequence[Table], *, per_shard: int, limit: int | None, told: Callable[[int], None]) -> Plan:
    """Read the tables once and say what they hold; ids are not compared.

    Raises:
        OpenIliasError: a table cannot be read to its end, or has no rows.
    """
    return _count(tables, per_shard=per_shard, limit=limit, told=told, seen=lambda row, name: None)


def read_plan(folder: Path) -> Plan:
    """Read a plan.

    Raises:
        OpenIliasError: it is damaged.
    """
    value = read_json(folder / PLAN)
    try:
        shards = tuple(
            PlannedShard(one["number"], one["table"], Position(*one["start"]), one["rows"]) for one in value["shards"]
        )
        duplicates = np.load(folder / DUPLICATES, allow_pickle=False)
        return Plan(shards, value["photos"], value["videos"], value["bad"], duplicates)
    except (KeyError, TypeError, ValueError, OSError) as error:
        raise OpenIliasError(
            f"This plan is damaged: {error}.", where=folder, fix="Remove it; it is made again."
        ) from None


def _count(
    tables: Sequence[Table],
    *,
    per_shard: int,
    limit: int | None,
    told: Callable[[int], None],
    seen: Callable[[int, str], None],
) -> Plan:
    shards: list[PlannedShard] = []
    begin, rows, bad, videos, records = (0, tables[0].first), 0, 0, 0, 0
    for table, before, record in _records(tables):
        records += 1
        if records % _TOLD == 0:
            told(_TOLD)
        if isinstance(record, Video):
            videos += 1
        else:
            if rows % per_shard == 0:
                begin = (table, before)
            if isinstance(record, Row):
                seen(rows, record.id)
            bad += isinstance(record, Bad)
            rows += 1
            if rows % per_shard == 0:
                shards.append(PlannedShard(len(shards), *begin, per_shard))
            if rows == limit:
                break
    told(records % _TOLD)
    if rows % per_shard:
        shards.append(PlannedShard(len(shards), *begin, rows % per_shard))
    if rows == bad:
        raise OpenIliasError(
            f"No row of this table can be used: {bad} are bad, {videos} are videos.",
            where=tables[0].path,
            fix="Give the metadata of YFCC100M, or a table of URLs.",
        )
    return Plan(tuple(shards), rows - bad, videos, bad, np.empty(0, np.uint64))


def _records(tables: Sequence[Table]) -> Iterator[tuple[int, Position, Record]]:
    """Yield the records of all tables with their table and where they begin."""
    for number, table in enumerate(tables):
        before = table.first
        for record in table.read():
            yield number, before, usable(record)
            before = record.after


class Reader:
    """Reads the rows of shards; quickest in their order, as what is compressed is unpacked only once then."""

    def __init__(self, tables: Sequence[Table]) -> None:
        self._tables = tables
        self._packed = [is_packed(table.path) for table in tables]
        self._table, self._number = -1, 0
        self._records: Iterator[Record] = iter(())

    def rows(self, shard: PlannedShard) -> Iterator[Row | Bad]:
        """Yield the rows of a shard.

        Raises:
            OpenIliasError: a table cannot be read, or has become shorter.
        """
        self._go_to(shard.table, shard.start)
        left = shard.rows
        while left:
            record = self._next()
            if not isinstance(record, Video):
                left -= 1
                yield record

    def _go_to(self, table: int, start: Position) -> None:
        if self._table == table and self._number == start.number:
            return
        if not (self._packed[table] and self._table == table and self._number < start.number):
            self._table, self._number = table, start.number
            self._records = self._tables[table].read(start)
        while self._number < start.number:
            self._next()

    def _next(self) -> Record:
        while True:
            record = next(self._records, None)
            if record is not None:
                self._number += 1
                return usable(record)
            self._table += 1
            if self._table == len(self._tables):
                path, self._table = self._tables[-1].path, -1
                raise OpenIliasError("This table has become shorter.", where=path, fix="Put the whole one back.")
            self._number, self._records = 0, self._tables[self._table].read()


class _Ids:
    """Finds ids that stand twice without holding them: 64-bit digests in files by their first bits, each sorted alone.

    Two different ids of a table of 100 million have the same digest with a probability of 3 in 10,000.
    """

    def __init__(self, folder: Path) -> None:
        self._files = [folder / f"ids-{bucket:02d}" for bucket in range(_BUCKETS)]
        self._held: list[tuple[int, int]] = []

    def add(self, row: int, name: str) -> None:
        digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
        self._held.append((int.from_bytes(digest, "big"), row))
        if len(self._held) == _HELD:
            self._write()

    def _write(self) -> None:
        pairs = np.array(self._held, np.uint64).reshape(-1, 2)
        buckets = pairs[:, 0] // np.uint64(2**64 // _BUCKETS)
        for bucket in np.unique(buckets):
            with self._files[int(bucket)].open("ab") as file:
                file.write(pairs[buckets == bucket].tobytes())
        self._held.clear()

    def duplicates(self) -> npt.NDArray[np.uint64]:
        """Return the rows whose id an earlier one has, ascending."""
        self._write()
        found = [np.empty(0, np.uint64)]
        for file in self._files:
            if not file.exists():
                continue
            pairs = np.fromfile(file, np.uint64).reshape(-1, 2)
            pairs = pairs[np.argsort(pairs[:, 0], kind="stable")]  # rows of one digest stay in their order
            found.append(pairs[1:, 1][pairs[1:, 0] == pairs[:-1, 0]])
            file.unlink()
        return np.sort(np.concatenate(found))
