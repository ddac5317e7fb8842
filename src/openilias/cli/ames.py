"""``ilias ames``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from openilias.cli.options import Device, Json, Overwrite, device_of, emit, say

app = typer.Typer(help="AMES: learn networks that compare sets of local descriptors.", no_args_is_help=True)

_TEACHER = "Of a binary network"
_OPTIMISER = "Optimiser"


@app.callback()
def _group() -> None:
    """AMES: learn networks that compare sets of local descriptors."""


@app.command(
    epilog="Example: ilias ames train runs/train/ranking --local local/train --labels my-ilias --out runs/ames"
)
def train(
    ranking: Annotated[Path, typer.Argument(help="Training images searched among themselves, by global descriptors.")],
    local: Annotated[list[Path], typer.Option(help="Local store of these images; may be repeated.")],
    labels: Annotated[
        Path, typer.Option(help="Lines `path,label,domain`, CSV with a header, labels.parquet, or a folder.")
    ],
    out: Annotated[Path, typer.Option(help="Folder of the network: network.pt and ames.json.")],
    itq: Annotated[
        Path | None,
        typer.Option(rich_help_panel=_TEACHER, metavar="FILE", help="Where its bits begin: of ilias local itq."),
    ] = None,
    teacher: Annotated[
        Path | None,
        typer.Option(rich_help_panel=_TEACHER, metavar="NETWORK", help="A network of numbers that it learns from."),
    ] = None,
    distil: Annotated[
        float | None,
        typer.Option(
            rich_help_panel=_TEACHER, min=0.0, max=1.0, help="Weight of the teacher, 0.5 by default; the rest: labels."
        ),
    ] = None,
    teacher_descriptors: Annotated[
        int | None,
        typer.Option(rich_help_panel=_TEACHER, min=1, help="That the teacher sees; by default as many as the student."),
    ] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Times that each image is seen.")] = 10,
    hard: Annotated[int, typer.Option(min=1, help="The first so many of other classes are the negatives.")] = 100,
    query_descriptors: Annotated[int, typer.Option(min=1, help="Of one image of a pair.")] = 600,
    descriptors: Annotated[int, typer.Option(min=1, help="Of the other.")] = 100,
    fewest: Annotated[
        float, typer.Option(min=0.01, max=1.0, help="For any number of descriptors: learn from this share of them on.")
    ] = 1.0,
    held_out: Annotated[
        int, typer.Option(min=0, help="Images of classes kept back to measure on, at most a tenth; 0: none.")
    ] = 200,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 2, help="Everything that is drawn follows from it.")] = 0,
    batch_size: Annotated[
        int, typer.Option(rich_help_panel=_OPTIMISER, min=1, help="Images of a step, with two pairs each.")
    ] = 32,
    learning_rate: Annotated[float, typer.Option(rich_help_panel=_OPTIMISER, min=1e-9, max=1.0)] = 1e-4,
    weight_decay: Annotated[float, typer.Option(rich_help_panel=_OPTIMISER, min=0.0, max=1000.0)] = 1e-2,
    layers: Annotated[int, typer.Option(rich_help_panel=_OPTIMISER, min=1, help="The published have five.")] = 5,
    precision: Annotated[
        Literal["float32", "bfloat16"], typer.Option(rich_help_panel=_OPTIMISER, help="In which it computes.")
    ] = "float32",
    device: Device = "cpu",
    overwrite: Overwrite = False,
    json: Json = None,
) -> None:
    """Learn a network from labelled local descriptors. Killed, it continues when run again.

    Pairs are mined from the ranking: an image with another of its class, and with one of another class that stands
    high in its list. The checkpoint has the published form.
    """
    from openilias.data.training import read_training_set
    from openilias.descriptors.local_store import open_local_store
    from openilias.rerank.ames_files import read_ames
    from openilias.rerank.ames_learn import NETWORK, learn_ames_to
    from openilias.rerank.ames_training import AmesSettings
    from openilias.rerank.itq import read_binarisation

    if teacher is None and (distil is not None or teacher_descriptors is not None):
        raise typer.BadParameter("--distil and --teacher-descriptors belong to --teacher.")
    settings = AmesSettings(
        layers=layers,
        epochs=epochs,
        batch=batch_size,
        rate=learning_rate,
        decay=weight_decay,
        hard=hard,
        query_descriptors=query_descriptors,
        descriptors=descriptors,
        fewest=fewest,
        distil=0.5 if distil is None else distil,
        teacher_descriptors=teacher_descriptors,
        held_out=held_out,
        precision=precision,
        seed=seed,
    )
    made = learn_ames_to(
        ranking,
        [open_local_store(path) for path in local],
        read_training_set(labels, images=False),
        settings,
        out,
        bits=None if itq is None else read_binarisation(itq)[0],
        teacher=None if teacher is None else read_ames(teacher),
        device=device_of(device),
        overwrite=overwrite,
    )
    last = made.manifest["history"][-1]
    note = "" if last["told_apart"] is None else f", pairs of classes kept back told apart {last['told_apart']:.1%}"
    what = "bits" if made.network.binary else "dimensions"
    say(f"{out / NETWORK}: {made.network.local_dims} to {made.network.dims} {what}, loss {last['loss']:.3f}{note}")
    emit({"network": str(out / NETWORK), **made.manifest}, json)
