"""The members of an ensemble: rankings of one database, and the stores that each was made from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from openilias.adapt.apply import adapted
from openilias.adapt.linear import LinearMap
from openilias.core.errors import OpenIliasError, first_few
from openilias.core.ids import object_of
from openilias.core.progress import Step
from openilias.descriptors.store import DescriptorStore
from openilias.search.database import Database, database_of
from openilias.search.exact import pair_scores
from openilias.search.ranking import Ranking, read_ranking
from openilias.search.reading import picked
from openilias.search.stores import read_queries, state_of

_PAIRS = 65_536
_OF_ELSE = {
    "index": "a compressed index",
    "expand": "expanded queries",
    "share": "a part of a database",
    "rerank": "local descriptors too",
    "ensemble": "several rankings",
}

Numbers = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Member:
    """A ranking with what scores its pairs.

    Attributes:
        folder: of the ranking.
        ranking: with its canonical rows.
        made_from: of its manifest.
        manifest: of the ranking.
        queries: (Q, D) in the order of the ranking.
        base: its database.
    """

    folder: Path
    ranking: Ranking
    made_from: dict[str, Any]
    manifest: dict[str, Any]
    queries: npt.NDArray[np.floating]
    base: Database

    @property
    def name(self) -> str:
        """What is asked, and of which model."""
        asked = sorted({state.split(" ", 1)[0] for state in self.made_from["queries"]})
        model = self.made_from["origin"].get("model", {}).get("name", "unknown model")
        return f"{model} ({' and '.join(asked)})"

    def places_of(self, query_ids: Sequence[str]) -> Numbers:
        """Return (N,) the place of the query that goes with each of some ids: the same, or the one of the same object.

        Raises:
            OpenIliasError: there is none, or more than one of the same object.
        """
        own = {item: place for place, item in enumerate(self.ranking.query_ids)}
        by_object: dict[str, list[int]] = {}
        for item, place in own.items():
            by_object.setdefault(object_of(item), []).append(place)
        found = []
        for item in query_ids:
            same = [own[item]] if item in own else by_object.get(object_of(item), [])
            if len(same) != 1:
                raise OpenIliasError(
                    f"{len(same)} queries of this ranking go with {item}, by its id or its object.",
                    where=self.folder,
                    fix="Give rankings of the same queries, or of texts of the same objects after that of the images.",
                )
            found += same
        return np.array(found, np.int64)

    def scores_of(self, queries: Numbers, rows: Numbers, step: Step) -> Scores:
        """Return (N,) the exact scores of pairs of a query and a canonical row; each row is read once.

        Raises:
            OpenIliasError: a shard is damaged.
        """
        scores = np.empty(len(rows), np.float32)
        order = np.argsort(rows, kind="stable")
        wanted, sorted_rows = np.unique(rows), rows[order]
        done = 0
        for block in picked(self.base.shards, wanted):
            inside = wanted[done : done + len(block)]
            first, last = np.searchsorted(sorted_rows, [inside[0], inside[-1] + 1])
            for start in range(first, last, _PAIRS):
                pairs = order[start : min(start + _PAIRS, last)]
                places = np.searchsorted(inside, rows[pairs])
                scores[pairs] = pair_scores(self.queries[queries[pairs]], block[places])
            done += len(block)
            step(last - first)
        return scores

    def verify(self, rows: Numbers) -> None:
        """Compare the shards that hold some rows with their digests.

        Raises:
            OpenIliasError: one is damaged.
        """
        for number, _ in self.base.divided(np.unique(rows)):
            self.base.shards[number].verify()


def read_member(folder: Path, stores: Sequence[DescriptorStore], layers: Sequence[LinearMap] = ()) -> Member:
    """Read a ranking and find its stores among some.

    Args:
        folder: the ranking.
        stores: any.
        layers: adaptations; a ranking of adapted descriptors finds its stores with the layer it was made with.

    Raises:
        OpenIliasError: the ranking is of a compressed index, of expanded queries, of a part of a database, or official;
            or some of its stores are not there.
    """
    ranking, manifest = read_ranking(folder)
    made_from = manifest["made_from"]
    for key, what in _OF_ELSE.items():
        if key in made_from:
            raise OpenIliasError(
                f"This ranking is of {what}: its scores are not those of stored descriptors.",
                where=folder,
                fix="Give exact rankings of everything.",
            )
    if ranking.db_rows is None or "database" not in manifest or "queries" not in made_from:
        raise OpenIliasError(
            "This ranking does not say what it was made from.", where=folder, fix="Search the stores again."
        )
    digest = made_from["origin"].get("adaptation", {}).get("sha256")
    known = {state_of(store): store for store in stores}
    for layer in layers if digest is not None else ():
        for store in stores if layer.digest == digest else ():
            if "adaptation" not in store.origin() and store.dims == layer.inputs:
                one = adapted(store, layer)
                known[state_of(one)] = one
    missing = [state for state in (*made_from["queries"], *made_from["database"]) if state not in known]
    if missing:
        needed = f", or the layer {digest[:12]} that adapts them (--adapt)" if digest else ""
        raise OpenIliasError(
            f"These stores of the ranking are not given: {first_few([state.split(' ')[0] for state in missing])}.",
            where=folder,
            fix=f"Give all that it was made from as --store{needed}.",
        )
    query_ids, queries = read_queries([known[state] for state in made_from["queries"]])
    place = {item: row for row, item in enumerate(query_ids)}
    base = database_of([known[state] for state in made_from["database"]])
    rows = np.array([place[item] for item in ranking.query_ids], np.int64)
    return Member(folder, ranking, made_from, manifest, queries[rows], base)
