"""Re-ranking with local descriptors: from a ranking to a better one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from openilias.core.errors import OpenIliasError
from openilias.core.files import atomic_path, sha256_of
from openilias.core.fingerprints import differences, fingerprint
from openilias.core.manifests import claim, replacing
from openilias.core.memory import memory_kept
from openilias.core.progress import tell
from openilias.core.resume import kept_state
from openilias.descriptors.local_store import LocalStore
from openilias.rerank.ensemble import ALGORITHM_VERSION, Mix, mixed
from openilias.rerank.similarities import (
    Comparer,
    LocalStep,
    Similarities,
    local_made_from,
    score_by,
    similarities,
)
from openilias.search.ranking import KIND, MANIFEST, TABLE, Ranking, read_ranking, write_ranking

SIMILARITIES = "similarities.npy"
_OURS = f"{re.escape(TABLE)}|{re.escape(SIMILARITIES)}"
_SATURATED = 14.0  # 1 / (1 + exp(14)) is a millionth
_OF_THE_SEARCH = ("benchmark", "origin", "k", "ids", "index", "self_matches", "duplicates", "expand", "ensemble")
_KEPT = ("dims", "weights_from", "sources", "database", "database_size", "left_out", "lists", "searched")


@dataclass(frozen=True)
class Reranked:
    """What came of re-ranking.

    Attributes:
        ranking: the new one.
        similarities: (Q, M) local similarities, in the order of the first ranking; NaN where a list is shorter.
        manifest: of the new one.
    """

    ranking: Ranking
    similarities: npt.NDArray[np.float32]
    manifest: dict[str, Any]


def rerank_to(
    source: Path,
    queries: Sequence[LocalStore],
    database: Sequence[LocalStore],
    step: LocalStep,
    mix: Mix,
    out: Path,
    *,
    by: Comparer | None = None,
    again: Path | None = None,
    trust: bool = False,
    overwrite: bool = False,
) -> Reranked:
    """Re-rank a ranking and write the new one, with the local similarities; does nothing if it was made from the same.

    Args:
        source: the ranking by global descriptors.
        queries: local stores of its queries.
        database: local stores of its images.
        step: how local similarities are made.
        mix: how they and the global ones become one.
        out: folder of the new ranking.
        by: compares, where the method has a network.
        again: a re-ranked ranking whose local similarities are taken, if they were made from the same.
        trust: do not compare the shards with their digests.
        overwrite: replace a ranking made from something else.

    Raises:
        OpenIliasError: as :func:`similarities` and :func:`mixed`; or ``out`` is in the way.
    """
    if mix.shortlist > step.shortlist:
        raise OpenIliasError(
            f"A shortlist of {mix.shortlist} is mixed, and only one of {step.shortlist} compared.",
            fix="Compare as many as are mixed.",
        )
    first, manifest = read_ranking(source)
    if "rerank" in manifest["made_from"]:
        raise OpenIliasError("This ranking is re-ranked already.", where=source, fix="Give the one it was made from.")
    if "share" in manifest["made_from"]:
        raise OpenIliasError("This is one part of a search.", where=source, fix="Put the parts together: ilias merge.")
    _check_benchmark(manifest, [*queries, *database])
    local = local_made_from(manifest, queries, database, step)
    if by is not None:
        by.check([*queries, *database])
        local["network"] = by.network
    kept = {name: manifest["made_from"][name] for name in _OF_THE_SEARCH if name in manifest["made_from"]}
    together = {"mix": mix.model_dump(mode="json"), "mix_version": ALGORITHM_VERSION}
    made_from = kept | {"rerank": local | together}
    state = claim(out, MANIFEST, kind=KIND, made_from=made_from, overwrite=overwrite, ours=_OURS)
    if state == "same":
        try:
            return read_reranked(out)
        except OpenIliasError:
            if not overwrite:
                raise
    compare = score_by(step) if by is None else by.score
    with kept_state(out, f"{fingerprint(local)[:16]}.npz") as path, memory_kept():
        known = None if again is None else _taken(again, local)
        made = known if known is not None else similarities(first, queries, database, step, compare, path, trust=trust)
        _tell_if_saturated(made.values, mix)
        ranking = mixed(first, made.values, mix)
        with replacing(out, state):
            out.mkdir(parents=True, exist_ok=True)
            with atomic_path(out / SIMILARITIES) as temporary, temporary.open("wb") as file:
                np.save(file, made.values)
            write_ranking(
                ranking,
                out,
                made_from=made_from,
                similarities_sha256=sha256_of(out / SIMILARITIES),
                first=str(source.resolve()),
                seconds=made.seconds,
                local={
                    side: [str(store.folder.resolve()) for store in stores]
                    for side, stores in (("queries", queries), ("database", database))
                },
                skipped=[*manifest.get("skipped", []), *_skipped(queries, database)],
                **{name: manifest[name] for name in _KEPT if name in manifest},
            )
    return read_reranked(out)


def read_reranked(folder: Path) -> Reranked:
    """Read what :func:`rerank_to` wrote.

    Raises:
        OpenIliasError: it is no re-ranked ranking, or not whole.
    """
    ranking, manifest = read_ranking(folder)
    path = folder / SIMILARITIES
    if "rerank" not in manifest["made_from"]:
        raise OpenIliasError("This ranking is not re-ranked.", where=folder, fix="Make one: ilias rerank.")
    if not path.is_file() or sha256_of(path) != manifest.get("similarities_sha256"):
        raise OpenIliasError(
            "This file is missing, or not as it was written.", where=path, fix="Re-rank again with --overwrite."
        )
    return Reranked(ranking, np.load(path, allow_pickle=False), manifest)


def _check_benchmark(manifest: dict[str, Any], stores: Sequence[LocalStore]) -> None:
    """Refuse local descriptors of another benchmark.

    Raises:
        OpenIliasError: both say of which one they are, and it is not the same.
    """
    searched = manifest["made_from"].get("benchmark")
    for store in stores:
        described = store.manifest["made_from"].get("benchmark")
        if searched is not None and described is not None and searched != described:
            raise OpenIliasError(
                "These local descriptors are of another benchmark than the ranking, or it has changed since.",
                where=store.folder,
                fix="Describe the images of the benchmark that was searched.",
            )


def _tell_if_saturated(similarities: npt.NDArray[np.float32], mix: Mix) -> None:
    """Say so where the sigmoid tells hardly anything apart: the global similarity then decides alone."""
    share = float(np.mean(mix.gamma * np.abs(similarities[np.isfinite(similarities)]) > _SATURATED))
    if share > 0.5 and mix.global_weight < 1:
        tell(
            f"rerank: with gamma {mix.gamma:g} the sigmoid of {100 * share:.0f} % of the local similarities is 0 or 1 "
            "to within a millionth, and tells them hardly apart: take a smaller gamma (ilias tune)"
        )


def _taken(folder: Path, local: dict[str, Any]) -> Similarities:
    """Return the local similarities of another re-ranking of the same.

    Raises:
        OpenIliasError: they were made from something else.
    """
    before = read_reranked(folder)
    about = before.manifest["made_from"]["rerank"]
    made_from = {name: value for name, value in about.items() if name not in ("mix", "mix_version")}
    changed = differences(made_from, local)
    if changed:
        raise OpenIliasError(
            "These local similarities were made from something else:\n    " + "\n    ".join(changed[:8]),
            where=folder,
            fix="Leave --similarities out.",
        )
    return Similarities(before.similarities, float(before.manifest["seconds"]))


def _skipped(queries: Sequence[LocalStore], database: Sequence[LocalStore]) -> list[dict[str, str]]:
    return [
        {"id": one.id, "reason": f"no local descriptors: {one.reason}"}
        for store in (*queries, *database)
        for one in store.skipped
    ]
