"""``ilias models``."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from openilias.cli.options import (
    CombineName,
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
    TextWeights,
    TokenizerFolder,
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

if TYPE_CHECKING:
    from openilias.models.record import Record

app = typer.Typer(help="Which models there are, what they are, and whether they work.", no_args_is_help=True)
_PLAIN = ("longest", 0, "1", "0", "mean", "float32", "paper")  # options of `check` that --all does not take
SortBy = Literal["zoo", "name", "year", "dims", "params", "gflops"]
Name = Annotated[str, typer.Argument(help="A name of the zoo, any timm name, or LIBRARY:NAME.")]


@app.command("list", epilog="Example: ilias models list --t2i --max-params 400 --sort gflops")
def list_models(
    family: Annotated[str | None, typer.Option(help="Only families with this in their name: siglip, dino, ...")] = None,
    t2i: Annotated[bool, typer.Option("--t2i", help="Only models that describe texts too.")] = False,
    max_params: Annotated[float | None, typer.Option(min=0, help="Millions of parameters at most.")] = None,
    public: Annotated[bool, typer.Option("--public", help="Only weights that anybody can fetch.")] = False,
    sort: Annotated[SortBy, typer.Option(help="Order of the lines; of `zoo` by training and year.")] = "zoo",
    json: Json = None,
) -> None:
    """List the models of the zoo; others go by the name of their library, or by a file of your own."""
    from openilias.models.record import records

    chosen = [
        record
        for record in records().values()
        if (family is None or family.lower() in record.family.lower())
        and (record.describes_texts or not t2i)
        and (max_params is None or record.parameters <= max_params * 1e6)
        and (record.available == "public" or not public)
    ]
    keys: dict[str, Callable[[Record], Any]] = {
        "name": lambda record: record.name,
        "year": lambda record: record.year,
        "dims": lambda record: record.dims,
        "params": lambda record: record.parameters,
        "gflops": lambda record: record.gflops,
    }
    if sort in keys:
        chosen.sort(key=keys[sort])
    rows = [
        [
            record.name,
            str(record.year),
            record.kind,
            f"{record.model.train_resolution}",
            f"{record.model.test_resolution}",
            f"{record.dims}",
            f"{record.parameters / 1e6:.0f}",
            f"{record.gflops:.0f}",
            "yes" if record.describes_texts else "",
            record.model.weights if record.available == "public" else "on request",
        ]
        for record in chosen
    ]
    header = ["model", "year", "kind", "train px", "test px", "dims", "M params", "GFLOPs", "texts", "weights"]
    say(table(header, rows))
    say(f"\n{len(chosen)} of {len(records())} models. GFLOPs: of a picture of 500 x 375 pixels at test resolution.")
    say("weights: hub, url = downloaded; file = --weights FILE; fit = ilias models fit; on request = ask the authors")
    say("Others: any timm name, torchvision:NAME, open_clip:NAME/TAG, hf:NAME or hf:FOLDER, path.py:function.")
    emit({"models": [record.model_dump(mode="json") for record in chosen]}, json)


@app.command(epilog="Example: ilias models show vit_base_patch14_dinov2.lvd142m")
def show(name: Name, json: Json = None) -> None:
    """Show all that is known of a model."""
    from openilias.models.record import find_record
    from openilias.models.zoo import find_model

    record, spec = find_record(name), find_model(name)
    known: dict[str, Any] = {} if record is None else record.model_dump(mode="json", exclude={"model"})
    known |= spec.model_dump(mode="json", exclude={"test"}) | {"test_resolution": spec.test_resolution}
    width = max(map(len, known))
    for key, value in known.items():
        if value not in (None, [], {}):
            say(f"{key:<{width}}  {_in_words(value)}")
    emit(known, json)


def _in_words(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {part}" for key, part in value.items() if part is not None)
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


@app.command(epilog="Example: ilias models check resnet18 --random-weights 0 --resolution 224")
def check(
    name: Annotated[str | None, typer.Argument(help="A name of the zoo, any timm name, or LIBRARY:NAME.")] = None,
    whole_zoo: Annotated[
        bool, typer.Option("--all", help="Every record of the zoo, with random weights, one after the other.")
    ] = False,
    family: Annotated[str | None, typer.Option(help="With --all: only families with this in their name.")] = None,
    weights: Weights = None,
    random_weights: RandomWeights = None,
    text_weights: TextWeights = None,
    tokenizer: TokenizerFolder = None,
    resolution: Resolution = None,
    resize: Resize = "longest",
    min_size: MinSize = 0,
    scales: Scales = "1",
    rotations: Rotations = "0",
    combine: CombineName = "mean",
    pooling: PoolingName = None,
    precision: PrecisionName = "float32",
    compat: CompatMode = "paper",
    device: Device = "cpu",
    json: Json = None,
) -> None:
    """Prove a model on made-up pictures: odd and non-square sizes, batches, norm, dimension.

    With --all, every record is loaded with random weights and tried; that takes 5 to 60 seconds for each.
    """
    if whole_zoo or name is None:
        if name is not None or not whole_zoo:
            raise OpenIliasError("Give the name of one model, or --all.", fix="ilias models list shows the names.")
        given = [weights, text_weights, tokenizer, resolution, pooling]
        plain = (resize, min_size, scales, rotations, combine, precision, compat)
        if any(value is not None for value in given) or plain != _PLAIN:
            raise OpenIliasError(
                "--all tries every model by its own protocol.", fix="Give --family, --random-weights and --device only."
            )
        _check_zoo(family, random_weights or 0, device_of(device), json)
        return
    if family is not None:
        raise OpenIliasError("--family belongs to --all.", fix="Leave it out.")
    from openilias.models.check import check_backbone
    from openilias.models.check_zoo import check_texts
    from openilias.models.network import TorchBackbone
    from openilias.models.record import find_record
    from openilias.models.zoo import TextFiles, find_model, load_model

    protocol = protocol_of(
        resolution=resolution,
        resize=resize,
        min_size=min_size,
        scales=scales,
        rotations=rotations,
        combine=combine,
        pooling=pooling,
        precision=precision,
        dtype="float32",
        compat=compat,
    )
    record, text = find_record(name), TextFiles(text_weights, tokenizer)
    backbone = load_model(
        find_model(name),
        protocol,
        weights=weights,
        random_weights=random_weights,
        text=text,
        device=device_of(device),
    )
    lines = check_backbone(backbone)
    if isinstance(backbone, TorchBackbone):
        found, kind = check_texts(backbone, None if record is None or tokenizer else record.context)
        lines += found
        if kind == "tokens":
            say("Its tokenizer is not here: the text tower was tried with made-up tokens.")
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


def _check_zoo(family: str | None, seed: int, device: str, json: Path | None) -> None:
    from openilias.models.check_zoo import check_record
    from openilias.models.record import records

    networks = [record for record in records().values() if record.model.weights != "fit"]
    chosen = [record for record in networks if not family or family.lower() in record.family.lower()]
    if not chosen:
        raise OpenIliasError(f"No family has {family!r} in its name.", fix="See: ilias models list")
    width, failed, results = max(len(record.name) for record in chosen), 0, []
    say(f"{'model':<{width}}  {'dims':>5}  {'M params':>8}  {'seconds':>7}  texts      result")
    for record in chosen:
        gc.collect()  # the network before refers to itself: two large ones would not fit
        try:
            found = check_record(record, seed=seed, device=device)
        except OpenIliasError as error:
            failed += 1
            say(f"{record.name:<{width}}  {'':>5}  {'':>8}  {'':>7}  {'':<9}  FAILED: {error.what}")
            results.append({"model": record.name, "passed": False, "error": error.what})
            continue
        wrong = "; ".join(f"{line.name}: {line.detail}" for line in found.failed)
        failed += bool(wrong)
        say(
            f"{record.name:<{width}}  {found.dims:>5}  {found.parameters / 1e6:>8.1f}  {found.seconds:>7.2f}  "
            f"{found.texts:<9}  {'FAILED: ' + wrong if wrong else f'ok, {len(found.lines)} checks'}"
        )
        results.append(asdict(found) | {"model": record.name, "passed": not wrong})
    say(f"\n{len(chosen) - failed} of {len(chosen)} passed.")
    emit({"models": results}, json)
    if failed:
        raise OpenIliasError(f"{failed} of {len(chosen)} models failed.", fix="See the table above.")


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
