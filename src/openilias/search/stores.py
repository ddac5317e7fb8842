"""Searching descriptor stores: what belongs together, in which order, and the ranking that comes out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from openilias.adapt.apply import adapted
from openilias.core.errors import OpenIliasError
from openilias.core.executors import usable_cores
from openilias.core.fingerprints import differences, fingerprint, fingerprint_lines
from openilias.core.ids import DATABASE_PARTITIONS
from openilias.core.manifests import replacing
from openilias.core.progress import progress, tell
from openilias.core.shards import Share
from openilias.descriptors.official import check_ids
from openilias.descriptors.store import DescriptorStore
from openilias.search.best import UnusableRowError, Unwanted
from openilias.search.checkpoint import Checkpoint, resumed_search
from openilias.search.choice import DEFAULT_MEANS, EVERYTHING, Choice, Means
from openilias.search.database import Database, database_of
from openilias.search.exact import ExactSearch, Numbers, pair_scores
from openilias.search.expansion import expanded
from openilias.search.origin import common_origin
from openilias.search.ranking import ABSENT, Ranking, claim_ranking, read_ranking, write_ranking
from openilias.search.reading import Checks, groups, windows

ALGORITHM_VERSION = 1
_AT_ONCE, _AT_ONCE_HERE, _READERS = 8 << 30, 1 << 30, min(16, usable_cores())


def search(
    queries: list[DescriptorStore],
    database: list[DescriptorStore],
    k: int,
    choice: Choice = EVERYTHING,
    means: Means = DEFAULT_MEANS,
    checkpoint: Checkpoint | None = None,
) -> Ranking:
    """Search query stores in database stores, exactly.

    Args:
        queries: stores of queries; their ids must differ.
        database: stores of database images.
        k: how many images per query; all, if there are fewer.
        choice: what is searched.
        means: with what.
        checkpoint: where the state is kept.

    Raises:
        OpenIliasError: the stores were not made by the same model, weights, protocol and benchmark, hold the wrong
            partitions, or are damaged. Of official files only the dimensions are known and compared.
    """
    return _Plan(queries, database, k, choice).search(means, checkpoint)


@dataclass(frozen=True)
class _Scan:
    """What one search over the database takes besides the vectors."""

    query_ids: tuple[str, ...]
    masks: dict[int, npt.NDArray[np.uint8]]
    unwanted: Unwanted


class _Plan:
    """A search that can be done."""

    def __init__(self, queries: list[DescriptorStore], database: list[DescriptorStore], k: int, choice: Choice) -> None:
        if choice.linear is not None:
            queries, database = ([adapted(store, choice.linear) for store in stores] for stores in (queries, database))
        # In one order, whatever the order they are given in: the state of a killed search knows places only.
        queries = sorted(queries, key=state_of)
        self.queries, self.stores, self.k, self.choice = queries, database, k, choice
        self.origin = common_origin(queries, database)
        check_partitions(queries, database, any_queries=choice.self_matches is not None)
        self.base = database_of(database)
        self.numbers = self.base.part(choice.share)
        self.kept = sum(self.base.shards[number].rows for number in self.numbers)

    def made_from(self) -> dict[str, Any]:
        """Return what the result depends on."""
        return {
            "algorithm_version": ALGORITHM_VERSION,
            "benchmark": self.origin.get("benchmark"),
            "origin": self.origin,
            "queries": sorted(state_of(store) for store in self.queries),
            "database": sorted(state_of(store) for store in self.stores),
            "k": self.k,
            **self.choice.made_from(),
        }

    def search(self, means: Means, checkpoint: Checkpoint | None) -> Ranking:
        """Search; afterwards :attr:`kept` says how many images were searched."""
        query_ids, asked = read_queries(self.queries, trust=means.trust)
        masks = self._masks()
        unwanted = Unwanted(duplicates=self.choice.duplicates == "remove")
        if self.choice.self_matches == "remove":
            unwanted = replace(unwanted, own_rows=_own_rows(query_ids, self.base), own_values=asked)
        scan = _Scan(query_ids, masks, unwanted)
        if self.choice.expand is None:
            return self._scan(scan, asked, self.k, means, checkpoint)
        first = self._first(query_ids, means)
        if first is None:
            stage = checkpoint.of("first") if checkpoint else None
            first = self._scan(scan, asked, self.choice.expand.n, means, stage, keep=True)
        asked = expanded(asked, first, self.base, self.choice.expand, self.origin)
        if unwanted.own_values is not None:
            scan = replace(scan, unwanted=replace(unwanted, own_scores=pair_scores(asked, unwanted.own_values)))
        return self._scan(scan, asked, self.k, means, checkpoint)

    def _first(self, query_ids: tuple[str, ...], means: Means) -> Ranking | None:
        """Read the ranking that stands for the first search of an expansion, if one is given.

        Raises:
            OpenIliasError: it is of something else; or none is given, and only a part is searched.
        """
        if means.first is None:
            if not self.choice.share.everything:
                raise OpenIliasError(
                    "The neighbours of a query may lie in any part of the database.",
                    fix="Search all parts without --expand, put them together with ilias merge, and give that ranking "
                    "as --first.",
                )
            return None
        first, manifest = read_ranking(means.first)
        whole = replace(self.choice, expand=None, share=Share())
        wanted = {**_Plan(self.queries, self.stores, self.k, whole).made_from(), "k": manifest["made_from"].get("k")}
        changed = differences(manifest["made_from"], wanted)
        if changed or first.query_ids != query_ids:
            raise OpenIliasError(
                "This is not the first search of the same:\n    " + "\n    ".join(changed[:6] or ["query_ids"]),
                where=means.first,
                fix="Search the same stores with the same options, without --expand.",
            )
        needed = min(self.choice.expand.n if self.choice.expand else 0, manifest["database_size"])
        if manifest["made_from"]["k"] < needed:
            raise OpenIliasError(
                f"This ranking lists {manifest['made_from']['k']} images per query, fewer than {needed} neighbours.",
                where=means.first,
                fix="Search deeper: -k.",
            )
        return first

    def _scan(
        self,
        scan: _Scan,
        asked: npt.NDArray[np.floating],
        k: int,
        means: Means,
        checkpoint: Checkpoint | None,
        *,
        keep: bool = False,
    ) -> Ranking:
        """Search once; ``keep`` saves the state at the end too, for what comes after it."""
        engine = ExactSearch(
            asked,
            max(min(k, self.kept), 1),
            unwanted=scan.unwanted,
            device=means.device,
            threads=means.threads,
            first_pass=means.first_pass,
        )
        done, state = checkpoint.load() if checkpoint else ([], {})
        engine.restore(state) if state else None
        found_before = set(done)
        left = [number for number in self.numbers if number not in found_before]
        shards = {number: self.base.shards[number] for number in left}
        rows = sum(shard.rows for shard in shards.values())
        needed = engine.most_bytes()
        tell(
            f"search: {len(asked):,} queries in {self.kept:,} images of {asked.shape[1]} dimensions on {means.device}"
            + (f", {len(done):,} shards of them done before" if done else "")
            + f"; at most {_megabytes(needed['tiles'] + needed['queries'])} of buffers and "
            f"{_megabytes(needed['best'])} of lists"
        )
        with (
            progress("search", total=rows, unit="descriptors") as step,
            Checks(shards, trust=means.trust, threads=2 if means.device == "cpu" else _READERS) as checks,
        ):

            def blocks(group: list[int]) -> Iterator[tuple[npt.NDArray[Any], Numbers]]:
                for number in group:
                    for block, its_rows, read in windows(
                        shards[number], self.base.starts[number], scan.masks.get(number)
                    ):
                        yield block, its_rows
                        step(read)

            # Searched across shards it is faster; what is done at once is done again after a kill.
            size = _AT_ONCE_HERE if means.device == "cpu" else _AT_ONCE
            for group in groups(shards, size // (2 * asked.shape[1])):
                with checks.of(group), self._naming():
                    engine.add_all(blocks(group))
                done += group
                if checkpoint and checkpoint.due():
                    checkpoint.save(done, engine.saved())
        if checkpoint and keep and left:
            checkpoint.save(done, engine.saved())
        found, scores = engine.result()
        occurring, places = np.unique(found[found != ABSENT], return_inverse=True)
        listed = np.full(found.shape, ABSENT, np.int64)
        listed[found != ABSENT] = places
        return Ranking(scan.query_ids, tuple(self.base.ids_at(occurring)), listed, scores, occurring)

    @contextmanager
    def _naming(self) -> Iterator[None]:
        """Say of a row that cannot be searched in which shard it is, and what its id is."""
        try:
            yield
        except UnusableRowError as error:
            ((number, rows),) = self.base.divided(np.array([error.row], np.int64))
            shard = self.base.shards[number]
            raise OpenIliasError(
                f"The descriptor of {shard.id_array()[int(rows[0])].as_py()} {error.why}.",
                where=f"{shard.where}, row {rows[0]} of {shard.source}",
                fix="Describe the image again, or leave it out: --exclude with a file of its id.",
            ) from None

    def _masks(self) -> dict[int, npt.NDArray[np.uint8]]:
        """Return which rows of each shard are searched, packed; nothing where all are."""
        restriction = self.choice.restriction
        if restriction.everything:
            return {}
        packed = restriction.masks(
            [self.base.shards[number].id_array for number in self.numbers],
            [self.base.partitions[number] for number in self.numbers],
            whole=self.choice.share.everything,
        )
        sizes = [self.base.shards[number].rows for number in self.numbers]
        whole = [int(np.bitwise_count(bits).sum()) for bits in packed]
        self.kept = sum(whole)
        if not self.kept and self.choice.share.everything:
            raise OpenIliasError("The lists of ids leave nothing to search.", fix="Check them.")
        found = zip(self.numbers, packed, whole, sizes, strict=True)
        return {number: bits for number, bits, count, size in found if count < size}

    def left_out(self) -> dict[str, int]:
        """Return how many images lists of ids left out, and of how many."""
        rows = sum(self.base.shards[number].rows for number in self.numbers)
        return {"images": rows - self.kept, "of": rows}


def read_queries(
    queries: list[DescriptorStore], *, trust: bool = False
) -> tuple[tuple[str, ...], npt.NDArray[np.floating]]:
    """Return the ids and the descriptors (Q, D) of stores of queries.

    Raises:
        OpenIliasError: damaged, unless they are trusted; or there are none.
    """
    shards = [shard for store in queries for shard in store.shards]
    for shard in shards if not trust else ():
        shard.verify()
    if not any(shard.rows for shard in shards):
        raise OpenIliasError("None of the queries could be described.", where=queries[0].folder, fix="See its markers.")
    asked = np.concatenate([block for shard in shards for block in shard.blocks()])
    return tuple(item for shard in shards for item in shard.ids()), asked


def _own_rows(query_ids: tuple[str, ...], base: Database) -> npt.NDArray[np.int64]:
    """Return (Q,) the canonical row of the image with the id of each query, -1 where there is none."""
    rows = np.full(len(query_ids), ABSENT, np.int64)
    known = pa.array(query_ids, pa.string())
    for shard, start in zip(base.shards, base.starts[:-1], strict=True):
        places = pc.index_in(shard.id_array(), value_set=known).combine_chunks()
        found = np.flatnonzero(places.is_valid().to_numpy(zero_copy_only=False))
        rows[places.drop_null().to_numpy()] = start + found
    return rows


def _megabytes(size: int) -> str:
    return f"{-(-size // 1_000_000):,} MB"


def check_partitions(
    queries: list[DescriptorStore], database: list[DescriptorStore], *, any_queries: bool = False
) -> None:
    """Raise OpenIliasError if stores hold the wrong partitions.

    Args:
        queries: that are searched for.
        database: that is searched.
        any_queries: accept any partition as queries, and training images among themselves.
    """
    if any_queries and all(store.partition == "train" for store in (*queries, *database)):
        return
    for store in queries:
        if store.partition in DATABASE_PARTITIONS and not any_queries:
            raise OpenIliasError(
                f"This store holds {store.partition}, not queries.",
                where=store.folder,
                fix="Give it as --database. To search images of the database in it, say whether an image finds itself: "
                "--self-matches keep|remove.",
            )
    for store in database:
        if store.partition not in DATABASE_PARTITIONS:
            raise OpenIliasError(
                f"This store holds {store.partition}, which are not searched.",
                where=store.folder,
                fix="Training images are searched among themselves: say --self-matches keep|remove."
                if store.partition == "train"
                else "Give it as --queries.",
            )


def search_to(
    queries: list[DescriptorStore],
    database: list[DescriptorStore],
    k: int,
    out: Path,
    choice: Choice = EVERYTHING,
    means: Means = DEFAULT_MEANS,
    *,
    overwrite: bool = False,
) -> Ranking:
    """Search and write the ranking folder; does nothing if it was made from the same stores; goes on where it was.

    Raises:
        OpenIliasError: as :func:`search`, or ``out`` is in the way.
    """
    plan = _Plan(queries, database, k, choice)
    made_from = plan.made_from()
    _, made = claim_ranking(out, made_from, overwrite=overwrite)
    if made is not None:
        return made[0]
    official = "benchmark" not in plan.origin
    searched = {"searched": searched_ids(plan.base, plan.numbers)} if official else {}
    with resumed_search(out, fingerprint(made_from)[:16]) as checkpoint:
        # Once more: another process may have made it meanwhile.
        state, made = claim_ranking(out, made_from, overwrite=overwrite)
        if made is not None:
            return made[0]
        ranking = plan.search(means, checkpoint)
        with replacing(out, state):
            write_ranking(
                ranking,
                out,
                made_from=made_from,
                dims=plan.queries[0].manifest.get("dims"),
                weights_from=plan.queries[0].manifest.get("weights_from", ""),
                sources=[plan.base.shards[number].source for number in plan.numbers],
                database=[list(name) for name in plan.base.names],
                database_size=plan.kept,
                left_out=plan.left_out(),
                **({"lists": choice.restriction.counts()} if not choice.share.everything else {}),
                skipped=[
                    {"id": item.id, "reason": item.reason} for store in (*queries, *database) for item in store.skipped
                ],
                **searched,
            )
    return ranking


def searched_ids(base: Database, numbers: tuple[int, ...]) -> dict[str, int]:
    """Count the ids of each tar, of ``distractors`` in a folder, and of ``positives``: they tell what was searched.

    Raises:
        OpenIliasError: an id stands twice.
    """
    shards = [base.shards[number] for number in numbers]
    counts: Counter[str] = Counter()
    for number, heads in zip(numbers, check_ids(shards), strict=True):
        counts.update({"positives": heads.total()} if base.partitions[number] == "positives" else heads)
    return dict(sorted(counts.items()))


def state_of(store: DescriptorStore) -> str:
    """Return what identifies the content of a store: what it was made from, and its shards."""
    digests = fingerprint_lines(f"{shard.sha256} {shard.ids_sha256}" for shard in store.shards)
    return f"{store.partition} {store.fingerprint} {digests}"
