"""mAP by a setting: dimensions (Fig. G), and against another benchmark (Figs. 4 and D of the paper)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from openilias.report.figures.exhibit import Exhibit
from openilias.report.figures.measured import Measured, labels, map_label
from openilias.report.figures.style import colour, from_zero, grid, legend_below, new_figure, short
from openilias.report.layout import Column, Table

Key = tuple[str, int]
TRAININGS = {
    "sup": "supervised",
    "sup+dist": "supervised, distilled",
    "ssl": "self-supervised",
    "vla": "vision-language",
    "dist": "distilled",
    "none": "nothing learned",
}
UNKNOWN = "not in the zoo"


def dimensions(measured: Sequence[Measured]) -> Exhibit | None:
    """Draw mAP over the dimensions of adapted descriptors, a line for each model that has several; None without.

    A line has runs whose adaptation differs in nothing else.
    """
    alike: dict[tuple[str, str, str, str], dict[int, Measured]] = {}
    for one in measured:
        if one.dims is not None and one.adapted and one.reranked is None:
            key = one.model, one.learned, one.queries, one.evaluation.protocol.model_dump_json()
            alike.setdefault(key, {}).setdefault(one.dims, one)
    alike = {key: found for key, found in alike.items() if len(found) > 1}
    if not alike:
        return None
    first = [next(iter(found.values())) for found in alike.values()]
    lines = dict(zip(labels(first, [model for model, *_ in alike]), alike.values(), strict=True))
    figure, axes = new_figure(5.6, 3.6)
    dims = sorted({size for found in lines.values() for size in found})
    for number, (model, found) in enumerate(lines.items()):
        points = [(size, 100 * found[size].evaluation.map) for size in sorted(found)]
        axes.plot(*zip(*points, strict=True), "o-", color=colour(number), markersize=4.5, label=short(model, 40))
    axes.set_xscale("log", base=2)
    axes.set_xticks(dims, [str(size) for size in dims])
    axes.minorticks_off()
    axes.set(xlabel="dimensions of the adapted descriptor", ylabel=map_label(measured))
    from_zero(axes)
    axes.set_title("mAP by the dimensions of the descriptor")
    axes.legend()
    grid(axes, "both")
    columns = (Column("model", "model"), *(Column(f"map_{size}", str(size), best="") for size in dims))
    rows = tuple(
        (model, *(100 * found[size].evaluation.map if size in found else None for size in dims))
        for model, found in lines.items()
    )
    note = "The paper (Fig. G): saturated from 256 dimensions on, for all five models."
    title = "mAP in % by the dimensions of the adapted descriptor."
    return Exhibit("figure-g-dimensions", "Fig. G", Table(title, columns, rows, notes=(note,)), figure)


def benchmarks(
    name: str, models: Mapping[Key, Measured], other_name: str, others: Mapping[Key, Measured], *, adapted: bool
) -> Exhibit | None:
    """Draw mAP on one benchmark over that on another, a point for each model; None if no model is on both.

    Args:
        name: of the benchmark on the y axis.
        models: by what makes them the same on both, measured there.
        other_name: of the benchmark on the x axis.
        others: likewise.
        adapted: whether their descriptors are adapted: Fig. D instead of Fig. 4.
    """
    both = [key for key in models if key in others]
    if not both:
        return None
    figure, axes = new_figure(5, 4.4)
    kinds = list(dict.fromkeys(_training(models[key]) for key in both))
    for number, kind in enumerate(kinds):
        points = [
            (100 * others[key].evaluation.map, 100 * models[key].evaluation.map)
            for key in both
            if _training(models[key]) == kind
        ]
        marker = "os^DvPX*"[number % 8]
        axes.plot(*zip(*points, strict=True), marker, color=colour(number), markersize=6.5, label=kind)
    right = max(100 * others[key].evaluation.map for key in both)
    for key in both:
        at = (100 * others[key].evaluation.map, 100 * models[key].evaluation.map)
        side, ha = (-6, "right") if at[0] > 0.6 * right else (6, "left")  # the name stays inside
        axes.annotate(
            short(models[key].name, 40), at, xytext=(side, 4), textcoords="offset points", fontsize=7.5, ha=ha
        )
    axes.set_xlabel(f"{map_label(list(others.values()))} on {other_name}")
    axes.set_ylabel(f"{map_label(list(models.values()))} on {name}")
    axes.set_xlim(0, 1.06 * max(right, 1e-9))
    from_zero(axes)
    axes.set_title(f"{name} against {other_name}" + (", adapted" if adapted else ""))
    legend_below(figure)
    grid(axes, "both")
    columns = (
        Column("model", "model"),
        Column("training", "training"),
        Column("other", other_name, best="high"),
        Column("map", name, best="high"),
    )
    rows = tuple(
        (
            models[key].name,
            _training(models[key]),
            100 * others[key].evaluation.map,
            100 * models[key].evaluation.map,
        )
        for key in both
    )
    paper, letter = ("Fig. D", "d") if adapted else ("Fig. 4", "4")
    title = f"mAP in % on {name} and on {other_name}."
    slug = "".join(sign if sign.isalnum() else "-" for sign in other_name.lower())
    return Exhibit(f"figure-{letter}-against-{slug}", paper, Table(title, columns, rows), figure)


def _training(one: Measured) -> str:
    return UNKNOWN if one.record is None else TRAININGS[one.record.training]
