"""Exact search beside faiss, torch and usearch, and beside the bare matrix products of the same machine.

    python benchmarks/search.py --quick                                     a minute: shows that all of it runs
    python benchmarks/search.py --json search.json --plot search.png        250k, 1M and 4M descriptors; hours, 16 GB
    python benchmarks/search.py --photos runs/r18/distractors               descriptors of real photographs
    python benchmarks/search.py --disk 20000000 /scratch/store --kill       a store larger than memory

All lines read the same float16 file and the same 1,232 queries of 512 dimensions. Each is measured in a process of its
own; the data are read, converted and indexed before the clock starts, and one search that is not measured comes first.
Medians with (least to most). What comes out is compared: an image that one lists and another does not must be a tie,
or closer than float32 resolves.

    ours         float16, mapped from the file, in blocks of 256 MB; float64 scores, ties in order of rows
    faiss        IndexFlatIP, float32 in memory, with each kernel of its OpenBLAS: the fastest is its number
    torch        float32 in memory, matmul and topk of blocks of 65,536
    usearch      exact=True, float16 and float32 in memory: the fastest is its number
    products     Q x N inner products and nothing else, the better of one call on all cores and a block per core
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import random
import re
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Self

import numpy as np

DIMS, QUERIES = 512, 1232
CLUSTER = 500
_BLOCK = 256 << 20
_CHUNK = 1 << 16
KERNELS = ("", "Haswell", "SkylakeX")
Arguments = argparse.Namespace


# --- the data ---


def unit(rows: np.ndarray) -> np.ndarray:
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


def normal(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape, np.float32)


def noisy(rng: np.random.Generator, rows: np.ndarray, least: float, most: float) -> np.ndarray:
    """Add noise of a norm between two shares of that of the rows, and normalise."""
    size = rng.uniform(least, most, (len(rows), 1)).astype(np.float32)
    return unit(rows + size * unit(normal(rng, *rows.shape)))


def chunks(rng: np.random.Generator, count: int, arguments: Arguments) -> Iterator[np.ndarray]:
    """Yield float32 descriptors."""
    if arguments.one_data == "photos":
        from openilias.descriptors.store import open_store

        blocks = [block for shard in open_store(arguments.photos).shards for block in shard.blocks()]
        photos = unit(np.concatenate(blocks)[: 1 << 20].astype(np.float32))
    else:
        photos = unit(normal(rng, max(arguments.one_rows // CLUSTER, 1), DIMS))
    for start in range(0, count, _CHUNK):
        size = min(_CHUNK, count - start)
        if arguments.one_data == "uniform":
            yield unit(normal(rng, size, DIMS))
        elif arguments.one_data == "clustered":  # cosines of 0.4 to 0.6 within a cluster
            yield noisy(rng, photos[rng.integers(0, len(photos), size)], 0.82, 1.22)
        else:
            yield noisy(rng, photos[rng.integers(0, len(photos), size)], arguments.noise, arguments.noise)


def write_data(folder: Path, arguments: Arguments) -> None:
    """Write ``data.npy`` and ``queries.npy``; the queries are more of the same, and some are in the data."""
    rng = np.random.default_rng(arguments.seed)
    rows, place = arguments.one_rows, 0
    for chunk in chunks(rng, rows + QUERIES, arguments):
        if not place:
            data = np.lib.format.open_memmap(folder / "data.npy", "w+", np.float16, (rows, chunk.shape[1]))
            queries = np.empty((QUERIES, chunk.shape[1]), np.float16)
        inside = max(min(len(chunk), rows - place), 0)
        data[place : place + inside] = chunk[:inside]
        if inside < len(chunk):
            start = place + inside - rows
            queries[start : start + len(chunk) - inside] = chunk[inside:]
        place += len(chunk)
    queries[::50] = data[:: max(rows // 25, 1)][:25]
    data.flush()
    np.save(folder / "queries.npy", queries)


# --- the lines; each is prepared, then called with k ---

Search = Callable[[int], tuple[Any, Any]]


@dataclass
class Data:
    """The same for all lines."""

    queries: np.ndarray
    rows: np.ndarray
    threads: int

    def wide(self) -> np.ndarray:
        """Return the rows as float32, made without much more memory."""
        rows = np.empty(self.rows.shape, np.float32)
        for start in range(0, len(rows), _CHUNK):
            rows[start : start + _CHUNK] = self.rows[start : start + _CHUNK]
        return rows


def ours(data: Data) -> Search:
    from openilias.search.exact import topk

    step = _BLOCK // (2 * data.rows.shape[1])

    def search(k: int) -> tuple[Any, Any]:
        blocks = (data.rows[start : start + step] for start in range(0, len(data.rows), step))
        return topk(data.queries, blocks, k, threads=data.threads)

    return search


def faiss_flat(data: Data) -> Search:
    import faiss

    faiss.omp_set_num_threads(data.threads)
    index = faiss.IndexFlatIP(data.rows.shape[1])
    index.add(data.wide())
    queries = data.queries.astype(np.float32)

    def search(k: int) -> tuple[Any, Any]:
        scores, rows = index.search(queries, min(k, len(data.rows)))
        return rows, scores

    return search


def torch_blocks(data: Data) -> Search:
    import torch

    torch.set_num_threads(data.threads)
    queries, rows = torch.from_numpy(data.queries.astype(np.float32)), torch.from_numpy(data.wide())

    def search(k: int) -> tuple[Any, Any]:
        scores, places = torch.empty(len(queries), 0), torch.empty(len(queries), 0, dtype=torch.int64)
        for start in range(0, len(rows), _CHUNK):
            products = queries @ rows[start : start + _CHUNK].T
            best = torch.topk(products, min(k, products.shape[1]))
            scores = torch.cat([scores, best.values], 1)
            places = torch.cat([places, best.indices + start], 1)
            if scores.shape[1] > k:
                scores, chosen = torch.topk(scores, k)
                places = places.gather(1, chosen)
        scores, chosen = torch.topk(scores, scores.shape[1])
        return places.gather(1, chosen).numpy(), scores.numpy()

    return search


def usearch_exact(data: Data, dtype: Any) -> Search:
    from usearch.index import MetricKind
    from usearch.index import search as exact

    queries = data.queries.astype(dtype)
    rows = np.array(data.rows) if dtype == np.float16 else data.wide()

    def search(k: int) -> tuple[Any, Any]:
        count = min(k, len(rows))
        found = exact(rows, queries, count, MetricKind.IP, exact=True, threads=data.threads)
        return np.asarray(found.keys, np.int64), 1 - np.asarray(found.distances)

    return search


LINES: dict[str, tuple[str, Callable[[Data], Search]]] = {
    "ours": ("ours", ours),
    **{f"faiss {kernel or 'default'}": ("faiss", faiss_flat) for kernel in KERNELS},
    "torch": ("torch", torch_blocks),
    "usearch float16": ("usearch", lambda data: usearch_exact(data, np.float16)),
    "usearch float32": ("usearch", lambda data: usearch_exact(data, np.float32)),
}
"""Of each line the method it belongs to; the fastest line of a method counts."""


# --- measuring in this process ---


def own_memory() -> int:
    """Return the anonymous memory of this process: files that are mapped do not count."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) << 10
    return 0


