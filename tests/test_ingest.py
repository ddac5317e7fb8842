"""Ingest from a server that fails in every way: what is stored depends on nothing but the tables and the answers."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import io
import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

import faulty_server as faults
from conftest import Outcome, kill_when
from faulty_server import FaultyServer, Handler
from openilias.build.conformity import conforms
from openilias.build.ingest import decoders as decoding
from openilias.build.ingest import hosts as hosting
from openilias.build.ingest import ingest as ingesting
from openilias.build.ingest import shards as sharding
from openilias.build.ingest.decoders import Decoders, Unusable
from openilias.build.ingest.fetching import Access
from openilias.build.ingest.hosts import Politeness
from openilias.build.ingest.ingest import ingest
from openilias.build.ingest.plan import PlannedShard, Reader, make_plan, read_plan
from openilias.build.ingest.settings import IngestSettings
from openilias.build.ingest.shards import Places, ShardWork
from openilias.build.ingest.spool import Spool
from openilias.build.ingest.statuses import STATUSES, parse_retry
from openilias.build.ingest.summary import Ingested, status_of
from openilias.build.normalise import NormaliseSettings
from openilias.build.stored import StoredImage, read_rows
from openilias.build.tables.metadata import START, open_table
from openilias.core.errors import OpenIliasError
from openilias.core.executors import process_pool
from openilias.core.files import InUseError, owned
from openilias.core.shards import Share
from openilias.data import addresses
from openilias.data.http import Patience
from openilias.images.tars import TarReader

QUICK = Patience(retries=2, stall=1.2, first_wait=0.01, longest_wait=0.04, longest_retry_after=0.1, redirects=3)
POLITE = Politeness(rate=None, pause=0.05, give_up=0.4)
SMALL = IngestSettings(per_shard=60, most_bytes=2**20)
FLICKR, S3 = "https://live.staticflickr.com", "https://multimedia-commons.s3-us-west-2.amazonaws.com/data/images"
FARM = "http://farm8.staticflickr.com"


def picture(seed: int, size: tuple[int, int] = (40, 30), form: str = "JPEG", **how: Any) -> bytes:
    values = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(values).resize(size, Image.Resampling.BICUBIC).save(buffer, form, **how)
    return buffer.getvalue()


@cache
def bomb() -> bytes:
    """A PNG of 200 million pixels in few bytes."""
    buffer = io.BytesIO()
    Image.new("1", (20_000, 10_000)).save(buffer, "PNG")
    return buffer.getvalue()


def turned(seed: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112], exif[0x0110] = 6, "Camera X"
    return picture(seed, (640, 420), exif=exif, icc_profile=wide())


def wide() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def hangs_up(handler: Handler, data: bytes) -> None:
    handler.reset()


def cut_with_its_length(handler: Handler, data: bytes) -> None:
    handler.start(200, len(data) // 2)
    handler.wfile.write(data[: len(data) // 2])


def gzip_bomb(handler: Handler, data: bytes) -> None:
    handler.start(200, len(PACKED), Content_Encoding="gzip")
    handler.wfile.write(PACKED)


def flood(handler: Handler, data: bytes) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
    for number in range(100_000):
        handler.wfile.write(b"X-%d: %s\r\n" % (number, b"x" * 1000))


def to(location: str) -> faults.Fault:
    return faults.says(302, Location=location)


PACKED = gzip.compress(bytes(10**7))
HTML, SVG = b"<!DOCTYPE html><html><body>hello</body></html>", b"<svg xmlns='http://www.w3.org/2000/svg'/>"
# What each kind of row becomes: (status of the first URL, what is done to it each time).
ALWAYS: dict[str, tuple[str, faults.Fault]] = {
    "gone-404": ("gone", faults.says(404)),
    "gone-410": ("gone", faults.says(410)),
    "forbidden": ("forbidden", faults.says(403)),
    "no-content": ("http-error", faults.says(204)),
    "busy": ("busy", faults.says(429, Retry_After="0")),
    "error": ("server-error", faults.says(503)),
    "reset": ("no-connection", hangs_up),
    "cut": ("broken-off", faults.truncates(300)),
    "cut-right-length": ("truncated", cut_with_its_length),
    "stall": ("timeout", faults.stalls(200)),
    "html": ("not-an-image", faults.serves(HTML)),
    "svg": ("not-an-image", faults.serves(SVG)),
    "noise": ("not-an-image", faults.serves(bytes(range(256)) * 20)),
    "nothing": ("empty", faults.serves(b"")),
    "bomb": ("bomb", faults.serves(bomb())),
    "tiny": ("too-small", faults.serves(picture(1, (40, 8)))),
    "tiff": ("other-format", faults.serves(picture(1, form="TIFF"))),
    "packed": ("refused", gzip_bomb),
    "endless": ("too-large", faults.endless),
    "private": ("refused", to("http://10.0.0.1/a.jpg")),
    "loopback": ("refused", to("http://127.0.0.1/a.jpg")),
    "metadata": ("refused", to("http://169.254.169.254/latest/meta-data/")),
    "mapped": ("refused", to("http://[::ffff:10.0.0.1]/a.jpg")),
    "file": ("refused", to("file:///etc/passwd")),
    "loop": ("refused", to("/loop")),
    "unavailable": ("gone", to("/pw/images/en-us/photo_unavailable_l.png")),
    "flood": ("broken-off", flood),
    "no-http": ("broken-off", faults.garbage),
}
ONCE: dict[str, faults.Fault] = {
    "busy-once": faults.says(429, Retry_After="0"),
    "error-once": faults.says(503),
    "reset-once": hangs_up,
    "cut-once": faults.truncates(300),
}
FOR_A_TIME = {"busy", "server-error", "no-connection", "broken-off", "timeout"}


class World:
    """A table of the published layout of 150 photographs, and a server that stands for Flickr and the bucket."""

    def __init__(self, folder: Path, server: FaultyServer, photographs: list[bytes]) -> None:
        self.server, self.table = server, folder / "yfcc100m_dataset"
        self.base = server.base.replace("127.0.0.1", "localhost")
        self.expected: dict[str, str] = {}
        lines = []
        kinds = iter([*ALWAYS, *ONCE])
        server.files["/pw/images/en-us/photo_unavailable_l.png"] = picture(0, form="PNG")
        server.always["/loop"] = to("/loop")
        for number in range(150):
            photo, secret = 7_000_000_000 + number, f"{number:010x}"
            path = f"/7205/{photo}_{secret}.jpg"
            data = photographs[number % len(photographs)] if photographs and number % 2 else picture(number)
            if number == 9:
                data = turned(number)
            if number == 8:
                data = picture(number, (700, 500), form="PNG")
            published, digest = f"{FARM}{path}", hashlib.md5(str(photo).encode()).hexdigest()
            in_bucket = f"/s3/{digest[:3]}/{digest[3:6]}/{digest}.jpg"
            server.files[path], status = data, "stored"
            kind = next(kinds, "") if number % 5 == 2 or number > 140 else ""
            if kind in ALWAYS:
                first, fault = ALWAYS[kind]
                server.always[path] = server.always[f"/farm{path}"] = fault
                # What the first place does not have the bucket has, half of the time; else it has nothing.
                if number % 2 and first not in FOR_A_TIME:
                    server.files[in_bucket] = data
                else:
                    status = first if first in FOR_A_TIME else "gone"
            elif kind:
                server.faults[path] = [ONCE[kind]]
            self.expected[str(photo)] = status
            lines.append(line(number, photo, digest, published, secret))
            if number % 40 == 3:
                lines += [line(number, 1, digest, published, secret, video=True), "a bad line"]
        self.table.write_text("\n".join(lines) + "\n", encoding="utf-8")

    def access(self, **changes: Any) -> Access:
        return replace(access_to(), rewrite=self.rewrite, **changes)

    @property
    def rewrite(self) -> dict[str, str]:
        return {FLICKR: self.base, FARM: f"{self.base}/farm", S3: f"{self.base}/s3"}


def line(number: int, photo: int, digest: str, url: str, secret: str, *, video: bool = False) -> str:
    fields = (
        number, photo, digest, "39@N00", "some+one%27s", "2012-02-16 09:56:37.0", 1331840483, "Canon", "title", "text",
        "tags", "", "", "", "", f"http://www.flickr.com/photos/39@N00/{photo}/", url, "Attribution License",
        "http://creativecommons.org/licenses/by/2.0/", 7205, 8, secret, "692d7e0a7f", "jpg", int(video),
    )  # fmt: skip
    return "\t".join(map(str, fields))


def access_to(**changes: Any) -> Access:
    usual = Access(politeness=POLITE, patience=QUICK, connections=16, seconds=5.0, allowed=frozenset(("localhost",)))
    return replace(usual, **changes)


def bytes_of(root: Path) -> dict[str, bytes]:
    """All that is published of a set."""
    files = [path for folder in ("yfcc100m", "rows", "image_ids") for path in (root / folder).rglob("*")]
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in files if path.is_file()}


def rows_of(root: Path) -> dict[str, StoredImage]:
    return {row.id: row for table in sorted((root / "rows").glob("*.parquet")) for row in read_rows(table)}


def assert_same(root: Path, other: Path) -> None:
    first, second = rows_of(root), rows_of(other)
    assert [row for name, row in first.items() if row != second.get(name)] == [
        row for name, row in second.items() if row != first.get(name)
    ]
    assert bytes_of(root) == bytes_of(other)


def left_over(root: Path) -> list[str]:
    """What is there besides the tars, the tables, the list, the manifest and the plan."""
    files = {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()} - bytes_of(root).keys()
    return sorted(
        files - {f"build/ingest/{name}" for name in ("manifest.json", "plan/plan.json", "plan/duplicates.npy")}
    )


class Kept:
    """A process that decodes for test after test: starting one takes most of the time of a small ingest."""

    def __init__(self) -> None:
        self._pool: Any = None

    def submit(self, *job: Any) -> Any:
        self._pool = self._pool or process_pool(1)
        return self._pool.submit(*job)

    def shutdown(self, *, kill_workers: bool = False) -> None:
        if kill_workers:
            self.end()

    def end(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(kill_workers=True)
            self._pool = None


@pytest.fixture(scope="module")
def kept() -> Iterator[Kept]:
    pool = Kept()
    yield pool
    pool.end()


@pytest.fixture
def own_processes() -> None:
    """Ask for it where the processes are what is tested."""


@pytest.fixture(autouse=True)
def few_processes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, kept: Kept) -> None:
    if "own_processes" not in request.fixturenames:
        monkeypatch.setattr(decoding, "process_pool", lambda workers: kept)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = os.environ.get("OPENILIAS_TEST_PHOTOS", "")
    real = sorted(Path(folder).rglob("*.jpg"))[:20] if folder else []
    with FaultyServer() as server:
        yield World(tmp_path_factory.mktemp("world"), server, [path.read_bytes() for path in real])


@pytest.fixture(scope="module")
def made(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The set that two workers make; do not change it."""
    root = tmp_path_factory.mktemp("sets") / "set"
    found = ingest([world.table], root, SMALL, access=world.access(), workers=2)
    assert found.whole
    assert found.listed
    return root


