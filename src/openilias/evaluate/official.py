"""Official result files: ``similarities.json`` and ``.pkl``, in and out."""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from openilias.core.errors import OpenIliasError
from openilias.core.files import atomic_path, read_json
from openilias.core.ids import is_distractor
from openilias.evaluate.pickles import read_arrays
from openilias.search.ranking import ABSENT, Ranking


def read_official(path: Path) -> Ranking:
    """Read ``similarities.json`` (``{query: {db id: similarity}}``) or a pickle with ``query_ids``, ``db_ids``,
    ``sims`` and ``ranks``.

    Lists are sorted by falling similarity; equal ones go positives first, by id, then as the file has them.

    Raises:
        OpenIliasError: unreadable, malformed, of unequal lengths, or with duplicated ids.
    """
    return _from_pickle(path) if path.suffix in (".pkl", ".pickle") else _from_json(path)


def _from_json(path: Path) -> Ranking:
    try:
        value = json.loads(path.read_bytes(), object_pairs_hook=lambda pairs: _no_duplicates(pairs, path))
    except (OSError, ValueError, RecursionError):
        value = read_json(path)
    if not isinstance(value, dict) or not all(isinstance(found, dict) for found in value.values()):
        raise OpenIliasError("Expected {query: {database id: similarity}}.", where=path)
    return _ranking(value, path)


def _no_duplicates(pairs: list[tuple[str, Any]], path: Path) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise OpenIliasError(f"The id {twice!r} stands twice.", where=path, fix="Keep one of them.")
    return found


def _from_pickle(path: Path) -> Ranking:
    value = read_arrays(path)
    try:
        queries = _names(value["query_ids"])
        images = np.asarray(_names(value["db_ids"]), object)
        sims, ranks = _matrix(value["sims"]).astype(np.float32), _matrix(value["ranks"])
        if ranks.dtype.kind not in "iu":
            raise ValueError("ranks are not integers")
        ranks = ranks.astype(np.int64)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise OpenIliasError(
            f"Expected query_ids, db_ids, sims and ranks: {type(error).__name__} {error}.", where=path
        ) from None
    if sims.ndim != 2 or sims.shape != ranks.shape or len(sims) != len(queries):
        raise OpenIliasError(
            f"{len(queries)} queries, sims {sims.shape}, ranks {ranks.shape} do not belong together.", where=path
        )
    if ((ranks < 0) | (ranks >= len(images))).any():
        raise OpenIliasError(
            "Some ranks point outside db_ids (the official search writes -1 where k exceeds the database).",
            where=path,
            fix="Search again with a k that is not larger than the database.",
        )
    if len(set(queries)) < len(queries) or len(set(images)) < len(images):
        raise OpenIliasError("query_ids or db_ids have duplicates.", where=path)
    lists = {}
    for query, places, values in zip(queries, ranks, sims, strict=True):
        if len(set(places.tolist())) < len(places):
            raise OpenIliasError(f"The list of {query} has an image twice.", where=path)
        lists[query] = dict(zip(images[places].tolist(), values.tolist(), strict=True))
    return _ranking(lists, path)


def _names(values: Any) -> list[str]:
    names = values.tolist() if isinstance(values, np.ndarray) else values
    if not isinstance(names, list) or not all(isinstance(item, str) for item in names):
        raise TypeError("ids are not all text")
    return names


def _matrix(values: Any) -> npt.NDArray[Any]:
    """Take a matrix, or a list of rows; nothing deeper."""
    if isinstance(values, list):
        flat = [row for row in values if not isinstance(row, np.ndarray)]
        if any(not isinstance(row, list) or any(isinstance(item, (list, str)) for item in row) for row in flat):
            raise TypeError("a matrix is not rows of numbers")
    elif not isinstance(values, np.ndarray):
        raise TypeError("a matrix is neither array nor list")
    return np.asarray(values)


def _ranking(lists: Mapping[str, Mapping[str, Any]], path: Path) -> Ranking:
    # Positives by id first, distractors after in the order in which the file names them.
    names = dict.fromkeys(item for found in lists.values() for item in found)
    positives = sorted(item for item in names if not is_distractor(item))
    db_ids = tuple(positives + [item for item in names if is_distractor(item)])
    place = {item: row for row, item in enumerate(db_ids)}
    width = max((len(found) for found in lists.values()), default=0)
    rows = np.full((len(lists), width), ABSENT, np.int64)
    scores = np.full(rows.shape, -np.inf, np.float64)
    for line, (query, found) in enumerate(lists.items()):
        values = list(found.values())
        if not all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in values):
            raise OpenIliasError(f"A similarity of {query} is not a number.", where=path)
        row = np.array([place[item] for item in found], np.int64)
        try:
            score = np.array(values, np.float64)
        except OverflowError:
            raise OpenIliasError(f"A similarity of {query} is out of range.", where=path) from None
        if not np.isfinite(score).all():
            raise OpenIliasError(f"A similarity of {query} is not finite.", where=path)
        order = np.lexsort((row, -score))
        rows[line, : len(row)], scores[line, : len(row)] = row[order], score[order]
    with np.errstate(over="ignore"):
        single = scores.astype(np.float32)
    # Doubles that float32 cannot tell apart stay doubles: rounding them would make ties.
    kept = single if np.array_equal(single.astype(np.float64), scores) else scores
    return Ranking(tuple(lists), db_ids, rows, kept)


def write_official_json(ranking: Ranking, path: Path) -> None:
    """Write ``{query: {db id: similarity}}``, best first."""
    value = {
        query: {item: float(score) for item, score in zip(ranking.ids_of(line), ranking.scores[line], strict=False)}
        for line, query in enumerate(ranking.query_ids)
    }
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(value), encoding="utf-8")


def write_official_pickle(ranking: Ranking, path: Path) -> None:
    """Write the official pickle.

    Raises:
        OpenIliasError: the lists differ in length, which that format cannot say.
    """
    if (ranking.rows == ABSENT).any():
        raise OpenIliasError("Lists of different length do not fit the official pickle.", fix="Write JSON instead.")
    value = {
        "query_ids": list(ranking.query_ids),
        "db_ids": list(ranking.db_ids),
        "sims": np.array(ranking.scores),
        "ranks": np.array(ranking.rows),
    }
    with atomic_path(path) as temporary:
        temporary.write_bytes(pickle.dumps(value, protocol=4))
