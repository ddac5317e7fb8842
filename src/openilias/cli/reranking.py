"""``ilias rerank`` and ``ilias tune``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from openilias.cli.comparing import (
    Cosine,
    Databases,
    Estimator,
    Gamma,
    GlobalWeight,
    Hamming,
    Hypotheses,
    Least,
    Method,
    MixFile,
    Network,
    NetworkBatch,
    NetworkDevice,
    NetworkPrecision,
    Queries,
    QueryDescriptors,
    Scales,
    Tolerance,
    Trust,
    comparer_of,
    spatial_of,
)
from openilias.cli.options import Json, Overwrite, PartialDatabase, emit, numbers_of, say, table

_WEIGHTS = "0,0.1,0.2,0.3,0.35,0.4,0.45,0.5,0.55,0.6,0.65,0.7,0.8,0.9,1"
_GAMMAS = "0.001,0.002,0.005,0.01,0.02,0.05,0.1,0.2,0.5,1,2"


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command(
        epilog="Example: ilias rerank runs/r18/ranking --method chamfer --queries local/image_queries "
        "--database local/positives --database local/distractors --mix mix.json --out runs/r18-chamfer/ranking"
    )(rerank)
    app.command(epilog="Example: ilias tune runs/validation-chamfer/ranking --benchmark gldv2 --out mix.json")(tune)


def rerank(
    ranking: Annotated[Path, typer.Argument(help="A ranking by global descriptors.")],
    method: Method,
    queries: Queries,
    database: Databases,
    out: Annotated[Path, typer.Option(help="Folder of the new ranking.")],
    shortlist: Annotated[int, typer.Option(min=1, help="Images of each list that are re-ranked.")] = 1000,
    descriptors: Annotated[int, typer.Option(min=1, help="Of a database image, those of largest weight.")] = 100,
    query_descriptors: QueryDescriptors = 600,
    mix: MixFile = None,
    global_weight: GlobalWeight = None,
    gamma: Gamma = None,
    similarities: Annotated[
        Path | None,
        typer.Option(metavar="RERANKED", help="Take the local similarities of this one: another mix costs nothing."),
    ] = None,
    estimator: Estimator = None,
    hamming: Hamming = None,
    cosine: Cosine = None,
    tolerance: Tolerance = None,
    least: Least = None,
    hypotheses: Hypotheses = None,
    scales: Scales = False,
    network: Network = None,
    precision: NetworkPrecision = None,
    device: NetworkDevice = None,
    batch_size: NetworkBatch = None,
    trust: Trust = False,
    overwrite: Overwrite = False,
    json: Json = None,
) -> None:
    """Re-rank the first images of each list by local descriptors. Killed, it continues when run again.

    The other images keep their order. The local similarities are kept beside the new ranking: with --similarities
    another mix of them costs nothing.
    """
    from openilias.descriptors.local_store import open_local_store
    from openilias.rerank.rerank import rerank_to
    from openilias.rerank.similarities import LocalStep
    from openilias.rerank.tuning import mix_of

    spatial = spatial_of(
        method,
        estimator=estimator,
        hamming=hamming,
        cosine=cosine,
        tolerance=tolerance,
        least=least,
        hypotheses=hypotheses,
        scales=scales,
    )
    step = LocalStep(
        method=method,
        shortlist=shortlist,
        descriptors=descriptors,
        query_descriptors=query_descriptors,
        spatial=spatial,
    )
    by = comparer_of(method, network, precision, device, batch_size)
    made = rerank_to(
        ranking,
        [open_local_store(path) for path in queries],
        [open_local_store(path) for path in database],
        step,
        mix_of(mix, method=method, shortlist=shortlist, global_weight=global_weight, gamma=gamma),
        out,
        by=by,
        again=similarities,
        trust=trust,
        overwrite=overwrite,
    )
    count, depth = made.ranking.rows.shape
    say(f"{out}: {count} queries, the best {made.similarities.shape[1]} of {depth} images of each re-ranked")
    emit({"ranking": str(out), "queries": count, "depth": depth, "reranked": made.similarities.shape[1]}, json)


def tune(
    reranked: Annotated[Path, typer.Argument(help="A re-ranked ranking of a benchmark to tune on.")],
    benchmark: Annotated[Path, typer.Option(help="Folder in the ILIAS layout.")],
    out: Annotated[Path, typer.Option(help="File of the best mix, .json.")],
    first: Annotated[
        Path | None, typer.Option(help="The ranking it was made from, if it is not where it was any more.")
    ] = None,
    weights: Annotated[str, typer.Option(metavar="W,W,...", help="Of the global similarity, to try.")] = _WEIGHTS,
    gammas: Annotated[str, typer.Option(metavar="G,G,...", help="To try.")] = _GAMMAS,
    shortlists: Annotated[
        str | None, typer.Option(metavar="M,M,...", help="To try; by default as many as were compared.")
    ] = None,
    k: Annotated[int | None, typer.Option("-k", min=1, help="Of mAP@k; that of the search by default.")] = None,
    partial_database: PartialDatabase = False,
    overwrite: Overwrite = False,
    json: Json = None,
) -> None:
    """Find the best mix of global and local similarity on a benchmark, from one pass of comparisons."""
    from openilias.experiments.tuning import tune_to

    found = tune_to(
        reranked,
        benchmark,
        out,
        first=first,
        weights=numbers_of(weights, "--weights", float),
        gammas=numbers_of(gammas, "--gammas", float),
        shortlists=None if shortlists is None else [int(n) for n in numbers_of(shortlists, "--shortlists", int)],
        k=k,
        partial_database=partial_database,
        overwrite=overwrite,
    )
    best = sorted(found, key=lambda one: -one.map)[:10]
    rows = [
        [str(one.mix.shortlist), f"{one.mix.global_weight:g}", f"{one.mix.gamma:g}", f"{100 * one.map:.2f}"]
        for one in best
    ]
    say(table(["shortlist", "weight", "gamma", "mAP"], rows))
    say(f"{out}: the best of {len(found)}")
    emit({"best": best[0].mix.model_dump(mode="json"), "map": best[0].map, "tried": len(found)}, json)
