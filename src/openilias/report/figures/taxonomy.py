"""The taxonomy as a tree with the objects of each category, as Fig. K of the paper."""

from __future__ import annotations

from collections.abc import Mapping

from openilias.data.taxonomy import UNASSIGNED, Taxonomy
from openilias.report.figures.exhibit import Exhibit
from openilias.report.figures.style import LINE, colour, new_figure, short
from openilias.report.layout import Column, Table

Counts = Mapping[str, Mapping[str, Mapping[str, int]]]
FEWEST = 5
"""Of categories with so many objects or fewer no number is shown, as in the paper."""


def counted(taxonomy: Taxonomy) -> dict[str, dict[str, dict[str, int]]]:
    """Return coarse -> mid -> fine -> objects, the largest first, what is not assigned last."""
    found: dict[str, dict[str, dict[str, int]]] = {}
    for coarse, mid, fine in taxonomy.nodes.values():
        inner = found.setdefault(coarse, {}).setdefault(mid, {})
        inner[fine] = inner.get(fine, 0) + 1

    def order(name: str, size: int) -> tuple[bool, int, str]:
        return name == UNASSIGNED, -size, name

    def mids(tree: dict[str, dict[str, int]]) -> dict[str, dict[str, int]]:
        ordered = sorted(tree, key=lambda name: order(name, sum(tree[name].values())))
        return {name: dict(sorted(tree[name].items(), key=lambda pair: order(*pair))) for name in ordered}

    coarse_order = sorted(found, key=lambda name: order(name, _size(found[name])))
    return {name: mids(found[name]) for name in coarse_order}


def _size(tree: Mapping[str, Mapping[str, int]]) -> int:
    return sum(sum(fines.values()) for fines in tree.values())


def taxonomy_tree(taxonomy: Taxonomy) -> Exhibit | None:
    """Draw the three levels side by side with the number of objects; None if there is no taxonomy."""
    tree = counted(taxonomy)
    if not tree:
        return None
    leaves = sum(max(1, len(_named(fines))) for mids in tree.values() for fines in mids.values())
    figure, axes = new_figure(9, 0.6 + 0.2 * leaves)
    place = 0.0
    total = sum(map(_size, tree.values()))
    for number, (coarse, mids) in enumerate(tree.items()):
        shade, tops = colour(number), []
        for mid, fines in mids.items():
            named, heights = _named(fines), []
            for fine in named or [UNASSIGNED]:
                if named:
                    axes.text(2.05, place, _text(fine, fines[fine]), va="center", fontsize=8)
                heights.append(place)
                place += 1
            middle = sum(heights) / len(heights)
            for height in heights if named else ():
                axes.plot([1.62, 1.95, 2.02], [middle, height, height], color=shade, linewidth=0.8, alpha=0.7)
            label = "other" if mid == UNASSIGNED else mid
            axes.text(1.02, middle, _text(label, sum(fines.values())), va="center", fontsize=8)
            tops.append(middle)
        middle = sum(tops) / len(tops)
        for top in tops:
            axes.plot([0.55, 0.92, 1.0], [middle, top, top], color=shade, linewidth=1, alpha=0.8)
        axes.text(0, middle, _text(coarse, _size(mids)), va="center", fontsize=9.5, color=shade, weight="bold")
        place += 0.7
    axes.set(xlim=(-0.02, 2.75), ylim=(place - 0.7, -1))
    axes.set_axis_off()
    coarse_count, mid_count, fine_count = taxonomy.counts()
    axes.set_title(
        f"Taxonomy of {total:,} objects: {coarse_count} coarse, {mid_count} mid-level, {fine_count} fine categories",
        color=LINE,
    )
    columns = (Column("coarse", "coarse"), Column("mid", "mid"), Column("fine", "fine"), Column("objects", "objects"))
    rows = tuple(
        (coarse, mid, fine, count)
        for coarse, mids in tree.items()
        for mid, fines in mids.items()
        for fine, count in fines.items()
    )
    note = f"'{UNASSIGNED}': not assigned at this level. In the figure the number stands where it is above {FEWEST}."
    return Exhibit("figure-k-taxonomy", "Fig. K", Table("Objects by category.", columns, rows, notes=(note,)), figure)


def _named(fines: Mapping[str, int]) -> list[str]:
    return [name for name in fines if name != UNASSIGNED]


def _text(name: str, count: int) -> str:
    return f"{short(name, 24)} ({count})" if count > FEWEST else short(name, 24)
