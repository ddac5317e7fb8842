"""Tuning the mix of global and local similarity on a benchmark (paper, supplement A: on GLDv2)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from openilias.core.errors import OpenIliasError
from openilias.core.manifests import read_manifest
from openilias.core.progress import progress
from openilias.data import read_ilias
from openilias.evaluate.evaluation import evaluate
from openilias.evaluate.results import evaluate_to
from openilias.rerank.ensemble import Tuned, best_of, grid
from openilias.rerank.rerank import read_reranked
from openilias.rerank.tuning import KIND, write_mix
from openilias.search.ranking import Ranking, read_ranking


def tune_to(
    reranked: Path,
    benchmark: Path,
    out: Path,
    *,
    first: Path | None = None,
    weights: Sequence[float],
    gammas: Sequence[float],
    shortlists: Sequence[int] | None = None,
    k: int | None = None,
    partial_database: bool = False,
    overwrite: bool = False,
) -> list[Tuned]:
    """Try every mix and write the best one.

    Args:
        reranked: a re-ranked ranking, for its local similarities.
        benchmark: what it is a ranking of.
        out: file of the best mix.
        first: the ranking that was re-ranked; by default where it was.
        weights: lambda, to try.
        gammas: to try.
        shortlists: to try; by default as many as were compared.
        k: of mAP@k; that of the search by default.
        partial_database: accept a search that left out shards of the benchmark.
        overwrite: replace a mix.

    Returns:
        All that were tried, in their order.

    Raises:
        OpenIliasError: the rankings or the benchmark do not belong together, or ``out`` is in the way.
    """
    if out.exists() and not overwrite:
        read_manifest(out, kind=KIND)  # anything else is not replaced with --overwrite either
        raise OpenIliasError("There is a mix already.", where=out, fix="Give another --out, or --overwrite.")
    made = read_reranked(reranked)
    source = Path(made.manifest["first"]) if first is None else first
    ranking, manifest = read_ranking(source)
    local = made.manifest["made_from"]["rerank"]
    if manifest["fingerprint"] != local["first"]:
        raise OpenIliasError("This is not the ranking that was re-ranked.", where=source, fix="Give it as --first.")
    read = read_ilias(benchmark)
    before = evaluate_to(source, read, None, k=k, partial_database=partial_database)
    protocol = before.protocol
    lengths = [min(made.similarities.shape[1], ranking.rows.shape[1])] if shortlists is None else list(shortlists)

    def reached(one: Ranking) -> float:
        return evaluate(one, read, protocol, compat=before.compat, trusted=True).map

    tried = []
    with progress("tune", total=len(lengths) * len(weights) * len(gammas), unit="mixes") as step:
        for one in grid(ranking, made.similarities, reached, shortlists=lengths, weights=weights, gammas=gammas):
            tried.append(one)
            step()
    best = best_of(tried)
    made_from = {
        "local": local,
        "benchmark": read.fingerprint,
        "k": protocol.k,
        "weights": list(weights),
        "gammas": list(gammas),
        "shortlists": lengths,
    }
    write_mix(best.mix, out, made_from=made_from, reached=best.map)
    return tried
