"""``ilias build taxonomy``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from openilias.cli.options import Json, emit, say, table

if TYPE_CHECKING:
    from openilias.build.taxonomy_tools import Node, Nodes

app = typer.Typer(help="Check, count, show and edit the taxonomy of a set.", no_args_is_help=True)
edit = typer.Typer(help="Change the taxonomy: through a table, or one thing at a time.", no_args_is_help=True)
app.add_typer(edit, name="edit")

Where = Annotated[Path, typer.Argument(help="Folder of a set, or a taxonomy.json.", metavar="SET")]
Category = Annotated[str, typer.Argument(help="coarse, coarse/mid, or coarse/mid/fine.", metavar="CATEGORY")]
_SHOWN = 10


def register(parent: typer.Typer) -> None:
    """Add the group."""
    parent.add_typer(app, name="taxonomy")


@app.callback()
def _group() -> None:
    """Check, count, show and edit the taxonomy of a set."""


@edit.callback()
def _edit_group() -> None:
    """Change the taxonomy: through a table, or one thing at a time."""


@app.command(epilog="Example: ilias build taxonomy validate my-set")
def validate(
    where: Where,
    fewest: Annotated[int, typer.Option(min=1, help="Objects that a mid or fine category should have.")] = 4,
    show: Annotated[int, typer.Option(min=0, help="How many findings of each kind to print.")] = _SHOWN,
    json: Json = None,
) -> None:
    """Find everything that is wrong with a taxonomy. Exit code 1 if there is an error."""
    from openilias.build.taxonomy_tools import find_place
    from openilias.build.taxonomy_tools import validate as validate_place

    place = find_place(where)
    findings = validate_place(place, fewest=fewest)
    kinds: dict[tuple[str, str], int] = {}
    for one in findings:
        key = (one.severity, one.kind)
        kinds[key] = kinds.get(key, 0) + 1
        if kinds[key] <= show:
            say(f"{one.severity} {one.kind}: {one.where}\n    {one.what}" + (f" {one.fix}" if one.fix else ""))
    more = {key: count - show for key, count in kinds.items() if count > show}
    for (severity, kind), count in more.items():
        say(f"... {count} more {severity} {kind}")
    errors = sum(one.severity == "error" for one in findings)
    say(f"{place.file}: {errors} errors, {len(findings) - errors} warnings")
    emit({"file": str(place.file), "sound": not errors, "findings": [asdict(one) for one in findings]}, json)
    if errors:
        raise typer.Exit(1)


@app.command(epilog="Example: ilias build taxonomy counts my-set")
def counts(where: Where, json: Json = None) -> None:
    """Count objects and categories of each level, without and with `other`."""
    from openilias.build.taxonomy_tools import LEVELS, count_levels, find_place
    from openilias.data.taxonomy import read_taxonomy

    counted = count_levels(read_taxonomy(find_place(where).file).nodes)
    rows = [
        [level, *(str(values[depth]) for values in (counted.categories, counted.nodes, counted.assigned))]
        for depth, level in enumerate(LEVELS)
    ]
    say(table(["level", "categories", "with other", "objects assigned"], rows))
    say(f"\n{counted.objects:,} objects")
    emit(asdict(counted), json)


@app.command(epilog="Example: ilias build taxonomy show my-set --out taxonomy.md")
def show(
    where: Where,
    objects: Annotated[bool, typer.Option("--objects", help="Name the objects too.")] = False,
    out: Annotated[Path | None, typer.Option(help="Markdown file to write.", metavar="FILE", dir_okay=False)] = None,
) -> None:
    """Show a taxonomy as a tree, which is Markdown too. `ilias report` draws it as the paper's Fig. K."""
    from openilias.build.taxonomy_tools import find_place, outline
    from openilias.core.files import write_bytes
    from openilias.data.taxonomy import read_taxonomy

    lines = outline(read_taxonomy(find_place(where).file).nodes, objects=objects)
    if out is None:
        for line in lines:
            say(line)
    else:
        write_bytes(out, "".join(f"{line}\n" for line in lines).encode())
        say(f"{out}: {len(lines)} lines")


