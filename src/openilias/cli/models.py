"""``ilias models``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from openilias.cli.options import (
    CompatMode,
    Device,
    Json,
    MinSize,
    Overwrite,
    PoolingName,
    PrecisionName,
    RandomWeights,
    Resize,
    Resolution,
    Rotations,
    Scales,
    Weights,
    Workers,
    device_of,
    emit,
    protocol_of,
    say,
    table,
)
from openilias.core.errors import OpenIliasError
from openilias.core.ids import Partition

app = typer.Typer(help="Which models there are, what they are, and whether they work.", no_args_is_help=True)
Name = Annotated[str, typer.Argument(help="A name of the zoo, any timm name, or LIBRARY:NAME.")]


@app.command("list", epilog="Example: ilias models list")
def list_models(json: Json = None) -> None:
    """List the models of the zoo; others go by the name of their library, or by a file of your own."""
    from openilias.models.zoo import ZOO

    rows = [
        [
            spec.name,
            spec.library,
            str(spec.train_resolution),
            str(spec.test_resolution),
            spec.pooling,
            spec.weights,
        ]
        for spec in ZOO.values()
    ]
    say(table(["model", "library", "train px", "test px", "pooling", "weights"], rows))
    say("\nweights: hub = downloaded by the library, file = --weights FILE, fit = ilias models fit")
    say("Others: any timm name, torchvision:NAME, open_clip:NAME/TAG, hf:NAME or hf:FOLDER, path.py:function.")
    emit({"models": [spec.model_dump(mode="json") for spec in ZOO.values()]}, json)


@app.command(epilog="Example: ilias models show vit_base_patch14_dinov2.lvd142m")
def show(name: Name, json: Json = None) -> None:
    """Show the record of a model."""
    from openilias.models.zoo import find_model

    spec = find_model(name)
    record = spec.model_dump(mode="json", exclude={"test"}) | {"test_resolution": spec.test_resolution}
    width = max(map(len, record))
    for key, value in record.items():
        if value is not None:
            say(f"{key:<{width}}  {value}")
    emit(record, json)


@app.command(epilog="Example: ilias models check resnet18 --random-weights 0 --resolution 224")
def check(
    name: Name,
    weights: Weights = None,
    random_weights: RandomWeights = None,
    resolution: Resolution = None,
    resize: Resize = "longest",
    min_size: MinSize = 0,
    scales: Scales = "1",
    rotations: Rotations = "0",
    pooling: PoolingName = None,
    precision: PrecisionName = "float32",
    compat: CompatMode = "paper",
    device: Device = "cpu",
    json: Json = None,
) -> None:
    """Prove a model on made-up pictures: odd and non-square sizes, batches, norm, dimension."""
    from openilias.models.check import check_backbone
    from openilias.models.zoo import find_model, load_model

    protocol = protocol_of(
        resolution=resolution,
        resize=resize,
        min_size=min_size,
        scales=scales,
        rotations=rotations,
        pooling=pooling,
        precision=precision,
        dtype="float32",
        compat=compat,
    )
    backbone = load_model(
        find_model(name), protocol, weights=weights, random_weights=random_weights, device=device_of(device)
    )
    lines = check_backbone(backbone)
    say(table(["check", "", "detail"], [[x.name, "ok" if x.passed else "FAILED", x.detail] for x in lines]))
    failed = [line.name for line in lines if not line.passed]
    say(f"\n{name}: {backbone.dims} dimensions, weights {backbone.weights_digest[:16]}")
    emit(
        {
            "model": name,
            "dims": backbone.dims,
            "weights": backbone.weights_digest,
            "passed": not failed,
            "checks": [{"name": line.name, "passed": line.passed, "detail": line.detail} for line in lines],
        },
        json,
    )
    if failed:
        raise OpenIliasError(f"{len(failed)} of {len(lines)} checks failed.", where=name, fix="See the table above.")


@app.command(epilog="Example: ilias models fit sift_vlad --benchmark my-ilias --out sift_vlad.safetensors")
def fit(
    name: Annotated[str, typer.Argument(help="A model that is fitted: sift_vlad.")],
    benchmark: Annotated[Path, typer.Option(help="Folder in the ILIAS layout.")],
    out: Annotated[Path, typer.Option(help="The file to write.")],
    partition: Annotated[Partition, typer.Option(help="Which images to fit on.")] = "distractors",
    words: Annotated[int, typer.Option(min=2, help="Visual words.")] = 128,
    dims: Annotated[int, typer.Option(min=2, help="Wanted dimensions; at most images - 1.")] = 512,
    resolution: Annotated[int, typer.Option(min=32, help="Of the pictures, in pixels.")] = 724,
    seed: Annotated[int, typer.Option(min=0, help="Of the draws and of k-means.")] = 0,
    workers: Workers = None,
    overwrite: Overwrite = False,
    json: Json = None,
) -> None:
    """Fit a model on the images of a benchmark; it is then used with --weights FILE."""
    from openilias.data import read_ilias
    from openilias.models.fit import fit as fit_model
    from openilias.models.sift_vlad import SiftVladSettings
    from openilias.models.zoo import find_model

    if find_model(name).weights != "fit":
        raise OpenIliasError(f"{name} is not a model that is fitted.", fix="Only sift_vlad is.")
    settings = SiftVladSettings.model_validate({"words": words, "dims": dims, "resolution": resolution, "seed": seed})
    model = fit_model(read_ilias(benchmark), partition, settings, out, workers=workers, overwrite=overwrite)
    dimensions = model.whitening.projection.shape[1]
    say(f"{out}: {len(model.words)} words, {dimensions} dimensions, digest {model.digest[:16]}")
    emit({"file": str(out), "dims": dimensions, "words": len(model.words), "digest": model.digest}, json)
