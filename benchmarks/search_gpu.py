"""Exact search on a GPU, beside the bare matrix product, the reading of the memory, the bus and the disk.

    python benchmarks/search_gpu.py                                    100M x 512 where there are 120 GB, or what fits
    python benchmarks/search_gpu.py --folder /scratch --stream 40      and 40 GB from host memory and from files
    python benchmarks/search_gpu.py --kernels torch --first-pass int8  other ways to the same result
    python benchmarks/search_gpu.py --device cpu --rows 20000          shows that it runs

1,232 queries, k = 1000. Descriptors are random unit vectors, made on the device from a seed; each query has some close
ones. Each number is the least of the rounds, after one that compiles and chooses; in brackets is the most.

    products     float16 products with all queries (torch.mm), and nothing else: the limit of the multiplication
    read         the norms of all rows: one read of the memory of the device
    search       the k best of every query, exact scores, from data on the device
    host, disk   the same from host memory, and from files that are not in the page cache: beside the rates at which
                 pinned memory goes to the device, memory is copied into it, and the files are read by as many threads

At the end the result for some rows and queries is compared with that of the CPU, bit by bit.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch

from openilias.core.manifests import software
from openilias.search import exact
from openilias.search.exact import ExactSearch, topk
from openilias.search.gpu import DeviceScan
from openilias.search.gpu_feed import _READERS

MOST_ROWS = 100_000_000
CHUNK = 1 << 18
BUFFER = 128 << 20


def wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
    elif device == "mps":
        torch.mps.synchronize()


def timed(work: Callable[[], Any], device: str, rounds: int) -> list[float]:
    """Return the seconds of each round after a first one."""
    seconds = []
    for number in range(rounds + 1):
        wait(device)
        begun = time.perf_counter()
        work()
        wait(device)
        if number:
            seconds.append(time.perf_counter() - begun)
    return seconds


def show(name: str, seconds: list[float], told: str) -> None:
    print(f"{name:10} {min(seconds):9.4f} s [{max(seconds):.4f}]   {told}", flush=True)


def make(rows: int, queries: int, dims: int, device: str, seed: int) -> tuple[torch.Tensor, np.ndarray]:
    """Return (N, D) float16 rows on the device, and (Q, D) float16 queries."""
    generator = torch.Generator(device).manual_seed(seed)
    asked = torch.nn.functional.normalize(torch.randn(queries, dims, device=device, generator=generator), dim=1)
    data = torch.empty((rows, dims), dtype=torch.float16, device=device)
    for start in range(0, rows, CHUNK):
        some = torch.randn(min(CHUNK, rows - start), dims, device=device, generator=generator)
        few = min(len(some) // 100, queries)
        some[:few] += asked[torch.randperm(queries, device=device, generator=generator)[:few]] * dims**0.5 * 0.5
        data[start : start + len(some)] = torch.nn.functional.normalize(some, dim=1).half()
    return data, asked.half().cpu().numpy()


# --- limits ---


def products(data: torch.Tensor, queries: np.ndarray) -> Callable[[], None]:
    """Return what multiplies all rows with all queries, and writes over what it wrote before."""
    right = torch.from_numpy(queries).to(data.device).t()
    step = max(1, min(len(data), (1 << 30) // (2 * len(queries))))
    out = torch.empty((step, len(queries)), dtype=data.dtype, device=data.device)

    def work() -> None:
        for start in range(0, len(data), step):
            part = data[start : start + step]
            torch.mm(part, right, out=out[: len(part)])

    return work


def norms(data: torch.Tensor) -> Callable[[], None]:
    def work() -> None:
        for start in range(0, len(data), 1 << 22):
            torch.linalg.vector_norm(data[start : start + (1 << 22)], dim=1, dtype=torch.float32)

    return work


def bus_rate(device: str) -> float:
    """Return the bytes per second at which pinned memory goes to the device."""
    here = torch.empty(BUFFER, dtype=torch.uint8, pin_memory=device.startswith("cuda"))
    there = torch.empty(BUFFER, dtype=torch.uint8, device=device)
    return BUFFER / min(timed(lambda: there.copy_(here, non_blocking=True), device, 10))


def copy_rate(rows: np.ndarray) -> float:
    """Return the bytes per second at which so many threads copy rows of host memory into a buffer."""
    target = np.empty((max(1, BUFFER // rows[:1].nbytes), rows.shape[1]), rows.dtype)
    target.fill(0)
    count = min(len(rows), 16 * len(target))

    def part(thread: int, start: int) -> None:
        piece = rows[start : start + len(target)]
        bounds = np.linspace(0, len(piece), _READERS + 1).astype(int)
        here = slice(bounds[thread], bounds[thread + 1])
        np.copyto(target[here], piece[here])

    with ThreadPoolExecutor(_READERS) as pool:
        begun = time.perf_counter()
        for start in range(0, count, len(target)):
            list(pool.map(part, range(_READERS), [start] * _READERS))
        return count * rows[:1].nbytes / (time.perf_counter() - begun)


def forget(path: Path) -> None:
    """Take a file out of the page cache."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def disk_rate(path: Path) -> float:
    """Return the bytes per second at which so many threads read a file."""
    size = path.stat().st_size
    step = 4 << 20

    def read(thread: int) -> None:
        buffer = bytearray(step)
        with path.open("rb", buffering=0) as file:
            for start in range(thread * step, size, _READERS * step):
                file.seek(start)
                file.readinto(buffer)

    with ThreadPoolExecutor(_READERS) as pool:
        begun = time.perf_counter()
        list(pool.map(read, range(_READERS)))
        return size / (time.perf_counter() - begun)


