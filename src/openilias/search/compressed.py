"""Searching a compressed index instead of the descriptors themselves, with or without scoring the best again, exactly.

Paper, supplement: compression of global descriptors "can decrease the memory footprint by an order of magnitude with an
insignificant performance loss". What is lost is measured against the exact ranking, see ``report.compression``.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from openilias.core.errors import OpenIliasError
from openilias.core.manifests import replacing
from openilias.core.progress import progress
from openilias.core.shards import Share
from openilias.descriptors.store import DescriptorStore, Floats, Shard
from openilias.search.database import database_of
from openilias.search.exact import pair_scores
from openilias.search.indexes import Built, IndexSpec, floats, index_of, untyped_faiss
from openilias.search.origin import common_origin
from openilias.search.ranking import ABSENT, Ranking, claim_ranking, write_ranking
from openilias.search.reading import picked
from openilias.search.stores import check_partitions, read_queries, searched_ids, state_of

ALGORITHM_VERSION = 1
_QUERIES = 1024
_PAIR_BYTES = 512 << 10  # more is slower: it leaves the caches

Rows = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float32]


@dataclass(frozen=True)
class IndexFacts:
    """What a compressed search costs.

    Attributes:
        rows: how many images the index holds.
        bytes_per_image: by how much the file of the index grew per image: code, and label and links where there are.
        fixed_bytes: what it has besides: codebooks, rotation, centroids.
        stored_bytes: bytes per image of the stored descriptors.
        rescore_bytes: of these, what rescoring needs at hand besides the index: all of them, or 0 without rescoring.
        train_rows: how many descriptors the index learned from.
        train_seconds: how long that took.
        add_seconds: how long it took to read the descriptors and put them in.
        search_seconds: of all queries: search of the index, rescoring with its reading; without opening the index.
        queries: how many there were.
        short: how many of them have fewer than k images, because the index found no more.
        threads: of the search.
    """

    rows: int
    bytes_per_image: float
    fixed_bytes: int
    stored_bytes: float
    rescore_bytes: float
    train_rows: int
    train_seconds: float
    add_seconds: float
    search_seconds: float
    queries: int
    short: int
    threads: int

    @property
    def queries_per_second(self) -> float:
        """How many queries are answered in a second."""
        return self.queries / max(self.search_seconds, 1e-9)


def search_compressed(
    queries: list[DescriptorStore],
    database: list[DescriptorStore],
    k: int,
    spec: IndexSpec,
    *,
    index_file: Path | None = None,
    overwrite: bool = False,
) -> tuple[Ranking, IndexFacts]:
    """Search query stores in a compressed index of database stores.

    Without rescoring the scores are those of the index (of b-bit codes 1 - 2 Hamming / b, the cosine of the signs), and
    which of equal ones are within the first k is left to faiss. With rescoring the best ``spec.rescore`` of the index
    are scored as :mod:`openilias.search.exact` does. Order: score descending, then canonical row. Equal input, seed and
    number of threads, equal ranking.

    Args:
        queries: stores of queries; their ids must differ.
        database: stores of database images.
        k: how many images per query; all, if there are fewer.
        spec: of the index.
        index_file: where the index is kept, with a manifest ``INDEX_FILE.json``; it is made there if it is not.
        overwrite: replace an index file made from something else.

    Raises:
        OpenIliasError: as :func:`openilias.search.stores.search` and :func:`openilias.search.indexes.index_of`; fewer
            are rescored than asked for; or the index finds fewer than k images for every query.
    """
    common_origin(queries, database)
    check_partitions(queries, database)
    if k < 1 or 0 < spec.rescore < k:
        raise OpenIliasError(
            f"The best {k} cannot be taken from {spec.rescore} rescored ones." if k > 0 else f"k = {k} is no depth.",
            fix="Rescore as many as are asked for with -k, or more.",
        )
    base = database_of(database)
    query_ids, asked = read_queries(queries)
    built = index_of(
        spec,
        base.shards,
        asked.shape[1],
        states=sorted(state_of(store) for store in database),
        path=index_file,
        overwrite=overwrite,
    )
    started = time.perf_counter()
    rows, scores = search_index(built, floats(asked, "queries"), max(k, spec.rescore), spec)
    if spec.rescore:
        scores = rescored(asked, base.shards, rows)
    rows, scores = _best(rows, scores, k)
    seconds = time.perf_counter() - started
    lengths = (rows != ABSENT).sum(axis=1)
    if lengths.max(initial=0) < rows.shape[1]:
        raise OpenIliasError(
            f"The index {spec.name} finds at most {lengths.max(initial=0)} of the {rows.shape[1]} images asked for.",
            fix="Search more of it (nprobe, efSearch), or ask for fewer with -k.",
        )
    facts = _facts(spec, built, base.shards, seconds, short=int((lengths < rows.shape[1]).sum()), queries=len(asked))
    occurring = np.unique(rows[rows != ABSENT])
    places = np.where(rows == ABSENT, ABSENT, np.searchsorted(occurring, rows)).astype(np.int64)
    return Ranking(query_ids, tuple(base.ids_at(occurring)), places, scores), facts


def search_index(built: Built, queries: npt.NDArray[np.float32], count: int, spec: IndexSpec) -> tuple[Rows, Scores]:
    """Return the best of an index as faiss finds them.

    Args:
        built: the index.
        queries: (Q, D).
        count: how many; all N if there are fewer.
        spec: of the index; its parameters are set.

    Returns:
        rows (Q, min(count, N)) int64, :data:`ABSENT` where the index finds no more, and scores, -inf there.
    """
    faiss = untyped_faiss()
    if spec.parameters:
        faiss.ParameterSpace().set_index_parameters(built.index, spec.parameters)
    count = min(count, built.index.ntotal)
    rows, values = np.empty((len(queries), count), np.int64), np.empty((len(queries), count), np.float32)
    with progress(f"search {spec.name}", total=len(queries), unit="queries") as step:
        for start in range(0, len(queries), _QUERIES):
            part = slice(start, start + _QUERIES)
            values[part], rows[part] = built.index.search(queries[part], count)
            step(len(values[part]))
    if spec.binary:
        inner = getattr(built.index, "index", built.index)
        values = 1 - 2 * values / np.float32(faiss.downcast_index(inner).nbits)
    values += np.float32(0)  # no negative zero
    values[rows == ABSENT] = -np.inf
    return rows, values


def rescored(queries: Floats, shards: Sequence[Shard], rows: Rows) -> Scores:
    """Return the exact scores of candidates; each stored vector is read once, in canonical order.

    Args:
        queries: (Q, D) as stored.
        shards: in canonical order.
        rows: (Q, n) canonical rows, :data:`ABSENT` where there is none.

    Returns:
        (Q, n), -inf where there is none.
    """
    scores = np.full(rows.shape, -np.inf, np.float32)
    flat = np.flatnonzero(rows != ABSENT)
    flat = flat[np.argsort(rows.ravel()[flat], kind="stable")]
    wanted, place = np.unique(rows.ravel()[flat], return_inverse=True)
    step = max(1, _PAIR_BYTES // (8 * queries.shape[1]))
    done = 0
    for piece in picked(shards, wanted):
        floats(piece, "database")
        first, last = np.searchsorted(place, [done, done + len(piece)])
        for start in range(first, last, step):
            part = slice(start, min(start + step, last))
            scores.flat[flat[part]] = pair_scores(queries[flat[part] // rows.shape[1]], piece[place[part] - done])
        done += len(piece)
    return scores


def _best(rows: Rows, scores: Scores, k: int) -> tuple[Rows, Scores]:
    """Sort each list by falling score, then row, and cut it; what is absent has the lowest score."""
    order = np.lexsort((rows, -scores), axis=-1)[:, :k]
    return np.take_along_axis(rows, order, 1), np.take_along_axis(scores, order, 1)


def _facts(
    spec: IndexSpec, built: Built, shards: Sequence[Shard], seconds: float, *, short: int, queries: int
) -> IndexFacts:
    stored = built.index.d * sum(shard.rows * shard.dtype.itemsize for shard in shards) / built.index.ntotal
    return IndexFacts(
        rows=built.index.ntotal,
        bytes_per_image=built.bytes_per_image,
        fixed_bytes=built.fixed_bytes,
        stored_bytes=stored,
        rescore_bytes=stored if spec.rescore else 0.0,
        train_rows=built.train_rows,
        train_seconds=built.train_seconds,
        add_seconds=built.add_seconds,
        search_seconds=seconds,
        queries=queries,
        short=short,
        threads=untyped_faiss().omp_get_max_threads(),
    )


def search_compressed_to(
    queries: list[DescriptorStore],
    database: list[DescriptorStore],
    k: int,
    out: Path,
    spec: IndexSpec,
    *,
    index_file: Path | None = None,
    overwrite: bool = False,
) -> tuple[Ranking, IndexFacts]:
    """Search and write the ranking folder; does nothing if it was made from the same stores and index.

    Raises:
        OpenIliasError: as :func:`search_compressed`, or ``out`` is in the way.
    """
    origin = common_origin(queries, database)
    made_from = {
        "algorithm_version": ALGORITHM_VERSION,
        "benchmark": origin.get("benchmark"),
        "origin": origin,
        "queries": sorted(state_of(store) for store in queries),
        "database": sorted(state_of(store) for store in database),
        "k": k,
        "index": asdict(spec),
    }
    state, made = claim_ranking(out, made_from, overwrite=overwrite)
    if made is not None:
        return made[0], facts_of(made[1])[1]
    base = database_of(database)
    searched = {} if "benchmark" in origin else {"searched": searched_ids(base, base.part(Share()))}
    ranking, facts = search_compressed(queries, database, k, spec, index_file=index_file, overwrite=overwrite)
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
            index_facts=asdict(facts),
            **searched,
        )
    return ranking, facts


def facts_of(manifest: dict[str, Any]) -> tuple[IndexSpec, IndexFacts]:
    """Return from the manifest of a ranking by which index it was found, and what that cost.

    Raises:
        OpenIliasError: it is an exact ranking, or does not say.
    """
    try:
        return IndexSpec(**manifest["made_from"]["index"]), IndexFacts(**manifest["index_facts"])
    except (KeyError, TypeError) as error:
        raise OpenIliasError(
            f"This ranking does not say which index it is from: {error}.", fix="Search again with --overwrite."
        ) from None
