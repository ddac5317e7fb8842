"""Experiment files, runs, the demo."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from openilias.core.errors import OpenIliasError
from openilias.evaluate.results import evaluate_to, read_evaluation
from openilias.experiments.demo import run_demo
from openilias.experiments.experiment import read_experiment
from openilias.experiments.report import report_run
from openilias.experiments.run import RunResult, run_experiment

TEXT = """
benchmark: {root}
model: sift_vlad
fit: {{partition: distractors, words: 8, resolution: 160, keypoints: 200}}
protocol: {{k: 12}}
out: {out}
"""


def run_text(tmp_path: Path, text: str, *, overwrite: bool = False) -> list[RunResult]:
    path = tmp_path / "experiment.yaml"
    path.write_text(text)
    return [run_experiment(single, overwrite=overwrite) for single in read_experiment(path)]


@pytest.fixture(scope="module")
def finished(tiny_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    run_text(folder, TEXT.format(root=tiny_root, out="run"))
    return folder


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy of a finished run."""
    return Path(shutil.copytree(finished / "run", tmp_path / "run"))


def times_of(folder: Path) -> dict[str, int]:
    return {
        str(path.relative_to(folder)): path.stat().st_mtime_ns
        for path in folder.rglob("*")
        if path.is_file()
        and path.parent.name != "images"
        and path.name not in ("run.json", "report.json", "index.html")
        and not path.name.endswith(".csv")
    }


def test_a_run_has_everything(finished: Path) -> None:
    folder = finished / "run"
    names = {path.name for path in folder.iterdir()}
    wanted = {
        "run.json", "image_queries", "positives", "distractors", "tar_index", "ranking", "evaluation", "report",
    }  # fmt: skip
    assert names == wanted | {"sift_vlad.safetensors"}
    about = json.loads((folder / "run.json").read_text())
    assert about["made_from"]["steps"].keys() == {"image_queries", "positives", "distractors", "ranking", "evaluation"}
    assert about["times"]["fit"] > 0
    evaluation, manifest = read_evaluation(folder / "evaluation")
    assert len(evaluation.queries) == 4
    assert 0 < evaluation.map <= 1
    assert evaluation.depth == 12
    assert manifest["result"]["protocol"]["resolution"] == 160
    assert (folder / "report" / "index.html").exists()


def test_a_second_run_does_nothing_again(finished: Path, tiny_root: Path) -> None:
    before = times_of(finished / "run")
    run_text(finished, TEXT.format(root=tiny_root, out="run"))
    assert times_of(finished / "run") == before


def test_a_run_continues_where_it_was_cut(finished: Path, tiny_root: Path, tmp_path: Path) -> None:
    shutil.copytree(finished / "run", tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "ranking")
    (tmp_path / "run" / "distractors" / "00001.json").unlink()
    (tmp_path / "run" / "run.json").unlink()
    run_text(tmp_path, TEXT.format(root=tiny_root, out="run"))
    for name in ("distractors/00001.npy", "ranking/ranking.parquet", "evaluation/queries.parquet"):
        assert (tmp_path / "run" / name).read_bytes() == (finished / "run" / name).read_bytes()


def test_a_changed_experiment_stops(run: Path, tiny_root: Path) -> None:
    text = TEXT.format(root=tiny_root, out="run")
    with pytest.raises(OpenIliasError, match="something else"):
        run_text(run.parent, text.replace("words: 8", "words: 9"))
    with pytest.raises(OpenIliasError, match=r"protocol\.resize"):
        run_text(run.parent, text.replace("k: 12", "k: 12, resize: pad"))
    result = run_text(run.parent, text.replace("k: 12", "k: 5"), overwrite=True)[0]
    assert result.evaluation.protocol.k == result.evaluation.depth == 5