class Peak:
    """The most anonymous memory while a block runs, looked at every 5 ms."""

    def __enter__(self) -> Self:
        self.most, self._over = own_memory(), threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()
        return self

    def _look(self) -> None:
        while not self._over.wait(0.005):
            self.most = max(self.most, own_memory())

    def __exit__(self, *failure: object) -> None:
        self.most = max(self.most, own_memory())
        self._over.set()
        self._thread.join()


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    started = time.perf_counter()
    found = work()
    return time.perf_counter() - started, found


def one_line(arguments: Arguments) -> dict[str, Any]:
    """Measure one line for every k, and write what it found."""
    folder = arguments.folder
    data = Data(np.load(folder / "queries.npy"), np.load(folder / "data.npy", mmap_mode="r"), arguments.threads)
    for start in range(0, len(data.rows), _CHUNK):  # all of the file is in the page cache
        data.rows[start : start + _CHUNK].sum(dtype=np.float32)
    search = LINES[arguments.line][1](data)
    result: dict[str, Any] = {"kernel": kernels(), "k": {}}
    first, _ = timed(lambda: search(min(arguments.k)))  # not measured: compiles, warms up
    for k in arguments.k:
        times: list[float] = []
        with Peak() as peak:
            for _ in range(arguments.rounds):
                seconds, found = timed(lambda k=k: search(k))
                times.append(seconds)
                if sum(times) + seconds > arguments.most:
                    break
        result["k"][k] = {"seconds": times, "anonymous": peak.most}
        if not (folder / f"{arguments.line} {k}.npz").exists():
            np.savez(folder / f"{arguments.line} {k}.npz", rows=found[0], scores=found[1])
        if sum(times) > 4 * arguments.most:
            break
    if arguments.line == "ours":
        result["first_pass"] = chosen(data)
    result |= {"first": first, "resident": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10}
    return result


