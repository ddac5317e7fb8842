"""``ilias build collect``."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from openilias.cli.options import Json, Processes, emit, say

if TYPE_CHECKING:
    from openilias.build.collect.collect import Collected

_IMAGES = "What is done to images"
_CHECKS = "Checks"
_SHOWN = 5  # findings printed of each kind


def register(app: typer.Typer) -> None:
    """Add the command to the group."""
    app.command(epilog="Example: ilias build collect collected --out my-set --boxes boxes.json --author 'A. Name'")(
        collect
    )


def collect(
    folder: Annotated[
        Path, typer.Argument(help="Of a collector: OBJECT/query/, OBJECT/pos/; or a set.", metavar="FOLDER")
    ],
    out: Annotated[Path, typer.Option(help="Set to make, or to go on with.", metavar="SET")],
    boxes: Annotated[
        Path | None, typer.Option(help="File or folder of boxes; by default <image>_bbox.txt beside the images.")
    ] = None,
    boxes_format: Annotated[str, typer.Option(help="auto, coco, yolo, label-studio, cvat, ours.")] = "auto",
    boxes_frame: Annotated[
        str, typer.Option(help="Pictures that the tool showed: upright, raw (EXIF passed over), auto.")
    ] = "auto",
    objects: Annotated[
        Path | None, typer.Option(help="Table of evidence; FOLDER/objects.csv by default.", metavar="CSV")
    ] = None,
    images: Annotated[
        Path | None, typer.Option(help="Table of the files; FOLDER/images.csv by default.", metavar="CSV")
    ] = None,
    cut_off: Annotated[
        str | None,
        typer.Option(metavar="DAY", help="Objects must be of that day or later, YYYY-MM-DD, or none. [2014-01-01]"),
    ] = None,
    licence: Annotated[str | None, typer.Option(help="Of images of which images.csv says none.")] = None,
    licence_url: Annotated[str | None, typer.Option(help="Likewise.")] = None,
    author: Annotated[str | None, typer.Option(help="Likewise.")] = None,
    cameras: Annotated[
        Path | None, typer.Option(help="Table model,year,type of cameras.", metavar="CSV", rich_help_panel=_CHECKS)
    ] = None,
    distance: Annotated[
        int, typer.Option(min=0, max=31, rich_help_panel=_CHECKS, help="Bits in which hashes of two images may differ.")
    ] = 8,
    distractor_distance: Annotated[
        int, typer.Option(min=0, max=31, rich_help_panel=_CHECKS, help="The same for an image and a distractor.")
    ] = 4,
    descriptors: Annotated[
        list[Path] | None,
        typer.Option(rich_help_panel=_CHECKS, metavar="STORE", help="To compare too; of core and distractors."),
    ] = None,
    similarity: Annotated[
        float, typer.Option(min=-1, max=1, rich_help_panel=_CHECKS, help="From which on descriptors are a pair.")
    ] = 0.9,
    strict: Annotated[
        bool, typer.Option("--strict", rich_help_panel=_CHECKS, help="Exit code 1 if there is a warning.")
    ] = False,
    longest: Annotated[
        int, typer.Option(min=16, max=16384, rich_help_panel=_IMAGES, help="Larger side at most, in pixels.")
    ] = 500,
    quality: Annotated[int, typer.Option(min=1, max=100, rich_help_panel=_IMAGES, help="Of the JPEGs, 4:4:4.")] = 90,
    white_balance: Annotated[
        str, typer.Option(rich_help_panel=_IMAGES, help="grey-world, white-patch, none.")
    ] = "grey-world",
    resample: Annotated[str, typer.Option(rich_help_panel=_IMAGES, help="bicubic, lanczos.")] = "bicubic",
    damaged: Annotated[
        str, typer.Option(rich_help_panel=_IMAGES, help="keep or refuse files that are damaged and can be read.")
    ] = "keep",
    remove: Annotated[bool, typer.Option("--remove", help="What is not collected any more may leave the set.")] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace what other steps changed, or was made with other settings.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only check, and say what would be done.")] = False,
    show: Annotated[int, typer.Option(min=0, help="How many findings of each kind to print.")] = _SHOWN,
    workers: Processes = None,
    json: Json = None,
) -> None:
    """Bring a collector's folder into the core layout, with boxes, and check it. Run again, it adds what is new.

    Exit code 1 if an image is refused, or with --strict if there is a warning; everything is in SET/build/collect.
    """
    from typing import get_args

    from openilias.build.collect.annotations.marks import Frame
    from openilias.build.collect.annotations.read import Format
    from openilias.build.collect.collect import collect as collect_all
    from openilias.build.collect.finishing import Checks
    from openilias.build.collect.inputs import Request
    from openilias.build.collect.plan import BoxSource
    from openilias.build.collect.values import Details
    from openilias.build.normalise import NormaliseSettings

    formats: dict[str, Format] = {name: name for name in get_args(Format)}
    frames: dict[str, Frame | None] = {"auto": None, "upright": "upright", "raw": "raw"}
    for name, value, known in (("format", boxes_format, formats), ("frame", boxes_frame, frames)):
        if value not in known:
            raise typer.BadParameter(f"'{value}' is not one of {', '.join(known)}.", param_hint=f"--boxes-{name}")
    settings = {
        "longest": longest, "quality": quality, "balance": {"method": white_balance}, "resample": resample,
        "damaged": damaged,
    }  # fmt: skip
    request = Request(
        folder,
        boxes=BoxSource(boxes, formats[boxes_format], frames[boxes_frame]),
        objects=objects,
        images=images,
        cut_off=None if cut_off is None else _day(cut_off),
        given=Details(licence=licence, licence_url=licence_url, author=author),
        settings=NormaliseSettings.model_validate(settings),
    )
    checks = Checks(distance, distractor_distance, tuple(descriptors or ()), similarity, cameras)
    done = collect_all(request, out, checks, remove=remove, overwrite=overwrite, dry_run=dry_run, workers=workers)
    _show(done, show)
    emit(done.as_json(), json)
    severities = {severity for severity, _ in done.report.kinds}
    if "error" in severities or (strict and "warning" in severities):
        raise typer.Exit(1)


def _day(text: str) -> Any:
    if text == "none":
        return "none"
    try:
        return datetime.strptime(text, "%Y-%m-%d").date()
    except ValueError:
        raise typer.BadParameter(f"'{text}' is no day YYYY-MM-DD, nor none.", param_hint="--cut-off") from None


def _show(done: Collected, most: int) -> None:
    for (severity, kind), count in done.report.kinds.items():
        say(f"{severity} {kind}: {count}")
        some = [one for one in done.report.findings if (one.severity, one.kind) == (severity, kind)][:most]
        for one in some:
            say(f"  {one.where}\n    {one.what}" + (f" {one.fix}" if one.fix else ""))
        if count > len(some):
            say(f"  ... {count - len(some)} more, all in build/collect/report.md of the set, or --json FILE")
    words: dict[str, list[str]] = {}
    for name, change in done.changes.items():
        words.setdefault(change, []).append(name)
    for word, names in words.items():
        shown = ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
        say(f"{word}: {len(names)} objects: {shown}")
    if not done.changes:
        say("no object changed")
    told = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in done.report.counts.items())
    say(f"{done.folder}{' would be' if done.dry else ''}: {told}")
