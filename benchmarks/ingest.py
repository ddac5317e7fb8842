"""What an image and a row of metadata take on their way into a test set, beside plain ways of doing the same.

    make bench        or        python benchmarks/ingest.py [--photos FOLDER] [--rows N] [--rounds N] [--ingest N]

Images: one process, one thread; medians over rounds that take turns. Without --photos pictures are generated. The
plain loop does the same work with Pillow and NumPy as one would write it down: decode, upright, profile, resize,
grey-world in linear light, JPEG 90 4:4:4, digest; it checks less, and makes no perceptual hash. The resizer of
img2dataset does less still (OpenCV; no upright, no profile, no balance, 4:2:0, no digest). It is measured if it can be
imported; it wants other versions of pinned packages, so it may be read from a folder of its own:

    pip install --no-deps --target FOLDER img2dataset "albumentations<1.4" qudida scikit-image lazy-loader
    python benchmarks/ingest.py --img2dataset FOLDER

Rows: a generated file of the published layout of 25 columns (--rows 10000000 needs 6 GB of disk); memory is what this
process has above what it had before.

The whole: --ingest N rows (200000 for what is published) through `ilias build ingest`, without a limit of rate, from a
server of this machine, in a process of its own, that has few small pictures; memory of this process and of the workers
at intervals. It takes most of its time for asking, so that memory and requests per second are what it is about.

Money and time for 100 million follow from what was measured, and from prices that are assumptions: give your own.
Ratios matter, not seconds.
"""

from __future__ import annotations

import argparse
import asyncio
import bz2
import hashlib
import importlib.util
import io
import multiprocessing
import os
import platform
import resource
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from PIL import Image, ImageCms, ImageOps

from openilias.build.ingest.fetching import Access
from openilias.build.ingest.hosts import Politeness
from openilias.build.ingest.ingest import ingest
from openilias.build.ingest.settings import IngestSettings
from openilias.build.normalise import Balance, NormaliseSettings, normalise
from openilias.build.tables.metadata import Row, open_table
from openilias.core.manifests import software


def generated(count: int) -> list[bytes]:
    rng = np.random.default_rng(0)
    made = []
    for at in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (48, 64, 3), dtype=np.uint8))
        picture = coarse.resize((500, 375) if at % 3 else (1024, 768), Image.Resampling.BICUBIC)
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=85)
        made.append(buffer.getvalue())
    return made


