"""Local similarities of the shortlists of a ranking; resumable."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from openilias.core.errors import OpenIliasError, first_few
from openilias.core.executors import usable_cores
from openilias.core.files import atomic_path
from openilias.core.fingerprints import differences
from openilias.core.progress import progress, tell
from openilias.descriptors.local_reading import gathered
from openilias.descriptors.local_store import LocalStore
from openilias.models.local_features import WEIGHT, LocalFeatures
from openilias.rerank.chamfer import chamfer
from openilias.rerank.itq import Binarisation
from openilias.rerank.packing import local_state_of
from openilias.rerank.spatial import SpatialSettings, spatial
from openilias.search.ranking import ABSENT, Ranking

ALGORITHM_VERSION = 1
LocalMethod = Literal["chamfer", "spatial", "ames"]
_PLACED = ("spatial",)
"""Methods that ask where descriptors are."""
_EVERY_SECONDS, _SHARE = 30.0, 20


class LocalStep(BaseModel):
    """What local similarities depend on besides the descriptors.

    Attributes:
        method: ``chamfer``, ``spatial`` or ``ames``.
        shortlist: the first so many images of each list are compared.
        descriptors: of a database image, those of largest weight.
        query_descriptors: of a query.
        spatial: of spatial verification.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: LocalMethod = "chamfer"
    shortlist: int = Field(default=1000, ge=1)
    descriptors: int = Field(default=100, ge=1)
    query_descriptors: int = Field(default=600, ge=1)
    spatial: SpatialSettings = SpatialSettings()

    def made_from(self) -> dict[str, Any]:
        """Return it as JSON values, without what the method does not use."""
        unused = set() if self.method == "spatial" else {"spatial"}
        return {"algorithm_version": ALGORITHM_VERSION, **self.model_dump(mode="json", exclude=unused)}


class Similarities(NamedTuple):
    """Local similarities.

    Attributes:
        values: (Q, M), NaN where a list is shorter.
        seconds: that the comparing took, in all tries together.
    """

    values: npt.NDArray[np.float32]
    seconds: float


class Candidates(NamedTuple):
    """The descriptors of the images of one shortlist, one image after the other.

    Attributes:
        descriptors: (N, D), or (N, bits / 8) uint8.
        geometry: (N, 4).
        sizes: (M, 2) height and width.
        offsets: (M + 1,).
    """

    descriptors: npt.NDArray[Any]
    geometry: npt.NDArray[np.float32]
    sizes: npt.NDArray[np.int64]
    offsets: npt.NDArray[np.int64]


Score = Callable[[LocalFeatures, Candidates], npt.NDArray[np.float32]]
"""A query and its candidates -> (M,) similarities."""


class Comparer(NamedTuple):
    """What compares by a network.

    Attributes:
        score: compares.
        network: what its results depend on.
        bits: the binarisation that packed descriptors must come of; None if it takes none.
    """

    score: Score
    network: str
    bits: Binarisation | None = None

    def check(self, stores: Sequence[LocalStore]) -> None:
        """Refuse stores that are packed by other bits than its own.

        Raises:
            OpenIliasError: there is one.
        """
        own = None if self.bits is None else self.bits.digest
        for store in stores:
            if store.bits is not None and store.manifest["made_from"]["binarisation"]["sha256"] != own:
                raise OpenIliasError(
                    "This store is packed by other bits than those of the network.",
                    where=store.folder,
                    fix="Pack it with the network's own: ilias local pack --network FILE; or give the store before.",
                )


