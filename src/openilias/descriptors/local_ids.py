"""The ids of the images of a shard of local descriptors, with their heights and widths: ``NNNNN.ids.parquet``."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from openilias.core.errors import OpenIliasError
from openilias.descriptors.local_reading import AGAIN

Integers = npt.NDArray[np.int64]


def read_images(path: Path, count: int, *columns: str) -> Any:
    """Return some columns of the file as a pyarrow.Table.

    Raises:
        OpenIliasError: the file is missing or damaged, or has not ``count`` rows.
    """
    with _opened(path) as file:
        return _read(file, path, count, columns)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with pq.ParquetFile(path) as file:
            yield file
    except (OSError, KeyError, pa.ArrowException) as error:
        raise OpenIliasError(f"These ids cannot be read: {error}.", where=path, fix=AGAIN) from None


def _read(file: Any, path: Path, count: int, columns: Sequence[str]) -> Any:
    missing = [name for name in columns if name not in file.schema_arrow.names]
    if missing or file.metadata.num_rows != count:
        found = f"{file.metadata.num_rows} of {', '.join(file.schema_arrow.names)}"
        raise OpenIliasError(f"Expected {count} ids, found {found}.", where=path, fix=AGAIN)
    return file.read(columns=list(columns), use_threads=False)  # of a small file threads cost more than they save


def sizes_of(table: Any) -> Integers:
    """Return (n, 2) height and width of a table that has both."""
    return np.stack([table[name].to_numpy() for name in ("height", "width")], axis=1).astype(np.int64)


def locate(path: Path, count: int, ids: Sequence[str]) -> tuple[Integers, Integers, Integers]:
    """Return which of some ids a file has, their places in it, and (n, 2) height and width.

    The ids are read only if the statistics of the file leave it open whether any of these is there.

    Args:
        path: of the file.
        count: of its rows.
        ids: sorted, and all different.

    Raises:
        OpenIliasError: the file is missing or damaged.
    """
    with _opened(path) as file:
        low, high = _between(file)
        start = 0 if low is None else bisect_left(ids, low)
        end = len(ids) if high is None else bisect_right(ids, high)
        if start >= end:
            return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros((0, 2), np.int64)
        table = _read(file, path, count, ("id", "height", "width"))
    wanted = pa.array(ids[start:end], pa.string())
    known = table["id"].combine_chunks()
    if len(wanted) < len(known):  # a table is made of the shorter side; the longer one is looked up
        found = pc.index_in(known, value_set=wanted)
        which, first = np.unique(found.drop_null().to_numpy(), return_index=True)
        places = np.flatnonzero(found.is_valid().to_numpy(zero_copy_only=False))[first]
    else:
        found = pc.index_in(wanted, value_set=known)
        which = np.flatnonzero(found.is_valid().to_numpy(zero_copy_only=False))
        places = found.drop_null().to_numpy().astype(np.int64)
    return which.astype(np.int64) + start, places, sizes_of(table.take(pa.array(places)))


def _between(file: Any) -> tuple[str | None, str | None]:
    """Return the least and the largest id, None where the file does not say."""
    low: str | None = None
    high: str | None = None
    for number in range(file.metadata.num_row_groups):
        part = file.metadata.row_group(number).column(0)
        told = part.statistics
        if part.path_in_schema != "id" or told is None or not told.has_min_max:
            return None, None
        low = told.min if low is None else min(low, told.min)
        high = told.max if high is None else max(high, told.max)
    return low, high
