"""Global and local similarity together, as in AMES: lambda * global + (1 - lambda) * sigmoid(gamma * local)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field
from scipy.special import expit

from openilias.core.errors import OpenIliasError
from openilias.search.ranking import ABSENT, Ranking

ALGORITHM_VERSION = 2
_LEVEL = 2.0**-12  # between scores of the tail; so many of them are exact in float32

Similarities = npt.NDArray[np.float32]


class Mix(BaseModel):
    """How global and local similarity are put together.

    Attributes:
        shortlist: the first so many images of each list are re-ranked.
        global_weight: lambda.
        gamma: of the sigmoid.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    shortlist: int = Field(default=1000, ge=1)
    global_weight: float = Field(default=0.5, ge=0, le=1)
    gamma: float = Field(default=0.1, gt=0, le=1e6)


def mixed(first: Ranking, local: Similarities, mix: Mix) -> Ranking:
    """Re-rank the shortlist of every query; what comes after it keeps its order.

    Args:
        first: the ranking by global descriptors.
        local: (Q, M) local similarities of the first images of each list, NaN where there is none.
        mix: how.

    Returns:
        A ranking of the same images. Scores of the shortlist are the mixed ones; of the rest only their order means
        something: they lie below.

    Raises:
        OpenIliasError: fewer local similarities than the shortlist takes.
    """
    taken = min(mix.shortlist, first.rows.shape[1])
    if local.shape[0] != len(first.query_ids) or local.shape[1] < taken:
        raise OpenIliasError(
            f"Local similarities of shape {local.shape} are too few for {len(first.query_ids)} lists and a shortlist "
            f"of {taken}.",
            fix="Compute them for a longer shortlist.",
        )
    rows, scores = first.rows.copy(), first.scores.astype(np.float32)
    present = rows[:, :taken] != ABSENT
    if np.isnan(local[:, :taken][present]).any():
        raise OpenIliasError("An image of the shortlist has no local similarity.", fix="Compute them again.")
    together = mix.global_weight * np.where(present, first.scores[:, :taken].astype(np.float64), 0)
    together += (1 - mix.global_weight) * expit(mix.gamma * local[:, :taken].astype(np.float64))
    together = np.where(present, together, -np.inf)
    # Of equal scores the first stays first; what is absent stays last.
    order = np.argsort(-together, axis=1, kind="stable")
    rows[:, :taken] = np.take_along_axis(rows[:, :taken], order, axis=1)
    scores[:, :taken] = _apart(np.take_along_axis(together, order, axis=1))
    for query in range(len(rows)) if taken < rows.shape[1] else ():
        _below(scores[query], taken)
    return Ranking(first.query_ids, first.db_ids, rows, scores, first.db_rows)


def _apart(ordered: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """Round (Q, M) falling scores to float32; what differed before still does, by the least that is possible."""
    rounded = ordered.astype(np.float32)
    bits = rounded.view(np.int32).astype(np.int64)
    places = np.where(bits >= 0, bits, -(bits & 0x7FFFFFFF))  # neighbours differ by one
    steps = np.zeros_like(places)
    with np.errstate(invalid="ignore"):  # what is absent is equal to itself
        steps[:, 1:] = np.cumsum(np.diff(ordered, axis=1) < 0, axis=1)
    lowered = np.minimum.accumulate(places + steps, axis=1) - steps
    lowered = np.where(np.isfinite(ordered), lowered, places)
    back = np.where(lowered >= 0, lowered, (-lowered) | 0x80000000).astype(np.uint32)
    return back.view(np.float32)


def _below(scores: npt.NDArray[np.float32], taken: int) -> None:
    """Put the scores after the shortlist below those of it; equal ones stay equal."""
    tail = scores[taken:]
    known = np.isfinite(tail)
    if not known.any():
        return
    levels = np.cumsum(np.append(1, np.diff(tail[known]) != 0))
    tail[known] = np.floor(scores[taken - 1]) - levels * _LEVEL


@dataclass(frozen=True)
class Tuned:
    """One mix and what it reaches.

    Attributes:
        mix: the mix.
        map: mAP on the benchmark it is tuned on.
    """

    mix: Mix
    map: float


def grid(
    first: Ranking,
    local: Similarities,
    evaluate: Callable[[Ranking], float],
    *,
    shortlists: Iterable[int],
    weights: Iterable[float],
    gammas: Iterable[float],
) -> Iterator[Tuned]:
    """Yield what every mix reaches, all from the same local similarities.

    Args:
        first: the ranking by global descriptors.
        local: as in :func:`mixed`.
        evaluate: a ranking -> its mAP.
        shortlists: lengths of the shortlist.
        weights: lambda.
        gammas: of the sigmoid.
    """
    for shortlist, weight, gamma in product(shortlists, weights, gammas):
        mix = Mix(shortlist=shortlist, global_weight=weight, gamma=gamma)
        yield Tuned(mix, evaluate(mixed(first, local, mix)))


def best_of(tuned: Iterable[Tuned]) -> Tuned:
    """Return the best mix; of equal ones the one that comes first."""
    best: Tuned | None = None
    for one in tuned:
        if best is None or one.map > best.map:
            best = one
    if best is None:
        raise OpenIliasError("There is no mix to choose from.", fix="Give a grid.")
    return best
