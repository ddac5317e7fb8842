"""Re-ranking in experiments: what is described and shared, the tables of the paper, wrong input."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from openilias import published
from openilias.core.errors import OpenIliasError
from openilias.descriptors.local_store import open_local_store
from openilias.evaluate.evaluation import QueryResult
from openilias.evaluate.results import read_evaluation
from openilias.experiments.experiment import read_experiment
from openilias.experiments.report import report_run
from openilias.experiments.run import RunResult, run_experiment
from openilias.experiments.study import study_of
from openilias.images.decode import decode
from openilias.report.reranking import moved_positive, negatives_above
from openilias.rerank.ames import Ames
from openilias.rerank.ames_files import write_ames
from openilias.rerank.rerank import read_reranked
from openilias.search.ranking import read_ranking

Ilias = Callable[..., Any]
TEXT = """
benchmark: {root}
model: resnet10t
random_weights: 0
protocol: {{resolution: 64, k: 18}}
out: runs
table: "4"
rerank: {{method: none, model: sift, resolution: 128, most: 60, query_descriptors: 60, descriptors: 30, bits: 64,
  shortlist: 6, top: 8, network: ames.pt, global_weight: 0.5, gamma: 0.1}}
variants:
  global: {{}}
  αQE1: {{protocol.expand: {{n: 1, alpha: 1.0}}}}
  CS: {{rerank.method: chamfer}}
  numbers: {{rerank.method: chamfer, rerank.bits: null}}
  SP: {{rerank.method: spatial, rerank.shortlist: 8}}
  AMES: {{rerank.method: ames}}
