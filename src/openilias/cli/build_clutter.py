"""``ilias build clutter``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from openilias.cli.options import Json, Processes, device_of, emit, say

_FELZENSZWALB = "Segments of Felzenszwalb"
_SAM = "Segments of SAM and SAM 2"


def register(build: typer.Typer) -> None:
    """Add the command to the group ``build``."""
    build.command(epilog="Example: ilias build clutter my-set --draw segments")(clutter)


def clutter(
    root: Annotated[Path, typer.Argument(help="Folder of the set, in the ILIAS layout.", metavar="SET")],
    segments: Annotated[
        Literal["felzenszwalb", "sam", "sam2"], typer.Option(help="What makes the segments; their numbers differ.")
    ] = "felzenszwalb",
    most_inside: Annotated[
        float, typer.Option(help="A segment counts if less than this share of it is inside the boxes.")
    ] = 0.5,
    without_boxes: Annotated[
        Literal["refuse", "whole", "skip"],
        typer.Option(help="Positives without boxes: refuse, take for an object that fills the image, or no numbers."),
    ] = "refuse",
    working_size: Annotated[
        int, typer.Option(rich_help_panel=_FELZENSZWALB, help="Larger side of every picture, in pixels.")
    ] = 320,
    scale: Annotated[float, typer.Option(rich_help_panel=_FELZENSZWALB, help="Larger means larger segments.")] = 200,
    sigma: Annotated[float, typer.Option(rich_help_panel=_FELZENSZWALB, help="Of the smoothing, in pixels.")] = 0.8,
    least_area: Annotated[int, typer.Option(rich_help_panel=_FELZENSZWALB, help="Of a segment, in pixels.")] = 100,
    model: Annotated[
        str | None,
        typer.Option(rich_help_panel=_SAM, metavar="MODEL[@REVISION]", help="Of the hub, or a folder."),
    ] = None,
    points: Annotated[int, typer.Option(rich_help_panel=_SAM, help="Along a side of the grid.")] = 32,
    least_iou: Annotated[float, typer.Option(rich_help_panel=_SAM, help="Predicted quality of a mask.")] = 0.88,
    least_stability: Annotated[float, typer.Option(rich_help_panel=_SAM, help="Of a mask.")] = 0.95,
    nms: Annotated[float, typer.Option(rich_help_panel=_SAM, help="Overlap above which one mask goes.")] = 0.7,
    batch: Annotated[int, typer.Option(rich_help_panel=_SAM, min=1, help="Points at a time.")] = 64,
    device: Annotated[str, typer.Option(rich_help_panel=_SAM, help="cpu, cuda, mps, or auto.")] = "cpu",
    draw: Annotated[
        Path | None, typer.Option(metavar="FOLDER", file_okay=False, help="Write pictures of the segments.")
    ] = None,
    most_drawn: Annotated[int, typer.Option(min=1, help="How many positives are drawn.")] = 50,
    shard: Annotated[
        str | None, typer.Option(metavar="I/N", help="Count every n-th positive, from i = 0 on; write no list.")
    ] = None,
    workers: Processes = None,
    json: Json = None,
) -> None:
    """Count segments outside the boxes of positives; write them and area coverage to image_ids/positive_ids.txt.

    Counts of different methods or settings must not be compared, nor put into the paper's groups (18, 33, 53), which
    are quartiles of SAM's counts on ILIAS.
    """
    from openilias.build.clutter import ClutterSettings, SegmenterSpec, measure_clutter
    from openilias.core.shards import Share, parse_share

    spec = SegmenterSpec(
        method=segments,
        working_size=working_size,
        scale=scale,
        sigma=sigma,
        least_area=least_area,
        model=model,
        points=points,
        least_iou=least_iou,
        least_stability=least_stability,
        nms=nms,
        batch=batch,
        device=device if device == "cpu" else device_of(device),
    )
    settings = ClutterSettings(segmenter=spec, most_inside=most_inside, without_boxes=without_boxes)
    part = Share() if shard is None else parse_share(shard)
    done = measure_clutter(root, settings, workers=workers, shard=part, draw=draw, most_drawn=most_drawn)
    result = done.as_json()
    say(f"{len(done.values)} positives, {done.measured} counted now")
    for name, digits in (("clutter", 0), ("coverage", 3)):
        edges = result[f"{name}_quartiles"]
        if len(edges) == 5:
            say(f"{name}: " + ", ".join(f"{edge:.{digits}f}" for edge in edges) + " (least, quartiles, most)")
    if done.without_boxes:
        say(f"{len(done.without_boxes)} positives have no boxes: {without_boxes}")
    say(f"{done.path}" if done.path else "no list written: run it without --shard after all parts")
    emit(result, json)
