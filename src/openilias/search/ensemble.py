"""Ensembles of rankings: several models, or images and texts, over one database (paper, section 5.3).

The similarities of each pair are put together. An image that one ranking lists and another does not is scored there
too, from the stores: nothing counts as zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from openilias.core.errors import OpenIliasError
from openilias.core.fingerprints import differences
from openilias.core.manifests import replacing
from openilias.core.progress import progress, tell
from openilias.core.protocol import Fusion
from openilias.search.members import Member, Numbers
from openilias.search.ranking import ABSENT, Ranking, claim_ranking, write_ranking

ALGORITHM_VERSION = 1
RANK_OFFSET = 60
"""Of reciprocal rank fusion (Cormack et al., SIGIR 2009)."""


def fuse(scores: npt.NDArray[np.floating], fusion: Fusion, weights: Sequence[float]) -> npt.NDArray[np.float64]:
    """Put the scores of one query together.

    Args:
        scores: (M, N) of each member and image.
        fusion: ``mean`` of the scores; ``zscore``, of the scores less their mean, over their standard deviation;
            ``rank``, of 1 / (60 + rank), images of equal score sharing the best of their ranks.
        weights: (M,) of the members.

    Returns:
        (N,) float64.
    """
    values = scores.astype(np.float64)
    if fusion == "zscore":
        spread = values.std(1, keepdims=True)
        values = (values - values.mean(1, keepdims=True)) / np.where(spread > 0, spread, 1)
    if fusion == "rank":
        ranks = [1 + np.searchsorted(np.sort(-row), -row) for row in values]
        values = 1 / (RANK_OFFSET + np.array(ranks, np.float64))
    total = np.zeros(values.shape[1])
    for weight, row in zip(weights, values, strict=True):  # one after the other: the order of the sum is fixed
        total += weight * row
    return total / sum(weights)


def ensemble(
    members: Sequence[Member], *, fusion: Fusion = "mean", weights: Sequence[float], k: int
) -> tuple[Ranking, Numbers]:
    """Put rankings together; candidates of a query are all images that a member lists.

    Args:
        members: the first says the queries; each of the others has the same, or one of the same object.
        fusion: as in :func:`fuse`.
        weights: of the members.
        k: how many images per query.

    Returns:
        The ranking, and (Q,) how many images of each list are certainly those of a search of everything: of an image
        that no member lists, each score is at most that of the last listed one. Known of ``mean`` only, else 0.

    Raises:
        OpenIliasError: queries that do not go together, or a damaged store.
    """
    query_ids = members[0].ranking.query_ids
    places = [member.places_of(query_ids) for member in members]
    listed = [_listed(member, place) for member, place in zip(members, places, strict=True)]
    candidates = [
        np.unique([row for one in listed for row in one.rows[q] if row != ABSENT]) for q in range(len(places[0]))
    ]
    pairs = _Pairs(
        np.repeat(np.arange(len(candidates)), [len(rows) for rows in candidates]),
        np.concatenate(candidates),
        np.cumsum([0, *map(len, candidates)]),
    )
    scores = np.stack([_scored(*one, pairs) for one in zip(members, places, listed, strict=True)])
    lists, values, certain = [], [], []
    for q, rows in enumerate(candidates):
        fused = fuse(scores[:, pairs.edges[q] : pairs.edges[q + 1]], fusion, weights).astype(np.float32)
        order = np.lexsort((rows, -fused))[:k]
        lists.append(rows[order])
        values.append(fused[order])
        bound = _bound(members, [one.scores[q] for one in listed], weights) if fusion == "mean" else np.inf
        certain.append(int((values[-1] > np.float32(bound)).cumprod().sum()))
    return _ranking(members[0], query_ids, lists, values), np.array(certain, np.int64)


class _Listed(NamedTuple):
    """(Q, k) canonical rows, ABSENT where there is none, and scores."""

    rows: Numbers
    scores: npt.NDArray[np.float32]


class _Pairs(NamedTuple):
    """Candidates, one query after the other: query and canonical row of each, and where those of a query begin."""

    queries: Numbers
    rows: Numbers
    edges: Numbers


def _listed(member: Member, places: Numbers) -> _Listed:
    """Return what the queries at some places found."""
    rows, known = member.ranking.rows[places], member.ranking.db_rows
    if known is None:
        raise OpenIliasError("This ranking does not say where in the database its images are.", where=member.folder)
    scores = member.ranking.scores[places].astype(np.float32)
    return _Listed(np.where(rows == ABSENT, ABSENT, known[rows]), scores)


def _scored(member: Member, places: Numbers, listed: _Listed, pairs: _Pairs) -> npt.NDArray[np.float32]:
    """Return (pairs,) the scores of all candidates: those that are listed as they are, the others from the stores."""
    scores = np.full(len(pairs.rows), np.nan, np.float32)
    for q, (rows, values) in enumerate(zip(*listed, strict=True)):
        inside = pairs.rows[pairs.edges[q] : pairs.edges[q + 1]]
        present = rows != ABSENT
        scores[pairs.edges[q] + np.searchsorted(inside, rows[present])] = values[present]
    missing = np.flatnonzero(np.isnan(scores))
    with progress(f"score {member.name}", total=len(missing), unit="pairs") as step:
        member.verify(pairs.rows[missing])
        scores[missing] = member.scores_of(places[pairs.queries[missing]], pairs.rows[missing], step)
    return scores


def _bound(members: Sequence[Member], scores: Sequence[npt.NDArray[np.float32]], weights: Sequence[float]) -> float:
    """Return what the mean of an image that no member lists is at most, for one query."""
    total = 0.0
    for member, listed, weight in zip(members, scores, weights, strict=True):
        count = int(np.isfinite(listed).sum())
        if count < int(member.made_from["k"]) or count >= int(member.manifest["database_size"]):
            return -np.inf  # it lists everything
        total += weight * float(listed[count - 1])
    return total / sum(weights)


def _ranking(first: Member, query_ids: tuple[str, ...], lists: list[Numbers], values: list[Any]) -> Ranking:
    depth = max(map(len, lists), default=0)
    rows, scores = np.full((len(lists), depth), ABSENT, np.int64), np.full((len(lists), depth), -np.inf, np.float32)
    for q, (one, score) in enumerate(zip(lists, values, strict=True)):
        rows[q, : len(one)], scores[q, : len(one)] = one, score
    occurring, places = np.unique(rows[rows != ABSENT], return_inverse=True)
    rows[rows != ABSENT] = places
    return Ranking(query_ids, tuple(first.base.ids_at(occurring)), rows, scores, occurring)


def ensemble_to(
    members: Sequence[Member],
    out: Path,
    *,
    fusion: Fusion = "mean",
    weights: Sequence[float] | None = None,
    k: int | None = None,
    overwrite: bool = False,
) -> tuple[Ranking, Numbers | None]:
    """Put rankings together and write the ranking folder; does nothing if it was made from the same.

    Args:
        members: two or more.
        out: folder of the ranking.
        fusion: as in :func:`fuse`.
        weights: of the members; all the same by default.
        k: how many images per query; as many as the shortest member lists by default.
        overwrite: replace a ranking made from something else.

    Returns:
        The ranking and, where it was made now, how many images of each list are certain.

    Raises:
        OpenIliasError: as :func:`ensemble`; other databases or benchmarks; weights that cannot be; or ``out`` is in
            the way.
    """
    shares = [1.0] * len(members) if weights is None else list(weights)
    if len(members) < 2 or len(shares) != len(members) or not all(0 < share < np.inf for share in shares):
        raise OpenIliasError(
            f"{len(members)} rankings cannot be put together with the weights {shares}.",
            fix="Give two rankings or more, and a weight above 0 for each.",
        )
    for other in members[1:]:
        _check_alike(members[0], other)
    depth = min(int(member.made_from["k"]) for member in members)
    if k is not None and k > depth:
        raise OpenIliasError(f"The lists hold {depth} images, fewer than {k}.", fix="Search deeper: ilias search -k.")
    made_from = {
        "algorithm_version": ALGORITHM_VERSION,
        "benchmark": members[0].made_from.get("benchmark"),
        "origin": _origin(members),
        "k": k or depth,
        "ensemble": {"fusion": fusion, "weights": shares, "members": [one.manifest["fingerprint"] for one in members]},
        **{name: members[0].made_from[name] for name in _CHOICE if name in members[0].made_from},
    }
    state, made = claim_ranking(out, made_from, overwrite=overwrite)
    if made is not None:
        return made[0], None
    ranking, certain = ensemble(members, fusion=fusion, weights=shares, k=k or depth)
    if fusion == "mean":
        tell(
            f"ensemble: at least the first {certain.min():,} images (median {int(np.median(certain)):,}) of a list are "
            "those that a search of everything would list; deeper rankings make more certain"
        )
    known = [member.manifest for member in members]
    skipped = {entry["id"]: entry for manifest in known for entry in manifest.get("skipped", [])}
    with replacing(out, state):
        write_ranking(
            ranking,
            out,
            made_from=made_from,
            dims=" + ".join(str(manifest.get("dims")) for manifest in known),
            weights_from="; ".join(dict.fromkeys(str(manifest.get("weights_from", "")) for manifest in known)),
            members=[str(member.folder) for member in members],
            certain={"least": int(certain.min()), "median": int(np.median(certain))} if fusion == "mean" else None,
            skipped=list(skipped.values()),
            **{name: known[0][name] for name in _SEARCHED if name in known[0]},
        )
    return ranking, certain


_CHOICE = ("ids", "self_matches", "duplicates")
"""Of a search, what must be the same of all members."""
_SEARCHED = ("sources", "database", "database_size", "left_out", "searched")


def _check_alike(first: Member, other: Member) -> None:
    """Raise OpenIliasError if rankings are of different images."""
    names = ("benchmark", *_CHOICE)
    one, two = ({name: member.made_from.get(name) for name in names} for member in (first, other))
    changed = differences(one, two)
    if first.manifest["database"] != other.manifest["database"]:
        changed.append("the shards of the database")
    if changed:
        raise OpenIliasError(
            f"{first.folder} and {other.folder} were not searched in the same images:\n    "
            + "\n    ".join(changed[:6]),
            fix="Describe and search the same images with each model.",
        )


def _origin(members: Sequence[Member]) -> dict[str, Any]:
    """Return what made the members; with a protocol, if they have the same one but for what concerns queries only."""
    origins = [member.made_from["origin"] for member in members]
    known: dict[str, Any] = {"model": {"name": " + ".join(member.name for member in members)}, "ensemble": origins}
    stated = [origin.get("protocol") for origin in origins]
    if all(one is not None and one == stated[0] for one in stated):
        known["protocol"] = stated[0]
    return known
