"""The metrics against independent twins: scikit-learn, and the definitions written out in plain Python."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from openilias.core.errors import OpenIliasError
from openilias.core.protocol import Protocol
from openilias.data import Attributes, Benchmark, Taxonomy
from openilias.evaluate.evaluation import Evaluation, evaluate
from openilias.evaluate.groups import CLUTTER_EDGES, COVERAGE_EDGES
from openilias.evaluate.metrics import (
    average_precision,
    average_precision_of_hits,
    block_ends,
    ends_without,
    oracle,
)
from openilias.search.ranking import ABSENT, Ranking


def dense_twin(scores: np.ndarray, relevant: np.ndarray, positives: np.ndarray, *, k: int) -> np.ndarray:
    """AP@k from whole lists: the hits of each block of equal scores, times the precision at its end."""
    scores, relevant = scores[:, :k], relevant[:, :k]
    if scores.shape[1] == 0:
        return np.zeros(len(scores))
    hits = np.cumsum(relevant, axis=1)
    ends = np.ones(scores.shape, bool)
    ends[:, :-1] = scores[:, 1:] != scores[:, :-1]
    # Hits up to the end of the block before, carried forward to where the next block ends.
    at_ends = np.where(ends, hits, 0)
    before = np.zeros_like(hits)
    before[:, 1:] = np.maximum.accumulate(at_ends, axis=1)[:, :-1]
    precision = hits / np.arange(1, scores.shape[1] + 1)
    total = np.where(ends, (hits - before) * precision, 0.0).sum(axis=1)
    return total / np.minimum(k, positives)


def without(scores: np.ndarray, relevant: np.ndarray, removed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Take entries out of Q lists and close the gaps; nothing takes their place.

    Args:
        scores: (Q, n).
        relevant: (Q, n).
        removed: (Q, n) what to take out.

    Returns:
        scores and relevance, (Q, n), padded at the end with -inf and False.
    """
    order = np.argsort(removed, axis=1, kind="stable")
    left = np.take_along_axis(scores, order, 1).copy()
    kept = np.take_along_axis(relevant, order, 1).copy()
    gone = np.take_along_axis(removed, order, 1)
    left[gone], kept[gone] = -np.inf, False
    return left, kept


def sklearn_twin(scores: list[float], relevant: list[bool], positives: int, k: int) -> float:
    scores, relevant = scores[:k], relevant[:k]
    if not any(relevant):
        return 0.0
    return float(average_precision_score(relevant, scores)) * sum(relevant) / min(k, positives)


@st.composite
def lists(draw: st.DrawFn) -> tuple[list[float], list[bool], int, int]:
    """A list with many ties, its relevance, the number of positives, k."""
    n = draw(st.integers(1, 40))
    scores = sorted(draw(st.lists(st.integers(0, 12), min_size=n, max_size=n)), reverse=True)
    relevant = draw(st.lists(st.booleans(), min_size=n, max_size=n))
    positives = sum(relevant) + draw(st.integers(0, 5))
    return [s / 4 for s in scores], relevant, max(positives, 1), draw(st.integers(1, 45))


@given(lists())
@settings(max_examples=300)
def test_ap_equals_sklearn(case: tuple[list[float], list[bool], int, int]) -> None:
    scores, relevant, positives, k = case
    found = average_precision(np.array([scores], np.float32), np.array([relevant]), np.array([positives]), k=k)
    assert found[0] == pytest.approx(sklearn_twin(scores, relevant, positives, k), abs=1e-9)


@given(lists(), st.integers(0, 4))
def test_padding_changes_nothing(case: tuple[list[float], list[bool], int, int], padding: int) -> None:
    scores, relevant, positives, k = case
    plain = average_precision(np.array([scores], np.float32), np.array([relevant]), np.array([positives]), k=k)
    longer = np.array([scores + [-np.inf] * padding], np.float32)
    padded = average_precision(longer, np.array([relevant + [False] * padding]), np.array([positives]), k=k)
    assert padded[0] == pytest.approx(plain[0], abs=1e-12)


