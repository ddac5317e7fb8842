"""``ilias build publish`` and ``ilias build verify-published``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from openilias.cli.options import BenchmarkDir, Json, Overwrite, Processes, emit, say

if TYPE_CHECKING:
    from openilias.core.findings import Finding

_SHOWN = 20  # findings printed of each kind


def register(app: typer.Typer) -> None:
    """Add the commands to the group."""
    example = "Example: ilias build publish my-ilias --out published --name my-ilias --version 1.0 --licence CC-BY-4.0"
    app.command(epilog=example)(publish)
    app.command("verify-published", epilog="Example: ilias build verify-published published")(verify_published)


def publish(
    benchmark: BenchmarkDir,
    out: Annotated[Path, typer.Option(help="Folder to make, on the disk of the set if shards are linked.")],
    name: Annotated[str, typer.Option(help="Of the set.")],
    version: Annotated[str, typer.Option(help="Of the set.")],
    licence: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of queries and positives whose rows state none: CC-BY-4.0.")
    ] = None,
    url_base: Annotated[
        str | None, typer.Option(metavar="URL", help="Where it will lie; checksums.txt has paths without it.")
    ] = None,
    shards: Annotated[
        Literal["link", "copy", "leave"],
        typer.Option(help="Shards as hard links, as copies, or only listed: they are put there from elsewhere."),
    ] = "link",
    datasheet: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, metavar="FILE", help="Answers; SET/datasheet.yaml by default."),
    ] = None,
    allow_open: Annotated[
        bool, typer.Option("--allow-open", help="Publish with open decisions; the datasheet says so.")
    ] = False,
    allow_unknown_licence: Annotated[
        bool,
        typer.Option("--allow-unknown-licence", help="Publish images of unknown licence; the datasheet says so."),
    ] = False,
    depth: Annotated[
        Literal["headers", "bytes", "pixels"],
        typer.Option(help="How far distractors are verified besides: pixels decodes every one."),
    ] = "pixels",
    longest: Annotated[int, typer.Option(min=16, help="Larger side that images may have, in pixels.")] = 500,
    quality: Annotated[int, typer.Option(min=1, max=100, help="Of the JPEGs that images must be.")] = 90,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only check, and list everything that is in the way.")
    ] = False,
    workers: Processes = None,
    overwrite: Overwrite = False,
    json: Json = None,
) -> None:
    """Publish a test set: tars, ids, checksums, rows, licences, a datasheet, and pages to look at it.

    What lies in SET/build stays private. Everything is checked before anything is written: exit code 2 if the set may
    not be published. Killed, it goes on when run again.
    """
    from openilias.build.publish.publishing import check
    from openilias.build.publish.publishing import publish as publish_set
    from openilias.build.publish.settings import CheckSettings, PublishSettings

    settings = PublishSettings(
        name=name,
        version=version,
        licence=licence,
        url_base=url_base,
        shards=shards,
        allow_open=allow_open,
        allow_unknown_licence=allow_unknown_licence,
        longest=longest,
        quality=quality,
    )
    checking = CheckSettings(depth=depth)
    if dry_run:
        findings = check(benchmark, settings, checking, workers=workers).findings
        _show(findings)
        errors = sum(one.severity == "error" for one in findings)
        say(f"{benchmark}: {errors} errors" if errors else f"{benchmark}: it can be published")
        emit({"findings": [_as_json(one) for one in findings]}, json)
        if errors:
            raise typer.Exit(2)
        return
    done = publish_set(
        benchmark,
        out,
        settings,
        checking,
        datasheet=datasheet,
        workers=workers,
        overwrite=overwrite,
        told=_show,
    )
    facts = done.facts
    if not done.fresh:
        say(f"{out}: it was there already, whole")
    say(
        f"{out}: {facts.objects:,} objects, {facts.image_queries:,} image and {facts.text_queries:,} text queries, "
        f"{facts.positives:,} positives, {facts.distractors:,} distractors in {facts.shards:,} shards; "
        f"{len(done.files):,} files"
    )
    if done.unanswered:
        say(f"{len(done.unanswered)} questions of the datasheet are open; answer them in datasheet.yaml (key: text):")
        say(f"  {', '.join(done.unanswered)}")
    say(f"look at it: {out}/browse/index.html")
    emit(done.as_json(), json)


def verify_published(
    folder: Annotated[Path, typer.Argument(help="Folder of ilias build publish.", metavar="FOLDER")],
    workers: Processes = None,
    json: Json = None,
) -> None:
    """Digest every file of a published folder again, and name what is wrong, missing or too much. Exit code 1."""
    from openilias.build.publish.verify_published import verify_published as verify_folder

    done = verify_folder(folder, workers=workers)
    _show(done.findings)
    apart = f", {done.elsewhere} shards lie elsewhere" if done.elsewhere else ""
    say(f"{folder}: {done.sound} files are sound{apart}, {len(done.findings)} findings")
    emit(
        {
            "sound": done.sound,
            "elsewhere": done.elsewhere,
            "findings": [_as_json(one) for one in done.findings],
        },
        json,
    )
    if done.findings:
        raise typer.Exit(1)


def _as_json(finding: Finding) -> dict[str, str | None]:
    return {
        "severity": finding.severity,
        "kind": finding.kind,
        "where": finding.where,
        "what": finding.what,
        "fix": finding.fix,
    }


def _show(findings: Sequence[Finding]) -> None:
    """Print findings by kind, errors last: what stops is what is read."""
    for severity in ("warning", "error"):
        kinds: dict[str, list[Finding]] = {}
        for one in findings:
            if one.severity == severity:
                kinds.setdefault(one.kind, []).append(one)
        for kind, group in kinds.items():
            typer.echo(f"{severity} {kind}: {len(group)}", err=True)
            for one in group[:_SHOWN]:
                typer.echo(f"  {one.where}\n    {one.what}" + (f" {one.fix}" if one.fix else ""), err=True)
            if len(group) > _SHOWN:
                typer.echo(f"  ... {len(group) - _SHOWN} more", err=True)
