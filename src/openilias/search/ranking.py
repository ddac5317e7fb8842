"""The ranking: for every query the database images, best first."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from openilias.core.errors import OpenIliasError, first_few
from openilias.core.files import atomic_path, sha256_of
from openilias.core.manifests import State, claim, read_manifest, write_manifest

KIND = "ranking"
MANIFEST, TABLE = "ranking.json", "ranking.parquet"
ABSENT = -1


@dataclass(frozen=True)
class Ranking:
    """Validated and immutable.

    Attributes:
        query_ids: Q of them, all different.
        db_ids: the database ids that occur.
        rows: (Q, k) int64, indices into ``db_ids``, best first; :data:`ABSENT` pads short lists at their end.
        scores: (Q, k) float32, not rising along a row; -inf where padded. float64 only where an official file has
            scores that float32 does not hold.
        db_rows: canonical rows of ``db_ids``, rising, if they are known: they break ties between rankings that are
            merged.

    Raises:
        OpenIliasError: on construction, if any of this does not hold.
    """

    query_ids: tuple[str, ...]
    db_ids: tuple[str, ...]
    rows: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float32] | npt.NDArray[np.float64]
    db_rows: npt.NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        queries, width = len(self.query_ids), self.rows.shape[1] if self.rows.ndim == 2 else 0
        if self.rows.shape != (queries, width) or self.scores.shape != self.rows.shape:
            raise OpenIliasError(
                f"A ranking of {queries} queries has rows {self.rows.shape} and scores {self.scores.shape}."
            )
        for name, ids in (("query", self.query_ids), ("database", self.db_ids)):
            if len(set(ids)) < len(ids):
                raise OpenIliasError(f"A {name} id stands twice in this ranking: {first_few(_twice(ids))}.")
        if self.db_rows is not None:
            if self.db_rows.shape != (len(self.db_ids),) or (np.diff(self.db_rows) <= 0).any():
                raise OpenIliasError("The database rows of a ranking are not one for each id, or do not rise.")
            self.db_rows.setflags(write=False)
        present = self.rows != ABSENT
        if ((self.rows < ABSENT) | (self.rows >= len(self.db_ids))).any():
            raise OpenIliasError("A ranking points outside its table of ids.")
        if (present[:, 1:] & ~present[:, :-1]).any():
            raise OpenIliasError("A ranking has gaps within a list.")
        if not np.isfinite(self.scores[present]).all():
            self._complain("has a score that is not finite", ~np.isfinite(self.scores) & present)
        with np.errstate(invalid="ignore"):
            rising = (self.scores[:, 1:] > self.scores[:, :-1]) & present[:, 1:]
        if rising.any():
            self._complain("is not sorted by falling score", rising)
        ordered = np.sort(self.rows, axis=1)
        twice = (ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] != ABSENT)
        if twice.any():
            self._complain("lists a database image twice", twice)
        self.rows.setflags(write=False)
        self.scores.setflags(write=False)

    def _complain(self, what: str, where: npt.NDArray[np.bool_]) -> None:
        bad = [self.query_ids[row] for row in np.flatnonzero(where.any(axis=1))]
        raise OpenIliasError(f"The list of a query {what}: {first_few(bad)}.", fix="Make the ranking again.")

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """(Q,) how many images each list has."""
        return np.asarray((self.rows != ABSENT).sum(axis=1), np.int64)

    def ids_of(self, query: int) -> list[str]:
        """Return the database ids of one query, best first."""
        return [self.db_ids[row] for row in self.rows[query] if row != ABSENT]

    def cut(self, k: int) -> Ranking:
        """Return the first k columns."""
        return replace(self, rows=self.rows[:, :k].copy(), scores=self.scores[:, :k].copy())


def _twice(ids: Sequence[str]) -> list[str]:
    return sorted(item for item, count in Counter(ids).items() if count > 1)


def write_ranking(ranking: Ranking, folder: Path, *, made_from: dict[str, Any], **information: Any) -> None:
    """Write ``ranking.parquet`` and then, as the sign that it is whole, ``ranking.json``."""
    folder.mkdir(parents=True, exist_ok=True)
    lengths = ranking.lengths
    present = ranking.rows != ABSENT
    queries = pa.DictionaryArray.from_arrays(
        pa.array(np.repeat(np.arange(len(lengths)), lengths), pa.int32()),
        pa.array(ranking.query_ids, pa.string()),
    )
    images = pa.DictionaryArray.from_arrays(
        pa.array(ranking.rows[present], pa.int32()), pa.array(ranking.db_ids, pa.string())
    )
    ranks = np.concatenate([np.arange(1, n + 1) for n in lengths]) if len(lengths) else np.zeros(0, int)
    columns = {
        "query_id": queries,
        "rank": pa.array(ranks, pa.int32()),
        "db_id": images,
        "score": pa.array(ranking.scores[present], pa.float32()),
    }
    if ranking.db_rows is not None:
        columns["db_row"] = pa.array(ranking.db_rows[ranking.rows[present]], pa.int64())
    table = pa.table(columns)
    with atomic_path(folder / TABLE) as temporary:
        pq.write_table(table, temporary)
    write_manifest(
        folder / MANIFEST,
        kind=KIND,
        made_from=made_from,
        sha256=sha256_of(folder / TABLE),
        query_ids=list(ranking.query_ids),
        depth=int(ranking.rows.shape[1]),
        **information,
    )


def claim_ranking(
    out: Path, made_from: dict[str, Any], *, overwrite: bool
) -> tuple[State, tuple[Ranking, dict[str, Any]] | None]:
    """Decide whether a ranking has to be made, as :func:`openilias.core.manifests.claim`; if not, read it.

    Raises:
        OpenIliasError: as ``claim``; or it is there and damaged, and ``overwrite`` is False.
    """
    state = claim(out, MANIFEST, kind=KIND, made_from=made_from, overwrite=overwrite, ours=re.escape(TABLE))
    if state == "same":
        try:
            return state, read_ranking(out)
        except OpenIliasError:
            if not overwrite:
                raise
    return state, None


def read_ranking(folder: Path) -> tuple[Ranking, dict[str, Any]]:
    """Read a ranking folder; return the ranking and its manifest.

    Raises:
        OpenIliasError: it is not one, not whole, or not valid.
    """
    manifest = read_manifest(folder / MANIFEST, kind=KIND)
    path = folder / TABLE
    if not path.is_file() or sha256_of(path) != manifest.get("sha256"):
        raise OpenIliasError(
            "This file is missing, or not as it was written.", where=path, fix="Search again with --overwrite."
        )
    try:
        table = pq.read_table(path)
        query_ids = tuple(manifest["query_ids"])
        asked, queries = _coded(table["query_id"])
        codes, images = _coded(table["db_id"])
        db_ids = tuple(images)
        ranks, scores = table["rank"].to_numpy(), table["score"].to_numpy()
        db_rows = None
        if "db_row" in table.column_names:
            db_rows = np.full(len(db_ids), -1, np.int64)
            db_rows[codes] = table["db_row"].to_numpy()
            order = np.argsort(db_rows, kind="stable")  # the file names them as they come
            codes = np.argsort(order, kind="stable")[codes]
            db_rows, db_ids = db_rows[order], tuple(db_ids[place] for place in order)
        place = {name: row for row, name in enumerate(query_ids)}
        lines = np.array([place[name] for name in queries], np.int64)[asked]
    except (OSError, KeyError, TypeError, ValueError, pa.ArrowException) as error:
        raise OpenIliasError(f"This ranking cannot be read: {error}.", where=path, fix="Make it again.") from None
    width = int(ranks.max(initial=0))
    rows = np.full((len(query_ids), width), ABSENT, np.int64)
    values = np.full(rows.shape, -np.inf, np.float32)
    rows[lines, ranks - 1] = codes
    values[lines, ranks - 1] = scores
    if (rows != ABSENT).sum() != len(codes):
        raise OpenIliasError("Two lines of this ranking have the same query and rank.", where=path)
    return Ranking(query_ids, db_ids, rows, values, db_rows), manifest


def _coded(column: Any) -> tuple[npt.NDArray[np.int64], list[str]]:
    """Return a column of texts as the places of its entries in a list of the different ones, and that list."""
    array = column.combine_chunks().dictionary_encode()
    array = array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
    return array.indices.to_numpy(zero_copy_only=False).astype(np.int64), array.dictionary.cast(pa.string()).to_pylist()
