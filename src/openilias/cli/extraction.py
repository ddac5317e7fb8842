"""``ilias extract``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from openilias.cli.options import (
    BatchSize,
    BenchmarkDir,
    CombineName,
    CompatMode,
    Device,
    Dtype,
    Json,
    MinSize,
    Model,
    Overwrite,
    PoolingName,
    PositiveBoxes,
    PrecisionName,
    QueryBoxes,
    RandomWeights,
    Resize,
    ResizerName,
    Resolution,
    Rotations,
    Scales,
    Shard,
    TextWeights,
    Timeout,
    TokenizerFolder,
    Views,
    Weights,
    Workers,
    device_of,
    emit,
    protocol_of,
    say,
)
from openilias.core.ids import Partition


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command(
        epilog="Example: ilias extract my-ilias --model resnet18 --partition positives --out runs/r18/positives"
    )(extract)


def extract(
    benchmark: BenchmarkDir,
    model: Model,
    partition: Annotated[Partition, typer.Option(help="Which part of the benchmark.")],
    out: Annotated[Path, typer.Option(help="Folder of the descriptor store.")],
    adapt: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Adapt the descriptors with this linear layer before they are stored."),
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Of `train`: the folder that the list's paths lie in; its own by default."),
    ] = None,
    weights: Weights = None,
    random_weights: RandomWeights = None,
    text_weights: TextWeights = None,
    tokenizer: TokenizerFolder = None,
    resolution: Resolution = None,
    resize: Resize = "longest",
    min_size: MinSize = 0,
    resizer: ResizerName = "pillow",
    query_boxes: QueryBoxes = "none",
    positive_boxes: PositiveBoxes = "none",
    scales: Scales = "1",
    rotations: Rotations = "0",
    views: Views = "all",
    combine: CombineName = "mean",
    pooling: PoolingName = None,
    precision: PrecisionName = "float32",
    dtype: Dtype = "float16",
    compat: CompatMode = "paper",
    device: Device = "cpu",
    batch_size: BatchSize = None,
    workers: Workers = None,
    timeout: Timeout = 300.0,
    shard: Shard = None,
    skip_unreadable: Annotated[
        bool, typer.Option("--skip-unreadable", help="List what cannot be read, hangs or crashes, and go on.")
    ] = False,
    retry: Annotated[bool, typer.Option("--retry", help="Try again what was passed over, of the same files.")] = False,
    overwrite: Overwrite = False,
    json: Json = None,
) -> None:
    """Describe a partition of a benchmark. Killed, it continues when run again.

    With --partition train, BENCHMARK is a training set: a list `path,label,domain`, a CSV file, a folder with
    labels.parquet, or a folder of images per class.
    """
    from openilias.adapt.apply import Adapting
    from openilias.adapt.learned import read_layer
    from openilias.core.shards import Share, parse_share
    from openilias.data import read_ilias, read_training_set
    from openilias.descriptors.extract import Options, description_of, extract_share
    from openilias.descriptors.store import open_store
    from openilias.models.zoo import TextFiles, find_model, load_model

    protocol = protocol_of(
        resolution=resolution,
        resize=resize,
        min_size=min_size,
        resizer=resizer,
        query_boxes=query_boxes,
        positive_boxes=positive_boxes,
        scales=scales,
        rotations=rotations,
        views=views,
        combine=combine,
        pooling=pooling,
        precision=precision,
        dtype=dtype,
        compat=compat,
    )
    options = Options(
        batch_size=batch_size,
        workers=workers,
        timeout=timeout,
        skip_unreadable=skip_unreadable,
        retry=retry,
        overwrite=overwrite,
        share=Share() if shard is None else parse_share(shard),
    )
    if images is not None and partition != "train":
        raise typer.BadParameter("--images belongs to --partition train.")
    read = read_training_set(benchmark, root=images) if partition == "train" else read_ilias(benchmark)
    backbone = load_model(
        find_model(model),
        protocol,
        weights=weights,
        random_weights=random_weights,
        text=TextFiles(text_weights, tokenizer),
        device=device_of(device),
    )
    finish = None if adapt is None else Adapting(read_layer(adapt, [description_of(read, backbone)]))
    unfinished = extract_share(read, backbone, partition, out, options, finish)
    if unfinished:
        say(f"{out}: this share is done; {len(unfinished)} shards are left to the others")
        emit({"store": str(out), "unfinished": unfinished}, json)
        return
    store = open_store(out)
    say(f"{out}: {store.rows} descriptors of {store.dims} dimensions in {len(store.shards)} shards")
    for item in store.skipped:
        say(f"  skipped {item.id}: {item.reason}")
    emit(
        {
            "store": str(out),
            "rows": store.rows,
            "dims": store.dims,
            "shards": len(store.shards),
            "skipped": [asdict(item) for item in store.skipped],
            "fingerprint": store.fingerprint,
        },
        json,
    )
