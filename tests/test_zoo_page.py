"""The page of the zoo is that of the records and of the published tables."""

from __future__ import annotations

from pathlib import Path

from openilias.models.record import find_record, records
from openilias.published import image_rows, text_rows
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


def test_published_numbers_stand_beside_their_records() -> None:
    for row in image_rows():
        record = find_record(row.checkpoint)
        assert record is not None
        cells = [cell.strip() for cell in lines_of(record.name)[0].split("|")]
        assert cells[9:12] == [f"{v:.1f}" for v in (row.map_100m, row.map_5m_adapted, row.map_100m_adapted)]
    for text in text_rows():
        record = find_record(text.checkpoint)
        assert record is not None
        assert lines_of(record.name)[0].split("|")[12].strip() == f"{text.map_100m:.1f}"


def test_nothing_is_published_for_models_beyond_the_paper() -> None:
    of_the_paper = {record.name for row in image_rows() if (record := find_record(row.checkpoint))}
    for name in records():
        if name not in of_the_paper:
            assert [cell.strip() for cell in lines_of(name)[0].split("|")][9:13] == [""] * 4, name
