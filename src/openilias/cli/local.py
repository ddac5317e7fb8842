"""``ilias local``, and ``ilias extract --local``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from openilias.cli.options import (
    Device,
    Json,
    Overwrite,
    RandomWeights,
    Shard,
    Weights,
    device_of,
    emit,
    numbers_of,
    say,
)
from openilias.core.ids import Partition

if TYPE_CHECKING:
    from openilias.core.protocol import Compat
    from openilias.descriptors.extract import Options, Source
    from openilias.descriptors.local_store import LocalStore

_SPATIAL = "Spatial verification"

app = typer.Typer(help="Local descriptors: learn bits, pack stores to them, match images.", no_args_is_help=True)


def extract_local_of(
    source: Source,
    model: str,
    partition: Partition,
    out: Path,
    options: Options,
    *,
    settings: dict[str, Any],
    weights: Path | None,
    random_weights: int | None,
    detector: Path | None,
    shortlist: Path | None,
    top: int,
    compat: Compat,
    dtype: str,
    device: str,
    json: Path | None,
) -> None:
    """Do ``ilias extract --local``."""
    from openilias.descriptors.extract_local import LocalOptions, extract_local_share
    from openilias.descriptors.local_store import open_local_store
    from openilias.models.local_backbone import LocalSettings
    from openilias.models.local_zoo import load_local
    from openilias.search.ranking import read_ranking

    only = None
    if shortlist is not None:
        ranking, _ = read_ranking(shortlist)
        listed = ranking.cut(top)
        only = frozenset(item for query in range(len(listed.query_ids)) for item in listed.ids_of(query))
    backbone = load_local(
        model,
        LocalSettings.model_validate(settings),
        weights=weights,
        detector=detector,
        random_weights=random_weights,
        device=device,
    )
    unfinished = extract_local_share(source, backbone, partition, out, LocalOptions(options, compat, only, dtype))
    if unfinished:
        say(f"{out}: this share is done; {len(unfinished)} shards are left to the others")
        emit({"store": str(out), "unfinished": unfinished}, json)
        return
    store = open_local_store(out)
    say_store(store)
    for item in store.skipped:
        say(f"  skipped {item.id}: {item.reason}")
    emit(facts_of(store), json)


def say_store(store: LocalStore) -> None:
    """Say what a store holds, and how large an image is in it."""
    size = store.bytes_per_image()
    what = f"{store.bits} bits" if store.bits else f"{store.dims} dimensions"
    say(
        f"{store.folder}: {store.count:,} local descriptors of {what} of {store.images:,} images; an image takes "
        f"{size['descriptors']:,.0f} bytes, and {size['geometry']:,.0f} for where they are"
    )


def facts_of(store: LocalStore) -> dict[str, Any]:
    """Return what a store holds, as JSON values."""
    return {
        "store": str(store.folder),
        "images": store.images,
        "descriptors": store.count,
        "dims": store.dims,
        "bits": store.bits,
        "bytes_per_image": store.bytes_per_image(),
        "skipped": [asdict(item) for item in store.skipped],
        "fingerprint": store.fingerprint,
    }


@app.command(epilog="Example: ilias local itq local/distractors --bits 128 --out itq.safetensors")
def itq(
    stores: Annotated[list[Path], typer.Argument(help="Stores of local descriptors.", metavar="STORE...")],
    out: Annotated[Path, typer.Option(help="File of the binarisation, .safetensors.")],
    bits: Annotated[int, typer.Option(min=64, max=4096, help="Of a packed descriptor, a multiple of 64.")] = 128,
    sample: Annotated[int, typer.Option(min=2, help="Learn from so many descriptors, drawn uniformly.")] = 500_000,
    iterations: Annotated[int, typer.Option(min=0, max=10_000, help="Of turning the axes.")] = 50,
    centred: Annotated[bool, typer.Option("--centred", help="Subtract the mean; AMES does not.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Of all that is drawn.")] = 0,
    overwrite: Overwrite = False,
    json: Json = None,
) -> None:
    """Learn how local descriptors become bits: iterative quantisation."""
    from openilias.descriptors.local_store import open_local_store
    from openilias.rerank.packing import ItqSettings, learn_itq_to

    settings = ItqSettings(bits, sample, iterations, centred, seed)
    made = learn_itq_to([open_local_store(path) for path in stores], settings, out, overwrite=overwrite)
    say(f"{out}: {made.dims} dimensions to {made.bits} bits")
    emit({"binarisation": str(out), "dims": made.dims, "bits": made.bits, "sha256": made.digest}, json)


@app.command(
    epilog="Example: ilias local pack local/distractors --itq itq.safetensors --most 100 --out packed/distractors"
)
def pack(
    store: Annotated[Path, typer.Argument(help="A store of local descriptors.", metavar="STORE")],
    out: Annotated[Path, typer.Option(help="Folder of the packed store.")],
    itq_file: Annotated[
        Path | None, typer.Option("--itq", metavar="FILE", help="A binarisation of ilias local itq.")
    ] = None,
    network: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A binary checkpoint of AMES: it has learned its own bits.")
    ] = None,
    most: Annotated[
        int | None, typer.Option(min=1, help="Of an image, so many of largest weight; all by default.")
    ] = None,
    shard: Shard = None,
    overwrite: Overwrite = False,
    json: Json = None,
) -> None:
    """Pack a store of local descriptors to bits. Killed, it continues when run again."""
    from openilias.core.shards import Share, parse_share
    from openilias.descriptors.local_store import open_local_store
    from openilias.rerank.itq import read_binarisation
    from openilias.rerank.packing import pack_store

    share = Share() if shard is None else parse_share(shard)
    if network is not None and itq_file is None:
        from openilias.rerank.ames_files import binarisation_of, read_ames

        made = binarisation_of(read_ames(network))
    elif itq_file is not None and network is None:
        made, _ = read_binarisation(itq_file)
    else:
        raise typer.BadParameter("Give either --itq or --network.")
    left = pack_store(open_local_store(store), made, out, most=most, share=share, overwrite=overwrite)
    if left:
        say(f"{out}: this share is done; {len(left)} shards are left to the others")
        emit({"store": str(out), "unfinished": left}, json)
        return
    packed = open_local_store(out)
    say_store(packed)
    emit(facts_of(packed), json)


@app.command(
    name="import",
    epilog="Example: ilias local import gallery.hdf5 --ids gallery.txt --partition positives --out local/positives",
)
def import_(
    file: Annotated[Path, typer.Argument(help="Local descriptors of AMES' code, .hdf5.", metavar="FILE")],
    ids: Annotated[Path, typer.Option(help="The list of its images: one id per line, in its order.")],
    partition: Annotated[Partition, typer.Option(help="That the images belong to.")],
    out: Annotated[Path, typer.Option(help="Folder of the store.")],
    side: Annotated[int, typer.Option(min=1, help="Of the images that were described, in pixels.")] = 770,
    pixels: Annotated[
        bool, typer.Option("--pixels", help="Positions are pixels, as those of CVNet, and no shares of the image.")
    ] = False,
    overwrite: Overwrite = False,
    json: Json = None,
) -> None:
    """Make a store of a file of AMES' code."""
    from openilias.descriptors.local_official import read_ames_features

    store = read_ames_features(file, _lines(ids), partition, out, side=side, pixels=pixels, overwrite=overwrite)
    say_store(store)
    emit(facts_of(store), json)


