"""Searching descriptor stores: what belongs together, in which order, and the ranking that comes out."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from openilias.core.errors import OpenIliasError
from openilias.core.fingerprints import fingerprint_lines
from openilias.core.ids import DATABASE_PARTITIONS, PARTITIONS
from openilias.core.manifests import claim, replacing
from openilias.core.progress import progress
from openilias.descriptors.official import check_ids
from openilias.descriptors.store import DescriptorStore, Shard
from openilias.search.exact import topk
from openilias.search.origin import common_origin
from openilias.search.ranking import KIND, MANIFEST, TABLE, Ranking, read_ranking, write_ranking

ALGORITHM_VERSION = 1


@dataclass(frozen=True)
class Database:
    """The shards of all database stores in canonical order: by partition, then by name of the source."""

    shards: tuple[Shard, ...]

    @property
    def rows(self) -> int:
        """How many images there are."""
        return sum(shard.rows for shard in self.shards)

    def ids_at(self, rows: npt.NDArray[np.int64]) -> list[str]:
        """Return the ids of ascending canonical rows; only shards that hold one are read."""
        found: list[str] = []
        start = 0
        for shard in self.shards:
            inside = rows[np.searchsorted(rows, start) : np.searchsorted(rows, start + shard.rows)] - start
            if len(inside):
                found += shard.id_array().take(inside).to_pylist()
            start += shard.rows
        return found


def database_of(stores: list[DescriptorStore]) -> Database:
    """Put the shards of stores into canonical order, whatever the order of the stores.

    Raises:
        OpenIliasError: one shard is there twice.
    """
    keyed = [((PARTITIONS.index(store.partition), shard.source), shard) for store in stores for shard in store.shards]
    keyed.sort(key=lambda pair: pair[0])
    for (first, _), (second, shard) in pairwise(keyed):
        if first == second:
            raise OpenIliasError(
                f"The shard {shard.source} is in two of the stores.",
                where=shard.where,
                fix="Give each store once.",
            )
    return Database(tuple(shard for _, shard in keyed))


def search(queries: list[DescriptorStore], database: list[DescriptorStore], k: int) -> Ranking:
    """Search query stores in database stores, exactly.

    Args:
        queries: stores of queries; their ids must differ.
        database: stores of database images.
        k: how many images per query; all, if there are fewer.

    Raises:
        OpenIliasError: the stores were not made by the same model, weights, protocol and benchmark, hold the wrong
            partitions, or are damaged. Of official files only the dimensions are known and compared.
    """
    common_origin(queries, database)
    _check_partitions(queries, database)
    base = database_of(database)
    query_shards = [shard for store in queries for shard in store.shards]
    for shard in query_shards:
        shard.verify()
    if not any(shard.rows for shard in query_shards):
        raise OpenIliasError("None of the queries could be described.", where=queries[0].folder, fix="See its markers.")
    asked = np.concatenate([block for shard in query_shards for block in shard.blocks()])
    query_ids = [item for shard in query_shards for item in shard.ids()]
    with progress("search", total=base.rows, unit="descriptors") as step:

        def blocks() -> Iterator[npt.NDArray[np.floating]]:
            for shard in base.shards:
                shard.verify()
                for block in shard.blocks():
                    yield block
                    step(len(block))

        rows, scores = topk(asked, blocks(), k)
    occurring, places = np.unique(rows, return_inverse=True)
    return Ranking(tuple(query_ids), tuple(base.ids_at(occurring)), places.reshape(rows.shape).astype(np.int64), scores)


def _check_partitions(queries: list[DescriptorStore], database: list[DescriptorStore]) -> None:
    for store in queries:
        if store.partition in DATABASE_PARTITIONS:
            raise OpenIliasError(
                f"This store holds {store.partition}, not queries.", where=store.folder, fix="Give it as --database."
            )
    for store in database:
        if store.partition not in DATABASE_PARTITIONS:
            raise OpenIliasError(
                f"This store holds {store.partition}, which are not searched.",
                where=store.folder,
                fix="Give it as --queries.",
            )


def search_to(
    queries: list[DescriptorStore],
    database: list[DescriptorStore],
    k: int,
    out: Path,
    *,
    overwrite: bool = False,
) -> Ranking:
    """Search and write the ranking folder; does nothing if it was made from the same stores.

    Raises:
        OpenIliasError: as :func:`search`, or ``out`` is in the way.
    """
    origin = common_origin(queries, database)
    made_from = {
        "algorithm_version": ALGORITHM_VERSION,
        "benchmark": origin.get("benchmark"),
        "origin": origin,
        "queries": sorted(_state(store) for store in queries),
        "database": sorted(_state(store) for store in database),
        "k": k,
    }
    state = claim(out, MANIFEST, kind=KIND, made_from=made_from, overwrite=overwrite, ours=re.escape(TABLE))
    if state == "same":
        try:
            return read_ranking(out)[0]
        except OpenIliasError:
            if not overwrite:
                raise
    searched = {} if "benchmark" in origin else {"searched": _searched(database)}
    ranking = search(queries, database, k)
    with replacing(out, state):
        write_ranking(
            ranking,
            out,
            made_from=made_from,
            dims=queries[0].manifest.get("dims"),
            weights_from=queries[0].manifest.get("weights_from", ""),
            sources=[shard.source for shard in database_of(database).shards],
            database_size=sum(store.rows for store in database),
            skipped=[{"id": item.id, "reason": item.reason} for store in queries + database for item in store.skipped],
            **searched,
        )
    return ranking


def _searched(stores: list[DescriptorStore]) -> dict[str, int]:
    """Count the ids of each tar, of ``distractors`` in a folder, and of ``positives``: they tell what was searched.

    Raises:
        OpenIliasError: an id stands twice.
    """
    shards = database_of(stores).shards
    counts: Counter[str] = Counter()
    positives = {shard.where for store in stores if store.partition == "positives" for shard in store.shards}
    for shard, heads in zip(shards, check_ids(shards), strict=True):
        counts.update({"positives": heads.total()} if shard.where in positives else heads)
    return dict(sorted(counts.items()))


def _state(store: DescriptorStore) -> str:
    """Return what identifies the content of a store: what it was made from, and its shards."""
    digests = fingerprint_lines(f"{shard.sha256} {shard.ids_sha256}" for shard in store.shards)
    return f"{store.partition} {store.fingerprint} {digests}"
