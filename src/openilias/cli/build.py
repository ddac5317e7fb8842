"""``ilias build``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from openilias.cli import (
    build_anonymise,
    build_caption,
    build_clutter,
    build_collect,
    build_ingest,
    build_mini,
    build_publish,
    build_taxonomy,
)
from openilias.cli.options import BenchmarkDir, Json, Processes, emit, say

app = typer.Typer(help="Make test sets.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Make test sets."""


def _knob(text: str, *, panel: str = "How hard the positives are: a number, or LOW:HIGH") -> typer.models.OptionInfo:
    option: typer.models.OptionInfo = typer.Option(help=text, metavar="RANGE", rich_help_panel=panel)
    return option


_HARD = "Hard negatives among the distractors"


@app.command(
    epilog="Example: ilias build synth --out my-ilias --objects 20 --distractors 200 --viewpoint 40 --clutter 0:30"
)
def synth(
    out: Annotated[Path, typer.Option(help="Folder to make.")],
    objects: Annotated[int, typer.Option(min=1, max=999, help="How many.")] = 50,
    distractors: Annotated[int, typer.Option(min=0, help="How many.")] = 1000,
    train: Annotated[int, typer.Option(min=0, help="Instances of a training split, other than the objects.")] = 0,
    seed: Annotated[int, typer.Option(min=0, help="Everything follows from it.")] = 0,
    size: Annotated[int, typer.Option(min=64, help="Larger side of the pictures, in pixels.")] = 500,
    viewpoint: Annotated[
        str | None, _knob("Degrees between the views of query and positive; 0 to 180, flat: 75.")
    ] = None,
    scale: Annotated[str | None, _knob("Share of the picture that the thing's box fills; 0.002 to 0.9.")] = None,
    occlusion: Annotated[str | None, _knob("Share of the thing that others hide; 0 to 0.9.")] = None,
    illumination: Annotated[str | None, _knob("Strength of cast, exposure, uneven light, shadow; 0 to 5.")] = None,
    blur: Annotated[str | None, _knob("Standard deviation in pixels of a picture of 500 pixels; 0 to 20.")] = None,
    clutter: Annotated[str | None, _knob("Number of other things; 0 to 72.")] = None,
    crop: Annotated[str | None, _knob("Share of the thing that the frame cuts off; 0 to 0.9.")] = None,
    closeness: Annotated[
        str | None,
        _knob("Share of traits in common with an object; 1 differs in one small detail. 0 to 1.", panel=_HARD),
    ] = None,
    hard: Annotated[
        float | None,
        typer.Option(help="Share of the distractors that are hard negatives; 0 to 1.", rich_help_panel=_HARD),
    ] = None,
    workers: Processes = None,
    json: Json = None,
) -> None:
    """Generate a benchmark in the official ILIAS layout; the same bytes from the same seed.

    A knob that is not given keeps the variety of careless photographs. Each has random numbers of its own: with the
    same seed nothing else changes in the pictures.
    """
    from openilias.build.generated.synth import SynthSettings, build_synth
    from openilias.data import read_ilias

    knobs = {
        "viewpoint": viewpoint, "scale": scale, "occlusion": occlusion, "illumination": illumination, "blur": blur,
        "clutter": clutter, "crop": crop, "closeness": closeness, "hard": hard,
    }  # fmt: skip
    given = {name: value for name, value in knobs.items() if value is not None}
    settings = SynthSettings.model_validate(
        {
            "objects": objects,
            "distractors": distractors,
            "train": train,
            "seed": seed,
            "size": size,
            "knobs": given,
        }
    )
    build_synth(out, settings, workers=workers)
    made = read_ilias(out)
    counts = {
        "objects": len(made.relevance),
        "image_queries": len(made.image_queries),
        "text_queries": len(made.text_queries),
        "positives": len(made.positives),
        "distractors": distractors,
    }
    if train:
        counts["training_instances"] = train
    say(f"{out}: " + ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in counts.items()))
    emit(counts | {"folder": str(out), "fingerprint": made.fingerprint}, json)


@app.command(epilog="Example: ilias build sheet my-ilias --out sheet.jpg --rows 8 --boxes")
def sheet(
    benchmark: BenchmarkDir,
    out: Annotated[Path, typer.Option(help="Picture to write, .jpg or .png.", metavar="FILE", dir_okay=False)],
    rows: Annotated[int, typer.Option(min=1, max=200, help="Objects, or rows of distractors.")] = 10,
    columns: Annotated[int, typer.Option(min=1, max=50, help="Pictures of a row, the query among them.")] = 6,
    height: Annotated[int, typer.Option(min=16, max=1024, help="Of each picture, in pixels.")] = 120,
    distractors: Annotated[bool, typer.Option("--distractors", help="Show distractors instead of objects.")] = False,
    boxes: Annotated[bool, typer.Option("--boxes", help="Draw the boxes of queries and positives.")] = False,
) -> None:
    """Draw a contact sheet: each row an object's query and positives, or distractors."""
    from openilias.build.sheet import distractor_sheet, object_sheet, write_sheet
    from openilias.data import read_ilias

    made = read_ilias(benchmark)
    if distractors:
        image = distractor_sheet(made, rows=rows, columns=columns, height=height)
    else:
        image = object_sheet(made, rows=rows, columns=columns, height=height, boxes=boxes)
    write_sheet(image, out)
    say(f"{out}: {image.width} x {image.height} pixels")


for step in (
    build_ingest,
    build_collect,
    build_taxonomy,
    build_anonymise,
    build_clutter,
    build_caption,
    build_mini,
    build_publish,
):
    step.register(app)
