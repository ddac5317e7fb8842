"""The tables of the paper, and what is wrong in them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import Outcome
from openilias.models.record import find_record
from openilias.published import errata, image_rows, names, printed, text_rows


def test_the_tables_are_whole() -> None:
    assert len(image_rows()) == 68
    assert len(text_rows()) == 21
    assert len({row.checkpoint for row in image_rows()}) == 68
    best = max(image_rows(), key=lambda row: row.map_100m_adapted)
    assert (best.checkpoint, best.map_100m, best.map_100m_adapted) == (
        "vit_large_patch16_siglip_512.v2.webli",
        20.8,
        31.3,
    )
    siglip = next(row for row in image_rows() if row.checkpoint == "vit_large_patch16_siglip_384.webli")
    assert (siglip.map_100m, siglip.map_5m_adapted, siglip.map_100m_adapted) == (19.6, 34.3, 28.9)  # Tables 2 and 4
    assert max(row.map_100m for row in text_rows()) == 19.8
    assert not hasattr(siglip, "map_5m")  # the shifted column


def test_what_differs_from_the_records_is_an_erratum_and_nothing_else() -> None:
    found = set()
    for table, rows in (("G", image_rows()), ("H", text_rows())):
        for row in rows:
            record = find_record(row.checkpoint)
            assert record is not None, row.checkpoint
            for column, told, right in (
                ("dims", row.dims, record.dims),
                ("train_res", row.train_resolution, record.model.train_resolution),
                ("test_res", row.test_resolution, record.model.test_resolution),
            ):
                if told != right:
                    found.add((table, row.checkpoint, column, str(told), str(right)))
    listed = {
        (one.table, one.row, one.column, one.printed, one.right)
        for one in errata()
        if one.table in ("G", "H") and one.row != "*"
    }
    assert found == listed


def test_every_image_text_row_has_texts() -> None:
    for row in text_rows():
        record = find_record(row.checkpoint)
        assert record is not None
        assert record.describes_texts, row.checkpoint


def test_more_distractors_are_never_easier() -> None:
    assert all(row.map_100m_adapted < row.map_5m_adapted for row in image_rows())
    assert all(row.map_100m < row.map_5m for row in text_rows())


def rows_of(name: str, *columns: str) -> list[tuple[object, ...]]:
    found = printed(name)
    places = [found.columns.index(column) for column in columns]
    return [tuple(row[place] for place in places) for row in found.rows]


def test_every_table_is_there_with_all_its_rows() -> None:
    assert {name: len(printed(name).rows) for name in names()} == {
        "1": 17, "2": 32, "3": 5, "4": 7, "A": 15, "B": 15, "C": 12, "D": 4, "E": 6, "F": 6, "G": 68, "H": 21,
        "figure E": 32,
    }  # fmt: skip


def test_table_2_is_a_part_of_tables_g_and_h() -> None:
    """Both print the same numbers: a slip of the pen in either would show."""
    sides = ("train_res", "test_res")
    in_g = set(rows_of("G", *sides, "map1k_5m_adapted", "map1k_100m_adapted", "map1k_100m"))
    in_h = set(rows_of("H", "map1k_100m", "map1k_5m"))
    for row in rows_of("2", *sides, "i2i_5m_adapted", "i2i_100m_adapted", "i2i_100m"):
        assert row in in_g
    texts = rows_of("2", "t2i_100m", "t2i_5m")
    assert sum(row == (None, None) for row in texts) == 14
    assert all(row in in_h for row in texts if row != (None, None))


def test_tables_3_4_d_and_f_agree_with_each_other() -> None:
    four = {row[0]: row[1:] for row in printed("4").rows}
    assert four["global"] == (19.6, 48.7, 28.9, 56.0)
    assert four["AMES"] == (26.4, 48.7, 35.6, 56.0)
    assert [row[3:] for row in printed("D").rows if row[0] in ("no adaptation", "ours")] == [
        (9.6, 19.6),
        (18.3, 28.9),
    ]
    by_three = {row[0]: row[1:3] for row in printed("3").rows}
    by_f = {row[0]: (row[2], row[4]) for row in printed("F").rows if row[1] == "global"}
    assert all(by_three[model] == numbers for model, numbers in by_f.items())


def test_shares_of_figure_e_make_a_hundred() -> None:
    sums: dict[tuple[object, object], float] = {}
    for rank, attribute, _, share in printed("figure E").rows:
        assert isinstance(share, float)
        sums[rank, attribute] = sums.get((rank, attribute), 0) + share
    assert len(sums) == 8
    assert all(abs(total - 100) < 0.02 for total in sums.values())


def test_what_is_wrong_is_marked_where_it_stands() -> None:
    two = printed("2")
    wrong = [(row[0], row[4]) for n, row in enumerate(two.cells) if two.marked(n, 4)]
    assert wrong == [("EVA-MIM", "142M"), ("EVA-MIM", "38B")]
    g = printed("G")
    shifted = g.columns.index("map1k_5m")
    assert all(g.marked(row, shifted) for row in range(68))
    assert not any(g.marked(row, place) for row in range(68) for place in range(12, 15))
    assert {one.table for one in errata()} <= {*names(), "text"}
    for one in errata():
        if one.table != "text" and one.column:
            found = printed(one.table)
            there = (found.marked(n, found.columns.index(one.column)) for n in range(len(found.cells)))
            assert one in there, one


def test_tables_can_be_ordered_and_searched() -> None:
    g = printed("G")
    best = g.ordered("map1k_100m").rows[0]
    assert best[0] == "vit_large_patch16_siglip_512.v2.webli"
    two = printed("2").ordered("t2i_100m", rising=True)
    column = [row[10] for row in two.rows]
    numbers = [value for value in column if value is not None]
    assert numbers == sorted(numbers, key=lambda value: float(str(value)))
    assert column[len(numbers) :] == [None] * 14
    objects = [row[2] for row in printed("1").ordered("objects").cells]
    assert objects[:3] == ["30K", "21K", "11.3K"]
    assert objects.index("1,000") < objects.index("500") < objects.index("11")
    assert objects[-1] == "N/A"
    assert {row[4] for row in g.where("arch", "vit-l").cells} == {"ViT-L"}
    assert g.only(("map1k_100m",)).columns == ("checkpoint", "map1k_100m")
    names_ = [str(row[0]) for row in g.ordered("checkpoint").rows]
    assert names_ == sorted(names_)
    with pytest.raises(KeyError):
        g.ordered("nothing")


def test_a_table_of_the_paper_on_the_command_line(ilias: Callable[..., Outcome], tmp_path: Path) -> None:
    out = ilias(
        "paper",
        "table",
        "G",
        "--sort",
        "map1k_100m",
        "--where",
        "arch=ViT-L",
        "--first",
        2,
        "--json",
        tmp_path / "g.json",
    )
    assert out.code == 0
    lines = out.out.splitlines()
    assert lines[4].startswith("vit_large_patch16_siglip_512.v2.webli")
    assert "25.3 ‡" in lines[4]
    assert "shifted" in out.out
    assert [row[0] for row in json.loads((tmp_path / "g.json").read_text())["rows"]] == [
        "vit_large_patch16_siglip_512.v2.webli",
        "vit_large_patch16_siglip_384.v2.webli",
    ]
    assert "| AMES " in ilias("paper", "table", "4", "--format", "markdown").out
    assert r"\toprule" in ilias("paper", "table", "figure e", "--format", "latex").out
    text = ilias("paper", "table", "H", "--format", "csv").out
    assert len(text.splitlines()) == 22
    assert "9,976" in ilias("paper", "errata").out
    assert all(f"\n{name} " in ilias("paper", "table").out for name in names())
    for wrong in (("Z",), ("G", "--sort", "x"), ("G", "--where", "arch"), ("G", "--columns", "x,y")):
        assert ilias("paper", "table", *wrong).code == 2


def test_a_figure_of_the_paper_on_the_command_line(ilias: Callable[..., Outcome], tmp_path: Path) -> None:
    out = ilias("paper", "figure", "1", "--out", tmp_path / "one")
    assert out.code == 0, out.err
    assert {path.name for path in (tmp_path / "one").iterdir()} >= {"figure-1-timeline.svg", "figure-1-timeline.csv"}
    assert ilias("paper", "figure", "e", "--out", tmp_path / "e").code == 0
    assert "39.02" in (tmp_path / "e" / "paper-figure-e-clutter.csv").read_text()
    assert (tmp_path / "e" / "paper-figure-e-coverage.png").stat().st_size > 1000
    refused = ilias("paper", "figure", "5", "--out", tmp_path / "five")
    assert refused.code == 2
    assert "not printed" in refused.err
    assert not (tmp_path / "five").exists()
