"""The tables of the images as they are published: rows of published images only, without what is private."""

from __future__ import annotations

import gzip
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from openilias.build.stored import SCHEMA, STORED
from openilias.core.errors import OpenIliasError

PRIVATE = ("where", "notes")
"""Columns that are emptied: where files lay at the maker's, and free words of the steps, which may say so too."""
UNKNOWN = "unknown"
ROWS_ENDING = ".parquet"
ATTRIBUTION_COLUMNS = ("id", "licence", "licence_url", "author", "page_url", "url")
_URLS = ("url", "licence_url", "page_url")
_PUBLIC_URL = r"^(\s*|https?://[^/?#@\s]+([/?#]\S*)?)$"
_CONTROL = r"[\x00-\x1f\x7f]+"
_FORMULA = r"^([=+\-@])"
_YEAR = re.compile(r"(19|20)[0-9]{2}")
_BATCH = 10_000
_SHOWN = 5


@dataclass(frozen=True)
class RowFacts:
    """What the rows of a shard, or of the core, say of its published images.

    Attributes:
        stored: id -> (SHA-256, bytes), of all stored images, published or not.
        statuses: status -> rows.
        licences: (licence, its URL) -> published images; :data:`UNKNOWN` without one.
        cameras: camera -> published images; empty where it is not known.
        years: year in which they were taken -> published images; empty where it is not known.
        bad_urls: a few of those that are no public web addresses, and in all how many there are.
        twice: ids that stand twice.
        reencoded: published images whose bytes are not those of the original.
    """

    stored: dict[str, tuple[str | None, int | None]] = field(default_factory=dict)
    statuses: dict[str, int] = field(default_factory=dict)
    licences: dict[tuple[str, str], int] = field(default_factory=dict)
    cameras: dict[str, int] = field(default_factory=dict)
    years: dict[str, int] = field(default_factory=dict)
    bad_urls: tuple[str, ...] = ()
    bad_url_count: int = 0
    twice: tuple[str, ...] = ()
    reencoded: int = 0


def batches_of(path: Path) -> Iterator[pa.RecordBatch]:
    """Yield a table in batches, with the columns of a set.

    Raises:
        OpenIliasError: it is no such table, or damaged.
    """
    try:
        with pq.ParquetFile(path) as file:
            lacking = [name for name in SCHEMA.names if name not in file.schema_arrow.names]
            if lacking:
                raise OpenIliasError(f"This table has no column {lacking[0]!r}.", where=path, fix="Make it again.")
            for batch in file.iter_batches(_BATCH, columns=SCHEMA.names):
                yield pa.RecordBatch.from_arrays([batch.column(n).cast(SCHEMA.field(n).type) for n in SCHEMA.names],
                                                 schema=pa.schema([(f.name, f.type) for f in SCHEMA]))  # fmt: skip
    except (pa.ArrowException, OSError) as error:
        raise OpenIliasError(f"This table cannot be read: {error}.", where=path, fix="Make it again.") from None


def facts_of_rows(path: Path, licence: str | None = None, only: frozenset[str] | None = None) -> RowFacts:
    """Read what a table says, streaming; ids and digests of its stored images are all that is held.

    Args:
        path: the table; a missing one says nothing.
        licence: of images whose rows state none.
        only: count only these images; by default all that are stored.

    Raises:
        OpenIliasError: it is damaged.
    """
    stored: dict[str, tuple[str | None, int | None]] = {}
    statuses: Counter[str] = Counter()
    licences: Counter[tuple[str, str]] = Counter()
    cameras: Counter[str] = Counter()
    years: Counter[str] = Counter()
    bad: list[str] = []
    twice: list[str] = []
    bad_count = reencoded = 0
    for batch in batches_of(path) if path.exists() else ():
        statuses.update(batch.column("status").to_pylist())
        here = batch.filter(pc.equal(batch.column("status"), STORED))
        ids, digests, sizes = (here.column(name).to_pylist() for name in ("id", "sha256", "bytes"))
        for item, digest, size in zip(ids, digests, sizes, strict=True):
            if item in stored:
                twice.append(item)
            stored[item] = (digest, size)
        if only is not None:
            here = here.filter(pc.is_in(here.column("id"), pa.array(sorted(only), pa.string())))
        names, urls = here.column("licence").to_pylist(), here.column("licence_url").to_pylist()
        licences.update(licence_of(name, url, licence) for name, url in zip(names, urls, strict=True))
        cameras.update(blank(name) or "" for name in here.column("camera").to_pylist())
        dates = pc.utf8_slice_codeunits(pc.fill_null(here.column("taken"), ""), 0, 4)
        years.update(year if _YEAR.fullmatch(year) else "" for year in dates.to_pylist())
        reencoded += pc.sum(pc.cast(here.column("reencoded"), pa.int64())).as_py() or 0
        for name in _URLS:
            column = here.column(name).drop_null()
            column = column.filter(pc.invert(pc.match_substring_regex(column, _PUBLIC_URL)))
            bad_count += len(column)
            bad += column.slice(0, _SHOWN).to_pylist()
    return RowFacts(stored, dict(statuses), dict(licences), dict(cameras), dict(years), tuple(bad[:_SHOWN]), bad_count,
                    tuple(twice), reencoded)  # fmt: skip


