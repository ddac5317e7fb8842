"""Tables of images to fetch, read as a stream: the published metadata of YFCC100M, and any table of URLs.

Every record of the file comes out as one value, in the order of the file: a :class:`Row`, a :class:`Video`, or a
:class:`Bad` with the reason and the place; nothing is passed over in silence. What is held is one record (in Parquet
one batch), so a table of 100 million rows takes as much memory as one of a hundred.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from openilias.build.tables.lines import MOST_LINE, Line, lines_of, unpacked
from openilias.build.tables.rows import START, Bad, Position, Record, Row, Video
from openilias.build.tables.url_tables import Columns, Found, find_columns, make_row
from openilias.build.tables.yfcc import Layout, layout_of, parse_line
from openilias.core.errors import OpenIliasError

__all__ = ["START", "Bad", "Columns", "Part", "Position", "Record", "Row", "Table", "Video", "open_table"]

ALGORITHM_VERSION = 1  # changes when the same table is read as other records

Kind = Literal["yfcc", "csv", "tsv", "jsonl", "parquet"]
_ENDINGS: dict[str, Kind] = {".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}
_HEAD = 100  # lines of the published metadata that are looked at for their layout
_BATCH = 4096  # rows of Parquet that are held


@dataclass(frozen=True)
class Part:
    """A part of a table: ``rows`` records from ``start`` on. The last one may have less."""

    number: int
    start: Position
    rows: int


@dataclass(frozen=True)
class Table:
    """A table of images.

    Attributes:
        path: the file.
        kind: how it is written.
        layout: of the published metadata, how many columns it has.
        found: of any other table, which columns say what.
        names: of a CSV or TSV, its columns.
        first: where its first record begins.
    """

    path: Path
    kind: Kind
    layout: Layout = 23
    found: Found = field(default_factory=dict)
    names: tuple[str, ...] = ()
    first: Position = START

    def read(self, start: Position = START) -> Iterator[Record]:
        """Yield the records from a position on: :data:`START`, or what a record says is ``after`` it.

        A plain file is entered at the byte; of a compressed one what lies before is unpacked, and not parsed; of
        Parquet whole row groups are passed over.

        Raises:
            OpenIliasError: the file cannot be read to its end.
        """
        start = start if start.number else self.first
        if self.kind == "parquet":
            yield from self._parquet(start)
            return
        with unpacked(self.path) as file:
            lines = lines_of(file, number=start.line, start=start.byte)
            if self.kind == "yfcc":
                yield from self._yfcc(lines, start.number)
            elif self.kind == "jsonl":
                yield from self._jsonl(lines, start.number)
            else:
                yield from self._separated(lines, start)

    def read_part(self, part: Part) -> Iterator[Record]:
        """Yield the records of one part."""
        return islice(self.read(part.start), part.rows)

    def parts(self, rows: int) -> Iterator[Part]:
        """Cut the table into parts of ``rows`` records each, by reading it once.

        They depend on the file alone, so whoever reads a part finds the same records in it.

        Raises:
            OpenIliasError: ``rows`` is below 1, or the file cannot be read to its end.
        """
        if rows < 1:
            raise OpenIliasError(f"A part has at least one row, not {rows}.", fix="Give 1 or more.")
        start, count, after = self.first, 0, self.first
        for after in self._positions():
            count += 1
            if count % rows == 0:
                yield Part(count // rows - 1, start, rows)
                start = after
        if count % rows:
            yield Part(count // rows, start, count % rows)

    def _positions(self) -> Iterator[Position]:
        """Yield where each record ends; lines are counted where that is enough."""
        if self.kind in ("csv", "tsv", "parquet"):
            yield from (record.after for record in self.read())
            return
        with unpacked(self.path) as file:
            number = 0
            for line in lines_of(file):
                if line.content != b"":
                    number += 1
                    yield Position(number, line.number + 1, line.end)

    def _where(self, line: int) -> str:
        return f"{self.path}:{line}"

    def _yfcc(self, lines: Iterator[Line], number: int) -> Iterator[Record]:
        for line, content, end in lines:
            if content == b"":
                continue
            number += 1
            after, where = Position(number, line + 1, end), f"{self.path}:{line}"
            yield _long(where, after) if content is None else parse_line(content, self.layout, where=where, after=after)

    def _jsonl(self, lines: Iterator[Line], number: int) -> Iterator[Record]:
        for line, content, end in lines:
            if content == b"":
                continue
            number += 1
            after, where = Position(number, line + 1, end), self._where(line)
            if content is None:
                yield _long(where, after)
                continue
            try:
                value = json.loads(content)
                if isinstance(value, dict):
                    record = make_row(value, self.found, number=number - 1, where=where, after=after)
                else:
                    record = Bad(f"it is a JSON {type(value).__name__}, not an object", where, after)
            except ValueError as error:
                record = Bad(f"it is no JSON: {str(error)[:120]}", where, after)
            except RecursionError:
                record = Bad("its values are nested too deeply", where, after)
            yield record

    def _separated(self, lines: Iterator[Line], start: Position) -> Iterator[Record]:
        feed = _Feed(lines, start)
        reader = _csv_reader(feed, self.kind)
        number = start.number
        while True:
            first, feed.problem = feed.line, None
            try:
                values = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                values, feed.problem = [""], feed.problem or f"it cannot be split into columns: {error}"
            if not values:
                continue
            number += 1
            after, where = Position(number, feed.line, feed.byte), self._where(first)
            problem = feed.problem
            if problem is None and len(values) != len(self.names):
                problem = f"it has {len(values)} columns instead of {len(self.names)}"
            if problem is not None:
                lost = feed.line - first
                yield Bad(problem if lost < 2 else f"{problem}; {lost} lines are lost with it", where, after)
                continue
            row = dict(zip(self.names, values, strict=True))
            yield make_row(row, self.found, number=number - 1, where=where, after=after)

    def _parquet(self, start: Position) -> Iterator[Record]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        wanted = sorted({name for names in self.found.values() for name in names})
        try:
            with pq.ParquetFile(self.path) as file:
                groups, passed = _groups_from(file, start.number)
                number, skip = passed, start.number - passed
                for batch in file.iter_batches(_BATCH, row_groups=groups, columns=wanted) if groups else ():
                    columns = {name: batch.column(name) for name in wanted}
                    for at in range(batch.num_rows):
                        number += 1
                        if number - passed <= skip:
                            continue
                        row = {name: _cell(column[at]) for name, column in columns.items()}
                        after, where = Position(number, number, 0), self._where(number)
                        yield make_row(row, self.found, number=number - 1, where=where, after=after)
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            raise OpenIliasError(
                f"This file cannot be read to its end: {str(error).rstrip('.')}.",
                where=self.path,
                fix="Fetch it again.",
            ) from None


def open_table(path: Path, *, kind: Kind | None = None, columns: Columns | None = None) -> Table:
    """Find out how a table is written and which of its columns say what; only its beginning is read.

    Args:
        path: the file; text may be packed by gzip or bzip2.
        kind: how it is written; by default its ending tells, before ``.gz`` or ``.bz2``, and the published metadata
            of YFCC100M, whose files have no ending, are known by their columns.
        columns: of a table of URLs; by default usual names are looked for.

    Raises:
        OpenIliasError: it is none of these, or cannot be read.
    """
    if kind is None:
        endings = [ending.lower() for ending in path.suffixes if ending.lower() not in (".gz", ".bz2")]
        kind = _ENDINGS.get(endings[-1]) if endings else None
        if kind in (None, "tsv") and columns is None and _layout(path) is not None:
            kind = "yfcc"
    if kind is None:
        raise OpenIliasError(
            "This is no table that is known.",
            where=path,
            fix="Give the metadata of YFCC100M (23 or 25 columns) or a .csv, .tsv, .jsonl or .parquet file.",
        )
    columns = columns or Columns()
    if kind == "yfcc":
        layout = _layout(path)
        if layout is None:
            raise OpenIliasError(
                "These are not the metadata of YFCC100M: no line has their 23 or 25 columns.",
                where=path,
                fix="Give the kind of the table.",
            )
        return Table(path, "yfcc", layout=layout, first=Position(0, 1, 0))
    if kind == "parquet":
        return Table(path, "parquet", found=find_columns(_parquet_names(path), columns, where=str(path)))
    if kind == "jsonl":
        names = _json_names(path)
        return Table(path, "jsonl", found=find_columns(names, columns, where=str(path)), first=Position(0, 1, 0))
    names, first = _header(path, kind)
    return Table(path, kind, found=find_columns(names, columns, where=str(path)), names=tuple(names), first=first)


def _long(where: str, after: Position) -> Bad:
    return Bad(f"it is longer than {MOST_LINE} bytes", where, after)


def _layout(path: Path) -> Layout | None:
    with unpacked(path) as file:
        for line in islice(lines_of(file), _HEAD):
            layout = layout_of(line.content or b"")
            if layout is not None:
                return layout
    return None


class _Feed:
    """Lines as the CSV reader takes them; it knows where the next one begins and what was wrong with the last ones."""

    def __init__(self, lines: Iterator[Line], start: Position) -> None:
        self._lines = lines
        self.line, self.byte = start.line, start.byte
        self.problem: str | None = None

    def __iter__(self) -> _Feed:
        return self

    def __next__(self) -> str:
        found = next(self._lines)
        self.line, self.byte = found.number + 1, found.end
        if found.content is None:
            self.problem = f"a line is longer than {MOST_LINE} bytes"
            return "?\n"
        try:
            return found.content.decode("utf-8") + "\n"
        except UnicodeDecodeError:
            self.problem = "it is not UTF-8"
            return found.content.decode("utf-8", "replace") + "\n"


def _csv_reader(feed: Iterator[str], kind: Kind) -> Iterator[list[str]]:
    if kind == "tsv":
        # As registered (IANA text/tab-separated-values): no quotes, so a stray one takes no other lines with it.
        return csv.reader(feed, delimiter="\t", quoting=csv.QUOTE_NONE)
    return csv.reader(feed, strict=True)


def _header(path: Path, kind: Kind) -> tuple[list[str], Position]:
    with unpacked(path) as file:
        bom = 3 if file.read(3) == b"\xef\xbb\xbf" else 0
        file.seek(0)
        feed = _Feed(lines_of(file, start=bom), Position(0, 1, bom))
        try:
            names = next(_csv_reader(feed, kind), [])
        except csv.Error as error:
            raise OpenIliasError(f"The header of this table is damaged: {error}.", where=path) from None
        if feed.problem is not None or not names:
            what = feed.problem or "it has none"
            raise OpenIliasError(f"The header of this table is damaged: {what}.", where=path, fix="Repair it.")
        return [name.strip() for name in names], Position(0, feed.line, feed.byte)


def _json_names(path: Path) -> list[str]:
    """Return the names in the first lines of a JSONL file: objects need not have all of them."""
    names: dict[str, None] = {}
    with unpacked(path) as file:
        for line in islice(lines_of(file), _HEAD):
            try:
                value: Any = json.loads(line.content or b"")
            except (ValueError, RecursionError):
                continue
            if isinstance(value, dict):
                names |= dict.fromkeys(value)
    return list(names)


def _parquet_names(path: Path) -> list[str]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return [str(name) for name in pq.read_schema(path).names]
    except (pa.ArrowException, OSError) as error:
        raise OpenIliasError(f"This is no Parquet file: {str(error).rstrip('.')}.", where=path) from None


def _cell(scalar: Any) -> Any:
    """Return a value of Parquet; as text, or None, where Python has no such value: nanoseconds, years beyond 9999."""
    import pyarrow as pa

    try:
        return scalar.as_py()
    except (ValueError, OverflowError, pa.ArrowException):
        try:
            return scalar.cast(pa.string()).as_py()
        except (ValueError, OverflowError, pa.ArrowException):
            return None


def _groups_from(file: Any, number: int) -> tuple[list[int], int]:
    """Return the row groups in which records from a number on lie, and how many lie in those before."""
    passed, count = 0, int(file.metadata.num_row_groups)
    for group in range(count):
        rows = int(file.metadata.row_group(group).num_rows)
        if passed + rows > number:
            return list(range(group, count)), passed
        passed += rows
    return [], passed
