"""mAP by the length of the shortlist and the number of descriptors of an image, as in Fig. H of the paper."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from openilias.core.errors import OpenIliasError
from openilias.core.files import atomic_path, read_json, write_bytes, write_json
from openilias.report.figures.exhibit import Exhibit
from openilias.report.figures.style import figure_style, grid, new_figure, save_svg
from openilias.report.layout import Column, Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KIND = "sweep"
TABLE, FIGURE, VALUES = "sweep.csv", "sweep.svg", "sweep.json"


@dataclass(frozen=True)
class Point:
    """One setting and what it reaches.

    Attributes:
        shortlist: images of each list that are re-ranked.
        descriptors: of a database image.
        map: mAP@k, in [0, 1].
        seconds: per query: those of the longest shortlist, in proportion.
        image_bytes: of the descriptors of an image.
        geometry_bytes: of where they are, which only spatial verification reads.
    """

    shortlist: int
    descriptors: int
    map: float
    seconds: float
    image_bytes: float
    geometry_bytes: float


@dataclass(frozen=True)
class Sweep:
    """All points, and what they lie between.

    Attributes:
        method: that compared.
        points: by number of descriptors, then by shortlist.
        first: mAP@k of the ranking that is re-ranked.
        oracle: mAP@k that re-ranking all of each list can reach at most.
    """

    method: str
    points: tuple[Point, ...]
    first: float
    oracle: float


def sweep_rows(sweep: Sweep, images: int) -> list[list[str]]:
    """Return the lines of a table; ``images`` is how many a database has whose size is told."""
    return [
        [
            str(point.descriptors),
            str(point.shortlist),
            f"{100 * point.map:.2f}",
            f"{point.seconds:.3g}",
            f"{point.image_bytes:,.0f}",
            f"{point.image_bytes * images / 1e9:,.3g}",
        ]
        for point in sweep.points
    ]


def sweep_header(images: int) -> list[str]:
    """Return the header of :func:`sweep_rows`."""
    return ["descriptors", "shortlist", "mAP", "s per query", "bytes per image", f"GB of {images:,}"]


def write_sweep(sweep: Sweep, folder: Path) -> None:
    """Write ``sweep.csv``, ``sweep.svg``, and ``sweep.json``, which :func:`read_sweep` reads."""
    lines = ["method,descriptors,shortlist,map,seconds_per_query,bytes_per_image,geometry_bytes_per_image"]
    lines += [
        f"{sweep.method},{p.descriptors},{p.shortlist},{p.map:.6f},{p.seconds:.6f},{p.image_bytes:.1f},"
        f"{p.geometry_bytes:.1f}"
        for p in sweep.points
    ]
    write_bytes(folder / TABLE, ("\n".join(lines) + "\n").encode())
    with atomic_path(folder / FIGURE) as temporary, figure_style():
        save_svg(figure(sweep), temporary)
    write_json(folder / VALUES, {"kind": KIND} | asdict(sweep))


def read_sweep(folder: Path) -> Sweep:
    """Read a sweep that was written.

    Raises:
        OpenIliasError: it is none.
    """
    about = read_json(folder / VALUES)
    try:
        if about["kind"] != KIND:
            raise ValueError(f"it is of {about['kind']}")
        points = tuple(Point(**point) for point in about["points"])
        return Sweep(str(about["method"]), points, float(about["first"]), float(about["oracle"]))
    except (KeyError, TypeError, ValueError) as error:
        raise OpenIliasError(f"This is no sweep: {error}.", where=folder / VALUES, fix="Make it again.") from None


def exhibit(name: str, sweep: Sweep) -> Exhibit:
    """Return Fig. H of a run; within ``figure_style``."""
    columns = (
        Column("descriptors", "descriptors"),
        Column("shortlist", "shortlist"),
        Column("map", "mAP, %", 2),
        Column("seconds_per_query", "s per query", 3),
        Column("bytes_per_image", "bytes per image", 0),
        Column("gb_of_100m", "GB of 100M images", 0),
    )
    rows = tuple(
        (p.descriptors, p.shortlist, 100 * p.map, p.seconds, p.image_bytes, p.image_bytes / 10) for p in sweep.points
    )
    notes = (
        f"Not re-ranked: {100 * sweep.first:.1f}; a perfect re-ranking of the longest lists: {100 * sweep.oracle:.1f}.",
        "paper (AMES, SigLIP adapted): 35.6 with 100 descriptors and shortlists of 1,000, 0.6 s per query, 150 GB; "
        "38.8 at most, 20 s, almost 900 GB.",
    )
    title = f"{name}: re-ranking by {sweep.method}, by the descriptors of an image and the length of the shortlist."
    return Exhibit("figure-h-sweep", "Fig. H", Table(title, columns, rows, notes=notes), figure(sweep))


def figure(sweep: Sweep) -> Figure:
    """Draw mAP over the memory of an image, a line for each shortlist, with the number of descriptors at each point."""
    made, axes = new_figure(6.4, 4)
    shortlists = sorted({point.shortlist for point in sweep.points})
    for number, shortlist in enumerate(shortlists):
        points = [point for point in sweep.points if point.shortlist == shortlist]
        share = number / max(1, len(shortlists) - 1)
        colour = (0.75 - 0.6 * share, 0.62 - 0.28 * share, 0.9 - 0.25 * share)
        axes.plot(
            [point.image_bytes / 1000 for point in points], [100 * point.map for point in points], "o-", color=colour,
            markersize=4, label=f"{shortlist:,}",
        )  # fmt: skip
        if shortlist == shortlists[-1]:
            for point in points:
                axes.annotate(
                    f"{point.descriptors}", (point.image_bytes / 1000, 100 * point.map), xytext=(0, 5),
                    textcoords="offset points", ha="center", fontsize=8,
                )  # fmt: skip
    axes.axhline(100 * sweep.first, color="#888888", linestyle="--", linewidth=1, label="not re-ranked")
    axes.set(xlabel="memory of the descriptors of an image (KB)", ylabel="mAP", xscale="log")
    sizes = sorted({point.image_bytes / 1000 for point in sweep.points})
    axes.set_xticks(sizes, [f"{size:.3g}" for size in sizes])
    axes.minorticks_off()  # their labels would be formulas
    axes.set_title(f"Re-ranking by {sweep.method}: descriptors of an image, and length of the shortlist")
    axes.margins(y=0.12)
    axes.legend(title="shortlist")
    grid(axes)
    return made
