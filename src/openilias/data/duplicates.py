"""The same picture twice: found from the digests of all shards, a slice of the digests at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from openilias.data.examine import DIGEST

By = Literal["bytes", "pixels"]
_ROWS_AT_ONCE = 2_000_000


@dataclass(frozen=True)
class Duplicates:
    """Places of one picture: (shard number, row) each, in ascending order."""

    by: By
    places: tuple[tuple[int, int], ...]


def sorted_digests(digests: npt.NDArray[np.void], by: By) -> npt.NDArray[np.void]:
    """Sort digests by those of the files or of the pixels; unread pixels are left out."""
    if by == "pixels":
        digests = digests[(digests["pixels"] != 0).any(1)]
    key = digests[by]
    order: npt.NDArray[np.intp] = np.lexsort((digests["row"], key[:, 1], key[:, 0]))
    return digests[order]


def find_duplicates(files: Sequence[Path], by: By) -> Iterator[Duplicates]:
    """Yield each picture that stands at several places.

    Pictures of equal bytes have equal pixels: ``pixels`` yields only those whose files are not all the same.

    Args:
        files: one a shard, each a saved array of :func:`sorted_digests`.
        by: what to compare.
    """
    sizes = [len(_open(path)) for path in files]
    slices = max(1, -(-sum(sizes) // _ROWS_AT_ONCE))
    # Digests are spread evenly: equal parts of the range of their first 64 bits hold about as many rows each.
    edges = np.array([2**64 * number // slices for number in range(slices)], np.uint64)
    starts = [np.searchsorted(_open(path)[by][:, 0], edges) for path in files]
    for number in range(slices):
        last = number + 1 == slices
        yield from _among(
            [
                np.array(_open(path)[start[number] : None if last else start[number + 1]])
                for path, start in zip(files, starts, strict=True)
            ],
            by,
        )


def _open(path: Path) -> npt.NDArray[np.void]:
    # Opened anew for each slice: a thousand files are more than a process may hold open.
    array: npt.NDArray[np.void] = np.load(path, mmap_mode="r", allow_pickle=False)
    return array


def _among(parts: list[npt.NDArray[np.void]], by: By) -> Iterator[Duplicates]:
    rows = np.concatenate(parts) if parts else np.zeros(0, DIGEST)
    shard = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    if len(rows) < 2:
        return
    key = rows[by]
    order = np.lexsort((rows["row"], shard, key[:, 1], key[:, 0]))
    rows, shard, key = rows[order], shard[order], key[order]
    same = (key[1:] == key[:-1]).all(1)
    # Runs of equal digests: where one begins and how long it is.
    starts = np.flatnonzero(same & ~np.concatenate([[False], same[:-1]]))
    ends = np.flatnonzero(same & ~np.concatenate([same[1:], [False]])) + 2
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        run = rows[start:end]
        if by == "pixels" and (run["bytes"] == run["bytes"][0]).all():
            continue
        yield Duplicates(by, tuple(zip(shard[start:end].tolist(), run["row"].tolist(), strict=True)))
