"""Comparing two stores, or official HDF5 features, id by id."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from openilias.core.errors import OpenIliasError
from openilias.core.progress import progress
from openilias.descriptors.official import check_ids
from openilias.descriptors.store import DescriptorStore, Floats, Shard, StoreShard, told_if_full

QUANTILES = (0.001, 0.01, 0.5)
_BLOCK_ROWS = 8192
_LISTED = 20

Cosines = npt.NDArray[np.float64]
Rows = npt.NDArray[np.integer]
Sink = Callable[[Any, Cosines], None]


@dataclass(frozen=True)
class Pair:
    """An id and the cosine of its two descriptors."""

    id: str
    cosine: float


@dataclass(frozen=True)
class Comparison:
    """What two stores have in common.

    Attributes:
        rows: how many ids are in both.
        only_a: how many ids are only in the first; ``some_a`` are the first of them.
        only_b: how many are only in the second; ``some_b`` are the first of them.
        mean: of the cosines.
        quantiles: cosines at :data:`QUANTILES`.
        equal: share of the ids whose descriptors are equal in every value.
        largest_difference: of two values of one id.
        worst: the lowest cosines, then by id; the first is the minimum.
        cosines: (rows,) float32, in the order of the first store.
    """

    rows: int
    only_a: int
    only_b: int
    some_a: tuple[str, ...]
    some_b: tuple[str, ...]
    mean: float
    quantiles: tuple[float, ...]
    equal: float
    largest_difference: float
    worst: tuple[Pair, ...]
    cosines: npt.NDArray[np.float32]

    @property
    def minimum(self) -> float:
        """The lowest cosine."""
        return self.worst[0].cosine


def compare_stores(a: DescriptorStore, b: DescriptorStore, *, worst: int = 20, sink: Sink | None = None) -> Comparison:
    """Compare the descriptors of each id.

    The shards of ``a`` are read once, in order, in blocks; each is joined by id with those shards of ``b`` that have a
    tar or object of it. Memory: 8 bytes for each row of the larger store while duplicates are looked for, then 5 for
    each row of both, the ids of two shards, and a block. Official files of ``b`` that are not in the order of ``a`` are
    unpacked to the temporary folder, those at a time that one shard of ``a`` needs: there must be room for them.

    Args:
        a: the first store.
        b: the second; any order of ids.
        worst: how many of the lowest cosines to keep.
        sink: given the ids (pyarrow strings) and the cosines (n,) float64 of each block.

    Raises:
        OpenIliasError: other dimensions, no id in common, an id twice, a descriptor that is zero or not finite, or a
            damaged store.
    """
    if a.dims != b.dims:
        raise OpenIliasError(
            f"{a.folder} has {a.dims} dimensions, {b.folder} has {b.dims}.",
            fix="Compare descriptors of one model.",
        )
    heads = [set(counts) for counts in check_ids(b.shards)]
    totals = _Totals(min(a.rows, b.rows), max(worst, 1))
    seen = [np.zeros(shard.rows, bool) for shard in b.shards]
    only_a, some_a = 0, list[str]()
    with TemporaryDirectory(prefix="openilias-") as folder, progress("compare", total=a.rows, unit="rows") as step:
        others = _Others(b.shards, Path(folder))
        for shard, own in zip(a.shards, check_ids(a.shards), strict=True):
            shard.verify()
            ids = shard.id_array().combine_chunks()
            lone = np.ones(shard.rows, bool)
            related = [number for number, there in enumerate(heads) if not there.isdisjoint(own)]
            for match in others.matches(shard, ids, related):
                lone[match.rows] = False
                seen[match.number][match.places] = True
                names = ids.take(pa.array(match.rows))
                new = totals.add(names, match.left, match.right)
                if sink is not None:
                    sink(names, new)
                step(len(new))
            only_a += int(lone.sum())
            some_a += ids.filter(pa.array(lone)).slice(0, _LISTED - len(some_a)).to_pylist()
    if not totals.rows:
        raise OpenIliasError(f"{a.folder} and {b.folder} have no id in common.", fix="Compare stores of one partition.")
    some_b: list[str] = []
    for shard, mask in zip(b.shards, seen, strict=True):
        if len(some_b) < _LISTED and not mask.all():
            lacking = np.flatnonzero(~mask)[: _LISTED - len(some_b)]
            some_b += shard.id_array().take(pa.array(lacking)).to_pylist()
    cosines = totals.cosines[: totals.rows]
    return Comparison(
        rows=totals.rows,
        only_a=only_a,
        only_b=b.rows - totals.rows,
        some_a=tuple(some_a),
        some_b=tuple(some_b),
        mean=totals.sum / totals.rows,
        quantiles=tuple(np.quantile(cosines, QUANTILES).tolist()),
        equal=totals.equal / totals.rows,
        largest_difference=totals.difference,
        worst=tuple(totals.worst),
        cosines=cosines,
    )


@dataclass(frozen=True)
class _Match:
    """Ids that are in both: their rows in the first shard, and shard, rows and descriptors in the second store."""

    number: int
    rows: Rows
    places: Rows
    left: Floats
    right: Floats


class _Others:
    """The shards of the second store: their ids, and their rows as arrays on disk."""

    def __init__(self, shards: Sequence[Shard], folder: Path) -> None:
        self._shards = shards
        self._folder = folder
        self._last: tuple[int, Any] = (-1, None)
        self._arrays: dict[int, Floats] = {}
        self._verified: set[int] = set()

    def matches(self, shard: Shard, ids: Any, numbers: Sequence[int]) -> Iterator[_Match]:
        """Yield what is in both, by rising row of ``shard``, from those of the shards that have these numbers."""
        home, place = np.full(shard.rows, -1), np.zeros(shard.rows, np.int64)
        for number in numbers:
            theirs = self._ids(number)
            if ids.equals(theirs):
                yield from self._in_step(shard, number)
                return
            found = pc.fill_null(pc.index_in(ids, value_set=theirs), -1).to_numpy(zero_copy_only=False)
            rows = np.flatnonzero(found >= 0)
            home[rows], place[rows] = number, found[rows]
        needed = set(np.unique(home).tolist()) - {-1}
        for number in self._arrays.keys() - needed:
            del self._arrays[number]
            (self._folder / str(number)).unlink(missing_ok=True)
        start = 0
        for block in _even(shard) if needed else ():
            homes = home[start : start + len(block)]
            for number in np.unique(homes[homes >= 0]).tolist():
                rows = np.flatnonzero(homes == number)
                places = place[start + rows]
                yield _Match(number, start + rows, places, block[rows], self._array(number)[places])
            start += len(block)

    def _in_step(self, shard: Shard, number: int) -> Iterator[_Match]:
        """Read two shards of the same ids in the same order side by side."""
        start = 0
        for left, right in zip(_even(shard), _even(self._shards[number]), strict=True):
            rows = np.arange(start, start + len(left))
            yield _Match(number, rows, rows, left, right)
            start += len(left)

    def _ids(self, number: int) -> Any:
        if number not in self._verified:
            self._shards[number].verify()
            self._verified.add(number)
        if self._last[0] != number:
            self._last = (number, self._shards[number].id_array().combine_chunks())
        return self._last[1]

    def _array(self, number: int) -> Floats:
        if number not in self._arrays:
            self._arrays[number] = self._on_disk(number)
        return self._arrays[number]

    def _on_disk(self, number: int) -> Floats:
        shard, path = self._shards[number], self._folder / str(number)
        if isinstance(shard, StoreShard):
            return shard.descriptors()
        with told_if_full(path), path.open("wb") as handle:
            for block in shard.blocks():
                handle.write(block.data)
        return np.memmap(path, shard.dtype, "r").reshape(shard.rows, -1)


def _even(shard: Shard) -> Iterator[Floats]:
    """Yield blocks of equal length, but for the last."""
    held: Floats | None = None
    for block in shard.blocks(_BLOCK_ROWS):
        held = block if held is None else np.concatenate([held, block])
        while len(held) >= _BLOCK_ROWS:
            yield held[:_BLOCK_ROWS]
            held = held[_BLOCK_ROWS:]
    if held is not None and len(held):
        yield held


class _Totals:
    """What is known of the cosines so far."""

    def __init__(self, most: int, worst: int) -> None:
        self.cosines = np.empty(most, np.float32)
        self.rows = self.equal = 0
        self.sum = self.difference = 0.0
        self.worst: list[Pair] = []
        self._most = worst

    def add(self, names: Any, left: Floats, right: Floats) -> Cosines:
        """Count a block; return its cosines, exactly 1 where descriptors are equal."""
        a, b = left.astype(np.float64), right.astype(np.float64)
        norms = np.sqrt(np.einsum("ij,ij->i", a, a)) * np.sqrt(np.einsum("ij,ij->i", b, b))
        with np.errstate(invalid="ignore", divide="ignore"):
            cosines: Cosines = np.clip(np.einsum("ij,ij->i", a, b) / norms, -1, 1)
        bad = np.flatnonzero(~np.isfinite(cosines))
        if len(bad):
            raise OpenIliasError(
                f"A descriptor of {names[int(bad[0])].as_py()} is zero or not finite.", fix="Make the store again."
            )
        differences = np.abs(a - b).max(axis=1)
        same = differences == 0
        cosines[same] = 1
        self.cosines[self.rows : self.rows + len(cosines)] = cosines
        self.rows += len(cosines)
        self.equal += int(same.sum())
        self.sum += float(cosines.sum())
        self.difference = max(self.difference, float(differences.max()))
        self._keep_worst(names, cosines)
        return cosines

    def _keep_worst(self, names: Any, cosines: Cosines) -> None:
        limit = self.worst[-1].cosine if len(self.worst) == self._most else np.inf
        if len(cosines) > self._most:
            limit = min(limit, float(np.partition(cosines, self._most - 1)[self._most - 1]))
        low = np.flatnonzero(cosines <= limit)
        new = map(Pair, names.take(pa.array(low)).to_pylist(), cosines[low].tolist())
        self.worst = sorted([*self.worst, *new], key=lambda pair: (pair.cosine, pair.id))[: self._most]