def chosen(data: Data) -> str:
    """Return the first pass that our search takes on this machine."""
    from openilias.search.exact import ExactSearch

    search = ExactSearch(data.queries, 10, threads=data.threads)
    search.add(data.rows[: _BLOCK // (2 * data.rows.shape[1])])
    return search.first_pass


def kernels() -> list[str]:
    """Name the OpenBLAS kernels of this process."""
    from threadpoolctl import threadpool_info

    found = [library for library in threadpool_info() if library.get("internal_api") == "openblas"]
    return [f"{Path(library['filepath']).parent.name}: {library.get('architecture')}" for library in found]


def ceilings(arguments: Arguments) -> dict[str, Any]:
    """Return the seconds of 10**9 inner products of each kind: of one call on all cores, of a block per core."""
    import torch
    from threadpoolctl import threadpool_limits

    rng = np.random.default_rng(0)
    width, rows, dims = QUERIES + -QUERIES % 16, 1 << 15, np.load(arguments.folder / "queries.npy").shape[1]
    wide = normal(rng, rows, dims), normal(rng, width, dims)
    small = [torch.from_numpy((values * 40).clip(-127, 127).astype(np.int8)) for values in wide]
    single = [torch.from_numpy(values) for values in wide]
    half = [values.to(torch.bfloat16) for values in single]

    def numpy_product(x: Any, y: Any) -> Any:
        return np.matmul(x, y.T)

    def torch_product(x: Any, y: Any) -> Any:
        return torch.mm(x, y.T)

    kinds: dict[str, tuple[Any, Any, Callable[[Any, Any], Any]]] = {
        "numpy float32": (*wide, numpy_product),
        "torch float32": (*single, torch_product),
        "torch bfloat16": (*half, torch_product),
        "torch int8": (small[0], small[1].T.contiguous(), torch._int_mm),
    }

    def least(work: Callable[[], Any]) -> float:
        return min(timed(work)[0] for _ in range(arguments.rounds + 1))  # the first warms up

    def a_block_per_core(x: Any, y: Any, product: Callable[[Any, Any], Any], size: int) -> float:
        parts = [x[start : start + size] for start in range(0, rows, size)]
        pool = ThreadPoolExecutor(arguments.threads, initializer=torch.set_num_threads, initargs=(1,))
        with threadpool_limits(1, user_api="blas"), pool:
            return least(lambda: list(pool.map(lambda part: product(part, y) is None, parts)))

    result = {}
    for name, (x, y, product) in kinds.items():
        blocks = min(a_block_per_core(x, y, product, size) for size in (512, 1024, 2048, 4096))
        torch.set_num_threads(arguments.threads)
        whole = least(lambda x=x, y=y, product=product: product(x, y))
        result[name] = {"one call": whole * 1e9 / rows / width, "a block per core": blocks * 1e9 / rows / width}
    return result


# --- putting it together ---


def child(arguments: Arguments, *more: object, **environment: str) -> dict[str, Any]:
    """Run this file with other arguments in a process of its own; return what it prints."""
    command = [sys.executable, __file__, "--threads", arguments.threads, "--rounds", arguments.rounds]
    command += ["--most", arguments.most, "--k", *arguments.k, *more]
    env = {name: value for name, value in os.environ.items() if name != "OPENBLAS_CORETYPE"} | environment
    out = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, env=env)
    if out.returncode:
        return {"failed": (out.stderr.strip().splitlines() or [f"signal {-out.returncode}"])[-1]}
    found: dict[str, Any] = json.loads(out.stdout.splitlines()[-1])
    return found


def compare(folder: Path, line: str, k: int) -> dict[str, Any]:
    """Compare what a line lists with what ours lists.

    Returns:
        ``others``: how many of its images ours does not list; ``above``: how far the exact score of one of them is
        above the last that ours lists, which must not be; ``below``: how far under it, which float32 explains.
    """
    from openilias.search.exact import pair_scores

    data, queries = np.load(folder / "data.npy", mmap_mode="r"), np.load(folder / "queries.npy")
    with np.load(folder / f"ours {k}.npz") as right, np.load(folder / f"{line} {k}.npz") as found:
        mine, last, rows = right["rows"], right["scores"][:, -1], found["rows"]
    pairs = [(q, row) for q in range(len(rows)) for row in np.setdiff1d(rows[q], mine[q])]
    twice = sum(len(np.unique(listed)) < len(listed) for listed in rows)
    result = {"others": len(pairs), "above": 0.0, "below": 0.0, "twice": twice, "short": rows.shape != mine.shape}
    for start in range(0, len(pairs), _CHUNK):
        q, row = np.array(pairs[start : start + _CHUNK]).T
        gap = pair_scores(queries[q], data[row]).astype(np.float64) - last[q]
        result["above"] = max(result["above"], float(gap.max()))
        result["below"] = max(result["below"], float(-gap.min()))
    return result


def agrees(found: dict[str, Any]) -> bool:
    return found["above"] <= 0 and found["below"] < 1e-5 and not found["twice"] and not found["short"]


def measure(name: str, rows: int, arguments: Arguments) -> dict[str, Any]:
    """Measure all lines on one kind and size of data."""
    with tempfile.TemporaryDirectory(dir=arguments.temporary) as temporary:
        folder = Path(temporary)
        write_data(folder, Arguments(**vars(arguments) | {"one_data": name, "one_rows": rows}))
        result: dict[str, Any] = {"data": name, "rows": rows, "lines": {}, "agree": {}}
        for _ in range(arguments.turns):
            for line in arguments.lines:
                kernel = line.removeprefix("faiss ") if line.startswith("faiss") else "default"
                more = {} if kernel == "default" else {"OPENBLAS_CORETYPE": kernel}
                found = child(arguments, "--line", line, "--folder", folder, **more)
                merge_turns(result["lines"].setdefault(line, found), found)
                print(f"  {name} {rows:,} {line}: {brief(found)}", file=sys.stderr)
        result["products"] = child(arguments, "--line", "products", "--folder", folder)
        for line, k in itertools.product(LINES, arguments.k):
            if line != "ours" and (folder / f"{line} {k}.npz").exists() and (folder / f"ours {k}.npz").exists():
                result["agree"].setdefault(line, {})[str(k)] = compare(folder, line, k)
    return result


def merge_turns(whole: dict[str, Any], turn: dict[str, Any]) -> None:
    """Put the times of another turn to those before."""
    for k, found in turn.get("k", {}).items() if whole is not turn and "k" in whole else ():
        kept = whole["k"].setdefault(k, {"seconds": [], "anonymous": 0})
        kept["seconds"] += found["seconds"]
        kept["anonymous"] = max(kept["anonymous"], found["anonymous"])
        whole["resident"] = max(whole["resident"], turn["resident"])


def brief(found: dict[str, Any]) -> str:
    if "failed" in found:
        return f"failed: {found['failed']}"
    return ", ".join(f"k {k} {statistics.median(v['seconds']):.3g} s" for k, v in found["k"].items())


def best_lines(result: dict[str, Any], k: int) -> dict[str, tuple[str, dict[str, Any]]]:
    """Return of each method its fastest line, and what was measured."""
    found: dict[str, tuple[str, dict[str, Any]]] = {}
    for line, measured in result["lines"].items():
        one = measured.get("k", {}).get(str(k))
        method = LINES[line][0]
        if one is not None and (
            method not in found or statistics.median(one["seconds"]) < statistics.median(found[method][1]["seconds"])
        ):
            found[method] = line, one
    return found


def product_seconds(result: dict[str, Any], kind: str) -> float:
    """Return the seconds of all inner products of one kind: the least that such a search could take."""
    return float(min(result["products"][kind].values()) * QUERIES * result["rows"] / 1e9)


def show(results: list[dict[str, Any]], arguments: Arguments) -> None:
    """Print Markdown tables: times, memory, agreement."""
    methods = list(dict.fromkeys(method for method, _ in LINES.values()))
    peers = methods[1:]
    kinds = ("torch int8", "torch bfloat16", "torch float32", "numpy float32")
    print("\n## Seconds\n\nmedian (least to most); x: of ours, so that more than 1 means that ours is faster\n")
    print(f"| data | rows | k | ours | {' | '.join(peers)} | {' | '.join(f'products {kind}' for kind in kinds)} |")
    print("|" + "---|" * (4 + len(peers) + len(kinds)))
    for result, k in itertools.product(results, arguments.k):
        best = best_lines(result, k)
        if "ours" not in best:
            continue
        mine = statistics.median(best["ours"][1]["seconds"])
        cells = []
        for method in methods:
            line, found = best.get(method, ("", {"seconds": []}))
            if not found["seconds"]:
                cells.append("-")
                continue
            median = statistics.median(found["seconds"])
            text = f"{median:.2f} ({min(found['seconds']):.2f} to {max(found['seconds']):.2f})"
            detail = line.removeprefix(method).strip()
            cells.append(text if method == "ours" else f"{text} **x {median / mine:.2f}** {detail}".strip())
        for kind in kinds if "failed" not in result["products"] else ():
            seconds = product_seconds(result, kind)
            cells.append(f"{seconds:.2f} x {seconds / mine:.2f}")
        print(f"| {result['data']} | {result['rows']:,} | {k:,} | {' | '.join(cells)} |")
    print("\n## Memory, MB\n\nanonymous memory at its peak, with an index that is in memory; in brackets: all pages\n")
    print(f"| data | rows | {' | '.join(methods)} |\n|" + "---|" * (2 + len(methods)))
    for result in results:
        cells = []
        for method in methods:
            best = best_lines(result, max(arguments.k)).get(method) or best_lines(result, min(arguments.k)).get(method)
            if best is None:
                cells.append("-")
                continue
            whole = result["lines"][best[0]]
            most = max(found["anonymous"] for found in whole["k"].values())
            cells.append(f"{most / 1e6:,.0f} ({whole['resident'] / 1e6:,.0f})")
        print(f"| {result['data']} | {result['rows']:,} | {' | '.join(cells)} |")
    print("\n## Agreement\n")
    for result in results:
        for line, found in result["agree"].items():
            others = ", ".join(f"k {k}: {one['others']}" for k, one in found.items())
            below = max(one["below"] for one in found.values())
            above = max(one["above"] for one in found.values())
            verdict = "agrees" if all(map(agrees, found.values())) else "DIFFERS"
            print(
                f"- {result['data']} {result['rows']:,}, {line}: {verdict}; images that ours does not list: {others}; "
                f"exact scores below our last by at most {below:.1e}, above by {above:.1e}"
            )
        for line, measured in result["lines"].items():
            if "failed" in measured:
                print(f"- {result['data']} {result['rows']:,}, {line}: failed: {measured['failed']}")
    passes = [result["lines"].get("ours", {}).get("first_pass", "-") for result in results]
    print(f"\n## Our first pass\n\n{', '.join(dict.fromkeys(passes))}")
    used = {line: found["kernel"] for result in results for line, found in result["lines"].items() if "kernel" in found}
    print("\n## OpenBLAS kernels\n")
    for line, names in used.items():
        print(f"- {line}: {'; '.join(names)}")


def plot(results: list[dict[str, Any]], arguments: Arguments) -> None:
    """Draw seconds against rows, both logarithmic, with the bare products as lines."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    names = list(dict.fromkeys(result["data"] for result in results))
    shape = (len(names), len(arguments.k))
    figure, axes = plt.subplots(*shape, figsize=(4 * shape[1], 3.6 * shape[0]), squeeze=False, sharex=True, sharey=True)
    for (i, name), (j, k) in itertools.product(enumerate(names), enumerate(arguments.k)):
        some = sorted((r for r in results if r["data"] == name), key=lambda result: result["rows"])
        axis = axes[i, j]
        for method in dict.fromkeys(method for method, _ in LINES.values()):
            found = [(r["rows"], best_lines(r, k)[method][1]["seconds"]) for r in some if method in best_lines(r, k)]
            if not found:
                continue
            middle = [statistics.median(times) for _, times in found]
            spread = [[m - min(t) for m, (_, t) in zip(middle, found, strict=True)]]
            spread += [[max(t) - m for m, (_, t) in zip(middle, found, strict=True)]]
            wide = 2.5 if method == "ours" else 1.2
            axis.errorbar([rows for rows, _ in found], middle, spread, marker="o", ms=3, lw=wide, label=method)
        for kind, style in (("torch float32", "--"), ("torch bfloat16", "-."), ("torch int8", ":")):
            if some and "failed" not in some[0]["products"]:
                seconds = [product_seconds(result, kind) for result in some]
                axis.plot([r["rows"] for r in some], seconds, style, color="grey", lw=1, label=f"products, {kind}")
        axis.set(xscale="log", yscale="log", title=f"{name}, k = {k:,}")
        axis.xaxis.set_major_locator(FixedLocator(sorted({result["rows"] for result in results})))
        axis.xaxis.set_minor_locator(NullLocator())
        axis.xaxis.set_major_formatter(FuncFormatter(lambda rows, _: f"{rows:,.0f}"))
        axis.grid(alpha=0.3, which="both")
        if i == shape[0] - 1:
            axis.set_xlabel("descriptors")
        if not j:
            axis.set_ylabel(f"seconds, {QUERIES:,} queries")
    axes[0, 0].legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(arguments.plot, dpi=150)


# --- a store on disk ---


def write_stores(folder: Path, arguments: Arguments) -> tuple[Path, Path]:
    """Write a store of queries and one of distractors in shards of a million, unless they are there."""
    import pyarrow as pa

    from openilias.core.manifests import write_manifest
    from openilias.descriptors.store import KIND, write_blocks

    rows, step = arguments.one_rows, arguments.shard_rows
    sizes = {"image_queries": [QUERIES], "distractors": [min(step, rows - start) for start in range(0, rows, step)]}
    for partition, shards in sizes.items():
        store = folder / partition
        store.mkdir(parents=True, exist_ok=True)
        made_from = {"model": {"name": "noise"}, "benchmark": "bench", "partition": partition, "contents": str(shards)}
        names = [f"yfcc100m_{number:04d}.tar" if partition == "distractors" else "q" for number in range(len(shards))]
        write_manifest(store / "manifest.json", kind=KIND, made_from=made_from, dims=DIMS, sources=names)
        for number, (count, name) in enumerate(zip(shards, names, strict=True)):
            if (store / f"{number:05d}.json").exists():
                continue
            rng = np.random.default_rng([arguments.seed, number, partition == "distractors"])
            ids = (
                f"{name}/k_{row:07d}" if partition == "distractors" else f"thing/query/Q{row:06d}.jpg"
                for row in range(count)
            )
            write_blocks(
                store,
                number,
                source=name,
                ids=pa.array(ids, pa.string()),
                blocks=chunks(rng, count, arguments),
                shape=(count, DIMS),
                dtype=np.float16,
                skipped=(),
            )
            print(f"  wrote {name}", file=sys.stderr)
    return folder / "image_queries", folder / "distractors"


def one_disk(arguments: Arguments) -> dict[str, Any]:
    """Search the stores in this process."""
    from openilias.descriptors.store import open_store
    from openilias.search.stores import search

    asked, base = (open_store(arguments.folder / name) for name in ("image_queries", "distractors"))
    with Peak() as peak:
        seconds, ranking = timed(lambda: search([asked], [base], arguments.k[0]))
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    return {"seconds": seconds, "anonymous": peak.most, "resident": resident, "listed": int((ranking.rows >= 0).sum())}


def disk(arguments: Arguments) -> dict[str, Any]:
    """Search a store on disk, and kill and resume a search of it."""
    rows, folder = int(arguments.disk[0]), Path(arguments.disk[1])
    arguments = Arguments(**vars(arguments) | {"one_data": "uniform", "one_rows": rows})
    queries, database = write_stores(folder, arguments)
    size = sum(path.stat().st_size for path in database.glob("*.npy"))
    forget(database)
    result = child(arguments, "--line", "disk", "--folder", folder)
    if "failed" in result:
        print(f"disk: failed: {result['failed']}")
        return result
    result |= {"rows": rows, "bytes": size, "rate": size / result["seconds"]}
    print(f"\n## On disk\n\n{rows:,} x {DIMS} float16 ({size / 1e9:.1f} GB), k = {arguments.k[0]:,}, with checksums: ")
    print(f"{result['seconds']:.1f} s, {result['rate'] / 1e9:.2f} GB/s, {result['listed']:,} images listed;")
    print(f"anonymous memory at most {result['anonymous'] / 1e6:,.0f} MB, all pages {result['resident'] / 1e6:,.0f} MB")
    if arguments.kill:
        result["killed"] = killed(queries, database, arguments)
    return result


def forget(folder: Path) -> None:
    """Ask the kernel to drop the files of a folder from its cache, so that they come from the disk."""
    os.sync()
    for path in folder.iterdir():
        descriptor = os.open(path, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def shards_before(said: str) -> int:
    """Return how many shards a search found done."""
    found = re.search(r"([\d,]+) shards of them done before", " ".join(said.split()))
    return int(found[1].replace(",", "")) if found else 0


def killed(queries: Path, database: Path, arguments: Arguments) -> dict[str, Any]:
    """Kill ``ilias search`` twice at random moments, resume, and compare with a search that was not killed."""
    out = queries.parent / "rankings"
    shutil.rmtree(out, ignore_errors=True)
    program = [sys.executable, "-c", "from openilias.cli import main; main()", "search", "-k", arguments.k[0]]
    program += ["--threads", arguments.threads, "--queries", queries, "--database", database, "--out"]

    resumed: list[int] = []

    def run(name: str, seconds: float | None) -> float:
        """Run to the end, or kill after some seconds."""
        started = time.perf_counter()
        command = list(map(str, [*program, out / name]))
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            try:
                _, errors = process.communicate(timeout=seconds)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                _, errors = process.communicate()
                resumed.append(shards_before(errors))
                return time.perf_counter() - started
            if process.returncode:
                raise SystemExit(f"ilias search failed:\n{errors}")
        resumed.append(shards_before(errors))
        return time.perf_counter() - started

    whole = run("whole", None)
    chance = random.Random(arguments.seed)
    # The second is killed before it can be done, but after it has begun.
    parts = [run("killed", whole * chance.uniform(0.45, 0.6))]
    parts.append(run("killed", whole * chance.uniform(0.25, 0.35)))
    if (out / "killed").exists():
        raise SystemExit("The search was done before it could be killed twice: give more rows.")
    parts.append(run("killed", None))
    same = (out / "whole" / "ranking.parquet").read_bytes() == (out / "killed" / "ranking.parquet").read_bytes()
    verdict = "are equal, byte by byte" if same else "DIFFER"
    print(
        f"\nilias search: {whole:.1f} s; killed after {parts[0]:.1f} and {parts[1]:.1f} s, then finished in "
        f"{parts[2]:.1f} s; shards done before each try: {resumed[1:]}: rankings {verdict}"
    )
    return {"whole": whole, "parts": parts, "resumed": resumed, "same": same}


def machine(arguments: Arguments) -> dict[str, Any]:
    """Describe what it runs on."""
    from openilias.core.manifests import software

    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")
    flags = next((line.split() for line in lines if line.startswith("flags")), [])
    versions = {name: metadata.version(name) for name in ("faiss-cpu", "usearch", "numba", "threadpoolctl")}
    return {
        "machine": f"{platform.machine()} {model}".strip(),
        "cores": os.cpu_count(),
        "threads": arguments.threads,
        "flags": [flag for flag in flags if flag.startswith(("avx512_", "amx", "avx_vnni"))],
        "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "load": os.getloadavg(),
        "versions": software() | versions,
    }


def main() -> None:
    from openilias.core.executors import usable_cores

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[250_000, 1_000_000, 4_000_000])
    parser.add_argument("--k", type=int, nargs="+", default=[10, 100, 1000, 10_000])
    parser.add_argument("--data", nargs="+", choices=["clustered", "uniform", "photos"], default=[])
    parser.add_argument("--photos", type=Path, metavar="STORE", help="descriptors of photographs, repeated with noise")
    parser.add_argument("--noise", type=float, default=0.3, help="its norm, relative to that of a descriptor")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--turns", type=int, default=1, help="go through all lines so many times")
    parser.add_argument("--threads", type=int, default=usable_cores())
    parser.add_argument("--most", type=float, default=300, help="no further round of a line after so many seconds")
    parser.add_argument("--lines", nargs="+", choices=list(LINES), default=list(LINES), help="measure only these")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="50,000 descriptors, 3 rounds")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--temporary", type=Path, help="where the data are written")
    parser.add_argument("--disk", nargs=2, metavar=("ROWS", "FOLDER"))
    parser.add_argument("--shard-rows", type=int, default=1_000_000, help="of --disk")
    parser.add_argument("--kill", action="store_true")
    parser.add_argument("--line", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.line:
        works = {"products": ceilings, "disk": one_disk}
        print(json.dumps(works.get(arguments.line, one_line)(arguments)))
        return
    if arguments.quick:
        arguments.rows, arguments.rounds = [50_000], 3
    if not arguments.data:
        arguments.data = ["clustered"] if arguments.quick else ["clustered", "uniform"]
        arguments.data += ["photos"] if arguments.photos else []
    if "photos" in arguments.data and arguments.photos is None:
        parser.error("--data photos needs --photos STORE")
    about = machine(arguments)
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    print(f"{about['machine']}, {about['cores']} cores, {about['memory'] / 1e9:.0f} GB; {' '.join(about['flags'])}")
    print(f"{versions}\n{arguments.threads} threads, {QUERIES:,} queries; load before: {about['load'][0]:.1f}")
    written: dict[str, Any] = {"about": about, "results": []}
    if arguments.disk:
        written["disk"] = disk(arguments)
    else:
        for name, rows in itertools.product(arguments.data, arguments.rows):
            written["results"].append(measure(name, rows, arguments))
            if arguments.json:  # what is measured is not lost
                arguments.json.write_text(json.dumps(written, indent=1))
        show(written["results"], arguments)
        if arguments.plot:
            plot(written["results"], arguments)
    if arguments.json:
        arguments.json.write_text(json.dumps(written, indent=1))


if __name__ == "__main__":
    main()
