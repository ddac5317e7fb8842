"""Figures and tables: the numbers that they show are those of the evaluations, counted again plainly."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from openilias.core.protocol import Expand, Protocol
from openilias.data import Attributes, Benchmark, Taxonomy
from openilias.evaluate.comparison import align, compare, oracle_of_models
from openilias.evaluate.evaluation import QueryResult, evaluate, values_of
from openilias.evaluate.groups import CLUTTER_EDGES, by_attribute, quartile_edges, rank_table
from openilias.evaluate.hits import Hits
from openilias.models.record import find_record
from openilias.published import image_rows, printed, reranked_by_method
from openilias.report.figures import (
    categories,
    database,
    groups,
    per_query,
    settings,
    sheets,
    tables,
    taxonomy,
    timeline,
)
from openilias.report.figures.derive import Derived, Searched, derive
from openilias.report.figures.everything import Analysis, best_of_models, exhibits
from openilias.report.figures.exhibit import Exhibit, write_exhibit
from openilias.report.figures.measured import Measured
from openilias.report.figures.style import apart, figure_style, legend_below, new_figure
from openilias.report.layout import csv_of
from openilias.report.sweep import Point, Sweep
from openilias.report.sweep import exhibit as exhibit_of_sweep
from openilias.search.ranking import Ranking

OBJECTS, DISTRACTORS, K = 9, 200, 60
NAMES = tuple(f"thing_{n:03d}" for n in range(OBJECTS))
RNG = np.random.default_rng(0)
POSITIVES = tuple(f"{name}/pos/P{n:03d}_{m:02d}.jpg" for n, name in enumerate(NAMES) for m in range(2 + n % 3))
BENCHMARK = Benchmark(
    Path("made-up"),
    Path("made-up/core"),
    tuple(f"{name}/query/Q{n:03d}_{m:02d}.jpg" for n, name in enumerate(NAMES) for m in range(1 + n % 2)),
    (),
    POSITIVES,
    (),
    {item: Attributes(float(RNG.beta(1, 3)), int(RNG.gamma(2, 18))) for item in POSITIVES},
    Taxonomy({name: (("art", "toy")[n % 2], ("a", "other", "c")[n % 3], "other") for n, name in enumerate(NAMES)}),
)


def ranking(seed: int) -> Ranking:
    """A search of everything, in which positives are a little better than chance."""
    rng = np.random.default_rng(seed)
    scores = rng.random((len(BENCHMARK.image_queries), len(POSITIVES) + DISTRACTORS)).astype(np.float32)
    for row, query in enumerate(BENCHMARK.image_queries):
        own = [n for n, item in enumerate(POSITIVES) if item.split("/")[0] == query.split("/")[0]]
        scores[row, own] += 0.4
    rows = np.argsort(-scores, axis=1, kind="stable")[:, :150]
    ids = (*POSITIVES, *(f"yfcc100m_0000.tar/{n:05d}" for n in range(DISTRACTORS)))
    values = np.take_along_axis(scores, rows, 1)
    return Ranking(BENCHMARK.image_queries, ids, rows, values, np.arange(len(ids)))


def measured(name: str, seed: int, **more: object) -> Measured:
    evaluation = evaluate(ranking(seed), BENCHMARK, Protocol(k=K), trusted=True)
    return replace(Measured(name, "made-up", evaluation, database_size=len(POSITIVES) + DISTRACTORS), **more)  # type: ignore[arg-type] # any field


A, B, C = (measured(name, seed) for seed, name in enumerate("ABC"))


@pytest.fixture(autouse=True)
def style() -> Iterator[None]:
    with figure_style():
        yield


def rows(exhibit: Exhibit | None) -> list[dict[str, str]]:
    """The CSV of an exhibit, read back."""
    assert exhibit is not None
    return list(csv.DictReader(io.StringIO(csv_of(exhibit.data or exhibit.table))))


def mean_of(queries: list[QueryResult]) -> float:
    by_object: dict[str, list[float]] = {}
    for query in queries:
        by_object.setdefault(query.object, []).append(query.ap)
    return float(np.mean([np.mean(aps) for aps in by_object.values()]))


def test_categories_are_means_over_objects() -> None:
    for level, depth in (("mid", 2), ("coarse", 1)):
        found = rows(categories.categories([A, B], level))  # type: ignore[arg-type] # a loop over literals
        seen = set()
        for row in found:
            wanted = (row["coarse"], row["mid"])[:depth] if depth == 2 else (row["coarse"],)
            members = [q for q in B.evaluation.queries if BENCHMARK.taxonomy.nodes[q.object][:depth] == wanted]
            assert float(row["B"]) == pytest.approx(100 * mean_of(members))
            assert int(row["objects"]) == len({q.object for q in members})
            seen.add(wanted)
        assert seen == {node[:depth] for node in BENCHMARK.taxonomy.nodes.values()}
    coarse = [row["coarse"] for row in rows(categories.categories([A, B], "mid"))]
    assert coarse == sorted(coarse, key=coarse.index)  # those of a primary category stand together
    assert coarse[0] == "art"  # the largest first: 5 of 9
    assert categories.categories([replace(A, evaluation=replace(A.evaluation, mid_categories=()))]) is None


def test_correlations_and_counts_per_query() -> None:
    aligned = align({"A": A.evaluation, "B": B.evaluation})
    made = per_query.per_query(aligned)
    assert made is not None
    a, b = (np.array([q.ap for q in one.evaluation.queries]) for one in (A, B))
    row = made.table.rows[0]
    assert row[:2] == ("A", "B")
    assert row[2] == pytest.approx(np.corrcoef(a, b)[0, 1])
    assert row[3:] == (int((b > a).sum()), int((b < a).sum()), int((b == a).sum()))
    assert [float(line["B"]) for line in rows(made)] == pytest.approx((100 * b).tolist())
    assert per_query.per_query(align({"A": A.evaluation})) is None
    assert per_query.correlation(np.ones(3), np.arange(3)) is None


def test_groups_between_official_edges_and_quartiles() -> None:
    made = groups.groups([A, B], "clutter")
    assert [float(row["A"]) for row in rows(made) if row["A"]] == pytest.approx(
        [100 * group.map for group in A.evaluation.clutter if group.map is not None]
    )
    assert [row["group"] for row in rows(made)] == ["[0, 18)", "[18, 33)", "[33, 53)", "[53, ∞)"]
    values = values_of(BENCHMARK, "coverage")
    edges = quartile_edges(values)
    sizes = np.histogram(values, [*edges[:-1], 2])[0]
    assert sizes.max() - sizes.min() <= 1
    quartiles = by_attribute(Hits(ranking(0), BENCHMARK, BENCHMARK.image_queries, K), values, edges)
    made = groups.groups([A], "coverage", edges=edges, found=[quartiles])
    assert made is not None
    assert made.name == "figure-7-coverage-quartiles"
    assert [int(row["positives"]) for row in rows(made)] == sizes.tolist()
    # A group counted plainly: a benchmark that holds no other positives.
    low, high = edges[1], edges[2]
    kept = tuple(item for item, value in zip(POSITIVES, values, strict=True) if low <= value < high)
    full = ranking(0)
    aps = []
    for row, query in enumerate(BENCHMARK.image_queries):
        own = {item for item in kept if item.split("/")[0] == query.split("/")[0]}
        others = {item for item in POSITIVES if item.split("/")[0] == query.split("/")[0]} - own
        listed = [item for item in full.ids_of(row)[:K] if item not in others]
        places = sorted(listed.index(item) + 1 for item in own if item in listed)
        if own:
            aps.append(sum((n + 1) / place for n, place in enumerate(places)) / min(K, len(own)))
    assert float(rows(made)[1]["A"]) == pytest.approx(100 * np.mean(aps))
    assert groups.groups([replace(A, evaluation=replace(A.evaluation, clutter=()))], "clutter") is None


def test_where_quartiles_are_not_four() -> None:
    assert quartile_edges(np.array([5.0, 5, 5, 5])) == (0.0, float("inf"))
    assert quartile_edges(np.array([np.nan])) == (0.0, float("inf"))
    assert quartile_edges(np.array([1.0, 2, 3, 4, np.nan])) == (0.0, 1.75, 2.5, 3.25, float("inf"))


def test_positives_by_rank() -> None:
    values = {item: float(BENCHMARK.attributes[item].clutter or 0) for item in POSITIVES}
    counts = rank_table(A.evaluation.queries, values, CLUTTER_EDGES)
    plain = np.zeros((4, 4), int)
    for query in A.evaluation.queries:
        for item, rank in zip(query.positives, query.ranks, strict=True):
            line = 3 if rank is None or rank > 1000 else 0 if rank <= 10 else 1 if rank <= 100 else 2
            plain[line, sum(values[item] >= edge for edge in CLUTTER_EDGES[1:-1])] += 1
    assert counts.tolist() == plain.tolist()
    shares = rows(groups.ranks("A", A.evaluation.queries, values, "clutter", depth=1000))
    assert [int(row["positives"]) for row in shares] == plain.ravel().tolist()
    assert float(shares[0]["share"]) == pytest.approx(100 * plain[0, 0] / plain[0].sum())
    assert shares[0]["paper"] == "39.02"
    assert shares[-1]["rank"] == "not among 1,000"
    assert groups.ranks("A", A.evaluation.queries, {}, "clutter", depth=1000) is None
    # What was looked at down to 60 only says nothing of later ranks.
    shares = rows(groups.ranks("A", A.evaluation.queries, values, "clutter", depth=K))
    assert list(dict.fromkeys(row["rank"] for row in shares)) == ["(0, 10]", "(10, 60]", "not among 60"]
    assert sum(int(row["positives"]) for row in shares[8:]) == plain[3].sum()
    assert "paper" not in shares[0]
    assert rows(groups.ranks("A", A.evaluation.queries, values, "clutter", depth=1001))[-1]["rank"] == "over 1,000"


def test_the_curve_over_distractors_ends_at_the_map() -> None:
    derived = derive("A", ranking(0), A.evaluation, BENCHMARK, Searched(len(POSITIVES), DISTRACTORS))
    assert derived.curve is not None
    made = rows(database.distractors({"A": derived.curve}, k=K))
    assert int(made[-1]["distractors"]) == DISTRACTORS
    assert float(made[-1]["map"]) == pytest.approx(100 * A.evaluation.map)
    assert float(made[0]["least"]) <= float(made[0]["map"]) <= float(made[0]["most"])
    assert derived.first[BENCHMARK.image_queries[0]][0][0] == ranking(0).ids_of(0)[0]
    expanded = Searched(len(POSITIVES), DISTRACTORS, "Of expanded queries a search without some is another list.")
    assert derive("A", ranking(0), A.evaluation, BENCHMARK, expanded).curve is None
    blind = derive("A", ranking(0), A.evaluation, BENCHMARK, Searched(None, None))
    assert blind.curve is None
    assert "does not say how many" in blind.why[0]


def test_the_timeline_is_that_of_the_paper() -> None:
    found = rows(timeline.timeline([replace(A, record=find_record("resnet50.tv_in1k"))]))
    best = timeline.best_so_far([(row.year, row.map_100m_adapted) for row in image_rows()])
    assert best[0] == (2012, 1.3)
    assert best[-1] == (2025, 31.3)
    assert [value for _, value in best] == sorted({value for _, value in best})
    assert found[-1]["curve"] == "ours"
    assert found[-1]["year"] == "2015"
    assert max(float(row["map"]) for row in found if "re-ranked" in row["curve"]) == 35.6


def as_published(one: Measured) -> Measured:
    """As if it had been measured as the paper measures."""
    assert one.record is not None
    evaluation = replace(one.evaluation, protocol=Protocol())
    return replace(one, evaluation=evaluation, resolution=one.record.model.test_resolution)


def test_the_main_table_has_the_published_numbers_beside() -> None:
    siglip = find_record("vit_large_patch16_siglip_384.webli")
    one = as_published(replace(A, name="siglip", record=siglip, model="vit_large_patch16_siglip_384.webli", dims=1024))
    found = {row["run"]: row for row in rows(tables.models([one, replace(one, name="†", adapted=True), B]))}
    assert found["siglip"]["paper"] == "19.6"
    assert found["†"]["paper"] == "28.9"
    assert found["B"]["paper"] == ""
    assert float(found["siglip"]["difference"]) == pytest.approx(100 * A.evaluation.map - 19.6)
    assert tables.published_map(replace(one, queries="text")) == 18.1
    assert tables.published_map(replace(one, reranked="ames", adapted=True)) == 35.6
    assert tables.published_map(replace(one, reranked="chamfer")) == 22.9
    for protocol in (
        Protocol(expand=Expand(n=1, alpha=1.0)),  # Table 4 has it
        Protocol(k=10),
        Protocol(positive_boxes="crop"),
        Protocol(scales=(0.707, 1.0)),
    ):
        assert tables.published_map(replace(one, evaluation=replace(one.evaluation, protocol=protocol))) is None
    assert tables.published_map(replace(one, resolution=384)) is None
    assert tables.published_map(replace(one, random_weights=True)) is None


def test_ways_to_rerank_beside_those_of_table_4() -> None:
    siglip = find_record("vit_large_patch16_siglip_384.webli")
    plain = as_published(replace(A, name="g", record=siglip, model="s"))
    expanded = replace(plain.evaluation, protocol=Protocol(expand=Expand(n=2, alpha=1.0)))
    runs = [
        replace(plain, name="x", reranked="spatial"),
        plain,
        replace(plain, name="e", evaluation=expanded),
    ]
    found = rows(tables.reranking(runs))
    assert [row["reranking"] for row in found] == ["global", "αQE2", "SP"]
    published = {row.method: row.map for row in reranked_by_method() if not row.adapted}
    assert [float(row["s paper"]) for row in found] == [published["global"], published["αQE2"], published["SP"]]
    assert tables.reranking([plain]) is None
    made = tables.reranking(runs)
    assert made is not None
    assert made.table.notes  # the paper's database is another one
    made = tables.reranking([replace(one, record=None) for one in runs])
    assert made is not None
    assert not made.table.notes  # nothing of the paper is shown


def test_resolutions_and_dimensions() -> None:
    runs = [replace(one, model="m", resolution=side) for one, side in zip((A, B), (224, 384), strict=True)]
    found = rows(tables.resolution(runs))
    assert float(found[0]["map_384"]) == pytest.approx(100 * B.evaluation.map)
    assert tables.resolution(runs[:1]) is None
    runs = [replace(one, model="m", adapted=True, dims=dims) for one, dims in zip((A, B), (64, 256), strict=True)]
    found = rows(settings.dimensions(runs))
    assert float(found[0]["map_64"]) == pytest.approx(100 * A.evaluation.map)
    assert settings.dimensions([replace(one, adapted=False) for one in runs]) is None


def under(one: Measured, **fields: object) -> Measured:
    return replace(one, evaluation=replace(one.evaluation, protocol=Protocol(k=K, **fields)))  # type: ignore[arg-type] # any field


def test_lines_have_runs_that_differ_in_one_thing_only() -> None:
    """Runs of several studies in one report: another view, another way to learn, another resolution."""
    crop = under(replace(C, model="m", resolution=224), resolution=224, positive_boxes="crop")
    sides = [
        under(replace(one, model="m", resolution=r), resolution=r) for one, r in zip((A, B), (224, 384), strict=True)
    ]
    (found,) = rows(tables.resolution([crop, *sides]))
    assert float(found["map_224"]) == pytest.approx(100 * A.evaluation.map)

    learned = [replace(one, model="m", adapted=True, learned="ujcds") for one in (A, B)]
    sizes = [replace(one, dims=dims) for one, dims in zip(learned, (64, 256), strict=True)]
    other = replace(C, model="m", adapted=True, learned="pcaw", dims=64)
    (found,) = rows(settings.dimensions([other, *sizes]))
    assert float(found["map_64"]) == pytest.approx(100 * A.evaluation.map)
    two = rows(settings.dimensions([other, replace(other, name="c2", dims=256), *sizes]))
    assert [row["model"] for row in two] == ["m (C)", "m (A)"]

    plain = [replace(one, model="m", descriptors=d) for one, d in ((C, "small"), (A, "large"))]
    better = replace(B, model="m", descriptors="large", reranked="spatial")
    found = rows(tables.reranking([*plain, better]))
    assert [float(row["m map"]) for row in found] == pytest.approx([100 * A.evaluation.map, 100 * B.evaluation.map])


def test_what_does_not_fit_is_laid_out_otherwise() -> None:
    with figure_style():
        figures = []
        for length in (5, 40):
            figure, axes = new_figure(5.6, 3)
            for number in range(6):
                axes.plot([0, 1], [0, number], label=f"{number}".ljust(length, "x"))
            legend_below(figure)
            figures.append(figure)
    columns = [figure.legends[0]._ncols for figure in figures]  # type: ignore[attr-defined] # not published
    assert columns == [3, 1]
    assert figures[1].get_figheight() > figures[0].get_figheight() > 3


def test_one_benchmark_against_another() -> None:
    made = settings.benchmarks("here", {("m", K): A, ("n", K): B}, "there", {("n", K): C}, adapted=True)
    found = rows(made)
    assert made is not None
    assert (made.paper, len(found)) == ("Fig. D", 1)
    assert (float(found[0]["map"]), float(found[0]["other"])) == pytest.approx(
        (100 * B.evaluation.map, 100 * C.evaluation.map)
    )
    assert settings.benchmarks("here", {("m", K): A}, "there", {("n", K): C}, adapted=False) is None


def test_the_taxonomy_is_counted() -> None:
    found = rows(taxonomy.taxonomy_tree(BENCHMARK.taxonomy))
    assert sum(int(row["objects"]) for row in found) == OBJECTS
    assert [row["coarse"] for row in found][:3] == ["art"] * 3
    assert [row["mid"] for row in found if row["coarse"] == "art"][-1] == "other"  # what is not assigned comes last
    assert taxonomy.taxonomy_tree(Taxonomy()) is None


def test_cameras_and_data_sets() -> None:
    found = rows(tables.cameras("b", {"iPhone 14": 3, "X": 5}, 9))
    assert [(row["camera"], row["images"], row["paper"]) for row in found] == [
        ("X", "5", ""),
        ("iPhone 14", "3", "237"),
    ]
    assert tables.cameras("b", {}, 9) is None
    found = rows(tables.datasets([tables.Dataset("ours", 9, 13, 27, 227, True)]))
    assert len(found) == len(printed("1").rows) + 1
    assert found[-1]["dataset"] == "ours"


def test_the_best_model_for_each_query() -> None:
    aligned = align({one.name: one.evaluation for one in (A, B, C)})
    found = oracle_of_models(aligned)
    assert found[0][1] == pytest.approx(max(one.evaluation.map for one in (A, B, C)))
    assert found[-1][1] == pytest.approx(np.max(aligned.ap, axis=1).mean())
    assert [value for _, value in found] == sorted(value for _, value in found)
    assert len(rows(best_of_models(aligned))) == 3


def look(item: str) -> np.ndarray | None:
    return None if item.endswith("_01.jpg") else np.zeros((20, 30, 3), np.uint8)


def test_sheets_of_pictures() -> None:
    derived = derive("A", ranking(0), A.evaluation, BENCHMARK, Searched(None, None))
    chosen = [query for query in A.evaluation.queries if query.hits][:3]
    found = rows(sheets.retrieved("A", A.evaluation, chosen, derived.first, look))
    kinds = [row["kind"] for row in found if row["query"] == chosen[0].query_id]
    assert kinds[0] == "query"
    assert kinds.count("positive") == min(sheets.SHOWN, len(chosen[0].positives))
    negatives = [row for row in found if row["kind"] == "negative" and row["query"] == chosen[0].query_id]
    first = [item for item, _ in derived.first[chosen[0].query_id]]
    assert all(first[int(row["rank"]) - 1] == row["image"] not in chosen[0].positives for row in negatives)
    assert sheets.retrieved("A", A.evaluation, [], derived.first, look) is None
    texts = sheets.retrieved("A", A.evaluation, chosen, derived.first, look, {chosen[0].query_id: "a cup " * 40})
    assert texts is not None
    assert "query" not in {row["kind"] for row in rows(texts)}
    moves = [sheets.Moved(chosen[0].query_id, POSITIVES[0], 154, 0, 0.1, 0.9)]
    assert rows(sheets.reranked("A", moves, look))[0]["above_before"] == "154"
    assert sheets.reranked("A", [], look) is None
    shown = sheets.objects({NAMES[0]: BENCHMARK.image_queries[:1]}, BENCHMARK.relevance, look)
    assert len(rows(shown)) == 3
    assert sheets.objects({}, {}, look) is None


def test_labels_are_moved_apart() -> None:
    moved = apart([5.0, 1.0, 1.2, 1.1], 1.0)
    order = np.argsort(moved)
    assert order.tolist() == [1, 3, 2, 0]
    assert np.diff(np.sort(moved)).min() > 0.95
    assert moved[0] == pytest.approx(5, abs=0.6)


def analysis() -> Analysis:
    runs = (A, B, C)
    aligned = align({one.name: one.evaluation for one in runs})
    derived: dict[str, Derived] = {
        one.name: derive(one.name, ranking(n), one.evaluation, BENCHMARK, Searched(len(POSITIVES), DISTRACTORS))
        for n, one in enumerate(runs)
    }
    found = compare(aligned, [(0, 1), (0, 2), (1, 2)], resamples=200)
    return Analysis(BENCHMARK, runs, derived, {}, aligned, None, found)


def test_every_exhibit_becomes_files_that_are_the_same_every_time(tmp_path: Path) -> None:
    found = exhibits(analysis())
    names = [one.name for one in found]
    assert len(set(names)) == len(names)
    assert {
        "table-2-models",
        "differences",
        "queries",
        "best-of-models",
        "figure-1-timeline",
        "figure-5-categories",
    } <= set(names)
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        for one in exhibits(analysis()):
            files = write_exhibit(one, tmp_path / folder)
            assert all((tmp_path / folder / name).stat().st_size > 50 for name in files)
            assert len(files) == (5 if one.figure is not None else 3)
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes(), path.name


def test_one_run_alone() -> None:
    aligned = align({"A": A.evaluation})
    found = exhibits(Analysis(BENCHMARK, (A,), {}, {}, aligned, None, compare(aligned, [], resamples=200)))
    names = {one.name for one in found}
    assert "differences" not in names
    assert {"table-2-models", "figure-1-timeline", "figure-k-taxonomy"} <= names
    assert all(isinstance(one.table.title, str) for one in found)


def test_many_models_fit_into_a_figure_and_all_are_in_its_table() -> None:
    runs = [replace(A, name=f"a model with a rather long name, number {n}") for n in range(30)]
    made = groups.groups(runs, "coverage")
    assert made is not None
    assert made.figure is not None
    assert len(made.figure.legends[0].get_texts()) == 8
    assert len(made.table.columns) == 33
    assert any("8 best" in note for note in made.table.notes)
    made = categories.categories(runs)
    assert made is not None
    assert len(made.table.columns) == 33
    assert timeline.timeline(runs).figure is not None


def test_exhibits_of_one_name_are_told_apart() -> None:
    others = {name: (replace(C, benchmark=name, model="A"),) for name in ("a b", "a-b")}
    mine = replace(A, model="A")
    aligned = align({"A": mine.evaluation})
    made = Analysis(BENCHMARK, (mine,), {}, {}, aligned, None, compare(aligned, [], resamples=100), others=others)
    assert {"figure-4-against-a-b", "figure-4-against-a-b-2"} <= {one.name for one in exhibits(made)}


@pytest.mark.parametrize("sizes", [(5_300.0, 25_700.0), (400.0, 1_600.0, 9_600.0)])
def test_a_sweep_is_labelled_by_its_sizes(sizes: tuple[float, ...]) -> None:
    """Less than two powers of ten apart, where a logarithmic axis writes formulas of its own."""
    points = tuple(
        Point(shortlist, 25 * n, 0.3 + 0.1 * n, 0.1, size, 16.0)
        for n, size in enumerate(sizes, 1)
        for shortlist in (20, 65)
    )
    made = exhibit_of_sweep("run", Sweep("spatial", points, 0.29, 0.9))
    assert made.figure is not None
    made.figure.canvas.draw()
    axes = made.figure.axes[0]
    labels = [label.get_text() for minor in (False, True) for label in axes.get_xticklabels(minor=minor)]
    assert labels == [f"{size / 1000:.3g}" for size in sizes]
    assert [float(row["map"]) for row in rows(made)] == pytest.approx([100 * point.map for point in points])
