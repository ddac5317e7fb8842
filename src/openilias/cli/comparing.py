"""Options of all commands that compare local descriptors, and what they come to."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from openilias.cli.options import device_of

if TYPE_CHECKING:
    from openilias.rerank.similarities import Comparer
    from openilias.rerank.spatial import SpatialSettings

_MIX = "Global and local together: weight * global + (1 - weight) * sigmoid(gamma * local)"
_SPATIAL = "Spatial verification"
_AMES = "AMES"

Method = Annotated[
    Literal["chamfer", "spatial", "ames"],
    typer.Option(help="Chamfer similarity; spatial verification, by the number of inliers; or a network of AMES."),
]
Queries = Annotated[list[Path], typer.Option(help="Local store of queries; may be repeated.")]
Databases = Annotated[list[Path], typer.Option(help="Local store of database images; may be repeated.")]
QueryDescriptors = Annotated[int, typer.Option(min=1, help="Of a query.")]
MixFile = Annotated[
    Path | None, typer.Option(rich_help_panel=_MIX, metavar="FILE", help="What ilias tune has found for the method.")
]
GlobalWeight = Annotated[float | None, typer.Option(rich_help_panel=_MIX, min=0.0, max=1.0)]
Gamma = Annotated[float | None, typer.Option(rich_help_panel=_MIX, min=1e-9, max=1e6)]
Estimator = Annotated[
    Literal["affine", "homography"] | None,
    typer.Option(
        rich_help_panel=_SPATIAL, help="Of the map: our own, or PoseLib, which begins with it. By default affine."
    ),
]
Hamming = Annotated[
    float | None,
    typer.Option(rich_help_panel=_SPATIAL, min=0.0, max=128.0, help="Of a match, in bits of 128; 32 by default."),
]
Cosine = Annotated[
    float | None,
    typer.Option(
        rich_help_panel=_SPATIAL, min=-1.0, max=1.0, help="Of a match, of unpacked descriptors; 0.8 by default."
    ),
]
Tolerance = Annotated[
    float | None,
    typer.Option(rich_help_panel=_SPATIAL, min=0.01, max=10_000.0, help="Of an inlier, in pixels; 24 by default."),
]
Least = Annotated[
    int | None, typer.Option(rich_help_panel=_SPATIAL, min=1, help="Fewer inliers are none; 5 by default.")
]
Hypotheses = Annotated[
    int | None,
    typer.Option(rich_help_panel=_SPATIAL, min=1, help="At most so many are tried, for an image; 1000 by default."),
]
Scales = Annotated[bool, typer.Option("--scales", rich_help_panel=_SPATIAL, help="Descriptors have scales: SIFT.")]
Network = Annotated[Path | None, typer.Option(rich_help_panel=_AMES, metavar="FILE", help="A checkpoint of AMES.")]
NetworkPrecision = Annotated[
    Literal["float32", "bfloat16", "float16"] | None,
    typer.Option(rich_help_panel=_AMES, help="In which it computes, float32 by default; float16 on GPUs only."),
]
NetworkDevice = Annotated[
    str | None, typer.Option(rich_help_panel=_AMES, help="cpu, cuda, mps, or auto; else the CPU.")
]
NetworkBatch = Annotated[
    int | None, typer.Option(rich_help_panel=_AMES, min=1, help="Images at a time; what is fast by default.")
]
Trust = Annotated[bool, typer.Option("--trust", help="Do not compare the shards with their checksums.")]


def spatial_of(method: str, **given: Any) -> SpatialSettings:
    """Return the settings of spatial verification.

    Raises:
        typer.BadParameter: some are given, and the method is another.
    """
    from openilias.rerank.spatial import SpatialSettings

    said = {name: value for name, value in given.items() if value not in (None, False)}
    if said and method != "spatial":
        names = ", ".join(f"--{name}" for name in said)
        raise typer.BadParameter(f"{names} belong to spatial verification: --method spatial.")
    return SpatialSettings.model_validate(said)


def comparer_of(
    method: str, network: Path | None, precision: str | None, device: str | None, batch: int | None
) -> Comparer | None:
    """Return what compares by a network, None for the other methods.

    Raises:
        typer.BadParameter: a network, or an option of one, without the method, or the other way round.
    """
    if method != "ames":
        named = {"network": network, "precision": precision, "device": device, "batch-size": batch}
        said = [f"--{name}" for name, value in named.items() if value is not None]
        if said:
            raise typer.BadParameter(f"{', '.join(said)} belong to AMES: --method ames.")
        return None
    if network is None:
        raise typer.BadParameter("--method ames and --network FILE belong together.")
    from openilias.rerank.ames_scores import open_ames

    return open_ames(network, device_of(device or "cpu"), batch=batch, precision=precision or "float32")
