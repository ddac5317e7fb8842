"""``ilias build``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from openilias.cli.options import Json, Workers, emit, say

app = typer.Typer(help="Make test sets.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Make test sets."""


@app.command(epilog="Example: ilias build synth --out my-ilias --objects 20 --distractors 200")
def synth(
    out: Annotated[Path, typer.Option(help="Folder to make.")],
    objects: Annotated[int, typer.Option(min=1, max=999, help="How many.")] = 50,
    distractors: Annotated[int, typer.Option(min=0, help="How many.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Everything follows from it.")] = 0,
    size: Annotated[int, typer.Option(min=64, help="Larger side of the pictures, in pixels.")] = 500,
    workers: Workers = None,
    json: Json = None,
) -> None:
    """Generate a benchmark in the official ILIAS layout; the same bytes from the same seed."""
    from openilias.build.synth import SynthSettings, build_synth
    from openilias.data import read_ilias

    settings = SynthSettings(objects=objects, distractors=distractors, seed=seed, size=size)
    build_synth(out, settings, workers=workers)
    made = read_ilias(out)
    counts = {
        "objects": len(made.relevance),
        "image_queries": len(made.image_queries),
        "text_queries": len(made.text_queries),
        "positives": len(made.positives),
        "distractors": distractors,
    }
    say(f"{out}: " + ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in counts.items()))
    emit(counts | {"folder": str(out), "fingerprint": made.fingerprint}, json)
