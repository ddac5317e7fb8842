"""Pictures that look alike by their perceptual hashes: among some thousand of the core, and in tables of any length."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from openilias.build.stored import STORED, tables_of
from openilias.core.errors import OpenIliasError
from openilias.core.executors import ordered_map
from openilias.core.files import read_json, state_of_file, write_json
from openilias.core.fingerprints import fingerprint
from openilias.core.progress import progress

Hashes = npt.NDArray[np.uint64]
ALGORITHM_VERSION = 1
MOST = 100_000
"""More pairs of one table are refused: nobody looks at them."""
_ROWS = 1 << 18  # of a table at a time
_WIDE, _TALL = 4096, 16  # of a block of pairs: it stays in the cache of a core
_CUTS = ((0, 21), (21, 21), (42, 22))  # first bit and bits of the three parts of a hash


class Near(NamedTuple):
    """A pair: the row of the first, the row of the second, and in how many bits they differ."""

    first: int
    second: int
    distance: int


def near_pairs(core: Hashes, others: Hashes, most: int) -> Iterator[Near]:
    """Yield all pairs of hashes that differ in at most so many bits, by the second and then the first.

    Hashes that differ in at most 5 bits are equal but for one in at least one of three parts: most of ``others`` are
    out after three looks into tables. Larger distances compare every pair.

    Args:
        core: (N,) hashes.
        others: (M,) hashes.
        most: bits.
    """
    rows = np.arange(len(others)) if most // len(_CUTS) > 1 else _possible(core, others, most // len(_CUTS))
    kept = others[rows]
    found: list[tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], npt.NDArray[np.uint8]]] = []
    for start in range(0, len(kept), _WIDE):
        wide = kept[None, start : start + _WIDE]
        for top in range(0, len(core), _TALL):
            bits = np.bitwise_count(core[top : top + _TALL, None] ^ wide)
            if bits.min() <= most:
                first, second = np.nonzero(bits <= most)
                found.append((first + top, rows[second + start], bits[first, second]))
    if found:
        first, second, bits = (np.concatenate(part) for part in zip(*found, strict=True))
        order = np.lexsort((first, second))
        yield from map(Near, first[order].tolist(), second[order].tolist(), bits[order].tolist())


def _possible(core: Hashes, others: Hashes, radius: int) -> npt.NDArray[np.intp]:
    """Return the rows of ``others`` that have a part within 0 or 1 bits of that of a core hash."""
    possible = np.zeros(len(others), bool)
    for first, size in _CUTS:
        mask = np.uint64(2**size - 1)
        parts = (core >> np.uint64(first)) & mask
        table = np.zeros(2**size, bool)
        table[parts] = True
        for bit in range(size if radius else 0):
            table[parts ^ np.uint64(1 << bit)] = True
        possible |= table[(others >> np.uint64(first)) & mask]
    return np.flatnonzero(possible)


def near_among(core: Hashes, most: int) -> Iterator[Near]:
    """Yield all pairs of a set of hashes, each once with the smaller row first."""
    return (pair for pair in near_pairs(core, core, most) if pair.first < pair.second)


@dataclass(frozen=True)
class _Job:
    table: Path
    core: Hashes
    most: int


def near_in_table(job: _Job) -> list[tuple[int, str, int]]:
    """Return the pairs of a table of the set: row of the core, id of the distractor, bits.

    Raises:
        OpenIliasError: it cannot be read, or there are too many pairs.
    """
    found: list[tuple[int, str, int]] = []
    try:
        with pq.ParquetFile(job.table) as file:
            for batch in file.iter_batches(_ROWS, columns=["id", "status", "hash"]):
                here = batch.column("hash").is_valid().to_numpy(zero_copy_only=False)
                here &= np.array(batch.column("status").to_pylist(), object) == STORED
                rows = np.flatnonzero(here)
                hashes = batch.column("hash").fill_null(0).to_numpy(zero_copy_only=False)[rows]
                for pair in near_pairs(job.core, hashes.astype(np.uint64), job.most):
                    found.append((pair.first, batch.column("id")[int(rows[pair.second])].as_py(), pair.distance))
                if len(found) > MOST:
                    what = f"More than {MOST:,} distractors of this table look like an image of the core."
                    raise OpenIliasError(what, where=job.table, fix="Give a smaller --distractor-distance.")
    except (pa.ArrowException, OSError, KeyError) as error:
        raise OpenIliasError(f"This table cannot be read: {error}.", where=job.table, fix="Make it again.") from None
    return found


def near_distractors(
    root: Path, core: Hashes, most: int, *, kept: Path, workers: int
) -> Iterator[tuple[int, str, int]]:
    """Yield the distractors of a set that look like an image of the core: row of the core, id, bits.

    Args:
        root: the set, whose ``rows/<shard>.parquet`` are streamed; the core's is left out.
        core: (N,) hashes.
        most: bits.
        kept: folder that holds what was found in each table, so that an unchanged one is compared once.
        workers: processes, a table each.

    Raises:
        OpenIliasError: a table cannot be read, or has too many pairs.
    """
    tables = [path for path in tables_of(root) if path.stem != "core"]
    base = fingerprint([ALGORITHM_VERSION, most, core.tolist()])
    keys = {path: [base, *state_of_file(path)[:2]] for path in tables}
    known = {path: _known(kept / f"{path.stem}.json", keys[path]) for path in tables}
    left = [path for path in tables if known[path] is None]
    with ordered_map(workers) as run, progress("compare", total=len(left), unit="tables") as step:
        fresh = run(near_in_table, (_Job(path, core, most) for path in left))
        for path in tables:
            pairs = known[path]
            if pairs is None:
                pairs = [list(pair) for pair in next(fresh)]
                kept.mkdir(parents=True, exist_ok=True)
                write_json(kept / f"{path.stem}.json", {"of": keys[path], "pairs": pairs})
                step()
            for first, key, distance in pairs:
                yield first, f"{path.stem}.tar/{key}", distance


def _known(path: Path, key: list[Any]) -> list[list[Any]] | None:
    if not path.exists():
        return None
    try:
        value = read_json(path)
    except OpenIliasError:
        return None  # it is found again
    return value["pairs"] if isinstance(value, dict) and value.get("of") == key else None