@pytest.fixture
def server() -> Iterator[FaultyServer]:
    with FaultyServer() as running:
        yield running


def table_of(folder: Path, server: FaultyServer, count: int, *, served: int | None = None) -> Path:
    base = server.base.replace("127.0.0.1", "localhost")
    for number in range(count if served is None else served):
        server.files[f"/{number}.jpg"] = picture(number)
    path = folder / "table.csv"
    path.write_text("id,url\n" + "".join(f"p{number},{base}/{number}.jpg\n" for number in range(count)))
    return path


def gets(server: FaultyServer) -> Counter[str]:
    return Counter(path for method, path, _, _ in server.log if method == "GET")


# what is stored


def test_every_row_has_the_status_of_what_happened(world: World, made: Path) -> None:
    rows = rows_of(made)
    found = {name: row.status for name, row in rows.items() if row.status != "bad-row"}
    assert found == world.expected
    bad = [row for row in rows.values() if row.status == "bad-row"]
    assert len(bad) == 4
    assert bad[0].where == "yfcc100m_dataset:6"
    assert "1 columns instead of 25" in (bad[0].notes or "")
    assert {row.status for row in rows.values()} <= STATUSES.keys()


def test_all_that_goes_wrong_with_a_url_is_told(world: World, made: Path) -> None:
    words = " ".join(row.notes or "" for row in rows_of(made).values())
    wanted = {status for status, _ in ALWAYS.values()}
    assert not {status for status in wanted if f": {status}" not in words}
    assert "10.0.0.1 is a private address" in words
    assert "127.0.0.1 is a loopback address" in words
    assert "169.254.169.254 is a link-local address" in words