def test_ap_by_hand() -> None:
    scores = np.array([[0.9, 0.8, 0.8, 0.1]], np.float32)
    relevant = np.array([[True, False, True, True]])
    # 1 * 1/1 + 1 * 2/3 (the tie counts at its end) + 1 * 3/4, over min(1000, 5)
    assert average_precision(scores, relevant, np.array([5]), k=1000)[0] == pytest.approx((1 + 2 / 3 + 3 / 4) / 5)
    assert average_precision(scores, relevant, np.array([5]), k=2)[0] == pytest.approx(1 / 2)
    assert average_precision(np.zeros((2, 0), np.float32), np.zeros((2, 0), bool), np.array([1, 1]), k=3).tolist() == [
        0,
        0,
    ]


def test_oracle_ours_and_official() -> None:
    hits, count, positives = np.array([2]), np.array([4]), np.array([3])
    assert oracle(hits, count, positives, k=1000)[0] == pytest.approx(2 / 3)
    assert oracle(np.array([1]), count, positives, k=1)[0] == pytest.approx(1 / 3)
    assert oracle(hits, count, positives, k=1000, official=True)[0] == pytest.approx(0.5 * 1000 / 3)
    assert oracle(np.array([0]), np.array([0]), positives, k=5, official=True)[0] == 0


@given(st.lists(lists(), min_size=1, max_size=4), st.integers(1, 45))
@settings(max_examples=200)
def test_ap_of_hits_alone_is_that_of_the_lists(cases: list[tuple[list[float], list[bool], int, int]], k: int) -> None:
    """Several lists at once, whole and with some of their hits taken out."""
    width = max(len(scores) for scores, *_ in cases)
    scores = np.full((len(cases), width), -np.inf, np.float32)
    relevant = np.zeros((len(cases), width), bool)
    for row, (values, marks, *_) in enumerate(cases):
        scores[row, : len(values)], relevant[row, : len(values)] = values, marks
    positives = np.array([positives for _, _, positives, _ in cases])
    scores, relevant = scores[:, :k], relevant[:, :k]
    query, column = np.nonzero(relevant)
    end = block_ends(scores)[query, column].astype(np.int64)
    right = dense_twin(scores, relevant, positives, k=k)
    assert average_precision_of_hits(query, end, positives, k=k) == pytest.approx(right, abs=1e-12)
    removed = (np.arange(len(query)) * 7 + k) % 3 == 0
    gone = np.zeros_like(relevant)
    gone[query[removed], column[removed]] = True
    right = dense_twin(*without(scores, relevant, gone), positives, k=k)
    found = average_precision_of_hits(query[~removed], ends_without(query, end, removed), positives, k=k)
    assert found == pytest.approx(right, abs=1e-12)


def test_blocks_of_equal_scores() -> None:
    scores = np.array([[3.0, 2, 2, 2, 1], [5, 5, 4, -np.inf, -np.inf]], np.float32)
    assert block_ends(scores).tolist() == [[1, 4, 4, 4, 5], [2, 2, 3, 5, 5]]
    assert block_ends(np.zeros((2, 0), np.float32)).shape == (2, 0)


def test_removal_closes_gaps() -> None:
    scores = np.array([[4.0, 3, 2, 1]], np.float32)
    left, kept = without(scores, np.array([[1, 0, 1, 1]], bool), np.array([[1, 0, 0, 1]], bool))
    assert left.tolist() == [[3, 2, -np.inf, -np.inf]]
    assert kept.tolist() == [[False, True, False, False]]


# --- the whole evaluation against the definitions of the official formats, in plain Python ---


