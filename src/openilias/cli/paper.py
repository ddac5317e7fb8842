"""``ilias paper``: the published numbers, with what is wrong in them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from openilias.cli.options import Json, emit, say, table

app = typer.Typer(help="The numbers of the ILIAS paper, with errata.", no_args_is_help=True)


@app.command("table", epilog="Example: ilias paper table G --sort map1k_100m --where arch=ViT-L --first 5")
def printed_numbers(
    name: Annotated[
        str | None, typer.Argument(help="1 to 4, A to H, or 'figure E'; all are listed by default.", metavar="NAME")
    ] = None,
    sort: Annotated[str | None, typer.Option(metavar="COLUMN", help="Order by a column, largest first.")] = None,
    rising: Annotated[bool, typer.Option("--rising", help="Smallest first.")] = False,
    where: Annotated[
        list[str] | None, typer.Option(metavar="COLUMN=TEXT", help="Only rows that hold this text; repeatable.")
    ] = None,
    columns: Annotated[str | None, typer.Option(metavar="C,C,...", help="Only these columns, and the first.")] = None,
    first: Annotated[int | None, typer.Option(min=1, help="Only so many rows.")] = None,
    format_: Annotated[
        Literal["text", "markdown", "latex", "csv"], typer.Option("--format", help="How it is printed.")
    ] = "text",
    json: Json = None,
) -> None:
    """Print a table of the paper; what is wrong in it is marked and explained."""
    from openilias.published import names, printed
    from openilias.report.layout import csv_of, headings, latex, markdown, printed_table, texts

    if name is None:
        say(
            table(
                ["name", "rows", "what it shows"], [[n, str(len(printed(n).cells)), printed(n).title] for n in names()]
            )
        )
        emit({"tables": {n: printed(n).title for n in names()}}, json)
        return
    chosen = {n.casefold(): n for n in names()}.get(name.casefold())
    if chosen is None:
        raise typer.BadParameter(f"'{name}' is none of {', '.join(names())}.", param_hint="NAME")
    found = printed(chosen)
    asked = [condition.partition("=") for condition in where or []]
    for column, sign, _ in asked:
        if not sign:
            raise typer.BadParameter(f"'{column}' is not COLUMN=TEXT.", param_hint="--where")
    try:
        for column, _, text in asked:
            found = found.where(column, text)
        if sort is not None:
            found = found.ordered(sort, rising=rising)
        if columns is not None:
            found = found.only(tuple(columns.split(",")))
    except KeyError as error:
        raise typer.BadParameter(f"There is no column {error}; there are {', '.join(found.columns)}.") from None
    made = printed_table(found if first is None else found.head(first))
    if format_ == "text":
        say(f"{made.title}\n")
        say(table(headings(made), texts(made)))
        for note in made.notes:
            say(f"\n{note}")
    else:
        say({"markdown": markdown, "latex": latex, "csv": csv_of}[format_](made).rstrip("\n"))
    emit(
        {
            "table": chosen,
            "columns": list(found.columns),
            "rows": [list(row) for row in made.rows],
            "notes": list(made.notes),
        },
        json,
    )


@app.command("figure", epilog="Example: ilias paper figure 1 --out figures")
def printed_figure(
    name: Annotated[str, typer.Argument(help="1 or E: those whose numbers are printed.", metavar="NAME")],
    out: Annotated[Path, typer.Option(help="Folder of the figure and its numbers.")],
    json: Json = None,
) -> None:
    """Draw a figure of the paper from its printed numbers."""
    from openilias.report.figures.exhibit import write_exhibit
    from openilias.report.figures.groups import published_ranks
    from openilias.report.figures.style import figure_style
    from openilias.report.figures.timeline import timeline
    from openilias.report.output import output_folder

    wanted = {"1": lambda: [timeline()], "e": lambda: [published_ranks("clutter"), published_ranks("coverage")]}
    make = wanted.get(name.casefold())
    if make is None:
        why = f"The numbers of figure '{name}' are not printed; ilias report draws it of your own runs."
        raise typer.BadParameter(why, param_hint="NAME")
    with output_folder(out, "paper_figure", {"figure": name}) as folder, figure_style():
        files = [file for exhibit in make() for file in write_exhibit(exhibit, folder)]
    for file in files:
        say(str(out / file))
    emit({"files": [str(out / file) for file in files]}, json)


@app.command(epilog="Example: ilias paper errata")
def errata(json: Json = None) -> None:
    """List what is known to be wrong in the paper."""
    from dataclasses import asdict

    from openilias.published import errata as known

    rows = [[one.table, one.row, one.column, one.printed, one.right, one.why] for one in known()]
    say(table(["table", "row", "column", "printed", "right", "why"], rows))
    emit({"errata": [asdict(one) for one in known()]}, json)
