"""Tables G and H of the paper, and what is wrong in them."""

from __future__ import annotations

from openilias.models.record import find_record
from openilias.published import errata, image_rows, text_rows


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
            for column, printed, right in (
                ("dims", row.dims, record.dims),
                ("train_res", row.train_resolution, record.model.train_resolution),
                ("test_res", row.test_resolution, record.model.test_resolution),
            ):
                if printed != right:
                    found.add((table, row.checkpoint, column, str(printed), str(right)))
    listed = {(one.table, one.row, one.column, one.printed, one.right) for one in errata() if one.row != "*"}
    assert found == listed


def test_every_image_text_row_has_texts() -> None:
    for row in text_rows():
        record = find_record(row.checkpoint)
        assert record is not None
        assert record.describes_texts, row.checkpoint


def test_more_distractors_are_never_easier() -> None:
    assert all(row.map_100m_adapted < row.map_5m_adapted for row in image_rows())
    assert all(row.map_100m < row.map_5m for row in text_rows())
