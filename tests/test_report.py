"""The report: everything is shown, nothing leaks, and it is the same every time."""

from __future__ import annotations

import csv
import dataclasses
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from openilias.core.errors import OpenIliasError
from openilias.core.protocol import Protocol
from openilias.data import Benchmark, read_ilias
from openilias.evaluate.evaluation import Evaluation, evaluate
from openilias.images.boxes import Box
from openilias.images.tars import write_tar
from openilias.report.gallery import select_queries
from openilias.report.html import (
    PROTOCOL_MEANING,
    ReportInput,
    rank_place,
    rank_ticks,
    recall_curve,
    score_text,
    step_curve,
    write_report,
)
from openilias.report.pictures import BOX_COLOUR, SIDE, find_items, thumbnail, thumbnail_name
from openilias.report.tables import duration, group_tables, markdown_table, summary_rows
from openilias.search.ranking import Ranking

HOSTILE = "a <b>bold</b> cup & \"<script>alert('x')</script>\""
TAXONOMY = """{
  "art": {"<i>x</i>": {"other": ["cup_0"]}, "other": {"other": ["cup_1"]}},
  "toy": {"car": {"a": ["cup_2"]}}
}"""


class Page(HTMLParser):
    """Tags with their attributes, and all text, of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(self.source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        # <wbr> splits ids; the words themselves are whole.
        return " ".join("".join(self.words).split())

    def all(self, tag: str, name: str) -> list[str]:
        return [value for found, attrs in self.tags if found == tag and (value := attrs.get(name)) is not None]

    def entries(self) -> list[str]:
        return [attrs["id"] or "" for tag, attrs in self.tags if tag == "article"]


def jpeg(colour: tuple[int, int, int], size: tuple[int, int] = (300, 200)) -> bytes:
    data = io.BytesIO()
    Image.new("RGB", size, colour).save(data, "JPEG", comment=b"secret comment")
    return data.getvalue()


def build(root: Path, *, objects: int = 6, positives: int = 2, taxonomy: str = TAXONOMY) -> Benchmark:
    for n in range(objects):
        folder = root / "core" / f"cup_{n}"
        (folder / "query").mkdir(parents=True)
        (folder / "pos").mkdir()
        (folder / "query" / f"Q00{n}_00.jpg").write_bytes(jpeg((0, 0, 40 * n)))
        (folder / "query" / f"Q00{n}_00_bbox.txt").write_text("60 40 120 80\n")
        for p in range(positives):
            (folder / "pos" / f"P00{n}_{p:02d}.jpg").write_bytes(jpeg((0, 40 * n, 10 * p)))
            (folder / "pos" / f"P00{n}_{p:02d}_bbox.txt").write_text("30 20 150 100\n")
    (root / "core" / "cup_0" / "query" / "T000.txt").write_text(HOSTILE, encoding="utf-8")
    for n in range(1, objects):
        (root / "core" / f"cup_{n}" / "query" / f"T00{n}.txt").write_text(f"cup number {n}", encoding="utf-8")
    (root / "distractors").mkdir()
    for n in range(4):
        (root / "distractors" / f"free_{n}.jpg").write_bytes(jpeg((200, 0, 40 * n)))
    for tar in range(2):
        members = [(f"in_{n}.jpg", jpeg((200, 40 * n, 99 * tar))) for n in range(4)]
        write_tar(root / "distractors" / f"shard_{tar}.tar", members)
    if taxonomy:
        (root / "taxonomy.json").write_text(taxonomy)
    return read_ilias(root)


def database(benchmark: Benchmark) -> list[str]:
    return [
        *benchmark.positives,
        *(item.id for shard in benchmark.distractor_shards for item in shard.items()),
    ]


def rank(benchmark: Benchmark, *, depth: int | None = None, queries: tuple[str, ...] | None = None) -> Ranking:
    """Query n has its positives from rank 1 + n on; the first negative is a positive of another object."""
    ids = database(benchmark)
    asked = queries or (*benchmark.image_queries, *benchmark.text_queries)
    rows = []
    for query in asked:
        own = [i for i, item in enumerate(ids) if item.split("/")[0] == query.split("/")[0]]
        others = [i for i in range(len(benchmark.positives)) if i not in own]
        rest = [*others[:1], *range(len(benchmark.positives), len(ids)), *others[1:]]
        behind = int(query.split("/")[0][-1]) + query.endswith(".txt")
        rows.append([*rest[:behind], *own, *rest[behind:]])
    order = np.array(rows, np.int64)[:, :depth]
    scores = np.broadcast_to(np.linspace(0.9, 0.1, order.shape[1], dtype=np.float32), order.shape).copy()
    return Ranking(tuple(asked), tuple(ids), order, scores)


def report_of(benchmark: Benchmark, *, k: int = 10, depth: int | None = None) -> ReportInput:
    ranking = rank(benchmark, depth=depth)
    evaluation = evaluate(ranking, benchmark, Protocol(k=k))
    return ReportInput(
        title="Trial <1>",
        benchmark=benchmark,
        ranking=ranking,
        evaluation=evaluation,
        model={"name": "<model>", "dims": 512},
        database_size=len(ranking.db_ids),
        notes=("3 images were skipped: <x>",),
        times={"extract": 75.0},
    )


@pytest.fixture
def benchmark(tmp_path: Path) -> Benchmark:
    return build(tmp_path / "bench")


@pytest.fixture
def report(benchmark: Benchmark) -> ReportInput:
    return report_of(benchmark)


def write(report: ReportInput, out: Path, *, gallery_queries: int = 24) -> Page:
    return Page(write_report(report, out, gallery_queries=gallery_queries))


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def with_evaluation(report: ReportInput, **changes: object) -> ReportInput:
    return dataclasses.replace(report, evaluation=dataclasses.replace(report.evaluation, **changes))


# The page as a whole


def test_every_section_and_headline_number_is_there(report: ReportInput, tmp_path: Path) -> None:
    page = write(report, tmp_path / "out")
    ids = {attrs.get("id") for _, attrs in page.tags}
    assert {
        "protocol",
        "groups",
        "category",
        "mid_category",
        "coverage",
        "clutter",
        "queries",
        "gallery",
    } <= ids
    assert f"mAP@10 {100 * report.evaluation.map:.1f} %" in page.text.replace("mAP@10", "mAP@10 ").replace("  ", " ")
    for words in (
        "Trial <1>",
        "<model>",
        "512",
        "3 images were skipped: <x>",
        "1 min 15 s",
        "benchmark bench",
    ):
        assert words in page.text, words
    image = [q.ap for q in report.evaluation.queries if q.query_id.endswith(".jpg")]
    assert f"6 image queries (mAP {100 * np.mean(image):.1f} %)" in page.text


def test_every_protocol_field_is_shown_and_explained(report: ReportInput, tmp_path: Path) -> None:
    page = write(report, tmp_path / "out")
    for name in Protocol.model_fields:
        assert f"<code>{name}</code>" in page.source, name
        assert PROTOCOL_MEANING[name] in page.text, f"say in PROTOCOL_MEANING what {name} means"


def test_links_and_pictures_exist_and_nothing_else_is_loaded(report: ReportInput, tmp_path: Path) -> None:
    out = tmp_path / "out"
    page = write(report, out)
    sources = page.all("img", "src")
    assert sources
    assert all((out / source).is_file() for source in sources)
    assert {f"images/{path.name}" for path in (out / "images").iterdir()} == set(sources)
    ids = {attrs.get("id") for _, attrs in page.tags}
    for link in page.all("a", "href"):
        assert link[1:] in ids if link.startswith("#") else (out / link).is_file(), link
    assert not re.search(r"https?:|//[a-z]|url\(|@import", page.source)
    assert not page.all("script", "src")
    assert not page.all("link", "href")
    assert all(page.all("img", "alt"))
    assert len(page.all("img", "alt")) == len(sources)


def test_foreign_text_is_escaped(report: ReportInput, tmp_path: Path) -> None:
    page = write(report, tmp_path / "out")
    assert HOSTILE in page.text
    assert "<script>alert" not in page.source
    assert not [tag for tag, _ in page.tags if tag in ("b", "i") and not _]
    assert "<i>x</i>" in page.text


def test_no_path_of_this_machine_and_no_memory_address(report: ReportInput, tmp_path: Path) -> None:
    (report.benchmark.core / "cup_0" / "query" / "Q000_00.jpg").write_bytes(b"no picture")
    (report.benchmark.root / "distractors" / "shard_0.tar").unlink()
    out = tmp_path / "out"
    page = write(report, out)
    assert "no picture" in page.text
    for name, written in files_of(out).items():
        data = written.replace(b"<wbr>", b"")
        assert str(tmp_path).encode() not in data, name
        assert b" at 0x" not in data, name
        assert b"secret comment" not in data, name


def test_two_reports_are_the_same_bytes(report: ReportInput, tmp_path: Path) -> None:
    (report.benchmark.core / "cup_0" / "query" / "Q000_00.jpg").write_bytes(b"no picture")
    write(report, tmp_path / "a")
    write(report, tmp_path / "b")
    assert files_of(tmp_path / "a") == files_of(tmp_path / "b")


def test_an_old_report_is_replaced_whole(report: ReportInput, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()  # an empty folder is no obstacle
    write_report(report, out)
    (out / "images" / "stale.jpg").write_text("old")
    assert write_report(report, out) == out / "index.html"
    assert set(files_of(out)) >= {"index.html", "queries.csv", "groups.csv"}
    assert not (out / "images" / "stale.jpg").exists()
    (out / "notes.txt").write_text("precious")
    with pytest.raises(OpenIliasError, match="holds no report"):
        write_report(report, out)
    assert (out / "notes.txt").read_text() == "precious"


# Warnings


def test_warnings_appear_only_with_their_cause(report: ReportInput, tmp_path: Path) -> None:
    quiet = with_evaluation(report, uncategorised=0)
    assert "Read this first" not in write(quiet, tmp_path / "quiet").text
    loud = with_evaluation(report, uncategorised=1, missing=("cup_9/query/Q009_00.jpg",), depth=7)
    text = write(dataclasses.replace(loud, database_size=7), tmp_path / "loud").text
    assert "1 query of the benchmark without an answer in the ranking, counted as zero: cup_9/query/Q009_00.jpg" in text
    assert "fewer images than k = 10: the lists are full rankings of 7 images" in text
    assert "1 object of the queries not named by the taxonomy" in text
    shallow = write(dataclasses.replace(loud, database_size=24), tmp_path / "shallow").text
    assert "hold only 7 images each, fewer than k = 10, of a database of 24" in shallow


def test_unanswered_queries_count_as_zero_and_stay_out_of_the_gallery(benchmark: Benchmark, tmp_path: Path) -> None:
    ranking = rank(benchmark, queries=benchmark.image_queries[1:])
    evaluation = evaluate(ranking, benchmark, Protocol(k=10), allow_missing=True)
    page = write(ReportInput("t", benchmark, ranking, evaluation, {}), tmp_path / "out")
    assert "not answered" in page.text
    assert len(page.entries()) == 5
    assert "not stated" in page.text


# Groups


def test_absent_groups_say_why(tmp_path: Path) -> None:
    benchmark = build(tmp_path / "bench", taxonomy="")
    for path in benchmark.core.rglob("*_bbox.txt"):
        path.unlink()
    page = write(report_of(read_ilias(benchmark.root)), tmp_path / "out")
    assert page.text.count("no taxonomy.json that names the objects") == 2
    assert "have no box files" in page.text
    assert "no clutter counts" in page.text


def test_groups_are_named_in_units(report: ReportInput, tmp_path: Path) -> None:
    by_key = {table.key: table for table in group_tables(report.evaluation)}
    assert [row.label for row in by_key["coverage"].rows] == [
        "0–6.9 %",
        "6.9–13.5 %",
        "13.5–27.3 %",
        "27.3–100 %",
    ]
    assert [(row.parent, row.label) for row in by_key["mid_category"].rows] == [
        ("art", "<i>x</i>"),
        ("art", "other (not assigned at this level)"),
        ("toy", "car"),
    ]
    lists = tmp_path / "bench" / "image_ids"
    lists.mkdir()
    (lists / "positive_ids.txt").write_text("".join(f"{item},0.2,40\n" for item in report.benchmark.positives))
    table = group_tables(report_of(read_ilias(tmp_path / "bench")).evaluation)[3]
    assert [(row.label, row.group.size) for row in table.rows] == [
        ("0–17", 0),
        ("18–32", 0),
        ("33–52", 12),
        ("53 or more", 0),
    ]


def test_csv_files_are_the_evaluation(report: ReportInput, tmp_path: Path) -> None:
    write(report, tmp_path / "out")
    with (tmp_path / "out" / "queries.csv").open(encoding="utf-8", newline="") as handle:
        rows = list(csv.DictReader(handle))
    for row, query in zip(rows, report.evaluation.queries, strict=True):
        assert (row["query_id"], row["object"]) == (query.query_id, query.object)
        assert (float(row["ap"]), float(row["oracle"])) == (query.ap, query.oracle)
        assert (int(row["positives"]), int(row["hits"])) == (len(query.positives), query.hits)
        assert int(row["best_rank"]) == min(rank for rank in query.ranks if rank)
    with (tmp_path / "out" / "groups.csv").open(encoding="utf-8", newline="") as handle:
        groups = list(csv.DictReader(handle))
    evaluation = report.evaluation
    expected = [*evaluation.categories, *evaluation.mid_categories, *evaluation.coverage, *evaluation.clutter]
    assert [(g["group"], g["map"], int(g["positives"])) for g in groups] == [
        (g.name, "" if g.map is None else repr(g.map), g.positives) for g in expected
    ]
    assert [(g["objects"], g["queries"]) for g in groups[:2]] == [("2", ""), ("1", "")]
    assert (groups[-1]["objects"], groups[-1]["queries"]) == ("", str(expected[-1].size))


# Gallery


def test_gallery_queries_are_the_worst_middling_and_best(report: ReportInput, tmp_path: Path) -> None:
    parts = select_queries(report.evaluation, 6)
    assert [len(queries) for _, queries in parts] == [2, 2, 2]
    aps = sorted(q.ap for q in report.evaluation.queries)
    assert [q.ap for _, part in parts for q in part] == [*aps[:2], *aps[5:7], *aps[-2:]]
    for most in range(13):
        chosen = [q.query_id for _, part in select_queries(report.evaluation, most) for q in part]
        assert len(set(chosen)) == len(chosen) == most
    few = write(report, tmp_path / "few", gallery_queries=3)
    many = write(report, tmp_path / "many", gallery_queries=12)
    assert (len(few.entries()), len(many.entries())) == (3, 12)
    assert "No query is shown" in write(report, tmp_path / "none", gallery_queries=0).text


def test_best_and_worst_positives_do_not_overlap(tmp_path: Path) -> None:
    report = report_of(build(tmp_path / "bench", objects=1, positives=11), k=6)
    page = write(report, tmp_path / "out")
    figures = page.source.split("<article")[1]
    best, worst = figures.split("worst-ranked positives</h5>")
    worst = worst.split("hardest negatives")[0]
    shown = [re.findall(r'alt="positive (\S+), (?:rank (\d+)|not)', part) for part in (best, worst)]
    ids = [item for part in shown for item, _ in part]
    assert len(ids) == len(set(ids)) == 8
    assert [place for _, place in shown[0]] in (["1", "2", "3", "4"], ["2", "3", "4", "5"])
    assert [place for _, place in shown[1]] == [""] * 4
    assert page.text.count("not in the first 6") >= 4


def test_a_few_positives_are_all_shown_once(report: ReportInput, tmp_path: Path) -> None:
    page = write(report, tmp_path / "out")
    assert "all 2 positives, best-ranked first" in page.text
    first = page.source.split("<article")[1]
    assert first.count('class="shown positive"') == 2
    assert first.count('class="shown negative"') == 6


def test_negatives_carry_rank_and_score_and_their_own_object(report: ReportInput, tmp_path: Path) -> None:
    page = write(report, tmp_path / "out", gallery_queries=24)
    row = report.ranking.query_ids.index("cup_1/query/Q001_00.jpg")
    asked = "cup_<wbr>1/<wbr>query/<wbr>Q001_"
    entry = next(part for part in page.source.split("<article")[1:] if asked in part)
    assert 'alt="negative cup_0/pos/P000_00.jpg, rank 1, a positive of cup_0"' in entry
    assert "positive of cup_<wbr>0" in entry
    assert f"score {report.ranking.scores[row, 0]:.3f}" in entry
    free = [alt for alt in page.all("img", "alt") if alt.startswith("negative distractors/")]
    assert free
    assert not any("a positive of" in alt for alt in free)


def test_boxes_are_drawn_where_they_are() -> None:
    image = Image.new("RGB", (440, 220), (0, 0, 120))
    small = thumbnail(image, [Box(100, 40, 200, 100), Box(430, 200, 500, 500)])
    assert small.size == (SIDE, SIDE // 2)
    assert {small.getpixel((x, 45)) for x in (52, 147)} == {BOX_COLOUR}
    assert {small.getpixel((100, y)) for y in (22, 67)} == {BOX_COLOUR}
    assert small.getpixel((100, 45)) == (0, 0, 120)
    assert thumbnail(Image.new("RGB", (4000, 1)), [Box(0, 0, 1, 1)]).size == (SIDE, 1)
    assert thumbnail(Image.new("RGB", (30, 20)), []).size == (30, 20)


def test_the_report_has_boxes_on_queries_and_positives_only(report: ReportInput, tmp_path: Path) -> None:
    out = tmp_path / "out"
    write(report, out)

    def yellow(item: str) -> int:
        with Image.open(out / "images" / thumbnail_name(item)) as image:
            pixels = np.asarray(image.convert("RGB")).astype(int)
        return int((np.abs(pixels - BOX_COLOUR).sum(axis=2) < 120).sum())

    assert yellow("cup_0/query/Q000_00.jpg") > 200
    assert yellow("cup_0/pos/P000_00.jpg") > 200
    assert yellow("distractors/free_0.jpg") == 0


def test_pictures_that_cannot_be_shown_are_framed_with_the_reason(report: ReportInput, tmp_path: Path) -> None:
    core = report.benchmark.core
    (core / "cup_0" / "query" / "Q000_00.jpg").write_bytes(jpeg((1, 2, 3))[:150])
    (core / "cup_0" / "pos" / "P000_00.jpg").unlink()
    (core / "cup_1" / "pos" / "P001_00_bbox.txt").write_text("1 2 three 4\n")
    (core / "cup_0" / "query" / "T000.txt").write_bytes(b"\xff\xfe\xfa")
    page = write(report, tmp_path / "out")
    assert "4 of " in page.text.split("Protocol and model")[0]
    for words in (
        "cannot be decoded",
        "cannot be read: No such file",
        "A box must be four integers",
        "not UTF-8",
    ):
        assert words in page.text, words
    labels = page.all("div", "aria-label")
    assert any(label.startswith("query cup_0/query/Q000_00.jpg") for label in labels)
    assert any(label.startswith("positive cup_0/pos/P000_00.jpg, rank 1") for label in labels)
    assert "cup_1/pos/P001_00.jpg" in " ".join(page.all("img", "alt"))


def test_a_tar_that_is_broken_or_gone_is_no_crash(tmp_path: Path) -> None:
    benchmark = build(tmp_path / "bench", objects=1, positives=1)
    report = report_of(benchmark, k=20)
    order = [i for i, item in enumerate(report.ranking.db_ids) if item.startswith("shard_")]
    rows = np.array([order, order], np.int64)
    scores = np.broadcast_to(np.linspace(1, 0, rows.shape[1], dtype=np.float32), rows.shape).copy()
    ranking = Ranking(report.ranking.query_ids, report.ranking.db_ids, rows, scores)
    report = dataclasses.replace(report, ranking=ranking, evaluation=evaluate(ranking, benchmark, Protocol(k=20)))
    assert "no picture" not in write(report, tmp_path / "whole").text
    broken = benchmark.root / "distractors" / "shard_0.tar"
    broken.write_bytes(broken.read_bytes()[:700])
    page = write(report, tmp_path / "broken")
    assert "tar shard" in page.text
    assert page.text.count("no picture") == 8  # four images of it, for each of two queries
    broken.unlink()
    gone = write(dataclasses.replace(report, benchmark=read_ilias(benchmark.root)), tmp_path / "gone")
    assert "The shard shard_0.tar is not in the benchmark folder." in gone.text


def test_find_items_reads_only_the_tars_it_needs(benchmark: Benchmark, monkeypatch: pytest.MonkeyPatch) -> None:
    indexed: list[str] = []
    from openilias.data import benchmark as benchmark_module

    def counting(path: Path, kept: Path | None) -> object:
        indexed.append(path.name)
        return real(path, kept)

    real = benchmark_module.scan_once
    monkeypatch.setattr(benchmark_module, "scan_once", counting)
    wanted = ["shard_1.tar/in_0", "shard_1.tar/in_3", "distractors/free_2.jpg", "cup_3/pos/P003_01.jpg"]
    found = find_items(benchmark, [*wanted, "shard_1.tar/none", "shard_7.tar/in_0", "distractors/none.jpg"])
    assert sorted(found) == sorted(wanted)
    assert indexed == ["shard_1.tar"]
    assert all(item.id == key and item.read()[:2] == b"\xff\xd8" for key, item in found.items())


def test_thumbnail_names_are_safe_and_unique() -> None:
    ids = ["a/b.jpg", "a_b.jpg", "A/b.jpg", "../../etc/passwd", "x" * 400, "é", "<b>", "con"]
    names = [thumbnail_name(item) for item in ids]
    assert len({name.lower() for name in names}) == len(ids)
    assert all(re.fullmatch(r"[A-Za-z0-9-]{1,80}\.jpg", name) for name in names)


# Tables and drawings as functions


def test_markdown_table_aligns_and_escapes() -> None:
    table = markdown_table(["model", "mAP"], [["a|b", "9.1 %"], ["two\nlines", "–"]])
    assert table == "| model     |   mAP |\n| --------- | ----: |\n| a\\|b      | 9.1 % |\n| two lines |     – |\n"
    with pytest.raises(ValueError, match="as long as its header"):
        markdown_table(["a", "b"], [["only one"]])


def test_summary_counts_objects_once(report: ReportInput) -> None:
    rows = {row.label: row for row in summary_rows(report.evaluation, database_size=24)}
    assert rows["queries"].value == "12"
    assert rows["positives"].value == "12"  # six objects of two, though each is asked for twice
    assert (rows["correct first hit"].value, rows["correct first hit"].detail) == ("8.3 %", "1 of 12 queries")
    assert rows["database"].value == "24"
    assert summary_rows(dataclasses.replace(report.evaluation, protocol=Protocol()))[0].label == "mAP@1k"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (59.9, "59.9 s"), (59.97, "1 min 00 s"), (3600, "1 h 00 min"), (86461, "24 h 01 min")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_scores() -> None:
    assert [score_text(s) for s in (0.91234, 0.0, -0.25, 1e-5, 123.456)] == [
        "0.912",
        "0.000",
        "-0.250",
        "1e-05",
        "123.5",
    ]


def test_curves_hold_the_numbers(report: ReportInput) -> None:
    assert step_curve([1.0, 0.25]) == "M0 200V0.0H300.0V150.0H600.0V200Z"
    assert (rank_place(1, 1000), rank_place(1000, 1000)) == (0.0, pytest.approx(1.0))
    assert [name for _, name in rank_ticks(1000)] == ["1", "10", "100", "1,000"]
    assert [name for _, name in rank_ticks(845)] == ["1", "10", "100", "845"]
    assert [name for _, name in rank_ticks(1)] == ["1"]
    ends = [float(y) for y in re.findall(r"V([\d.]+)", recall_curve(report.evaluation))]
    found = sum(q.hits for q in report.evaluation.queries) / sum(len(q.positives) for q in report.evaluation.queries)
    assert ends == sorted(ends, reverse=True)
    assert ends[-1] == pytest.approx(200 * (1 - found), abs=0.06)


def test_a_list_of_one_image_is_drawn(tmp_path: Path) -> None:
    report = report_of(build(tmp_path / "bench", objects=1, positives=1), k=1)
    page = write(report, tmp_path / "out")
    assert isinstance(report.evaluation, Evaluation)
    assert "the only positive" in page.text
    assert "The list holds no negative." in page.text
