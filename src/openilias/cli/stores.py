"""``ilias data convert`` and ``ilias data compare``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from openilias.cli.options import Json, Overwrite, emit, say, table


def register(app: typer.Typer) -> None:
    """Add the commands to the group."""
    app.command(epilog="Example: ilias data convert features_positives.hdf5 --out stores/positives")(convert)
    app.command(epilog="Example: ilias data compare runs/r18/positives features_positives.hdf5 --below 0.999")(compare)


def convert(
    source: Annotated[
        Path, typer.Argument(help="A store; or official HDF5: a file, or a folder of distractors.", metavar="SOURCE")
    ],
    out: Annotated[Path, typer.Option(help="Folder of the store, or of the HDF5 files; or one .hdf5 file.")],
    dtype: Annotated[Literal["float16", "float32"] | None, typer.Option(help="As stored by default.")] = None,
    gzip: Annotated[int, typer.Option(min=0, max=9, help="How hard to pack HDF5 files; 0: not at all.")] = 0,
    tars_per_file: Annotated[int, typer.Option(min=1, help="Tars in one HDF5 file of distractors.")] = 10,
    overwrite: Overwrite = False,
    json: Json = None,
) -> None:
    """Convert official HDF5 features to a store, or a store to them. Killed, it continues when run again."""
    from openilias.descriptors.convert import convert as convert_store

    made = convert_store(source, out, dtype=dtype, gzip=gzip, tars_per_file=tars_per_file, overwrite=overwrite)
    kept = f", {made.kept} already there" if made.kept else ""
    say(f"{out}: {made.rows} descriptors of {made.dims} dimensions{kept}")
    names = [str(path) for path in made.made]
    emit({"made": names, "rows": made.rows, "dims": made.dims, "kept": made.kept}, json)


def compare(
    a: Annotated[Path, typer.Argument(help="A store, or official HDF5.", metavar="STORE")],
    b: Annotated[Path, typer.Argument(help="Another one; any order of ids.", metavar="STORE")],
    out: Annotated[Path | None, typer.Option(help="Folder of cosines.parquet, histogram and page.")] = None,
    benchmark: Annotated[Path | None, typer.Option(help="Where the pictures of the page are.")] = None,
    worst: Annotated[int, typer.Option(min=1, help="How many of the lowest cosines to list.")] = 20,
    below: Annotated[float | None, typer.Option(help="Exit code 1 if a cosine is below this.")] = None,
    json: Json = None,
) -> None:
    """Compare two stores id by id: the cosine of the two descriptors of each."""
    from openilias.core.errors import OpenIliasError
    from openilias.data import read_ilias
    from openilias.descriptors.compare import compare_stores
    from openilias.descriptors.store import open_store
    from openilias.report.comparison import as_json, rows, write_comparison

    if benchmark is not None and out is None:
        raise OpenIliasError("The pictures of a benchmark are shown on the page.", fix="Give --out too.")
    pictures = None if benchmark is None else read_ilias(benchmark)
    first, second = open_store(a), open_store(b)
    if out is None:
        found = compare_stores(first, second, worst=worst)
    else:
        found = write_comparison(first, second, out, benchmark=pictures, worst=worst)
    say(table([f"A: {a}, B: {b}", ""], [list(row) for row in rows(found)]))
    for name, ids, count in (("A", found.some_a, found.only_a), ("B", found.some_b, found.only_b)):
        if count:
            say(f"\nonly in {name}: {', '.join(ids)}{f' and {count - len(ids)} more' if count > len(ids) else ''}")
    say("\nlowest cosines")
    for pair in found.worst:
        say(f"  {pair.cosine:.7f}  {pair.id}")
    emit(as_json(found), json)
    if below is not None and found.minimum < below:
        raise typer.Exit(1)