@dataclass(frozen=True)
class LocalDatabase:
    """Images of several local stores by their ids.

    Attributes:
        stores: made alike; at least one.
        ids: that are wanted.
        places: (n, 3) store, shard and place of each.
        rows: (n, 2) its first descriptor in the shard, and the one after the last.
        sizes: (n, 2) height and width.
    """

    stores: tuple[LocalStore, ...]
    ids: dict[str, int]
    places: npt.NDArray[np.int64]
    rows: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]

    def features(self, item: str, most: int) -> LocalFeatures:
        """Return the descriptors of an image of largest weight."""
        store, shard, place = self.places[self.ids[item]].tolist()
        found: LocalFeatures = self.stores[store].shards[shard].take(place, most)
        return found

    def candidates(self, items: Sequence[str], most: int, *, geometry: bool = True) -> Candidates:
        """Return the descriptors of some images.

        Args:
            items: their ids.
            most: of an image, those of largest weight.
            geometry: where they are is read too; else there is none, (0, 4).

        Raises:
            OpenIliasError: a shard is damaged.
        """
        wanted = np.array([self.ids[item] for item in items], np.int64)
        first = self.rows[wanted, 0]
        counts = np.minimum(self.rows[wanted, 1] - first, most)
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
        keys, which = np.unique(self.places[wanted, 0] << 32 | self.places[wanted, 1], return_inverse=True)
        shards = [self.stores[key >> 32].shards[key & 0xFFFFFFFF] for key in keys.tolist()]
        where = np.zeros((0, 4), np.float32)
        if not shards:
            return Candidates(np.zeros((0, self._width), self._dtype), where, self.sizes[wanted], offsets)
        descriptors = gathered([shard.descriptor_file for shard in shards], which, first, counts)
        if geometry:
            where = gathered([shard.geometry_file for shard in shards], which, first, counts)
        if not _are_good(descriptors, where, offsets) or (self.sizes[wanted] < 1).any():
            for item in items:  # these say which
                self.features(item, most)
        return Candidates(descriptors, where, self.sizes[wanted], offsets)

    @property
    def _width(self) -> int:
        first = self.stores[0]
        return first.dims // 8 if first.bits else first.dims

    @property
    def _dtype(self) -> np.dtype[Any]:
        dtype: np.dtype[Any] = np.dtype(self.stores[0].manifest["dtype"])
        return dtype


def _are_good(descriptors: npt.NDArray[Any], geometry: npt.NDArray[np.float32], offsets: npt.NDArray[np.int64]) -> bool:
    """Tell what :class:`LocalFeatures` asks of each image, of all at once."""
    rising = np.diff(geometry[:, WEIGHT]) > 0
    if len(geometry):
        between = offsets[1:-1] - 1  # from the last of an image to the first of the next
        rising[between[(between >= 0) & (between < len(rising))]] = False
    finite = descriptors.dtype.kind != "f" or bool(np.isfinite(descriptors).all())
    return finite and bool(np.isfinite(geometry).all()) and not rising.any()


def database_of_local(stores: Sequence[LocalStore], ids: Sequence[str]) -> LocalDatabase:
    """Find images in local stores; one that is in several is taken from the smallest of them.

    Raises:
        OpenIliasError: images that are in none of the stores, or a damaged shard.
    """
    places = np.full((len(ids), 3), -1, np.int64)
    rows, sizes = (np.full((len(ids), 2), -1, np.int64) for _ in range(2))
    # By size, so that neither the order of the stores counts, nor the large ones are asked for what others have.
    for number in sorted(range(len(stores)), key=lambda n: (stores[n].images, stores[n].fingerprint)):
        asked = np.flatnonzero(places[:, 0] < 0)
        found = stores[number].locate([ids[row] for row in asked.tolist()])
        here = found.places[:, 0] >= 0
        asked = asked[here]
        places[asked, 0], places[asked, 1:] = number, found.places[here]
        rows[asked], sizes[asked] = found.rows[here], found.sizes[here]
    missing = [ids[row] for row in np.flatnonzero(places[:, 0] < 0).tolist()]
    if missing:
        skipped = {one.id for store in stores for one in store.skipped}
        known = [item for item in missing if item in skipped]
        why = f" ({len(known)} of them could not be described)" if known else ""
        raise OpenIliasError(
            f"{len(missing)} of {len(ids)} images have no local descriptors{why}: {first_few(missing)}.",
            where=", ".join(str(store.folder) for store in stores),
            fix="Describe them: ilias extract --local --shortlist RANKING. Texts have none and cannot be re-ranked.",
        )
    return LocalDatabase(tuple(stores), {item: row for row, item in enumerate(ids)}, places, rows, sizes)


def check_alike(stores: Sequence[LocalStore]) -> None:
    """Raise OpenIliasError if local stores were not made alike: by the same model, weights and binarisation."""
    for other in stores[1:]:
        one, two = ({**store.origin(), "packed": None} for store in (stores[0], other))
        for origin in (one, two):
            local = dict(origin.get("local", {}))
            local.pop("most", None)  # how many are kept may differ
            origin["local"] = local
        changed = differences(one, two)
        if changed:
            raise OpenIliasError(
                f"{stores[0].folder} and {other.folder} were not made alike:\n    " + "\n    ".join(changed[:8]),
                fix="Describe both with the same model, and pack both with the same binarisation.",
            )


