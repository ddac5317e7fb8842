"""Exact search against a naive float64 twin, and the ranking as a value and a file."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openilias.core.errors import OpenIliasError
from openilias.search.exact import pair_scores, topk
from openilias.search.ranking import ABSENT, Ranking, read_ranking, write_ranking


def naive(queries: np.ndarray, database: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores summed one product at a time in Python floats, sorted by (-score, row)."""
    rows, scores = [], []
    for q in queries:
        values = []
        for row, x in enumerate(database):
            total = 0.0
            for a, b in zip(q.tolist(), x.tolist(), strict=True):
                total += a * b
            values.append((-np.float32(total), row))
        values.sort(key=lambda pair: (float(pair[0]), pair[1]))
        rows.append([row for _, row in values[:k]])
        scores.append([-value for value, _ in values[:k]])
    shape = (len(queries), min(k, len(database)))
    return np.array(rows, np.int64).reshape(shape), np.array(scores, np.float32).reshape(shape)


@st.composite
def problems(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, int, list[int]]:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    dtype = draw(st.sampled_from([np.float16, np.float32]))
    n, q, d = draw(st.integers(0, 60)), draw(st.integers(1, 4)), draw(st.integers(1, 17))
    kind = draw(st.sampled_from(["unit", "coarse", "large", "tiny", "copies", "near"]))
    x, y = rng.standard_normal((n, d)), rng.standard_normal((q, d))
    if kind == "unit":
        x /= np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-9)
    elif kind == "coarse":  # many exact ties
        x, y = np.round(x), np.round(y)
    elif kind == "large":  # float16 sums that float64 does not hold exactly in every order
        x, y = x * 3000, y * 3000
    elif kind == "tiny":  # float16 subnormals
        x *= 1e-6
    elif n:
        x = x[rng.integers(0, max(n // 4, 1), n)]
        if kind == "near":  # closer than float32 resolves
            x = x * (1 + rng.integers(0, 3, (n, 1)) * 2.0**-24)
    cuts = sorted(draw(st.lists(st.integers(0, n), max_size=4)))
    return y.astype(dtype), x.astype(dtype), draw(st.integers(1, 70)), cuts


@given(problems())
@settings(max_examples=250, deadline=None)
def test_topk_equals_the_naive_twin_bit_by_bit(case: tuple[np.ndarray, np.ndarray, int, list[int]]) -> None:
    queries, database, k, cuts = case
    rows, scores = topk(queries, np.split(database, cuts), k)
    twin_rows, twin_scores = naive(queries, database, k)
    assert rows.tolist() == twin_rows.tolist()
    assert scores.tobytes() == (twin_scores + np.float32(0)).tobytes()


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_larger_problem_with_small_pieces(dtype: type) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((3000, 24))
    x = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(dtype)
    x[1500:1600] = x[:100]
    queries = x[rng.integers(0, 3000, 5)]
    whole = topk(queries, [x], 50)
    pieces = topk(queries, [x[:1], x[1:2999], x[2999:]], 50)
    assert whole[0].tolist() == pieces[0].tolist()
    assert whole[1].tobytes() == pieces[1].tobytes()
    twin = naive(queries, x, 50)
    assert whole[0].tolist() == twin[0].tolist()


def test_float16_sums_that_float64_does_not_hold_follow_the_fixed_order() -> None:
    """Large terms that cancel over tiny ones: the result depends on the order of summation."""
    database = np.full((40, 96), 6e-8, np.float16)
    database[:, 10], database[:, 70] = 60000, -60000
    database[::2] *= np.float16(0.5)
    queries = np.ones((1, 96), np.float16)
    queries[0, [10, 70]] = 60000
    rows, scores = topk(queries, [database], 40)
    twin_rows, twin_scores = naive(queries, database, 40)
    assert rows.tolist() == twin_rows.tolist()
    assert scores.tobytes() == twin_scores.tobytes()


def test_pair_scores_round_once() -> None:
    a, b = np.full((1, 3), 0.1, np.float32), np.full((1, 3), 0.7, np.float32)
    exact = math.fsum(float(p) * float(q) for p, q in zip(a[0], b[0], strict=True))
    assert pair_scores(a, b)[0] == np.float32(exact)


def test_bad_input_is_refused() -> None:
    x = np.zeros((4, 3), np.float32)
    with pytest.raises(OpenIliasError, match="3 dimensions"):
        topk(np.zeros((1, 2), np.float32), [x], 1)
    for bad in (np.nan, np.inf):
        y = x.copy()
        y[2, 1] = bad
        with pytest.raises(OpenIliasError, match=r"database is not finite \(row 2"):
            topk(x, [y], 1)
        with pytest.raises(OpenIliasError, match="queries is not finite"):
            topk(y, [x], 1)
    with pytest.raises(OpenIliasError, match="k = 0"):
        topk(x, [x], 0)


def test_no_database_gives_empty_lists() -> None:
    rows, scores = topk(np.ones((2, 3), np.float32), [], 5)
    assert rows.shape == scores.shape == (2, 0)


def make(rows: list[list[int]], scores: list[list[float]], images: int = 4) -> Ranking:
    return Ranking(
        tuple(f"q{i}" for i in range(len(rows))),
        tuple(f"d{i}" for i in range(images)),
        np.array(rows, np.int64),
        np.array(scores, np.float32),
    )


@pytest.mark.parametrize(
    ("rows", "scores", "message"),
    [
        ([[0, 1]], [[1.0, 2.0]], "not sorted"),
        ([[0, 0]], [[1.0, 1.0]], "twice"),
        ([[0, 4]], [[1.0, 1.0]], "outside"),
        ([[-2, 1]], [[1.0, 1.0]], "outside"),
        ([[-1, 1]], [[1.0, 1.0]], "gaps"),
        ([[0, 1]], [[np.nan, 1.0]], "not finite"),
        ([[0, 1]], [[1.0]], "scores"),
    ],
)
def test_an_invalid_ranking_cannot_exist(rows: list[list[int]], scores: list[list[float]], message: str) -> None:
    with pytest.raises(OpenIliasError, match=message):
        make(rows, scores)


def test_a_ranking_is_immutable() -> None:
    ranking = make([[0, 1]], [[2.0, 1.0]])
    with pytest.raises(ValueError, match="read-only"):
        ranking.rows[0, 0] = 3
    with pytest.raises(OpenIliasError, match="query id stands twice"):
        Ranking(("a", "a"), ("x",), np.zeros((2, 1), np.int64), np.zeros((2, 1), np.float32))


def test_ranking_file_round_trip(tmp_path: Path) -> None:
    ranking = make([[2, 0, 1], [3, ABSENT, ABSENT], [ABSENT] * 3], [[3.0, 2, 1], [5, -np.inf, -np.inf], [-np.inf] * 3])
    write_ranking(ranking, tmp_path / "r", made_from={"k": 3})
    found, manifest = read_ranking(tmp_path / "r")
    assert manifest["made_from"] == {"k": 3}
    assert found.query_ids == ranking.query_ids
    assert [found.ids_of(i) for i in range(3)] == [ranking.ids_of(i) for i in range(3)]
    assert found.scores.tobytes() == ranking.scores.tobytes()
    assert found.lengths.tolist() == [3, 1, 0]


def test_a_damaged_ranking_is_named(tmp_path: Path) -> None:
    write_ranking(make([[0, 1]], [[2.0, 1.0]]), tmp_path, made_from={})
    path = tmp_path / "ranking.parquet"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(OpenIliasError, match="not as it was written"):
        read_ranking(tmp_path)
    path.unlink()
    with pytest.raises(OpenIliasError, match="not as it was written"):
        read_ranking(tmp_path)
