"""``ilias data download``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from openilias.cli.options import Json, emit, refuse, say, table

if TYPE_CHECKING:
    from openilias.data.download import Downloaded, FileOutcome

_SHOWN = 20  # files named of each kind


def register(app: typer.Typer) -> None:
    """Add the command to the group."""
    app.command(epilog="Example: ilias data download core ids mini --shards 0-9 --out ilias --dry-run")(download)


def download(
    out: Annotated[Path, typer.Option(help="Folder to fill; one that is begun is gone on with.")],
    what: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[WHAT]...",
            help="core, ids, mini, shards, features, similarities, layers, about; by default core and ids.",
            show_default=False,
        ),
    ] = None,
    shards: Annotated[
        str | None, typer.Option(metavar="N,N-N,...", help="These shards of YFCC100M too, as in 0-9,20.")
    ] = None,
    source: Annotated[
        str, typer.Option(metavar="PLACE", help="portal, mirror, or a URL that is laid out as the portal is.")
    ] = "portal",
    only: Annotated[
        str | None, typer.Option(metavar="GLOB", help="Of features, similarities and layers only these files.")
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, max=64, help="Files at a time.")] = 4,
    retries: Annotated[int, typer.Option(min=0, help="Tries after the first one in which nothing comes.")] = 5,
    stall: Annotated[float, typer.Option(min=1, help="Seconds without anything after which a try has failed.")] = 60,
    keep_tar: Annotated[bool, typer.Option("--keep-tar", help="Keep ilias_core.tar when it is unpacked.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be fetched, and its size.")] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Fetch nothing; digest all that is here again and name what is wrong.")
    ] = False,
    json: Json = None,
) -> None:
    """Download ILIAS: objects, ids, distractors, features, results, adaptation layers. Killed, it goes on.

    What has the published checksum is at its name; exit code 2 if a file could not be had, or is wrong.
    """
    from openilias.data.download import download as download_all
    from openilias.data.http import Patience
    from openilias.data.published_places import USUAL
    from openilias.data.rehash import rehash

    if verify:
        refuse("fetches nothing", dry_run=dry_run, keep_tar=keep_tar, source=source != "portal")
        done = rehash(out, what or (), shards=shards, only=only, jobs=jobs)
    else:
        done = download_all(
            out,
            what or USUAL,
            source=source,
            shards=shards,
            only=only,
            jobs=jobs,
            patience=Patience(retries=retries, stall=stall),
            keep_tar=keep_tar,
            dry_run=dry_run,
        )
    if dry_run:
        _show_plan(done)
    else:
        _show(done)
    emit(done.as_json(), json)
    if done.failures:
        _show_failures(done.failures)
        raise typer.Exit(2)


def _show_plan(done: Downloaded) -> None:
    from openilias.data.download import sized

    rows = []
    for file in done.files:
        state = f"{sized(file.here)} here" if file.status == "to fetch" and file.here else file.status
        rows.append([file.path, "?" if file.size is None else sized(file.size), state, file.note or ""])
    say(table(["file", "size", "", ""], rows))
    unknown = sum(file.size is None and file.status == "to fetch" for file in done.files)
    say(f"\n{sized(done.left)} to fetch" + (f", and {unknown} files of unknown size" if unknown else ""))
    short = f", {sized(done.room - done.free)} are missing" if done.room > done.free else ""
    say(f"{sized(done.room)} needed on the disk, {sized(done.free)} free{short}")


def _show(done: Downloaded) -> None:
    from openilias.data.download import sized

    for file in done.files[:_SHOWN]:
        if not file.failed:
            size = "" if file.size is None else f", {sized(file.size)}"
            say(f"{file.path}: {file.status}{size}" + (f" ({file.note})" if file.note else ""))
    if len(done.files) > _SHOWN:
        say(f"... {len(done.files) - _SHOWN} more; all are in --json FILE")
    counts: dict[str, int] = {}
    for file in done.files:
        counts[file.status] = counts.get(file.status, 0) + 1
    say(f"\n{done.folder}: " + ", ".join(f"{count} {status}" for status, count in counts.items()))


def _show_failures(failures: tuple[FileOutcome, ...]) -> None:
    for file in failures:
        typer.echo(f"{file.path}: {file.note}", err=True)
        if file.url is not None:
            typer.echo(f"  {file.url}", err=True)
    one = len(failures) == 1
    typer.echo(f"error: {len(failures)} {'file is' if one else 'files are'} not as {'it' if one else 'they'} should be."
               " The same command goes on from here.", err=True)  # fmt: skip