# --- the search ---


def searched(blocks: list[Any], queries: np.ndarray, k: int) -> ExactSearch:
    search, start = ExactSearch(queries, k), 0
    for block in blocks:
        search.add(block, start)
        start += len(block)
    search.result()
    return search


def from_host(arguments: argparse.Namespace, host: np.ndarray, queries: np.ndarray) -> float:
    """Search in host memory; return the rate of the bus."""
    bus, copied = bus_rate(arguments.device), copy_rate(host)
    seconds = timed(lambda: searched([host], queries, arguments.k), arguments.device, arguments.rounds)
    rate = host.nbytes / min(seconds)
    show(
        "host",
        seconds,
        f"{host.nbytes / 1e9:.2f} GB at {rate / 1e9:.2f} GB/s: {rate / min(bus, copied):.0%} of the slower of the bus "
        f"({bus / 1e9:.1f} GB/s, pinned) and copying ({copied / 1e9:.1f} GB/s, {_READERS} threads)",
    )
    return bus


def from_disk(arguments: argparse.Namespace, paths: list[Path], queries: np.ndarray, bus: float) -> None:
    """Search in files."""
    for path in paths:
        forget(path)
    disk = disk_rate(paths[0])

    def work() -> None:
        for path in paths:
            forget(path)
        searched([np.load(path, mmap_mode="r") for path in paths], queries, arguments.k)

    seconds = timed(work, arguments.device, arguments.rounds)
    total = sum(path.stat().st_size for path in paths)
    rate = total / min(seconds)
    show(
        "disk",
        seconds,
        f"{total / 1e9:.2f} GB at {rate / 1e9:.2f} GB/s: {rate / min(bus, disk):.0%} of the slower of the bus and the "
        f"disk ({disk / 1e9:.2f} GB/s, {_READERS} threads; what caches there are below the system is not known)",
    )


