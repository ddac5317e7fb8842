"""Tables of images to fetch: both layouts of YFCC100M, tables of URLs, bad lines, resuming, parts."""

from __future__ import annotations

import bz2
import csv
import gzip
import json
import tracemalloc
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import cast
from urllib.parse import quote_plus

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from openilias.build.tables.lines import MOST_LINE, lines_of
from openilias.build.tables.metadata import START, Bad, Columns, Record, Row, Video, open_table
from openilias.build.tables.rows import clean, is_id, is_url
from openilias.build.tables.yfcc import COLUMNS, hash_of, layout_of, parse_line
from openilias.core.errors import OpenIliasError

# The first photo of the release, as public documentation of its columns shows it.
URL = "http://farm8.staticflickr.com/7205/6985418911_df7747990d.jpg"
FIRST = {
    "photo/video identifier": "6985418911",
    "user NSID": "39089491@N00",
    "user nickname": "gnuckx",
    "date taken": "2012-02-16 09:56:37.0",
    "date uploaded": "1331840483",
    "capture device": "Canon+PowerShot+ELPH+310+HS",
    "title": "IMG_0520",
    "user tags": "canon,canon+powershot+hs+310",
    "longitude": "-81.804885",
    "latitude": "24.550558",
    "accuracy": "12",
    "page URL": "http://www.flickr.com/photos/39089491@N00/6985418911/",
    "download URL": URL,
    "licence name": "Attribution-NonCommercial-NoDerivs License",
    "licence URL": "http://creativecommons.org/licenses/by-nc-nd/2.0/",
    "server identifier": "7205",
    "farm identifier": "8",
    "secret": "df7747990d",
    "secret of the original": "692d7e0a7f",
    "extension of the original": "jpg",
    "photo/video marker": "0",
}
HASH = "4e2f7a26a1dfbf165a7e30bdabf7e72a"
MEDIUM = "https://live.staticflickr.com/7205/6985418911_df7747990d.jpg"
S3 = f"https://multimedia-commons.s3-us-west-2.amazonaws.com/data/images/4e2/f7a/{HASH}.jpg"


def line(layout: int = 23, *, number: int = 0, stated: str = HASH, **changes: str) -> bytes:
    """Write a line of the published metadata; ``changes`` name columns with _ for blanks."""
    values = FIRST | {name: value for name, value in changes.items() if name in COLUMNS}
    values |= {name.replace("_", " "): value for name, value in changes.items() if name.replace("_", " ") in COLUMNS}
    fields = [values.get(name, "") for name in COLUMNS]
    if layout == 25:
        fields = [str(number), fields[0], stated, *fields[1:]]
    return "\t".join(fields).encode()


def parsed(data: bytes, layout: int = 23) -> Record:
    return parse_line(data, layout, where="f:1", after=START)  # type: ignore[arg-type]


@pytest.mark.parametrize("layout", [23, 25])
def test_the_first_photo_of_the_release(layout: int) -> None:
    assert len(COLUMNS) == 23
    assert layout_of(line(layout)) == layout
    row = parsed(line(layout), layout)
    assert isinstance(row, Row)
    assert row.id == "6985418911"
    assert row.urls == (MEDIUM, URL, S3)
    assert (row.camera, row.taken) == ("Canon PowerShot ELPH 310 HS", "2012-02-16 09:56:37")
    assert row.author == "gnuckx"
    assert row.page_url == "http://www.flickr.com/photos/39089491@N00/6985418911/"
    assert row.licence == "Attribution-NonCommercial-NoDerivs License"
    assert row.licence_url == "http://creativecommons.org/licenses/by-nc-nd/2.0/"


def test_the_hash_is_the_published_one_and_drops_the_zero_of_each_byte() -> None:
    assert hash_of(URL) == HASH
    import hashlib

    short = next(u for u in (f"http://farm1.staticflickr.com/1/{n}_a.jpg" for n in range(99)) if len(hash_of(u)) < 32)
    digits = hashlib.md5(short.encode()).hexdigest()
    pairs = [digits[at : at + 2] for at in range(0, 32, 2)]
    assert hash_of(short) == "".join(pair[1] if pair[0] == "0" else pair for pair in pairs)