"""


def run_text(folder: Path, text: str) -> list[RunResult]:
    path = folder / "experiment.yaml"
    path.write_text(text, encoding="utf-8")
    return [run_experiment(experiment) for experiment in read_experiment(path)]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, tiny_root: Path) -> dict[str, RunResult]:
    folder = tmp_path_factory.mktemp("reranked")
    torch.manual_seed(0)
    write_ames(Ames(128, binary=True, layers=1, wide=16, dims=64).eval(), folder / "ames.pt", made_from={})
    return {result.folder.name: result for result in run_text(folder, TEXT.format(root=tiny_root))}


def test_each_variant_is_a_run(runs: dict[str, RunResult]) -> None:
    assert list(runs) == ["global", "αQE1", "CS", "numbers", "SP", "AMES"]
    rankings = {name: read_ranking(result.folder / "ranking")[0] for name, result in runs.items()}
    first = rankings["global"]
    for name, shortlist in (("CS", 6), ("numbers", 6), ("SP", 8), ("AMES", 6)):
        folder = runs[name].folder
        assert (read_ranking(folder / "first" / "ranking")[0].rows == first.rows).all()
        assert (np.sort(rankings[name].rows[:, :shortlist]) == np.sort(first.rows[:, :shortlist])).all()
        assert (rankings[name].rows[:, shortlist:] == first.rows[:, shortlist:]).all()
        assert read_reranked(folder / "ranking").similarities.shape[1] == shortlist
        steps = json.loads((folder / "run.json").read_text())["made_from"]["steps"]
        assert {"first", "ranking", "evaluation"} <= set(steps)
        assert (folder / "first" / "evaluation" / "evaluation.json").is_file()
    assert any((rankings["CS"].rows != rankings[name].rows).any() for name in ("numbers", "SP", "AMES"))
    assert not (runs["global"].folder / "first").exists()


def test_local_descriptors_are_shared_and_of_the_shortlists_only(runs: dict[str, RunResult]) -> None:
    root = runs["global"].folder.parent / "stores"
    (folder,) = (root / "local").iterdir()
    assert folder.name.startswith("sift-")
    assert sorted(path.name for path in folder.glob("packed-*/*")) == sorted(
        2 * ["distractors", "image_queries", "positives"]
    )  # by ITQ, and by the bits of the network
    ranking, _ = read_ranking(runs["global"].folder / "ranking")
    listed = {item for query in range(len(ranking.query_ids)) for item in ranking.cut(8).ids_of(query)}
    stores = [open_local_store(folder / name) for name in ("positives", "distractors")]
    assert sum(store.images for store in stores) == len(listed)
    assert ((stores[0].find(sorted(listed))[:, 0] >= 0) ^ (stores[1].find(sorted(listed))[:, 0] >= 0)).all()
    assert open_local_store(folder / "image_queries").images == len(ranking.query_ids)


def test_the_table_is_that_of_the_paper(runs: dict[str, RunResult], tmp_path: Path, tiny_root: Path) -> None:
    path = runs["global"].folder.parent.parent / "experiment.yaml"
    evaluations = [result.evaluation for result in runs.values()]
    study = study_of(read_experiment(path), [one.map for one in evaluations], [one.oracle for one in evaluations])
    assert study is not None
    assert study.header == ["re-ranking", "resnet10t", "oracle"]  # nothing is published of this model
    assert [row[0] for row in study.rows] == list(runs)
    assert [row[2] for row in study.rows] == [f"{100 * one.oracle:.1f}" for one in evaluations]


def ready(name: str, tmp_path: Path) -> list[Any]:
    places = {"benchmark": str(tmp_path), "out": str(tmp_path / "runs"), "adapt.train": "uned.txt"}
    return read_experiment(Path(f"ready:{name}"), places | {"rerank.network": str(tmp_path / "ames.pt")})


def test_the_ready_tables_show_the_published_numbers(tmp_path: Path) -> None:
    table = ready("reranking", tmp_path)
    assert len(table) == 14
    study = study_of(table, [0.5] * 14, [0.6] * 14)
    assert study is not None
    assert study.header == ["re-ranking", *(
        word for name in ("vit_large_patch16_siglip_384.webli", "vit_large_patch16_siglip_384.webli †")
        for word in (name, "oracle", "paper")
    )]  # fmt: skip
    assert study.rows[-1] == ["AMES", "50.0", "60.0", "26.4, 48.7", "50.0", "60.0", "35.6, 56.0"]
    assert study.rows[1][3::3] == ["22.1, 44.7", "33.7, 56.9"]
    assert {run.stores for run in table} == {tmp_path / "runs" / "stores"}
    models = ready("reranking-models", tmp_path)
    study = study_of(models, [0.5] * 6, [0.6] * 6)
    assert study is not None
    assert study.rows[1][3::4] == ["21.8, 34.0", "27.1, 48.0", "35.6, 56.0"]
    assert study.rows[0][4::4] == ["18.8, 41.8", "22.9, 56.3", "34.3, 63.9"]
    assert len({run.stores for run in models}) == 3


def test_published_numbers_are_those_of_the_files() -> None:
    with (Path(published.__file__).parent / "tables" / "table_4.csv").open(encoding="utf-8") as file:
        rows = list(csv.reader(file))
    cells = {(row[0], mark): (float(row[n]), float(row[n + 1])) for row in rows[1:] for n, mark in ((1, 0), (3, 1))}
    assert {(one.method, int(one.adapted)): (one.map, one.oracle) for one in published.reranked_by_method()} == cells
    # The oracle of re-ranking a list is that of the list: it does not depend on the method.
    for one in (*published.reranked_by_method(), *published.reranked_by_model()):
        if one.method in ("CS", "SP", "AMES") and one.model.startswith("vit_large_patch16_siglip"):
            assert one.oracle == (56.0 if one.adapted else 48.7)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("rerank: {method: chamfer}", "give mix, a file of ilias tune, or both global_weight and gamma"),
        ("rerank: {method: chamfer, gamma: 1}", "give mix"),
        ("rerank: {method: chamfer, gamma: 1, global_weight: 1, mix: m.json}", "give mix"),
        ("rerank: {method: ames, gamma: 1, global_weight: 1}", "ames compares by a network"),
        ("rerank: {method: spatial, gamma: 1, global_weight: 1, top: 10}", "must not be smaller than shortlist"),
        ("rerank: {method: chamfer, gamma: 1, global_weight: 1, most: 50}", "more descriptors are compared than most"),
        ("rerank: {method: chamfer, gamma: 1, global_weight: 1, bits: 100}", "bits: Input should be a multiple of 64"),
        ("rerank: {method: chamfer, gamma: 1, global_weight: 1}\nqueries: both", "texts have no local descriptors"),
        ("rerank: {method: chamfer, gamma: 1, global_weight: 1}\ncompress: [{index: Flat}]", "a compressed search"),
        ("rerank: {method: none, spatial: {hamming: 200}}", r"spatial\.hamming: Input should be less"),
        ("variant: x", "given its variant by the table"),
        ("variants: {a: {model.b: 1}}", "model has no fields"),
        ("variants: {a: {modell: x}}", "modell: Extra inputs"),
        ("variants: {a: {}, b/c: {}, b_c: {}}", "the same values"),
    ],
)
def test_wrong_experiments_are_refused(tmp_path: Path, change: str, message: str) -> None:
    path = tmp_path / "experiment.yaml"
    path.write_text(f"benchmark: b\nmodel: x\nout: o\n{change}\n")
    with pytest.raises(OpenIliasError, match=message):
        read_experiment(path)


def test_paths_are_those_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "experiment.yaml"
    path.write_text("benchmark: b\nmodel: x\nout: o\nrerank: {method: ames, network: n.pt, mix: m.json, itq: i}\n")
    (experiment,) = read_experiment(path)
    assert experiment.rerank is not None
    given = (experiment.rerank.network, experiment.rerank.mix, experiment.rerank.itq)
    assert given == (tmp_path / "n.pt", tmp_path / "m.json", tmp_path / "i")
    (experiment,) = read_experiment(path, {"rerank.mix": "here.json"})
    assert experiment.rerank is not None
    assert experiment.rerank.mix == Path("here.json").resolve()


# --- Fig. H ---


def test_a_sweep_is_many_rerankings_at_once(
    runs: dict[str, RunResult], tiny_root: Path, tmp_path: Path, ilias: Ilias
) -> None:
    first = runs["global"].folder / "ranking"
    (local,) = (runs["global"].folder.parent / "stores" / "local").iterdir()
    stores = (
        "--queries",
        local / "image_queries",
        "--database",
        local / "positives",
        "--database",
        local / "distractors",
    )
    common = ("--method", "chamfer", *stores, "--global-weight", 0.3, "--gamma", 0.2, "--query-descriptors", 40)
    done = ilias(
        "sweep", first, "--benchmark", tiny_root, *common, "--shortlists", "8,3,3", "--descriptors", "10,20",
        "--out", tmp_path / "sweep", "--json", tmp_path / "sweep.json", "--images", 1000,
    )  # fmt: skip
    assert done.code == 0, done.err
    found = json.loads((tmp_path / "sweep.json").read_text())
    assert [(p["descriptors"], p["shortlist"]) for p in found["points"]] == [(10, 3), (10, 8), (20, 3), (20, 8)]
    assert found["first"] == runs["global"].evaluation.map
    assert found["oracle"] == runs["global"].evaluation.oracle
    for point in found["points"]:
        out = tmp_path / f"{point['descriptors']}-{point['shortlist']}"
        done = ilias(
            "rerank", first, *common, "--shortlist", point["shortlist"], "--descriptors", point["descriptors"],
            "--out", out,
        )  # fmt: skip
        assert done.code == 0, done.err
        done = ilias("evaluate", out, "--benchmark", tiny_root, "--out", tmp_path / "e", "--json", out / "e.json",
                     "--overwrite")  # fmt: skip
        assert done.code == 0, done.err
        assert json.loads((out / "e.json").read_text())["map"] == pytest.approx(point["map"], abs=1e-12)
        assert point["image_bytes"] <= 256 * point["descriptors"]
        assert point["geometry_bytes"] == point["image_bytes"] / 16
    with (tmp_path / "sweep" / "sweep.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 4
    assert "<svg" in (tmp_path / "sweep" / "sweep.svg").read_text()
    again = ilias(
        "sweep", first, "--benchmark", tiny_root, *common, "--shortlists", "8,3,3", "--descriptors", "10,20",
        "--out", tmp_path / "sweep", "--json", tmp_path / "again.json", "--images", 1000,
    )  # fmt: skip
    assert again.code == 0, again.err
    assert json.loads((tmp_path / "again.json").read_text()) == found  # times too: nothing is done again
    wrong = ilias("sweep", first, "--benchmark", tiny_root, *common, "--shortlists", "0", "--out", tmp_path / "w")
    assert wrong.code == 2
    wrong = ilias("sweep", first, "--benchmark", tmp_path, *common, "--out", tmp_path / "w")
    assert wrong.code == 2
    assert "Traceback" not in wrong.err


# --- before and after (Fig. J) ---


def test_negatives_above_a_positive_are_counted_one_by_one() -> None:
    listed = ["n1", "p2", "n2", "n3", "p1", "p3", "n4"]
    ranks = tuple(listed.index(item) + 1 if item in listed else None for item in ("p1", "p2", "p3", "p4"))
    result = QueryResult("q", "o", 0.5, 0.75, ("p1", "p2", "p3", "p4"), ranks)
    counted = {
        item: sum(one.startswith("n") for one in listed[: listed.index(item)]) if item in listed else None
        for item in result.positives
    }
    assert negatives_above(result) == counted == {"p1": 3, "p2": 1, "p3": 3, "p4": None}
    later = replace(result, ranks=(1, 2, None, None))
    assert moved_positive(result, later, gained=True) == "p1"
    assert moved_positive(later, result, gained=False) == "p1"
    assert moved_positive(result, later, gained=False) is None
    assert moved_positive(result, result, gained=True) is None


def test_the_report_shows_what_moved(runs: dict[str, RunResult]) -> None:
    for name in ("SP", "CS"):
        folder = runs[name].folder
        page = (folder / "report" / "index.html").read_text()
        before, after = (read_evaluation(folder / part / "evaluation")[0] for part in ("first", "."))
        assert 'id="reranking"' in page
        assert f"{100 * before.map:.1f}" in page
        gained = sum(b.ap < a.ap for b, a in zip(before.queries, after.queries, strict=True))
        lost = sum(b.ap > a.ap for b, a in zip(before.queries, after.queries, strict=True))
        stayed = len(after.queries) - gained - lost
        assert re.search(rf"{gained} quer(y|ies) gain, {lost} lose, {stayed} stay", page)
        pictures = re.findall(r'src="(images/match-[^"]+)"', page)
        assert len(pictures) == len(list((folder / "report" / "images").glob("match-*")))
        assert all(decode((folder / "report" / one).read_bytes(), where=one).size[0] > 100 for one in pictures)
    assert 'id="reranking"' not in (runs["global"].folder / "report" / "index.html").read_text()
    assert any((runs[n].folder / "report" / "images").glob("match-*") for n in ("CS", "SP", "numbers", "AMES"))


def test_queries_that_moved_are_shown_also_where_the_gallery_has_them_not(
    runs: dict[str, RunResult], tmp_path: Path
) -> None:
    """As in every report of more queries than the gallery shows."""
    moved = {}
    for name in ("CS", "SP", "numbers", "AMES"):
        page = report_run(runs[name].folder, tmp_path / name, gallery_queries=0).read_text()
        moved[name] = page[page.index('id="reranking"') :].count("<figure>")
        assert 'href="#query-' not in page[page.index('id="reranking"') :].partition("</section>")[0]
    assert any(moved.values())


def test_without_local_descriptors_nothing_is_drawn(
    runs: dict[str, RunResult], tmp_path: Path, tiny_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    for part in ("ranking", "evaluation"):
        shutil.copytree(runs["SP"].folder / part, run / part)
    manifest = json.loads((run / "ranking" / "ranking.json").read_text())
    for change, said in (("local", "no matches are drawn"), ("first", "it is not compared with")):
        manifest |= {"local": {}} if change == "local" else {"first": str(tmp_path / "gone")}
        (run / "ranking" / "ranking.json").write_text(json.dumps(manifest))
        page = report_run(run, tmp_path / "report", benchmark=tiny_root)
        assert said in capsys.readouterr().err
        assert ('id="reranking"' in page.read_text()) == (change == "local")