@app.command(epilog="Example: ilias local export local/positives --ids gallery.txt --out gallery.hdf5")
def export(
    store: Annotated[Path, typer.Argument(help="A store of local descriptors.", metavar="STORE")],
    ids: Annotated[Path, typer.Option(help="The images to write: one id per line, in the order of the file.")],
    out: Annotated[Path, typer.Option(help="The file, .hdf5.")],
    most: Annotated[int, typer.Option(min=1, help="Descriptors of an image.")] = 700,
    json: Json = None,
) -> None:
    """Write a file of AMES' code from a store."""
    from openilias.descriptors.local_official import write_ames_features
    from openilias.descriptors.local_store import open_local_store

    listed = _lines(ids)
    write_ames_features(open_local_store(store), out, listed, most=most)
    say(f"{out}: {len(listed)} images, {most} descriptors each")
    emit({"file": str(out), "images": len(listed), "descriptors": most}, json)


@app.command(epilog="Example: ilias local match query.jpg image.jpg --estimator homography --out matches.png")
def match(
    query: Annotated[Path, typer.Argument(help="An image file.", metavar="QUERY")],
    image: Annotated[Path, typer.Argument(help="Another one.", metavar="IMAGE")],
    out: Annotated[Path, typer.Option(help="Picture to write, .png or .jpg.", metavar="FILE", dir_okay=False)],
    model: Annotated[str, typer.Option(help="sift, aliked, or a network with a map (dinov2_vitb14_reg).")] = "sift",
    weights: Weights = None,
    random_weights: RandomWeights = None,
    detector: Annotated[Path | None, typer.Option(metavar="FILE", help="Attention detector of AMES.")] = None,
    resolution: Annotated[int, typer.Option(min=14, max=20_000, help="Larger side of the images.")] = 770,
    scales: Annotated[
        str, typer.Option(metavar="S,S,...", help="Describe at each factor of the size; SIFT has its own.")
    ] = "1",
    most: Annotated[int, typer.Option(min=1, max=100_000, help="Of an image, those of largest weight.")] = 700,
    estimator: Annotated[
        Literal["affine", "homography"],
        typer.Option(rich_help_panel=_SPATIAL, help="Of the map: our own, or PoseLib, which begins with it."),
    ] = "affine",
    cosine: Annotated[
        float | None,
        typer.Option(rich_help_panel=_SPATIAL, min=-1.0, max=1.0, help="Of a match; 0.9 of SIFT, else 0.8."),
    ] = None,
    tolerance: Annotated[
        float, typer.Option(rich_help_panel=_SPATIAL, min=0.01, max=10_000.0, help="Of an inlier, in pixels.")
    ] = 24.0,
    least: Annotated[int, typer.Option(rich_help_panel=_SPATIAL, min=1, help="Fewer inliers are none.")] = 5,
    hypotheses: Annotated[int, typer.Option(rich_help_panel=_SPATIAL, min=1, help="At most so many are tried.")] = 1000,
    lines: Annotated[int, typer.Option(min=0, help="At most so many inliers are drawn, of largest weight.")] = 60,
    side: Annotated[int, typer.Option(min=64, max=20_000, help="Larger side of the picture, at most.")] = 1600,
    device: Device = "cpu",
    json: Json = None,
) -> None:
    """Match two image files and draw the inliers, as spatial verification finds them."""
    from openilias.experiments.matching import cosine_of, match_to
    from openilias.models.local_backbone import LocalSettings
    from openilias.models.local_zoo import load_local
    from openilias.rerank.spatial import SpatialSettings

    backbone = load_local(
        model,
        LocalSettings(resolution=resolution, scales=numbers_of(scales, "--scales", float), most=most),
        weights=weights,
        detector=detector,
        random_weights=random_weights,
        device=device_of(device),
    )
    how = SpatialSettings(
        estimator=estimator,
        cosine=cosine_of(model) if cosine is None else cosine,
        tolerance=tolerance,
        least=least,
        scales=True,
        hypotheses=hypotheses,
    )
    made = match_to(query, image, backbone, how, out, lines=lines, side=side)
    found = made.found
    say(f"{out}: {found.tentative:,} tentative matches, {found.inliers:,} inliers")
    emit(
        {
            "picture": str(out),
            "query": len(made.query),
            "image": len(made.image),
            "tentative": found.tentative,
            "inliers": found.inliers,
            "matrix": None if found.matrix is None else found.matrix.tolist(),
        },
        json,
    )


def _lines(path: Path) -> list[str]:
    from openilias.core.errors import OpenIliasError

    try:
        return [line.split(",")[0] for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise OpenIliasError(f"This list cannot be read: {error}.", where=path, fix="Give UTF-8 text.") from None