def test_random_weights_and_a_matrix(tiny_root: Path, tmp_path: Path) -> None:
    text = f"benchmark: {tiny_root}\nmodel: resnet18\nrandom_weights: 0\nout: runs\n"
    text += "protocol: {k: 5}\nmatrix: {protocol.resolution: [64, 80], protocol.resize: [longest, square]}\n"
    results = run_text(tmp_path, text)
    assert [result.folder.name for result in results] == [
        f"protocol.resolution={r},protocol.resize={s}" for r in (64, 80) for s in ("longest", "square")
    ]
    assert all(result.folder.parent == tmp_path / "runs" for result in results)
    assert {r.evaluation.protocol.resolution for r in results} == {64, 80}
    assert len({r.evaluation.map for r in results}) > 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: x\nout: o\n", "benchmark: Field required"),
        ("benchmark: b\nmodel: x\nout: o\ncolour: red\n", "colour: Extra inputs"),
        ("benchmark: b\nmodel: x\nout: o\nprotocol: {kk: 3}\n", r"protocol\.kk: Extra inputs"),
        ("benchmark: b\nmodel: x\nout: o\nprotocol: {k: 0}\n", r"protocol\.k: Input should be greater"),
        ("benchmark: b\nmodel: x\nout: o\nweights: w\nrandom_weights: 1\n", "only one of weights and random_weights"),
        ("benchmark: b\nmodel: x\nout: o\nfit: {}\n", "only the model sift_vlad"),
        ("benchmark: b\nmodel: x\nout: o\nsearch: {k: 5}\n", "must not be smaller"),
        ("benchmark: b\nmodel: x\nout: o\nqueries: sound\n", "queries: Input should be"),
        ("benchmark: b\nmodel: x\nout: o\nmatrix: {model: []}\n", "lists no values of model"),
        ("benchmark: b\nmodel: x\nout: o\nmatrix: {protocol.kk: [1]}\n", r"protocol\.kk"),
        ("benchmark: b\nmodel: x\nmodel: y\nout: o\n", "'model' stands twice"),
        ("benchmark: b\nmodel: x\nout: ''\n", "out must name a folder"),
        ("benchmark: b\nmodel: x\nout: o\nmatrix: {model.a: [1]}\n", "model has no fields"),
        ("benchmark: b\nmodel: x\nout: o\nprotocol: {k: 99999999999}\n", r"protocol\.k: Input should be less"),
        ("- a\n", "key: value"),
        ("a: [", "cannot be read"),
    ],
)
def test_wrong_experiments_are_explained(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "e.yaml").write_text(text)
    with pytest.raises(OpenIliasError, match=message) as caught:
        read_experiment(tmp_path / "e.yaml")
    assert caught.value.where == str(tmp_path / "e.yaml")
    assert [path.name for path in tmp_path.iterdir()] == ["e.yaml"]


def test_the_search_may_be_deeper_than_the_cut(tiny_root: Path, tmp_path: Path) -> None:
    text = f"benchmark: {tiny_root}\nmodel: resnet18\nrandom_weights: 0\nout: o\n"
    text += "protocol: {k: 3, resolution: 64}\nsearch: {k: 9}\n"
    evaluation = run_text(tmp_path, text)[0].evaluation
    assert (evaluation.depth, evaluation.protocol.k) == (9, 3)
    assert all(rank is None or rank <= 3 for query in evaluation.queries for rank in query.ranks)


def test_evaluate_guards(run: Path, tiny_root: Path, tmp_path: Path) -> None:
    from openilias.data import read_ilias

    benchmark = read_ilias(tiny_root)
    with pytest.raises(OpenIliasError, match=r"hold 12 of \d+ images, too few for AP@20"):
        evaluate_to(run / "ranking", benchmark, None, k=20)
    assert evaluate_to(run / "ranking", benchmark, None, k=2).protocol.k == 2
    other = Path(shutil.copytree(tiny_root, tmp_path / "other"))
    box = next(other.glob("ilias_core/*/pos/*_bbox.txt"))
    box.write_text("0 0 5 5\n")
    with pytest.raises(OpenIliasError, match="another benchmark"):
        evaluate_to(run / "ranking", read_ilias(other), None)
    out = tmp_path / "evaluation"
    evaluate_to(run / "ranking", benchmark, out, k=2)
    with pytest.raises(OpenIliasError, match=r"protocol\.k: 2 -> 3"):
        evaluate_to(run / "ranking", benchmark, out, k=3)
    assert evaluate_to(run / "ranking", benchmark, out, k=2).map == read_evaluation(out)[0].map


