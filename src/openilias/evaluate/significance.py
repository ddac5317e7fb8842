"""How sure a mAP is, and whether two models differ: over objects, which are what was drawn.

Queries of one object are not independent: the 1,232 image queries of ILIAS are of 1,000 objects. So objects are
resampled with all their queries (the cluster bootstrap), and in tests the sign of all queries of an object is turned
together. What is estimated stays the mean over queries, as the paper has it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.stats import norm

from openilias.core.errors import OpenIliasError

Interval = Literal["bca", "percentile"]
Floats = npt.NDArray[np.float64]

RESAMPLES = 10_000
_EXACT = 16  # up to so many objects all signs are tried
_BLOCK = 1 << 22  # drawn numbers at a time


@dataclass(frozen=True, eq=False)
class Clusters:
    """The APs of M models, summed by object.

    Attributes:
        objects: O of them.
        sums: (O, M) of the APs of the queries of an object.
        counts: (O,) queries.
    """

    objects: tuple[str, ...]
    sums: Floats
    counts: npt.NDArray[np.int64]

    @property
    def means(self) -> Floats:
        """(M,) mean over all queries."""
        return np.asarray(self.sums.sum(axis=0) / self.counts.sum())


def clusters(objects: Sequence[str], ap: npt.ArrayLike) -> Clusters:
    """Sum by object.

    Args:
        objects: (Q,) of each query.
        ap: (Q, M) of M models, or (Q,) of one.

    Raises:
        OpenIliasError: no query, another number of APs, or one that is no number.
    """
    values = np.asarray(ap, np.float64)
    values = values[:, None] if values.ndim == 1 else values
    if not len(objects) or len(objects) != len(values):
        raise OpenIliasError(f"There are {len(objects)} queries and {len(values)} lines of AP.")
    if not np.isfinite(values).all():
        raise OpenIliasError("An AP is no number.", fix="Evaluate again.")
    names, places = np.unique(np.asarray(objects, object).astype(str), return_inverse=True)
    sums = np.zeros((len(names), values.shape[1]))
    np.add.at(sums, places, values)
    return Clusters(tuple(names.tolist()), sums, np.bincount(places).astype(np.int64))


def bootstrap(found: Clusters, *, resamples: int = RESAMPLES, seed: int = 0) -> Floats:
    """Return (resamples, M) means over the queries of as many objects, drawn with replacement.

    Differences of its columns are those of paired resamples: all models are seen on the same objects.
    """
    rng, count = np.random.default_rng(seed), len(found.objects)
    means = np.empty((resamples, found.sums.shape[1]))
    step = max(1, _BLOCK // count)
    for start in range(0, resamples, step):
        drawn = rng.integers(0, count, (min(step, resamples - start), count))
        weights = _times(drawn, count)
        means[start : start + len(drawn)] = (weights @ found.sums) / (weights @ found.counts)[:, None]
    return means


def _times(drawn: npt.NDArray[np.int64], count: int) -> Floats:
    """Return how often each object was drawn, (B, O)."""
    flat = drawn + count * np.arange(len(drawn))[:, None]
    return np.bincount(flat.ravel(), minlength=drawn.shape[0] * count).reshape(-1, count).astype(np.float64)


def confidence_interval(
    values: Floats, estimate: float, left_out: Floats, *, level: float = 0.95, method: Interval = "bca"
) -> tuple[float, float]:
    """Return the confidence interval of an estimate from its resamples.

    Args:
        values: (B,) of the resamples.
        estimate: of all objects.
        left_out: (O,) the estimate without each object in turn: how skewed it is.
        level: of confidence.
        method: ``bca``, bias-corrected and accelerated (Efron, 1987), or plain ``percentile``.
    """
    tails = np.array([(1 - level) / 2, (1 + level) / 2])
    if method == "bca":
        apart = np.where(np.abs(values - estimate) < 1e-12, 0, np.sign(values - estimate))  # but for the last bits
        below = (np.mean(apart < 0) + np.mean(apart <= 0)) / 2
        away = left_out.mean() - left_out
        spread = float((away**2).sum())
        if 0 < below < 1 and spread > 0:
            acceleration = float((away**3).sum()) / (6 * spread**1.5)
            bias, normal = norm.ppf(below), norm.ppf(tails)
            tails = norm.cdf(bias + (bias + normal) / (1 - acceleration * (bias + normal)))
    low, high = np.quantile(values, tails)
    return float(low), float(high)


def jackknife(found: Clusters) -> Floats:
    """Return (O, M) means without each object in turn; (0, M) if there is only one."""
    if len(found.objects) < 2:
        return np.zeros((0, found.sums.shape[1]))
    return np.asarray((found.sums.sum(axis=0) - found.sums) / (found.counts.sum() - found.counts)[:, None], np.float64)


def permutation_tests(
    differences: npt.ArrayLike, *, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Test whether two models differ, for P pairs of them: p values of paired permutation tests, two-sided.

    If they did not, which of them got which AP of an object would be chance: the sign of its difference, summed over
    its queries, is turned. Where up to 16 objects differ all signs are tried, and the p value is exact; else
    ``resamples`` of them are drawn, the same for all pairs, and p is (1 + as extreme) / (1 + resamples), which never
    is 0.

    Args:
        differences: (O, P) sums over the queries of an object, or (O,) of one pair.
        resamples: that are drawn.
        seed: of their drawing.

    Returns:
        (P,) p values, and (P,) whether each is exact.
    """
    values = np.asarray(differences, np.float64)
    values = values[:, None] if values.ndim == 1 else values
    seen = np.abs(values.sum(axis=0))
    # Sums in another order differ in the last bits.
    least = seen - 1e-12 * np.maximum(1.0, np.abs(values).sum(axis=0))
    exact = (values != 0).sum(axis=0) <= _EXACT
    p = np.empty(values.shape[1])
    for pair in np.flatnonzero(exact):
        some = values[values[:, pair] != 0, pair]
        signs = 1 - 2 * ((np.arange(1 << len(some))[:, None] >> np.arange(len(some))) & 1)
        p[pair] = np.mean(np.abs(signs @ some) >= least[pair])
    drawn = ~exact
    if drawn.any():
        rng, extreme = np.random.default_rng(seed), np.zeros(int(drawn.sum()))
        step = max(1, _BLOCK // len(values))
        for start in range(0, resamples, step):
            turned = 1.0 - 2 * rng.integers(0, 2, (min(step, resamples - start), len(values)), dtype=np.int8)
            extreme += (np.abs(turned @ values[:, drawn]) >= least[drawn]).sum(axis=0)
        p[drawn] = (1 + extreme) / (1 + resamples)
    return p, exact


def holm(p: npt.ArrayLike) -> Floats:
    """Correct p values for their number (Holm, 1979): no assumption on how they depend on each other.

    Args:
        p: (N,).

    Returns:
        (N,) adjusted ones, at most 1.
    """
    values = np.asarray(p, np.float64)
    order = np.argsort(values, kind="stable")
    raised = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1))
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(raised, 1)
    return adjusted
