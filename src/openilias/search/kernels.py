"""Compiled loops of the exact search: the filter over approximate scores, and exact scores.

The bounds they apply are proved in ``docs/exact-search.md``. Loops that only estimate may be reordered by the
compiler (``fastmath``); those that define a score may not.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit, types
from numba.extending import overload

from openilias.search.codes import REORDER, load
from openilias.search.keys import Found, key_of

LANES = 32
"""The filter looks at so many queries at once; their number is padded to a multiple."""
ROWS = 32
"""So many rows are scored together: the queries that they share come from a near cache."""

_LIFT_MOST = np.float32(1e30)
_BAR_MOST = 1e10
_FLOAT32_MOST = np.float32(3.4028234663852886e38)
_SLACK = np.float32(2.0**-18)
"""More than all float32 roundings of one comparison in the filter, relative to ``|q| |x|``."""


class Noted(NamedTuple):
    """Which pairs of some rows survive the filter: bits of :data:`LANES` queries at a time.

    Attributes:
        where: (2, ROWS * Q / LANES) int32: the row times Q / LANES, and the group of queries; in two orders.
        bits: (2, ROWS * Q / LANES) uint32, beside it.
        heads: (Q / LANES + 1,) int32: room to sort them.
    """

    where: Any
    bits: Any
    heads: Any


class TileRows(NamedTuple):
    """The rows of a tile, as the filter needs them; sizes in scales of the row.

    Attributes:
        stored: (M, D) float32, float64, or uint16 bits of float16.
        lines: (ROWS, D) float32, or float64 for rows of that type: room for some rows.
        noted: room for what survives of them.
        numbers: (M,) int64 canonical rows.
        norm: (M,) float64, at least ``|x|``.
        own: (M,) float32: what a unit of ``|q|`` adds to the bound.
        other: (M,) float32: what a unit of the rest of the query adds.
        lift: (M,) float32: the largest scale of the tile over that of the row.
    """

    stored: Any
    lines: Any
    noted: Noted
    numbers: Any
    norm: Any
    own: Any
    other: Any
    lift: Any


class Asked(NamedTuple):
    """The queries, as the filter needs them; sizes in scales of the query.

    Attributes:
        wide: (Q, D) float32 or float64.
        scale: (Q,) float64.
        norm: (Q,) float64, at least ``|q|``.
        size: (Q,) float32, at least ``|q|``.
        rest: (Q,) float32, at least what the codes lose.
    """

    wide: Any
    scale: Any
    norm: Any
    size: Any
    rest: Any


class Limits(NamedTuple):
    """Which scores count.

    Attributes:
        least: (Q,) float32: lower ones do not.
        below: (Q,) float32: those from here on were found before; NaN where none were.
    """

    least: Any
    below: Any


@njit(cache=True, nogil=True)
def _dot_in_order(one: Any, other: Any) -> Any:
    """Return the float64 inner product as it is defined: multiply, then add, dimension after dimension."""
    total = 0.0
    for d in range(len(one)):
        total += np.float64(one[d]) * np.float64(other[d])
    return total


@njit(cache=True, nogil=True)
def score(query: Any, row: Any) -> Any:
    """Return the exact score of a query (D,) and a row (D,), float32 or float64, as it is defined."""
    return np.float32(_dot_in_order(query, row)) + np.float32(0)  # no negative zero


@njit(cache=True, nogil=True)
def doubt_of(reach: float, dims: int, halves: bool) -> float:
    """Bound the difference of two orders of summation of a score with ``|q| |x| <= reach``."""
    return 0.0 if halves and reach < 31.9 else 4.0 * (dims + 2) * 2.0**-53 * reach


@njit(cache=True, nogil=True)
def describe_rows(scale: Any, rest: Any, size: Any, drift: Any, tile: TileRows) -> float:
    """Write ``norm``, ``own``, ``other`` and ``lift`` of a tile; return its largest scale.

    Args:
        scale: (M,) float64; with rest and size as the encoders write them.
        rest: (M,) float32.
        size: (M,) float32.
        drift: error of the summation of products of codes, relative to the product of their norms.
        tile: written.
    """
    largest = 0.0
    for i in range(len(scale)):
        largest = max(largest, scale[i])
    for i in range(len(scale)):
        tile.norm[i] = scale[i] * (np.float64(size[i]) + np.float64(rest[i]))
        tile.own[i] = rest[i] + (drift + _SLACK) * size[i]
        tile.other[i] = size[i]
        lift = largest / scale[i]
        tile.lift[i] = lift
        if lift >= _LIFT_MOST:  # far below the others: not worth a bound
            tile.lift[i] = tile.own[i] = _LIFT_MOST
    return largest


@njit(cache=True, nogil=True)
def bars_of(least: Any, scale: Any, largest: float, bars: Any) -> None:
    """Write what an upper bound must reach, in scales of the query and the largest scale of the tile, rounded down.

    Args:
        least: (Q,) float32 scores that count.
        scale: (Q,) float64 of the queries.
        largest: scale of the tile.
        bars: (Q,) float32, written.
    """
    for q in range(len(least)):
        # What is rounded up to the score counts too.
        below = np.nextafter(min(least[q], _FLOAT32_MOST), np.float32(-np.inf))
        bar = np.float64(below) / scale[q] / largest
        bars[q] = np.nextafter(np.float32(max(min(bar, _BAR_MOST), -_BAR_MOST)), np.float32(-np.inf))


def _as_float32(product: Any) -> Any:
    """Return a product as float32; uint16 are bits of bfloat16."""
    raise NotImplementedError  # compiled below, for each type of product


@overload(_as_float32)
def _compile_as_float32(product: Any) -> Any:
    def from_bfloat16(product: Any) -> Any:
        return np.uint32(np.uint32(product) << np.uint32(16)).view(np.float32)

    def from_number(product: Any) -> Any:
        return np.float32(product)

    return from_bfloat16 if product == types.uint16 else from_number


@njit(cache=True, nogil=True, fastmath=REORDER)
def _any_reach(
    products: Any, i: int, start: int, rounding: Any, own: Any, other: Any, lift: Any, size: Any, rest: Any, bars: Any
) -> bool:
    """Tell whether the upper bound of any of :data:`LANES` products reaches its bar; compiled to vectors."""
    reached = False
    row, first = np.uintp(i), np.uintp(start)  # unsigned: no check for negative places
    for lane in range(LANES):
        q = first + np.uintp(lane)
        product = _as_float32(products[row, q])
        upper = product + rounding * abs(product) + own * size[q] + other * rest[q]
        reached |= upper >= bars[q] * lift
    return reached


@njit(cache=True, nogil=True, fastmath=REORDER)
def _which_reach(
    products: Any, i: int, start: int, rounding: Any, own: Any, other: Any, lift: Any, size: Any, rest: Any, bars: Any
) -> Any:
    """Return a bit for each of :data:`LANES` products whose upper bound reaches its bar; compiled to vectors."""
    reached = np.uint32(0)
    row, first = np.uintp(i), np.uintp(start)  # unsigned: no check for negative places
    for lane in range(LANES):
        q = first + np.uintp(lane)
        product = _as_float32(products[row, q])
        upper = product + rounding * abs(product) + own * size[q] + other * rest[q]
        reached |= np.uint32(upper >= bars[q] * lift) << np.uint32(lane)
    return reached


@njit(cache=True, nogil=True, fastmath=REORDER)
def _dot_of(queries: Any, q: int, lines: Any, i: int) -> Any:
    """Return the float64 inner product of a query and a row, in any order of summation."""
    query, row = np.uintp(q), np.uintp(i)
    total = 0.0
    for d in range(queries.shape[1]):
        total += np.float64(queries[query, np.uintp(d)]) * np.float64(lines[row, np.uintp(d)])
    return total


@njit(cache=True, nogil=True, fastmath=REORDER)
def _dot_of_halves(queries: Any, q: int, lines: Any, i: int) -> Any:
    """The same of values of float16, whose products float32 holds exactly: half as much to widen."""
    query, row = np.uintp(q), np.uintp(i)
    total = 0.0
    for d in range(queries.shape[1]):
        total += np.float64(np.float32(queries[query, np.uintp(d)]) * np.float32(lines[row, np.uintp(d)]))
    return total


@njit(cache=True, nogil=True)
def share_of_survivors(step: int, products: Any, rounding: Any, tile: TileRows, asked: Asked, bars: Any) -> float:
    """Return which share of the pairs survives the filter, by every ``step``-th row; as :func:`survivors`."""
    reached, seen = 0, 0
    for i in range(0, len(products), step):
        line, own, other, bar = products[i], tile.own[i], tile.other[i], tile.lift[i]
        for q in range(len(bars)):
            product = _as_float32(line[q])
            upper = product + rounding * abs(product) + own * asked.size[q] + other * asked.rest[q]
            reached += upper >= bars[q] * bar
        seen += len(bars)
    return reached / max(seen, 1)


@njit(cache=True, nogil=True)
def _note(begin: int, stop: int, products: Any, rounding: Any, tile: TileRows, asked: Asked, bars: Any) -> int:
    """Note which pairs of at most :data:`ROWS` rows survive the filter, and widen their rows; return how many notes."""
    size, rest, where, bits, lines = asked.size, asked.rest, tile.noted.where, tile.noted.bits, tile.lines
    count, groups = 0, products.shape[1] // LANES
    for i in range(begin, stop):
        own, other, lift, before = tile.own[i], tile.other[i], tile.lift[i], count
        for group in range(groups):
            start = group * LANES
            if not _any_reach(products, i, start, rounding, own, other, lift, size, rest, bars):
                continue
            reached = _which_reach(products, i, start, rounding, own, other, lift, size, rest, bars)
            if reached:
                where[0, count], bits[0, count] = (i - begin) * groups + group, reached
                count += 1
        if count > before:
            load(tile.stored[i], lines[i - begin])
    return count


@njit(cache=True, nogil=True)
def _by_group(count: int, groups: int, noted: Noted) -> int:
    """Sort notes by their queries, if there are so many that queries come again; return in which order they are."""
    if count < 2 * groups:
        return 0
    heads = noted.heads
    heads[:] = 0
    for n in range(count):
        heads[noted.where[0, n] % groups + 1] += 1
    for group in range(groups):
        heads[group + 1] += heads[group]
    for n in range(count):
        group = noted.where[0, n] % groups
        noted.where[1, heads[group]], noted.bits[1, heads[group]] = noted.where[0, n], noted.bits[0, n]
        heads[group] += 1
    return 1


@njit(cache=True, nogil=True)
def survivors(
    first: int,
    products: Any,
    rounding: Any,
    tile: TileRows,
    asked: Asked,
    bars: Any,
    limits: Limits,
    halves: bool,
    totals: Any,
    found: Found,
) -> tuple[int, int, int]:
    """Score exactly whatever may reach the scores that count, until the lists are nearly full.

    Args:
        first: the row to begin with.
        products: (M, Q) int32, float32, or uint16 bits of bfloat16: the inner products of the codes.
        rounding: relative error of the products as they were stored.
        tile: the rows.
        asked: the queries.
        bars: (Q,) float32, as :func:`bars_of` writes them.
        limits: which scores count.
        halves: whether both sides were stored as float16.
        totals: (M, Q) float64 inner products, summed in any order; or none, and they are made where they are needed.
        found: written; at least Q long.

    Returns:
        The row to go on with, how many were found, how many were scored.
    """
    count, width = products.shape
    # Unpacked here: views that are made in a loop are counted by the runtime, which costs more than a score.
    norm, queries, lines = asked.norm, asked.wide, tile.lines
    where, bits, groups = tile.noted.where, tile.noted.bits, width // LANES
    least, below, dims = limits.least, limits.below, asked.wide.shape[1]
    at_once = min(ROWS, max(len(found.key) // (2 * width), 1))
    kept, scored = 0, 0
    for begin in range(first, count, at_once):
        stop = min(begin + at_once, count)
        if kept + (stop - begin) * width > len(found.key):
            return begin, kept, scored
        notes = _note(begin, stop, products, rounding, tile, asked, bars)
        order = _by_group(notes, groups, tile.noted)
        for n in range(notes):
            line, start = where[order, n] // groups, where[order, n] % groups * LANES
            i, left = begin + line, bits[order, n]
            while left:
                lowest = left & (~left + np.uint32(1))
                left ^= lowest
                # The place of a single bit is the exponent of the number it stands for.
                q = start + ((np.float64(lowest).view(np.int64) >> 52) - 1023)
                scored += 1
                doubt = doubt_of(tile.norm[i] * norm[q], dims, halves)
                if len(totals):
                    total = totals[i, q]
                elif halves:
                    total = _dot_of_halves(queries, q, lines, line)
                else:
                    total = _dot_of(queries, q, lines, line)
                low, high = np.float32(total - doubt), np.float32(total + doubt)
                if low != high:
                    low = np.float32(_dot_in_order(queries[q], lines[line]))
                value = low + np.float32(0)  # no negative zero
                if value >= least[q] and not value >= below[q]:
                    found.query[kept] = q
                    found.key[kept] = key_of(value, tile.numbers[i])
                    found.place[kept] = i
                    kept += 1
    return count, kept, scored


@njit(cache=True, nogil=True)
def approximate(products: Any, scale: Any, query_scale: Any, out: Any) -> None:
    """Write the scores (Q, M) float32 that products (M, Q) stand for."""
    for start in range(0, len(products), 16):  # so many lines stay in the nearest cache
        stop = min(start + 16, len(products))
        for q in range(len(query_scale)):
            for i in range(start, stop):
                out[q, i] = np.float32(_as_float32(products[i, q]) * (scale[i] * query_scale[q]))
