"""The search on a device finds what the search on the cores finds, bit by bit; PyTorch's CPU stands in for a GPU."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from itertools import chain, pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from openilias.core.errors import OpenIliasError
from openilias.search import exact, gpu, gpu_feed
from openilias.search.best import NOTHING, Best, Unwanted
from openilias.search.exact import ExactSearch, topk
from openilias.search.gpu import DeviceScan
from openilias.search.gpu_feed import Feed
from openilias.search.gpu_pass import CODES, Survivors, TorchFilter, encode, is_sound, products

PASSES = list(CODES)
Result = tuple[np.ndarray, np.ndarray]
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
needs_triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")


class Scans:
    """Lets the search use scanners of a device; they are kept to be looked at."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._patch = monkeypatch
        self.made: list[DeviceScan] = []

    def topk(
        self, queries: np.ndarray, blocks: list, k: int, unwanted: Unwanted = NOTHING, **settings: object
    ) -> Result:
        def make(some: np.ndarray, *_: object) -> DeviceScan:
            self.made.append(DeviceScan(some, **{"device": "cpu", **settings}))  # type: ignore[arg-type]
            return self.made[-1]

        with self._patch.context() as patch:
            patch.setattr(exact, "_scanner", make)
            search, start = ExactSearch(queries, k, unwanted=unwanted), 0
        for block in blocks:
            search.add(block, start)
            start += len(block)
        return search.result()


@pytest.fixture
def scans(monkeypatch: pytest.MonkeyPatch) -> Scans:
    return Scans(monkeypatch)


def same(one: Result, other: Result) -> None:
    assert one[0].tolist() == other[0].tolist()
    assert one[1].tobytes() == other[1].tobytes()