def licence_of(name: str | None, url: str | None, default: str | None) -> tuple[str, str]:
    """Return the licence of an image and its address: one that has an address is known by that."""
    known, address = blank(name), blank(url) or ""
    return known or address or default or UNKNOWN, address


def blank(text: str | None) -> str | None:
    """Return a text without blanks around it, None if nothing is left."""
    return (text.strip() or None) if text is not None else None


def write_public(
    source: Path,
    rows: Path,
    attribution: Path,
    *,
    licence: str | None,
    only: frozenset[str],
    lacking: list[dict[str, Any]],
    prefix: str,
) -> int:
    """Write the published rows of a table, and its part of the attribution; the same rows give the same bytes.

    Args:
        source: the table of the set; a missing one has no rows.
        rows: file to write.
        attribution: packed lines to write, without a header.
        licence: of images whose rows state none.
        only: the images that are published.
        lacking: rows of published images that the table does not have.
        prefix: put before the ids of the attribution, ``<shard>.tar/``.

    Returns:
        the number of rows.
    """
    count = 0
    with (
        pq.ParquetWriter(rows, SCHEMA, compression="zstd") as table,
        attribution.open("wb") as raw,
        gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0, compresslevel=6) as packed,
    ):
        for batch in _public(source, licence, only, lacking):
            table.write_batch(batch)
            packed.write(_lines(batch, prefix))
            count += batch.num_rows
    return count


def _public(
    source: Path, licence: str | None, only: frozenset[str], lacking: list[dict[str, Any]]
) -> Iterator[pa.RecordBatch]:
    wanted = pa.array(sorted(only), pa.string())
    for batch in batches_of(source) if source.exists() else ():
        here = batch.filter(pc.equal(batch.column("status"), STORED))
        here = here.filter(pc.is_in(here.column("id"), wanted))
        if here.num_rows:
            yield _cleaned(here, licence)
    for start in range(0, len(lacking), _BATCH):
        yield _cleaned(pa.RecordBatch.from_pylist(lacking[start : start + _BATCH], schema=SCHEMA), licence)


def _cleaned(batch: pa.RecordBatch, licence: str | None) -> pa.RecordBatch:
    columns = {name: batch.column(name) for name in SCHEMA.names}
    for name in PRIVATE:
        columns[name] = pa.nulls(batch.num_rows, pa.string())
    if licence is not None:
        stated = [pc.utf8_trim_whitespace(columns[name]) for name in ("licence", "licence_url")]
        nothing = pc.and_(*(pc.fill_null(pc.equal(one, ""), fill_value=True) for one in stated))
        columns["licence"] = pc.if_else(nothing, pa.scalar(licence), columns["licence"])
    return pa.RecordBatch.from_arrays([columns[name] for name in SCHEMA.names], schema=SCHEMA)


def _lines(batch: pa.RecordBatch, prefix: str) -> bytes:
    """Return rows as lines of CSV; what a spreadsheet would compute gets an apostrophe, and lines stay lines."""
    columns = {}
    ids = pc.binary_join_element_wise(prefix, batch.column("id"), "")
    for name in ATTRIBUTION_COLUMNS:
        column = ids if name == "id" else pc.fill_null(batch.column(name), "")
        column = pc.replace_substring_regex(column, pattern=_CONTROL, replacement=" ")
        columns[name] = pc.replace_substring_regex(column, pattern=_FORMULA, replacement=r"'\1")
    sink = pa.BufferOutputStream()
    pacsv.write_csv(pa.table(columns), sink, pacsv.WriteOptions(include_header=False, quoting_style="needed"))
    return sink.getvalue().to_pybytes()  # type: ignore[no-any-return] # pyarrow has no types


def attribution_header() -> bytes:
    """Return the first packed line of the attribution; what follows it is unpacked as one with it."""
    return gzip.compress((",".join(ATTRIBUTION_COLUMNS) + "\n").encode(), mtime=0)