def photographs(folder: Path, count: int) -> list[bytes]:
    files = sorted(folder.rglob("*.jpg"))
    return [file.read_bytes() for file in files[:: max(1, len(files) // count)][:count]]


def enlarged(data: Sequence[bytes], longest: int) -> list[bytes]:
    """The same pictures as originals would be: larger, 4:2:0."""
    made = []
    for one in data:
        image = Image.open(io.BytesIO(one)).convert("RGB")
        scale = longest / max(image.size)
        buffer = io.BytesIO()
        image.resize((round(image.width * scale), round(image.height * scale))).save(buffer, "JPEG", quality=92)
        made.append(buffer.getvalue())
    return made


def plain(data: bytes) -> str:
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    profile = image.info.get("icc_profile")
    image = image.convert("RGB")
    if profile:
        image = ImageCms.profileToProfile(
            image, ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB")
        )
    if max(image.size) > 500:
        image.thumbnail((500, 500), Image.Resampling.BICUBIC, reducing_gap=None)
    value = np.asarray(image, np.float32) / 255
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    mean = linear.reshape(-1, 3).mean(0)
    linear = np.clip(linear * (mean @ np.array([0.2126, 0.7152, 0.0722], np.float32) / mean), 0, 1)
    value = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
    buffer = io.BytesIO()
    Image.fromarray((value * 255 + 0.5).astype(np.uint8)).save(buffer, "JPEG", quality=90, subsampling=0)
    return hashlib.sha256(buffer.getvalue()).hexdigest()


def without_balance(data: bytes) -> str:
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    if max(image.size) > 500:
        image.thumbnail((500, 500), Image.Resampling.BICUBIC, reducing_gap=None)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=90, subsampling=0)
    return hashlib.sha256(buffer.getvalue()).hexdigest()


def img2dataset(folder: Path | None) -> Callable[[bytes], object] | None:
    """The resizer of img2dataset alone: the package wants much that is not needed for it. None if it is not there."""
    if folder is None:
        package = importlib.util.find_spec("img2dataset")
        if package is None or not package.submodule_search_locations:
            return None
        folder = Path(package.submodule_search_locations[0]).parent
    sys.path.append(str(folder))  # behind all that is pinned
    spec = importlib.util.spec_from_file_location("resizer", folder / "img2dataset" / "resizer.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    resizer = module.Resizer(500, "keep_ratio_largest", True, encode_quality=90)

    def work(data: bytes) -> object:
        found = resizer(io.BytesIO(data))
        assert found[-1] is None, found[-1]
        return found

    return work


def images(name: str, data: Sequence[bytes], rounds: int, other: Callable[[bytes], object] | None) -> float:
    print(f"{name}: {len(data)} files of {sum(map(len, data)) // len(data) // 1024} KiB on average")
    none = NormaliseSettings(balance=Balance(method="none"))
    always = NormaliseSettings(balance=Balance(method="none"), skip_reencode=False)
    ways: dict[str, Callable[[bytes], object]] = {
        "normalise, grey-world (the default)": lambda one: normalise(one, NormaliseSettings(), where="x"),
        "plain loop, grey-world": plain,
        "normalise, no white balance": lambda one: normalise(one, none, where="x"),
        "the same, always encoded": lambda one: normalise(one, always, where="x"),
        "plain loop, no white balance": without_balance,
    }
    if other is not None:
        ways["img2dataset, resizer only"] = other
    times: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way, work in ways.items():
            started = time.perf_counter()
            for one in data:
                work(one)
            times[way].append(time.perf_counter() - started)
    for way, found in times.items():
        median = statistics.median(found)
        base = statistics.median(times["plain loop, grey-world"])
        print(
            f"  {way:<38}{len(data) / median:8.1f} images/s   ({len(data) / max(found):.1f} to "
            f"{len(data) / min(found):.1f})   x {base / median:.2f} of the plain loop"
        )
    return len(data) / statistics.median(times["normalise, grey-world (the default)"])


def write_rows(path: Path, count: int) -> None:
    with path.open("wb") as file:
        for at in range(count):
            photo = 6_985_418_911 + at
            url = f"http://farm8.staticflickr.com/7205/{photo}_{at:010x}.jpg"
            digest = hashlib.md5(url.encode()).hexdigest()
            fields = (
                at, photo, digest, "39089491@N00", "some+one%27s+name", "2012-02-16 09:56:37.0", 1331840483,
                "Canon+PowerShot+ELPH+310+HS", f"IMG_{at}", "A+description+of+what+is+seen%2C+of+some+length." * 2,
                "canon,canon+powershot+hs+310,some,more,tags", "", -81.804885, 24.550558, 12,
                f"http://www.flickr.com/photos/39089491@N00/{photo}/", url, "Attribution License",
                "http://creativecommons.org/licenses/by/2.0/", 7205, 8, f"{at:010x}", "692d7e0a7f", "jpg",
                int(at % 126 == 0),
            )  # fmt: skip
            file.write("\t".join(map(str, fields)).encode() + b"\n")


def memory() -> float:
    """Memory that this process has at the moment, in MiB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20


def rows(count: int, folder: Path) -> float:
    path = folder / "yfcc100m_dataset"
    write_rows(path, count)
    print(f"metadata: {count:,} rows of 25 columns, {path.stat().st_size / 2**20:.0f} MiB")
    before, highest, found = memory(), 0.0, 0
    started = time.perf_counter()
    for number, record in enumerate(open_table(path).read()):
        found += isinstance(record, Row)
        if number % 10_000 == 0:
            highest = max(highest, memory())
    speed = count / (time.perf_counter() - started)
    print(f"  read           {speed:12,.0f} rows/s   {found:,} photos   memory +{highest - before:.1f} MiB at most")
    started = time.perf_counter()
    with path.open("rb") as file:
        split = sum(len(line.split(b"\t")) == 25 for line in file)
    base = split / (time.perf_counter() - started)
    print(f"  split by tabs  {base:12,.0f} rows/s   (a loop that looks at nothing; reading is x {speed / base:.2f})")
    started = time.perf_counter()
    number = sum(1 for _ in open_table(path).parts(100_000))
    elapsed = time.perf_counter() - started
    print(f"  cut into parts {count / elapsed:12,.0f} rows/s   {number} parts")
    few = path.with_suffix(".bz2")
    with path.open("rb") as file:
        few.write_bytes(bz2.compress(b"".join(line for _, line in zip(range(min(count, 100_000)), file, strict=False))))
    started = time.perf_counter()
    packed = sum(1 for _ in open_table(few).read())
    print(f"  read, bzip2    {packed / (time.perf_counter() - started):12,.0f} rows/s   ({packed:,} rows)")
    return speed


def serve(port: multiprocessing.SimpleQueue[int]) -> None:
    """Serve one of few small pictures for any path."""
    from aiohttp import web

    pictures = [small(number) for number in range(8)]

    async def answer(request: web.Request) -> web.Response:
        return web.Response(body=pictures[len(request.path) % len(pictures)], content_type="image/jpeg")

    async def run() -> None:
        app = web.Application()
        app.router.add_get("/{path:.*}", answer)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port.put(site._server.sockets[0].getsockname()[1])  # type: ignore[union-attr]
        await asyncio.Event().wait()

    asyncio.run(run())


def small(seed: int) -> bytes:
    values = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(values).resize((32, 24), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def memory_of(process: int) -> float:
    try:
        return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * resource.getpagesize() / 2**20
    except OSError:
        return 0.0


def children() -> list[int]:
    return [int(word) for task in Path("/proc/self/task").iterdir() for word in (task / "children").read_text().split()]


class Samples:
    """Memory of this process and its children, now and then, with the rows that were stored by then."""

    def __init__(self, folder: Path, leave_out: int, every: float) -> None:
        self._folder, self._leave_out, self._every = folder, leave_out, every
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.taken: list[tuple[float, float, float, float]] = []  # seconds, MiB here, MiB of the workers, MiB on disk

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        begun = time.monotonic()
        while not self._over.wait(self._every):
            workers = sum(memory_of(child) for child in children() if child != self._leave_out)
            state = (path for path in (self._folder / "build").rglob("*.spool"))
            disk = sum(path.stat().st_size for path in state if path.exists()) / 2**20
            self.taken.append((time.monotonic() - begun, memory(), workers, disk))


def whole(rows: int, folder: Path, workers: int, per_shard: int) -> None:
    spawn = multiprocessing.get_context("spawn")
    told = spawn.SimpleQueue()
    server = spawn.Process(target=serve, args=(told,), daemon=True)
    server.start()
    try:
        base = f"http://127.0.0.1:{told.get()}"
        table = folder / "table.csv"
        with table.open("w") as file:
            file.write("id,url\n")
            file.writelines(f"{number:09d},{base}/{'x' * (number % 8)}/{number}.jpg\n" for number in range(rows))
        access = Access(politeness=Politeness(rate=None, per_host=64), allowed=frozenset(("127.0.0.1",)))
        settings = IngestSettings(per_shard=per_shard)
        begun, used = time.perf_counter(), os.times()
        with Samples(folder / "set", server.pid or 0, max(0.5, min(10.0, rows / 20_000))) as samples:
            found = ingest([table], folder / "set", settings, access=access, workers=workers)
        elapsed, now = time.perf_counter() - begun, os.times()
    finally:
        server.terminate()
        server.join()
    assert found.statuses == {"stored": rows}, found.statuses
    here = now.user + now.system - used.user - used.system
    print(f"whole ingest: {rows:,} rows of 32 x 24 px, {workers} workers, shards of {per_shard:,}")
    print(f"  {rows / elapsed:8.1f} rows/s; {1000 * here / rows:.2f} ms of this process for each row")
    shown = samples.taken[:: max(1, len(samples.taken) // 12)]
    print("  seconds   MiB here   MiB of workers   MiB of spools")
    for seconds, mine, theirs, disk in shown:
        print(f"  {seconds:7.0f} {mine:10.0f} {theirs:16.0f} {disk:15.0f}")
    steady = samples.taken[len(samples.taken) // 10 :]
    if len(steady) >= 8:
        half = len(steady) // 2
        for name, at in (("here", 1), ("workers", 2)):
            first, last = max(one[at] for one in steady[:half]), max(one[at] for one in steady[half:])
            print(f"  most in the first half, {name}: {first:.0f} MiB; in the second: {last:.0f} ({last - first:+.0f})")


def projection(asked: argparse.Namespace, each: float, large: float, reading: float, data: Sequence[bytes]) -> None:
    """What 100 million images take: measured rates, and prices that are assumed."""
    count = 1e8
    stored = statistics.mean(len(normalise(one, NormaliseSettings(), where="x").jpeg) for one in data)
    came = statistics.mean(map(len, data))
    hours = count / each / 3600
    print("100 million images of 500 px, from what was measured above:")
    print(f"  decode to encode   {hours:,.0f} core hours ({hours / 64:.0f} hours on 64 cores); "
          f"from originals of 2,048 px {count / large / 3600:,.0f}")  # fmt: skip
    print(f"  reading metadata   {count / reading / 60:.0f} minutes of one core")
    print(f"  network            {count * came / 1e12:.1f} TB ({came / 1000:.0f} kB each)")
    print(f"  storage            {count * stored / 1e12:.1f} TB ({stored / 1000:.0f} kB each)")
    for rate in (50, 500):
        print(f"  at {rate:3d} requests/s   {count / rate / 86_400:.1f} days")
    work, month = hours * asked.price_core_hour, count * stored / 1e9 * asked.price_gb
    print(f"  money              {work:,.0f} for computing and {month:,.0f} a month for storage, without traffic")
    print(f"  (assumed: {asked.price_core_hour:g} for a core hour, {asked.price_gb:g} for a GB and month)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, help="a folder of JPEGs")
    parser.add_argument("--images", type=int, default=60)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--ingest", type=int, default=5_000, metavar="N", help="rows of the whole; 0 for none")
    parser.add_argument("--workers", type=int, default=2, help="of the whole")
    parser.add_argument("--per-shard", type=int, help="of the whole; a fifth of its rows if not given")
    parser.add_argument("--img2dataset", type=Path, help="where it was installed with --target")
    parser.add_argument("--price-core-hour", type=float, default=0.04, help="assumption, in any currency")
    parser.add_argument("--price-gb", type=float, default=0.02, help="assumption, of a GB for a month")
    asked = parser.parse_args()
    other = img2dataset(asked.img2dataset)
    versions = " ".join(f"{name} {version}" for name, version in software().items())
    print(f"{platform.platform()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; {versions}")
    with tempfile.TemporaryDirectory() as folder:
        # First, so that the peak is not that of the pictures.
        reading = rows(asked.rows, Path(folder))
    if asked.ingest:
        with tempfile.TemporaryDirectory() as folder:
            per_shard = asked.per_shard or max(1, asked.ingest // 5)
            whole(asked.ingest, Path(folder), asked.workers, per_shard)
    if other is None:
        print("img2dataset cannot be imported: the plain loops of Pillow are what is compared with")
    data = photographs(asked.photos, asked.images) if asked.photos else generated(asked.images)
    each = images("files of at most 500 px", data, asked.rounds, other)
    large = images("originals of 2,048 px", enlarged(data[: max(1, asked.images // 4)], 2048), asked.rounds, other)
    projection(asked, each, large, reading, data)


if __name__ == "__main__":
    main()
