"""A figure or a table with its numbers, and the files that it becomes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from openilias.core.files import write_bytes
from openilias.report.figures.style import save_png, save_svg
from openilias.report.layout import Table, csv_of, latex, markdown

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False)
class Exhibit:
    """One figure or table.

    Attributes:
        name: of its files.
        paper: what it is in the paper, as ``Fig. 6`` or ``Table 3``; empty if it is not there.
        table: its numbers; the title says what is shown.
        data: what its CSV file holds, where that is more than the table shows.
        figure: drawn within :func:`openilias.report.figures.style.figure_style`; None of a table.
    """

    name: str
    paper: str
    table: Table
    figure: Figure | None = None
    data: Table | None = None

    @property
    def title(self) -> str:
        """What it shows."""
        return self.table.title


def write_exhibit(exhibit: Exhibit, folder: Path) -> list[str]:
    """Write ``NAME.csv``, ``.md`` and ``.tex``, and of a figure ``.svg`` and ``.png``: equal input, equal bytes.

    To be called within :func:`openilias.report.figures.style.figure_style`.

    Returns:
        The names of the files.
    """
    texts = {"csv": csv_of(exhibit.data or exhibit.table), "md": markdown(exhibit.table), "tex": latex(exhibit.table)}
    for ending, text in texts.items():
        write_bytes(folder / f"{exhibit.name}.{ending}", text.encode())
    if exhibit.figure is not None:
        save_svg(exhibit.figure, folder / f"{exhibit.name}.svg")
        save_png(exhibit.figure, folder / f"{exhibit.name}.png")
    drawn = () if exhibit.figure is None else ("svg", "png")
    return [f"{exhibit.name}.{ending}" for ending in (*texts, *drawn)]
