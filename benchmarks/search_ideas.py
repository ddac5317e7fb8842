"""What else could cut the work of an exact search, and what each idea gives: on this machine, on three kinds of data.

- guess: the first threshold guessed from a sample, against none (everything is scored until k are known);
- cached codes: int8 codes kept beside the store, which would save reading float16 and rounding;
- fused filter: the share of the filter, which is all that fusing it with the product could save;
- principal axes: a product over the first m axes of the data, and by Cauchy and Schwarz a bound of the rest; what
  survives it has to go through the rest of the product.

    python benchmarks/search_ideas.py [--rows 1000000] [--photos STORE]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from openilias.descriptors.store import open_store
from openilias.search import exact
from openilias.search.first_pass import PASSES, CodedQueries
from openilias.search.kernels import Limits, TileRows, bars_of, describe_rows, survivors
from openilias.search.scan import Tile, as_stored

QUERIES, K = 1232, 1000


def unit(values: np.ndarray) -> np.ndarray:
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def uniform(rows: int, dims: int, seed: int) -> np.ndarray:
    return unit(np.random.default_rng(seed).standard_normal((rows, dims), np.float32)).astype(np.float16)


def clustered(rows: int, dims: int, seed: int, clusters: int) -> np.ndarray:
    centres = unit(np.random.default_rng(0).standard_normal((clusters, dims), np.float32))
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((rows, dims), np.float32) * (1.2 / np.sqrt(dims))
    return unit(centres[rng.integers(0, clusters, rows)] + noise).astype(np.float16)


def tiled(descriptors: np.ndarray, rows: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    base = descriptors[rng.integers(0, len(descriptors), rows)].astype(np.float32)
    noise = unit(rng.standard_normal(base.shape, np.float32))
    return unit(base + 0.5 * noise).astype(np.float16)


def in_pieces(make: Callable[[int, int], np.ndarray], rows: int) -> np.ndarray:
    return np.concatenate([make(min(1 << 15, rows - start), 1 + start) for start in range(0, rows, 1 << 15)])


def seconds(work: Callable[[], object], rounds: int = 3) -> float:
    times = []
    for _ in range(rounds):
        begun = time.perf_counter()
        work()
        times.append(time.perf_counter() - begun)
    return statistics.median(times)


def search(queries: np.ndarray, database: np.ndarray, first_pass: str, *, guess: bool) -> tuple[float, float]:
    """Return the seconds, and how many images were scored exactly per query."""
    fewest, scored = exact._FEWEST, 0.0

    def once() -> None:
        nonlocal scored
        engine = exact.ExactSearch(queries, K, first_pass=first_pass)
        engine.add(database)
        engine.result()
        scored = engine.scored / len(queries)

    exact._FEWEST = fewest if guess else 1 << 62
    try:
        return seconds(once), scored
    finally:
        exact._FEWEST = fewest


def shares(queries: np.ndarray, database: np.ndarray, first_pass: str) -> dict[str, float]:
    """Return the microseconds per row, of one thread, of each stage, with thresholds as at the end of the search."""
    rows, scores = exact.topk(queries, [database], K)
    del rows
    asked = CodedQueries(queries.astype(np.float32), PASSES[first_pass])
    tile = Tile(asked, queries.shape[1])
    step, width = asked.first_pass.tile_rows, len(asked.codes)
    least = np.full(width, np.inf, np.float32)
    least[: len(queries)] = scores[:, -1]
    limits = Limits(least, np.full(width, np.nan, np.float32))
    times: dict[str, float] = dict.fromkeys(("encode", "multiply", "filter", "score"), 0.0)
    done = 0

    def clock(name: str, since: float) -> float:
        now = time.perf_counter()
        times[name] += now - since
        return now

    with threadpool_limits(1):
        import torch

        torch.set_num_threads(1)
        for start in range(0, min(len(database), 64 * step) - step + 1, step):
            part = database[start : start + step]
            now = time.perf_counter()
            stored = as_stored(part)
            asked.first_pass.encode(stored, tile.floats[0], tile.codes, tile.scale, tile.rest, tile.size)
            now = clock("encode", now)
            asked.multiply(tile.codes, tile.products)
            now = clock("multiply", now)
            drift = np.float32(asked.first_pass.drift(queries.shape[1]))
            kinds = (tile.norm, tile.own, tile.other, tile.lift)
            rows_of_tile = TileRows(stored, tile.floats, tile.noted, np.arange(step), *kinds)
            largest = describe_rows(tile.scale, tile.rest, tile.size, drift, rows_of_tile)
            bars_of(limits.least, asked.asked.scale, largest, tile.bars)
            rounding = np.float32(asked.first_pass.rounding)
            never, none = np.full(width, np.inf, np.float32), np.empty((0, 0))
            now = time.perf_counter()
            survivors(0, tile.products, rounding, rows_of_tile, asked.asked, never, limits, True, none, tile.found)
            now = clock("filter", now)
            survivors(0, tile.products, rounding, rows_of_tile, asked.asked, tile.bars, limits, True, none, tile.found)
            clock("score", now)
            done += step
    times["score"] -= times["filter"]
    return {name: 1e6 * spent / done for name, spent in times.items()}


def axes(queries: np.ndarray, database: np.ndarray, kept: tuple[int, ...]) -> dict[int, float]:
    """Return the share of pairs that survive the bound of the first m principal axes, with the final thresholds."""
    scores = exact.topk(queries, [database], K)[1]
    sample = database[:: max(len(database) // 32_768, 1)].astype(np.float32)
    basis = np.linalg.eigh(sample.T @ sample)[1][:, ::-1]
    x, q = sample @ basis, queries.astype(np.float32) @ basis
    found = {}
    for m in kept:
        bound = q[:, :m] @ x[:, :m].T + np.outer(np.linalg.norm(q[:, m:], axis=1), np.linalg.norm(x[:, m:], axis=1))
        found[m] = float((bound >= scores[:, -1:]).mean())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dims", type=int, default=512)
    parser.add_argument("--photos", type=Path, help="a descriptor store; its descriptors are repeated with noise")
    options = parser.parse_args()
    rows, dims = options.rows, options.dims
    kinds = {
        "uniform": (uniform(QUERIES, dims, 0), in_pieces(lambda n, s: uniform(n, dims, s), rows)),
        "clustered": (
            clustered(QUERIES, dims, 0, rows // 500),
            in_pieces(lambda n, s: clustered(n, dims, s, rows // 500), rows),
        ),
    }
    if options.photos:
        shards = open_store(options.photos).shards
        base = np.concatenate([block for shard in shards for block in shard.blocks()])
        fewer = max(rows * dims // base.shape[1], 1)
        kinds["photos"] = (tiled(base, QUERIES, 0), in_pieces(lambda n, s: tiled(base, n, s), fewer))
    print(f"{QUERIES} queries, k = {K}; s/M: seconds per million rows")
    for kind, (queries, database) in kinds.items():
        millions = len(database) / 1e6
        print(f"\n{kind}, {len(database):,} x {database.shape[1]}")
        for first_pass in ("int8", "bfloat16"):
            for guess in (False, True):
                spent, scored = search(queries, database, first_pass, guess=guess)
                print(
                    f"  {first_pass:9} {'guess' if guess else 'no guess':9} {spent / millions:6.2f} s/M, "
                    f"{scored:7.0f} scored per query",
                    flush=True,
                )
            stages = shares(queries, database, first_pass)
            total = sum(stages.values())
            told = ", ".join(f"{name} {value:.2f} ({value / total:.0%})" for name, value in stages.items())
            print(f"  {first_pass:9} us per row and thread: {told}", flush=True)
        for m, share in axes(queries, database, tuple(dims // part for part in (8, 4, 2))).items():
            print(f"  principal axes: {m:4} of {database.shape[1]} leave {share:.1%} of the pairs", flush=True)


if __name__ == "__main__":
    main()
