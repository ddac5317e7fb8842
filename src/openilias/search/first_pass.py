"""The fast approximate products that go before the exact scores on a CPU, and whether they can be trusted there."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from openilias.search.codes import encode_float, encode_int8
from openilias.search.kernels import LANES, Asked

_LINE = 64
_TRIED_QUERIES = 128
_MOST_INT8_DIMS = 100_000  # 127 * 127 * dims stays below 2**31


@dataclass(frozen=True)
class FirstPass:
    """One kind of approximate inner product.

    Attributes:
        name: of it.
        encode: as :func:`openilias.search.codes.encode_int8`.
        code: type of the codes.
        product: type of the products.
        rounding: relative error of the products as they are stored.
        adds_in_float32: whether sums are rounded; else they are exact.
        tile_rows: how many rows are multiplied at once by one thread.
    """

    name: Literal["int8", "bfloat16", "float32"]
    encode: Callable[..., int]
    code: npt.DTypeLike
    product: npt.DTypeLike
    rounding: float
    adds_in_float32: bool
    tile_rows: int

    def drift(self, dims: int) -> float:
        """Bound the error of a sum of ``dims`` products in any order, relative to the product of the norms.

        Higham, Accuracy and Stability, section 3.1; products are rounded too. For once, units of 2**-23 and not
        2**-24: hardware that truncates is then covered as well.
        """
        return (dims + 2) * 2.0**-23 * 1.01 if self.adds_in_float32 else 0.0


PASSES: dict[str, FirstPass] = {
    "int8": FirstPass("int8", encode_int8, np.int8, np.int32, 0.0, False, 1024),
    "bfloat16": FirstPass("bfloat16", encode_float, np.uint16, np.uint16, 2.0**-8, True, 2048),
    "float32": FirstPass("float32", encode_float, np.float32, np.float32, 0.0, True, 1024),
}


def aligned(shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Return an empty array that begins at a line of the cache: products from and to others take twice as long."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    room = np.empty(size + _LINE, np.uint8)
    start = -room.ctypes.data % _LINE
    return room[start : start + size].view(dtype).reshape(shape)


class CodedQueries:
    """Queries as one first pass takes them, with zeros added up to a multiple of :data:`LANES`.

    Args:
        wide: (Q, D) float32 or float64, finite.
        first_pass: which.
    """

    def __init__(self, wide: npt.NDArray[Any], first_pass: FirstPass) -> None:
        count, dims = len(wide) + -len(wide) % LANES, wide.shape[1]
        wide, given = aligned((count, dims), wide.dtype), wide
        wide[: len(given)], wide[len(given) :] = given, 0
        self.first_pass = first_pass
        self.codes = aligned((count, dims), first_pass.code)
        scale, rest, size = (aligned((count,), kind) for kind in (np.float64, np.float32, np.float32))
        first_pass.encode(wide, np.empty(dims, wide.dtype), self.codes, scale, rest, size)
        norm = scale * (size.astype(np.float64) + rest)
        # A query of zeros must not make the bound of a row that is out of range vanish.
        reach = aligned((count,), np.float32)
        np.maximum(size + rest, np.float32(1), out=reach)
        self.asked = Asked(wide, scale, norm, reach, rest)

    @cached_property
    def doubles(self) -> npt.NDArray[np.float64]:
        """The queries as float64."""
        doubles: npt.NDArray[np.float64] = self.asked.wide.astype(np.float64)
        return doubles

    @cached_property
    def _by_dimension(self) -> Any:
        import torch

        return _tensor(self.codes.T, torch).contiguous()

    def multiply(self, codes: npt.NDArray[Any], out: npt.NDArray[Any]) -> None:
        """Write the products of (M, D) codes of rows with those of the queries to ``out`` (M, Q)."""
        if self.first_pass.name == "float32":
            np.matmul(codes, self.codes.T, out=out)
            return
        import torch

        rows, products = _tensor(codes, torch), _tensor(out, torch)
        if self.first_pass.name == "int8":
            torch._int_mm(rows, self._by_dimension, out=products)
        else:
            torch.mm(rows, self._by_dimension, out=products)


def _tensor(array: npt.NDArray[Any], torch: Any) -> Any:
    tensor = torch.from_numpy(array)
    return tensor.view(torch.bfloat16) if array.dtype == np.uint16 else tensor


def is_sound(first_pass: FirstPass, dims: int) -> bool:
    """Try whether products keep to their bounds on this machine: whether they are there, and do not saturate."""
    if first_pass.name == "int8" and dims > _MOST_INT8_DIMS:
        return False
    rng = np.random.default_rng(0)
    # As many rows as are multiplied at once: libraries take other kernels for other shapes.
    queries = rng.standard_normal((_TRIED_QUERIES, dims), np.float32)
    rows = rng.standard_normal((first_pass.tile_rows, dims), np.float32)
    # Extremes of one sign add up, those of two cancel.
    queries[:11], rows[:23] = np.sign(queries[:11]), np.sign(rows[:23])
    queries[0], rows[0], rows[1] = 1, 1, -1
    queries[1, 1::2], rows[2, 1::2] = 2.0**-13, 2.0**-13
    asked = CodedQueries(queries, first_pass)
    coded = CodedQueries(rows, first_pass)
    products = np.empty((len(coded.codes), len(asked.codes)), first_pass.product)
    try:
        asked.multiply(coded.codes, products)
    # This machine, or this version of torch, has no such product.
    except (RuntimeError, NotImplementedError, TypeError):
        return False
    found, right = _numbers(products), _numbers(coded.codes) @ _numbers(asked.codes).T
    norms = np.outer(*(np.linalg.norm(_numbers(side.codes), axis=1) for side in (coded, asked)))
    return bool((np.abs(found - right) <= first_pass.rounding * np.abs(right) + first_pass.drift(dims) * norms).all())


def _numbers(array: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    if array.dtype == np.uint16:
        array = (array.astype(np.uint32) << 16).view(np.float32)
    return array.astype(np.float64)
