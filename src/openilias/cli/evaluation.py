"""``ilias evaluate`` and ``ilias report``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from openilias.cli.options import MOST_K, Json, Overwrite, PartialDatabase, emit, say, table
from openilias.core.protocol import Compat

if TYPE_CHECKING:
    from openilias.evaluate.evaluation import Evaluation
    from openilias.evaluate.groups import Group


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command(epilog="Example: ilias evaluate runs/r18/ranking --benchmark my-ilias --out runs/r18/evaluation")(
        evaluate
    )
    app.command(epilog="Example: ilias report runs/r18 --out report")(report)


def evaluate(
    ranking: Annotated[Path, typer.Argument(help="Ranking folder, similarities.json or .pkl.")],
    benchmark: Annotated[Path, typer.Option(help="Folder in the ILIAS layout.")],
    out: Annotated[Path | None, typer.Option(help="Folder of the evaluation; nothing is written by default.")] = None,
    k: Annotated[int | None, typer.Option("-k", min=1, max=MOST_K, help="Cut; the k of the search by default.")] = None,
    compat: Annotated[Compat | None, typer.Option(help="`official` repeats the official code's quirks.")] = None,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Queries without a result count as zero.")
    ] = False,
    partial_database: PartialDatabase = False,
    export_json: Annotated[Path | None, typer.Option(help="Write the official similarities.json too.")] = None,
    export_pickle: Annotated[Path | None, typer.Option(help="Write the official .pkl too.")] = None,
    overwrite: Overwrite = False,
    json: Json = None,
) -> None:
    """Evaluate a ranking: mAP@k, oracle, categories, coverage and clutter groups."""
    from openilias.data import read_ilias
    from openilias.evaluate.official import read_official, write_official_json, write_official_pickle
    from openilias.evaluate.results import as_json, evaluate_to
    from openilias.search.ranking import read_ranking

    result = evaluate_to(
        ranking,
        read_ilias(benchmark),
        out,
        k=k,
        compat=compat,
        allow_missing=allow_missing,
        partial_database=partial_database,
        overwrite=overwrite,
    )
    show_evaluation(result)
    if export_json or export_pickle:
        lists = read_ranking(ranking)[0] if ranking.is_dir() else read_official(ranking)
        if export_json:
            write_official_json(lists, export_json)
        if export_pickle:
            write_official_pickle(lists, export_pickle)
    emit(as_json(result), json)


def report(
    runs: Annotated[
        list[str], typer.Argument(help="Folders with ranking and evaluation, or NAME=FOLDER.", metavar="RUN...")
    ],
    out: Annotated[Path, typer.Option(help="Folder of the report.")],
    benchmark: Annotated[Path | None, typer.Option(help="Where the pictures are; as the run says by default.")] = None,
    gallery: Annotated[int, typer.Option(min=1, help="Queries of which the first images are shown.")] = 60,
    positives: Annotated[
        bool, typer.Option("--all-pictures/--few-pictures", help="Thumbnails of all queries and positives.")
    ] = True,
    figures: Annotated[bool, typer.Option("--figures/--no-figures", help="Every figure and table there is.")] = True,
    seed: Annotated[int, typer.Option(min=0, help="Of intervals, tests and random subsets.")] = 0,
    json: Json = None,
) -> None:
    """Write a site of one or many runs: leaderboard, queries, categories, figures. Opens without a server."""
    from openilias.experiments.report import report_site
    from openilias.report.site import Choice

    choice = Choice(gallery, positives, figures)
    page = report_site(runs, out, benchmark=benchmark, choice=choice, seed=seed)
    say(str(page))
    emit({"page": str(page)}, json)


def show_evaluation(result: Evaluation) -> None:
    """Print an evaluation as short tables."""
    k = result.protocol.k
    say(f"mAP@{k}  {100 * result.map:.2f}    oracle  {100 * result.oracle:.2f}    queries  {len(result.queries)}")
    if result.missing:
        treated = "left out" if result.compat == "official" else "counted as zero"
        say(f"{len(result.missing)} queries are not answered and {treated}")
    if not result.described:
        say("an official file does not say how its descriptors were made, nor what was searched")
    if result.unsearched:
        say(f"{len(result.unsearched)} parts of the benchmark were not searched")
    if result.depth < k:
        say(f"the longest list has {result.depth} images, fewer than k")
    for title, groups in (
        ("category", result.categories),
        ("area coverage", result.coverage),
        ("clutter segments", result.clutter),
    ):
        if groups:
            say()
            say(table([title, "mAP", "size", "positives"], [_row(group) for group in groups]))


def _row(group: Group) -> list[str]:
    value = "-" if group.map is None else f"{100 * group.map:.2f}"
    return [group.name, value, str(group.size), str(group.positives)]
