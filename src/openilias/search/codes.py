"""Compiled loops that write descriptors in low precision, and say how much of each is lost.

A row x becomes ``scale * codes``; ``rest`` is at least ``|x - scale codes| / scale`` and ``size`` at least ``|codes|``:
measured row by row, nothing is assumed about norms. The proofs are in ``docs/exact-search.md``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, types
from numba.extending import overload

MOST, LEAST = 1e150, 1e-150
"""Magnitudes beyond the first are refused; those below the second are zero to a first pass. Only float64 has them."""

REORDER = {"reassoc", "contract", "nsz"}
"""What the compiler may do with sums that only estimate."""


def load(row: Any, line: Any) -> None:
    """Write the values of a stored row (D,) to ``line``; a row of float16 is given as uint16 bits.

    Exact; what is not finite stays so.
    """
    raise NotImplementedError  # compiled below, for each type of row


@overload(load)
def _compile_load(row: Any, line: Any) -> Any:
    def of_float16(row: Any, line: Any) -> None:
        for d in range(len(row)):
            bits = np.uint32(row[d])
            exponent = np.uint32(255 << 23) if bits & np.uint32(0x7C00) == np.uint32(0x7C00) else np.uint32(0)
            size = np.uint32((bits & np.uint32(0x7FFF)) << np.uint32(13)).view(np.float32) * np.float32(2.0**112)
            sign = (bits & np.uint32(0x8000)) << np.uint32(16)
            line[d] = np.uint32(np.float32(size).view(np.uint32) | exponent | sign).view(np.float32)

    def as_it_is(row: Any, line: Any) -> None:
        for d in range(len(row)):
            line[d] = row[d]

    return of_float16 if row.dtype == types.uint16 else as_it_is


def _largest(row: Any) -> Any:
    """Return the largest magnitude of a row; not finite if a value is not."""
    raise NotImplementedError  # compiled below: bits are compared in vectors, floating-point numbers are not


@overload(_largest)
def _compile_largest(row: Any) -> Any:
    def of_float32(row: Any) -> Any:
        most = np.int32(0)
        for d in range(len(row)):
            most = max(most, np.int32(np.float32(row[d]).view(np.int32) & np.int32(0x7FFFFFFF)))
        return np.int32(most).view(np.float32)

    def of_float64(row: Any) -> Any:
        most = np.int64(0)
        for d in range(len(row)):
            most = max(most, np.int64(np.float64(row[d]).view(np.int64) & np.int64(0x7FFFFFFFFFFFFFFF)))
        return np.int64(most).view(np.float64)

    return of_float32 if row.dtype == types.float32 else of_float64


@njit(cache=True, nogil=True)
def _encode_nothing(largest: Any, i: int, codes: Any, scale: Any, rest: Any, size: Any) -> None:
    codes[i, :] = 0
    scale[i], rest[i], size[i] = 1.0, 1e-30 if largest > 0 else 0.0, 0.0


@njit(cache=True, nogil=True, fastmath=REORDER)
def _int8_row(row: Any, inverse: Any, codes: Any) -> tuple[Any, Any]:
    """Round ``row * inverse`` to int8; return the sums of squares of the remainders and of the codes."""
    left, kept = np.float32(0), np.float32(0)
    for d in range(len(row)):
        scaled = np.float32(row[d] * inverse)
        code = np.int32(scaled + (np.float32(0.5) if scaled >= 0 else np.float32(-0.5)))
        rest = scaled - np.float32(code)
        left += rest * rest
        kept += np.float32(code) * np.float32(code)
        codes[d] = np.int8(code)
    return left, kept


@njit(cache=True, nogil=True)
def encode_int8(rows: Any, line: Any, codes: Any, scale: Any, rest: Any, size: Any) -> int:
    """Write each row as ``scale`` times int8 codes, with the norms of what is left and of the codes, in scales.

    Args:
        rows: (M, D) float32, float64, or uint16 bits of float16.
        line: (D,) float32, or float64 for rows of that type: room for one row.
        codes: (M, D) int8, written.
        scale: (M,) float64, written.
        rest: (M,) float32, written: at least ``|x - scale codes| / scale``.
        size: (M,) float32, written: at least ``|codes|``.

    Returns:
        The first row with a value that is not finite, or beyond :data:`MOST`; -1 if there is none.
    """
    dims = rows.shape[1]
    grown, roundings = np.float32(1.001 + dims * 2.0**-23), np.float32(np.sqrt(dims) * 2.0**-14)
    for i in range(len(rows)):
        load(rows[i], line)
        largest = np.float64(_largest(line))
        if not largest <= MOST:
            return i
        if largest < LEAST:
            _encode_nothing(largest, i, codes, scale, rest, size)
            continue
        scale[i] = largest / 127.0
        if 1e-30 < largest < 1e30:
            left, kept = _int8_row(line, np.float32(127.0 / largest), codes[i])
        else:
            left, kept = _int8_row(line, 127.0 / largest, codes[i])
        rest[i] = grown * np.sqrt(left) + roundings
        size[i] = grown * np.sqrt(kept)
    return -1


def _rounded(value: Any, codes: Any) -> Any:
    """Return a float32 value as the type of the codes holds it."""
    raise NotImplementedError  # compiled below, for each type of code


def _packed(rounded: Any, codes: Any) -> Any:
    """Return what is written for a value that :func:`_rounded` returned."""
    raise NotImplementedError  # compiled below, for each type of code


@overload(_rounded)
def _compile_rounded(value: Any, codes: Any) -> Any:
    def to_bfloat16(value: Any, codes: Any) -> Any:
        bits = np.float32(value).view(np.uint32)
        bits = bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))  # to nearest, ties to even
        return np.uint32(bits & np.uint32(0xFFFF0000)).view(np.float32)

    def as_it_is(value: Any, codes: Any) -> Any:
        return value

    return to_bfloat16 if codes.dtype == types.uint16 else as_it_is


@overload(_packed)
def _compile_packed(rounded: Any, codes: Any) -> Any:
    def bits_of(rounded: Any, codes: Any) -> Any:
        return np.uint16(np.float32(rounded).view(np.uint32) >> np.uint32(16))

    def as_it_is(rounded: Any, codes: Any) -> Any:
        return rounded

    return bits_of if codes.dtype == types.uint16 else as_it_is


@njit(cache=True, nogil=True, fastmath=REORDER)
def _float_row(row: Any, factor: Any, codes: Any) -> tuple[Any, Any]:
    """Round ``row * factor``; return the sums of squares of the remainders and of the codes."""
    left, kept = np.float32(0), np.float32(0)
    for d in range(len(row)):
        value = np.float32(row[d] * factor)
        code = _rounded(value, codes)
        left += (value - code) * (value - code)
        kept += code * code
        codes[d] = _packed(code, codes)
    return left, kept


@njit(cache=True, nogil=True)
def encode_float(rows: Any, line: Any, codes: Any, scale: Any, rest: Any, size: Any) -> int:
    """Write each row as a power of two times codes (M, D): float32, or uint16 bits of bfloat16.

    Otherwise as :func:`encode_int8`.
    """
    grown = np.float32(1.001 + rows.shape[1] * 2.0**-23)
    for i in range(len(rows)):
        load(rows[i], line)
        largest = np.float64(_largest(line))
        if not largest <= MOST:
            return i
        if largest < LEAST:
            _encode_nothing(largest, i, codes, scale, rest, size)
            continue
        # With a power of two divided out nothing overflows, and what underflows is below all slack.
        exponent = np.floor(np.log2(largest))
        scale[i] = 2.0**exponent
        if -100 < exponent < 100:
            left, kept = _float_row(line, np.float32(2.0**-exponent), codes[i])
        else:
            left, kept = _float_row(line, 2.0**-exponent, codes[i])
        # Rows of float64 are rounded to float32 on the way, by half a unit in the last place.
        rest[i] = grown * np.sqrt(left) + np.float32(2.0**-23) * np.sqrt(kept)
        size[i] = grown * np.sqrt(kept)
    return -1
