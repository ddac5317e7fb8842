"""``ilias adapt``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from openilias.adapt.methods import LARGEST_MARGIN, USUAL_SIZE, Margin, Method
from openilias.cli.options import Device, Json, Overwrite, Shard, device_of, emit, say

app = typer.Typer(help="Adapt descriptors with a linear layer.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Adapt descriptors with a linear layer."""


@app.command(epilog="Example: ilias adapt apply runs/r18/positives --adapt linear.pth --out runs/r18-adapted/positives")
def apply(
    store: Annotated[
        Path, typer.Argument(help="A store; or official HDF5: a file, or a folder of distractors.", metavar="STORE")
    ],
    adapt: Annotated[Path, typer.Option(help="The layer: layer.weight and layer.bias, official .pth or .safetensors.")],
    out: Annotated[Path, typer.Option(help="Folder of the adapted store.")],
    overwrite: Overwrite = False,
    shard: Shard = None,
    json: Json = None,
) -> None:
    """Adapt a descriptor store: normalise(Wx + b). Killed, it continues when run again."""
    from openilias.adapt.apply import adapt_share
    from openilias.adapt.learned import read_layer
    from openilias.core.shards import Share, parse_share
    from openilias.descriptors.store import open_store

    share = Share() if shard is None else parse_share(shard)
    opened = open_store(store)
    layer = read_layer(adapt, [opened.origin()])
    unfinished = adapt_share(opened, layer, out, overwrite=overwrite, share=share)
    if unfinished:
        say(f"{out}: this share is done; {len(unfinished)} shards are left to the others")
        emit({"store": str(out), "unfinished": unfinished}, json)
        return
    made = open_store(out)
    say(f"{out}: {made.rows} descriptors of {made.dims} dimensions in {len(made.shards)} shards")
    emit(
        {
            "store": str(out),
            "rows": made.rows,
            "dims": made.dims,
            "shards": len(made.shards),
            "fingerprint": made.fingerprint,
        },
        json,
    )


@app.command(epilog="Example: ilias adapt train runs/r18/train --labels uned.txt --out runs/r18/adaptation")
def train(
    store: Annotated[
        Path, typer.Argument(help="A store; or official HDF5: a file, or a folder of files.", metavar="STORE")
    ],
    out: Annotated[Path, typer.Option(help="Folder of the layer: layer.pth and adaptation.json.")],
    labels: Annotated[
        Path | None,
        typer.Option(
            help="Lines `path,label,domain` (UnED), CSV with a header, labels.parquet, or a folder: with "
            "labels.parquet, or of images per class."
        ),
    ] = None,
    method: Annotated[
        Method, typer.Option(help="UJCDS (the paper's), PCA whitening (no labels), or learned whitening.")
    ] = "ujcds",
    dim: Annotated[int, typer.Option(min=1, help="Dimensions of the adapted descriptors.")] = 512,
    domains: Annotated[
        str | None, typer.Option(metavar="D,D,...", help="Learn from these domains only; all by default.")
    ] = None,
    only_labelled: Annotated[
        bool, typer.Option("--only-labelled", help="Leave descriptors without a label out.")
    ] = False,
    epochs: Annotated[int, typer.Option(min=1, help="Of UJCDS, as all that follow.")] = 2,
    batch_size: Annotated[int, typer.Option(min=1, help="Images of a step.")] = 128,
    learning_rate: Annotated[float, typer.Option(min=1e-9, help="Of Adam.")] = 1e-3,
    weight_decay: Annotated[float, typer.Option(min=0.0, help="Of Adam, added to the gradient.")] = 1e-6,
    scale: Annotated[float, typer.Option(min=1e-3, help="Of the cosines.")] = 16.0,
    margin: Annotated[Margin, typer.Option(help="On the cosine of an image with its class.")] = "none",
    margin_size: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=LARGEST_MARGIN,
            help="Of the cosine, or in radians; by default 0.35 of cosface, 0.5 of arcface.",
        ),
    ] = None,
    sampled: Annotated[
        int | None, typer.Option(min=1, help="Approximation: a step takes its classes and so many drawn ones.")
    ] = None,
    held_out: Annotated[
        int, typer.Option(min=0, help="Images kept back to measure recall on, at most one of a hundred; 0: none.")
    ] = 1000,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 2, help="Everything that is drawn follows from it.")] = 0,
    device: Device = "cpu",
    overwrite: Overwrite = False,
    json: Json = None,
) -> None:
    """Learn a linear layer from labelled descriptors. Killed, it continues when run again."""
    from openilias.adapt.classifier import Loss
    from openilias.adapt.learned import LAYER
    from openilias.adapt.train import Recipe
    from openilias.adapt.train import train as learn
    from openilias.adapt.ujcds import Settings
    from openilias.data.training import read_training_set
    from openilias.descriptors.store import open_store

    settings = Settings(
        dim=dim,
        epochs=epochs,
        batch=batch_size,
        rate=learning_rate,
        decay=weight_decay,
        loss=Loss(scale, margin, USUAL_SIZE[margin] if margin_size is None else margin_size),
        sampled=sampled,
        held_out=held_out,
        seed=seed,
    )
    chosen = None if domains is None else tuple(word.strip() for word in domains.split(","))
    made = learn(
        open_store(store),
        None if labels is None else read_training_set(labels, images=False),
        Recipe(method, settings, chosen, only_labelled),
        out,
        device=device_of(device),
        overwrite=overwrite,
    )
    last = made.manifest["history"][-1] if made.manifest["history"] else {}
    note = f", loss {last['loss']:.3f}" if last else ""
    if last.get("recall") is not None:
        note += f", recall@1 of images kept back {100 * last['recall']:.1f} %"
    say(f"{out / LAYER}: {made.layer.inputs} to {made.layer.outputs} dimensions{note}")
    emit({"layer": str(out / LAYER), "sha256": made.layer.digest, **made.manifest}, json)
