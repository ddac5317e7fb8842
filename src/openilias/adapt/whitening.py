"""The baselines of Table D: PCA whitening, which needs no labels, and learned whitening, which needs matching pairs."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from openilias.adapt.labelled import Labelled, Numbers, Rows
from openilias.adapt.linear import LinearMap
from openilias.adapt.moments import Doubles, Moments, moments
from openilias.core.errors import OpenIliasError

ALGORITHM_VERSION = 1
_ROWS = 8192
_LEAST = 1e-9  # of the largest variance: less is rounding


def pca_whitening(of: Moments, dim: int) -> LinearMap:
    """Return PCA whitening (Jegou and Chum, ECCV 2012): the first axes, each divided by its standard deviation.

    Args:
        of: mean and covariance of the descriptors.
        dim: how many axes.

    Raises:
        OpenIliasError: fewer axes than that have any variance.
    """
    values, axes = _axes(of.covariance)
    if dim > len(values) or values[dim - 1] <= values[0] * _LEAST:
        found = int((values > values[0] * _LEAST).sum())
        raise OpenIliasError(
            f"These {of.count} descriptors vary along {found} axes only, {dim} are wanted.",
            fix=f"Give --dim {found} or less, or more descriptors.",
        )
    return _map((axes[:, :dim] / np.sqrt(values[:dim])).T, of.mean)


def learned_whitening(labelled: Labelled, dim: int, *, seed: int) -> LinearMap:
    """Return learned whitening (Mikolajczyk and Matas, ICCV 2007; Radenovic et al., PAMI 2019).

    The differences of matching pairs are made white; then the axes along which all descriptors vary most are taken.
    Each image of a class of two or more makes a pair with another one of its class, drawn at random.

    Args:
        labelled: descriptors with their classes.
        dim: how many axes.
        seed: of the pairs.

    Raises:
        OpenIliasError: too few pairs, or more dimensions than there are.
    """
    if dim > labelled.store.dims:
        raise OpenIliasError(
            f"{dim} dimensions are more than the {labelled.store.dims} of the descriptors.",
            where=labelled.store.folder,
            fix=f"Give --dim {labelled.store.dims} or less.",
        )
    first, second = pairs(labelled.classes, seed=seed)
    rows = Rows(labelled.store)
    within = np.zeros((rows.dims, rows.dims))
    total = np.zeros(rows.dims)
    for start in range(0, len(first), _ROWS):
        one = rows.take(labelled.rows[first[start : start + _ROWS]])
        difference = one - rows.take(labelled.rows[second[start : start + _ROWS]])
        within += difference.T @ difference
        total += one.sum(0, dtype=np.float64)
    values, axes = _axes(within / max(len(first), 1))
    if not len(first) or values[-1] <= values[0] * _LEAST:
        raise OpenIliasError(
            f"{len(first)} matching pairs do not determine {rows.dims} dimensions.",
            where=labelled.store.folder,
            fix="Give more images of classes with two or more, or --method pcaw, which needs no pairs.",
        )
    whitened = (axes / np.sqrt(values)).T
    spread = moments(_blocks(rows, labelled.rows), rows.dims)
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


def moments_of(labelled: Labelled) -> Moments:
    """Return the moments of the rows of a store that are learned from."""
    rows = Rows(labelled.store)
    return moments(_blocks(rows, labelled.rows), rows.dims)


def _blocks(rows: Rows, numbers: Numbers) -> Iterator[npt.NDArray[np.float32]]:
    for start in range(0, len(numbers), _ROWS):
        yield rows.take(numbers[start : start + _ROWS])


def _axes(covariance: Doubles) -> tuple[Doubles, Doubles]:
    """Return variances, the largest first, and the axes as columns, their largest component positive."""
    values, axes = np.linalg.eigh((covariance + covariance.T) / 2)
    values, axes = values[::-1], axes[:, ::-1]
    signs = np.sign(axes[np.abs(axes).argmax(0), np.arange(len(values))])
    return values, axes * signs


def _map(weight: Doubles, mean: Doubles) -> LinearMap:
    return LinearMap(weight.astype(np.float32), (-(weight @ mean)).astype(np.float32))
