"""mAP within parts of the database: against searches of the parts themselves."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openilias.core.errors import OpenIliasError
from openilias.evaluate.metrics import average_precision
from openilias.evaluate.subsets import average_precision_within, shuffled


@given(st.integers(1, 3000), st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_every_place_is_taken_once(total: int, seed: int) -> None:
    found = shuffled(np.arange(total), total, seed=seed)
    assert sorted(found.tolist()) == list(range(total))
    some = np.random.default_rng(0).integers(0, total, (3, 5))
    assert (shuffled(some, total, seed=seed) == found[some]).all()


def test_the_order_is_random() -> None:
    total = 100_000_000
    numbers = np.arange(0, total, 997)
    found = shuffled(numbers, total, seed=1)
    assert len(set(found.tolist())) == len(numbers)
    counts = np.histogram(found, 100, (0, total))[0]
    expected = len(numbers) / 100
    assert ((counts - expected) ** 2 / expected).sum() < 150  # chi squared of 99 degrees: 148 has p = 0.001
    assert abs(np.corrcoef(numbers, found)[0, 1]) < 0.01
    assert abs(np.corrcoef(found[1:], found[:-1])[0, 1]) < 0.01
    assert abs(np.corrcoef(found, shuffled(numbers, total, seed=2))[0, 1]) < 0.01


def test_orders_do_not_change_with_the_version() -> None:
    assert shuffled(np.arange(8), 1000, seed=0).tolist() == [43, 852, 672, 260, 802, 227, 809, 778]


def test_numbers_outside() -> None:
    for numbers in ([-1], [5]):
        with pytest.raises(ValueError, match="0 to 4"):
            shuffled(numbers, 5)
    assert shuffled([], 5).shape == (0,)


@st.composite
def searches(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, int, int]:
    """(N,) scores in few levels, which are positives, depth of the list, k."""
    count = draw(st.integers(1, 24))
    levels = draw(st.sampled_from([3, 1000]))
    scores = np.array(draw(st.lists(st.integers(0, levels), min_size=count, max_size=count)), np.float64)
    relevant = np.zeros(count, bool)
    relevant[: draw(st.integers(1, min(count, 5)))] = True
    return scores, relevant, draw(st.integers(1, count)), draw(st.integers(1, 10))


@given(searches(), st.integers(0, 1000), st.sampled_from(["rows", "against"]))
@settings(max_examples=600, deadline=None)
def test_a_cut_list_says_what_it_knows(search: tuple[np.ndarray, np.ndarray, int, int], seed: int, ties: str) -> None:
    """Ties by row, as ours; or the other way round, as files of others may have them."""
    scores, relevant, depth, k = search
    rng, rows = np.random.default_rng(seed), np.arange(len(scores))
    kept = relevant | (rng.random(len(scores)) < rng.random())
    order = np.lexsort((rows if ties == "rows" else -rows, -scores))
    within = order[kept[order]]
    positives = np.array([relevant.sum()])
    right = average_precision(scores[within][None], relevant[within][None], positives, k=k)[0]
    listed = order[:depth]
    found = average_precision_within(
        scores[listed][None],
        relevant[listed][None],
        ~kept[listed][None],
        positives,
        k=k,
        whole=np.array([depth == len(scores)]),
    )
    assert found.low[0] - 1e-12 <= right <= found.high[0] + 1e-12
    if found.settled:
        assert found.low[0] == pytest.approx(right)
    missing = (relevant & kept)[order[depth:]].any()
    if depth == len(scores) or kept[listed].sum() >= k:
        assert found.settled
    if not missing and not relevant[listed[-1]] and len(set(scores.tolist())) == len(scores):
        assert found.settled


def test_ends_are_reached() -> None:
    """One positive found, one not, and a list that ends before k: next, or not within k."""
    scores, relevant = np.array([[0.9, 0.8, 0.7]]), np.array([[True, False, False]])
    found = average_precision_within(
        scores, relevant, np.zeros((1, 3), bool), np.array([2]), k=10, whole=np.array([False])
    )
    assert found.low.tolist() == [0.5]
    assert found.high.tolist() == [pytest.approx((1 + 2 / 4) / 2)]
    assert not found.settled


def test_positives_stay() -> None:
    with pytest.raises(OpenIliasError, match="positive"):
        average_precision_within(
            np.array([[1.0]]), np.array([[True]]), np.array([[True]]), np.array([1]), k=1, whole=np.array([True])
        )
