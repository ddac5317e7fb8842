"""Models side by side: how sure each mAP is, which differ, by how much, and which queries decide it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from openilias.core.errors import OpenIliasError, first_few
from openilias.evaluate.evaluation import Evaluation
from openilias.evaluate.significance import (
    RESAMPLES,
    Clusters,
    Floats,
    Interval,
    bootstrap,
    clusters,
    confidence_interval,
    holm,
    jackknife,
    permutation_tests,
)

LEVEL = 0.95
_ROUNDING = 1e-9
"""Sums in another order differ in the last bits: such APs are the same."""
Unit = Literal["query", "object"]


@dataclass(frozen=True, eq=False)
class Aligned:
    """The APs of M models on the same things.

    Attributes:
        unit: ``query``; or ``object``, where the models answer other queries of the same objects (images and texts).
        ids: (N,) of the queries, or objects.
        objects: (N,) of each.
        names: (M,) of the models.
        ap: (N, M) in [0, 1]; of an object, the mean of its queries.
    """

    unit: Unit
    ids: tuple[str, ...]
    objects: tuple[str, ...]
    names: tuple[str, ...]
    ap: Floats


@dataclass(frozen=True)
class Standing:
    """A model alone: its mean AP, in [0, 1], and the confidence interval of it; None of fewer than two objects."""

    name: str
    map: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Deciding:
    """A query (or object) on which two models differ: both APs."""

    id: str
    object: str
    a: float
    b: float


@dataclass(frozen=True)
class Pair:
    """Two models, the second against the first.

    Attributes:
        a: name of the first.
        b: name of the second.
        difference: of their mean APs, b - a, in [0, 1].
        low: of its confidence interval; None of fewer than two objects.
        high: of it.
        p: of the paired permutation test.
        exact: whether all permutations were tried.
        adjusted: p after Holm's correction for all pairs of the comparison.
        effect: mean difference of an object over the standard deviation of these (Cohen's d of paired values); None if
            they do not vary.
        better: queries (objects) with a higher AP, by more than rounding.
        worse: with a lower AP.
        same: with the same.
        gain: mean difference of those that are better, 0 if there are none.
        loss: mean difference of those that are worse.
        carried_by: the least number of objects without which the difference is gone; None if there is none.
        deciding: those that differ most, of both signs, by falling size of the difference.
    """

    a: str
    b: str
    difference: float
    low: float | None
    high: float | None
    p: float
    exact: bool
    adjusted: float
    effect: float | None
    better: int
    worse: int
    same: int
    gain: float
    loss: float
    carried_by: int | None
    deciding: tuple[Deciding, ...]


@dataclass(frozen=True, eq=False)
class Comparison:
    """All that is compared.

    Attributes:
        aligned: the APs.
        standings: of the models, as they were given.
        pairs: of models.
        level: of the intervals.
        resamples: of bootstrap and tests.
        seed: of both.
        interval: its method.
    """

    aligned: Aligned
    standings: tuple[Standing, ...]
    pairs: tuple[Pair, ...]
    level: float
    resamples: int
    seed: int
    interval: Interval


def align(evaluations: Mapping[str, Evaluation], *, common: bool = False) -> Aligned:
    """Put the APs of models side by side.

    Where all answer the same queries they are compared query by query. Where none of their queries is the same and
    their objects are, as of images and texts, object by object.

    Args:
        evaluations: by the name of the model.
        common: compare on the queries (objects) that all have, and leave out the others.

    Raises:
        OpenIliasError: they were evaluated differently, or on other queries.
    """
    names, values = tuple(evaluations), tuple(evaluations.values())
    if not values:
        raise OpenIliasError("There is nothing to compare.")
    how = {name: f"AP@{one.protocol.k}, compat {one.compat}" for name, one in evaluations.items()}
    if len(set(how.values())) > 1:
        told = "; ".join(f"{name}: {text}" for name, text in how.items())
        raise OpenIliasError(f"These were not evaluated alike: {told}.", fix="Evaluate them alike, then compare.")
    by_query = [{query.query_id: query.ap for query in one.queries} for one in values]
    by_object = [_by_object(one) for one in values]
    object_of = {query.query_id: query.object for one in values for query in one.queries}
    shared = set.intersection(*map(set, by_query))
    unit: Unit = "query" if shared else "object"
    tables = by_query if shared else by_object
    kept = set.intersection(*map(set, tables))
    others = sorted(set.union(*map(set, tables)) - kept)
    if not kept:
        raise OpenIliasError("These evaluations have no query and no object in common.", fix="Compare one benchmark.")
    if others and not common:
        raise OpenIliasError(
            f"{len(others)} {'queries' if shared else 'objects'} are not in all of these: {first_few(others)}.",
            fix="Compare evaluations of the same queries, or only what they have in common with --common.",
        )
    ids = tuple(sorted(kept))
    ap = np.array([[table[item] for table in tables] for item in ids], np.float64)
    return Aligned(unit, ids, tuple(object_of[item] if shared else item for item in ids), names, ap)


def _by_object(evaluation: Evaluation) -> dict[str, float]:
    found: dict[str, list[float]] = {}
    for query in evaluation.queries:
        found.setdefault(query.object, []).append(query.ap)
    return {name: float(np.mean(values)) for name, values in found.items()}


def compare(
    aligned: Aligned,
    pairs: Sequence[tuple[int, int]],
    *,
    level: float = LEVEL,
    interval: Interval = "bca",
    resamples: int = RESAMPLES,
    seed: int = 0,
    deciding: int = 10,
) -> Comparison:
    """Compare models in pairs.

    Args:
        aligned: their APs.
        pairs: (first, second) columns.
        level: of the intervals.
        interval: their method.
        resamples: of bootstrap and tests.
        seed: of both.
        deciding: how many queries are listed of a pair.
    """
    found = clusters(aligned.objects, aligned.ap)
    values = bootstrap(found, resamples=resamples, seed=seed)
    left_out = jackknife(found)

    def between(resampled: Floats, estimate: float, without: Floats) -> tuple[float, float] | tuple[None, None]:
        if len(without) < 2:
            return None, None
        return confidence_interval(resampled, estimate, without, level=level, method=interval)

    means = found.means
    standings = tuple(
        Standing(name, float(means[n]), *between(values[:, n], float(means[n]), left_out[:, n]))
        for n, name in enumerate(aligned.names)
    )
    first, second = ([pair[side] for pair in pairs] for side in (0, 1))
    sums = found.sums[:, second] - found.sums[:, first]
    p, exact = permutation_tests(sums, resamples=resamples, seed=seed)
    adjusted = holm(p)
    made = []
    for n, (a, b) in enumerate(pairs):
        difference = float(means[b] - means[a])
        low, high = between(values[:, b] - values[:, a], difference, left_out[:, b] - left_out[:, a])
        each = differences_of(aligned, a, b)
        made.append(
            Pair(
                aligned.names[a],
                aligned.names[b],
                difference,
                low,
                high,
                float(p[n]),
                bool(exact[n]),
                float(adjusted[n]),
                effect_size(sums[:, n] / found.counts),
                int((each > 0).sum()),
                int((each < 0).sum()),
                int((each == 0).sum()),
                float(each[each > 0].mean()) if (each > 0).any() else 0.0,
                float(each[each < 0].mean()) if (each < 0).any() else 0.0,
                carried_by(sums[:, n]),
                _deciding(aligned, a, b, deciding),
            )
        )
    return Comparison(aligned, standings, tuple(made), level, resamples, seed, interval)


def differences_of(aligned: Aligned, a: int, b: int) -> Floats:
    """Return (N,) AP of the second less that of the first model; what only rounding tells apart is 0."""
    each = aligned.ap[:, b] - aligned.ap[:, a]
    return np.where(np.abs(each) < _ROUNDING, 0.0, each)


def interval_of(evaluation: Evaluation, *, level: float = LEVEL, seed: int = 0) -> tuple[float, float] | None:
    """Return the confidence interval (BCa) of a mAP, from the queries that it is the mean of; None of one object."""
    found = clusters([query.object for query in evaluation.queries], [query.ap for query in evaluation.queries])
    if len(found.objects) < 2:
        return None
    low, high = intervals(found, level=level, seed=seed)[0].tolist()
    return low, high


def intervals(found: Clusters, *, level: float = LEVEL, resamples: int = RESAMPLES, seed: int = 0) -> Floats:
    """Return (M, 2) confidence intervals (BCa) of the means of M models."""
    values, left_out = bootstrap(found, resamples=resamples, seed=seed), jackknife(found)
    return np.array(
        [
            confidence_interval(values[:, n], float(mean), left_out[:, n], level=level)
            for n, mean in enumerate(found.means)
        ]
    )


def oracle_of_models(aligned: Aligned) -> list[tuple[str, float]]:
    """Return models in the order in which each raises the mean of the best AP per query most, and that mean.

    Args:
        aligned: the APs; of equal gains the first model counts.
    """
    best, found = np.zeros(len(aligned.ids)), []
    left = list(range(len(aligned.names)))
    while left:
        reached = [float(np.maximum(best, aligned.ap[:, n]).mean()) for n in left]
        chosen = left.pop(int(np.argmax(reached)))
        best = np.maximum(best, aligned.ap[:, chosen])
        found.append((aligned.names[chosen], float(best.mean())))
    return found


def effect_size(differences: npt.ArrayLike) -> float | None:
    """Return the mean of paired differences over their standard deviation; None if they do not vary."""
    values = np.asarray(differences, np.float64)
    spread = float(values.std(ddof=1)) if len(values) > 1 else 0.0
    return float(values.mean()) / spread if spread > 1e-12 else None


def carried_by(sums: npt.ArrayLike) -> int | None:
    """Return the least number of objects without which a difference of means is gone, or turned.

    Args:
        sums: (O,) differences, summed over the queries of an object.

    Returns:
        None if there is no difference.
    """
    values = np.asarray(sums, np.float64)
    total = float(values.sum())
    if abs(total) < 1e-12:
        return None
    along = np.sort(values * np.sign(total))[::-1]
    gone = abs(total) - np.cumsum(along) <= 1e-9 * abs(total)
    return int(np.argmax(gone)) + 1 if gone.any() else len(values)


def _deciding(aligned: Aligned, a: int, b: int, most: int) -> tuple[Deciding, ...]:
    each = differences_of(aligned, a, b)
    order = sorted(np.flatnonzero(each), key=lambda n: (-abs(each[n]), aligned.ids[n]))[:most]
    return tuple(
        Deciding(aligned.ids[n], aligned.objects[n], float(aligned.ap[n, a]), float(aligned.ap[n, b])) for n in order
    )
