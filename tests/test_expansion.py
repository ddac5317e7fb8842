"""Query expansion: against a plain twin, in parts, killed, adapted as the official code does it, and in experiments."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from openilias.adapt.files import write_linear_map
from openilias.adapt.linear import LinearMap, adapt
from openilias.core.errors import OpenIliasError
from openilias.core.protocol import Expand, Protocol
from openilias.core.shards import Share
from openilias.data import Benchmark
from openilias.experiments.experiment import Experiment
from openilias.experiments.run import run_experiment
from openilias.search import checkpoint as checkpoints
from openilias.search import stores as searching
from openilias.search.choice import Choice, Means
from openilias.search.expansion import expand_vectors
from openilias.search.merge import merge_to
from openilias.search.stores import search, search_to
from test_searching import DIMS, Stores, lists

Ilias = Callable[..., Any]


@pytest.fixture
def stores(tmp_path: Path) -> Stores:
    return Stores(tmp_path / "stores")


def twin(queries: np.ndarray, rows: np.ndarray, n: int, alpha: float, *, weighted: bool = True) -> np.ndarray:
    """The mean of a query and its n best, each times its similarity to the power of alpha; plain Python."""
    made = []
    for query in queries.astype(float).tolist():
        scores = [sum(a * b for a, b in zip(query, row, strict=True)) for row in rows.astype(float).tolist()]
        best = sorted(range(len(scores)), key=lambda row: (-np.float32(scores[row]), row))[:n]
        total = list(query)
        for row in best:
            score = float(np.float32(scores[row]))
            weight = (abs(score) ** alpha) * (1 if score >= 0 else -1) if weighted and alpha else 1.0
            total = [have + weight * float(value) for have, value in zip(total, rows[row], strict=True)]
        mean = [value / (1 + n) for value in total]
        norm = sum(value * value for value in mean) ** 0.5
        made.append([value / norm for value in mean])
    return np.array(made)


def ids_of(queries: np.ndarray, stores: Stores, rows: np.ndarray, k: int) -> list[list[str]]:
    asked, found = queries.astype(np.float32).astype(float), []
    for query in asked:
        scores = (rows.astype(float) @ query).astype(np.float32)
        found.append([stores.ids[row] for row in np.lexsort((np.arange(len(scores)), -scores))[:k]])
    return found


@pytest.mark.parametrize(("n", "alpha"), [(1, 1.0), (2, 1.0), (5, 1.0), (5, 0.0), (3, 2.5), (40, 3.0), (10_000, 0.5)])
def test_it_equals_the_plain_twin(stores: Stores, n: int, alpha: float) -> None:
    found = search([stores.queries], stores.database, 60, Choice(expand=Expand(n=n, alpha=alpha)))
    queries = twin(stores.asked, stores.rows, n, alpha)
    expected = ids_of(queries, stores, stores.rows, 60)
    assert lists(found) == expected
    assert lists(found) != stores.naive(60)
    places = [[stores.ids.index(item) for item in row] for row in expected]
    scores = [stores.rows[row].astype(float) @ queries[q] for q, row in enumerate(places)]
    assert np.abs(found.scores - scores).max() < 1e-6


def test_lists_that_are_short_and_scores_below_zero() -> None:
    queries = np.array([[1, 0], [0, 1]], np.float32)
    neighbours = np.array([[[0.6, 0.8], [9, 9]], [[0.8, -0.6], [0.6, 0.8]]], np.float32)
    scores = np.array([[0.6, -np.inf], [-0.6, 0.8]], np.float32)
    found = expand_vectors(queries, neighbours, scores, 2.0)
    first = np.array([1 + 0.36 * 0.6, 0.36 * 0.8])
    second = np.array([-0.36 * 0.8 + 0.64 * 0.6, 1 + 0.36 * 0.6 + 0.64 * 0.8])
    assert np.allclose(found[0], first / np.linalg.norm(first), atol=1e-7)
    assert np.allclose(found[1], second / np.linalg.norm(second), atol=1e-7)
    with pytest.raises(OpenIliasError, match="Query 0 and its neighbours cancel out"):
        expand_vectors(queries[:1], -queries[:1, None], np.ones((1, 1)), 0.0)


@pytest.mark.parametrize("parts", [2, 3])
def test_parts_merge_to_the_bytes_of_one_search(stores: Stores, tmp_path: Path, parts: int) -> None:
    choice = Choice(expand=Expand(n=3, alpha=2.0))
    search_to([stores.queries], stores.database, 40, tmp_path / "whole", choice)
    for stage, wanted, means in (("first", Choice(), Means()), ("second", choice, Means(first=tmp_path / "first"))):
        folders = [tmp_path / f"{stage}-{number}" for number in range(parts)]
        for number, folder in enumerate(folders):
            share = replace(wanted, share=Share(number, parts))
            search_to([stores.queries], stores.database, 40, folder, share, means)
        merge_to(folders, tmp_path / stage)
    for name in ("ranking.parquet", "ranking.json"):
        assert (tmp_path / "second" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_first_rankings_of_something_else_are_refused(stores: Stores, tmp_path: Path) -> None:
    choice = Choice(expand=Expand(n=5))
    with pytest.raises(OpenIliasError, match="may lie in any part of the database"):
        search([stores.queries], stores.database, 5, replace(choice, share=Share(0, 2)))
    search_to([stores.queries], stores.database, 4, tmp_path / "short")
    with pytest.raises(OpenIliasError, match="lists 4 images per query, fewer than 5"):
        search([stores.queries], stores.database, 9, choice, Means(first=tmp_path / "short"))
    search_to([stores.queries], stores.database, 9, tmp_path / "without", Choice(duplicates="remove"))
    with pytest.raises(OpenIliasError, match="not the first search of the same:\n    duplicates"):
        search([stores.queries], stores.database, 9, choice, Means(first=tmp_path / "without"))
    search_to([stores.queries], [stores.distractors], 9, tmp_path / "part")
    with pytest.raises(OpenIliasError, match="not the first search of the same:\n    database"):
        search([stores.queries], stores.database, 9, choice, Means(first=tmp_path / "part"))
    search_to([stores.queries], stores.database, 9, tmp_path / "first")
    path = stores.positives.folder / "00000.npy"
    rows = np.load(path)
    rows[:, 0] += 0.25
    np.save(path, rows)
    with pytest.raises(OpenIliasError, match="is not as it was when it was found"):
        search([stores.queries], stores.database, 9, choice, Means(first=tmp_path / "first", trust=True))


def test_killed_it_goes_on_in_the_stage_where_it_was(
    stores: Stores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    choice = Choice(expand=Expand(n=2))
    search_to([stores.queries], stores.database, 40, tmp_path / "whole", choice)
    for name, value in (("_EVERY_SECONDS", 0.0), ("_SHARE", 0)):
        monkeypatch.setattr(checkpoints, name, value)
    monkeypatch.setattr(searching, "_AT_ONCE_HERE", 0)
    true, begun = searching.windows, itertools.count(1)

    def broken(*arguments: Any) -> Any:
        if next(begun) in (3, 9):
            raise KeyboardInterrupt
        return true(*arguments)

    monkeypatch.setattr(searching, "windows", broken)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            search_to([stores.queries], stores.database, 40, tmp_path / "out", choice)
    capsys.readouterr()
    search_to([stores.queries], stores.database, 40, tmp_path / "out", choice)
    told = capsys.readouterr().err
    assert ", 6 shards of them done before" in told
    assert ", 1 shards of them done before" in told
    for name in ("ranking.parquet", "ranking.json"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "stores", "whole"]


def test_neighbours_are_those_that_are_listed(stores: Stores) -> None:
    """Neither the query itself nor what was left out is a neighbour."""
    choice = Choice(self_matches="remove", expand=Expand(n=1))
    rows = np.delete(stores.rows, 4, 0)  # the second query is among the positives
    expected = twin(stores.asked[2:3], rows, 1, 1.0)
    left = Stores.__new__(Stores)
    left.ids = [item for place, item in enumerate(stores.ids) if place != 4]
    found = search([stores.queries], stores.database, 60, choice)
    assert lists(found)[2] == ids_of(expected, left, rows, 60)[0]


@pytest.mark.parametrize("compat", ["paper", "official"])
def test_of_adapted_descriptors_the_official_code_loses_the_weights(stores: Stores, compat: str) -> None:
    rng = np.random.default_rng(0)
    linear = LinearMap(rng.normal(size=(9, DIMS)).astype(np.float32), rng.normal(size=9).astype(np.float32))
    asked, rows = (adapt(linear, values).astype(np.float16) for values in (stores.asked, stores.rows))
    stated = {"protocol": {"compat": compat}}
    for store in (stores.queries, *stores.database):
        store.manifest["made_from"].update(stated)  # type: ignore[attr-defined]  # it is a dict
    found = search([stores.queries], stores.database, 60, Choice(linear, expand=Expand(n=4, alpha=4.0)))
    near = []
    for weighted in (True, False):
        queries = twin(asked, rows, 4, 4.0, weighted=weighted)
        scores = np.sort((rows.astype(float) @ queries.T).T)[:, ::-1][:, :60]
        near.append(float(np.abs(found.scores - scores).max()))
    # Shards are adapted one by one: here and there float16 is rounded to the other side.
    assert (near[0] < 1e-3 < 5e-3 < near[1]) if compat == "paper" else (near[1] < 1e-3 < 5e-3 < near[0])


def test_the_command(stores: Stores, tmp_path: Path, ilias: Ilias) -> None:
    common = ["search", "--queries", stores.queries.folder]
    for store in stores.database:
        common += ["--database", store.folder]
    done = ilias(*common, "--out", tmp_path / "out", "--expand", 2, "--alpha", 3)
    assert done.code == 0, done.err
    made_from = json.loads((tmp_path / "out" / "ranking.json").read_text())["made_from"]
    assert made_from["expand"] == {"n": 2, "alpha": 3.0}
    done = ilias(*common, "--out", tmp_path / "no", "--alpha", 3)
    assert done.code == 2
    assert "--alpha can only be used with --expand" in " ".join(done.err.split())
    done = ilias(*common, "--out", tmp_path / "no", "--expand", 1, "--index", "SQ8")
    assert done.code == 2
    assert "--expand cannot be used with --index" in " ".join(done.err.split())
    assert not (tmp_path / "no").exists()
    write_linear_map(LinearMap(np.eye(DIMS, dtype=np.float32), np.zeros(DIMS, np.float32)), tmp_path / "layer.pth")
    done = ilias(*common, "--out", tmp_path / "adapted", "--expand", 2, "--adapt", tmp_path / "layer.pth")
    assert done.code == 0, done.err


def test_in_an_experiment(tiny: Benchmark, tmp_path: Path) -> None:
    evaluations = {}
    for n in (None, 1):
        protocol = Protocol(resolution=64, expand=None if n is None else Expand(n=n))
        experiment = Experiment(
            benchmark=tiny.root, model="resnet10t", random_weights=0, protocol=protocol,
            stores=tmp_path / "stores", out=tmp_path / str(n),
        )  # fmt: skip
        evaluations[n] = run_experiment(experiment).evaluation
    assert evaluations[1].protocol.expand == Expand(n=1)
    assert evaluations[None].protocol.expand is None
    assert "expand" in (tmp_path / "1" / "report" / "index.html").read_text()
