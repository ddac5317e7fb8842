"""Triton kernels of the exact search: the first pass fused with its filter, and float64 inner products of pairs.

Import only where Triton is there. With ``TRITON_INTERPRET=1`` in the environment they run, slowly, on a CPU.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

WORD = 32
"""Survivors are listed as words: a row, and a bit for each of so many queries."""


@dataclass(frozen=True)
class Tile:
    """What one program multiplies, and how.

    Attributes:
        rows: rows of the database, a power of two.
        queries: queries, a power of two, at least 32.
        bytes: of each row at a time; dimensions are these over the size of a code.
        warps: that share the work.
        stages: of the pipeline that loads.
    """

    rows: int
    queries: int
    bytes: int
    warps: int
    stages: int


TILES = (
    Tile(128, 256, 128, 8, 4),
    Tile(128, 128, 128, 4, 3),
    Tile(256, 128, 128, 8, 4),
    Tile(128, 128, 64, 4, 3),
    Tile(64, 64, 64, 4, 2),
)
"""The first three are for Hopper; the last fits everywhere."""


@triton.jit
def _keep_words(  # type: ignore[no-untyped-def]  # Triton reads annotations, and knows no others
    rows,
    queries,
    own,
    other,
    lift,
    size,
    rest,
    bars,
    words,
    counter,
    count_rows,
    count_queries,
    dims,
    capacity,
    WHOLE: tl.constexpr,
    ROWS: tl.constexpr,
    QUERIES: tl.constexpr,
    DIMS: tl.constexpr,
    GROUP: tl.constexpr,
):
    # Programs that run at once share rows and queries in the cache: GROUP tiles of rows with all queries.
    program = tl.program_id(0)
    tiles, wide = tl.cdiv(count_rows, ROWS), tl.cdiv(count_queries, QUERIES)
    first = program // (GROUP * wide) * GROUP
    height = tl.minimum(tiles - first, GROUP)
    tile = first + program % (GROUP * wide) % height
    column = program % (GROUP * wide) // height

    r = tile * ROWS + tl.arange(0, ROWS)
    q = column * QUERIES + tl.arange(0, QUERIES)
    d = tl.arange(0, DIMS)
    row, query = tl.where(r < count_rows, r, 0), tl.where(q < count_queries, q, 0)
    left = rows + row.to(tl.int64)[:, None] * dims + d[None, :]
    right = queries + query.to(tl.int64)[None, :] * dims + d[:, None]
    total = tl.zeros((ROWS, QUERIES), tl.int32 if WHOLE else tl.float32)
    for start in range(0, dims, DIMS):
        x = tl.load(left, mask=d[None, :] < dims - start, other=0)
        y = tl.load(right, mask=d[:, None] < dims - start, other=0)
        total = tl.dot(x, y, total)
        left += DIMS
        right += DIMS

    upper = total.to(tl.float32)
    upper += tl.load(own + row)[:, None] * tl.load(size + query)[None, :]
    upper += tl.load(other + row)[:, None] * tl.load(rest + query)[None, :]
    reached = upper >= tl.load(bars + query)[None, :] * tl.load(lift + row)[:, None]
    keep = reached & (r < count_rows)[:, None] & (q < count_queries)[None, :]

    bit = tl.arange(0, QUERIES) % 32
    packed = tl.sum(tl.reshape(keep.to(tl.int32) << bit[None, :], (ROWS, QUERIES // 32, 32)), 2)
    some = packed != 0
    nought = tl.zeros((ROWS, QUERIES // 32), tl.int32)
    place = tl.atomic_add(counter + nought, (nought + 1).to(tl.int64), mask=some, sem="relaxed")
    fits = some & (place < capacity)
    word = column * (QUERIES // 32) + tl.arange(0, QUERIES // 32)
    tl.store(words + 3 * place, nought + r[:, None], mask=fits)
    tl.store(words + 3 * place + 1, nought + word[None, :], mask=fits)
    tl.store(words + 3 * place + 2, packed, mask=fits)


def keep_words(
    rows: Tensor,
    queries: Tensor,
    parts: tuple[Tensor, Tensor, Tensor],
    asked: tuple[Tensor, Tensor, Tensor],
    words: Tensor,
    counter: Tensor,
    tile: Tile,
) -> None:
    """List the pairs whose upper bound reaches its bar; their scores are never written.

    Args:
        rows: (M, D) int8, float16, bfloat16 or float32 codes, C order.
        queries: (Q, D), of the same type.
        parts: own, other and lift of the rows: (M,) float32 each.
        asked: size, rest and bars of the queries: (Q,) float32 each. Kept is where
            ``product + own * size + other * rest >= bar * lift``.
        words: (C, 3) int32, written in any order: row, number of a group of 32 queries, a bit for each of them.
        counter: (1,) int64, raised by how many words there are, even if they do not fit into ``words``.
        tile: how the work is cut.
    """
    count, dims = rows.shape
    grid = (triton.cdiv(count, tile.rows) * triton.cdiv(len(queries), tile.queries),)
    constants: dict[str, Any] = {
        "WHOLE": rows.dtype == torch.int8,
        "ROWS": tile.rows,
        "QUERIES": tile.queries,
        "DIMS": tile.bytes // rows.element_size(),
        "GROUP": 16,
        "num_warps": tile.warps,
        "num_stages": tile.stages,
    }
    _keep_words[grid](rows, queries, *parts, *asked, words, counter, count, len(queries), dims, len(words), **constants)


@triton.jit
def _dots(  # type: ignore[no-untyped-def]  # Triton gives its own types
    rows, queries, row, query, out, count, dims, PAIRS: tl.constexpr, DIMS: tl.constexpr
):
    i = tl.program_id(0) * PAIRS + tl.arange(0, PAIRS)
    d = tl.arange(0, DIMS)
    there = i < count
    left = rows + tl.load(row + i, mask=there, other=0).to(tl.int64)[:, None] * dims + d[None, :]
    right = queries + tl.load(query + i, mask=there, other=0).to(tl.int64)[:, None] * dims + d[None, :]
    total = tl.zeros((PAIRS, DIMS), tl.float64)
    for start in range(0, dims, DIMS):
        mask = there[:, None] & (d[None, :] < dims - start)
        x = tl.load(left + start, mask=mask, other=0).to(tl.float64)
        y = tl.load(right + start, mask=mask, other=0).to(tl.float64)
        total += x * y
    tl.store(out + i, tl.sum(total, 1), mask=there)


def dots(rows: Tensor, queries: Tensor, row: Tensor, query: Tensor) -> Tensor:
    """Return the float64 inner products (P,), in some order of summation, of pairs.

    Args:
        rows: (M, D) of any type, C order.
        queries: (Q, D) of any type, C order.
        row: (P,) which rows.
        query: (P,) which queries.
    """
    out = torch.empty(len(row), dtype=torch.float64, device=rows.device)
    if len(row):
        grid = (triton.cdiv(len(row), 16),)
        _dots[grid](rows, queries, row, query, out, len(row), rows.shape[1], PAIRS=16, DIMS=128, num_warps=4)
    return out
