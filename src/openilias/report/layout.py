"""A table as lines, Markdown, LaTeX and CSV: numbers rounded for reading, and at full precision in CSV."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from typing import Literal

from openilias.published import Erratum, Printed, Value
from openilias.report.tables import NOTHING, markdown_table

Format = Literal["text", "markdown", "latex", "csv"]
MARK = "‡"
"""Beside a number that the paper prints and that is wrong."""


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        key: its name in CSV.
        heading: its name where it is read.
        decimals: of numbers that are not whole; None shows them as they are.
        best: which of its numbers is printed bold, if any.
        signed: whether numbers above zero have their sign.
    """

    key: str
    heading: str
    decimals: int | None = 1
    best: Literal["", "high", "low"] = ""
    signed: bool = False


@dataclass(frozen=True)
class Table:
    """Rows under columns.

    Attributes:
        title: what it shows, and in which unit.
        columns: of every row.
        rows: text, whole numbers, numbers; None where there is nothing.
        marks: (row, column) of what the notes are about.
        notes: beneath it.
        across: the best is that of a row, among the columns that have one; else of a column.

    Raises:
        ValueError: a row is longer or shorter than the columns.
    """

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Value, ...], ...]
    marks: frozenset[tuple[int, int]] = frozenset()
    notes: tuple[str, ...] = ()
    across: bool = False

    def __post_init__(self) -> None:
        if any(len(row) != len(self.columns) for row in self.rows):
            raise ValueError("Every row of a table must be as long as its columns.")


def text_of(value: Value, column: Column) -> str:
    """Return a value as it is read."""
    if value is None:
        return NOTHING
    if isinstance(value, str):
        return value
    sign = "+" if column.signed else ""
    if isinstance(value, int):
        return f"{value:{sign},}" if abs(value) >= 10_000 else f"{value:{sign}}"
    return f"{value:{sign}}" if column.decimals is None else f"{value:{sign}.{column.decimals}f}"


def texts(table: Table) -> list[list[str]]:
    """Return the cells of the rows as they are read, with their marks."""
    return [
        [
            text_of(value, column) + (f" {MARK}" if (row, place) in table.marks else "")
            for place, (value, column) in enumerate(zip(values, table.columns, strict=True))
        ]
        for row, values in enumerate(table.rows)
    ]


def headings(table: Table) -> list[str]:
    """Return what stands above the columns."""
    return [column.heading for column in table.columns]


def bold(table: Table) -> frozenset[tuple[int, int]]:
    """Return (row, column) of the best numbers, as they are rounded; of marked ones none."""
    if table.across:
        return _bold_across(table)
    found = set()
    for place, column in enumerate(table.columns):
        numbers: dict[int, float] = {
            row: round(value, column.decimals if column.decimals is not None else 12)
            for row, value in enumerate(values[place] for values in table.rows)
            if isinstance(value, int | float) and (row, place) not in table.marks
        }
        if column.best and len(set(numbers.values())) > 1:
            best = max(numbers.values()) if column.best == "high" else min(numbers.values())
            found |= {(row, place) for row, number in numbers.items() if number == best}
    return frozenset(found)


def _bold_across(table: Table) -> frozenset[tuple[int, int]]:
    found = set()
    places = [place for place, column in enumerate(table.columns) if column.best]
    for row, values in enumerate(table.rows):
        numbers: dict[int, float] = {
            place: round(value, table.columns[place].decimals or 0)
            for place, value in ((place, values[place]) for place in places)
            if isinstance(value, int | float)
        }
        if len(set(numbers.values())) > 1:
            best = max(numbers.values())
            found |= {(row, place) for place, number in numbers.items() if number == best}
    return frozenset(found)


def markdown(table: Table) -> str:
    """Return a table as Markdown, its title above, its notes beneath, the best numbers bold."""
    best = bold(table)
    cells = [
        [f"**{cell}**" if (row, place) in best else cell for place, cell in enumerate(line)]
        for row, line in enumerate(texts(table))
    ]
    notes = "".join(f"\n{note}\n" for note in table.notes)
    return f"{table.title}\n\n{markdown_table(headings(table), cells)}{notes}"


_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "†": r"$\dagger$", "‡": r"$\ddagger$", "–": "--", "—": "---", "±": r"$\pm$", "×": r"$\times$", "α": r"$\alpha$",
    "λ": r"$\lambda$", "γ": r"$\gamma$", "→": r"$\rightarrow$", "✓": r"\checkmark{}", "✗": r"$\times$",
    "≥": r"$\geq$", "≤": r"$\leq$", "−": "$-$", "·": r"$\cdot$",
}  # fmt: skip


def escaped(text: str) -> str:
    """Return text that LaTeX takes as it is."""
    return "".join(_LATEX.get(letter, letter) for letter in text)


def latex(table: Table) -> str:
    """Return a table for LaTeX with the package ``booktabs``: numbers to the right, the best bold."""
    best = bold(table)
    right = [
        bool(table.rows) and all(value is None or not isinstance(value, str) for value in column)
        for column in zip(*table.rows, strict=True)
    ] or [False] * len(table.columns)
    # What begins with these would be taken for an option of the line before.
    first = [cells[0].startswith(("[", "*")) if cells else False for cells in texts(table)]
    lines = [
        [rf"\textbf{{{escaped(cell)}}}" if (row, place) in best else escaped(cell) for place, cell in enumerate(line)]
        for row, line in enumerate(texts(table))
    ]
    caption = " ".join(map(escaped, (table.title, *table.notes)))
    return "\n".join(
        [
            r"\begin{table}",
            r"  \centering",
            rf"  \caption{{{caption}}}",
            rf"  \begin{{tabular}}{{{''.join('r' if at_right else 'l' for at_right in right)}}}",
            r"    \toprule",
            rf"    {' & '.join(map(escaped, headings(table)))} \\",
            r"    \midrule",
            *(rf"    {'{}' * guard}{' & '.join(line)} \\" for guard, line in zip(first, lines, strict=True)),
            r"    \bottomrule",
            r"  \end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def csv_of(table: Table) -> str:
    """Return a table as CSV, its numbers at full precision, an empty cell where there is nothing."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(column.key for column in table.columns)
    writer.writerows([repr(value) if isinstance(value, float) else value for value in row] for row in table.rows)
    return text.getvalue()


def printed_table(source: Printed) -> Table:
    """Return a table of the paper with its decimals, and with marks and notes where it errs."""
    columns = tuple(
        Column(name, name, max((_decimals(row[place]) for row in source.cells), default=0))
        for place, name in enumerate(source.columns)
    )
    marks: set[tuple[int, int]] = set()
    wrong: dict[Erratum, None] = {}
    for row in range(len(source.cells)):
        for place in range(len(columns)):
            found = source.marked(row, place)
            if found is not None:
                marks.add((row, place))
                wrong[found] = None
    whole = [f"Of the whole table: {one.why}." for one in source.errata if not one.column]
    notes = [
        f"{MARK} {'' if one.row == '*' else f'{one.row}, '}{one.column}: "
        + (f"printed {one.printed}, right is {one.right}: " if one.right else "")
        + f"{one.why}."
        for one in wrong
    ]
    title = f"{source.name if ' ' in source.name else f'Table {source.name}'} of the paper. {source.title}."
    return Table(title, columns, source.rows, frozenset(marks), (*notes, *whole))


def _decimals(text: str) -> int:
    """Return how many decimals are printed of a number; none of other text."""
    return len(text.partition(".")[2]) if text.replace(".", "", 1).isdigit() else 0