def local_made_from(
    first: dict[str, Any], queries: Sequence[LocalStore], database: Sequence[LocalStore], step: LocalStep
) -> dict[str, Any]:
    """Return what local similarities depend on: ``first`` is the manifest of the ranking."""
    return {
        "first": first["fingerprint"],
        "local_queries": sorted(local_state_of(store) for store in queries),
        "local_database": sorted(local_state_of(store) for store in database),
        "local": step.made_from(),
    }


def score_by(step: LocalStep) -> Score:
    """Return what compares a query with its candidates.

    Raises:
        OpenIliasError: AMES, which has a network.
    """
    if step.method == "ames":
        raise OpenIliasError("AMES compares by a network.", fix="Give one: --network FILE.")
    if step.method == "chamfer":
        return lambda query, some: chamfer(query.descriptors, some.descriptors, some.offsets)
    return lambda query, some: spatial(query, *some, settings=step.spatial)


def similarities(
    first: Ranking,
    queries: Sequence[LocalStore],
    database: Sequence[LocalStore],
    step: LocalStep,
    score: Score,
    state: Path | None = None,
    *,
    trust: bool = False,
) -> Similarities:
    """Return the local similarities of the shortlists.

    Args:
        first: the ranking by global descriptors.
        queries: local stores of its queries.
        database: local stores of its images.
        step: how.
        score: compares.
        state: file that a killed run goes on from.
        trust: do not compare the shards with their digests.

    Raises:
        OpenIliasError: stores that were not made alike, images without local descriptors, or damaged ones.
    """
    check_alike([*queries, *database])
    short = first.cut(step.shortlist)
    listed = sorted({int(row) for row in np.unique(short.rows) if row != ABSENT})
    asked = database_of_local(queries, first.query_ids)
    known = database_of_local(database, [first.db_ids[row] for row in listed])
    placed = step.method in _PLACED
    if not trust:
        _verify(asked, known, geometry=placed)
    made = np.full(short.rows.shape, np.nan, np.float32)
    done, seconds = _restored(state, made)
    saved, cost = time.monotonic(), 0.0
    with progress(f"compare by {step.method}", total=len(made), unit="queries") as told:
        told(done)
        for query in range(done, len(made)):
            begun = time.perf_counter()
            items = short.ids_of(query)
            features = asked.features(first.query_ids[query], step.query_descriptors)
            made[query, : len(items)] = score(features, known.candidates(items, step.descriptors, geometry=placed))
            seconds += time.perf_counter() - begun
            told()
            if state is not None and time.monotonic() - saved >= max(_EVERY_SECONDS, _SHARE * cost):
                started = time.monotonic()
                with atomic_path(state) as temporary, temporary.open("wb") as file:
                    np.savez(
                        file, allow_pickle=False, done=np.int64(query + 1), seconds=seconds, made=made[: query + 1]
                    )
                saved = time.monotonic()
                cost = saved - started
    return Similarities(made, seconds)


def _verify(*databases: LocalDatabase, geometry: bool) -> None:
    """Compare the shards that are read with their digests, several at a time: they may be hundreds of gigabytes."""
    shards = [
        database.stores[store].shards[shard]
        for database in databases
        for store, shard in np.unique(database.places[:, :2], axis=0).tolist()
    ]
    with (
        progress("compare with the digests", total=len(shards), unit="shards") as told,
        ThreadPoolExecutor(usable_cores()) as pool,
    ):
        for _ in pool.map(lambda shard: shard.verify(geometry=geometry), shards):
            told()


def _restored(state: Path | None, made: npt.NDArray[np.float32]) -> tuple[int, float]:
    """Fill in what is done; return how many queries, and the seconds that they took."""
    if state is None or not state.is_file():
        return 0, 0.0
    try:
        with np.load(state, allow_pickle=False) as file:
            done, seconds, before = int(file["done"]), float(file["seconds"]), file["made"]
        made[:done] = before
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        tell(f"compare: the state of the last try cannot be read ({error}); it begins anew")
        made[:] = np.nan
        return 0, 0.0
    tell(f"compare: goes on after {done:,} of {len(made):,} queries")
    return done, seconds
