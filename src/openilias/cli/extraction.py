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
    refuse,
    say,
)
from openilias.core.ids import Partition

_LOCAL = "Local descriptors"

Local = Annotated[
    bool,
    typer.Option(
        "--local",
        rich_help_panel=_LOCAL,
        help="Describe by local descriptors: --model sift, aliked, or a network with a map (dinov2_vitb14_reg).",
    ),
]
Most = Annotated[
    int, typer.Option(rich_help_panel=_LOCAL, min=1, max=100_000, help="Of an image, those of largest weight.")
]
DetectorFile = Annotated[
    Path | None,
    typer.Option("--detector", rich_help_panel=_LOCAL, metavar="FILE", help="Attention detector of AMES."),
]
Shortlist = Annotated[
    Path | None,
    typer.Option(rich_help_panel=_LOCAL, metavar="RANKING", help="Only images that this ranking lists."),
]
Top = Annotated[int, typer.Option(rich_help_panel=_LOCAL, min=1, help="Of each of its lists, so many.")]


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
    local: Local = False,
    most: Most = 700,
    detector: DetectorFile = None,
    shortlist: Shortlist = None,
    top: Top = 1000,
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
    of_local = {"most": most != 700, "detector": detector, "shortlist": shortlist, "top": top != 1000}
    if not local:
        refuse("can only be used with --local", **of_local)
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
    if local:
        refuse(
            "cannot be used with --local",
            adapt=adapt,
            text_weights=text_weights,
            tokenizer=tokenizer,
            resize=resize != "longest",
            min_size=min_size,
            resizer=resizer != "pillow",
            query_boxes=query_boxes != "none",
            positive_boxes=positive_boxes != "none",
            rotations=rotations != "0",
            views=views != "all",
            combine=combine != "mean",
            pooling=pooling,
            precision=precision != "float32",
        )
        from openilias.cli.local import extract_local_of

        settings = {"scales": protocol.scales, "most": most} | ({"resolution": resolution} if resolution else {})
        extract_local_of(
            read,
            model,
            partition,
            out,
            options,
            settings=settings,
            weights=weights,
            random_weights=random_weights,
            detector=detector,
            shortlist=shortlist,
            top=top,
            compat=compat,
            dtype=dtype,
            device=device_of(device),
            json=json,
        )
        return
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