def test_what_is_stored_conforms(made: Path) -> None:
    rows = rows_of(made)
    stored = 0
    for tar in sorted((made / "yfcc100m").glob("*.tar")):
        with TarReader(tar) as reader:
            for key, data in reader:
                assert conforms(data) == []
                assert hashlib.sha256(data).hexdigest() == rows[key].sha256
                assert len(data) == rows[key].bytes
                stored += 1
    assert stored == sum(row.status == "stored" for row in rows.values())


def test_rows_say_where_an_image_came_from(made: Path) -> None:
    rows = rows_of(made)
    row = rows["7000000009"]
    assert (row.width, row.height, row.original_width, row.original_height) == (328, 500, 420, 640)
    assert row.camera == "Camera X"  # its EXIF and not the table
    assert row.url == f"{FLICKR}/7205/7000000009_0000000009.jpg"  # not where it was rewritten to
    assert (row.author, row.licence, row.taken) == ("some one's", "Attribution License", "2012-02-16 09:56:37")
    assert rows["7000000000"].camera == "Canon"
    second = [row for row in rows.values() if row.status == "stored" and row.url and row.url.startswith(S3)]
    assert second
    assert all(FLICKR in (row.notes or "") for row in second)


def test_the_set_can_be_read(made: Path) -> None:
    (made / "ilias_core").mkdir(exist_ok=True)
    ids = gzip.decompress((made / "image_ids" / "distractor_ids.txt.gz").read_bytes()).decode().splitlines()
    assert ids[0] == "yfcc100m_0000.tar/7000000000"
    assert len(ids) == sum(row.status == "stored" for row in rows_of(made).values())
    tars = sorted((made / "yfcc100m").glob("*.tar"))
    keys = [f"{tar.name}/{key}" for tar in tars for key, _ in TarReader(tar)]
    assert keys == ids
    (made / "ilias_core").rmdir()


def test_nothing_is_left_over(made: Path) -> None:
    assert left_over(made) == []


# independent of who does it, and when


@pytest.mark.parametrize(("workers", "connections"), [(1, 3), (8, 40)])
@pytest.mark.usefixtures("own_processes")
def test_bytes_do_not_depend_on_workers(
    world: World, made: Path, tmp_path: Path, workers: int, connections: int
) -> None:
    ingest([world.table], tmp_path / "set", SMALL, access=world.access(connections=connections), workers=workers)
    assert_same(tmp_path / "set", made)


def test_a_second_run_asks_for_nothing(world: World, made: Path) -> None:
    asked = len(world.server.log)
    before = bytes_of(made)
    found = ingest([world.table], made, SMALL, access=world.access(), workers=2)
    assert (found.asked, len(world.server.log)) == (0, asked)
    assert bytes_of(made) == before


CODE = """
import sys, json
from pathlib import Path
import test_ingest
table, root, rewrite = Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])
access = test_ingest.access_to(rewrite=rewrite, connections=6)
test_ingest.ingest([table], root, test_ingest.SMALL, access=access, workers=1)
"""


@pytest.mark.usefixtures("own_processes")
def test_killed_three_times_it_goes_on(
    world: World, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]))
    root, server = tmp_path / "set", world.server
    begun = len(server.log)

    def asked(count: int) -> Callable[[], bool]:
        return lambda: len(server.log) - begun >= count

    def is_finishing() -> bool:
        return any((root / "yfcc100m").glob(".*.partial")) or (root / "rows").is_dir()

    for moment in (asked(12), is_finishing, asked(170)):
        kill_when(moment, CODE, world.table, root, json.dumps(world.rewrite))
        done = {
            row.url
            for folder in (root / "build" / "ingest").glob("yfcc100m_*")
            for row in spooled(folder / "rows.spool").values()
            if row.status == "stored"
        } | {row.url for row in rows_of(root).values() if row.status == "stored"}
        before = len(server.log)
        time.sleep(0.2)  # what was under way when it was killed
        again = {path for _, path, _, _ in server.log[before:]}
        assert not {url for url in done if url and url.removeprefix(FLICKR) in again}
    before = len(server.log)
    found = ingest([world.table], root, SMALL, access=world.access(), workers=2)
    again = {path for _, path, _, _ in server.log[before:]}
    assert not {url for url in done if url and url.removeprefix(FLICKR) in again}
    assert found.whole
    assert_same(root, made)
    assert left_over(root) == []
    # Only what was under way when it was killed was fetched again.
    fine = [path for path in world.server.files if path not in server.always and path not in server.faults]
    counts = Counter(path for method, path, _, _ in server.log[begun:] if method == "GET")
    assert sum(counts[path] - 1 for path in fine if counts[path]) <= 3 * 6


def spooled(path: Path) -> dict[int, StoredImage]:
    if not path.exists():
        return {}
    spool = Spool(path, SMALL.per_shard)
    found = {row: spool.read(row)[0] for row in range(SMALL.per_shard) if row in spool}
    spool.close()
    return found


def test_shares_and_processes_side_by_side(world: World, made: Path, tmp_path: Path) -> None:
    root = tmp_path / "set"
    left = root / "build" / "ingest" / ".plan.0123456789ab.partial"  # of one that was killed while it read the tables
    left.mkdir(parents=True)
    (left / "ids-00").write_bytes(b"12345")
    first = ingest([world.table], root, SMALL, access=world.access(), workers=1, share=Share(1, 2))
    assert not left.exists()
    assert (first.made, first.whole, first.listed) == (1, False, False)
    assert not (root / "image_ids").exists()
    results: list[Ingested] = []

    def other() -> None:
        results.append(ingest([world.table], root, SMALL, access=world.access(), workers=1))

    thread = threading.Thread(target=other)
    thread.start()
    results.append(ingest([world.table], root, SMALL, access=world.access(), workers=1))
    thread.join()
    assert sum(one.asked for one in results) <= 100  # 94 photographs; no shard was made twice
    ingest([world.table], root, SMALL, access=world.access(), workers=1)
    assert_same(root, made)


# retry


