"""Tables as Markdown, LaTeX and CSV."""

from __future__ import annotations

import csv
import io

import pytest

from openilias.report.layout import Column, Table, bold, csv_of, escaped, latex, markdown, texts

TABLE = Table(
    "mAP in %",
    (
        Column("model", "model"),
        Column("map", "mAP", best="high"),
        Column("gain", "gain", signed=True),
        Column("n", "n"),
    ),
    (("a_b & c", 12.349, 0.5, 12_345), ("d|e", 12.351, -0.25, 3), ("†", 12.44, None, 1)),
    frozenset({(2, 1)}),
    ("‡ not sure",),
)


def test_cells_are_rounded_and_marked() -> None:
    assert texts(TABLE) == [
        ["a_b & c", "12.3", "+0.5", "12,345"],
        ["d|e", "12.4", "-0.2", "3"],
        ["†", "12.4 ‡", "–", "1"],
    ]


def test_the_best_that_is_read_is_bold_and_nothing_marked() -> None:
    assert bold(TABLE) == {(1, 1)}
    low = Table("", (Column("a", "a", decimals=1, best="low"),), ((1.04,), (1.0,), (2.0,), (None,)))
    assert bold(low) == {(0, 0), (1, 0)}  # as they read alike
    assert not bold(Table("", (Column("a", "a", best="low"),), ((1.0,),)))


def test_markdown() -> None:
    lines = markdown(TABLE).splitlines()
    assert lines[0] == "mAP in %"
    assert lines[2].split("|")[1].strip() == "model"
    assert "**12.4**" in lines[5]
    assert r"d\|e" in lines[5]
    assert lines[-1] == "‡ not sure"


def test_latex_escapes_and_aligns() -> None:
    text = latex(TABLE)
    assert r"\begin{tabular}{lrrr}" in text
    assert r"a\_b \& c & 12.3 & +0.5 & 12,345 \\" in text
    assert r"d|e & \textbf{12.4} & -0.2 & 3 \\" in text
    assert r"$\dagger$ & 12.4 $\ddagger$ & -- & 1 \\" in text
    assert r"\caption{mAP in \% $\ddagger$ not sure}" in text
    assert escaped("50% of {x}^2 ~ \\ #1_a $") == (
        r"50\% of \{x\}\textasciicircum{}2 \textasciitilde{} \textbackslash{} \#1\_a \$"
    )
    assert latex(Table("none", (Column("a", "a"),), ())).count(r"\\") == 1


def test_the_best_of_a_row() -> None:
    columns = (Column("g", "g"), Column("a", "a", best="high"), Column("b", "b", best="high"))
    rows = (("[0, 1)", 1.0, 2.0), ("*", 3.0, 3.0), ("x", None, 1.0))
    table = Table("", columns, rows, across=True)
    assert bold(table) == {(0, 2)}
    lines = latex(table).splitlines()
    assert any(line.strip().startswith(r"{}[0, 1) & 1.0 & \textbf{2.0}") for line in lines)
    assert any(line.strip().startswith("{}*") for line in lines)


def test_csv_keeps_all_digits() -> None:
    rows = list(csv.reader(io.StringIO(csv_of(TABLE))))
    assert rows[0] == ["model", "map", "gain", "n"]
    assert float(rows[1][1]) == 12.349
    assert rows[3] == ["†", "12.44", "", "1"]


def test_rows_fit() -> None:
    with pytest.raises(ValueError, match="as long"):
        Table("", (Column("a", "a"),), ((1, 2),))
