"""The baselines of Table D: PCA whitening, which needs no labels, and learned whitening, which needs matching pairs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from openilias.adapt.labelled import Labelled, Numbers, Rows
from openilias.adapt.linear import LinearMap
from openilias.adapt.moments import Doubles, Moments, moments
from openilias.core.errors import OpenIliasError

ALGORITHM_VERSION = 2
_ROWS = 8192
_LEAST = 1e-11  # of the largest variance: less is rounding of sums in float64


def pca_whitening(of: Moments, dim: int, *, dtype: np.dtype[Any]) -> LinearMap:
    """Return PCA whitening (Jegou and Chum, ECCV 2012): the first axes, each divided by its standard deviation.

    Args:
        of: mean and covariance of the descriptors.
        dim: how many axes.
        dtype: that the descriptors are stored in; an axis along which only its rounding varies is none.

    Raises:
        OpenIliasError: fewer axes than that have any variance.
    """
    values, axes = _varying(of, dim, dtype)
    return _map((axes[:, :dim] / np.sqrt(values[:dim])).T, of.mean)


def learned_whitening(labelled: Labelled, dim: int, *, seed: int) -> LinearMap:
    """Return learned whitening (Mikolajczyk and Matas, ICCV 2007; Radenovic et al., PAMI 2019).

    The differences of matching pairs are made white; then the axes along which all descriptors vary most are taken.
    Each image of a class of two or more makes a pair with another one of its class, drawn at random. Axes along which
    no descriptor varies, as those of dead channels, are left out first.

    Args:
        labelled: descriptors with their classes.
        dim: how many axes.
        seed: of the pairs.

    Raises:
        OpenIliasError: too few pairs, or more dimensions than there are.
    """
    first, second = pairs(labelled.classes, seed=seed)
    rows = Rows(labelled.store)
    spread = moments(_blocks(rows, labelled.rows), rows.dims)
    support = _varying(spread, dim, dtype_of(labelled))[1]
    within = np.zeros((rows.dims, rows.dims))
    total = np.zeros(rows.dims)
    for start in range(0, len(first), _ROWS):
        one = rows.take(labelled.rows[first[start : start + _ROWS]])
        difference = (one - rows.take(labelled.rows[second[start : start + _ROWS]])).astype(np.float64)
        within += difference.T @ difference
        total += one.sum(0, dtype=np.float64)
    values, axes = _axes(support.T @ (within / max(len(first), 1)) @ support)
    least = max(values[0] * _LEAST, _rounding(spread, dtype_of(labelled)))
    if values[-1] <= least:
        raise OpenIliasError(
            f"The {len(first)} matching pairs differ along {int((values > least).sum())} of the {len(values)} axes of "
            "these descriptors.",
            where=labelled.store.folder,
            fix="Give more images of classes with two or more, or --method pcaw, which needs no pairs.",
        )
    whitened = (support @ axes / np.sqrt(values)).T
    mean = total / len(first)
    shifted = spread.mean - mean
    scatter = whitened @ (spread.covariance + np.outer(shifted, shifted)) @ whitened.T
    return _map(_axes(scatter)[1][:, :dim].T @ whitened, mean)


def pairs(classes: Numbers, *, seed: int) -> tuple[Numbers, Numbers]:
    """Return (P,) places of images and of another one of the same class for each, in the order of the images."""
    order = np.argsort(classes, kind="stable")
    _, starts, sizes = np.unique(classes[order], return_index=True, return_counts=True)
    start, size = (np.repeat(values, sizes) for values in (starts, sizes))
    place = np.arange(len(order)) - start
    step = np.random.default_rng([seed, 2]).integers(1, np.maximum(size, 2))
    other = start + (place + step) % size
    matched = size > 1
    first, second = order[matched], order[other[matched]]
    by_image = np.argsort(first)
    return first[by_image].astype(np.int64), second[by_image].astype(np.int64)


def dtype_of(labelled: Labelled) -> np.dtype[Any]:
    """Return the coarsest type that descriptors of the store are kept in."""
    return max((shard.dtype for shard in labelled.store.shards), key=lambda dtype: np.finfo(dtype).eps)


def moments_of(labelled: Labelled) -> Moments:
    """Return the moments of the rows of a store that are learned from."""
    rows = Rows(labelled.store)
    return moments(_blocks(rows, labelled.rows), rows.dims)


def _blocks(rows: Rows, numbers: Numbers) -> Iterator[npt.NDArray[np.float32]]:
    for start in range(0, len(numbers), _ROWS):
        yield rows.take(numbers[start : start + _ROWS])


def _rounding(of: Moments, dtype: np.dtype[Any]) -> float:
    """Return four times the variance that rounding to a type leaves along an axis; of many axes none has more."""
    unit = float(np.finfo(dtype).eps) / 2
    return 4 * unit**2 / 3 * float((np.diag(of.covariance) + of.mean**2).max())


def _varying(of: Moments, dim: int, dtype: np.dtype[Any]) -> tuple[Doubles, Doubles]:
    """Return the variances that are more than rounding, and their axes.

    Raises:
        OpenIliasError: they are fewer than ``dim``.
    """
    values, axes = _axes(of.covariance)
    found = int((values > max(values[0] * _LEAST, _rounding(of, dtype))).sum())
    if not found:
        raise OpenIliasError(f"These {of.count} descriptors are all the same.", fix="Give others.")
    if dim > found:
        raise OpenIliasError(
            f"These {of.count} descriptors vary along {found} axes only, {dim} are wanted.",
            fix=f"Give --dim {found} or less, or more descriptors.",
        )
    return values[:found], axes[:, :found]


def _axes(covariance: Doubles) -> tuple[Doubles, Doubles]:
    """Return variances, the largest first, and the axes as columns, their largest component positive."""
    values, axes = np.linalg.eigh((covariance + covariance.T) / 2)
    values, axes = values[::-1], axes[:, ::-1]
    signs = np.sign(axes[np.abs(axes).argmax(0), np.arange(len(values))])
    return values, axes * signs


def _map(weight: Doubles, mean: Doubles) -> LinearMap:
    return LinearMap(weight.astype(np.float32), (-(weight @ mean)).astype(np.float32))
