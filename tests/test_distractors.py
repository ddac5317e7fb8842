"""Curves over the number of distractors against searches of the parts themselves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from openilias.core.errors import OpenIliasError
from openilias.data import Benchmark
from openilias.evaluate.distractors import (
    Curve,
    Numbered,
    curve_sizes,
    distractor_curve,
    equivalent_size,
    numbered,
    within_members,
)
from openilias.evaluate.subsets import shuffled
from openilias.search.ranking import Ranking

OBJECTS, DISTRACTORS = 6, 300
BENCHMARK = Benchmark(
    Path(),
    Path(),
    tuple(f"o{n}_00{n}/query/Q00{n}_00.jpg" for n in range(OBJECTS)),
    (),
    tuple(f"o{n}_00{n}/pos/P00{n}_0{m}.jpg" for n in range(OBJECTS) for m in range(1 + n % 3)),
    (),
)
POSITIVES = len(BENCHMARK.positives)
SIMILARITIES = np.random.default_rng(0).integers(0, 200, (OBJECTS, POSITIVES + DISTRACTORS)) / 200
SIMILARITIES[:, :POSITIVES] = np.maximum(SIMILARITIES[:, :POSITIVES], 0.6)


def search(kept: np.ndarray, depth: int) -> Ranking:
    """A full search of some rows of the database, cut."""
    order = np.array([kept[np.lexsort((kept, -line[kept]))][:depth] for line in SIMILARITIES])
    scores = np.take_along_axis(SIMILARITIES, order, 1).astype(np.float32)
    rows, inverse = np.unique(order, return_inverse=True)
    names = (*BENCHMARK.positives, *(f"yfcc100m_0000.tar/{n:05d}" for n in range(DISTRACTORS)))
    ids = tuple(names[row] for row in rows)
    return Ranking(BENCHMARK.image_queries, ids, inverse.reshape(order.shape).astype(np.int64), scores, rows)


def of_all(depth: int) -> Numbered:
    return numbered(
        search(np.arange(POSITIVES + DISTRACTORS), depth), BENCHMARK, positives=POSITIVES, distractors=DISTRACTORS
    )


def plain_map(kept: np.ndarray, k: int) -> float:
    """mAP of a search of those rows, counted plainly; equal scores are one block."""
    total = 0.0
    for query, line in enumerate(SIMILARITIES):
        own = {n for n, item in enumerate(BENCHMARK.positives) if item.split("/")[0] == f"o{query}_00{query}"}
        ranked = sorted(kept.tolist(), key=lambda row: (-np.float32(line[row]), row))[:k]
        score = [np.float32(line[row]) for row in ranked]
        ap = 0.0
        for row in own & set(ranked):
            end = max(n for n, value in enumerate(score) if value == np.float32(line[row])) + 1
            ap += len(own & set(ranked[:end])) / end
        total += ap / min(k, len(own))
    return total / len(SIMILARITIES)


@pytest.mark.parametrize("k", [5, 1000])
def test_subsets_are_what_searches_of_them_find(k: int) -> None:
    sizes = (0, 10, 50, 200, DISTRACTORS)
    found = distractor_curve(of_all(POSITIVES + DISTRACTORS), sizes, seeds=(3, 4), k=k)
    assert found.settled.all()
    for row, size in enumerate(sizes):
        for column, seed in enumerate((3, 4)):
            chosen = np.flatnonzero(shuffled(np.arange(DISTRACTORS), DISTRACTORS, seed=seed) < size)
            kept = np.concatenate([np.arange(POSITIVES), POSITIVES + chosen])
            assert found.low[row, column] == pytest.approx(plain_map(kept, k), abs=1e-9)
    assert found.mean == pytest.approx(found.low.mean(axis=1))
    assert found.std == pytest.approx(found.low.std(axis=1, ddof=1))
    assert found.std[-1] == 0  # all distractors, whatever the seed


@pytest.mark.parametrize("depth", [3, 40, 150])
def test_lists_that_are_cut_say_what_they_do_not_settle(depth: int) -> None:
    sizes = (0, 10, 50, 200, DISTRACTORS)
    whole = distractor_curve(of_all(POSITIVES + DISTRACTORS), sizes, seeds=(3,), k=20)
    cut = distractor_curve(of_all(depth), sizes, seeds=(3,), k=20)
    assert (cut.low <= whole.low + 1e-9).all()
    assert (cut.high >= whole.low - 1e-9).all()
    assert cut.settled[-1] == (depth >= 20)
    assert not cut.settled[0] or depth == 150
    assert cut.low[cut.settled] == pytest.approx(whole.low[cut.settled])


def test_chosen_members() -> None:
    found = of_all(POSITIVES + DISTRACTORS)
    members = np.arange(len(found.number)) % 3 == 0
    chosen = [
        row for row, kept in zip(found.ranking.db_rows.tolist(), members, strict=True) if kept and row >= POSITIVES
    ]
    within = within_members(found, members, k=50)
    assert within.settled
    assert within.low.mean() == pytest.approx(plain_map(np.array([*range(POSITIVES), *chosen]), 50))


def test_sizes() -> None:
    assert curve_sizes(0) == (0,)
    assert curve_sizes(1000) == (0, 100, 200, 500, 1000)
    assert curve_sizes(99_144_315)[-3:] == (20_000_000, 50_000_000, 99_144_315)


def test_which_random_set_is_as_hard() -> None:
    curve = Curve(
        (0, 100, 10_000, 20_000), np.array([[0.9], [0.8], [0.4], [0.4]]), np.array([[0.9], [0.8], [0.4], [0.4]])
    )
    assert equivalent_size(curve, 0.6) == pytest.approx(1000)
    assert equivalent_size(curve, 0.8) == pytest.approx(100)
    assert equivalent_size(curve, 0.95) is None
    assert equivalent_size(curve, 0.1) is None


def test_what_has_no_rows_is_refused() -> None:
    ranking = search(np.arange(POSITIVES + DISTRACTORS), 10)
    with pytest.raises(OpenIliasError, match="does not say which rows"):
        without = Ranking(ranking.query_ids, ranking.db_ids, ranking.rows, ranking.scores)
        numbered(without, BENCHMARK, positives=POSITIVES, distractors=DISTRACTORS)
    with pytest.raises(OpenIliasError, match="not of a database of 20"):
        numbered(ranking, BENCHMARK, positives=POSITIVES, distractors=20)
    deep = search(np.arange(POSITIVES + DISTRACTORS), 200)
    for positives in (3, 30):
        with pytest.raises(OpenIliasError, match="are not the positives"):
            numbered(deep, BENCHMARK, positives=positives, distractors=1000)
