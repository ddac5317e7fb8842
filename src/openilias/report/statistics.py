"""The statistics of a benchmark as text, CSV and figures (paper, section 3.2, Figs. 3 and I, Table A)."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from openilias.data.statistics import ANYWHERE, GRID, ImageSet, Spread, Statistics, spread
from openilias.data.taxonomy import UNASSIGNED
from openilias.evaluate.groups import CLUTTER_EDGES
from openilias.published import printed
from openilias.published.printed import value_of
from openilias.report.figures.exhibit import Exhibit
from openilias.report.figures.style import BLUE, LINE, ORANGE, figure_style, grid, new_figure, save_png, save_svg, short
from openilias.report.layout import Column, Table
from openilias.report.output import output_folder

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

KIND = "statistics"
MARKER = "statistics.json"
_QUERY, _POSITIVE = ORANGE, BLUE
_BINS = 20


class Row(NamedTuple):
    """One line of the table; ``published`` is what the paper says of ILIAS, empty if it does not."""

    label: str
    value: str
    published: str = ""


def rows(statistics: Statistics) -> list[Row]:
    """Return the numbers as they are printed."""
    s, nothing = statistics, "-"
    here = bool(len(s.boxes))
    several, without = f"{int((s.boxes > 1).sum()):,}", f"{int((s.boxes == 0).sum()):,}"
    table = [
        Row("objects", f"{s.objects:,}", "1,000"),
        Row("image queries", f"{s.queries.images:,}", "1,232"),
        Row("text queries", f"{s.text_queries:,}", "1,000"),
        Row("positives", f"{s.positives.images:,}", "4,715"),
        Row("distractors", nothing if s.distractors is None else f"{s.distractors:,}", "99,144,315"),
        Row("boxes", f"{int(s.boxes.sum()):,}" if here else nothing, "6,117"),
        Row("images with more than one box", several if here else nothing, "235"),
        Row("images without a box", without if here else nothing),
    ]
    if any(s.levels):
        levels, nodes = (" / ".join(map(str, counts)) for counts in (s.levels, s.nodes))
        table.append(Row("categories, coarse / mid / fine", levels, "8 / 42 / 38"))
        table.append(Row(f"  with '{UNASSIGNED}' as one", nodes))
    if s.uncategorised:
        table.append(Row("objects without a category", f"{s.uncategorised:,}"))
    if s.without_query:
        table.append(Row("objects without an image query", f"{s.without_query:,}"))
    table += [
        Row("positives per object", _spread(spread(s.per_object))),
        Row("area coverage of queries", _spread(spread(s.queries.coverage), ".3f")),
        Row("area coverage of positives", _spread(spread(s.positives.coverage), ".3f")),
        Row("  of these below half", nothing if s.below_half is None else f"{100 * s.below_half:.1f} %"),
        Row("clutter segments", _spread(spread(s.clutter))),
        Row("words of a text query", _spread(spread(s.text_words))),
        Row("larger side of queries, px", _spread(_sides(s.queries))),
        Row("larger side of positives, px", _spread(_sides(s.positives))),
        Row("camera models", _cameras(s) if here else nothing, _published_cameras()),
    ]
    if s.centre_distance is not None:
        table.append(Row("distance of boxes from the centre", f"{s.centre_distance:.3f}, {ANYWHERE:.3f} if anywhere"))
    return table


def _spread(found: Spread | None, form: str = ",.0f") -> str:
    if found is None:
        return "-"
    middle = form if form != ",.0f" else ",.1f"
    return f"{found.least:{form}} .. {found.most:{form}}, median {found.median:{middle}}, mean {found.mean:{middle}}"


def _cameras(s: Statistics) -> str:
    return f"{len(s.cameras):,}, named by {s.with_camera:,} of {len(s.boxes):,} images"


def _published_cameras() -> str:
    images = [int(count) for *_, count in printed("A").cells]
    return f"{len(images)} of more than 100 images each, named by {sum(images):,}"


def _sides(images: ImageSet) -> Spread | None:
    return spread(images.sizes.max(axis=1)) if len(images.sizes) else None


def as_json(statistics: Statistics) -> dict[str, Any]:
    """Return all numbers as JSON values."""
    s = statistics
    return {
        "benchmark": s.name,
        "fingerprint": s.fingerprint,
        "objects": s.objects,
        "objects_without_image_query": s.without_query,
        "image_queries": _images_json(s.queries),
        "text_queries": {"texts": s.text_queries, "words": _spread_json(s.text_words)},
        "positives": _images_json(s.positives) | {"below_half": s.below_half, "coverage_gap": s.coverage_gap},
        "positives_per_object": _spread_json(s.per_object)
        | {"histogram": {str(count): objects for count, objects in positives_histogram(s)}},
        "distractors": {"images": s.distractors, "counted_by": s.counted, "shards_here": s.shards},
        "boxes": int(s.boxes.sum()) if len(s.boxes) else None,
        "clutter": _spread_json(s.clutter),
        "centre_distance": s.centre_distance,
        "categories": {
            "coarse_mid_fine": list(s.levels),
            "nodes": list(s.nodes),
            "objects_without": s.uncategorised,
            "objects": [asdict(category) for category in s.categories],
        },
        "cameras": {"models": len(s.cameras), "images": dict(s.cameras), "images_without": s.without_camera}
        if len(s.boxes)
        else None,
        "heat_map": None if s.heat is None else np.round(s.heat, 6).tolist(),
    }


def _spread_json(values: npt.ArrayLike) -> dict[str, Any]:
    found = spread(values)
    return {"count": 0} if found is None else asdict(found)


def _images_json(images: ImageSet) -> dict[str, Any]:
    here, boxes, sizes = len(images.boxes) > 0, images.boxes, images.sizes
    return {
        "images": images.images,
        "boxes": int(boxes.sum()) if here else None,
        "images_with_more_than_one_box": int((boxes > 1).sum()) if here else None,
        "images_without_box": int((boxes == 0).sum()) if here else None,
        "coverage": _spread_json(images.coverage),
        "larger_side": _spread_json(sizes.max(axis=1) if here else ()),
        "landscape": int((sizes[:, 0] > sizes[:, 1]).sum()) if here else None,
        "portrait": int((sizes[:, 0] < sizes[:, 1]).sum()) if here else None,
    }


def positives_histogram(statistics: Statistics) -> list[tuple[int, int]]:
    """Return (number of positives, objects with so many), for every number up to the largest."""
    counts = np.bincount(statistics.per_object)
    return [(number, int(counts[number])) for number in range(1, len(counts))]


def mid_categories(statistics: Statistics) -> list[tuple[str, str, int]]:
    """Return (coarse, mid, objects): coarse ones by falling size, in each the mid ones too, ``other`` last."""
    coarse: dict[str, int] = {}
    mid: dict[tuple[str, str], int] = {}
    for category in statistics.categories:
        coarse[category.coarse] = coarse.get(category.coarse, 0) + category.objects
        pair = (category.coarse, category.mid)
        mid[pair] = mid.get(pair, 0) + category.objects
    order = sorted(mid, key=lambda pair: (-coarse[pair[0]], pair[0], pair[1] == UNASSIGNED, -mid[pair], pair[1]))
    return [(*pair, mid[pair]) for pair in order]


def clutter_edges(statistics: Statistics) -> list[int]:
    """Return the edges of at most forty bins of equal, round width."""
    most = int(statistics.clutter.max(initial=0)) + 1
    width = next(step for step in _round_steps() if step * 2 * _BINS >= most)
    return list(range(0, width * -(-most // width) + 1, width))


def _round_steps() -> Iterator[int]:
    scale = 1
    while True:
        yield from (scale, 2 * scale, 5 * scale)
        scale *= 10


def csv_files(statistics: Statistics) -> dict[str, str]:
    """Return file name -> CSV text of the table and of what each figure shows."""
    s = statistics
    files = {
        "statistics.csv": _csv(("name", "value", "published for ILIAS"), rows(s)),
        "positives_per_object.csv": _csv(("positives", "objects"), positives_histogram(s)),
    }
    if len(s.clutter):
        edges = clutter_edges(s)
        counts = np.histogram(s.clutter, edges)[0]
        files["clutter.csv"] = _csv(("from", "below", "positives"), zip(edges, edges[1:], counts, strict=False))
    if len(s.positives.coverage) or len(s.queries.coverage):
        edges_01 = np.arange(_BINS + 1) / _BINS
        shares = [np.histogram(images.coverage, edges_01)[0] for images in (s.queries, s.positives)]
        lines = zip(edges_01, edges_01[1:], *shares, strict=False)
        files["coverage.csv"] = _csv(("from", "below", "queries", "positives"), lines)
    if s.heat is not None:
        cells = ((row, column, f"{s.heat[row, column]:.6f}") for row in range(GRID) for column in range(GRID))
        files["heat_map.csv"] = _csv(("row", "column", "share"), cells)
    if s.categories:
        files["categories.csv"] = _csv(
            ("coarse", "mid", "fine", "objects"), (tuple(asdict(category).values()) for category in s.categories)
        )
    if s.cameras:
        files["cameras.csv"] = _csv(("camera", "images"), s.cameras)
    return files


def _csv(header: Sequence[str], lines: Any) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(lines)
    return buffer.getvalue()


def write_statistics(statistics: Statistics, out: Path) -> list[str]:
    """Write ``statistics.json``, the CSV files, and every figure as SVG and PNG: equal input, equal bytes.

    Args:
        statistics: what is shown.
        out: folder; statistics that were there are replaced, and only by whole ones.

    Returns:
        The names of the files.

    Raises:
        OpenIliasError: ``out`` holds something else.
    """
    with output_folder(out, KIND, as_json(statistics)) as folder:
        for name, text in csv_files(statistics).items():
            (folder / name).write_text(text, encoding="utf-8")
        with figure_style():
            for name, figure in figures(statistics).items():
                save_svg(figure, folder / f"{name}.svg")
                save_png(figure, folder / f"{name}.png")
        names = sorted(path.name for path in folder.iterdir())
    return [*names, MARKER]


_EXHIBITS = {
    "positives_per_object": ("figure-3a-positives", "Fig. 3a", "Objects by their number of positives."),
    "clutter": ("figure-3b-clutter", "Fig. 3b", "Positives by the segments outside their boxes."),
    "coverage": ("figure-3c-coverage", "Fig. 3c", "Images by the share of them inside their boxes."),
    "heat_map": ("figure-i-boxes", "Fig. I", "Where the boxes of the positives lie: share of them that covers a cell."),
}


def exhibits(statistics: Statistics) -> list[Exhibit]:
    """Return Figs. 3 and I as far as there are numbers; within ``figure_style``."""
    drawn, texts = figures(statistics), csv_files(statistics)
    found = []
    for key, (name, paper, title) in _EXHIBITS.items():
        if key in drawn:
            data = _table(title, texts[f"{key}.csv"])
            table = data if statistics.heat is None or key != "heat_map" else _heat_table(title, statistics.heat)
            found.append(Exhibit(name, paper, table, drawn[key], data))
    return found


def _heat_table(title: str, heat: npt.NDArray[np.float64], parts: int = 8) -> Table:
    """Return means over blocks of cells, in %: the cells themselves are too many to read."""
    blocks = 100 * heat.reshape(parts, GRID // parts, parts, GRID // parts).mean(axis=(1, 3))
    columns = (Column("row", "from the top"), *(Column(f"column_{n}", str(n)) for n in range(1, parts + 1)))
    rows = tuple((n, *line) for n, line in enumerate(blocks.tolist(), start=1))
    return Table(f"{title} In % of the positives, eighths of width and height.", columns, rows)


def _table(title: str, text: str) -> Table:
    header, *lines = csv.reader(text.splitlines())
    rows = tuple(tuple(value_of(cell) for cell in line) for line in lines)
    return Table(title, tuple(Column(name, name, None) for name in header), rows)


def figures(statistics: Statistics) -> dict[str, Figure]:
    """Draw the figures for which there are numbers: file name -> figure."""
    s = statistics
    wanted: list[tuple[str, bool, tuple[float, float], Callable[[Axes, Statistics], None]]] = [
        ("positives_per_object", s.objects > 0, (6, 3.4), _draw_positives),
        ("clutter", len(s.clutter) > 0, (6, 3.4), _draw_clutter),
        ("coverage", len(s.positives.coverage) + len(s.queries.coverage) > 0, (6, 3.4), _draw_coverage),
        ("heat_map", s.heat is not None, (5.2, 4.4), _draw_heat),
        ("categories", bool(s.categories), (6.5, 1.3 + 0.21 * len(mid_categories(s))), _draw_categories),
    ]
    return {name: _figure(size, draw, s) for name, there, size, draw in wanted if there}


def _figure(size: tuple[float, float], draw: Callable[[Axes, Statistics], None], statistics: Statistics) -> Figure:
    figure, axes = new_figure(*size)
    draw(axes, statistics)
    return figure


def _whole_numbers(axis: Any) -> None:
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(nbins=12, integer=True, steps=[1, 2, 5, 10]))


def _draw_positives(axes: Axes, s: Statistics) -> None:
    numbers, objects = zip(*positives_histogram(s), strict=True)
    axes.bar(numbers, objects, width=0.8, color=_POSITIVE)
    axes.set(xlabel="positives of an object", ylabel="objects", xlim=(0.4, max(numbers) + 0.6))
    axes.set_title(f"{s.objects:,} objects, {s.positives.images / s.objects:.1f} positives each on average")
    _whole_numbers(axes.xaxis)
    _whole_numbers(axes.yaxis)
    grid(axes)


def _draw_clutter(axes: Axes, s: Statistics) -> None:
    edges = clutter_edges(s)
    axes.hist(s.clutter, edges, color=_POSITIVE, rwidth=0.92)
    axes.set(xlabel="segments outside the boxes", ylabel="positives", xlim=(edges[0], edges[-1]))
    axes.set_title(f"Clutter of {len(s.clutter):,} positives, median {np.median(s.clutter):.0f}")
    inner = [edge for edge in CLUTTER_EDGES[1:-1] if edge < edges[-1]]
    for number, edge in enumerate(inner):
        label = "limits of the evaluation's groups" if number == 0 else None
        axes.axvline(edge, color=LINE, linestyle=":", linewidth=1.2, label=label)
    if inner:
        axes.set_ylim(0, 1.18 * axes.get_ylim()[1])
        axes.legend(loc="upper right")
    _whole_numbers(axes.yaxis)
    grid(axes)


def _draw_coverage(axes: Axes, s: Statistics) -> None:
    edges = np.arange(_BINS + 1) / _BINS
    for images, label, colour in ((s.queries, "queries", _QUERY), (s.positives, "positives", _POSITIVE)):
        known = images.coverage
        if len(known):
            heights = 100 * np.histogram(known, edges)[0] / len(known)
            text = f"{label} ({len(known):,}), median {100 * np.median(known):.0f} %"
            axes.stairs(heights, 100 * edges, fill=True, alpha=0.35, color=colour)
            axes.stairs(heights, 100 * edges, color=colour, linewidth=1.6, label=text)
    axes.set(xlabel="share of the image inside its boxes, %", ylabel="share of the images, %", xlim=(0, 100))
    axes.set_title("Area coverage")
    axes.set_ylim(0, 1.3 * axes.get_ylim()[1])
    axes.legend(loc="upper right")
    grid(axes)


def _draw_heat(axes: Axes, s: Statistics) -> None:
    if s.heat is None:
        return
    image = axes.imshow(100 * s.heat, cmap="magma", vmin=0, extent=(0, 1, 1, 0), interpolation="nearest")
    axes.set(xlabel="left to right", ylabel="top to bottom", xticks=(0, 0.5, 1), yticks=(0, 0.5, 1))
    axes.set_title(f"Where the boxes of {int((s.positives.boxes > 0).sum()):,} positives lie")
    bar = axes.figure.colorbar(image, ax=axes, shrink=0.9)
    bar.set_label("positives whose boxes cover the place, %")
    bar.outline.set_visible(False)


def _draw_categories(axes: Axes, s: Statistics) -> None:
    import matplotlib as mpl
    from matplotlib.patches import Patch

    bars = mid_categories(s)
    coarse = list(dict.fromkeys(bar[0] for bar in bars))
    palette = mpl.colormaps["tab10" if len(coarse) <= 10 else "tab20"]
    colour = {name: palette(place % palette.N) for place, name in enumerate(coarse)}
    places = range(len(bars))
    drawn = axes.barh(places, [bar[2] for bar in bars], color=[colour[bar[0]] for bar in bars], height=0.78)
    axes.bar_label(drawn, padding=3, fontsize=8)
    axes.set_yticks(places, [short(bar[1]) for bar in bars])
    axes.set(xlabel="objects", ylim=(len(bars) - 0.4, -0.6), xlim=(0, 1.08 * max(bar[2] for bar in bars)))
    axes.set_title(f"Categories, coarse / mid / fine: {' / '.join(map(str, s.levels))}")
    totals = {name: sum(bar[2] for bar in bars if bar[0] == name) for name in coarse}
    patches = [Patch(color=colour[name], label=f"{short(name)} ({totals[name]:,})") for name in coarse]
    axes.figure.legend(handles=patches, frameon=False, loc="outside right upper")
    _whole_numbers(axes.xaxis)
    grid(axes, "x")