def test_a_stated_hash_goes_before_the_computed_one() -> None:
    other = "ab" * 16
    row = parsed(line(25, stated=other), 25)
    assert isinstance(row, Row)
    assert row.urls[2].endswith(f"/aba/bab/{other}.jpg")
    wrong = parsed(line(25, stated="../../x"), 25)
    assert isinstance(wrong, Row)
    assert wrong.urls[2] == S3


def test_videos_are_told_apart() -> None:
    found = parsed(line(photo_video="", **{"photo/video marker": "1"}))
    assert found == Video("6985418911", "f:1", START)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"a\tb", "2 columns instead of 23"),
        (line() + b"\tmore", "24 columns"),
        (line(**{"photo/video identifier": "12x"}), "'12x' is not a number"),
        (line(**{"photo/video identifier": ""}), "is not a number"),
        (line(**{"photo/video marker": "2"}), "'2' is neither 0 nor 1"),
        (line(**{"photo/video marker": ""}), "neither 0 nor 1"),
        (line(server_identifier="../..", download_URL="ftp://x/y.jpg"), "no URL"),
        (line(secret="", download_URL="javascript:alert(1)"), "no URL"),
        (line(secret="g", download_URL="http://user:word@host/x"), "no URL"),
    ],
)
def test_bad_lines_say_why(data: bytes, reason: str) -> None:
    found = parsed(data)
    assert isinstance(found, Bad)
    assert reason in found.reason


def test_a_photo_without_secret_has_the_other_urls() -> None:
    row = parsed(line(secret=""))
    assert isinstance(row, Row)
    assert row.urls == (URL, S3)
    row = parsed(line(download_URL=""))
    assert isinstance(row, Row)
    assert row.urls == (MEDIUM,)


def test_fields_are_decoded_and_harmless() -> None:
    row = parsed(line(user_nickname="J%C3%BCrgen+%26+Co%1B%5B31m", capture_device="null", date_taken="null"))
    assert isinstance(row, Row)
    assert row.author == "Jürgen & Co [31m"
    assert (row.camera, row.taken) == (None, None)
    raw = line().replace(b"IMG_0520", b"\xff\xfe\x00").replace(b"gnuckx", b"g\xffx")
    row = parsed(raw)  # only what is used need be text
    assert isinstance(row, Row)
    assert row.author == "g\ufffdx"
    long = parsed(line(user_nickname="x" * 10_000))
    assert isinstance(long, Row)
    assert long.author == "x" * 500


TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=30)


@given(nickname=TEXT, device=TEXT, layout=st.sampled_from([23, 25]), end=st.sampled_from([b"\n", b"\r\n", b""]))
def test_any_url_encoded_text_comes_back(nickname: str, device: str, layout: int, end: bytes) -> None:
    data = line(layout, user_nickname=quote_plus(nickname), capture_device=quote_plus(device))
    row = parsed((data + end).rstrip(b"\r\n"), layout)
    assert isinstance(row, Row)

    def plain(text: str) -> str | None:
        shown = "".join(c if c.isprintable() else " " for c in text).strip()
        return None if shown.lower() in ("", "null", "none", "nan", "\\n") else shown

    assert (row.author, row.camera) == (plain(nickname), plain(device))


@given(st.binary(max_size=300), st.sampled_from([23, 25]))
def test_any_bytes_give_a_record(data: bytes, layout: int) -> None:
    found = parsed(data.replace(b"\n", b""), layout)
    assert isinstance(found, Bad)
    fields = [data.replace(b"\n", b"").replace(b"\t", b"")] * layout
    assert isinstance(parsed(b"\t".join(fields), layout), (Row, Video, Bad))


@given(st.lists(st.binary(max_size=12), min_size=23, max_size=23), st.binary(max_size=4))
def test_whatever_the_fields_are_urls_are_urls_and_ids_ids(fields: list[bytes], extra: bytes) -> None:
    fields = [part.translate(None, b"\t\n") for part in fields]
    fields[0], fields[22] = b"12", b"0"
    fields[14] = b"http://host/" + extra.translate(None, b"\t\n")
    found = parsed(b"\t".join(fields))
    if isinstance(found, Row):
        assert is_id(found.id)
        assert all(is_url(url) for url in found.urls)
        for text in found[2:8]:
            assert text is None or (text == clean(text))