def vectors(rng: np.random.Generator, kind: str, n: int, d: int) -> np.ndarray:
    """Descriptors as they are, and as they should not be."""
    x = rng.standard_normal((n, d))
    if kind == "unit":
        x /= np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-9)
    elif kind == "ties":
        x = np.round(x)
    elif kind == "zeros":
        x[rng.random(n) < 0.5] = 0
    elif kind == "large":
        x *= 9000
    elif kind == "subnormal":
        x *= 1e-6
    elif kind == "mixed":
        x *= 10.0 ** rng.integers(-7, 4, (n, 1))
    elif kind == "copies" and n:
        x = x[rng.integers(0, max(n // 4, 1), n)]
    return x


KINDS = ["unit", "ties", "zeros", "large", "subnormal", "mixed", "copies"]


@st.composite
def problems(draw: st.DrawFn) -> tuple[np.ndarray, list[np.ndarray], int, str, int]:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n, q = draw(st.integers(0, 300)), draw(st.integers(1, 40))
    d = draw(st.sampled_from([1, 2, 3, 7, 16, 17, 32, 65]))
    x = vectors(rng, draw(st.sampled_from(KINDS)), n, d).astype(draw(st.sampled_from([np.float16, np.float32, float])))
    y = vectors(rng, draw(st.sampled_from(KINDS)), q, d).astype(draw(st.sampled_from([np.float16, np.float32, float])))
    cuts = sorted(draw(st.lists(st.integers(0, n), max_size=2)))
    return (
        y,
        np.split(x, cuts),
        draw(st.integers(1, 50)),
        draw(st.sampled_from(PASSES)),
        draw(st.sampled_from([300, 3000, 1 << 23])),
    )


@given(problems())
@settings(max_examples=200, deadline=None)
def test_a_device_finds_what_the_cores_find(case: tuple[np.ndarray, list[np.ndarray], int, str, int]) -> None:
    queries, blocks, k, name, pairs = case
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gpu, "_PAIRS", pairs)
        found = Scans(patch).topk(queries, blocks, k, first_pass=name)
    same(found, topk(queries, blocks, k))


@pytest.mark.parametrize("name", PASSES)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int8, np.uint8])
def test_a_larger_problem_in_many_pieces(scans: Scans, name: str, dtype: type, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    x = vectors(rng, "unit", 20_000, 48) * (100 if np.dtype(dtype).itemsize == 1 else 1)
    x = (np.abs(x) if dtype == np.uint8 else x).astype(dtype)
    queries = x[rng.integers(0, len(x), 30)]
    monkeypatch.setattr(gpu, "_PAIRS", 1 << 14)
    found = scans.topk(queries, [x[:1], x[1:15_000], x[15_000:]], 100, first_pass=name)
    same(found, topk(queries, [x], 100))
    assert scans.made[0].first_pass == name
    assert scans.made[0].scored < 0.1 * len(x) * len(queries)


@pytest.mark.parametrize("factor", [1e-140, 1e-38, 1e-25, 1e-12, 1e12, 1e25, 1e37])
def test_norms_that_are_tiny_or_huge(scans: Scans, factor: float, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    monkeypatch.setattr(gpu, "_PAIRS", 2000)
    queries, x = rng.standard_normal((5, 24)), rng.standard_normal((3000, 24)) * factor
    x[::7] *= 1e-3
    dtypes = [np.float64] if factor == 1e-140 else [np.float32, np.float64]
    for dtype in dtypes:
        for scale in (1.0, 1 / factor, factor if factor > 1e-140 else 1.0):
            asked = (queries * np.clip(scale, 1e-37, 1e37)).astype(dtype)
            for name in PASSES:
                same(scans.topk(asked, [x.astype(dtype)], 10, first_pass=name), topk(asked, [x.astype(dtype)], 10))


def test_sums_whose_order_matters_follow_the_fixed_order(scans: Scans) -> None:
    database = np.full((40, 96), 6e-8, np.float16)
    database[:, 10], database[:, 70] = 60000, -60000
    database[::2] *= np.float16(0.5)
    queries = np.ones((1, 96), np.float16)
    queries[0, [10, 70]] = 60000
    for name in PASSES:
        same(scans.topk(queries, [database], 40, first_pass=name), topk(queries, [database], 40))


def test_a_guess_that_was_too_high_is_made_good(scans: Scans) -> None:
    """The rows that the sample sees are the best of all, but fewer than are wanted."""
    rng = np.random.default_rng(2)
    x = vectors(rng, "unit", 40_000, 16).astype(np.float32)
    queries = vectors(rng, "unit", 6, 16).astype(np.float32)
    step = len(x) // max(len(x) // 16, exact._ENOUGH)
    x[: 2400 * step : step] = queries[3] * np.float32(0.9) + x[: 2400 * step : step] * np.float32(0.01)
    asked: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        scan = DeviceScan.scan

        def counted(self: DeviceScan, block: object, numbers: object, best: Best, guess: object, below: object) -> None:
            asked.append(int((np.asarray(guess) < np.inf).sum()))
            scan(self, block, numbers, best, guess, below)  # type: ignore[arg-type]

        patch.setattr(DeviceScan, "scan", counted)
        found = scans.topk(queries, [x], 4000)
    assert len(asked) == 2
    assert asked[1] < 6
    same(found, topk(queries, [x], 4000))


def test_what_is_not_wanted_is_left_out(scans: Scans) -> None:
    rng = np.random.default_rng(3)
    x = vectors(rng, "copies", 2000, 20).astype(np.float16)
    rows = rng.integers(0, len(x), 12)
    for unwanted in (
        Unwanted(duplicates=True),
        Unwanted(own_rows=rows, own_values=x[rows]),
        Unwanted(rows, x[rows], duplicates=True),
    ):
        search = ExactSearch(x[rows], 25, unwanted=unwanted)
        search.add(x)
        same(scans.topk(x[rows], [x[:700], x[700:]], 25, unwanted), search.result())


def test_tensors_are_searched_where_they_are(scans: Scans) -> None:
    x = vectors(np.random.default_rng(4), "unit", 5000, 33).astype(np.float16)
    wide = torch.zeros((5000, 40), dtype=torch.float16)
    wide[:, :33] = torch.from_numpy(x)
    same(scans.topk(x[:7], [torch.from_numpy(x)], 9), topk(x[:7], [x], 9))
    same(scans.topk(x[:7], [wide[:, :33]], 9), topk(x[:7], [x], 9))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_the_row_that_is_not_finite_is_named(scans: Scans, dtype: type, bad: float) -> None:
    x = vectors(np.random.default_rng(5), "unit", 4000, 12).astype(dtype)
    broken = x.copy()
    broken[[2345, 3000], 7] = bad
    for name in PASSES:
        with pytest.raises(OpenIliasError, match=r"not finite \(row 6345\)"):
            scans.topk(x[:3], [x, broken], 5, first_pass=name)
        with pytest.raises(OpenIliasError, match=r"not finite \(row 2345\)"):
            scans.topk(x[:3], [torch.from_numpy(broken)], 5, first_pass=name)


def test_values_that_are_too_large_are_refused_like_on_the_cores(scans: Scans) -> None:
    x = np.ones((9, 3))
    x[4, 1] = 1e200
    for search in (topk, scans.topk):
        with pytest.raises(OpenIliasError, match=r"row 4\), or larger than 1e\+150"):
            search(np.ones((2, 3)), [x], 5)


def test_choices_that_do_not_exist_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.ones((2, 3), np.float32)
    with pytest.raises(OpenIliasError, match="no first pass 'float8'"):
        DeviceScan(x, device="cpu", first_pass="float8")
    monkeypatch.setattr(gpu, "is_sound", lambda *_: False)
    nothing, nowhere = np.full(2, -np.inf, np.float32), np.full(2, np.nan, np.float32)
    with pytest.raises(OpenIliasError, match="int8 does not work on cpu"):
        DeviceScan(x, device="cpu", first_pass="int8").scan(x, 0, Best(2, 1), nothing, nowhere)


def test_numbers_of_rows_may_be_any(scans: Scans) -> None:
    x = vectors(np.random.default_rng(6), "ties", 500, 4).astype(np.float32)
    numbers = np.random.default_rng(7).permutation(500)
    found, right = DeviceScan(x[:3], device="cpu"), Best(3, 20)
    nothing, nowhere = np.full(3, -np.inf, np.float32), np.full(3, np.nan, np.float32)
    found.scan(x, numbers, right, nothing, nowhere)
    search = ExactSearch(x[:3], 20)
    search.add(x, numbers)
    assert [list(keys) for keys in right.sorted_keys()] == [list(keys) for keys in search._parts[0].best.sorted_keys()]


# --- the first pass ---


@pytest.mark.parametrize("name", PASSES)
def test_a_first_pass_is_sound_only_if_it_keeps_what_it_must(name: str) -> None:
    keep = TorchFilter(1 << 20)

    def forgets(*asked: object) -> Survivors:
        return Survivors(keep(*asked).listed[1:])  # type: ignore[arg-type]

    def all_of_them(rows: object, asked: object, bars: torch.Tensor) -> Survivors:
        return keep(rows, asked, torch.full_like(bars, -torch.inf))  # type: ignore[arg-type]

    def breaks(*_: object) -> Survivors:
        raise RuntimeError("no kernel image")

    assert all(is_sound(name, dims, "cpu", keep) for dims in (1, 3, 48, 513))  # type: ignore[arg-type]
    for unsound in (forgets, all_of_them, breaks):
        assert not is_sound(name, 48, "cpu", unsound)  # type: ignore[arg-type]
    assert not is_sound("int8", 200_000, "cpu", keep)


@pytest.mark.parametrize("name", PASSES)
def test_what_codes_lose_is_within_the_bound(name: str) -> None:
    rng = np.random.default_rng(8)
    x = vectors(rng, "mixed", 400, 31).astype(np.float32)
    rows = encode(torch.from_numpy(x), name)  # type: ignore[arg-type]
    kept = rows.codes[:, :31].double().numpy() / rows.lift.double().numpy()[:, None]
    lost = np.linalg.norm(x - kept, axis=1) * rows.lift.double().numpy()
    assert (lost <= rows.own.numpy()).all()
    assert (np.linalg.norm(x.astype(np.float64), axis=1) <= rows.norm.numpy()).all()


def test_few_rows_of_integers_can_be_multiplied() -> None:
    rng = np.random.default_rng(9)
    for m, n in ((1, 1), (3, 9), (40, 16)):
        a = torch.from_numpy(rng.integers(-127, 128, (m, 32)).astype(np.int8))
        b = torch.from_numpy(rng.integers(-127, 128, (n, 32)).astype(np.int8))
        assert products(a, b).tolist() == (a.long() @ b.long().T).tolist()


def test_the_fastest_first_pass_is_tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    monkeypatch.setattr(gpu, "_TRIAL_PRODUCTS", 1)
    monkeypatch.setattr(gpu, "_FASTEST", {})
    tried: list[str] = []
    seconds = DeviceScan._seconds
    monkeypatch.setattr(
        DeviceScan, "_seconds", lambda self, some, *rest: tried.append(some.name) or seconds(self, some, *rest)
    )
    x = vectors(np.random.default_rng(12), "unit", 3000, 20).astype(np.float32)
    nothing, nowhere = np.full(5, -np.inf, np.float32), np.full(5, np.nan, np.float32)
    for _ in range(2):
        scan, best = DeviceScan(x[:5], device="cpu"), Best(5, 7)
        scan._tried, scan._names = False, ["float32", "int8", "bfloat16"]
        scan.scan(x, 0, best, nothing, nowhere)
        assert scan.first_pass in scan._names
        search = ExactSearch(x[:5], 7)
        search.add(x)
        assert [list(k) for k in best.sorted_keys()] == [list(k) for k in search._parts[0].best.sorted_keys()]
    assert tried == ["float32", "int8", "bfloat16"]


def test_a_sample_says_what_is_likely() -> None:
    x = vectors(np.random.default_rng(13), "unit", 4000, 20).astype(np.float32)
    scan = DeviceScan(x[:6], device="cpu", memory=1 << 20)
    right = np.sort(x[:6].astype(float) @ x[::4].T.astype(float), axis=1)[:, -9]
    for block in (x, torch.from_numpy(x)):
        assert scan.sample([block]) == 16_384
        found = scan.likely([block], 1000, 9)
        assert found is not None
        assert np.allclose(found, right, atol=1e-6)
    x[8] = np.nan
    assert scan.likely([x], 1000, 9) is None


# --- blocks from memory ---


def collected(feed: Feed, items: list) -> list[tuple[np.ndarray, list[int]]]:
    return [(rows.numpy().copy(), list(numbers)) for rows, numbers in feed.stream(items)]


def test_blocks_are_cut_and_joined_in_order(tmp_path: Path) -> None:
    rng = np.random.default_rng(10)
    x = rng.standard_normal((1000, 8)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    cuts = [0, 1, 2, 2, 300, 301, 900, 1000]
    items = [(mapped[a:b], range(a, b)) for a, b in pairwise(cuts)]
    feed = Feed("cpu", 100 * 32)
    for _ in range(2):
        chunks = collected(feed, items)
        assert [len(rows) for rows, _ in chunks] == [100] * 10
        assert np.concatenate([rows for rows, _ in chunks]).tobytes() == x.tobytes()
        assert list(chain.from_iterable(numbers for _, numbers in chunks)) == list(range(1000))
    other = [
        (x[:10], np.arange(50, 60)),
        (x[:5].astype(np.float16), range(5)),
        (x[:7], range(7)),
        (x[:7], range(90, 97)),
    ]
    chunks = collected(feed, other)
    assert [(rows.dtype, len(rows)) for rows, _ in chunks] == [(np.float32, 10), (np.float16, 5), (np.float32, 14)]
    assert chunks[2][1] == [*range(7), *range(90, 97)]


def test_a_stream_that_breaks_or_is_left_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.zeros((50, 4), np.float16)
    feed = Feed("cpu", 80)

    def broken() -> Iterator[tuple[np.ndarray, range]]:
        yield x, range(50)
        raise OpenIliasError("The disk is gone.")

    with pytest.raises(OpenIliasError, match="disk is gone"):
        list(feed.stream(broken()))
    for _ in range(3):
        stream = feed.stream([(x, range(50))] * 100)
        next(stream)
        stream.close()
    assert sum(len(rows) for rows, _ in feed.stream([(x, range(50))])) == 50
    assert not list(feed.stream([]))


def test_a_search_from_files_in_small_buffers(scans: Scans, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x = vectors(np.random.default_rng(11), "unit", 9000, 24).astype(np.float16)
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    monkeypatch.setattr(gpu, "_BUFFER", 4800)
    for name in ("float16", "int8"):
        same(scans.topk(x[:9], [mapped[:4000], mapped[4000:]], 30, first_pass=name), topk(x[:9], [x], 30))
    same(scans.topk(x[:9], [mapped], 30, memory=1 << 18), topk(x[:9], [x], 30))
    assert gpu_feed._DEPTH >= 2


# --- Triton ---

INTERPRETED = """
import numpy as np
from dataclasses import replace
from openilias.search import exact, gpu, triton_kernels as kernels

kernels.TILES = (kernels.Tile(64, 64, 128, 4, 2),)
rng = np.random.default_rng(0)
made = []

def scanner(queries, device, threads, first_pass):
    made.append(gpu.DeviceScan(queries, device="cpu", first_pass=first_pass, kernels="triton"))
    return made[-1]

for dtype, dims, name, words in (  # 540 are what survives of the first piece; 310 are too few
    (np.float16, 32, "float16", 0), (np.float16, 20, "float16", 310),
    (np.float32, 70, "int8", 540), (np.float64, 1, "float32", 310),
):
    x = rng.standard_normal((300, dims)).astype(dtype)
    x[100:120] = x[:20]
    x[120:130] = 0
    q = rng.standard_normal((70, dims)).astype(dtype)
    q[3] = 0
    right = exact.topk(q, [x], 4)
    gpu._WORDS, gpu._PAIRS = (words, 1 << 20) if words else (1 << 20, 4000)
    plain, exact._scanner = exact._scanner, scanner
    search = exact.ExactSearch(q, 4, first_pass=name)
    search.add(x[:180])
    search.add(x[180:], 180)
    found = search.result()
    exact._scanner = plain
    assert found[0].tolist() == right[0].tolist(), (dtype, dims, name)
    assert found[1].tobytes() == right[1].tobytes(), (dtype, dims, name)
    assert type(made[-1]._chosen.keep).__name__ == "TritonFilter"
    assert made[-1]._chosen.exact._kernels == "triton"
    assert made[-1].scored < 0.9 * 70 * 300, made[-1].scored
print("same", [scan.scored for scan in made])
"""

COMPILED = """
import sys, triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from openilias.search import triton_kernels as kernels

def compiled(kernel, types, constants, capability, **options):
    names = [name for name in kernel.arg_names]
    types |= {name: "constexpr" for name in constants}
    aligned = {(i,): [["tt.divisibility", 16]] for i, name in enumerate(names) if types[name][0] == "*"}
    source = ASTSource(kernel, {name: types[name] for name in names}, constants, aligned)
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options).asm["ptx"]

floats = {name: "*fp32" for name in ("own", "other", "lift", "size", "rest", "bars")}
counts = {name: "i32" for name in ("count_rows", "count_queries", "dims", "capacity")}
for code, tile, capability, some in (
    ("fp16", kernels.TILES[0], 90, {}), ("i8", kernels.TILES[1], 90, {}), ("bf16", kernels.TILES[-1], 80, {}),
    ("fp16", kernels.TILES[-1], 86, {"count_rows": 1, "count_queries": 1, "capacity": 1}),
):
    ptx = compiled(
        kernels._keep_words,
        {"rows": "*" + code, "queries": "*" + code, "words": "*i32", "counter": "*i64"} | floats | counts,
        {"WHOLE": code == "i8", "ROWS": tile.rows, "QUERIES": tile.queries, "GROUP": 16,
         "DIMS": tile.bytes // (1 if code == "i8" else 2)} | some,
        capability, num_warps=tile.warps, num_stages=tile.stages,
    )
    assert ("wgmma.mma_async" if capability == 90 else "mma.sync") in ptx, code
compiled(
    kernels._dots,
    {"rows": "*fp16", "queries": "*fp32", "row": "*i64", "query": "*i64", "out": "*fp64"}
    | {"count": "i32", "dims": "i32"},
    {"PAIRS": 16, "DIMS": 128}, 80, num_warps=4,
)
print("compiled")
"""


def run(code: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@needs_triton
def test_the_kernels_in_the_interpreter_of_triton() -> None:
    probe = "import numpy, torch, triton, triton.language as tl\n"
    try:
        run(probe, TRITON_INTERPRET="1")
    except AssertionError:
        pytest.skip("the interpreter of Triton does not work here")
    assert "same" in run(INTERPRETED, TRITON_INTERPRET="1")


@needs_triton
def test_the_kernels_compile_for_tensor_cores_without_a_gpu(tmp_path: Path) -> None:
    if not importlib.util.find_spec("triton.backends.nvidia"):
        pytest.skip("this Triton has no compiler for NVIDIA")
    assert "compiled" in run(COMPILED, TRITON_CACHE_DIR=str(tmp_path), TRITON_INTERPRET="0")


# --- on a GPU ---


@needs_cuda
@pytest.mark.parametrize("kernels", ["triton", "torch", None])
@pytest.mark.parametrize("name", [*PASSES, None])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_a_gpu_finds_what_the_cores_find(
    scans: Scans, kernels: str | None, name: str | None, dtype: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(12)
    monkeypatch.setattr(gpu, "_TRIAL_PRODUCTS", 1 << 16)
    monkeypatch.setattr(gpu, "_BUFFER", 1 << 20)
    for dims, count in ((1, 3), (48, 1000), (77, 300), (512, 300)):
        x = vectors(rng, "copies", 30_000, dims)
        x = (x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-9)).astype(dtype)
        queries = x[rng.integers(0, len(x), count)]
        right = topk(queries, [x], 100)
        for block in (x, torch.from_numpy(x).cuda()):
            found = scans.topk(
                queries, [block[:500], block[500:]], 100, device="cuda", first_pass=name, kernels=kernels
            )
            same(found, right)


@needs_cuda
@pytest.mark.parametrize("kind", KINDS)
def test_a_gpu_with_all_kinds_of_vectors(scans: Scans, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(13)
    monkeypatch.setattr(gpu, "_WORDS", 500)  # too short for the first piece
    for dtype in (np.float16, np.float32):
        x, queries = (vectors(rng, kind, n, 65).astype(dtype) for n in (5000, 70))
        for name in PASSES:
            same(scans.topk(queries, [x], 20, device="cuda", first_pass=name), topk(queries, [x], 20))
