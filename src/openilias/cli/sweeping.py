"""``ilias sweep``."""

from __future__ import annotations

from dataclasses import asdict
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


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command(
        epilog="Example: ilias sweep runs/r18/ranking --benchmark my-ilias --method chamfer "
        "--queries local/image_queries --database local/positives --database local/distractors --mix mix.json "
        "--shortlists 100,400,1000 --descriptors 25,50,100 --out runs/sweep"
    )(sweep)


def sweep(
    ranking: Annotated[Path, typer.Argument(help="A ranking by global descriptors.")],
    benchmark: Annotated[Path, typer.Option(help="Folder in the ILIAS layout.")],
    method: Method,
    queries: Queries,
    database: Databases,
    out: Annotated[Path, typer.Option(help="Folder: rankings, sweep.csv, sweep.svg.")],
    shortlists: Annotated[str, typer.Option(metavar="M,M,...", help="Lengths of the shortlist.")] = "100,400,1000",
    descriptors: Annotated[str, typer.Option(metavar="N,N,...", help="Of a database image.")] = "25,50,100,200,400,600",
    query_descriptors: QueryDescriptors = 600,
    mix: MixFile = None,
    global_weight: GlobalWeight = None,
    gamma: Gamma = None,
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
    images: Annotated[int, typer.Option(min=1, help="Tell the size of a database of so many.")] = 100_000_000,
    k: Annotated[
        int | None, typer.Option("-k", min=1, help="Of mAP@k; by default of the search, at most 1000.")
    ] = None,
    partial_database: PartialDatabase = False,
    trust: Trust = False,
    overwrite: Overwrite = False,
    json: Json = None,
) -> None:
    """Re-rank with several shortlists and numbers of descriptors, from one extraction. Killed, it continues."""
    from openilias.descriptors.local_store import open_local_store
    from openilias.experiments.sweep import sweep_to
    from openilias.report.sweep import FIGURE, sweep_header, sweep_rows
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
    lengths = [int(n) for n in numbers_of(shortlists, "--shortlists", int)]
    counts = [int(n) for n in numbers_of(descriptors, "--descriptors", int)]
    if min(lengths + counts) < 1:
        raise typer.BadParameter("--shortlists and --descriptors are at least 1.")
    found = sweep_to(
        ranking,
        [open_local_store(path) for path in queries],
        [open_local_store(path) for path in database],
        benchmark,
        LocalStep(method=method, query_descriptors=query_descriptors, spatial=spatial),
        mix_of(mix, method=method, shortlist=max(lengths), global_weight=global_weight, gamma=gamma),
        out,
        shortlists=lengths,
        descriptors=counts,
        k=k,
        by=comparer_of(method, network, precision, device, batch_size),
        partial_database=partial_database,
        trust=trust,
        overwrite=overwrite,
    )
    say(table(sweep_header(images), sweep_rows(found, images)))
    say(f"not re-ranked: mAP {100 * found.first:.2f}; at most {100 * found.oracle:.2f} (oracle)")
    say(f"{out / FIGURE}")
    emit(asdict(found), json)