def yfcc_file(path: Path, layout: int = 23, count: int = 40) -> list[bytes]:
    lines = []
    for at in range(count):
        ident = str(1000 + at)
        data = line(layout, number=at, **{"photo/video identifier": ident, "photo/video marker": str(int(at % 7 == 3))})
        lines.append(b"not a line" if at % 11 == 5 else data)
    packers: dict[str, Callable[[bytes], bytes]] = {".bz2": bz2.compress, ".gz": gzip.compress}
    data = b"\r\n".join(lines[:9]) + b"\n\n" + b"\n".join(lines[9:])
    path.write_bytes(packers.get(path.suffix, bytes)(data))
    return lines


@pytest.mark.parametrize("name", ["yfcc100m_dataset", "yfcc100m_dataset.bz2", "x.tsv.gz"])
@pytest.mark.parametrize("layout", [23, 25])
def test_a_file_of_the_release_in_any_packing(tmp_path: Path, name: str, layout: int) -> None:
    path = tmp_path / name
    lines = yfcc_file(path, layout)
    table = open_table(path)
    assert (table.kind, table.layout) == ("yfcc", layout)
    found = list(table.read())
    assert len(found) == len(lines)
    for at, record in enumerate(found):
        kind = Bad if at % 11 == 5 else Video if at % 7 == 3 else Row
        assert isinstance(record, kind)
        assert record.after.number == at + 1
        assert record.where == f"{path}:{at + 1 + (at >= 9)}"  # one blank line is no record
        if not isinstance(record, Bad):
            assert record.id == str(1000 + at)


def url_csv(path: Path, count: int = 40) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "caption", "url", "license", "user"])
        for at in range(count):
            url = "no url" if at % 9 == 4 else f"https://host/{at}.jpg"
            writer.writerow([f"k{at}", 'a "quoted"\r\ntext, ü', url, "CC BY", f"someone {at}"])


def url_tsv(path: Path, count: int = 40) -> None:
    lines = ["URL\tKEY\tname"] + [f'http://host/{at}\tk{at}\t"open quote' for at in range(count)]
    path.write_text("\n".join(lines), encoding="utf-8")


