"""Confidence intervals and paired tests against SciPy's, and their coverage by simulation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from openilias.core.errors import OpenIliasError
from openilias.evaluate.significance import (
    Clusters,
    bootstrap,
    clusters,
    confidence_interval,
    holm,
    jackknife,
    permutation_tests,
)


def some(rng: np.random.Generator, objects: int, models: int = 2) -> tuple[list[str], np.ndarray]:
    """Objects of one to four queries, and APs of models that are good at the same ones."""
    names = [f"o{n}" for n in range(objects) for _ in range(int(rng.integers(1, 5)))]
    easy = {name: rng.beta(0.4, 0.7) for name in sorted(set(names))}
    base = np.array([easy[name] for name in names])[:, None]
    return names, np.clip(base + 0.1 * rng.standard_normal((len(names), models)), 0, 1)


def permutation_test(found: Clusters, **options: int) -> tuple[float, bool]:
    p, exact = permutation_tests(found.sums[:, 1] - found.sums[:, 0], **options)
    return float(p[0]), bool(exact[0])


def test_queries_are_summed_by_object() -> None:
    found = clusters(["b", "a", "b"], [[1.0, 0.0], [0.5, 0.25], [0.0, 1.0]])
    assert found.objects == ("a", "b")
    assert found.sums.tolist() == [[0.5, 0.25], [1.0, 1.0]]
    assert found.counts.tolist() == [1, 2]
    assert found.means.tolist() == pytest.approx([0.5, 1.25 / 3])
    assert clusters(["x"], [0.5]).means.tolist() == [0.5]


@pytest.mark.parametrize(("objects", "ap"), [([], []), (["a"], [0.1, 0.2]), (["a"], [float("nan")])])
def test_what_is_no_set_of_queries(objects: list[str], ap: list[float]) -> None:
    with pytest.raises(OpenIliasError):
        clusters(objects, ap)


@pytest.mark.parametrize("method", ["percentile", "bca"])
@pytest.mark.parametrize("objects", [12, 23, 200])
def test_intervals_equal_those_of_scipy(objects: int, method: Any) -> None:
    """The same draws: SciPy resamples places, and the statistic looks their objects up."""
    names, ap = some(np.random.default_rng(objects), objects, 1)
    found = clusters(names, ap)

    def mean(places: np.ndarray, axis: int = -1) -> np.ndarray:
        places = places.astype(int)
        return found.sums[places, 0].sum(axis) / found.counts[places].sum(axis)

    theirs = stats.bootstrap(
        (np.arange(objects),), mean, n_resamples=999, method=method, rng=np.random.default_rng(3), vectorized=True
    )
    values = bootstrap(found, resamples=999, seed=3)[:, 0]
    assert values == pytest.approx(theirs.bootstrap_distribution, abs=1e-12)
    low, high = confidence_interval(values, float(found.means[0]), jackknife(found)[:, 0], method=method)
    assert (low, high) == pytest.approx(tuple(theirs.confidence_interval), abs=1e-9)


def test_resamples_of_models_are_paired_and_blocks_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    names, ap = some(np.random.default_rng(1), 40, 3)
    found, alone = clusters(names, ap), clusters(names, ap[:, 2])
    whole = bootstrap(found, resamples=500, seed=7)
    assert whole[:, 2].tolist() == pytest.approx(bootstrap(alone, resamples=500, seed=7)[:, 0].tolist())
    monkeypatch.setattr("openilias.evaluate.significance._BLOCK", 90)
    assert bootstrap(found, resamples=500, seed=7) == pytest.approx(whole)


@given(st.integers(0, 10_000), st.integers(2, 11))
@settings(max_examples=60, deadline=None)
def test_permutation_tests_equal_those_of_scipy(seed: int, objects: int) -> None:
    rng = np.random.default_rng(seed)
    names, ap = some(rng, objects)
    ap[rng.random(len(ap)) < 0.3] = 0.5  # objects on which they do not differ
    found = clusters(names, np.round(ap, 2))
    p, exact = permutation_test(found)
    theirs = stats.permutation_test(
        (found.sums[:, 0], found.sums[:, 1]),
        lambda x, y, axis: np.round((y - x).sum(axis), 9),
        permutation_type="samples",
        n_resamples=10**9,
        vectorized=True,
    )
    assert exact
    assert p == pytest.approx(min(1.0, theirs.pvalue))


def test_what_is_drawn_is_near_to_what_is_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    names, ap = some(np.random.default_rng(4), 14)
    ap[:, 1] += 0.04
    found = clusters(names, ap)
    right, exact = permutation_test(found)
    assert exact
    monkeypatch.setattr("openilias.evaluate.significance._EXACT", 0)
    drawn, exact = permutation_test(found, resamples=20_000, seed=1)
    assert not exact
    assert drawn == pytest.approx(right, abs=0.01)
    assert permutation_test(found, resamples=20_000, seed=1)[0] == drawn


def test_many_pairs_at_once_are_those_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(8)
    differences = rng.normal(0.1, 0.5, (40, 5))
    differences[10:, 1] = 0  # of ten objects: exact
    p, exact = permutation_tests(differences, resamples=300, seed=3)
    assert exact.tolist() == [False, True, False, False, False]
    one_by_one = [permutation_tests(differences[:, n], resamples=300, seed=3)[0][0] for n in range(5)]
    assert p.tolist() == pytest.approx(one_by_one)
    assert len(set(p.tolist())) > 3
    monkeypatch.setattr("openilias.evaluate.significance._BLOCK", 90)
    assert permutation_tests(differences, resamples=300, seed=3)[0].tolist() == pytest.approx(p.tolist())


def test_models_that_do_not_differ() -> None:
    found = clusters(["a", "b"], [[0.5, 0.5], [0.1, 0.1]])
    assert permutation_test(found) == (1.0, True)


@pytest.mark.parametrize("method", ["percentile", "bca"])
def test_intervals_cover_what_they_should(method: Any) -> None:
    """Of 1,000 intervals of 95 %, about 950 hold the mean of all objects there are."""
    rng = np.random.default_rng(0)
    names, ap = some(rng, 20_000, 1)
    world = clusters(names, ap)
    inside = 0
    for number in range(1000):
        drawn = rng.integers(0, len(world.objects), 120)
        seen = type(world)(tuple(map(str, range(120))), world.sums[drawn], world.counts[drawn])
        values = bootstrap(seen, resamples=600, seed=number)[:, 0]
        low, high = confidence_interval(values, float(seen.means[0]), jackknife(seen)[:, 0], method=method)
        inside += low <= world.means[0] <= high
    assert 925 <= inside <= 970


def test_queries_taken_for_independent_are_too_sure() -> None:
    """The same simulation with each query an object of its own: far fewer than 95 %."""
    rng = np.random.default_rng(0)
    inside = 0
    for number in range(500):
        easy = rng.beta(0.4, 0.7, 60)
        ap = np.repeat(easy, 4)
        seen = clusters([str(n) for n in range(240)], ap)
        values = bootstrap(seen, resamples=400, seed=number)[:, 0]
        low, high = np.quantile(values, [0.025, 0.975])
        inside += low <= 0.4 / 1.1 <= high
    assert inside < 400


def test_a_test_of_nothing_finds_nothing_as_often_as_it_says() -> None:
    rng = np.random.default_rng(5)
    p = []
    for number in range(600):
        names, ap = some(rng, 30)
        p.append(permutation_test(clusters(names, ap), resamples=400, seed=number)[0])
    assert np.mean(np.array(p) <= 0.05) == pytest.approx(0.05, abs=0.03)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_by_its_definition(p: list[float]) -> None:
    found = holm(p)
    order = sorted(range(len(p)), key=lambda n: p[n])
    for place, number in enumerate(order):
        right = max(min(1.0, (len(p) - before) * p[order[before]]) for before in range(place + 1))
        assert found[number] == pytest.approx(right)
