"""Re-ranking with shortlists of several lengths and several numbers of descriptors, from one extraction (Fig. H)."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from openilias.core.errors import OpenIliasError
from openilias.core.files import read_json, write_json
from openilias.core.progress import tell
from openilias.core.protocol import Protocol
from openilias.data import read_ilias
from openilias.descriptors.local_store import LocalStore
from openilias.evaluate.evaluation import evaluate
from openilias.report.sweep import Point, Sweep, write_sweep
from openilias.rerank.ensemble import Mix, mixed
from openilias.rerank.rerank import rerank_to
from openilias.rerank.similarities import LocalStep, Score
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
    score: Score | None = None,
    network: str | None = None,
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
        score: compares, where the method has a network.
        network: the digest of that network.
        overwrite: replace rankings made from something else.

    Raises:
        OpenIliasError: as :func:`openilias.rerank.rerank.rerank_to`, or the benchmark is another.
    """
    first, manifest = read_ranking(source)
    read = read_ilias(benchmark)
    if manifest["made_from"].get("benchmark") not in (None, read.fingerprint):
        raise OpenIliasError("This ranking is of another benchmark.", where=source, fix="Give its --benchmark.")
    protocol = Protocol(k=k or min(int(manifest["made_from"]["k"]), 1000))
    lengths = sorted({min(length, first.rows.shape[1]) for length in shortlists})
    before = evaluate(first, read, protocol)
    points: list[Point] = []
    for count in sorted(set(descriptors)):
        folder = out / f"descriptors={count}"
        begun = time.perf_counter()
        wanted = step.model_copy(update={"shortlist": lengths[-1], "descriptors": count})
        longest = mix.model_copy(update={"shortlist": lengths[-1]})
        made = rerank_to(
            source, queries, database, wanted, longest, folder, score=score, network=network, overwrite=overwrite
        )
        seconds = _kept(folder.with_suffix(".json"), str(made.manifest["fingerprint"]), time.perf_counter() - begun)
        sizes = _bytes(database, count)
        for length in lengths:
            ranking = mixed(first, made.similarities, mix.model_copy(update={"shortlist": length}))
            reached = evaluate(ranking, read, protocol, trusted=True).map
            each = seconds / max(1, len(first.query_ids)) * length / lengths[-1]
            points.append(Point(length, count, reached, each, *sizes))
            tell(f"sweep: {count} descriptors, shortlists of {length}: mAP {100 * reached:.2f}")
    sweep = Sweep(step.method, tuple(points), before.map, before.oracle)
    write_sweep(sweep, out)
    return sweep


def _kept(path: Path, fingerprint: str, seconds: float) -> float:
    """Return how long it took to make a ranking: now, or before if it was there already."""
    if path.is_file():
        about = read_json(path)
        if isinstance(about, dict) and about.get("fingerprint") == fingerprint:
            return float(about["seconds"])
    write_json(path, {"fingerprint": fingerprint, "seconds": seconds})
    return seconds


def _bytes(database: Sequence[LocalStore], most: int) -> tuple[float, float]:
    """Return the mean bytes of an image: of its first descriptors, and of where they are."""
    images = sum(store.images for store in database)
    counts = sum(int(np.minimum(np.diff(shard.offsets), most).sum()) for store in database for shard in store.shards)
    each = database[0].bytes_per_image()["descriptors"] * database[0].images / max(1, database[0].count)
    return each * counts / max(1, images), 16 * counts / max(1, images)
