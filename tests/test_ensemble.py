"""Ensembles of rankings: against plain Python, images with texts, what is certain, what does not belong together."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from openilias.adapt.linear import LinearMap, adapt
from openilias.core.errors import OpenIliasError
from openilias.core.manifests import write_manifest
from openilias.core.protocol import Expand
from openilias.core.shards import Share
from openilias.data import Benchmark
from openilias.descriptors.store import KIND, DescriptorStore, open_store, write_shard
from openilias.evaluate.results import evaluate_to
from openilias.experiments.experiment import Experiment
from openilias.experiments.report import report_run
from openilias.experiments.run import run_experiment
from openilias.search.choice import EVERYTHING, Choice
from openilias.search.ensemble import ensemble_to, fuse
from openilias.search.members import read_member
from openilias.search.ranking import Ranking, read_ranking
from openilias.search.restriction import Restriction, read_ids
from openilias.search.stores import search_to

Ilias = Callable[..., Any]
IMAGES = [f"thing_{n}/query/Q000_{n:02d}.jpg" for n in range(6)] + ["thing_0/query/Q001_00.jpg"]
TEXTS = [f"thing_{n}/query/T000.txt" for n in range(6)]
POSITIVES = sorted(f"thing_{n % 6}/pos/P000_{n:02d}.jpg" for n in range(13))
TARS = {f"yfcc100m_{n:04d}.tar": [f"yfcc100m_{n:04d}.tar/k_{n}_{i:03d}" for i in range(60 + n)] for n in range(3)}
IDS = POSITIVES + [item for ids in TARS.values() for item in ids]


def unit(rows: int, dims: int, seed: int) -> np.ndarray:
    values = np.round(np.random.default_rng(seed).standard_normal((rows, dims)) * 2)  # coarse: many ties
    values[~values.any(1)] = 1
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float16)


class Made:
    """The stores of one model, and its ranking."""

    def __init__(self, folder: Path, name: str, dims: int, seed: int, *, texts: bool = False) -> None:
        self.folder = folder
        self.asked = unit(len(TEXTS if texts else IMAGES), dims, seed)
        self.rows = unit(len(IDS), dims, seed + 1)
        self.ids = TEXTS if texts else IMAGES
        edges = np.cumsum([0, len(POSITIVES), *map(len, TARS.values())])
        parts = np.split(self.rows, edges[1:-1])
        self.queries = self._store(name, "text_queries" if texts else "image_queries", {"q": self.ids}, [self.asked])
        self.database = [
            self._store(name, "positives", {"p": POSITIVES}, parts[:1]),
            self._store(name, "distractors", TARS, parts[1:]),
        ]

    def _store(
        self, name: str, partition: str, shards: dict[str, list[str]], values: list[np.ndarray]
    ) -> DescriptorStore:
        folder = self.folder / partition
        folder.mkdir(parents=True)
        made_from = {"model": {"name": name}, "benchmark": "b", "partition": partition, "contents": "c"}
        dims = values[0].shape[1]
        write_manifest(folder / "manifest.json", kind=KIND, made_from=made_from, dims=dims, sources=list(shards))
        for number, (source, ids) in enumerate(shards.items()):
            write_shard(folder, number, source=source, ids=ids, descriptors=values[number], skipped=())
        return open_store(folder)

    @property
    def stores(self) -> list[DescriptorStore]:
        return [self.queries, *self.database]

    def search(self, k: int, choice: Choice = EVERYTHING) -> Path:
        search_to([self.queries], self.database, k, self.folder / "ranking", choice)
        return self.folder / "ranking"

    def scores(self) -> np.ndarray:
        return (self.asked.astype(float) @ self.rows.astype(float).T).astype(np.float32)


def lists(ranking: Ranking) -> list[list[str]]:
    return [ranking.ids_of(query) for query in range(len(ranking.query_ids))]


def plain(scores: list[list[float]], fusion: str, weights: list[float]) -> list[float]:
    """The scores of one query by each member put together, in plain Python."""
    values = [list(map(float, row)) for row in scores]
    if fusion == "zscore":
        for row in values:
            mean = sum(row) / len(row)
            deviation = (sum((value - mean) ** 2 for value in row) / len(row)) ** 0.5
            row[:] = [(value - mean) / deviation for value in row]
    if fusion == "rank":
        values = [[1 / (60 + 1 + sum(other > value for other in row)) for value in row] for row in values]
    return [
        sum(w * row[i] for w, row in zip(weights, values, strict=True)) / sum(weights) for i in range(len(values[0]))
    ]


@pytest.fixture
def made(tmp_path: Path) -> list[Made]:
    """Two models, and texts of the first."""
    return [
        Made(tmp_path / "one", "first", 16, 1),
        Made(tmp_path / "two", "second", 24, 3),
        Made(tmp_path / "texts", "first", 16, 5, texts=True),
    ]


@pytest.mark.parametrize("fusion", ["mean", "zscore", "rank"])
@pytest.mark.parametrize("weights", [[1.0, 1.0, 1.0], [3.0, 1.0, 0.5]])
@pytest.mark.parametrize("k", [5, 40, len(IDS)])
def test_it_equals_plain_python(made: list[Made], tmp_path: Path, fusion: Any, weights: list[float], k: int) -> None:
    stores = [store for one in made for store in one.stores]
    members = [read_member(one.search(k), stores) for one in made]
    found, certain = ensemble_to(members, tmp_path / "out", fusion=fusion, weights=weights)
    scores = [one.scores() for one in made]
    scores[2] = scores[2][[0, 1, 2, 3, 4, 5, 0]]  # the texts of the objects
    assert certain is not None
    for q in range(len(IMAGES)):
        listed = {IDS.index(item) for one in members for item in one.ranking.ids_of(one.places_of(IMAGES)[q])}
        candidates = sorted(listed)
        fused = np.array(plain([row[q][candidates].tolist() for row in scores], fusion, weights)).astype(np.float32)
        order = np.lexsort((candidates, -fused))[:k]
        assert found.ids_of(q) == [IDS[candidates[place]] for place in order]
        assert np.abs(found.scores[q, : len(order)] - fused[order]).max() < 1e-6
        if fusion == "mean":
            whole = np.array(plain([row[q].tolist() for row in scores], fusion, weights)).astype(np.float32)
            everything = [IDS[row] for row in np.lexsort((np.arange(len(IDS)), -whole))]
            assert found.ids_of(q)[: certain[q]] == everything[: certain[q]]
    if fusion == "mean" and k == len(IDS):
        assert (certain == k).all()
    if fusion == "mean" and k == 40:
        assert 0 < np.median(certain) < k


def test_equal_scores_and_members_that_do_not_vary() -> None:
    scores = np.array([[0.5, 0.5, 0.5, 0.5], [0.1, 0.3, 0.3, 0.2]])
    assert fuse(scores, "zscore", [1, 1]).argmax() == 1
    ranks = fuse(scores, "rank", [1, 1])
    assert np.allclose(ranks, [(1 / 61 + 1 / rank) / 2 for rank in (64, 61, 61, 63)])


def test_adapted_rankings_find_their_layer(made: list[Made], tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    linear = LinearMap(rng.normal(size=(9, 16)).astype(np.float32), rng.normal(size=9).astype(np.float32))
    folders = [made[0].search(30, Choice(linear)), made[1].search(30)]
    stores = [store for one in made[:2] for store in one.stores]
    with pytest.raises(OpenIliasError, match="stores of the ranking are not given: image_queries") as caught:
        read_member(folders[0], stores)
    assert linear.digest[:12] in str(caught.value.fix)
    found, _ = ensemble_to([read_member(folder, stores, [linear]) for folder in folders], tmp_path / "out")
    one = (
        adapt(linear, made[0].asked).astype(np.float16).astype(float) @ adapt(linear, made[0].rows).astype(np.float16).T
    )
    both = (one + made[1].scores()) / 2
    for q in range(len(IMAGES)):
        assert np.abs(found.scores[q] - [both[q, IDS.index(item)] for item in found.ids_of(q)]).max() < 1e-3


def test_what_does_not_belong_together_is_refused(made: list[Made], tmp_path: Path) -> None:
    one, two, texts = made
    stores = [store for each in made for store in each.stores]
    for choice, message in (
        (Choice(expand=Expand(n=1)), "of expanded queries"),
        (Choice(share=Share(0, 2)), "of a part of a database"),
    ):
        search_to([one.queries], one.database, 9, tmp_path / message, choice)
        with pytest.raises(OpenIliasError, match=message):
            read_member(tmp_path / message, stores)
    first, second, third = (read_member(each.search(9), stores) for each in made)
    with pytest.raises(OpenIliasError, match="not given: image_queries, distractors, positives"):
        read_member(tmp_path / "one" / "ranking", two.stores)
    with pytest.raises(OpenIliasError, match="1 rankings cannot be put together"):
        ensemble_to([first], tmp_path / "out")
    for weights in ([1.0], [1.0, 0.0], [1.0, float("inf")]):
        with pytest.raises(OpenIliasError, match="cannot be put together with the weights"):
            ensemble_to([first, second], tmp_path / "out", weights=weights)
    with pytest.raises(OpenIliasError, match="The lists hold 9 images, fewer than 10"):
        ensemble_to([first, second], tmp_path / "out", k=10)
    with pytest.raises(OpenIliasError, match=r"2 queries of this ranking go with thing_0/query/T000\.txt"):
        ensemble_to([third, first], tmp_path / "out")
    search_to([two.queries], two.database[1:], 9, tmp_path / "part")
    with pytest.raises(OpenIliasError, match="were not searched in the same images:\n    the shards of the database"):
        ensemble_to([first, read_member(tmp_path / "part", stores)], tmp_path / "out")
    (tmp_path / "ids.txt").write_text(POSITIVES[0])
    some = Choice(restriction=Restriction(without=read_ids(tmp_path / "ids.txt")))
    search_to([two.queries], two.database, 9, tmp_path / "some", some)
    with pytest.raises(OpenIliasError, match="were not searched in the same images:\n    ids"):
        ensemble_to([first, read_member(tmp_path / "some", stores)], tmp_path / "out")
    assert not (tmp_path / "out").exists()
    path = two.folder / "distractors" / "00001.npy"
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    with pytest.raises(OpenIliasError, match="not as it was written"):
        ensemble_to([first, second], tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert texts.ids == TEXTS


def test_it_is_made_once(made: list[Made], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stores = [store for one in made for store in one.stores]
    members = [read_member(one.search(9), stores) for one in made[:2]]
    ranking, _ = ensemble_to(members, tmp_path / "out")
    monkeypatch.setattr("openilias.search.ensemble.ensemble", None)
    again, _ = ensemble_to(members, tmp_path / "out")
    assert lists(again) == lists(ranking)
    with pytest.raises(OpenIliasError, match=r"ensemble\.weights"):
        ensemble_to(members, tmp_path / "out", weights=[2, 1])


def test_runs_of_two_models_from_the_command_line(tiny: Benchmark, tmp_path: Path, ilias: Ilias) -> None:
    for name, shared in (("resnet10t", None), ("test_resnet", tmp_path / "shared")):
        experiment = Experiment(
            benchmark=tiny.root, model=name, random_weights=0, protocol={"resolution": 64},
            stores=shared, out=tmp_path / name,
        )  # fmt: skip
        run_experiment(experiment)
    rankings = [tmp_path / "resnet10t" / "ranking", tmp_path / "test_resnet" / "ranking"]
    out = tmp_path / "both"
    done = ilias("ensemble", *rankings, "--out", out / "ranking", "--weights", "2,1", "--json", tmp_path / "r.json")
    assert done.code == 0, done.err
    assert "those that a search of everything would list" in done.err
    evaluation = evaluate_to(out / "ranking", tiny, out / "evaluation")
    assert 0 < evaluation.map <= 1
    assert evaluation.described  # both have the same protocol
    page = report_run(out, out / "report", benchmark=tiny.root).read_text()
    assert "timm:resnet10t (image_queries) + timm:test_resnet (image_queries)" in page
    manifest = json.loads((out / "ranking" / "ranking.json").read_text())
    assert manifest["certain"]["least"] == read_ranking(out / "ranking")[0].rows.shape[1]  # everything is listed
    done = ilias("ensemble", *rankings, "--out", tmp_path / "no", "--weights", "2,x")
    assert done.code == 2
    assert "is not numbers with commas between" in done.err
    done = ilias("ensemble", rankings[0], tmp_path / "nowhere", "--out", tmp_path / "no")
    assert done.code == 2
    assert "There is no ranking here" in done.err