def test_a_shard_that_is_ended_and_begun_anew_meanwhile_has_one_owner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places, shard = Places(tmp_path, "a"), PlannedShard(0, 0, START, 3)
    others: list[ShardWork] = []

    @contextmanager
    def late(folder: Path, *, output: Path) -> Iterator[None]:
        """Lock a folder that was opened before another process removed it, and a third one made it anew."""
        if others:
            with owned(folder, output=output):
                yield
            return
        folder.rename(tmp_path / "removed")
        monkeypatch.setattr(sharding, "owned", owned)
        others.append(ShardWork(places, shard))
        monkeypatch.setattr(sharding, "owned", late)
        with owned(tmp_path / "removed"):
            yield

    monkeypatch.setattr(sharding, "owned", late)
    with pytest.raises(InUseError):
        ShardWork(places, shard)
    others[0].close()


def test_what_is_retried_is_as_if_it_had_never_failed(server: FaultyServer, tmp_path: Path) -> None:
    table = table_of(tmp_path, server, 50)
    settings = IngestSettings(per_shard=20)
    ingest([table], tmp_path / "fine", settings, access=access_to(), workers=1)
    server.always |= {"/3.jpg": faults.says(404), "/25.jpg": faults.says(503), "/26.jpg": hangs_up}
    server.always |= {"/0.jpg": faults.serves(HTML), "/49.jpg": cut_with_its_length}
    root = tmp_path / "set"
    ingest([table], root, settings, access=access_to(), workers=1)
    assert bytes_of(root) != bytes_of(tmp_path / "fine")
    server.always.clear()
    server.log.clear()
    found = ingest([table], root, settings, access=access_to(), workers=1, retry=["server-error", "truncated"])
    assert gets(server) == {"/25.jpg": 1, "/49.jpg": 1}
    assert found.statuses == {"stored": 47, "gone": 1, "no-connection": 1, "not-an-image": 1}
    server.log.clear()
    ingest([table], root, settings, access=access_to(), workers=1, retry=["all-failed"])
    assert gets(server) == {"/0.jpg": 1, "/3.jpg": 1, "/26.jpg": 1}
    assert_same(root, tmp_path / "fine")
    assert left_over(root) == []


def test_a_retry_that_is_cut_off_goes_on(server: FaultyServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = table_of(tmp_path, server, 12)
    ingest([table], tmp_path / "fine", access=access_to(), workers=1)
    server.always |= {"/3.jpg": faults.says(404), "/7.jpg": faults.says(404)}
    root = tmp_path / "set"
    ingest([table], root, access=access_to(), workers=1)
    server.always.clear()
    written = ingesting.ShardWork.finish

    def dies(work: Any) -> None:
        with monkeypatch.context() as patch:
            patch.setattr("openilias.build.ingest.shards.write_rows", lambda *_: os.strerror(1) / 0)
            written(work)

    monkeypatch.setattr(ingesting.ShardWork, "finish", dies)
    with pytest.raises(TypeError):  # the tar is new, and the table is not
        ingest([table], root, access=access_to(), workers=1, retry=["gone"])
    monkeypatch.undo()
    assert not (root / "image_ids" / "distractor_ids.txt.gz").exists()
    server.log.clear()
    found = ingest([table], root, access=access_to(), workers=1)
    assert not server.log
    assert found.listed
    assert_same(root, tmp_path / "fine")


def test_a_shard_that_was_changed_is_not_merged(server: FaultyServer, tmp_path: Path) -> None:
    table = table_of(tmp_path, server, 6, served=5)
    root = tmp_path / "set"
    ingest([table], root, access=access_to(), workers=1)
    server.files["/5.jpg"] = picture(5)
    tar = root / "yfcc100m" / "yfcc100m_0000.tar"
    data = bytearray(tar.read_bytes())
    data[900] ^= 1
    tar.write_bytes(data)
    with pytest.raises(OpenIliasError, match="not what its table says"):
        ingest([table], root, access=access_to(), workers=1, retry=["gone"])
    assert tar.read_bytes() == data


def test_retry_refuses_what_is_no_status() -> None:
    with pytest.raises(OpenIliasError, match="'gnoe' is no status"):
        parse_retry(["gnoe"])
    for word in ("stored", "bad-row", "duplicate-id"):
        with pytest.raises(OpenIliasError, match="can be retried by nobody"):
            parse_retry([word])


# hosts that die


class Dead:
    """Every path of a server that has died."""

    def __contains__(self, path: object) -> bool:
        return True

    def __getitem__(self, path: str) -> faults.Fault:
        return hangs_up

    def get(self, path: str) -> faults.Fault:
        return hangs_up


def dies_after(server: FaultyServer, count: int, *, back: float | None = None) -> None:
    """Let a server die after some requests, and be back after some seconds."""
    usual = (server.always, server.heads)

    def watch() -> None:
        while len(server.log) < count:
            time.sleep(0.002)
        server.always = server.heads = Dead()  # type: ignore[assignment]
        if back is not None:
            time.sleep(back)
            server.always, server.heads = usual

    threading.Thread(target=watch, daemon=True).start()


@pytest.mark.parametrize("connections", [1, 16])
def test_a_host_that_dies_stops_the_run_and_fails_no_row(
    server: FaultyServer, tmp_path: Path, connections: int
) -> None:
    table = table_of(tmp_path, server, 60)
    ingest([table], tmp_path / "fine", access=access_to(), workers=1)
    server.log.clear()
    usual = (server.always, server.heads)
    dies_after(server, 20)
    root, access = tmp_path / "set", access_to(connections=connections)
    with pytest.raises(OpenIliasError, match="does not answer") as error:
        ingest([table], root, access=access, workers=1)
    assert "goes on from here" in str(error.value)
    server.always, server.heads = usual
    done = spooled_all(root)
    assert 0 < len(done) < 60
    assert {row.status for row in done} == {"stored"}
    server.log.clear()
    ingest([table], root, access=access, workers=1)
    assert sum(gets(server).values()) == 60 - len(done)
    assert_same(root, tmp_path / "fine")


def spooled_all(root: Path) -> list[StoredImage]:
    return [row for path in root.rglob("rows.spool") for row in spooled(path).values()]


@pytest.mark.usefixtures("own_processes")
def test_a_host_that_is_away_for_a_moment_is_waited_for(server: FaultyServer, tmp_path: Path) -> None:
    table = table_of(tmp_path, server, 60)
    dies_after(server, 20, back=0.5)
    politeness = replace(POLITE, give_up=20.0)
    found = ingest([table], tmp_path / "set", access=access_to(politeness=politeness), workers=1)
    assert found.statuses == {"stored": 60}


def test_a_host_that_knows_no_head_is_there(server: FaultyServer, tmp_path: Path) -> None:
    table = table_of(tmp_path, server, 9)
    server.heads |= dict.fromkeys(server.files, faults.says(501))
    server.always["/5.jpg"] = faults.says(503)
    found = ingest([table], tmp_path / "set", access=access_to(connections=1), workers=1)
    assert found.statuses == {"stored": 8, "server-error": 1}


def test_many_hosts_that_are_away_are_not_looked_through_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosting, "_MOST_HOSTS", 10)
    looked = 0

    class Counting(hosting.Hosts):
        def _forget(self) -> None:
            nonlocal looked
            looked += len(self._hosts)
            super()._forget()

    hosts = Counting(POLITE, QUICK)
    for number in range(1000):
        hosts.of(f"http://{number}.example/a.jpg").streak = 1
    assert looked < 2000
    assert sum(counts.requests for counts in hosts.counts().values()) == 0


