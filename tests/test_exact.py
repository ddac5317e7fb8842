"""Attempts to break the exact search: its bits against those of a float64 twin, under every cut and first pass."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from openilias.core.errors import OpenIliasError
from openilias.search import best as best_module
from openilias.search import exact as exact_module
from openilias.search import scan as scan_module
from openilias.search import together as together_module
from openilias.search.best import Unwanted
from openilias.search.exact import ExactSearch, pair_scores
from openilias.search.exact import topk as search_together
from openilias.search.first_pass import PASSES, is_sound
from openilias.search.scan import CpuScan
from openilias.search.together import is_mapped, together

Found = tuple[np.ndarray, np.ndarray]
SOUND = [name for name, kind in PASSES.items() if is_sound(kind, 64)]
FIRST = [*SOUND, None]
KINDS = [np.float16, np.float32, np.float64, np.int8, np.uint8]
TINY, LARGEST = np.float32(1e-45), np.finfo(np.float32).max


def twin(queries: np.ndarray, database: np.ndarray, k: int) -> Found:
    """All scores as they are defined, all sorted."""
    queries, database = queries.astype(np.float64), database.astype(np.float64)
    total = np.zeros((len(queries), len(database)))
    for d in range(queries.shape[1]):
        total += np.multiply.outer(queries[:, d], database[:, d])
    with np.errstate(over="ignore"):
        scores = total.astype(np.float32) + np.float32(0)
    rows = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return rows.astype(np.int64), np.take_along_axis(scores, rows, axis=1)


def joined(blocks: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([block.astype(np.float64) for block in blocks])


def same(found: Found, right: Found) -> None:
    np.testing.assert_array_equal(found[0], right[0])
    assert found[1].dtype == np.float32
    assert found[1].tobytes() == right[1].tobytes()


def topk(queries: np.ndarray, blocks: Iterable[np.ndarray], k: int, **means: Any) -> Found:
    """Search blocks together and, where there are several, one by one."""
    blocks = list(blocks)
    found = search_together(queries, blocks, k, **means)
    if len(blocks) > 1:
        search, start = ExactSearch(queries, k, **means), 0
        for block in blocks:
            search.add(block, start)
            start += len(block)
        same(search.result(), found)
    return found


def everywhere(queries: np.ndarray, blocks: list[np.ndarray], k: int, threads: tuple[int, ...] = (1, 2)) -> None:
    """Compare every first pass with the twin."""
    right = twin(queries, joined(blocks), k)
    for name in FIRST:
        for count in threads:
            same(topk(queries, blocks, k, threads=count, first_pass=name), right)


@pytest.fixture
def scans(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What kinds of scans were made: whether a guess was tried, and whether it had to be corrected."""
    kinds, original = [], CpuScan.scan

    def counting(self: CpuScan, block: Any, numbers: Any, best: Any, guess: Any, below: Any) -> None:
        second = not np.isnan(below).all()
        kinds.append("corrected" if second else "guessed" if (guess > -np.inf).any() else "plain")
        original(self, block, numbers, best, guess, below)

    monkeypatch.setattr(CpuScan, "scan", counting)
    return kinds


# --- properties ---