def random_case(seed: int) -> tuple[Ranking, Benchmark, Protocol]:
    rng = np.random.default_rng(seed)
    objects = [f"object_{n:03d}" for n in range(6)]
    positives = {o: [f"{o}/pos/P{n}_{i:02d}.jpg" for i in range(rng.integers(1, 6))] for n, o in enumerate(objects)}
    queries = [f"{o}/query/Q{i:02d}.jpg" for o in objects for i in range(rng.integers(1, 3))]
    database = [i for items in positives.values() for i in items] + [f"s.tar/d{i}" for i in range(20)]
    attributes = {
        i: Attributes(float(rng.choice([0.0, 0.05, COVERAGE_EDGES[1], 0.2, 0.9])), int(rng.choice([0, 17, 18, 33, 60])))
        for items in positives.values()
        for i in items
    }
    depth = int(rng.integers(1, len(database) + 1))
    rows = np.stack([rng.permutation(len(database))[:depth] for _ in queries])
    scores = np.sort(rng.integers(0, 8, rows.shape) / 8, axis=1)[:, ::-1].astype(np.float32)
    taxonomy = Taxonomy({o: (f"c{n % 2}", "other" if n == 5 else f"m{n % 3}", "f") for n, o in enumerate(objects)})
    benchmark = Benchmark(
        Path("b"),
        Path("b/core"),
        tuple(sorted(queries)),
        (),
        tuple(sorted(attributes)),
        (),
        stated=attributes,
        taxonomy=taxonomy,
    )
    ranking = Ranking(tuple(queries), tuple(database), rows, scores.copy())
    return ranking, benchmark, Protocol(k=int(rng.integers(1, 40)))


def plain_twin(ranking: Ranking, benchmark: Benchmark, k: int) -> dict[str, object]:
    """What the definitions say, one query at a time, with scikit-learn."""

    def ap(query: str, group: set[str] | None) -> float | None:
        line = ranking.query_ids.index(query)
        wanted = set(benchmark.relevance[query.split("/")[0]])
        inside = wanted if group is None else wanted & group
        if not inside:
            return None
        pairs = [
            (float(s), i)
            for s, i in zip(ranking.scores[line], ranking.ids_of(line), strict=True)
            if i not in wanted - inside
        ]
        # Removal happens within what was returned, cut at k first.
        pairs = [
            p for p in list(zip(ranking.scores[line].tolist(), ranking.ids_of(line), strict=True))[:k] if p in pairs
        ]
        return sklearn_twin([s for s, _ in pairs], [i in inside for _, i in pairs], len(inside), k)

    queries = benchmark.image_queries
    aps = {q: ap(q, None) or 0.0 for q in queries}
    hits = {
        q: sum(i in benchmark.relevance[q.split("/")[0]] for i in ranking.ids_of(ranking.query_ids.index(q))[:k])
        for q in queries
    }
    result: dict[str, object] = {
        "map": np.mean(list(aps.values())),
        "oracle": np.mean([hits[q] / len(benchmark.relevance[q.split("/")[0]]) for q in queries]),
        "aps": aps,
    }
    by_object = {o: np.mean([aps[q] for q in queries if q.startswith(o + "/")]) for o in benchmark.relevance}
    for name, level in (("categories", benchmark.taxonomy.coarse), ("mid_categories", benchmark.taxonomy.mid)):
        groups: dict[str, list[float]] = {}
        for o, value in by_object.items():
            groups.setdefault(str(level(o)), []).append(float(value))
        result[name] = {c: np.mean(v) for c, v in groups.items()}
    for name, edges in (("coverage", COVERAGE_EDGES), ("clutter", CLUTTER_EDGES)):
        values = []
        for low, high in pairwise(edges):
            group = {i for i, a in benchmark.stated.items() if low <= getattr(a, name) < high}
            found = [a for q in queries if (a := ap(q, group)) is not None]
            values.append((np.mean(found) if found else None, len(found)))
        result[name] = values
    return result


