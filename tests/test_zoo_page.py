"""The page of the zoo is that of the records and of the published tables."""

from __future__ import annotations

from pathlib import Path

from openilias.models.record import find_record, records
from openilias.published import errata, image_rows, text_rows
from openilias.report.zoo_page import zoo_page

PAGE = Path(__file__).parents[1] / "docs" / "zoo.md"
WRITE = "python -c 'from openilias.report.zoo_page import zoo_page; print(zoo_page(), end=\"\")' > docs/zoo.md"


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == zoo_page(), f"write it anew: {WRITE}"


def lines_of(name: str) -> list[str]:
    return [line for line in zoo_page().splitlines() if line.startswith(f"| `{name}`")]


def test_every_record_has_one_line() -> None:
    for name, record in records().items():
        assert len(lines_of(name)) == (2 if record.describes_texts else 1), name


def cells_of(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_published_numbers_stand_beside_their_records() -> None:
    for row in image_rows():
        record = find_record(row.checkpoint)
        assert record is not None
        published = [f"{v:.1f}" for v in (row.map_100m, row.map_5m_adapted, row.map_100m_adapted)]
        assert cells_of(lines_of(record.name)[0])[9:12] == published, row.checkpoint
    for text in text_rows():
        record = find_record(text.checkpoint)
        assert record is not None
        models, towers = map(cells_of, lines_of(record.name))
        assert models[12] == f"{text.map_100m:.1f}", text.checkpoint
        assert towers[-2:] == [f"{text.map_5m:.1f}", f"{text.map_100m:.1f}"], text.checkpoint


def test_what_the_paper_prints_otherwise_is_marked_and_nothing_else() -> None:
    places = {"train_res": 3, "test_res": 4, "dims": 5}
    wanted = {(record.name, places[one.column]) for one in errata() if (record := find_record(one.row)) is not None}
    found = {
        (name, place) for name in records() for place, cell in enumerate(cells_of(lines_of(name)[0])) if "‡" in cell
    }
    assert wanted
    assert found == wanted


def test_every_row_of_a_table_is_as_long_as_its_header() -> None:
    length = 0
    for line in zoo_page().splitlines():
        length = (length or len(cells_of(line))) if line.startswith("|") else 0
        assert not length or len(cells_of(line)) == length, line


def test_nothing_is_published_for_models_beyond_the_paper() -> None:
    of_the_paper = {record.name for row in image_rows() if (record := find_record(row.checkpoint))}
    for name in records():
        if name not in of_the_paper:
            assert [cell.strip() for cell in lines_of(name)[0].split("|")][10:14] == [""] * 4, name
            if records()[name].describes_texts:
                assert [cell.strip() for cell in lines_of(name)[1].split("|")][-3:-1] == ["", ""], name
