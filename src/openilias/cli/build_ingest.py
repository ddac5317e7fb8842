"""``ilias build ingest``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from openilias.cli.options import Json, Processes, emit, refuse, say, table
from openilias.core.errors import OpenIliasError

if TYPE_CHECKING:
    from openilias.build.ingest.fetching import Access
    from openilias.build.ingest.plan import Plan
    from openilias.build.ingest.settings import IngestSettings
    from openilias.build.ingest.summary import Ingested

_POLITE = "Politeness: changes nothing of what is stored"
_STORED = "What is stored"
_TABLE = "Tables"
_FIELDS = "url, id, licence, licence_url, author, page_url, camera, taken"
_MOST_HELD = 63_000  # bytes of an image of 500 px; the published distractors have 6.3 TB for 100 million


def register(app: typer.Typer) -> None:
    """Add the command to the group."""
    app.command(epilog="Example: ilias build ingest yfcc100m_dataset.bz2 --out my-ilias --rate 50 --dry-run")(ingest)


def ingest(
    out: Annotated[Path, typer.Option(metavar="SET", help="Folder to fill; one that is begun is gone on with.")],
    tables: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[TABLE]...",
            help="Metadata of YFCC100M (23 or 25 columns, also .bz2, .gz), or .csv, .tsv, .jsonl, .parquet with URLs.",
            show_default=False,
        ),
    ] = None,
    name: Annotated[str, typer.Option(rich_help_panel=_STORED, help="Of the shards: NAME_0000.tar.")] = "yfcc100m",
    per_shard: Annotated[int, typer.Option(rich_help_panel=_STORED, min=1, help="Rows of a shard.")] = 100_000,
    limit: Annotated[
        int | None, typer.Option(rich_help_panel=_TABLE, min=1, metavar="ROWS", help="The first ROWS rows only.")
    ] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(
            rich_help_panel=_TABLE,
            metavar="FIELD=COLUMN",
            help=f"Which column of a table of URLs says what, if not the usual one: {_FIELDS}. Several of url are tried"
            " in turn.",
        ),
    ] = None,
    kind: Annotated[
        Literal["yfcc", "csv", "tsv", "jsonl", "parquet"] | None,
        typer.Option(rich_help_panel=_TABLE, help="How the tables are written, if their names do not tell."),
    ] = None,
    longest: Annotated[int, typer.Option(rich_help_panel=_STORED, help="Larger side at most, in pixels.")] = 500,
    quality: Annotated[int, typer.Option(rich_help_panel=_STORED, help="Of the JPEGs, always 4:4:4.")] = 90,
    balance: Annotated[
        Literal["grey-world", "white-patch", "none"], typer.Option(rich_help_panel=_STORED, help="White balance.")
    ] = "grey-world",
    balance_limit: Annotated[
        float, typer.Option(rich_help_panel=_STORED, help="Largest ratio of two of its gains.")
    ] = 1.5,
    resample: Annotated[
        Literal["bicubic", "lanczos"], typer.Option(rich_help_panel=_STORED, help="How pictures are made smaller.")
    ] = "bicubic",
    damaged: Annotated[
        Literal["keep", "refuse"],
        typer.Option(rich_help_panel=_STORED, help="Files that decode although their data are damaged."),
    ] = "keep",
    least_side: Annotated[int, typer.Option(rich_help_panel=_STORED, help="Smaller pictures are refused.")] = 16,
    reencode: Annotated[
        bool, typer.Option("--reencode", rich_help_panel=_STORED, help="Encode also what conforms already.")
    ] = False,
    most_mb: Annotated[
        int, typer.Option(rich_help_panel=_STORED, min=1, max=1024, help="Larger files are refused, in MiB.")
    ] = 64,
    second: Annotated[
        Literal["gone", "always"],
        typer.Option(
            rich_help_panel=_STORED,
            help="When the next URL of a row is tried: if the one before has no such image, or also if it fails for a "
            "time.",
        ),
    ] = "gone",
    workers: Processes = None,
    connections: Annotated[
        int, typer.Option(rich_help_panel=_POLITE, min=1, max=4096, help="Images that are asked for at a time.")
    ] = 64,
    per_host: Annotated[int, typer.Option(rich_help_panel=_POLITE, min=1, help="Of them, of one host.")] = 16,
    rate: Annotated[
        float, typer.Option(rich_help_panel=_POLITE, min=0, help="Requests per second to one host; 0 for no limit.")
    ] = 50.0,
    retries: Annotated[int, typer.Option(rich_help_panel=_POLITE, min=0, help="Tries after the first one.")] = 4,
    stall: Annotated[
        float, typer.Option(rich_help_panel=_POLITE, min=0.1, help="Seconds in which something must come.")
    ] = 30.0,
    seconds: Annotated[
        float, typer.Option(rich_help_panel=_POLITE, min=0.1, help="Seconds that an image may take in all.")
    ] = 120.0,
    give_up: Annotated[
        float, typer.Option(rich_help_panel=_POLITE, min=0, help="Seconds after which a silent host is given up.")
    ] = 300.0,
    dead_hosts: Annotated[
        Literal["stop", "pass"],
        typer.Option(rich_help_panel=_POLITE, help="Then: stop, to go on later; or take its images for out of reach."),
    ] = "stop",
    skip_host: Annotated[
        list[str] | None, typer.Option(rich_help_panel=_POLITE, metavar="HOST", help="Never ask this host.")
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(rich_help_panel=_POLITE, metavar="HOST", help="A host of a private network that may be asked."),
    ] = None,
    rewrite: Annotated[
        list[str] | None,
        typer.Option(
            rich_help_panel=_POLITE,
            metavar="FROM=TO",
            help="Fetch URLs that begin with FROM from TO: a mirror. The table keeps the URL.",
        ),
    ] = None,
    retry: Annotated[
        list[str] | None,
        typer.Option(metavar="STATUS", help="Ask again for rows of this status only, or all-failed; several times."),
    ] = None,
    shard: Annotated[
        str | None, typer.Option(metavar="I/N", help="Only every n-th shard, from i = 0 on, for clusters.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only read the tables, and say what is ahead.")] = False,
    status: Annotated[bool, typer.Option("--status", help="Only say what there is; needs no tables.")] = False,
    json: Json = None,
) -> None:
    """Fetch distractors into shards of tars, and a row for each that says what became of it. Killed, it goes on.

    Rows that fail keep their status; --retry asks for them again. Exit code 2 if the work could not be done.
    """
    from openilias.build.ingest.ingest import foresee
    from openilias.build.ingest.ingest import ingest as ingest_all
    from openilias.build.ingest.summary import status_of
    from openilias.core.shards import Share, parse_share

    if status:
        refuse("says only what there is", dry_run=dry_run, retry=retry, shard=shard, tables=tables)
        _show(found := status_of(out))
        emit(found.as_json(), json)
        return
    settings = _settings(
        name=name,
        per_shard=per_shard,
        limit=limit,
        kind=kind,
        second=second,
        most_bytes=most_mb * 2**20,
        columns=_columns(column or ()),
        normalise={
            "longest": longest,
            "quality": quality,
            "balance": {"method": balance, "limit": balance_limit},
            "resample": resample,
            "damaged": damaged,
            "least_side": least_side,
            "skip_reencode": not reencode,
        },
    )
    access = _access(
        politeness={
            "per_host": per_host,
            "rate": rate or None,
            "give_up": give_up,
            "dead": dead_hosts,
        },
        patience={"retries": retries, "stall": stall},
        connections=connections,
        seconds=seconds,
        allowed=_hosts(allow_host or (), "--allow-host"),
        skipped=_hosts(skip_host or (), "--skip-host"),
        rewrite=dict(_pair(word, "--rewrite") for word in rewrite or ()),
    )
    if dry_run:
        refuse("reads only the tables", retry=retry, shard=shard)
        plan = foresee(tables or (), settings)
        emit(_show_plan(plan, rate) | {"dry_run": True}, json)
        return
    share = Share() if shard is None else parse_share(shard)
    found = ingest_all(tables or (), out, settings, access=access, workers=workers, share=share, retry=retry or ())
    _show(found)
    emit(found.as_json(), json)


def _settings(**values: Any) -> IngestSettings:
    from openilias.build.ingest.settings import IngestSettings

    return IngestSettings.model_validate(values)


def _access(*, politeness: dict[str, Any], patience: dict[str, Any], **values: Any) -> Access:
    from openilias.build.ingest.fetching import Access
    from openilias.build.ingest.hosts import Politeness
    from openilias.data.http import Patience

    return Access(politeness=Politeness(**politeness), patience=Patience(**patience), **values)


def _pair(word: str, option: str) -> tuple[str, str]:
    first, equals, second = word.partition("=")
    if not (first and equals and second):
        raise OpenIliasError(f"{option} {word!r} is not two words with = between.", fix=f"Give {option} A=B.")
    return first, second


def _hosts(words: Sequence[str], option: str) -> frozenset[str]:
    """Read names and addresses of hosts, as they stand in URLs; with a port or as a URL none would ever be met."""
    from openilias.data.addresses import RefusedAddressError, host_of

    for word in words:
        try:
            host = host_of(f"http://[{word}]" if word.count(":") > 1 else f"http://{word}")
        except RefusedAddressError:
            host = ""
        if host != word.lower():
            raise OpenIliasError(f"{option} {word!r} is no host.", fix="Give its name or address alone.")
    return frozenset(map(str.lower, words))


def _columns(words: list[str] | tuple[str, ...]) -> dict[str, Any]:
    """Read FIELD=COLUMN words; url may be named several times."""
    found: dict[str, Any] = {}
    for word in words:
        field, column = _pair(word, "--column")
        if field == "url":
            found["url"] = (*found.get("url", ()), column)
        elif field in found:
            raise OpenIliasError(f"--column names {field} twice.", fix="Name it once.")
        else:
            found[field] = column
    return found


def _show_plan(plan: Plan, rate: float) -> dict[str, Any]:
    from openilias.data.download import sized

    size = plan.photos * _MOST_HELD
    counts: dict[str, Any] = {
        "photos": plan.photos,
        "videos": plan.videos,
        "bad": plan.bad,
        "shards": len(plan.shards),
        "bytes": size,
        "seconds": plan.photos / rate if rate else None,
    }
    shards = "1 shard" if len(plan.shards) == 1 else f"{len(plan.shards)} shards"
    said = f"{plan.videos} videos are passed over, {plan.bad} records cannot be used"
    say(f"{plan.photos} photographs in {shards}; {said}")
    say(f"about {sized(size)} if all are there ({sized(_MOST_HELD)} each, as the published ones)")
    if rate:
        hours = plan.photos / rate / 3600
        long = f"{hours:.1f} hours" if hours < 48 else f"{hours / 24:.1f} days"
        say(f"about {long} at {rate:g} requests per second, if one host has all")
    return counts


def _show(found: Ingested) -> None:
    from openilias.build.ingest.statuses import STATUSES
    from openilias.data.download import sized

    if found.asked:
        say(f"{found.asked} images asked for in {found.seconds:.0f} s ({found.asked / found.seconds:.1f} per second)")
        hosts = [
            [host, str(counts.requests), str(counts.failures), sized(counts.bytes)]
            for host, counts in found.hosts.items()
        ]
        say(table(["host", "requests", "failures", "received"], hosts) + "\n")
    total = max(1, sum(found.statuses.values()))
    rows = [
        [status, str(count), f"{100 * count / total:.1f} %", STATUSES.get(status, "")]
        for status, count in found.statuses.items()
    ]
    say(table(["status", "rows", "share", ""], rows))
    also = f", {found.begun} begun" if found.begun else ""
    also += f", {found.elsewhere} with other processes" if found.elsewhere else ""
    say(f"\n{found.folder}: {found.made} of {found.shards} shards{also}; {sized(found.bytes)} of images")
    if not found.whole:
        say("The list of ids is written when all shards are there.")