@pytest.mark.parametrize("seed", range(40))
def test_evaluation_equals_the_definitions(seed: int) -> None:
    ranking, benchmark, protocol = random_case(seed)
    found = evaluate(ranking, benchmark, protocol)
    twin = plain_twin(ranking, benchmark, protocol.k)
    assert found.map == pytest.approx(twin["map"], abs=1e-9)
    assert found.oracle == pytest.approx(twin["oracle"], abs=1e-9)
    assert {q.query_id: q.ap for q in found.queries} == pytest.approx(twin["aps"], abs=1e-9)
    for name in ("categories", "mid_categories"):
        assert {g.name: g.map for g in getattr(found, name)} == pytest.approx(twin[name], abs=1e-9)
    for name in ("coverage", "clutter"):
        groups = [(g.map, g.size) for g in getattr(found, name)]
        for (value, size), (other, count) in zip(groups, twin[name], strict=True):
            assert size == count
            assert value == (None if other is None else pytest.approx(other, abs=1e-9))


def test_ranks_point_at_the_positives() -> None:
    ranking, benchmark, _ = random_case(3)
    for query in evaluate(ranking, benchmark, Protocol()).queries:
        ids = ranking.ids_of(ranking.query_ids.index(query.query_id))
        for item, rank in zip(query.positives, query.ranks, strict=True):
            assert rank == (ids.index(item) + 1 if item in ids else None)


def without_first(ranking: Ranking) -> Ranking:
    return Ranking(ranking.query_ids[1:], ranking.db_ids, ranking.rows[1:].copy(), ranking.scores[1:].copy())


def test_missing_queries_are_an_error_zero_or_left_out() -> None:
    ranking, benchmark, _ = random_case(5)
    part = without_first(ranking)
    with pytest.raises(OpenIliasError, match="not answered"):
        evaluate(part, benchmark, Protocol())
    whole = evaluate(ranking, benchmark, Protocol())
    zero = evaluate(part, benchmark, Protocol(), allow_missing=True)
    gone = {q.query_id: q.ap for q in whole.queries} | {ranking.query_ids[0]: 0.0}
    assert zero.missing == ranking.query_ids[:1]
    assert zero.map == pytest.approx(np.mean(list(gone.values())))
    official = evaluate(part, benchmark, Protocol(compat="official"), allow_missing=True)
    assert len(official.queries) == len(whole.queries) - 1
    assert official.map == pytest.approx(zero.map * len(whole.queries) / (len(whole.queries) - 1))


def test_unknown_ids_are_an_error() -> None:
    ranking, benchmark, _ = random_case(5)
    queries = ("object_000/query/none.jpg", *ranking.query_ids[1:])
    with pytest.raises(OpenIliasError, match="queries of this ranking are not"):
        evaluate(Ranking(queries, ranking.db_ids, ranking.rows, ranking.scores), benchmark, Protocol())
    images = ("object_000/pos/none.jpg", *ranking.db_ids[1:])
    with pytest.raises(OpenIliasError, match="database ids are not"):
        evaluate(Ranking(ranking.query_ids, images, ranking.rows, ranking.scores), benchmark, Protocol())


def test_k_and_compat_change_the_outcome() -> None:
    ranking, benchmark, _ = random_case(0)

    def result(**fields: object) -> Evaluation:
        return evaluate(ranking, benchmark, Protocol.model_validate(fields))

    assert result(k=1).map != result(k=1000).map
    assert result(compat="official").oracle != result().oracle


def test_short_lists_are_padded() -> None:
    ranking, benchmark, _ = random_case(7)
    rows, scores = ranking.rows.copy(), ranking.scores.copy()
    rows[0, 2:], scores[0, 2:] = ABSENT, -np.inf
    short = evaluate(Ranking(ranking.query_ids, ranking.db_ids, rows, scores), benchmark, Protocol())
    line = next(q for q in short.queries if q.query_id == ranking.query_ids[0])
    wanted = benchmark.relevance[line.object]
    ids = ranking.ids_of(0)[:2]
    assert line.ap == pytest.approx(
        sklearn_twin(ranking.scores[0, :2].tolist(), [i in wanted for i in ids], len(wanted), 1000)
    )
