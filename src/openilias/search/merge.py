"""Putting rankings of parts of a database together: exactly the ranking of a search of all of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from openilias.core.errors import OpenIliasError, first_few
from openilias.core.fingerprints import differences, fingerprint
from openilias.core.ids import PARTITIONS
from openilias.core.manifests import read_manifest, replacing
from openilias.search.database import ShardName
from openilias.search.ranking import ABSENT, KIND, MANIFEST, Ranking, claim_ranking, read_ranking, write_ranking

_OF_A_PART = ("database", "share", "origin")


@dataclass(frozen=True)
class Part:
    """A ranking of some shards.

    Attributes:
        folder: where it is.
        manifest: of it.
    """

    folder: Path
    manifest: Mapping[str, Any]

    @property
    def made_from(self) -> dict[str, Any]:
        """What it was made from."""
        made_from: dict[str, Any] = self.manifest["made_from"]
        return made_from

    @property
    def shards(self) -> list[ShardName]:
        """What its canonical rows stand for: all shards of its database, searched or not."""
        return [(partition, source, rows) for partition, source, rows in self.manifest["database"]]

    @property
    def searched(self) -> list[ShardName]:
        """The shards that it searched."""
        number, _, of = self.made_from.get("share", "0/1").partition("/")
        return self.shards[int(number) :: int(of)]


def merge_to(folders: Sequence[Path], out: Path, *, overwrite: bool = False) -> Ranking:
    """Merge rankings of the same queries in different shards; the parts of one database all have to be there.

    The result is byte for byte what one search of all the stores makes, and counts as made by it.

    Args:
        folders: rankings, in any order.
        out: folder of the merged ranking.
        overwrite: replace a ranking made from something else.

    Raises:
        OpenIliasError: a part is missing or given twice, they were not made alike, or ``out`` is in the way.
    """
    parts = [_read(folder) for folder in folders]
    if not parts:
        raise OpenIliasError("There is nothing to merge.", fix="Give two rankings or more.")
    _check(parts)
    made_from = _made_from(parts)
    state, made = claim_ranking(out, made_from, overwrite=overwrite)
    if made is not None:
        return made[0]
    shards = sorted({shard for part in parts for shard in part.shards}, key=_canonical)
    k = int(made_from["k"])
    ranking = reduce(lambda first, second: merge(first, second, k), _rankings(parts, shards))
    known = [part.manifest for part in parts]
    searched: dict[str, int] = {}
    for manifest in known:
        for name, count in manifest.get("searched", {}).items():
            searched[name] = searched.get(name, 0) + count
    skipped = {entry["id"]: entry for manifest in known for entry in manifest.get("skipped", [])}
    with replacing(out, state):
        write_ranking(
            ranking,
            out,
            made_from=made_from,
            dims=known[0].get("dims"),
            weights_from=known[0].get("weights_from", ""),
            sources=[source for _, source, _ in shards],
            database=[list(shard) for shard in shards],
            database_size=sum(manifest["database_size"] for manifest in known),
            left_out={name: sum(one["left_out"][name] for one in known) for name in ("images", "of")},
            skipped=list(skipped.values()),
            **({"searched": dict(sorted(searched.items()))} if searched else {}),
        )
    return ranking


def merge(first: Ranking, second: Ranking, k: int) -> Ranking:
    """Merge two rankings of the same queries.

    Args:
        first: with its ``db_rows`` in the whole database, at least as deep as ``k`` or its part of the database.
        second: the same of another part.
        k: how many images are kept of each query.
    """
    found = np.concatenate([_canonical_rows(first), _canonical_rows(second)], axis=1)
    scores = np.concatenate([first.scores, second.scores], axis=1)
    # Padding has the lowest score; among equal scores the first row is first.
    order = np.lexsort((found, -scores), axis=1)[:, :k]
    found, scores = np.take_along_axis(found, order, axis=1), np.take_along_axis(scores, order, axis=1)
    depth = int((found != ABSENT).sum(axis=1).max(initial=0))
    found, scores = found[:, :depth], scores[:, :depth]
    occurring, places = np.unique(found[found != ABSENT], return_inverse=True)
    listed = np.full(found.shape, ABSENT, np.int64)
    listed[found != ABSENT] = places
    names = np.array([*first.db_ids, *second.db_ids], object)
    rows = np.concatenate([_known_rows(first), _known_rows(second)])
    order = np.argsort(rows)
    ids = names[order[np.searchsorted(rows, occurring, sorter=order)]]
    return Ranking(first.query_ids, tuple(ids.tolist()), listed, scores, occurring)


def _canonical_rows(ranking: Ranking) -> npt.NDArray[np.int64]:
    return np.append(_known_rows(ranking), ABSENT)[ranking.rows]  # ABSENT is the last


def _known_rows(ranking: Ranking) -> npt.NDArray[np.int64]:
    if ranking.db_rows is None:
        raise OpenIliasError("This ranking does not say where in the database its images are.")
    return ranking.db_rows


def _rankings(parts: list[Part], shards: list[ShardName]) -> Iterator[Ranking]:
    """Read one after the other: all of a large cluster do not fit into memory."""
    for part in parts:
        ranking = read_ranking(part.folder)[0]
        yield replace(ranking, db_rows=_moved(part, _known_rows(ranking), shards))


def _read(folder: Path) -> Part:
    manifest = read_manifest(folder / MANIFEST, kind=KIND)
    if "index" in manifest.get("made_from", {}):
        raise OpenIliasError(
            "This ranking is of a compressed index: what it lists depends on everything that is in the index.",
            where=folder,
            fix="Merge exact rankings.",
        )
    changed = [name for name in ("rerank", "ensemble") if name in manifest.get("made_from", {})]
    if changed:
        raise OpenIliasError(
            "This ranking was changed after the search.",
            where=folder,
            fix="Merge the rankings of the searches, and re-rank or put together what comes of that.",
        )
    if "database" not in manifest:
        raise OpenIliasError(
            "This ranking does not say where in the database its images are.",
            where=folder,
            fix="Make it again with this version of ilias search.",
        )
    return Part(folder, manifest)


def _canonical(shard: ShardName) -> tuple[int, str]:
    return PARTITIONS.index(shard[0]), shard[1]


def _moved(part: Part, rows: npt.NDArray[np.int64], shards: list[ShardName]) -> npt.NDArray[np.int64]:
    """Return canonical rows of a part as those in a larger database."""
    start, starts = 0, {}
    for shard in shards:
        starts[shard[:2]] = start
        start += shard[2]
    own = part.shards
    edges = np.cumsum([0, *(rows for _, _, rows in own)])
    moved = np.array([starts[partition, source] for partition, source, _ in own], np.int64) - edges[:-1]
    return rows + moved[np.searchsorted(edges, rows, side="right") - 1] if len(rows) else rows


def _check(parts: list[Part]) -> None:
    first = parts[0]
    if len(parts) > 1 and first.made_from.get("duplicates") == "remove":
        raise OpenIliasError(
            "Duplicates were removed from each of these, but not from all together.",
            where=first.folder,
            fix="Search everything at once, or keep duplicates.",
        )
    for part in parts[1:]:
        changed = differences(_common(first), _common(part))
        if changed or part.manifest["query_ids"] != first.manifest["query_ids"]:
            raise OpenIliasError(
                f"{first.folder} and {part.folder} cannot be merged, they were not made alike:\n    "
                + "\n    ".join(changed[:12] or ["other queries"]),
                fix="Search all parts with the same queries and options.",
            )
    seen: dict[tuple[str, str], Path] = {}
    for part in parts:
        for partition, source, _ in part.searched:
            if (partition, source) in seen:
                raise OpenIliasError(
                    f"The shard {source} was searched twice.",
                    where=f"{seen[partition, source]} and {part.folder}",
                    fix="Give each part once.",
                )
            seen[partition, source] = part.folder
    # Parts of one database say the same of it; of each database all parts are here.
    databases: dict[str, list[Part]] = {}
    for part in parts:
        databases.setdefault(fingerprint([part.made_from["database"], part.manifest["database"]]), []).append(part)
    for group in databases.values():
        _check_whole(group)


def _check_whole(parts: list[Part]) -> None:
    """Raise OpenIliasError if parts of one database are not all of it."""
    searched = {shard for part in parts for shard in part.searched}
    missing = [source for partition, source, rows in parts[0].shards if (partition, source, rows) not in searched]
    if missing:
        raise OpenIliasError(
            f"{len(missing)} shards of this database were searched by none of these: {first_few(missing)}.",
            where=", ".join(str(part.folder) for part in parts[:3]),
            fix="Give all parts of the same stores: of --shard i/n, those of every i from 0 to n - 1.",
        )
    for name in ("ids", "exclude"):
        known = [part.manifest["lists"][name] for part in parts if name in part.manifest.get("lists", {})]
        lost = known[0]["listed"] - sum(one["met"] for one in known) if known else 0
        if lost > 0 and not any(one["partial"] for one in known):
            raise OpenIliasError(
                f"{lost} ids of the list given as --{name} are in none of these parts.",
                where=", ".join(str(part.folder) for part in parts[:3]),
                fix="Search the stores that hold them too, or search all parts with --partial-database.",
            )


def _common(part: Part) -> dict[str, Any]:
    """Return what parts must have in common; what is done to the boxes of positives concerns those who search them."""
    made_from = part.made_from
    origin = dict(made_from["origin"])
    if "protocol" in origin:
        origin["protocol"] = {**origin["protocol"], "positive_boxes": None}
    return {**{name: value for name, value in made_from.items() if name not in _OF_A_PART}, "origin": origin}


def _made_from(parts: list[Part]) -> dict[str, Any]:
    """Return what a search of everything would be made from."""
    of_positives = [part for part in parts if any(partition == "positives" for partition, _, _ in part.shards)]
    made_from = dict((of_positives or parts)[0].made_from)
    made_from.pop("share", None)
    return made_from | {"database": sorted({state for part in parts for state in part.made_from["database"]})}