def test_a_large_spool_is_opened_beside_the_work(
    server: FaultyServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Slow(ShardWork):
        def __init__(self, places: Any, shard: Any) -> None:
            if shard.number:
                time.sleep(1.5)
            super().__init__(places, shard)

    monkeypatch.setattr(ingesting, "ShardWork", Slow)
    table = table_of(tmp_path, server, 2)
    server.always["/0.jpg"] = faults.slowly(300, 0.05)
    found = ingest([table], tmp_path / "set", IngestSettings(per_shard=1), access=access_to(seconds=1.0), workers=1)
    assert found.statuses == {"stored": 2}


def test_a_host_that_never_answers_can_be_passed(server: FaultyServer, tmp_path: Path) -> None:
    table = table_of(tmp_path, server, 30)
    free = "http://localhost:9"  # nobody is there
    text = table.read_text().splitlines()
    table.write_text(
        "\n".join(
            [
                text[0].replace("url", "a,url"),
                *(f"{row.split(',')[0]},{free}/x.jpg,{row.split(',')[1]}" for row in text[1:]),
            ]
        )
    )
    columns = {"columns": {"url": ("a", "url")}}
    root = tmp_path / "set"
    settings = IngestSettings.model_validate(columns)
    with pytest.raises(OpenIliasError, match="localhost:9 does not answer"):
        ingest([table], root, settings, access=access_to(), workers=1)
    passing = access_to(politeness=replace(POLITE, dead="pass"))
    found = ingest([table], root, settings, access=passing, workers=1)
    assert found.statuses == {"no-connection": 30}
    found = ingest([table], root, settings, access=passing, workers=1, retry=["no-connection"])
    assert found.statuses == {"no-connection": 30}
    always = IngestSettings.model_validate({**columns, "second": "always"})
    assert ingest([table], tmp_path / "b", always, access=passing, workers=1).statuses == {"stored": 30}


def test_images_that_always_fail_do_not_stop_a_host_that_answers(server: FaultyServer, tmp_path: Path) -> None:
    table = table_of(tmp_path, server, 60)
    server.always |= {f"/{number}.jpg": hangs_up for number in range(10, 45)}
    found = ingest([table], tmp_path / "set", access=access_to(connections=4), workers=1)
    assert found.statuses == {"stored": 25, "no-connection": 35}


def test_the_next_url_is_asked_for_when_it_should_be(server: FaultyServer, tmp_path: Path) -> None:
    base = server.base.replace("127.0.0.1", "localhost")
    server.files["/b.jpg"] = picture(1)
    server.always |= {"/busy.jpg": faults.says(429), "/html.jpg": faults.serves(HTML)}
    table = tmp_path / "table.csv"
    table.write_text(
        "id,a,b\n" + "".join(f"{name},{base}/{name}.jpg,{base}/b.jpg\n" for name in ("busy", "html", "none"))
    )
    for second, status in (("gone", "busy"), ("always", "stored")):
        settings = IngestSettings.model_validate({"columns": {"url": ("a", "b")}, "second": second})
        ingest([table], tmp_path / second, settings, access=access_to(), workers=1)
        rows = rows_of(tmp_path / second)
        assert [row.status for row in rows.values()] == [status, "stored", "stored"]
        assert rows["none"].notes == f"{base}/none.jpg: gone (404)"


def test_a_host_that_is_left_out(server: FaultyServer, tmp_path: Path) -> None:
    table = table_of(tmp_path, server, 3)
    access = access_to(skipped=frozenset(("localhost",)))
    assert ingest([table], tmp_path / "set", access=access, workers=1).statuses == {"skipped": 3}
    assert not server.log


def test_retry_after_holds_back_the_whole_host(server: FaultyServer, tmp_path: Path) -> None:
    table = table_of(tmp_path, server, 40)
    server.faults["/5.jpg"] = [faults.says(429, Retry_After="1")]
    times: list[float] = []
    server.log = Timed(times)
    access = access_to(patience=replace(QUICK, longest_retry_after=5.0), connections=4)
    found = ingest([table], tmp_path / "set", access=access, workers=1)
    assert found.statuses == {"stored": 40}
    assert max(np.diff(sorted(times))) > 0.8


class Timed(list):  # type: ignore[type-arg]
    def __init__(self, times: list[float]) -> None:
        super().__init__()
        self.times = times

    def append(self, item: Any) -> None:
        self.times.append(time.monotonic())
        super().append(item)


def test_rate_and_connections_of_a_host(server: FaultyServer, tmp_path: Path) -> None:
    table = table_of(tmp_path, server, 30)
    times: list[float] = []
    server.log = Timed(times)
    politeness = replace(POLITE, rate=30.0)
    ingest([table], tmp_path / "set", access=access_to(politeness=politeness), workers=1)
    assert max(times) - min(times) > 29 / 30 * 0.9
    busy, most = 0, 0

    def slow(handler: Handler, data: bytes) -> None:
        nonlocal busy, most
        busy += 1
        most = max(most, busy)
        time.sleep(0.02)
        busy -= 1
        handler.well()

    server.always |= dict.fromkeys(server.files, slow)
    politeness = replace(POLITE, per_host=2)
    ingest([table], tmp_path / "b", access=access_to(politeness=politeness), workers=1)
    assert most == 2


# hostile servers and tables


@pytest.mark.parametrize("address", ["10.1.2.3", "169.254.169.254", "::ffff:192.168.0.1", "::1", "100.64.0.1"])
def test_names_that_lead_to_private_addresses(
    server: FaultyServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    async def resolve(self: Any, host: str, port: int, family: int) -> list[dict[str, Any]]:
        return [{"hostname": host, "host": address, "port": port, "family": family, "proto": 0, "flags": 0}]

    monkeypatch.setattr(addresses.ThreadedResolver, "resolve", resolve)
    table = tmp_path / "table.csv"
    table.write_text("id,url\na,http://innocent.example/a.jpg\n")
    found = ingest([table], tmp_path / "set", access=access_to(), workers=1)
    assert found.statuses == {"refused": 1}
    assert f"innocent.example leads to {address}" in (rows_of(tmp_path / "set")["a"].notes or "")


def test_a_row_of_thousands_of_urls_has_notes_that_fit(server: FaultyServer, tmp_path: Path) -> None:
    server.files["/a.jpg"] = picture(1)
    urls = [f"http://127.0.0.1/{'x' * 1000}{number}" for number in range(900)]
    table, base = tmp_path / "table.jsonl", server.base.replace("127.0.0.1", "localhost")
    table.write_text(json.dumps({"id": "a", "url": [*urls, f"{base}/a.jpg"]}) + "\n")
    ingest([table], tmp_path / "set", access=access_to(), workers=1)
    row = rows_of(tmp_path / "set")["a"]
    assert row.status == "stored"
    assert 1000 < len(row.notes or "") < 11_000


def test_private_urls_in_the_table_are_refused_unless_named(server: FaultyServer, tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    server.files["/a.jpg"] = picture(1)
    urls = [f"{server.base}/a.jpg", "http://0x7f.1/a.jpg", "http://2130706433/a.jpg", "http://[::1]/a.jpg"]
    urls += ["ftp://example.org/a.jpg", "http://" + "x" * 3000 + ".com/", "http://user:word@example.org/a.jpg"]
    table.write_text("id,url\n" + "".join(f"r{number},{url}\n" for number, url in enumerate(urls)))
    ingest([table], tmp_path / "set", access=access_to(), workers=1)
    assert not server.log
    statuses = [row.status for row in rows_of(tmp_path / "set").values()]
    assert statuses == ["refused"] * 4 + ["bad-row"] * 3
    allowed = access_to(allowed=frozenset(("127.0.0.1",)))
    ingest([table], tmp_path / "b", access=allowed, workers=1)
    assert rows_of(tmp_path / "b")["r0"].status == "stored"


@pytest.mark.parametrize(
    "host",
    ["127。0。0。1", "１２７.0.0.1", "①②⑦.⓪.⓪.①", "127.1", "017700000001", "a..b", "y" * 64 + ".com", "[::1", "℀.com"],
)
def test_hosts_in_odd_spellings_are_refused_wherever_they_stand(
    server: FaultyServer, tmp_path: Path, host: str
) -> None:
    port = server.base.rpartition(":")[2]
    server.files["/secret.jpg"] = picture(1)
    server.always["/a.jpg"] = lambda handler, data: handler.wfile.write(
        f"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: http://{host}:{port}/secret.jpg\r\n\r\n".encode()
    )
    base = server.base.replace("127.0.0.1", "localhost")
    table = tmp_path / "table.csv"
    table.write_text(f"id,url\na,{base}/a.jpg\nb,http://{host}:{port}/secret.jpg\n", encoding="utf-8")
    found = ingest([table], tmp_path / "set", access=access_to(), workers=1)
    assert found.statuses == {"refused": 2}
    assert {path for _, path, *_ in server.log} == {"/a.jpg"}


def test_drips_and_slow_bodies_end(server: FaultyServer, tmp_path: Path) -> None:
    table = table_of(tmp_path, server, 2)
    server.always |= {"/0.jpg": faults.drips, "/1.jpg": faults.slowly(1024, 0.2)}
    server.files["/1.jpg"] += bytes(100_000)
    begun = time.monotonic()
    found = ingest([table], tmp_path / "set", access=access_to(seconds=1.0), workers=1)
    assert found.statuses == {"timeout": 2}
    assert time.monotonic() - begun < 8


def test_ids_that_stand_twice_or_fit_no_tar(server: FaultyServer, tmp_path: Path) -> None:
    server.files["/a.jpg"] = picture(1)
    base = server.base.replace("127.0.0.1", "localhost")
    ids = ["a", "b", "a", "ü" * 60, "c/d", "../e", "x" * 97, "x" * 96, "b", "照片"]
    table = tmp_path / "table.csv"
    table.write_text("id,url\n" + "".join(f"{name},{base}/a.jpg\n" for name in ids), encoding="utf-8")
    found = ingest([table], tmp_path / "set", IngestSettings(per_shard=4), access=access_to(), workers=1)
    assert found.statuses == {"stored": 4, "duplicate-id": 2, "bad-row": 4}
    assert gets(server) == {"/a.jpg": 4}
    again = [row.status for path in sorted((tmp_path / "set" / "rows").iterdir()) for row in read_rows(path)]
    assert [number for number, status in enumerate(again) if status == "duplicate-id"] == [2, 8]


@pytest.mark.usefixtures("own_processes")
def test_a_decoder_that_crashes_or_hangs_costs_its_image(monkeypatch: pytest.MonkeyPatch) -> None:
    def make(job: tuple[bytes, NormaliseSettings]) -> object:
        if job[0] == b"crash":
            os.abort()
        if job[0] == b"hang":
            time.sleep(60)
        return job[0]

    monkeypatch.setattr("openilias.build.ingest.decoders.make", make)

    async def work() -> list[object]:
        async with Decoders(2, timeout=1.0) as decoders:
            jobs = [b"1", b"crash", b"2", b"hang", b"3", b"4"]
            return list(await asyncio.gather(*(decoders(job, NormaliseSettings()) for job in jobs)))

    one, crash, two, hang, three, four = asyncio.run(work())
    assert [one, two, three, four] == [b"1", b"2", b"3", b"4"]
    assert isinstance(crash, Unusable)
    assert isinstance(hang, Unusable)
    assert (crash.status, hang.status) == ("crash", "hang")


# tables and plans


def test_decoders_that_are_given_up_say_nothing(tmp_path: Path) -> None:
    """In a process of its own: threads of the pool write to its stderr."""
    (tmp_path / "a.jpg").write_bytes(picture(1, (1500, 1500)))
    script = """
import asyncio, pathlib, sys
from openilias.build.ingest.decoders import Decoders
from openilias.build.normalise import NormaliseSettings

async def many():
    data = pathlib.Path(sys.argv[1]).read_bytes()
    async with Decoders(1, timeout=60) as decoders, asyncio.TaskGroup() as group:
        await decoders(data, NormaliseSettings())
        for _ in range(8):
            group.create_task(decoders(data, NormaliseSettings()))
        await asyncio.sleep(0.1)
        raise ValueError

try:
    asyncio.run(many())
except* ValueError:
    print("ended")
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "a.jpg")], capture_output=True, text=True, timeout=120
    )
    assert (done.stdout, done.stderr) == ("ended\n", "")


def test_a_plan_depends_on_the_tables_alone_and_can_be_entered_anywhere(world: World, tmp_path: Path) -> None:
    import bz2

    packed = tmp_path / "dataset.bz2"
    packed.write_bytes(bz2.compress(world.table.read_bytes()))
    tables = [open_table(packed), open_table(world.table)]
    make_plan(tables, per_shard=50, limit=250, folder=tmp_path / "plan", told=lambda _: None)
    plan = read_plan(tmp_path / "plan")
    assert [shard.rows for shard in plan.shards] == [50] * 5
    assert (plan.rows, plan.bad) == (250, 7)
    assert [shard.table for shard in plan.shards] == [0, 0, 0, 0, 1]
    whole = [row.where for shard in plan.shards for row in Reader(tables).rows(shard)]
    assert len(set(whole)) == 250
    reader = Reader(tables)
    for order in ([4, 0, 2, 1, 3], [0, 1, 2, 3, 4], [1, 3]):
        for number in order:
            rows = [row.where for row in reader.rows(plan.shards[number])]
            assert rows == whole[50 * number : 50 * number + 50]
    first = 154  # rows of the first table: the second has the same ids again
    assert plan.duplicates.tolist() == [row for row in range(first, 250) if row not in bad_of(tables, plan)]


def bad_of(tables: Any, plan: Any) -> set[int]:
    rows = [row for shard in plan.shards for row in Reader(tables).rows(shard)]
    return {number for number, row in enumerate(rows) if type(row).__name__ == "Bad"}


def test_rows_are_streamed(server: FaultyServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = table_of(tmp_path, server, 150)
    read = done = most = 0
    rows, add = Reader.rows, Spool.add

    def counted(self: Reader, shard: Any) -> Iterator[Any]:
        nonlocal read, most
        for row in rows(self, shard):
            read += 1
            most = max(most, read - done)
            yield row

    def added(self: Spool, *given: Any) -> None:
        nonlocal done
        done += 1
        add(self, *given)

    monkeypatch.setattr(Reader, "rows", counted)
    monkeypatch.setattr(Spool, "add", added)
    monkeypatch.setattr(ingesting, "_BATCH", 20)
    access = access_to(connections=4)
    ingest([table], tmp_path / "set", IngestSettings(per_shard=70), access=access, workers=1)
    assert read == done == 150
    assert most <= 20 + 4 + 4 + 1


def test_a_spool_is_cut_back_to_its_last_whole_entry(tmp_path: Path) -> None:
    path = tmp_path / "spool"
    spool = Spool(path, 5)
    spool.add(3, StoredImage("a", "stored", notes="\udc80"), b"jpeg")
    whole = path.stat().st_size
    spool.add(1, StoredImage("b", "gone"))
    spool.close()
    data = path.read_bytes()
    for end in (whole, whole + 1, whole + 25, len(data) - 1):
        path.write_bytes(data[:end])
        spool = Spool(path, 5)
        assert (3 in spool, 1 in spool, len(spool)) == (True, False, 1)
        assert spool.read(3) == (StoredImage("a", "stored", notes="\udc80"), b"jpeg")
        spool.add(0, StoredImage("c", "gone"))
        spool.close()
        assert len(Spool(path, 5)) == 2
    path.write_bytes(data[:whole] + b"\x00" * 4096)
    assert len(Spool(path, 5)) == 1
    path.write_bytes(data[: whole - 2] + b"xx" + data[whole:])
    assert len(Spool(path, 5)) == 0


# the command

OPTIONS = """
    --name n --per-shard 7 --limit 9 --column url=a --column url=b --column id=c --kind csv --longest 300 --quality 80
    --balance white-patch --balance-limit 2 --resample lanczos --damaged refuse --least-side 20 --reencode --most-mb 3
    --second always --workers 3 --connections 5 --per-host 4 --rate 8 --retries 6 --stall 11 --seconds 12 --give-up 13
    --dead-hosts pass --skip-host X.org --allow-host Y.org --rewrite a=b=c --retry gone --retry busy --shard 1/2
"""


def test_every_option_arrives(tmp_path: Path, ilias: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch) -> None:
    came: dict[str, Any] = {}

    def seen(tables: Any, out: Any, settings: Any, **given: Any) -> Ingested:
        came.update(given, tables=tables, settings=settings)
        return Ingested(tmp_path, 1, 1, 0, 1, 0, {"stored": 1}, 5)

    monkeypatch.setattr(ingesting, "ingest", seen)
    outcome = ilias("build", "ingest", "t.csv", "u.csv", "--out", tmp_path, *OPTIONS.split())
    assert outcome.code == 0, outcome.err
    assert came["tables"] == [Path("t.csv"), Path("u.csv")]
    assert came["settings"].model_dump() == {
        "name": "n", "per_shard": 7, "limit": 9, "kind": "csv", "second": "always", "most_bytes": 3 * 2**20,
        "columns": dict.fromkeys(("licence", "licence_url", "author", "page_url", "camera", "taken"))
        | {"url": ("a", "b"), "id": "c"},
        "normalise": NormaliseSettings().model_dump()
        | {"longest": 300, "quality": 80, "resample": "lanczos", "damaged": "refuse", "least_side": 20}
        | {"skip_reencode": False}
        | {"balance": {**NormaliseSettings().balance.model_dump(), "method": "white-patch", "limit": 2.0}},
    }  # fmt: skip
    assert (came["workers"], came["share"], came["retry"]) == (3, Share(1, 2), ["gone", "busy"])
    access = came["access"]
    assert access.politeness == Politeness(per_host=4, rate=8.0, give_up=13.0, dead="pass")
    assert access.patience == Patience(retries=6, stall=11.0)
    assert (access.connections, access.seconds, access.rewrite) == (5, 12.0, {"a": "b=c"})
    assert (access.allowed, access.skipped) == (frozenset(("y.org",)), frozenset(("x.org",)))
    shown = ilias("build", "ingest", "--help")
    assert "Example: ilias build ingest" in " ".join(shown.out.split())


def test_the_command(world: World, made: Path, tmp_path: Path, ilias: Callable[..., Outcome]) -> None:
    rewrite = [word for start, other in world.rewrite.items() for word in ("--rewrite", f"{start}={other}")]
    common = [world.table, "--out", tmp_path / "set", "--per-shard", 60, "--most-mb", 1, "--allow-host", "localhost"]
    common += rewrite
    polite = ["--retries", 1, "--stall", 0.4, "--rate", 0, "--workers", 1, "--connections", 16]
    dry = ilias("build", "ingest", *common, "--dry-run", "--json", tmp_path / "dry.json")
    assert dry.code == 0, dry.err
    assert "150 photographs in 3 shards; 4 videos are passed over, 4 records cannot be used" in dry.out
    assert json.loads((tmp_path / "dry.json").read_text())["shards"] == 3
    assert not (tmp_path / "set").exists()
    done = ilias("build", "ingest", *common, *polite, "--shard", "2/3", "--json", tmp_path / "done.json")
    assert done.code == 0, done.err
    assert "1 of 3 shards" in done.out
    assert "localhost" in done.out
    value = json.loads((tmp_path / "done.json").read_text())
    assert value["statuses"]["stored"] == sum(
        row.status == "stored" for row in read_rows(made / "rows" / "yfcc100m_0002.parquet")
    )
    said = ilias("build", "ingest", "--out", tmp_path / "set", "--status")
    assert said.code == 0
    assert "1 of 3 shards" in said.out
    assert status_of(made).whole
    other = ilias("build", "ingest", *common, *polite, "--quality", 80)
    assert other.code == 2
    assert "settings.normalise.quality: 90 -> 80" in other.err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("{table} --out {new} --retry gnoe", "'gnoe' is no status"),
        ("{table} --out {new} --shard 3/3", "Expected a shard"),
        ("{table} --out {new} --name a/b", "name: String should match"),
        ("{table} --out {new} --longest 5", "longest: Input should be greater"),
        ("{table} --out {new} --column nothing", "--column 'nothing' is not two words"),
        ("{table} --out {new} --column link=url", "link: Extra inputs"),
        ("{table} --out {new} --column url=nowhere", "no column 'nowhere'"),
        ("{table} --out {new} --rewrite a", "--rewrite 'a' is not two words"),
        ("{table} --out {new} --allow-host localhost:8000", "--allow-host 'localhost:8000' is no host"),
        ("{table} --out {new} --skip-host http://a.org/", "--skip-host 'http://a.org/' is no host"),
        ("{table} {table} --out {new}", "stands twice"),
        ("{table} {second} --out {new}", "has no ids"),
        ("{text} --out {new}", "no table that is known"),
        ("{empty} --out {new}", "No row of this table can be used"),
        ("{missing} --out {new}", "No such file"),
        ("{loop} --out {new}", "Too many levels of symbolic links"),
        ("{table} --out {table}", "is a file"),
        ("{table} --out {full}", "not made by this ingest"),
        ("--out {new}", "There is no table"),
        ("--out {new} --status", "no ingest here"),
        ("{table} --out {new} --dry-run --retry gone", "--retry reads only the tables"),
    ],
)
def test_wrong_input_is_told_and_nothing_is_written(
    tmp_path: Path, ilias: Callable[..., Outcome], words: str, told: str
) -> None:
    names = {"table": "t.csv", "second": "s.csv", "text": "t.txt", "empty": "e.csv", "missing": "m.csv"}
    paths = {name: tmp_path / file for name, file in names.items()}
    paths["table"].write_text("id,url\na,http://localhost:9/a.jpg\n")
    paths["second"].write_text("url\nhttp://localhost:9/a.jpg\n")
    paths["text"].write_text("hello")
    paths["empty"].write_text("id,url\n")
    paths |= {"new": tmp_path / "new", "full": tmp_path / "full"}
    paths["loop"] = tmp_path / "l.csv"
    paths["loop"].symlink_to("l.csv")
    (tmp_path / "full" / "yfcc100m").mkdir(parents=True)
    (tmp_path / "full" / "yfcc100m" / "a.tar").write_bytes(b"")
    outcome = ilias("build", "ingest", *(word.format(**paths) for word in words.split(" ")))
    assert outcome.code == 2
    assert told in outcome.err.replace("\n", " ")
    assert not (tmp_path / "new").exists()


def test_too_few_open_files_are_told_before_any_row_fails(
    server: FaultyServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = table_of(tmp_path, server, 2)
    allowed: list[tuple[int, int]] = []
    monkeypatch.setattr(ingesting.resource, "setrlimit", lambda which, limits: allowed.append(limits))
    monkeypatch.setattr(ingesting.resource, "getrlimit", lambda which: (100, 200))
    with pytest.raises(OpenIliasError, match="300 connections need 408 open files, and this process may have 200"):
        ingest([table], tmp_path / "set", access=access_to(connections=300), workers=1)
    assert not server.log
    assert ingest([table], tmp_path / "set", access=access_to(connections=64), workers=1).statuses == {"stored": 2}
    assert allowed == [(172, 200)]


def test_a_table_that_could_not_be_read_binds_nobody(server: FaultyServer, tmp_path: Path) -> None:
    good, cut, out = table_of(tmp_path, server, 3), tmp_path / "cut.csv.gz", tmp_path / "set"
    cut.write_bytes(gzip.compress(good.read_bytes() * 50)[:-10])
    (out / "ilias_core").mkdir(parents=True)
    with pytest.raises(OpenIliasError, match="read to its end"):
        ingest([cut], out, access=access_to(), workers=1)
    assert [path.name for path in out.rglob("*")] == ["ilias_core"]
    assert ingest([good], out, access=access_to(), workers=1).statuses == {"stored": 3}
    (out / "build" / "ingest" / "plan" / "plan.json").unlink()
    (out / "build" / "ingest" / "plan" / "duplicates.npy").unlink()
    (out / "build" / "ingest" / "plan").rmdir()  # but shards do
    with pytest.raises(OpenIliasError, match="made from something else"):
        ingest([good], out, SMALL, access=access_to(), workers=1)
    assert ingest([good], out, access=access_to(), workers=1).asked == 0