def vectors(rng: np.random.Generator, kind: str, count: int, dims: int) -> np.ndarray:
    """Return float64 vectors of one kind of nastiness; those of ``kinds_of_vectors``."""
    x = rng.standard_normal((count, dims))
    if kind == "unit":
        return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-9)
    if kind == "few values":  # ties
        return np.round(x)
    if kind == "copies":
        return x[rng.integers(0, max(count // 4, 1), count)] if count else x
    if kind == "near":  # closer than float32 resolves
        return (x[:1] if count else x) * (1 + rng.integers(0, 4, (count, 1)) * 2.0**-25)
    if kind == "norms":  # of all sizes, in one block
        return x * 10.0 ** rng.uniform(-38, 37, (count, 1))
    if kind == "dimensions":  # of all sizes, in one vector
        return x * 10.0 ** rng.uniform(-20, 18, (1, dims))
    if kind == "subnormal":
        return x * 1e-7 if rng.random() < 0.5 else x * 3e-44
    if kind == "products round to nothing":
        return x * 10.0 ** rng.uniform(-24, -21)
    if kind == "products are infinite":
        return x * 10.0 ** rng.uniform(18, 20, (count, 1))
    if kind == "saturated":
        return np.where(x > 0, 127.0, -127.0) * rng.choice([1.0, 1.0, -1.0], (count, 1))
    if kind == "alternating":
        return np.where(np.arange(dims) % 2, -1.0, 1.0) * rng.choice([1.0, 1 + 2.0**-12], (count, dims))
    if kind == "cancelling":  # all but nothing is left of large terms
        large = rng.choice([1.0, 60000.0], dims)
        half = x[:, : dims // 2] * large[: dims // 2]
        return np.concatenate([half, -half[:, ::-1], x[:, : dims % 2]], axis=1) + x * 1e-6
    return x * (rng.random((count, 1)) < 0.6)  # some are zero


KINDS_OF_VECTORS = [
    *("unit", "few values", "copies", "near", "norms", "dimensions", "subnormal", "products round to nothing"),
    *("products are infinite", "saturated", "alternating", "cancelling", "zeros"),
]


def stored(values: np.ndarray, dtype: Any) -> np.ndarray:
    """Cast to a type; what is out of its range is cut off."""
    limits = np.iinfo(dtype) if np.issubdtype(dtype, np.integer) else np.finfo(dtype)
    return np.clip(values, float(limits.min), float(limits.max)).astype(dtype)


Problem = tuple[np.ndarray, list[np.ndarray], int]


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    """Vectors of mixed kinds and types, cut into blocks."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    dims = draw(st.one_of(st.integers(1, 40), st.sampled_from([63, 64, 65, 127, 500, 512, 1023, 2048])))
    kinds = draw(st.lists(st.sampled_from(KINDS_OF_VECTORS), min_size=1, max_size=3))
    types = draw(st.lists(st.sampled_from(KINDS), min_size=1, max_size=2))
    asked = draw(st.integers(1, 5) | st.sampled_from([31, 32, 33, 65]))
    blocks = [
        stored(vectors(rng, kinds[n % len(kinds)], count, dims), types[n % len(types)])
        for n, count in enumerate(draw(st.lists(st.integers(0, 90), max_size=5)))
    ]
    if draw(st.booleans()):
        rows = [row for block in blocks for row in block.astype(np.float64)]
        if rows:  # exact copies in another block
            blocks.append(stored(np.array(rows)[rng.integers(0, len(rows), 20)], types[-1]))
    queries = stored(
        vectors(rng, draw(st.sampled_from(kinds + KINDS_OF_VECTORS)), asked, dims), draw(st.sampled_from(KINDS))
    )
    if draw(st.booleans()):
        queries[rng.integers(asked)] = 0
    return queries, blocks, draw(st.integers(1, 12) | st.integers(1, 600))


@given(problems(), st.sampled_from(FIRST), st.sampled_from([1, 2, 5]), st.randoms(use_true_random=False))
@settings(max_examples=200, deadline=None)
def test_any_vectors_in_any_order_of_blocks(problem: Problem, first_pass: Any, threads: int, random: Any) -> None:
    queries, blocks, k = problem
    if not blocks:
        blocks = [np.zeros((0, queries.shape[1]), np.float16)]
    right = twin(queries, joined(blocks), k)
    same(topk(queries, blocks, k, threads=threads, first_pass=first_pass), right)
    starts = np.cumsum([0, *map(len, blocks)])
    everything = list(zip(blocks, starts.tolist(), strict=False))
    random.shuffle(everything)
    search = ExactSearch(queries, k, threads=threads, first_pass=first_pass)
    for block, start in everything:
        if random.random() < 0.5:
            search.add(block, start)
        else:  # rows of a block in any order too
            order = np.array(random.sample(range(len(block)), len(block)), np.int64)
            search.add(block[order], start + order)
    same(search.result(), right)


def finite(dtype: Any, shape: Any) -> st.SearchStrategy[np.ndarray]:
    elements = arrays.from_dtype(np.dtype(dtype), allow_nan=False, allow_infinity=False)
    if dtype == np.float64:
        elements = st.floats(-1e150, 1e150)
    return arrays.arrays(dtype, shape, elements=elements)


@given(st.data(), st.sampled_from(SOUND))
@settings(max_examples=250, deadline=None)
def test_any_values(data: st.DataObject, first_pass: Any) -> None:
    dims = data.draw(st.integers(1, 5))
    queries = data.draw(finite(data.draw(st.sampled_from(KINDS)), (data.draw(st.integers(1, 3)), dims)))
    block = data.draw(finite(data.draw(st.sampled_from(KINDS)), (data.draw(st.integers(0, 12)), dims)))
    k = data.draw(st.integers(1, 13))
    same(topk(queries, [block], k, threads=1, first_pass=first_pass), twin(queries, block, k))


@given(st.integers(0, 2**32 - 1), st.sampled_from(KINDS_OF_VECTORS), st.sampled_from(KINDS[:2]), st.sampled_from(FIRST))
@settings(max_examples=80, deadline=None)
def test_blocks_that_are_sampled(seed: int, kind: str, dtype: Any, first_pass: Any) -> None:
    rng = np.random.default_rng(seed)
    dims = int(rng.integers(1, 40))
    sizes = rng.permutation([int(rng.integers(1024, 4000)), *rng.integers(0, 1200, rng.integers(0, 3))])
    blocks = [stored(vectors(rng, kind, int(size), dims), dtype) for size in sizes]
    if rng.random() < 0.5:  # sorted: a sample of every other row may see the best only
        q = vectors(rng, kind, 1, dims)[0]
        for block in blocks:
            order = np.argsort(np.clip(block.astype(np.float64) @ q, -1e300, 1e300))
            step = max(len(block) // max(min(16384, len(block) // 4), 1), 1)
            places = np.concatenate([np.arange(s, len(block), step) for s in range(step)])
            block[places] = block[order[::-1]]
    queries = stored(vectors(rng, kind, int(rng.integers(1, 5)), dims), dtype)
    k = int(rng.choice([1, 3, 10, 100, 500, 5000]))
    threads = int(rng.choice([1, 2, 5]))
    same(topk(queries, blocks, k, threads=threads, first_pass=first_pass), twin(queries, joined(blocks), k))


@given(st.integers(0, 2**32 - 1), st.sampled_from([np.float16, np.float32]), st.sampled_from(SOUND))
@settings(max_examples=12, deadline=None)
def test_what_is_stored_in_another_layout(seed: int, dtype: Any, first_pass: Any) -> None:
    rng = np.random.default_rng(seed)
    x = stored(vectors(rng, "unit", 200, 24), dtype)
    queries = np.asfortranarray(x[rng.integers(0, 200, 4)])
    for block in (x[::-1], x[::3], np.asfortranarray(x), x.repeat(2, axis=1)[:, ::2]):
        same(topk(queries, [block], 9, first_pass=first_pass), twin(queries, block, 9))
    block = x.copy()
    block.flags.writeable = False
    same(topk(queries, [block], 9, first_pass=first_pass), twin(queries, block, 9))


# --- bounds that are nearly reached ---


def at_the_edge(honest: np.ndarray, evil: np.ndarray, query: np.ndarray, *, blocks: bool) -> None:
    """Search what is approximated well and what is badly approximated, in both orders, in one tile and in two."""
    rng = np.random.default_rng(0)
    fillers = -np.abs(rng.standard_normal((60, len(query)))).astype(honest.dtype) * np.sign(query).astype(honest.dtype)
    queries = np.stack([query, -query])
    cut = [np.concatenate([fillers[:30], honest]), np.concatenate([evil, fillers[30:]])]
    for order in (cut, cut[::-1]):
        data = order if blocks else [np.concatenate(order)]
        for k in (1, len(honest) - 1, len(honest), len(honest) + 1):
            everywhere(queries, data, max(k, 1), threads=(1,))


@pytest.mark.parametrize("dims", [1, 2, 3, 17, 64, 257, 512, 2048])
@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize("turned", [False, True])
def test_int8_codes_lose_as_much_as_they_can_along_the_query(dims: int, sign: int, turned: bool) -> None:
    """The row is +-127 codes and n + 0.49 each, so that its rest is parallel to the query."""
    rng = np.random.default_rng(dims)
    query = np.where(rng.random(dims) < 0.5, -1.0, 1.0)
    evil = np.tile((rng.integers(-120, 120, dims) * query + sign * 0.498) * query, (5, 1))
    evil[:, 0] = 127 * query[0]
    right = twin(query[None], evil[:1], 1)[1][0, 0]
    honest = np.round(evil)
    for row, step in zip(honest, (-(2.0**-12), -(2.0**-14), 0.0, 2.0**-14, 2.0**-12), strict=True):
        for _ in range(3):  # as good as the others up to nearly nothing, without a rest along the query
            change = right * (1 + step * 2.0**-8) - float(row @ query)
            place = int(rng.integers(1, dims)) if dims > 1 else 0
            row[place] += np.clip(change, -1000, 1000) * query[place] if abs(row[place]) < 120 else 0
    if turned:  # the queries lose instead
        for blocks in (False, True):
            data = np.stack([query, query * 127, -query]).astype(np.float32)
            asked = np.concatenate([evil, honest]).astype(np.float32)
            cut = [data[:1], data[1:]] if blocks else [data]
            everywhere(asked, cut, 2, threads=(1,))
        return
    for blocks in (False, True):
        at_the_edge(honest.astype(np.float32), evil.astype(np.float32), query.astype(np.float32), blocks=blocks)


def honest_rows(query: np.ndarray, scores: list[float]) -> np.ndarray:
    """Rows with one value each, where queries are +-1: no precision loses anything of a power of two of it."""
    rows = np.zeros((len(scores), len(query)))
    for row, value in zip(rows, scores, strict=True):
        row[0] = value * query[0]
    return rows


@pytest.mark.parametrize("first_pass", SOUND)
@pytest.mark.parametrize("dims", [2, 64, 255, 512, 2048])
@pytest.mark.parametrize("who", ["rows", "queries"])
@pytest.mark.parametrize("cancels", [False, True])
def test_what_is_underestimated_most_still_enters(first_pass: Any, dims: int, who: str, cancels: bool) -> None:
    """Rests along the other side: with the bound a little smaller the right row would be passed over.

    Where codes cancel, nothing is left but the rests, and no error that is relative to the product can hide them.
    """
    rng = np.random.default_rng(dims)
    plain = np.where(rng.random(dims) < 0.5, -1.0, 1.0)
    turn = np.where(cancels & (np.arange(dims) % 2 == 1), -1.0, 1.0)
    if first_pass == "int8":
        codes = rng.integers(60, 126, dims)
        codes[1::2] = codes[: dims - 1 : 2] if cancels else codes[1::2]
        lossy = (codes * turn + 0.499) * plain / 127
        lossy[0] = plain[0]
    elif first_pass == "bfloat16":
        lossy = (1 + 2.0**-8 * np.where(turn < 0, 1.01, 0.99)) * turn * plain
    else:  # no rest in float32, but sums that are rounded down each time
        lossy = (1 + 2.0**-16 * 0.99) * turn * plain
    lossy = lossy.astype(np.float32).astype(np.float64)
    score, size = float(lossy @ plain), float(np.linalg.norm(lossy) * np.linalg.norm(plain))
    asked, evil = (plain, lossy) if who == "rows" else (lossy, plain)
    # One value, for which every pass is nearly exact, and the evil row is better by little.
    honest = np.zeros(dims)
    honest[0] = (score - size * 2.0**-20) / asked[0]
    for lead in (0, 1, 40):
        first = np.concatenate([np.tile(honest, (3, 1)), -np.tile(asked, (lead, 1))]).astype(np.float32)
        second = np.concatenate([-np.tile(asked, (lead, 1)), evil[None]]).astype(np.float32)
        queries = np.tile(asked, (3, 1)).astype(np.float32)
        for k in (1, 3):
            right = twin(queries, joined([first, second]), k)
            assert right[0][0, 0] == len(first) + lead
            same(topk(queries, [first, second], k, threads=1, first_pass=first_pass), right)


@pytest.mark.parametrize("first_pass", SOUND)
@pytest.mark.parametrize("dims", [1, 2, 64, 333, 2048])
def test_ties_of_rows_that_no_pass_rounds(first_pass: Any, dims: int) -> None:
    """Codes and rests are exact, so that a scale that is a little off would show; scores of both signs, and of none."""
    rng = np.random.default_rng(dims)
    pattern = np.where(rng.random(dims) < 0.5, -1.0, 1.0)
    x = np.tile(pattern, (60, 1)) * rng.choice([0.5, 1.0, 1.0, 2.0], (60, 1))
    queries = np.stack([pattern, -pattern, pattern * 3, -pattern * 2.0**-9, np.zeros(dims)])
    for dtype in (np.float16, np.float32, np.float64):
        for k in (1, 5, 25):
            search = ExactSearch(queries.astype(dtype), k, threads=1, first_pass=first_pass)
            for start in (40, 20, 0):  # the lower rows come later and must win
                search.add(x[start : start + 20].astype(dtype), start)
            same(search.result(), twin(queries, x, k))


@pytest.mark.parametrize("dims", [96, 384, 512, 2048])
def test_float32_sums_that_lose_what_cancels(dims: int) -> None:
    """Large terms first, and again at the end with the other sign: sums of float32 keep nothing of what is between."""
    rng = np.random.default_rng(0)
    rows = np.zeros((300, dims))
    rows[:, 1:-1] = rng.integers(-8, 9, (300, dims - 2)) * 2.0**-14
    rows[:, 0] = 1024.0
    rows[:, -1] = -1024.0
    queries = np.ones((3, dims))
    queries[1, ::2] = -1
    queries[1, [0, -1]] = 1
    queries[2] = 2.0**-10
    for dtype in (np.float16, np.float32):
        everywhere(queries.astype(dtype), [rows[:150].astype(dtype), rows[150:].astype(dtype)], 20)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("dims", [5, 9, 33, 100, 1024])
def test_float64_sums_follow_the_order_of_the_dimensions(dtype: Any, dims: int) -> None:
    """What float64 loses between two large terms depends on the order, and is most of the score."""
    rng = np.random.default_rng(dims)
    large, small = (60000, 2.0**-24) if dtype == np.float16 else (2.0**30, 2.0**5)
    x = rng.integers(-20, 21, (200, dims)) * small
    queries = np.ones((2, dims))
    queries[1, 1::2] = -1
    one, other = dims // 4, dims // 2 + 1
    queries[:, [one, other]] = large
    x[:, one], x[:, other] = large, -large
    x, queries = x.astype(dtype), queries.astype(dtype)
    right = twin(queries, x, 200)
    assert right[1].tobytes() != twin(queries[:, ::-1], x[:, ::-1], 200)[1].tobytes()
    for name in FIRST:
        same(topk(queries, [x], 200, threads=1, first_pass=name), right)


@pytest.mark.parametrize("dims", [256, 640, 2048])
@pytest.mark.parametrize("k", [1, 4])
def test_float32_sums_that_are_rounded_down_every_time(dims: int, k: int) -> None:
    """Each term loses the most that its sum of float32 can lose, and all in one direction."""
    query = np.ones(dims, np.float32)
    for bits in (15, 16, 17, 18):
        evil = np.full(dims, 1 + 2.0**-bits * 0.99, np.float32)
        total = float(evil.astype(np.float64).sum())
        honest = np.ones(dims)
        honest[-1] += total * (1 - 2.0**-21) - dims  # better in float32 by little
        first = np.tile(honest, (k, 1)).astype(np.float32)
        right = twin(query[None], joined([first, evil[None]]), k)
        assert right[0][0, 0] == k
        for name in FIRST:
            same(topk(query[None], [first, evil[None]], k, threads=1, first_pass=name), right)


@pytest.mark.parametrize("dims", [1, 2, 3, 63, 64, 65, 511, 1000, 2048])
def test_int8_products_of_extremes_do_not_saturate(dims: int) -> None:
    rng = np.random.default_rng(0)
    rows = np.where(rng.random((70, dims)) < 0.5, -127, 127).astype(np.int8)
    rows[0], rows[1], rows[2, ::2], rows[2, 1::2] = 127, -127, 127, -127
    rows[3] = -128
    queries = np.concatenate([rows[:4], rows[-3:]])
    everywhere(queries, [rows], 70)
    everywhere(queries.astype(np.float32), [rows.astype(np.float16) / np.float16(127)], 5)
    everywhere(rows[:4].view(np.uint8), [rows.view(np.uint8), rows], 9)


def test_int8_sums_that_int32_does_not_hold() -> None:
    """Of more than 133,000 dimensions: the first pass does something else, or says so."""
    rows = np.ones((40, 140_000), np.float32)
    rows[:20] *= 0.5
    blocks = [rows[:20], rows[20:]]
    with pytest.raises(OpenIliasError, match="not exact enough"):
        topk(rows[-1:], blocks, 3, threads=1, first_pass="int8")
    same(topk(rows[-1:], blocks, 3, threads=1), twin(rows[-1:], rows, 3))


# --- at the ends of float32 ---


def test_scores_that_are_not_zero_only_by_rounding() -> None:
    """Sums between half of the smallest float32 and all of it are rounded up to it, and then tie with it."""
    sizes = np.array([0.3, 0.49, 0.51, 0.75, 1.0, 1.2, 1.49, 1.51, 2.0, -0.3, -0.51, -1.0, 0.0]) * 1.4e-45
    for scale in (1e-22, 1e-10, 1e10):
        queries = np.array([[scale, 0, 0], [scale, 1e-30, 0], [0, 0, 0]])
        rows = np.stack([sizes / scale, np.zeros_like(sizes), np.zeros_like(sizes)], axis=1)
        if scale < 1:  # in float32 too
            for k in range(1, 14, 2):
                for blocks in (np.split(rows.astype(np.float32), 13), np.split(rows[::-1].astype(np.float32), [5])):
                    everywhere(queries.astype(np.float32), list(blocks), k, threads=(1,))
        for blocks in (np.split(rows, 13), np.split(rows[::-1], [5])):
            everywhere(queries, list(blocks), 4, threads=(1,))


def test_scores_that_are_infinite_tie_by_row() -> None:
    top = float(LARGEST)
    rows = np.array([top, top / 2, 1e30, -top, -1e30, 0, 1, top * 0.99999, 3e38, 1e-40]).repeat(3)[:, None]
    for factor in (1.0, 1.0000001, 1.5, 1e5, 1e38, -1.0, -2.0, -1e38):
        queries = np.array([[factor], [1.0]], np.float32)
        for k in (1, 3, 7, 12, 20, 30):
            for cuts in ([], [4, 13]):
                same(
                    topk(queries, np.split(rows.astype(np.float32), cuts), k, threads=1, first_pass="float32"),
                    twin(queries, rows.astype(np.float32), k),
                )
        everywhere(queries, np.split(rows.astype(np.float32), [4, 13]), 12)


@pytest.mark.parametrize("first_pass", FIRST)
def test_sums_that_round_up_to_infinity(first_pass: Any) -> None:
    """The largest float32 and half a unit more: what is rounded up to infinity ties with it."""
    top, half = float(LARGEST), 2.0**103
    rows = np.array([[top, 0.0], [top, 0.49], [top, 0.5], [top, 0.51], [top, 1.0], [top, -1.0], [top, 5.0], [0, 0]])
    rows = rows.repeat(2, axis=0)[[3, 1, 0, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14]].astype(np.float32)
    queries = np.array([[1.0, half], [-1.0, -half], [0.5, half]], np.float32)
    for k in range(1, 17):
        for cuts in ([], [2], [6, 9], range(1, 16)):
            same(topk(queries, np.split(rows, list(cuts)), k, threads=1, first_pass=first_pass), twin(queries, rows, k))


@pytest.mark.parametrize("first_pass", FIRST)
def test_infinite_scores_of_one_query_while_another_is_searched_again(first_pass: Any, scans: list[str]) -> None:
    rng = np.random.default_rng(0)
    x = np.zeros((4096, 3), np.float32)
    x[:, 0] = rng.standard_normal(4096)
    x[::4, 1] = 1 + rng.random(1024)  # the sample: every fourth
    x[100:110, 2] = 3e38
    queries = np.array([[1, 0, 1e10], [0, 1, 0]], np.float32)
    for k in (5, 30, 300):
        for threads in (1, 2):
            same(topk(queries, [x], k, threads=threads, first_pass=first_pass), twin(queries, x, k))
    assert "corrected" in scans


@pytest.mark.parametrize("first_pass", SOUND)
@pytest.mark.parametrize("size", [1e-320, 1e-300, 1e-200, 1e-160, 1e160, 1e200, 1e300])
@pytest.mark.parametrize("both", [False, True])
def test_float64_out_of_any_range_is_right_or_refused(first_pass: Any, size: float, both: bool) -> None:
    rng = np.random.default_rng(0)
    rows = np.abs(rng.standard_normal((40, 6))).clip(0.1, 2) * (size if size > 1e-310 else 1.0)
    rows = rows if size > 1e-310 else rows * 1e-160 * 1e-160
    queries = rows[:3] if both else np.abs(rng.standard_normal((3, 6)))
    if size > 1e155:
        with pytest.raises(OpenIliasError, match=r"\(row 0\), or larger than"):
            topk(queries, [rows], 5, threads=1, first_pass=first_pass)
        with pytest.raises(OpenIliasError, match=r"\(row 3\), or larger than"):
            topk(np.ones((1, 6)), [np.ones((3, 6)), rows], 5, first_pass=first_pass)
        return
    same(topk(queries, [rows], 5, threads=1, first_pass=first_pass), twin(queries, rows, 5))
    mixed = np.concatenate([np.zeros((3, 6)), rows * 1e-3, np.ones((3, 6)), rows, -np.ones((2, 6)) * 1e149])
    same(topk(queries, [mixed], 50, threads=1, first_pass=first_pass), twin(queries, mixed, 50))


@pytest.mark.parametrize("first_pass", FIRST)
def test_rows_of_all_norms_in_one_block(first_pass: Any) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((400, 9))
    x *= 10.0 ** rng.uniform(-38, 37.5, (400, 1))
    x[::50] = 0
    x[1] = 1e-45
    x[2:5] = LARGEST
    for sizes in (1e-38, 1e-20, 1.0, 1e15, 1e38):
        queries = (rng.standard_normal((40, 9)).clip(-3, 3) * sizes).astype(np.float32)
        queries[7] = 0
        for k in (1, 40, 395):
            same(
                topk(queries, [x[:7].astype(np.float32), x[7:].astype(np.float32)], k, first_pass=first_pass),
                twin(queries, x.astype(np.float32), k),
            )


@pytest.mark.parametrize("first_pass", FIRST)
def test_rows_far_below_the_largest_of_their_tile(first_pass: Any) -> None:
    """Scores of both signs, of rows so small beside another one that their bound is given up."""
    for sign in (-1, 1):
        first = np.array([[-2e-38], [-2e-38], [-1e-38]] if sign < 0 else [[1e-38], [1e-38], [2e-38]], np.float32)
        for large in (1e38, -1e38, 1e5, -1e5):
            second = np.array([[large], [sign * 1.5e-38], [0], [sign * 1.0001e-38], [sign * 3e-38]], np.float32)
            for queries in (np.ones((1, 1), np.float32), np.float32([[1e-3], [1e5]])):
                for k in (1, 2, 3, 5):
                    right = twin(queries, joined([first, second]), k)
                    same(topk(queries, [first, second], k, threads=1, first_pass=first_pass), right)


# --- sizes ---


def test_no_rows_and_few_rows() -> None:
    empty = np.zeros((0, 4), np.float16)
    one = np.ones((1, 4), np.float16)
    for blocks in ([], [empty], [empty, empty]):
        rows, scores = topk(one, blocks, 3)
        assert rows.shape == scores.shape == (1, 0)
        assert (rows.dtype, scores.dtype) == (np.int64, np.float32)
    same(topk(one, [empty, one, empty, one, empty], 7), twin(one, np.ones((2, 4)), 7))
    rows, scores = topk(np.zeros((0, 4), np.float16), [one], 3)
    assert len(rows) == len(scores) == 0


@pytest.mark.parametrize("first_pass", FIRST)
@pytest.mark.parametrize("asked", [1, 2, 31, 32, 33, 97])
def test_numbers_of_queries(first_pass: Any, asked: int) -> None:
    """Those that fill up the last lanes find nothing, whatever the scores."""
    rng = np.random.default_rng(asked)
    x = rng.standard_normal((1500, 19)).astype(np.float16)
    x[:, 0] = -9
    queries = -np.abs(rng.standard_normal((asked, 19))).astype(np.float16)
    for k in (1, 50):
        same(topk(queries, [x], k, first_pass=first_pass), twin(queries, x, k))


@pytest.mark.parametrize("first_pass", FIRST)
@pytest.mark.parametrize("columns", [1, 4096])
def test_k_beyond_the_first_room(first_pass: Any, columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Buffers begin with some columns and grow, in the middle of a list too."""
    monkeypatch.setattr(best_module, "_FIRST_ROOM", 8 * 3 * columns)
    rng = np.random.default_rng(0)
    x = np.round(rng.standard_normal((11_000, 6)) * 8).astype(np.float16)
    queries = np.round(rng.standard_normal((3, 6)) * 8).astype(np.float32)
    for k in (4095, 4096, 4097, 6000, 10_999, 11_000, 20_000):
        same(topk(queries, [x], k, threads=2, first_pass=first_pass), twin(queries, x, k))
    same(topk(queries, np.split(x, [10, 5000, 5001]), 7000, threads=5, first_pass=first_pass), twin(queries, x, 7000))


@pytest.mark.parametrize("first_pass", SOUND)
def test_lists_that_overflow_as_everything_survives(
    first_pass: Any, monkeypatch: pytest.MonkeyPatch, scans: list[str]
) -> None:
    monkeypatch.setattr(scan_module, "_LIST", 1)
    rng = np.random.default_rng(0)
    for k in (1, 2, 900):
        for order in (1, -1):  # each row better than all before it, or worse
            x = np.sort(rng.standard_normal(9000))[::order, None].astype(np.float32)
            queries = np.array([[1.0], [-2.0], [0.0]], np.float32)
            blocks = np.split(x, np.arange(1000, 9000, 1000))
            same(topk(queries, blocks, k, threads=1, first_pass=first_pass), twin(queries, x, k))
            same(topk(queries, [x], k, threads=2, first_pass=first_pass), twin(queries, x, k))
    same(topk(queries, [np.ones_like(x)], 7, first_pass=first_pass), twin(queries, np.ones_like(x), 7))


def test_k_so_small_that_much_is_forgotten() -> None:
    """Every row is better than all before it: lists fill up again and again."""
    x = np.arange(1, 60_001, dtype=np.float32)[:, None]
    queries = np.array([[1.0], [-1.0]], np.float32)
    for k in (1, 2, 3):
        for threads in (1, 5):
            found = topk(queries, np.split(x, np.arange(900, 60_000, 900)), k, threads=threads, first_pass="float32")
            same(found, twin(queries, x, k))


# --- the guess ---


@pytest.mark.parametrize("first_pass", FIRST)
@pytest.mark.parametrize("k", [1, 10, 150])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_a_sample_that_misleads_is_corrected(first_pass: Any, k: int, dtype: Any, scans: list[str]) -> None:
    """The best rows stand where the sample is taken, so that what it predicts is too high."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((4000, 12))
    x[:, 0] = np.where(np.arange(4000) % 4 == 0, 5, -5) + rng.standard_normal(4000) * 0.1
    x[::4][rng.permutation(1000)[: 1000 - k // 2]] += [0] * 12
    x = x.astype(dtype)
    queries = np.zeros((35, 12), dtype)
    queries[:, 0] = 1
    queries[1::2] = rng.standard_normal((17, 12)).astype(dtype)  # most of them well predicted
    queries[2] = 0
    # All but a few of the sampled rows are copies of the worst: fewer than k reach what is predicted.
    few = np.sort(rng.choice(1000, 1000 - 3 * k - 30, replace=False)) * 4
    x[few, 0] = -6
    right = twin(queries, x, k)
    for threads in (1, 2, 5):
        same(topk(queries, [x], k, threads=threads, first_pass=first_pass), right)
    assert "guessed" in scans
    lows = x[(np.arange(4000) % 4 != 0) | (x[:, 0] > 0)]
    same(topk(queries, [x[:5], lows, x], k, first_pass=first_pass), twin(queries, joined([x[:5], lows, x]), k))


@pytest.mark.parametrize("first_pass", FIRST)
@pytest.mark.parametrize("k", [1, 7, 60])
def test_whatever_a_sample_says(first_pass: Any, k: int, scans: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The true score of the last place, a bit more or less, more than any score, what is no number."""
    rng = np.random.default_rng(k)
    x = np.round(rng.standard_normal((1400, 5)) * 2).astype(np.float16)
    queries = np.round(rng.standard_normal((40, 5)) * 2).astype(np.float16)
    queries[3] = 0
    right = twin(queries, x, k)
    kth, some = right[1][:, -1], rng.random(40) < 0.5
    for guess in (
        np.full(40, np.inf),
        kth,
        np.nextafter(kth, np.float32(np.inf)),
        np.nextafter(kth, np.float32(-np.inf)),
        right[1][:, 0],
        right[1][:, 0] + 1,
        np.where(some, kth + 1, -np.inf),
        np.where(some, kth + 1, kth - 3),
        np.where(some, -np.finfo(np.float32).max, kth + 0.5),
    ):

        def sampled(self: CpuScan, rows: Any, scores: np.ndarray, guess: np.ndarray = guess) -> None:
            scores[:] = guess.astype(np.float32)[:, None]

        monkeypatch.setattr(CpuScan, "sample_scores", sampled)
        for cuts in ([], [3], [100], [2, 1300]):
            same(topk(queries, np.split(x, cuts), k, threads=2, first_pass=first_pass), right)
    assert {"guessed", "corrected"} <= set(scans)


@pytest.mark.parametrize("first_pass", FIRST)
def test_many_ties_at_the_last_place(first_pass: Any, scans: list[str]) -> None:
    rng = np.random.default_rng(0)
    x = np.zeros((6000, 7), np.float32)
    x[:, 0] = 0.7
    x[rng.integers(0, 6000, 40), 1] = 1
    queries = np.array([[1, 0, 0, 0, 0, 0, 0], [0.3, 0.1, 0, 0, 0, 0, 0], [0, 1, 0, 0, 0, 0, 0]], np.float32)
    for k in (1, 39, 41, 500, 2000):
        for cuts in ([], [5], [1, 3000], [5990]):
            same(topk(queries, np.split(x, cuts), k, threads=2, first_pass=first_pass), twin(queries, x, k))
    search = ExactSearch(queries, 100, first_pass=first_pass)
    for start in (4000, 0, 2000):  # the lower rows come later and must win
        search.add(x[start : start + 2000], start)
    same(search.result(), twin(queries, x, 100))
    assert "guessed" in scans


@pytest.mark.parametrize("first_pass", FIRST)
def test_a_tiny_block_before_a_large_one(first_pass: Any, scans: list[str]) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((5000, 16)).astype(np.float16)
    queries = rng.standard_normal((9, 16)).astype(np.float16)
    for k in (1, 5, 30):
        for first in (1, k, k + 1):
            for blocks in ([x[:first], x[first:]], [x[: 5000 - first], x[5000 - first :]]):
                same(topk(queries, blocks, k, first_pass=first_pass), twin(queries, x, k))
        better = (queries.astype(np.float64).sum(0)[None] * 3).astype(np.float16)
        same(topk(queries, [better, x], k, first_pass=first_pass), twin(queries, joined([better, x]), k))
    assert {"plain", "guessed"} <= set(scans)


def test_small_shards_get_the_fast_pass_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan_module, "_time", lambda rows, asked, *rest: asked.first_pass.name != "int8")
    rng = np.random.default_rng(0)
    x = vectors(rng, "unit", 40_000, 12).astype(np.float16)
    for rows in (20, 5000):
        search = ExactSearch(x[:5], 10)
        search.add_all((x[start : start + rows], range(start, start + rows)) for start in range(0, 40_000, rows))
        assert search.first_pass == "int8"
        same(search.result(), twin(x[:5], x, 10))


def test_the_trial_goes_by_the_scores_that_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a kill the limits are known, and nothing is guessed."""
    monkeypatch.setattr(scan_module, "_TRIAL_ROWS", 1000)
    rng = np.random.default_rng(0)
    x = vectors(rng, "unit", 6000, 24).astype(np.float16)
    first = ExactSearch(x[:9], 10)
    first.add(x[:3000])
    tried: list[np.ndarray] = []

    def noting(rows: Any, asked: Any, limits: Any, halves: bool) -> float:
        tried.append(limits.least[:9].copy())
        return 1.0

    monkeypatch.setattr(scan_module, "_time", noting)
    second = ExactSearch(x[:9], 10)
    second.restore(first.saved())
    second.add(x[3000:], 3000)
    assert tried
    assert all((least > 0.3).all() for least in tried)
    same(second.result(), twin(x[:9], x, 10))


def test_many_queries_share_the_memory_of_a_scan(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exact_module, "_MOST_QUERIES", 16)
    rng = np.random.default_rng(0)
    x = vectors(rng, "unit", 3000, 12).astype(np.float16)
    search, one = ExactSearch(x[:100], 5, threads=2), ExactSearch(x[:16], 5, threads=2)
    search.add_all([(x[:2000], range(2000)), (x[2000:], range(2000, 3000))])
    assert search.most_bytes()["tiles"] == one.most_bytes()["tiles"]
    assert not any(part.scanner._tiles for part in search._parts)  # type: ignore[attr-defined]
    same(search.result(), twin(x[:100], x, 5))


def test_which_blocks_are_searched_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(together_module, "_ROWS", 3000)
    monkeypatch.setattr(together_module, "_SMALL", 400)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((9000, 6)).astype(np.float16)
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    assert is_mapped(mapped)
    assert is_mapped(mapped[3:5][:, ::2])
    assert not is_mapped(x[3:5])
    assert not is_mapped(np.array(mapped))

    def sizes(blocks: list[np.ndarray]) -> list[list[int]]:
        edges = np.cumsum([0, *map(len, blocks)])
        items = [(block, range(a, b)) for block, a, b in zip(blocks, edges, edges[1:], strict=False)]
        lists = list(together(items))
        whole = [piece for pieces in lists for piece in pieces]
        numbers = [number for _, numbers in whole for number in numbers]
        assert sorted(numbers) == list(range(len(numbers)))  # each once, in any order
        for block, its_numbers in whole:
            np.testing.assert_array_equal(block, joined(blocks)[np.asarray(its_numbers)])
        return [[len(block) for block, _ in pieces] for pieces in lists]

    assert sizes(np.split(mapped, 9)) == [[1000] * 3] * 3
    assert sizes([mapped]) == [[9000]]
    assert sizes([]) == []
    assert sizes(np.split(mapped[:1000], 50)) == [[400, 400, 200]]  # of twenty rows each
    assert sizes([mapped[:10], mapped[:1000], mapped[:10].astype(np.float32), mapped[:10]]) == [[10, 1000, 10, 10]]
    monkeypatch.setattr(together_module, "_HELD", 20_000)
    assert sizes(np.split(x, 9)) == [[1000] * 2] * 4 + [[1000]]  # in memory, few are held at once
    queries = x[:7].astype(np.float32)
    right = twin(queries, x, 40)
    for cuts in (9, 450, 4500):
        search = topk if cuts < 1000 else search_together  # one by one, thousands take long
        same(search(queries, np.split(mapped, cuts), 40), right)
        same(search(queries, [*np.split(x[:4500], cuts), x[4500:]], 40), right)


def test_the_fastest_pass_is_chosen_on_a_large_block_and_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan_module, "_TRIAL_ROWS", 3000)
    rng = np.random.default_rng(0)
    x = vectors(rng, "unit", 9000, 33).astype(np.float16)
    queries = x[rng.integers(0, 9000, 20)]
    right = twin(queries, x, 40)
    for chosen in SOUND:
        monkeypatch.setattr(scan_module, "_time", lambda rows, asked, *rest, name=chosen: asked.first_pass.name != name)
        search = ExactSearch(queries, 40)
        assert search.first_pass == "not chosen yet"
        search.add(x[:500])
        search.add(x[500:4500], 500)
        assert search.first_pass == chosen
        search.add(x[4500:], 4500)
        same(search.result(), right)
        assert 20 * 40 <= search.scored <= 20 * 9000


# --- refusals ---


def places(count: int) -> Iterator[int]:
    yield from (0, 1, count // 2, count - 2, count - 1)


@pytest.mark.parametrize("first_pass", FIRST)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_the_row_that_is_not_finite_is_named(first_pass: Any, dtype: Any) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((3 * 1100, 5)).astype(dtype)
    x[7] = 0
    queries = x[:3].copy()
    values = itertools.cycle([np.nan, np.inf, -np.inf, -np.nan])
    for place, value in zip((*places(1100), *range(1100, 3300, 311), 3299), values, strict=False):
        for threads in (1, 5):
            kept, x[place, place % 5] = x[place, place % 5], value
            with pytest.raises(OpenIliasError, match=rf"database is not finite \(row {place}\)"):
                topk(queries, np.split(x, 3), 4, threads=threads, first_pass=first_pass)
            x[place, place % 5] = kept
    x[[3000, 900, 950, 2000], 2] = np.nan
    with pytest.raises(OpenIliasError, match=r"\(row 900\)"):
        topk(queries, np.split(x, 3), 4, threads=5, first_pass=first_pass)
    many = np.ones((4000, 64), dtype)
    many[799::800, 3] = np.inf  # the last row of what each of five threads takes first
    for _ in range(10):
        with pytest.raises(OpenIliasError, match=r"\(row 799\)"):
            topk(many[:1], [many], 4, threads=5, first_pass=first_pass)
    search = ExactSearch(queries, 2, first_pass=first_pass)
    with pytest.raises(OpenIliasError, match=r"\(row 77\)"):
        search.add(x[[1, 2, 900, 3]], np.array([5, 6, 77, 8]))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_the_query_that_is_not_finite_is_named(dtype: Any) -> None:
    for value in (np.nan, np.inf, -np.inf):
        for place in places(40):
            queries = np.ones((40, 3), dtype)
            queries[place, place % 3] = value
            with pytest.raises(OpenIliasError, match=rf"queries is not finite \(row {place}\)"):
                ExactSearch(queries, 1)


def test_what_is_no_search_is_refused() -> None:
    x = np.ones((2, 3), np.float32)
    for queries, k in ((x[0], 1), (x[None], 1), (x, 0), (x, -1)):
        with pytest.raises(OpenIliasError, match="Cannot search"):
            ExactSearch(queries, k)
    for dtype in (np.complex64, np.int16, np.int64, bool, ">f4", object, "U3"):
        with pytest.raises(OpenIliasError, match="descriptors of the"):
            ExactSearch(x.astype(dtype), 1)
        with pytest.raises(OpenIliasError, match="descriptors of the"):
            topk(x, [x.astype(dtype)], 1)
    for block in (x[:, :2], x[0], x[None]):
        with pytest.raises(OpenIliasError, match="dimensions"):
            topk(x, [block], 1)
    with pytest.raises(OpenIliasError, match="too many"):
        ExactSearch(x, 1).add(x, 2**32 - 1)
    search = ExactSearch(x, 1)
    search.add(x, np.int64(2**32 - 2))
    assert search.result()[0].tolist() == [[2**32 - 2], [2**32 - 2]]


def test_pair_scores_are_those_of_the_search() -> None:
    rng = np.random.default_rng(0)
    for kind in KINDS_OF_VECTORS:
        x, q = (stored(vectors(rng, kind, 50, 33), np.float32) for _ in range(2))
        rows, scores = topk(q, [x], 50)
        flat = pair_scores(q.repeat(50, axis=0), x[rows.ravel()])
        assert flat.tobytes() == scores.ravel().tobytes()


# --- what is not wanted, saved states, groups of queries ---


def twin_without(queries: np.ndarray, x: np.ndarray, k: int, unwanted: Unwanted) -> Found:
    """All are sorted, then what is not wanted is left out, and -1 and -inf fill up."""
    rows, scores = twin(queries, x, len(x))
    listed = []
    for q in range(len(queries)):
        kept, seen = [], set()
        for row, value in zip(rows[q].tolist(), scores[q], strict=True):
            content = tuple(x[row].astype(np.float64).tolist())  # 0.0 == -0.0
            own = unwanted.own_rows is not None and row == unwanted.own_rows[q]
            own |= unwanted.own_values is not None and content == tuple(unwanted.own_values[q].tolist())
            if not own and not (unwanted.duplicates and content in seen):
                seen.add(content)
                kept.append((row, value))
        listed.append(kept[:k])
    width = max(map(len, listed), default=0)
    out = np.full((len(queries), width), -1, np.int64), np.full((len(queries), width), -np.inf, np.float32)
    for q, kept in enumerate(listed):
        for place, pair in enumerate(kept):
            out[0][q, place], out[1][q, place] = pair
    return out


@given(st.integers(0, 2**32 - 1), st.sampled_from(FIRST), st.sampled_from(["values", "rows", "neither"]), st.booleans())
@settings(max_examples=60, deadline=None)
def test_what_is_not_wanted_is_as_if_it_were_not_there(seed: int, first_pass: Any, own: str, distinct: bool) -> None:
    rng = np.random.default_rng(seed)
    kind = str(rng.choice(["few values", "copies", "saturated", "alternating", "zeros", "unit"]))
    dims, asked, count = int(rng.integers(1, 9)), int(rng.integers(1, 40)), int(rng.choice([0, 30, 300, 2500]))
    dtype = rng.choice([np.float16, np.float32])
    x = stored(vectors(rng, kind, count, dims), dtype)
    x[rng.random(x.shape) < 0.1] *= 0  # -0.0 too
    queries = stored(vectors(rng, kind, asked, dims), dtype)
    own_rows = np.where(rng.random(asked) < 0.5, rng.integers(0, max(count, 1), asked), -1) if count else None
    if own_rows is not None:
        queries = np.where(own_rows[:, None] >= 0, x[own_rows], queries)
    unwanted = Unwanted(own_rows if own != "neither" else None, queries if own == "values" else None, bool(distinct))
    k, threads = int(rng.choice([1, 2, 10, 100, 3000])), int(rng.choice([1, 5]))
    search = ExactSearch(queries, k, unwanted=unwanted, threads=threads, first_pass=first_pass)
    starts = [0, *np.sort(rng.integers(0, count + 1, 2)).tolist(), count]
    for place in rng.permutation(3):
        search.add(x[starts[place] : starts[place + 1]], starts[place])
        if rng.random() < 0.3:
            saved = search.saved()
            search = ExactSearch(queries, k, unwanted=unwanted, threads=threads, first_pass=first_pass)
            search.restore(saved)
    same(search.result(), twin_without(queries, x, k, unwanted))


def test_groups_of_queries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("openilias.search.exact._MOST_QUERIES", 7)
    rng = np.random.default_rng(0)
    x = vectors(rng, "copies", 1500, 12).astype(np.float16)
    queries = x[rng.integers(0, 1500, 24)]
    everywhere(queries, [x[:200], x[200:]], 30)
    unwanted = Unwanted(np.arange(24) % 5 - 1, queries, True)
    search = ExactSearch(queries, 30, unwanted=unwanted)
    search.add(x[:700])
    again = ExactSearch(queries, 30, unwanted=unwanted)
    again.restore(search.saved())
    again.add(x[700:], 700)
    same(again.result(), twin_without(queries, x, 30, unwanted))
