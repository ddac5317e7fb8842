"""The report site: its data are those of the runs, its folder is replaced whole and holds nothing else."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conftest import Outcome
from openilias.build.generated.synth import SynthSettings, build_synth
from openilias.core.errors import OpenIliasError
from openilias.data import read_ilias
from openilias.evaluate.results import evaluate_to, read_evaluation
from openilias.experiments.report import report_site
from openilias.report.site import Choice
from openilias.report.site_data import script
from openilias.search.ranking import read_ranking
from site_world import make_site


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, tiny_root: Path) -> Path:
    return make_site(tmp_path_factory.mktemp("site"), tiny_root).parent


def value_of(path: Path) -> Any:
    """What a script gives its name."""
    text = path.read_text(encoding="utf-8")
    assert text.endswith(";\n")
    return json.loads(text.partition("=")[2][:-2])


def run_of(site: Path, name: str) -> Path:
    return next(path for path in (site.parent / "runs").iterdir() if path.name.endswith(name))


def test_the_leaderboard_has_the_numbers_of_the_evaluations(site: Path) -> None:
    data = value_of(site / "data" / "report.js")
    assert [run["name"] for run in data["runs"]] == ["plain", "αQE1", "SP <b>"]
    for run, name in zip(data["runs"], ("global", "αQE1", "SP"), strict=True):
        evaluation, _ = read_evaluation(run_of(site, name) / "evaluation")
        assert run["map"] == pytest.approx(1000 * evaluation.map)
        assert run["oracle"] == pytest.approx(1000 * evaluation.oracle)
        assert run["low"] <= run["map"] <= run["high"]
        assert dict(run["protocol"])["k"] == "18"
    assert data["runs"][2]["rerank"] == "spatial"
    assert "random" in data["runs"][0]["notes"][0]
    assert {(pair["a"], pair["b"]) for pair in data["pairs"]} == {(0, 1), (0, 2), (1, 2)}


def test_every_query_and_object_is_there(site: Path, tiny_root: Path) -> None:
    data, benchmark = value_of(site / "data" / "report.js"), read_ilias(tiny_root)
    assert [query["id"] for query in data["queries"]] == sorted(benchmark.image_queries)
    assert {one["name"]: tuple(one["positives"]) for one in data["objects"]} == benchmark.relevance
    for number, name in enumerate(("global", "αQE1", "SP")):
        evaluation, _ = read_evaluation(run_of(site, name) / "evaluation")
        assert data["ap"][number] == pytest.approx([1000 * query.ap for query in evaluation.queries], abs=1e-3)
        lists = value_of(site / "data" / f"run-{number}.js")
        ranking, _ = read_ranking(run_of(site, name) / "ranking")
        for place, query in enumerate(evaluation.queries):
            assert lists["ranks"][str(place)] == [rank or 0 for rank in query.ranks]
            first = ranking.ids_of(ranking.query_ids.index(query.query_id))[:10]
            assert [item for item, _ in lists["first"][str(place)]] == first


def test_every_picture_and_file_that_is_named_is_there(site: Path) -> None:
    data = value_of(site / "data" / "report.js")
    assert {name for name, *_ in data["images"].values()} <= {path.name for path in (site / "images").iterdir()}
    for one in data["exhibits"]:
        for ending in ("csv", "md", "tex", *(("svg", "png") if one["drawn"] else ())):
            assert (site / "figures" / f"{one['name']}.{ending}").is_file()
    names = {one["name"] for one in data["exhibits"]}
    assert {"table-2-models", "table-4-reranking", "study-4", "figure-l-images", "figure-n-objects"} <= names
    assert {"figure-j-reranking", "table-a-cameras", "figure-3a-positives", "table-1-datasets"} <= names
    slugs = [run["slug"] for run in data["runs"]]
    assert len({slug.lower() for slug in slugs}) == 3
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+", slug) for slug in slugs)
    for slug in slugs:
        page = (site / "runs" / slug / "index.html").read_text(encoding="utf-8")
        pictures = re.findall(r'src="\.\./\.\./images/([^"]+)"', page)
        assert pictures
        assert all((site / "images" / name).is_file() for name in pictures)
        assert 'src="images/' not in page


def test_the_page_needs_nothing_from_elsewhere_and_escapes_names(site: Path) -> None:
    page = (site / "index.html").read_text(encoding="utf-8")
    assert not re.findall(r"https?://(?!www\.w3\.org/)", page)
    assert "fetch(" not in page
    assert "innerHTML" not in page
    assert "SP <b>" not in page  # but in the data, which no browser takes for tags
    assert "SP &lt;b&gt;" in page


def test_scripts_cannot_be_left() -> None:
    text = script("x", "</script><!-- \u2028 \u2029").decode()
    assert "</" not in text
    assert "\u2028" not in text
    assert json.loads(text[2:-2]) == "</script><!-- \u2028 \u2029"


def test_equal_runs_make_equal_sites_and_choices_are_kept(site: Path, tmp_path: Path) -> None:
    runs = [f"{name}={run_of(site, end)}" for name, end in (("plain", "global"), ("αQE1", "αQE1"), ("SP <b>", "SP"))]
    report_site(runs, tmp_path / "again")
    for path in sorted(site.rglob("*")):
        if path.is_file():
            assert (tmp_path / "again" / path.relative_to(site)).read_bytes() == path.read_bytes(), path.name
    report_site(runs[:1], tmp_path / "again", choice=Choice(gallery=1, positives=False, figures=False))
    data = value_of(tmp_path / "again" / "data" / "report.js")
    assert data["exhibits"] == []
    assert not (tmp_path / "again" / "figures").exists()
    assert len(data["images"]) < len(value_of(site / "data" / "report.js")["images"])
    assert not (tmp_path / "again" / "data" / "run-1.js").exists()


def test_the_command(ilias: Callable[..., Outcome], site: Path, tmp_path: Path) -> None:
    runs = (run_of(site, "global"), f"other={run_of(site, 'SP')}")
    out = ilias("report", *runs, "--out", tmp_path / "r", "--no-figures", "--json", tmp_path / "j")
    assert out.code == 0, out.err
    assert out.out.strip() == str(tmp_path / "r" / "index.html")
    assert json.loads((tmp_path / "j").read_text())["page"] == str(tmp_path / "r" / "index.html")
    assert ilias("report", run_of(site, "global"), run_of(site, "global"), "--out", tmp_path / "x").code == 2
    assert not (tmp_path / "x").exists()
    evaluation = run_of(site, "global") / "evaluation"
    out = ilias("report", evaluation, "--out", tmp_path / "alone", "--no-figures")
    assert out.code == 0, out.err


def test_runs_that_are_not_alike_are_not_ranked_together(site: Path, tiny_root: Path, tmp_path: Path) -> None:
    other = evaluate_to(run_of(site, "global") / "ranking", read_ilias(tiny_root), tmp_path / "ten" / "evaluation", k=2)
    report_site([str(run_of(site, "SP")), str(tmp_path / "ten")], tmp_path / "out", choice=Choice(figures=False))
    data = value_of(tmp_path / "out" / "data" / "report.js")
    assert "AP@2" in data["runs"][1]["flags"]
    assert any("AP@2" in note for note in data["notes"])
    assert data["pairs"] == []
    assert data["runs"][1]["low"] <= 1000 * other.map <= data["runs"][1]["high"]


def test_curves_are_of_plain_searches_only(site: Path) -> None:
    """Without some images another neighbour expands the query, and others are re-ranked."""
    data = value_of(site / "data" / "report.js")
    assert any(why.startswith("αQE1: no curve") and "expanded" in why for why in data["missing"])
    assert any("re-ranked shortlist" in why for why in data["missing"])
    assert "figure-c-distractors" in {one["name"] for one in data["exhibits"]}


def test_another_benchmark_than_that_of_the_runs_is_refused(site: Path, tmp_path: Path) -> None:

    build_synth(tmp_path / "b", SynthSettings(objects=3, distractors=2, size=96, positives=(1, 1)), workers=1)
    with pytest.raises(OpenIliasError, match="not the one that was searched"):
        report_site([str(run_of(site, "global"))], tmp_path / "out", benchmark=tmp_path / "b")


def test_a_killed_report_leaves_nothing_for_ever(site: Path, tmp_path: Path) -> None:
    left = tmp_path / ".out.0123456789abcdef.partial"
    left.mkdir()
    (left / "picture.jpg").write_text("x")
    report_site([str(run_of(site, "global"))], tmp_path / "out", choice=Choice(figures=False))
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_what_is_in_the_way_stays(site: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("precious")
    with pytest.raises(OpenIliasError, match="holds no report"):
        report_site([str(run_of(site, "global"))], tmp_path / "mine")
    assert (tmp_path / "mine" / "notes.txt").read_text() == "precious"


def test_an_evaluation_without_its_ranking(site: Path, tmp_path: Path, tiny_root: Path) -> None:
    """As of official files: there is no page of its own, no curve, and no picture of what it found."""
    shutil.copytree(run_of(site, "global") / "evaluation", tmp_path / "lone" / "evaluation")
    with pytest.raises(OpenIliasError, match="does not say where its benchmark is"):
        report_site([str(tmp_path / "lone")], tmp_path / "out")
    report_site([str(tmp_path / "lone")], tmp_path / "out", benchmark=tiny_root)
    data = value_of(tmp_path / "out" / "data" / "report.js")
    assert data["runs"][0]["page"] is None
    assert any("ranking is not beside" in why for why in data["missing"])
