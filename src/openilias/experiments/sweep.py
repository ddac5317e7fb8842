"""Re-ranking with shortlists of several lengths and several numbers of descriptors, from one extraction (Fig. H)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from openilias.core.errors import OpenIliasError
from openilias.core.progress import tell
from openilias.data import read_ilias
from openilias.descriptors.local_store import LocalStore
from openilias.evaluate.evaluation import evaluate
from openilias.evaluate.results import evaluate_to
from openilias.report.sweep import Point, Sweep, write_sweep
from openilias.rerank.ensemble import Mix, mixed
from openilias.rerank.rerank import rerank_to
from openilias.rerank.similarities import Comparer, LocalStep
from openilias.search.ranking import read_ranking


def sweep_to(
    source: Path,
    queries: Sequence[LocalStore],
    database: Sequence[LocalStore],
    benchmark: Path,
    step: LocalStep,
    mix: Mix,
    out: Path,
    *,
    shortlists: Sequence[int],
    descriptors: Sequence[int],
    k: int | None = None,
    by: Comparer | None = None,
    partial_database: bool = False,
    trust: bool = False,
    overwrite: bool = False,
) -> Sweep:
    """Re-rank once for each number of descriptors, and evaluate each shortlist; killed, it goes on.

    Args:
        source: the ranking by global descriptors.
        queries: local stores of its queries.
        database: local stores of its images, with as many descriptors as are asked for.
        benchmark: what was searched.
        step: how they are compared; its shortlist and descriptors are replaced.
        mix: how global and local similarity become one; likewise.
        out: folder: a re-ranked ranking for each number of descriptors, ``sweep.csv`` and ``sweep.svg``.
        shortlists: lengths; those beyond the lists are those of the lists.
        descriptors: of a database image.
        k: of mAP@k; that of the search, at most 1,000, by default.
        by: compares, where the method has a network.
        partial_database: accept a search that left out shards of the benchmark.
        trust: do not compare the shards with their digests.
        overwrite: replace rankings made from something else.

    Raises:
        OpenIliasError: as :func:`openilias.rerank.rerank.rerank_to` and
            :func:`openilias.evaluate.results.evaluate_to`; more descriptors than are stored.
    """
    first, manifest = read_ranking(source)
    read = read_ilias(benchmark)
    before = evaluate_to(
        source, read, None, k=k or min(int(manifest["made_from"]["k"]), 1000), partial_database=partial_database
    )
    _check_counts(database, max(descriptors))
    lengths = sorted({min(length, first.rows.shape[1]) for length in shortlists})
    points: list[Point] = []
    for count in sorted(set(descriptors)):
        folder = out / f"descriptors={count}"
        wanted = step.model_copy(update={"shortlist": lengths[-1], "descriptors": count})
        longest = mix.model_copy(update={"shortlist": lengths[-1]})
        made = rerank_to(source, queries, database, wanted, longest, folder, by=by, trust=trust, overwrite=overwrite)
        seconds = float(made.manifest["seconds"])
        sizes = _bytes(database, count)
        for length in lengths:
            ranking = mixed(first, made.similarities, mix.model_copy(update={"shortlist": length}))
            reached = evaluate(ranking, read, before.protocol, compat=before.compat, trusted=True).map
            each = seconds / max(1, len(first.query_ids)) * length / lengths[-1]
            points.append(Point(length, count, reached, each, *sizes))
            tell(f"sweep: {count} descriptors, shortlists of {length}: mAP {100 * reached:.2f}")
    sweep = Sweep(step.method, tuple(points), before.map, before.oracle)
    write_sweep(sweep, out)
    return sweep


def _check_counts(database: Sequence[LocalStore], asked: int) -> None:
    for store in database:
        made_from = store.manifest["made_from"]
        most = made_from.get("most") or made_from.get("local", {}).get("most")
        if most is not None and asked > most:
            raise OpenIliasError(
                f"{asked} descriptors are asked for, and of an image at most {most} are stored.",
                where=store.folder,
                fix="Ask for fewer (--descriptors), or describe with --most.",
            )


def _bytes(database: Sequence[LocalStore], most: int) -> tuple[float, float]:
    """Return the mean bytes of an image: of its first descriptors, and of where they are."""
    images = sum(store.images for store in database)
    counts = sum(int(np.minimum(np.diff(shard.offsets), most).sum()) for store in database for shard in store.shards)
    each = database[0].bytes_per_image()["descriptors"] * database[0].images / max(1, database[0].count)
    return each * counts / max(1, images), 16 * counts / max(1, images)
