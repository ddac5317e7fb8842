"""The linear map of an adaptation, as pure algebra: normalise(W x + b)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from threading import Lock

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from openilias.core.errors import OpenIliasError
from openilias.core.executors import usable_cores

TILE_ROWS = 4096
"""Rows of one matrix product. Every product has this shape, so the bytes of a row depend on its place in its tile."""

_BLAS = Lock()  # its limit is one for the process: a call that ends must not lift it for one that runs


@dataclass(frozen=True, eq=False)
class LinearMap:
    """Validated and immutable; the arrays are copied.

    Attributes:
        weight: (out, in) float32.
        bias: (out,) float32.

    Raises:
        OpenIliasError: on construction, if the shapes do not fit or a number is not finite.
    """

    weight: npt.NDArray[np.float32]
    bias: npt.NDArray[np.float32]

    def __post_init__(self) -> None:
        for name in ("weight", "bias"):
            with np.errstate(over="ignore"):
                values = np.array(getattr(self, name), np.float32, order="C")
            values.setflags(write=False)
            object.__setattr__(self, name, values)
        if self.weight.ndim != 2 or 0 in self.weight.shape or self.bias.shape != self.weight.shape[:1]:
            raise OpenIliasError(
                f"A linear map has a weight (out, in) and a bias (out,), not {self.weight.shape} and {self.bias.shape}."
            )
        if not (np.isfinite(self.weight).all() and np.isfinite(self.bias).all()):
            raise OpenIliasError("This linear map has numbers that are not finite.")

    @property
    def inputs(self) -> int:
        """How many dimensions it takes."""
        return int(self.weight.shape[1])

    @property
    def outputs(self) -> int:
        """How many dimensions it gives."""
        return int(self.weight.shape[0])

    @cached_property
    def digest(self) -> str:
        """SHA-256 of shape and numbers, whatever file they came from."""
        digest = hashlib.sha256(f"linear {self.outputs} {self.inputs}\n".encode())
        for values in (self.weight, self.bias):
            digest.update(values.astype("<f4").tobytes())
        return digest.hexdigest()


def _row(row: int) -> str:
    return f"row {row}"


def adapt(
    linear: LinearMap,
    block: npt.NDArray[np.floating],
    first_row: int = 0,
    *,
    workers: int | None = None,
    where: Callable[[int], str] = _row,
) -> npt.NDArray[np.float32]:
    """Return normalise(W x + b) of each row.

    The rows of a shard fall into tiles, ``[t * TILE_ROWS, (t + 1) * TILE_ROWS)``. The rows of a block are put at their
    places in their tiles, with zeros around them, and each tile is one product by one thread: so the bytes depend
    neither on how a shard is cut into blocks nor on ``workers``. Blocks that are cut between tiles cost least.

    Args:
        linear: the map.
        block: (n, in) float16 or float32.
        first_row: the place of its first row in the shard.
        workers: threads, one tile each at a time; all cores by default.
        where: names a row of the shard in a message.

    Returns:
        (n, out) float32, rows of unit norm.

    Raises:
        OpenIliasError: the dimensions differ, or a result is zero or not finite; the first such row is named.
    """
    if block.ndim != 2 or block.shape[1] != linear.inputs:
        raise unfit(linear, block.shape[-1], where(first_row))
    made = np.empty((len(block), linear.outputs), np.float32)

    def fill(tile: int) -> None:
        start = tile * TILE_ROWS - first_row  # of the tile, counted in rows of the block
        rows = slice(max(start, 0), min(start + TILE_ROWS, len(block)))
        inside = slice(rows.start - start, rows.stop - start)
        x = np.zeros((TILE_ROWS, linear.inputs), np.float32)
        x[inside] = block[rows]
        with np.errstate(all="ignore"):  # what is not finite is found below
            y = x @ linear.weight.T
            y += linear.bias
            norms = np.sqrt(np.einsum("ij,ij->i", y, y, dtype=np.float64)).astype(np.float32)[inside]
            np.divide(y[inside], norms[:, None], out=made[rows])
        bad = np.flatnonzero(~((norms > 0) & (norms < np.inf)))
        if len(bad):
            what = "zero, which has no direction" if norms[bad[0]] == 0 else "not finite"
            raise OpenIliasError(
                f"This descriptor becomes {what}, when it is adapted.",
                where=where(first_row + rows.start + int(bad[0])),
                fix="Make the descriptors again, or give another adaptation.",
            )

    tiles = range(first_row // TILE_ROWS, -(-(first_row + len(block)) // TILE_ROWS))
    threads = min(workers or usable_cores(), len(tiles))
    with _BLAS, threadpool_limits(1, user_api="blas"):
        if threads <= 1:
            for tile in tiles if len(block) else ():
                fill(tile)
        else:
            with ThreadPoolExecutor(threads) as pool:
                for _ in pool.map(fill, tiles):
                    pass
    return made


def unfit(linear: LinearMap, dims: int, where: str) -> OpenIliasError:
    """Return the error of descriptors that have other dimensions than the map takes."""
    return OpenIliasError(
        f"This adaptation takes {linear.inputs} dimensions, these descriptors have {dims}.",
        where=where,
        fix="Give the adaptation that was trained on descriptors of this model.",
    )
