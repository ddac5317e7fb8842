"""The table of the images of a set: one row per image that was asked for, whether it is stored or why it is not.

``ROOT/rows/<shard>.parquet`` beside the shard ``<shard>.tar`` of distractors, ``ROOT/rows/core.parquet`` of queries and
positives. It goes where the images go: licences, authors and digests of what is published stand in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from openilias.core.errors import OpenIliasError
from openilias.core.files import atomic_path

ROWS = "rows"  # the folder of a set that holds its tables
CORE_ROWS = "core.parquet"
STORED = "stored"  # the status of an image that is there
_BATCH = 10_000

SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("status", pa.string(), nullable=False),
        pa.field("url", pa.string()),
        pa.field("licence", pa.string()),
        pa.field("licence_url", pa.string()),
        pa.field("author", pa.string()),
        pa.field("page_url", pa.string()),
        pa.field("camera", pa.string()),
        pa.field("taken", pa.string()),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("original_width", pa.int32()),
        pa.field("original_height", pa.int32()),
        pa.field("format", pa.string()),
        pa.field("bytes", pa.int64()),
        pa.field("sha256", pa.string()),
        pa.field("hash", pa.uint64()),
        pa.field("reencoded", pa.bool_()),
        pa.field("notes", pa.string()),
        pa.field("where", pa.string()),
    ]
)


@dataclass(frozen=True)
class StoredImage:
    """What is known of an image of a set. Everything but id and status is None where it is not known.

    Attributes:
        id: of a distractor its key in the shard, of an image of the core its id, ``<object>/query/Qxxx_yy.jpg``.
        status: :data:`STORED`, or in a word why it is not there.
        url: where the stored bytes came from, or the last that was tried; of a collector's file None.
        licence: its name.
        licence_url: its text.
        author: whom to name.
        page_url: where it was published.
        camera: model, of its EXIF or else of the table.
        taken: when, in the words of its EXIF or else of the table.
        width: of the stored picture, in pixels.
        height: of the stored picture, in pixels.
        original_width: of the upright original, in pixels.
        original_height: of the upright original, in pixels.
        format: of the original, by its content.
        bytes: of the stored file.
        sha256: of the stored file, hexadecimal.
        hash: perceptual, 64 bits (:mod:`openilias.build.perceptual`).
        reencoded: whether the stored file differs from the original.
        notes: what was wrong and did not stop it, or the words that belong to the status.
        where: it was named: file and line of a table, or the collector's file.
    """

    id: str
    status: str
    url: str | None = None
    licence: str | None = None
    licence_url: str | None = None
    author: str | None = None
    page_url: str | None = None
    camera: str | None = None
    taken: str | None = None
    width: int | None = None
    height: int | None = None
    original_width: int | None = None
    original_height: int | None = None
    format: str | None = None
    bytes: int | None = None
    sha256: str | None = None
    hash: int | None = None
    reencoded: bool | None = None
    notes: str | None = None
    where: str | None = None


_COLUMNS = tuple(field.name for field in fields(StoredImage))


def rows_file(root: Path, shard: str) -> Path:
    """Return the table of a shard of a set, ``yfcc100m_0000`` or ``core``."""
    return root / ROWS / f"{shard}.parquet"


def write_rows(path: Path, rows: Iterable[StoredImage]) -> int:
    """Write a table in the order given, a batch at a time, all or nothing; return how many rows it has.

    The same rows give the same bytes.
    """
    count = 0
    with atomic_path(path) as temporary, pq.ParquetWriter(temporary, SCHEMA, compression="zstd") as writer:
        batch: list[StoredImage] = []
        for row in rows:
            batch.append(row)
            if len(batch) == _BATCH:
                count += _write(writer, batch)
        count += _write(writer, batch)
    return count


def _write(writer: pq.ParquetWriter, batch: list[StoredImage]) -> int:
    written = len(batch)
    if batch:
        writer.write_table(pa.Table.from_pylist([asdict(row) for row in batch], schema=SCHEMA))
        batch.clear()
    return written


def read_rows(path: Path) -> Iterator[StoredImage]:
    """Yield the rows of a table, a batch at a time.

    Raises:
        OpenIliasError: it is no such table, or is damaged.
    """
    try:
        with pq.ParquetFile(path) as file:
            lacking = [name for name in _COLUMNS if name not in file.schema_arrow.names]
            if lacking:
                raise OpenIliasError(f"This table has no column {lacking[0]!r}.", where=path, fix="Make it again.")
            for batch in file.iter_batches(_BATCH, columns=list(_COLUMNS)):
                yield from (StoredImage(**row) for row in batch.to_pylist())
    except (pa.ArrowException, OSError) as error:
        raise OpenIliasError(f"This table cannot be read: {error}.", where=path, fix="Make it again.") from None


def tables_of(root: Path) -> list[Path]:
    """Return the tables of the images of a set, the core's and the shards', by name."""
    return sorted((root / ROWS).glob("*.parquet"))