def test_report_guards(run: Path, tiny_root: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "photo.jpg").write_bytes(b"precious")
    with pytest.raises(OpenIliasError, match="holds no report"):
        report_run(run, tmp_path / "mine")
    page = report_run(run, tmp_path / "page", gallery_queries=1)
    assert len(list(page.parent.rglob("*.jpg"))) < len(list((run / "report").rglob("*.jpg")))
    (run / "run.json").unlink()
    with pytest.raises(OpenIliasError, match="does not say where"):
        report_run(run, tmp_path / "page")
    manifest = json.loads((run / "evaluation" / "evaluation.json").read_text())
    manifest["made_from"]["ranking"] = "another"
    (run / "evaluation" / "evaluation.json").write_text(json.dumps(manifest))
    with pytest.raises(OpenIliasError, match="not of this ranking"):
        report_run(run, tmp_path / "page", benchmark=tiny_root)


def test_the_demo(tmp_path: Path) -> None:
    result = run_demo(tmp_path / "demo", objects=4, distractors=24, workers=1)
    assert len(result.evaluation.queries) == 4
    assert result.page.exists()
    assert result.evaluation.map > 0.1


def test_random_weights_are_said(tiny_root: Path, tmp_path: Path) -> None:
    text = f"benchmark: {tiny_root}\nmodel: resnet18\nrandom_weights: 7\nout: o\nprotocol: {{resolution: 64}}\n"
    page = run_text(tmp_path, text)[0].page.read_text(encoding="utf-8")
    assert "The weights are random (random, seed 7)" in page
    about = json.loads((tmp_path / "o" / "run.json").read_text())
    assert about["weights_from"] == "random, seed 7"


def test_a_part_of_the_database_is_never_taken_for_the_whole(run: Path, tiny_root: Path, tmp_path: Path) -> None:
    from openilias.data import read_ilias
    from openilias.descriptors.store import open_store
    from openilias.search.stores import search_to

    benchmark = read_ilias(tiny_root)
    queries, positives, distractors = (open_store(run / name) for name in ("image_queries", "positives", "distractors"))
    for database, left_out in (([positives], "yfcc100m_0000"), ([distractors], "positives/00000")):
        out = tmp_path / left_out.replace("/", "_")
        search_to([queries], database, 10, out)
        with pytest.raises(OpenIliasError, match=f"not searched: {left_out}"):
            evaluate_to(out, benchmark, None)
        assert evaluate_to(out, benchmark, None, partial_database=True).unsearched
    with pytest.raises(OpenIliasError, match="are not searched"):
        search_to([queries], [positives, queries], 10, tmp_path / "x")
    with pytest.raises(OpenIliasError, match="not queries"):
        search_to([positives], [distractors], 10, tmp_path / "x")


def test_listed_distractors_must_be_there(tiny_root: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(tiny_root, tmp_path / "b"))
    shutil.rmtree(root / "yfcc100m")
    text = "benchmark: b\nmodel: resnet18\nrandom_weights: 0\nout: o\nprotocol: {resolution: 64, k: 5}\n"
    with pytest.raises(OpenIliasError, match="lists distractors that are not here: yfcc100m_0000"):
        run_text(tmp_path, text)
    assert not (tmp_path / "o").exists()
    assert run_text(tmp_path, text + "partial_database: true\n")[0].evaluation.depth == 5


