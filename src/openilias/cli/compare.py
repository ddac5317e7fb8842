"""``ilias compare``: which models differ, and by how much."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from openilias.cli.options import Json, emit, say, table


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command(epilog="Example: ilias compare runs/sift runs/resnet --out compared")(compare)


def compare(
    evaluations: Annotated[
        list[str], typer.Argument(help="Runs or evaluations, or NAME=FOLDER.", metavar="EVALUATION...")
    ],
    against: Annotated[
        str | None, typer.Option(metavar="NAME", help="What the others are compared with; the first by default.")
    ] = None,
    all_pairs: Annotated[bool, typer.Option("--all-pairs", help="Compare each with each.")] = False,
    common: Annotated[bool, typer.Option("--common", help="Leave out queries that not all of them have.")] = False,
    across_benchmarks: Annotated[
        bool, typer.Option("--across-benchmarks", help="Accept that another database was searched.")
    ] = False,
    level: Annotated[float, typer.Option(min=0.5, max=0.9999, help="Of the confidence intervals.")] = 0.95,
    interval: Annotated[Literal["bca", "percentile"], typer.Option(help="How they are made.")] = "bca",
    resamples: Annotated[int, typer.Option(min=100, max=1_000_000, help="Of bootstrap and tests.")] = 10_000,
    seed: Annotated[int, typer.Option(min=0, help="Of both.")] = 0,
    deciding: Annotated[int, typer.Option(min=0, help="Queries listed of each pair.")] = 10,
    out: Annotated[Path | None, typer.Option(help="Folder of tables and figures.")] = None,
    json: Json = None,
) -> None:
    """Compare models: confidence intervals and paired tests over objects, and the queries that decide."""
    from openilias.evaluate import comparison
    from openilias.experiments.results import read_results
    from openilias.report.figures import differences
    from openilias.report.figures.style import figure_style
    from openilias.report.layout import headings, texts

    if len(evaluations) < 2:
        raise typer.BadParameter("Give two evaluations or more.", param_hint="EVALUATION...")
    if all_pairs and against is not None:
        raise typer.BadParameter("Each with each, or all with one.", param_hint="--against")
    results = read_results(evaluations, across_benchmarks=across_benchmarks)
    names = [result.name for result in results]
    if against is not None and against not in names:
        raise typer.BadParameter(f"'{against}' is none of {', '.join(names)}.", param_hint="--against")
    first = 0 if against is None else names.index(against)
    places = range(len(names))
    pairs = [(a, b) for a in places for b in places if (a < b if all_pairs else a == first != b)]
    aligned = comparison.align({result.name: result.evaluation for result in results}, common=common)
    found = comparison.compare(
        aligned, pairs, level=level, interval=interval, resamples=resamples, seed=seed, deciding=deciding
    )
    with figure_style():
        shown = [differences.standings(found), differences.differences(found), differences.queries(found)]
    for exhibit in shown:
        say(f"{exhibit.title}\n")
        say(table(headings(exhibit.table), texts(exhibit.table)))
        for note in exhibit.table.notes:
            say(note)
        say()
    if out is not None:
        differences.write_comparison(found, out)
        say(f"written: {out}")
    emit(differences.comparison_json(found), json)