@edit.command(epilog="Example: ilias build taxonomy edit export my-set taxonomy.csv")
def export(where: Where, out: Annotated[Path, typer.Argument(help="Table to write.", metavar="CSV")]) -> None:
    """Write the taxonomy as a table object,coarse,mid,fine; objects of the set that have no place come last."""
    from openilias.build.taxonomy_tools import csv_of, find_place, read_or_none
    from openilias.core.errors import OpenIliasError
    from openilias.core.files import write_bytes

    place = find_place(where, new=True)
    taxonomy = read_or_none(place.file)
    if taxonomy is None and place.objects is None:
        raise OpenIliasError("There is no such taxonomy.", where=place.file, fix="Give a set, or its taxonomy.json.")
    nodes: Nodes = {} if taxonomy is None else taxonomy.nodes
    left = sorted((place.objects or frozenset()) - nodes.keys())
    write_bytes(out, csv_of(nodes, left))
    say(f"{out}: {len(nodes) + len(left):,} objects, {len(left):,} of them without a place")


@edit.command(name="import", epilog="Example: ilias build taxonomy edit import my-set taxonomy.csv")
def import_table(
    where: Where,
    source: Annotated[Path, typer.Argument(help="Table object,coarse,mid,fine.", metavar="CSV")],
    partial: Annotated[bool, typer.Option("--partial", help="Objects of the set may be missing.")] = False,
) -> None:
    """Replace the taxonomy by a table that was edited: every object of the set once, and no other."""
    from openilias.build.taxonomy_tools import find_place, nodes_of_csv, write_taxonomy

    place = find_place(where, new=True)
    nodes = nodes_of_csv(source, place.objects, partial=partial)
    write_taxonomy(place.file, nodes)
    say(f"{place.file}: {len(nodes):,} objects")


@edit.command(epilog="Example: ilias build taxonomy edit assign my-set red_mug_001 household kitchen mug")
def assign(
    where: Where,
    item: Annotated[str, typer.Argument(help="The object.", metavar="OBJECT")],
    coarse: Annotated[str, typer.Argument(metavar="COARSE")],
    mid: Annotated[str, typer.Argument(metavar="[MID]", show_default=False)] = "",
    fine: Annotated[str, typer.Argument(metavar="[FINE]", show_default=False)] = "",
) -> None:
    """Give an object its place; levels that are left out are not assigned."""
    from openilias.build.taxonomy_tools import assign as assigned
    from openilias.build.taxonomy_tools import find_place, node_of
    from openilias.core.errors import OpenIliasError

    known = find_place(where, new=True).objects
    if known is not None and item not in known:
        raise OpenIliasError(f"The set has no object {item!r}.", where=where, fix="Check the name.")
    node = node_of(coarse, mid, fine)
    _change(where, lambda nodes: assigned(nodes, item, node), new=True)


@edit.command(epilog="Example: ilias build taxonomy edit rename my-set household/kitchen tableware")
def rename(
    where: Where,
    category: Category,
    name: Annotated[str, typer.Argument(help="Its new name, on its own.", metavar="NAME")],
) -> None:
    """Give a category another name."""
    from openilias.build.taxonomy_tools import rename as renamed

    _change(where, lambda nodes: renamed(nodes, category, name))


@edit.command(epilog="Example: ilias build taxonomy edit merge my-set household/cups household/kitchen")
def merge(
    where: Where,
    category: Category,
    into: Annotated[str, typer.Argument(help="A category of the same level.", metavar="INTO")],
) -> None:
    """Put the objects of a category into another one of the same level."""
    from openilias.build.taxonomy_tools import merge as merged

    _change(where, lambda nodes: merged(nodes, category, into))


@edit.command(epilog="Example: ilias build taxonomy edit remove my-set household/kitchen/mug")
def remove(
    where: Where,
    what: Annotated[str, typer.Argument(help="An object, or coarse/mid, or coarse/mid/fine.", metavar="WHAT")],
) -> None:
    """Remove an object from the taxonomy, or a category, whose objects are not assigned on its level then."""
    from openilias.build.taxonomy_tools import remove as removed

    _change(where, lambda nodes: removed(nodes, what))


def _change(where: Path, change: Callable[[Nodes], dict[str, Node]], *, new: bool = False) -> None:
    from openilias.build.taxonomy_tools import find_place, read_or_none, write_taxonomy

    place = find_place(where, new=new)
    before = read_or_none(place.file)
    old = {} if before is None else dict(before.nodes)
    nodes = change(old)
    write_taxonomy(place.file, nodes)
    changed = sum(old.get(name) != node for name, node in nodes.items()) + len(old.keys() - nodes.keys())
    say(f"{place.file}: {changed:,} of {len(nodes):,} objects changed")
