"""A store of local descriptors of a million images: written, opened, searched for shortlists, and read.

    python benchmarks/local_store.py                    1,000,000 images of 100 descriptors of 128 bits, 10 shards
    python benchmarks/local_store.py --folder DIR       keep them there, and take what is there already
    python benchmarks/local_store.py --shards 1000      as many shards as YFCC100M has
    python benchmarks/local_store.py --quick            20,000 images

Takes 7 GB of disk for a million images: the store, and the same bytes as one HDF5 file. Both are read by fresh
processes, one after the other. Shortlists are of images drawn from all; what a line reports is the median over them.
Cold means that the files were put out of the page cache before each shortlist (Linux, no rights needed), which does not
empty the cache of a disk's own. Peers, in the same run:

    h5py, image by image      file open, one read of each dataset for each image
    h5py, as in AMES' code    the file opened, the sorted list of images in one read of each dataset, closed
    AMES' own layout          the same, of float32 rows of 5 + 128 numbers, of fewer images: 53 KB an image

    bare preads               the same pieces of the same files, in 16 threads

Limits: the pages that the pieces lie on at the speed of a cold file that is read from its beginning (cold), and one
copy of as many bytes within memory (warm); of writing, as many bytes to a plain file, on disk, and their SHA-256.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from openilias.core.manifests import software, write_manifest
from openilias.descriptors.local_store import KIND, open_local_store
from openilias.descriptors.local_writing import writing_local_shard
from openilias.models.local_features import LocalFeatures

BITS, SIDE = 128, 770
BLOCK = 1000  # images that are drawn at a time
THREADS = 16
AMES_SHARE = 50  # AMES' own layout is measured on one image of so many


def drawn(images: int, most: int, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield blocks of descriptors (n, most, bytes) and geometry (n, most, 4)."""
    rng = np.random.default_rng(seed)
    for start in range(0, images, BLOCK):
        count = min(BLOCK, images - start)
        geometry = rng.random((count, most, 4), np.float32)
        geometry[..., 2] = 1
        geometry[..., 3] = -np.sort(-geometry[..., 3], axis=1)
        yield rng.integers(0, 256, (count, most, BITS // 8), np.uint8), geometry


def sizes_of_shards(images: int, shards: int) -> list[int]:
    return [images * (number + 1) // shards - images * number // shards for number in range(shards)]


def name_of(number: int, place: int) -> str:
    key = (number * 1_000_003 + place) * 0x9E3779B97F4A7C15 % 2**64  # all different, and nothing to compress
    return f"yfcc100m_{number:04d}.tar/{key:016x}"


def build(folder: Path, images: int, shards: int, most: int) -> dict[str, float]:
    """Write the store; return the seconds in the package's own code."""
    sources = [f"yfcc100m_{number:04d}.tar" for number in range(shards)]
    folder.mkdir(parents=True)
    write_manifest(
        folder / "manifest.json",
        kind=KIND,
        made_from={"partition": "distractors", "local": {"name": "random"}},
        sources=sources,
        dims=BITS,
        bits=BITS,
        dtype="uint8",
    )
    adding = closing = 0.0
    for number, count in enumerate(sizes_of_shards(images, shards)):
        with writing_local_shard(
            folder, number, source=sources[number], dims=BITS // 8, dtype=np.uint8, skipped=[]
        ) as writer:
            place = 0
            for descriptors, geometry in drawn(count, most, number):
                begun = time.perf_counter()
                for values, where in zip(descriptors, geometry, strict=True):
                    writer.add(name_of(number, place), LocalFeatures(values, where, SIDE, SIDE))
                    place += 1
                adding += time.perf_counter() - begun
            begun = time.perf_counter()
        closing += time.perf_counter() - begun
    return {"adding": adding, "closing": closing}


def build_hdf5(path: Path, images: int, shards: int, most: int) -> float:
    """Write the same bytes as one HDF5 file; return the seconds in h5py."""
    import h5py

    spent, row = 0.0, 0
    with h5py.File(path, "w") as file:
        bits = file.create_dataset("features", (images, most, BITS // 8), np.uint8)
        where = file.create_dataset("geometry", (images, most, 4), np.float32)
        for number, count in enumerate(sizes_of_shards(images, shards)):
            for descriptors, geometry in drawn(count, most, number):
                begun = time.perf_counter()
                bits[row : row + len(descriptors)] = descriptors
                where[row : row + len(descriptors)] = geometry
                spent += time.perf_counter() - begun
                row += len(descriptors)
        begun = time.perf_counter()
        file.flush()
    with path.open("rb") as handle:
        os.fsync(handle.fileno())
    return spent + time.perf_counter() - begun


def build_ames(path: Path, images: int, most: int) -> None:
    """Write the layout of AMES' code."""
    import h5py

    with h5py.File(path, "w") as file:
        made = file.create_dataset("features", (images, most, 5 + BITS), np.float32)
        row = 0
        for descriptors, geometry in drawn(images, most, 0):
            block = np.zeros((len(descriptors), most, 5 + BITS), np.float32)
            block[..., :3], block[..., 4] = geometry[..., :3], geometry[..., 3]
            block[..., 5:] = np.unpackbits(descriptors, axis=-1) * 2.0 - 1
            made[row : row + len(block)] = block
            row += len(block)


def plain_writing(path: Path, size: int) -> dict[str, float]:
    """Return the MB/s of a plain file, on disk, and of its digest."""
    block = np.random.default_rng(0).integers(0, 256, 16 << 20, np.uint8).tobytes()
    begun = time.perf_counter()
    with path.open("wb") as file:
        for _ in range(max(size // len(block), 1)):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
        written = file.tell()
    wrote = time.perf_counter() - begun
    begun = time.perf_counter()
    with path.open("rb") as file:
        hashlib.file_digest(file, "sha256")
    return {"write": written / wrote / 1e6, "sha256": written / (time.perf_counter() - begun) / 1e6}


# --- in a fresh process ---


def memory() -> dict[str, float]:
    """Return MiB: the peak, what is resident now, and what of it is no file."""
    text = Path("/proc/self/status").read_text()
    found = {name: int(match[1]) / 1024 for name in ("VmHWM", "VmRSS", "RssAnon")
             if (match := re.search(rf"{name}:\s+(\d+)", text))}  # fmt: skip
    return {"peak": found["VmHWM"], "resident": found["VmRSS"], "own": found["RssAnon"]}


def forget(files: list[Path]) -> None:
    """Put files out of the page cache."""
    for path in files:
        handle = os.open(path, os.O_RDONLY)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(handle)


def timed(work: Callable[[list[int]], object], lists: list[list[int]], before: Callable[[], None] | None) -> float:
    """Return the median seconds of a list."""
    times = []
    for rows in lists:
        if before is not None:
            before()
        begun = time.perf_counter()
        work(rows)
        times.append(time.perf_counter() - begun)
    return statistics.median(times)


def both(work: Callable[[list[int]], object], lists: list[list[int]], files: list[Path]) -> dict[str, float]:
    """Return the median seconds of a cold and of a warm shortlist; half of the lists are read cold."""
    half = max(len(lists) // 2, 1)
    cold = timed(work, lists[:half], lambda: forget(files))
    for rows in lists:
        work(rows)
    return {"cold": cold, "warm": timed(work, lists, None)}


def digest_of(arrays: Iterable[np.ndarray]) -> str:
    return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()


def measure_ours(folder: Path, options: argparse.Namespace, lists: list[list[int]]) -> dict[str, Any]:
    files = sorted(folder.glob("0*"))
    forget(files)
    from openilias.rerank.similarities import database_of_local

    before = memory()
    begun = time.perf_counter()
    store = open_local_store(folder)
    opened = time.perf_counter() - begun
    counts = np.cumsum([0, *(shard.images for shard in store.shards)])

    def ids_of(rows: list[int]) -> list[str]:
        shards = np.searchsorted(counts, rows, side="right") - 1
        return [name_of(int(s), int(row - counts[s])) for s, row in zip(shards, rows, strict=True)]

    after_open = memory()
    asked = [ids_of(rows) for rows in lists]
    finding = {}
    for state in ("cold", "warm"):
        if state == "cold":
            forget(files)
        begun = time.perf_counter()
        database_of_local([store], asked[0])
        finding[state] = time.perf_counter() - begun
    after_find = memory()
    union = sorted({item for ids in asked for item in ids})
    begun = time.perf_counter()
    database = database_of_local([store], union)
    finding[f"all {len(union):,}"] = time.perf_counter() - begun
    named = {id(rows): ids for rows, ids in zip(lists, asked, strict=True)}

    def reader(geometry: bool) -> Callable[[list[int]], object]:
        return lambda rows: database.candidates(named[id(rows)], options.most, geometry=geometry)

    kinds = {"descriptors alone": False, "with geometry": True}
    reading = {what: both(reader(geometry), lists, files) for what, geometry in kinds.items()}
    return {
        "memory": {"imported": before, "opened": after_open, "found": after_find, "read": memory()},
        "open": opened,
        "find": finding,
        "read": reading,
        "digest": digest_of(database.candidates(asked[0], options.most)[:2]),
    }


def measure_hdf5(path: Path, layout: str, lists: list[list[int]]) -> dict[str, Any]:
    import h5py

    names = ["features"] if layout == "ames" else ["features", "geometry"]
    file = h5py.File(path)

    def one_by_one(rows: list[int]) -> list[np.ndarray]:
        return [np.stack([file[name][row] for row in rows]) for name in names]

    def together(rows: list[int]) -> list[np.ndarray]:
        order = np.sort(np.unique(rows)).tolist()
        places = np.searchsorted(order, rows)
        with h5py.File(path) as again:
            return [again[name][order][places] for name in names]

    works = {"as in AMES' code": together} | ({} if layout == "ames" else {"image by image": one_by_one})
    found = {name: both(work, lists, [path]) for name, work in works.items()}
    return {"read": found, "memory": {"read": memory()}, "digest": digest_of(together(lists[0]))}


def measure_limits(folder: Path, options: argparse.Namespace, lists: list[list[int]]) -> dict[str, Any]:
    """Read the same pieces by bare preads: in threads for the disk, and copy as many bytes for the memory."""
    files = {kind: sorted(folder.glob(f"*.{kind}.npy")) for kind in ("desc", "geometry")}
    counts = np.cumsum([0, *sizes_of_shards(options.images, options.shards)])
    handles = {kind: [os.open(path, os.O_RDONLY) for path in paths] for kind, paths in files.items()}
    each = options.most * 16  # bytes of both kinds

    def pieces(rows: list[int]) -> list[tuple[int, int]]:
        shards = (np.searchsorted(counts, rows, side="right") - 1).tolist()
        return [
            (handles[kind][shard], 128 + each * int(row - counts[shard]))
            for kind in handles
            for shard, row in zip(shards, rows, strict=True)
        ]

    def read(some: list[tuple[int, int]]) -> None:
        for handle, start in some:
            os.pread(handle, each, start)

    all_files = [path for paths in files.values() for path in paths]
    with ThreadPoolExecutor(THREADS) as pool:
        threads = both(
            lambda rows: list(pool.map(read, [pieces(rows)[n::THREADS] for n in range(THREADS)])), lists, all_files
        )
    pages = {
        (handle, page)
        for handle, start in pieces(lists[0])
        for page in range(start // 4096, (start + each - 1) // 4096 + 1)
    }
    forget(all_files)
    begun = time.perf_counter()
    block = files["desc"][0].read_bytes()
    rate = len(block) / (time.perf_counter() - begun)
    size = 2 * each * len(lists[0])
    source = np.ones(max(size, 256 << 20), np.uint8)  # larger than any cache
    out = np.empty(size, np.uint8)
    copied = []
    for start in np.random.default_rng(0).integers(0, len(source) - size + 1, 50).tolist():
        begun = time.perf_counter()
        out[:] = source[start : start + size]
        copied.append(time.perf_counter() - begun)
    limit = {"cold": 4096 * len(pages) / rate, "warm": statistics.median(copied)}
    return {"read": {f"bare preads in {THREADS} threads": threads, "limit": limit}, "disk": rate / 1e6}


def fresh(what: str, options: argparse.Namespace, path: Path) -> Any:
    """Measure in a process of its own."""
    command = [sys.executable, __file__, "--measure", what, "--folder", str(path), "--images", str(options.images)]
    for name in ("shards", "most", "shortlist", "lists"):
        command += [f"--{name}", str(getattr(options, name))]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def main() -> None:
    """Run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--shards", type=int, default=10)
    parser.add_argument("--most", type=int, default=100, help="descriptors of an image")
    parser.add_argument("--shortlist", type=int, default=1000)
    parser.add_argument("--lists", type=int, default=20, help="how many shortlists")
    parser.add_argument("--folder", type=Path, help="kept; a temporary one that is removed by default")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--measure", choices=("ours", "hdf5", "ames", "limits"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.quick:
        options.images, options.lists = min(options.images, 20_000), 4
    if options.measure:
        images = options.images // AMES_SHARE if options.measure == "ames" else options.images
        rng = np.random.default_rng(1)
        size = min(options.shortlist, images)
        lists = [rng.choice(images, size, replace=False).tolist() for _ in range(options.lists)]
        if options.measure == "ours":
            found = measure_ours(options.folder, options, lists)
        elif options.measure == "limits":
            found = measure_limits(options.folder, options, lists)
        else:
            found = measure_hdf5(options.folder, options.measure, lists)
        print(json.dumps(found))
        return
    with tempfile.TemporaryDirectory() as temporary:
        run(options, options.folder or Path(temporary))


def run(options: argparse.Namespace, folder: Path) -> None:
    print(f"{platform.machine()}, {os.cpu_count()} cores, {software()}")
    store, hdf5, ames = folder / "store", folder / "one.hdf5", folder / "ames.hdf5"
    print(f"{options.images:,} images of {options.most} descriptors of {BITS} bits, {options.shards} shards")
    if not store.exists():
        spent = build(store, options.images, options.shards, options.most)
        size = sum(path.stat().st_size for path in store.iterdir())
        seconds = spent["adding"] + spent["closing"]
        h5 = build_hdf5(hdf5, options.images, options.shards, options.most)
        build_ames(ames, options.images // AMES_SHARE, options.most)
        plain = plain_writing(folder / "plain", size)
        (folder / "plain").unlink()
        best = size / 1e6 / plain["write"] + size / 1e6 / plain["sha256"]
        print("\n| written | s | MB/s | times the limit |\n|---|---:|---:|---:|")
        for name, took in (
            ("ours: images added, in Python", spent["adding"]),
            ("ours: files on disk, digests, markers", spent["closing"]),
            ("ours, together", seconds),
            ("h5py, in blocks, no digests", h5),
            ("limit: plain file, and its SHA-256", best),
        ):
            print(f"| {name} | {took:.1f} | {size / took / 1e6:,.0f} | {took / best:.2f} |")
    found = {name: fresh(name, options, path) for name, path in
             (("ours", store), ("hdf5", hdf5), ("ames", ames), ("limits", store))}  # fmt: skip
    assert found["ours"]["digest"] == found["hdf5"]["digest"], "the descriptors differ"
    files: dict[str, int] = {}
    for path in store.iterdir():
        kind = path.name.partition(".")[2] if path.name[0] == "0" else path.name
        files[kind] = files.get(kind, 0) + path.stat().st_size
    print("\n| bytes of an image on disk | |\n|---|---:|")
    for kind, total in sorted(files.items(), key=lambda pair: -pair[1]):
        print(f"| {kind} | {total / options.images:,.2f} |")
    ours = found["ours"]
    print("\n| fresh process | |\n|---|---:|")
    print(f"| open, cold | {ours['open'] * 1000:.1f} ms |")
    for state, took in ours["find"].items():
        what = f"{options.shortlist:,} ids, {state}" if state in ("cold", "warm") else f"{state[4:]} ids, warm"
        print(f"| find {what} | {took * 1000:.1f} ms |")
    for state, values in ours["memory"].items():
        print(
            f"| memory when {state}: peak, resident, own | {values['peak']:.0f}, {values['resident']:.0f}, "
            f"{values['own']:.0f} MiB |"
        )
    for which in ("hdf5", "ames"):
        values = found[which]["memory"]["read"]
        print(f"| {which}: the same | {values['peak']:.0f}, {values['resident']:.0f}, {values['own']:.0f} MiB |")
    best = found["limits"]["read"]["limit"]
    print(f"\nthe disk, cold, from the beginning of a file: {found['limits']['disk']:,.0f} MB/s")
    print(
        f"\n| shortlist of {options.shortlist:,} | cold ms | warm ms | warm images/s | warm lists/s | times the limit |"
    )
    print("|---|---:|---:|---:|---:|---:|")
    for which, title in (("ours", "ours"), ("hdf5", "h5py"), ("ames", "AMES' own layout, h5py"), ("limits", "")):
        for name, took in found[which]["read"].items():
            # The limits are of both descriptors and geometry; what reads other bytes has others.
            share = (5 + BITS) * 4 / 32 if which == "ames" else 0.5 if name == "descriptors alone" else 1.0
            print(
                f"| {f'{title}, {name}'.lstrip(', ')} | {took['cold'] * 1000:.1f} | {took['warm'] * 1000:.2f} | "
                f"{options.shortlist / took['warm']:,.0f} | {1 / took['warm']:,.1f} | "
                f"cold {took['cold'] / best['cold'] / share:.1f}, warm {took['warm'] / best['warm'] / share:.1f} |"
            )


if __name__ == "__main__":
    main()
