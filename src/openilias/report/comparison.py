"""The comparison of two stores: as lines, as JSON, and as a page with the worst pictures."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from openilias.data import Benchmark
from openilias.descriptors.compare import QUANTILES, Comparison, compare_stores
from openilias.descriptors.store import DescriptorStore, told_if_full
from openilias.report.figures.style import BLUE, figure_style, grid, new_figure, save_svg
from openilias.report.html import environment
from openilias.report.output import output_folder
from openilias.report.pictures import Picture, show

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KIND = "comparison"
COSINES, HISTOGRAM, PAGE = "cosines.parquet", "histogram.svg", "index.html"
_LEAST, _MOST = -7, 0.5  # powers of ten of 1 - cosine; float32 tells no smaller ones apart


def as_json(found: Comparison) -> dict[str, Any]:
    """Return a comparison as JSON values, but for the single cosines."""
    return {
        "rows": found.rows,
        "only_a": {"count": found.only_a, "first": list(found.some_a)},
        "only_b": {"count": found.only_b, "first": list(found.some_b)},
        "minimum": found.minimum,
        "quantiles": {str(share): value for share, value in zip(QUANTILES, found.quantiles, strict=True)},
        "mean": found.mean,
        "equal": found.equal,
        "largest_difference": found.largest_difference,
        "worst": [asdict(pair) for pair in found.worst],
    }


def rows(found: Comparison) -> list[tuple[str, str]]:
    """Return the numbers as they are printed: name, value."""
    names = [f"{100 * share:g} % of the cosines are below" for share in QUANTILES]
    return [
        ("ids compared", f"{found.rows:,}"),
        ("only in A", f"{found.only_a:,}"),
        ("only in B", f"{found.only_b:,}"),
        ("lowest cosine", f"{found.minimum:.7f}"),
        *((name, f"{value:.7f}") for name, value in zip(names, found.quantiles, strict=True)),
        ("mean cosine", f"{found.mean:.7f}"),
        ("equal in every value", f"{100 * found.equal:.2f} %"),
        ("largest difference of a value", f"{found.largest_difference:.3g}"),
    ]


def write_comparison(
    a: DescriptorStore, b: DescriptorStore, out: Path, *, benchmark: Benchmark | None = None, worst: int = 20
) -> Comparison:
    """Compare two stores and write ``cosines.parquet`` (id, cosine), ``histogram.svg`` and ``index.html``.

    Args:
        a: the first store.
        b: the second.
        out: folder; a comparison that was there is replaced, and only by a whole one.
        benchmark: where the pictures of the worst are; none are shown by default.
        worst: how many are listed.

    Raises:
        OpenIliasError: as :func:`openilias.descriptors.compare.compare_stores`, or ``out`` is in the way.
    """
    schema = pa.schema([("id", pa.string()), ("cosine", pa.float64())])
    about: dict[str, Any] = {"a": str(a.folder), "b": str(b.folder)}
    with told_if_full(out), output_folder(out, KIND, about) as folder:
        with pq.ParquetWriter(folder / COSINES, schema) as writer:
            found = compare_stores(
                a, b, worst=worst, sink=lambda ids, cosines: writer.write(pa.table([ids, cosines], schema=schema))
            )
        with figure_style():
            save_svg(histogram(found.cosines), folder / HISTOGRAM)
        listed = [pair.id for pair in found.worst]
        nothing = [(None, Picture(item, None, 0, 0)) for item in listed]
        shown = nothing if benchmark is None else show(benchmark, listed, folder)
        page = environment().get_template("comparison.html.j2")
        text = page.render(a=str(a.folder), b=str(b.folder), found=found, rows=rows(found), shown=shown)
        (folder / PAGE).write_text(text, encoding="utf-8")
        about |= as_json(found)
    return found


def histogram(cosines: npt.NDArray[np.float32]) -> Figure:
    """Draw how many ids have which cosine, on an axis that spreads what is close to 1."""
    edges = np.linspace(_LEAST, _MOST, 76)
    distances = np.log10(np.maximum(1 - cosines.astype(np.float64), 10.0**_LEAST))
    figure, axes = new_figure(7, 3.4)
    axes.hist(distances, edges.tolist(), color=BLUE, log=True)
    powers = range(_LEAST, 1)
    labels = ["1", *(f"{1 - 10.0**power:.{-power}f}" for power in powers[1:-1]), "0"]
    axes.set_xticks(list(powers), labels)
    axes.set(xlabel="cosine (equal descriptors at the right)", ylabel="ids", xlim=(_MOST, _LEAST), ylim=(0.7, None))
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.set_title(f"Cosines of {len(cosines):,} ids, lowest {float(cosines.min()):.6f}")
    grid(axes)
    return figure