def url_jsonl(path: Path, count: int = 40) -> None:
    lines = [
        "{broken" if at % 10 == 6 else json.dumps({"id": at, "url": [f"https://a/{at}", f"https://b/{at}", "x"]})
        for at in range(count)
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def url_parquet(path: Path, count: int = 40) -> None:
    urls = [None if at % 8 == 2 else f"https://host/{at}.jpg" for at in range(count)]
    table = pa.table(
        {"image_id": list(range(count)), "url": urls, "camera": ["X 1"] * count, "vector": [[1.0]] * count}
    )
    pq.write_table(table, path, row_group_size=7)


WRITERS: dict[str, Callable[[Path], object]] = {
    "t.csv": url_csv, "t.tsv": url_tsv, "t.jsonl": url_jsonl, "t.parquet": url_parquet,
    "yfcc": yfcc_file, "yfcc.bz2": yfcc_file,
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(WRITERS))
def test_reading_goes_on_after_any_record(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    WRITERS[name](path)
    table = open_table(path)
    whole = list(table.read())
    assert len(whole) == 40
    assert [record.after.number for record in whole] == list(range(1, 41))
    for at, record in enumerate(whole):
        assert list(open_table(path).read(record.after)) == whole[at + 1 :]


@pytest.mark.parametrize("rows", [1, 7, 13, 40, 1000])
@pytest.mark.parametrize("name", sorted(WRITERS))
def test_parts_make_up_the_whole(tmp_path: Path, name: str, rows: int) -> None:
    path = tmp_path / name
    WRITERS[name](path)
    table = open_table(path)
    parts = list(table.parts(rows))
    assert [part.number for part in parts] == list(range(-(-40 // rows)))
    assert all(part.rows == rows for part in parts[:-1])
    read = [list(table.read_part(part)) for part in reversed(parts)]  # whoever comes first
    assert [record for part in reversed(read) for record in part] == list(table.read())
    with pytest.raises(OpenIliasError, match="at least one row"):
        list(table.parts(0))


def test_tables_of_urls(tmp_path: Path) -> None:
    url_csv(tmp_path / "t.csv")
    records = list(open_table(tmp_path / "t.csv").read())
    assert records[0][:6] == ("k0", ("https://host/0.jpg",), "CC BY", None, "someone 0", None)
    bad = records[4]
    assert isinstance(bad, Bad)
    assert "'no url' is no URL" in bad.reason
    assert bad.where.endswith("t.csv:10")  # two lines a record, and the header
    url_tsv(tmp_path / "t.tsv")
    assert [record[0] for record in open_table(tmp_path / "t.tsv").read()] == [f"k{at}" for at in range(40)]
    url_jsonl(tmp_path / "t.jsonl")
    records = list(open_table(tmp_path / "t.jsonl").read())
    assert records[0][:2] == ("0", ("https://a/0", "https://b/0"))
    assert isinstance(records[6], Bad)
    url_parquet(tmp_path / "t.parquet")
    records = list(open_table(tmp_path / "t.parquet").read())
    first, missing = records[1], records[2]
    assert isinstance(first, Row)
    assert (first.id, first.camera, first.where) == ("1", "X 1", f"{tmp_path / 't.parquet'}:2")
    assert isinstance(missing, Bad)
    assert "no URL" in missing.reason


def test_columns_are_found_or_named(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("\ufeffmine,yours,URL\nhttp://a/1,http://b/1,http://c/1\n", encoding="utf-8")
    assert [record[:2] for record in open_table(path).read()] == [("000000000", ("http://c/1",))]
    named = open_table(path, columns=Columns(url=("yours", "mine")))
    assert [record[1] for record in named.read()] == [("http://b/1", "http://a/1")]
    with pytest.raises(OpenIliasError, match="no column 'theirs'") as caught:
        open_table(path, columns=Columns(id="theirs"))
    assert "'mine'" in str(caught.value)
    path.write_text("a,b\n1,2\n", encoding="utf-8")
    with pytest.raises(OpenIliasError, match="No column"):
        open_table(path)
    path.write_text("url,url\n1,2\n", encoding="utf-8")
    with pytest.raises(OpenIliasError, match="twice"):
        open_table(path)


@pytest.mark.parametrize("ident", ["a.b", "../x", "a/b", "", "x" * 200, "a b", "a\u202eb"])
def test_ids_that_no_shard_can_hold_are_bad(tmp_path: Path, ident: str) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text(json.dumps({"id": ident, "url": "http://a/1"}) + "\n", encoding="utf-8")
    (found,) = open_table(path).read()
    assert isinstance(found, Bad)
    assert "cannot be a key" in found.reason


@pytest.mark.parametrize(
    "url",
    ["file:///etc/passwd", "data:image/png;base64,AA", "http://", "http:///x", "http://u:p@h/x", "http://h/a b",
     "http://h/\u202e", "//h/x", "gopher://h", "http://h\\@evil/", "http://h/" + "x" * 3000],
)  # fmt: skip
def test_what_is_no_url_of_the_web(url: str) -> None:
    assert not is_url(url)


@pytest.mark.parametrize("url", ["http://h", "HTTPS://h.example:8080/a?b=c#d", "http://h/%20ü", "http://h?x@y"])
def test_what_is_one(url: str) -> None:
    assert is_url(url)


def test_damaged_csv_lines_are_named_and_reading_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    rows = [b"id,url", b"a,http://a/1", b'b,"http://a/2"x', b"c\xff,http://a/3", b"d,http://a/4,more", b"e,http://a/5",
            b'f,"http://a/6', b"g,http://a/7"]  # fmt: skip
    path.write_bytes(b"\r\n".join(rows) + b"\r\n")
    found = list(open_table(path).read())
    assert [record.id for record in found if isinstance(record, Row)] == ["a", "e"]
    reasons = [record.reason for record in found if isinstance(record, Bad)]
    assert len(reasons) == 4
    assert "split" in reasons[0]
    assert "UTF-8" in reasons[1]
    assert "3 columns instead of 2" in reasons[2]
    assert "2 lines are lost" in reasons[3]


@pytest.mark.parametrize("depth", [400, 800])
def test_deep_values_cost_their_line(tmp_path: Path, depth: int) -> None:
    table = tmp_path / "a.jsonl"
    deep = "[" * depth + '"http://a/b"' + "]" * depth
    table.write_text(f'{{"url": "http://a/b"}}\n{{"url": {deep}}}\n{{"url": "http://a/c"}}\n')
    records = list(open_table(table).read())
    assert [type(record) for record in records] == [Row, Bad, Row]
    assert cast(Bad, records[1]).reason == "it has no URL"


def test_values_of_parquet_that_python_has_not(tmp_path: Path) -> None:
    urls = ["http://a.com/b", "http://a.com/c"]
    taken = pa.array([1234567890123456789, 2**62], pa.timestamp("ns"))
    days = pa.array([2**30, 0], pa.date32())
    pq.write_table(pa.table({"url": urls, "taken": taken, "camera": days}), tmp_path / "a.parquet")
    rows = list(open_table(tmp_path / "a.parquet").read())
    assert [row.urls for row in rows if isinstance(row, Row)] == [(url,) for url in urls]
    assert cast(Row, rows[0]).taken == "2009-02-13 23:31:30.123456789"
    broken = pa.Array.from_buffers(pa.string(), 1, [None, pa.py_buffer(b"\0\0\0\0\1\0\0\0"), pa.py_buffer(b"\xff")])
    pq.write_table(pa.table({"url": urls[:1], "author": broken}), tmp_path / "b.parquet")
    (row,) = open_table(tmp_path / "b.parquet").read()
    assert cast(Row, row).author is None


def test_endless_lines_are_passed_over_in_bounded_memory(tmp_path: Path) -> None:
    path = tmp_path / "yfcc"
    with path.open("wb") as file:
        file.write(line() + b"\n")
        for _ in range(30):
            file.write(b"x" * MOST_LINE)
        file.write(b"\n" + line() + b"\n")
    tracemalloc.start()
    found = list(open_table(path).read())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [type(record) for record in found] == [Row, Bad, Row]
    assert found[2].where.endswith(":3")
    assert peak < 6 * MOST_LINE
    assert list(open_table(path).read(found[1].after)) == found[2:]
    assert [part.rows for part in open_table(path).parts(2)] == [2, 1]


@given(content=st.binary(max_size=60), start=st.integers(0, 20))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_lines_are_those_of_a_plain_split(tmp_path: Path, content: bytes, start: int) -> None:
    path = tmp_path / "x"
    path.write_bytes(content)
    with path.open("rb") as file:
        found = list(lines_of(file, start=start))
    rest = content[start:]
    pieces = rest.split(b"\n")
    pieces = pieces[:-1] if pieces[-1] == b"" else pieces
    assert [one.content for one in found] == [piece.rstrip(b"\r") for piece in pieces]
    assert [one.number for one in found] == list(range(1, len(pieces) + 1))
    if found:
        assert found[-1].end == len(content)


@pytest.mark.parametrize("suffix", [".bz2", ".gz"])
def test_packed_files_that_are_cut_off_or_damaged_stop(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"yfcc{suffix}"
    pack = bz2.compress if suffix == ".bz2" else gzip.compress
    data = pack(b"\n".join(line(number=at, description=str(at**9)) for at in range(4000)))
    path.write_bytes(data[: len(data) // 2])
    table = open_table(path) if suffix == ".gz" else None
    with pytest.raises(OpenIliasError, match="cannot be read to its end") as caught:
        list((table or open_table(path)).read())
    assert caught.value.where == str(path)


def test_what_is_no_table_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"hello\n" * 10)
    with pytest.raises(OpenIliasError, match="no table"):
        open_table(path)
    with pytest.raises(OpenIliasError, match="23 or 25"):
        open_table(path, kind="yfcc")
    with pytest.raises(OpenIliasError, match="cannot be read"):
        open_table(tmp_path / "missing")
    other = tmp_path / "x.parquet"
    other.write_bytes(b"hello")
    with pytest.raises(OpenIliasError, match="no Parquet"):
        open_table(other)
    empty = tmp_path / "x.csv"
    empty.write_bytes(b"")
    with pytest.raises(OpenIliasError, match="header"):
        open_table(empty)


def test_memory_is_flat(tmp_path: Path) -> None:
    path = tmp_path / "yfcc"
    with path.open("wb") as file:
        file.writelines(line(number=at) + b"\n" for at in range(20_000))
    peaks = []
    for rows in (2_000, 20_000):
        tracemalloc.start()
        assert sum(1 for _ in islice(open_table(path).read(), rows)) == rows
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] * 1.5 + 100_000
