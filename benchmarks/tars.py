"""Reading tar shards: the index, memory, streaming and random reads beside tarfile and webdataset.

    python benchmarks/tars.py [--members 1000000] [--tars 10] [--folder DIR]

Needs `pip install webdataset` for its lines; without it they are left out. Every reader reads the same tars in this
process, warm from the page cache; the medians of several runs are printed, and ratios to ours.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import resource
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path

from openilias.images.tar_index import scan_once
from openilias.images.tars import TarReader, scan_tar, write_tar

REPEATS = 3
READS = 20_000


def make(folder: Path, members: int, tars: int) -> list[Path]:
    """Write the tars; images are of 1 to 3 KiB, so that headers count."""
    rng = random.Random(0)
    pool = [rng.randbytes(size) for size in range(1024, 3072, 64)]
    paths = []
    for number in range(tars):
        path = folder / f"yfcc100m_{number:04d}.tar"
        if not path.exists():
            rows = range(members // tars)
            write_tar(path, ((f"{number:03d}{row:08d}.jpg", pool[(row * 7 + number) % len(pool)]) for row in rows))
        paths.append(path)
    return paths


def seconds(work: Callable[[], object], repeats: int = REPEATS) -> float:
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def line(name: str, took: float, count: int, unit: str, ours: float) -> None:
    print(f"  {name:<44} {count / took:12,.0f} {unit}/s   {took:8.2f} s   ours is x {took / ours:.2f}")


def tarfile_index(paths: list[Path]) -> list[dict[str, tarfile.TarInfo]]:
    found = []
    for path in paths:
        with tarfile.open(path, "r:") as tar:
            found.append({info.name: info for info in tar})
    return found


def tarfile_stream(path: Path) -> int:
    with tarfile.open(path, "r|") as tar:
        return sum(len(tar.extractfile(info).read()) for info in tar)  # type: ignore[union-attr]


def webdataset_stream(path: Path) -> int:
    import webdataset

    dataset = webdataset.WebDataset(str(path), shardshuffle=False, empty_check=False)
    return sum(len(sample["jpg"]) for sample in dataset)


def ours_stream(path: Path) -> int:
    with TarReader(path) as reader:
        return sum(len(data) for _, data in reader)


def memory_of(code: str, *arguments: str) -> float:
    """Return the peak MiB of a fresh process that runs ``code``, less that of one that only imports."""
    # Not ru_maxrss: that of a child begins with what its parent has.
    peak = "import re, sys\n{}\nprint(int(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1]) / 1024)"
    imports = "from pathlib import Path\nimport tarfile\nfrom openilias.images.tars import scan_tar"
    if not Path("/proc/self/status").exists():
        return float("nan")
    measured = []
    for body in (imports, f"{imports}\n{code}"):
        command = [sys.executable, "-c", peak.format(body), *arguments]
        measured.append(float(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
    return measured[1] - measured[0]


def random_places(counts: list[int]) -> Iterator[tuple[int, int]]:
    rng = random.Random(1)
    for _ in range(READS):
        tar = rng.randrange(len(counts))
        yield tar, rng.randrange(counts[tar])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--members", type=int, default=1_000_000)
    parser.add_argument("--tars", type=int, default=10)
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        run(make(folder, arguments.members, arguments.tars), folder / "kept")


def run(paths: list[Path], kept: Path) -> None:
    try:
        webdataset = metadata.version("webdataset")
    except metadata.PackageNotFoundError:
        webdataset = ""
    size = sum(path.stat().st_size for path in paths)
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()},")
    print(f"webdataset {webdataset or 'not installed'}; {len(paths)} tars, {size:,} bytes")
    for path in paths:  # into the page cache
        path.read_bytes()
    scans = [scan_tar(path) for path in paths]
    counts = [len(scan.index) for scan in scans]
    total = sum(counts)

    print(f"index of {total:,} members")
    ours = seconds(lambda: [scan_tar(path) for path in paths])
    line("openilias, all headers read and judged", ours, total, "members", ours)
    for path in paths:
        scan_once(path, kept)
    line("openilias, kept index", seconds(lambda: [scan_once(path, kept) for path in paths]), total, "members", ours)
    line("tarfile", seconds(lambda: tarfile_index(paths), 1), total, "members", ours)

    print("memory of the index")
    names = [str(path) for path in paths]
    for name, code in (
        ("openilias", "found = [scan_tar(Path(name)).index for name in sys.argv[1:]]"),
        ("tarfile", "found = [tarfile.open(name).getmembers() for name in sys.argv[1:]]"),
    ):
        print(f"  {name:<12} {memory_of(code, *names):8,.0f} MiB")

    print(f"streaming one tar of {counts[0]:,} images")
    ours = seconds(lambda: ours_stream(paths[0]))
    assert ours_stream(paths[0]) == tarfile_stream(paths[0])
    line("openilias, index included", ours, counts[0], "images", ours)
    line("tarfile", seconds(lambda: tarfile_stream(paths[0])), counts[0], "images", ours)
    if webdataset:
        assert webdataset_stream(paths[0]) == ours_stream(paths[0])
        line("webdataset", seconds(lambda: webdataset_stream(paths[0])), counts[0], "images", ours)
    tracemalloc.start()
    ours_stream(paths[0])
    print(f"  peak of Python's memory while streaming: {tracemalloc.get_traced_memory()[1] / 2**20:.1f} MiB")
    tracemalloc.stop()

    print(f"{READS:,} random reads over all tars")
    places = list(random_places(counts))
    readers = [TarReader(path, scan.index) for path, scan in zip(paths, scans, strict=True)]
    ours = seconds(lambda: [readers[tar].read(row) for tar, row in places])
    line("openilias", ours, READS, "images", ours)
    opened = [tarfile.open(path) for path in paths]  # noqa: SIM115 - open while it is measured
    members = [list(tar) for tar in opened]
    took = seconds(lambda: [opened[tar].extractfile(members[tar][row]).read() for tar, row in places])  # type: ignore[union-attr]
    line("tarfile, members listed before", took, READS, "images", ours)
    print("  (webdataset only streams: one image costs what lies before it)")
    print(f"peak of this process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:,.0f} MiB")


if __name__ == "__main__":
    main()
