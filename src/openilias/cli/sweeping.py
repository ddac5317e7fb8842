"""``ilias sweep``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer

from openilias.cli.options import Json, Overwrite, device_of, emit, numbers_of, say, table

_MIX = "Global and local together: weight * global + (1 - weight) * sigmoid(gamma * local)"


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
    method: Annotated[Literal["chamfer", "spatial", "ames"], typer.Option(help="As of ilias rerank.")],
    queries: Annotated[list[Path], typer.Option(help="Local store of queries; may be repeated.")],
    database: Annotated[list[Path], typer.Option(help="Local store of database images; may be repeated.")],
    out: Annotated[Path, typer.Option(help="Folder: rankings, sweep.csv, sweep.svg.")],
    shortlists: Annotated[str, typer.Option(metavar="M,M,...", help="Lengths of the shortlist.")] = "100,400,1000",
    descriptors: Annotated[str, typer.Option(metavar="N,N,...", help="Of a database image.")] = "25,50,100,200,400,600",
    query_descriptors: Annotated[int, typer.Option(min=1, help="Of a query.")] = 600,
    mix: Annotated[
        Path | None, typer.Option(rich_help_panel=_MIX, metavar="FILE", help="What ilias tune has found.")
    ] = None,
    global_weight: Annotated[float | None, typer.Option(rich_help_panel=_MIX, min=0.0, max=1.0)] = None,
    gamma: Annotated[float | None, typer.Option(rich_help_panel=_MIX, min=1e-9, max=1e6)] = None,
    network: Annotated[Path | None, typer.Option(metavar="FILE", help="A checkpoint of AMES.")] = None,
    device: Annotated[str, typer.Option(help="Where AMES computes: cpu, cuda, mps, or auto.")] = "cpu",
    images: Annotated[int, typer.Option(min=1, help="Tell the size of a database of so many.")] = 100_000_000,
    k: Annotated[
        int | None, typer.Option("-k", min=1, help="Of mAP@k; of the search, at most 1000, by default.")
    ] = None,
    overwrite: Overwrite = False,
    json: Json = None,
) -> None:
    """Re-rank with several shortlists and numbers of descriptors, from one extraction. Killed, it continues."""
    from openilias.descriptors.local_store import open_local_store
    from openilias.experiments.sweep import sweep_to
    from openilias.report.sweep import FIGURE, sweep_header, sweep_rows
    from openilias.rerank.similarities import LocalStep
    from openilias.rerank.tuning import mix_of

    if (method == "ames") != (network is not None):
        raise typer.BadParameter("--method ames and --network FILE belong together.")
    score = digest = None
    if network is not None:
        from openilias.rerank.ames_scores import open_ames

        score, digest = open_ames(network, device_of(device))
    lengths = [int(n) for n in numbers_of(shortlists, "--shortlists", int)]
    counts = [int(n) for n in numbers_of(descriptors, "--descriptors", int)]
    if min(lengths + counts) < 1:
        raise typer.BadParameter("--shortlists and --descriptors are at least 1.")
    found = sweep_to(
        ranking,
        [open_local_store(path) for path in queries],
        [open_local_store(path) for path in database],
        benchmark,
        LocalStep(method=method, query_descriptors=query_descriptors),
        mix_of(mix, shortlist=max(lengths), global_weight=global_weight, gamma=gamma),
        out,
        shortlists=lengths,
        descriptors=counts,
        k=k,
        score=score,
        network=digest,
        overwrite=overwrite,
    )
    say(table(sweep_header(images), sweep_rows(found, images)))
    say(f"not re-ranked: mAP {100 * found.first:.2f}; at most {100 * found.oracle:.2f} (oracle)")
    say(f"{out / FIGURE}")
    emit(asdict(found), json)