def test_a_site_is_not_a_report(run: Path, tmp_path: Path) -> None:
    (tmp_path / "site" / "src").mkdir(parents=True)
    (tmp_path / "site" / "index.html").write_text("mine")
    (tmp_path / "site" / "src" / "work.txt").write_text("precious")
    with pytest.raises(OpenIliasError, match="holds no report"):
        report_run(run, tmp_path / "site")
    assert (tmp_path / "site" / "src" / "work.txt").exists()
    report_run(run, tmp_path / "page", gallery_queries=1)
    report_run(run, tmp_path / "page")


def test_a_kill_between_two_files_is_continued(run: Path, tiny_root: Path) -> None:
    (run / "ranking" / "ranking.json").unlink()
    (run / "evaluation" / "evaluation.json").unlink()
    before = (run / "evaluation" / "queries.parquet").read_bytes()
    run_text(run.parent, TEXT.format(root=tiny_root, out="run"))
    assert (run / "evaluation" / "queries.parquet").read_bytes() == before


def test_changed_taxonomy_is_noticed(run: Path, tiny_root: Path, tmp_path: Path) -> None:
    from openilias.data import read_ilias

    root = Path(shutil.copytree(tiny_root, tmp_path / "b"))
    (root / "taxonomy.json").write_text("{}")
    with pytest.raises(OpenIliasError, match="annotations"):
        evaluate_to(run / "ranking", read_ilias(root), run / "evaluation")


def test_damaged_results_are_named(run: Path, tmp_path: Path) -> None:
    path = run / "evaluation" / "queries.parquet"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(OpenIliasError, match="not as it was written"):
        report_run(run, tmp_path / "page")


def test_a_matrix_of_models_fits_only_what_is_fitted(tiny_root: Path, tmp_path: Path) -> None:
    text = TEXT.format(root=tiny_root, out="runs").replace("k: 12", "k: 12, resolution: 96")
    path = tmp_path / "e.yaml"
    path.write_text(text + "matrix: {model: [sift_vlad, resnet18]}\n")
    first, second = read_experiment(path)
    assert first.fit is not None
    assert (second.model, second.fit) == ("resnet18", None)


@pytest.mark.parametrize(
    "name",
    ["ranking/ranking.parquet", "ranking/ranking.json", "evaluation/queries.parquet", "evaluation/evaluation.json"],
)
def test_overwrite_mends_damaged_results(run: Path, tiny_root: Path, name: str) -> None:
    before = read_evaluation(run / "evaluation")[0]
    (run / name).write_bytes(b"{")
    text = TEXT.format(root=tiny_root, out="run")
    with pytest.raises(OpenIliasError):
        run_text(run.parent, text)
    assert run_text(run.parent, text, overwrite=True)[0].evaluation == before


def test_a_report_with_other_files_is_never_replaced(run: Path) -> None:
    (run / "report" / "notes.txt").write_text("precious")
    with pytest.raises(OpenIliasError, match="holds no report"):
        report_run(run, run / "report")


def test_the_report_says_how_it_was_evaluated(run: Path, tiny_root: Path, tmp_path: Path) -> None:
    from openilias.data import read_ilias

    shutil.rmtree(run / "evaluation")
    evaluate_to(run / "ranking", read_ilias(tiny_root), run / "evaluation", compat="official")
    assert "compat of the evaluation" in report_run(run, tmp_path / "page").read_text(encoding="utf-8")


def test_merge_keys_and_any_order_of_models(tiny_root: Path, tmp_path: Path) -> None:
    path = tmp_path / "e.yaml"
    path.write_text(
        "benchmark: b\nmodel: resnet18\nout: o\nfit: {words: 8}\nmatrix: {model: [sift_vlad, resnet18]}\n"
        "protocol:\n  <<: {k: 5}\n  resize: pad\n"
    )
    first, second = read_experiment(path)
    assert first.fit is not None
    assert second.fit is None
    assert (first.protocol.k, first.protocol.resize) == (5, "pad")
