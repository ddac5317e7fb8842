"""Every table of the paper as it is printed, with what is wrong in it marked."""

from __future__ import annotations

import csv
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files

Value = str | int | float | None


@dataclass(frozen=True)
class Erratum:
    """Something that is printed and wrong, or misleading.

    Attributes:
        table: of the paper; ``figure E``; ``text``.
        row: what stands first in it, ``*`` for all rows.
        column: of the table; empty for the whole table.
        printed: what stands there; empty for all values of the column.
        right: what should; empty if nobody knows, or nothing else is meant.
        why: how that is known.
    """

    table: str
    row: str
    column: str
    printed: str
    right: str
    why: str


@dataclass(frozen=True)
class Printed:
    """A table of the paper.

    Attributes:
        name: ``1`` to ``4``, ``A`` to ``H``, or ``figure E``.
        title: what it shows, and in which unit.
        columns: their names.
        cells: (row, column), as they are printed.
    """

    name: str
    title: str
    columns: tuple[str, ...]
    cells: tuple[tuple[str, ...], ...]

    @property
    def rows(self) -> tuple[tuple[Value, ...], ...]:
        """The cells as whole numbers, numbers or text; None where nothing is printed."""
        return tuple(tuple(map(value_of, row)) for row in self.cells)

    @property
    def errata(self) -> tuple[Erratum, ...]:
        """What is known to be wrong in it."""
        return tuple(one for one in errata() if one.table == self.name)

    def marked(self, row: int, column: int) -> Erratum | None:
        """Return what is wrong with a cell, if anything is."""
        for one in self.errata:
            here = one.column == self.columns[column] and one.row in ("*", self.cells[row][0])
            if here and one.printed in ("", self.cells[row][column]):
                return one
        return None

    def ordered(self, column: str, *, rising: bool = False) -> Printed:
        """Return the table ordered by a column, largest first: numbers by value, then text, nothing last.

        Raises:
            KeyError: there is no such column.
        """
        place = self._place(column)

        def key(row: tuple[str, ...]) -> tuple[int, float, str]:
            value = _size_of(row[place])
            return (1, 0.0, value) if isinstance(value, str) else (0, float(value or 0), "")

        there = [row for row in self.cells if value_of(row[place]) is not None]
        nothing = [row for row in self.cells if value_of(row[place]) is None]
        numbers = sorted((row for row in there if key(row)[0] == 0), key=key, reverse=not rising)
        texts = sorted((row for row in there if key(row)[0] == 1), key=key)
        return replace(self, cells=(*numbers, *texts, *nothing))

    def where(self, column: str, text: str) -> Printed:
        """Return the rows that hold a text in a column, whatever its case.

        Raises:
            KeyError: there is no such column.
        """
        place = self._place(column)
        return replace(self, cells=tuple(row for row in self.cells if text.casefold() in row[place].casefold()))

    def only(self, columns: tuple[str, ...]) -> Printed:
        """Return some of the columns; the first of the table always, errata name rows by it.

        Raises:
            KeyError: one of them is not there.
        """
        places = sorted({0, *map(self._place, columns)})
        return replace(
            self,
            columns=tuple(self.columns[place] for place in places),
            cells=tuple(tuple(row[place] for place in places) for row in self.cells),
        )

    def head(self, rows: int) -> Printed:
        """Return the first rows."""
        return replace(self, cells=self.cells[:rows])

    def _place(self, column: str) -> int:
        if column not in self.columns:
            raise KeyError(column)
        return self.columns.index(column)


def value_of(text: str) -> Value:
    """Return a printed cell as a number where it is one, None where nothing is printed."""
    if text in ("", "-"):
        return None
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text


def _size_of(text: str) -> Value:
    """Return a printed cell as by :func:`value_of`; of ``1,232``, ``2.5K``, ``14M`` and ``2B`` the number."""
    found = value_of(text)
    if not isinstance(found, str):
        return found
    number = value_of(text.rstrip("KkMB").replace(",", ""))
    scale = {"K": 1e3, "k": 1e3, "M": 1e6, "B": 1e9}.get(text[-1], 1.0)
    return text if number is None or isinstance(number, str) else number * scale


_TITLES = {
    "1": "Instance-level datasets. FN, FP: false negatives, positives; IL: instance-level; FG: fine-grained",
    "2": "Global models, mAP@1k in %, 5M = mini-ILIAS; adapted = with linear adaptation",
    "3": "mini-ILIAS against random distractors, with linear adaptation, mAP@1k in %; three random subsets",
    "4": "Re-ranking, mAP@1k and oracle in % with 100M distractors; † = with linear adaptation",
    "A": "Cameras that took more than 100 images of ILIAS",
    "B": "Templates of the queries that chose mini-ILIAS",
    "C": "Test resolution in pixels, mAP@1k in % on mini-ILIAS, without adaptation",
    "D": "Ways to adapt, mAP@1k in % with 100M distractors",
    "E": "Domains that the adaptation is learned from, mAP@1k in % with 100M distractors",
    "F": "Re-ranking on top of adapted global descriptors, mAP@1k and oracle in %",
    "G": "Global models, image-to-image, mAP@1k in %, 5M = mini-ILIAS; adapted = with linear adaptation",
    "H": "Global models, text-to-image, mAP@1k in %, 5M = mini-ILIAS",
    "figure E": "Positives in a range of ranks by clutter and area coverage, in % of those ranks; SigLIP, adapted",
}


def names() -> tuple[str, ...]:
    """Return the names of the tables, and of the figure whose numbers are printed."""
    return tuple(_TITLES)


@cache
def printed(name: str) -> Printed:
    """Return a table of the paper.

    Raises:
        KeyError: there is no such table, or its numbers are not printed.
    """
    first, *rest = read_lines(f"{name.lower().replace(' ', '_') if ' ' in name else f'table_{name.lower()}'}.csv")
    return Printed(name, _TITLES[name], tuple(first), tuple(map(tuple, rest)))


@cache
def errata() -> tuple[Erratum, ...]:
    """Return what is known to be wrong in the paper."""
    return tuple(Erratum(*line) for line in read_lines("errata.csv")[1:])


def read_lines(name: str) -> list[list[str]]:
    """Return the lines of a file of ``tables``."""
    text = files("openilias.published").joinpath("tables", name).read_text(encoding="utf-8")
    return list(csv.reader(text.splitlines()))


def read_table(name: str) -> list[dict[str, str]]:
    """Return the rows of a file of ``tables`` by their columns, as they are printed."""
    first, *rest = read_lines(name)
    return [dict(zip(first, line, strict=True)) for line in rest]