def streamed(arguments: argparse.Namespace, data: torch.Tensor, queries: np.ndarray) -> None:
    """Search from host memory, and from files."""
    size = data.element_size() * data.shape[1]
    count = min(len(data), max(1, int(arguments.stream * 1e9) // size))
    host = np.empty((count, data.shape[1]), np.float16)
    for start in range(0, count, CHUNK):
        host[start : start + CHUNK] = data[start : min(start + CHUNK, count)].cpu().numpy()
    bus = from_host(arguments, host, queries)
    if arguments.folder is None:
        return
    free = shutil.disk_usage(arguments.folder).free
    if free < 1.1 * host.nbytes:
        print(f"disk       not measured: {free / 1e9:.0f} GB are free in {arguments.folder}")
        return
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        paths = [Path(folder) / f"{number}.npy" for number in range(4)]
        for path, part in zip(paths, np.array_split(host, 4), strict=True):
            np.save(path, part)
        del host
        from_disk(arguments, paths, queries, bus)


def checked(arguments: argparse.Namespace, data: torch.Tensor, queries: np.ndarray) -> None:
    """Compare some of it with the CPU."""
    rows, few = data[: arguments.check], queries[:: max(1, len(queries) // 64)]
    found = searched([rows[: len(rows) // 3], rows[len(rows) // 3 :]], few, arguments.k).result()
    with_device, exact._scanner = exact._scanner, arguments.plain_scanner
    right = topk(few, [rows.cpu().numpy()], arguments.k)
    exact._scanner = with_device
    same = found[0].tolist() == right[0].tolist() and found[1].tobytes() == right[1].tobytes()
    print(
        f"check      {len(few)} queries in {len(rows):,} rows: {'the same bits as the CPU' if same else 'NOT THE SAME'}"
    )
    if not same:
        raise SystemExit(1)


def state(device: str) -> str:
    name = platform.processor() or platform.machine()
    if device.startswith("cuda"):
        free, total = torch.cuda.mem_get_info(device)
        card = torch.cuda.get_device_properties(device)
        name = f"{card.name}, {total / 1e9:.0f} GB ({free / 1e9:.0f} free), CUDA {torch.version.cuda}; {name}"
    try:
        import triton

        kernels = f"triton {triton.__version__}"
    except ImportError:
        kernels = "no triton"
    versions = ", ".join(f"{package} {version}" for package, version in software().items())
    load = f"load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    return f"{name}, {os.cpu_count()} cores, {load}; {platform.platform()}; {versions}, {kernels}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--rows", type=int, help="100M, or what fits into 85 %% of the free memory")
    parser.add_argument("--dims", type=int, default=512)
    parser.add_argument("--queries", type=int, default=1232)
    parser.add_argument("-k", type=int, default=1000)
    parser.add_argument("--first-pass", choices=["int8", "float16", "bfloat16", "float32"])
    parser.add_argument("--kernels", choices=["triton", "torch"])
    parser.add_argument("--stream", type=float, default=8.0, help="GB that come from host memory and from disk")
    parser.add_argument("--folder", type=Path, help="where files are written; without one, none are")
    parser.add_argument("--check", type=int, default=200_000, help="rows that are searched on the CPU, too")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    device = arguments.device
    print(state(device))
    if arguments.rows is None:
        free = torch.cuda.mem_get_info(device)[0] if device.startswith("cuda") else 2 << 30
        arguments.rows = min(MOST_ROWS, int(0.85 * free) // (2 * arguments.dims))
    scans: list[DeviceScan] = []

    def scanner(queries: np.ndarray, *_: object) -> DeviceScan:
        scans.append(
            DeviceScan(queries, device=device, first_pass=arguments.first_pass, kernels=arguments.kernels),
        )
        return scans[-1]

    arguments.plain_scanner, exact._scanner = exact._scanner, scanner  # type: ignore[assignment]
    data, queries = make(arguments.rows, arguments.queries, arguments.dims, device, arguments.seed)
    flop, size = 2.0 * len(data) * len(queries) * arguments.dims, data.numel() * data.element_size()
    print(f"{len(data):,} x {arguments.dims} float16 ({size / 1e9:.1f} GB), {len(queries)} queries, k = {arguments.k}")

    limit = timed(products(data, queries), device, arguments.rounds)
    show("products", limit, f"{flop / min(limit) / 1e12:.1f} TFLOP/s")
    read = timed(norms(data), device, arguments.rounds)
    show("read", read, f"{size / min(read) / 1e9:.0f} GB/s")
    seconds = timed(lambda: searched([data], queries, arguments.k), device, arguments.rounds)
    last = scans[-1]
    per_query = last.scored / len(queries)
    keep = last._chosen.keep if last._chosen else None
    how = f"{last.first_pass}, {type(keep).__name__} {getattr(keep, 'tile', '')}"
    show(
        "search",
        seconds,
        f"{min(limit) / min(seconds):.0%} of the limit; {per_query:,.0f} pairs per query scored; {how}",
    )
    if device.startswith("cuda"):
        print(
            f"           {torch.cuda.max_memory_allocated(device) / 1e9 - size / 1e9:.1f} GB besides the data at most"
        )
    checked(arguments, data, queries)
    streamed(arguments, data, queries)


if __name__ == "__main__":
    main()
