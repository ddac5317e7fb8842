"""The database: the shards of all stores in one order, whatever the order they are given in."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise

import numpy as np
import numpy.typing as npt

from openilias.core.errors import OpenIliasError
from openilias.core.ids import PARTITIONS, Partition
from openilias.core.shards import Share
from openilias.descriptors.store import DescriptorStore, Shard

ShardName = tuple[Partition, str, int]
"""Partition, source and rows of a shard."""


@dataclass(frozen=True)
class Database:
    """The shards of all database stores in canonical order: by partition, then by name of the source.

    Attributes:
        shards: in this order.
        partitions: of each shard.
    """

    shards: tuple[Shard, ...]
    partitions: tuple[Partition, ...]

    @cached_property
    def starts(self) -> tuple[int, ...]:
        """The canonical row of the first image of each shard, and how many images there are."""
        return tuple(accumulate((shard.rows for shard in self.shards), initial=0))

    @property
    def rows(self) -> int:
        """How many images there are."""
        return self.starts[-1]

    @property
    def names(self) -> tuple[ShardName, ...]:
        """What canonical rows of the database stand for."""
        return tuple((part, shard.source, shard.rows) for part, shard in zip(self.partitions, self.shards, strict=True))

    def ids_at(self, rows: npt.NDArray[np.int64]) -> list[str]:
        """Return the ids of ascending canonical rows; only shards that hold one are read."""
        found: list[str] = []
        for number, inside in self.divided(rows):
            found += self.shards[number].id_array().take(inside).to_pylist()
        return found

    def divided(self, rows: npt.NDArray[np.int64]) -> Iterator[tuple[int, npt.NDArray[np.int64]]]:
        """Yield the number of each shard that holds some of these ascending canonical rows, and its own rows."""
        edges = np.searchsorted(rows, self.starts)
        for number in range(len(self.shards)):
            inside = rows[edges[number] : edges[number + 1]]
            if len(inside):
                yield number, inside - self.starts[number]

    def part(self, share: Share) -> tuple[int, ...]:
        """Return the numbers of the shards of a share of the work."""
        return tuple(share.take(range(len(self.shards))))


def database_of(stores: list[DescriptorStore]) -> Database:
    """Put the shards of stores into canonical order, whatever the order of the stores.

    Raises:
        OpenIliasError: one shard is there twice.
    """
    keyed = [(PARTITIONS.index(store.partition), shard.source, shard) for store in stores for shard in store.shards]
    keyed.sort(key=lambda entry: entry[:2])
    for first, second in pairwise(keyed):
        if first[:2] == second[:2]:
            raise OpenIliasError(
                f"The shard {second[1]} is in two of the stores.",
                where=second[2].where,
                fix="Give each store once.",
            )
    return Database(tuple(entry[2] for entry in keyed), tuple(PARTITIONS[entry[0]] for entry in keyed))
